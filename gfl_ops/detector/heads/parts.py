"""The small types that the parts of a head share. Parts know these, and no part knows the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

import gfl_ops
from gfl_ops import PaddedTargets

Target = dict[str, Tensor]
Targets = list[Target] | PaddedTargets
Detection = dict[str, Tensor]


class HeadOutputs(NamedTuple):
    """What a head predicts: a tensor for each level. C is the number of classes, n that of priors a cell has."""

    cls_scores: list[Tensor]
    """(B, n * C, H, W) logits; of a head that multiplies a quality in, probabilities."""
    bbox_preds: list[Tensor]
    """(B, n * channels, H, W); what they are, the head's boxes say."""


class BranchedOutputs(NamedTuple):
    """The same of a head with a branch beside them."""

    cls_scores: list[Tensor]
    bbox_preds: list[Tensor]
    centernesses: list[Tensor]
    """(B, n, H, W) logits of the centerness or the IoU."""


Outputs = HeadOutputs | BranchedOutputs


class Grid(NamedTuple):
    """The cells of all levels."""

    shapes: list[tuple[int, int]]
    strides: tuple[int, ...]
    device: torch.device


class Priors(NamedTuple):
    """What predictions start from, level after level, row after row, and those of a cell together."""

    points: Tensor
    """(A, 2) xy in pixels."""
    strides: Tensor
    """(A, 1) pixels per cell."""
    boxes: Tensor
    """(A, 4) xyxy in pixels."""
    offset: float = 0.0
    """Where in their cells the points lie: 0 is the corner, 0.5 the middle."""
    box_side: float = 0.0
    """Of square boxes, in strides."""


class GroundTruths(NamedTuple):
    boxes: Tensor
    """(B, G, 4), with G from 1."""
    labels: Tensor
    """(B, G)"""
    counts: Tensor
    """(B,) how many are real."""


@dataclass
class Learning:
    """One batch as the parts see it in training. A is the number of priors of an image."""

    outputs: Outputs
    priors_per_cell: Sequence[int]
    num_classes: int
    labels: Tensor
    """(B, A); -1 is background, -2 takes no part."""
    positive: Tensor
    """(B, A) bool."""
    priors: Priors
    gt_boxes: Tensor
    """(B, A, 4) the ground truth of a positive; the prior's box where there is none."""
    preds: Tensor
    """(B, A, channels) the box predictions in float32; 0 where there is no ground truth."""
    boxes: Tensor
    """(B, A, 4) decoded from them, with their gradient."""

    @cached_property
    def scores(self) -> Tensor:
        """(B, A, C) of the classes, in float32."""
        return all_rows(self.outputs.cls_scores, self.priors_per_cell)

    @cached_property
    def branch(self) -> Tensor:
        """(B, A) logits."""
        assert isinstance(self.outputs, BranchedOutputs)
        return all_rows(self.outputs.centernesses, self.priors_per_cell)[..., 0]

    @cached_property
    def iou(self) -> Tensor:
        """(B, A) of predicted boxes with their ground truths, without gradient; 0 where there is none."""
        return self._of_positives(gfl_ops.box_iou(self.boxes.detach().flatten(0, 1), self._flat_gts, aligned=True))

    @cached_property
    def centerness(self) -> Tensor:
        """(B, A) of the priors' points in their ground truths; 0 where there is none."""
        return torch.where(self.positive, centerness_target(self.priors.points, self.gt_boxes), 0.0)

    @property
    def _flat_gts(self) -> Tensor:
        return self.gt_boxes.flatten(0, 1)

    def _of_positives(self, x: Tensor) -> Tensor:
        return torch.where(self.positive, x.view_as(self.positive), 0.0)


def centerness_target(points: Tensor, boxes: Tensor) -> Tensor:
    """1 where the point is the box's centre, falling to 0 at its edges."""
    to_low, to_high = points - boxes[..., :2], boxes[..., 2:] - points
    ratio = torch.minimum(to_low, to_high) / torch.maximum(to_low, to_high)
    return ratio.prod(-1).sqrt()


def rows(level: Tensor, priors: int = 1) -> Tensor:
    """(B, n * C, H, W) to (B, H * W * n, C)."""
    cells = level.flatten(2).transpose(1, 2)
    return cells if priors == 1 else cells.unflatten(2, (priors, -1)).flatten(1, 2)


def all_rows(levels: Sequence[Tensor], priors_per_cell: Sequence[int]) -> Tensor:
    """The rows of all levels, in float32."""
    return torch.cat([rows(level, n) for level, n in zip(levels, priors_per_cell, strict=True)], 1).float()


def padded(targets: Targets) -> GroundTruths:
    """Boxes and labels padded to one G >= 1."""
    if isinstance(targets, PaddedTargets):
        boxes, labels, counts = targets
        return GroundTruths(boxes, labels, torch.full_like(labels[:, 0], labels.shape[1]) if counts is None else counts)
    device = targets[0]["boxes"].device
    boxes = pad_sequence([target["boxes"].float() for target in targets], batch_first=True)
    labels = pad_sequence([target["labels"].long() for target in targets], batch_first=True)
    counts = torch.tensor([len(target["boxes"]) for target in targets]).to(device, non_blocking=True)
    if boxes.shape[1] == 0:  # gather needs a row to point at
        boxes, labels = boxes.new_zeros(len(targets), 1, 4), labels.new_zeros(len(targets), 1)
    return GroundTruths(boxes, labels, counts)
