"""Rows of the dense classification losses."""

from __future__ import annotations

import itertools
from typing import Any

import torch

from tests.support.case_maker import (
    MATRIX_LAYOUTS,
    Maker,
    contiguous,
    transposed,
)
from tests.support.cases.table import EXPONENTS, REDUCTIONS, row, with_weight

LABEL_DTYPES = (torch.int64, torch.int32, torch.int16, torch.uint8)


def qfl(rows, cols, *, label=torch.int64, layout=contiguous, mean=-2.0, weight=False, avg=None):
    def build(make: Maker) -> dict[str, Any]:
        inputs = {
            "pred": make.logits(rows, cols, mean=mean, layout=layout),
            "target": (make.labels(rows, cols, label), make.scores(rows)),
        }
        return with_weight(make, inputs, make.weights(rows) if weight else None, avg)

    return build


def qfl_dense(rows, cols, *, layout=contiguous, target_layout=contiguous, like_pred=False, weight=False):
    def build(make: Maker) -> dict[str, Any]:
        inputs = {
            "pred": make.logits(rows, cols, mean=-1.0, layout=layout),
            "target": make.soft_targets(rows, cols, target_layout, like_pred),
        }
        return with_weight(make, inputs, make.weights(rows) if weight else None)

    return build


def qfl_probability(rows, cols, *, dense=False, layout=contiguous):
    def build(make: Maker) -> dict[str, Any]:
        target = make.soft_targets(rows, cols) if dense else (make.labels(rows, cols), make.scores(rows))
        return {"pred": make.probabilities(rows, cols, layout=layout), "target": target}

    return build


for rows_, cols_ in ((0, 80), (1, 1), (1, 80), (9, 3), (17, 80), (6, 81), (65, 16), (130, 1), (33, 7)):
    row("quality_focal_loss", f"{rows_}x{cols_}", qfl(rows_, cols_))
row("quality_focal_loss", "3001x80", qfl(3001, 80, mean=-4.0, weight=True), avg_factor=123.0, large=True)
for beta_, reduction_ in itertools.product(EXPONENTS, REDUCTIONS):
    row("quality_focal_loss", f"beta{beta_}-{reduction_}", qfl(9, 5, weight=True), beta=beta_, reduction=reduction_)
    row("quality_focal_loss", f"dense-beta{beta_}-{reduction_}", qfl_dense(9, 5), beta=beta_, reduction=reduction_)
    row(
        "quality_focal_loss",
        f"activated-beta{beta_}-{reduction_}",
        qfl_probability(9, 5),
        beta=beta_,
        reduction=reduction_,
        activated=True,
    )
row("quality_focal_loss", "no-weight-none", qfl(9, 5), reduction="none")
row("quality_focal_loss", "avg-number", qfl(9, 5, weight=True), avg_factor=3.5)
row("quality_focal_loss", "avg-int", qfl(9, 5), avg_factor=4)
row("quality_focal_loss", "avg-0-d", qfl(9, 5, weight=True, avg="0-d"))
row("quality_focal_loss", "avg-1-d", qfl(9, 5, avg="1-d"))
row("quality_focal_loss", "avg-with-none", qfl(9, 5, weight=True, avg="0-d"), reduction="none")
for label_ in LABEL_DTYPES:
    row("quality_focal_loss", f"label-{str(label_)[6:]}", qfl(23, 5, label=label_), reduction="none")
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
    row("quality_focal_loss", f"{layout_.__name__}", qfl(19, 12, layout=layout_, weight=True))
    row("quality_focal_loss", f"{layout_.__name__}-none", qfl(19, 12, layout=layout_), reduction="none")
    row("quality_focal_loss", f"dense-{layout_.__name__}", qfl_dense(19, 12, layout=layout_, weight=True))
    row("quality_focal_loss", f"dense-target-{layout_.__name__}", qfl_dense(19, 12, target_layout=layout_))
    row("quality_focal_loss", f"activated-{layout_.__name__}", qfl_probability(19, 12, layout=layout_), activated=True)
row("quality_focal_loss", "dense-target-like-pred", qfl_dense(9, 80, like_pred=True))
row("quality_focal_loss", "5x0", qfl(5, 0))
row("quality_focal_loss", "5x0-none", qfl(5, 0), reduction="none")
row("quality_focal_loss", "dense-empty", qfl_dense(0, 80))
row("quality_focal_loss", "activated-dense", qfl_probability(11, 81, dense=True), activated=True, reduction="none")
row("quality_focal_loss", "activated-81", qfl_probability(7, 81), activated=True)
row("quality_focal_loss", "activated-empty", qfl_probability(0, 3), activated=True)


def focal(rows, cols, *, label=torch.int64, dense=None, layout=contiguous, weight=None, avg=None):
    def build(make: Maker) -> dict[str, Any]:
        pred = make.logits(rows, cols, mean=-1.0, layout=layout)
        if dense is None:
            target = make.labels(rows, cols, label)
        else:
            target = make.soft_targets(rows, cols)
            target = (target > 0).to(target.dtype) if dense == "hard" else target
        shapes = {"row": (rows,), "column": (rows, 1), "element": (rows, cols), "flat": (rows * cols,)}
        return with_weight(
            make, {"pred": pred, "target": target}, make.weights(*shapes[weight]) if weight else None, avg
        )

    return build


for rows_, cols_ in ((0, 80), (1, 1), (17, 80), (9, 3), (6, 81), (65, 16), (130, 1)):
    row("sigmoid_focal_loss", f"{rows_}x{cols_}", focal(rows_, cols_))
row("sigmoid_focal_loss", "3001x80", focal(3001, 80, weight="row"), avg_factor=50.0, large=True)
for gamma_, reduction_ in itertools.product(EXPONENTS, REDUCTIONS):
    row("sigmoid_focal_loss", f"gamma{gamma_}-{reduction_}", focal(9, 5), gamma=gamma_, reduction=reduction_)
    row(
        "sigmoid_focal_loss",
        f"dense-gamma{gamma_}-{reduction_}",
        focal(9, 5, dense="soft"),
        gamma=gamma_,
        reduction=reduction_,
    )
row("sigmoid_focal_loss", "5x0", focal(5, 0))
row("sigmoid_focal_loss", "alpha0.6", focal(9, 5), alpha=0.6)
row("sigmoid_focal_loss", "dense-hard", focal(9, 5, dense="hard"), alpha=0.4)
for weight_, reduction_ in itertools.product(("row", "column", "element", "flat"), REDUCTIONS):
    row("sigmoid_focal_loss", f"weight-{weight_}-{reduction_}", focal(9, 5, weight=weight_), reduction=reduction_)
row("sigmoid_focal_loss", "avg-0-d", focal(9, 5, weight="row", avg="0-d"))
row("sigmoid_focal_loss", "avg-1-d", focal(9, 5, dense="soft", weight="element", avg="1-d"))
row("sigmoid_focal_loss", "avg-number", focal(9, 5), avg_factor=2.5)
for label_ in LABEL_DTYPES:
    row("sigmoid_focal_loss", f"label-{str(label_)[6:]}", focal(23, 5, label=label_), reduction="none")
for layout_ in MATRIX_LAYOUTS:
    row("sigmoid_focal_loss", f"{layout_.__name__}", focal(19, 12, layout=layout_, weight="element"))
    row("sigmoid_focal_loss", f"{layout_.__name__}-none", focal(19, 12, layout=layout_), reduction="none")
row("sigmoid_focal_loss", "dense-transposed", focal(19, 12, layout=transposed, dense="soft"), reduction="sum")


def scored(rows, cols, *, label=torch.int64, dense=False, layout=contiguous, weight=None, per_class=False, avg=None):
    """(label, score) or soft targets, with a weight of rows or elements."""

    def build(make: Maker) -> dict[str, Any]:
        pred = make.logits(rows, cols, mean=-1.0, layout=layout)
        target = make.soft_targets(rows, cols) if dense else (make.labels(rows, cols, label), make.scores(rows))
        inputs = {"pred": pred, "target": target}
        if per_class:
            inputs["class_weight"] = make.weights(cols)
        shapes = {"row": (rows,), "column": (rows, 1), "element": (rows, cols), "flat": (rows * cols,)}
        return with_weight(make, inputs, make.weights(*shapes[weight]) if weight else None, avg)

    return build


for op_ in ("varifocal_loss", "soft_bce_loss"):
    for rows_, cols_ in ((0, 80), (1, 1), (17, 80), (9, 3), (6, 81), (65, 16), (130, 1)):
        row(op_, f"{rows_}x{cols_}", scored(rows_, cols_))
    row(op_, "5x0", scored(5, 0))
    row(op_, "3001x80", scored(3001, 80, weight="row"), avg_factor=50.0, large=True)
    for weight_, reduction_ in itertools.product((None, "row", "column", "element", "flat"), REDUCTIONS):
        name_ = f"weight-{weight_}-{reduction_}"
        row(op_, name_, scored(9, 5, weight=weight_), reduction=reduction_)
        row(op_, f"dense-{name_}", scored(9, 5, weight=weight_, dense=True), reduction=reduction_)
    row(op_, "avg-0-d", scored(9, 5, weight="row", avg="0-d"))
    row(op_, "avg-1-d", scored(9, 5, dense=True, weight="element", avg="1-d"))
    row(op_, "avg-number", scored(9, 5), avg_factor=2.5)
    for label_ in LABEL_DTYPES:
        row(op_, f"label-{str(label_)[6:]}", scored(23, 5, label=label_), reduction="none")
    for layout_ in MATRIX_LAYOUTS:
        row(op_, f"{layout_.__name__}", scored(19, 12, layout=layout_, weight="element"))
        row(op_, f"{layout_.__name__}-none", scored(19, 12, layout=layout_), reduction="none")
        row(op_, f"dense-{layout_.__name__}", scored(19, 12, layout=layout_, dense=True))
for gamma_, iou_weighted_, detached_ in itertools.product(EXPONENTS, (True, False), (True, False)):
    for dense_ in (True, False):
        options_ = {"gamma": gamma_, "iou_weighted": iou_weighted_, "detach_factor": detached_}
        words_ = "dense-" * dense_ + f"gamma{gamma_}" + "-even" * (not iou_weighted_) + "-detached" * detached_
        row(
            "varifocal_loss",
            words_,
            scored(9, 5, dense=dense_),
            **options_,
            smooth=not detached_,  # finite differences know of no detached factor
        )
row("varifocal_loss", "alpha0.3", scored(9, 5), alpha=0.3)
for dense_, weight_, reduction_ in itertools.product((False, True), (None, "row", "element"), REDUCTIONS):
    name_ = "dense-" * dense_ + f"class_weight-{weight_}-{reduction_}"
    row("soft_bce_loss", name_, scored(9, 5, dense=dense_, weight=weight_, per_class=True), reduction=reduction_)
row("soft_bce_loss", "class_weight-transposed", scored(19, 12, layout=transposed, weight="row", per_class=True))
row("soft_bce_loss", "class_weight-17x80", scored(17, 80, weight="row", per_class=True))
row("soft_bce_loss", "class_weight-130x1", scored(130, 1, per_class=True))
