// Which kernel takes a dense classification loss, with which formula. A file for each type of logits includes this, so that
// they can be compiled side by side: it takes nvcc longer than anything else here.
#pragma once

#include "class_loss_flat.cuh"
#include "class_loss_rows.cuh"
#include "class_loss_strided.cuh"
#include "class_loss_types.h"

namespace gfl {
namespace cuda {

template <class T>
bool contiguous(const gfl_matrix& matrix, const gfl_class_loss& op) {
  if (matrix.data == nullptr) return true;
  return matrix.row_stride == op.cols && matrix.col_stride == 1 && aligned(matrix.data, 16);
}

// The flat kernel counts rows, columns and tiles in 32 bits.
template <class T>
bool flat(const gfl_class_loss& op) {
  const bool by_element = op.reduction.mode != GFL_REDUCE_ELEMENTS || aligned(op.loss, 16);
  const bool countable = op.cols < (int64_t{1} << 29) && op.rows < (int64_t{1} << 30) &&
                         op.rows * op.cols < (int64_t{1} << 30) * FlatTile<T>::kElements;
  return countable && by_element && op.class_weights == nullptr && contiguous<T>(op.pred, op) &&
         contiguous<T>(op.target, op) && contiguous<T>(op.grad, op);
}

template <class T, class Formula, bool kDense, bool kLoss, bool kGrad>
void launch_flat(Stream& stream, const gfl_class_loss& op, const Formula& formula, bool backward) {
  using Tile = FlatTile<T>;
  const ClassArguments<T> arguments(op, backward);
  const int64_t tiles = (op.rows * op.cols + Tile::kElements - 1) / Tile::kElements;
  const int blocks = stream.blocks((tiles + kFlatWarps - 1) / kFlatWarps, kFlatBlocks<T, Formula, kDense>);
  const bool plain =
      arguments.factors.spread == Spread::kShared && !arguments.element_losses && (!kGrad || arguments.grad != nullptr);
  const TilePlan plan(op.rows * op.cols, op.cols > 0 ? op.cols : 1, Tile::kElements, blocks * kFlatWarps, plain);
  stream.launch(class_loss_flat<T, Formula, kDense, kLoss, kGrad>,
                Grid{blocks, kFlatThreads, kDense ? 0 : Tile::kMarkBytes}, arguments, formula, plan);
  if (arguments.sum) finish(stream, arguments.sums, blocks);
}

template <class T, class Formula>
void launch_strided(Stream& stream, const gfl_class_loss& op, const Formula& formula, bool backward) {
  const ClassArguments<T> arguments(op, backward);
  int lane_bits = 0;  // as few lanes as have all of a row in flight
  const bool rows_adjoin = op.pred.row_stride < op.pred.col_stride;
  while (!rows_adjoin && 1 << lane_bits < kWarp && kStridedColumns<T, Formula, false> << lane_bits < op.cols)
    ++lane_bits;
  const int groups = kStridedThreads >> lane_bits;
  const int blocks = stream.blocks((op.rows + groups - 1) / groups, 8);
  stream.launch(op.target.data ? class_loss_strided<T, Formula, true> : class_loss_strided<T, Formula, false>,
                Grid{blocks, kStridedThreads}, arguments, formula, lane_bits);
  if (arguments.sum) finish(stream, arguments.sums, blocks);
}

template <class T, class Formula>
void launch_rows(Stream& stream, const gfl_class_loss& op, const Formula& formula) {
  const ClassArguments<T> arguments(op, false);
  const int lane_bits = lane_bits_of_row(static_cast<int>(op.cols) / kPack<T>);
  const int groups = kRowThreads >> lane_bits;
  const int blocks = stream.blocks((op.rows + groups - 1) / groups, 16);
  stream.launch(class_loss_rows<T, Formula>, Grid{blocks, kRowThreads}, arguments, formula, lane_bits);
}

// Losses of whole rows of labels, without a gradient.
template <class T>
bool by_rows(const gfl_class_loss& op) {
  return op.target.data == nullptr && op.grad.data == nullptr && whole_rows<T>(op) && contiguous<T>(op.pred, op) &&
         spread_of(op.weight, op.rows, op.cols) != Spread::kElements && op.class_weights == nullptr;
}

// The usual losses of labels have a kernel for each purpose; the others share one that can do both.
template <class T, class Formula>
int run_class_loss(Stream& stream, const gfl_class_loss& op, const Formula& formula, bool backward) {
  constexpr bool kOwnKernels = UsualFormula<Formula>::value && !std::is_same<T, double>::value;
  const bool per_row = !backward && op.reduction.mode == GFL_REDUCE_ROWS;
  if constexpr (kOwnKernels) {
    if (per_row && by_rows<T>(op)) {
      launch_rows<T>(stream, op, formula);
      return stream.status();
    }
  }
  if (per_row || !flat<T>(op)) {
    launch_strided<T>(stream, op, formula, backward);
  } else if (op.target.data) {
    launch_flat<T, Formula, true, true, true>(stream, op, formula, backward);
  } else if (kOwnKernels && backward) {
    launch_flat<T, Formula, false, !kOwnKernels, true>(stream, op, formula, backward);
  } else if (kOwnKernels && op.grad.data == nullptr) {
    launch_flat<T, Formula, false, true, !kOwnKernels>(stream, op, formula, backward);
  } else {
    launch_flat<T, Formula, false, true, true>(stream, op, formula, backward);
  }
  return stream.status();
}

template <class T>
int class_loss_of(Stream& stream, const gfl_class_loss& op, bool backward) {
  return with_class_formula(op, [&](const auto& formula) { return run_class_loss<T>(stream, op, formula, backward); });
}

}  // namespace cuda
}  // namespace gfl
