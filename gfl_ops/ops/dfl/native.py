"""Distribution focal loss on the compiled core."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _autograd, _native
from ..._library import register
from ..._reduce import ROWS, for_core, for_kernel
from .._class_loss import kernel_vector

_ARGUMENTS = (
    "Tensor pred, int kind, float scale, SymInt count, Tensor? avg_factor, Tensor target, Tensor? weight, "
    "Tensor? bin_values, Tensor? left_weight, Tensor? right_weight, float first_bin"
)


def _loss_like(pred: Tensor, kind: int) -> Tensor:
    size = pred.shape[:1] if kind == ROWS else ()
    return torch.empty(size, dtype=_native.compute_dtype(pred), device=pred.device)


def _run(
    grad_loss: Tensor | None,
    loss: Tensor | None,
    grad: Tensor | None,
    pred: Tensor,
    kind: int,
    scale: float,
    count: int,
    avg_factor: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    bin_values: Tensor | None,
    left_weight: Tensor | None,
    right_weight: Tensor | None,
    first_bin: float,
) -> None:
    core, device = _native.core_for(pred)
    rows, bins = pred.shape
    workspace = _native.workspace(core, device, rows, bins, pred) if loss is not None else None
    core.dfl(
        grad_loss is not None,
        device,
        rows,
        bins,
        _native.bins_of_rows(pred),
        _native.address(target),
        _native.address(bin_values),
        first_bin,
        _native.address(left_weight),
        _native.address(right_weight),
        _native.address(weight),
        _native.flat(grad_loss),
        for_core(kind, scale, count, avg_factor),
        _native.address(loss),
        None if grad is None else _native.bins_of_rows(grad),
        _native.address(workspace),
    )


def _forward(pred: Tensor, kind: int, *args: object) -> tuple[Tensor, Tensor]:
    *args, with_grad = args  # type: ignore[assignment]
    loss = _loss_like(pred, kind)
    grad = torch.empty_like(pred) if with_grad else None
    _run(None, loss, grad, pred, kind, *args)  # type: ignore[arg-type]
    return loss, pred.new_empty(0) if grad is None else grad


def _forward_fake(pred: Tensor, kind: int, *args: object) -> tuple[Tensor, Tensor]:
    return _loss_like(pred, kind), torch.empty_like(pred) if args[-1] else pred.new_empty(0)


def _backward(grad_loss: Tensor, pred: Tensor, *args: object) -> Tensor:
    grad = torch.empty_like(pred)
    _run(grad_loss, None, grad, pred, *args)  # type: ignore[arg-type]
    return grad


def _backward_fake(grad_loss: Tensor, pred: Tensor, *args: object) -> Tensor:
    return torch.empty_like(pred)


_loss = _autograd.fused_loss(
    "distribution_focal_loss",
    register(f"dfl_forward({_ARGUMENTS}, bool with_grad) -> (Tensor, Tensor)", _forward, _forward_fake),
    register(f"dfl_backward(Tensor grad_loss, {_ARGUMENTS}) -> Tensor", _backward, _backward_fake),
)


def distribution_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    first_bin: float,
    bin_values: Tensor | None,
    left_weight: Tensor | None,
    right_weight: Tensor | None,
    loss_weight: float,
) -> Tensor:
    rows = target.numel()
    how = for_kernel(reduction, avg_factor, pred, rows, loss_weight)
    vectors = [
        None if vector is None else kernel_vector(vector.reshape(-1), pred)
        for vector in (target, weight, bin_values, left_weight, right_weight)
    ]
    flat = pred if pred.ndim == 2 else pred.reshape(rows, pred.shape[-1])
    loss = _loss(flat, *how, *vectors, float(first_bin))
    return loss.reshape(target.shape) if reduction == "none" else loss
