"""The unified generalized focal loss on the compiled core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import _autograd, _native
from ..._library import register
from ..._reduce import ROWS, for_core, for_kernel

_ARGUMENTS = (
    "Tensor p_left, Tensor p_right, int kind, float scale, SymInt count, Tensor? avg_factor, Tensor y, Tensor y_left, "
    "Tensor y_right, Tensor? weight, float beta"
)


def _run(
    grad_loss: Tensor | None,
    loss: Tensor | None,
    grads: tuple[Tensor | None, Tensor | None],
    p_left: Tensor,
    p_right: Tensor,
    kind: int,
    scale: float,
    count: int,
    avg_factor: Tensor | None,
    y: Tensor,
    y_left: Tensor,
    y_right: Tensor,
    weight: Tensor | None,
    beta: float,
) -> None:
    core, device = _native.core_for(p_left)
    size = p_left.numel()
    workspace = _native.workspace(core, device, size, 4, p_left) if loss is not None else None
    core.generalized_focal_loss(
        grad_loss is not None,
        device,
        size,
        _native.dtype_code(p_left),
        beta,
        _native.flat(p_left),
        _native.flat(p_right),
        _native.flat(y),
        _native.flat(y_left),
        _native.flat(y_right),
        _native.flat(weight),
        _native.flat(grad_loss),
        for_core(kind, scale, count, avg_factor),
        _native.address(loss),
        _native.address(grads[0]),
        _native.address(grads[1]),
        _native.address(workspace),
    )


def register_ops(name: str, run: Callable[..., None]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """gfl_ops::<name>_forward and _backward from run(grad_loss, loss, grads, p_left, p_right, ...)."""

    def forward_fake(p_left: Tensor, p_right: Tensor, kind: int, *args: object) -> Tensor:
        size = p_left.shape if kind == ROWS else ()
        return torch.empty(size, dtype=_native.compute_dtype(p_left), device=p_left.device)

    def forward(p_left: Tensor, p_right: Tensor, kind: int, *args: Any) -> Tensor:
        loss = forward_fake(p_left, p_right, kind)
        run(None, loss, (None, None), p_left, p_right, kind, *args)
        return loss

    def backward_fake(grad_loss: Tensor, p_left: Tensor, p_right: Tensor, *args: object) -> tuple[Tensor, Tensor]:
        return torch.empty_like(p_left), torch.empty_like(p_right)

    def backward(grad_loss: Tensor, p_left: Tensor, p_right: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        grads = backward_fake(grad_loss, p_left, p_right)
        run(grad_loss, None, grads, p_left, p_right, *args)
        return grads

    return (
        register(f"{name}_forward({_ARGUMENTS}) -> Tensor", forward, forward_fake),
        register(f"{name}_backward(Tensor grad_loss, {_ARGUMENTS}) -> (Tensor, Tensor)", backward, backward_fake),
    )


def fused_loss(forward_op: Callable[..., Any], backward_op: Callable[..., Any]) -> Callable[..., Tensor]:
    """loss(p_left, p_right, *reduction, y, y_left, y_right, weight, beta)"""

    class GeneralizedFocal(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any,
            p_left: Tensor,
            p_right: Tensor,
            kind: int,
            scale: float,
            count: int,
            avg_factor: Tensor | None,
            y: Tensor,
            y_left: Tensor,
            y_right: Tensor,
            weight: Tensor | None,
            beta: float,
        ) -> Tensor:
            ctx.reduction = (kind, scale, count)
            ctx.beta = beta
            ctx.save_for_backward(p_left, p_right, avg_factor, y, y_left, y_right, weight)
            return forward_op(p_left, p_right, kind, scale, count, avg_factor, y, y_left, y_right, weight, beta)

        @staticmethod
        def backward(ctx: Any, grad_loss: Tensor) -> Any:
            p_left, p_right, *tensors = ctx.saved_tensors
            grads = backward_op(grad_loss, p_left, p_right, *ctx.reduction, *tensors, ctx.beta)
            return (*_autograd.once("generalized_focal_loss", *grads), *(None,) * 9)

    def loss(p_left: Tensor, p_right: Tensor, *args: Any) -> Tensor:
        run = GeneralizedFocal.apply if _autograd.wants_gradient(p_left, p_right) else forward_op
        return run(p_left, p_right, *args)

    return loss


_loss = fused_loss(*register_ops("generalized_focal_loss", _run))


def generalized_focal_loss(
    p_left: Tensor,
    p_right: Tensor,
    y: Tensor,
    y_left: Tensor,
    y_right: Tensor,
    beta: float,
    weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    fused: Callable[..., Tensor] = _loss,
) -> Tensor:
    """All inputs but the probabilities are vectors like them, or hold one value."""
    shape = p_left.shape
    how = for_kernel(reduction, avg_factor, p_left, p_left.numel(), 1.0)
    p_left, p_right = p_left.reshape(-1), p_right.reshape(-1)
    loss = fused(p_left.contiguous(), p_right.contiguous(), *how, y, y_left, y_right, weight, float(beta))
    return loss.reshape(shape) if reduction == "none" else loss
