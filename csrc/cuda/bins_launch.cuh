// How the kernels of distributions are chosen and launched, and how a block goes through its tiles.
#pragma once

#include "bins_tile.cuh"
#include "dispatch.cuh"

namespace gfl {
namespace cuda {

constexpr int kUsualBins = 17;  // of GFL's heads

// Calls run(Type<T>(), KnownBins<bins>()): the usual number of bins is known to the compiler, any other is 0 there. Not in
// double, whose exponentials are not worth unrolling.
template <int bins>
using KnownBins = std::integral_constant<int, bins>;

template <class Run>
int with_bins(int32_t dtype, int64_t bins, const Run& run) {
  return with_float_type(dtype, [&](auto type) {
    if constexpr (!std::is_same<typename decltype(type)::type, double>::value) {
      if (bins == kUsualBins) return run(type, KnownBins<kUsualBins>());
    }
    return run(type, KnownBins<0>());
  });
}

// Returns the number of blocks.
template <class Arguments>
int launch_tiles(Stream& stream, void (*kernel)(Arguments), const Arguments& arguments) {
  const BinsRows& rows = arguments.rows;
  const Grid grid{stream.blocks(rows.tiles(), 12), kTileThreads, rows.tile_bytes};
  stream.launch(kernel, grid, arguments);
  return grid.blocks;
}

// Loads a block's tiles one after the other and calls work(tile) for each. With kStore the rows, which `work` has replaced
// by their gradient, are stored.
template <class T, bool kStore, class Work>
__device__ __forceinline__ void for_each_tile(const BinsRows& rows, const BinsView<T>& logits, const BinsView<T>& grad,
                                              const Work& work) {
  BinsTile<T> tile{dynamic_shared<Compute<T>>(), rows, 0, 0};
  const int64_t step = static_cast<int64_t>(gridDim.x) * rows.tile_rows;
  for (tile.first = static_cast<int64_t>(blockIdx.x) * rows.tile_rows; tile.first < rows.rows; tile.first += step) {
    const int64_t left = rows.rows - tile.first;
    tile.count = left < rows.tile_rows ? static_cast<int>(left) : rows.tile_rows;
    tile.load(logits);
    __syncthreads();
    work(tile);
    __syncthreads();  // the rows are finished, and free for the next tile once they are stored
    if (!kStore) continue;
    tile.store(grad);
    __syncthreads();
  }
}

}  // namespace cuda
}  // namespace gfl
