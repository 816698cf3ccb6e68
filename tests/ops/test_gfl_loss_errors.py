"""What gfl_loss says of wrong arguments."""

from __future__ import annotations

import pytest
import torch

from benchmarks.harness.random_head import STRIDES, head
from gfl_ops import PaddedTargets, gfl_loss

GOOD = head(52, (2, 1), (64, 64))
BOXES, LABELS = torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)
ERRORS = [
    ({"cls_scores": GOOD.cls_scores[0]}, TypeError, "cls_scores must be a list of tensors, got Tensor"),
    ({"cls_scores": []}, ValueError, "cls_scores must have 1 to 8 levels, got 0"),
    ({"cls_scores": GOOD.cls_scores[:-1]}, ValueError, "cls_scores must have one level for each of 5 strides, got 4"),
    ({"cls_scores": [x.long() for x in GOOD.cls_scores]}, TypeError, r"cls_scores\[0\] must be float32.* got int64"),
    ({"cls_scores": [x[0] for x in GOOD.cls_scores]}, ValueError, r"cls_scores\[0\] must be \(B, channels, H, W\)"),
    (
        {"bbox_preds": [x[:, :-1] for x in GOOD.bbox_preds]},
        ValueError,
        "bbox_preds must have 4 . bins channels, got 67",
    ),
    (
        {"bbox_preds": [x[:, :, :1] for x in GOOD.bbox_preds]},
        ValueError,
        r"bbox_preds\[0\] must be .* = \(2, 68, 8, 8\)",
    ),
    (
        {"bbox_preds": [x.double() for x in GOOD.bbox_preds]},
        TypeError,
        r"bbox_preds\[0\] must be float32 as all levels",
    ),
    ({"strides": (8, 16)}, ValueError, "cls_scores must have one level for each of 2 strides, got 5"),
    (
        {"strides": STRIDES[::-1]},
        ValueError,
        r"strides do not fit the heights of the levels: got \[128.*\] for \[8, 4, 2, 1, 1\]",
    ),
    ({"strides": 8}, TypeError, "strides must be a list of numbers, got int"),
    ({"strides": (8, 16, 32, 64, 0)}, ValueError, "strides must be above 0 .* got 0"),
    ({"targets": {}}, TypeError, "targets must be a list of dicts or PaddedTargets, got dict"),
    ({"targets": GOOD.targets[:1]}, ValueError, "targets must have one entry for each of 2 images, got 1"),
    ({"targets": [{"boxes": BOXES[0]}] * 2}, TypeError, r"targets\[0\] must be a dict .* got \['boxes'\]"),
    (
        {"targets": [{"boxes": BOXES[0], "labels": LABELS[0, :2]}] * 2},
        ValueError,
        r"targets\[0\]\['labels'\] must be \(n,\) = \(3,\), got \(2,\)",
    ),
    (
        {"targets": [{"boxes": BOXES[0], "labels": LABELS[0] + 5}] * 2},
        ValueError,
        r"labels must be in \[0, C = 5\), got 5 in image 0, ground truth 0",
    ),
    (
        {"targets": PaddedTargets(BOXES, LABELS - 1, torch.tensor([0, 2]))},
        ValueError,
        r"labels must be in \[0, C = 5\), got -1 in image 1, ground truth 0",
    ),
    (
        {"targets": PaddedTargets(BOXES, LABELS, torch.tensor([4, 0]))},
        ValueError,
        r"targets.counts must be 0 to G = 3, got \[4, 0\]",
    ),
    ({"targets": PaddedTargets(BOXES[0], LABELS)}, ValueError, r"targets.boxes must be \(B, G, 4\) with B = 2, got"),
    ({"targets": PaddedTargets(BOXES, LABELS.float())}, TypeError, "targets.labels must be int64.* got float32"),
    ({"valid_shapes": torch.zeros(2)}, ValueError, r"valid_shapes must be \(B, 2\) = \(2, 2\), got \(2,\)"),
    ({"topk": 0}, ValueError, "topk must be at least 1 .* got 0"),
    ({"topk": 1.5}, TypeError, "topk must be a whole number, got 1.5"),
    ({"iou_kind": "siou"}, ValueError, "iou_kind must be one of .* got 'siou'"),
    ({"eps_rule": "max"}, ValueError, "eps_rule must be one of .* got 'max'"),
    ({"alpha_rule": "always"}, ValueError, "alpha_rule 'always' needs kind 'ciou', got kind 'giou'"),
    ({"loss_weights": (1.0, 2.0)}, ValueError, r"loss_weights must be three numbers, got \(1.0, 2.0\)"),
    ({"beta": -1}, ValueError, "beta must be at least 0 .* got -1"),
]


@pytest.mark.parametrize(("change", "error", "words"), ERRORS, ids=[words[:40] for _, _, words in ERRORS])
def test_errors(change: dict, error: type[Exception], words: str) -> None:
    good = {"cls_scores": GOOD.cls_scores, "bbox_preds": GOOD.bbox_preds, "targets": GOOD.targets, "strides": STRIDES}
    with pytest.raises(error, match=f"gfl_loss: {words}"):
        gfl_loss(**(good | change))
