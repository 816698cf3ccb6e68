"""The head of ATSS (Zhang et al. 2020), which GFL improves on: class scores, one box and its centerness a cell."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

import gfl_ops
from gfl_ops._distributed import start_mean_over_ranks

from ..config import ATSSHeadConfig, PostprocessConfig
from ..layers import Scale
from .base import DenseHead, Detection, Targets, anchor_points, rows
from .select import select
from .targets import padded

_ANCHOR_SCALE = 8  # the anchors' side in strides
_CENTER_STD, _SIZE_STD = 0.1, 0.2  # what the deltas are divided by
_LONGEST_LOG_RATIO = math.log(1000 / 16)  # limit of a box's size relative to its anchor's


class ATSSOutputs(NamedTuple):
    cls_scores: list[Tensor]
    """(B, C, H, W) logits."""
    bbox_preds: list[Tensor]
    """(B, 4, H, W): centre and log size relative to the anchor, divided by 0.1 and 0.2."""
    centernesses: list[Tensor]
    """(B, 1, H, W) logits."""


class Assigned(NamedTuple):
    labels: Tensor
    """(B, A); -1 is background, -2 outside the image."""
    positive: Tensor
    """(B, A) bool."""
    anchors: Tensor
    """(A, 4)"""
    boxes: Tensor
    """(B, A, 4) the assigned ground truth of a positive; the anchor itself where there is none."""


class ATSSHead(DenseHead[ATSSOutputs]):
    outputs = ATSSOutputs

    def __init__(self, config: ATSSHeadConfig, num_classes: int, in_channels: int) -> None:
        super().__init__(config, num_classes, in_channels)
        self.config = config
        self.atss_cls = nn.Conv2d(config.feat_channels, num_classes, 3, padding=1)
        self.atss_reg = nn.Conv2d(config.feat_channels, 4, 3, padding=1)
        self.atss_centerness = nn.Conv2d(config.feat_channels, 1, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in config.strides)
        self.init_weights(self.atss_cls)

    def predict(self, cls_features: Tensor, reg_features: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        return (
            self.atss_cls(cls_features),
            self.scales[level](self.atss_reg(reg_features)),
            self.atss_centerness(reg_features),
        )

    def loss(
        self, outputs: ATSSOutputs, targets: Targets, padded_shapes: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Over all anchors, with weight 0 for the background: selecting the positives would wait for the device."""
        assigned = self.assign(outputs, targets, padded_shapes)
        labels, positive, anchors, boxes = assigned.labels, assigned.positive, assigned.anchors, assigned.boxes
        centerness = torch.where(positive, centerness_target(anchors, boxes), 0.0)

        totals = torch.stack([positive.sum(1).clamp(min=1).sum().float(), centerness.sum()])
        num_pos, weight_sum = start_mean_over_ranks(totals)().unbind()
        loss_cls = gfl_ops.multilevel_sigmoid_focal_loss(
            outputs.cls_scores, labels, gamma=self.config.gamma, alpha=self.config.alpha, avg_factor=num_pos
        )
        loss_bbox = gfl_ops.giou_loss(
            self._boxes(anchors, outputs).flatten(0, 1),
            boxes.flatten(0, 1),
            centerness.flatten(),
            eps=1e-6,
            avg_factor=weight_sum.clamp(min=1),
        )
        logits = torch.cat([rows(level) for level in outputs.centernesses], 1)[..., 0].float()
        loss_centerness = functional.binary_cross_entropy_with_logits(
            logits, centerness, positive.float(), reduction="sum"
        )
        weights = self.config.loss_weights
        losses = {
            "loss_cls": loss_cls * weights[0],
            "loss_bbox": loss_bbox * weights[1],
            "loss_centerness": loss_centerness / num_pos * weights[2],
        }
        return losses, {"num_pos": positive.sum(), "avg_factor": num_pos}

    def assign(self, outputs: Any, targets: Targets, padded_shapes: Tensor) -> Assigned:
        gt_boxes, gt_labels, gt_counts = padded(targets)
        assigned, _ = gfl_ops.atss_assign(
            gt_boxes,
            gt_counts,
            [(level.shape[-2], level.shape[-1]) for level in outputs.bbox_preds],
            self.strides,
            padded_shapes,
            anchor_scale=_ANCHOR_SCALE,
        )
        positive = assigned >= 0
        index = assigned.clamp(min=0).long()
        labels = torch.where(positive, gt_labels.gather(1, index), assigned.long())
        anchors = self._anchors(outputs)
        boxes = gt_boxes.gather(1, index[..., None].expand(-1, -1, 4))
        return Assigned(labels, positive, anchors, torch.where(positive[..., None], boxes, anchors))

    def detect(
        self,
        outputs: ATSSOutputs,
        image_shapes: Tensor,
        scale_factors: Tensor,
        config: PostprocessConfig,
        with_edges: bool = False,
    ) -> list[Detection]:
        if with_edges:
            raise ValueError("ATSSHead: with_edges must be False, got True; the head predicts no edge distributions")
        scores = torch.cat([rows(level) for level in outputs.cls_scores], 1).float().sigmoid()
        factors = self.factors(outputs)[..., 0]
        boxes = self._boxes(self._anchors(outputs), outputs)
        sizes = [level.shape[-2] * level.shape[-1] for level in outputs.cls_scores]
        return [
            select(*image, sizes, config)
            for image in zip(scores, factors, boxes, image_shapes, scale_factors, strict=True)
        ]

    def decode(self, outputs: ATSSOutputs) -> tuple[Tensor, Tensor]:
        scores = torch.cat([rows(level) for level in outputs.cls_scores], 1).float().sigmoid()
        return self._boxes(self._anchors(outputs), outputs), scores * self.factors(outputs)

    def factors(self, outputs: ATSSOutputs) -> Tensor:
        """(B, A, 1) factors of the scores."""
        return torch.cat([rows(level) for level in outputs.centernesses], 1).float().sigmoid()

    def _anchors(self, outputs: Any) -> Tensor:
        """(A, 4) of all levels."""
        anchors = []
        for level, stride in zip(outputs.bbox_preds, self.strides, strict=True):
            points, half = anchor_points(level, stride), stride * _ANCHOR_SCALE / 2
            anchors.append(torch.cat([points - half, points + half], 1))
        return torch.cat(anchors)

    def _boxes(self, anchors: Tensor, outputs: Any) -> Tensor:
        """(B, A, 4): the anchor moved by fractions of its size, and scaled."""
        deltas = torch.cat([rows(level) for level in outputs.bbox_preds], 1).float()
        shift, growth = deltas[..., :2] * _CENTER_STD, deltas[..., 2:] * _SIZE_STD
        size = anchors[:, 2:] - anchors[:, :2]
        center = (anchors[:, :2] + anchors[:, 2:]) / 2 + shift * size
        half = size * growth.clamp(-_LONGEST_LOG_RATIO, _LONGEST_LOG_RATIO).exp() / 2
        return torch.cat([center - half, center + half], -1)


def centerness_target(anchors: Tensor, boxes: Tensor) -> Tensor:
    """1 where the anchor's centre is that of the box, falling to 0 at its edges."""
    center = (anchors[:, :2] + anchors[:, 2:]) / 2
    to_low, to_high = center - boxes[..., :2], boxes[..., 2:] - center
    ratio = torch.minimum(to_low, to_high) / torch.maximum(to_low, to_high)
    return ratio.prod(-1).sqrt()
