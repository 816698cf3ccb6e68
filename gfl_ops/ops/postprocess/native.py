"""Post-processing on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import _native
from ..._library import register
from ..nms.native import CRITERIA
from .reference import Detections


def _compute_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32


def _bins(bbox_preds: Sequence[Tensor]) -> int:
    return bbox_preds[0].shape[1] // 4


def outputs(cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], room: int, with_edges: bool) -> list[Tensor]:
    dtype = _compute_dtype([*cls_scores, *bbox_preds])
    batch, device = cls_scores[0].shape[0], cls_scores[0].device
    sizes: list[tuple[int, ...]] = [(batch, room, 4), (batch, room)]
    if with_edges:
        sizes += [(batch, room, 4, _bins(bbox_preds)), (batch, room, 4), (batch, room)]
    boxes, scores, *edges = (torch.empty(size, dtype=dtype, device=device) for size in sizes)
    labels = torch.empty((batch, room), dtype=torch.int64, device=device)
    counts = torch.empty((batch,), dtype=torch.int64, device=device)
    return [boxes, scores, labels, counts, *edges]


def _view(maps: Tensor) -> tuple[_native.Bins, Tensor]:
    """(B, channels, H * W) of a map as it is, where its positions are one evenly spaced run, as those of contiguous and
    channels-last maps are; else of a copy. The stride of a dimension of size 1 means nothing.
    """
    _, _, height, width = maps.shape
    batch_stride, channel_stride, row_stride, cell_stride = maps.stride()
    if width <= 1:
        cell_stride = row_stride if height > 1 else 1
    elif height > 1 and row_stride != width * cell_stride and maps.numel() > 0:
        return _view(maps.contiguous())
    return (maps.data_ptr(), _native.dtype_code(maps), batch_stride, channel_stride, cell_stride), maps


def _postprocess(
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    strides: Sequence[float],
    image_shapes: Tensor,
    scale_factors: Tensor | None,
    score_thr: float,
    nms_pre: int,
    iou_thr: float,
    room: int,
    min_size: float,
    with_edges: bool,
    criterion: int,
) -> list[Tensor]:
    core, device = _native.core_for(cls_scores[0])
    found = outputs(cls_scores, bbox_preds, room, with_edges)
    views = [(_view(scores), _view(edges)) for scores, edges in zip(cls_scores, bbox_preds, strict=True)]
    levels = tuple(
        (scores, edges, *maps.shape[2:], stride)
        for ((scores, maps), (edges, _)), stride in zip(views, strides, strict=True)
    )
    sizes = (*cls_scores[0].shape[:2], _bins(bbox_preds), _native.dtype_code(found[0]), levels, nms_pre, room)
    size = core.postprocess_workspace_bytes(device, *sizes)
    workspace = torch.empty(size, dtype=torch.uint8, device=cls_scores[0].device)
    core.postprocess(
        device,
        *sizes,
        image_shapes.data_ptr(),
        _native.address(scale_factors),
        score_thr,
        iou_thr,
        criterion,
        min_size,
        *(x.data_ptr() for x in found[:4]),
        *([x.data_ptr() for x in found[4:]] or [0, 0, 0]),
        workspace.data_ptr(),
    )
    return found


def _postprocess_fake(cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], *options: Any) -> list[Tensor]:
    *_, room, _, with_edges, _ = options
    return outputs(cls_scores, bbox_preds, room, with_edges)


_postprocess_op = register(
    "postprocess(Tensor[] cls_scores, Tensor[] bbox_preds, float[] strides, Tensor image_shapes, "
    "Tensor? scale_factors, float score_thr, SymInt nms_pre, float iou_thr, SymInt room, float min_size, "
    "bool with_edges, int criterion) -> Tensor[]",
    _postprocess,
    _postprocess_fake,
)


def postprocess(
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    strides: Sequence[float],
    image_shapes: Tensor,
    scale_factors: Tensor | None,
    *,
    score_thr: float,
    nms_pre: int,
    iou_thr: float,
    max_per_img: int,
    min_size: float,
    with_edges: bool,
    criterion: str,
) -> Detections:
    return Detections(
        *_postprocess_op(
            list(cls_scores),
            list(bbox_preds),
            list(strides),
            image_shapes,
            scale_factors,
            score_thr,
            nms_pre,
            iou_thr,
            max_per_img,
            min_size,
            with_edges,
            CRITERIA[criterion],
        )
    )
