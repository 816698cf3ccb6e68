// Test only: NMS and post-processing for driver.cpp.
#pragma once

#include <algorithm>
#include <numeric>

#include "levels.h"

namespace {

void nms_of(Random& random, int64_t count) {
  const int32_t dtype = random.of<int32_t>({GFL_FLOAT64, GFL_FLOAT32});
  const int64_t room = random.of<int64_t>({0, 1, 20, count, count + 9});
  Matrix boxes(dtype, count, 4, Layout::kRows, random.below(2));
  for (int64_t i = 0; i < 4 * count; ++i) {
    put(boxes.buffer.data(), dtype, i, random.between(0.0, 60.0) + (i % 4 < 2 ? 0.0 : 9.0));
  }
  Buffer scores(dtype, count);
  scores.fill(random, 0.0, 1.0);
  for (int64_t i = 0; i < count; i += 1 + random.below(30)) put(scores.data(), dtype, i, NAN);
  Buffer classes(GFL_INT64, count);
  classes.fill(random, -2.0, 3.0);
  std::vector<int64_t> numbers(static_cast<size_t>(count));
  std::iota(numbers.begin(), numbers.end(), 0);
  const auto key = [&](int64_t i) { return std::isnan(scores[i]) ? -2.0 : -scores[i]; };
  std::stable_sort(numbers.begin(), numbers.end(), [&](int64_t a, int64_t b) { return key(a) < key(b); });
  Buffer order(GFL_INT64, count);
  if (count) std::memcpy(order.data(), numbers.data(), static_cast<size_t>(8 * count));
  Buffer keep(GFL_INT64, room);
  Buffer kept(GFL_INT64, 1);

  gfl_nms op{};
  op.count = count;
  op.dtype = dtype;
  op.boxes = boxes.buffer.data();
  op.scores = scores.data();
  op.classes = random.coin() ? static_cast<const int64_t*>(classes.data()) : nullptr;
  op.order = static_cast<const int64_t*>(order.data());
  op.threshold = random.between(0.0, 1.0);
  op.criterion = random.below(2);
  op.room = room;
  op.keep = static_cast<int64_t*>(keep.data());
  op.kept = static_cast<int64_t*>(kept.data());
  const Buffer scratch = workspace(gfl_nms_workspace_bytes(&kDevice, &op));
  op.workspace = scratch.data();
  check(gfl_nms_run(&kDevice, &op));
  if (*op.kept < 0 || *op.kept > room) die("nms: more boxes than there is room for");
  double last = 2.0;
  for (int64_t i = 0; i < room; ++i) {
    if ((i < *op.kept) != (op.keep[i] >= 0) || op.keep[i] >= count) die("nms: no such box");
    if (i >= *op.kept) continue;
    if (!(scores[op.keep[i]] <= last)) die("nms: not by descending score");
    last = scores[op.keep[i]];
  }
}

void nms(Random& random) { nms_of(random, random.of<int64_t>({0, 1, 2, 33, 64, 65, 200})); }

void postprocess(Random& random) {
  const int32_t logits = any_dtype(random);
  const int32_t edge_logits = any_dtype(random);
  const bool wide = logits == GFL_FLOAT64 || edge_logits == GFL_FLOAT64;
  const int32_t dtype = wide ? GFL_FLOAT64 : GFL_FLOAT32;
  const gfl_levels levels = any_levels(random);
  const int64_t batch = random.of<int64_t>({1, 1, 2, 3});
  const int64_t classes = random.of<int64_t>({1, 3, 8});
  const int64_t bins = random.of<int64_t>({2, 9, 17, 40});
  const int64_t room = random.of<int64_t>({1, 7, 100});
  Maps scores(logits, batch, classes, levels, random, false);
  scores.fill(random, -6.0, 2.0);
  if (random.below(4) == 0) scores.fill(random, 1.0, 1.0);  // too crowded to tell apart by the score
  Maps edges(edge_logits, batch, 4 * bins, levels, random, false);
  edges.fill(random, -3.0, 3.0);
  Buffer shapes(dtype, 2 * batch);
  shapes.fill(random, 30.0, 200.0);
  const MaybeBuffer scales = maybe_vector(random, dtype, 2 * batch, 0.5, 2.0);
  Buffer boxes(dtype, batch * room * 4);
  Buffer best(dtype, batch * room);
  Buffer labels(GFL_INT64, batch * room);
  Buffer counts(GFL_INT64, batch);
  Buffer distributions(dtype, batch * room * 4 * bins);
  Buffer deviations(dtype, batch * room * 4);
  Buffer strides(dtype, batch * room);

  gfl_postprocess op{};
  op.batch = batch;
  op.classes = classes;
  op.bins = bins;
  op.num_levels = levels.count;
  for (int i = 0; i < levels.count; ++i) {
    const gfl_map& s = scores.view.level[i];
    const gfl_map& e = edges.view.level[i];
    op.levels[i] = {{s.data, logits, s.batch_stride, s.channel_stride, s.position_stride},
                    {e.data, edge_logits, e.batch_stride, e.channel_stride, e.position_stride},
                    levels.level[i].height,
                    levels.level[i].width,
                    levels.level[i].stride};
  }
  op.dtype = dtype;
  op.image_shapes = shapes.data();
  op.scale_factors = data_of(scales);
  op.score_threshold = random.of({0.0, 0.05, 0.5, 1.0});
  op.nms_pre = random.of<int64_t>({1, 10, 1000, 100000});
  op.nms_threshold = random.between(0.0, 1.0);
  op.criterion = random.below(2);
  op.room = room;
  op.min_size = random.of({0.0, 20.0});
  op.boxes = boxes.data();
  op.scores = best.data();
  op.labels = static_cast<int64_t*>(labels.data());
  op.counts = static_cast<int64_t*>(counts.data());
  const bool with_edges = random.coin();
  if (with_edges) {
    op.distributions = distributions.data();
    op.deviations = deviations.data();
    op.strides = strides.data();
  }
  const Buffer scratch = workspace(gfl_postprocess_workspace_bytes(&kDevice, &op));
  op.workspace = scratch.data();
  check(gfl_postprocess_run(&kDevice, &op));
  boxes.written("boxes of detections");
  best.written("scores of detections");
  for (int64_t i = 0; i < batch * room; ++i) {
    const bool there = i % room < op.counts[i / room];
    if (there ? op.labels[i] < 0 || op.labels[i] >= classes : op.labels[i] != -1) die("postprocess: no such class");
    if (there != (best[i] > op.score_threshold)) die("postprocess: no such score");
  }
  if (!with_edges) return;
  distributions.written("distributions of detections");
  deviations.written("deviations of detections");
  strides.written("strides of detections");
}

}  // namespace
