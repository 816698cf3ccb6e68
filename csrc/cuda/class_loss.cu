// Quality focal loss (logits and probabilities) and sigmoid focal loss: which kernel, with which formula.
#include "class_loss_flat.cuh"
#include "class_loss_strided.cuh"
#include "cuda_ops.h"
#include "dispatch.cuh"

namespace gfl {
namespace cuda {
namespace {

template <class T>
bool contiguous(const gfl_matrix& matrix, const gfl_class_loss& op) {
  if (matrix.data == nullptr) return true;
  return matrix.row_stride == op.cols && matrix.col_stride == 1 && aligned(matrix.data, 16);
}

template <class T>
bool flat(const gfl_class_loss& op) {
  const bool by_element = op.reduction.kind != GFL_REDUCE_ELEMENTS || aligned(op.loss, 16);
  return op.cols < (int64_t{1} << 30) && by_element && contiguous<T>(op.pred, op) && contiguous<T>(op.target, op) &&
         contiguous<T>(op.grad, op);
}

template <class T, class Formula, bool kDense, bool kLoss, bool kGrad>
void run_flat(Stream& stream, const gfl_class_loss& op, const Formula& formula, bool backward) {
  using Tile = FlatTile<T, kLoss && kGrad>;
  const ClassArguments<T> arguments(op, backward);
  const int64_t tiles = (op.rows * op.cols + Tile::kElements - 1) / Tile::kElements;
  const int blocks = stream.blocks(tiles, 8);
  const bool plain =
      arguments.factors.spread == Spread::kShared && !arguments.element_losses && (!kGrad || arguments.grad != nullptr);
  const TilePlan plan(op.cols > 0 ? op.cols : 1, static_cast<int64_t>(blocks) * Tile::kElements, plain);
  stream.launch(class_loss_flat<T, Formula, kDense, kLoss, kGrad>,
                Grid{blocks, Tile::kThreads, kDense ? 0 : Tile::kMarkBytes}, arguments, formula, plan);
  if (arguments.sum) finish(stream, arguments.sums, blocks);
}

template <class T, class Formula>
void run_strided(Stream& stream, const gfl_class_loss& op, const Formula& formula, bool backward) {
  const ClassArguments<T> arguments(op, backward);
  int lanes = 1;
  const bool rows_adjoin = op.pred.row_stride < op.pred.col_stride;
  while (!rows_adjoin && lanes < kWarp && lanes < op.cols) lanes *= 2;
  const int groups = kStridedThreads / lanes;
  const int blocks = stream.blocks((op.rows + groups - 1) / groups, 8);
  stream.launch(class_loss_strided<T, Formula>, Grid{blocks, kStridedThreads}, arguments, formula, lanes);
  if (arguments.sum) finish(stream, arguments.sums, blocks);
}

// The usual losses of labels have a kernel for each purpose; the others share one that can do both.
template <class T, class Formula>
int run(Stream& stream, const gfl_class_loss& op, const Formula& formula, bool backward) {
  constexpr bool kOwnKernels = UsualFormula<Formula>::value && !std::is_same<T, double>::value;
  const bool per_row = !backward && op.reduction.kind == GFL_REDUCE_ROWS;
  if (per_row || !flat<T>(op)) {
    run_strided<T>(stream, op, formula, backward);
  } else if (op.target.data) {
    run_flat<T, Formula, true, true, true>(stream, op, formula, backward);
  } else if (kOwnKernels && backward) {
    run_flat<T, Formula, false, !kOwnKernels, true>(stream, op, formula, backward);
  } else if (kOwnKernels && op.grad.data == nullptr) {
    run_flat<T, Formula, false, true, !kOwnKernels>(stream, op, formula, backward);
  } else {
    run_flat<T, Formula, false, true, true>(stream, op, formula, backward);
  }
  return stream.status();
}

template <class T, class Exponent>
int run_formula(Stream& stream, const gfl_class_loss& op, const Exponent& exponent, bool backward) {
  switch (op.formula) {
    case GFL_QUALITY_FOCAL:
      return run<T>(stream, op, QualityFocal<Exponent>{exponent}, backward);
    case GFL_QUALITY_FOCAL_PROBABILITY:
      return run<T>(stream, op, QualityFocalProbability<Exponent>{exponent}, backward);
    case GFL_SIGMOID_FOCAL:
      return run<T>(stream, op, SigmoidFocal<Exponent>{exponent, op.alpha}, backward);
    default:
      return fail(GFL_ERROR_ARGUMENT, "unknown classification loss %d", static_cast<int>(op.formula));
  }
}

int class_loss(const gfl_device& device, const gfl_class_loss& op, bool backward) {
  Stream stream(device);
  return with_float_type(op.pred.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if (op.exponent == 2.0) return run_formula<T>(stream, op, Square{}, backward);
    return run_formula<T>(stream, op, Power{op.exponent}, backward);
  });
}

}  // namespace

int class_loss_forward(const gfl_device& device, const gfl_class_loss& op) { return class_loss(device, op, false); }

int class_loss_backward(const gfl_device& device, const gfl_class_loss& op) { return class_loss(device, op, true); }

}  // namespace cuda
}  // namespace gfl
