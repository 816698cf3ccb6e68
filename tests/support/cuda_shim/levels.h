// Test only: the driver's calls of the ops over the maps of several levels: ATSS, the dense pass, the positives.
#pragma once

#include "buffers.h"

namespace {

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

// The ground truths of a batch: boxes of any size, some of them NaN or inverted, counts and labels that need not be right.
struct RandomGts {
  RandomGts(Random& random, int32_t dtype, int64_t batch, int64_t most, int classes)
      : boxes(dtype, batch * most * 4), counts(GFL_INT64, batch), labels(GFL_INT64, batch * most) {
    boxes.fill(random, 0.0, 80.0);
    for (int64_t i = 0; i < batch * most; ++i) {
      for (int64_t c = 2; c < 4; ++c) {
        put(boxes.data(), dtype, 4 * i + c, boxes[4 * i + c - 2] + random.between(-2.0, 90.0));
      }
      if (random.below(9) == 0) put(boxes.data(), dtype, 4 * i, NAN);
    }
    counts.fill(random, -1.0, static_cast<double>(most + 2));
    labels.fill(random, -1.0, static_cast<double>(classes + 1));
  }
  const int64_t* maybe_counts(Random& random) const {
    return random.coin() ? static_cast<const int64_t*>(counts.data()) : nullptr;
  }

  Buffer boxes;
  Buffer counts;
  Buffer labels;
};

void task_aligned_assign(Random& random) {
  const int32_t dtype = random.of<int32_t>({GFL_FLOAT64, GFL_FLOAT32});
  const gfl_levels levels = any_levels(random);
  const int64_t batch = random.of<int64_t>({0, 1, 2, 3});
  const int64_t num_gts = random.of<int64_t>({0, 1, 4, 37});
  const int64_t anchors = anchors_of(levels);
  const int classes = random.of<int>({1, 5});
  const RandomGts gts(random, dtype, batch, num_gts, classes);
  Buffer points(dtype, 2 * anchors);
  points.fill(random, -5.0, 140.0);
  Buffer boxes(dtype, 4 * batch * anchors);
  for (int64_t i = 0; i < 4 * batch * anchors; ++i) {
    put(boxes.data(), dtype, i, points[i / 4 % anchors * 2 + i % 2] + (i % 4 < 2 ? -1 : 1) * random.between(0.0, 40.0));
  }
  Buffer scores(any_dtype(random), batch * anchors * classes);
  scores.fill(random, -0.1, 1.1);
  Buffer assigned(GFL_INT32, batch * anchors);
  Buffer iou(dtype, batch * anchors);
  Buffer score(dtype, batch * anchors);

  gfl_task_aligned_assign op{};
  op.batch = batch;
  op.anchors = anchors;
  op.classes = classes;
  op.num_gts = num_gts;
  op.dtype = dtype;
  op.scores.dtype = scores.dtype();
  op.scores.count = 1;
  op.scores.level[0] = {scores.data(), anchors * classes, 1, classes};
  op.logits = random.below(2);
  op.boxes = boxes.data();
  op.points = points.data();
  op.gt_boxes = gts.boxes.data();
  op.gt_labels = static_cast<const int64_t*>(gts.labels.data());
  op.gt_counts = gts.maybe_counts(random);
  if (random.coin()) op.levels = levels;
  op.center_offset = 0.5;
  op.topk = random.of<int32_t>({1, 13, 40, 256});
  op.final_topk = random.of<int32_t>({0, 1, 35, 256});
  op.alpha = random.of({0.5, 1.0, 1.3});
  op.beta = random.of({0.0, 2.5, 6.0});
  op.inside_first = random.below(2);
  op.min_side = random.of({0.0, 16.0});
  op.iou_kind = random.coin() ? GFL_CIOU : GFL_IOU;
  op.assigned_gt = static_cast<int32_t*>(assigned.data());
  op.assigned_iou = iou.data();
  op.assigned_score = score.data();
  Buffer scratch(GFL_FLOAT64, (gfl_task_aligned_assign_workspace_bytes(&kDevice, &op) + 7) / 8);
  op.workspace = scratch.data();
  for (Buffer* output : {&assigned, &iou, &score}) output->poison();
  check(gfl_task_aligned_assign_run(&kDevice, &op));
  iou.written("assigned_iou of task_aligned_assign");
  score.written("assigned_score of task_aligned_assign");
  for (int64_t i = 0; i < batch * anchors; ++i) {
    const double gt = assigned[i];
    if (!(gt >= GFL_BACKGROUND && gt < static_cast<double>(num_gts))) die("task_aligned_assign: not a ground truth");
    if ((gt < 0) != (iou[i] == 0.0 && score[i] == 0.0) && gt < 0)
      die("task_aligned_assign: a background with a target");
  }
}

void max_iou_assign(Random& random) {
  const int32_t dtype = random.of<int32_t>({GFL_FLOAT64, GFL_FLOAT32});
  const int64_t batch = random.of<int64_t>({0, 1, 2, 3});
  const int64_t num_gts = random.of<int64_t>({0, 1, 4, 37});
  const int64_t anchors = random.of<int64_t>({0, 1, 31, 65, 300});
  const RandomGts gts(random, dtype, batch, num_gts, 1);
  const RandomGts priors(random, dtype, batch, anchors, 1);
  const bool shared = random.coin();
  std::vector<uint8_t> valid(static_cast<size_t>(batch * anchors));
  for (uint8_t& part : valid) part = random.below(5) > 0;
  Buffer assigned(GFL_INT32, batch * anchors);
  Buffer iou(dtype, batch * anchors);

  gfl_max_iou_assign op{};
  op.batch = batch;
  op.num_anchors = anchors;
  op.num_gts = num_gts;
  op.dtype = dtype;
  op.anchors = priors.boxes.data();
  op.anchors_stride = shared ? 0 : 4 * anchors;
  op.valid = random.coin() ? valid.data() : nullptr;
  op.valid_stride = shared ? 0 : anchors;
  op.gt_boxes = gts.boxes.data();
  op.gt_counts = gts.maybe_counts(random);
  op.positive_iou = 0.5;
  op.background_from = random.of({0.0, 0.1});
  op.background_below = random.of({0.3, 0.5});
  op.least_iou = random.of({0.0, 0.2, HUGE_VAL});
  op.all_best = random.below(2);
  op.assigned_gt = static_cast<int32_t*>(assigned.data());
  op.assigned_iou = iou.data();
  Buffer scratch(GFL_FLOAT64, (gfl_max_iou_assign_workspace_bytes(&kDevice, &op) + 7) / 8);
  op.workspace = scratch.data();
  for (Buffer* output : {&assigned, &iou}) output->poison();
  check(gfl_max_iou_assign_run(&kDevice, &op));
  iou.written("assigned_iou of max_iou_assign");
  for (int64_t i = 0; i < batch * anchors; ++i) {
    const int32_t gt = op.assigned_gt[i];
    if (gt < GFL_OUTSIDE || gt >= num_gts) die("max_iou_assign: no such ground truth");
    if ((gt < 0) != (iou[i] == 0.0)) die("max_iou_assign: an IoU without a ground truth, or the other way round");
  }
}

void cost_assign(Random& random) {
  const int32_t dtype = random.of<int32_t>({GFL_FLOAT64, GFL_FLOAT32});
  const int64_t batch = random.of<int64_t>({0, 1, 2, 3});
  const int64_t num_gts = random.of<int64_t>({0, 1, 4, 37});
  const int64_t anchors = random.of<int64_t>({0, 1, 31, 300, 600});
  const int classes = random.of<int>({1, 5, 70});
  const RandomGts gts(random, dtype, batch, num_gts, classes);
  Buffer points(dtype, 2 * anchors);
  points.fill(random, -5.0, 140.0);
  Buffer strides(dtype, anchors);
  strides.fill(random, -1.0, 20.0);
  Buffer boxes(dtype, 4 * batch * anchors);
  for (int64_t i = 0; i < 4 * batch * anchors; ++i) {
    put(boxes.data(), dtype, i, points[i / 4 % anchors * 2 + i % 2] + (i % 4 < 2 ? -1 : 1) * random.between(0.0, 40.0));
  }
  Buffer scores(any_dtype(random), batch * anchors * classes);
  scores.fill(random, -0.1, 1.1);
  Buffer assigned(GFL_INT32, batch * anchors);
  Buffer iou(dtype, batch * anchors);

  gfl_cost_assign op{};
  op.batch = batch;
  op.anchors = anchors;
  op.classes = classes;
  op.num_gts = num_gts;
  op.dtype = dtype;
  op.kind = random.coin() ? GFL_DYNAMIC_SOFT_LABEL : GFL_SIMOTA;
  op.scores = {scores.data(), scores.dtype(), anchors * classes, 1, classes};
  op.boxes = boxes.data();
  op.points = points.data();
  op.strides = strides.data();
  op.gt_boxes = gts.boxes.data();
  op.gt_labels = static_cast<const int64_t*>(gts.labels.data());
  op.gt_counts = gts.maybe_counts(random);
  op.topk = random.of<int32_t>({1, 13, 40, 256});
  op.center_radius = random.of({0.5, 3.0});
  op.cls_weight = random.of({0.0, 1.0});
  op.iou_weight = random.of({0.0, 3.0});
  op.assigned_gt = static_cast<int32_t*>(assigned.data());
  op.assigned_iou = iou.data();
  Buffer scratch(GFL_FLOAT64, (gfl_cost_assign_workspace_bytes(&kDevice, &op) + 7) / 8);
  op.workspace = scratch.data();
  for (Buffer* output : {&assigned, &iou}) output->poison();
  check(gfl_cost_assign_run(&kDevice, &op));
  iou.written("assigned_iou of cost_assign");
  for (int64_t i = 0; i < batch * anchors; ++i) {
    const double gt = assigned[i];
    if (!(gt >= GFL_BACKGROUND && gt < static_cast<double>(num_gts))) die("cost_assign: not a ground truth");
    if (gt < 0 && iou[i] != 0.0) die("cost_assign: a background with an IoU");
  }
}

void fcos_assign(Random& random) {
  const int32_t dtype = random.of<int32_t>({GFL_FLOAT64, GFL_FLOAT32});
  const gfl_levels levels = any_levels(random);
  const int64_t batch = random.of<int64_t>({0, 1, 2, 3});
  const int64_t num_gts = random.of<int64_t>({0, 1, 4, 37});
  const int64_t anchors = anchors_of(levels);
  const RandomGts gts(random, dtype, batch, num_gts, 1);
  Buffer assigned(GFL_INT32, batch * anchors);
  Buffer distances(dtype, 4 * batch * anchors);
  Buffer centerness(dtype, batch * anchors);

  gfl_fcos_assign op{};
  op.batch = batch;
  op.num_gts = num_gts;
  op.dtype = dtype;
  op.gt_boxes = gts.boxes.data();
  op.gt_counts = gts.maybe_counts(random);
  op.levels = levels;
  for (int i = 0; i < levels.count; ++i) {
    op.ranges.low[i] = random.of({-1.0, 8.0});
    op.ranges.high[i] = random.of({20.0, 64.0, HUGE_VAL});
  }
  op.radius = random.of({0.0, 1.5, 4.0});
  op.center_offset = random.of({0.0, 0.5});
  op.assigned_gt = static_cast<int32_t*>(assigned.data());
  op.distances = distances.data();
  op.centerness = centerness.data();
  for (Buffer* output : {&assigned, &distances, &centerness}) output->poison();
  check(gfl_fcos_assign_run(&kDevice, &op));
  distances.written("distances of fcos_assign");
  centerness.written("centerness of fcos_assign");
  for (int64_t i = 0; i < batch * anchors; ++i) {
    const int32_t gt = op.assigned_gt[i];
    if (gt < GFL_BACKGROUND || gt >= num_gts) die("fcos_assign: no such ground truth");
    for (int64_t side = 4 * i; side < 4 * i + 4; ++side) {
      if ((gt < 0) != (distances[side] == 0.0)) die("fcos_assign: a distance without a ground truth, or none with one");
    }
  }
}

void atss_assign(Random& random) {
  const int32_t dtype = random.of<int32_t>({GFL_FLOAT64, GFL_FLOAT32});
  const gfl_levels levels = any_levels(random);
  const int64_t batch = random.of<int64_t>({0, 1, 2, 3});
  const int64_t gts = random.of<int64_t>({0, 1, 4, 11});
  const int64_t anchors = anchors_of(levels);
  const RandomGts known(random, dtype, batch, gts, 3);
  Buffer valid(dtype, 2 * batch);
  valid.fill(random, 0.0, 200.0);
  Buffer assigned(GFL_INT32, batch * anchors);
  Buffer iou(GFL_FLOAT32, batch * anchors);
  Buffer labels(GFL_INT32, batch * anchors);

  gfl_atss_assign op{};
  op.batch = batch;
  op.num_gts = gts;
  op.dtype = dtype;
  op.gt_boxes = known.boxes.data();
  op.gt_counts = known.maybe_counts(random);
  const bool labelled = random.coin();
  op.gt_labels = labelled ? static_cast<const int64_t*>(known.labels.data()) : nullptr;
  op.classes = 3;
  op.valid_shapes = random.coin() ? valid.data() : nullptr;
  op.levels = levels;
  op.topk = random.of({1, 4, 9, 32, 33, 90, INT32_MAX});
  op.anchor_scale = 8.0;
  op.center_offset = random.of({0.0, 0.5});
  op.assigned_gt = static_cast<int32_t*>(assigned.data());
  op.assigned_iou = static_cast<float*>(iou.data());
  op.labels = labelled ? static_cast<int32_t*>(labels.data()) : nullptr;
  check(gfl_atss_assign_run(&kDevice, &op));
  iou.written("assigned_iou");
  for (int64_t i = 0; i < batch * anchors; ++i) {
    const int32_t gt = op.assigned_gt[i];
    if (gt < GFL_OUTSIDE || gt >= gts) die("atss: no such ground truth");
    const int32_t label = gt < 0 ? gt : static_cast<int32_t>(op.gt_labels ? op.gt_labels[i / anchors * gts + gt] : 0);
    if (labelled && op.labels[i] != label) die("atss: not the label of the ground truth");
  }
}

void multilevel_class_loss(Random& random) {
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
  Random same(7);
  Maps grad(dtype, batch, classes, levels, same, true);
  same = Random(7);
  Maps second(dtype, batch, classes, levels, same, true);

  gfl_multilevel_class_loss op{};
  op.formula = random.of<int32_t>(
      {GFL_QUALITY_FOCAL, GFL_SIGMOID_FOCAL, GFL_SOFT_CROSS_ENTROPY, GFL_VARIFOCAL, GFL_CLASS_FORMULAS - 1});
  op.exponent = random.of({2.0, 2.0, 1.5});
  op.alpha = 0.25;
  op.batch = batch;
  op.classes = classes;
  op.levels = levels;
  op.pred = pred.view;
  op.labels = static_cast<const int32_t*>(labels.data());
  op.scores = op.formula == GFL_SIGMOID_FOCAL ? nullptr : scores.data();
  op.scale = random.between(0.1, 2.0);
  op.avg_factor = data_of(avg_factor);
  op.loss = loss.data();
  Buffer scratch = workspace(gfl_multilevel_class_loss_workspace_bytes(&kDevice, &op));
  op.workspace = scratch.data();
  check(gfl_multilevel_class_loss_forward(&kDevice, &op));
  loss.written("dense loss");
  op.loss = again.data();
  op.grad = grad.view;
  check(gfl_multilevel_class_loss_forward(&kDevice, &op));
  if (!(std::fabs(loss[0] - again[0]) <= 1e-5 * std::fabs(loss[0]))) die("dense loss with and without gradient");
  grad.written("dense loss gradient of the forward");
  op.loss = nullptr;
  op.workspace = nullptr;
  op.grad_loss = one.data();
  op.grad = second.view;
  check(gfl_multilevel_class_loss_backward(&kDevice, &op));
  for (int i = 0; i < levels.count; ++i) second.buffers[i]->same(*grad.buffers[i], "dense loss: gradients");
}

void decode_maps(int32_t dtype, int64_t batch, int64_t bins, const gfl_levels& levels, const Maps& edges) {
  const int64_t anchors = anchors_of(levels);
  Buffer boxes(compute_dtype(dtype), 4 * batch * anchors);
  Buffer points(compute_dtype(dtype), 2 * anchors);
  gfl_decode_maps op{};
  op.batch = batch;
  op.bins = bins;
  op.levels = levels;
  op.center_offset = 0.5;
  op.edges = edges.view;
  op.boxes = boxes.data();
  op.points = points.data();
  check(gfl_decode_maps_run(&kDevice, &op));
  boxes.written("decoded boxes");
  points.written("points");
}

void positives(Random& random) {
  const int32_t dtype = any_dtype(random);
  const int32_t compute = compute_dtype(dtype);
  const gfl_levels levels = any_levels(random);
  const int64_t batch = random.of<int64_t>({0, 1, 2, 3});
  const int64_t classes = random.of<int64_t>({1, 3, 40});
  const bool sized = levels.level[0].height > 0;  // one bin is measured in heights of the image
  const int64_t bins = random.of<int64_t>({sized ? 1 : 2, 2, 8, 17, 17, 33, 200});
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
  gfl_positive_weights weigh{};
  weigh.batch = batch;
  weigh.classes = classes;
  weigh.levels = levels;
  weigh.assigned_gt = static_cast<const int32_t*>(gts.data());
  weigh.scores = scores.view;
  weigh.weights = weights.data();
  weigh.normalisers = normalisers.data();
  weigh.num_pos = num_pos.data();
  Buffer scratch = workspace(gfl_positive_weights_workspace_bytes(&kDevice, &weigh));
  weigh.workspace = scratch.data();
  check(gfl_positive_weights_forward(&kDevice, &weigh));
  weights.written("weights");
  normalisers.written("normalisers");
  num_pos.written("num_pos");

  Matrix boxes(compute, batch * num_gts, 4, Layout::kRows, 0);
  fill_boxes(boxes, random);
  Maps edges(dtype, batch, 4 * bins, levels, random, false);
  edges.fill(random, -3.0, 3.0);
  decode_maps(dtype, batch, bins, levels, edges);
  Maps grad(dtype, batch, 4 * bins, levels, random, true);
  Buffer quality(compute, batch * anchors);
  Buffer sums(GFL_FLOAT64, GFL_POSITIVE_SUMS);
  Buffer upstream(compute, 1);
  put(upstream.data(), compute, 0, 0.75);
  gfl_positive_boxes op{};
  op.options = any_options(random);
  op.batch = batch;
  op.bins = bins;
  op.levels = levels;
  op.target_margin = 0.1;
  op.assigned_gt = weigh.assigned_gt;
  op.num_gts = num_gts;
  op.gt_boxes = boxes.buffer.data();
  op.weights = weights.data();
  op.edges = edges.view;
  op.quality = quality.data();
  op.sums = static_cast<double*>(sums.data());
  Buffer more = workspace(gfl_positive_boxes_workspace_bytes(&kDevice, &op));
  op.workspace = more.data();
  check(gfl_positive_boxes_forward(&kDevice, &op));
  quality.written("quality");
  sums.written("sums");
  Buffer losses(compute, 3);
  gfl_box_losses finish{};
  finish.dtype = compute;
  finish.sums = op.sums;
  finish.total_weight = static_cast<char*>(normalisers.data()) + value_bytes(compute);
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
  op.total_weight = finish.total_weight;
  op.grad = grad.view;
  op.quality = nullptr;
  op.sums = nullptr;
  check(gfl_positive_boxes_backward(&kDevice, &op));
  grad.written("gradient of the positives' edges");
}

}  // namespace
