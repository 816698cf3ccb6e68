// The highest probabilities of a softmax over bins, and their mean: what GFLv2 reads the quality of a box from.
//
//   b_1 ... b_K: the bins of the K largest logits, the largest first; of equal logits the lower bin is first
//   s_j = p_(b_j) for j = 1 ... K,   s_(K+1) = (s_1 + ... + s_K) / K
//   u_j = g_j + g_(K+1) / K for an incoming gradient g: what comes to the bin of rank j
//   dL/dx_k = p_k (u_k' - sum_j u_j s_j),   u_k' = u_j where k = b_j, else 0
//
// Ranks are those of the logits and not of the probabilities, which may round to the same.
#pragma once

#include "softmax.h"

namespace gfl {

// Values by rank, out of the way of what is written.
template <class T, int kMost>
struct RankValues {
  T values[kMost];
  GFL_MEMBER T operator()(int rank) const { return values[rank]; }
};

// u in place of g, which has the mean's behind the ranks'.
template <class T, class Incoming>
GFL_FN void spread_mean(const Incoming& g, int topk) {
  const T of_mean = g(topk) * reciprocal(constant<T>(topk));
  for (int j = 0; j < topk; ++j) g(j) = g(j) + of_mean;
}

template <class T, int kMost, class Incoming>
GFL_FN RankValues<T, kMost> upstream_of_ranks(const Incoming& g, int topk) {
  spread_mean<T>(g, topk);
  RankValues<T, kMost> u;
  for (int j = 0; j < topk; ++j) u.values[j] = g(j);
  return u;
}

// The K largest logits and their bins, found by insertion. Bins are whole numbers in T.
template <class T, int kMost>
class TopBins {
 public:
  template <class Bins>
  GFL_MEMBER void find(const Bins& x, int bins, int topk) {
    values_[0] = x(0);
    bins_[0] = T();
    for (int k = 1; k < bins; ++k) {
      const int taken = k < topk ? k : topk;
      T logit = x(k);
      T bin = constant<T>(k);
      insert(taken, logit, bin);
      if (taken == topk) continue;
      values_[taken] = logit;
      bins_[taken] = bin;
    }
  }

  GFL_MEMBER T largest() const { return values_[0]; }

  template <class Bins>
  GFL_MEMBER void take_exponentials(const Bins&, int topk) {
    const T most = largest();
    for (int j = 0; j < topk; ++j) values_[j] = exponential(select(values_[j] == most, T(), values_[j] - most));
  }
  template <class Bins>
  GFL_MEMBER T exponential_at(const Bins&, int rank) const {
    return values_[rank];
  }
  GFL_MEMBER T bin(int rank) const { return bins_[rank]; }

 private:
  // What falls behind the last of the ranks that are taken is left in `logit` and `bin`.
  GFL_MEMBER void insert(int taken, T& logit, T& bin) {
    const T inserted = logit;
    for (int j = 0; j < taken; ++j) {
      const auto ahead = inserted > values_[j];
      const T moved = values_[j];
      const T moved_bin = bins_[j];
      values_[j] = select(ahead, logit, moved);
      bins_[j] = select(ahead, bin, moved_bin);
      logit = select(ahead, moved, logit);
      bin = select(ahead, moved_bin, bin);
    }
  }

  T values_[kMost];  // the logits, later their exponentials
  T bins_[kMost];
};

// Leaves e_k in place of x_k, and gives 1 / sum e.
template <class T, class Bins, class Top>
GFL_FN T ranked_softmax(const Bins& x, int bins, int topk, Top& top) {
  top.find(x, bins, topk);
  const T most = top.largest();
  const T shift = bins_shift(x, bins, most);
  T sum = T();
  for (int k = 0; k < bins; ++k) {
    const T e = exponential(x(k) - shift);
    x(k) = e;
    sum = sum + e;
  }
  top.take_exponentials(x, topk);
  return reciprocal(sum);
}

// Into out(rank), and out(topk) for the mean.
template <class T, class Bins, class Top, class Out>
GFL_FN void write_statistics(const Bins& e, const Top& top, int topk, T inverse_sum, const Out& out) {
  T total = T();
  for (int j = 0; j < topk; ++j) {
    const T p = top.exponential_at(e, j) * inverse_sum;
    out(j) = p;
    total = total + p;
  }
  out(topk) = total * reciprocal(constant<T>(topk));
}

// Leaves dL/dx_k in place of e_k.
template <class T, class Bins, class Top, class Upstream>
GFL_FN void statistics_gradient(const Bins& e, int bins, const Top& top, int topk, T inverse_sum, const Upstream& u) {
  T expectation = T();
  for (int j = 0; j < topk; ++j) expectation = expectation + u(j) * (top.exponential_at(e, j) * inverse_sum);
  for (int k = 0; k < bins; ++k) {
    T share = T();
    for (int j = 0; j < topk; ++j) share = select(top.bin(j) == constant<T>(k), u(j), share);
    e(k) = e(k) * inverse_sum * (share - expectation);
  }
}

}  // namespace gfl
