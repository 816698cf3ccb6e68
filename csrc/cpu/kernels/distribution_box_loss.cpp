// Four edge distributions of each positive against its target box; the positives stand in rows, one after the other.
#include "box_block.h"
#include "kernel.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
class DistributionBoxLosses {
 public:
  DistributionBoxLosses(const gfl_distribution_box_loss& op, Pass pass)
      : op_(op), pass_(pass), bins_(static_cast<int>(op.bins)), scale_(effective_scale<T>(op.reduction)) {}

  void run() const {
    const int64_t cols = kSides * op_.bins;
    const int64_t chunks = chunk_count(op_.rows, cols);
    double* iou_partials = static_cast<double*>(op_.workspace);
    double* dfl_partials = iou_partials + chunks;
    const bool summed = pass_ == Pass::kForward && op_.reduction.mode == GFL_REDUCE_SUM;
    parallel_rows(op_.rows, cols, [&](int64_t chunk, int64_t begin, int64_t end) {
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
  struct Sums {
    double iou = 0;
    double dfl = 0;
  };

  void load_inputs(int64_t row, int count, BoxBlock<T>& block) const {
    const T* points = static_cast<const T*>(op_.anchor_points);
    const T* boxes = static_cast<const T*>(op_.target_boxes);
    load_block(points, 2 * row, 2, count, T(), block.x);
    load_block(points, 2 * row + 1, 2, count, T(), block.y);
    for (int c = 0; c < 4; ++c) load_block(boxes, 4 * row + c, 4, count, T(), block.corner[c]);
    load_block(op_.strides, row, 1, count, static_cast<T>(op_.stride), block.stride);
    load_block(op_.weight, row, 1, count, T(1), block.weight);
    for (int side = 0; side < kSides; ++side) {
      load_bins(op_.logits, 0, side, row, count, bins_, block.tiles[side].data);
    }
  }

  void run_block(int64_t row, int count, Sums& sums) const {
    BoxBlock<T> block;
    load_inputs(row, count, block);
    if (pass_ == Pass::kBackward) {
      load_block(op_.grad_iou, row * op_.grad_loss_stride, op_.grad_loss_stride, count, T(), block.grad_iou);
      load_block(op_.grad_dfl, row * op_.grad_loss_stride, op_.grad_loss_stride, count, T(), block.grad_dfl);
      block.backward(bins_, op_.target_margin, op_.options, static_cast<T>(scale_));
      for (int side = 0; side < kSides; ++side) {
        store_bins(block.tiles[side].data, op_.grad, 0, side, row, count, bins_);
      }
      return;
    }
    block.forward(bins_, op_.target_margin, op_.options);
    for (int i = 0; i < count; ++i) {
      sums.iou += static_cast<double>(block.iou[i]);
      sums.dfl += static_cast<double>(block.dfl[i]);
      static_cast<T*>(op_.quality)[row + i] = block.quality[i];
      for (int c = 0; c < 4; ++c) static_cast<T*>(op_.boxes)[4 * (row + i) + c] = block.decoded[c][i];
      if (op_.reduction.mode == GFL_REDUCE_ROWS) {
        static_cast<T*>(op_.loss_iou)[row + i] = static_cast<T>(static_cast<double>(block.iou[i]) * scale_);
        static_cast<T*>(op_.loss_dfl)[row + i] = static_cast<T>(static_cast<double>(block.dfl[i]) * scale_);
      }
    }
  }

  const gfl_distribution_box_loss& op_;
  const Pass pass_;
  const int bins_;
  const double scale_;
};

}  // namespace

int distribution_box_loss(const gfl_distribution_box_loss& op, Pass pass) {
  return with_compute_type(op.logits.dtype, "edge_logits", [&](auto zero) {
    DistributionBoxLosses<decltype(zero)>(op, pass).run();
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
