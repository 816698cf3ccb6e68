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


def _cell_stride(maps: Tensor) -> int | None:
    """Between neighbouring positions of a (B, C, H, W) tensor; None where they are not one evenly spaced run, as those
    of contiguous and channels-last maps are. The stride of a dimension of size 1 means nothing.
    """
    height, width = maps.shape[2:]
    if width <= 1 or maps.numel() == 0:
        return maps.stride(2) if height > 1 else 1
    return maps.stride(3) if height == 1 or maps.stride(2) == width * maps.stride(3) else None


def _evenly_spaced(maps: Tensor) -> Tensor:
    return maps.contiguous() if _cell_stride(maps) is None else maps


def _view(maps: Tensor) -> _native.Bins:
    cell_stride = _cell_stride(maps)
    assert cell_stride is not None
    return maps.data_ptr(), _native.dtype_code(maps), maps.stride(0), maps.stride(1), cell_stride


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
    maps = [[_evenly_spaced(x) for x in level] for level in (cls_scores, bbox_preds)]
    levels = tuple(
        (_view(scores), _view(edges), scores.shape[2], scores.shape[3], stride)
        for scores, edges, stride in zip(*maps, strides, strict=True)
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
