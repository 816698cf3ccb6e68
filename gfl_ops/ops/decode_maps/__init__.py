"""The boxes of all cells of a dense head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from .._head_maps import check_edges
from . import native, reference

_OP = "decode_maps"


class DecodedMaps(NamedTuple):
    boxes: Tensor
    """(B, A, 4) xyxy in pixels."""
    points: Tensor
    """(A, 2): x and y of the centres of the cells, in pixels."""


def decode_maps(bbox_preds: Sequence[Tensor], *, strides: Sequence[float], center_offset: float = 0.5) -> DecodedMaps:
    """The boxes that a head predicts, of all levels side by side: what :func:`task_aligned_assign` needs of them.

    The distance of a side from the centre of its cell is the expectation of its distribution, times the stride. With
    one bin it is what the map holds, times the stride. There is no gradient; :func:`decode_boxes` has one.

    Args:
        bbox_preds: (B, 4 * bins, H, W) of each level, contiguous or channels-last, at most 8 levels; 1 to 256 bins.
        strides: pixels per cell of each level.
        center_offset: where the centre of a cell lies in it: 0 is the corner, 0.5 the middle.

    Returns:
        ``(boxes, points)`` in float32, or float64 for float64 maps.

    Example:
        >>> boxes, points = decode_maps([torch.zeros(1, 68, 2, 2), torch.zeros(1, 68, 1, 1)], strides=(8, 16))
        >>> boxes[0, 0].tolist(), points[4].tolist()
        ([-60.0, -60.0, 68.0, 68.0], [8.0, 8.0])
    """
    check_edges(_OP, bbox_preds, strides, least_bins=1)
    _check.number(_OP, "center_offset", center_offset, -1e6, 1e6)
    run = kernels_for(_OP, bbox_preds[0], native) or reference
    edges = [x.detach() for x in bbox_preds]
    return DecodedMaps(*run.decode_maps(edges, tuple(float(stride) for stride in strides), float(center_offset)))
