// The positives of a dense head, wherever they lie in the maps of its levels.
//
// A block takes tiles of neighbouring cells of one level of one image, lists the positives among them in their order,
// and works on those. A tile leaves partial sums of its own, so that they do not depend on the size of the grid.
#pragma once

#include "bins_tile.cuh"
#include "levels.cuh"
#include "reduce.cuh"

namespace gfl {
namespace cuda {

constexpr int kPositiveThreads = kTileThreads;
constexpr int kTileCells = 2 * kPositiveThreads;

struct PositiveTiles {
  LevelTable table;
  int64_t first[GFL_MAX_LEVELS + 1];  // of a level's tiles within an image; the last is the number of all
  int64_t count;                      // of all images
  Divider by_tiles;

  PositiveTiles(const gfl_levels& levels, int64_t batch) : table(levels), first{} {
    for (int i = 0; i < table.count; ++i) first[i + 1] = first[i] + (table.size(i) + kTileCells - 1) / kTileCells;
    count = batch * of_image();
    by_tiles = Divider(of_image());
  }
  __host__ __device__ __forceinline__ int64_t of_image() const { return first[table.count]; }

  struct Place {
    int64_t image;
    int level;
    int position;   // of the first cell in its level
    int cells;      // fewer in a level's last tile
    int64_t index;  // of the first cell among the anchors of all images
  };
  __device__ __forceinline__ Place place(int64_t tile) const {
    const int64_t image = by_tiles.divide_long(tile);
    const int64_t within = tile - image * of_image();
    int level = 0;
    while (within >= first[level + 1]) ++level;
    const int position = static_cast<int>(within - first[level]) * kTileCells;
    const int left = static_cast<int>(table.size(level)) - position;
    return {image, level, position, left < kTileCells ? left : kTileCells,
            image * table.all() + table.first[level] + position};
  }
};

// Where a cell's channels begin in its map.
template <class T>
__device__ __forceinline__ T* cell_of(const gfl_maps& maps, const PositiveTiles::Place& tile, int cell) {
  const gfl_map& map = maps.level[tile.level];
  return static_cast<T*>(map.data) + tile.image * map.batch_stride + (tile.position + cell) * map.position_stride;
}

struct PositiveList {
  int cells[kTileCells];
  int found[kTileCells / kWarp];  // in each warp's share of the cells
};

// Lists a tile's positives in shared memory; every thread learns how many they are, and `none(cell)` is called for the
// others. All threads must come; what they did before is then visible to all, and the list of the last call is gone.
template <class None>
__device__ __forceinline__ int list_positives(const int32_t* assigned_gt, const PositiveTiles::Place& tile,
                                              PositiveList& list, const None& none) {
  constexpr int kSegments = kTileCells / kWarp;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarp;
  unsigned mine[kTileCells / kPositiveThreads];
#pragma unroll
  for (int k = 0; k < kTileCells / kPositiveThreads; ++k) {
    const int cell = k * kPositiveThreads + thread;
    const bool exists = cell < tile.cells;
    const bool positive = exists && assigned_gt[tile.index + cell] >= 0;
    if (exists && !positive) none(cell);
    mine[k] = __ballot_sync(kFullWarp, positive);
    if (lane == 0) list.found[cell / kWarp] = __popc(mine[k]);
  }
  __syncthreads();
  int total = 0;
#pragma unroll
  for (int k = 0; k < kTileCells / kPositiveThreads; ++k) {
    const int cell = k * kPositiveThreads + thread;
    int place = __popc(mine[k] & ((1u << lane) - 1u));
    for (int segment = 0; segment < cell / kWarp; ++segment) place += list.found[segment];
    if (mine[k] >> lane & 1u) list.cells[place] = cell;
  }
  for (int segment = 0; segment < kSegments; ++segment) total += list.found[segment];
  __syncthreads();
  return total;
}

}  // namespace cuda
}  // namespace gfl
