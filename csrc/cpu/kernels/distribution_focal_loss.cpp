// Distribution focal loss over rows of logits: a group of sixty-four at a time as they lie, or a block of sixteen
// transposed.
#include <cstring>
#include <type_traits>

#include "../simd/row_group.h"
#include "kernel.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
class Dfl {
 public:
  Dfl(const gfl_distribution_focal_loss& op, Pass pass)
      : op_(op), pass_(pass), bins_(static_cast<int>(op.bins)), values_(op.bin_values, op.first_bin, op.bins) {
    scale_ = effective_scale<T>(op.reduction);
  }

  void run() const {
    with_constant_bins<T>(bins_, [&](auto bins) { run_with<decltype(bins)::value>(); });
  }

 private:
  using V = Vector<T>;

  template <int kBins>
  void run_with() const {
    double* partials = static_cast<double*>(op_.workspace);
    const bool summed = pass_ == Pass::kForward && op_.reduction.mode == GFL_REDUCE_SUM;
    parallel_rows(op_.rows, op_.bins, [&](int64_t chunk, int64_t begin, int64_t end) {
      BlockSums sums;
      int64_t row = begin;
      if constexpr (in_groups<kBins>()) {
        // Up to the first group that is refused: where one row is steep, others are.
        if (grouped()) {
          while (row + kGroupRows <= end && run_group<kBins>(row, sums)) row += kGroupRows;
        }
      }
      for (; row < end; row += kBlock) {
        run_block<kBins>(row, static_cast<int>(end - row < kBlock ? end - row : kBlock), sums);
      }
      if (summed) partials[chunk] = sums.total();
    });
    if (summed) write_sum<T>(partials, chunk_count(op_.rows, op_.bins), scale_, op_.loss);
  }

  template <int kBins>
  static constexpr bool in_groups() {
    return std::is_same<T, float>::value && kBins > 0 && RowGroup<kBins>::kPossible;
  }
  bool grouped() const {
    return whole_block_of_rows<T>(op_.logits, kBlock) && (!op_.grad.data || whole_block_of_rows<T>(op_.grad, kBlock));
  }

  DflTarget<V> target_of(V target, V left_weight, V right_weight, int bins) const {
    const DflTarget<V> near = op_.bin_values ? dfl_target(target, values_, bins)
                                             : dfl_target(target, V() + static_cast<T>(op_.first_bin), bins);
    return op_.left_weight ? dfl_reweighted(near, left_weight, right_weight) : near;
  }

  V factor_of(V weight, V upstream) const {
    const V factor = V() + static_cast<T>(scale_);
    return op_.grad_loss ? factor * weight * upstream : factor * weight;
  }

  // What is known of a group's rows but their logits.
  struct Group {
    alignas(64) float loss[kGroupRows];  // at first the weight
    alignas(64) float factor[kGroupRows], left_weight[kGroupRows], right_weight[kGroupRows];
    alignas(64) float x[2 * kGroupRows];  // the logits at a row's two bins, side by side
    alignas(64) int32_t left[kGroupRows];
  };

  // False where the rows are such as a group does not do.
  template <int kBins>
  bool run_group(int64_t row, BlockSums& sums) const {
    const int64_t stride = op_.logits.length_stride;
    const float* logits = static_cast<const float*>(op_.logits.data) + row * stride;
    RowGroup<kBins> rows;
    Group group;
    place_targets(row, kBins, group);
    if (!rows.template exponentials<false>(logits, stride, nullptr)) return false;
    // Not before: reading here and there leaves the processor no pattern by which to fetch ahead.
    for (int i = 0; i < kGroupRows; ++i) {
      std::memcpy(group.x + 2 * i, logits + i * stride + group.left[i], 2 * sizeof(float));
    }

    for (int i = 0; i < kGroupRows; i += Lanes<T>::width) {
      const V left_weight = load(group.left_weight + i);
      const V right_weight = load(group.right_weight + i);
      const float* x = group.x + 2 * i;
      const DflRow<V> found =
          dfl_row_unshifted(load(rows.sum + i), every_other<0>(x), every_other<1>(x), left_weight, right_weight);
      const V factor = load(group.factor + i);
      store(group.loss + i, found.loss * load(group.loss + i));
      store(group.factor + i, factor * (left_weight + right_weight) * found.inverse_sum);
      store(group.left_weight + i, factor * left_weight);
      store(group.right_weight + i, factor * right_weight);
    }
    for (int i = 0; i < kGroupRows; i += kBlock) take_losses(row + i, kBlock, group.loss + i, sums);
    if (op_.grad.data) write_gradient(rows, group, static_cast<float*>(op_.grad.data) + row * op_.grad.length_stride);
    return true;
  }

  // The bins around the targets: the last one is right of the one before, so that there always are two.
  void place_targets(int64_t row, int bins, Group& group) const {
    for (int block = 0; block < kGroupRows; block += kBlock) {
      T target[kBlock], left[kBlock], right[kBlock], weight[kBlock], upstream[kBlock];
      load_rows(row + block, kBlock, target, left, right, weight, upstream);
      for (int i = 0; i < kBlock; i += Lanes<T>::width) {
        const DflTarget<V> near = target_of(load(target + i), load(left + i), load(right + i), bins);
        const auto on_last = near.left == constant<V>(bins - 1);
        store(left + i, select(on_last, constant<V>(bins - 2), near.left));
        store(group.left_weight + block + i, select(on_last, V(), near.left_weight));
        store(group.right_weight + block + i, select(on_last, near.left_weight, near.right_weight));
        store(group.factor + block + i, factor_of(load(weight + i), load(upstream + i)));
        store(group.loss + block + i, load(weight + i));
      }
      for (int i = 0; i < kBlock; ++i) group.left[block + i] = static_cast<int32_t>(left[i]);
    }
  }

  template <int kBins>
  void write_gradient(const RowGroup<kBins>& rows, const Group& group, float* grad) const {
    const VecI lane = lane_numbers();
    rows.write(
        grad, op_.grad.length_stride,
        [&](int i, int first_bin, V e) {
          const VecI bin = lane + (first_bin - group.left[i]);
          const V right = select(bin == 1, V() + group.right_weight[i], V());
          return e * group.factor[i] - select(bin == 0, V() + group.left_weight[i], right);
        },
        [&](int i, V e) {
          const auto right_of_left = load(group.left + i) == RowGroup<kBins>::kLast - 1;
          return e * load(group.factor + i) - select(right_of_left, load(group.right_weight + i), V());
        });
  }

  void load_rows(int64_t row, int count, T* target, T* left, T* right, T* weight, T* upstream) const {
    load_block(op_.target, row, 1, count, static_cast<T>(op_.first_bin), target);
    load_block(op_.weight, row, 1, count, T(1), weight);
    load_block(op_.left_weight, row, 1, count, T(), left);
    load_block(op_.right_weight, row, 1, count, T(), right);
    load_block(op_.grad_loss, row * op_.grad_loss_stride, op_.grad_loss_stride, count, T(), upstream);
  }

  void take_losses(int64_t row, int count, const T* loss, BlockSums& sums) const {
    if (pass_ == Pass::kBackward) return;
    sums.add(loss, count);
    if (op_.reduction.mode != GFL_REDUCE_ROWS) return;
    T* out = static_cast<T*>(op_.loss) + row;
    for (int i = 0; i < count; ++i) out[i] = static_cast<T>(static_cast<double>(loss[i]) * scale_);
  }

  template <int kBins>
  void run_block(int64_t row, int count, BlockSums& sums) const {
    const int bins = kBins > 0 ? kBins : bins_;
    BinsTile<T> tile;
    T target[kBlock], left[kBlock], right[kBlock], weight[kBlock], upstream[kBlock], loss[kBlock];
    load_bins(op_.logits, 0, 0, row, count, bins, tile.data);
    load_rows(row, count, target, left, right, weight, upstream);
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const TileColumn<T> column{tile.data + i};
      const DflTarget<V> near = target_of(load(target + i), load(left + i), load(right + i), bins);
      const DflRow<V> row_loss = dfl_forward<V>(column, bins, near);
      store(loss + i, row_loss.loss * load(weight + i));
      if (!op_.grad.data) continue;
      dfl_gradient(column, bins, near, row_loss.inverse_sum, factor_of(load(weight + i), load(upstream + i)));
    }
    if (op_.grad.data) store_bins(tile.data, op_.grad, 0, 0, row, count, bins);
    take_losses(row, count, loss, sums);
  }

  const gfl_distribution_focal_loss& op_;
  const Pass pass_;
  const int bins_;
  const BinValues<T> values_;
  double scale_;
};

}  // namespace

int distribution_focal_loss(const gfl_distribution_focal_loss& op, Pass pass) {
  return with_compute_type(op.logits.dtype, "pred", [&](auto zero) {
    Dfl<decltype(zero)>(op, pass).run();
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
