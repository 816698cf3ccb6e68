// The softmax expectation of edge distributions: a group of sixty-four positions at a time where they are rows of floats,
// as they lie, or a block of sixteen transposed.
#include <type_traits>

#include "../simd/row_group.h"
#include "kernel.h"
#include "side_chunks.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
class Integral {
 public:
  explicit Integral(const gfl_integral& op)
      : op_(op), bins_(static_cast<int>(op.bins)), values_(op.bin_values, 0.0, op.bins) {}

  void run(Pass pass) const {
    with_constant_bins<T>(bins_, [&](auto constant) {
      constexpr int bins = decltype(constant)::value;
      if (pass == Pass::kBackward && !op_.logits.data) {
        for_stretches(
            [&](const Stretch& all, bool&) { for_blocks(all, [&](const Stretch& block) { multiply<bins>(block); }); });
      } else {
        for_stretches([&](const Stretch& all, bool& groups) { run_stretch<bins>(all, pass, groups); });
      }
    });
  }

 private:
  using V = Vector<T>;

  // Up to kGroupRows positions of one side; a block of them is up to kBlock.
  struct Stretch {
    int64_t batch;
    int64_t side;
    int64_t start;
    int count;
  };

  template <class Body>
  void for_stretches(const Body& body) const {
    const bool sides_adjoin = (op_.logits.data ? op_.logits : op_.grad).channel_stride == 1;
    parallel_sides(op_.batch, op_.sides, op_.bins, op_.length, sides_adjoin, [&](const SideChunk& chunk) {
      bool groups = true;  // until one is refused: where one row is steep, others are
      for (int64_t start = chunk.begin; start < chunk.end; start += kGroupRows) {
        const int count = static_cast<int>(chunk.end - start < kGroupRows ? chunk.end - start : kGroupRows);
        for (int64_t side = 0; side < chunk.sides; ++side) {
          body(Stretch{chunk.batch, chunk.first_side + side, start, count}, groups);
        }
      }
    });
  }

  template <class Body>
  static void for_blocks(const Stretch& all, const Body& body) {
    for (int i = 0; i < all.count; i += kBlock) {
      body(Stretch{all.batch, all.side, all.start + i, all.count - i < kBlock ? all.count - i : kBlock});
    }
  }

  int64_t output_offset(const Stretch& block) const {
    return block.batch * op_.output.batch_stride + block.side * op_.output.channel_stride +
           block.start * op_.output.length_stride;
  }

  template <int kBins>
  int bins() const {
    return kBins > 0 ? kBins : bins_;
  }

  static int64_t origin(const gfl_bins& m, const Stretch& all, int bins) {
    return all.batch * m.batch_stride + all.side * bins * m.channel_stride + all.start * m.length_stride;
  }

  // A forward has expectations and, where asked for, their slopes; a backward the slopes times what comes in.
  template <int kBins>
  void run_stretch(const Stretch& all, Pass pass, bool& groups) const {
    groups = groups && run_group<kBins>(all, pass);
    if (groups) return;
    for_blocks(all, [&](const Stretch& block) { run_block<kBins>(block, pass); });
  }

  template <int kBins>
  void run_block(const Stretch& block, Pass pass) const {
    BinsTile<T> tile;
    T expectation[kBlock], upstream[kBlock];
    load_bins(op_.logits, block.batch, block.side, block.start, block.count, bins<kBins>(), tile.data);
    load_upstream(block, pass, upstream);
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const TileColumn<T> column{tile.data + i};
      const Softmax<V> softmax = softmax_in_place<V>(column, bins<kBins>(), values_);
      store(expectation + i, softmax.expectation);
      if (op_.grad.data) expectation_gradient(column, bins<kBins>(), softmax, values_, load(upstream + i));
    }
    if (pass == Pass::kForward) store_expectation(block, expectation);
    if (op_.grad.data) {
      store_bins(tile.data, op_.grad, block.batch, block.side, block.start, block.count, bins<kBins>());
    }
  }

  template <int kBins>
  bool is_group(const Stretch& all) const {
    if constexpr (std::is_same<T, float>::value && kBins > 0 && RowGroup<kBins>::kPossible) {
      return all.count == kGroupRows && whole_block_of_rows<T>(op_.logits, kBlock) &&
             (!op_.grad.data || whole_block_of_rows<T>(op_.grad, kBlock));
    }
    return false;
  }

  // False where the rows are such as a group does not do.
  template <int kBins>
  bool run_group(const Stretch& all, Pass pass) const {
    if constexpr (kBins > 0) {
      RowGroup<kBins> rows;
      if (!is_group<kBins>(all) || !exponentials_of(all, rows)) return false;
      alignas(64) T expectation[kGroupRows], upstream[kGroupRows];
      for_blocks(all, [&](const Stretch& block) { load_upstream(block, pass, upstream + (block.start - all.start)); });
      finish(all, rows, expectation, upstream);
      if (pass == Pass::kForward) {
        for_blocks(all,
                   [&](const Stretch& block) { store_expectation(block, expectation + (block.start - all.start)); });
      }
      return true;
    }
    return false;
  }

  template <int kBins>
  bool exponentials_of(const Stretch& all, RowGroup<kBins>& rows) const {
    const float* logits = static_cast<const float*>(op_.logits.data) + origin(op_.logits, all, kBins);
    return rows.template exponentials<true>(logits, op_.logits.length_stride, values_.values);
  }

  // The expectations, and upstream times their slopes where those are asked for.
  template <int kBins>
  void finish(const Stretch& all, const RowGroup<kBins>& rows, T* expectation, const T* upstream) const {
    alignas(64) T factor[kGroupRows];
    for (int i = 0; i < kGroupRows; i += Lanes<T>::width) {
      const V inverse_sum = reciprocal(load(rows.sum + i));
      store(expectation + i, load(rows.total + i) * inverse_sum);
      store(factor + i, load(upstream + i) * inverse_sum);
    }
    if (!op_.grad.data) return;
    rows.write(
        static_cast<float*>(op_.grad.data) + origin(op_.grad, all, kBins), op_.grad.length_stride,
        [&](int i, int k, V e) { return e * factor[i] * (load(values_.values + k) - expectation[i]); },
        [&](int i, V e) { return e * load(factor + i) * (values_(kBins - 1) - load(expectation + i)); });
  }

  // The slopes are of the compute type (integral sees to it), and stay where they are.
  template <int kBins>
  void multiply(const Stretch& block) const {
    T upstream[kBlock];
    load_upstream(block, Pass::kBackward, upstream);
    const gfl_bins& m = op_.grad;
    T* slopes = static_cast<T*>(m.data) + origin(m, block, bins<kBins>());
    if constexpr (kStoresLines && kBins == 17 && std::is_same<T, float>::value) {
      if (block.count == kBlock && m.channel_stride == 1 && m.length_stride == kBins) {
        return multiply_lines(slopes, load(upstream));
      }
    }
    if (m.channel_stride == 1) {
      for (int i = 0; i < block.count; ++i) {
        multiply_run(slopes + i * m.length_stride, bins<kBins>(), [&](int) { return constant<V>(upstream[i]); });
      }
      return;
    }
    for (int k = 0; k < bins<kBins>(); ++k) {
      T* at = slopes + k * m.channel_stride;
      if (m.length_stride == 1) {
        multiply_run(at, block.count, [&](int i) { return load(upstream + i); });
      } else {
        for (int i = 0; i < block.count; ++i) at[i * m.length_stride] *= upstream[i];
      }
    }
  }

  // factors(i): those of the values from i on, a vector of them.
  template <class Factors>
  static void multiply_run(T* values, int n, const Factors& factors) {
    constexpr int width = Lanes<T>::width;
    int i = 0;
    for (; i + width <= n; i += width) store(values + i, load(values + i) * factors(i));
    if (i == n) return;
    T left[width];
    store(left, factors(i));
    for (int lane = 0; i < n; ++i, ++lane) values[i] *= left[lane];
  }

  void store_expectation(const Stretch& block, const T* expectation) const {
    store_run(expectation, block.count, op_.output.data, op_.output.dtype, output_offset(block),
              op_.output.length_stride);
  }

  // What comes in: for a forward ones.
  void load_upstream(const Stretch& block, Pass pass, T* upstream) const {
    for (int i = 0; i < kBlock; ++i) upstream[i] = pass == Pass::kForward ? T(1) : T();
    if (pass == Pass::kForward) return;
    load_run(op_.output.data, op_.output.dtype, output_offset(block), op_.output.length_stride, block.count, upstream);
  }

  const gfl_integral& op_;
  const int bins_;
  const BinValues<T> values_;
};

}  // namespace

int integral(const gfl_integral& op, Pass pass) {
  if (op.batch * op.sides * op.length == 0) return GFL_OK;
  const bool slopes = pass == Pass::kForward ? op.grad.data != nullptr : op.logits.data == nullptr;
  const int32_t dtype = (op.logits.data ? op.logits : op.grad).dtype;
  return with_compute_type(dtype, "pred", [&](auto zero) -> int {
    if (slopes && (op.grad.dtype != dtype || dtype != DtypeOf<decltype(zero)>::code)) {
      return fail(GFL_ERROR_ARGUMENT, "slopes are float32 or float64, as pred is; got %d for %d", op.grad.dtype, dtype);
    }
    Integral<decltype(zero)>(op).run(pass);
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
