"""The reduction that every loss shares."""

from __future__ import annotations

import numbers
from typing import NamedTuple

import torch
from torch import Tensor

from . import _check
from ._native import compute_dtype

FLOAT32_EPS = 1.1920928955078125e-07

# gfl_reduction_kind in csrc/gfl.h
SUM, ROWS, ELEMENTS = 0, 1, 2


class Reduction(NamedTuple):
    """How a kernel reduces: `kind`, and every loss times scale / divisor / (avg_factor + eps)."""

    kind: int
    scale: float
    divisor: int
    avg_factor: Tensor | None


def check(op: str, reduction: str, avg_factor: float | Tensor | None, pred: Tensor) -> None:
    _check.choice(op, "reduction", reduction, ("none", "mean", "sum"))
    if avg_factor is None:
        return
    if reduction == "sum":
        raise ValueError(f"{op}: avg_factor cannot be used with reduction 'sum', got {avg_factor}")
    if isinstance(avg_factor, Tensor):
        if avg_factor.numel() != 1:
            raise ValueError(f"{op}: avg_factor must be a number or one value, got shape {tuple(avg_factor.shape)}")
        if avg_factor.is_complex() or avg_factor.layout != torch.strided:
            raise TypeError(f"{op}: avg_factor must be real and dense, got {avg_factor.dtype}, {avg_factor.layout}")
        _check.detached(op, "avg_factor", avg_factor)
        if avg_factor.device != pred.device and avg_factor.device.type != "cpu":
            _check.same_device(op, "avg_factor", avg_factor, pred)
    elif not isinstance(avg_factor, numbers.Real):
        raise TypeError(f"{op}: avg_factor must be a number or a tensor, got {type(avg_factor).__name__}")
    else:
        _check.not_huge(op, "avg_factor", avg_factor)


def for_kernel(
    reduction: str,
    avg_factor: float | Tensor | None,
    pred: Tensor,
    count: int,
    loss_weight: float,
    unreduced: int = ROWS,
) -> Reduction:
    if reduction == "none":
        return Reduction(unreduced, loss_weight, 1, None)
    if reduction == "sum":
        return Reduction(SUM, loss_weight, 1, None)
    if avg_factor is None:
        return Reduction(SUM, loss_weight, count, None)
    if isinstance(avg_factor, Tensor):
        if avg_factor.device == pred.device:
            return Reduction(SUM, loss_weight, 1, _without_eps(avg_factor, compute_dtype(pred)))
        avg_factor = avg_factor.item()  # a CPU tensor beside a CUDA one: reading it waits for nothing
    return Reduction(SUM, loss_weight / (avg_factor + FLOAT32_EPS), 1, None)


def _without_eps(avg_factor: Tensor, dtype: torch.dtype) -> Tensor:
    """What a kernel adds eps to. PyTorch adds it in the factor's own type, where it is lost from 2 upwards in float32;
    in float64 alone that shows."""
    avg_factor = avg_factor.reshape(())
    if dtype == torch.float64 != avg_factor.dtype:
        return (avg_factor + FLOAT32_EPS).to(dtype) - FLOAT32_EPS
    return avg_factor.to(dtype)


def for_core(kind: int, scale: float, count: int, avg_factor: Tensor | None) -> tuple[int, float, int]:
    """gfl_reduction; the mean of nothing is 0."""
    return kind, scale / max(count, 1), 0 if avg_factor is None else avg_factor.data_ptr()


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
