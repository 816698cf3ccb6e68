// Tiles of consecutive elements of a contiguous matrix of logits: where they lie, what their elements are worth.
#pragma once

#include "class_loss.cuh"
#include "vector.cuh"

namespace gfl {
namespace cuda {

constexpr int kTileThreads = 256;

// kBoth: loss and gradient are wanted; of a half type that leaves registers for two vectors only.
template <class T, bool kBoth>
struct FlatTile {
  static constexpr int kThreads = kTileThreads;
  static constexpr int kUnroll = sizeof(T) == 2 && kBoth ? 2 : 4;  // vectors of a thread in flight
  static constexpr int kStep = kThreads * kPack<T>;                // elements that the block loads at once
  static constexpr int kElements = kStep * kUnroll;
  static constexpr int kMarkWords = kElements / 32;
  static constexpr int kMarkBytes = 2 * kMarkWords * static_cast<int>(sizeof(uint32_t));
};

// Where the elements of a tile lie in the matrix. Rows and columns of neighbours are found by 32-bit arithmetic.
struct TilePlace {
  int64_t start;      // first element
  int64_t first_row;  // its row
  int first_col;
  int count;  // elements of the tile, fewer in the last one
};

// What the host knows of the walk over the tiles: how a block's place moves, so that only the first needs a division,
// and whether every full tile without a positive is a plain one (one factor for all, no losses of elements, and a
// gradient if the kernel can give one).
struct TilePlan {
  int64_t elements;
  int64_t rows;
  int cols;
  int plain;
  Divider by_cols;

  TilePlan(int64_t columns, int64_t step, bool plain_)
      : elements(step),
        rows(step / columns),
        cols(static_cast<int>(step % columns)),
        plain(plain_ ? 1 : 0),
        by_cols(columns) {}
};

// The factors of neighbouring elements, one after the other.
template <class C>
class FactorWalk {
 public:
  __device__ __forceinline__ FactorWalk(const Factors<C>& factors, const TilePlace& place, const Divider& by_cols,
                                        int local)
      : factors_(factors), cols_(static_cast<int>(by_cols.divisor())) {
    const int offset = place.first_col + local;
    const int down = by_cols.divide(offset);
    row_ = place.first_row + down;
    col_ = offset - down * cols_;
  }
  __device__ __forceinline__ bool same_row(int elements) const {
    return factors_.spread == Spread::kRows && col_ + elements <= cols_;
  }
  __device__ __forceinline__ C value() const { return factors_.at(row_, col_); }
  __device__ __forceinline__ void next() {
    if (++col_ == cols_) {
      col_ = 0;
      ++row_;
    }
  }

 private:
  const Factors<C>& factors_;
  int cols_;
  int64_t row_;
  int col_;
};

// Calls found(element in the tile, row, class) for this thread's share of the positives of a tile.
template <class T, class Found>
__device__ __forceinline__ void for_each_positive(const ClassArguments<T>& op, const TilePlace& place,
                                                  const Divider& by_cols, const Found& found) {
  const int cols = static_cast<int>(op.cols);
  const int rows = by_cols.divide(place.first_col + place.count - 1) + 1;
  for (int r = static_cast<int>(threadIdx.x); r < rows; r += kTileThreads) {
    const int64_t label = op.label(place.first_row + r);
    if (label < 0 || label >= cols) continue;
    const int local = r * cols - place.first_col + static_cast<int>(label);
    if (local >= 0 && local < place.count) found(local, place.first_row + r, label);
  }
}

// Sums of losses in the compute type, several so that none waits for the one before.
template <class C, int N>
struct LossLanes {
  static constexpr int kLanes = N < 4 ? N : 4;
  C lanes[kLanes] = {};

  __device__ __forceinline__ C sum() const {
    return kLanes == 2 ? lanes[0] + lanes[1] : (lanes[0] + lanes[1]) + (lanes[kLanes - 2] + lanes[kLanes - 1]);
  }
};

// The losses (modulation times bce) and gradients of one vector of elements, without the marked ones.
template <class T>
struct VectorTerms {
  static constexpr int N = kPack<T>;
  using C = Compute<T>;
  C modulation[N];
  C bce[N];
  C grad[N];

  __device__ __forceinline__ void multiply_out() {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      modulation[i] = modulation[i] * bce[i];
      bce[i] = constant<C>(1.0);
    }
  }
  // Once they are multiplied out, since bce may be infinite.
  __device__ __forceinline__ void drop(unsigned marked) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const bool dropped = (marked >> i & 1u) != 0;
      modulation[i] = select(dropped, C(), modulation[i]);
      grad[i] = select(dropped, C(), grad[i]);
    }
  }
  __device__ __forceinline__ void multiply(const Factors<C>& factors, const TilePlace& place, const Divider& by_cols,
                                           int local, int count) {
    FactorWalk<C> walk(factors, place, by_cols, local);
    C factor = walk.value();
    const bool same = walk.same_row(N);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      modulation[i] = modulation[i] * factor;
      grad[i] = grad[i] * factor;
      if (same || i + 1 >= count) continue;
      walk.next();
      factor = walk.value();
    }
  }
  __device__ __forceinline__ void add_losses(LossLanes<C, N>& sums) const {
    constexpr int kLanes = LossLanes<C, N>::kLanes;
#pragma unroll
    for (int i = 0; i < N; ++i) sums.lanes[i % kLanes] = fused(modulation[i], bce[i], sums.lanes[i % kLanes]);
  }
  __device__ __forceinline__ Vector<C, N> scaled_loss(C scale) const {
    C scaled[N];
#pragma unroll
    for (int i = 0; i < N; ++i) scaled[i] = modulation[i] * bce[i] * scale;
    return Vector<C, N>::narrowed(scaled);
  }
  __device__ __forceinline__ Vector<T, N> narrowed_grad(C scale) const {
    C scaled[N];
#pragma unroll
    for (int i = 0; i < N; ++i) scaled[i] = grad[i] * scale;
    return Vector<T, N>::narrowed(scaled);
  }
};

// N values at `data`: all of them, or the first `count`.
template <int N, class T>
__device__ __forceinline__ Vector<T, N> load_vector(const T* data, int count) {
  return count >= N ? Vector<T, N>::load(data) : Vector<T, N>::load_some(data, count);
}
template <class T, int N>
__device__ __forceinline__ void store_vector(const Vector<T, N>& vector, T* data, int count) {
  if (count >= N) {
    vector.store(data);
  } else {
    vector.store_some(data, count);
  }
}

template <class T, class Formula>
__device__ __forceinline__ VectorTerms<T> negative_terms(const Formula& formula, const Vector<T, kPack<T>>& logits) {
  using C = Compute<T>;
  C x[kPack<T>];
  logits.widen_to(x);
  VectorTerms<T> terms;
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) {
    const NegativeTerm<C> term = negative_term<T>(formula, x[i]);
    terms.modulation[i] = term.modulation;
    terms.bce[i] = term.bce;
    terms.grad[i] = term.grad;
  }
  return terms;
}

template <class T, class Formula>
__device__ __forceinline__ VectorTerms<T> dense_terms(const Formula& formula, const Vector<T, kPack<T>>& logits,
                                                      const MatrixView<T>& target, int64_t element, int count) {
  using C = Compute<T>;
  constexpr int N = kPack<T>;
  C x[N];
  C t[N];
  logits.widen_to(x);
  if (target.wide) {
    load_vector<N>(static_cast<const C*>(target.data) + element, count).widen_to(t);
  } else {
    load_vector<N>(static_cast<const T*>(target.data) + element, count).widen_to(t);
  }
  VectorTerms<T> terms;
#pragma unroll
  for (int i = 0; i < N; ++i) {
    const LossGrad<C> term = formula.dense(x[i], t[i]);
    terms.modulation[i] = term.loss;
    terms.bce[i] = constant<C>(1.0);
    terms.grad[i] = term.grad;
  }
  return terms;
}

}  // namespace cuda
}  // namespace gfl
