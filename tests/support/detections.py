"""Random boxes, and outputs of a head that are made into detections."""

from __future__ import annotations

import torch
from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)
Head = tuple[list[Tensor], list[Tensor]]


def random_boxes(count: int, seed: int = 0, extent: float = 300.0, dtype=torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * extent
    return torch.cat([corner, corner + 5 + torch.rand(count, 2, generator=generator) * 60], 1).to(dtype)


def random_scores(count: int, seed: int = 0, steps: int = 0) -> Tensor:
    """With `steps`, many are equal."""
    scores = torch.rand(count, generator=torch.Generator().manual_seed(seed + 100))
    return (scores * steps).round() / steps if steps else scores


def random_classes(count: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randint(-1, classes - 1, (count,), generator=torch.Generator().manual_seed(seed + 200))


def head(
    height: int = 96,
    width: int = 160,
    *,
    batch: int = 2,
    classes: int = 3,
    bins: int = 17,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    strides: tuple[int, ...] = STRIDES,
    mean: float = -3.0,
    seed: int = 0,
) -> Head:
    """Random outputs of a head. Class logits are whole 64ths: exact in every dtype that holds them, with many ties."""
    generator = torch.Generator().manual_seed(seed)
    cls_scores, bbox_preds = [], []
    for stride in strides:
        size = (-(-height // stride), -(-width // stride))
        logits = torch.randn(batch, classes, *size, generator=generator) * 1.5 + mean
        step = 64 if dtype in (torch.float32, torch.float64) else 8
        cls_scores.append(((logits * step).round() / step).to(device, dtype))
        bbox_preds.append((torch.randn(batch, 4 * bins, *size, generator=generator) * 2).to(device, dtype))
    return cls_scores, bbox_preds
