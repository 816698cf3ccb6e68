"""What a head's box predictions mean: how they become boxes, and what their losses are.

Every kind has ``channels``, the numbers a prior predicts; ``has_edges``, whether they are distributions; ``activate``,
from the convolution's result to the head's output; ``decode``; and ``losses`` of the positives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional

import gfl_ops

from ..layers import wide
from .parts import Learning, Priors

_LONGEST_LOG_RATIO = math.log(1000 / 16)  # limit of a box's size relative to its prior's
_IOU_EPS = 1e-6


class Boxes(Protocol):
    @property
    def channels(self) -> int: ...

    @property
    def has_edges(self) -> bool: ...

    def activate(self, raw: Tensor, scale: Tensor | None, stride: int) -> Tensor:
        """One level's (B, n * channels, H, W). ``scale`` is a learned factor of the level, where there is one."""

    def decode(self, preds: Tensor, priors: Priors) -> Tensor:
        """(B, A, channels) to boxes (B, A, 4) in pixels."""

    def losses(self, learning: Learning, weight: Tensor, norm: Tensor) -> dict[str, Tensor]:
        """Sums over the positives by weight (B, A), divided by norm."""


@dataclass(frozen=True)
class Deltas:
    """The prior's box moved by fractions of its size, and scaled by exponentials."""

    stds: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    """What the deltas are divided by."""
    loss: Literal["giou", "l1"] = "giou"
    """Of the boxes, or of the deltas."""
    beta: float = 0.0
    """Below it the L1 loss is a parabola."""
    weight: float = 2.0

    channels = 4
    has_edges = False

    def activate(self, raw: Tensor, scale: Tensor | None, stride: int) -> Tensor:
        return raw if scale is None else raw * scale

    def decode(self, preds: Tensor, priors: Priors) -> Tensor:
        shift, growth = (
            preds[..., :2] * preds.new_tensor(self.stds[:2]),
            preds[..., 2:] * preds.new_tensor(self.stds[2:]),
        )
        size = priors.boxes[:, 2:] - priors.boxes[:, :2]
        center = (priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2 + shift * size
        half = size * growth.clamp(-_LONGEST_LOG_RATIO, _LONGEST_LOG_RATIO).exp() / 2
        return torch.cat([center - half, center + half], -1)

    def encode(self, boxes: Tensor, priors: Priors) -> Tensor:
        size = priors.boxes[:, 2:] - priors.boxes[:, :2]
        center = (priors.boxes[:, :2] + priors.boxes[:, 2:]) / 2
        shift = ((boxes[..., :2] + boxes[..., 2:]) / 2 - center) / size
        growth = ((boxes[..., 2:] - boxes[..., :2]) / size).log()
        return torch.cat([shift, growth], -1) / boxes.new_tensor(self.stds)

    def losses(self, learning: Learning, weight: Tensor, norm: Tensor) -> dict[str, Tensor]:
        if self.loss == "giou":
            return {"loss_bbox": self.weight * _iou_loss(learning, weight, norm, "giou")}
        wanted = self.encode(learning.gt_boxes, learning.priors)
        return {"loss_bbox": self.weight * _l1(learning.preds, wanted, self.beta, weight, norm)}


@dataclass(frozen=True)
class Distances:
    """The four edges' distances from the prior's point, in pixels."""

    activation: Literal["exp", "relu"] = "relu"
    """relu: in strides until then; exp: in pixels."""
    loss: Literal["giou", "log_iou"] = "giou"
    weight: float = 1.0

    channels = 4
    has_edges = False

    def activate(self, raw: Tensor, scale: Tensor | None, stride: int) -> Tensor:
        raw = wide(raw) if scale is None else wide(raw) * scale
        return raw.exp() if self.activation == "exp" else raw.clamp(min=0) * stride

    def decode(self, preds: Tensor, priors: Priors) -> Tensor:
        return _around(priors.points, preds)

    def losses(self, learning: Learning, weight: Tensor, norm: Tensor) -> dict[str, Tensor]:
        return {"loss_bbox": self.weight * _iou_loss(learning, weight, norm, self.loss)}


@dataclass(frozen=True)
class LogDistances:
    """The logarithms of the four edges' distances, in units of ``unit`` strides."""

    unit: float = 2.0
    limit: float = 16.0
    """Distances are learned between 1 / limit and limit units."""
    beta: float = 0.11
    weight: float = 1.0

    channels = 4
    has_edges = False

    def activate(self, raw: Tensor, scale: Tensor | None, stride: int) -> Tensor:
        return raw if scale is None else raw * scale

    def decode(self, preds: Tensor, priors: Priors) -> Tensor:
        return _around(priors.points, preds.exp() * (priors.strides * self.unit))

    def losses(self, learning: Learning, weight: Tensor, norm: Tensor) -> dict[str, Tensor]:
        distances = _distances(learning) / (learning.priors.strides * self.unit)
        wanted = distances.clamp(1 / self.limit, self.limit).log()
        return {"loss_bbox": self.weight * _l1(learning.preds, wanted, self.beta, weight, norm)}


@dataclass(frozen=True)
class Gaussian:
    """Four distances in strides with their uncertainty: the mean and the logarithm of the variance of each.

    The loss is the negative logarithm of the density, linear beyond one stride; there is no IoU loss.
    """

    activation: Literal["linear", "relu"] = "linear"
    """Of the means."""
    weight: float = 1.0

    channels = 8
    has_edges = False

    def activate(self, raw: Tensor, scale: Tensor | None, stride: int) -> Tensor:
        cells = raw.unflatten(1, (-1, self.channels))
        mean, log_variance = cells[:, :, :4], cells[:, :, 4:]
        mean = mean if scale is None else mean * scale
        mean = mean.clamp(min=0) if self.activation == "relu" else mean
        return torch.cat([mean, log_variance], 2).flatten(1, 2)

    def decode(self, preds: Tensor, priors: Priors) -> Tensor:
        return _around(priors.points, preds[..., :4] * priors.strides)

    def losses(self, learning: Learning, weight: Tensor, norm: Tensor) -> dict[str, Tensor]:
        mean, log_variance = learning.preds[..., :4], learning.preds[..., 4:]
        error = (mean - _distances(learning) / learning.priors.strides).abs()
        scaled = torch.where(error <= 1, error.square() / 2, error - 0.5) * (-log_variance).exp()
        loss = ((scaled + log_variance / 2).sum(-1) * weight).sum() / norm
        return {"loss_bbox": self.weight * loss}


@dataclass(frozen=True)
class Distribution:
    """A distribution over distances for each edge, whose mean is the distance: logits of reg_max + 1 bins."""

    reg_max: int = 16
    unit: float = 1.0
    """Distance from bin to bin, in strides."""
    weight: float = 2.0
    """Of the GIoU loss."""
    dfl_weight: float | None = 0.25
    """Of distribution focal loss; None for none."""

    has_edges = True

    @property
    def num_bins(self) -> int:
        return self.reg_max + 1

    @property
    def channels(self) -> int:
        return 4 * self.num_bins

    def activate(self, raw: Tensor, scale: Tensor | None, stride: int) -> Tensor:
        return raw if scale is None else raw * scale

    def decode(self, preds: Tensor, priors: Priors) -> Tensor:
        return _around(priors.points, gfl_ops.integral(preds, num_bins=self.num_bins) * self.pixels(priors))

    def pixels(self, priors: Priors) -> Tensor:
        """(A, 1) from bin to bin."""
        return priors.strides if self.unit == 1.0 else priors.strides * self.unit

    def losses(self, learning: Learning, weight: Tensor, norm: Tensor) -> dict[str, Tensor]:
        losses = {"loss_bbox": self.weight * _iou_loss(learning, weight, norm, "giou")}
        if self.dfl_weight is not None:
            distances = _distances(learning) / self.pixels(learning.priors)
            loss = gfl_ops.distribution_focal_loss(
                learning.preds.reshape(-1, self.num_bins),
                distances.clamp(0, self.reg_max - 0.1).flatten(),
                weight[..., None].expand(-1, -1, 4).flatten(),
                reduction="sum",
            )
            losses["loss_dfl"] = self.dfl_weight / 4 * loss / norm  # the mean of the four sides
        return losses


def _around(points: Tensor, distances: Tensor) -> Tensor:
    return torch.cat([points - distances[..., :2], points + distances[..., 2:]], -1)


def _distances(learning: Learning) -> Tensor:
    """(B, A, 4) of the ground truth's edges from the point, in pixels."""
    points, boxes = learning.priors.points, learning.gt_boxes
    return torch.cat([points - boxes[..., :2], boxes[..., 2:] - points], -1)


def _iou_loss(learning: Learning, weight: Tensor, norm: Tensor, kind: str) -> Tensor:
    boxes, wanted, flat = learning.boxes.flatten(0, 1), learning.gt_boxes.flatten(0, 1), weight.flatten()
    if kind == "giou":
        return gfl_ops.giou_loss(boxes, wanted, flat, eps=_IOU_EPS, avg_factor=norm)
    return gfl_ops.iou_loss(boxes, wanted, flat, kind="iou", eps=_IOU_EPS, avg_factor=norm, transform="log")


def _l1(preds: Tensor, wanted: Tensor, beta: float, weight: Tensor, norm: Tensor) -> Tensor:
    """Smooth L1, summed over the four numbers."""
    each = functional.smooth_l1_loss(preds, wanted, beta=beta, reduction="none")
    return (each.sum(-1) * weight).sum() / norm
