// Softmax over the bins of one distribution. `Bins` is anything with operator()(k) -> T&: a column of vectors on the
// CPU, a row of shared memory or of registers on the GPU.
//
//   z_k = x_k - max x,   e_k = e^(z_k),   p_k = e_k / sum e
//   expectation E = sum p_k v_k,   dE/dx_k = p_k (v_k - E)
//
// Infinite logits take their limit: x_k = max x gives z_k = 0 even where both are infinite, so that one +infinity takes
// all and nothing but -infinity is uniform. A NaN need not pass through the maximum: it makes the sum NaN, and with it
// every probability.
#pragma once

#include "elementary.h"

namespace gfl {

template <class T, class Bins>
GFL_FN T bins_maximum(const Bins& x, int bins) {
  T most = x(0);
  for (int k = 1; k < bins; ++k) most = larger(x(k), most);
  return most;
}

template <class T>
GFL_FN T shifted_logit(T x, T most) {
  return select(x == most, T(), x - most);
}

// Leaves e_k in place of x_k and returns their sum.
template <class T, class Bins>
GFL_FN T softmax_in_place(const Bins& x, int bins) {
  const T most = bins_maximum<T>(x, bins);
  T sum = T();
  for (int k = 0; k < bins; ++k) {
    const T e = exponential(shifted_logit(x(k), most));
    x(k) = e;
    sum = sum + e;
  }
  return sum;
}

// E from the e_k; values(k) is a scalar.
template <class T, class Bins, class Values>
GFL_FN T bins_expectation(const Bins& e, int bins, T inverse_sum, const Values& values) {
  T total = T();
  for (int k = 0; k < bins; ++k) total = total + e(k) * values(k);
  return total * inverse_sum;
}

// Leaves upstream * dE/dx_k in place of e_k.
template <class T, class Bins, class Values>
GFL_FN void expectation_gradient(const Bins& e, int bins, T inverse_sum, const Values& values, T expectation,
                                 T upstream) {
  const T factor = upstream * inverse_sum;
  for (int k = 0; k < bins; ++k) e(k) = e(k) * (factor * (values(k) - expectation));
}

}  // namespace gfl
