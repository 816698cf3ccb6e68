// Softmax over the bins of one distribution. `Bins` is anything with operator()(k) -> T&: a column of vectors on the
// CPU, a row of shared memory or of registers on the GPU.
//
//   z_k = x_k - max x,   e_k = e^(z_k),   p_k = e_k / sum e
//   expectation E = sum p_k v_k,   dE/dx_k = p_k (v_k - E)
//
// Infinite logits take their limit: x_k = max x gives z_k = 0 even where both are infinite, so that one +infinity takes
// all and nothing but -infinity is uniform (bins_shift). A NaN need not pass through the maximum: it makes the sum NaN,
// and with it every probability.
#pragma once

#include "elementary.h"

namespace gfl {

// Two chains of maxima or sums: in one alone, every step would wait for the one before.
template <class T, class Bins>
GFL_FN T bins_maximum(const Bins& x, int bins) {
  T even = x(0), odd = x(1);
  for (int k = 2; k + 1 < bins; k += 2) {
    even = larger(x(k), even);
    odd = larger(x(k + 1), odd);
  }
  return larger(bins % 2 ? larger(x(bins - 1), even) : even, odd);
}

// What is taken from each logit. Where the maximum is infinite that is nothing, and the logits become their limits here,
// out of the way of the loops: 0 where they are that infinity, -infinity elsewhere, NaN where they are NaN.
template <class T, class Bins>
GFL_FN T bins_shift(const Bins& x, int bins, T most) {
  const auto infinite = absolute(most) == constant<T>(INFINITY);
  if (!any_lane(infinite)) return most;
  for (int k = 0; k < bins; ++k) x(k) = select(infinite, select(x(k) == most, T(), x(k) - most), x(k));
  return select(infinite, T(), most);
}

template <class T>
struct Softmax {
  T most;
  T inverse_sum;
  T expectation;
};

// E from the e_k; values(k) is a scalar.
template <class T, class Bins, class Values>
GFL_FN T bins_expectation(const Bins& e, int bins, T inverse_sum, const Values& values) {
  T total = T();
  for (int k = 0; k < bins; ++k) total = total + e(k) * values(k);
  return total * inverse_sum;
}

// E over the bins 0, 1, ... where nothing is kept: the logits are read twice.
template <class T, class Bins>
GFL_FN T expectation_of(const Bins& x, int bins) {
  T most = x(0);
  for (int k = 1; k < bins; ++k) most = larger(x(k), most);
  T sum = T();
  T total = T();
  for (int k = 0; k < bins; ++k) {
    const T value = x(k);
    const T e = exponential(select(value == most, T(), value - most));
    sum = sum + e;
    total = total + e * static_cast<T>(k);
  }
  return total * reciprocal(sum);
}

// Leaves e_k in place of x_k.
template <class T, class Bins, class Values>
GFL_FN Softmax<T> softmax_in_place(const Bins& x, int bins, const Values& values) {
  const T most = bins_maximum<T>(x, bins);
  const T shift = bins_shift(x, bins, most);
  T sum = T();
  T total = T();
  for (int k = 0; k < bins; ++k) {
    const T e = exponential(x(k) - shift);
    x(k) = e;
    sum = sum + e;
    total = total + e * values(k);
  }
  const T inverse_sum = reciprocal(sum);
  return {most, inverse_sum, total * inverse_sum};
}

// The root of sum p_k (v_k - E)^2; leaves p_k in place of e_k.
template <class T, class Bins, class Values>
GFL_FN T standard_deviation(const Bins& e, int bins, const Softmax<T>& softmax, const Values& values) {
  T variance = T();
  for (int k = 0; k < bins; ++k) {
    e(k) = e(k) * softmax.inverse_sum;
    const T distance = values(k) - softmax.expectation;
    variance = variance + e(k) * (distance * distance);
  }
  return square_root(variance);
}

// Leaves upstream * dE/dx_k in place of e_k.
template <class T, class Bins, class Values>
GFL_FN void expectation_gradient(const Bins& e, int bins, const Softmax<T>& softmax, const Values& values, T upstream) {
  const T factor = upstream * softmax.inverse_sum;
  for (int k = 0; k < bins; ++k) e(k) = e(k) * (factor * (values(k) - softmax.expectation));
}

}  // namespace gfl
