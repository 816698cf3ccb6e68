// Softmax over the bins of one distribution, in place: z_k <- e^(z_k - m), m = max z. `Bins` is anything with
// operator()(k) -> T&: a column of a tile of vectors on the CPU, a row of shared memory or registers on the GPU.
//
// Infinite logits take their limit: z_k = m gives e^0 = 1 even where m is infinite, so that one +infinity takes all
// and nothing but -infinity is uniform. A NaN makes the maximum NaN and with it every value.
#pragma once

#include "elementary.h"

namespace gfl {

template <class T, class Bins>
GFL_FN T bins_maximum(const Bins& z, int bins) {
  T most = z(0);
  for (int k = 1; k < bins; ++k) most = maximum(most, z(k));
  return most;
}

// e^(z - m) where m is the maximum.
template <class T>
GFL_FN T shifted_exponential(T z, T most) {
  return select(z == most, constant<T>(1.0), exponential(z - most));
}

// Returns the sum of the e^(z_k - m) that it leaves behind.
template <class T, class Bins>
GFL_FN T softmax_in_place(const Bins& z, int bins, T most) {
  T sum = T();
  for (int k = 0; k < bins; ++k) {
    z(k) = shifted_exponential(z(k), most);
    sum = sum + z(k);
  }
  return sum;
}

// sum_k p_k v_k from the e^(z_k - m); values(k) is a scalar.
template <class T, class Bins, class Values>
GFL_FN T bins_expectation(const Bins& e, int bins, T inverse_sum, const Values& values) {
  T total = T();
  for (int k = 0; k < bins; ++k) total = total + e(k) * values(k);
  return total * inverse_sum;
}

}  // namespace gfl
