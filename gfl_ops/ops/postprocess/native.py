"""Post-processing on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._native import Kernel
from ..._op import Op, Size, arguments_of
from ..nms.native import CRITERIA
from .reference import Detections


def _compute_dtype(tensors: Sequence[Tensor]) -> torch.dtype:
    return torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32


def _bins(bbox_preds: Sequence[Tensor]) -> int:
    return bbox_preds[0].shape[1] // 4


class Postprocess(NamedTuple):
    """The arguments behind the strides are those of gfl_postprocess in csrc/gfl.h, but for with_edges."""

    cls_scores: list[Tensor]
    bbox_preds: list[Tensor]
    strides: list[float]
    image_shapes: Tensor
    scale_factors: Tensor | None
    score_threshold: float
    nms_pre: Size
    nms_threshold: float
    room: Size
    min_size: float
    with_edges: bool
    criterion: int


_PLAIN_FIELDS = tuple(name for name in Postprocess._fields[3:] if name != "with_edges")
_kernel = Kernel(
    "postprocess_run",
    (
        *("levels", "num_levels", "batch", "classes", "bins", "dtype"),
        *_PLAIN_FIELDS,
        *("boxes", "scores", "labels", "counts", "distributions", "deviations", "strides"),
    ),
)


def _outputs_like(*args: Any) -> list[Tensor]:
    a = Postprocess(*args)
    return empty_detections(a.cls_scores, a.bbox_preds, a.room, a.with_edges)


def empty_detections(
    cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], room: int, with_edges: bool
) -> list[Tensor]:
    """Detections' fields, to be filled."""
    dtype = _compute_dtype([*cls_scores, *bbox_preds])
    batch, device = cls_scores[0].shape[0], cls_scores[0].device
    sizes: list[tuple[int, ...]] = [(batch, room, 4), (batch, room)]
    if with_edges:
        sizes += [(batch, room, 4, _bins(bbox_preds)), (batch, room, 4), (batch, room)]
    boxes, scores, *edges = (torch.empty(size, dtype=dtype, device=device) for size in sizes)
    labels = torch.empty((batch, room), dtype=torch.int64, device=device)
    counts = torch.empty((batch,), dtype=torch.int64, device=device)
    return [boxes, scores, labels, counts, *edges]


def _readable(maps: Tensor) -> Tensor:
    """As it is, where its positions are one evenly spaced run, as those of contiguous and channels-last maps are; else
    a copy. The stride of a dimension of size 1 means nothing."""
    height, width = maps.shape[2:]
    row_stride, cell_stride = maps.stride()[2:]
    flat = width <= 1 or height <= 1 or row_stride == width * cell_stride or maps.numel() == 0
    return maps if flat else maps.contiguous()


def _postprocess(*args: Any) -> list[Tensor]:
    a = Postprocess(*args)
    found = _outputs_like(*args)
    levels = [_readable(x) for x in a.cls_scores], [_readable(x) for x in a.bbox_preds], a.strides
    sizes = len(a.strides), *a.cls_scores[0].shape[:2], _bins(a.bbox_preds)
    edges = found[4:] or (None, None, None)
    _kernel.run(levels, *sizes, found[0], *(getattr(a, name) for name in _PLAIN_FIELDS), *found[:4], *edges)
    return found


_postprocess_op = Op("postprocess", arguments_of(Postprocess), "Tensor[]", _postprocess, _outputs_like)


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
