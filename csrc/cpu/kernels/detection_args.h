// What the drivers of NMS and post-processing and the kernels of each instruction set hand each other.
#pragma once

#include <cstdint>

#include "../../gfl.h"

namespace gfl {

// Vectors read whole: columns have room for this many values past their last.
constexpr int64_t kColumnPadding = 16;

// Boxes corner by corner.
template <class T>
struct BoxColumns {
  T* x1;
  T* y1;
  T* x2;
  T* y2;
  T* area;
  int32_t* labels;  // boxes of different labels do not meet; NULL: all do

  BoxColumns from(int64_t start) const {
    return {x1 + start, y1 + start, x2 + start, y2 + start, area + start, labels ? labels + start : nullptr};
  }
};

// Candidates by descending score. Those that stay are appended to the columns of the kept, which may be the candidates'
// own: they never overtake.
template <class T>
struct GreedyNms {
  BoxColumns<T> candidates;
  int64_t count;
  BoxColumns<T> kept;
  int64_t num_kept;
  int64_t most_kept;  // the search ends there
  double threshold;
  int32_t criterion;
  uint8_t* stays;  // (count,), written
};

// Values of one run of logits; what reaches `least` is reported by its place in the run.
template <class T>
struct LogitScan {
  const void* data;
  int32_t dtype;
  int64_t offset;
  int64_t stride;
  int count;  // at most kScanTile
  T least;
  int32_t* places;  // (kScanTile + kColumnPadding,)
  T* values;
};
constexpr int kScanTile = 1024;

// Up to 16 cells of any levels whose four distributions are turned into expectations.
template <class T>
struct EdgeBlock {
  int count;
  int bins;
  const gfl_bins* edges[16];
  int64_t offsets[16];  // of each cell's first logit
  T expectation[4][16];
  T* distributions[16];  // (4, bins) each, or all NULL
  T* deviations[16];     // (4,) each
};

}  // namespace gfl
