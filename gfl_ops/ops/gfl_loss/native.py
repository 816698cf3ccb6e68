"""The kernels of the GFL loss on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..._native import Kernel
from .._multilevel_class_loss import MULTILEVEL_CLASS_LOSS
from .fused import Assign, Assigned, BoxGradient, BoxLosses, FusedGFLLoss, Kernels, PositiveBoxes

_assign_kernel = Kernel(
    "atss_assign_run",
    (
        *("gt_boxes", "dtype", "gt_labels", "gt_counts", "valid_shapes", "topk", "anchor_scale", "center_offset"),
        *("batch", "num_gts", "classes", "levels", "assigned_gt", "labels"),
    ),
)
_weights_kernel = Kernel(
    "positive_weights_forward",
    ("scores", "levels", "batch", "classes", "assigned_gt", "weights", "normalisers", "num_pos"),
)
_BOX_FIELDS = (
    *("edges", "assigned_gt", "weights", "gt_boxes", "center_offset"),
    *("iou_kind", "eps_rule", "alpha_rule", "eps", "target_margin"),
    *("levels", "batch", "bins", "num_gts"),
)
_boxes_kernel = Kernel("positive_boxes_forward", (*_BOX_FIELDS, "quality", "sums"))
_boxes_backward_kernel = Kernel(
    "positive_boxes_backward",
    (*_BOX_FIELDS, "grad_iou", "grad_dfl", "scale_iou", "scale_dfl", "normalisers", "grad"),
)
_losses_kernel = Kernel("box_losses_forward", (*BoxLosses._fields, "dtype", "loss_iou", "loss_dfl", "mean_quality"))


def _assign(outputs: Assigned, *args: Any) -> None:
    a = Assign(*args)
    assigned_gt, labels, weights, normalisers, num_pos = outputs
    batch, num_gts, _ = a.gt_boxes.shape
    classes = a.cls_scores[0].shape[1]
    levels = a.cls_scores, a.strides
    gts = a.gt_boxes, a.gt_boxes, a.gt_labels, a.gt_counts, a.valid_shapes
    options = a.topk, a.anchor_scale, a.center_offset
    _assign_kernel.run(*gts, *options, batch, num_gts, classes, levels, assigned_gt, labels)
    _weights_kernel.run(a.cls_scores, levels, batch, classes, assigned_gt, weights, normalisers, num_pos)


def _boxes(outputs: tuple[Tensor, Tensor] | None, gradient: BoxGradient | None, *args: Any) -> None:
    a = PositiveBoxes(*args)
    batch, channels = a.edges[0].shape[:2]
    values: Sequence[Any] = (
        *(a.edges, a.assigned_gt, a.weights, a.gt_boxes, a.center_offset),
        *(a.iou_kind, a.eps_rule, a.alpha_rule, a.eps, a.target_margin),
        *((a.edges, a.strides), batch, channels // 4, a.gt_boxes.shape[1]),
    )
    if gradient is None:
        _boxes_kernel.run(*values, *outputs or ())
    else:
        _boxes_backward_kernel.run(*values, *gradient)


def _box_losses(outputs: tuple[Tensor, Tensor, Tensor], *args: Any) -> None:
    _losses_kernel.run(*args, BoxLosses(*args).num_pos, *outputs)


gfl_loss = FusedGFLLoss("", Kernels(_assign, _boxes, _box_losses, MULTILEVEL_CLASS_LOSS))
