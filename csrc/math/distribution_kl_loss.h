// The Kullback-Leibler divergence of two softened distributions, a student's s from a teacher's t.
//
//   z_k = (x_k - max x) / T,   e_k = e^(z_k),   s_k or t_k = e_k / sum e
//   L = sum_k t_k (log t_k - log s_k) = sum_k t_k (z_k^t - z_k^s) + log (sum e^s / sum e^t)
//   dL/dx_k^s = (s_k - t_k) / T
//
// A bin that the teacher gives nothing says nothing, even where the student's probability is 0 as well.
#pragma once

#include "softmax.h"

namespace gfl {

template <class T>
struct KlRow {
  T loss;
  T student_inverse_sum;
  T teacher_inverse_sum;
};

// Leaves the e_k in place of both x_k.
template <class T, class Bins>
GFL_FN KlRow<T> kl_forward(const Bins& student, const Bins& teacher, int bins, T inverse_temperature) {
  const T student_shift = bins_shift(student, bins, bins_maximum<T>(student, bins));
  const T teacher_shift = bins_shift(teacher, bins, bins_maximum<T>(teacher, bins));
  T student_sum = T();
  T teacher_sum = T();
  T weighted = T();
  for (int k = 0; k < bins; ++k) {
    const T student_z = (student(k) - student_shift) * inverse_temperature;
    const T teacher_z = (teacher(k) - teacher_shift) * inverse_temperature;
    const T student_e = exponential(student_z);
    const T teacher_e = exponential(teacher_z);
    student(k) = student_e;
    teacher(k) = teacher_e;
    student_sum = student_sum + student_e;
    teacher_sum = teacher_sum + teacher_e;
    weighted = weighted + select(teacher_e == T(), T(), teacher_e * (teacher_z - student_z));
  }
  const T teacher_inverse_sum = reciprocal(teacher_sum);
  const T loss = weighted * teacher_inverse_sum + logarithm(student_sum / teacher_sum);
  return {loss, reciprocal(student_sum), teacher_inverse_sum};
}

// Leaves upstream * T dL/dx_k in place of the student's e_k.
template <class T, class Bins>
GFL_FN void kl_gradient(const Bins& student, const Bins& teacher, int bins, const KlRow<T>& row, T upstream) {
  for (int k = 0; k < bins; ++k) {
    student(k) = upstream * (student(k) * row.student_inverse_sum - teacher(k) * row.teacher_inverse_sum);
  }
}

}  // namespace gfl
