"""Calls of the detection ops for fuzzing.py: right, up to what is drawn."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor


def _threshold(call: Any) -> float:
    return call.some(st.sampled_from([0.0, 0.5, 1, 1e-40]), st.floats(0.0, 1.0))


def _boxes_and_scores(call: Any) -> dict[str, Any]:
    call.device = "cpu"  # how many boxes stay is not known without data
    scores = call.other(call.rows)
    if call.draw(st.booleans()):
        scores = (scores * 4).round() / 4  # ties
    return {
        "boxes": call.boxes(call.rows),
        "scores": scores,
        "iou_threshold": _threshold(call),
        "criterion": call.draw(st.sampled_from(["iou", "diou"])),
    }


def nms(call: Any) -> dict[str, Any]:
    return _boxes_and_scores(call)


def batched_nms(call: Any) -> dict[str, Any]:
    return {**_boxes_and_scores(call), "idxs": call.labels(call.rows, 3)}


def nms_padded(call: Any) -> dict[str, Any]:
    return {
        **_boxes_and_scores(call),
        "idxs": call.maybe(lambda: call.labels(call.rows, 3)),
        "max_output": call.some(st.none(), st.integers(0, 120)),
    }


def postprocess(call: Any) -> dict[str, Any]:
    call.device = "cpu"
    batch, classes, bins = call.draw(st.integers(0, 3)), call.draw(st.sampled_from([0, 1, 3, 80])), min(call.bins, 33)
    sizes = call.draw(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), min_size=1, max_size=8))
    edges_dtype = call.draw(st.sampled_from([torch.float32, torch.float16, torch.float64]))

    def pairs(low: float, high: float) -> Any:
        """A tensor, or Python's numbers."""
        numbers = torch.rand(batch, 2, generator=call.generator) * (high - low) + low
        return numbers if call.draw(st.booleans()) else [tuple(pair) for pair in numbers.tolist()]

    def maps(channels: int, low: float, high: float, dtype: torch.dtype) -> list[Tensor]:
        maps = [call.floats(batch, channels, *size, low=low, high=high, dtype=dtype) for size in sizes]
        last = call.draw(st.booleans())
        return [x.contiguous(memory_format=torch.channels_last) for x in maps] if last else maps

    return {
        "cls_scores": maps(classes, -6.0, 2.0, call.dtype),
        "bbox_preds": maps(4 * bins, -3.0, 3.0, edges_dtype),
        "strides": [2.0 ** (i + 1) for i in range(len(sizes))],
        "image_shapes": pairs(0.0, 60.0),
        "scale_factors": call.maybe(lambda: pairs(0.5, 2.0)),
        "score_thr": _threshold(call),
        "nms_pre": call.draw(st.sampled_from([1, 5, 1000, 2**31 - 1])),
        "iou_thr": _threshold(call),
        "max_per_img": call.draw(st.sampled_from([1, 9, 100])),
        "min_size": call.some(st.just(0), st.floats(0.0, 50.0)),
        "with_edges": call.draw(st.booleans()),
        "criterion": call.draw(st.sampled_from(["iou", "diou"])),
    }


def decode_boxes(call: Any) -> dict[str, Any]:
    stride = call.some(st.sampled_from([1.0, 8, 128.0]), st.just("tensor"))
    return {
        "edge_logits": call.floats(call.rows, 4 * call.bins, low=-5, high=5),
        "anchor_points": call.other(call.rows, 2, high=40),
        "stride": call.other(call.rows, low=1, high=9) if stride == "tensor" else stride,
        "max_shape": call.maybe(lambda: (60, 40.5)),
    }


OPS = {
    "nms": nms,
    "batched_nms": batched_nms,
    "nms_padded": nms_padded,
    "postprocess": postprocess,
    "decode_boxes": decode_boxes,
}


def has_one_result(op: str, arguments: dict[str, Any]) -> bool:
    """Whether rounding cannot decide between two results. An overlap of boxes that were decoded may stand on either
    side of the threshold, but in double that is too rare to happen."""
    return op != "postprocess" or all(x.dtype == torch.float64 for x in arguments["bbox_preds"])
