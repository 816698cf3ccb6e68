"""The softmax expectation on the compiled core."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ... import _arguments, _native
from ..._native import LARGE, Kernel, backed_by_huge_pages
from ..._op import DifferentiableOp, Op, Size, keeps_graph

ARGUMENTS = {"logits": Tensor, "bin_values": Tensor | None, "bins": Size}
_FIELDS = ("logits", "bin_values", "bins", "batch", "sides", "length", "output", "grad")
_forward_kernel = Kernel("integral_forward", _FIELDS)
_backward_kernel = Kernel("integral_backward", _FIELDS)


def map_is_flat(maps: Tensor) -> bool:
    """Whether the positions of a (N, C, H, W) tensor are one evenly spaced run, as contiguous and channels-last are."""
    return maps.shape[2] == 1 or maps.stride(2) == maps.shape[3] * maps.stride(3)


def readable(logits: Tensor) -> Tensor:
    return logits if logits.ndim == 2 or map_is_flat(logits) else logits.contiguous()


def sizes(logits: Tensor) -> tuple[int, int, int]:
    """batch, sides and length as gfl_integral counts"""
    if logits.ndim == 2:
        return 1, 4, logits.shape[0]
    return logits.shape[0], 4, logits.shape[2] * logits.shape[3]


def output_like(logits: Tensor) -> Tensor:
    if logits.ndim == 2:
        return logits.new_empty((logits.shape[0], 4))
    last = logits.is_contiguous(memory_format=torch.channels_last) and not logits.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    batch, _, height, width = logits.shape
    return torch.empty((batch, 4, height, width), dtype=logits.dtype, device=logits.device, memory_format=memory_format)


def slopes_like(logits: Tensor, kept: bool) -> Tensor:
    """Where a forward leaves dE/dx, which spares the backward the softmax. Not for half types, whose slopes would be
    rounded once more than they need; nor for a GPU, which makes a softmax in less time than it reads these."""
    if kept and logits.is_cpu and not _native.is_routed and logits.dtype in (torch.float32, torch.float64):
        return torch.empty_like(logits if logits.ndim == 2 else readable(logits))
    return logits.new_empty(0)


def _forward(logits: Tensor, bin_values: Tensor | None, bins: int, keep: bool) -> tuple[Tensor, Tensor]:
    output = output_like(logits)
    if logits.ndim == 4:
        logits = readable(logits)
    slopes = slopes_like(logits, keep)
    grad = slopes if slopes.ndim > 1 else None
    if grad is not None and grad.nbytes >= LARGE:
        backed_by_huge_pages(grad)
    _forward_kernel.run(logits, bin_values, bins, *sizes(logits), output, grad)
    return output, slopes


def _fill(
    grad: Tensor, grad_output: Tensor, bins: int, logits: Tensor | None = None, bin_values: Tensor | None = None
) -> None:
    """Writes the gradient; without logits, from the slopes that are there."""
    of_a_sum = not any(grad_output.stride())  # one value for all
    if not of_a_sum and grad.ndim == 4 and not map_is_flat(grad_output):
        grad_output = grad_output.contiguous()
    _backward_kernel.run(logits, bin_values, bins, *sizes(grad), grad_output, grad)


def _backward(grad_output: Tensor, logits: Tensor, bin_values: Tensor | None, bins: int) -> Tensor:
    logits = readable(logits)
    grad = backed_by_huge_pages(torch.empty_like(logits))
    _fill(grad, grad_output, bins, logits, bin_values)
    return grad


_multiply_slopes = Op(
    "multiply_slopes_", {"slopes": "Tensor(a!)", "grad_output": Tensor, "bins": Size}, "()", _fill, lambda *_: None
)


class IntegralOp(DifferentiableOp):
    """The forward keeps slopes where it can, and the backward only multiplies them."""

    def compute(
        self, forward: Callable[..., Any], inputs: Sequence[Tensor], others: Sequence[Any], keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        output, slopes = forward(*inputs, *others, keep)
        return output, slopes if slopes.ndim > 1 else None

    def gradients_of_kept(self, kept: Tensor, grad: Tensor, layouts: Any) -> Sequence[Tensor]:
        bins = kept.shape[1] // 4
        if torch.compiler.is_dynamo_compiling():
            return ((kept.unflatten(1, (4, bins)) * grad.unsqueeze(2)).flatten(1, 2),)
        if keeps_graph():
            kept = kept.clone()
        _multiply_slopes(kept, grad, bins)
        return (kept,)


def raw_ops(prefix: str, forward: Any, backward: Any, *, keeps: bool) -> tuple[Op, Op]:
    """`keeps` says that the forward leaves slopes where it can."""
    return (
        Op(
            f"{prefix}integral_forward",
            ARGUMENTS | {"keep": bool},
            "(Tensor, Tensor)",
            forward,
            lambda logits, bin_values, bins, keep: (output_like(logits), slopes_like(logits, keep and keeps)),
        ),
        Op(
            f"{prefix}integral_backward",
            {"grad_output": Tensor} | ARGUMENTS,
            "Tensor",
            backward,
            lambda grad_output, logits, bin_values, bins: torch.empty_like(readable(logits)),
        ),
    )


def ops_of(raw: tuple[Op, Op]) -> Mapping[str, IntegralOp]:
    """By the name that errors have."""
    return {name: IntegralOp(name, *raw) for name in ("integral", "decode_boxes")}


_OPS = ops_of(raw_ops("", _forward, _backward, keeps=True))


def integral(
    pred: Tensor,
    bin_values: Tensor | None,
    num_bins: int,
    channel_dim: int,
    name: str = "integral",
    ops: Mapping[str, IntegralOp] = _OPS,
) -> Tensor:
    values = None if bin_values is None else _arguments.vector(bin_values, pred)
    if pred.ndim == 2 or (pred.ndim == 4 and channel_dim == 1):
        return ops[name]((pred,), values, num_bins)
    return ops[name]((pred.reshape(-1, 4 * num_bins),), values, num_bins).reshape(*pred.shape[:-1], 4)
