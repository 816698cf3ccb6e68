"""The boxes of all cells on the compiled core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..._arguments import compute_dtype
from ..._native import Kernel, as_map
from ..._op import Op, arguments_of


class DecodeMaps(NamedTuple):
    """gfl_decode_maps in csrc/gfl.h; edges are maps as as_map leaves them."""

    edges: list[Tensor]
    strides: list[float]
    center_offset: float


_kernel = Kernel("decode_maps_run", ("edges", "levels", "center_offset", "batch", "bins", "boxes", "points"))


def _outputs_like(edges: Sequence[Tensor], strides: Sequence[float], center_offset: float) -> tuple[Tensor, Tensor]:
    first = edges[0]
    anchors = sum(x.shape[2] * x.shape[3] for x in edges)
    boxes = first.new_empty(first.shape[0], anchors, 4, dtype=compute_dtype(first))
    return boxes, boxes.new_empty(anchors, 2)


def _decode(edges: Sequence[Tensor], strides: Sequence[float], center_offset: float) -> tuple[Tensor, Tensor]:
    outputs = _outputs_like(edges, strides, center_offset)
    batch, channels = edges[0].shape[:2]
    _kernel.run(edges, (edges, strides), center_offset, batch, channels // 4, *outputs)
    return outputs


_decode_op = Op("decode_maps", arguments_of(DecodeMaps), "(Tensor, Tensor)", _decode, _outputs_like)


def decode_maps(bbox_preds: Sequence[Tensor], strides: Sequence[float], center_offset: float) -> tuple[Tensor, Tensor]:
    return _decode_op([as_map(x) for x in bbox_preds], list(strides), center_offset)
