// Test only: every CUDA op on the host, over odd small shapes, all dtypes and layouts, for the sanitizers.
//
//   driver [op] [cases]   all ops, 200 cases each
//
// Each buffer is its own allocation of the exact size, so that AddressSanitizer sees one element too many; outputs start
// as NaN, so that one that was not written shows; the gradient of the forward must be the backward's, bit for bit.
// Values are the business of the parity tests.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gfl.h"
#include "math/half.h"

namespace {

const gfl_device kDevice{GFL_CUDA, 0, nullptr};

[[noreturn]] void die(const std::string& what) {
  std::fprintf(stderr, "driver: %s\n", what.c_str());
  std::exit(1);
}

void check(int status) {
  if (status != GFL_OK) die(gfl_last_error());
}

// A fixed sequence, the same on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435761u + 12345u) {}
  int below(int n) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<int>((state_ >> 33) % static_cast<uint64_t>(n));
  }
  double between(double low, double high) { return low + (high - low) * below(1 << 20) / (1 << 20); }
  bool coin() { return below(2) == 1; }
  template <class T>
  T of(std::initializer_list<T> choices) {
    return choices.begin()[below(static_cast<int>(choices.size()))];
  }

 private:
  uint64_t state_;
};

int value_bytes(int32_t dtype) {
  return dtype == GFL_FLOAT64 || dtype == GFL_INT64 ? 8 : dtype == GFL_FLOAT32 || dtype == GFL_INT32 ? 4 : 2;
}
int32_t compute_dtype(int32_t dtype) { return dtype == GFL_FLOAT64 ? GFL_FLOAT64 : GFL_FLOAT32; }

void put(void* data, int32_t dtype, int64_t i, double value) {
  switch (dtype) {
    case GFL_FLOAT64:
      static_cast<double*>(data)[i] = value;
      return;
    case GFL_FLOAT32:
      static_cast<float*>(data)[i] = static_cast<float>(value);
      return;
    case GFL_BFLOAT16:
      static_cast<gfl::bfloat16*>(data)[i] = gfl::narrow<gfl::bfloat16>(static_cast<float>(value));
      return;
    case GFL_FLOAT16:
      static_cast<gfl::float16*>(data)[i] = gfl::narrow<gfl::float16>(static_cast<float>(value));
      return;
    case GFL_INT64:
      static_cast<int64_t*>(data)[i] = static_cast<int64_t>(value);
      return;
    default:
      static_cast<int32_t*>(data)[i] = static_cast<int32_t>(value);
  }
}

double get(const void* data, int32_t dtype, int64_t i) {
  switch (dtype) {
    case GFL_FLOAT64:
      return static_cast<const double*>(data)[i];
    case GFL_FLOAT32:
      return static_cast<double>(static_cast<const float*>(data)[i]);
    case GFL_BFLOAT16:
      return static_cast<double>(gfl::widen(static_cast<const gfl::bfloat16*>(data)[i]));
    case GFL_INT64:
      return static_cast<double>(static_cast<const int64_t*>(data)[i]);
    case GFL_INT32:
      return static_cast<const int32_t*>(data)[i];
    default:
      return static_cast<double>(gfl::widen(static_cast<const gfl::float16*>(data)[i]));
  }
}

// `size` values from element `offset` of an allocation that ends right behind them; NaN until filled. An offset of 1
// makes the address one that cannot be loaded 16 bytes at a time.
class Buffer {
 public:
  Buffer(int32_t dtype, int64_t size, int64_t offset = 0) : dtype_(dtype), size_(size), offset_(offset) {
    const size_t bytes = static_cast<size_t>((size + offset) * value_bytes(dtype));
    memory_.reset(std::malloc(bytes ? bytes : 1));
    std::memset(memory_.get(), 0xff, bytes);
  }
  Buffer& fill(Random& random, double low, double high) {
    for (int64_t i = 0; i < size_; ++i) put(data(), dtype_, i, random.between(low, high));
    return *this;
  }
  Buffer& poison() {
    std::memset(data(), 0xff, static_cast<size_t>(size_ * value_bytes(dtype_)));
    return *this;
  }
  void* data() const { return static_cast<char*>(memory_.get()) + offset_ * value_bytes(dtype_); }
  int32_t dtype() const { return dtype_; }
  int64_t size() const { return size_; }
  double operator[](int64_t i) const { return get(data(), dtype_, i); }

  void written(const char* name) const {
    for (int64_t i = 0; i < size_; ++i) {
      if (std::isnan((*this)[i])) die(std::string(name) + "[" + std::to_string(i) + "] was not written");
    }
  }
  void same(const Buffer& other, const char* name) const {
    for (int64_t i = 0; i < size_; ++i) {
      const double a = (*this)[i];
      const double b = other[i];
      if (a != b && !(std::isnan(a) && std::isnan(b))) {
        die(std::string(name) + "[" + std::to_string(i) + "]: " + std::to_string(a) + " and " + std::to_string(b));
      }
    }
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> memory_;
  int32_t dtype_;
  int64_t size_;
  int64_t offset_;
};

using MaybeBuffer = std::unique_ptr<Buffer>;
void* data_of(const MaybeBuffer& buffer) { return buffer ? buffer->data() : nullptr; }

int32_t any_dtype(Random& random) { return random.of<int32_t>({GFL_FLOAT64, GFL_FLOAT32, GFL_BFLOAT16, GFL_FLOAT16}); }

MaybeBuffer maybe_vector(Random& random, int32_t dtype, int64_t size, double low, double high) {
  if (random.coin()) return nullptr;
  MaybeBuffer buffer(new Buffer(dtype, size));
  buffer->fill(random, low, high);
  return buffer;
}

enum class Layout { kRows, kPadded, kColumns };

// A (rows, cols) matrix in one of the layouts, its allocation ending with its last element.
struct Matrix {
  Matrix(int32_t dtype, int64_t rows, int64_t cols, Layout layout, int64_t offset)
      : row_stride(layout == Layout::kColumns  ? 1
                   : layout == Layout::kPadded ? cols + 3
                                               : cols),
        col_stride(layout == Layout::kColumns ? (rows > 0 ? rows : 1) : 1),
        buffer(dtype, rows * cols == 0 ? 0 : (rows - 1) * row_stride + (cols - 1) * col_stride + 1, offset) {}

  gfl_matrix view() const { return {buffer.data(), buffer.dtype(), row_stride, col_stride}; }

  int64_t row_stride;
  int64_t col_stride;
  Buffer buffer;
};

gfl_reduction any_reduction(Random& random, bool elements, const MaybeBuffer& avg_factor) {
  const int kind = random.below(elements ? 3 : 2);
  return {kind, random.between(0.1, 2.0), data_of(avg_factor)};
}
int64_t loss_size(const gfl_reduction& reduction, int64_t rows, int64_t cols) {
  return reduction.kind == GFL_REDUCE_SUM ? 1 : reduction.kind == GFL_REDUCE_ROWS ? rows : rows * cols;
}

Buffer workspace(int64_t rows, int64_t cols, int losses = 1) {
  return Buffer(GFL_FLOAT64, losses * gfl_workspace_bytes(&kDevice, rows, cols) / 8);
}

void class_loss(Random& random) {
  const int32_t dtype = any_dtype(random);
  const int32_t compute = compute_dtype(dtype);
  const int64_t rows = random.of<int64_t>({0, 1, 2, 7, 33, 65, 130, 520});
  const int64_t cols = random.of<int64_t>({1, 2, 3, 5, 16, 33, 80, 81});
  const int32_t formula = random.below(3);
  const bool focal = formula == GFL_SIGMOID_FOCAL;
  const Layout layout = random.of({Layout::kRows, Layout::kRows, Layout::kPadded, Layout::kColumns});
  const int64_t offset = random.below(4) == 0 ? 1 : 0;
  const bool probability = formula == GFL_QUALITY_FOCAL_PROBABILITY;

  Matrix pred(dtype, rows, cols, layout, offset);
  pred.buffer.fill(random, probability ? 0.01 : -6.0, probability ? 0.99 : 6.0);
  const bool dense = random.below(3) == 0;
  Matrix target(random.coin() ? dtype : compute, rows, cols, layout, offset);
  target.buffer.fill(random, 0.0, 1.0);
  const int32_t label_dtype = random.of<int32_t>({GFL_INT64, GFL_INT32});
  Buffer labels(label_dtype, rows);
  for (int64_t i = 0; i < rows; ++i) put(labels.data(), label_dtype, i, random.below(static_cast<int>(cols) + 3) - 1);
  Buffer scores(compute, rows);
  scores.fill(random, 0.0, 1.0);

  const int spread = random.below(4);  // no weight, one for all, one a row, one an element
  Matrix weight(compute, spread < 2 ? 1 : rows, spread < 3 ? 1 : cols, Layout::kRows, 0);
  weight.buffer.fill(random, 0.0, 2.0);
  gfl_matrix weight_view = weight.view();
  if (spread < 3) weight_view.col_stride = 0;
  if (spread < 2) weight_view.row_stride = 0;
  if (spread == 0) weight_view = {};

  const MaybeBuffer avg_factor = maybe_vector(random, compute, 1, 1.0, 9.0);
  const gfl_reduction reduction = any_reduction(random, focal, avg_factor);
  Buffer loss(compute, loss_size(reduction, rows, cols));
  Buffer scratch = workspace(rows, cols);
  Matrix grad(dtype, rows, cols, random.coin() ? layout : Layout::kRows, offset);
  Matrix second(dtype, rows, cols, Layout::kRows, 0);
  Buffer one(compute, 1);
  put(one.data(), compute, 0, 1.0);

  gfl_class_loss op{};
  op.formula = formula;
  op.exponent = random.of({2.0, 2.0, 1.5, 0.0});
  op.alpha = 0.25;
  op.rows = rows;
  op.cols = cols;
  op.pred = pred.view();
  if (dense) {
    op.target = target.view();
  } else {
    op.labels = labels.data();
    op.label_dtype = label_dtype;
    if (!focal) op.scores = scores.data();
  }
  op.weight = weight_view;
  op.reduction = reduction;
  op.loss = loss.data();
  op.workspace = scratch.data();
  check(gfl_class_loss_forward(&kDevice, &op));
  loss.written("class loss");

  Buffer again(compute, loss.size());
  op.loss = again.data();
  op.grad = second.view();
  check(gfl_class_loss_forward(&kDevice, &op));
  second.buffer.written("class loss gradient of the forward");
  for (int64_t i = 0; i < loss.size(); ++i) {
    if (std::fabs(loss[i] - again[i]) > 1e-5 * std::fabs(loss[i])) die("class loss with and without gradient differ");
  }

  op.loss = nullptr;
  op.workspace = nullptr;
  op.grad = grad.view();
  op.grad_loss = {one.data(), compute, 0, 0};
  check(gfl_class_loss_backward(&kDevice, &op));
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t col = 0; col < cols; ++col) {
      const double a = grad.buffer[row * grad.row_stride + col * grad.col_stride];
      const double b = second.buffer[row * cols + col];
      if (!(std::fabs(a - b) <= 1e-5 * std::fabs(b))) die("class loss: gradients of forward and backward differ");
    }
  }
}

// (batch, sides * bins, length) logits: rows, padded rows, maps, or rows one channel of which is left out.
struct BinsMatrix {
  BinsMatrix(int32_t dtype, int64_t batch, int64_t channels, int64_t length, Layout layout, int64_t offset)
      : channel_stride(layout == Layout::kColumns ? length : 1),
        length_stride(layout == Layout::kColumns  ? 1
                      : layout == Layout::kPadded ? channels + 3
                                                  : channels),
        batch_stride(length * (layout == Layout::kPadded ? channels + 3 : channels)),
        buffer(dtype,
               batch * length == 0
                   ? 0
                   : (batch - 1) * batch_stride + (channels - 1) * channel_stride + (length - 1) * length_stride + 1,
               offset) {}
  gfl_bins view() const { return {buffer.data(), buffer.dtype(), batch_stride, channel_stride, length_stride}; }

  int64_t channel_stride;
  int64_t length_stride;
  int64_t batch_stride;
  Buffer buffer;
};

Layout any_layout(Random& random) {
  return random.of({Layout::kRows, Layout::kRows, Layout::kPadded, Layout::kColumns});
}

void dfl_of(Random& random, int64_t rows, int64_t bins) {
  const int32_t dtype = any_dtype(random);
  const int32_t compute = compute_dtype(dtype);
  const Layout layout = any_layout(random);
  const int64_t offset = random.below(4) == 0 ? 1 : 0;
  BinsMatrix logits(dtype, 1, bins, rows, layout, offset);
  logits.buffer.fill(random, -3.0, 3.0);
  Buffer target(compute, rows);
  target.fill(random, 0.0, static_cast<double>(bins - 1));
  if (rows > 0) put(target.data(), compute, 0, static_cast<double>(bins - 1));
  const bool own_values = random.coin();
  Buffer values(compute, bins);
  for (int64_t k = 0; k < bins; ++k) put(values.data(), compute, k, static_cast<double>(k));
  const MaybeBuffer left = maybe_vector(random, compute, rows, 0.0, 1.0);
  const MaybeBuffer right(left ? new Buffer(compute, rows) : nullptr);
  if (right) right->fill(random, 0.0, 1.0);
  const MaybeBuffer weight = maybe_vector(random, compute, rows, 0.0, 2.0);
  const MaybeBuffer avg_factor = maybe_vector(random, compute, 1, 1.0, 9.0);
  const gfl_reduction reduction = any_reduction(random, false, avg_factor);
  Buffer loss(compute, loss_size(reduction, rows, 1));
  Buffer scratch = workspace(rows, bins);
  BinsMatrix grad(dtype, 1, bins, rows, Layout::kRows, 0);
  BinsMatrix second(dtype, 1, bins, rows, Layout::kRows, 0);
  Buffer upstream(compute, random.coin() ? 1 : rows);
  for (int64_t i = 0; i < upstream.size(); ++i) put(upstream.data(), compute, i, 1.0);

  gfl_dfl op{};
  op.rows = rows;
  op.bins = bins;
  op.logits = logits.view();
  op.target = target.data();
  op.bin_values = own_values ? values.data() : nullptr;
  op.left_weight = data_of(left);
  op.right_weight = data_of(right);
  op.weight = data_of(weight);
  op.reduction = reduction;
  op.loss = loss.data();
  op.workspace = scratch.data();
  check(gfl_dfl_forward(&kDevice, &op));
  loss.written("dfl");
  loss.poison();
  op.grad = grad.view();
  check(gfl_dfl_forward(&kDevice, &op));
  loss.written("dfl");
  grad.buffer.written("dfl gradient of the forward");
  op.loss = nullptr;
  op.workspace = nullptr;
  op.grad_loss = upstream.data();
  op.grad_loss_stride = upstream.size() == 1 ? 0 : 1;
  op.grad = second.view();
  check(gfl_dfl_backward(&kDevice, &op));
  second.buffer.same(grad.buffer, "dfl: gradients of forward and backward");
  if (logits.buffer.size() != second.buffer.size()) return;
  Buffer strided(dtype, logits.buffer.size());  // the gradient in the layout of the logits
  op.grad = logits.view();
  op.grad.data = strided.data();
  check(gfl_dfl_backward(&kDevice, &op));
  strided.written("dfl gradient");
}

void dfl(Random& random) {
  const int64_t rows = random.of<int64_t>({0, 1, 5, 31, 129, 300});
  dfl_of(random, rows, random.of<int64_t>({2, 3, 8, 16, 17, 17, 33, 256}));
}

void integral_of(Random& random, int64_t length, int64_t bins) {
  const int32_t dtype = any_dtype(random);
  const int64_t batch = random.of<int64_t>({1, 1, 2, 3});
  const int64_t sides = random.of<int64_t>({1, 4, 4});
  BinsMatrix logits(dtype, batch, sides * bins, length, any_layout(random), random.below(4) == 0 ? 1 : 0);
  logits.buffer.fill(random, -3.0, 3.0);
  Buffer values(compute_dtype(dtype), bins);
  values.fill(random, -2.0, 9.0);
  BinsMatrix output(dtype, batch, sides, length, random.coin() ? Layout::kRows : Layout::kColumns, 0);
  BinsMatrix grad(dtype, batch, sides * bins, length, random.coin() ? Layout::kRows : Layout::kColumns, 0);

  gfl_integral op{};
  op.batch = batch;
  op.sides = sides;
  op.bins = bins;
  op.length = length;
  op.logits = logits.view();
  op.bin_values = random.coin() ? values.data() : nullptr;
  op.output = output.view();
  check(gfl_integral_forward(&kDevice, &op));
  output.buffer.written("integral");
  op.grad = grad.view();
  check(gfl_integral_backward(&kDevice, &op));
  grad.buffer.written("integral gradient");
}

void integral(Random& random) {
  const int64_t length = random.of<int64_t>({0, 1, 7, 40, 150});
  integral_of(random, length, random.of<int64_t>({2, 8, 16, 17, 17, 33, 200}));
}

gfl_iou_options any_options(Random& random) { return {random.below(4), random.below(3), random.below(2), 1e-6}; }

void fill_boxes(Matrix& boxes, Random& random) {
  const gfl_matrix view = boxes.view();
  for (int64_t row = 0; boxes.buffer.size() > 0 && row * view.row_stride < boxes.buffer.size(); ++row) {
    if (row * view.row_stride + 3 * view.col_stride >= boxes.buffer.size()) break;
    for (int64_t i = 0; i < 4; ++i) {
      put(view.data, view.dtype, row * view.row_stride + i * view.col_stride,
          i < 2 ? random.between(0.0, 30.0) : random.between(31.0, 60.0));
    }
  }
}

void iou(Random& random) {
  const int32_t dtype = any_dtype(random);
  const int32_t compute = compute_dtype(dtype);
  const int64_t rows = random.of<int64_t>({0, 1, 3, 64, 257, 700});
  Matrix pred(dtype, rows, 4, any_layout(random), random.below(3) == 0 ? 1 : 0);
  Matrix target(random.coin() ? dtype : compute, rows, 4, any_layout(random), random.below(3) == 0 ? 1 : 0);
  fill_boxes(pred, random);
  fill_boxes(target, random);
  const MaybeBuffer weight = maybe_vector(random, compute, rows, 0.0, 2.0);
  const MaybeBuffer avg_factor = maybe_vector(random, compute, 1, 1.0, 9.0);
  const gfl_reduction reduction = any_reduction(random, false, avg_factor);
  Buffer loss(compute, loss_size(reduction, rows, 1));
  Buffer scratch = workspace(rows, 4);
  Matrix grad(dtype, rows, 4, random.of({Layout::kRows, Layout::kColumns}), random.below(3) == 0 ? 1 : 0);

  gfl_iou_loss op{};
  op.options = any_options(random);
  op.rows = rows;
  op.pred = pred.view();
  op.target = target.view();
  op.weight = data_of(weight);
  op.reduction = reduction;
  op.loss = loss.data();
  op.workspace = scratch.data();
  op.grad = random.coin() ? grad.view() : gfl_matrix{};
  check(gfl_iou_loss_forward(&kDevice, &op));
  loss.written("iou loss");
  Buffer upstream(compute, rows > 0 ? rows : 1);
  upstream.fill(random, 0.5, 1.0);
  op.grad = grad.view();
  op.grad_loss = upstream.data();
  op.grad_loss_stride = random.below(2);
  op.loss = nullptr;
  op.workspace = nullptr;
  check(gfl_iou_loss_backward(&kDevice, &op));
  grad.buffer.written("iou loss gradient");

  const int64_t cols = random.of<int64_t>({1, 7, 33});
  Matrix b(dtype, cols, 4, any_layout(random), 0);
  fill_boxes(b, random);
  Buffer overlaps(compute, rows * cols);
  gfl_box_iou pairs{rows, cols, 0, pred.view(), b.view(), 1e-6, overlaps.data()};
  check(gfl_box_iou_forward(&kDevice, &pairs));
  overlaps.written("box_iou");
  Buffer paired(compute, rows);
  gfl_box_iou aligned{rows, 1, 1, pred.view(), grad.view(), 1e-6, paired.data()};
  fill_boxes(grad, random);
  check(gfl_box_iou_forward(&kDevice, &aligned));
  paired.written("aligned box_iou");
}

void box_distribution_of(Random& random, int64_t rows, int64_t bins) {
  const int32_t dtype = any_dtype(random);
  const int32_t compute = compute_dtype(dtype);
  BinsMatrix logits(dtype, 1, 4 * bins, rows, any_layout(random), random.below(4) == 0 ? 1 : 0);
  logits.buffer.fill(random, -3.0, 3.0);
  Buffer points(compute, 2 * rows);
  points.fill(random, 20.0, 40.0);
  Matrix boxes(compute, rows, 4, Layout::kRows, 0);
  fill_boxes(boxes, random);
  const MaybeBuffer strides = maybe_vector(random, compute, rows, 4.0, 32.0);
  const MaybeBuffer weight = maybe_vector(random, compute, rows, 0.0, 2.0);
  const MaybeBuffer avg_factor = maybe_vector(random, compute, 1, 1.0, 9.0);
  const gfl_reduction reduction = any_reduction(random, false, avg_factor);
  const int64_t losses = loss_size(reduction, rows, 1);
  Buffer loss_iou(compute, losses);
  Buffer loss_dfl(compute, losses);
  Buffer decoded(compute, 4 * rows);
  Buffer quality(compute, rows);
  Buffer scratch = workspace(rows, 4 * bins, 2);
  BinsMatrix grad(dtype, 1, 4 * bins, rows, random.of({Layout::kRows, Layout::kColumns}), 0);

  gfl_box_distribution_loss op{};
  op.options = any_options(random);
  op.rows = rows;
  op.bins = bins;
  op.logits = logits.view();
  op.anchor_points = points.data();
  op.target_boxes = boxes.buffer.data();
  op.strides = data_of(strides);
  op.stride = 8.0;
  op.target_margin = 0.1;
  op.weight = data_of(weight);
  op.reduction = reduction;
  op.loss_iou = loss_iou.data();
  op.loss_dfl = loss_dfl.data();
  op.boxes = decoded.data();
  op.quality = quality.data();
  op.workspace = scratch.data();
  check(gfl_box_distribution_loss_forward(&kDevice, &op));
  loss_iou.written("loss_iou");
  loss_dfl.written("loss_dfl");
  decoded.written("boxes");
  quality.written("quality");
  Buffer upstream(compute, rows > 0 ? rows : 1);
  upstream.fill(random, 0.5, 1.0);
  op.grad_iou = random.coin() ? upstream.data() : nullptr;
  op.grad_dfl = upstream.data();
  op.grad_loss_stride = random.below(2);
  op.grad = grad.view();
  op.workspace = nullptr;
  check(gfl_box_distribution_loss_backward(&kDevice, &op));
  grad.buffer.written("edge logits' gradient");
}

void box_distribution(Random& random) {
  const int64_t rows = random.of<int64_t>({0, 1, 5, 33, 70});
  box_distribution_of(random, rows, random.of<int64_t>({2, 8, 16, 17, 17, 33, 256}));
}

void generalized_focal(Random& random) {
  const int32_t dtype = any_dtype(random);
  const int32_t compute = compute_dtype(dtype);
  const int64_t size = random.of<int64_t>({0, 1, 9, 300, 1025});
  std::vector<MaybeBuffer> kept;
  const auto flat = [&](int32_t of, double low, double high) -> gfl_flat {
    const bool one = random.coin();
    kept.emplace_back(new Buffer(of, one ? 1 : size));
    kept.back()->fill(random, low, high);
    return {kept.back()->data(), one ? 0 : 1};
  };
  const MaybeBuffer avg_factor = maybe_vector(random, compute, 1, 1.0, 9.0);
  gfl_generalized_focal op{};
  op.size = size;
  op.dtype = dtype;
  op.beta = random.of({2.0, 1.5, 0.0});
  op.p_left = flat(dtype, 0.05, 0.95);
  op.p_right = flat(dtype, 0.05, 0.95);
  op.y = flat(compute, 0.1, 0.9);
  op.y_left = flat(compute, 0.0, 0.1);
  op.y_right = flat(compute, 0.9, 1.0);
  if (random.coin()) op.weight = flat(compute, 0.0, 2.0);
  op.reduction = any_reduction(random, false, avg_factor);
  Buffer loss(compute, loss_size(op.reduction, size, 1));
  Buffer scratch = workspace(size, 1);
  op.loss = loss.data();
  op.workspace = scratch.data();
  check(gfl_generalized_focal_forward(&kDevice, &op));
  loss.written("generalized focal loss");
  Buffer left(dtype, size);
  Buffer right(dtype, size);
  op.grad_loss = flat(compute, 0.5, 1.0);
  op.grad_left = left.data();
  op.grad_right = random.coin() ? right.data() : nullptr;
  op.loss = nullptr;
  op.workspace = nullptr;
  check(gfl_generalized_focal_backward(&kDevice, &op));
  left.written("gradient of p_left");
  if (op.grad_right) right.written("gradient of p_right");
}

void scale(Random& random) {
  const int32_t dtype = any_dtype(random);
  const int64_t size = random.of<int64_t>({0, 1, 7, 2049, 20001});
  Buffer data(dtype, size, random.below(3) == 0 ? 1 : 0);
  for (int64_t i = 0; i < size; ++i) put(data.data(), dtype, i, static_cast<double>(i % 64));
  Buffer factor(compute_dtype(dtype), 1);
  const double by = random.of({1.0, 0.5, 2.0});
  put(factor.data(), factor.dtype(), 0, by);
  check(gfl_scale_gradient(&kDevice, data.data(), dtype, size, factor.data()));
  for (int64_t i = 0; i < size; ++i) {
    if (data[i] != static_cast<double>(i % 64) * by) die("scale: wrong at " + std::to_string(i));
  }
}

// ---- the maps of several levels ------------------------------------------------------------------------

gfl_levels any_levels(Random& random) {
  gfl_levels levels{};
  levels.count = 1 + random.below(4);
  for (int i = 0; i < levels.count; ++i) {
    levels.level[i] = {random.of({0, 1, 3, 8, 17}), random.of({1, 2, 5, 8, 21}), 8.0 * (1 << i)};
  }
  return levels;
}

int64_t cells_of(const gfl_level& level) { return static_cast<int64_t>(level.height) * level.width; }

int64_t anchors_of(const gfl_levels& levels) {
  int64_t anchors = 0;
  for (int i = 0; i < levels.count; ++i) anchors += cells_of(levels.level[i]);
  return anchors;
}

// (batch, channels, cells) of each level, each in an allocation of its own: maps, channels last, or every second channel.
struct Maps {
  Maps(int32_t dtype, int64_t batch, int64_t channels, const gfl_levels& levels, Random& random, bool dense) {
    view = {};
    view.dtype = dtype;
    view.count = levels.count;
    for (int i = 0; i < levels.count; ++i) {
      const int64_t cells = cells_of(levels.level[i]);
      gfl_map& map = view.level[i];
      switch (random.below(dense ? 2 : 3)) {
        case 0:
          map = {nullptr, channels * cells, cells, 1};
          break;
        case 1:
          map = {nullptr, channels * cells, 1, channels};
          break;
        default:
          map = {nullptr, 2 * channels * cells, 2 * cells, 1};
      }
      const bool empty = batch * channels * cells == 0;
      const int64_t size = empty ? 0
                                 : (batch - 1) * map.batch_stride + (channels - 1) * map.channel_stride +
                                       (cells - 1) * map.position_stride + 1;
      buffers.emplace_back(new Buffer(dtype, size, random.below(4) == 0 ? 1 : 0));
      map.data = buffers.back()->data();
    }
  }
  Maps& fill(Random& random, double low, double high) {
    for (const MaybeBuffer& buffer : buffers) buffer->fill(random, low, high);
    return *this;
  }
  void written(const char* name) const {
    for (const MaybeBuffer& buffer : buffers) buffer->written(name);
  }

  gfl_maps view;
  std::vector<MaybeBuffer> buffers;
};

Buffer maps_workspace(const gfl_levels& levels, int64_t batch, int64_t channels) {
  return Buffer(GFL_FLOAT64, gfl_maps_workspace_bytes(&kDevice, &levels, batch, channels) / 8);
}

void atss(Random& random) {
  const int32_t dtype = random.of<int32_t>({GFL_FLOAT64, GFL_FLOAT32});
  const gfl_levels levels = any_levels(random);
  const int64_t batch = random.of<int64_t>({0, 1, 2, 3});
  const int64_t gts = random.of<int64_t>({0, 1, 4, 11});
  const int64_t anchors = anchors_of(levels);
  Matrix boxes(dtype, batch * gts, 4, Layout::kRows, 0);
  boxes.buffer.fill(random, 0.0, 80.0);
  for (int64_t i = 0; i < batch * gts; ++i) {
    for (int64_t c = 2; c < 4; ++c) {
      put(boxes.buffer.data(), dtype, 4 * i + c, boxes.buffer[4 * i + c - 2] + random.between(-2.0, 90.0));
    }
    if (random.below(9) == 0) put(boxes.buffer.data(), dtype, 4 * i, NAN);
  }
  Buffer counts(GFL_INT64, batch);
  counts.fill(random, -1.0, static_cast<double>(gts + 2));
  Buffer known(GFL_INT64, batch * gts);
  known.fill(random, -1.0, 4.0);
  Buffer valid(dtype, 2 * batch);
  valid.fill(random, 0.0, 200.0);
  Buffer assigned(GFL_INT32, batch * anchors);
  Buffer iou(GFL_FLOAT32, batch * anchors);
  Buffer labels(GFL_INT32, batch * anchors);

  gfl_atss op{};
  op.batch = batch;
  op.gts = gts;
  op.dtype = dtype;
  op.gt_boxes = boxes.buffer.data();
  op.gt_counts = random.coin() ? static_cast<const int64_t*>(counts.data()) : nullptr;
  const bool labelled = random.coin();
  op.gt_labels = labelled ? static_cast<const int64_t*>(known.data()) : nullptr;
  op.classes = 3;
  op.valid_shapes = random.coin() ? valid.data() : nullptr;
  op.levels = levels;
  op.topk = random.of({1, 4, 9, 9, 32});
  op.anchor_scale = 8.0;
  op.center_offset = random.of({0.0, 0.5});
  op.assigned_gt = static_cast<int32_t*>(assigned.data());
  op.assigned_iou = static_cast<float*>(iou.data());
  op.labels = labelled ? static_cast<int32_t*>(labels.data()) : nullptr;
  if (gfl_atss_workspace_bytes(&kDevice, &op) != 0) die("atss: a workspace that it does not get");
  check(gfl_atss_assign(&kDevice, &op));
  iou.written("assigned_iou");
  for (int64_t i = 0; i < batch * anchors; ++i) {
    const int32_t gt = op.assigned_gt[i];
    if (gt < GFL_OUTSIDE || gt >= gts) die("atss: no such ground truth");
    const int32_t label = gt < 0 ? gt : static_cast<int32_t>(op.gt_labels ? op.gt_labels[i / anchors * gts + gt] : 0);
    if (labelled && op.labels[i] != label) die("atss: not the label of the ground truth");
  }
}

void dense(Random& random) {
  const int32_t dtype = any_dtype(random);
  const int32_t compute = compute_dtype(dtype);
  const gfl_levels levels = any_levels(random);
  const int64_t batch = random.of<int64_t>({0, 1, 2});
  const int64_t classes = random.of<int64_t>({1, 3, 8, 16, 37});
  const int64_t anchors = anchors_of(levels);
  Maps pred(dtype, batch, classes, levels, random, false);
  pred.fill(random, -6.0, 6.0);
  Buffer labels(GFL_INT32, batch * anchors);
  for (int64_t i = 0; i < batch * anchors; ++i) {
    put(labels.data(), GFL_INT32, i, random.below(static_cast<int>(classes) + 4) - 2);
  }
  Buffer scores(compute, batch * anchors);
  scores.fill(random, 0.0, 1.0);
  const MaybeBuffer avg_factor = maybe_vector(random, compute, 1, 1.0, 9.0);
  Buffer loss(compute, 1);
  Buffer again(compute, 1);
  Buffer one(compute, 1);
  put(one.data(), compute, 0, 1.0);
  Buffer scratch = maps_workspace(levels, batch, classes);
  Random same(7);
  Maps grad(dtype, batch, classes, levels, same, true);
  same = Random(7);
  Maps second(dtype, batch, classes, levels, same, true);

  gfl_dense_loss op{};
  op.formula = random.of<int32_t>({GFL_QUALITY_FOCAL, GFL_SIGMOID_FOCAL});
  op.exponent = random.of({2.0, 2.0, 1.5});
  op.alpha = 0.25;
  op.batch = batch;
  op.classes = classes;
  op.levels = levels;
  op.pred = pred.view;
  op.labels = static_cast<const int32_t*>(labels.data());
  op.scores = op.formula == GFL_QUALITY_FOCAL ? scores.data() : nullptr;
  op.scale = random.between(0.1, 2.0);
  op.avg_factor = data_of(avg_factor);
  op.loss = loss.data();
  op.workspace = scratch.data();
  check(gfl_dense_loss_forward(&kDevice, &op));
  loss.written("dense loss");
  op.loss = again.data();
  op.grad = grad.view;
  check(gfl_dense_loss_forward(&kDevice, &op));
  if (!(std::fabs(loss[0] - again[0]) <= 1e-5 * std::fabs(loss[0]))) die("dense loss with and without gradient");
  grad.written("dense loss gradient of the forward");
  op.loss = nullptr;
  op.workspace = nullptr;
  op.grad_loss = one.data();
  op.grad = second.view;
  check(gfl_dense_loss_backward(&kDevice, &op));
  for (int i = 0; i < levels.count; ++i) second.buffers[i]->same(*grad.buffers[i], "dense loss: gradients");
}

void positives(Random& random) {
  const int32_t dtype = any_dtype(random);
  const int32_t compute = compute_dtype(dtype);
  const gfl_levels levels = any_levels(random);
  const int64_t batch = random.of<int64_t>({0, 1, 2, 3});
  const int64_t classes = random.of<int64_t>({1, 3, 40});
  const int64_t bins = random.of<int64_t>({2, 8, 17, 17, 33, 200});
  const int64_t num_gts = 6;
  const int64_t anchors = anchors_of(levels);
  const int rare = random.of({1, 8, 100});
  Buffer gts(GFL_INT32, batch * anchors);
  for (int64_t i = 0; i < batch * anchors; ++i) {
    put(gts.data(), GFL_INT32, i, random.below(rare) == 0 ? random.below(6) : -1 - random.below(2));
  }
  Maps scores(dtype, batch, classes, levels, random, false);
  scores.fill(random, -6.0, 6.0);
  Buffer weights(compute, batch * anchors);
  Buffer normalisers(compute, 2);
  Buffer num_pos(compute, 1);
  Buffer scratch = maps_workspace(levels, batch, classes);
  gfl_positive_weights weigh{};
  weigh.batch = batch;
  weigh.classes = classes;
  weigh.levels = levels;
  weigh.gts = static_cast<const int32_t*>(gts.data());
  weigh.scores = scores.view;
  weigh.weights = weights.data();
  weigh.normalisers = normalisers.data();
  weigh.num_pos = num_pos.data();
  weigh.workspace = scratch.data();
  check(gfl_positive_weights_forward(&kDevice, &weigh));
  weights.written("weights");
  normalisers.written("normalisers");
  num_pos.written("num_pos");

  Matrix boxes(compute, batch * num_gts, 4, Layout::kRows, 0);
  fill_boxes(boxes, random);
  Maps edges(dtype, batch, 4 * bins, levels, random, false);
  edges.fill(random, -3.0, 3.0);
  Maps grad(dtype, batch, 4 * bins, levels, random, true);
  Buffer quality(compute, batch * anchors);
  Buffer sums(GFL_FLOAT64, GFL_POSITIVE_SUMS);
  Buffer upstream(compute, 1);
  put(upstream.data(), compute, 0, 0.75);
  Buffer more = maps_workspace(levels, batch, 4 * bins);
  gfl_positive_boxes op{};
  op.options = any_options(random);
  op.batch = batch;
  op.bins = bins;
  op.levels = levels;
  op.target_margin = 0.1;
  op.gts = weigh.gts;
  op.num_gts = num_gts;
  op.gt_boxes = boxes.buffer.data();
  op.weights = weights.data();
  op.edges = edges.view;
  op.quality = quality.data();
  op.sums = static_cast<double*>(sums.data());
  op.workspace = more.data();
  check(gfl_positive_boxes_forward(&kDevice, &op));
  quality.written("quality");
  sums.written("sums");
  Buffer losses(compute, 3);
  gfl_box_losses finish{};
  finish.dtype = compute;
  finish.sums = op.sums;
  finish.normalisers = normalisers.data();
  finish.num_pos = num_pos.data();
  finish.scale_iou = 2.0;
  finish.scale_dfl = 0.25;
  char* first = static_cast<char*>(losses.data());
  finish.loss_iou = first;
  finish.loss_dfl = first + value_bytes(compute);
  finish.mean_quality = first + 2 * value_bytes(compute);
  check(gfl_box_losses_forward(&kDevice, &finish));
  losses.written("box losses");
  op.grad_iou = random.coin() ? upstream.data() : nullptr;
  op.grad_dfl = upstream.data();
  op.scale_iou = 2.0;
  op.scale_dfl = 0.25;
  op.normalisers = normalisers.data();
  op.grad = grad.view;
  op.quality = nullptr;
  op.sums = nullptr;
  check(gfl_positive_boxes_backward(&kDevice, &op));
  grad.written("gradient of the positives' edges");
}

}  // namespace

#include "detections.h"

namespace {

// Large enough for several tiles a block: what one tile leaves in shared memory meets the next.
void large_class_loss(Random& random) {
  const int64_t rows = 3001;
  const int64_t cols = 80;
  Matrix pred(GFL_FLOAT32, rows, cols, Layout::kRows, 0);
  pred.buffer.fill(random, -6.0, 6.0);
  Buffer labels(GFL_INT64, rows);
  for (int64_t i = 0; i < rows; ++i) put(labels.data(), GFL_INT64, i, random.below(81));
  Buffer scores(GFL_FLOAT32, rows);
  scores.fill(random, 0.0, 1.0);
  Buffer loss(GFL_FLOAT32, 1);
  Buffer scratch = workspace(rows, cols);
  Matrix grad(GFL_FLOAT32, rows, cols, Layout::kRows, 0);
  gfl_class_loss op{};
  op.exponent = 2.0;
  op.rows = rows;
  op.cols = cols;
  op.pred = pred.view();
  op.labels = labels.data();
  op.scores = scores.data();
  op.reduction = {GFL_REDUCE_SUM, 1.0, nullptr};
  op.loss = loss.data();
  op.grad = grad.view();
  op.workspace = scratch.data();
  check(gfl_class_loss_forward(&kDevice, &op));
  loss.written("large class loss");
  grad.buffer.written("gradient of the large class loss");

  Buffer row_losses(GFL_FLOAT32, rows);  // another kernel, without marks or tiles
  op.reduction.kind = GFL_REDUCE_ROWS;
  op.loss = row_losses.data();
  op.grad = {};
  check(gfl_class_loss_forward(&kDevice, &op));
  double sum = 0;
  for (int64_t i = 0; i < rows; ++i) sum += row_losses[i];
  if (!(std::fabs(loss[0] - sum) <= 1e-6 * sum)) die("large class loss: the sum and the rows differ");
}

void large(Random& random) {
  large_class_loss(random);
  dfl_of(random, 4000, 17);
  dfl_of(random, 1500, 200);
  integral_of(random, 1300, 8);
  box_distribution_of(random, 900, 17);
  nms_of(random, 5300);
}

void errors() {
  const auto expect = [](int status, int wanted, const char* words) {
    if (status != wanted || !std::strstr(gfl_last_error(), words)) {
      die(std::string("expected an error about ") + words + ", got " + gfl_last_error());
    }
  };
  const gfl_device missing{GFL_CUDA, 7, nullptr};
  gfl_generalized_focal op{};
  op.dtype = GFL_FLOAT32;
  expect(gfl_generalized_focal_backward(&missing, &op), GFL_ERROR_CUDA, "CUDA device 7");
  op.dtype = GFL_INT64;
  expect(gfl_generalized_focal_backward(&kDevice, &op), GFL_ERROR_ARGUMENT, "not a floating point type");
}

struct Op {
  const char* name;
  std::function<void(Random&)> run;
};

const Op kOps[] = {{"class_loss", class_loss},
                   {"dfl", dfl},
                   {"integral", integral},
                   {"iou", iou},
                   {"box_distribution", box_distribution},
                   {"generalized_focal", generalized_focal},
                   {"scale", scale},
                   {"atss", atss},
                   {"dense", dense},
                   {"positives", positives},
                   {"nms", nms},
                   {"postprocess", postprocess}};

}  // namespace

int main(int argc, char** argv) {
  const std::string wanted = argc > 1 ? argv[1] : "all";
  const int cases = argc > 2 ? std::atoi(argv[2]) : 200;
  int ran = 0;
  for (const Op& op : kOps) {
    if (wanted != "all" && wanted != op.name) continue;
    for (int i = 0; i < cases; ++i, ++ran) {
      Random random(static_cast<uint64_t>(i) * 977 + static_cast<uint64_t>(op.name[0]));
      op.run(random);
    }
  }
  if (wanted == "all" || wanted == "large") {
    Random random(1);
    large(random);
    ++ran;
  }
  if (wanted == "all") errors();
  if (ran == 0) die("no op called " + wanted);
  std::printf("%d cases\n", ran);
  return 0;
}
