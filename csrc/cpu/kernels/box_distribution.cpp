// Four edge distributions of a positive against its target box, a block of sixteen positives at a time: DFL, decoded
// box, quality and IoU loss forward, the gradient of all four distributions backward.
#include "../../error.h"
#include "../isa.h"
#include "../kernels.h"
#include "../parallel.h"
#include "../bins_tile.h"
// The formulas come after the vector primitives.
#include "../../math/box_distribution.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
struct Counting {
  GFL_MEMBER T operator()(int k) const { return static_cast<T>(k); }
};

template <class T>
class BoxDistributionLoss {
 public:
  BoxDistributionLoss(const gfl_box_distribution_loss& op, Pass pass)
      : op_(op), pass_(pass), bins_(static_cast<int>(op.bins)), scale_(effective_scale<T>(op.reduction)) {}

  void run() const {
    const int64_t cols = kSides * op_.bins;
    const int64_t chunks = chunk_count(op_.rows, cols);
    double* iou_partials = static_cast<double*>(op_.workspace);
    double* dfl_partials = iou_partials + chunks;
    const bool summed = pass_ == Pass::kForward && op_.reduction.kind == GFL_REDUCE_SUM;
    parallel_chunks(chunks, [&](int64_t chunk) {
      const int64_t begin = chunk * chunk_rows(cols);
      const int64_t end = begin + chunk_rows(cols) < op_.rows ? begin + chunk_rows(cols) : op_.rows;
      Sums sums;
      for (int64_t row = begin; row < end; row += kBlock) {
        run_block(row, static_cast<int>(end - row < kBlock ? end - row : kBlock), sums);
      }
      if (summed) {
        iou_partials[chunk] = sums.iou;
        dfl_partials[chunk] = sums.dfl;
      }
    });
    if (summed) {
      write_sum<T>(iou_partials, chunks, scale_, op_.loss_iou);
      write_sum<T>(dfl_partials, chunks, scale_, op_.loss_dfl);
    }
  }

 private:
  using V = Vector<T>;

  struct Sums {
    double iou = 0;
    double dfl = 0;
  };

  // The inputs of a block, one array a column.
  struct Inputs {
    T x[kBlock], y[kBlock], x1[kBlock], y1[kBlock], x2[kBlock], y2[kBlock], stride[kBlock], weight[kBlock];

    BoxTarget<V> target(int i) const {
      return box_target(load(x + i), load(y + i), Box<V>{load(x1 + i), load(y1 + i), load(x2 + i), load(y2 + i)},
                        load(stride + i));
    }
  };

  Inputs load_inputs(int64_t row, int count) const {
    Inputs in;
    const T* points = static_cast<const T*>(op_.anchor_points);
    const T* boxes = static_cast<const T*>(op_.target_boxes);
    load_block(points, 2 * row, 2, count, T(), in.x);
    load_block(points, 2 * row + 1, 2, count, T(), in.y);
    load_block(boxes, 4 * row, 4, count, T(), in.x1);
    load_block(boxes, 4 * row + 1, 4, count, T(), in.y1);
    load_block(boxes, 4 * row + 2, 4, count, T(), in.x2);
    load_block(boxes, 4 * row + 3, 4, count, T(), in.y2);
    load_block(op_.strides, row, 1, count, static_cast<T>(op_.stride), in.stride);
    load_block(op_.weight, row, 1, count, T(1), in.weight);
    return in;
  }

  void run_block(int64_t row, int count, Sums& sums) const {
    BinsTile<T> tiles[kSides];
    T iou[kBlock], dfl[kBlock], quality[kBlock], boxes[4][kBlock], up_iou[kBlock], up_dfl[kBlock];
    const Inputs in = load_inputs(row, count);
    for (int side = 0; side < kSides; ++side) load_bins(op_.logits, 0, side, row, count, bins_, tiles[side].data);
    if (pass_ == Pass::kBackward) {
      load_block(op_.grad_iou, row * op_.grad_loss_stride, op_.grad_loss_stride, count, T(), up_iou);
      load_block(op_.grad_dfl, row * op_.grad_loss_stride, op_.grad_loss_stride, count, T(), up_dfl);
    }
    const T most = static_cast<T>(static_cast<double>(bins_ - 1) - op_.target_margin);
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const BoxTarget<V> target = in.target(i);
      const V weight = load(in.weight + i);
      DflTarget<V> near[kSides];
      V expectation[kSides], inverse_sum[kSides];
      V dfl_sum = V();
      for (int side = 0; side < kSides; ++side) {
        const TileColumn<T> column{tiles[side].data + i};
        near[side] = dfl_target(target_distance(target, side, V() + most), V(), bins_);
        const DflRow<V> row_loss = dfl_forward<V>(column, bins_, near[side]);
        inverse_sum[side] = row_loss.inverse_sum;
        expectation[side] = bins_expectation(column, bins_, inverse_sum[side], Counting<T>{});
        dfl_sum = dfl_sum + row_loss.loss;
      }
      const BoxDistribution<V> box = box_distribution(target, expectation, op_.options);
      if (pass_ == Pass::kForward) {
        store(iou + i, box.loss * weight);
        store(dfl + i, dfl_sum * 0.25f * weight);
        store(quality + i, box.quality);
        store(boxes[0] + i, box.pixels.x1);
        store(boxes[1] + i, box.pixels.y1);
        store(boxes[2] + i, box.pixels.x2);
        store(boxes[3] + i, box.pixels.y2);
        continue;
      }
      const V scale = weight * static_cast<T>(scale_);
      const V through_bins = load(up_dfl + i) * scale * 0.25f;
      for (int side = 0; side < kSides; ++side) {
        const TileColumn<T> column{tiles[side].data + i};
        const V through_box = load(up_iou + i) * scale * box.grad[side];
        box_distribution_gradient(column, bins_, near[side], inverse_sum[side], expectation[side], through_box,
                                  through_bins);
      }
    }
    if (pass_ == Pass::kBackward) {
      for (int side = 0; side < kSides; ++side) store_bins(tiles[side].data, op_.grad, 0, side, row, count, bins_);
      return;
    }
    for (int i = 0; i < count; ++i) {
      sums.iou += static_cast<double>(iou[i]);
      sums.dfl += static_cast<double>(dfl[i]);
      static_cast<T*>(op_.quality)[row + i] = quality[i];
      for (int c = 0; c < 4; ++c) static_cast<T*>(op_.boxes)[4 * (row + i) + c] = boxes[c][i];
      if (op_.reduction.kind == GFL_REDUCE_ROWS) {
        static_cast<T*>(op_.loss_iou)[row + i] = static_cast<T>(static_cast<double>(iou[i]) * scale_);
        static_cast<T*>(op_.loss_dfl)[row + i] = static_cast<T>(static_cast<double>(dfl[i]) * scale_);
      }
    }
  }

  const gfl_box_distribution_loss& op_;
  const Pass pass_;
  const int bins_;
  const double scale_;
};

}  // namespace

int box_distribution(const gfl_box_distribution_loss& op, Pass pass) {
  if (!is_float_dtype(op.logits.dtype)) {
    return fail(GFL_ERROR_ARGUMENT, "unknown dtype %d of edge_logits", op.logits.dtype);
  }
  if (op.logits.dtype == GFL_FLOAT64) {
    BoxDistributionLoss<double>(op, pass).run();
  } else {
    BoxDistributionLoss<float>(op, pass).run();
  }
  return GFL_OK;
}

}  // namespace GFL_ISA
}  // namespace gfl
