"""Targets: checks that do not wait for a device, and their scaling to the batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .preprocess import Batch

Target = dict[str, Tensor]


def check_targets(targets: Sequence[Target], num_images: int, num_classes: int) -> None:
    if len(targets) != num_images:
        raise ValueError(f"detector: targets must have one entry for each of {num_images} images, got {len(targets)}")
    for i, target in enumerate(targets):
        name = f"targets[{i}]"
        if not isinstance(target, dict) or not {"boxes", "labels"} <= target.keys():
            got = sorted(target) if isinstance(target, dict) else type(target).__name__
            raise ValueError(f"detector: {name} must be a dict with boxes and labels, got {got}")
        _check_kinds(name, target["boxes"], target["labels"])
        _check_values(name, target["boxes"], target["labels"], num_classes)


def _check_kinds(name: str, boxes: Tensor, labels: Tensor) -> None:
    for key, value in (("boxes", boxes), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise TypeError(f"detector: {name}[{key!r}] must be a tensor, got {type(value).__name__}")
    if boxes.numel() == 0 and labels.numel() == 0:  # torch.tensor([]) has neither shape nor type
        return
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise ValueError(f"detector: {name}['boxes'] must be (G, 4), got {tuple(boxes.shape)}")
    if labels.shape != boxes.shape[:1]:
        raise ValueError(
            f"detector: {name}['labels'] must be (G,) = {tuple(boxes.shape[:1])}, got {tuple(labels.shape)}"
        )
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        dtype = str(labels.dtype).removeprefix("torch.")
        raise TypeError(f"detector: {name}['labels'] must be integers, got {dtype}")


def _check_values(name: str, boxes: Tensor, labels: Tensor, num_classes: int) -> None:
    """Only in host memory: reading another device's memory would wait for it."""
    if labels.device.type == "cpu":
        wrong = (labels < 0) | (labels >= num_classes)
        if wrong.any():
            i = int(wrong.nonzero()[0])
            raise ValueError(
                f"detector: {name}['labels'] must be in [0, {num_classes}), got {int(labels[i])} at index {i}"
            )
    if boxes.device.type == "cpu" and boxes.numel() > 0:
        wrong = ~boxes.isfinite().all(1) | (boxes[:, 2:] < boxes[:, :2]).any(1)
        if wrong.any():
            i = int(wrong.nonzero()[0])
            shown = ", ".join(f"{x:g}" for x in boxes[i].tolist())
            raise ValueError(
                f"detector: {name}['boxes'] must be finite with x1 <= x2 and y1 <= y2, got [{shown}] at index {i}"
            )


def scale_targets(targets: Sequence[Target], batch: Batch) -> list[Target]:
    """The targets on the batch's device and in its coordinates, clipped to their image."""
    device = batch.pixels.device
    return [
        {
            "boxes": _scaled(target["boxes"].to(device, torch.float32).reshape(-1, 4), factor, shape),
            "labels": target["labels"].to(device, torch.int64),
        }
        for target, factor, shape in zip(targets, batch.scale_factors, batch.image_shapes, strict=True)
    ]


def _scaled(boxes: Tensor, factor: Tensor, shape: Tensor) -> Tensor:
    return (boxes * factor.repeat(2)).clamp(min=0).minimum(shape.flip(0).repeat(2))
