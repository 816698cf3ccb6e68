"""IoU, GIoU, DIoU and CIoU losses of aligned xyxy pairs.

Ties of max and min split the gradient in half, as torch.maximum has it; a clamp passes it at the bound.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..._reduce import reduce_loss
from .._formulas import widen

IOU_UNION_FLOOR = 1e-6  # of the plain IoU, whatever eps


def iou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    kind: str = "giou",
    eps: float = 1e-7,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    transform: str = "linear",
    eps_rule: str = "floor",
    alpha_rule: str = "half",
) -> Tensor:
    a = widen(pred)
    b = target.to(a.dtype)
    eps = float(eps)
    if kind == "iou":
        loss = _transformed(_iou(a, b, eps, eps_rule), transform)
    elif kind == "giou":
        loss = 1 - _giou(a, b, eps, eps_rule)
    else:
        loss = 1 - (_diou(a, b, eps, eps_rule) if kind == "diou" else ciou(a, b, eps, eps_rule, alpha_rule))
    if weight is not None and weight.dim() == 2:
        weight = weight.to(a.dtype).mean(-1)
    return reduce_loss(loss, weight, reduction, avg_factor)


def giou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-7,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    eps_rule: str = "floor",
) -> Tensor:
    return iou_loss(pred, target, weight, "giou", eps, reduction, avg_factor, eps_rule=eps_rule)


def diou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-7,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    eps_rule: str = "floor",
) -> Tensor:
    return iou_loss(pred, target, weight, "diou", eps, reduction, avg_factor, eps_rule=eps_rule)


def ciou_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    eps: float = 1e-7,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    eps_rule: str = "floor",
    alpha_rule: str = "half",
) -> Tensor:
    rules = {"eps_rule": eps_rule, "alpha_rule": alpha_rule}
    return iou_loss(pred, target, weight, "ciou", eps, reduction, avg_factor, **rules)


def floored(x: Tensor, eps: float) -> Tensor:
    return torch.maximum(x, x.new_full((), eps))


def _sizes(boxes: Tensor) -> tuple[Tensor, Tensor]:
    x1, y1, x2, y2 = boxes.unbind(-1)
    return x2 - x1, y2 - y1


def inter_union(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    overlap = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    inter = overlap[..., 0] * overlap[..., 1]
    (aw, ah), (bw, bh) = _sizes(a), _sizes(b)
    return inter, aw * ah + bw * bh - inter


def _enclosing_sizes(a: Tensor, b: Tensor, clamped: bool = True) -> tuple[Tensor, Tensor]:
    """Width and height of the smallest box around both."""
    sizes = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    width, height = (sizes.clamp(min=0) if clamped else sizes).unbind(-1)
    return width, height


def _iou(a: Tensor, b: Tensor, eps: float, eps_rule: str) -> Tensor:
    inter, union = inter_union(a, b)
    iou = inter / (union + eps if eps_rule == "add" else floored(union, IOU_UNION_FLOOR))
    return iou.clamp(min=eps)


def _transformed(iou: Tensor, transform: str) -> Tensor:
    if transform == "log":
        return -iou.log()
    return 1 - (iou.square() if transform == "square" else iou)


def _giou(a: Tensor, b: Tensor, eps: float, eps_rule: str) -> Tensor:
    inter, union = inter_union(a, b)
    width, height = _enclosing_sizes(a, b)
    enclosure = width * height
    union, enclosure = (
        (union + eps, enclosure + eps) if eps_rule == "add" else (floored(union, eps), floored(enclosure, eps))
    )
    return inter / union - (enclosure - union) / enclosure


def _iou_and_distance(a: Tensor, b: Tensor, eps: float, eps_rule: str) -> tuple[Tensor, Tensor]:
    """IoU, and the squared distance of the centres over the squared diagonal of the enclosure."""
    inter, union = inter_union(a, b)
    width, height = _enclosing_sizes(a, b, clamped=eps_rule != "add")
    centre_shift = (b[..., :2] + b[..., 2:] - a[..., :2] - a[..., 2:]) / 2
    return inter / (union + eps), centre_shift.square().sum(-1) / (width.square() + height.square() + eps)


def _diou(a: Tensor, b: Tensor, eps: float, eps_rule: str) -> Tensor:
    iou, distance = _iou_and_distance(a, b, eps, eps_rule)
    return iou - distance


def ciou(a: Tensor, b: Tensor, eps: float, eps_rule: str, alpha_rule: str) -> Tensor:
    """DIoU minus alpha * v, where v compares the aspect ratios and alpha carries no gradient."""
    iou, distance = _iou_and_distance(a, b, eps, eps_rule)
    (aw, ah), (bw, bh) = _sizes(a), _sizes(b)
    v = 4 / math.pi**2 * (torch.atan(bw / (bh + eps)) - torch.atan(aw / (ah + eps))).square()
    added = eps if eps_rule == "add" else 0.0
    with torch.no_grad():
        # v = 0 with iou = 1 would be 0 / 0.
        counts = (v > 0) if alpha_rule == "always" else (iou > 0.5) & (v > 0)
        alpha = torch.where(counts, v / (1 - iou + v + added), 0.0)
    ciou = iou - distance - alpha * v
    return ciou if eps_rule == "add" else ciou.clamp(-1.0, 1.0)
