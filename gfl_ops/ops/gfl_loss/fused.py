"""The GFL loss on kernels, whichever: assign, one pass over the positives, one over the logits of all levels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _native
from ..._arguments import compute_dtype
from ..._native import backed_by_huge_pages
from ..._op import DifferentiableOp, Op, arguments_of
from ..._reduce import FLOAT32_EPS
from .._class_loss import QUALITY_FOCAL
from .._multilevel_class_loss import MultilevelLossOp, RawMultilevelLoss
from ..iou_loss.native import ALPHA_RULES, EPS_RULES, KINDS
from .types import Losses, Options, PaddedTargets

_OP = "gfl_loss"
Assigned = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
BoxGradient = tuple[Tensor | None, Tensor | None, float, float, Tensor, Sequence[Tensor]]


class Assign(NamedTuple):
    cls_scores: list[Tensor]
    gt_boxes: Tensor
    gt_labels: Tensor
    gt_counts: Tensor | None
    valid_shapes: Tensor | None
    strides: list[float]
    topk: int
    anchor_scale: float
    center_offset: float


class PositiveBoxes(NamedTuple):
    """Names as in gfl_positive_boxes in csrc/gfl.h"""

    edges: list[Tensor]
    assigned_gt: Tensor
    weights: Tensor
    gt_boxes: Tensor
    strides: list[float]
    center_offset: float
    iou_kind: int
    eps_rule: int
    alpha_rule: int
    eps: float
    target_margin: float


class BoxLosses(NamedTuple):
    """gfl_box_losses in csrc/gfl.h"""

    sums: Tensor
    normalisers: Tensor
    num_pos: Tensor
    scale_iou: float
    scale_dfl: float


class Kernels(NamedTuple):
    """What a backend has for the loss. All but the last write into outputs that they are given."""

    # (outputs, *Assign): (B, A) assigned gts, their labels and the weights of the positives; the two normalisers; the
    # number of positives
    assign: Callable[..., None]
    # (outputs, gradient, *PositiveBoxes): (B, A) quality of the positives and the three sums that box_losses takes; or,
    # where those are None, from (grad_iou, grad_dfl, their scales, normalisers, ...) the maps' gradients
    boxes: Callable[..., None]
    # (outputs, *BoxLosses): loss_bbox, loss_dfl, mean quality
    box_losses: Callable[..., None]
    class_loss: RawMultilevelLoss


class RawOps:
    """The raw ops of one backend."""

    def __init__(self, prefix: str, kernels: Kernels) -> None:
        self.kernels = kernels
        boxes = arguments_of(PositiveBoxes)
        grads = {"grad_iou": Tensor | None, "grad_dfl": Tensor | None, "scale_iou": float, "scale_dfl": float}
        grads["normalisers"] = Tensor
        five, three = f"({', '.join(['Tensor'] * 5)})", "(Tensor, Tensor, Tensor)"
        self.assign = Op(f"{prefix}gfl_assign", arguments_of(Assign), five, self._assign, self._assigned_like)
        self.boxes = Op(
            f"{prefix}positive_boxes_forward", boxes, "(Tensor, Tensor)", self._boxes, self._boxes_outputs_like
        )
        self.boxes_backward = Op(
            f"{prefix}positive_boxes_backward", grads | boxes, "Tensor[]", self._boxes_backward, self._gradients_like
        )
        self.box_losses = Op(
            f"{prefix}box_losses", arguments_of(BoxLosses), three, self._box_losses, self._box_losses_like
        )

    def _assigned_like(self, cls_scores: Sequence[Tensor], *_: Any) -> Assigned:
        size = (cls_scores[0].shape[0], sum(x.shape[2] * x.shape[3] for x in cls_scores))
        assigned_gt = cls_scores[0].new_empty(size, dtype=torch.int32)
        weights = assigned_gt.new_empty(size, dtype=compute_dtype(cls_scores[0]))
        return assigned_gt, torch.empty_like(assigned_gt), weights, weights.new_empty(2), weights.new_empty(())

    def _assign(self, cls_scores: Sequence[Tensor], *args: Any) -> Assigned:
        outputs = self._assigned_like(cls_scores)
        self.kernels.assign(outputs, cls_scores, *args)
        return outputs

    def _boxes_outputs_like(
        self, edges: Sequence[Tensor], assigned_gt: Tensor, weights: Tensor, *_: Any
    ) -> tuple[Tensor, Tensor]:
        return torch.empty_like(weights), weights.new_empty(3, dtype=torch.float64)

    def _boxes(
        self, edges: Sequence[Tensor], assigned_gt: Tensor, weights: Tensor, *args: Any
    ) -> tuple[Tensor, Tensor]:
        outputs = self._boxes_outputs_like(edges, assigned_gt, weights)
        self.kernels.boxes(outputs, None, edges, assigned_gt, weights, *args)
        return outputs

    def _gradients_like(self, *args: Any) -> list[Tensor]:
        return [torch.empty_like(x) for x in args[5]]

    def _boxes_backward(self, *args: Any) -> list[Tensor]:
        grads = self._gradients_like(*args)
        for grad in grads:
            backed_by_huge_pages(grad)
        self.kernels.boxes(None, (*args[:5], grads), *args[5:])
        return grads

    def _box_losses_like(self, sums: Tensor, normalisers: Tensor, num_pos: Tensor, *_: Any) -> tuple[Tensor, ...]:
        return torch.empty_like(num_pos), torch.empty_like(num_pos), torch.empty_like(num_pos)

    def _box_losses(self, sums: Tensor, normalisers: Tensor, num_pos: Tensor, *scales: float) -> tuple[Tensor, ...]:
        outputs = self._box_losses_like(sums, normalisers, num_pos)
        self.kernels.box_losses(outputs, sums, normalisers, num_pos, *scales)
        return outputs


class BoxLossesOp(DifferentiableOp):
    """(loss_bbox, loss_dfl, mean quality) = op(edges, *BoxLosses, *PositiveBoxes but edges).

    The forward has its sums already; the backward works the positives out again, which are few.
    """

    materialize_grads = False  # zeros that nobody reads would be a launch

    def __init__(self, raw: RawOps) -> None:
        super().__init__(_OP, raw.box_losses, raw.boxes_backward, num_losses=2)

    def compute(
        self, forward: Callable[..., Any], inputs: Sequence[Tensor], others: Sequence[Any], keep: bool
    ) -> tuple[Any, None]:
        return forward(*others[: len(BoxLosses._fields)]), None

    def gradients(self, grads: Sequence[Any], inputs: Sequence[Tensor], others: Sequence[Any]) -> Sequence[Tensor]:
        _, normalisers, _, *scales = others[: len(BoxLosses._fields)]
        boxes = others[len(BoxLosses._fields) :]
        return self.raw_backward(*grads, *scales, normalisers, list(inputs), *boxes)


class FusedGFLLoss:
    """gfl_loss as the reference has it, on one backend."""

    def __init__(self, prefix: str, kernels: Kernels) -> None:
        self.raw = RawOps(prefix, kernels)
        self.box_losses = BoxLossesOp(self.raw)
        self.class_loss = MultilevelLossOp(_OP, kernels.class_loss)

    def __call__(
        self,
        cls_scores: Sequence[Tensor],
        bbox_preds: Sequence[Tensor],
        targets: PaddedTargets,
        valid_shapes: Tensor | None,
        options: Options,
        start_mean: Callable[[Tensor], Callable[[], Tensor]],
    ) -> Losses:
        cls_scores = [_native.as_map(x) for x in cls_scores]
        bbox_preds = [_native.as_map(x) for x in bbox_preds]
        strides = list(options.strides)
        gt_boxes = targets.boxes.contiguous()
        with torch.no_grad():
            assigned_gt, labels, weights, normalisers, num_pos = self.raw.assign(
                cls_scores,
                gt_boxes,
                targets.labels.long().contiguous(),
                None if targets.counts is None else targets.counts.long().contiguous(),
                None if valid_shapes is None else valid_shapes.to(gt_boxes.dtype).contiguous(),
                strides,
                options.topk,
                options.anchor_scale,
                options.center_offset,
            )
            finish_mean = start_mean(normalisers)
            rules = KINDS[options.iou_kind], EPS_RULES[options.eps_rule], ALPHA_RULES[options.alpha_rule]
            box_options = strides, options.center_offset, *rules, options.eps, options.target_margin
            boxes = (assigned_gt, weights, gt_boxes.to(weights.dtype), *box_options)
            quality, sums = self.raw.boxes(bbox_preds, *boxes)
            normalisers = finish_mean()

        cls_weight, bbox_weight, dfl_weight = options.loss_weights
        # The sum of the positives is a mean by 1, that of their sides' mean one by 4; each has its eps.
        scales = (bbox_weight / (1 + FLOAT32_EPS), dfl_weight * 4 / (4 + FLOAT32_EPS))
        loss_bbox, loss_dfl, mean_quality = self.box_losses(bbox_preds, sums, normalisers, num_pos, *scales, *boxes)
        loss_cls = self.class_loss(
            cls_scores, labels, quality, normalisers, cls_weight, QUALITY_FOCAL, options.beta, 0.0
        )
        return Losses(loss_cls, loss_bbox, loss_dfl, num_pos, normalisers[0], mean_quality)
