"""The whole loss of a task-aligned head in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from ..._distributed import start_mean_over_ranks
from .. import _assignment_arguments as _arguments
from .._head_maps import BoxOptions, check_head, checked_box_options, three_weights
from .._targets import PaddedTargets, checked_targets
from ..class_loss_maps import alpha_of, check_kind
from . import native, reference
from .types import AssignOptions, ClassOptions, Options

_OP = "task_aligned_loss"
CLASS_LOSSES = ("soft_bce", "quality_focal", "varifocal")


def task_aligned_loss(
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    targets: Sequence[Mapping[str, Tensor]] | PaddedTargets,
    *,
    strides: Sequence[float] = (8, 16, 32),
    topk: int = 10,
    final_topk: int | None = None,
    alpha: float = 0.5,
    beta: float = 6.0,
    inside_first: bool = True,
    min_side: float | None = None,
    assign_iou: str = "ciou",
    class_loss: str = "soft_bce",
    gamma: float = 2.0,
    class_alpha: float | None = None,
    iou_kind: str = "ciou",
    eps: float = 1e-7,
    target_margin: float = 0.01,
    eps_rule: str = "add",
    alpha_rule: str | None = None,
    center_offset: float = 0.5,
    loss_weights: tuple[float, float, float] = (0.5, 7.5, 1.5),
    average_over_ranks: bool = False,
) -> dict[str, Tensor]:
    """The training loss of a YOLO-like head from its raw outputs and the ground truth: assignment and all three losses.

    Three stages, which can also be called one by one: the boxes are decoded (:func:`decode_maps`) and assigned
    (:func:`task_aligned_assign`), the class scores are trained with the assigned scores as targets
    (:func:`class_loss_maps`), and the boxes of the positives with the IoU loss and distribution focal loss, weighted by
    them (:func:`box_loss_maps`). All losses are divided by the sum of the assigned scores, or by 1 if that is less.

    The defaults are those of ultralytics for YOLOv8, YOLO11 and YOLO12, whose trainer multiplies the sum of the three
    losses with the number of images. With one bin, as YOLO26 has it, loss_dfl is the L1 loss of the distances.

    ==================== =============================================================================================
    YOLOv8, 11, 12       as it stands
    YOLO26               the same; a second call with ``topk=7, final_topk=1`` for its one-to-one head
    YOLOv10              the same; a second call with ``topk=1`` for its one-to-one head
    PP-YOLOE             ``topk=13, alpha=1.0, min_side=0, assign_iou="iou", class_loss="varifocal", iou_kind="giou",
                         loss_weights=(1.0, 2.5, 0.5), average_over_ranks=True``
    TOOD                 ``topk=13, alpha=1.0, inside_first=False, min_side=0, assign_iou="iou",
                         class_loss="quality_focal", iou_kind="giou", eps_rule="floor", eps=1e-6, center_offset=0,
                         loss_weights=(1.0, 2.0, 0.0), average_over_ranks=True``, for a head that predicts logits
    ==================== =============================================================================================

    The host never waits for the GPU. On the native backend, memory does not grow with anchors times ground truths, and
    a CUDA graph can be captured, as of :func:`gfl_loss`.

    Args:
        cls_scores: (B, C, H, W) logits of each level, contiguous or channels-last, at most 8 levels.
        bbox_preds: (B, 4 * bins, H, W) of each level: edge distributions, or distances in strides for one bin.
        targets: a dict ``{"boxes": (n, 4) xyxy in pixels, "labels": (n,)}`` for each image, or all of them padded
            (:class:`PaddedTargets`). A label outside [0, C) raises an error if it is in host memory. On a GPU, where
            checking would mean waiting, its ground truth is ignored.
        strides: pixels per cell of each level.
        topk: of the assignment, as the next five: see :func:`task_aligned_assign`.
        final_topk: how many anchors a ground truth keeps; 1 for a head without NMS.
        alpha: the exponent of the score.
        beta: the exponent of the IoU.
        inside_first: False is TOOD's form.
        min_side: shorter sides count as this long when the points inside are sought. Default: the stride of the second
            level.
        assign_iou: ``"ciou"`` or ``"iou"``, of the assignment.
        class_loss: ``"soft_bce"``, ``"quality_focal"`` or ``"varifocal"``, as in :func:`class_loss_maps`.
        gamma: beta of quality focal loss, gamma of varifocal loss.
        class_alpha: alpha of varifocal loss (0.75 if None).
        iou_kind: of the IoU loss: ``"ciou"``, ``"giou"``, ``"diou"`` or ``"iou"``.
        eps: of the IoU loss, in stride units.
        target_margin: target distances are clamped to this far below the last bin.
        eps_rule: of the IoU loss, as in :func:`iou_loss`: ``"floor"`` or ``"add"``.
        alpha_rule: of CIoU, as in :func:`iou_loss`: ``"half"`` or ``"always"``, which is the default there.
        center_offset: where the centre of a cell lies in it: 0 is the corner, 0.5 the middle.
        loss_weights: of loss_cls, loss_bbox and loss_dfl.
        average_over_ranks: under torch.distributed, what the losses are divided by is the mean over the ranks.

    Returns:
        A dict of scalars: ``loss_cls``, ``loss_bbox`` and ``loss_dfl``; and, detached, ``num_pos``, ``avg_factor``
        (what the losses were divided by) and ``mean_quality`` (the IoU of the positives).

    Example:
        >>> shapes = [(32, 32), (16, 16), (8, 8)]
        >>> scores = [torch.randn(1, 80, *shape, requires_grad=True) for shape in shapes]
        >>> edges = [torch.randn(1, 64, *shape, requires_grad=True) for shape in shapes]
        >>> targets = [{"boxes": torch.tensor([[40.0, 40.0, 104.0, 104.0]]), "labels": torch.tensor([3])}]
        >>> losses = task_aligned_loss(scores, edges, targets)
        >>> (losses["loss_cls"] + losses["loss_bbox"] + losses["loss_dfl"]).backward()
    """
    check_head(_OP, cls_scores, bbox_preds, strides, least_bins=1)
    first = cls_scores[0]
    padded = checked_targets(_OP, targets, first)
    least = float(strides[min(1, len(strides) - 1)]) if min_side is None else min_side
    _check.choice(_OP, "class_loss", class_loss, CLASS_LOSSES)
    check_kind(_OP, "class_loss", class_loss, gamma, class_alpha)
    _check.flag(_OP, "average_over_ranks", average_over_ranks)
    rule = alpha_rule or ("always" if iou_kind == "ciou" else "half")
    boxes = BoxOptions(tuple(strides), center_offset, iou_kind, eps, target_margin, eps_rule, rule)
    options = Options(
        _checked_assign(AssignOptions(topk, final_topk, alpha, beta, inside_first, least, assign_iou)),
        ClassOptions(class_loss, float(gamma), alpha_of(class_loss, class_alpha)),
        checked_box_options(_OP, boxes, bbox_preds[0].shape[1] // 4),
        three_weights(_OP, loss_weights),
    )
    run = kernels_for(_OP, first, native) or reference
    start_mean = start_mean_over_ranks if average_over_ranks else _of_this_rank
    return run.task_aligned_loss(cls_scores, bbox_preds, padded, options, start_mean)._asdict()


def _of_this_rank(x: Tensor) -> Callable[[], Tensor]:
    return lambda: x


def _checked_assign(options: AssignOptions) -> AssignOptions:
    _arguments.best(_OP, "topk", options.topk)
    if options.final_topk is not None:
        _arguments.best(_OP, "final_topk", options.final_topk)
    numbers: dict[str, Any] = {name: getattr(options, name) for name in ("alpha", "beta", "min_side")}
    for name, value in numbers.items():
        _check.number(_OP, name, value, 0.0, 1e6)
    _check.choice(_OP, "assign_iou", options.iou, ("iou", "ciou"))
    _check.flag(_OP, "inside_first", options.inside_first)
    return options
