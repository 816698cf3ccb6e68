// The highest probabilities of edge distributions and their mean: sixteen positions of a side at a time, transposed.
#include "kernel.h"

#include "../../math/distribution_statistics.h"
#include "../simd/bins_tile.h"
#include "side_chunks.h"

namespace gfl {
namespace GFL_ISA {
namespace {

constexpr int kUsualTopk = 4;  // of GFLv2's heads

template <class T>
class Statistics {
 public:
  Statistics(const gfl_distribution_statistics& op, Pass pass)
      : op_(op), pass_(pass), bins_(static_cast<int>(op.bins)), topk_(static_cast<int>(op.topk)) {}

  void run() const {
    if (topk_ != kUsualTopk) return run_with<0, 0>();
    with_constant_bins<T>(bins_, [&](auto bins) { run_with<decltype(bins)::value, kUsualTopk>(); });
  }

 private:
  using V = Vector<T>;

  // Up to kBlock positions of one side.
  struct Block {
    int64_t batch;
    int64_t side;
    int64_t start;
    int count;
  };

  template <int kBins, int kTopk>
  void run_with() const {
    const bool sides_adjoin = op_.logits.channel_stride == 1;
    parallel_sides(op_.batch, op_.sides, op_.bins, op_.length, sides_adjoin, [&](const SideChunk& chunk) {
      for (int64_t start = chunk.begin; start < chunk.end; start += kBlock) {
        const int count = static_cast<int>(chunk.end - start < kBlock ? chunk.end - start : kBlock);
        for (int64_t side = 0; side < chunk.sides; ++side) {
          run_block<kBins, kTopk>({chunk.batch, chunk.first_side + side, start, count});
        }
      }
    });
  }

  template <int kBins, int kTopk>
  void run_block(const Block& block) const {
    const int bins = kBins > 0 ? kBins : bins_;
    const int topk = kTopk > 0 ? kTopk : topk_;
    constexpr int most = kTopk > 0 ? kTopk : kMostBins;
    BinsTile<T> tile, statistics;
    load_bins(op_.logits, block.batch, block.side, block.start, block.count, bins, tile.data);
    if (pass_ == Pass::kBackward) {
      load_bins(op_.output, block.batch, block.side, block.start, block.count, topk + 1, statistics.data);
    }
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const TileColumn<T> x{tile.data + i};
      const TileColumn<T> ranked{statistics.data + i};
      TopBins<V, most> top;
      const V inverse_sum = ranked_softmax<V>(x, bins, topk, top);
      if (pass_ == Pass::kForward) {
        write_statistics<V>(x, top, topk, inverse_sum, ranked);
      } else {
        statistics_gradient<V>(x, bins, top, topk, inverse_sum, upstream_of_ranks<V, most>(ranked, topk));
      }
    }
    if (pass_ == Pass::kForward) {
      store_bins(statistics.data, op_.output, block.batch, block.side, block.start, block.count, topk + 1);
    } else {
      store_bins(tile.data, op_.grad, block.batch, block.side, block.start, block.count, bins);
    }
  }

  const gfl_distribution_statistics& op_;
  const Pass pass_;
  const int bins_;
  const int topk_;
};

}  // namespace

int distribution_statistics(const gfl_distribution_statistics& op, Pass pass) {
  if (op.batch * op.sides * op.length == 0) return GFL_OK;
  return with_compute_type(op.logits.dtype, "pred", [&](auto zero) {
    Statistics<decltype(zero)>(op, pass).run();
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
