"""Rows of the ops on distributions: DFL, integral, boxes decoded from them, and GFL itself."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from tests.support.case_maker import (
    MATRIX_LAYOUTS,
    Maker,
    channels_last,
    contiguous,
    every_other_row,
    strided_cols,
    strided_rows,
    transposed,
)
from tests.support.cases.table import EXPONENTS, REDUCTIONS, row, with_weight

EDGES = ("edge_logits",)


def dfl(*shape, bins=17, first=0.0, layout=contiguous, values=None, sided=False, weight=False, avg=None, std=2.0):
    def build(make: Maker) -> dict[str, Any]:
        inputs = {"pred": make.logits(*shape, bins, std=std, layout=layout)}
        if values is None:
            inputs["target"] = make.bin_targets(*shape, bins=bins, first=first)
        else:
            grid = values(bins)
            inputs["bin_values"] = make.cast(grid, like_pred=False)
            target = make.values(*shape, low=float(grid[0]), high=float(grid[-1]))
            target.view(-1)[::5] = inputs["bin_values"][-1]
            target.view(-1)[1::5] = inputs["bin_values"][1]
            inputs["target"] = target
        if sided:
            inputs["left_weight"] = make.values(*shape)
            inputs["right_weight"] = make.values(*shape)
        return with_weight(make, inputs, make.weights(*shape) if weight else None, avg)

    return build


def quadratic(bins: int) -> Tensor:
    """Bin values dense around 0, as D-FINE has them."""
    steps = torch.linspace(-1, 1, bins, dtype=torch.float64)
    return steps.abs() * steps * 6


for rows_ in (0, 1, 2, 7, 31, 70):
    row("distribution_focal_loss", f"{rows_}x17", dfl(rows_))
row("distribution_focal_loss", "5003x17", dfl(5003, weight=True), avg_factor=99.0, large=True)
# A CPU takes 64 rows of 16 or 17 floats together where none is extreme: two such groups, and what is left over.
row("distribution_focal_loss", "grouped", dfl(150, weight=True), reduction="none", large=True)
row("distribution_focal_loss", "grouped-bins16", dfl(150, bins=16), large=True)
row("distribution_focal_loss", "grouped-sided", dfl(150, sided=True, weight=True), reduction="none", large=True)
row("distribution_focal_loss", "grouped-bin_values", dfl(150, values=quadratic), reduction="none", large=True)
row("distribution_focal_loss", "grouped-strided", dfl(150, layout=every_other_row), reduction="none", large=True)
row("distribution_focal_loss", "grouped-steep", dfl(150, std=30.0), reduction="none", large=True)
for bins_, reduction_ in itertools.product((2, 8, 33, 256), ("none", "mean")):
    row("distribution_focal_loss", f"bins{bins_}-{reduction_}", dfl(9, bins=bins_, weight=True), reduction=reduction_)
for reduction_ in REDUCTIONS:
    row("distribution_focal_loss", f"{reduction_}", dfl(9), reduction=reduction_)
    row("distribution_focal_loss", f"weight-{reduction_}", dfl(9, weight=True), reduction=reduction_)
    row("distribution_focal_loss", f"first-{reduction_}", dfl(9, first=-2.0), first_bin=-2.0, reduction=reduction_)
    row("distribution_focal_loss", f"sided-{reduction_}", dfl(9, sided=True, weight=True), reduction=reduction_)
    row("distribution_focal_loss", f"bin_values-{reduction_}", dfl(11, values=quadratic), reduction=reduction_)
row("distribution_focal_loss", "fractional-first", dfl(9, first=0.5), first_bin=0.5)
row("distribution_focal_loss", "bin_values-33", dfl(20, bins=33, values=quadratic, weight=True))
row("distribution_focal_loss", "bin_values-sided", dfl(11, values=quadratic, sided=True), reduction="none")
row("distribution_focal_loss", "first-sided", dfl(11, first=-2.0, sided=True), first_bin=-2.0)
row("distribution_focal_loss", "avg-number", dfl(9, weight=True), avg_factor=4.0)
row("distribution_focal_loss", "avg-0-d", dfl(9, weight=True, avg="0-d"))
row("distribution_focal_loss", "avg-1-d", dfl(9, avg="1-d"))
row("distribution_focal_loss", "steep", dfl(9, std=30.0), reduction="none")
row("distribution_focal_loss", "leading-dims", dfl(3, 4, weight=True), reduction="none")
row("distribution_focal_loss", "leading-dims-mean", dfl(2, 3, 4, bins=8))
for layout_ in MATRIX_LAYOUTS:
    row("distribution_focal_loss", f"{layout_.__name__}", dfl(13, layout=layout_, weight=True))
    row("distribution_focal_loss", f"{layout_.__name__}-none", dfl(13, bins=8, layout=layout_), reduction="none")
row("distribution_focal_loss", "leading-transposed", dfl(3, 5, bins=8, layout=transposed), reduction="none")


def integral(*shape, layout=contiguous, bins=None, std=2.0):
    def build(make: Maker) -> dict[str, Any]:
        inputs = {"pred": make.logits(*shape, std=std, layout=layout)}
        if bins is not None:
            inputs["bin_values"] = make.cast(quadratic(bins) + 0.25, like_pred=False)
        return inputs

    return build


for rows_ in (0, 1, 7, 33):
    row("integral", f"{rows_}x17", integral(rows_, 68))
row("integral", "5003x17", integral(5003, 68), large=True)
row("integral", "grouped-bin_values", integral(40, 68, bins=17), large=True)  # as for the distribution focal loss
row("integral", "grouped-bins16", integral(40, 64), num_bins=16, large=True)
row("integral", "grouped-strided", integral(150, 68, layout=every_other_row), large=True)
row("integral", "grouped-steep", integral(40, 68, std=30.0), large=True)
for bins_ in (2, 8, 33, 256):
    row("integral", f"bins{bins_}", integral(5, 4 * bins_), num_bins=bins_)
    row("integral", f"map-bins{bins_}", integral(2, 4 * bins_, 3, 2), num_bins=bins_)
row("integral", "one-dim", integral(68))
row("integral", "three-dim", integral(2, 5, 68))
row("integral", "bin_values", integral(6, 68, bins=17))
row("integral", "bin_values-map", integral(2, 32, 3, 4, bins=8))
row("integral", "steep", integral(6, 68, std=30.0))
row("integral", "map", integral(2, 68, 3, 5))
row("integral", "map-channels-last", integral(2, 68, 3, 5, layout=channels_last))
row("integral", "map-transposed", integral(2, 68, 3, 5, layout=transposed))
row("integral", "map-strided", integral(2, 68, 3, 5, layout=strided_cols))
row("integral", "map-empty", integral(2, 68, 0, 5))
row("integral", "map-batch-of-one", integral(1, 68, 1, 1))
row("integral", "map-33x21", integral(1, 68, 33, 21), large=True)
row("integral", "channel_dim-1", integral(2, 68, 3, 5), channel_dim=1)
row("integral", "channel_dim-last", integral(2, 3, 5, 68), channel_dim=-1)
row("integral", "channel_dim-ambiguous", integral(2, 32, 3, 32), num_bins=8, channel_dim=-1)
for layout_ in MATRIX_LAYOUTS:
    row("integral", f"{layout_.__name__}", integral(6, 68, layout=layout_))


STUDENT = ("student",)


def kl(*shape, bins=17, layout=contiguous, of_teacher=contiguous, weight=False, avg=None, std=2.0, own_type=True):
    def build(make: Maker) -> dict[str, Any]:
        inputs = {
            "student": make.logits(*shape, bins, std=std, layout=layout),
            "teacher": make.cast(make._randn(*shape, bins) * std, of_teacher, like_pred=own_type),
        }
        return with_weight(make, inputs, make.weights(*shape) if weight else None, avg)

    return build


for rows_ in (0, 1, 7, 33):
    row("distribution_kl_loss", f"{rows_}x17", kl(rows_), differentiable=STUDENT)
row("distribution_kl_loss", "5003x17", kl(5003, weight=True), avg_factor=99.0, differentiable=STUDENT, large=True)
for bins_, reduction_ in itertools.product((2, 8, 16, 33, 256), ("none", "mean")):
    row(
        "distribution_kl_loss",
        f"bins{bins_}-{reduction_}",
        kl(9, bins=bins_, weight=True),
        reduction=reduction_,
        temperature=5.0,
        scale=5.0**2,  # a divergence is a difference of terms of about 1
        differentiable=STUDENT,
    )
for reduction_ in REDUCTIONS:
    row(
        "distribution_kl_loss",
        f"bin-mean-{reduction_}",
        kl(9, weight=True),
        temperature=10.0,
        bin_reduction="mean",
        reduction=reduction_,
        scale=10.0**2 / 17,
        differentiable=STUDENT,
    )
for name_, build_, options_ in (
    ("cold", kl(9), {"temperature": 0.5}),
    ("steep", kl(9, std=30.0), {"reduction": "none"}),
    ("wide-teacher", kl(9, own_type=False, weight=True), {"temperature": 3}),
    ("avg-number", kl(9, weight=True), {"avg_factor": 4.0}),
    ("avg-0-d", kl(9, weight=True, avg="0-d"), {}),
    ("leading-dims", kl(3, 4, weight=True), {"reduction": "none"}),
    ("no-rows", kl(), {}),
    ("transposed-teacher", kl(13, of_teacher=transposed), {"reduction": "none"}),
    *((layout_.__name__, kl(13, layout=layout_, weight=True), {}) for layout_ in MATRIX_LAYOUTS),
):
    row("distribution_kl_loss", name_, build_, differentiable=STUDENT, **options_)


def statistics(*shape, layout=contiguous, std=2.0, tied=False):
    def build(make: Maker) -> dict[str, Any]:
        logits = make._randn(*shape) * std
        return {"edge_logits": make.cast(logits.round() if tied else logits, layout)}

    return build


for name_, build_, options_ in (
    ("0x17", statistics(0, 68), {}),
    ("1x17", statistics(1, 68), {}),
    ("7x17", statistics(7, 68), {}),
    ("33x17", statistics(33, 68), {}),
    ("bins16", statistics(7, 64), {}),
    ("bins8-top1", statistics(5, 32), {"topk": 1}),
    ("bins2-top2", statistics(5, 8), {"topk": 2}),
    ("bins33-top32", statistics(5, 132), {"topk": 32}),
    ("bins17-all", statistics(5, 68), {"topk": 17}),
    ("bins256-all", statistics(1, 1024), {"topk": 256}),
    ("map-bins5-top3", statistics(2, 20, 3, 2), {"topk": 3}),
    ("tied", statistics(9, 68, tied=True), {"smooth": False}),
    # Nearly all bins are among the best, so a gradient is a difference of terms of about 0.1 that nearly agree.
    ("tied-top7", statistics(9, 32, tied=True), {"topk": 7, "smooth": False, "scale": 0.1}),
    ("steep", statistics(6, 68, std=30.0), {}),
    ("one-dim", statistics(68), {}),
    ("three-dim", statistics(2, 5, 68), {}),
    ("map", statistics(2, 68, 3, 5), {}),
    ("map-channels-last", statistics(2, 68, 3, 5, layout=channels_last), {}),
    ("map-transposed", statistics(2, 68, 3, 5, layout=transposed), {}),
    ("map-strided", statistics(2, 68, 3, 5, layout=strided_cols), {}),
    ("map-empty", statistics(2, 68, 0, 5), {}),
    ("channel_dim-1", statistics(7, 32), {"channel_dim": 1, "topk": 2}),
    ("channel_dim-last", statistics(2, 3, 5, 68), {"channel_dim": -1}),
    ("5003x17", statistics(5003, 68), {"large": True}),
    ("map-33x21", statistics(1, 68, 33, 21), {"large": True}),
    *((layout_.__name__, statistics(6, 68, layout=layout_), {}) for layout_ in MATRIX_LAYOUTS),
):
    row("distribution_statistics", name_, build_, differentiable=EDGES, **options_)


def generalized(*shape, y="tensor", ends=(0.0, 1.0), weight=False, avg=None, layout=contiguous):
    def build(make: Maker) -> dict[str, Any]:
        inputs: dict[str, Any] = {
            "p_left": make.probabilities(*shape, layout=layout),
            "p_right": make.probabilities(*shape),
            "y": make.values(*shape, low=ends[0], high=ends[1]) if y == "tensor" else y,
        }
        if y == "row":
            inputs["y"] = make.values(shape[-1], low=ends[0], high=ends[1])
        inputs["y_left"], inputs["y_right"] = ends
        if y == "bins":
            left = make.values(*shape, low=0, high=16).floor()
            inputs |= {"y": left + make.values(*shape), "y_left": left, "y_right": left + 1}
        return with_weight(make, inputs, make.weights(*shape) if weight else None, avg)

    return build


BOTH = ("p_left", "p_right")
for beta_, reduction_ in itertools.product(EXPONENTS, REDUCTIONS):
    row(
        "generalized_focal_loss",
        f"beta{beta_}-{reduction_}",
        generalized(12, weight=True),
        beta=beta_,
        reduction=reduction_,
        differentiable=BOTH,
    )
for name_, build_ in {
    "empty": generalized(0),
    "one": generalized(1),
    "default": generalized(33),
    "number-y": generalized(9, y=0.3),
    "y-is-right": generalized(9, y=1.0),
    "y-is-left": generalized(9, y=0.0),
    "broadcast-y": generalized(5, 7, y="row"),
    "bins": generalized(9, y="bins"),
    "wide-ends": generalized(9, ends=(-2.0, 3.0)),
    "two-dim": generalized(5, 7, weight=True),
    "transposed": generalized(5, 7, layout=transposed),
    "strided": generalized(5, 7, layout=strided_cols),
}.items():
    row("generalized_focal_loss", name_, build_, differentiable=BOTH)
row("generalized_focal_loss", "avg-0-d", generalized(9, avg="0-d"), reduction="mean", differentiable=BOTH)
row("generalized_focal_loss", "avg-number", generalized(9), reduction="mean", avg_factor=5.0, differentiable=BOTH)


def distribution_box_loss(
    rows, *, bins=17, stride=8.0, flat=True, per_row=False, weight=False, avg=None, layout=contiguous, std=2.0
):
    def build(make: Maker) -> dict[str, Any]:
        logits = make._randn(rows, 4 * bins) * std
        scale = stride * (1 + torch.randint(0, 3, (rows, 1), generator=make.generator)) if per_row else stride
        points = make._rand(rows, 2) * 20 * scale
        reach = make._rand(rows, 4) * (bins + 1) * scale  # some edges lie beyond the last bin
        target = torch.cat([points - reach[:, :2], points + reach[:, 2:]], 1)
        inputs = {
            "edge_logits": make.cast(logits if flat else logits.reshape(rows, 4, bins), layout),
            "anchor_points": make.cast(points, like_pred=False),
            "target_boxes": make.cast(target, like_pred=False),
        }
        if per_row:
            inputs["stride"] = make.cast(scale.reshape(-1), like_pred=False)
        return with_weight(make, inputs, make.weights(rows) if weight else None, avg)

    return build


for kind_ in ("iou", "giou", "diou", "ciou"):
    for reduction_ in REDUCTIONS:
        row(
            "distribution_box_loss",
            f"{kind_}-{reduction_}",
            distribution_box_loss(7, weight=reduction_ != "sum"),
            iou_kind=kind_,
            smooth=kind_ != "ciou",
            reduction=reduction_,
            stride=8.0,
            differentiable=EDGES,
        )
for kind_, rules_ in (("giou", {"eps_rule": "add"}), ("ciou", {"eps_rule": "add", "alpha_rule": "always"})):
    row(
        "distribution_box_loss",
        f"{kind_}-{'-'.join(rules_.values())}",
        distribution_box_loss(7, weight=True),
        iou_kind=kind_,
        smooth=kind_ != "ciou",
        stride=8.0,
        differentiable=EDGES,
        **rules_,
    )
for name_, build_, options_ in (
    ("empty", distribution_box_loss(0), {"stride": 8.0}),
    ("one", distribution_box_loss(1, stride=1.0), {}),
    ("per-row-stride", distribution_box_loss(9, per_row=True, weight=True), {"reduction": "none"}),
    ("per-row-stride-mean", distribution_box_loss(9, per_row=True), {}),
    ("three-dim", distribution_box_loss(9, flat=False), {"stride": 8.0}),
    ("three-dim-transposed", distribution_box_loss(9, flat=False, layout=transposed), {"stride": 8.0}),
    ("transposed", distribution_box_loss(9, layout=transposed), {"stride": 8.0}),
    ("strided_rows", distribution_box_loss(9, layout=strided_rows, weight=True), {"stride": 8.0}),
    ("strided_cols", distribution_box_loss(9, layout=strided_cols), {"stride": 8.0}),
    ("bins8", distribution_box_loss(9, bins=8), {"stride": 8.0}),
    ("bins2", distribution_box_loss(9, bins=2), {"stride": 8.0}),
    ("bins33", distribution_box_loss(9, bins=33, flat=False), {"stride": 8.0, "target_margin": 0.01}),
    ("int-stride", distribution_box_loss(9, stride=16), {"stride": 16}),
    ("eps", distribution_box_loss(9), {"stride": 8.0, "eps": 1e-3}),
    ("avg-number", distribution_box_loss(9, weight=True), {"stride": 8.0, "avg_factor": 5.0}),
    ("avg-0-d", distribution_box_loss(9, weight=True, avg="0-d"), {"stride": 8.0}),
    ("65", distribution_box_loss(65), {"stride": 8.0}),
):
    row("distribution_box_loss", name_, build_, differentiable=EDGES, **options_)
row(
    "distribution_box_loss",
    "2003",
    distribution_box_loss(2003, weight=True),
    stride=8.0,
    differentiable=EDGES,
    large=True,
)


def decode(*shape, bins=17, per_row=False, layout=contiguous, std=2.0):
    """Rows (..., 4 * bins), or maps where the shape is (batch, height, width)."""
    is_map = len(shape) == 3

    def build(make: Maker) -> dict[str, Any]:
        size = (shape[0], 4 * bins, *shape[1:]) if is_map else (*shape, 4 * bins)
        inputs = {
            "edge_logits": make.cast(make._randn(*size) * std, layout),
            "anchor_points": make.cast(make._rand(*shape[1 if is_map else 0 :], 2) * 100, like_pred=False),
        }
        if per_row:
            inputs["stride"] = make.cast(2.0 ** (3 + make._rand(*shape) * 4).floor(), like_pred=False)
        return inputs

    return build


for name_, build_, options_ in (
    ("empty", decode(0), {"stride": 8.0}),
    ("one", decode(1), {"stride": 8.0}),
    ("7x17", decode(7), {"stride": 8.0}),
    ("no-rows", decode(), {"stride": 8}),
    ("two-dim", decode(3, 5), {"stride": 16}),
    ("per-row-stride", decode(9, per_row=True), {}),
    ("clipped", decode(33), {"stride": 8.0, "max_shape": (60, 90.5)}),
    ("bins2", decode(9, bins=2), {"stride": 8.0}),
    ("bins33", decode(9, bins=33), {"stride": 8.0}),
    ("transposed", decode(9, layout=transposed), {"stride": 8.0}),
    ("strided_rows", decode(9, layout=strided_rows), {"stride": 8.0}),
    ("map", decode(2, 3, 5), {"stride": 32.0}),
    ("map-clipped", decode(2, 3, 5), {"stride": 32.0, "max_shape": (60, 90)}),
    ("map-channels-last", decode(2, 3, 5, layout=channels_last), {"stride": 32.0, "max_shape": (60, 90)}),
    ("map-empty", decode(2, 0, 5), {"stride": 8.0}),
):
    row("decode_boxes", name_, build_, differentiable=EDGES, **options_)
