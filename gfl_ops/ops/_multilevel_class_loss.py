"""A class loss over the maps of all levels of a head, with labels in the order of the anchors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _arguments
from .._arguments import SUM, compute_dtype
from .._native import Kernel, as_map, backed_by_huge_pages
from .._op import DifferentiableOp, Op, arguments_of, gradient_in_forward, scale_gradient, scaled

Layout = tuple[torch.Size, tuple[int, ...]]


class MultilevelClassLoss(NamedTuple):
    """gfl_multilevel_class_loss in csrc/gfl.h; pred are maps as _native.as_map leaves them."""

    pred: list[Tensor]
    labels: Tensor
    scores: Tensor | None
    avg_factor: Tensor | None
    scale: float
    formula: int
    exponent: float
    alpha: float


def _new_gradient(preds: Sequence[Tensor]) -> Tensor:
    """The gradients of all levels in one tensor, so that one launch scales them."""
    return preds[0].new_empty(sum(pred.numel() for pred in preds))


def _layouts(preds: Sequence[Tensor]) -> list[Layout]:
    return [(pred.shape, pred.stride()) for pred in preds]


def _of_levels(grad: Tensor, layouts: Sequence[Layout]) -> list[Tensor]:
    """Each level's part, laid out as its prediction is."""
    parts, start = [], 0
    for shape, stride in layouts:
        parts.append(grad.as_strided(shape, stride, start))
        start += shape.numel()
    return parts


def gradients_of(grad: Tensor, preds: Sequence[Tensor]) -> list[Tensor]:
    return _of_levels(grad, _layouts(preds))


class RawMultilevelLoss:
    """As RawLoss, for a list of predictions and always summed; `grad` is that of all levels."""

    def __init__(self, prefix: str, run: Callable[..., None], scale: Op = scale_gradient) -> None:
        arguments = arguments_of(MultilevelClassLoss)
        with_grad, with_grad_loss = {**arguments, "with_grad": bool}, {"grad_loss": Tensor, **arguments}
        name = f"{prefix}multilevel_class_loss"
        self.run = run
        self.scale = scale
        self.forward = Op(f"{name}_forward", with_grad, "(Tensor, Tensor)", self._forward, self._forward_fake)
        self.backward = Op(f"{name}_backward", with_grad_loss, "Tensor", self._backward, self._backward_fake)

    def _forward_fake(self, preds: Sequence[Tensor], *args: Any) -> tuple[Tensor, Tensor]:
        loss = torch.empty((), dtype=compute_dtype(preds[0]), device=preds[0].device)
        return loss, _new_gradient(preds) if args[-1] else preds[0].new_empty(0)

    def _forward(self, preds: Sequence[Tensor], *args: Any) -> tuple[Tensor, Tensor]:
        loss, grad = self._forward_fake(preds, *args)
        self.run(None, loss, backed_by_huge_pages(grad) if args[-1] else None, preds, *args[:-1])
        return loss, grad

    def _backward_fake(self, grad_loss: Tensor, preds: Sequence[Tensor], *args: Any) -> Tensor:
        return _new_gradient(preds)

    def _backward(self, grad_loss: Tensor, preds: Sequence[Tensor], *args: Any) -> Tensor:
        grad = backed_by_huge_pages(_new_gradient(preds))
        self.run(grad_loss, None, grad, preds, *args)
        return grad


class MultilevelLossOp(DifferentiableOp):
    """loss = op(preds, labels, ...): the sum over levels, anchors and classes, times scale / (avg_factor + eps)."""

    def __init__(self, name: str, raw: RawMultilevelLoss) -> None:
        super().__init__(name, raw.forward, raw.backward)
        self.scale = raw.scale

    layouts = staticmethod(_layouts)

    def compute(
        self, forward: Callable[..., Any], inputs: Sequence[Tensor], others: Sequence[Any], keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        keep = keep and gradient_in_forward(inputs[0], SUM)
        loss, grad = forward(list(inputs), *others, keep)
        return loss, grad if keep else None

    def gradients(self, grads: Sequence[Any], inputs: Sequence[Tensor], others: Sequence[Any]) -> Sequence[Tensor]:
        return gradients_of(self.raw_backward(grads[0], list(inputs), *others), inputs)

    def gradients_of_kept(self, kept: Tensor, grad: Tensor, layouts: Any) -> Sequence[Tensor]:
        return _of_levels(scaled(kept, grad, self.scale), layouts)


def run_loss(
    loss: MultilevelLossOp,
    preds: Sequence[Tensor],
    labels: Tensor,
    scores: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    formula: int,
    exponent: float = 0.0,
    alpha: float = 0.0,
) -> Tensor:
    """A public function's arguments in the form that the op takes."""
    preds = [as_map(pred) for pred in preds]
    size = labels.numel() * preds[0].shape[1]
    _, scale, divisor, factor = _arguments.reduction(reduction, avg_factor, preds[0], size)
    labels, scores = labels.to(torch.int32).contiguous(), _arguments.vector(scores, preds[0])
    return loss(preds, labels, scores, factor, scale / max(divisor, 1), formula, float(exponent), float(alpha))


_FIELDS = (*MultilevelClassLoss._fields, "levels", "batch", "classes")
_forward = Kernel("multilevel_class_loss_forward", (*_FIELDS, "loss", "grad"))
_backward = Kernel("multilevel_class_loss_backward", (*_FIELDS, "grad_loss", "grad"))


def _run(grad_loss: Tensor | None, loss: Tensor | None, grad: Tensor | None, *args: Any) -> None:
    preds = args[0]
    levels = preds, [1.0] * len(preds)
    maps = None if grad is None else (grad, preds)
    if grad_loss is None:
        _forward.run(*args, levels, *preds[0].shape[:2], loss, maps)
    else:
        _backward.run(*args, levels, *preds[0].shape[:2], grad_loss, maps)


MULTILEVEL_CLASS_LOSS = RawMultilevelLoss("", _run)
