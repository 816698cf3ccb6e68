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
  explicit Integral(const gfl_integral& op)
      : op_(op), bins_(static_cast<int>(op.bins)), values_(op.bin_values, 0.0, op.bins) {}

  void run(Pass pass) const {
    with_constant_bins<T>(bins_, [&](auto constant) {
      constexpr int bins = decltype(constant)::value;
      for_blocks([&](const Block& block) {
        if (pass == Pass::kForward) {
          forward<bins>(block);
        } else {
          backward<bins>(block);
        }
      });
    });
  }

 private:
  using V = Vector<T>;

  struct Block {
    int64_t batch;
    int64_t side;
    int64_t start;
    int count;
  };

  // What the forward keeps of a block's distributions.
  struct Kept {
    T most[kBlock];
    T inverse_sum[kBlock];
    T expectation[kBlock];
  };

  // Where a position's sides stand side by side, they are taken together, so that memory is passed over once.
  template <class Body>
  void for_blocks(const Body& body) const {
    if (op_.sides == 0) return;
    const int64_t together = op_.logits.channel_stride == 1 ? op_.sides : 1;
    const int64_t rows = chunk_rows(op_.bins * together);
    const int64_t pieces = chunk_count(op_.length, op_.bins * together);
    parallel_chunks(op_.batch * op_.sides / together * pieces, [&](int64_t chunk) {
      const int64_t first = chunk / pieces * together;
      const int64_t batch = first / op_.sides;
      const int64_t first_side = first % op_.sides;
      const int64_t begin = chunk % pieces * rows;
      const int64_t end = begin + rows < op_.length ? begin + rows : op_.length;
      for (int64_t start = begin; start < end; start += kBlock) {
        const int count = static_cast<int>(end - start < kBlock ? end - start : kBlock);
        for (int64_t side = 0; side < together; ++side) body(Block{batch, first_side + side, start, count});
      }
    });
  }

  int64_t output_offset(const Block& block) const {
    return block.batch * op_.output.batch_stride + block.side * op_.output.channel_stride +
           block.start * op_.output.length_stride;
  }
  int64_t statistic_offset(const Block& block, int which) const {
    return ((which * op_.batch + block.batch) * op_.sides + block.side) * op_.length + block.start;
  }

  template <int kBins>
  void forward(const Block& block) const {
    const int bins = kBins > 0 ? kBins : bins_;
    BinsTile<T> tile;
    Kept kept;
    load_bins(op_.logits, block.batch, block.side, block.start, block.count, bins, tile.data);
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const Softmax<V> softmax = softmax_in_place<V>(TileColumn<T>{tile.data + i}, bins, values_);
      store(kept.most + i, softmax.most);
      store(kept.inverse_sum + i, softmax.inverse_sum);
      store(kept.expectation + i, softmax.expectation);
    }
    store_run(kept.expectation, block.count, op_.output.data, op_.output.dtype, output_offset(block),
              op_.output.length_stride);
    if (!op_.statistics) return;
    const T* statistics[] = {kept.most, kept.inverse_sum, kept.expectation};
    for (int which = 0; which < 3; ++which) {
      store_block(statistics[which], block.count, op_.statistics, statistic_offset(block, which));
    }
  }

  template <int kBins>
  void backward(const Block& block) const {
    const int bins = kBins > 0 ? kBins : bins_;
    BinsTile<T> tile;
    Kept kept;
    T upstream[kBlock] = {};
    load_bins(op_.logits, block.batch, block.side, block.start, block.count, bins, tile.data);
    load_run(op_.output.data, op_.output.dtype, output_offset(block), op_.output.length_stride, block.count, upstream);
    load_block(op_.statistics, statistic_offset(block, 0), 1, block.count, T(), kept.most);
    load_block(op_.statistics, statistic_offset(block, 1), 1, block.count, T(), kept.inverse_sum);
    load_block(op_.statistics, statistic_offset(block, 2), 1, block.count, T(), kept.expectation);
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const Softmax<V> softmax{load(kept.most + i), load(kept.inverse_sum + i), load(kept.expectation + i)};
      expectation_gradient_of_logits(TileColumn<T>{tile.data + i}, bins, softmax, values_, load(upstream + i));
    }
    store_bins(tile.data, op_.grad, block.batch, block.side, block.start, block.count, bins);
  }

  const gfl_integral& op_;
  const int bins_;
  const BinValues<T> values_;
};

}  // namespace

int integral(const gfl_integral& op, Pass pass) {
  if (!is_float_dtype(op.logits.dtype)) return fail(GFL_ERROR_ARGUMENT, "unknown dtype %d of pred", op.logits.dtype);
  if (pass == Pass::kBackward && !op.statistics && op.batch * op.sides * op.length > 0) {
    return fail(GFL_ERROR_ARGUMENT, "the backward needs the forward's statistics");
  }
  if (op.logits.dtype == GFL_FLOAT64) {
    Integral<double>(op).run(pass);
  } else {
    Integral<float>(op).run(pass);
  }
  return GFL_OK;
}

}  // namespace GFL_ISA
}  // namespace gfl
