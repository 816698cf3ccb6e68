"""How a head learns classes, and how well its boxes are localised: what the paper calls quality estimation.

Every kind says how many channels a class prediction has, whether a branch beside the classes predicts the quality, how
scores come from the predictions, what weighs the positives in the box loss, and which losses there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

import gfl_ops

from ..layers import wide
from .boxes import Boxes, Distribution
from .parts import Learning

Tower = Literal["cls", "reg"]


class Quality(Protocol):
    @property
    def branch_on(self) -> Tower | None:
        """Which tower the branch is on; None where there is none."""

    @property
    def sigmoid(self) -> bool:
        """Whether each class is a probability of its own, which starts at 0.01."""

    def class_channels(self, num_classes: int) -> int: ...

    def check(self, boxes: Boxes) -> None:
        """Refuses, by name, boxes that it does not go with."""

    def layers(self) -> dict[str, nn.Module]:
        """What it learns beyond the convolutions, by name."""

    def activate(self, head: nn.Module, cls_logits: Tensor, bbox_pred: Tensor) -> Tensor:
        """One level's class predictions: logits as they are, or probabilities."""

    def probabilities(self, scores: Tensor, num_classes: int) -> Tensor:
        """(B, A, C) of the class predictions."""

    def box_weight(self, learning: Learning) -> Tensor | None:
        """(B, A), 0 where there is no ground truth; None where all positives weigh the same."""

    def losses(self, learning: Learning, norm: Tensor) -> dict[str, Tensor]: ...


class _Logits:
    """What most kinds have in common."""

    branch_on: Tower | None = None
    sigmoid = True

    def class_channels(self, num_classes: int) -> int:
        return num_classes

    def check(self, boxes: Boxes) -> None:
        pass

    def layers(self) -> dict[str, nn.Module]:
        return {}

    def activate(self, head: nn.Module, cls_logits: Tensor, bbox_pred: Tensor) -> Tensor:
        return cls_logits

    def probabilities(self, scores: Tensor, num_classes: int) -> Tensor:
        return scores.sigmoid()

    def box_weight(self, learning: Learning) -> Tensor | None:
        return None


@dataclass(frozen=True)
class ClassOnly(_Logits):
    """Focal loss, and nothing about quality."""

    gamma: float = 2.0
    alpha: float = 0.25
    weight: float = 1.0

    def losses(self, learning: Learning, norm: Tensor) -> dict[str, Tensor]:
        return {"loss_cls": self.weight * self.focal(learning, norm)}

    def focal(self, learning: Learning, norm: Tensor) -> Tensor:
        maps, labels = _one_prior_a_cell(learning)
        return gfl_ops.multilevel_sigmoid_focal_loss(maps, labels, self.gamma, self.alpha, avg_factor=norm)


@dataclass(frozen=True)
class Centerness(ClassOnly):
    """A branch learns how central a point is in its box. It weighs box losses, and multiplies the scores."""

    branch_on: Tower | None = "reg"
    branch_weight: float = 1.0

    def box_weight(self, learning: Learning) -> Tensor | None:
        return learning.centerness

    def losses(self, learning: Learning, norm: Tensor) -> dict[str, Tensor]:
        wanted, positive = self.branch_target(learning), learning.positive.float()
        loss = functional.binary_cross_entropy_with_logits(learning.branch, wanted, positive, reduction="sum")
        return {**super().losses(learning, norm), "loss_centerness": self.branch_weight * loss / norm}

    def branch_target(self, learning: Learning) -> Tensor:
        return learning.centerness


@dataclass(frozen=True)
class IoUBranch(Centerness):
    """The same with the IoU of the predicted box in the centerness' place."""

    least_weight: float = 0.0
    """Of a positive in the box loss. Where boxes start without area, all weights would be 0."""

    def box_weight(self, learning: Learning) -> Tensor | None:
        return learning.iou.clamp(min=self.least_weight) * learning.positive

    def branch_target(self, learning: Learning) -> Tensor:
        return learning.iou


@dataclass(frozen=True)
class CenternessGuided(ClassOnly):
    """No branch: a positive's own class entry of the focal loss is weighted by its centerness to the power of eta.

    ``balanced`` multiplies these entries such that their sum does not change (Wu et al. 2020, IoU-balanced losses).
    """

    eta: float = 1.5
    balanced: bool = True

    def box_weight(self, learning: Learning) -> Tensor | None:
        return learning.centerness

    def losses(self, learning: Learning, norm: Tensor) -> dict[str, Tensor]:
        """The focal loss of all entries, and the change of those of the positives' own classes."""
        labels = learning.labels.clamp(min=0).long()[..., None]
        own = learning.scores.gather(2, labels)[..., 0]
        p = own.sigmoid()
        entry = torch.where(learning.positive, self.alpha * (1 - p) ** self.gamma * -functional.logsigmoid(own), 0.0)
        weight = self.guide(learning) ** self.eta
        if self.balanced:
            weight = weight * (entry.detach().sum() / ((weight * entry.detach()).sum() + 1e-6))
        change = (entry * (weight - 1)).sum() / norm
        return {"loss_cls": self.weight * (self.focal(learning, norm) + change)}

    def guide(self, learning: Learning) -> Tensor:
        weight = self.box_weight(learning)
        assert weight is not None
        return weight


@dataclass(frozen=True)
class IoUGuided(CenternessGuided):
    """The same with the IoU of the predicted box in the centerness' place."""

    least_weight: float = 0.0
    """See :class:`IoUBranch`."""

    def box_weight(self, learning: Learning) -> Tensor | None:
        return learning.iou.clamp(min=self.least_weight) * learning.positive

    def guide(self, learning: Learning) -> Tensor:
        return learning.iou


@dataclass(frozen=True)
class Softmax(_Logits):
    """Cross entropy over the classes and the background, which is the last, with the hardest negatives only (SSD)."""

    negatives: int = 3
    """How many there are for each positive of an image."""
    weight: float = 1.0

    sigmoid = False

    def class_channels(self, num_classes: int) -> int:
        return num_classes + 1

    def probabilities(self, scores: Tensor, num_classes: int) -> Tensor:
        return scores.softmax(-1)[..., :num_classes]

    def losses(self, learning: Learning, norm: Tensor) -> dict[str, Tensor]:
        positive, takes_part = learning.positive, learning.labels != -2
        wanted = torch.where(positive, learning.labels, learning.num_classes).long()
        each = functional.cross_entropy(learning.scores.flatten(0, 1), wanted.flatten(), reduction="none")
        each = each.view_as(positive)
        hardness = torch.where(takes_part & ~positive, each.detach(), -1.0)
        rank = torch.empty_like(wanted)
        order = hardness.argsort(dim=1, descending=True, stable=True)
        rank.scatter_(1, order, torch.arange(rank.shape[1], device=rank.device).expand_as(rank))
        hard = (rank < self.negatives * positive.sum(1, keepdim=True)) & (hardness >= 0)
        return {"loss_cls": self.weight * torch.where(positive | hard, each, 0.0).sum() / norm}


@dataclass(frozen=True)
class Joint(_Logits):
    """Quality focal loss: the score of a positive's class learns the IoU of its predicted box."""

    beta: float = 2.0
    weight: float = 1.0
    weighs_boxes: bool = True
    """By the highest score, in the box losses."""

    activated = False

    def box_weight(self, learning: Learning) -> Tensor | None:
        if not self.weighs_boxes:
            return None
        scores = learning.scores.detach()
        return (scores if self.activated else scores.sigmoid()).amax(-1) * learning.positive

    def losses(self, learning: Learning, norm: Tensor) -> dict[str, Tensor]:
        scores = learning.scores.flatten(0, 1)
        label = torch.where(learning.positive, learning.labels, scores.shape[1]).long()
        loss = gfl_ops.quality_focal_loss(
            scores,
            (label.flatten(), learning.iou.flatten()),
            (learning.labels != -2).to(scores.dtype).flatten(),
            beta=self.beta,
            avg_factor=norm,
            activated=self.activated,
        )
        return {"loss_cls": self.weight * loss}


@dataclass(frozen=True)
class JointFromDistribution(Joint):
    """GFLv2 (Li et al. 2021): the joint score is the class probability times a quality, which a small network reads off
    the shape of the four edge distributions: their highest probabilities and the mean of these."""

    topk: int = 4
    hidden: int = 64
    extra_class: bool = True
    """The published models have one more class, which is never positive."""

    activated = True

    def class_channels(self, num_classes: int) -> int:
        return num_classes + self.extra_class

    def check(self, boxes: Boxes) -> None:
        if not boxes.has_edges:
            raise ValueError(
                f"build: quality JointFromDistribution needs boxes that are distributions, got {type(boxes).__name__}"
            )
        assert isinstance(boxes, Distribution)
        if self.topk > boxes.num_bins:
            raise ValueError(f"build: topk must be at most the {boxes.num_bins} bins of an edge, got {self.topk}")

    def layers(self) -> dict[str, nn.Module]:
        statistics = 4 * (self.topk + 1)
        network = nn.Sequential(
            nn.Conv2d(statistics, self.hidden, 1), nn.ReLU(inplace=True), nn.Conv2d(self.hidden, 1, 1), nn.Sigmoid()
        )
        return {"reg_conf": network}

    def activate(self, head: nn.Module, cls_logits: Tensor, bbox_pred: Tensor) -> Tensor:
        statistics = gfl_ops.distribution_statistics(bbox_pred, self.topk)
        quality = head.get_submodule("reg_conf")(statistics.to(cls_logits.dtype))
        return wide(cls_logits).sigmoid() * wide(quality)

    def probabilities(self, scores: Tensor, num_classes: int) -> Tensor:
        return scores[..., :num_classes]


def _one_prior_a_cell(learning: Learning) -> tuple[list[Tensor], Tensor]:
    """Maps (B * n, C, H, W) and labels (B * n, A / n) in which each of a cell's n priors is an image of its own."""
    counts = set(learning.priors_per_cell)
    maps = learning.outputs.cls_scores
    if counts == {1}:
        return maps, learning.labels
    if len(counts) > 1:  # one map a level holds all of a level's priors
        return [learning.scores.transpose(1, 2)[..., None]], learning.labels
    (n,) = counts
    apart = [level.unflatten(1, (n, -1)).flatten(0, 1) for level in maps]
    labels = learning.labels.unflatten(1, (-1, n)).transpose(1, 2).flatten(0, 1)
    return apart, labels.contiguous()
