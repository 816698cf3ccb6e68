// Dense classification losses of contiguous logits: the hot path.
//
// A block takes tiles of consecutive elements, whatever rows they belong to, so that every access is 16 bytes wide and
// each thread has kUnroll of them in flight. With labels, the elements that are some row's positive are marked in
// shared memory first; the dense pass takes every element for a negative and drops the marked ones, then the threads
// that found the positives add them. Positives are rare, so the dense pass hardly pays for them, and nothing is added
// that would have to be taken back.
#pragma once

#include "class_loss_tile.cuh"

namespace gfl {
namespace cuda {

// Blocks that a multiprocessor must have room for: bounds the registers at 64 where the formula is the usual one, at 80
// for the others and at 128 in double.
template <class T, class Formula>
constexpr int kFlatBlocks = std::is_same<T, double>::value ? 2
                            : UsualFormula<Formula>::value ? 4
                                                           : 3;

// kLoss and kGrad say what is wanted at all; the caller of a kernel with both may still leave out either.
template <class T, class Formula, bool kDense, bool kLoss, bool kGrad>
__global__ void __launch_bounds__(kTileThreads, kFlatBlocks<T, Formula>)
    class_loss_flat(const ClassArguments<T> op, const Formula formula, const TilePlan plan) {
  using C = Compute<T>;
  using Tile = FlatTile<T, kLoss && kGrad>;
  constexpr int N = kPack<T>;
  // Two sets of marks: while one is being cleared, the next tile is already marked in the other.
  uint32_t* all_marks = dynamic_shared<uint32_t>();
  const int thread = static_cast<int>(threadIdx.x);
  if (!kDense) {
    for (int i = thread; i < 2 * Tile::kMarkWords; i += Tile::kThreads) all_marks[i] = 0;
    __syncthreads();
  }

  const int64_t size = op.rows * op.cols;
  const T* pred = static_cast<const T*>(op.pred.data);
  const C scale = op.sums.scale.value();
  const C shared_factor = op.factors.shared(size);
  const C grad_scale = scale * shared_factor;
  const bool one_factor = op.factors.spread == Spread::kShared;
  double total = 0.0;

  TilePlace place;
  const int first = static_cast<int>(blockIdx.x) * Tile::kElements;
  place.start = first;
  place.first_row = plan.by_cols.divide(first);
  place.first_col = first - static_cast<int>(place.first_row * op.cols);

  for (int buffer = 0; place.start < size; buffer ^= 1) {
    place.count = static_cast<int>(size - place.start < Tile::kElements ? size - place.start : Tile::kElements);
    const T* tile_pred = pred + place.start;
    T* tile_grad = op.grad + place.start;
    Vector<T, N> logits[Tile::kUnroll];
    if (place.count == Tile::kElements) {
#pragma unroll
      for (int j = 0; j < Tile::kUnroll; ++j) logits[j] = Vector<T, N>::load(tile_pred + j * Tile::kStep + thread * N);
    } else {
#pragma unroll
      for (int j = 0; j < Tile::kUnroll; ++j) {
        const int local = j * Tile::kStep + thread * N;
        logits[j] = load_vector<N>(tile_pred + local, place.count - local);
      }
    }

    uint32_t* marks = all_marks + buffer * Tile::kMarkWords;
    bool marked = false;
    if (!kDense) {
      for_each_positive(op, place, plan.by_cols, [&](int local, int64_t, int64_t) {
        atomicOr(&marks[local / 32], 1u << (local % 32));
        marked = true;
      });
      marked = __syncthreads_or(marked) != 0;
    }
    // One question for all that seldom happens, so that the usual vector pays for one branch.
    const bool plain = plan.plain & static_cast<int>(!marked) & static_cast<int>(place.count == Tile::kElements);

    LossLanes<C, N> tile_loss;
#pragma unroll
    for (int j = 0; j < Tile::kUnroll; ++j) {
      const int local = j * Tile::kStep + thread * N;
      const int left = place.count - local;
      VectorTerms<T> terms = kDense ? dense_terms(formula, logits[j], op.target, place.start + local, left)
                                    : negative_terms<T>(formula, logits[j]);
      if (plain) {
        if (kGrad) terms.narrowed_grad(grad_scale).store(tile_grad + local);
        if (kLoss) terms.add_losses(tile_loss);
      } else {
        terms.multiply_out();
        unsigned dropped = kDense ? 0u : marks[local / 32] >> (local % 32);
        if (left < N) dropped |= ~0u << (left > 0 ? left : 0);
        terms.drop(dropped);
        if (!one_factor && left > 0) terms.multiply(op.factors, place, plan.by_cols, local, left);
        if (kLoss && op.element_losses) {
          store_vector(terms.scaled_loss(grad_scale), op.element_losses + place.start + local, left);
        }
        if (kGrad && op.grad) store_vector(terms.narrowed_grad(grad_scale), tile_grad + local, left);
        if (kLoss) terms.add_losses(tile_loss);
      }
    }
    total += static_cast<double>(tile_loss.sum() * shared_factor);

    if (!kDense && marked) {
      __syncthreads();  // the dense stores are done and the marks read
      for_each_positive(op, place, plan.by_cols, [&](int local, int64_t row, int64_t label) {
        atomicAnd(&marks[local / 32], ~(1u << (local % 32)));
        const LossGrad<C> term = formula.positive(widen(tile_pred[local]), op.score(row));
        const C factor = op.factors.at(row, label);
        total += static_cast<double>(term.loss * factor);
        const int64_t element = place.start + local;
        if (kLoss && op.element_losses) op.element_losses[element] = term.loss * (factor * scale);
        if (kGrad && op.grad) op.grad[element] = narrow<T>(term.grad * (factor * scale));
      });
    }

    place.start += plan.elements;
    place.first_row += plan.rows;
    place.first_col += plan.cols;
    if (place.first_col >= op.cols) {
      place.first_col -= static_cast<int>(op.cols);
      ++place.first_row;
    }
  }
  if (kLoss && op.sum) op.sums.add_block(0, total);
}

}  // namespace cuda
}  // namespace gfl
