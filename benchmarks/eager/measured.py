"""The formulas as detectors run them in eager PyTorch today: what everything here is compared with.

By the names of the ops. Most are the oracles' (oracle_*.py), which are written as people write them. Some are written
out here: the oracle finds the bins of any grid, which costs it time that nobody spends on the usual one, and spares
itself what mmdet's assigner does in matrices of (gts, anchors).
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import gfl_ops
from benchmarks.eager import oracle_detections, oracle_gfl_loss, oracle_losses
from benchmarks.eager.oracle_assigners import (
    dynamic_soft_label_assign,
    fcos_assign,
    max_iou_assign,
    simota_assign,
    task_aligned_assign,
)
from benchmarks.eager.oracle_losses import (
    box_iou,
    decode_boxes,
    distribution_kl_loss,
    generalized_focal_loss,
    integral,
    iou_loss,
    quality_focal_loss,
    sigmoid_focal_loss,
    soft_bce_loss,
    varifocal_loss,
)

__all__ = [
    "atss_assign",
    "batched_nms",
    "box_iou",
    "decode_boxes",
    "distribution_box_loss",
    "distribution_focal_loss",
    "distribution_kl_loss",
    "distribution_statistics",
    "dynamic_soft_label_assign",
    "fcos_assign",
    "generalized_focal_loss",
    "gfl_loss",
    "integral",
    "iou_loss",
    "max_iou_assign",
    "multilevel_sigmoid_focal_loss",
    "multilevel_soft_bce_loss",
    "multilevel_varifocal_loss",
    "nms",
    "postprocess",
    "quality_focal_loss",
    "sigmoid_focal_loss",
    "simota_assign",
    "soft_bce_loss",
    "task_aligned_assign",
    "varifocal_loss",
]


def gfl_loss(
    cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], targets: Any, *args: Any, **options: Any
) -> Any:
    """Padded targets are taken apart, without looking: all of them are real."""
    if isinstance(targets, gfl_ops.PaddedTargets):
        images = zip(targets.boxes, targets.labels, strict=True)
        targets = [{"boxes": boxes, "labels": labels} for boxes, labels in images]
    return oracle_gfl_loss.gfl_loss(cls_scores, bbox_preds, targets, *args, settle=_settled, **options)


def _settled(overlaps: Tensor, centers: Tensor, gt_boxes: Tensor, candidates: Tensor, worthy: Tensor) -> Any:
    """How mmdet's assigner shares out the candidates: a loop over the gts for their places in a matrix with a row each,
    and the anchors' centres, the overlaps and the claims all as such matrices."""
    anchors, gts = overlaps.shape
    places = candidates.clone()
    for gt in range(gts):
        places[:, gt] += gt * anchors
    points = torch.stack([c.expand(gts, anchors).reshape(-1)[places] for c in centers.unbind(1)], -1)
    positive = worthy & (oracle_gfl_loss.sides_within(points, gt_boxes).min(-1)[0] > 0.01)
    claimed = torch.full_like(overlaps, -torch.inf).t().reshape(-1)
    claimed[places[positive]] = overlaps.t().reshape(-1)[places[positive]]
    return claimed.reshape(gts, anchors).t().max(1)


def distribution_focal_loss(pred: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
    left = target.long()
    right = left + 1
    loss = functional.cross_entropy(pred, left, reduction="none") * (right.float() - target)
    loss = loss + functional.cross_entropy(pred, right, reduction="none") * (target - left.float())
    return oracle_losses.reduce(loss, None, reduction, None)


def distribution_statistics(edge_logits: Tensor) -> Tensor:
    """The lines of GFLv2's head."""
    prob = functional.softmax(edge_logits.reshape(len(edge_logits), 4, -1), dim=2)
    topk, _ = prob.topk(4, dim=2)
    return torch.cat([topk, topk.mean(dim=2, keepdim=True)], dim=2).reshape(len(edge_logits), -1)


def distribution_box_loss(
    edge_logits: Tensor, anchor_points: Tensor, target_boxes: Tensor, *, stride: float
) -> tuple[Tensor, ...]:
    """The lines that a GFL head runs on the positives of one level."""
    rows, bins = edge_logits.shape[0], edge_logits.shape[1] // 4
    points, target = anchor_points / stride, target_boxes / stride
    edges = torch.cat([points - target[:, :2], target[:, 2:] - points], 1).clamp(min=0, max=bins - 1 - 0.1)
    loss = distribution_focal_loss(edge_logits.reshape(-1, bins), edges.reshape(-1), "none")
    left, top, right, bottom = integral(edge_logits, num_bins=bins).unbind(1)
    x, y = points.unbind(1)
    boxes = torch.stack([x - left, y - top, x + right, y + bottom], 1)
    quality = box_iou(boxes.detach(), target, aligned=True)
    giou = iou_loss(boxes, target, kind="giou", eps=1e-6)
    return giou, loss.reshape(rows, 4).mean(1).mean(), (boxes * stride).detach(), quality


def multilevel_sigmoid_focal_loss(preds: Sequence[Tensor], labels: Tensor) -> Tensor:
    return sigmoid_focal_loss(_one_matrix(preds), labels.reshape(-1))


def multilevel_varifocal_loss(preds: Sequence[Tensor], labels: Tensor, scores: Tensor) -> Tensor:
    return varifocal_loss(_one_matrix(preds), (labels.reshape(-1), scores.reshape(-1)))


def multilevel_soft_bce_loss(preds: Sequence[Tensor], labels: Tensor, scores: Tensor) -> Tensor:
    return soft_bce_loss(_one_matrix(preds), (labels.reshape(-1), scores.reshape(-1)))


def _one_matrix(preds: Sequence[Tensor]) -> Tensor:
    """Of all levels, as RetinaNet's heads make it."""
    classes = preds[0].shape[1]
    rows = [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, classes) for x in preds]
    return torch.cat(rows, 1).reshape(-1, classes)


def atss_assign(
    gt_boxes: Tensor, gt_counts: Tensor, level_shapes: Sequence[tuple[int, int]], strides: Sequence[float]
) -> Tensor:
    grid = [
        oracle_gfl_loss.anchors_of_level(shape, stride, 8.0, 0.0, gt_boxes)
        for shape, stride in zip(level_shapes, strides, strict=True)
    ]
    valid = [torch.ones(len(level), dtype=torch.bool, device=gt_boxes.device) for level in grid]
    counts = gt_counts.tolist()
    return torch.stack(
        [oracle_gfl_loss.assign(grid, valid, gt_boxes[i, :n], 9, _settled) for i, n in enumerate(counts)]
    ).int()


# ---- detections: their last step is the loop over pairs that libraries have for CPUs ---------------------


@cache
def plain_library() -> ctypes.CDLL | None:
    """plain_nms.cpp, compiled on the spot; None without a compiler."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        return None
    source = Path(__file__).with_name("plain_nms.cpp")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plain_nms.so"
        subprocess.run([compiler, "-O3", "-std=c++17", "-shared", "-fPIC", str(source), "-o", str(path)], check=True)
        library = ctypes.CDLL(str(path))
    library.plain_nms.restype = ctypes.c_int64
    library.plain_nms.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_void_p]
    return library


def nms(boxes: Tensor, scores: Tensor, threshold: float) -> Tensor:
    library = plain_library()
    if library is None:
        return oracle_detections.nms(boxes, scores, threshold)
    order = scores.argsort(descending=True, stable=True)
    ordered, keep = boxes[order].float().cpu().contiguous(), torch.empty(len(boxes), dtype=torch.int64)
    kept = library.plain_nms(ordered.data_ptr(), len(boxes), threshold, keep.data_ptr())
    return order[keep[:kept].to(order.device)]


def batched_nms(boxes: Tensor, scores: Tensor, labels: Tensor, threshold: float) -> Tensor:
    """Every class moved to a place of its own, as detectors do it."""
    if not len(boxes):
        return labels
    return nms(boxes + (labels.to(boxes) * (boxes.max() + 1))[:, None], scores, threshold)


def postprocess(*args: Any) -> list[tuple[Tensor, ...]]:
    return oracle_detections.postprocess(*args, batched_nms=batched_nms)
