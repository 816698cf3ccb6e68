"""The box half of the GFL loss on the compiled core: one pass over a positive's four distributions each way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ... import _autograd, _native
from ..._library import register
from ..._reduce import ROWS, for_core, for_kernel
from .._class_loss import kernel_vector
from ..iou_loss.native import EPS_RULES, KINDS, TRANSFORMS
from .reference import DistributionBoxLosses

_ARGUMENTS = (
    "Tensor edge_logits, int kind, float scale, SymInt count, Tensor? avg_factor, Tensor anchor_points, "
    "Tensor target_boxes, Tensor? strides, Tensor? weight, float stride, float target_margin, int iou_kind, float eps"
)


def _run(
    grad_losses: tuple[Tensor, Tensor] | None,
    outputs: tuple[Tensor | None, ...],
    grad: Tensor | None,
    edge_logits: Tensor,
    kind: int,
    scale: float,
    count: int,
    avg_factor: Tensor | None,
    anchor_points: Tensor,
    target_boxes: Tensor,
    strides: Tensor | None,
    weight: Tensor | None,
    stride: float,
    target_margin: float,
    iou_kind: int,
    eps: float,
) -> None:
    core, device = _native.core_for(edge_logits)
    rows, channels = edge_logits.shape
    grad_iou, grad_dfl = grad_losses if grad_losses is not None else (None, None)
    scratch = None
    if grad_losses is None:
        scratch = _native.workspace(core, device, rows, channels, edge_logits, sums=2)
    core.distribution_box_loss(
        grad_losses is not None,
        device,
        (iou_kind, TRANSFORMS["linear"], EPS_RULES["floor"], eps),
        rows,
        channels // 4,
        _native.bins_of_rows(edge_logits),
        _native.address(anchor_points),
        _native.address(target_boxes),
        _native.address(strides),
        stride,
        target_margin,
        _native.address(weight),
        for_core(kind, scale, count, avg_factor),
        *map(_native.address, outputs),
        _native.address(grad_iou),
        _native.address(grad_dfl),
        1 if kind == ROWS else 0,
        None if grad is None else _native.bins_of_rows(grad),
        _native.address(scratch),
    )


Losses = tuple[Tensor, Tensor, Tensor, Tensor]  # IoU loss, DFL, boxes, quality


def register_ops(name: str, run: Callable[..., None]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """gfl_ops::<name>_forward and _backward from run(grad_losses, outputs, grad, edge_logits, ...)."""

    def forward_fake(edge_logits: Tensor, kind: int, *args: object) -> Losses:
        rows = edge_logits.shape[0]
        like = torch.empty((), dtype=_native.compute_dtype(edge_logits), device=edge_logits.device)
        size = (rows,) if kind == ROWS else ()
        return like.new_empty(size), like.new_empty(size), like.new_empty(rows, 4), like.new_empty(rows)

    def forward(edge_logits: Tensor, kind: int, *args: Any) -> Losses:
        outputs = forward_fake(edge_logits, kind)
        run(None, outputs, None, edge_logits, kind, *args)
        return outputs

    def backward_fake(grad_iou: Tensor, grad_dfl: Tensor, edge_logits: Tensor, *args: object) -> Tensor:
        return torch.empty_like(edge_logits)

    def backward(grad_iou: Tensor, grad_dfl: Tensor, edge_logits: Tensor, *args: Any) -> Tensor:
        grad = _native.expect_to_fill(torch.empty_like(edge_logits))
        run((grad_iou.contiguous(), grad_dfl.contiguous()), (None,) * 4, grad, edge_logits, *args)
        return grad

    grads = "Tensor grad_iou, Tensor grad_dfl"
    return (
        register(f"{name}_forward({_ARGUMENTS}) -> (Tensor, Tensor, Tensor, Tensor)", forward, forward_fake),
        register(f"{name}_backward({grads}, {_ARGUMENTS}) -> Tensor", backward, backward_fake),
    )


def fused_loss(forward_op: Callable[..., Any], backward_op: Callable[..., Any]) -> Callable[..., Losses]:
    """losses(edge_logits, *reduction, anchor_points, target_boxes, strides, weight, stride, ..., eps)"""

    class DistributionBox(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any,
            edge_logits: Tensor,
            kind: int,
            scale: float,
            count: int,
            avg_factor: Tensor | None,
            anchor_points: Tensor,
            target_boxes: Tensor,
            strides: Tensor | None,
            weight: Tensor | None,
            stride: float,
            target_margin: float,
            iou_kind: int,
            eps: float,
        ) -> Losses:
            ctx.reduction = (kind, scale, count)
            ctx.options = (stride, target_margin, iou_kind, eps)
            tensors = (avg_factor, anchor_points, target_boxes, strides, weight)
            ctx.save_for_backward(edge_logits, *tensors)
            outputs = forward_op(edge_logits, *ctx.reduction, *tensors, *ctx.options)
            ctx.mark_non_differentiable(outputs[2], outputs[3])
            return outputs

        @staticmethod
        def backward(ctx: Any, grad_iou: Tensor, grad_dfl: Tensor, *_: Tensor) -> Any:
            edge_logits, *tensors = ctx.saved_tensors
            grad = backward_op(grad_iou, grad_dfl, edge_logits, *ctx.reduction, *tensors, *ctx.options)
            return (*_autograd.once("distribution_box_loss", grad), *(None,) * 12)

    def losses(edge_logits: Tensor, *args: Any) -> Losses:
        run = DistributionBox.apply if _autograd.wants_gradient(edge_logits) else forward_op
        return run(edge_logits, *args)

    return losses


_losses = fused_loss(*register_ops("distribution_box_loss", _run))


def distribution_box_loss(
    edge_logits: Tensor,
    anchor_points: Tensor,
    target_boxes: Tensor,
    weight: Tensor | None,
    stride: float | Tensor,
    iou_kind: str,
    eps: float,
    target_margin: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    fused: Callable[..., Losses] = _losses,
) -> DistributionBoxLosses:
    """edge_logits is (P, 4 * bins) here."""
    how = for_kernel(reduction, avg_factor, edge_logits, edge_logits.shape[0], 1.0)
    strides = kernel_vector(stride, edge_logits) if isinstance(stride, Tensor) else None
    losses = fused(
        edge_logits,
        *how,
        kernel_vector(anchor_points, edge_logits),
        kernel_vector(target_boxes, edge_logits),
        strides,
        kernel_vector(weight, edge_logits),
        1.0 if isinstance(stride, Tensor) else float(stride),
        float(target_margin),
        KINDS[iou_kind],
        float(eps),
    )
    return DistributionBoxLosses(*losses)
