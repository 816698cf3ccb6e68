"""ATSS with one of GFL's two losses, for the ablation."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

import gfl_ops
from gfl_ops._distributed import start_mean_over_ranks

from ..config import AblationHeadConfig
from .atss import ATSSHead, ATSSOutputs, centerness_target
from .base import Targets, anchor_points, rows


class AblationHead(ATSSHead):
    """With ``quality_focal`` the class scores learn the box's quality, and there is no centerness. With
    ``distribution`` each edge is a distribution over bins, learned by distribution focal loss beside GIoU."""

    def __init__(self, config: AblationHeadConfig, num_classes: int, in_channels: int) -> None:
        super().__init__(config, num_classes, in_channels)
        self.joint, self.num_bins = config.quality_focal, config.reg_max + 1 if config.distribution else None
        self.dfl_weight, self.beta = config.dfl_weight, config.beta
        if self.joint:
            del self.atss_centerness
        if self.num_bins is not None:
            self.atss_reg = nn.Conv2d(config.feat_channels, 4 * self.num_bins, 3, padding=1)
            nn.init.normal_(self.atss_reg.weight, std=0.01)
            nn.init.zeros_(self.atss_reg.bias)  # type: ignore[arg-type]  # it has one

    def predict(self, cls_features: Tensor, reg_features: Tensor, level: int) -> tuple[Tensor, Tensor, Tensor]:
        edges = self.scales[level](self.atss_reg(reg_features))
        scores = self.atss_cls(cls_features)
        # Without a predicted centerness, every box has the same weight.
        centerness = torch.zeros_like(scores[:, :1]) if self.joint else self.atss_centerness(reg_features)
        return scores, edges, centerness

    def factors(self, outputs: ATSSOutputs) -> Tensor:
        factors = super().factors(outputs)
        return torch.ones_like(factors) if self.joint else factors

    def loss(
        self, outputs: ATSSOutputs, targets: Targets, padded_shapes: Tensor
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        assigned = self.assign(outputs, targets, padded_shapes)
        positive, learned = assigned.positive, assigned.boxes
        predicted = self._boxes(assigned.anchors, outputs)
        scores = torch.cat([rows(level) for level in outputs.cls_scores], 1).float()
        weight = scores.detach().sigmoid().amax(-1) if self.joint else centerness_target(assigned.anchors, learned)
        weight = torch.where(positive, weight, 0.0)
        totals = torch.stack([positive.sum(1).clamp(min=1).sum().float(), weight.sum()])
        num_pos, weight_sum = start_mean_over_ranks(totals)().unbind()
        weight_sum = weight_sum.clamp(min=1)

        weights = self.config.loss_weights
        losses = {
            "loss_bbox": weights[1]
            * gfl_ops.giou_loss(
                predicted.flatten(0, 1), learned.flatten(0, 1), weight.flatten(), eps=1e-6, avg_factor=weight_sum
            )
        }
        if self.joint:
            quality = gfl_ops.box_iou(predicted.detach().flatten(0, 1), learned.flatten(0, 1), aligned=True)
            label = torch.where(positive, assigned.labels, self.num_classes).flatten()
            loss = gfl_ops.quality_focal_loss(
                scores.flatten(0, 1),
                (label, torch.where(positive.flatten(), quality, 0.0)),
                (assigned.labels != -2).float().flatten(),
                beta=self.beta,
                avg_factor=num_pos,
            )
            losses["loss_cls"] = weights[0] * loss
        else:
            losses["loss_cls"] = weights[0] * gfl_ops.multilevel_sigmoid_focal_loss(
                outputs.cls_scores,
                assigned.labels,
                gamma=self.config.gamma,
                alpha=self.config.alpha,
                avg_factor=num_pos,
            )
            logits = torch.cat([rows(level) for level in outputs.centernesses], 1)[..., 0].float()
            loss = functional.binary_cross_entropy_with_logits(logits, weight, positive.float(), reduction="sum")
            losses["loss_centerness"] = weights[2] * loss / num_pos
        if self.num_bins is not None:
            losses["loss_dfl"] = self.dfl_weight * self._dfl(outputs, learned, weight) / weight_sum
        return losses, {"num_pos": positive.sum(), "avg_factor": num_pos}

    def _dfl(self, outputs: ATSSOutputs, boxes: Tensor, weight: Tensor) -> Tensor:
        """Summed over positives, the mean of their four sides."""
        assert self.num_bins is not None
        points, strides = self._grid(outputs)
        distances = torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1) / strides[:, None]
        logits = torch.cat([rows(level) for level in outputs.bbox_preds], 1)
        return (
            gfl_ops.distribution_focal_loss(
                logits.reshape(-1, self.num_bins),
                distances.clamp(0, self.num_bins - 1.1).flatten(),
                weight[..., None].expand(-1, -1, 4).flatten(),
                reduction="sum",
            )
            / 4
        )

    def _grid(self, outputs: ATSSOutputs) -> tuple[Tensor, Tensor]:
        """(A, 2) points and (A,) strides."""
        points = [anchor_points(level, stride) for level, stride in zip(outputs.bbox_preds, self.strides, strict=True)]
        strides = [part.new_full((len(part),), stride) for part, stride in zip(points, self.strides, strict=True)]
        return torch.cat(points), torch.cat(strides)

    def _boxes(self, anchors: Tensor, outputs: ATSSOutputs) -> Tensor:
        if self.num_bins is None:
            return super()._boxes(anchors, outputs)
        points, strides = self._grid(outputs)
        logits = torch.cat([rows(level) for level in outputs.bbox_preds], 1).float()
        distances = gfl_ops.integral(logits, num_bins=self.num_bins) * strides[:, None]
        return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)
