"""Arguments in the form that kernels take them."""

from __future__ import annotations

import torch
from torch import Tensor

from ._reduce import FLOAT32_EPS

# gfl_reduction_mode in csrc/gfl.h
SUM, ROWS, ELEMENTS = 0, 1, 2
Reduction = tuple[int, float, int, Tensor | None]  # gfl_reduction: mode, scale, divisor, avg_factor


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """What the kernels compute in: float32 for the half types, float64 for itself."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def reduction(
    name: str,
    avg_factor: float | Tensor | None,
    pred: Tensor,
    divisor: int,
    loss_weight: float = 1.0,
    unreduced: int = ROWS,
) -> Reduction:
    """Every loss is multiplied by scale / divisor, and divided by avg_factor + eps where that is a tensor."""
    if name == "none":
        return unreduced, loss_weight, 1, None
    if name == "sum":
        return SUM, loss_weight, 1, None
    if avg_factor is None:
        return SUM, loss_weight, divisor, None
    if isinstance(avg_factor, Tensor):
        if avg_factor.device == pred.device:
            return SUM, loss_weight, 1, _without_eps(avg_factor, compute_dtype(pred))
        # A CPU tensor beside a CUDA one: reading it waits for nothing. It is added to in its own type.
        return SUM, loss_weight / (avg_factor.reshape(()) + FLOAT32_EPS).item(), 1, None
    return SUM, loss_weight / (avg_factor + FLOAT32_EPS), 1, None


def _without_eps(avg_factor: Tensor, dtype: torch.dtype) -> Tensor:
    """What a kernel adds eps to. PyTorch adds it in the factor's own type, where it is lost from 2 upwards in float32;
    in float64 alone that shows."""
    avg_factor = avg_factor.reshape(())
    if dtype == torch.float64 != avg_factor.dtype:
        return (avg_factor + FLOAT32_EPS).to(dtype) - FLOAT32_EPS
    return avg_factor.to(dtype)


def labels(label: Tensor) -> Tensor:
    """int64 and int32 go in as they are, the small types widened."""
    return (label if label.dtype in (torch.int64, torch.int32) else label.long()).contiguous()


def target(value: Tensor, pred: Tensor) -> Tensor:
    """A dense target keeps pred's dtype or the compute type; any other becomes the compute type."""
    compute = compute_dtype(pred)
    return value if value.dtype in (pred.dtype, compute) else value.to(compute)


def vector(value: Tensor | None, pred: Tensor) -> Tensor | None:
    """A small input in the compute type, contiguous."""
    return None if value is None else value.to(compute_dtype(pred)).contiguous()
