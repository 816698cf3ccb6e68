"""The box half of the GFL loss on the compiled core: one pass over a positive's four distributions each way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _arguments
from ..._arguments import ROWS, compute_dtype
from ..._native import Kernel, backed_by_huge_pages
from ..._op import DifferentiableOp, Op, Size, arguments_of
from ..iou_loss.native import ALPHA_RULES, EPS_RULES, KINDS
from .reference import DistributionBoxLosses


class DistributionBoxLoss(NamedTuple):
    """gfl_distribution_box_loss in csrc/gfl.h; its IoU loss is linear."""

    logits: Tensor
    mode: int
    scale: float
    divisor: Size
    avg_factor: Tensor | None
    anchor_points: Tensor
    target_boxes: Tensor
    strides: Tensor | None
    weight: Tensor | None
    stride: float
    target_margin: float
    iou_kind: int
    eps_rule: int
    alpha_rule: int
    eps: float


Outputs = tuple[Tensor, Tensor, Tensor, Tensor]  # IoU loss, DFL, boxes, quality


class DistributionBoxOp(DifferentiableOp):
    """On the backend whose run(grad_losses, outputs, grad, *arguments) it is given: a forward has outputs alone, a
    backward (grad_iou, grad_dfl) and the gradient."""

    def __init__(self, prefix: str, run: Callable[..., None]) -> None:
        arguments = arguments_of(DistributionBoxLoss)
        name = f"{prefix}distribution_box_loss"
        grads = {"grad_iou": Tensor, "grad_dfl": Tensor}
        self.run = run
        super().__init__(
            "distribution_box_loss",
            Op(f"{name}_forward", arguments, "(Tensor, Tensor, Tensor, Tensor)", self._forward, self._outputs_like),
            Op(f"{name}_backward", grads | arguments, "Tensor", self._backward, self._backward_fake),
            num_losses=2,
        )

    def _outputs_like(self, logits: Tensor, mode: int, *_: Any) -> Outputs:
        rows = logits.shape[0]
        like = torch.empty((), dtype=compute_dtype(logits), device=logits.device)
        size = (rows,) if mode == ROWS else ()
        return like.new_empty(size), like.new_empty(size), like.new_empty(rows, 4), like.new_empty(rows)

    def _forward(self, logits: Tensor, mode: int, *args: Any) -> Outputs:
        outputs = self._outputs_like(logits, mode)
        self.run(None, outputs, None, logits, mode, *args)
        return outputs

    def _backward_fake(self, grad_iou: Tensor, grad_dfl: Tensor, logits: Tensor, *_: Any) -> Tensor:
        return torch.empty_like(logits)

    def _backward(self, grad_iou: Tensor, grad_dfl: Tensor, logits: Tensor, *args: Any) -> Tensor:
        grad = backed_by_huge_pages(torch.empty_like(logits))
        self.run((grad_iou.contiguous(), grad_dfl.contiguous()), None, grad, logits, *args)
        return grad


_FIELDS = (*DistributionBoxLoss._fields, "rows", "bins")
_forward = Kernel("distribution_box_loss_forward", (*_FIELDS, "loss_iou", "loss_dfl", "boxes", "quality"))
_backward = Kernel("distribution_box_loss_backward", (*_FIELDS, "grad_iou", "grad_dfl", "grad_loss_stride", "grad"))


def _run(grad_losses: tuple[Tensor, Tensor] | None, outputs: Outputs | None, grad: Tensor | None, *args: Any) -> None:
    logits, mode = args[:2]
    rows, channels = logits.shape
    if grad_losses is None:
        _forward.run(*args, rows, channels // 4, *outputs or ())
    else:
        _backward.run(*args, rows, channels // 4, *grad_losses, 1 if mode == ROWS else 0, grad)


_LOSS = DistributionBoxOp("", _run)


def distribution_box_loss(
    edge_logits: Tensor,
    anchor_points: Tensor,
    target_boxes: Tensor,
    weight: Tensor | None,
    stride: float | Tensor,
    iou_kind: str,
    eps: float,
    target_margin: float,
    reduction: str,
    avg_factor: float | Tensor | None,
    eps_rule: str,
    alpha_rule: str,
    loss: DistributionBoxOp = _LOSS,
) -> DistributionBoxLosses:
    """edge_logits is (P, 4 * bins) here."""
    outputs = loss(
        (edge_logits,),
        *_arguments.reduction(reduction, avg_factor, edge_logits, edge_logits.shape[0]),
        _arguments.vector(anchor_points, edge_logits),
        _arguments.vector(target_boxes, edge_logits),
        _arguments.vector(stride, edge_logits) if isinstance(stride, Tensor) else None,
        _arguments.vector(weight, edge_logits),
        1.0 if isinstance(stride, Tensor) else float(stride),
        float(target_margin),
        KINDS[iou_kind],
        EPS_RULES[eps_rule],
        ALPHA_RULES[alpha_rule],
        float(eps),
    )
    return DistributionBoxLosses(*outputs)
