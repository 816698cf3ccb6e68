"""What passes through memory: the kernels of our CUDA backend that a row launches, and the bytes each has to move.

Every input that is read counts once, every output that is written counts once. What a few ground truths, positives,
candidates or partial sums add is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness import random_inputs
from benchmarks.harness.random_inputs import Inputs
from benchmarks.harness.rows import Row

LOSS, GRADIENT, BOTH = "loss", "gradient", "both"


@dataclass(frozen=True)
class Kernel:
    name: str  # of its __global__ function in csrc/cuda/
    bytes: int = 0
    elements: int = 0  # of the main inputs, where it works on each
    makes: str = LOSS  # a loss, a gradient, or both


Kernels = Iterator[Kernel]
FINISH_SUMS, SCALE = (
    Kernel("finish_sums"),
    Kernel("scale_kernel"),
)  # with an incoming gradient of 1, which moves nothing


def kernels(row: Row, inputs: Inputs, with_gradient: bool) -> list[Kernel]:
    """In the order in which they are launched, without those of torch. Empty where this table lacks the op."""
    find = TABLE.get(row.op)
    return [] if find is None else list(find(inputs, with_gradient))


def moved(row: Row, inputs: Inputs, with_gradient: bool, device: str) -> int:
    """Bytes of a pass; 0 where they are not known."""
    found = sum(kernel.bytes for kernel in kernels(row, inputs, with_gradient))
    if row.op == "integral" and with_gradient and device == "cpu" and not _is_half(inputs["pred"]):
        found += inputs[
            "pred"
        ].nbytes  # its forward leaves slopes there, which the backward reads in place of the logits
    return found


def _size(value: Any) -> int:
    return sum(x.nbytes for x in random_inputs.tensors(value))


def _elements(value: Any) -> int:
    return sum(x.numel() for x in random_inputs.tensors(value))


def _is_half(value: Any) -> bool:
    return random_inputs.tensors(value)[0].dtype in (torch.bfloat16, torch.float16)


def _compute_bytes(value: Any) -> int:
    """Of a number in the type that a kernel computes in."""
    return 8 if random_inputs.tensors(value)[0].dtype == torch.float64 else 4


def _reduced_loss(kernel: str, pred: Any, rest: int, with_gradient: bool) -> Kernels:
    """The gradient comes out of the forward; half types work everything out again in the backward."""
    main, elements = _size(pred), _elements(pred)
    in_forward = with_gradient and not _is_half(pred)
    yield Kernel(kernel, main + rest + (main if in_forward else 0), elements, BOTH if in_forward else LOSS)
    yield FINISH_SUMS
    if in_forward:
        yield SCALE
    elif with_gradient:
        yield Kernel(kernel, 2 * main + rest, elements, GRADIENT)


def _class_loss(inputs: Inputs, with_gradient: bool) -> Kernels:
    return _reduced_loss("class_loss_flat", inputs["pred"], _size(inputs["target"]), with_gradient)


def _distribution_focal_loss(inputs: Inputs, with_gradient: bool) -> Kernels:
    return _reduced_loss("distribution_focal_loss_kernel", inputs["pred"], _size(inputs["target"]), with_gradient)


def _iou_loss(inputs: Inputs, with_gradient: bool) -> Kernels:
    return _reduced_loss("iou_loss_kernel", inputs["pred"], _size(inputs["target"]), with_gradient)


def _multilevel(inputs: Inputs, with_gradient: bool) -> Kernels:
    labels = inputs["labels"].numel() * 4  # made int32; of the scores only the positives' are read
    return _reduced_loss("multilevel_class_loss_kernel", inputs["preds"], labels, with_gradient)


def _generalized(inputs: Inputs, with_gradient: bool) -> Kernels:
    """Unreduced: a loss of every element, and its gradient comes in again."""
    main = _size([inputs["p_left"], inputs["p_right"]])
    loss = inputs["p_left"].numel() * _compute_bytes(inputs["p_left"])
    elements = 2 * inputs["p_left"].numel()
    yield Kernel("generalized_focal_loss_kernel", main + _size(inputs["y"]) + loss, elements)
    if with_gradient:
        yield Kernel("generalized_focal_loss_kernel", 2 * main + _size(inputs["y"]) + loss, elements, GRADIENT)


def _integral_of(logits: Any, bins: int, with_gradient: bool) -> Kernels:
    main = _size(logits)
    result = logits.numel() // bins * logits.element_size()
    yield Kernel("integral_kernel", main + result, logits.numel())
    if with_gradient:
        yield Kernel("integral_kernel", 2 * main + result, logits.numel(), GRADIENT)


def _integral(inputs: Inputs, with_gradient: bool) -> Kernels:
    return _integral_of(inputs["pred"], 17, with_gradient)


def _distribution_kl_loss(inputs: Inputs, with_gradient: bool) -> Kernels:
    teacher = _size(inputs["teacher"])
    return _reduced_loss("distribution_kl_loss_kernel", inputs["student"], teacher, with_gradient)


def _distribution_statistics(inputs: Inputs, with_gradient: bool) -> Kernels:
    logits = inputs["edge_logits"]
    result = logits.numel() // 17 * 5 * logits.element_size()
    yield Kernel("distribution_statistics_kernel", _size(logits) + result, logits.numel())
    if with_gradient:
        moved = 2 * _size(logits) + result
        yield Kernel("distribution_statistics_kernel", moved, logits.numel(), GRADIENT)


def _decode_boxes(inputs: Inputs, with_gradient: bool) -> Kernels:
    return _integral_of(inputs["edge_logits"], 17, False)


def _distribution_box_loss(inputs: Inputs, with_gradient: bool) -> Kernels:
    logits = inputs["edge_logits"]
    others = _size([inputs["anchor_points"], inputs["target_boxes"]])
    results = len(logits) * 5 * _compute_bytes(logits)  # boxes and their quality
    yield Kernel("distribution_box_loss_kernel", _size(logits) + others + results, logits.numel())
    yield FINISH_SUMS
    if with_gradient:
        yield Kernel("distribution_box_loss_kernel", 2 * _size(logits) + others, logits.numel(), GRADIENT)


def _box_iou(inputs: Inputs, with_gradient: bool) -> Kernels:
    pairs = len(inputs["a"]) * len(inputs["b"])
    yield Kernel("box_iou_kernel", _size([inputs["a"], inputs["b"]]) + pairs * _compute_bytes(inputs["a"]))


def _atss_assign(inputs: Inputs, with_gradient: bool) -> Kernels:
    cells = len(inputs["gt_boxes"]) * sum(height * width for height, width in inputs["level_shapes"])
    yield Kernel("atss_clear", 4 * cells)
    yield Kernel("atss_claim")
    yield Kernel("atss_hand_out", 8 * cells)  # reads the ground truths, writes IoUs


def _task_aligned_assign(inputs: Inputs, with_gradient: bool) -> Kernels:
    anchors = inputs["boxes"].shape[0] * inputs["boxes"].shape[1]
    number = _compute_bytes(inputs["boxes"])
    yield Kernel("task_aligned_clear", 4 * anchors)
    yield Kernel("task_aligned_claim", 4 * number * anchors)
    yield Kernel("task_aligned_settle", 4 * anchors)
    yield Kernel("task_aligned_won", 4 * anchors)
    yield Kernel("task_aligned_finish", (4 + 2 * number) * anchors)


def _max_iou_assign(inputs: Inputs, with_gradient: bool) -> Kernels:
    images, anchors = inputs["gt_boxes"].shape[0], inputs["anchors"].shape[-2]
    number = _compute_bytes(inputs["anchors"])
    yield Kernel("max_iou_prepare")
    yield Kernel("max_iou_compare", 4 * number * anchors + (4 + number) * images * anchors)
    yield Kernel("max_iou_claim", 4 * number * anchors + (4 + 2 * number) * images * anchors)


def _by_cost(inputs: Inputs, with_gradient: bool) -> Kernels:
    anchors = inputs["boxes"].shape[0] * inputs["boxes"].shape[1]
    number = _compute_bytes(inputs["boxes"])
    scores = inputs["logits"] if "logits" in inputs else inputs["scores"]
    yield Kernel("cost_prepare", scores.nbytes + (8 + 7 * number) * anchors)
    yield Kernel("cost_claim", (4 + 8 * number) * anchors)
    yield Kernel("cost_settle", 4 * anchors)


def _fcos_assign(inputs: Inputs, with_gradient: bool) -> Kernels:
    cells = inputs["gt_boxes"].shape[0] * sum(height * width for height, width in inputs["level_shapes"])
    yield Kernel("fcos_clear", 4 * cells)
    yield Kernel("fcos_claim")
    yield Kernel("fcos_finish", (4 + 5 * _compute_bytes(inputs["gt_boxes"])) * cells)


def _gfl_loss(inputs: Inputs, with_gradient: bool) -> Kernels:
    scores, edges = inputs["cls_scores"], inputs["bbox_preds"]
    cells = sum(x.shape[0] * x.shape[2] * x.shape[3] for x in scores)
    number = _compute_bytes(scores)
    yield Kernel("atss_clear", 4 * cells)
    yield Kernel("atss_claim")
    yield Kernel("atss_hand_out", 8 * cells)  # reads the ground truths, writes labels
    yield Kernel("positive_weights_kernel", (4 + number) * cells)
    yield Kernel("finish_weights")
    yield Kernel("positive_boxes_kernel", (4 + number) * cells)
    yield Kernel("finish_boxes")
    yield Kernel("box_losses_kernel")
    yield from _reduced_loss("multilevel_class_loss_kernel", scores, (4 + number) * cells, with_gradient)
    if with_gradient:  # after the class loss's own backward: its forward came last
        yield Kernel("positive_boxes_kernel", _size(edges) + 4 * cells, makes=GRADIENT)


def _suppression(images: int, most: int, with_labels: bool) -> Kernels:
    """Pairs of boxes; most of those of different classes are soon done with, four for one of the others."""
    yield Kernel("mask_kernel", elements=images * most * most // (8 if with_labels else 2))
    yield Kernel("scan_kernel")


def _nms(inputs: Inputs, with_gradient: bool) -> Kernels:
    yield Kernel("sort_kernel")
    yield from _suppression(1, len(inputs["boxes"]), "labels" in inputs)


def _postprocess(inputs: Inputs, with_gradient: bool) -> Kernels:
    """The logits of all classes are read once; again only where a chunk has a candidate."""
    scores = inputs["cls_scores"]
    most = sum(min(1000, level[0].numel()) for level in scores)
    yield Kernel("clear_kernel")
    yield Kernel("count_kernel", _size(scores), _elements(scores))
    yield from (Kernel(name) for name in ("bound_kernel", "collect_kernel", "order_kernel", "decode_kernel"))
    yield from _suppression(len(scores[0]), most, True)
    yield Kernel("write_kernel")


TABLE: dict[str, Callable[[Inputs, bool], Kernels]] = {
    "quality_focal_loss": _class_loss,
    "sigmoid_focal_loss": _class_loss,
    "varifocal_loss": _class_loss,
    "soft_bce_loss": _class_loss,
    "distribution_focal_loss": _distribution_focal_loss,
    "generalized_focal_loss": _generalized,
    "integral": _integral,
    "distribution_kl_loss": _distribution_kl_loss,
    "distribution_statistics": _distribution_statistics,
    "iou_loss": _iou_loss,
    "box_iou": _box_iou,
    "distribution_box_loss": _distribution_box_loss,
    "decode_boxes": _decode_boxes,
    "atss_assign": _atss_assign,
    "task_aligned_assign": _task_aligned_assign,
    "max_iou_assign": _max_iou_assign,
    "dynamic_soft_label_assign": _by_cost,
    "simota_assign": _by_cost,
    "fcos_assign": _fcos_assign,
    "gfl_loss": _gfl_loss,
    "multilevel_sigmoid_focal_loss": _multilevel,
    "multilevel_varifocal_loss": _multilevel,
    "multilevel_soft_bce_loss": _multilevel,
    "nms": _nms,
    "batched_nms": _nms,
    "postprocess": _postprocess,
}
