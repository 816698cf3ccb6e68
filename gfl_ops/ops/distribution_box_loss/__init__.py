"""The box half of the GFL loss, for the positives."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from ..iou_loss import check_rules
from ..iou_loss.native import KINDS
from . import native, reference
from .reference import DistributionBoxLosses

__all__ = ["DistributionBoxLosses", "distribution_box_loss"]

_OP = "distribution_box_loss"


def distribution_box_loss(
    edge_logits: Tensor,
    anchor_points: Tensor,
    target_boxes: Tensor,
    weight: Tensor | None = None,
    *,
    stride: float | Tensor = 1.0,
    iou_kind: str = "giou",
    eps: float = 1e-6,
    target_margin: float = 0.1,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    eps_rule: str = "floor",
    alpha_rule: str = "half",
) -> DistributionBoxLosses:
    """The box losses of a detector's positives in one pass: distribution focal loss, decoded boxes and IoU loss.

    Distances are measured from the anchor point, in strides. The distribution focal loss is the mean over the four
    sides, with targets clamped to [0, bins - 1 - target_margin]. The IoU loss compares the target with the box that the
    expectations of the distributions decode to.

    Args:
        edge_logits: (P, 4 * bins) or (P, 4, bins) logits, in the order left, top, right, bottom.
        anchor_points: (P, 2) in pixels.
        target_boxes: (P, 4) xyxy in pixels.
        weight: (P,), multiplies both losses.
        stride: pixels per bin: a number, or (P,).
        iou_kind: ``"giou"``, ``"iou"``, ``"diou"`` or ``"ciou"``.
        eps: of the IoU loss.
        target_margin: targets are clamped to this far below the last bin.
        reduction: of both losses: ``"none"`` gives (P,), ``"mean"`` divides by P, ``"sum"`` adds.
        avg_factor: with ``"mean"``, what to divide by instead: a number, or a tensor of one value.
        eps_rule: of the IoU loss, as in :func:`iou_loss`: ``"floor"`` or ``"add"``.
        alpha_rule: of CIoU, as in :func:`iou_loss`: ``"half"`` or ``"always"``.

    Returns:
        ``(loss_iou, loss_dfl, boxes, quality)``: both losses, the decoded boxes (P, 4) in pixels and their plain IoU
        with the targets (P,); boxes and quality are detached.

    Example:
        >>> logits = torch.randn(64, 68, requires_grad=True)
        >>> points = torch.rand(64, 2) * 512
        >>> result = distribution_box_loss(logits, points, torch.cat([points - 20, points + 30], 1), stride=8)
        >>> (2 * result.loss_iou + 0.25 * result.loss_dfl).backward()
    """
    _checked(
        edge_logits,
        anchor_points,
        target_boxes,
        weight,
        stride,
        iou_kind,
        eps,
        target_margin,
        eps_rule,
        alpha_rule,
        reduction,
        avg_factor,
    )
    kernels = kernels_for(_OP, edge_logits, native)
    if kernels is not None:
        flat = edge_logits.flatten(1) if edge_logits.ndim == 3 else edge_logits
        return kernels.distribution_box_loss(
            flat,
            anchor_points,
            target_boxes,
            weight,
            stride,
            iou_kind,
            eps,
            target_margin,
            reduction,
            avg_factor,
            eps_rule,
            alpha_rule,
        )
    return reference.distribution_box_loss(
        edge_logits,
        anchor_points,
        target_boxes,
        weight,
        stride=stride,
        iou_kind=iou_kind,
        eps=eps,
        target_margin=target_margin,
        reduction=reduction,
        avg_factor=avg_factor,
        eps_rule=eps_rule,
        alpha_rule=alpha_rule,
    )


def _check_arguments(
    edge_logits: Any,
    anchor_points: Any,
    target_boxes: Any,
    weight: Any,
    stride: Any,
    iou_kind: Any,
    eps: Any,
    target_margin: Any,
    eps_rule: Any,
    alpha_rule: Any,
    reduction: Any,
    avg_factor: Any,
) -> None:
    _check.floating(_OP, "edge_logits", edge_logits)
    rows = edge_logits.shape[:1]
    sides = edge_logits.shape[1:]
    if len(sides) not in (1, 2) or sides.numel() % 4 or (len(sides) == 2 and sides[0] != 4):
        raise ValueError(f"{_OP}: edge_logits must be (P, 4 * bins) or (P, 4, bins), got {tuple(edge_logits.shape)}")
    bins = sides.numel() // 4
    _check.num_bins(_OP, "bins (the channels of edge_logits / 4)", bins)
    _check.companion(_OP, "anchor_points", anchor_points, edge_logits, (*rows, 2), "(P, 2)")
    _check.companion(_OP, "target_boxes", target_boxes, edge_logits, (*rows, 4), "(P, 4)")
    if weight is not None:
        _check.companion(_OP, "weight", weight, edge_logits, rows, "(P,)")
    if isinstance(stride, Tensor):
        _check.companion(_OP, "stride", stride, edge_logits, rows, "(P,)")
    else:
        _check.number(_OP, "stride", stride, math.ulp(0.0))
    _check.choice(_OP, "iou_kind", iou_kind, tuple(KINDS))
    check_rules(_OP, iou_kind, eps_rule, alpha_rule)
    _check.number(_OP, "eps", eps, 0)
    _check.number(_OP, "target_margin", target_margin, 0, bins - 1)
    _check.reduction(_OP, reduction, avg_factor, edge_logits)


_checked = _check.Checked(_check_arguments)
