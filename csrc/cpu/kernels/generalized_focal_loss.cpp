// The paper's unified loss, element by element.
#include "kernel.h"

namespace gfl {
namespace GFL_ISA {
namespace {

constexpr int kPiece = 256;
constexpr int64_t kElementCost = 4;  // an element is worth as much arithmetic as this many class logits

template <class T, class Exponent>
class GeneralizedFocalLoss {
 public:
  GeneralizedFocalLoss(const gfl_generalized_focal_loss& op, Exponent beta, Pass pass)
      : op_(op), beta_(beta), pass_(pass), scale_(effective_scale<T>(op.reduction)) {}

  void run() const {
    double* partials = static_cast<double*>(op_.workspace);
    const bool summed = pass_ == Pass::kForward && op_.reduction.mode == GFL_REDUCE_SUM;
    parallel_rows(op_.size, kElementCost, [&](int64_t chunk, int64_t begin, int64_t end) {
      double sum = 0;
      for (int64_t start = begin; start < end; start += kPiece) {
        sum += run_piece(start, static_cast<int>(end - start < kPiece ? end - start : kPiece));
      }
      if (summed) partials[chunk] = sum;
    });
    if (summed) write_sum<T>(partials, chunk_count(op_.size, kElementCost), scale_, op_.loss);
  }

 private:
  using V = Vector<T>;

  static void load_flat(const gfl_flat& flat, int32_t dtype, int64_t start, int n, T otherwise, T* out) {
    for (int i = 0; i < kPiece; ++i) out[i] = otherwise;
    if (flat.data) load_run(flat.data, dtype, start * flat.stride, flat.stride, n, out);
  }

  double run_piece(int64_t start, int n) const {
    T p_left[kPiece], p_right[kPiece], y[kPiece], y_left[kPiece], y_right[kPiece], weight[kPiece], upstream[kPiece];
    T loss[kPiece], grad_left[kPiece], grad_right[kPiece];
    const T half = static_cast<T>(0.5);
    const int32_t compute = DtypeOf<T>::code;
    load_flat(op_.p_left, op_.dtype, start, n, half, p_left);
    load_flat(op_.p_right, op_.dtype, start, n, half, p_right);
    load_flat(op_.y, compute, start, n, half, y);
    load_flat(op_.y_left, compute, start, n, T(), y_left);
    load_flat(op_.y_right, compute, start, n, T(1), y_right);
    load_flat(op_.weight, compute, start, n, T(1), weight);
    load_flat(op_.grad_loss, compute, start, n, T(1), upstream);
    const V scale = V() + static_cast<T>(scale_);
    for (int i = 0; i < kPiece; i += Lanes<T>::width) {
      const GeneralizedFocal<V> e = generalized_focal_term(load(p_left + i), load(p_right + i), load(y + i),
                                                           load(y_left + i), load(y_right + i), beta_);
      store(loss + i, e.loss * load(weight + i));
      const V factor = scale * load(weight + i) * load(upstream + i);
      store(grad_left + i, e.grad_left * factor);
      store(grad_right + i, e.grad_right * factor);
    }
    if (op_.grad_left) store_run(grad_left, n, op_.grad_left, op_.dtype, start, 1);
    if (op_.grad_right) store_run(grad_right, n, op_.grad_right, op_.dtype, start, 1);
    if (pass_ == Pass::kBackward) return 0;

    double sum = 0;
    for (int i = 0; i < n; ++i) sum += static_cast<double>(loss[i]);
    if (op_.reduction.mode == GFL_REDUCE_ROWS) {
      T* out = static_cast<T*>(op_.loss) + start;
      for (int i = 0; i < n; ++i) out[i] = static_cast<T>(static_cast<double>(loss[i]) * scale_);
    }
    return sum;
  }

  const gfl_generalized_focal_loss& op_;
  const Exponent beta_;
  const Pass pass_;
  const double scale_;
};

template <class T>
void run_compute(const gfl_generalized_focal_loss& op, Pass pass) {
  if (op.beta == 2.0) {
    GeneralizedFocalLoss<T, Square>(op, {}, pass).run();
  } else {
    GeneralizedFocalLoss<T, Power>(op, {op.beta}, pass).run();
  }
}

}  // namespace

int generalized_focal_loss(const gfl_generalized_focal_loss& op, Pass pass) {
  return with_compute_type(op.dtype, "p_left", [&](auto zero) {
    run_compute<decltype(zero)>(op, pass);
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
