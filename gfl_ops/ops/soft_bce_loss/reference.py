"""Binary cross entropy with soft targets: -t log p - (1 - t) log(1 - p), element by element."""

from __future__ import annotations

from torch import Tensor

from ..._reduce import reduce_loss
from .._class_targets import beside_elements, score_at_label
from .._formulas import bce_with_logits, widen


def soft_bce_loss(
    pred: Tensor,
    target: Tensor | tuple[Tensor, Tensor],
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    x = widen(pred)
    t = (target if isinstance(target, Tensor) else score_at_label(*target, pred.shape[1])).to(x.dtype)
    loss = bce_with_logits(x, t)
    if class_weight is not None:
        loss = loss * class_weight.to(loss.dtype)
    return reduce_loss(loss, beside_elements(weight, loss), reduction, avg_factor)
