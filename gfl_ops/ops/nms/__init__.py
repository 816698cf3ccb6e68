"""Non-maximum suppression."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from . import native, reference

_CLASSES = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, *, criterion: str = "iou") -> Tensor:
    """Greedy non-maximum suppression. Arguments and results are those of torchvision's function.

    From the highest score to the lowest, a box is dropped if it overlaps too much with a box that was kept. Overlaps
    are computed in float32 (float64 for float64) and compared with a threshold of that type. A box whose score is NaN
    is dropped. A box with a NaN or infinite corner, without area, or inverted (x2 < x1 or y2 < y1) overlaps nothing: it
    is kept and suppresses nothing.

    The size of the result depends on the data, so on a GPU the host waits for it. :func:`nms_padded` does not wait.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        iou_threshold: 0 to 1; only an overlap above it suppresses.
        criterion: ``"iou"``; or ``"diou"``, which subtracts the squared distance of the centres over the squared
            diagonal of the enclosing box, so that overlapping boxes with different centres are more likely to be kept.

    Returns:
        int64 indices of the kept boxes, by descending score; equal scores by ascending index.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
        >>> nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.6).tolist()
        [1, 2]
    """
    _check_inputs("nms", boxes, scores, iou_threshold, criterion)
    return _unpadded("nms", boxes, scores, iou_threshold, None, criterion)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, *, criterion: str = "iou") -> Tensor:
    """:func:`nms` of each class by itself. Arguments and results are those of torchvision's function.

    Boxes of different classes are never compared. torchvision's method of adding an offset for each class to the boxes
    is not used, because it rounds the coordinates.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        idxs: (N,) integers: the class of each box. Any numbers are allowed.
        iou_threshold: 0 to 1; only an overlap above it suppresses.
        criterion: ``"iou"`` or ``"diou"``.

    Returns:
        int64 indices of the kept boxes of all classes, by descending score.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0]]).expand(3, 4)
        >>> batched_nms(boxes, torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 0, 1]), 0.6).tolist()
        [1, 2]
    """
    op = "batched_nms"
    _check_inputs(op, boxes, scores, iou_threshold, criterion)
    _check_classes(op, idxs, boxes)
    return _unpadded(op, boxes, scores, iou_threshold, idxs, criterion)


def nms_padded(
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    idxs: Tensor | None = None,
    *,
    max_output: int | None = None,
    criterion: str = "iou",
) -> tuple[Tensor, Tensor]:
    """:func:`nms`, or :func:`batched_nms` if idxs are given, with a result of fixed size.

    The host does not wait for the GPU, and the call can be used in CUDA graphs and under torch.compile.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        iou_threshold: 0 to 1; only an overlap above it suppresses.
        idxs: (N,) integers, the class of each box.
        max_output: the size of the result, by default N. The search ends when it is full.
        criterion: ``"iou"`` or ``"diou"``.

    Returns:
        ``(keep, count)``, both int64 on the device of the boxes. keep (max_output,) has the indices of the kept boxes,
        by descending score, then -1. count, 0-d, is the number of kept boxes.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
        >>> keep, count = nms_padded(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.6)
        >>> keep.tolist(), count.item()
        ([1, 2, -1], 2)
    """
    op = "nms_padded"
    _check_inputs(op, boxes, scores, iou_threshold, criterion)
    if idxs is not None:
        _check_classes(op, idxs, boxes)
    if max_output is not None:
        _check.whole(op, "max_output", max_output, 0)
    return _padded(op, boxes, scores, iou_threshold, idxs, max_output, criterion)


def _padded(
    op: str,
    boxes: Tensor,
    scores: Tensor,
    iou_threshold: float,
    idxs: Tensor | None,
    max_output: int | None,
    criterion: str,
) -> tuple[Tensor, Tensor]:
    size = boxes.shape[0] if max_output is None else max_output
    boxes, scores = boxes.detach(), scores.detach()
    kernels = kernels_for("nms", boxes, native)
    if kernels is not None:
        return kernels.nms_padded(boxes, scores, iou_threshold, idxs, size, criterion)
    return reference.nms_padded(boxes, scores, iou_threshold, idxs, max_output=size, criterion=criterion)


def _unpadded(
    op: str, boxes: Tensor, scores: Tensor, iou_threshold: float, idxs: Tensor | None, criterion: str
) -> Tensor:
    if boxes.is_meta:
        raise RuntimeError(f"{op}: the number of kept boxes is not known without data; nms_padded has a fixed size")
    keep, count = _padded(op, boxes, scores, iou_threshold, idxs, None, criterion)
    return keep[: int(count)]


def _check_inputs(op: str, boxes: Any, scores: Any, iou_threshold: Any, criterion: Any) -> None:
    _check.boxes(op, "boxes", boxes)
    _check.floating(op, "scores", scores)
    _check.shape(op, "scores", scores, boxes.shape[:1], "(N,)")
    _check.on_device_of(op, "scores", scores, "boxes", boxes)
    _check.number(op, "iou_threshold", iou_threshold, 0, 1)
    _check.choice(op, "criterion", criterion, tuple(native.CRITERIA))


def _check_classes(op: str, idxs: Any, boxes: Tensor) -> None:
    _check.tensor(op, "idxs", idxs)
    if idxs.dtype not in _CLASSES:
        raise TypeError(f"{op}: idxs must be integers, got {str(idxs.dtype).removeprefix('torch.')}")
    _check.shape(op, "idxs", idxs, boxes.shape[:1], "(N,)")
    _check.on_device_of(op, "idxs", idxs, "boxes", boxes)
