"""NMS on the compiled core."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _native
from ..._library import register

# gfl_nms_criterion in csrc/gfl.h
CRITERIA = {"iou": 0, "diou": 1}


def _outputs(boxes: Tensor, room: int) -> tuple[Tensor, Tensor]:
    keep = torch.empty(room, dtype=torch.int64, device=boxes.device)
    return keep, torch.empty((), dtype=torch.int64, device=boxes.device)


def _nms(
    boxes: Tensor, scores: Tensor, classes: Tensor | None, threshold: float, criterion: int, room: int
) -> tuple[Tensor, Tensor]:
    core, device = _native.core_for(boxes)
    keep, kept = _outputs(boxes, room)
    dtype = _native.dtype_code(boxes)
    # On a GPU torch's sort, which does not make the host wait; the CPU's kernel sorts for itself. Adding 0 makes 0 of
    # -0, so that a sort by bits takes them for equal, too.
    order = (scores + 0.0).sort(stable=True, descending=True).indices if device[0] else None
    size = core.nms_workspace_bytes(device, boxes.shape[0], dtype, classes is not None)
    workspace = torch.empty(size, dtype=torch.uint8, device=boxes.device)
    core.nms(
        device,
        boxes.shape[0],
        dtype,
        boxes.data_ptr(),
        scores.data_ptr(),
        _native.address(classes),
        _native.address(order),
        threshold,
        criterion,
        room,
        keep.data_ptr(),
        kept.data_ptr(),
        workspace.data_ptr(),
    )
    return keep, kept


_nms_op = register(
    "nms(Tensor boxes, Tensor scores, Tensor? classes, float threshold, int criterion, SymInt room) "
    "-> (Tensor, Tensor)",
    _nms,
    lambda boxes, scores, classes, threshold, criterion, room: _outputs(boxes, room),
)


def nms_padded(
    boxes: Tensor, scores: Tensor, iou_threshold: float, idxs: Tensor | None, max_output: int, criterion: str
) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(_native.compute_dtype(boxes), _native.compute_dtype(scores))
    return _nms_op(
        boxes.to(dtype).contiguous(),
        scores.to(dtype).contiguous(),
        None if idxs is None else idxs.long().contiguous(),
        float(iou_threshold),
        CRITERIA[criterion],
        max_output,
    )
