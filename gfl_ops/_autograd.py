"""What the autograd functions of the fused losses share.

A float32 or float64 loss that is reduced makes its gradient in the forward, while loss and gradient share their
exponentials; the backward only multiplies it by the incoming gradient, in place, and not at all where that is 1. The
half types and unreduced losses recompute in the backward: a half gradient would be rounded twice, and under a gradient
scaler it would underflow before the scale reaches it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _native
from ._library import register
from ._reduce import ELEMENTS, ROWS, SUM


def _scale_kernel(grad: Tensor, factor: Tensor) -> None:
    core, device = _native.core_for(grad)
    core.scale_gradient(device, grad.data_ptr(), _native.dtype_code(grad), grad.numel(), factor.data_ptr())


scale_in_place = register("scale_gradient_(Tensor(a!) grad, Tensor factor) -> ()", _scale_kernel, lambda *_: None)

# Absent from a torch that moved it: then every graph counts as kept, which costs a copy and is right.
keeps_graph: Callable[[], bool] = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


def wants_gradient(*tensors: Tensor) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors)


def gradient_in_forward(pred: Tensor, kind: int) -> bool:
    return kind == SUM and pred.dtype in (torch.float32, torch.float64)


def scaled(grad: Tensor, factor: Tensor, scale_in_place: Callable[..., Any] = scale_in_place) -> Tensor:
    """A gradient from the forward times the incoming one. In a graph that is kept, the saved one stays as it is."""
    if torch.compiler.is_compiling():
        return grad * factor
    if keeps_graph():
        grad = grad.clone()
    if type(factor) is Tensor and factor.is_cpu and factor.item() == 1:  # on a CPU looking is cheaper than the call
        return grad
    scale_in_place(grad, factor)
    return grad


def once(op: str, *grads: Tensor) -> Any:
    """The gradients as they leave a backward. Differentiating them again is an error, never a silent zero."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        refusal = f"{op}: a second derivative is not implemented; use_backend('reference') has one"
        barrier = torch._C._functions.DelayedError(refusal.encode(), len(grads))
        grads = barrier(*(grad.detach().requires_grad_() for grad in grads))
        return grads if isinstance(grads, tuple) else (grads,)
    return grads


class LossOps(NamedTuple):
    """The raw ops of a loss on one backend."""

    forward: Callable[..., Any]  # (pred, *args, with_grad) -> (loss, grad)
    backward: Callable[..., Any]  # (grad_loss, pred, *args) -> grad
    scale_in_place: Callable[..., Any]


def register_loss(
    name: str, arguments: str, run: Callable[..., None], scale_in_place: Callable[..., Any] = scale_in_place
) -> LossOps:
    """gfl_ops::<name>_forward and _backward from run(grad_loss, loss, grad, pred, kind, ...), which writes into the
    loss of a forward and into the gradient where there is one. `arguments` begin with pred and the reduction."""

    def loss_like(pred: Tensor, kind: int) -> Tensor:
        size = {ROWS: pred.shape[:1], ELEMENTS: pred.shape}.get(kind, ())
        return torch.empty(size, dtype=_native.compute_dtype(pred), device=pred.device)

    def forward(pred: Tensor, kind: int, *args: Any) -> tuple[Tensor, Tensor]:
        *args, with_grad = args  # type: ignore[assignment]
        loss = loss_like(pred, kind)
        grad = _native.expect_to_fill(torch.empty_like(pred)) if with_grad else None
        run(None, loss, grad, pred, kind, *args)
        return loss, pred.new_empty(0) if grad is None else grad

    def forward_fake(pred: Tensor, kind: int, *args: Any) -> tuple[Tensor, Tensor]:
        return loss_like(pred, kind), torch.empty_like(pred) if args[-1] else pred.new_empty(0)

    def backward(grad_loss: Tensor, pred: Tensor, *args: Any) -> Tensor:
        grad = _native.expect_to_fill(torch.empty_like(pred))
        run(grad_loss, None, grad, pred, *args)
        return grad

    def backward_fake(grad_loss: Tensor, pred: Tensor, *args: Any) -> Tensor:
        return torch.empty_like(pred)

    return LossOps(
        register(f"{name}_forward({arguments}, bool with_grad) -> (Tensor, Tensor)", forward, forward_fake),
        register(f"{name}_backward(Tensor grad_loss, {arguments}) -> Tensor", backward, backward_fake),
        scale_in_place,
    )


def fused_loss(op: str, ops: LossOps) -> Callable[..., Tensor]:
    """loss(pred, *args). args[0] is the reduction's kind; no other argument has a gradient."""
    forward_op, backward_op, scale_in_place = ops

    class Fused(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, pred: Tensor, kind: int, *args: Any) -> Tensor:
            ctx.in_forward = gradient_in_forward(pred, kind)
            loss, grad = forward_op(pred, kind, *args, ctx.in_forward)
            if ctx.in_forward:
                ctx.save_for_backward(grad)
            else:
                ctx.kind = kind
                ctx.constants = [None if isinstance(arg, Tensor) else arg for arg in args]
                ctx.places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)]
                ctx.save_for_backward(pred, *[args[i] for i in ctx.places])
            ctx.num_args = len(args)
            return loss

        @staticmethod
        def backward(ctx: Any, grad_loss: Tensor) -> Any:
            nothing = (None,) * (ctx.num_args + 1)
            if ctx.in_forward:
                grad = scaled(ctx.saved_tensors[0], grad_loss, scale_in_place)
            else:
                pred, *tensors = ctx.saved_tensors
                args = list(ctx.constants)
                for place, tensor in zip(ctx.places, tensors, strict=True):
                    args[place] = tensor
                grad = backward_op(grad_loss, pred, ctx.kind, *args)
            return (*once(op, grad), *nothing)

    def loss(pred: Tensor, kind: int, *args: Any) -> Tensor:
        if wants_gradient(pred):
            return Fused.apply(pred, kind, *args)
        return forward_op(pred, kind, *args, False)[0]

    return loss
