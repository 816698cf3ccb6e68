"""What goes into the GFL loss beside the head's outputs, and what comes out."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Options(NamedTuple):
    strides: tuple[float, ...]
    beta: float
    loss_weights: tuple[float, float, float]
    topk: int
    iou_kind: str
    eps: float
    target_margin: float
    anchor_scale: float
    center_offset: float
    eps_rule: str
    alpha_rule: str


class Losses(NamedTuple):
    """Six scalars; those after the losses are detached."""

    loss_cls: Tensor
    loss_bbox: Tensor
    loss_dfl: Tensor
    num_pos: Tensor
    avg_factor: Tensor
    mean_quality: Tensor
