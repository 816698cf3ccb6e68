"""The unified generalized focal loss on the compiled core."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ... import _arguments
from ..._arguments import ROWS, compute_dtype
from ..._native import Kernel
from ..._op import DifferentiableOp, Op, Size, arguments_of


class GeneralizedFocalLoss(NamedTuple):
    """gfl_generalized_focal_loss in csrc/gfl.h"""

    p_left: Tensor
    p_right: Tensor
    mode: int
    scale: float
    divisor: Size
    avg_factor: Tensor | None
    y: Tensor
    y_left: Tensor
    y_right: Tensor
    weight: Tensor | None
    beta: float


class GeneralizedFocalOp(DifferentiableOp):
    """On the backend whose run(grad_loss, loss, grads, *arguments) it is given: a forward has a loss, a backward the
    others."""

    def __init__(self, prefix: str, run: Callable[..., None]) -> None:
        arguments = arguments_of(GeneralizedFocalLoss)
        name = f"{prefix}generalized_focal_loss"
        self.run = run
        super().__init__(
            "generalized_focal_loss",
            Op(f"{name}_forward", arguments, "Tensor", self._forward, self._loss_like),
            Op(
                f"{name}_backward",
                {"grad_loss": Tensor} | arguments,
                "(Tensor, Tensor)",
                self._backward,
                self._backward_fake,
            ),
        )

    def _loss_like(self, p_left: Tensor, p_right: Tensor, mode: int, *_: Any) -> Tensor:
        size = p_left.shape if mode == ROWS else ()
        return torch.empty(size, dtype=compute_dtype(p_left), device=p_left.device)

    def _forward(self, p_left: Tensor, p_right: Tensor, mode: int, *args: Any) -> Tensor:
        loss = self._loss_like(p_left, p_right, mode)
        self.run(None, loss, (None, None), p_left, p_right, mode, *args)
        return loss

    def _backward_fake(self, grad_loss: Tensor, p_left: Tensor, p_right: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        return torch.empty_like(p_left), torch.empty_like(p_right)

    def _backward(self, grad_loss: Tensor, p_left: Tensor, p_right: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        grads = self._backward_fake(grad_loss, p_left, p_right)
        self.run(grad_loss, None, grads, p_left, p_right, *args)
        return grads


_FIELDS = (*GeneralizedFocalLoss._fields, "size", "dtype")
_forward = Kernel("generalized_focal_loss_forward", (*_FIELDS, "loss"))
_backward = Kernel("generalized_focal_loss_backward", (*_FIELDS, "grad_loss", "grad_left", "grad_right"))


def _run(grad_loss: Tensor | None, loss: Tensor | None, grads: tuple[Any, Any], *args: Any) -> None:
    p_left = args[0]
    if grad_loss is None:
        _forward.run(*args, p_left.numel(), p_left, loss)
    else:
        _backward.run(*args, p_left.numel(), p_left, grad_loss, *grads)


_LOSS = GeneralizedFocalOp("", _run)


def generalized_focal_loss(
    p_left: Tensor,
    p_right: Tensor,
    y: Tensor,
    y_left: Tensor,
    y_right: Tensor,
    beta: float,
    weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    loss: GeneralizedFocalOp = _LOSS,
) -> Tensor:
    """All inputs but the probabilities are vectors like them, or hold one value."""
    reduced = _arguments.reduction(reduction, avg_factor, p_left, p_left.numel())
    inputs = p_left.reshape(-1).contiguous(), p_right.reshape(-1).contiguous()
    result = loss(inputs, *reduced, y, y_left, y_right, weight, float(beta))
    return result.reshape(p_left.shape) if reduction == "none" else result
