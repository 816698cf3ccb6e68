"""The IoU family on the compiled core."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _autograd, _native
from ..._library import register
from ..._reduce import ROWS, for_core, for_kernel
from .._class_loss import kernel_target, kernel_vector

# gfl_iou_kind, gfl_iou_transform and gfl_eps_rule in csrc/gfl.h
KINDS = {"iou": 0, "giou": 1, "diou": 2, "ciou": 3}
TRANSFORMS = {"linear": 0, "square": 1, "log": 2}
EPS_RULES = {"floor": 0, "add": 1}

_ARGUMENTS = (
    "Tensor pred, int kind, float scale, SymInt count, Tensor? avg_factor, Tensor target, Tensor? weight, "
    "int iou_kind, int transform, int eps_rule, float eps"
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
    *options: float,
) -> None:
    core, device = _native.core_for(pred)
    rows = pred.shape[0]
    workspace = _native.workspace(core, device, rows, 16, pred) if loss is not None else None
    core.iou_loss(
        grad_loss is not None,
        device,
        options,
        rows,
        _native.matrix(pred),
        _native.matrix(target),
        _native.address(weight),
        _native.flat(grad_loss),
        for_core(kind, scale, count, avg_factor),
        _native.address(loss),
        _native.matrix(grad),
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
    "iou_loss",
    register(f"iou_loss_forward({_ARGUMENTS}, bool with_grad) -> (Tensor, Tensor)", _forward, _forward_fake),
    register(f"iou_loss_backward(Tensor grad_loss, {_ARGUMENTS}) -> Tensor", _backward, _backward_fake),
)


def iou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    kind: str,
    eps: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    transform: str,
    eps_rule: str,
    loss_weight: float,
) -> Tensor:
    how = for_kernel(reduction, avg_factor, pred, pred.shape[0], loss_weight)
    options = (KINDS[kind], TRANSFORMS[transform], EPS_RULES[eps_rule], float(eps))
    return _loss(pred, *how, kernel_target(target, pred), kernel_vector(weight, pred), *options)


def _overlaps(a: Tensor, b: Tensor, aligned: bool, eps: float) -> Tensor:
    core, device = _native.core_for(a)
    iou = _overlaps_fake(a, b, aligned, eps)
    cols = 1 if aligned else b.shape[0]
    core.box_iou(device, a.shape[0], cols, aligned, _native.matrix(a), _native.matrix(b), eps, iou.data_ptr())
    return iou


def _overlaps_fake(a: Tensor, b: Tensor, aligned: bool, eps: float) -> Tensor:
    size = (a.shape[0],) if aligned else (a.shape[0], b.shape[0])
    return torch.empty(size, dtype=_native.compute_dtype(a), device=a.device)


_overlaps_op = register("box_iou(Tensor a, Tensor b, bool aligned, float eps) -> Tensor", _overlaps, _overlaps_fake)


def box_iou(a: Tensor, b: Tensor, aligned: bool, eps: float) -> Tensor:
    if a.dtype != b.dtype:
        common = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        a, b = a.to(common), b.to(common)
    return _overlaps_op(a, b, aligned, float(eps))
