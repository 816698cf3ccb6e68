"""Bilinear resizing that gives what OpenCV's ``INTER_LINEAR`` gives, which the published weights were trained on.

Pixel centres are at halves, and shrinking does not smooth. For uint8 images OpenCV computes in fixed point, and so does
this, bit for bit: weights in units of 2^-11; a row's sum loses its last 4 bits, each weighted row its last 16, and of
the 2 bits that are left over the total is rounded.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

_WEIGHT_BITS = 11


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """(N, C, H, W) uint8 or float32 to (N, C, *size), of the same type."""
    if images.shape[-2:] == size:
        return images
    if images.dtype == torch.uint8:
        return _resize_bytes(images, size)
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=False)


def _resize_bytes(images: Tensor, size: tuple[int, int]) -> Tensor:
    left, right, left_weight, right_weight = _taps(images.shape[-1], size[1], images.device)
    # Past the first and last column there is one pixel, not a blend of it with itself, which would be rounded twice.
    single = left == right
    left_weight = left_weight.masked_fill(single, 1 << _WEIGHT_BITS)
    right_weight = right_weight.masked_fill(single, 0)
    columns = images[..., left].int() * left_weight + images[..., right].int() * right_weight
    columns >>= 4

    top, bottom, top_weight, bottom_weight = _taps(images.shape[-2], size[0], images.device)
    above = (columns[..., top, :] * top_weight[:, None]) >> 16
    below = (columns[..., bottom, :] * bottom_weight[:, None]) >> 16
    return ((above + below + 2) >> 2).to(torch.uint8)


def _taps(before: int, after: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """For each pixel of the result: the two that it lies between, and their fixed-point weights."""
    scale = 1.0 / (after / before)
    place = ((torch.arange(after, dtype=torch.float64) + 0.5) * scale - 0.5).float()
    first = place.floor()
    fraction = place - first
    index = first.long()
    weights = [(x * (1 << _WEIGHT_BITS)).round().int().to(device) for x in (1 - fraction, fraction)]
    neighbours = [x.clamp(0, before - 1).to(device) for x in (index, index + 1)]
    return neighbours[0], neighbours[1], weights[0], weights[1]
