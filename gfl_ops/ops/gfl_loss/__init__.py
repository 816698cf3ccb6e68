"""The whole GFL loss in one call."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from ... import _check
from ..._dispatch import kernels_for
from ..._distributed import start_mean_over_ranks
from .._head_maps import check_head, three_weights
from .._targets import PaddedTargets, checked_targets
from ..iou_loss import check_rules
from ..iou_loss.native import KINDS
from . import native, reference
from .types import Options

__all__ = ["PaddedTargets", "gfl_loss"]

_OP = "gfl_loss"


def gfl_loss(
    cls_scores: Sequence[Tensor],
    bbox_preds: Sequence[Tensor],
    targets: Sequence[Mapping[str, Tensor]] | PaddedTargets,
    valid_shapes: Tensor | None = None,
    *,
    strides: Sequence[float] = (8, 16, 32, 64, 128),
    beta: float = 2.0,
    loss_weights: tuple[float, float, float] = (1.0, 2.0, 0.25),
    topk: int = 9,
    iou_kind: str = "giou",
    eps: float = 1e-6,
    target_margin: float = 0.1,
    anchor_scale: float = 8.0,
    center_offset: float = 0.0,
    eps_rule: str = "floor",
    alpha_rule: str = "half",
) -> dict[str, Tensor]:
    """The training loss of a GFL head from its raw outputs and the ground truth: assignment and all three losses.

    Anchors are assigned by :func:`atss_assign`. The class scores are trained with quality focal loss, and the quality
    of a positive is the IoU of its decoded box. The boxes of the positives are trained with the IoU loss and with
    distribution focal loss, both weighted by the highest class probability of the positive. loss_cls is divided by the
    number of positives, where an image without positives counts as one. loss_bbox and loss_dfl are divided by the sum
    of the weights, or by 1 if that is less. Under torch.distributed both divisors are averaged over the ranks. Values
    and gradients are those of mmdet 3.x's GFLHead, with its losses summed over the levels.

    The host never waits for the GPU. On the native backend, memory does not grow with anchors times ground truths. With
    :class:`PaddedTargets` on a GPU, forward and backward together are 12 launches. A CUDA graph can be captured of them
    and replayed with new outputs and targets in the same buffers.

    Args:
        cls_scores: (B, C, H, W) logits of each level, contiguous or channels-last.
        bbox_preds: (B, 4 * bins, H, W) edge distributions of each level.
        targets: a dict ``{"boxes": (n, 4) xyxy in pixels, "labels": (n,)}`` for each image, or all of them padded
            (:class:`PaddedTargets`). A label outside [0, C) raises an error if it is in host memory. On a GPU, where
            checking would mean waiting, its ground truth is ignored.
        valid_shapes: (B, 2) height and width in pixels of each image inside the padded batch (mmdet's pad_shape).
            Anchors outside it are ignored.
        strides: pixels per cell of each level.
        beta: exponent of the quality focal loss.
        loss_weights: of loss_cls, loss_bbox and loss_dfl.
        topk: how many candidates a ground truth has on each level.
        iou_kind: ``"giou"``, ``"iou"``, ``"diou"`` or ``"ciou"``.
        eps: of the IoU loss.
        target_margin: target distances are clamped to this far below the last bin.
        anchor_scale: the side of an anchor, in strides.
        center_offset: where the centre of an anchor lies in its cell: 0 is the corner, 0.5 the middle.
        eps_rule: of the IoU loss, as in :func:`iou_loss`: ``"floor"`` or ``"add"``.
        alpha_rule: of CIoU, as in :func:`iou_loss`: ``"half"`` or ``"always"``.

    Returns:
        A dict of scalars: ``loss_cls``, ``loss_bbox`` and ``loss_dfl``; and, detached, ``num_pos``, ``avg_factor``
        (what loss_cls was divided by) and ``mean_quality`` (of the positives).

    Example:
        >>> shapes = [(32, 32), (16, 16), (8, 8)]
        >>> scores = [torch.randn(1, 80, *shape, requires_grad=True) for shape in shapes]
        >>> edges = [torch.randn(1, 68, *shape, requires_grad=True) for shape in shapes]
        >>> targets = [{"boxes": torch.tensor([[40.0, 40.0, 104.0, 104.0]]), "labels": torch.tensor([3])}]
        >>> losses = gfl_loss(scores, edges, targets, strides=(8, 16, 32))
        >>> (losses["loss_cls"] + losses["loss_bbox"] + losses["loss_dfl"]).backward()
    """
    check_head(_OP, cls_scores, bbox_preds, strides, least_bins=2)
    first = cls_scores[0]
    padded = checked_targets(_OP, targets, first)
    if valid_shapes is not None:
        _check.tensor(_OP, "valid_shapes", valid_shapes)
        _check.shape(_OP, "valid_shapes", valid_shapes, (first.shape[0], 2), "(B, 2)")
        _check.same_device(_OP, "valid_shapes", valid_shapes, first)
    options = _checked_options(
        Options(
            tuple(float(stride) for stride in strides),
            beta,
            tuple(loss_weights),  # type: ignore[arg-type]
            topk,
            iou_kind,
            eps,
            target_margin,
            anchor_scale,
            center_offset,
            eps_rule,
            alpha_rule,
        ),
        bbox_preds[0].shape[1] // 4,
    )
    run = kernels_for(_OP, first, native) or reference
    return run.gfl_loss(cls_scores, bbox_preds, padded, valid_shapes, options, start_mean_over_ranks)._asdict()


def _checked_options(options: Options, bins: int) -> Options:
    _check.number(_OP, "beta", options.beta, 0)
    weights = three_weights(_OP, options.loss_weights)
    _check.whole(_OP, "topk", options.topk, 1)
    _check.choice(_OP, "iou_kind", options.iou_kind, tuple(KINDS))
    check_rules(_OP, options.iou_kind, options.eps_rule, options.alpha_rule)
    _check.number(_OP, "eps", options.eps, 0)
    _check.number(_OP, "target_margin", options.target_margin, 0, bins - 1)
    _check.number(_OP, "anchor_scale", options.anchor_scale, math.ulp(0.0))
    _check.number(_OP, "center_offset", options.center_offset, -1e6, 1e6)
    return options._replace(
        beta=float(options.beta),
        loss_weights=weights,
        eps=float(options.eps),
        target_margin=float(options.target_margin),
        anchor_scale=float(options.anchor_scale),
        center_offset=float(options.center_offset),
    )
