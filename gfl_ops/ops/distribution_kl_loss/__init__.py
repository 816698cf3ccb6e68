"""The divergence of a student's distributions from a teacher's."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ... import _check, _reduce
from ..._dispatch import kernels_for
from . import native, reference

_OP = "distribution_kl_loss"


def distribution_kl_loss(
    student: Tensor,
    teacher: Tensor,
    temperature: float = 1.0,
    weight: Tensor | None = None,
    reduction: str = "mean",
    avg_factor: float | Tensor | None = None,
    *,
    bin_reduction: str = "sum",
    _loss_weight: float = 1.0,
) -> Tensor:
    r"""Kullback-Leibler divergence of a student's distributions from a teacher's, both softened by a temperature T.

    With s and t the softmax of the logits divided by T, a row has :math:`T^2 \sum_k t_k (\log t_k - \log s_k)`.
    Localization distillation (https://arxiv.org/abs/2102.12252) is ``bin_reduction="mean"`` with T = 10; D-FINE's
    (https://arxiv.org/abs/2410.13842) is the sum over the bins with T = 5. All is computed in float32, also of half
    types.

    Args:
        student: (..., bins) logits, 2 to 256 bins.
        teacher: (..., bins) logits of any floating point type. It has no gradient.
        temperature: T, 0.001 to 1000.
        weight: (...), multiplies the rows.
        reduction: ``"none"`` gives (...), ``"mean"`` divides by the number of rows, ``"sum"`` adds.
        avg_factor: with ``"mean"``, what to divide by instead: a number, or a tensor of one value.
        bin_reduction: ``"sum"`` over the bins as in the formula, or ``"mean"``, which divides it by their number.

    Returns:
        float32 (float64 for a float64 student): a scalar, or (...).

    Example:
        >>> student = torch.randn(512, 17, requires_grad=True)
        >>> distribution_kl_loss(student, torch.randn(512, 17), temperature=10.0, bin_reduction="mean").backward()
    """
    _checked(student, teacher, temperature, weight, bin_reduction, reduction, avg_factor)
    kernels = kernels_for(_OP, student, native)
    if kernels is not None:
        return kernels.distribution_kl_loss(
            student, teacher, temperature, weight, reduction, avg_factor, bin_reduction, _loss_weight
        )
    loss = reference.distribution_kl_loss(
        student, teacher, temperature, weight, reduction, avg_factor, bin_reduction=bin_reduction
    )
    return _reduce.weighted(loss, _loss_weight)


def _check_arguments(
    student: Any, teacher: Any, temperature: Any, weight: Any, bin_reduction: Any, reduction: Any, avg_factor: Any
) -> None:
    _check.floating(_OP, "student", student)
    if student.ndim < 1:
        raise ValueError(f"{_OP}: student must be (..., bins), got {tuple(student.shape)}")
    _check.num_bins(_OP, "bins (the last dimension of student)", student.shape[-1])
    _check.floating(_OP, "teacher", teacher)
    _check.shape(_OP, "teacher", teacher, student.shape, "(..., bins) as student")
    _check.detached(_OP, "teacher", teacher)
    _check.on_device_of(_OP, "teacher", teacher, "student", student)
    _check.number(_OP, "temperature", temperature, 1e-3, 1e3)
    if weight is not None:
        _check.companion(_OP, "weight", weight, student, student.shape[:-1], "(...) of student (..., bins)")
    _check.choice(_OP, "bin_reduction", bin_reduction, ("sum", "mean"))
    _check.reduction(_OP, reduction, avg_factor, student)


_checked = _check.Checked(_check_arguments)
