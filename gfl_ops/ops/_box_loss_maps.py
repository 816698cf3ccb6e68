"""The box losses of the positives over the maps of all levels of a head: the raw ops, and what differentiates them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._native import Kernel, backed_by_huge_pages
from .._op import DifferentiableOp, Op, arguments_of

BoxGradient = tuple[Tensor | None, Tensor | None, float, float, Tensor, Sequence[Tensor]]
SUMS = 5  # of weight * IoU loss, weight * DFL, quality, weight, 1


class PositiveBoxes(NamedTuple):
    """Names as in gfl_positive_boxes in csrc/gfl.h; edges are maps as _native.as_map leaves them."""

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
    total_weight: Tensor
    num_pos: Tensor
    scale_iou: float
    scale_dfl: float


class RawBoxLossMaps:
    """The raw ops of one backend, whose kernels write into outputs that they are given.

    boxes(outputs, gradient, *PositiveBoxes): the (B, A) quality of the positives, and the sums; or, where those are
    None, from (grad_iou, grad_dfl, their scales, total_weight, ...) the maps' gradients.
    losses(outputs, *BoxLosses): loss_bbox, loss_dfl, mean quality.
    """

    def __init__(self, prefix: str, boxes: Callable[..., None], losses: Callable[..., None]) -> None:
        self.run_boxes = boxes
        self.run_losses = losses
        arguments = arguments_of(PositiveBoxes)
        grads = {"grad_iou": Tensor | None, "grad_dfl": Tensor | None, "scale_iou": float, "scale_dfl": float}
        grads["total_weight"] = Tensor
        name = f"{prefix}positive_boxes"
        self.forward = Op(f"{name}_forward", arguments, "(Tensor, Tensor)", self._forward, self._outputs_like)
        self.backward = Op(f"{name}_backward", grads | arguments, "Tensor[]", self._backward, self._gradients_like)
        three = "(Tensor, Tensor, Tensor)"
        self.losses = Op(f"{prefix}box_losses", arguments_of(BoxLosses), three, self._losses, self._losses_like)

    def _outputs_like(
        self, edges: Sequence[Tensor], assigned_gt: Tensor, weights: Tensor, *_: Any
    ) -> tuple[Tensor, Tensor]:
        return torch.empty_like(weights), weights.new_empty(SUMS, dtype=torch.float64)

    def _forward(
        self, edges: Sequence[Tensor], assigned_gt: Tensor, weights: Tensor, *args: Any
    ) -> tuple[Tensor, Tensor]:
        outputs = self._outputs_like(edges, assigned_gt, weights)
        self.run_boxes(outputs, None, edges, assigned_gt, weights, *args)
        return outputs

    def _gradients_like(self, *args: Any) -> list[Tensor]:
        return [torch.empty_like(x) for x in args[5]]

    def _backward(self, *args: Any) -> list[Tensor]:
        grads = self._gradients_like(*args)
        for grad in grads:
            backed_by_huge_pages(grad)
        self.run_boxes(None, (*args[:5], grads), *args[5:])
        return grads

    def _losses_like(self, sums: Tensor, total_weight: Tensor, num_pos: Tensor, *_: Any) -> tuple[Tensor, ...]:
        return torch.empty_like(num_pos), torch.empty_like(num_pos), torch.empty_like(num_pos)

    def _losses(self, sums: Tensor, total_weight: Tensor, num_pos: Tensor, *scales: float) -> tuple[Tensor, ...]:
        outputs = self._losses_like(sums, total_weight, num_pos)
        self.run_losses(outputs, sums, total_weight, num_pos, *scales)
        return outputs


class BoxLossMapsOp(DifferentiableOp):
    """(loss_bbox, loss_dfl, mean quality) = op(edges, *BoxLosses, *PositiveBoxes but edges).

    The forward has its sums already; the backward works the positives out again, which are few.
    """

    materialize_grads = False  # zeros that nobody reads would be a launch

    def __init__(self, name: str, raw: RawBoxLossMaps) -> None:
        super().__init__(name, raw.losses, raw.backward, num_losses=2)

    def compute(
        self, forward: Callable[..., Any], inputs: Sequence[Tensor], others: Sequence[Any], keep: bool
    ) -> tuple[Any, None]:
        return forward(*others[: len(BoxLosses._fields)]), None

    def gradients(self, grads: Sequence[Any], inputs: Sequence[Tensor], others: Sequence[Any]) -> Sequence[Tensor]:
        _, total_weight, _, *scales = others[: len(BoxLosses._fields)]
        boxes = others[len(BoxLosses._fields) :]
        return self.raw_backward(*grads, *scales, total_weight, list(inputs), *boxes)


_FIELDS = (
    *("edges", "assigned_gt", "weights", "gt_boxes", "center_offset"),
    *("iou_kind", "eps_rule", "alpha_rule", "eps", "target_margin"),
    *("levels", "batch", "bins", "num_gts"),
)
_forward = Kernel("positive_boxes_forward", (*_FIELDS, "quality", "sums"))
_backward = Kernel(
    "positive_boxes_backward",
    (*_FIELDS, "grad_iou", "grad_dfl", "scale_iou", "scale_dfl", "total_weight", "grad"),
)
_losses = Kernel("box_losses_forward", (*BoxLosses._fields, "dtype", "loss_iou", "loss_dfl", "mean_quality"))


def _run_boxes(outputs: tuple[Tensor, Tensor] | None, gradient: BoxGradient | None, *args: Any) -> None:
    a = PositiveBoxes(*args)
    batch, channels = a.edges[0].shape[:2]
    values: Sequence[Any] = (
        *(a.edges, a.assigned_gt, a.weights, a.gt_boxes, a.center_offset),
        *(a.iou_kind, a.eps_rule, a.alpha_rule, a.eps, a.target_margin),
        *((a.edges, a.strides), batch, channels // 4, a.gt_boxes.shape[1]),
    )
    if gradient is None:
        _forward.run(*values, *outputs or ())
    else:
        _backward.run(*values, *gradient)


def _run_losses(outputs: tuple[Tensor, Tensor, Tensor], *args: Any) -> None:
    _losses.run(*args, BoxLosses(*args).num_pos, *outputs)


BOX_LOSS_MAPS = RawBoxLossMaps("", _run_boxes, _run_losses)
