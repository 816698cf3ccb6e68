"""Detections of one image from dense scores and boxes, for heads whose boxes are not distributions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import gfl_ops

from ..config import PostprocessConfig


def select(
    scores: Tensor,
    factors: Tensor,
    boxes: Tensor,
    image_shape: Tensor,
    scale_factor: Tensor,
    level_sizes: Sequence[int],
    config: PostprocessConfig,
) -> dict[str, Tensor]:
    """The semantics of :func:`gfl_ops.postprocess`; a factor multiplies a location's scores after their threshold.

    Args:
        scores: (A, C), the levels one after the other.
        factors: (A,), the centerness or the like.
        boxes: (A, 4) in pixels of the batch.
        image_shape: (2,) height and width.
        scale_factor: (2,) by what x and y of the input image were multiplied.
        level_sizes: number of locations of each level.
        config: the thresholds.
    """
    kept_boxes, kept_scores, kept_labels = [], [], []
    begin = 0
    for size in level_sizes:
        level = scores[begin : begin + size]
        location, label = (level > config.score_thr).nonzero().unbind(1)
        score, order = level[location, label].sort(descending=True, stable=True)
        order = order[: config.nms_pre]
        location = location[order] + begin
        kept_boxes.append(boxes[location])
        kept_scores.append(score[: config.nms_pre] * factors[location])
        kept_labels.append(label[order])
        begin += size
    box, score, label = torch.cat(kept_boxes), torch.cat(kept_scores), torch.cat(kept_labels)

    limit = image_shape.flip(0).repeat(2).to(box.dtype)
    box = box.clamp(min=0).minimum(limit) / scale_factor.repeat(2)
    large = ((box[:, 2:] - box[:, :2]) > config.min_size).all(1)
    box, score, label = box[large], score[large], label[large]
    keep = gfl_ops.batched_nms(box, score, label, config.iou_thr)[: config.max_per_img]
    return {"boxes": box[keep], "scores": score[keep], "labels": label[keep]}
