"""Binary cross entropy with soft targets over levels on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._class_loss import SOFT_CROSS_ENTROPY
from .._multilevel_class_loss import MULTILEVEL_CLASS_LOSS, MultilevelLossOp, run_loss

_LOSS = MultilevelLossOp("multilevel_soft_bce_loss", MULTILEVEL_CLASS_LOSS)


def multilevel_soft_bce_loss(
    preds: Sequence[Tensor],
    labels: Tensor,
    scores: Tensor,
    reduction: str,
    avg_factor: float | Tensor | None,
    loss: MultilevelLossOp = _LOSS,
) -> Tensor:
    return run_loss(loss, preds, labels, scores, reduction, avg_factor, SOFT_CROSS_ENTROPY)
