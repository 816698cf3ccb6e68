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
    """Greedy non-maximum suppression: from the highest score down, a box goes if it overlaps one that stays too much.

    torchvision's function, with its arguments and results. Overlaps are computed in float32 (float64 for float64) and
    compared with a threshold of that type. A box whose score is NaN is dropped. One with a NaN or infinite corner,
    without area, or inverted (x2 < x1 or y2 < y1) overlaps nothing: it stays, and suppresses nothing.

    The number of indices is the size of the result, so on a GPU the host waits for it; :func:`nms_padded` does not.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        iou_threshold: 0 to 1; only an overlap above it suppresses.
        criterion: ``"iou"``, or ``"diou"``, from which the squared distance of the centres over the squared diagonal of
            the enclosing box is subtracted, so that neighbours with different centres may stay.

    Returns:
        int64, the indices of the boxes that stay by descending score; equal scores by ascending index.

    Example:
        >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [1.0, 1.0, 10.0, 10.0], [20.0, 20.0, 30.0, 30.0]])
        >>> nms(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.6).tolist()
        [1, 2]
    """
    _check_inputs("nms", boxes, scores, iou_threshold, criterion)
    return _unpadded("nms", boxes, scores, iou_threshold, None, criterion)


def batched_nms(boxes: Tensor, scores: Tensor, idxs: Tensor, iou_threshold: float, *, criterion: str = "iou") -> Tensor:
    """:func:`nms` of every class by itself; torchvision's function, with its arguments and results.

    Boxes of different classes are never compared. They are not moved apart either, which would cost the precision of
    their coordinates.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        idxs: (N,) integers, the class of each box: any numbers.
        iou_threshold: 0 to 1; only an overlap above it suppresses.
        criterion: ``"iou"`` or ``"diou"``.

    Returns:
        int64, the indices of the boxes that stay, of all classes together, by descending score.

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
    """:func:`nms`, or with idxs :func:`batched_nms`, with a result of fixed size: for CUDA graphs, for torch.compile,
    and wherever the host must not wait for the device.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        iou_threshold: 0 to 1; only an overlap above it suppresses.
        idxs: (N,) integers, the class of each box.
        max_output: the size of the result, by default N; the search ends when it is full.
        criterion: ``"iou"`` or ``"diou"``.

    Returns:
        ``(keep, count)``, both int64 on the boxes' device: (max_output,) the indices that stay, by descending score,
        and -1 behind them; and how many they are, 0-d.

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
        raise RuntimeError(
            f"{op}: the number of boxes that stay is not known without data; nms_padded has a fixed size"
        )
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
