"""A dense classification loss over the maps of all levels of a head, with labels in the order of the anchors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _autograd, _native
from .._library import register
from .._reduce import SUM

_ARGUMENTS = (
    "Tensor[] preds, Tensor labels, Tensor? scores, Tensor? avg_factor, float scale, int formula, float exponent, "
    "float alpha"
)
Layout = tuple[torch.Size, tuple[int, ...]]


def _new_gradient(preds: Sequence[Tensor]) -> Tensor:
    """The gradients of all levels in one tensor, so that one launch scales them."""
    return preds[0].new_empty(sum(pred.numel() for pred in preds))


def _layouts(preds: Sequence[Tensor]) -> list[Layout]:
    return [(pred.shape, pred.stride()) for pred in preds]


def _of_levels(grad: Tensor, layouts: Sequence[Layout]) -> list[Tensor]:
    """Each level's part, laid out as its prediction is."""
    parts, start = [], 0
    for shape, stride in layouts:
        parts.append(grad.as_strided(shape, stride, start))
        start += shape.numel()
    return parts


def gradients_of(grad: Tensor, preds: Sequence[Tensor]) -> list[Tensor]:
    return _of_levels(grad, _layouts(preds))


def _run(
    grad_loss: Tensor | None,
    loss: Tensor | None,
    grad: Tensor | None,
    preds: Sequence[Tensor],
    labels: Tensor,
    scores: Tensor | None,
    avg_factor: Tensor | None,
    scale: float,
    formula: int,
    exponent: float,
    alpha: float,
) -> None:
    core, device = _native.core_for(preds[0])
    batch, classes = preds[0].shape[:2]
    levels = _native.levels(preds, [1.0] * len(preds))
    workspace = None if loss is None else _native.maps_workspace(core, device, levels, preds)
    core.multilevel_class_loss(
        loss is None,
        device,
        formula,
        exponent,
        alpha,
        batch,
        classes,
        levels,
        _native.maps(preds),
        labels.data_ptr(),
        _native.address(scores),
        _native.address(grad_loss),
        scale,
        _native.address(avg_factor),
        _native.address(loss),
        None if grad is None else _native.maps_within(grad, preds),
        _native.address(workspace),
    )


def register_ops(
    name: str, run: Callable[..., None], scale_in_place: Callable[..., Any] = _autograd.scale_in_place
) -> _autograd.LossOps:
    """gfl_ops::<name>_forward and _backward from run(grad_loss, loss, grad, preds, ...), as _autograd.register_loss
    makes them, for a list of predictions; `grad` is that of all levels."""

    def forward_fake(preds: Sequence[Tensor], *args: object) -> tuple[Tensor, Tensor]:
        loss = torch.empty((), dtype=_native.compute_dtype(preds[0]), device=preds[0].device)
        return loss, _new_gradient(preds) if args[-1] else preds[0].new_empty(0)

    def forward(preds: Sequence[Tensor], *args: Any) -> tuple[Tensor, Tensor]:
        loss, grad = forward_fake(preds, *args)
        run(None, loss, _native.expect_to_fill(grad) if args[-1] else None, preds, *args[:-1])
        return loss, grad

    def backward_fake(grad_loss: Tensor, preds: Sequence[Tensor], *args: object) -> Tensor:
        return _new_gradient(preds)

    def backward(grad_loss: Tensor, preds: Sequence[Tensor], *args: Any) -> Tensor:
        grad = _native.expect_to_fill(_new_gradient(preds))
        run(grad_loss, None, grad, preds, *args)
        return grad

    return _autograd.LossOps(
        register(f"{name}_forward({_ARGUMENTS}, bool with_grad) -> (Tensor, Tensor)", forward, forward_fake),
        register(f"{name}_backward(Tensor grad_loss, {_ARGUMENTS}) -> Tensor", backward, backward_fake),
        scale_in_place,
    )


def fused_loss(ops: _autograd.LossOps) -> Callable[..., Tensor]:
    """multilevel_class_loss(op, preds, ...) on one backend, as _autograd.fused_loss makes it, of a list."""
    forward_op, backward_op, scale_in_place = ops

    class MultilevelClassLoss(torch.autograd.Function):
        @staticmethod
        def forward(
            ctx: Any,
            op: str,
            labels: Tensor,
            scores: Tensor | None,
            avg_factor: Tensor | None,
            formula: tuple[float, int, float, float],
            *preds: Tensor,
        ) -> Tensor:
            ctx.op, ctx.formula, ctx.layouts = op, formula, _layouts(preds)
            ctx.in_forward = _autograd.gradient_in_forward(preds[0], SUM)
            loss, grad = forward_op(preds, labels, scores, avg_factor, *formula, ctx.in_forward)
            if ctx.in_forward:
                ctx.save_for_backward(grad)
            else:
                ctx.save_for_backward(labels, scores, avg_factor, *preds)
            return loss

        @staticmethod
        def backward(ctx: Any, grad_loss: Tensor) -> Any:
            if ctx.in_forward:
                grad = _autograd.scaled(ctx.saved_tensors[0], grad_loss, scale_in_place)
            else:
                labels, scores, avg_factor, *preds = ctx.saved_tensors
                grad = backward_op(grad_loss, preds, labels, scores, avg_factor, *ctx.formula)
            return (None,) * 5 + tuple(_autograd.once(ctx.op, *_of_levels(grad, ctx.layouts)))

    def multilevel_class_loss(
        op: str,
        preds: Sequence[Tensor],
        labels: Tensor,
        scores: Tensor | None,
        avg_factor: Tensor | None,
        scale: float,
        formula: int,
        exponent: float,
        alpha: float = 0.0,
    ) -> Tensor:
        """The sum over levels, anchors and classes, times scale / (avg_factor + eps); preds are _native.as_map
        already."""
        how = (scale, formula, exponent, alpha)
        if _autograd.wants_gradient(*preds):
            return MultilevelClassLoss.apply(op, labels, scores, avg_factor, how, *preds)
        return forward_op(preds, labels, scores, avg_factor, *how, False)[0]

    return multilevel_class_loss


multilevel_class_loss = fused_loss(register_ops("multilevel_class_loss", _run))
