"""The case table that every generic test runs over: one row per op, variant and shape.

A row builds its named inputs for a dtype and a device (case_maker.py); the public function, the reference and the
oracle all take them by those names.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from case_maker import (
    MATRIX_LAYOUTS,
    Case,
    Maker,
    channels_last,
    contiguous,
    every_other_row,
    strided_cols,
    strided_rows,
    transposed,
)
from torch import Tensor

CASES: list[Case] = []


def row(op: str, name: str, build: Callable[[Maker], dict[str, Any]], **options: Any) -> None:
    fields = {key: options.pop(key) for key in ("differentiable", "large", "scale", "smooth") if key in options}
    CASES.append(Case(op, name, build, kwargs=options, **fields))


REDUCTIONS = ("none", "sum", "mean")
LABEL_DTYPES = (torch.int64, torch.int32, torch.int16, torch.uint8)
EXPONENTS = (2.0, 1.0, 1.5, 0.0)


def _qfl(rows, cols, *, label=torch.int64, layout=contiguous, mean=-2.0, weight=False, avg=None):
    def build(make: Maker) -> dict[str, Any]:
        inputs = {
            "pred": make.logits(rows, cols, mean=mean, layout=layout),
            "target": (make.labels(rows, cols, label), make.scores(rows)),
        }
        return _with(make, inputs, make.weights(rows) if weight else None, avg)

    return build


def _with(make: Maker, inputs: dict[str, Any], weight: Tensor | None, avg: str | None = None) -> dict[str, Any]:
    if weight is not None:
        inputs["weight"] = weight
    if avg is not None:
        shape = {"0-d": (), "1-d": (1,)}[avg]
        inputs["avg_factor"] = torch.full(shape, 7.25, dtype=make.compute_dtype, device=make.device)
    return inputs


def _qfl_dense(rows, cols, *, layout=contiguous, target_layout=contiguous, like_pred=False, weight=False):
    def build(make: Maker) -> dict[str, Any]:
        inputs = {
            "pred": make.logits(rows, cols, mean=-1.0, layout=layout),
            "target": make.soft_targets(rows, cols, target_layout, like_pred),
        }
        return _with(make, inputs, make.weights(rows) if weight else None)

    return build


def _qfl_probability(rows, cols, *, dense=False, layout=contiguous):
    def build(make: Maker) -> dict[str, Any]:
        target = make.soft_targets(rows, cols) if dense else (make.labels(rows, cols), make.scores(rows))
        return {"pred": make.probabilities(rows, cols, layout=layout), "target": target}

    return build


for rows_, cols_ in ((0, 80), (1, 1), (1, 80), (9, 3), (17, 80), (6, 81), (65, 16), (130, 1), (33, 7)):
    row("quality_focal_loss", f"{rows_}x{cols_}", _qfl(rows_, cols_))
row("quality_focal_loss", "3001x80", _qfl(3001, 80, mean=-4.0, weight=True), avg_factor=123.0, large=True)
for beta_, reduction_ in itertools.product(EXPONENTS, REDUCTIONS):
    row("quality_focal_loss", f"beta{beta_}-{reduction_}", _qfl(9, 5, weight=True), beta=beta_, reduction=reduction_)
    row("quality_focal_loss", f"dense-beta{beta_}-{reduction_}", _qfl_dense(9, 5), beta=beta_, reduction=reduction_)
    row(
        "quality_focal_loss",
        f"activated-beta{beta_}-{reduction_}",
        _qfl_probability(9, 5),
        beta=beta_,
        reduction=reduction_,
        activated=True,
    )
row("quality_focal_loss", "no-weight-none", _qfl(9, 5), reduction="none")
row("quality_focal_loss", "avg-number", _qfl(9, 5, weight=True), avg_factor=3.5)
row("quality_focal_loss", "avg-int", _qfl(9, 5), avg_factor=4)
row("quality_focal_loss", "avg-0-d", _qfl(9, 5, weight=True, avg="0-d"))
row("quality_focal_loss", "avg-1-d", _qfl(9, 5, avg="1-d"))
row("quality_focal_loss", "avg-with-none", _qfl(9, 5, weight=True, avg="0-d"), reduction="none")
for label_ in LABEL_DTYPES:
    row("quality_focal_loss", f"label-{str(label_)[6:]}", _qfl(23, 5, label=label_), reduction="none")
row(
    "quality_focal_loss",
    "steep",
    lambda make: {
        "pred": make.logits(12, 6, std=20.0),
        "target": (make.labels(12, 6), make.scores(12)),
    },
    reduction="none",
)
for layout_ in MATRIX_LAYOUTS:
    row("quality_focal_loss", f"{layout_.__name__}", _qfl(19, 12, layout=layout_, weight=True))
    row("quality_focal_loss", f"{layout_.__name__}-none", _qfl(19, 12, layout=layout_), reduction="none")
    row("quality_focal_loss", f"dense-{layout_.__name__}", _qfl_dense(19, 12, layout=layout_, weight=True))
    row("quality_focal_loss", f"dense-target-{layout_.__name__}", _qfl_dense(19, 12, target_layout=layout_))
    row("quality_focal_loss", f"activated-{layout_.__name__}", _qfl_probability(19, 12, layout=layout_), activated=True)
row("quality_focal_loss", "dense-target-like-pred", _qfl_dense(9, 80, like_pred=True))
row("quality_focal_loss", "5x0", _qfl(5, 0))
row("quality_focal_loss", "5x0-none", _qfl(5, 0), reduction="none")
row("quality_focal_loss", "dense-empty", _qfl_dense(0, 80))
row("quality_focal_loss", "activated-dense", _qfl_probability(11, 81, dense=True), activated=True, reduction="none")
row("quality_focal_loss", "activated-81", _qfl_probability(7, 81), activated=True)
row("quality_focal_loss", "activated-empty", _qfl_probability(0, 3), activated=True)


def _focal(rows, cols, *, label=torch.int64, dense=None, layout=contiguous, weight=None, avg=None):
    def build(make: Maker) -> dict[str, Any]:
        pred = make.logits(rows, cols, mean=-1.0, layout=layout)
        if dense is None:
            target = make.labels(rows, cols, label)
        else:
            target = make.soft_targets(rows, cols)
            target = (target > 0).to(target.dtype) if dense == "hard" else target
        shapes = {"row": (rows,), "column": (rows, 1), "element": (rows, cols), "flat": (rows * cols,)}
        return _with(make, {"pred": pred, "target": target}, make.weights(*shapes[weight]) if weight else None, avg)

    return build


for rows_, cols_ in ((0, 80), (1, 1), (17, 80), (9, 3), (6, 81), (65, 16), (130, 1)):
    row("sigmoid_focal_loss", f"{rows_}x{cols_}", _focal(rows_, cols_))
row("sigmoid_focal_loss", "3001x80", _focal(3001, 80, weight="row"), avg_factor=50.0, large=True)
for gamma_, reduction_ in itertools.product(EXPONENTS, REDUCTIONS):
    row("sigmoid_focal_loss", f"gamma{gamma_}-{reduction_}", _focal(9, 5), gamma=gamma_, reduction=reduction_)
    row(
        "sigmoid_focal_loss",
        f"dense-gamma{gamma_}-{reduction_}",
        _focal(9, 5, dense="soft"),
        gamma=gamma_,
        reduction=reduction_,
    )
row("sigmoid_focal_loss", "5x0", _focal(5, 0))
row("sigmoid_focal_loss", "alpha0.6", _focal(9, 5), alpha=0.6)
row("sigmoid_focal_loss", "dense-hard", _focal(9, 5, dense="hard"), alpha=0.4)
for weight_, reduction_ in itertools.product(("row", "column", "element", "flat"), REDUCTIONS):
    row("sigmoid_focal_loss", f"weight-{weight_}-{reduction_}", _focal(9, 5, weight=weight_), reduction=reduction_)
row("sigmoid_focal_loss", "avg-0-d", _focal(9, 5, weight="row", avg="0-d"))
row("sigmoid_focal_loss", "avg-1-d", _focal(9, 5, dense="soft", weight="element", avg="1-d"))
row("sigmoid_focal_loss", "avg-number", _focal(9, 5), avg_factor=2.5)
for label_ in LABEL_DTYPES:
    row("sigmoid_focal_loss", f"label-{str(label_)[6:]}", _focal(23, 5, label=label_), reduction="none")
for layout_ in MATRIX_LAYOUTS:
    row("sigmoid_focal_loss", f"{layout_.__name__}", _focal(19, 12, layout=layout_, weight="element"))
    row("sigmoid_focal_loss", f"{layout_.__name__}-none", _focal(19, 12, layout=layout_), reduction="none")
row("sigmoid_focal_loss", "dense-transposed", _focal(19, 12, layout=transposed, dense="soft"), reduction="sum")


def _dfl(*shape, bins=17, first=0.0, layout=contiguous, values=None, sided=False, weight=False, avg=None, std=2.0):
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
        return _with(make, inputs, make.weights(*shape) if weight else None, avg)

    return build


def _quadratic(bins: int) -> Tensor:
    """Bin values dense around 0, as D-FINE has them."""
    steps = torch.linspace(-1, 1, bins, dtype=torch.float64)
    return steps.abs() * steps * 6


for rows_ in (0, 1, 2, 7, 31, 70):
    row("distribution_focal_loss", f"{rows_}x17", _dfl(rows_))
row("distribution_focal_loss", "5003x17", _dfl(5003, weight=True), avg_factor=99.0, large=True)
# A CPU takes 64 rows of 16 or 17 floats together where none is extreme: two such groups, and what is left over.
row("distribution_focal_loss", "grouped", _dfl(150, weight=True), reduction="none", large=True)
row("distribution_focal_loss", "grouped-bins16", _dfl(150, bins=16), large=True)
row("distribution_focal_loss", "grouped-sided", _dfl(150, sided=True, weight=True), reduction="none", large=True)
row("distribution_focal_loss", "grouped-bin_values", _dfl(150, values=_quadratic), reduction="none", large=True)
row("distribution_focal_loss", "grouped-strided", _dfl(150, layout=every_other_row), reduction="none", large=True)
row("distribution_focal_loss", "grouped-steep", _dfl(150, std=30.0), reduction="none", large=True)
for bins_, reduction_ in itertools.product((2, 8, 33, 256), ("none", "mean")):
    row("distribution_focal_loss", f"bins{bins_}-{reduction_}", _dfl(9, bins=bins_, weight=True), reduction=reduction_)
for reduction_ in REDUCTIONS:
    row("distribution_focal_loss", f"{reduction_}", _dfl(9), reduction=reduction_)
    row("distribution_focal_loss", f"weight-{reduction_}", _dfl(9, weight=True), reduction=reduction_)
    row("distribution_focal_loss", f"first-{reduction_}", _dfl(9, first=-2.0), first_bin=-2.0, reduction=reduction_)
    row("distribution_focal_loss", f"sided-{reduction_}", _dfl(9, sided=True, weight=True), reduction=reduction_)
    row("distribution_focal_loss", f"bin_values-{reduction_}", _dfl(11, values=_quadratic), reduction=reduction_)
row("distribution_focal_loss", "fractional-first", _dfl(9, first=0.5), first_bin=0.5)
row("distribution_focal_loss", "bin_values-33", _dfl(20, bins=33, values=_quadratic, weight=True))
row("distribution_focal_loss", "bin_values-sided", _dfl(11, values=_quadratic, sided=True), reduction="none")
row("distribution_focal_loss", "first-sided", _dfl(11, first=-2.0, sided=True), first_bin=-2.0)
row("distribution_focal_loss", "avg-number", _dfl(9, weight=True), avg_factor=4.0)
row("distribution_focal_loss", "avg-0-d", _dfl(9, weight=True, avg="0-d"))
row("distribution_focal_loss", "avg-1-d", _dfl(9, avg="1-d"))
row("distribution_focal_loss", "steep", _dfl(9, std=30.0), reduction="none")
row("distribution_focal_loss", "leading-dims", _dfl(3, 4, weight=True), reduction="none")
row("distribution_focal_loss", "leading-dims-mean", _dfl(2, 3, 4, bins=8))
for layout_ in MATRIX_LAYOUTS:
    row("distribution_focal_loss", f"{layout_.__name__}", _dfl(13, layout=layout_, weight=True))
    row("distribution_focal_loss", f"{layout_.__name__}-none", _dfl(13, bins=8, layout=layout_), reduction="none")
row("distribution_focal_loss", "leading-transposed", _dfl(3, 5, bins=8, layout=transposed), reduction="none")


def _integral(*shape, layout=contiguous, bins=None, std=2.0):
    def build(make: Maker) -> dict[str, Any]:
        inputs = {"pred": make.logits(*shape, std=std, layout=layout)}
        if bins is not None:
            inputs["bin_values"] = make.cast(_quadratic(bins) + 0.25, like_pred=False)
        return inputs

    return build


for rows_ in (0, 1, 7, 33):
    row("integral", f"{rows_}x17", _integral(rows_, 68))
row("integral", "5003x17", _integral(5003, 68), large=True)
row("integral", "grouped-bin_values", _integral(40, 68, bins=17), large=True)  # as for the distribution focal loss
row("integral", "grouped-bins16", _integral(40, 64), num_bins=16, large=True)
row("integral", "grouped-strided", _integral(150, 68, layout=every_other_row), large=True)
row("integral", "grouped-steep", _integral(40, 68, std=30.0), large=True)
for bins_ in (2, 8, 33, 256):
    row("integral", f"bins{bins_}", _integral(5, 4 * bins_), num_bins=bins_)
    row("integral", f"map-bins{bins_}", _integral(2, 4 * bins_, 3, 2), num_bins=bins_)
row("integral", "one-dim", _integral(68))
row("integral", "three-dim", _integral(2, 5, 68))
row("integral", "bin_values", _integral(6, 68, bins=17))
row("integral", "bin_values-map", _integral(2, 32, 3, 4, bins=8))
row("integral", "steep", _integral(6, 68, std=30.0))
row("integral", "map", _integral(2, 68, 3, 5))
row("integral", "map-channels-last", _integral(2, 68, 3, 5, layout=channels_last))
row("integral", "map-transposed", _integral(2, 68, 3, 5, layout=transposed))
row("integral", "map-strided", _integral(2, 68, 3, 5, layout=strided_cols))
row("integral", "map-empty", _integral(2, 68, 0, 5))
row("integral", "map-batch-of-one", _integral(1, 68, 1, 1))
row("integral", "map-33x21", _integral(1, 68, 33, 21), large=True)
row("integral", "channel_dim-1", _integral(2, 68, 3, 5), channel_dim=1)
row("integral", "channel_dim-last", _integral(2, 3, 5, 68), channel_dim=-1)
row("integral", "channel_dim-ambiguous", _integral(2, 32, 3, 32), num_bins=8, channel_dim=-1)
for layout_ in MATRIX_LAYOUTS:
    row("integral", f"{layout_.__name__}", _integral(6, 68, layout=layout_))


def _boxes(rows, relation="overlapping", *, layout=contiguous, weight=None, like_pred=True, avg=None, extent=64.0):
    def build(make: Maker) -> dict[str, Any]:
        a, b = make.box_pairs(rows, relation, extent)
        inputs = {"pred": make.cast(a, layout), "target": make.cast(b, like_pred=like_pred)}
        return _with(make, inputs, make.weights(*weight) if weight else None, avg)

    return build


RELATIONS = ("identical", "disjoint", "touching", "nested", "shared_edges", "degenerate", "inverted")
KINDS = {
    "iou-linear": {"kind": "iou", "transform": "linear"},
    "iou-square": {"kind": "iou", "transform": "square"},
    "iou-log": {"kind": "iou", "transform": "log"},
    "iou-log-add": {"kind": "iou", "transform": "log", "eps_rule": "add"},
    "iou-linear-add": {"kind": "iou", "transform": "linear", "eps_rule": "add"},
    "giou": {"kind": "giou"},
    "giou-add": {"kind": "giou", "eps_rule": "add"},
    "diou": {"kind": "diou"},
    "ciou": {"kind": "ciou", "smooth": False},  # its alpha carries no gradient
}
for kind_, options_ in KINDS.items():
    for reduction_ in REDUCTIONS:
        row("iou_loss", f"{kind_}-{reduction_}", _boxes(11), reduction=reduction_, eps=1e-6, **options_)
    for relation_ in RELATIONS:
        relation_options_ = {"reduction": "none", **options_}
        if relation_ not in ("disjoint", "nested"):
            relation_options_["smooth"] = False  # edges meet: max, min and clamp have kinks there
        if relation_ == "identical":
            relation_options_["scale"] = 0.02  # the gradient's terms, 1 / size, cancel
        row("iou_loss", f"{kind_}-{relation_}", _boxes(13, relation_), **relation_options_)
    row("iou_loss", f"{kind_}-weight", _boxes(11, weight=(11,)), avg_factor=6.0, **options_)
    row("iou_loss", f"{kind_}-weight4", _boxes(11, weight=(11, 4)), **options_)
    row("iou_loss", f"{kind_}-empty", _boxes(0), **options_)
    row("iou_loss", f"{kind_}-one", _boxes(1), **options_)
    row("iou_loss", f"{kind_}-65", _boxes(65, weight=(65,)), **options_)
    row("iou_loss", f"{kind_}-20001", _boxes(20001), large=True, **options_)
    row("iou_loss", f"{kind_}-transposed", _boxes(10, layout=transposed, like_pred=False), **options_)
for layout_ in MATRIX_LAYOUTS:
    row("iou_loss", f"{layout_.__name__}", _boxes(10, layout=layout_), reduction="none")
row("iou_loss", "pixels", _boxes(20, extent=1000.0), eps=1e-6, reduction="none")
row("iou_loss", "weight4-none", _boxes(10, weight=(10, 4)), reduction="none")
row("iou_loss", "avg-0-d", _boxes(10, weight=(10,), avg="0-d"), kind="diou")
row("iou_loss", "avg-1-d", _boxes(10, avg="1-d"))
row("iou_loss", "big-eps", _boxes(10, "disjoint", extent=1.0), eps=0.5, reduction="none")
for op_ in ("giou_loss", "diou_loss", "ciou_loss"):
    smooth_ = op_ != "ciou_loss"
    row(op_, "plain", _boxes(10), smooth=smooth_)
    row(op_, "weight", _boxes(10, weight=(10,)), eps=1e-6, avg_factor=3.0, smooth=smooth_)
    row(op_, "none", _boxes(10, weight=(10, 4)), reduction="none", smooth=smooth_)
row("giou_loss", "add", _boxes(10), eps_rule="add")


def _pairs(rows, cols, *, layout=contiguous, relation="overlapping"):
    def build(make: Maker) -> dict[str, Any]:
        if cols is None:
            a, b = make.box_pairs(rows, relation)
        else:
            a, b = make.boxes(rows), make.boxes(cols)
        return {"a": make.cast(a, layout), "b": make.cast(b)}

    return build


for rows_, cols_ in ((0, 3), (3, 0), (1, 1), (5, 7), (33, 66)):
    row("box_iou", f"{rows_}x{cols_}", _pairs(rows_, cols_), differentiable=())
for relation_ in ("overlapping", *RELATIONS):
    row("box_iou", f"aligned-{relation_}", _pairs(13, None, relation=relation_), differentiable=(), aligned=True)
for layout_ in MATRIX_LAYOUTS:
    row("box_iou", f"{layout_.__name__}", _pairs(6, 4, layout=layout_), differentiable=())
row("box_iou", "eps", _pairs(6, 4), differentiable=(), eps=100.0)
row("box_iou", "700x301", _pairs(700, 301), differentiable=(), large=True)


def _generalized(*shape, y="tensor", ends=(0.0, 1.0), weight=False, avg=None, layout=contiguous):
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
        return _with(make, inputs, make.weights(*shape) if weight else None, avg)

    return build


BOTH = ("p_left", "p_right")
for beta_, reduction_ in itertools.product(EXPONENTS, REDUCTIONS):
    row(
        "generalized_focal_loss",
        f"beta{beta_}-{reduction_}",
        _generalized(12, weight=True),
        beta=beta_,
        reduction=reduction_,
        differentiable=BOTH,
    )
for name_, build_ in {
    "empty": _generalized(0),
    "one": _generalized(1),
    "default": _generalized(33),
    "number-y": _generalized(9, y=0.3),
    "y-is-right": _generalized(9, y=1.0),
    "y-is-left": _generalized(9, y=0.0),
    "broadcast-y": _generalized(5, 7, y="row"),
    "bins": _generalized(9, y="bins"),
    "wide-ends": _generalized(9, ends=(-2.0, 3.0)),
    "two-dim": _generalized(5, 7, weight=True),
    "transposed": _generalized(5, 7, layout=transposed),
    "strided": _generalized(5, 7, layout=strided_cols),
}.items():
    row("generalized_focal_loss", name_, build_, differentiable=BOTH)
row("generalized_focal_loss", "avg-0-d", _generalized(9, avg="0-d"), reduction="mean", differentiable=BOTH)
row("generalized_focal_loss", "avg-number", _generalized(9), reduction="mean", avg_factor=5.0, differentiable=BOTH)


def _distribution_box_loss(
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
        return _with(make, inputs, make.weights(rows) if weight else None, avg)

    return build


EDGES = ("edge_logits",)
for kind_ in ("iou", "giou", "diou", "ciou"):
    for reduction_ in REDUCTIONS:
        row(
            "distribution_box_loss",
            f"{kind_}-{reduction_}",
            _distribution_box_loss(7, weight=reduction_ != "sum"),
            iou_kind=kind_,
            smooth=kind_ != "ciou",
            reduction=reduction_,
            stride=8.0,
            differentiable=EDGES,
        )
for name_, build_, options_ in (
    ("empty", _distribution_box_loss(0), {"stride": 8.0}),
    ("one", _distribution_box_loss(1, stride=1.0), {}),
    ("per-row-stride", _distribution_box_loss(9, per_row=True, weight=True), {"reduction": "none"}),
    ("per-row-stride-mean", _distribution_box_loss(9, per_row=True), {}),
    ("three-dim", _distribution_box_loss(9, flat=False), {"stride": 8.0}),
    ("three-dim-transposed", _distribution_box_loss(9, flat=False, layout=transposed), {"stride": 8.0}),
    ("transposed", _distribution_box_loss(9, layout=transposed), {"stride": 8.0}),
    ("strided_rows", _distribution_box_loss(9, layout=strided_rows, weight=True), {"stride": 8.0}),
    ("strided_cols", _distribution_box_loss(9, layout=strided_cols), {"stride": 8.0}),
    ("bins8", _distribution_box_loss(9, bins=8), {"stride": 8.0}),
    ("bins2", _distribution_box_loss(9, bins=2), {"stride": 8.0}),
    ("bins33", _distribution_box_loss(9, bins=33, flat=False), {"stride": 8.0, "target_margin": 0.01}),
    ("int-stride", _distribution_box_loss(9, stride=16), {"stride": 16}),
    ("eps", _distribution_box_loss(9), {"stride": 8.0, "eps": 1e-3}),
    ("avg-number", _distribution_box_loss(9, weight=True), {"stride": 8.0, "avg_factor": 5.0}),
    ("avg-0-d", _distribution_box_loss(9, weight=True, avg="0-d"), {"stride": 8.0}),
    ("65", _distribution_box_loss(65), {"stride": 8.0}),
):
    row("distribution_box_loss", name_, build_, differentiable=EDGES, **options_)
row(
    "distribution_box_loss",
    "2003",
    _distribution_box_loss(2003, weight=True),
    stride=8.0,
    differentiable=EDGES,
    large=True,
)


def _decode(*shape, bins=17, per_row=False, layout=contiguous, std=2.0):
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
    ("empty", _decode(0), {"stride": 8.0}),
    ("one", _decode(1), {"stride": 8.0}),
    ("7x17", _decode(7), {"stride": 8.0}),
    ("no-rows", _decode(), {"stride": 8}),
    ("two-dim", _decode(3, 5), {"stride": 16}),
    ("per-row-stride", _decode(9, per_row=True), {}),
    ("clipped", _decode(33), {"stride": 8.0, "max_shape": (60, 90.5)}),
    ("bins2", _decode(9, bins=2), {"stride": 8.0}),
    ("bins33", _decode(9, bins=33), {"stride": 8.0}),
    ("transposed", _decode(9, layout=transposed), {"stride": 8.0}),
    ("strided_rows", _decode(9, layout=strided_rows), {"stride": 8.0}),
    ("map", _decode(2, 3, 5), {"stride": 32.0}),
    ("map-clipped", _decode(2, 3, 5), {"stride": 32.0, "max_shape": (60, 90)}),
    ("map-channels-last", _decode(2, 3, 5, layout=channels_last), {"stride": 32.0, "max_shape": (60, 90)}),
    ("map-empty", _decode(2, 0, 5), {"stride": 8.0}),
):
    row("decode_boxes", name_, build_, differentiable=EDGES, **options_)

OPS = sorted({case.op for case in CASES})
BY_ID = {case.id: case for case in CASES}
if len(BY_ID) != len(CASES):
    raise AssertionError("two rows of the case table share a name")

# One row per kind of argument: absent and present, reduced and not, strided and not, empty, half.
KINDS_OF_ARGUMENTS = [
    "quality_focal_loss-9x3",
    "quality_focal_loss-0x80",
    "quality_focal_loss-avg-0-d",
    "quality_focal_loss-beta2.0-none",
    "quality_focal_loss-dense-transposed",
    "quality_focal_loss-activated-transposed",
    "sigmoid_focal_loss-9x3",
    "sigmoid_focal_loss-weight-element-none",
    "sigmoid_focal_loss-dense-gamma1.5-sum",
    "distribution_focal_loss-7x17",
    "distribution_focal_loss-0x17",
    "distribution_focal_loss-weight-none",
    "distribution_focal_loss-bin_values-sided",
    "distribution_focal_loss-transposed",
    "integral-7x17",
    "integral-bin_values-map",
    "integral-map-channels-last",
    "iou_loss-giou-mean",
    "iou_loss-ciou-none",
    "iou_loss-diou-weight4",
    "iou_loss-iou-log-transposed",
    "box_iou-5x7",
    "box_iou-aligned-nested",
    "generalized_focal_loss-beta2.0-none",
    "generalized_focal_loss-broadcast-y",
    "generalized_focal_loss-avg-0-d",
    "distribution_box_loss-giou-mean",
    "distribution_box_loss-per-row-stride",
    "distribution_box_loss-three-dim-transposed",
]

# One row per public function.
TYPICAL = [
    "quality_focal_loss-avg-0-d",
    "quality_focal_loss-dense-beta2.0-mean",
    "sigmoid_focal_loss-weight-row-mean",
    "distribution_focal_loss-weight-mean",
    "integral-map",
    "iou_loss-giou-weight",
    "giou_loss-plain",
    "diou_loss-plain",
    "ciou_loss-plain",
    "box_iou-5x7",
    "generalized_focal_loss-beta2.0-mean",
    "distribution_box_loss-giou-mean",
    "decode_boxes-clipped",
    "decode_boxes-map",
]
