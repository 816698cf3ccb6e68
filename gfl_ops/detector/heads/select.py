"""Detections of one image from dense scores and boxes, for heads without a fused form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

import gfl_ops

from ..settings import PostprocessConfig


def select(
    scores: Tensor,
    factors: Tensor | None,
    boxes: Tensor,
    image_shape: Tensor,
    scale_factor: Tensor,
    level_sizes: Sequence[int],
    config: PostprocessConfig,
    inclusive: bool,
) -> tuple[dict[str, Tensor], Tensor]:
    """The semantics of :func:`gfl_ops.postprocess`; a factor multiplies a prior's scores after their threshold.

    Args:
        scores: (A, C), the levels one after the other.
        factors: (A,), the centerness or the like.
        boxes: (A, 4) in pixels of the batch.
        image_shape: (2,) height and width.
        scale_factor: (2,) by what x and y of the input image were multiplied.
        level_sizes: number of priors of each level.
        config: the thresholds.
        inclusive: the boxes end on their last pixel. Those that are returned do not.

    Returns:
        The detections, and the prior of each.
    """
    kept_scores, kept_labels, kept_priors = [], [], []
    begin = 0
    for size in level_sizes:
        level = scores[begin : begin + size]
        prior, label = (level > config.score_thr).nonzero().unbind(1)
        score, order = level[prior, label].sort(descending=True, stable=True)
        order = order[: config.nms_pre]
        kept_priors.append(prior[order] + begin)
        kept_scores.append(score[: config.nms_pre])
        kept_labels.append(label[order])
        begin += size
    prior, score, label = torch.cat(kept_priors), torch.cat(kept_scores), torch.cat(kept_labels)
    if factors is not None:
        score = score * factors[prior]

    limit = (image_shape.flip(0).repeat(2) - max(config.border, float(inclusive))).to(boxes.dtype)
    box = boxes[prior].clamp(min=0).minimum(limit) / scale_factor.repeat(2)
    if inclusive:
        box = box + box.new_tensor([0, 0, 1, 1])
    large = ((box[:, 2:] - box[:, :2]) > config.min_size).all(1)
    box, score, label, prior = box[large], score[large], label[large], prior[large]
    keep = gfl_ops.batched_nms(box, score, label, config.iou_thr)[: config.max_per_img]
    return {"boxes": box[keep], "scores": score[keep], "labels": label[keep]}, prior[keep]
