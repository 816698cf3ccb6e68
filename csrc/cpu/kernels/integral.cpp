// The softmax expectation of edge distributions, a block of sixteen positions at a time.
#include "../../error.h"
#include "../isa.h"
#include "../kernels.h"
#include "../parallel.h"
#include "../bins_tile.h"
// The formulas come after the vector primitives.
#include "../../math/softmax.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
class Integral {
 public:
  Integral(const gfl_integral& op, Pass pass)
      : op_(op), pass_(pass), bins_(static_cast<int>(op.bins)), values_(op.bin_values, 0.0, op.bins) {}

  void run() const {
    const int64_t pieces = chunk_count(op_.length, op_.bins);
    parallel_chunks(op_.batch * op_.sides * pieces, [&](int64_t chunk) {
      const int64_t line = chunk / pieces;
      const int64_t begin = chunk % pieces * chunk_rows(op_.bins);
      const int64_t end = begin + chunk_rows(op_.bins) < op_.length ? begin + chunk_rows(op_.bins) : op_.length;
      for (int64_t start = begin; start < end; start += kBlock) {
        const int count = static_cast<int>(end - start < kBlock ? end - start : kBlock);
        run_block(line / op_.sides, line % op_.sides, start, count);
      }
    });
  }

 private:
  using V = Vector<T>;

  void run_block(int64_t batch, int64_t side, int64_t start, int count) const {
    BinsTile<T> tile;
    T value[kBlock] = {};  // forward: the expectation; backward: its incoming gradient
    const int64_t at =
        batch * op_.output.batch_stride + side * op_.output.channel_stride + start * op_.output.length_stride;
    load_bins(op_.logits, batch, side, start, count, bins_, tile.data);
    if (pass_ == Pass::kBackward) {
      load_run(op_.output.data, op_.output.dtype, at, op_.output.length_stride, count, value);
    }
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const TileColumn<T> column{tile.data + i};
      const V inverse_sum = reciprocal(softmax_in_place<V>(column, bins_));
      const V expectation = bins_expectation(column, bins_, inverse_sum, values_);
      if (pass_ == Pass::kForward) {
        store(value + i, expectation);
      } else {
        expectation_gradient(column, bins_, inverse_sum, values_, expectation, load(value + i));
      }
    }
    if (pass_ == Pass::kForward) {
      store_run(value, count, op_.output.data, op_.output.dtype, at, op_.output.length_stride);
    } else {
      store_bins(tile.data, op_.grad, batch, side, start, count, bins_);
    }
  }

  const gfl_integral& op_;
  const Pass pass_;
  const int bins_;
  const BinValues<T> values_;
};

}  // namespace

int integral(const gfl_integral& op, Pass pass) {
  if (!is_float_dtype(op.logits.dtype)) return fail(GFL_ERROR_ARGUMENT, "unknown dtype %d of pred", op.logits.dtype);
  if (op.logits.dtype == GFL_FLOAT64) {
    Integral<double>(op, pass).run();
  } else {
    Integral<float>(op, pass).run();
  }
  return GFL_OK;
}

}  // namespace GFL_ISA
}  // namespace gfl
