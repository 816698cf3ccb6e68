"""The configuration of a head: its parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .assigners import ATSS, Assigner
from .boxes import Boxes, Deltas
from .priors import Points, PriorsConfig
from .quality import Centerness, Quality
from .towers import Names, SharedTowers, Towers


@dataclass(frozen=True)
class Divisors:
    """What the sums of the losses are divided by."""

    classes: Literal["each_image", "batch", "batch_and_images"] = "each_image"
    """The positives: of each image but at least 1; of the batch, at least 1; of the batch and the images with them."""
    boxes: Literal["weights", "classes", "positives"] = "weights"
    """The sum of the boxes' weights, the classes' divisor, or the positives."""
    least_weight: float = 1.0
    over_ranks: bool = True
    """Means over all processes."""


@dataclass(frozen=True)
class HeadConfig:
    """A head is the sum of its parts: ``dataclasses.replace`` exchanges one of them."""

    towers: Towers = field(default_factory=SharedTowers)
    priors: PriorsConfig = field(default_factory=Points)
    assigner: Assigner = field(default_factory=ATSS)
    boxes: Boxes = field(default_factory=Deltas)
    quality: Quality = field(default_factory=Centerness)
    divisors: Divisors = field(default_factory=Divisors)
    strides: tuple[int, ...] = (8, 16, 32, 64, 128)
    level_scales: bool = True
    """Box predictions of each level have a learned factor."""
    names: Names = field(default_factory=Names)
