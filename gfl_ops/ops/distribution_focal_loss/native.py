"""Distribution focal loss on the compiled core."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from ... import _autograd, _native
from ..._reduce import for_core, for_kernel
from .._class_loss import kernel_vector

ARGUMENTS = (
    "Tensor pred, int kind, float scale, SymInt count, Tensor? avg_factor, Tensor target, Tensor? weight, "
    "Tensor? bin_values, Tensor? left_weight, Tensor? right_weight, float first_bin"
)


def _run(
    grad_loss: Tensor | None,
    loss: Tensor | None,
    grad: Tensor | None,
    pred: Tensor,
    kind: int,
    scale: float,
    count: int,
    avg_factor: Tensor | None,
    target: Tensor,
    weight: Tensor | None,
    bin_values: Tensor | None,
    left_weight: Tensor | None,
    right_weight: Tensor | None,
    first_bin: float,
) -> None:
    core, device = _native.core_for(pred)
    rows, bins = pred.shape
    workspace = _native.workspace(core, device, rows, bins, pred) if loss is not None else None
    core.distribution_focal_loss(
        grad_loss is not None,
        device,
        rows,
        bins,
        _native.bins_of_rows(pred),
        _native.address(target),
        _native.address(bin_values),
        first_bin,
        _native.address(left_weight),
        _native.address(right_weight),
        _native.address(weight),
        _native.flat(grad_loss),
        for_core(kind, scale, count, avg_factor),
        _native.address(loss),
        None if grad is None else _native.bins_of_rows(grad),
        _native.address(workspace),
    )


_loss = _autograd.fused_loss(
    "distribution_focal_loss", _autograd.register_loss("distribution_focal_loss", ARGUMENTS, _run)
)


def distribution_focal_loss(
    pred: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: str,
    avg_factor: float | Tensor | None,
    first_bin: float,
    bin_values: Tensor | None,
    left_weight: Tensor | None,
    right_weight: Tensor | None,
    loss_weight: float,
    fused: Callable[..., Tensor] = _loss,
) -> Tensor:
    rows = target.numel()
    how = for_kernel(reduction, avg_factor, pred, rows, loss_weight)
    vectors = [
        None if vector is None else kernel_vector(vector.reshape(-1), pred)
        for vector in (target, weight, bin_values, left_weight, right_weight)
    ]
    flat = pred if pred.ndim == 2 else pred.reshape(rows, pred.shape[-1])
    loss = fused(flat, *how, *vectors, float(first_bin))
    return loss.reshape(target.shape) if reduction == "none" else loss
