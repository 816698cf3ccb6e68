"""The maps of a dense head's levels: their checks, and what its box losses are told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import Tensor

from .. import _check
from .iou_loss import check_rules
from .iou_loss.native import ALPHA_RULES, EPS_RULES, KINDS


class BoxOptions(NamedTuple):
    strides: tuple[float, ...]
    center_offset: float
    iou_kind: str
    eps: float
    target_margin: float
    eps_rule: str
    alpha_rule: str

    def for_kernels(self) -> tuple[Any, ...]:
        """As PositiveBoxes ends in _box_loss_maps.py."""
        rules = KINDS[self.iou_kind], EPS_RULES[self.eps_rule], ALPHA_RULES[self.alpha_rule]
        return list(self.strides), self.center_offset, *rules, self.eps, self.target_margin


def check_head(
    op: str, cls_scores: Sequence[Tensor], bbox_preds: Sequence[Tensor], strides: Sequence[float], least_bins: int
) -> None:
    """Class scores and boxes of the same levels."""
    _check.sequence(op, "strides", strides, "of numbers")
    _check_levels(op, "cls_scores", cls_scores, strides)
    _check_levels(op, "bbox_preds", bbox_preds, strides)
    first = cls_scores[0]
    batch, classes = first.shape[:2]
    for i, (scores, edges) in enumerate(zip(cls_scores, bbox_preds, strict=True)):
        size = scores.shape[2:]
        _check.map_like(op, f"cls_scores[{i}]", scores, first, (batch, classes, *size), "(B, C, H, W)")
        _check_edges_of(op, i, edges, first, (batch, bbox_preds[0].shape[1], *size))
    if classes < 1:
        raise ValueError(f"{op}: cls_scores must have at least one class, got {tuple(first.shape)}")
    _check_bins_and_strides(op, bbox_preds, strides, least_bins)


def check_edges(op: str, bbox_preds: Sequence[Tensor], strides: Sequence[float], least_bins: int) -> None:
    _check.sequence(op, "strides", strides, "of numbers")
    _check_levels(op, "bbox_preds", bbox_preds, strides)
    first = bbox_preds[0]
    for i, edges in enumerate(bbox_preds):
        _check_edges_of(op, i, edges, first, (*first.shape[:2], *edges.shape[2:]))
    _check_bins_and_strides(op, bbox_preds, strides, least_bins)


def _check_levels(op: str, name: str, maps: Sequence[Tensor], strides: Sequence[float]) -> None:
    _check.levels(op, name, maps)
    if len(maps) != len(strides):
        raise ValueError(f"{op}: {name} must have one level for each of {len(strides)} strides, got {len(maps)}")
    for i, x in enumerate(maps):
        _check.floating(op, f"{name}[{i}]", x)
        if x.ndim != 4:
            raise ValueError(f"{op}: {name}[{i}] must be (B, channels, H, W), got {tuple(x.shape)}")


def _check_edges_of(op: str, level: int, edges: Tensor, first: Tensor, expected: tuple[int, ...]) -> None:
    _check.map_like(op, f"bbox_preds[{level}]", edges, first, expected, "(B, 4 * bins, H, W)")


def _check_bins_and_strides(op: str, bbox_preds: Sequence[Tensor], strides: Sequence[float], least_bins: int) -> None:
    channels = bbox_preds[0].shape[1]
    if channels % 4:
        raise ValueError(f"{op}: bbox_preds must have 4 * bins channels, got {channels}")
    if channels != 4 * least_bins:
        _check.num_bins(op, "bins (the channels of bbox_preds / 4)", channels // 4)
    _check.strides(op, strides, len(bbox_preds))
    check_pyramid(op, [x.shape[2:] for x in bbox_preds], strides)


def check_pyramid(op: str, shapes: Sequence[Sequence[int]], strides: Sequence[float]) -> None:
    """Levels of one image: in pixels their sizes differ by no more than a cell on either side, however rounded."""
    for axis, name in ((0, "heights"), (1, "widths")):
        cells = [shape[axis] for shape in shapes]
        least = max((n - 2) * stride for n, stride in zip(cells, strides, strict=True))
        most = min((n + 1) * stride for n, stride in zip(cells, strides, strict=True))
        if least >= most:
            raise ValueError(f"{op}: strides do not fit the {name} of the levels: got {list(strides)} for {cells}")


def checked_box_options(op: str, options: BoxOptions, bins: int) -> BoxOptions:
    _check.choice(op, "iou_kind", options.iou_kind, tuple(KINDS))
    check_rules(op, options.iou_kind, options.eps_rule, options.alpha_rule)
    _check.number(op, "eps", options.eps, 0)
    _check.number(op, "target_margin", options.target_margin, 0, max(bins - 1, 1))
    _check.number(op, "center_offset", options.center_offset, -1e6, 1e6)
    return options._replace(
        strides=tuple(float(stride) for stride in options.strides),
        center_offset=float(options.center_offset),
        eps=float(options.eps),
        target_margin=float(options.target_margin),
    )


def three_weights(op: str, weights: Sequence[float]) -> tuple[float, float, float]:
    if len(weights) != 3:
        raise ValueError(f"{op}: loss_weights must be three numbers, got {weights}")
    for weight in weights:
        _check.number(op, "loss_weights", weight, -math.inf)
    return float(weights[0]), float(weights[1]), float(weights[2])
