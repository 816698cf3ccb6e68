"""The raw ops behind the losses of one logit per (row, class): quality focal loss and sigmoid focal loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .. import _autograd, _native
from .._reduce import for_core

# gfl_class_formula in csrc/gfl.h
QUALITY_FOCAL, QUALITY_FOCAL_PROBABILITY, SIGMOID_FOCAL = 0, 1, 2

ARGUMENTS = (
    "Tensor pred, int kind, float scale, SymInt count, Tensor? avg_factor, Tensor? target, Tensor? label, "
    "Tensor? score, Tensor? weight, int formula, float exponent, float alpha"
)


def _run(
    grad_loss: Tensor | None,
    loss: Tensor | None,
    grad: Tensor | None,
    pred: Tensor,
    kind: int,
    scale: float,
    count: int,
    avg_factor: Tensor | None,
    target: Tensor | None,
    label: Tensor | None,
    score: Tensor | None,
    weight: Tensor | None,
    formula: int,
    exponent: float,
    alpha: float,
) -> None:
    core, device = _native.core_for(pred)
    rows, cols = pred.shape
    workspace = _native.workspace(core, device, rows, cols, pred) if loss is not None else None
    core.class_loss(
        grad_loss is not None,
        device,
        formula,
        exponent,
        alpha,
        rows,
        cols,
        _native.matrix(pred),
        _native.matrix(target),
        _native.address(label),
        4 if label is None else _native.dtype_code(label),
        _native.address(score),
        _native.matrix(weight),
        _native.matrix(grad_loss),
        for_core(kind, scale, count, avg_factor),
        _native.address(loss),
        _native.matrix(grad),
        _native.address(workspace),
    )


_OPS = _autograd.register_loss("class_loss", ARGUMENTS, _run)


def class_loss(op: str) -> Callable[..., Tensor]:
    return _autograd.fused_loss(op, _OPS)


def kernel_labels(label: Tensor) -> Tensor:
    """int64 and int32 go in as they are, the small types widened."""
    return (label if label.dtype in (torch.int64, torch.int32) else label.long()).contiguous()


def kernel_target(target: Tensor, pred: Tensor) -> Tensor:
    """A dense target keeps pred's dtype or the compute type; any other becomes the compute type."""
    compute = _native.compute_dtype(pred)
    return target if target.dtype in (pred.dtype, compute) else target.to(compute)


def kernel_vector(vector: Tensor | None, pred: Tensor) -> Tensor | None:
    """A small input in the compute type, contiguous."""
    return None if vector is None else vector.to(_native.compute_dtype(pred)).contiguous()
