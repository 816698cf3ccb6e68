"""The class loss of a dense head on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from .._class_loss import QUALITY_FOCAL, SIGMOID_FOCAL, SOFT_CROSS_ENTROPY, varifocal
from .._multilevel_class_loss import MULTILEVEL_CLASS_LOSS, MultilevelLossOp, run_loss

KINDS = {
    "soft_bce": SOFT_CROSS_ENTROPY,
    "quality_focal": QUALITY_FOCAL,
    "varifocal": varifocal(True, False),
    "sigmoid_focal": SIGMOID_FOCAL,
}
_LOSS = MultilevelLossOp("class_loss_maps", MULTILEVEL_CLASS_LOSS)


def class_loss_maps(
    preds: Sequence[Tensor],
    labels: Tensor,
    scores: Tensor | None,
    kind: str,
    gamma: float,
    alpha: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    loss: MultilevelLossOp = _LOSS,
) -> Tensor:
    return run_loss(loss, preds, labels, scores, reduction, avg_factor, KINDS[kind], gamma, alpha)
