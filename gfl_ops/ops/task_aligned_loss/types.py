"""What goes into the task-aligned loss beside the head's outputs, and what comes out."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor

from .._head_maps import BoxOptions


class AssignOptions(NamedTuple):
    topk: int
    final_topk: int | None
    alpha: float
    beta: float
    inside_first: bool
    min_side: float
    iou: str

    def of_maps(self, level_shapes: list[tuple[int, int]], boxes: BoxOptions) -> dict[str, Any]:
        """As both forms of task_aligned_assign take them."""
        grid = {"level_shapes": level_shapes, "strides": boxes.strides, "center_offset": boxes.center_offset}
        return {**self._asdict(), "logits": True, **grid}


class ClassOptions(NamedTuple):
    kind: str
    gamma: float
    alpha: float


class Options(NamedTuple):
    assign: AssignOptions
    classes: ClassOptions
    boxes: BoxOptions
    loss_weights: tuple[float, float, float]


class Losses(NamedTuple):
    """Six scalars; those after the losses are detached."""

    loss_cls: Tensor
    loss_bbox: Tensor
    loss_dfl: Tensor
    num_pos: Tensor
    avg_factor: Tensor
    mean_quality: Tensor
