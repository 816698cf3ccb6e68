// Four edge distributions a positive: four neighbouring threads, which tell each other their expectations.
#include "bins_launch.cuh"
#include "cuda_ops.h"
#include "reduce.cuh"
#include "sides.cuh"

namespace gfl {
namespace cuda {
namespace {

template <class T>
struct BoxArguments {
  using C = Compute<T>;

  gfl_iou_options options;
  BinsRows rows;
  BinsView<T> logits;
  BinsView<T> grad;
  const C* anchor_points;
  const C* target_boxes;
  const C* strides;
  C stride;
  C most;  // of a target distance
  const C* weight;
  bool sum;
  LossSums<C> sums;  // the IoU loss, then the distribution focal loss
  C* boxes;
  C* quality;
  const C* grad_iou;
  const C* grad_dfl;
  int64_t grad_loss_stride;

  BoxArguments(const gfl_distribution_box_loss& op)
      : options(op.options),
        rows(1, kSides, op.bins, op.rows, true, sizeof(C)),
        logits(op.logits, rows, 1),
        grad(op.grad, rows, 1),
        anchor_points(static_cast<const C*>(op.anchor_points)),
        target_boxes(static_cast<const C*>(op.target_boxes)),
        strides(static_cast<const C*>(op.strides)),
        stride(static_cast<C>(op.stride)),
        most(static_cast<C>(static_cast<double>(op.bins - 1) - op.target_margin)),
        weight(static_cast<const C*>(op.weight)),
        sum(op.reduction.mode == GFL_REDUCE_SUM),
        sums{static_cast<double*>(op.workspace),
             {static_cast<C*>(op.loss_iou), static_cast<C*>(op.loss_dfl)},
             Scale<C>(op.reduction)},
        boxes(static_cast<C*>(op.boxes)),
        quality(static_cast<C*>(op.quality)),
        grad_iou(static_cast<const C*>(op.grad_iou)),
        grad_dfl(static_cast<const C*>(op.grad_dfl)),
        grad_loss_stride(op.grad_loss_stride) {}

  __device__ __forceinline__ BoxTarget<C> target(int64_t positive) const {
    const C* point = anchor_points + 2 * positive;
    const C* box = target_boxes + 4 * positive;
    return box_target(point[0], point[1], Box<C>{box[0], box[1], box[2], box[3]}, strides ? strides[positive] : stride);
  }
  __device__ __forceinline__ C upstream(const C* grad_loss, int64_t positive) const {
    return grad_loss ? grad_loss[positive * grad_loss_stride] : C();
  }
};

template <class T, int kBins, bool kGrad>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks<T>) distribution_box_loss_kernel(const BoxArguments<T> op) {
  using C = Compute<T>;
  const int thread = static_cast<int>(threadIdx.x);
  const int side = thread % kSides;
  const int bins = kBins ? kBins : op.rows.bins;
  const C scale = op.sums.scale.value();
  double total_iou = 0.0;
  double total_dfl = 0.0;
  for_each_tile<T, kGrad>(op.rows, op.logits, op.grad, [&](const BinsTile<T>& tile) {
    const bool active = thread < tile.count;
    const int64_t positive = active ? (tile.first + thread) / kSides : 0;
    const TileRow<C> x = tile.row(thread);
    BoxTarget<C> target = {};
    DflTarget<C> near = {};
    DflRow<C> row = {};
    C expectation = C();
    if (active) {
      target = op.target(positive);
      near = dfl_target(target_distance(target, side, op.most), C(), bins);
      row = gfl::dfl_forward<C>(x, bins, near);
      expectation = bins_expectation(x, bins, row.inverse_sum, CountingValues<C>{});
    }
    // All threads of a warp take part in the exchange, also those without a row.
    C expectations[kSides];
    C dfl[kSides];
    gather_sides(expectation, expectations);
    if (!kGrad) gather_sides(row.loss, dfl);
    if (active) {
      const DistributionBox<C> box = distribution_box(target, expectations, op.options);
      const C weight = op.weight ? op.weight[positive] : constant<C>(1.0);
      if (kGrad) {
        const C of_box = of_side(side, box.grad[0], box.grad[1], box.grad[2], box.grad[3]);
        const C through_box = op.upstream(op.grad_iou, positive) * (scale * weight) * of_box;
        const C through_bins = op.upstream(op.grad_dfl, positive) * (scale * weight) * constant<C>(1.0 / kSides);
        distribution_box_gradient(x, bins, near, row.inverse_sum, expectation, through_box, through_bins);
      } else {
        op.boxes[tile.first + thread] = of_side(side, box.pixels.x1, box.pixels.y1, box.pixels.x2, box.pixels.y2);
        if (side == 0) {
          const C iou_loss = box.loss * weight;
          const C dfl_loss = (dfl[0] + dfl[1] + dfl[2] + dfl[3]) * constant<C>(1.0 / kSides) * weight;
          op.quality[positive] = box.quality;
          total_iou += static_cast<double>(iou_loss);
          total_dfl += static_cast<double>(dfl_loss);
          if (!op.sum) {
            op.sums.losses[0][positive] = iou_loss * scale;
            op.sums.losses[1][positive] = dfl_loss * scale;
          }
        }
      }
    }
  });
  if (!kGrad && op.sum) {
    op.sums.add_block(0, total_iou);
    op.sums.add_block(1, total_dfl);
  }
}

int distribution_box_loss(const gfl_device& device, const gfl_distribution_box_loss& op, bool backward) {
  Stream stream(device);
  return with_bins(op.logits.dtype, op.bins, [&](auto type, auto bins) {
    using T = typename decltype(type)::type;
    constexpr int kBins = decltype(bins)::value;
    const BoxArguments<T> arguments(op);
    const auto kernel =
        backward ? distribution_box_loss_kernel<T, kBins, true> : distribution_box_loss_kernel<T, kBins, false>;
    const int blocks = launch_tiles(stream, kernel, arguments);
    if (!backward && arguments.sum) finish(stream, arguments.sums, blocks, 2);
    return stream.status();
  });
}

}  // namespace

int distribution_box_loss_forward(const gfl_device& device, const gfl_distribution_box_loss& op) {
  return distribution_box_loss(device, op, false);
}

int distribution_box_loss_backward(const gfl_device& device, const gfl_distribution_box_loss& op) {
  return distribution_box_loss(device, op, true);
}

}  // namespace cuda
}  // namespace gfl
