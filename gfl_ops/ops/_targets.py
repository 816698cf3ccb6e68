"""The ground truth as users bring it, made into PaddedTargets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _check


class PaddedTargets(NamedTuple):
    """The ground truth of a batch, padded to the same number of boxes for each image, as CUDA graphs need it.

    boxes: (B, G, 4) xyxy in pixels.
    labels: (B, G) classes. A ground truth whose label is outside [0, C) is ignored.
    counts: (B,): how many of the G ground truths of each image are real. Without it, padding is what has a label
    outside [0, C).
    """

    boxes: Tensor
    labels: Tensor
    counts: Tensor | None = None


def checked_targets(op: str, targets: Any, scores: Tensor) -> PaddedTargets:
    """Boxes come back in float32 or float64: an assignment in half precision would be another one."""
    batch, classes = scores.shape[:2]
    if isinstance(targets, PaddedTargets):
        padded = _checked_padded(op, targets, scores)
    elif isinstance(targets, (list, tuple)):
        if len(targets) != batch:
            raise ValueError(f"{op}: targets must have one entry for each of {batch} images, got {len(targets)}")
        padded = _padded(_checked_list(op, targets, scores), scores)
    else:
        raise TypeError(f"{op}: targets must be a list of dicts or PaddedTargets, got {type(targets).__name__}")
    if padded.labels.is_cpu and not torch.compiler.is_compiling():
        _check_values(op, targets, padded, classes)
    boxes = padded.boxes if padded.boxes.dtype == torch.float64 else padded.boxes.float()
    return padded._replace(boxes=boxes.detach())


def _checked_padded(op: str, targets: PaddedTargets, scores: Tensor) -> PaddedTargets:
    _check.floating(op, "targets.boxes", targets.boxes)
    batch, shape = scores.shape[0], targets.boxes.shape
    if len(shape) != 3 or shape[0] != batch or shape[2] != 4:
        raise ValueError(f"{op}: targets.boxes must be (B, G, 4) with B = {batch}, got {tuple(shape)}")
    _check.same_device(op, "targets.boxes", targets.boxes, scores)
    _check.labels(op, "targets.labels", targets.labels, scores, shape[:2], "(B, G)")
    if targets.counts is not None:
        _check.labels(op, "targets.counts", targets.counts, scores, shape[:1], "(B,)")
    return targets


def _checked_list(op: str, targets: Sequence[Any], scores: Tensor) -> Sequence[Mapping[str, Tensor]]:
    for i, target in enumerate(targets):
        if not isinstance(target, Mapping) or not {"boxes", "labels"} <= target.keys():
            what = sorted(target) if isinstance(target, Mapping) else type(target).__name__
            raise TypeError(f"{op}: targets[{i}] must be a dict with 'boxes' and 'labels', got {what}")
        boxes, labels = target["boxes"], target["labels"]
        _check.boxes(op, f"targets[{i}]['boxes']", boxes)
        _check.same_device(op, f"targets[{i}]['boxes']", boxes, scores)
        _check.labels(op, f"targets[{i}]['labels']", labels, scores, boxes.shape[:1], "(n,)")
    return targets


def _padded(targets: Sequence[Mapping[str, Tensor]], scores: Tensor) -> PaddedTargets:
    """Padding is known by its label; how many there are of each stays with the shapes, and off the device."""
    batch, most = len(targets), max([0, *(len(target["labels"]) for target in targets)])
    double = any(target["boxes"].dtype == torch.float64 for target in targets)
    boxes = scores.new_zeros(batch, most, 4, dtype=torch.float64 if double else torch.float32)
    labels = torch.full((batch, most), -1, device=scores.device)
    filled = [(i, target) for i, target in enumerate(targets) if len(target["labels"])]
    if filled:  # two launches, whatever the size of the batch
        torch._foreach_copy_([boxes[i, : len(t["boxes"])] for i, t in filled], [t["boxes"].detach() for _, t in filled])
        torch._foreach_copy_([labels[i, : len(t["labels"])] for i, t in filled], [t["labels"] for _, t in filled])
    return PaddedTargets(boxes, labels)


def _check_values(op: str, given: Any, padded: PaddedTargets, classes: int) -> None:
    """What the host can see without waiting for a device. Of few numbers, which are looked at in Python: a tensor op
    costs as much as a hundred of them."""
    if not isinstance(given, PaddedTargets):
        real = [target["labels"].tolist() for target in given]
    elif given.counts is not None:
        most, counts = padded.labels.shape[1], given.counts.tolist()
        if counts and not 0 <= min(counts) <= max(counts) <= most:
            raise ValueError(f"{op}: targets.counts must be 0 to G = {most}, got {counts}")
        real = [labels[:count] for labels, count in zip(padded.labels.tolist(), counts, strict=True)]
    else:
        return  # any other label is padding
    for image, labels in enumerate(real):
        if labels and not 0 <= min(labels) <= max(labels) < classes:
            gt = next(i for i, label in enumerate(labels) if not 0 <= label < classes)
            raise ValueError(
                f"{op}: labels must be in [0, C = {classes}), got {labels[gt]} in image {image}, ground truth {gt}"
            )
