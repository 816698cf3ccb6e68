"""The softmax expectation on the compiled core."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _autograd, _native
from ..._library import register
from .._class_loss import kernel_vector


class _Layout(NamedTuple):
    """How gfl_integral sees pred and its output: (batch, sides, bins, length)."""

    batch: int
    sides: int
    length: int
    pred: tuple[int, int, int, int, int]
    output: tuple[int, int, int, int, int]


def _layout(pred: Tensor, output: Tensor, bins: int) -> _Layout:
    if pred.ndim == 4:
        batch, _, height, width = pred.shape
        return _Layout(batch, 4, height * width, _map_strides(pred), _map_strides(output))
    rows = pred.shape[0]
    if pred.stride() == (4 * bins, 1) and output.is_contiguous():  # every distribution is a row of its own
        as_rows = (pred.data_ptr(), _native.dtype_code(pred), 0, 1, bins)
        return _Layout(1, 1, 4 * rows, as_rows, (output.data_ptr(), _native.dtype_code(output), 0, 1, 1))
    return _Layout(1, 4, rows, _native.bins_of_rows(pred), _native.bins_of_rows(output))


def _seen_as(layout: _Layout, pred: Tensor, grad: Tensor) -> tuple[int, int, int, int, int]:
    """The gradient under the layout chosen for pred, whose strides it need not share."""
    if grad.ndim == 4:
        return _map_strides(grad)
    if layout.sides == 4:
        return _native.bins_of_rows(grad)
    return (grad.data_ptr(), _native.dtype_code(grad), *layout.pred[2:])


def _map_strides(maps: Tensor) -> tuple[int, int, int, int, int]:
    return maps.data_ptr(), _native.dtype_code(maps), maps.stride(0), maps.stride(1), maps.stride(3)


def _flat_positions(maps: Tensor) -> bool:
    """Whether the positions of a (N, C, H, W) tensor are one evenly spaced run, as contiguous and channels-last are."""
    return maps.shape[2] == 1 or maps.stride(2) == maps.shape[3] * maps.stride(3)


def _readable(pred: Tensor) -> Tensor:
    return pred if pred.ndim == 2 or _flat_positions(pred) else pred.contiguous()


def _output_like(pred: Tensor) -> Tensor:
    if pred.ndim == 2:
        return pred.new_empty(pred.shape[0], 4)
    last = pred.is_contiguous(memory_format=torch.channels_last) and not pred.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    batch, _, height, width = pred.shape
    return torch.empty((batch, 4, height, width), dtype=pred.dtype, device=pred.device, memory_format=memory_format)


def _forward(pred: Tensor, bin_values: Tensor | None, bins: int) -> Tensor:
    core, device = _native.core_for(pred)
    output = _output_like(pred)
    pred = _readable(pred)
    layout = _layout(pred, output, bins)
    core.integral(
        False,
        device,
        layout.batch,
        layout.sides,
        bins,
        layout.length,
        layout.pred,
        _native.address(bin_values),
        layout.output,
        None,
    )
    return output


def _grad_like(pred: Tensor) -> Tensor:
    return torch.empty_like(_readable(pred))


def _backward(grad_output: Tensor, pred: Tensor, bin_values: Tensor | None, bins: int) -> Tensor:
    core, device = _native.core_for(pred)
    pred = _readable(pred)
    grad = torch.empty_like(pred)
    if pred.ndim == 4:
        if not _flat_positions(grad_output):
            grad_output = grad_output.contiguous()
    elif pred.stride() == (4 * bins, 1):
        grad_output = grad_output.contiguous()
    layout = _layout(pred, grad_output, bins)
    grad_view = _seen_as(layout, pred, grad)
    core.integral(
        True,
        device,
        layout.batch,
        layout.sides,
        bins,
        layout.length,
        layout.pred,
        _native.address(bin_values),
        layout.output,
        grad_view,
    )
    return grad


_forward_op = register(
    "integral_forward(Tensor pred, Tensor? bin_values, SymInt bins) -> Tensor",
    _forward,
    lambda pred, bin_values, bins: _output_like(pred),
)
_backward_op = register(
    "integral_backward(Tensor grad_output, Tensor pred, Tensor? bin_values, SymInt bins) -> Tensor",
    _backward,
    lambda grad_output, pred, bin_values, bins: _grad_like(pred),
)


class _Integral(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pred: Tensor, bin_values: Tensor | None, bins: int) -> Tensor:
        ctx.bins = bins
        ctx.save_for_backward(pred, bin_values)
        return _forward_op(pred, bin_values, bins)

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Any:
        pred, bin_values = ctx.saved_tensors
        grad = _backward_op(grad_output, pred, bin_values, ctx.bins)
        return (*_autograd.once("integral", grad), None, None)


def integral(pred: Tensor, bin_values: Tensor | None, num_bins: int, channel_dim: int) -> Tensor:
    values = kernel_vector(bin_values, pred)
    as_it_is = pred.ndim == 2 or (pred.ndim == 4 and channel_dim == 1)
    flat = pred if as_it_is else pred.reshape(-1, 4 * num_bins)
    if _autograd.wants_gradient(pred):
        output = _Integral.apply(flat, values, num_bins)
    else:
        output = _forward_op(flat, values, num_bins)
    return output if flat is pred else output.reshape(*pred.shape[:-1], 4)
