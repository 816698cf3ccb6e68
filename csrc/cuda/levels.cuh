// The cells of all levels as a kernel takes them: by value, with the divisions that find a cell prepared.
#pragma once

#include "index.cuh"

namespace gfl {
namespace cuda {

struct LevelTable {
  int count;
  int64_t first[GFL_MAX_LEVELS + 1];  // of a level's anchors within an image; the last is the number of all
  int width[GFL_MAX_LEVELS];
  Divider by_width[GFL_MAX_LEVELS];
  Divider by_anchors;

  explicit LevelTable(const gfl_levels& levels) : count(levels.count), first{}, width{} {
    for (int i = 0; i < count; ++i) {
      first[i + 1] = first[i] + static_cast<int64_t>(levels.level[i].height) * levels.level[i].width;
      width[i] = levels.level[i].width;
      by_width[i] = Divider(width[i]);
    }
    by_anchors = Divider(all());
  }

  __host__ __device__ __forceinline__ int64_t all() const { return first[count]; }
  __host__ __device__ __forceinline__ int64_t size(int level) const { return first[level + 1] - first[level]; }

  struct Cell {
    int level;
    int x;
    int y;
  };
  __device__ __forceinline__ Cell cell(int64_t anchor) const {
    int level = 0;
    while (anchor >= first[level + 1]) ++level;
    const int position = static_cast<int>(anchor - first[level]);
    const int y = by_width[level].divide(position);
    return {level, position - y * width[level], y};
  }
};

}  // namespace cuda
}  // namespace gfl
