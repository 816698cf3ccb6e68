// Quality focal and sigmoid focal loss of one (rows, classes) matrix.
#include "class_loss_tiles.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
int run_compute(const gfl_class_loss& op, Pass pass) {
  return with_formula<T>(op.formula, op.exponent, op.alpha, [&](auto formula, T placeholder) {
    ClassLoss<T, decltype(formula)>(op, formula, placeholder, pass).run();
  });
}

}  // namespace

int class_loss(const gfl_class_loss& op, Pass pass) {
  return with_compute_type(op.pred.dtype, "pred", [&](auto zero) { return run_compute<decltype(zero)>(op, pass); });
}

}  // namespace GFL_ISA
}  // namespace gfl
