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


def _view(tensor: Tensor, sides: int) -> _native.Bins:
    """Logits, their gradient (4 * bins channels) or the output (4 channels) under those sizes."""
    if tensor.ndim == 4:
        strides = tensor.stride()
        return tensor.data_ptr(), _native.dtype_code(tensor), strides[0], strides[1], strides[3]
    if sides == 1:
        return tensor.data_ptr(), _native.dtype_code(tensor), 0, 1, tensor.shape[1] // 4 * tensor.stride(1)
    return _native.bins_of_rows(tensor)


def output_like(pred: Tensor) -> Tensor:
    if pred.ndim == 2:
        return pred.new_empty((pred.shape[0], 4))
    last = pred.is_contiguous(memory_format=torch.channels_last) and not pred.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    batch, _, height, width = pred.shape
    return torch.empty((batch, 4, height, width), dtype=pred.dtype, device=pred.device, memory_format=memory_format)


def statistics_like(pred: Tensor, bins: int, kept: bool) -> Tensor:
    """Maximum, 1 / sum and expectation of every distribution, which spare the backward on a CPU half of its work."""
    rows = pred.numel() // bins if kept and pred.device.type == "cpu" else 0
    return torch.empty((3, rows), dtype=_native.compute_dtype(pred), device=pred.device)


def _forward(pred: Tensor, bin_values: Tensor | None, bins: int, keep: bool) -> tuple[Tensor, Tensor]:
    core, device = _native.core_for(pred)
    output = output_like(pred)
    statistics = statistics_like(pred, bins, keep)
    pred = readable(pred)
    batch, sides, length = _sizes(pred)
    views = _view(pred, sides), _native.address(bin_values), _view(output, sides), None
    core.integral(False, device, batch, sides, bins, length, *views, statistics.data_ptr())
    return output, statistics


def _backward(grad_output: Tensor, pred: Tensor, statistics: Tensor, bin_values: Tensor | None, bins: int) -> Tensor:
    core, device = _native.core_for(pred)
    pred = readable(pred)
    grad = _native.expect_to_fill(torch.empty_like(pred))
    batch, sides, length = _sizes(pred)
    of_a_sum = not any(grad_output.stride())  # one value for all
    if not of_a_sum and (sides == 1 or (pred.ndim == 4 and not map_is_flat(grad_output))):
        grad_output = grad_output.contiguous()
    views = _view(pred, sides), _native.address(bin_values), _view(grad_output, sides), _view(grad, sides)
    core.integral(True, device, batch, sides, bins, length, *views, statistics.data_ptr())
    return grad


def register_ops(
    name: str, forward: Callable[..., Any], backward: Callable[..., Tensor], *, keeps: bool
) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """`keeps` says that the forward leaves statistics where the backward will want them."""
    return (
        register(
            f"{name}_forward(Tensor pred, Tensor? bin_values, SymInt bins, bool keep) -> (Tensor, Tensor)",
            forward,
            lambda pred, bin_values, bins, keep: (
                output_like(pred),
                statistics_like(pred, bins, keep and keeps),
            ),
        ),
        register(
            f"{name}_backward(Tensor grad_output, Tensor pred, Tensor statistics, Tensor? bin_values, SymInt bins) "
            "-> Tensor",
            backward,
            lambda grad_output, pred, statistics, bin_values, bins: torch.empty_like(readable(pred)),
        ),
    )


def fused_integral(forward_op: Callable[..., Any], backward_op: Callable[..., Any]) -> Callable[..., Tensor]:
    class Integral(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, pred: Tensor, bin_values: Tensor | None, bins: int, op: str) -> Tensor:
            ctx.bins, ctx.op = bins, op
            output, statistics = forward_op(pred, bin_values, bins, True)
            ctx.save_for_backward(pred, statistics, bin_values)
            return output

        @staticmethod
        def backward(ctx: Any, grad_output: Tensor) -> Any:
            pred, statistics, bin_values = ctx.saved_tensors
            grad = backward_op(grad_output, pred, statistics, bin_values, ctx.bins)
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
