"""Rows of the IoU losses and of box_iou."""

from __future__ import annotations

from typing import Any

from tests.support.case_maker import (
    MATRIX_LAYOUTS,
    Maker,
    contiguous,
    transposed,
)
from tests.support.cases.table import REDUCTIONS, row, with_weight


def boxes(rows, relation="overlapping", *, layout=contiguous, weight=None, like_pred=True, avg=None, extent=64.0):
    def build(make: Maker) -> dict[str, Any]:
        a, b = make.box_pairs(rows, relation, extent)
        inputs = {"pred": make.cast(a, layout), "target": make.cast(b, like_pred=like_pred)}
        return with_weight(make, inputs, make.weights(*weight) if weight else None, avg)

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
    "diou-add": {"kind": "diou", "eps_rule": "add"},
    "ciou": {"kind": "ciou", "smooth": False},  # its alpha carries no gradient
    "ciou-add": {"kind": "ciou", "eps_rule": "add", "smooth": False},
    "ciou-always": {"kind": "ciou", "alpha_rule": "always", "smooth": False},
    "ciou-add-always": {"kind": "ciou", "eps_rule": "add", "alpha_rule": "always", "smooth": False},
}
for kind_, options_ in KINDS.items():
    for reduction_ in REDUCTIONS:
        row("iou_loss", f"{kind_}-{reduction_}", boxes(11), reduction=reduction_, eps=1e-6, **options_)
    for relation_ in RELATIONS:
        relation_options_ = {"reduction": "none", **options_}
        if relation_ not in ("disjoint", "nested"):
            relation_options_["smooth"] = False  # edges meet: max, min and clamp have kinks there
        if relation_ == "identical":
            relation_options_["scale"] = 0.02  # the gradient's terms, 1 / size, cancel
        row("iou_loss", f"{kind_}-{relation_}", boxes(13, relation_), **relation_options_)
    row("iou_loss", f"{kind_}-weight", boxes(11, weight=(11,)), avg_factor=6.0, **options_)
    row("iou_loss", f"{kind_}-weight4", boxes(11, weight=(11, 4)), **options_)
    row("iou_loss", f"{kind_}-empty", boxes(0), **options_)
    row("iou_loss", f"{kind_}-one", boxes(1), **options_)
    row("iou_loss", f"{kind_}-65", boxes(65, weight=(65,)), **options_)
    row("iou_loss", f"{kind_}-20001", boxes(20001), large=True, **options_)
    row("iou_loss", f"{kind_}-transposed", boxes(10, layout=transposed, like_pred=False), **options_)
for layout_ in MATRIX_LAYOUTS:
    row("iou_loss", f"{layout_.__name__}", boxes(10, layout=layout_), reduction="none")
row("iou_loss", "pixels", boxes(20, extent=1000.0), eps=1e-6, reduction="none")
row("iou_loss", "weight4-none", boxes(10, weight=(10, 4)), reduction="none")
row("iou_loss", "avg-0-d", boxes(10, weight=(10,), avg="0-d"), kind="diou")
row("iou_loss", "avg-1-d", boxes(10, avg="1-d"))
row("iou_loss", "big-eps", boxes(10, "disjoint", extent=1.0), eps=0.5, reduction="none")
for op_ in ("giou_loss", "diou_loss", "ciou_loss"):
    smooth_ = op_ != "ciou_loss"
    row(op_, "plain", boxes(10), smooth=smooth_)
    row(op_, "weight", boxes(10, weight=(10,)), eps=1e-6, avg_factor=3.0, smooth=smooth_)
    row(op_, "none", boxes(10, weight=(10, 4)), reduction="none", smooth=smooth_)
row("giou_loss", "add", boxes(10), eps_rule="add")
row("diou_loss", "add", boxes(10, "inverted"), eps_rule="add", smooth=False)
row("ciou_loss", "add", boxes(10), eps_rule="add", smooth=False)
row("ciou_loss", "add-always", boxes(10, "inverted"), eps_rule="add", alpha_rule="always", smooth=False)


def pairs(rows, cols, *, layout=contiguous, relation="overlapping"):
    def build(make: Maker) -> dict[str, Any]:
        if cols is None:
            a, b = make.box_pairs(rows, relation)
        else:
            a, b = make.boxes(rows), make.boxes(cols)
        return {"a": make.cast(a, layout), "b": make.cast(b)}

    return build


for rows_, cols_ in ((0, 3), (3, 0), (1, 1), (5, 7), (33, 66)):
    row("box_iou", f"{rows_}x{cols_}", pairs(rows_, cols_), differentiable=())
for relation_ in ("overlapping", *RELATIONS):
    row("box_iou", f"aligned-{relation_}", pairs(13, None, relation=relation_), differentiable=(), aligned=True)
for layout_ in MATRIX_LAYOUTS:
    row("box_iou", f"{layout_.__name__}", pairs(6, 4, layout=layout_), differentiable=())
row("box_iou", "eps", pairs(6, 4), differentiable=(), eps=100.0)
row("box_iou", "700x301", pairs(700, 301), differentiable=(), large=True)
