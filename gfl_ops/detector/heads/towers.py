"""The convolutions of a head: towers that all levels share, or one predictor for each level.

A tower is configuration: it makes layers, which the head owns, and runs them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..layers import ConvLayer, deformable_conv

_PRIOR = 0.01  # the probability that every class starts with, so that the background does not swamp the first steps


class Names(NamedTuple):
    """What a family's files call the last convolutions."""

    classes: str = "conv_cls"
    boxes: str = "conv_reg"
    branch: str = "conv_centerness"


class Wanted(NamedTuple):
    """What the last convolutions predict for a prior, and how many priors a cell of each level has."""

    class_channels: int
    box_channels: int
    branch_on: str | None
    priors: tuple[int, ...]
    names: Names


class Raw(NamedTuple):
    """One level's predictions before their activation."""

    classes: Tensor
    boxes: Tensor
    branch: Tensor | None


class Towers(Protocol):
    def layers(self, in_channels: Sequence[int], wanted: Wanted) -> dict[str, nn.Module]: ...

    def initialise(self, head: nn.Module, names: Names, sigmoid: bool) -> None: ...

    def predict(self, head: nn.Module, x: Tensor, level: int, wanted: Wanted) -> Raw: ...


@dataclass(frozen=True)
class SharedTowers:
    """Two towers of 3x3 convolutions, one for the classes and one for the boxes."""

    feat_channels: int = 256
    stacked_convs: int = 4
    norm_groups: int | None = 32
    """Group normalisation of the stacked convolutions; None for none, and a bias instead."""
    bias: bool | None = None
    """Of the stacked convolutions; None: where no normalisation follows."""

    def layers(self, in_channels: Sequence[int], wanted: Wanted) -> dict[str, nn.Module]:
        (width,) = set(in_channels)
        return {"cls_convs": self.tower(width), "reg_convs": self.tower(width), **self.last(self.feat_channels, wanted)}

    def tower(self, in_channels: int) -> nn.Sequential:
        widths = [in_channels] + [self.feat_channels] * self.stacked_convs
        return nn.Sequential(*(self.layer(before, after) for before, after in itertools.pairwise(widths)))

    def layer(self, before: int, after: int, kernel_size: int = 3) -> ConvLayer:
        return ConvLayer(before, after, kernel_size, norm_groups=self.norm_groups, activate=True, bias=self.bias)

    def last(self, cls_channels: int, wanted: Wanted) -> dict[str, nn.Module]:
        (priors,) = set(wanted.priors)
        last = {
            wanted.names.classes: nn.Conv2d(cls_channels, priors * wanted.class_channels, 3, padding=1),
            wanted.names.boxes: nn.Conv2d(self.feat_channels, priors * wanted.box_channels, 3, padding=1),
        }
        if wanted.branch_on is not None:
            width = cls_channels if wanted.branch_on == "cls" else self.feat_channels
            last[wanted.names.branch] = nn.Conv2d(width, priors, 3, padding=1)
        return last  # type: ignore[return-value]  # a dict of convolutions is one of modules

    def initialise(self, head: nn.Module, names: Names, sigmoid: bool) -> None:
        """Small normal weights."""
        for module in head.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
        _set_biases(head, [head.get_submodule(names.classes)], sigmoid)

    def predict(self, head: nn.Module, x: Tensor, level: int, wanted: Wanted) -> Raw:
        names = wanted.names
        features = {"cls": head.get_submodule("cls_convs")(x), "reg": head.get_submodule("reg_convs")(x)}
        branch = wanted.branch_on
        return Raw(
            head.get_submodule(names.classes)(features["cls"]),
            head.get_submodule(names.boxes)(features["reg"]),
            None if branch is None else head.get_submodule(names.branch)(features[branch]),
        )


class FeatureAdaption(nn.Module):
    """Moves the taps of a convolution to where the predicted box is."""

    def __init__(self, channels: int, groups: int = 4) -> None:
        super().__init__()
        self.conv_offset = nn.Conv2d(4, groups * 18, 1, bias=False)
        self.conv_adaption = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor, distances: Tensor) -> Tensor:
        moved = deformable_conv(x, self.conv_offset(distances), self.conv_adaption.weight)
        return functional.relu(moved, inplace=True)


@dataclass(frozen=True)
class AlignedTowers(SharedTowers):
    """The classes look where the box prediction points (FoveaBox-align): their tower begins with a deformable
    convolution, and is wider and shorter."""

    cls_widening: int = 4

    def layers(self, in_channels: Sequence[int], wanted: Wanted) -> dict[str, nn.Module]:
        (width,) = set(in_channels)
        wide = self.cls_widening * self.feat_channels
        return {
            "reg_convs": self.tower(width),
            "feature_adaption": FeatureAdaption(width),
            "cls_convs": nn.Sequential(self.layer(width, wide), self.layer(wide, wide, 1)),
            **self.last(wide, wanted),
        }

    def initialise(self, head: nn.Module, names: Names, sigmoid: bool) -> None:
        super().initialise(head, names, sigmoid)
        nn.init.normal_(head.get_submodule("feature_adaption").get_submodule("conv_offset").weight, std=0.1)  # type: ignore[arg-type]

    def predict(self, head: nn.Module, x: Tensor, level: int, wanted: Wanted) -> Raw:
        boxes = head.get_submodule(wanted.names.boxes)(head.get_submodule("reg_convs")(x))
        adapted = head.get_submodule("feature_adaption")(x, boxes.exp())
        return Raw(head.get_submodule(wanted.names.classes)(head.get_submodule("cls_convs")(adapted)), boxes, None)


@dataclass(frozen=True)
class LevelPredictors:
    """No towers: one convolution for each level, straight on its features (SSD)."""

    def layers(self, in_channels: Sequence[int], wanted: Wanted) -> dict[str, nn.Module]:
        def predictors(channels: int) -> nn.ModuleList:
            return nn.ModuleList(
                nn.Sequential(nn.Conv2d(width, n * channels, 3, padding=1))
                for width, n in zip(in_channels, wanted.priors, strict=True)
            )

        return {"cls_convs": predictors(wanted.class_channels), "reg_convs": predictors(wanted.box_channels)}

    def initialise(self, head: nn.Module, names: Names, sigmoid: bool) -> None:
        for module in head.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.xavier_uniform_(module.weight)
        classifiers = [each.get_submodule("0") for each in head.get_submodule("cls_convs").children()]
        _set_biases(head, classifiers, sigmoid)

    def predict(self, head: nn.Module, x: Tensor, level: int, wanted: Wanted) -> Raw:
        return Raw(head.get_submodule(f"cls_convs.{level}")(x), head.get_submodule(f"reg_convs.{level}")(x), None)


def _set_biases(head: nn.Module, classifiers: Sequence[nn.Module], sigmoid: bool) -> None:
    """0, and of the classifiers such that every class starts at a probability of 0.01."""
    for module in head.modules():
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.zeros_(module.bias)
    for classifier in classifiers if sigmoid else ():
        bias = classifier.bias
        assert isinstance(bias, torch.Tensor)
        nn.init.constant_(bias, -math.log((1 - _PRIOR) / _PRIOR))
