# mypy: disable-error-code="no-untyped-def"
"""The GFL loss on Triton. The assignment is the reference's; the weights of the positives are a launch a level."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import _triton
from .._box_loss_maps_triton import BOX_LOSS_MAPS
from .._multilevel_class_loss_triton import MULTILEVEL_CLASS_LOSS
from .._targets import PaddedTargets
from .._triton_maps import MAP_SIZES, levels_of, map_strides, tile_of_map
from .._triton_math.elementary import maximum, sigmoid_parts
from .._triton_math.softmax import logit
from .fused import Assign, Assigned, FusedGFLLoss, RawAssign
from .reference import assigned_gts

_ROWS = 128


@triton.jit(do_not_specialize=[*MAP_SIZES, "num_gts"])
def positive_weights_kernel(
    scores, assigned_gt, gt_labels, labels, weights, num_gts, tiles_each, positions, first, anchors,
    CLASSES: tl.constexpr, UNROLL: tl.constexpr, UNIT: tl.constexpr, POSITIONS_ADJOIN: tl.constexpr,
    BLOCK: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """A positive's label, and its highest probability of a class; elsewhere -1 or -2, and 0."""
    positions, position_stride, class_stride = map_strides(positions, CLASSES, UNIT, POSITIONS_ADJOIN)
    image, start = tile_of_map(tl.program_id(0), tiles_each, BLOCK)
    position = start + tl.arange(0, BLOCK)
    there = position < positions
    anchor = image * anchors + first + position
    gt = tl.load(assigned_gt + anchor, mask=there, other=-1)
    positive = gt >= 0
    label = gt
    weight = tl.zeros([BLOCK], DTYPE)
    if tl.max(gt, 0) >= 0:
        label = tl.where(positive, tl.load(gt_labels + image * num_gts + gt, mask=positive, other=0).to(tl.int32), gt)
        x = scores + image * positions * CLASSES + position * position_stride
        most = logit(x, 0, class_stride, positive, DTYPE)
        for k in tl.range(1, CLASSES, loop_unroll_factor=UNROLL):
            most = maximum(most, logit(x, k, class_stride, positive, DTYPE))
        weight = tl.where(positive, sigmoid_parts(most)[0], 0.0)
    tl.store(labels + anchor, label, mask=there)
    tl.store(weights + anchor, weight, mask=there)


def _assign(outputs: Assigned, *args: Any) -> None:
    a = Assign(*args)
    assigned_gt, labels, weights, normalisers, num_pos = outputs
    batch, classes = a.cls_scores[0].shape[:2]
    assigned_gt.copy_(
        assigned_gts(
            PaddedTargets(a.gt_boxes, a.gt_labels, a.gt_counts),
            classes,
            [(x.shape[2], x.shape[3]) for x in a.cls_scores],
            a.strides,
            a.valid_shapes,
            topk=a.topk,
            anchor_scale=a.anchor_scale,
            center_offset=a.center_offset,
        )
    )
    for level in levels_of(a.cls_scores):
        tiles = level.tiles_each(_ROWS)
        if batch * tiles == 0:
            continue
        _triton.launch(
            positive_weights_kernel,
            batch * tiles,
            weights,
            level.map,
            assigned_gt,
            a.gt_labels,
            labels,
            weights,
            a.gt_labels.shape[1],
            tiles,
            *level.sizes(),
            CLASSES=classes,
            UNROLL=8,
            **level.constants(),
            BLOCK=_ROWS,
            DTYPE=_triton.compute_type(weights),
        )
    positives = (assigned_gt >= 0).sum(1)
    normalisers[0] = positives.clamp(min=1).sum()
    normalisers[1] = weights.sum(dtype=torch.float64)
    num_pos.copy_(positives.sum())


gfl_loss = FusedGFLLoss(RawAssign("triton_", _assign), BOX_LOSS_MAPS, MULTILEVEL_CLASS_LOSS)
