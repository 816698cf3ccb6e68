// Distribution focal loss over rows of logits, a block of sixteen rows at a time.
#include "../../error.h"
#include "../isa.h"
#include "../kernels.h"
#include "../parallel.h"
#include "../bins_tile.h"
// The formulas come after the vector primitives.
#include "../../math/dfl.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
class Dfl {
 public:
  Dfl(const gfl_dfl& op, Pass pass)
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
    const bool summed = pass_ == Pass::kForward && op_.reduction.kind == GFL_REDUCE_SUM;
    const int64_t chunks = chunk_count(op_.rows, op_.bins);
    parallel_chunks(chunks, [&](int64_t chunk) {
      const int64_t begin = chunk * chunk_rows(op_.bins);
      const int64_t end = begin + chunk_rows(op_.bins) < op_.rows ? begin + chunk_rows(op_.bins) : op_.rows;
      BlockSums sums;
      for (int64_t row = begin; row < end; row += kBlock) {
        run_block<kBins>(row, static_cast<int>(end - row < kBlock ? end - row : kBlock), sums);
      }
      if (summed) partials[chunk] = sums.total();
    });
    if (summed) write_sum<T>(partials, chunks, scale_, op_.loss);
  }

  template <int kBins>
  void run_block(int64_t row, int count, BlockSums& sums) const {
    const int bins = kBins > 0 ? kBins : bins_;
    BinsTile<T> tile;
    T target[kBlock], left[kBlock], right[kBlock], weight[kBlock], upstream[kBlock], loss[kBlock];
    load_bins(op_.logits, 0, 0, row, count, bins, tile.data);
    load_block(op_.target, row, 1, count, static_cast<T>(op_.first_bin), target);
    load_block(op_.weight, row, 1, count, T(1), weight);
    if (op_.left_weight) {
      load_block(op_.left_weight, row, 1, count, T(), left);
      load_block(op_.right_weight, row, 1, count, T(), right);
    }
    if (op_.grad_loss)
      load_block(op_.grad_loss, row * op_.grad_loss_stride, op_.grad_loss_stride, count, T(), upstream);

    const V scale = V() + static_cast<T>(scale_);
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const TileColumn<T> column{tile.data + i};
      DflTarget<V> near = op_.bin_values ? dfl_target(load(target + i), values_, bins)
                                         : dfl_target(load(target + i), V() + static_cast<T>(op_.first_bin), bins);
      if (op_.left_weight) near = dfl_reweighted(near, load(left + i), load(right + i));
      const DflRow<V> row_loss = dfl_forward<V>(column, bins, near);
      store(loss + i, row_loss.loss * load(weight + i));
      if (!op_.grad.data) continue;
      V factor = scale * load(weight + i);
      if (op_.grad_loss) factor = factor * load(upstream + i);
      dfl_gradient(column, bins, near, row_loss.inverse_sum, factor);
    }
    if (op_.grad.data) store_bins(tile.data, op_.grad, 0, 0, row, count, bins);
    if (pass_ == Pass::kBackward) return;
    sums.add(loss, count);
    if (op_.reduction.kind == GFL_REDUCE_ROWS) {
      T* out = static_cast<T*>(op_.loss) + row;
      for (int i = 0; i < count; ++i) out[i] = static_cast<T>(static_cast<double>(loss[i]) * scale_);
    }
  }

  const gfl_dfl& op_;
  const Pass pass_;
  const int bins_;
  const BinValues<T> values_;
  double scale_;
};

}  // namespace

int dfl(const gfl_dfl& op, Pass pass) {
  if (!is_float_dtype(op.logits.dtype)) return fail(GFL_ERROR_ARGUMENT, "unknown dtype %d of pred", op.logits.dtype);
  if (op.logits.dtype == GFL_FLOAT64) {
    Dfl<double>(op, pass).run();
  } else {
    Dfl<float>(op, pass).run();
  }
  return GFL_OK;
}

}  // namespace GFL_ISA
}  // namespace gfl
