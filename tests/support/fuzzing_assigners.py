"""Calls of the assigners for fuzzing.py: right, up to what is drawn. Their values are compared elsewhere: where
candidates tie up to rounding, two assignments are right."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st


def task_aligned_assign(call: Any) -> dict[str, Any]:
    batch, gts = call.draw(st.integers(0, 3)), call.draw(st.sampled_from([0, 1, 3, 40]))
    anchors, classes = call.rows, call.cols
    return {
        "scores": call.other(batch, anchors, classes, low=-0.1, high=1.1),
        "boxes": call.floats(batch, anchors, 4, high=30.0),
        "points": call.other(anchors, 2, high=30.0),
        "gt_boxes": call.other(batch, gts, 4, high=30.0),
        "gt_labels": call.labels(batch * gts, classes).reshape(batch, gts),
        "gt_counts": call.maybe(lambda: call.labels(batch, gts)),
        "topk": call.draw(st.integers(1, 256)),
        "final_topk": call.some(st.none(), st.integers(1, 256)),
        "alpha": call.draw(st.sampled_from([0, 0.5, 1.0, 2.3])),
        "beta": call.draw(st.sampled_from([0, 1, 6.0, 2.5])),
        "inside_first": call.draw(st.booleans()),
        "min_side": call.draw(st.sampled_from([0, 8.0])),
        "iou": call.draw(st.sampled_from(["iou", "ciou"])),
        "logits": call.draw(st.booleans()),
        **call.draw(st.sampled_from([{}, {"level_shapes": [(1, anchors)], "strides": [8]}])),
        "center_offset": call.draw(st.sampled_from([0, 0.5])),
    }


def atss_assign(call: Any) -> dict[str, Any]:
    batch, gts = call.draw(st.integers(0, 3)), call.draw(st.sampled_from([0, 1, 3, 40]))
    level_shapes = call.draw(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=8))
    return {
        "gt_boxes": call.other(batch, gts, 4, high=60.0),
        "gt_counts": call.labels(batch, gts),
        "level_shapes": level_shapes,
        "strides": [2 ** (i + 2) for i in range(len(level_shapes))],
        "valid_shapes": call.maybe(lambda: call.other(batch, 2, high=60.0)),
        "topk": call.some(st.integers(1, 32), st.integers(33, 2**31 - 1)),
        "anchor_scale": call.draw(st.sampled_from([1, 8.0])),
        "center_offset": call.draw(st.sampled_from([0, 0.5])),
    }


def max_iou_assign(call: Any) -> dict[str, Any]:
    batch, gts = call.draw(st.integers(0, 3)), call.draw(st.sampled_from([0, 1, 3, 70]))
    anchors = call.draw(st.sampled_from([(call.rows, 4), (batch, call.rows, 4)]))
    thresholds = st.sampled_from([0.1, 0.5, 1])
    return {
        "anchors": call.floats(*anchors, high=30.0),
        "gt_boxes": call.other(batch, gts, 4, high=30.0),
        "gt_counts": call.maybe(lambda: call.labels(batch, gts)),
        "valid": call.maybe(lambda: call.labels(batch * call.rows, 1).bool().reshape(batch, call.rows)),
        "positive_iou": call.draw(thresholds),
        "negative_iou": call.some(thresholds, st.tuples(thresholds, thresholds)),
        "least_iou": call.some(st.none(), thresholds),
        "all_best": call.draw(st.booleans()),
    }


def dynamic_soft_label_assign(call: Any) -> dict[str, Any]:
    batch, gts = call.draw(st.integers(0, 3)), call.draw(st.sampled_from([0, 1, 3, 40]))
    anchors, classes = call.rows, call.cols
    return {
        "logits": call.other(batch, anchors, classes, low=-8.0, high=8.0),
        "boxes": call.floats(batch, anchors, 4, high=30.0),
        "points": call.other(anchors, 2, high=30.0),
        "strides": call.other(anchors, low=-1.0, high=30.0),
        "gt_boxes": call.other(batch, gts, 4, high=30.0),
        "gt_labels": call.labels(batch * gts, classes).reshape(batch, gts),
        "gt_counts": call.maybe(lambda: call.labels(batch, gts)),
        "topk": call.draw(st.integers(1, 256)),
        "center_radius": call.draw(st.sampled_from([0, 0.5, 3.0, 50.0])),
        "iou_weight": call.draw(st.sampled_from([0, 1, 3.0])),
    }


def simota_assign(call: Any) -> dict[str, Any]:
    arguments = dynamic_soft_label_assign(call)
    arguments["scores"] = arguments.pop("logits")
    return arguments | {"cls_weight": call.draw(st.sampled_from([0, 1, 2.5]))}


def fcos_assign(call: Any) -> dict[str, Any]:
    batch, gts = call.draw(st.integers(0, 3)), call.draw(st.sampled_from([0, 1, 3, 70]))
    limits = st.sampled_from([-1, 0, 4.0, 16, float("inf")])
    return {
        "gt_boxes": call.floats(batch, gts, 4, high=30.0),
        "gt_counts": call.maybe(lambda: call.labels(batch, gts)),
        "level_shapes": [(1, call.rows), (3, 2)],
        "strides": [4, 8.5],
        "ranges": [(call.draw(st.sampled_from([-1, 0, 4.0])), call.draw(limits)) for _ in range(2)],
        "radius": call.draw(st.sampled_from([None, 0, 1.5, 4])),
        "center_offset": call.draw(st.sampled_from([0, 0.5])),
    }


OPS = {
    "fcos_assign": fcos_assign,
    "max_iou_assign": max_iou_assign,
    "atss_assign": atss_assign,
    "task_aligned_assign": task_aligned_assign,
    "dynamic_soft_label_assign": dynamic_soft_label_assign,
    "simota_assign": simota_assign,
}
