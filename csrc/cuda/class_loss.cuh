// What both kernels of the dense classification losses are given.
#pragma once

#include "../error.h"
#include "../math/class_loss.h"
#include "index.cuh"
#include "reduce.cuh"

namespace gfl {
namespace cuda {

// How far a factor reaches: one for all, one a row, or one an element.
enum class Spread { kShared, kRows, kElements };

inline Spread spread_of(const gfl_matrix& matrix, int64_t rows, int64_t cols) {
  if (matrix.data == nullptr) return Spread::kShared;
  if (matrix.col_stride != 0 && cols > 1) return Spread::kElements;
  return matrix.row_stride != 0 && rows > 1 ? Spread::kRows : Spread::kShared;
}

// weight times incoming gradient, each of which may be absent.
template <class C>
struct Factors {
  gfl_matrix weight;
  gfl_matrix grad_loss;
  Spread spread;

  Factors(const gfl_class_loss& op, bool backward) : weight(op.weight), grad_loss(op.grad_loss) {
    if (!backward) grad_loss.data = nullptr;
    const Spread of_weight = spread_of(weight, op.rows, op.cols);
    const Spread of_grad = spread_of(grad_loss, op.rows, op.cols);
    spread = of_weight < of_grad ? of_grad : of_weight;
  }

  __device__ __forceinline__ C at(int64_t row, int64_t col) const {
    C factor = constant<C>(1.0);
    if (weight.data) factor = entry(weight, row, col);
    if (grad_loss.data) factor = factor * entry(grad_loss, row, col);
    return factor;
  }
  // The one factor of Spread::kShared; 1 otherwise. An empty loss has no weight to read.
  __device__ __forceinline__ C shared(int64_t size) const {
    return spread == Spread::kShared && size > 0 ? at(0, 0) : constant<C>(1.0);
  }

 private:
  static __device__ __forceinline__ C entry(const gfl_matrix& matrix, int64_t row, int64_t col) {
    return static_cast<const C*>(matrix.data)[row * matrix.row_stride + col * matrix.col_stride];
  }
};

template <class T>
struct ClassArguments {
  using C = Compute<T>;

  int64_t rows;
  int64_t cols;
  MatrixView<T> pred;
  MatrixView<T> target;
  const void* labels;
  bool long_labels;
  const C* scores;
  Factors<C> factors;
  const C* class_weights;  // class_loss_strided.cuh alone knows them
  bool sum;                // LossSums or one of the next two
  LossSums<C> sums;
  C* row_losses;
  C* element_losses;
  T* grad;
  int64_t grad_row_stride;
  int64_t grad_col_stride;

  ClassArguments(const gfl_class_loss& op, bool backward)
      : rows(op.rows),
        cols(op.cols),
        pred(matrix_view<T>(op.pred, op.pred.dtype)),
        target(matrix_view<T>(op.target, op.pred.dtype)),
        labels(op.labels),
        long_labels(op.labels_dtype == GFL_INT64),
        scores(static_cast<const C*>(op.scores)),
        factors(op, backward),
        class_weights(static_cast<const C*>(op.class_weights)),
        sum(!backward && op.reduction.mode == GFL_REDUCE_SUM),
        sums{static_cast<double*>(op.workspace), {static_cast<C*>(op.loss), nullptr}, Scale<C>(op.reduction)},
        row_losses(!backward && op.reduction.mode == GFL_REDUCE_ROWS ? static_cast<C*>(op.loss) : nullptr),
        element_losses(!backward && op.reduction.mode == GFL_REDUCE_ELEMENTS ? static_cast<C*>(op.loss) : nullptr),
        grad(static_cast<T*>(op.grad.data)),
        grad_row_stride(op.grad.row_stride),
        grad_col_stride(op.grad.col_stride) {}

  __device__ __forceinline__ int64_t label(int64_t row) const {
    return long_labels ? static_cast<const int64_t*>(labels)[row] : static_cast<const int32_t*>(labels)[row];
  }
  // Sigmoid focal loss has labels without scores.
  __device__ __forceinline__ C score(int64_t row) const { return scores ? scores[row] : constant<C>(1.0); }
};

// The logit losses with the exponent that everybody uses.
template <class Formula>
struct UsualFormula : std::false_type {};
template <>
struct UsualFormula<QualityFocal<Square>> : std::true_type {};
template <>
struct UsualFormula<SigmoidFocal<Square>> : std::true_type {};
template <>
struct UsualFormula<SoftCrossEntropy> : std::true_type {};
template <>
struct UsualFormula<Varifocal<Square>> : std::true_type {};

// Calls run(formula) with the formula that an op names.
template <class Op, class Exponent, class Run>
int with_formula_of_exponent(const Op& op, const Exponent& exponent, const Run& run) {
  switch (op.formula) {
    case GFL_QUALITY_FOCAL:
      return run(QualityFocal<Exponent>{exponent});
    case GFL_QUALITY_FOCAL_PROBABILITY:
      return run(QualityFocalProbability<Exponent>{exponent});
    case GFL_SIGMOID_FOCAL:
      return run(SigmoidFocal<Exponent>{exponent, op.alpha});
    default:
      return run(Varifocal<Exponent>{exponent, op.alpha, (op.formula & GFL_VARIFOCAL_EVEN) != 0,
                                     (op.formula & GFL_VARIFOCAL_DETACHED) != 0});
  }
}
template <class Op, class Run>
int with_class_formula(const Op& op, const Run& run) {
  if (op.formula < 0 || op.formula >= GFL_CLASS_FORMULAS) {
    return fail(GFL_ERROR_ARGUMENT, "unknown classification loss %d", static_cast<int>(op.formula));
  }
  if (op.formula == GFL_SOFT_CROSS_ENTROPY) return run(SoftCrossEntropy{});
  return op.exponent == 2.0 ? with_formula_of_exponent(op, Square{}, run)
                            : with_formula_of_exponent(op, Power{op.exponent}, run);
}

// A negative's terms, of a logit that was a T.
template <class T, class Formula>
__device__ __forceinline__ NegativeTerm<Compute<T>> negative_term(const Formula& formula, Compute<T> x) {
  if constexpr (!Formula::of_logits) {
    const LossGrad<Compute<T>> term = formula.negative(x);
    return {term.loss, constant<Compute<T>>(1.0), term.grad};
  } else if constexpr (sizeof(T) == 2 && UsualFormula<Formula>::value) {
    return formula.negative_term(x, brief_sigmoid_parts(x));
  } else {
    return formula.negative_term(x, sigmoid_parts(x));
  }
}
template <class T, class Formula>
__device__ __forceinline__ LossGrad<Compute<T>> negative_loss(const Formula& formula, Compute<T> x) {
  const NegativeTerm<Compute<T>> term = negative_term<T>(formula, x);
  return {term.modulation * term.bce, term.grad};
}

}  // namespace cuda
}  // namespace gfl
