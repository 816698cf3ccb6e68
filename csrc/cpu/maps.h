// Maps of several levels: where an anchor lies, the chunks of work on them, what scratch those take.
#pragma once

#include "../gfl.h"
#include "parallel.h"

namespace gfl {

// The anchors of an image, level after level.
struct AnchorLevels {
  int count;
  int64_t first[GFL_MAX_LEVELS + 1];  // the last is the number of all

  GFL_MEMBER explicit AnchorLevels(const gfl_levels& levels) : count(levels.count) {
    first[0] = 0;
    for (int i = 0; i < count; ++i) {
      first[i + 1] = first[i] + static_cast<int64_t>(levels.level[i].height) * levels.level[i].width;
    }
  }
  GFL_MEMBER int64_t all() const { return first[count]; }
  GFL_MEMBER int64_t size(int level) const { return first[level + 1] - first[level]; }
  GFL_MEMBER int level_of(int64_t anchor) const {
    int level = 0;
    while (anchor >= first[level + 1]) ++level;
    return level;
  }
};

// The chunks of work of one level of one image. Where positions lie side by side a chunk is a few channels of many
// positions, so that it reads long runs; where channels do, it is all channels of some positions.
struct MapChunks {
  int64_t chunk_positions;
  int64_t chunk_channels;
  int64_t across;  // chunks along the channels
  int64_t count;

  GFL_MEMBER MapChunks(int64_t positions, int64_t channels, bool positions_adjoin) {
    constexpr int64_t kRun = 1024;
    chunk_positions = positions_adjoin ? kRun : chunk_rows(channels);
    chunk_channels = positions_adjoin ? kChunkElements / kRun : channels;
    across = channels > 0 ? (channels + chunk_channels - 1) / chunk_channels : 0;
    count = (positions + chunk_positions - 1) / chunk_positions * across;
  }
};

// Positives are worked on a block at a time, and a few blocks make a chunk.
constexpr int64_t kChunkPositives = 4 * kBlock;

GFL_FN int64_t positive_chunks(int64_t positives) { return (positives + kChunkPositives - 1) / kChunkPositives; }

constexpr int kPositiveSums = GFL_POSITIVE_SUMS;

// For one partial sum a chunk of either kind, or for a list of all positives and their partial sums.
GFL_FN int64_t maps_workspace_bytes(const gfl_levels& levels, int64_t batch, int64_t channels) {
  const AnchorLevels anchors(levels);
  int64_t chunks = 0;
  for (int i = 0; i < anchors.count; ++i) {
    chunks += batch * MapChunks(anchors.size(i), channels, true).count;
    chunks += batch * MapChunks(anchors.size(i), channels, false).count;
  }
  const int64_t all = batch * anchors.all();
  const int64_t of_positives = all + batch + kPositiveSums * positive_chunks(all);
  return (chunks > of_positives ? chunks : of_positives) * static_cast<int64_t>(sizeof(double));
}

}  // namespace gfl
