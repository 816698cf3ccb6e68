"""What the references share: plain PyTorch that also knows the limits at 0 and at infinity."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def widen(x: Tensor) -> Tensor:
    """Half types become float32; float64 stays."""
    return x if x.dtype == torch.float64 else x.float()


def times(coefficient: Tensor, value: Tensor) -> Tensor:
    """coefficient * value, where a coefficient of exactly 0 drops the term even if the value is infinite."""
    return torch.where(coefficient == 0, 0.0, coefficient * value)


def abs_power(x: Tensor, exponent: float) -> Tensor:
    """|x|^exponent with derivative 0 at x = 0, where an exponent below 1 has none."""
    zero = x == 0
    return torch.where(zero, 1.0 if exponent == 0 else 0.0, torch.where(zero, 1.0, x.abs()).pow(float(exponent)))


def log_sigmoid_pair(x: Tensor) -> tuple[Tensor, Tensor]:
    """log p and log(1 - p) of p = sigmoid(x), without cancellation."""
    return torch.nn.functional.logsigmoid(x), torch.nn.functional.logsigmoid(-x)


def sigmoid_pair(x: Tensor) -> tuple[Tensor, Tensor]:
    """p = sigmoid(x) and 1 - p, without cancellation.

    Beyond +-1000 both are constant even in float64. The clamp stops the gradient there: an infinite cross entropy
    times their zero derivative is 0 in the limit, but NaN in floating point.
    """
    finite = x.clamp(-1000.0, 1000.0)
    return finite.sigmoid(), (-finite).sigmoid()


def bce_with_logits(x: Tensor, target: Tensor) -> Tensor:
    """-t log p - (1 - t) log(1 - p)."""
    log_p, log_not_p = log_sigmoid_pair(x)
    return -times(target, log_p) - times(1 - target, log_not_p)


class _BelowMaximum(torch.autograd.Function):
    """x - max(x) over the last dimension, for a softmax to follow.

    A softmax does not see the shift, so the gradient passes straight through. One infinite logit is 0 here, not
    inf - inf, which gives the softmax its limit.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return torch.where(x == torch.inf, 0.0, x - x.amax(-1, keepdim=True))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


def softmax(x: Tensor) -> Tensor:
    return torch.softmax(_BelowMaximum.apply(x), -1)


def log_softmax(x: Tensor) -> Tensor:
    return torch.log_softmax(_BelowMaximum.apply(x), -1)


# torch's binary_cross_entropy has it as a float, for float64 as well.
_LEAST_DENOMINATOR = 9.999999960041972e-13  # 1e-12 in float32


class _ClampedLog(torch.autograd.Function):
    """max(log p, -100) with the gradient 1 / max(p, 1e-12): finite at p = 0, and not 0 there either."""

    generate_vmap_rule = True

    @staticmethod
    def forward(p: Tensor) -> Tensor:
        return p.log().clamp(min=-100.0)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (p,) = ctx.saved_tensors
        return grad / p.clamp(min=1e-12)


class _ClampedCrossEntropy(torch.autograd.Function):
    """torch's binary_cross_entropy: logs clamped at -100, the gradient (p - t) / max(p (1 - p), 1e-12).

    Unlike torch's it lets autocast be and does not stop at a NaN.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(p: Tensor, target: Tensor) -> Tensor:
        return -(target * p.log().clamp(min=-100.0) + (1 - target) * (-p).log1p().clamp(min=-100.0))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        p, target = ctx.saved_tensors
        return grad * (p - target) / (p * (1 - p)).clamp(min=_LEAST_DENOMINATOR), None


def clamped_log(p: Tensor) -> Tensor:
    return _ClampedLog.apply(p)


def bce_of_probability(p: Tensor, target: Tensor) -> Tensor:
    return _ClampedCrossEntropy.apply(p, target)
