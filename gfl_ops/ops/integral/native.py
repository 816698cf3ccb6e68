"""The softmax expectation on the compiled core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import _autograd, _native
from ..._library import register
from .._class_loss import kernel_vector


def map_is_flat(maps: Tensor) -> bool:
    """Whether the positions of a (N, C, H, W) tensor are one evenly spaced run, as contiguous and channels-last are."""
    return maps.shape[2] == 1 or maps.stride(2) == maps.shape[3] * maps.stride(3)


def readable(pred: Tensor) -> Tensor:
    return pred if pred.ndim == 2 or map_is_flat(pred) else pred.contiguous()


def _sizes(pred: Tensor) -> tuple[int, int, int]:
    """(batch, sides, length) as gfl_integral counts. Contiguous rows are one side of four times the length."""
    if pred.ndim == 4:
        return pred.shape[0], 4, pred.shape[2] * pred.shape[3]
    return (1, 1, 4 * pred.shape[0]) if pred.is_contiguous() else (1, 4, pred.shape[0])


def _view(tensor: Tensor, sides: int, width: int) -> _native.Bins:
    """Logits, their gradient (a side has `width` = bins channels) or the output (width 1) under those sizes."""
    if tensor.ndim == 4:
        strides = tensor.stride()
        return tensor.data_ptr(), _native.dtype_code(tensor), strides[0], strides[1], strides[3]
    if sides == 1:
        return tensor.data_ptr(), _native.dtype_code(tensor), 0, 1, width * tensor.stride(1)
    return _native.bins_of_rows(tensor)


def output_like(pred: Tensor) -> Tensor:
    if pred.ndim == 2:
        return pred.new_empty(pred.shape[0], 4)
    last = pred.is_contiguous(memory_format=torch.channels_last) and not pred.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    batch, _, height, width = pred.shape
    return torch.empty((batch, 4, height, width), dtype=pred.dtype, device=pred.device, memory_format=memory_format)


def slopes_like(pred: Tensor, kept: bool) -> Tensor:
    """Where a forward leaves dE/dx, which spares the backward the softmax. Not for half types, whose slopes would be
    rounded once more than they need; nor for a GPU, which makes a softmax in less time than it reads these."""
    if kept and pred.is_cpu and not _native.routed() and pred.dtype in (torch.float32, torch.float64):
        return torch.empty_like(readable(pred))
    return pred.new_empty(0)


def _forward(pred: Tensor, bin_values: Tensor | None, bins: int, keep: bool) -> tuple[Tensor, Tensor]:
    core, device = _native.core_for(pred)
    output = output_like(pred)
    pred = readable(pred)
    slopes = slopes_like(pred, keep)
    batch, sides, length = _sizes(pred)
    grad = _view(_native.expect_to_fill(slopes), sides, bins) if slopes.ndim > 1 else None
    views = _view(pred, sides, bins), _native.address(bin_values), _view(output, sides, 1), grad
    core.integral(False, device, batch, sides, bins, length, *views)
    return output, slopes


def _fill(grad: Tensor, grad_output: Tensor, pred: Tensor | None, bin_values: Tensor | None, bins: int) -> None:
    """Writes the gradient; without pred, from the slopes that are there."""
    core, device = _native.core_for(grad)
    batch, sides, length = _sizes(grad if pred is None else pred)
    of_a_sum = not any(grad_output.stride())  # one value for all
    if not of_a_sum and (sides == 1 or (grad.ndim == 4 and not map_is_flat(grad_output))):
        grad_output = grad_output.contiguous()
    logits = None if pred is None else _view(pred, sides, bins)
    views = logits, _native.address(bin_values), _view(grad_output, sides, 1), _view(grad, sides, bins)
    core.integral(True, device, batch, sides, bins, length, *views)


def _backward(grad_output: Tensor, pred: Tensor, bin_values: Tensor | None, bins: int) -> Tensor:
    pred = readable(pred)
    grad = _native.expect_to_fill(torch.empty_like(pred))
    _fill(grad, grad_output, pred, bin_values, bins)
    return grad


_multiply_slopes = register(
    "multiply_slopes_(Tensor(a!) slopes, Tensor grad_output, SymInt bins) -> ()",
    lambda slopes, grad_output, bins: _fill(slopes, grad_output, None, None, bins),
    lambda *_: None,
)


def _upstream_times(slopes: Tensor, grad_output: Tensor, bins: int) -> Tensor:
    if torch.compiler.is_compiling():
        return (slopes.unflatten(1, (4, bins)) * grad_output.unsqueeze(2)).flatten(1, 2)
    if _autograd.keeps_graph():
        slopes = slopes.clone()
    _multiply_slopes(slopes, grad_output, bins)
    return slopes


def register_ops(
    name: str, forward: Callable[..., Any], backward: Callable[..., Tensor], *, keeps: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`keeps` says that the forward leaves slopes where it can."""
    return (
        register(
            f"{name}_forward(Tensor pred, Tensor? bin_values, SymInt bins, bool keep) -> (Tensor, Tensor)",
            forward,
            lambda pred, bin_values, bins, keep: (output_like(pred), slopes_like(pred, keep and keeps)),
        ),
        register(
            f"{name}_backward(Tensor grad_output, Tensor pred, Tensor? bin_values, SymInt bins) -> Tensor",
            backward,
            lambda grad_output, pred, bin_values, bins: torch.empty_like(readable(pred)),
        ),
    )


def fused_integral(forward_op: Callable[..., Any], backward_op: Callable[..., Any]) -> Callable[..., Tensor]:
    class Integral(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, pred: Tensor, bin_values: Tensor | None, bins: int, op: str) -> Tensor:
            ctx.bins, ctx.op = bins, op
            output, slopes = forward_op(pred, bin_values, bins, True)
            ctx.kept = slopes.ndim > 1
            ctx.save_for_backward(*((slopes,) if ctx.kept else (pred, bin_values)))
            return output

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> Any:
            if ctx.kept:
                grad = _upstream_times(ctx.saved_tensors[0], grad_output, ctx.bins)
            else:
                grad = backward_op(grad_output, *ctx.saved_tensors, ctx.bins)
            return (*_autograd.once(ctx.op, grad), None, None, None)

    def integral(pred: Tensor, bin_values: Tensor | None, bins: int, op: str) -> Tensor:
        if _autograd.wants_gradient(pred):
            return Integral.apply(pred, bin_values, bins, op)
        return forward_op(pred, bin_values, bins, False)[0]

    return integral


_integral = fused_integral(*register_ops("integral", _forward, _backward, keeps=True))


def integral(
    pred: Tensor,
    bin_values: Tensor | None,
    num_bins: int,
    channel_dim: int,
    op: str = "integral",
    fused: Callable[..., Tensor] = _integral,
) -> Tensor:
    """`op` is whose name errors have."""
    values = kernel_vector(bin_values, pred)
    as_it_is = pred.ndim == 2 or (pred.ndim == 4 and channel_dim == 1)
    flat = pred if as_it_is else pred.reshape(-1, 4 * num_bins)
    output = fused(flat, values, num_bins, op)
    return output if flat is pred else output.reshape(*pred.shape[:-1], 4)
