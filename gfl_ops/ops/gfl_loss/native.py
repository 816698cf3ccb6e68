"""The GFL loss on the compiled core."""

from __future__ import annotations

from typing import Any

from ..._native import Kernel
from .._box_loss_maps import BOX_LOSS_MAPS
from .._multilevel_class_loss import MULTILEVEL_CLASS_LOSS
from .fused import Assign, Assigned, FusedGFLLoss, RawAssign

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


gfl_loss = FusedGFLLoss(RawAssign("", _assign), BOX_LOSS_MAPS, MULTILEVEL_CLASS_LOSS)
