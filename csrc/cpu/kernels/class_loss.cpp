// The dense classification losses over (rows, classes), tile by tile. A tile is a block of rows and classes that
// fits the first cache, laid out along whichever axis is the denser one in memory, so that channels-last and transposed
// logits run at the same speed as rows.
//
// A label's own class is taken out of the dense loop (its logit is replaced by one whose negative loss is exactly 0) and
// added by itself: subtracting its negative part afterwards would lose digits, and infinities would meet.
#include "class_loss.h"

#include "kernel.h"

namespace gfl {
namespace GFL_ISA {
namespace {

constexpr int kTile = 1024;

// What the dense loop writes. The fused modes serve a uniform weight and a summed loss; kRaw leaves loss and gradient
// of every element to a second, cheap pass over the cached tile that knows weights and reductions.
enum class Mode { kLoss, kLossGrad, kGrad, kRaw };

struct Tile {
  int64_t row;
  int64_t col;
  int rows;
  int cols;
  bool row_major;

  int size() const { return rows * cols; }
  int at(int i, int j) const { return row_major ? i * cols + j : j * rows + i; }
};

// One line of a tile is a run in memory: a row's classes, or a class's rows.
template <class T>
void load_tile(const gfl_matrix& m, const Tile& tile, T* out) {
  const int lines = tile.row_major ? tile.rows : tile.cols;
  const int length = tile.row_major ? tile.cols : tile.rows;
  const int64_t across = tile.row_major ? m.row_stride : m.col_stride;
  const int64_t along = tile.row_major ? m.col_stride : m.row_stride;
  const int64_t start = tile.row * m.row_stride + tile.col * m.col_stride;
  if (along == 1 && across == length) return load_run(m.data, m.dtype, start, 1, lines * length, out);
  for (int i = 0; i < lines; ++i) load_run(m.data, m.dtype, start + i * across, along, length, out + i * length);
}

template <class T>
void store_tile(const T* in, const gfl_matrix& m, const Tile& tile) {
  const int lines = tile.row_major ? tile.rows : tile.cols;
  const int length = tile.row_major ? tile.cols : tile.rows;
  const int64_t across = tile.row_major ? m.row_stride : m.col_stride;
  const int64_t along = tile.row_major ? m.col_stride : m.row_stride;
  const int64_t start = tile.row * m.row_stride + tile.col * m.col_stride;
  if (along == 1 && across == length) return store_run(in, lines * length, m.data, m.dtype, start, 1);
  for (int i = 0; i < lines; ++i) store_run(in + i * length, length, m.data, m.dtype, start + i * across, along);
}

// The tile's own memory where it is one dense run of the compute type; NULL otherwise.
template <class T>
T* dense_run(const gfl_matrix& m, const Tile& tile) {
  const int length = tile.row_major ? tile.cols : tile.rows;
  const int64_t across = tile.row_major ? m.row_stride : m.col_stride;
  const int64_t along = tile.row_major ? m.col_stride : m.row_stride;
  const bool one_line = (tile.row_major ? tile.rows : tile.cols) == 1;
  if (m.dtype != DtypeOf<T>::code || along != 1 || !(one_line || across == length)) return nullptr;
  return static_cast<T*>(m.data) + tile.row * m.row_stride + tile.col * m.col_stride;
}

template <class Formula, class V>
GFL_FN LossGrad<V> element(const Formula& formula, V x, V target, bool dense) {
  return dense ? formula.dense(x, target) : formula.negative(x);
}

// The exponentials of a formula of logits, in a loop of their own over whole vectors. In one loop with the rest an
// element is a chain of some sixty operations, each waiting for the one before, and a processor's window holds three such
// chains; of short ones it holds many. That nearly doubles the speed. The division stays with the rest: there it runs
// beside the multiplications. `ahead` is what comes after the tile, or NULL: it is asked for meanwhile. Where the gradient
// will be written is not: a line that is written whole need not be read.
template <class T, class Formula, bool kStaged = Formula::of_logits && sizeof(T) == sizeof(float)>
struct Stages {
  Stages(const T*, int, const T*) {}
  GFL_MEMBER LossGrad<Vector<T>> element(const Formula& formula, int, Vector<T> x, Vector<T> target, bool dense) const {
    return gfl::GFL_ISA::element(formula, x, target, dense);
  }
};
template <class T, class Formula>
struct Stages<T, Formula, true> {
  alignas(64) T exponentials[kTile];

  Stages(const T* x, int n, const T* ahead) {
    constexpr int width = Lanes<T>::width;
    // Where nothing is ahead, what is in the cache anyway is asked for: that costs less than a branch in the loop.
    const T* const next = ahead ? ahead : x;
    for (int i = 0; i + width <= n; i += width) {
      __builtin_prefetch(next + i);
      store(exponentials + i, sigmoid_exponential(load(x + i)));
    }
  }
  GFL_MEMBER LossGrad<Vector<T>> element(const Formula& formula, int i, Vector<T> x, Vector<T> target,
                                         bool dense) const {
    const Vector<T> e = load(exponentials + i);
    const SigmoidParts<Vector<T>> parts = sigmoid_parts(x, e, sigmoid_reciprocal(e));
    return dense ? formula.dense(x, target, parts) : formula.negative(x, parts);
  }
};

// The hot loop. Returns the sum of the losses (fused modes); `target` is read only by dense targets.
template <class T, class Formula, bool kDense, Mode kMode>
double dense_loop(const Formula& formula, const T* x, const T* target, int n, T scale, T* loss, T* grad,
                  const T* ahead) {
  using V = Vector<T>;
  constexpr int width = Lanes<T>::width;
  const V scales = V() + scale;
  const Stages<T, Formula> stages(x, n, ahead);
  V sum = V();
  int i = 0;
  for (; i + width <= n; i += width) {
    const LossGrad<V> e = stages.element(formula, i, load(x + i), kDense ? load(target + i) : V(), kDense);
    if (kMode == Mode::kLoss || kMode == Mode::kLossGrad) sum = sum + e.loss;
    if (kMode == Mode::kLossGrad || kMode == Mode::kGrad) store(grad + i, e.grad * scales);
    if (kMode == Mode::kRaw) {
      store(loss + i, e.loss);
      store(grad + i, e.grad);
    }
  }
  double total = lane_sum(sum);
  if (i < n) {
    T tail_x[width] = {}, tail_target[width] = {}, tail_loss[width], tail_grad[width];
    for (int k = 0; k < n - i; ++k) tail_x[k] = x[i + k];
    if (kDense) {
      for (int k = 0; k < n - i; ++k) tail_target[k] = target[i + k];
    }
    const LossGrad<V> e = element(formula, load(tail_x), load(tail_target), kDense);
    store(tail_loss, e.loss);
    store(tail_grad, kMode == Mode::kRaw ? e.grad : e.grad * scales);
    for (int k = 0; k < n - i; ++k) {
      if (kMode == Mode::kLoss || kMode == Mode::kLossGrad) total += static_cast<double>(tail_loss[k]);
      if (kMode == Mode::kRaw) loss[i + k] = tail_loss[k];
      if (kMode != Mode::kLoss) grad[i + k] = tail_grad[k];
    }
  }
  return total;
}

template <class T, class Formula, bool kDense>
double run_mode(Mode mode, const Formula& formula, const T* x, const T* target, int n, T scale, T* loss, T* grad,
                const T* ahead) {
  switch (sizeof(T) == sizeof(double) ? Mode::kRaw : mode) {
    case Mode::kLoss:
      return dense_loop<T, Formula, kDense, Mode::kLoss>(formula, x, target, n, scale, loss, grad, ahead);
    case Mode::kLossGrad:
      return dense_loop<T, Formula, kDense, Mode::kLossGrad>(formula, x, target, n, scale, loss, grad, ahead);
    case Mode::kGrad:
      return dense_loop<T, Formula, kDense, Mode::kGrad>(formula, x, target, n, scale, loss, grad, ahead);
    default:
      return dense_loop<T, Formula, kDense, Mode::kRaw>(formula, x, target, n, scale, loss, grad, ahead);
  }
}

template <class T, class Formula>
class ClassLoss {
 public:
  ClassLoss(const gfl_class_loss& op, Formula formula, T placeholder, Pass pass)
      : op_(op), formula_(formula), placeholder_(placeholder) {
    scale_ = effective_scale<T>(op.reduction);
    const gfl_matrix& upstream = op.grad_loss;
    const bool one_upstream = upstream.data && upstream.row_stride == 0 && upstream.col_stride == 0;
    if (one_upstream) scale_ *= static_cast<double>(*static_cast<const T*>(upstream.data));
    weighted_ = op.weight.data || op.class_weights || (upstream.data && !one_upstream);
    want_loss_ = pass == Pass::kForward;
    want_grad_ = op.grad.data != nullptr;
    const bool summed = op.reduction.mode == GFL_REDUCE_SUM;
    const bool fused = !weighted_ && (summed || !want_loss_) && sizeof(T) == sizeof(float);
    mode_ = !fused ? Mode::kRaw : !want_loss_ ? Mode::kGrad : want_grad_ ? Mode::kLossGrad : Mode::kLoss;
    row_major_ = op.pred.col_stride <= op.pred.row_stride || op.cols == 1;
  }

  void run() const {
    double* partials = static_cast<double*>(op_.workspace);
    if (op_.cols == 0) return run_without_classes();
    const bool summed = want_loss_ && op_.reduction.mode == GFL_REDUCE_SUM;
    parallel_rows(op_.rows, op_.cols, [&](int64_t chunk, int64_t begin, int64_t end) {
      const double sum = run_part({begin, end, 0, op_.cols});
      if (summed) partials[chunk] = sum;
    });
    if (summed) write_sum<T>(partials, chunk_count(op_.rows, op_.cols), scale_, op_.loss);
  }

  double run_part(const MatrixPart& part) const {
    const RowLabels labels(*this, part.row, part.row_end);
    const int64_t range = part.row_end - part.row < kTile ? part.row_end - part.row : kTile;
    const int64_t tall = !row_major_ ? range : op_.cols < kTile ? kTile / op_.cols : 1;
    const int64_t wide = row_major_ ? kTile : kTile / tall;
    double sum = 0;
    for (int64_t row = part.row; row < part.row_end; row += tall) {
      for (int64_t col = part.col; col < part.col_end; col += wide) {
        const int64_t rows = part.row_end - row < tall ? part.row_end - row : tall;
        const int64_t cols = part.col_end - col < wide ? part.col_end - col : wide;
        sum += run_tile({row, col, static_cast<int>(rows), static_cast<int>(cols), row_major_}, labels);
      }
    }
    return sum;
  }

 private:
  // Rows of nothing have a loss of 0.
  void run_without_classes() const {
    if (!want_loss_) return;
    T* loss = static_cast<T*>(op_.loss);
    const int64_t values = op_.reduction.mode == GFL_REDUCE_SUM    ? 1
                           : op_.reduction.mode == GFL_REDUCE_ROWS ? op_.rows
                                                                   : 0;
    for (int64_t i = 0; i < values; ++i) loss[i] = T();
  }

  // What the labels of a range say: who is positive, and whether someone is left out.
  struct RowLabels {
    int64_t begin;
    int positives = 0;
    bool left_out = false;
    int32_t positive[kChunkElements + 1];  // rows from `begin`; one more place, for what is written before it is known
    int32_t own[kChunkElements + 1];       // and their classes

    RowLabels(const ClassLoss& loss, int64_t begin_, int64_t end) : begin(begin_) {
      const gfl_class_loss& op = loss.op_;
      if (!op.labels) return;
      if (op.labels_dtype == GFL_INT64) {
        read(static_cast<const int64_t*>(op.labels) + begin, end - begin, op);
      } else {
        read(static_cast<const int32_t*>(op.labels) + begin, end - begin, op);
      }
    }

    // Without a branch on the labels, which nobody could predict.
    template <class Label>
    void read(const Label* labels, int64_t count, const gfl_class_loss& op) {
      bool outside = false;
      for (int64_t i = 0; i < count; ++i) {
        const int64_t label = labels[i];
        positive[positives] = static_cast<int32_t>(i);
        own[positives] = static_cast<int32_t>(label);
        positives += static_cast<uint64_t>(label) < static_cast<uint64_t>(op.cols);
        outside |= label == GFL_OUTSIDE;
      }
      left_out = outside && op.leave_out;
    }
  };

  double run_tile(const Tile& tile, const RowLabels& labels) const {
    T x_buffer[kTile], target_buffer[kTile], loss[kTile], grad_buffer[kTile];
    const int n = tile.size();
    Positive positives[kTile];
    const int num_positives = positives_of(tile, labels, positives);

    const T* x = num_positives > 0 || labels.left_out ? nullptr : dense_run<T>(op_.pred, tile);
    if (!x) {
      load_tile(op_.pred, tile, x_buffer);
      x = x_buffer;
    }
    T own_x[kTile];
    for (int i = 0; i < num_positives; ++i) {
      own_x[i] = x_buffer[positives[i].at];
      x_buffer[positives[i].at] = placeholder_;
    }
    if (labels.left_out) leave_out(tile, x_buffer);
    T* grad = want_grad_ ? dense_run<T>(op_.grad, tile) : nullptr;
    const bool stored = grad != nullptr;
    if (!stored) grad = grad_buffer;

    double sum = 0;
    const T scale = static_cast<T>(scale_);
    const T* ahead = next_to(tile);
    if (op_.labels) {
      sum = run_mode<T, Formula, false>(mode_, formula_, x, x, n, scale, loss, grad, ahead);
    } else {
      const T* target = dense_run<T>(op_.target, tile);
      if (!target) {
        load_tile(op_.target, tile, target_buffer);
        target = target_buffer;
      }
      sum = run_mode<T, Formula, true>(mode_, formula_, x, target, n, scale, loss, grad, ahead);
    }
    for (int i = 0; i < num_positives; ++i) {
      const T score = op_.scores ? static_cast<const T*>(op_.scores)[positives[i].row] : T();
      const LossGrad<T> e = formula_.positive(own_x[i], score);
      sum += static_cast<double>(e.loss);
      loss[positives[i].at] = e.loss;
      grad[positives[i].at] = mode_ == Mode::kRaw ? e.grad : e.grad * scale;
    }
    if (mode_ == Mode::kRaw) sum = finish_raw(tile, loss, grad);
    if (want_grad_ && !stored) store_tile(grad, op_.grad, tile);
    return sum;
  }

  // A tile comes in a burst and is then worked on, while the processor does not look ahead by itself; and the next channel
  // of a map lies where it never looks.
  const T* next_to(const Tile& tile) const {
    if (tile.row_major) {  // where the rows follow each other
      const int64_t end = (tile.row * op_.cols + tile.col) + 2 * int64_t{tile.size()};
      const T* run =
          op_.pred.row_stride == op_.cols && end <= op_.rows * op_.cols ? dense_run<T>(op_.pred, tile) : nullptr;
      return run ? run + tile.size() : nullptr;
    }
    const Tile next{tile.row, tile.col + tile.cols, tile.rows, tile.cols, tile.row_major};
    return next.col + next.cols <= op_.cols ? dense_run<T>(op_.pred, next) : nullptr;
  }

  int64_t label(int64_t row) const {
    return op_.labels_dtype == GFL_INT64 ? static_cast<const int64_t*>(op_.labels)[row]
                                         : static_cast<const int32_t*>(op_.labels)[row];
  }

  struct Positive {
    int at;  // in the tile
    int64_t row;
  };

  int positives_of(const Tile& tile, const RowLabels& labels, Positive* found) const {
    int count = 0;
    for (int i = 0; i < labels.positives; ++i) {
      const int64_t col = labels.own[i] - tile.col;
      const int64_t row = labels.begin + labels.positive[i] - tile.row;
      if (col < 0 || col >= tile.cols || row < 0 || row >= tile.rows) continue;
      found[count++] = {tile.at(static_cast<int>(row), static_cast<int>(col)), tile.row + row};
    }
    return count;
  }

  // A placeholder's loss and gradient are exactly 0.
  void leave_out(const Tile& tile, T* x) const {
    for (int i = 0; i < tile.rows; ++i) {
      if (label(tile.row + i) != GFL_OUTSIDE) continue;
      for (int j = 0; j < tile.cols; ++j) x[tile.at(i, j)] = placeholder_;
    }
  }

  // Weights, the incoming gradient and every reduction, on the raw losses and gradients of a cached tile.
  double finish_raw(const Tile& tile, T* loss, T* grad) const {
    const int n = tile.size();
    if (weighted_) {
      T weight[kTile];
      if (op_.weight.data) multiply(op_.weight, tile, weight, loss, grad);
      if (op_.class_weights) multiply(of_classes(), tile, weight, loss, grad);
      const gfl_matrix& upstream = op_.grad_loss;
      if (upstream.data && (upstream.row_stride != 0 || upstream.col_stride != 0)) {
        multiply(upstream, tile, weight, loss, grad);
      }
    }
    const T scale = static_cast<T>(scale_);
    for (int i = 0; i < n; ++i) grad[i] *= scale;
    if (!want_loss_) return 0;
    if (op_.reduction.mode == GFL_REDUCE_SUM) {
      using V = Vector<T>;
      V sum = V();
      int i = 0;
      for (; i + Lanes<T>::width <= n; i += Lanes<T>::width) sum = sum + load(loss + i);
      double total = lane_sum(sum);
      for (; i < n; ++i) total += static_cast<double>(loss[i]);
      return total;
    }
    T* out = static_cast<T*>(op_.loss);
    for (int i = 0; i < tile.rows; ++i) {
      if (op_.reduction.mode == GFL_REDUCE_ROWS) {
        double sum = tile.col == 0 ? 0.0 : static_cast<double>(out[tile.row + i]);
        for (int j = 0; j < tile.cols; ++j) sum += static_cast<double>(loss[tile.at(i, j)]) * scale_;
        out[tile.row + i] = static_cast<T>(sum);
      } else {
        T* row = out + (tile.row + i) * op_.cols + tile.col;
        for (int j = 0; j < tile.cols; ++j) row[j] = loss[tile.at(i, j)] * scale;
      }
    }
    return 0;
  }

  gfl_matrix of_classes() const { return {const_cast<void*>(op_.class_weights), DtypeOf<T>::code, 0, 1}; }

  static void multiply(const gfl_matrix& m, const Tile& tile, T* buffer, T* loss, T* grad) {
    load_tile(m, tile, buffer);
    for (int i = 0; i < tile.size(); ++i) {
      loss[i] *= buffer[i];
      grad[i] *= buffer[i];
    }
  }

  const gfl_class_loss& op_;
  const Formula formula_;
  const T placeholder_;
  double scale_;
  bool weighted_, want_loss_, want_grad_, row_major_;
  Mode mode_;
};

// Calls run(formula, placeholder) with the formula that the code and the exponent stand for. The placeholder is a
// prediction whose loss as a negative is exactly 0.
template <class T, class Exponent, class Run>
int with_exponent(int32_t formula, Exponent exponent, double alpha, const Run& run) {
  const T impossible = -static_cast<T>(HUGE_VAL);
  switch (formula) {
    case GFL_QUALITY_FOCAL:
      run(QualityFocal<Exponent>{exponent}, impossible);
      return GFL_OK;
    case GFL_QUALITY_FOCAL_PROBABILITY:
      run(QualityFocalProbability<Exponent>{exponent}, T());
      return GFL_OK;
    case GFL_SIGMOID_FOCAL:
      run(SigmoidFocal<Exponent>{exponent, alpha}, impossible);
      return GFL_OK;
    default:
      run(Varifocal<Exponent>{exponent, alpha, (formula & GFL_VARIFOCAL_EVEN) != 0,
                              (formula & GFL_VARIFOCAL_DETACHED) != 0},
          impossible);
      return GFL_OK;
  }
}

template <class T, class Run>
int with_formula(int32_t formula, double exponent, double alpha, const Run& run) {
  if (formula < 0 || formula >= GFL_CLASS_FORMULAS) {
    return fail(GFL_ERROR_ARGUMENT, "unknown class loss formula %d", formula);
  }
  if (formula == GFL_SOFT_CROSS_ENTROPY) {
    run(SoftCrossEntropy{}, -static_cast<T>(HUGE_VAL));
    return GFL_OK;
  }
  if (exponent == 2.0) return with_exponent<T>(formula, Square{}, alpha, run);
  return with_exponent<T>(formula, Power{exponent}, alpha, run);
}

// Calls run(loss), where the loss knows the type that it computes in and its formula.
template <class Run>
int with_class_loss(const gfl_class_loss& op, Pass pass, const Run& run) {
  return with_compute_type(op.pred.dtype, "pred", [&](auto zero) {
    using T = decltype(zero);
    return with_formula<T>(op.formula, op.exponent, op.alpha, [&](auto formula, T placeholder) {
      run(ClassLoss<T, decltype(formula)>(op, formula, placeholder, pass));
    });
  });
}

}  // namespace

int class_loss(const gfl_class_loss& op, Pass pass) {
  return with_class_loss(op, pass, [](const auto& loss) { loss.run(); });
}

double class_loss_of_part(const gfl_class_loss& op, Pass pass, const MatrixPart& part) {
  double sum = 0;
  with_class_loss(op, pass, [&](const auto& loss) { sum = loss.run_part(part); });
  return sum;
}

}  // namespace GFL_ISA
}  // namespace gfl
