"""Random inputs of the benchmarked ops, by name, as training and inference have them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import gfl_ops
from benchmarks.eager import measured  # noqa: F401  (puts the tests' helpers on the path)
from benchmarks.harness import random_head

Inputs = dict[str, Any]
STRIDES = random_head.STRIDES


def quality(rows: int, classes: int) -> Inputs:
    """Every hundredth row a positive."""
    label = torch.full((rows,), classes)
    label[::100] = torch.randint(classes, label[::100].shape)
    return {"pred": torch.randn(rows, classes) - 4, "target": (label, torch.rand(rows))}


def focal(rows: int, classes: int) -> Inputs:
    inputs = quality(rows, classes)
    return {"pred": inputs["pred"], "target": inputs["target"][0]}


def dfl(rows: int) -> Inputs:
    return {"pred": torch.randn(rows, 17), "target": torch.rand(rows) * 15.9}


def integral(rows: int) -> Inputs:
    return {"pred": torch.randn(max(rows // 4, 1), 68)}


def distillation(rows: int) -> Inputs:
    student = torch.randn(rows, 17)
    return {"student": student, "teacher": student + torch.randn(rows, 17)}


def statistics(rows: int) -> Inputs:
    return {"edge_logits": integral(rows)["pred"]}


def generalized(size: int) -> Inputs:
    return {
        "p_left": torch.rand(size) * 0.9 + 0.05,
        "p_right": torch.rand(size) * 0.9 + 0.05,
        "y": torch.rand(size),
        "y_left": 0.0,
        "y_right": 1.0,
    }


def boxes(rows: int, extent: float = 500.0) -> Tensor:
    corner = torch.rand(rows, 2) * extent
    return torch.cat([corner, corner + 10 + torch.rand(rows, 2) * 200], 1)


def box_pairs(rows: int) -> Inputs:
    target = boxes(rows)
    return {"pred": target + torch.randn(rows, 4) * 5, "target": target}


def box_lists(rows: int, cols: int) -> Inputs:
    return {"a": boxes(rows), "b": boxes(cols)}


def edges(rows: int) -> Inputs:
    points = torch.rand(rows, 2) * 800
    targets = torch.cat([points - 4 - torch.rand(rows, 2) * 90, points + 4 + torch.rand(rows, 2) * 90], 1)
    return {"edge_logits": torch.randn(rows, 68), "anchor_points": points, "target_boxes": targets}


def decode(rows: int) -> Inputs:
    return {"edge_logits": torch.randn(rows, 68), "anchor_points": torch.rand(rows, 2) * 800}


def head(
    images: int, gts: int, classes: int = 80, size: tuple[int, int] = (800, 1344), *, padded: bool = False
) -> Inputs:
    """With ``padded`` the targets are tensors of one size, as a CUDA graph wants them."""
    outputs = random_head.head(0, [gts] * images, size, classes=classes)
    maps = {name: [x.detach() for x in getattr(outputs, name)] for name in ("cls_scores", "bbox_preds")}
    if not padded:
        return maps | {"targets": outputs.targets}
    boxes, labels = (torch.stack([target[name] for target in outputs.targets]) for name in ("boxes", "labels"))
    return maps | {"targets": gfl_ops.PaddedTargets(boxes, labels)}


def level_shapes(height: int, width: int) -> list[tuple[int, int]]:
    return [(math.ceil(height / stride), math.ceil(width / stride)) for stride in STRIDES]


def focal_maps(images: int, classes: int = 80, size: tuple[int, int] = (800, 1344)) -> Inputs:
    shapes = level_shapes(*size)
    labels = torch.full((images, sum(h * w for h, w in shapes)), classes)
    labels[:, ::100] = torch.randint(classes, labels[:, ::100].shape)
    return {"preds": [torch.randn(images, classes, *shape) - 4 for shape in shapes], "labels": labels}


def scored_maps(images: int, classes: int = 80, size: tuple[int, int] = (800, 1344)) -> Inputs:
    inputs = focal_maps(images, classes, size)
    return inputs | {"scores": torch.rand(inputs["labels"].shape)}


def assignment(images: int, gts: int, size: tuple[int, int] = (800, 1344)) -> Inputs:
    targets = random_head.head(0, [gts] * images, size, classes=1).targets
    return {
        "gt_boxes": torch.stack([target["boxes"] for target in targets]),
        "gt_counts": torch.full((images,), gts),
        "level_shapes": level_shapes(*size),
        "strides": STRIDES,
    }


def aligned(images: int, gts: int, size: tuple[int, int] = (640, 640), classes: int = 80) -> Inputs:
    """A head of strides 8, 16 and 32. Every second anchor inside of a ground truth predicts it, up to noise."""
    shapes = level_shapes(*size)[:3]
    grid = [
        torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1).add(0.5) * stride
        for (height, width), stride in zip(shapes, STRIDES, strict=False)
    ]
    points = torch.cat(grid)
    gt_boxes = assignment(images, gts, size)["gt_boxes"]
    away = torch.rand(images, len(points), 4) * 60 + 4
    boxes = torch.cat([points - away[..., :2], points + away[..., 2:]], 2)
    if gts:
        pick = torch.randint(gts, (images, len(points)))
        near = gt_boxes.gather(1, pick[..., None].expand(-1, -1, 4)) + torch.randn(images, len(points), 4) * 6
        inside = ((points > near[..., :2]) & (points < near[..., 2:])).all(-1, keepdim=True)
        boxes = torch.where(inside & (torch.rand(images, len(points), 1) < 0.5), near, boxes)
    return {
        "scores": torch.rand(images, len(points), classes) ** 3,
        "boxes": boxes,
        "points": points,
        "gt_boxes": gt_boxes,
        "gt_labels": torch.randint(classes, (images, gts)),
        "gt_counts": torch.full((images,), gts),
        "level_shapes": shapes,
        "strides": STRIDES[:3],
    }


def anchor_boxes(images: int, gts: int, size: tuple[int, int] = (800, 1344)) -> Inputs:
    """RetinaNet's nine anchors for each cell of strides 8 to 128."""
    sides = torch.tensor([[r**-0.5 * o, r**0.5 * o] for r in (0.5, 1.0, 2.0) for o in (4.0, 4.0 * 2 ** (1 / 3), 6.35)])
    levels = []
    for (height, width), stride in zip(level_shapes(*size), STRIDES, strict=True):
        centers = torch.cartesian_prod(torch.arange(height), torch.arange(width)).flip(1)[:, None].float()
        levels.append(torch.cat([centers - sides / 2, centers + sides / 2], 2).reshape(-1, 4) * stride)
    return {
        "anchors": torch.cat(levels),
        "gt_boxes": assignment(images, gts, size)["gt_boxes"],
        "gt_counts": torch.full((images,), gts),
    }


def costed(images: int, gts: int, size: tuple[int, int] = (640, 640), *, logits: bool = False) -> Inputs:
    """The same head for assigners that know the stride of each point."""
    inputs = aligned(images, gts, size)
    shapes, scores = inputs.pop("level_shapes"), inputs.pop("scores")
    levels = zip(shapes, inputs["strides"], strict=True)
    inputs["strides"] = torch.cat([torch.full((height * width,), float(stride)) for (height, width), stride in levels])
    return {"logits": scores.logit(1e-6)} | inputs if logits else {"scores": scores} | inputs


def pyramid_boxes(images: int, gts: int, size: tuple[int, int] = (800, 1344)) -> Inputs:
    ranges = [(-1.0, 64.0), (64.0, 128.0), (128.0, 256.0), (256.0, 512.0), (512.0, float("inf"))]
    shapes = level_shapes(*size)
    return {
        "gt_boxes": assignment(images, gts, size)["gt_boxes"],
        "gt_counts": torch.full((images,), gts),
        "level_shapes": shapes,
        "strides": STRIDES,
        "ranges": ranges[: len(shapes)],
    }


def scored_boxes(count: int, classes: int | None = None) -> Inputs:
    corner = torch.rand(count, 2) * torch.tensor([1200.0, 700.0])
    inputs = {"boxes": torch.cat([corner, corner + 8 + torch.rand(count, 2) * 120], 1), "scores": torch.rand(count)}
    return inputs if classes is None else inputs | {"labels": torch.randint(classes, (count,))}


def detections(images: int, mean: float, size: tuple[int, int], classes: int = 80) -> Inputs:
    """Class logits N(mean, 1)."""
    shapes = level_shapes(*size)
    return {
        "cls_scores": [torch.randn(images, classes, *shape) + mean for shape in shapes],
        "bbox_preds": [torch.randn(images, 68, *shape) for shape in shapes],
        "image_shapes": [size] * images,
    }


def map_tensors(change: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {name: map_tensors(change, item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        make = getattr(type(value), "_make", type(value))  # a named tuple takes its fields one by one
        return make(map_tensors(change, item) for item in value)
    return value


def tensors(value: Any) -> list[Tensor]:
    """All tensors of nested lists, tuples and dicts, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [x for item in value for x in tensors(item)] if isinstance(value, (list, tuple)) else []
