// The expectations of the edge distributions of chosen cells, and where asked for the distributions and their deviations.
#include "../simd/bins_tile.h"
#include "kernel.h"

namespace gfl {
namespace GFL_ISA {
namespace {

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

void expect_edges(EdgeBlock<float>& op) { expect(op); }
void expect_edges_double(EdgeBlock<double>& op) { expect(op); }

}  // namespace GFL_ISA
}  // namespace gfl
