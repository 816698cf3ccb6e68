"""Post-processing of a dense detector's head."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from ..nms.native import CRITERIA
from . import native, reference
from .reference import Detections

__all__ = ["Detections", "postprocess"]

_OP = "postprocess"
_MOST_LEVELS = 8
Numbers = Sequence[float] | float


def postprocess(
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    strides: Sequence[float | tuple[float, float]],
    image_shapes: Tensor | Sequence[tuple[float, float]],
    scale_factors: Tensor | Sequence[Numbers] | None = None,
    *,
    score_thr: float = 0.05,
    nms_pre: int = 1000,
    iou_thr: float = 0.6,
    max_per_img: int = 100,
    min_size: float = 0,
    with_edges: bool = False,
    criterion: str = "iou",
) -> Detections:
    """Detections from the outputs of a GFL head, the same as those of mmdet's ``GFLHead.predict_by_feat``.

    On each level, the candidates are the nms_pre (cell, class) pairs with the highest scores above score_thr. Their
    boxes are decoded from the point of the cell (x * stride, y * stride) and clipped to the image. The boxes of all
    levels are then divided by the scale factor, those whose width or height is not above min_size are dropped, each
    class goes through NMS by itself, and the best max_per_img detections are kept. Equal scores are ordered by level,
    row, column and class. Candidates with a NaN score or a NaN corner are dropped.

    Edge logits are read for candidates only. On a GPU the host never waits for the device. If image_shapes and
    scale_factors are tensors on the GPU, the call can be captured in a CUDA graph.

    Args:
        cls_scores: (B, C, H, W) logits of each level, at most 8 levels.
        bbox_preds: (B, 4 * bins, H, W) logits of the edge distributions of each level. Both may be contiguous or
            channels-last, in any floating type.
        strides: pixels per cell (and bin) of each level: numbers, or pairs of equal numbers as in mmdet.
        image_shapes: (height, width) of each image without padding: pairs, or a (B, 2) tensor.
        scale_factors: by how much each image was scaled before it went into the network: numbers or (x, y) pairs, or a
            (B,) or (B, 2) tensor.
        score_thr: 0 to 1; only a score above it counts.
        nms_pre: how many candidates a level may have.
        iou_thr: 0 to 1; only an overlap above it suppresses.
        max_per_img: how many detections an image may have: the K of the result.
        min_size: width and height of a box must be above it, in pixels of the unscaled image.
        with_edges: also return the edge distributions of each detection and their standard deviations, which say how
            certain the head is of each side of the box.
        criterion: of the NMS: ``"iou"`` or ``"diou"``, see :func:`gfl_ops.nms`.

    Returns:
        :class:`Detections`, padded to K = max_per_img, in float32 (float64 where an input is float64).

    Example:
        >>> scores, edges = torch.full((1, 80, 4, 4), -6.0), torch.zeros(1, 68, 4, 4)
        >>> scores[0, 17, 2, 1] = 2.0
        >>> found = postprocess([scores], [edges], [32], [(128, 128)])
        >>> found.counts.tolist(), found.labels[0, 0].item(), found.boxes[0, 0].tolist()
        ([1], 17, [0.0, 0.0, 128.0, 128.0])
    """
    strides = _check_levels(cls_scores, bbox_preds, strides)
    like = cls_scores[0]
    dtype = torch.float64 if any(x.dtype == torch.float64 for x in (*cls_scores, *bbox_preds)) else torch.float32
    shapes = _pairs("image_shapes", image_shapes, like, dtype, "(height, width)", single=False)
    scales = None
    if scale_factors is not None:
        scales = _pairs("scale_factors", scale_factors, like, dtype, "a number or (x, y)", single=True)
    _check.number(_OP, "score_thr", score_thr, 0, 1)
    _check.whole(_OP, "nms_pre", nms_pre, 1)
    _check.number(_OP, "iou_thr", iou_thr, 0, 1)
    _check.whole(_OP, "max_per_img", max_per_img, 1)
    _check.number(_OP, "min_size", min_size, 0)
    _check.flag(_OP, "with_edges", with_edges)
    _check.choice(_OP, "criterion", criterion, tuple(CRITERIA))

    if like.shape[0] == 0:
        return Detections(*native.empty_detections(cls_scores, bbox_preds, max_per_img, with_edges))
    run = kernels_for(_OP, like, native) or reference
    return run.postprocess(
        [x.detach() if x.requires_grad else x for x in cls_scores],
        [x.detach() if x.requires_grad else x for x in bbox_preds],
        strides,
        shapes,
        scales,
        score_thr=float(score_thr),
        nms_pre=nms_pre,
        iou_thr=float(iou_thr),
        max_per_img=max_per_img,
        min_size=float(min_size),
        with_edges=with_edges,
        criterion=criterion,
    )


def _check_levels(cls_scores: Any, bbox_preds: Any, strides: Any) -> list[float]:
    for name, levels in (("cls_scores", cls_scores), ("bbox_preds", bbox_preds), ("strides", strides)):
        if not isinstance(levels, (list, tuple)):
            raise TypeError(f"{_OP}: {name} must be a list with one entry for each level, got {type(levels).__name__}")
    if not 1 <= len(cls_scores) <= _MOST_LEVELS:
        raise ValueError(f"{_OP}: cls_scores must have 1 to {_MOST_LEVELS} levels, got {len(cls_scores)}")
    for name, levels in (("bbox_preds", bbox_preds), ("strides", strides)):
        if len(levels) != len(cls_scores):
            raise ValueError(
                f"{_OP}: {name} must have one entry for each of {len(cls_scores)} levels, got {len(levels)}"
            )
    first_scores, first_edges = cls_scores[0], bbox_preds[0]
    for i, (scores, edges) in enumerate(zip(cls_scores, bbox_preds, strict=True)):
        for name, maps, first in ((f"cls_scores[{i}]", scores, first_scores), (f"bbox_preds[{i}]", edges, first_edges)):
            _check.floating(_OP, name, maps)
            if maps.ndim != 4:
                raise ValueError(f"{_OP}: {name} must be (B, channels, H, W), got {tuple(maps.shape)}")
            _check.on_device_of(_OP, name, maps, "cls_scores[0]", first_scores)
            if maps.dtype != first.dtype:
                raise TypeError(f"{_OP}: {name} must be {first.dtype} as on the first level, got {maps.dtype}")
        expected = (first_scores.shape[0], first_scores.shape[1], *scores.shape[2:])
        _check.shape(_OP, f"cls_scores[{i}]", scores, expected, "(B, C, H, W)")
        expected = (first_scores.shape[0], first_edges.shape[1], *scores.shape[2:])
        _check.shape(_OP, f"bbox_preds[{i}]", edges, expected, "(B, 4 * bins, H, W)")
    if first_edges.shape[1] % 4:
        raise ValueError(f"{_OP}: bbox_preds must have 4 * bins channels, got {first_edges.shape[1]}")
    _check.num_bins(_OP, "bins (the channels of bbox_preds / 4)", first_edges.shape[1] // 4)
    return [_stride(stride) for stride in strides]


def _stride(stride: Any) -> float:
    if isinstance(stride, (list, tuple)) and len(stride) == 2 and stride[0] == stride[1]:
        stride = stride[0]
    _check.number(_OP, "strides", stride, math.ulp(0.0))
    return float(stride)


def _pairs(name: str, values: Any, like: Tensor, dtype: torch.dtype, words: str, *, single: bool) -> Tensor:
    """(B, 2) on the device. Numbers go there as the arguments of one kernel: a copy would make the host wait."""
    batch = like.shape[0]
    if isinstance(values, Tensor):
        _check.tensor(_OP, name, values)
        if values.is_complex():
            raise TypeError(f"{_OP}: {name} must be real, got {str(values.dtype).removeprefix('torch.')}")
        _check.on_device_of(_OP, name, values, "cls_scores[0]", like)
        if single and values.shape == (batch,):
            values = values[:, None].expand(batch, 2)
        _check.shape(_OP, name, values, (batch, 2), "(B,) or (B, 2)" if single else "(B, 2)")
        return values.detach().to(dtype).contiguous()
    if not isinstance(values, (list, tuple)):
        raise TypeError(f"{_OP}: {name} must be a tensor or a list, got {type(values).__name__}")
    if len(values) != batch:
        raise ValueError(f"{_OP}: {name} must have one entry for each of {batch} images, got {len(values)}")
    pairs = [_pair(name, value, words, single) for value in values]
    if not like.is_cuda:
        return torch.tensor(pairs, dtype=dtype, device=like.device).reshape(batch, 2)
    result = torch.zeros((batch, 2), dtype=dtype, device=like.device)
    if batch:
        torch._foreach_add_(list(result.flatten().unbind()), [number for pair in pairs for number in pair])
    return result


def _pair(name: str, value: Any, words: str, single: bool) -> tuple[float, float]:
    pair = (value, value) if single and isinstance(value, (int, float)) else value
    if not isinstance(pair, (tuple, list, torch.Size)) or len(pair) != 2:
        raise ValueError(f"{_OP}: {name} must be {words} for each image, got {value!r}")
    for number in pair:
        _check.number(_OP, name, number, math.ulp(0.0) if single else 0)
    return float(pair[0]), float(pair[1])
