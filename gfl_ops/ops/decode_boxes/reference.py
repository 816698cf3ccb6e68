"""Boxes from edge distributions: the expected distance of each side from the anchor point, in strides."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .._formulas import widen
from ..integral.reference import integral


def decode_boxes(
    edge_logits: Tensor,
    anchor_points: Tensor,
    stride: float | Tensor,
    max_shape: tuple[float, float] | Tensor | None = None,
    *,
    expectation: Callable[..., Tensor] = integral,
) -> Tensor:
    is_map = edge_logits.ndim == 4
    channel_dim = 1 if is_map else -1
    logits = widen(edge_logits)
    distance = expectation(logits, None, logits.shape[channel_dim] // 4, channel_dim=channel_dim)
    points = anchor_points.to(distance.dtype)
    if is_map:  # (H * W, 2) or (H, W, 2) to (2, H, W)
        points = points.reshape(*distance.shape[2:], 2).movedim(-1, 0)
    if isinstance(stride, Tensor):
        stride = stride.to(distance.dtype).reshape(stride.shape if is_map else (*stride.shape, 1))
    left_top, right_bottom = (distance * stride).chunk(2, channel_dim)
    boxes = torch.cat([points - left_top, points + right_bottom], channel_dim)
    return boxes if max_shape is None else clip(boxes, max_shape, channel_dim)


def clip(boxes: Tensor, max_shape: tuple[float, float] | Tensor, channel_dim: int = -1) -> Tensor:
    """x into [0, width] and y into [0, height]; max_shape (..., 2) is (height, width)."""
    if not isinstance(max_shape, Tensor):
        x1, y1, x2, y2 = boxes.unbind(channel_dim)
        height, width = max_shape
        corners = [x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)]
        return torch.stack(corners, channel_dim)
    most = max_shape.to(boxes.dtype).flip(-1).repeat(*(1,) * (max_shape.ndim - 1), 2)  # width, height, width, height
    most = most.reshape(*most.shape, 1, 1) if channel_dim == 1 else most
    return boxes.clamp(torch.zeros_like(most), most)
