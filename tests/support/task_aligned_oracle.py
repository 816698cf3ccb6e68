"""The loss of a task-aligned head written out image by image and positive by positive, on the rules of assignment in
assignment_oracles.py: what the reference is held against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.eager import oracle_losses
from gfl_ops._reduce import FLOAT32_EPS
from tests.support import assignment_oracles


def task_aligned_loss(
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    targets: Sequence[dict[str, Tensor]],
    strides: Sequence[int],
    assign: dict[str, Any],
    iou: dict[str, Any],
    class_loss: str = "soft_bce",
    weights: tuple[float, float, float] = (0.5, 7.5, 1.5),
) -> list[Tensor]:
    """loss_cls, loss_bbox and loss_dfl."""
    logits = torch.cat([x.flatten(2).mT for x in cls_scores], 1)
    bins = bbox_preds[0].shape[1] // 4
    edges = torch.cat([x.flatten(2).mT for x in bbox_preds], 1).unflatten(2, (4, bins))
    height, width = (cells * strides[0] for cells in bbox_preds[0].shape[2:])
    points, units = [], []
    for x, stride in zip(bbox_preds, strides, strict=True):
        for row in range(x.shape[2]):
            points += [((column + 0.5) * stride, (row + 0.5) * stride) for column in range(x.shape[3])]
        units += [stride] * (x.shape[2] * x.shape[3])

    target = torch.zeros_like(logits)
    total = logits.new_zeros(())
    loss_bbox, loss_dfl = logits.new_zeros(()), logits.new_zeros(())
    size = logits.new_tensor([width, height, width, height])
    for image, truth in enumerate(targets):
        reach = (edges[image].softmax(2) * torch.arange(bins)).sum(2) if bins > 1 else edges[image, ..., 0]
        unit, point = logits.new_tensor(units)[:, None], logits.new_tensor(points)
        boxes = torch.cat([point / unit - reach[:, :2], point / unit + reach[:, 2:]], 1)
        gts, _, scores = assignment_oracles.task_aligned_assign(
            logits[image].detach().sigmoid(), (boxes * unit).detach(), point, truth["boxes"], truth["labels"], **assign
        )
        for anchor, (gt, score) in enumerate(zip(gts, scores, strict=True)):
            if gt < 0:
                continue
            target[image, anchor, truth["labels"][gt]] = score
            total = total + score
            box = (truth["boxes"][gt] / unit[anchor]).to(logits.dtype)
            loss_bbox = loss_bbox + score * oracle_losses.iou_loss(
                boxes[anchor][None], box[None], reduction="sum", **iou
            )
            here = point[anchor] / unit[anchor]
            wanted = torch.cat([here - box[:2], box[2:] - here])
            if bins == 1:
                sides = (reach[anchor] - wanted).abs() * unit[anchor] / size
            else:
                wanted = wanted.clamp(0, bins - 1 - 0.01)
                left = wanted.long()
                low, high = (
                    functional.cross_entropy(edges[image, anchor], x, reduction="none") for x in (left, left + 1)
                )
                sides = low * (left + 1 - wanted) + high * (wanted - left)
            loss_dfl = loss_dfl + score * sides.mean()
    factor = total.clamp(min=1)
    loss_cls = _class_loss(class_loss, logits, target) / (factor + FLOAT32_EPS)  # as every avg_factor has it
    losses = loss_cls, loss_bbox / factor, loss_dfl / factor
    return [weight * loss for weight, loss in zip(weights, losses, strict=True)]


def _class_loss(kind: str, logits: Tensor, target: Tensor) -> Tensor:
    entropy = functional.binary_cross_entropy_with_logits(logits, target, reduction="none")
    p = logits.sigmoid()
    if kind == "quality_focal":
        entropy = entropy * (target - p).abs().square()
    if kind == "varifocal":
        entropy = entropy * torch.where(target > 0, target, 0.75 * p.square())
    return entropy.sum()
