"""The IoU family on the compiled core."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ... import _autograd, _native
from ..._library import register
from ..._reduce import for_core, for_kernel
from .._class_loss import kernel_target, kernel_vector

# gfl_iou_kind, gfl_iou_transform and gfl_eps_rule in csrc/gfl.h
KINDS = {"iou": 0, "giou": 1, "diou": 2, "ciou": 3}
TRANSFORMS = {"linear": 0, "square": 1, "log": 2}
EPS_RULES = {"floor": 0, "add": 1}

ARGUMENTS = (
    "Tensor pred, int kind, float scale, SymInt count, Tensor? avg_factor, Tensor target, Tensor? weight, "
    "int iou_kind, int transform, int eps_rule, float eps"
)


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


_loss = _autograd.fused_loss("iou_loss", _autograd.register_loss("iou_loss", ARGUMENTS, _run))


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
    fused: Callable[..., Tensor] = _loss,
) -> Tensor:
    how = for_kernel(reduction, avg_factor, pred, pred.shape[0], loss_weight)
    options = (KINDS[kind], TRANSFORMS[transform], EPS_RULES[eps_rule], float(eps))
    return fused(pred, *how, kernel_target(target, pred), kernel_vector(weight, pred), *options)


def overlaps_like(a: Tensor, b: Tensor, aligned: bool) -> Tensor:
    size = (a.shape[0],) if aligned else (a.shape[0], b.shape[0])
    return torch.empty(size, dtype=_native.compute_dtype(a), device=a.device)


def _overlaps(a: Tensor, b: Tensor, aligned: bool, eps: float) -> Tensor:
    core, device = _native.core_for(a)
    iou = overlaps_like(a, b, aligned)
    cols = 1 if aligned else b.shape[0]
    core.box_iou(device, a.shape[0], cols, aligned, _native.matrix(a), _native.matrix(b), eps, iou.data_ptr())
    return iou


_overlaps_op = register(
    "box_iou(Tensor a, Tensor b, bool aligned, float eps) -> Tensor",
    _overlaps,
    lambda a, b, aligned, eps: overlaps_like(a, b, aligned),
)


def box_iou(a: Tensor, b: Tensor, aligned: bool, eps: float, overlaps: Callable[..., Tensor] = _overlaps_op) -> Tensor:
    if a.dtype != b.dtype:
        common = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
        a, b = a.to(common), b.to(common)
    return overlaps(a, b, aligned, float(eps))
