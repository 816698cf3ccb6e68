"""The unified Generalized Focal Loss."""

from __future__ import annotations

import torch
from torch import Tensor

from ... import _check
from ..._arguments import compute_dtype
from ..._dispatch import kernels_for
from . import native, reference

_OP = "generalized_focal_loss"


def generalized_focal_loss(
    p_left: Tensor,
    p_right: Tensor,
    y: float | Tensor,
    y_left: float | Tensor,
    y_right: float | Tensor,
    beta: float = 2.0,
    *,
    weight: Tensor | None = None,
    reduction: str = "none",
    avg_factor: float | Tensor | None = None,
) -> Tensor:
    r"""The Generalized Focal Loss of the paper, element by element (https://arxiv.org/abs/2006.04388, equation 8).

    p_l and p_r are the probabilities of two values y_l and y_r, and the target y lies between them:
    :math:`-|y - (y_l p_l + y_r p_r)|^\beta \, ((y_r - y) \log p_l + (y - y_l) \log p_r)`

    With y_l = 0, y_r = 1 and p_l = 1 - p_r it is focal loss if y is 0 or 1, and quality focal loss if y is in [0, 1].
    With beta = 0 and two neighbouring bins it is distribution focal loss. Logarithms are clamped at -100, as in torch's
    binary cross entropy. A logarithm whose factor is 0 adds nothing.

    Args:
        p_left, p_right: probabilities that broadcast with each other.
        y, y_left, y_right: numbers, or tensors that broadcast with the probabilities.
        beta: exponent of the modulating factor.
        weight: multiplies the elements; broadcasts with them.
        reduction: ``"none"`` (default), ``"mean"`` or ``"sum"``.
        avg_factor: with ``"mean"``, what to divide by instead of the number of elements.

    Returns:
        float32 (float64 for float64 probabilities): the elements' losses, or a scalar.

    Example:
        >>> p = torch.tensor([0.25], requires_grad=True)
        >>> generalized_focal_loss(1 - p, p, 1.0, 0.0, 1.0).item()
        0.7797905206680298
    """
    _check.floating(_OP, "p_left", p_left)
    _check.floating(_OP, "p_right", p_right)
    _check.same_device(_OP, "p_right", p_right, p_left)
    _check.number(_OP, "beta", beta, 0)
    if p_left.dtype != p_right.dtype:
        common = torch.promote_types(p_left.dtype, p_right.dtype)
        p_left, p_right = p_left.to(common), p_right.to(common)
    try:
        p_left, p_right = torch.broadcast_tensors(p_left, p_right)
    except RuntimeError:
        shapes = f"{tuple(p_left.shape)} and {tuple(p_right.shape)}"
        raise ValueError(f"{_OP}: p_right must broadcast with p_left, got {shapes}") from None
    y, y_left, y_right = (
        _like(name, value, p_left) for name, value in (("y", y), ("y_left", y_left), ("y_right", y_right))
    )
    if weight is not None:
        weight = _like("weight", weight, p_left)
    _check.reduction(_OP, reduction, avg_factor, p_left)

    kernels = kernels_for(_OP, p_left, native)
    if kernels is not None:
        y, y_left, y_right = _vector(y, p_left), _vector(y_left, p_left), _vector(y_right, p_left)
        weight = None if weight is None else _vector(weight, p_left)
        return kernels.generalized_focal_loss(p_left, p_right, y, y_left, y_right, beta, weight, reduction, avg_factor)
    return reference.generalized_focal_loss(
        p_left, p_right, y, y_left, y_right, beta, weight=weight, reduction=reduction, avg_factor=avg_factor
    )


def _like(name: str, value: float | Tensor, p: Tensor) -> Tensor:
    """The value as a tensor of the compute type that can be expanded to p's shape."""
    if not isinstance(value, Tensor):
        _check.number(_OP, name, value, -1e30, 1e30)
        return torch.full((), float(value), dtype=compute_dtype(p), device=p.device)
    _check.floating(_OP, name, value)
    _check.detached(_OP, name, value)
    _check.same_device(_OP, name, value, p)
    missing = p.ndim - value.ndim
    if missing < 0 or any(n not in (1, m) for n, m in zip(value.shape, p.shape[missing:], strict=True)):
        raise ValueError(f"{_OP}: {name} must broadcast to {tuple(p.shape)}, got {tuple(value.shape)}")
    return value.to(compute_dtype(p))


def _vector(value: Tensor, p: Tensor) -> Tensor:
    """Flat like p, or 0-d where one value serves all."""
    return value.reshape(()) if value.numel() == 1 else value.expand(p.shape).reshape(-1)
