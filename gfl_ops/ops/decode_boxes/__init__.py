"""Boxes from edge distributions: one step of :func:`gfl_ops.postprocess`, by itself."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from ..integral import native as integral_native
from ..integral import reference as integral_reference
from . import reference

_OP = "decode_boxes"


def decode_boxes(
    edge_logits: Tensor,
    anchor_points: Tensor,
    stride: float | Tensor,
    max_shape: tuple[float, float] | Tensor | None = None,
) -> Tensor:
    """Decodes edge distributions into boxes.

    The distance of each side from the anchor point is the expectation of its distribution, times the stride.

    Args:
        edge_logits: (..., 4 * bins) logits, in the order left, top, right, bottom, all bins of a side together; or maps
            (B, 4 * bins, H, W), contiguous or channels-last. A 4-D tensor is taken as maps.
        anchor_points: (..., 2) x and y in pixels, one for each row of edge_logits (or broadcasting with them); for maps
            (H, W, 2) or (H * W, 2), shared by the batch.
        stride: pixels per bin: a number, or a tensor with one for each row.
        max_shape: (height, width) of the image, to clip the boxes to it: two numbers, or a tensor (2,); for maps also
            (B, 2).

    Returns:
        float32 (float64 for float64 logits): (..., 4) xyxy in pixels, or (B, 4, H, W). Differentiable.

    Example:
        >>> decode_boxes(torch.zeros(1, 68), torch.tensor([[40.0, 100.0]]), 8.0, (120, 90)).tolist()
        [[0.0, 36.0, 90.0, 120.0]]
    """
    _check.floating(_OP, "edge_logits", edge_logits)
    is_map = edge_logits.ndim == 4
    channels = edge_logits.shape[1 if is_map else -1] if edge_logits.ndim > 0 else 0
    if edge_logits.ndim == 0 or channels % 4 != 0:
        raise ValueError(
            f"{_OP}: edge_logits must be (..., 4 * bins) or (B, 4 * bins, H, W), got {tuple(edge_logits.shape)}"
        )
    _check.num_bins(_OP, "bins (the channels of edge_logits / 4)", channels // 4)
    _check_points(anchor_points, edge_logits, is_map)
    _check_stride(stride, edge_logits, is_map)
    if max_shape is not None:
        _check_max_shape(max_shape, edge_logits, is_map)

    kernels = kernels_for(_OP, edge_logits, integral_native)
    expectation = functools.partial(kernels.integral, name=_OP) if kernels else integral_reference.integral
    return reference.decode_boxes(edge_logits, anchor_points, stride, max_shape, expectation=expectation)


def _check_points(points: Any, edge_logits: Tensor, is_map: bool) -> None:
    _check.floating(_OP, "anchor_points", points)
    _check.on_device_of(_OP, "anchor_points", points, "edge_logits", edge_logits)
    if is_map:
        height, width = edge_logits.shape[2:]
        if points.shape not in ((height, width, 2), (height * width, 2)):
            raise ValueError(
                f"{_OP}: anchor_points must be (H, W, 2) = {(height, width, 2)} or (H * W, 2) for maps, "
                f"got {tuple(points.shape)}"
            )
    elif points.ndim == 0 or points.shape[-1] != 2 or not _broadcasts(points.shape[:-1], edge_logits.shape[:-1]):
        raise ValueError(
            f"{_OP}: anchor_points must be (..., 2) = {(*edge_logits.shape[:-1], 2)}, got {tuple(points.shape)}"
        )


def _check_stride(stride: Any, edge_logits: Tensor, is_map: bool) -> None:
    if not isinstance(stride, Tensor):
        return _check.number(_OP, "stride", stride, math.ulp(0.0))
    _check.floating(_OP, "stride", stride)
    _check.on_device_of(_OP, "stride", stride, "edge_logits", edge_logits)
    rows = () if is_map else edge_logits.shape[:-1]
    if not _broadcasts(stride.shape, rows):
        words = "a number or a tensor of one value for maps" if is_map else f"a number or (...) = {tuple(rows)}"
        raise ValueError(f"{_OP}: stride must be {words}, got {tuple(stride.shape)}")


def _check_max_shape(max_shape: Any, edge_logits: Tensor, is_map: bool) -> None:
    if isinstance(max_shape, Tensor):
        _check.on_device_of(_OP, "max_shape", max_shape, "edge_logits", edge_logits)
        if max_shape.shape != (2,) and not (is_map and max_shape.shape == (edge_logits.shape[0], 2)):
            words = f"(2,) or (B, 2) = {(edge_logits.shape[0], 2)}" if is_map else "(2,)"
            raise ValueError(f"{_OP}: max_shape must be {words}, got {tuple(max_shape.shape)}")
        return
    if not isinstance(max_shape, (tuple, list, torch.Size)) or len(max_shape) != 2:
        raise ValueError(f"{_OP}: max_shape must be (height, width), got {max_shape!r}")
    for length in max_shape:
        _check.number(_OP, "max_shape", length, 0)


def _broadcasts(shape: Any, to: Any) -> bool:
    if len(shape) > len(to):
        return False
    return all(a in (1, b) for a, b in zip(reversed(shape), reversed(to), strict=False))
