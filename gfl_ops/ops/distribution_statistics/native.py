"""The statistics of edge distributions on the compiled core."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..._native import Kernel, backed_by_huge_pages
from ..._op import DifferentiableOp, Op, Size
from ..integral.native import readable, sizes

ARGUMENTS = {"logits": Tensor, "topk": Size}
_FIELDS = ("logits", "topk", "bins", "batch", "sides", "length", "output", "grad")
_forward_kernel = Kernel("distribution_statistics_forward", _FIELDS)
_backward_kernel = Kernel("distribution_statistics_backward", _FIELDS)


def output_like(logits: Tensor, topk: int) -> Tensor:
    channels = 4 * (topk + 1)
    if logits.ndim == 2:
        return logits.new_empty((logits.shape[0], channels))
    last = logits.is_contiguous(memory_format=torch.channels_last) and not logits.is_contiguous()
    memory_format = torch.channels_last if last else torch.contiguous_format
    shape = (logits.shape[0], channels, *logits.shape[2:])
    return torch.empty(shape, dtype=logits.dtype, device=logits.device, memory_format=memory_format)


def _forward(logits: Tensor, topk: int) -> Tensor:
    output = output_like(logits, topk)
    logits = readable(logits)
    _forward_kernel.run(logits, topk, logits.shape[1] // 4, *sizes(logits), output, None)
    return output


def _backward(grad_output: Tensor, logits: Tensor, topk: int) -> Tensor:
    logits = readable(logits)
    grad = backed_by_huge_pages(torch.empty_like(logits))
    _backward_kernel.run(logits, topk, logits.shape[1] // 4, *sizes(logits), readable(grad_output), grad)
    return grad


def op_of(prefix: str, forward: Any, backward: Any) -> DifferentiableOp:
    return DifferentiableOp(
        "distribution_statistics",
        Op(f"{prefix}distribution_statistics_forward", ARGUMENTS, "Tensor", forward, output_like),
        Op(
            f"{prefix}distribution_statistics_backward",
            {"grad_output": Tensor} | ARGUMENTS,
            "Tensor",
            backward,
            lambda grad_output, logits, topk: torch.empty_like(readable(logits)),
        ),
    )


_OP = op_of("", _forward, _backward)


def distribution_statistics(edge_logits: Tensor, topk: int, channel_dim: int, op: DifferentiableOp = _OP) -> Tensor:
    if edge_logits.ndim == 2 or channel_dim == 1:
        return op((edge_logits,), topk)
    channels = edge_logits.shape[-1]
    statistics = op((edge_logits.reshape(-1, channels),), topk)
    return statistics.reshape(*edge_logits.shape[:-1], 4 * (topk + 1))
