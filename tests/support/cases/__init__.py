"""The case table that every generic test runs over: one row per op, variant and shape.

A row builds its named inputs for a dtype and a device (case_maker.py); the public function, the reference and the
oracle all take them by those names.
"""

from __future__ import annotations

from tests.support.cases import boxes, class_losses, distributions  # noqa: F401  (their rows)
from tests.support.cases.table import CASES

OPS = sorted({case.op for case in CASES})
BY_ID = {case.id: case for case in CASES}
if len(BY_ID) != len(CASES):
    raise AssertionError("two rows of the case table share a name")

# One row per kind of argument: absent and present, reduced and not, strided and not, empty, half.
KINDS_OF_ARGUMENTS = [
    "quality_focal_loss-9x3",
    "quality_focal_loss-0x80",
    "quality_focal_loss-avg-0-d",
    "quality_focal_loss-beta2.0-none",
    "quality_focal_loss-dense-transposed",
    "quality_focal_loss-activated-transposed",
    "sigmoid_focal_loss-9x3",
    "sigmoid_focal_loss-weight-element-none",
    "sigmoid_focal_loss-dense-gamma1.5-sum",
    "varifocal_loss-9x3",
    "varifocal_loss-dense-weight-element-none",
    "varifocal_loss-gamma1.5-even-detached",
    "soft_bce_loss-0x80",
    "soft_bce_loss-dense-weight-row-none",
    "soft_bce_loss-class_weight-transposed",
    "distribution_focal_loss-7x17",
    "distribution_focal_loss-0x17",
    "distribution_focal_loss-weight-none",
    "distribution_focal_loss-bin_values-sided",
    "distribution_focal_loss-transposed",
    "distribution_kl_loss-7x17",
    "distribution_kl_loss-wide-teacher",
    "distribution_kl_loss-bin-mean-none",
    "integral-7x17",
    "integral-bin_values-map",
    "integral-map-channels-last",
    "distribution_statistics-tied",
    "distribution_statistics-map-channels-last",
    "iou_loss-giou-mean",
    "iou_loss-ciou-none",
    "iou_loss-diou-weight4",
    "iou_loss-iou-log-transposed",
    "box_iou-5x7",
    "box_iou-aligned-nested",
    "generalized_focal_loss-beta2.0-none",
    "generalized_focal_loss-broadcast-y",
    "generalized_focal_loss-avg-0-d",
    "distribution_box_loss-giou-mean",
    "distribution_box_loss-per-row-stride",
    "distribution_box_loss-three-dim-transposed",
]

# One row per public function.
TYPICAL = [
    "quality_focal_loss-avg-0-d",
    "quality_focal_loss-dense-beta2.0-mean",
    "sigmoid_focal_loss-weight-row-mean",
    "varifocal_loss-dense-weight-None-mean",
    "soft_bce_loss-class_weight-row-mean",
    "distribution_focal_loss-weight-mean",
    "distribution_kl_loss-avg-0-d",
    "integral-map",
    "distribution_statistics-map",
    "iou_loss-giou-weight",
    "giou_loss-plain",
    "diou_loss-plain",
    "ciou_loss-plain",
    "box_iou-5x7",
    "generalized_focal_loss-beta2.0-mean",
    "distribution_box_loss-giou-mean",
    "decode_boxes-clipped",
    "decode_boxes-map",
]

# On a GPU these rows come first: all ops, a few hundred tests with all dtypes.
SMOKE = {*KINDS_OF_ARGUMENTS, *TYPICAL, *(case.id for case in CASES[::20])}
