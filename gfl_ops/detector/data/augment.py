"""Augmentation of images and their boxes. Each sample has a random generator of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .distort import distort, expand, overlap_crop
from .sample import Sample

_OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9)
_ATTEMPTS = 20
_GREY = torch.tensor([0.299, 0.587, 0.114])[:, None, None]


@dataclass(frozen=True)
class Augment:
    """Most recipes use the first two, SSD's all of its own; the rest is for small data sets."""

    flip: float = 0.5
    """Probability of a horizontal flip."""
    short_sides: tuple[int, int] | None = None
    """The short side is resized to a whole number from this range; None leaves it to the model's configuration."""
    short_side_choices: tuple[int, ...] | None = None
    """Or to one of these."""
    photometric: bool = False
    """Change brightness, contrast and saturation at random."""
    crop: bool = False
    """Half of the images are cropped. At least one box keeps a share of its area that is drawn at random."""
    expand: tuple[float, float, float] | None = None
    """Half of the images are put on a larger canvas of this colour (SSD)."""
    overlap_crop: bool = False
    """Crops with which all boxes have a least IoU that is drawn at random (SSD)."""
    distort: bool = False
    """Change brightness, contrast, saturation, hue and the channels' order, each of half of the images (SSD)."""

    def __call__(self, sample: Sample, generator: np.random.Generator) -> Sample:
        if self.expand is not None and generator.random() < 0.5:
            sample = expand(sample, generator, self.expand)
        if self.overlap_crop:
            sample = overlap_crop(sample, generator)
        if self.crop and generator.random() < 0.5:
            sample = _crop(sample, generator)
        if self.photometric:
            sample = sample._replace(image=_photometric(sample.image, generator))
        if self.distort:
            sample = sample._replace(image=distort(sample.image, generator))
        if generator.random() < self.flip:
            sample = _flip(sample)
        if self.short_sides is not None:
            low, high = self.short_sides
            sample = sample._replace(short_side=int(generator.integers(low, high + 1)))
        if self.short_side_choices is not None:
            sample = sample._replace(short_side=int(generator.choice(self.short_side_choices)))
        return sample


def _flip(sample: Sample) -> Sample:
    width = sample.image.shape[2]
    x1, y1, x2, y2 = sample.boxes.unbind(1)
    return sample._replace(image=sample.image.flip(2), boxes=torch.stack([width - x2, y1, width - x1, y2], 1))


def _photometric(image: Tensor, generator: np.random.Generator) -> Tensor:
    pixels = image.float()
    pixels += generator.uniform(-32, 32)
    pixels *= generator.uniform(0.5, 1.5)
    grey = (pixels * _GREY).sum(0, keepdim=True)
    pixels = grey + (pixels - grey) * generator.uniform(0.5, 1.5)
    return (pixels + 0.5).clamp(0, 255).to(torch.uint8)


def _crop(sample: Sample, generator: np.random.Generator) -> Sample:
    """A part with 0.3 to 1 of each side, in which a box keeps its centre and a randomly drawn share of its area."""
    height, width = sample.image.shape[1:]
    boxes, least = sample.boxes, float(generator.choice(_OVERLAPS))
    for _ in range(_ATTEMPTS):
        h, w = int(height * generator.uniform(0.3, 1)), int(width * generator.uniform(0.3, 1))
        if not 0.5 <= h / max(w, 1) <= 2:
            continue
        y, x = int(generator.integers(height - h + 1)), int(generator.integers(width - w + 1))
        window = torch.tensor([x, y, x + w, y + h], dtype=boxes.dtype)
        center = (boxes[:, :2] + boxes[:, 2:]) / 2
        kept = ((center > window[:2]) & (center < window[2:])).all(1)
        clipped = torch.cat([boxes[:, :2].maximum(window[:2]), boxes[:, 2:].minimum(window[2:])], 1)
        share = (clipped[:, 2:] - clipped[:, :2]).clamp(min=0).prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)
        if bool((kept & (share >= least)).any()):
            return sample._replace(
                image=sample.image[:, y : y + h, x : x + w].contiguous(),
                boxes=clipped[kept] - window[:2].repeat(2),
                labels=sample.labels[kept],
            )
    return sample
