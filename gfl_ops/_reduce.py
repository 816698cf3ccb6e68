"""The reduction that every loss shares."""

from __future__ import annotations

from torch import Tensor

FLOAT32_EPS = 1.1920928955078125e-07


def reduce_loss(loss: Tensor, weight: Tensor | None, reduction: str, avg_factor: float | Tensor | None) -> Tensor:
    """none | mean | sum of loss * weight; with avg_factor the mean is sum / (avg_factor + float32's eps)."""
    if weight is not None:
        loss = loss * weight.to(loss.dtype)
    if reduction == "none":
        return loss
    if reduction == "sum":
        return loss.sum()
    if avg_factor is None:
        return loss.sum() / max(loss.numel(), 1)  # the mean of nothing is 0, attached to the graph
    if isinstance(avg_factor, Tensor):
        avg_factor = avg_factor.reshape(()).to(loss.dtype)
    return loss.sum() / (avg_factor + FLOAT32_EPS)
