"""NMS on the compiled core."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _native
from ..._arguments import compute_dtype
from ..._native import Kernel
from ..._op import Op, Size, arguments_of

# gfl_nms_criterion in csrc/gfl.h
CRITERIA = {"iou": 0, "diou": 1}


class Nms(NamedTuple):
    """gfl_nms in csrc/gfl.h"""

    boxes: Tensor
    scores: Tensor
    classes: Tensor | None
    threshold: float
    criterion: int
    room: Size


_kernel = Kernel("nms_run", (*Nms._fields, "count", "dtype", "order", "keep", "kept"))


def _outputs_like(*args: Any) -> tuple[Tensor, Tensor]:
    a = Nms(*args)
    keep = torch.empty(a.room, dtype=torch.int64, device=a.boxes.device)
    return keep, torch.empty((), dtype=torch.int64, device=a.boxes.device)


def _nms(*args: Any) -> tuple[Tensor, Tensor]:
    boxes, scores = args[:2]
    outputs = _outputs_like(*args)
    # On a GPU torch's sort, which does not make the host wait; the CPU's kernel sorts for itself. Adding 0 makes 0 of
    # -0, so that a sort by bits takes them for equal, too.
    sorts = boxes.is_cuda or _native.is_routed
    order = (scores + 0.0).sort(stable=True, descending=True).indices if sorts else None
    _kernel.run(*args, boxes.shape[0], boxes, order, *outputs)
    return outputs


_nms_op = Op("nms", arguments_of(Nms), "(Tensor, Tensor)", _nms, _outputs_like)


def nms_padded(
    boxes: Tensor, scores: Tensor, iou_threshold: float, idxs: Tensor | None, max_output: int, criterion: str
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(compute_dtype(boxes), compute_dtype(scores))
    return _nms_op(
        boxes.to(dtype).contiguous(),
        scores.to(dtype).contiguous(),
        None if idxs is None else idxs.long().contiguous(),
        float(iou_threshold),
        CRITERIA[criterion],
        max_output,
    )
