// Test only: the driver's calls of the ops over rows: class losses, distributions, boxes.
#pragma once

#include "buffers.h"

namespace {

void class_loss(Random& random) {
  const int32_t dtype = any_dtype(random);
  const int32_t compute = compute_dtype(dtype);
  const int64_t rows = random.of<int64_t>({0, 1, 2, 7, 33, 65, 130, 520});
  const int64_t cols = random.of<int64_t>({1, 2, 3, 5, 16, 33, 80, 81});
  const int32_t formula = random.below(GFL_CLASS_FORMULAS);
  const bool focal = formula == GFL_SIGMOID_FOCAL;
  const Layout layout = random.of({Layout::kRows, Layout::kRows, Layout::kPadded, Layout::kColumns});
  const int64_t offset = random.below(4) == 0 ? 1 : 0;
  const bool probability = formula == GFL_QUALITY_FOCAL_PROBABILITY;

  Matrix pred(dtype, rows, cols, layout, offset);
  pred.buffer.fill(random, probability ? 0.01 : -6.0, probability ? 0.99 : 6.0);
  const bool dense = random.below(3) == 0;
  Matrix target(random.coin() ? dtype : compute, rows, cols, layout, offset);
  target.buffer.fill(random, 0.0, 1.0);
  const int32_t labels_dtype = random.of<int32_t>({GFL_INT64, GFL_INT32});
  Buffer labels(labels_dtype, rows);
  for (int64_t i = 0; i < rows; ++i) put(labels.data(), labels_dtype, i, random.below(static_cast<int>(cols) + 3) - 1);
  Buffer scores(compute, rows);
  scores.fill(random, 0.0, 1.0);

  const int spread = random.below(4);  // no weight, one for all, one a row, one an element
  Matrix weight(compute, spread < 2 ? 1 : rows, spread < 3 ? 1 : cols, Layout::kRows, 0);
  weight.buffer.fill(random, 0.0, 2.0);
  gfl_matrix weight_view = weight.view();
  if (spread < 3) weight_view.col_stride = 0;
  if (spread < 2) weight_view.row_stride = 0;
  if (spread == 0) weight_view = {};

  const MaybeBuffer class_weights = maybe_vector(random, compute, cols, 0.0, 2.0);
  const MaybeBuffer avg_factor = maybe_vector(random, compute, 1, 1.0, 9.0);
  const gfl_reduction reduction = any_reduction(random, formula >= GFL_SIGMOID_FOCAL, avg_factor);
  Buffer loss(compute, loss_size(reduction, rows, cols));
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
    op.labels_dtype = labels_dtype;
    if (!focal) op.scores = scores.data();
  }
  op.weight = weight_view;
  op.class_weights = data_of(class_weights);
  op.reduction = reduction;
  op.loss = loss.data();
  Buffer scratch = workspace(gfl_class_loss_workspace_bytes(&kDevice, &op));
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

void distribution_focal_loss_of(Random& random, int64_t rows, int64_t bins) {
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
  BinsMatrix grad(dtype, 1, bins, rows, Layout::kRows, 0);
  BinsMatrix second(dtype, 1, bins, rows, Layout::kRows, 0);
  Buffer upstream(compute, random.coin() ? 1 : rows);
  for (int64_t i = 0; i < upstream.size(); ++i) put(upstream.data(), compute, i, 1.0);

  gfl_distribution_focal_loss op{};
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
  Buffer scratch = workspace(gfl_distribution_focal_loss_workspace_bytes(&kDevice, &op));
  op.workspace = scratch.data();
  check(gfl_distribution_focal_loss_forward(&kDevice, &op));
  loss.written("distribution_focal_loss");
  loss.poison();
  op.grad = grad.view();
  check(gfl_distribution_focal_loss_forward(&kDevice, &op));
  loss.written("distribution_focal_loss");
  grad.buffer.written("distribution_focal_loss gradient of the forward");
  op.loss = nullptr;
  op.workspace = nullptr;
  op.grad_loss = upstream.data();
  op.grad_loss_stride = upstream.size() == 1 ? 0 : 1;
  op.grad = second.view();
  check(gfl_distribution_focal_loss_backward(&kDevice, &op));
  second.buffer.same(grad.buffer, "distribution_focal_loss: gradients of forward and backward");
  if (logits.buffer.size() != second.buffer.size()) return;
  Buffer strided(dtype, logits.buffer.size());  // the gradient in the layout of the logits
  op.grad = logits.view();
  op.grad.data = strided.data();
  check(gfl_distribution_focal_loss_backward(&kDevice, &op));
  strided.written("distribution_focal_loss gradient");
}

void distribution_focal_loss(Random& random) {
  const int64_t rows = random.of<int64_t>({0, 1, 5, 31, 129, 300});
  distribution_focal_loss_of(random, rows, random.of<int64_t>({2, 3, 8, 16, 17, 17, 33, 256}));
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

void distribution_kl_loss_of(Random& random, int64_t rows, int64_t bins) {
  const int32_t dtype = any_dtype(random);
  const int32_t compute = compute_dtype(dtype);
  BinsMatrix logits(dtype, 1, bins, rows, any_layout(random), random.below(4) == 0 ? 1 : 0);
  logits.buffer.fill(random, -3.0, 3.0);
  BinsMatrix teacher(random.coin() ? dtype : compute, 1, bins, rows, any_layout(random), random.below(4) == 0 ? 1 : 0);
  teacher.buffer.fill(random, -3.0, 3.0);
  const MaybeBuffer weight = maybe_vector(random, compute, rows, 0.0, 2.0);
  const MaybeBuffer avg_factor = maybe_vector(random, compute, 1, 1.0, 9.0);
  const gfl_reduction reduction = any_reduction(random, false, avg_factor);
  Buffer loss(compute, loss_size(reduction, rows, 1));
  BinsMatrix grad(dtype, 1, bins, rows, Layout::kRows, 0);
  BinsMatrix second(dtype, 1, bins, rows, Layout::kRows, 0);
  Buffer upstream(compute, random.coin() ? 1 : rows);
  for (int64_t i = 0; i < upstream.size(); ++i) put(upstream.data(), compute, i, 1.0);

  gfl_distribution_kl_loss op{};
  op.rows = rows;
  op.bins = bins;
  op.logits = logits.view();
  op.teacher = teacher.view();
  op.temperature = random.of({1.0, 5.0, 10.0});
  op.weight = data_of(weight);
  op.reduction = reduction;
  op.loss = loss.data();
  Buffer scratch = workspace(gfl_distribution_kl_loss_workspace_bytes(&kDevice, &op));
  op.workspace = scratch.data();
  op.grad = grad.view();
  check(gfl_distribution_kl_loss_forward(&kDevice, &op));
  loss.written("distribution_kl_loss");
  grad.buffer.written("distribution_kl_loss gradient of the forward");
  op.loss = nullptr;
  op.workspace = nullptr;
  op.grad_loss = upstream.data();
  op.grad_loss_stride = upstream.size() == 1 ? 0 : 1;
  op.grad = second.view();
  check(gfl_distribution_kl_loss_backward(&kDevice, &op));
  second.buffer.same(grad.buffer, "distribution_kl_loss: gradients of forward and backward");
}

void distribution_kl_loss(Random& random) {
  const int64_t rows = random.of<int64_t>({0, 1, 5, 31, 129, 300});
  distribution_kl_loss_of(random, rows, random.of<int64_t>({2, 3, 8, 16, 17, 17, 33, 256}));
}

void distribution_statistics_of(Random& random, int64_t length, int64_t bins, int64_t topk) {
  const int32_t dtype = any_dtype(random);
  const int64_t batch = random.of<int64_t>({1, 1, 2, 3});
  const int64_t sides = random.of<int64_t>({1, 4, 4});
  BinsMatrix logits(dtype, batch, sides * bins, length, any_layout(random), random.below(4) == 0 ? 1 : 0);
  logits.buffer.fill(random, -3.0, 3.0);
  BinsMatrix output(dtype, batch, sides * (topk + 1), length, random.coin() ? Layout::kRows : Layout::kColumns, 0);
  BinsMatrix grad(dtype, batch, sides * bins, length, random.coin() ? Layout::kRows : Layout::kColumns, 0);

  gfl_distribution_statistics op{};
  op.batch = batch;
  op.sides = sides;
  op.bins = bins;
  op.length = length;
  op.topk = topk;
  op.logits = logits.view();
  op.output = output.view();
  check(gfl_distribution_statistics_forward(&kDevice, &op));
  output.buffer.written("distribution_statistics");
  op.grad = grad.view();
  check(gfl_distribution_statistics_backward(&kDevice, &op));
  grad.buffer.written("distribution_statistics gradient");
}

void distribution_statistics(Random& random) {
  const int64_t length = random.of<int64_t>({0, 1, 7, 40, 150});
  const int64_t bins = random.of<int64_t>({2, 8, 16, 17, 17, 33, 200, 256});
  const int64_t topk = random.of<int64_t>({1, 4, 4, bins - 1, bins});
  distribution_statistics_of(random, length, bins, topk < bins ? topk : bins);
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
  Matrix grad(dtype, rows, 4, random.of({Layout::kRows, Layout::kColumns}), random.below(3) == 0 ? 1 : 0);

  gfl_iou_loss op{};
  op.options = any_options(random);
  op.rows = rows;
  op.pred = pred.view();
  op.target = target.view();
  op.weight = data_of(weight);
  op.reduction = reduction;
  op.loss = loss.data();
  Buffer scratch = workspace(gfl_iou_loss_workspace_bytes(&kDevice, &op));
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

void distribution_box_of(Random& random, int64_t rows, int64_t bins) {
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
  BinsMatrix grad(dtype, 1, 4 * bins, rows, random.of({Layout::kRows, Layout::kColumns}), 0);

  gfl_distribution_box_loss op{};
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
  Buffer scratch = workspace(gfl_distribution_box_loss_workspace_bytes(&kDevice, &op));
  op.workspace = scratch.data();
  check(gfl_distribution_box_loss_forward(&kDevice, &op));
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
  check(gfl_distribution_box_loss_backward(&kDevice, &op));
  grad.buffer.written("edge logits' gradient");
}

void distribution_box_loss(Random& random) {
  const int64_t rows = random.of<int64_t>({0, 1, 5, 33, 70});
  distribution_box_of(random, rows, random.of<int64_t>({2, 8, 16, 17, 17, 33, 256}));
}

void generalized_focal_loss(Random& random) {
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
  gfl_generalized_focal_loss op{};
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
  op.loss = loss.data();
  Buffer scratch = workspace(gfl_generalized_focal_loss_workspace_bytes(&kDevice, &op));
  op.workspace = scratch.data();
  check(gfl_generalized_focal_loss_forward(&kDevice, &op));
  loss.written("generalized focal loss");
  Buffer left(dtype, size);
  Buffer right(dtype, size);
  op.grad_loss = flat(compute, 0.5, 1.0);
  op.grad_left = left.data();
  op.grad_right = random.coin() ? right.data() : nullptr;
  op.loss = nullptr;
  op.workspace = nullptr;
  check(gfl_generalized_focal_loss_backward(&kDevice, &op));
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
  const gfl_scale_gradient op{data.data(), dtype, size, factor.data()};
  check(gfl_scale_gradient_run(&kDevice, &op));
  for (int64_t i = 0; i < size; ++i) {
    if (data[i] != static_cast<double>(i % 64) * by) die("scale: wrong at " + std::to_string(i));
  }
}

}  // namespace
