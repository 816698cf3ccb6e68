// Dense classification losses of contiguous logits: the hot path.
//
// A warp takes tiles of consecutive elements, whatever rows they belong to, so that every access is 16 bytes wide; the
// logits and labels of its next tile are loaded before it works on one, and no warp waits for another. The elements that
// are some row's positive are marked in shared memory first; the dense pass drops the marked ones, then the lanes that
// found the positives add them. Positives are rare, so that the dense pass hardly pays for them, and nothing is added that
// would have to be taken back.
#pragma once

#include "class_loss_tile.cuh"

namespace gfl {
namespace cuda {

// Blocks that a multiprocessor must have room for, which bounds the registers: at 64 for four, at 80 for three and at 128
// for two. With three a half type is as fast as with four, and nothing spills; its dense targets take more.
template <class T, class Formula, bool kDense>
constexpr int kFlatBlocks = std::is_same<T, double>::value                      ? 2
                            : UsualFormula<Formula>::value && sizeof(T) == 4    ? 4
                            : Formula::of_logits && !(kDense && sizeof(T) == 2) ? 3
                                                                                : 2;

template <class T, class Formula, bool kDense, bool kLoss, bool kGrad>
struct FlatWarp {
  using C = Compute<T>;
  using Tile = FlatTile<T>;
  static constexpr int N = kPack<T>;

  const ClassArguments<T>& op;
  const Formula& formula;
  const TilePlan& plan;
  int lane;
  C grad_scale;
  bool one_factor;

  // A whole tile of negatives with one factor.
  __device__ __forceinline__ void plain(const TilePlace& place, const Vector<T, N> (&logits)[Tile::kUnroll],
                                        LossLanes<C, N>& loss) const {
    T* grad = op.grad + place.start;
#pragma unroll
    for (int j = 0; j < Tile::kUnroll; ++j) {
      const int local = j * Tile::kStep + lane * N;
      const VectorTerms<T> terms = kDense ? dense_terms(formula, logits[j], op.target, place.start + local, N)
                                          : negative_terms<T>(formula, logits[j]);
      if (kGrad) terms.narrowed_grad(grad_scale).store(grad + local);
      if (kLoss) terms.add_losses(loss);
    }
  }

  // Any tile. The logits are read again, most likely from the cache: one vector at a time takes few instructions.
  __device__ __forceinline__ void careful(const TilePlace& place, const uint32_t* marks, LossLanes<C, N>& loss) const {
    const T* pred = static_cast<const T*>(op.pred.data) + place.start;
#pragma unroll 1
    for (int local = lane * N; local < place.count; local += Tile::kStep) {
      const int left = place.count - local;
      const Vector<T, N> logits = load_vector<N>(pred + local, left);
      VectorTerms<T> terms = kDense ? dense_terms(formula, logits, op.target, place.start + local, left)
                                    : negative_terms<T>(formula, logits);
      terms.multiply_out();
      unsigned dropped = kDense ? 0u : marks[local / 32] >> (local % 32);
      if (left < N) dropped |= ~0u << left;
      terms.drop(dropped);
      if (one_factor) {
        terms.multiply_grad(grad_scale);
      } else {
        terms.multiply(op.factors, place, plan.by_cols, local, left, grad_scale);
      }
      if (kLoss && op.element_losses) {
        store_vector(terms.scaled_loss(grad_scale), op.element_losses + place.start + local, left);
      }
      if (kGrad && op.grad) store_vector(terms.narrowed_grad(constant<C>(1.0)), op.grad + place.start + local, left);
      if (kLoss) terms.add_losses(loss);
    }
  }

  // Its loss is returned, with its factor.
  __device__ __forceinline__ C positive(const TilePlace& place, int local, int row, int label, C scale) const {
    const int64_t element = place.start + local;
    const LossGrad<C> term = formula.positive(widen(static_cast<const T*>(op.pred.data)[element]), op.score(row));
    const C factor = op.factors.at(row, label);
    if (kLoss && op.element_losses) op.element_losses[element] = term.loss * (factor * scale);
    if (kGrad && op.grad) op.grad[element] = narrow<T>(term.grad * (factor * scale));
    return term.loss * factor;
  }
};

// kLoss and kGrad say what is wanted at all; the caller of a kernel with both may still leave out either.
template <class T, class Formula, bool kDense, bool kLoss, bool kGrad>
__global__ void __launch_bounds__(kFlatThreads, kFlatBlocks<T, Formula, kDense>)
    class_loss_flat(const ClassArguments<T> op, const Formula formula, const TilePlan plan) {
  using C = Compute<T>;
  using Tile = FlatTile<T>;
  constexpr int N = kPack<T>;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  uint32_t* marks = dynamic_shared<uint32_t>() + warp * Tile::kMarkWords;
  if (!kDense) {
    for (int i = lane; i < Tile::kMarkWords; i += kWarp) marks[i] = 0;
    __syncwarp();
  }

  const int64_t size = op.rows * op.cols;
  const C scale = op.sums.scale.value();
  const C shared_factor = op.factors.shared(size);
  const FlatWarp<T, Formula, kDense, kLoss, kGrad> flat{
      op, formula, plan, lane, scale * shared_factor, op.factors.spread == Spread::kShared};
  double total = 0.0;

  const auto load = [&](int tile, const TilePlace& place, Vector<T, N>(&logits)[Tile::kUnroll], TileLabels<T>& labels) {
    if (tile < plan.whole_tiles) {
      const T* pred = static_cast<const T*>(op.pred.data) + place.start + lane * N;
#pragma unroll
      for (int j = 0; j < Tile::kUnroll; ++j) logits[j] = Vector<T, N>::load(pred + j * Tile::kStep);
    }
    if (!kDense) labels.load(op, plan, place.first_row, lane);
  };

  int tile = static_cast<int>(blockIdx.x) * kFlatWarps + warp;
  TilePlace place;
  place.start = static_cast<int64_t>(tile) * Tile::kElements;
  place.first_row = static_cast<int>(plan.by_cols.divide_long(place.start));
  place.first_col = static_cast<int>(place.start - static_cast<int64_t>(place.first_row) * op.cols);
  Vector<T, N> logits[Tile::kUnroll];
  TileLabels<T> labels;
  load(tile, place, logits, labels);
  for (; tile < plan.tiles; tile += plan.warps) {
    const bool whole = tile < plan.whole_tiles;
    place.count = whole ? Tile::kElements : static_cast<int>(size - place.start);
    TilePlace next = place;
    plan.advance(next);
    Vector<T, N> next_logits[Tile::kUnroll];
    TileLabels<T> next_labels;
    load(tile + plan.warps, next, next_logits, next_labels);

    bool positive = false;
    if (!kDense) {
      labels.for_each(op, plan, place, lane, [&](int local, int, int) {
        atomicOr(&marks[local / 32], 1u << (local % 32));
        positive = true;
      });
    }
    const bool any = !kDense && __ballot_sync(kFullWarp, positive) != 0;  // and the marks are there
    const bool plain = whole && plan.plain != 0 && (Formula::of_logits || !any);
    LossLanes<C, N> loss;
    if (plain) {
      if (any) {
        __syncwarp();
#pragma unroll
        for (int j = 0; j < Tile::kUnroll; ++j) {
          const int local = j * Tile::kStep + lane * N;
          hide<T>(logits[j], marks[local / 32] >> (local % 32));
        }
      }
      flat.plain(place, logits, loss);
    } else {
      if (any) __syncwarp();
      flat.careful(place, marks, loss);
    }
    if (any) {
      __syncwarp();  // the dense stores are done and the marks read
      labels.for_each(op, plan, place, lane, [&](int local, int row, int label) {
        atomicAnd(&marks[local / 32], ~(1u << (local % 32)));
        total += static_cast<double>(flat.positive(place, local, row, label, scale));
      });
      __syncwarp();
    }
    if (kLoss) total += static_cast<double>(loss.sum() * shared_factor);

    place = next;
    labels = next_labels;
#pragma unroll
    for (int j = 0; j < Tile::kUnroll; ++j) logits[j] = next_logits[j];
  }
  if (kLoss && op.sum) op.sums.add_block(0, total);
}

}  // namespace cuda
}  // namespace gfl
