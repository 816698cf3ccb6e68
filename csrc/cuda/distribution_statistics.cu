// The highest probabilities of softmax distributions and their mean: a thread for each distribution.
//
// Behind the tile of logits lies a tile of statistics, which leave or come in as logits do; and behind both, where the
// compiler does not know how many ranks there are, the bins that have them, a byte each.
#include "../math/distribution_statistics.h"
#include "bins_launch.cuh"
#include "cuda_ops.h"

namespace gfl {
namespace cuda {
namespace {

constexpr int kUsualTopk = 4;  // of GFLv2's heads

// What math/distribution_statistics.h calls TopBins, in shared memory: the bins alone, whose values are in the tile.
template <class C>
class BinsByRank {
 public:
  __device__ __forceinline__ explicit BinsByRank(unsigned char* bins) : bins_(bins) {}

  __device__ __forceinline__ void find(const TileRow<C>& x, int bins, int topk) {
    for (int k = 0; k < bins; ++k) {
      int place = k < topk ? k : topk;
      while (place > 0 && x(k) > x(bins_[place - 1])) {
        if (place < topk) bins_[place] = bins_[place - 1];
        --place;
      }
      if (place < topk) bins_[place] = static_cast<unsigned char>(k);
    }
    largest_ = x(bins_[0]);
  }
  __device__ __forceinline__ C largest() const { return largest_; }
  __device__ __forceinline__ void take_exponentials(const TileRow<C>&, int) const {}
  __device__ __forceinline__ C exponential_at(const TileRow<C>& e, int rank) const { return e(bins_[rank]); }
  __device__ __forceinline__ C bin(int rank) const { return constant<C>(static_cast<int>(bins_[rank])); }

 private:
  unsigned char* bins_;
  C largest_;
};

template <class T>
struct StatisticsArguments {
  using C = Compute<T>;

  int topk;
  BinsRows rows;
  BinsRows output_rows;
  BinsView<T> logits;
  BinsView<T> grad;
  BinsView<T> output;

  explicit StatisticsArguments(const gfl_distribution_statistics& op)
      : topk(static_cast<int>(op.topk)),
        rows(op.batch, op.sides, op.bins, op.length, op.logits.channel_stride == 1, sizeof(C), bytes_beside(topk)),
        output_rows(op.batch, op.sides, op.topk + 1, op.length, rows.sides_innermost, sizeof(C)),
        logits(op.logits, rows, op.batch),
        grad(op.grad, rows, op.batch),
        output(op.output, output_rows, op.batch) {
    output_rows.tile_rows = rows.tile_rows;
  }

  // Of a row: its statistics, at an odd pitch, and the bins by rank.
  static int bytes_beside(int topk) { return ((topk + 1) | 1) * static_cast<int>(sizeof(C)) + topk; }

  __device__ __forceinline__ C* statistics() const { return dynamic_shared<C>() + rows.tile_rows * rows.pitch; }
  __device__ __forceinline__ unsigned char* ranked(int thread) const {
    C* const end = statistics() + rows.tile_rows * output_rows.pitch;
    return reinterpret_cast<unsigned char*>(end) + thread * topk;
  }
};

template <class C, bool kGrad, class Top, class Upstream>
__device__ __forceinline__ void run_row(const TileRow<C>& x, int bins, int topk, Top top, const TileRow<C>& statistics,
                                        const Upstream& upstream) {
  const C inverse_sum = ranked_softmax<C>(x, bins, topk, top);
  if (kGrad) {
    statistics_gradient(x, bins, top, topk, inverse_sum, upstream);
  } else {
    write_statistics(x, top, topk, inverse_sum, statistics);
  }
}

template <class T, int kBins, int kTopk, bool kGrad>
__device__ __forceinline__ void run_thread(const StatisticsArguments<T>& op, const BinsTile<T>& tile,
                                           const BinsTile<T>& statistics) {
  using C = Compute<T>;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= tile.count) return;
  const TileRow<C> x = tile.row(thread);
  const TileRow<C> ranked = statistics.row(thread);
  if constexpr (kTopk > 0) {
    RankValues<C, kTopk> upstream{};
    if (kGrad) upstream = upstream_of_ranks<C, kTopk>(ranked, kTopk);
    run_row<C, kGrad>(x, kBins, kTopk, TopBins<C, kTopk>(), ranked, upstream);
  } else {
    if (kGrad) spread_mean<C>(ranked, op.topk);
    run_row<C, kGrad>(x, op.rows.bins, op.topk, BinsByRank<C>(op.ranked(thread)), ranked, ranked);
  }
}

template <class T, int kBins, int kTopk, bool kGrad>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks<T>)
    distribution_statistics_kernel(const StatisticsArguments<T> op) {
  for_each_tile<T, kGrad>(op.rows, op.logits, op.grad, [&](const BinsTile<T>& tile) {
    const BinsTile<T> statistics{op.statistics(), op.output_rows, tile.first, tile.count};
    if (kGrad) {
      statistics.load(op.output);
      __syncthreads();
    }
    run_thread<T, kBins, kTopk, kGrad>(op, tile, statistics);
    if (kGrad) return;
    __syncthreads();
    statistics.store(op.output);
  });
}

template <class T, int kBins, int kTopk>
int launch(Stream& stream, const gfl_distribution_statistics& op, bool backward) {
  const StatisticsArguments<T> arguments(op);
  if (arguments.rows.rows == 0) return GFL_OK;
  launch_tiles(stream,
               backward ? distribution_statistics_kernel<T, kBins, kTopk, true>
                        : distribution_statistics_kernel<T, kBins, kTopk, false>,
               arguments);
  return stream.status();
}

int distribution_statistics(const gfl_device& device, const gfl_distribution_statistics& op, bool backward) {
  Stream stream(device);
  return with_bins(op.logits.dtype, op.bins, [&](auto type, auto bins) {
    using T = typename decltype(type)::type;
    constexpr int kBins = decltype(bins)::value;
    if constexpr (kBins > 0) {
      if (op.topk == kUsualTopk) return launch<T, kBins, kUsualTopk>(stream, op, backward);
    }
    return launch<T, 0, 0>(stream, op, backward);
  });
}

}  // namespace

int distribution_statistics_forward(const gfl_device& device, const gfl_distribution_statistics& op) {
  return distribution_statistics(device, op, false);
}

int distribution_statistics_backward(const gfl_device& device, const gfl_distribution_statistics& op) {
  return distribution_statistics(device, op, true);
}

}  // namespace cuda
}  // namespace gfl
