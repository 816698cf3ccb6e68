"""The reduction of the references' losses."""

from __future__ import annotations

from torch import Tensor

FLOAT32_EPS = 1.1920928955078125e-07


def reduce_loss(loss: Tensor, weight: Tensor | None, reduction: str, avg_factor: float | Tensor | None) -> Tensor:
    """The reference: none | mean | sum of loss * weight; with avg_factor the mean is sum / (avg_factor + eps)."""
    if weight is not None:
        loss = loss * weight.to(loss.dtype)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if avg_factor is None:
        return loss.sum() / max(loss.numel(), 1)  # the mean of nothing is 0, attached to the graph
    if isinstance(avg_factor, Tensor):
        avg_factor = avg_factor.reshape(())
        return loss.sum() / (avg_factor + FLOAT32_EPS).to(loss.dtype)
    return loss.sum() / (avg_factor + FLOAT32_EPS)


def weighted(loss: Tensor, loss_weight: float) -> Tensor:
    """The reference's loss times a module's loss_weight, which the kernels fold into their scale."""
    return loss if loss_weight == 1.0 else loss * loss_weight
