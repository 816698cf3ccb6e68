"""The head of Generalized Focal Loss (Li et al. 2020): quality in the class scores, distributions for the edges."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

import gfl_ops

from ..config import GFLHeadConfig, PostprocessConfig
from ..layers import Scale
from .base import DenseHead, Detection, Targets, anchor_points, rows


class GFLOutputs(NamedTuple):
    cls_scores: list[Tensor]
    """(B, C, H, W) logits of class and quality together."""
    bbox_preds: list[Tensor]
    """(B, 4 * (reg_max + 1), H, W) logits of the left, top, right and bottom edge's distance in strides."""


class GFLHead(DenseHead[GFLOutputs]):
    outputs = GFLOutputs

    def __init__(self, config: GFLHeadConfig, num_classes: int, in_channels: int) -> None:
        super().__init__(config, num_classes, in_channels)
        self.num_bins = config.reg_max + 1
        self.gfl_cls = nn.Conv2d(config.feat_channels, num_classes, 3, padding=1)
        self.gfl_reg = nn.Conv2d(config.feat_channels, 4 * self.num_bins, 3, padding=1)
        self.scales = nn.ModuleList(Scale() for _ in config.strides)
        self.integral = gfl_ops.Integral(config.reg_max)  # not used; checkpoints have its buffer
        self.criterion = gfl_ops.GFLLoss(
            num_classes,
            config.reg_max,
            strides=config.strides,
            beta=config.beta,
            loss_weights=config.loss_weights,
        )
        self.init_weights(self.gfl_cls)

    def predict(self, cls_features: Tensor, reg_features: Tensor, level: int) -> tuple[Tensor, Tensor]:
        return self.gfl_cls(cls_features), self.scales[level](self.gfl_reg(reg_features))

    def loss(
        self, outputs: GFLOutputs, targets: Targets, padded_shapes: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        result = self.criterion(outputs.cls_scores, outputs.bbox_preds, targets, padded_shapes)
        losses = {name: value for name, value in result.items() if name.startswith("loss_")}
        return losses, {name: value for name, value in result.items() if name not in losses}

    def detect(
        self,
        outputs: GFLOutputs,
        image_shapes: Tensor,
        scale_factors: Tensor,
        config: PostprocessConfig,
        with_edges: bool = False,
    ) -> list[Detection]:
        detections = gfl_ops.postprocess(
            outputs.cls_scores,
            outputs.bbox_preds,
            self.strides,
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

    def decode(self, outputs: GFLOutputs) -> tuple[Tensor, Tensor]:
        boxes, scores = [], []
        for cls_score, edge_logits, stride in zip(*outputs, self.strides, strict=True):
            points = anchor_points(edge_logits, stride)
            distances = gfl_ops.integral(rows(edge_logits).float(), num_bins=self.num_bins) * stride
            boxes.append(torch.cat([points - distances[..., :2], points + distances[..., 2:]], 2))
            scores.append(rows(cls_score).float().sigmoid())
        return torch.cat(boxes, 1), torch.cat(scores, 1)
