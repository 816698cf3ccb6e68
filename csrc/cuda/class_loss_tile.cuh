// Tiles of consecutive elements of a contiguous matrix of logits: where they lie, what their elements are worth.
#pragma once

#include "class_loss.cuh"
#include "vector.cuh"

namespace gfl {
namespace cuda {

constexpr int kFlatThreads = 256;
constexpr int kFlatWarps = kFlatThreads / kWarp;

// The elements that a warp takes at a time: two vectors of a lane, while those of the next tile are on their way. On an H200
// one vector was slower, and four took registers that more warps use better.
template <class T>
struct FlatTile {
  static constexpr int kUnroll = 2;
  static constexpr int kStep = kWarp * kPack<T>;  // elements that the warp loads at once
  static constexpr int kElements = kStep * kUnroll;
  static constexpr int kMarkWords = kElements / 32;
  static constexpr int kMarkBytes = kFlatWarps * kMarkWords * static_cast<int>(sizeof(uint32_t));
};

// Where the elements of a tile lie in the matrix. Rows and columns of neighbours are found by 32-bit arithmetic.
struct TilePlace {
  int64_t start;  // first element
  int first_row;  // its row
  int first_col;
  int count;  // elements of the tile, fewer in the last one
};

// What the host knows of the walk over the tiles: how a warp's place moves, so that only the first needs a division; how
// many rows a tile may have; and whether every whole tile is a plain one (one factor for all, no losses of elements, and a
// gradient if the kernel can give one).
struct TilePlan {
  int tiles;
  int whole_tiles;
  int warps;  // tiles that a step passes, in elements and as rows and columns
  int64_t elements;
  int rows;
  int cols;
  int rows_of_tile;
  int plain;
  Divider by_cols;

  TilePlan(int64_t size, int64_t columns, int tile, int warps_, bool plain_)
      : tiles(static_cast<int>((size + tile - 1) / tile)),
        whole_tiles(static_cast<int>(size / tile)),
        warps(warps_),
        elements(static_cast<int64_t>(warps_) * tile),
        rows(static_cast<int>(elements / columns)),
        cols(static_cast<int>(elements % columns)),
        rows_of_tile(static_cast<int>((tile - 1) / columns) + 2),
        plain(plain_ ? 1 : 0),
        by_cols(columns) {}

  __device__ __forceinline__ int columns() const { return static_cast<int>(by_cols.divisor()); }
  __device__ __forceinline__ void advance(TilePlace& place) const {
    place.start += elements;
    place.first_row += rows;
    place.first_col += cols;
    if (place.first_col >= columns()) {
      place.first_col -= columns();
      ++place.first_row;
    }
  }
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

// The positives of a warp's tile. A lane has every 32nd row; the label of its first is read a tile ahead.
template <class T>
struct TileLabels {
  static constexpr int kNone = -1;
  int first = kNone;  // of the lane's first row, if it is a class

  __device__ __forceinline__ void load(const ClassArguments<T>& op, const TilePlan& plan, int first_row, int lane) {
    first = lane < plan.rows_of_tile ? label_of(op, plan, first_row + lane) : kNone;
  }
  // Calls found(element in the tile, row, class) for each of the lane's.
  template <class Found>
  __device__ __forceinline__ void for_each(const ClassArguments<T>& op, const TilePlan& plan, const TilePlace& place,
                                           int lane, const Found& found) const {
    report(plan, place, lane, first, found);
    if (plan.rows_of_tile <= kWarp) return;
#pragma unroll 1
    for (int r = lane + kWarp; r < plan.rows_of_tile; r += kWarp) {
      report(plan, place, r, label_of(op, plan, place.first_row + r), found);
    }
  }

 private:
  // Of a row that the tile may have: r * columns is less than the tile and a row together.
  template <class Found>
  static __device__ __forceinline__ void report(const TilePlan& plan, const TilePlace& place, int r, int label,
                                                const Found& found) {
    if (label == kNone) return;
    const int local = r * plan.columns() - place.first_col + label;
    if (static_cast<unsigned>(local) < static_cast<unsigned>(place.count)) found(local, place.first_row + r, label);
  }
  static __device__ __forceinline__ int label_of(const ClassArguments<T>& op, const TilePlan& plan, int row) {
    if (row >= static_cast<int>(op.rows)) return kNone;
    const uint64_t label = static_cast<uint64_t>(op.label(row));
    return label < static_cast<uint64_t>(plan.columns()) ? static_cast<int>(label) : kNone;
  }
};

// Logits that are no negatives become those of a probability of 0, which have neither loss nor gradient.
template <class T>
__device__ __forceinline__ void hide(Vector<T, kPack<T>>& logits, unsigned marked) {
  T values[kPack<T>];
  memcpy(values, &logits, sizeof values);
#pragma unroll
  for (int i = 0; i < kPack<T>; ++i) {
    if (marked >> i & 1u) values[i] = narrow<T>(constant<Compute<T>>(-INFINITY));
  }
  memcpy(&logits, values, sizeof values);
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
  __device__ __forceinline__ void multiply_grad(C factor) {
#pragma unroll
    for (int i = 0; i < N; ++i) grad[i] = grad[i] * factor;
  }
  // The gradient with the scale as well, in the order of class_loss_strided.cuh: a half type would show another.
  __device__ __forceinline__ void multiply(const Factors<C>& factors, const TilePlace& place, const Divider& by_cols,
                                           int local, int count, C scale) {
    FactorWalk<C> walk(factors, place, by_cols, local);
    C factor = walk.value();
    const bool same = walk.same_row(N);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      modulation[i] = modulation[i] * factor;
      grad[i] = grad[i] * (factor * scale);
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
