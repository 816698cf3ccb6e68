// What post-processing does with logits: finds those worth a look, and decodes the cells that were chosen.
#include "../../error.h"
#include "../bins_tile.h"
#include "../greedy.h"
#include "../isa.h"
#include "../kernels.h"
// The formulas come after the vector primitives.
#include "../../math/softmax.h"

namespace gfl {
namespace GFL_ISA {
namespace {

GFL_FN int find_lanes(const float* values, int count, float least, int32_t* places) {
  constexpr int width = Lanes<float>::width;
  const VecF floor = VecF() + least;
  int found = 0;
  int i = 0;
  for (; i + 4 * width <= count; i += 4 * width) {
    uint64_t lanes = 0;
    for (int j = 0; j < 4; ++j) {
      lanes |= static_cast<uint64_t>(lane_bits(load(values + i + j * width) >= floor)) << (j * width);
    }
    for (; lanes; lanes &= lanes - 1) places[found++] = i + __builtin_ctzll(lanes);
  }
  for (; i < count; ++i) {
    if (values[i] >= least) places[found++] = i;
  }
  return found;
}
GFL_FN int find_lanes(const double* values, int count, double least, int32_t* places) {
  int found = 0;
  for (int i = 0; i < count; ++i) {
    if (values[i] >= least) places[found++] = i;
  }
  return found;
}

template <class T>
int scan(const LogitScan<T>& op) {
  T buffer[kScanTile];
  const T* values = buffer;
  if (op.dtype == DtypeOf<T>::code && op.stride == 1) {
    values = static_cast<const T*>(op.data) + op.offset;
  } else {
    load_run(op.data, op.dtype, op.offset, op.stride, op.count, buffer);
  }
  const int found = find_lanes(values, op.count, op.least, op.places);
  for (int i = 0; i < found; ++i) op.values[i] = values[op.places[i]];
  return found;
}

template <class T>
void gather_side(const EdgeBlock<T>& op, int side, T* tile) {
  T run[kMostBins];
  for (int i = 0; i < kBlock; ++i) {
    if (i < op.count) {
      const gfl_bins& edges = *op.edges[i];
      const int64_t first = op.offsets[i] + side * op.bins * edges.channel_stride;
      load_run(edges.data, edges.dtype, first, edges.channel_stride, op.bins, run);
    }
    for (int k = 0; k < op.bins; ++k) tile[k * kBlock + i] = i < op.count ? run[k] : T();
  }
}

// One lane of a tile.
template <class T>
struct Lane {
  T* first;
  T& operator()(int k) const { return first[k * kBlock]; }
};

template <class T>
void write_distributions(const EdgeBlock<T>& op, int side, T* exponentials, const T* inverse_sums,
                         const BinValues<T>& values) {
  for (int i = 0; i < op.count; ++i) {
    const Lane<T> lane{exponentials + i};
    const Softmax<T> softmax{T(), inverse_sums[i], op.expectation[side][i]};
    op.deviations[i][side] = standard_deviation(lane, op.bins, softmax, values);
    for (int k = 0; k < op.bins; ++k) op.distributions[i][side * op.bins + k] = lane(k);
  }
}

template <class T>
void expect(EdgeBlock<T>& op) {
  using V = Vector<T>;
  const BinValues<T> values(nullptr, 0.0, op.bins);
  for (int side = 0; side < 4; ++side) {
    BinsTile<T> tile;
    T inverse_sums[kBlock];
    gather_side(op, side, tile.data);
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const Softmax<V> softmax = softmax_in_place<V>(TileColumn<T>{tile.data + i}, op.bins, values);
      store(inverse_sums + i, softmax.inverse_sum);
      store(op.expectation[side] + i, softmax.expectation);
    }
    if (op.distributions[0]) write_distributions(op, side, tile.data, inverse_sums, values);
  }
}

}  // namespace

int scan_logits(const LogitScan<float>& op) { return scan(op); }
int scan_logits_double(const LogitScan<double>& op) { return scan(op); }
void expect_edges(EdgeBlock<float>& op) { expect(op); }
void expect_edges_double(EdgeBlock<double>& op) { expect(op); }

}  // namespace GFL_ISA
}  // namespace gfl
