"""SSD's augmentation (Liu et al. 2016): a larger canvas, crops by overlap, and changed colours."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .sample import Sample

_LEAST_OVERLAPS = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)  # None: the image stays as it is
_ATTEMPTS = 50
_MOST_DRAWS = 100  # of overlaps; an image whose boxes no crop can keep stays as it is
_LARGEST_CANVAS = 4.0


def expand(sample: Sample, generator: np.random.Generator, fill: tuple[float, float, float]) -> Sample:
    """Puts the image at a random place of a canvas with up to 4 times its sides."""
    channels, height, width = sample.image.shape
    ratio = generator.uniform(1, _LARGEST_CANVAS)
    high, wide = int(height * ratio), int(width * ratio)
    y, x = int(generator.uniform(0, high - height)), int(generator.uniform(0, wide - width))
    colour = torch.tensor(fill[:channels]).round().to(sample.image.dtype)
    canvas = colour[:, None, None].repeat(1, high, wide)
    canvas[:, y : y + height, x : x + width] = sample.image
    return sample._replace(image=canvas, boxes=sample.boxes + sample.boxes.new_tensor([x, y, x, y]))


def overlap_crop(sample: Sample, generator: np.random.Generator) -> Sample:
    """A part with which every box has at least the IoU that is drawn. Boxes whose centre is outside are dropped."""
    for _ in range(_MOST_DRAWS):
        least = _LEAST_OVERLAPS[int(generator.integers(len(_LEAST_OVERLAPS)))]
        if least is None:
            return sample
        for _ in range(_ATTEMPTS):
            window = _window(sample, generator)
            if window is not None and (cropped := _cropped(sample, window, least)) is not None:
                return cropped
    return sample


def _window(sample: Sample, generator: np.random.Generator) -> Tensor | None:
    height, width = sample.image.shape[1:]
    w, h = generator.uniform(0.3 * width, width), generator.uniform(0.3 * height, height)
    if not 0.5 <= h / w <= 2:
        return None
    x, y = generator.uniform(0, width - w), generator.uniform(0, height - h)
    x1, y1, x2, y2 = int(x), int(y), int(x + w), int(y + h)
    return torch.tensor([x1, y1, x2, y2], dtype=sample.boxes.dtype) if x2 > x1 and y2 > y1 else None


def _cropped(sample: Sample, window: Tensor, least: float) -> Sample | None:
    boxes = sample.boxes
    clipped = torch.cat([boxes[:, :2].maximum(window[:2]), boxes[:, 2:].minimum(window[2:])], 1)
    shared = (clipped[:, 2:] - clipped[:, :2]).clamp(min=0).prod(1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(1) + (window[2:] - window[:2]).prod() - shared
    if len(boxes) and bool((shared / union < least).any()):
        return None
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    kept = ((center > window[:2]) & (center < window[2:])).all(1)
    if len(boxes) and not bool(kept.any()):
        return None
    x1, y1, x2, y2 = (int(v) for v in window)
    return sample._replace(
        image=sample.image[:, y1:y2, x1:x2].contiguous(),
        boxes=clipped[kept] - window[:2].repeat(2),
        labels=sample.labels[kept],
    )


def distort(image: Tensor, generator: np.random.Generator) -> Tensor:
    """Each with a chance of one half: brightness, contrast (before the colours or after them), saturation, hue, and
    the order of the channels."""

    def half() -> bool:
        return bool(generator.random() < 0.5)

    pixels = image.float()
    if half():
        pixels = pixels + generator.uniform(-32, 32)
    contrast_first, with_contrast = half(), half()
    contrast = generator.uniform(0.5, 1.5) if with_contrast else 1.0
    pixels = pixels * contrast if contrast_first else pixels
    if len(pixels) == 3:
        saturation = generator.uniform(0.5, 1.5) if half() else 1.0
        degrees = generator.uniform(-18, 18) if half() else 0.0
        pixels = _recoloured(pixels, saturation, degrees)
    pixels = pixels if contrast_first else pixels * contrast
    if half() and len(pixels) == 3:
        pixels = pixels[torch.from_numpy(generator.permutation(3))]
    return (pixels + 0.5).clamp(0, 255).to(torch.uint8)


def _recoloured(pixels: Tensor, saturation: float, degrees: float) -> Tensor:
    """In HSV: the saturation times a factor, at most 1, and the hue turned."""
    value, least = pixels.amax(0), pixels.amin(0)
    spread = (value - least).clamp(min=1e-6)
    red, green, blue = pixels
    hue = torch.where(
        value == red,
        (green - blue) / spread,
        torch.where(value == green, 2 + (blue - red) / spread, 4 + (red - green) / spread),
    )
    hue = hue + degrees / 60
    chroma = torch.minimum((value - least) * saturation, value.clamp(min=0))
    place = torch.tensor([5.0, 3.0, 1.0])[:, None, None]  # of red, green and blue on the circle of six
    k = (place + hue) % 6
    return value - chroma * torch.minimum(k, 4 - k).clamp(0, 1)
