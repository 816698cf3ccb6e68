"""The fast path: a head whose parts are those of GFL is one call in training, and one in inference."""

from __future__ import annotations

from torch import Tensor

import gfl_ops

from ..settings import PostprocessConfig
from .assigners import ATSS
from .boxes import Distribution
from .config import Divisors, HeadConfig
from .parts import Detection, Outputs
from .priors import Points
from .quality import Joint


def criterion(config: HeadConfig, num_classes: int) -> gfl_ops.GFLLoss | None:
    """The whole loss of a head with these parts, if one call has it."""
    priors, assigner, boxes, quality = config.priors, config.assigner, config.boxes, config.quality
    if not (isinstance(priors, Points) and isinstance(assigner, ATSS) and isinstance(boxes, Distribution)):
        return None
    if type(quality) is not Joint or not quality.weighs_boxes or config.divisors != Divisors():
        return None
    if priors.inclusive or boxes.unit != 1.0 or boxes.dfl_weight is None:
        return None
    return gfl_ops.GFLLoss(
        num_classes,
        boxes.reg_max,
        strides=config.strides,
        beta=quality.beta,
        loss_weights=(quality.weight, boxes.weight, boxes.dfl_weight),
        topk=assigner.topk,
        anchor_scale=priors.box_side,
        center_offset=priors.offset,
    )


def detects(config: HeadConfig) -> bool:
    """Whether :func:`gfl_ops.postprocess` gives a head's detections."""
    priors, boxes = config.priors, config.boxes
    if not (isinstance(priors, Points) and isinstance(boxes, Distribution)) or type(config.quality) is not Joint:
        return False
    return priors.offset == 0.0 and not priors.inclusive and boxes.unit == 1.0


def detect(
    strides: tuple[int, ...],
    outputs: Outputs,
    image_shapes: Tensor,
    scale_factors: Tensor,
    config: PostprocessConfig,
    with_edges: bool,
) -> list[Detection]:
    detections = gfl_ops.postprocess(
        outputs.cls_scores,
        outputs.bbox_preds,
        strides,
        image_shapes,
        scale_factors,
        score_thr=config.score_thr,
        nms_pre=config.nms_pre,
        iou_thr=config.iou_thr,
        max_per_img=config.max_per_img,
        min_size=config.min_size,
        with_edges=with_edges,
    )
    return detections.to_list()
