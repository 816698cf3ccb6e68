# mypy: disable-error-code="no-untyped-def"
"""csrc/math/distribution_kl_loss.h: the divergence of a student's distributions from a teacher's, a thread for each."""

from __future__ import annotations

import triton
import triton.language as tl

from .elementary import exponential, logarithm, quotient
from .softmax import bins_maximum, logit, shifted_logit


@triton.jit
def softened(x, k, step, there, most, inverse_temperature, DTYPE: tl.constexpr):
    return shifted_logit(logit(x, k, step, there, DTYPE), most) * inverse_temperature


@triton.jit
def kl_forward(
    student, student_step, teacher, teacher_step, there, inverse_temperature,
    BINS: tl.constexpr, UNROLL: tl.constexpr, DTYPE: tl.constexpr,
):  # fmt: skip
    """(loss, the student's maximum and 1 / sum e, the teacher's). A bin that the teacher gives nothing says nothing."""
    student_most = bins_maximum(student, student_step, there, BINS, UNROLL, DTYPE)
    teacher_most = bins_maximum(teacher, teacher_step, there, BINS, UNROLL, DTYPE)
    student_sum = tl.zeros_like(student_most)
    teacher_sum = tl.zeros_like(student_most)
    weighted = tl.zeros_like(student_most)
    for k in tl.range(0, BINS, loop_unroll_factor=UNROLL):
        student_z = softened(student, k, student_step, there, student_most, inverse_temperature, DTYPE)
        teacher_z = softened(teacher, k, teacher_step, there, teacher_most, inverse_temperature, DTYPE)
        e = exponential(teacher_z)
        student_sum += exponential(student_z)
        teacher_sum += e
        weighted += tl.where(e == 0.0, 0.0, e * (teacher_z - student_z))
    teacher_inverse_sum = 1.0 / teacher_sum
    loss = weighted * teacher_inverse_sum + logarithm(quotient(student_sum, teacher_sum))
    return loss, student_most, 1.0 / student_sum, teacher_most, teacher_inverse_sum
