"""What postprocess says of wrong arguments."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from gfl_ops import postprocess

S, E = torch.zeros(2, 3, 4, 5), torch.zeros(2, 68, 4, 5)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"cls_scores": S}, TypeError, "cls_scores must be a list with one entry for each level, got Tensor"),
        ({"cls_scores": []}, ValueError, "cls_scores must have 1 to 8 levels, got 0"),
        ({"cls_scores": [S] * 9}, ValueError, "cls_scores must have 1 to 8 levels, got 9"),
        ({"bbox_preds": [E]}, ValueError, "bbox_preds must have one entry for each of 2 levels, got 1"),
        ({"strides": [8, 16, 32]}, ValueError, "strides must have one entry for each of 2 levels, got 3"),
        ({"strides": 8}, TypeError, "strides must be a list with one entry for each level, got int"),
        ({"strides": [8, 0]}, ValueError, "strides must be above 0 .* got 0"),
        ({"strides": [8, (8, 16)]}, TypeError, "strides must be a number, got tuple"),
        ({"cls_scores": [S, S[0]]}, ValueError, r"cls_scores\[1\] must be \(B, channels, H, W\), got \(3, 4, 5\)"),
        ({"cls_scores": [S, S[:1]]}, ValueError, r"cls_scores\[1\] must be \(B, C, H, W\) = \(2, 3, 4, 5\), got"),
        (
            {"cls_scores": [S, S.double()]},
            TypeError,
            r"cls_scores\[1\] must be .*float32 as on the first level, got .*float64",
        ),
        ({"cls_scores": [S, S.long()]}, TypeError, r"cls_scores\[1\] must be float32.* got int64"),
        (
            {"bbox_preds": [E, E[..., 1:]]},
            ValueError,
            r"bbox_preds\[1\] must be \(B, 4 \* bins, H, W\) = \(2, 68, 4, 5\)",
        ),
        ({"bbox_preds": [E[:, 1:]] * 2}, ValueError, r"bbox_preds must have 4 \* bins channels, got 67"),
        ({"bbox_preds": [E[:, :4]] * 2}, ValueError, r"bins \(the channels .* must be 2 to 256, got 1"),
        (
            {"bbox_preds": [E, E.to("meta")]},
            ValueError,
            r"bbox_preds\[1\] must be on cpu like cls_scores\[0\], got meta",
        ),
        ({"image_shapes": [(64, 64)]}, ValueError, "image_shapes must have one entry for each of 2 images, got 1"),
        (
            {"image_shapes": [(64, 64), 64]},
            ValueError,
            r"image_shapes must be \(height, width\) for each image, got 64",
        ),
        ({"image_shapes": torch.zeros(2)}, ValueError, r"image_shapes must be \(B, 2\) = \(2, 2\), got \(2,\)"),
        ({"image_shapes": 64}, TypeError, "image_shapes must be a tensor or a list, got int"),
        ({"image_shapes": [(64, -1)] * 2}, ValueError, "image_shapes must be at least 0 and finite, got -1"),
        ({"scale_factors": [1.0]}, ValueError, "scale_factors must have one entry for each of 2 images, got 1"),
        ({"scale_factors": torch.ones(2) + 0j}, TypeError, "scale_factors must be real, got complex64"),
        ({"scale_factors": [1.0, 0.0]}, ValueError, "scale_factors must be above 0 .* got 0"),
        (
            {"scale_factors": torch.ones(3)},
            ValueError,
            r"scale_factors must be \(B,\) or \(B, 2\) = \(2, 2\), got \(3,\)",
        ),
        ({"score_thr": 1.5}, ValueError, r"score_thr must be in \[0, 1\].* got 1.5"),
        ({"iou_thr": -1}, ValueError, r"iou_thr must be in \[0, 1\].* got -1"),
        ({"nms_pre": 0}, ValueError, "nms_pre must be at least 1 .* got 0"),
        ({"nms_pre": 10.0}, TypeError, "nms_pre must be a whole number, got 10.0"),
        ({"max_per_img": 0}, ValueError, "max_per_img must be at least 1 .* got 0"),
        ({"min_size": -1}, ValueError, "min_size must be at least 0 .* got -1"),
        ({"with_edges": 1}, TypeError, "with_edges must be True or False, got int"),
        ({"criterion": "ciou"}, ValueError, "criterion must be one of 'iou', 'diou', got 'ciou'"),
    ],
)
def test_errors(change: dict[str, Any], error: type[Exception], words: str) -> None:
    good = {
        "cls_scores": [S, S],
        "bbox_preds": [E, E],
        "strides": [8, 16],
        "image_shapes": [(64, 64)] * 2,
        "scale_factors": None,
    }
    with pytest.raises(error, match=f"^postprocess: {words}"):
        postprocess(**good | change)
