// Dense classification losses of any layout, their per-row sums, and those with a weight of each class.
//
// 2^lane_bits neighbouring threads share a row where the columns lie side by side, one thread has it where the rows do, so
// that neighbours read neighbours either way. A thread has several columns in flight at once.
#pragma once

#include "class_loss.cuh"

namespace gfl {
namespace cuda {

constexpr int kStridedThreads = 256;

// Columns of a thread whose loads are in flight together, and whose losses are added in the compute type: as many as there
// are registers for.
template <class T, class Formula, bool kDense>
constexpr int kStridedColumns = !UsualFormula<Formula>::value ? 2
                                : sizeof(T) == 8 || kDense    ? 4
                                                              : 8;

// The columns lane, lane + lanes, ... of one row, with 2^lane_bits lanes.
template <class T, class Formula, bool kDense>
class StridedColumns {
 public:
  using C = Compute<T>;
  static constexpr int kTogether = kStridedColumns<T, Formula, kDense>;

  __device__ __forceinline__ StridedColumns(const ClassArguments<T>& op, const Formula& formula, int64_t row,
                                            int lane_bits)
      : op_(op),
        formula_(formula),
        row_(row),
        lane_bits_(lane_bits),
        lanes_(1 << lane_bits),
        scale_(op.sums.scale.value()),
        factors_differ_(op.factors.spread == Spread::kElements),
        row_factor_(factors_differ_ ? C() : op.factors.at(row, 0)),
        label_(kDense ? -1 : op.label(row)) {}

  __device__ __forceinline__ double loss() const {
    double total = 0.0;
    const int64_t step = static_cast<int64_t>(lanes_) * kTogether;
    const int lane = static_cast<int>(threadIdx.x) & (lanes_ - 1);
    for (int64_t first = lane; first < op_.cols; first += step) total += static_cast<double>(together(first));
    return total;
  }

 private:
  // Where the columns are that a thread works on together, and their losses and gradients if those are wanted.
  struct Places {
    int64_t first;
    int count;
    const T* pred;
    C* losses;
    T* grad;
  };

  // Column `first` and those that follow it, kTogether or as many as there are.
  __device__ __forceinline__ Places places(int64_t first) const {
    const int64_t left = (op_.cols - first + lanes_ - 1) >> lane_bits_;
    return {first, left < kTogether ? static_cast<int>(left) : kTogether,
            static_cast<const T*>(op_.pred.data) + row_ * op_.pred.row_stride + first * op_.pred.col_stride,
            op_.element_losses ? op_.element_losses + row_ * op_.cols + first : nullptr,
            op_.grad ? op_.grad + row_ * op_.grad_row_stride + first * op_.grad_col_stride : nullptr};
  }

  __device__ __forceinline__ C together(int64_t first) const {
    const Places at = places(first);
    const int64_t step = lanes_ * op_.pred.col_stride;
    C x[kTogether];
    C target[kTogether];
    const T* from = at.pred;
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      x[k] = k < at.count ? widen(*from) : C();
      from += step;
      if (kDense && k < at.count) target[k] = op_.target.at(row_, first + k * lanes_);
    }
    const int64_t to_label = label_ - first;
    const int64_t label_place = to_label >> lane_bits_;
    const bool owns_label =
        !kDense && to_label >= 0 && (to_label & (lanes_ - 1)) == 0 && label_place < static_cast<int64_t>(at.count);
    C loss = C();
#pragma unroll
    for (int k = 0; k < kTogether; ++k) {
      if (k >= at.count) break;
      if (owns_label && k == static_cast<int>(label_place)) continue;
      const LossGrad<C> term = kDense ? formula_.dense(x[k], target[k]) : negative_loss<T>(formula_, x[k]);
      loss = loss + finish_term(term, at, k);
    }
    if (!owns_label) return loss;
    const C logit = widen(at.pred[label_place * step]);
    return loss + finish_term(formula_.positive(logit, op_.score(row_)), at, static_cast<int>(label_place));
  }

  // Writes what is wanted of the k-th of those columns, and returns its part of a sum.
  __device__ __forceinline__ C finish_term(const LossGrad<C>& term, const Places& at, int k) const {
    const int64_t further = static_cast<int64_t>(k) << lane_bits_;
    C factor = factors_differ_ ? op_.factors.at(row_, at.first + further) : row_factor_;
    if (op_.class_weights) factor = factor * op_.class_weights[at.first + further];
    if (at.losses) at.losses[further] = term.loss * (factor * scale_);
    if (at.grad) at.grad[further * op_.grad_col_stride] = narrow<T>(term.grad * (factor * scale_));
    return term.loss * factor;
  }

  const ClassArguments<T>& op_;
  const Formula& formula_;
  int64_t row_;
  int lane_bits_;
  int lanes_;
  C scale_;
  bool factors_differ_;
  C row_factor_;
  int64_t label_;
};

// Room for that many blocks is no limit that matters here, but with none stated ptxas chose 40 registers, and spilled.
template <class T, class Formula, bool kDense>
__global__ void __launch_bounds__(kStridedThreads, std::is_same<T, double>::value ? 2 : 4)
    class_loss_strided(const ClassArguments<T> op, const Formula formula, int lane_bits) {
  using C = Compute<T>;
  const int lanes = 1 << lane_bits;
  const int group = static_cast<int>(threadIdx.x) >> lane_bits;
  const int groups = kStridedThreads >> lane_bits;
  const C scale = op.sums.scale.value();
  double total = 0.0;

  // All threads of a warp make the same number of rounds, since they exchange their sums.
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * groups; first < op.rows;
       first += static_cast<int64_t>(gridDim.x) * groups) {
    const int64_t row = first + group;
    double loss = 0.0;
    if (row < op.rows) loss = StridedColumns<T, Formula, kDense>(op, formula, row, lane_bits).loss();
    if (op.row_losses) {
      for (int offset = lanes / 2; offset > 0; offset /= 2) loss += __shfl_xor_sync(kFullWarp, loss, offset);
      if ((static_cast<int>(threadIdx.x) & (lanes - 1)) == 0 && row < op.rows)
        op.row_losses[row] = static_cast<C>(loss) * scale;
    }
    total += loss;
  }
  if (op.sum) op.sums.add_block(0, total);
}

}  // namespace cuda
}  // namespace gfl
