// Distribution focal loss: a thread for each row of logits.
#include "../math/distribution_focal_loss.h"
#include "bins_launch.cuh"
#include "cuda_ops.h"
#include "reduce.cuh"

namespace gfl {
namespace cuda {
namespace {

template <class T>
struct DflArguments {
  using C = Compute<T>;

  BinsRows rows;
  BinsView<T> logits;
  BinsView<T> grad;
  const C* target;
  BinValues<C> values;
  const C* left_weight;
  const C* right_weight;
  const C* weight;
  const C* grad_loss;
  int64_t grad_loss_stride;
  bool sum;
  LossSums<C> sums;
  C* row_losses;

  DflArguments(const gfl_distribution_focal_loss& op, bool backward)
      : rows(1, 1, op.bins, op.rows, op.logits.channel_stride == 1, sizeof(C)),
        logits(op.logits, rows, 1),
        grad(op.grad, rows, 1),
        target(static_cast<const C*>(op.target)),
        values{static_cast<const C*>(op.bin_values), static_cast<C>(op.first_bin)},
        left_weight(static_cast<const C*>(op.left_weight)),
        right_weight(static_cast<const C*>(op.right_weight)),
        weight(static_cast<const C*>(op.weight)),
        grad_loss(static_cast<const C*>(op.grad_loss)),
        grad_loss_stride(op.grad_loss_stride),
        sum(!backward && op.reduction.mode == GFL_REDUCE_SUM),
        sums{static_cast<double*>(op.workspace), {static_cast<C*>(op.loss), nullptr}, Scale<C>(op.reduction)},
        row_losses(!backward && op.reduction.mode == GFL_REDUCE_ROWS ? static_cast<C*>(op.loss) : nullptr) {}

  __device__ __forceinline__ DflTarget<C> near(int64_t row) const {
    const DflTarget<C> by_nearness =
        values.given ? dfl_target(target[row], values, rows.bins) : dfl_target(target[row], values.first, rows.bins);
    return left_weight ? dfl_reweighted(by_nearness, left_weight[row], right_weight[row]) : by_nearness;
  }
};

template <class T, int kBins, bool kGrad>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks<T>)
    distribution_focal_loss_kernel(const DflArguments<T> op) {
  using C = Compute<T>;
  const int thread = static_cast<int>(threadIdx.x);
  const int bins = kBins ? kBins : op.rows.bins;
  const C scale = op.sums.scale.value();
  double total = 0.0;
  for_each_tile<T, kGrad>(op.rows, op.logits, op.grad, [&](const BinsTile<T>& tile) {
    if (thread >= tile.count) return;
    const int64_t row = tile.first + thread;
    const TileRow<C> x = tile.row(thread);
    const DflTarget<C> near = op.near(row);
    const C weight = op.weight ? op.weight[row] : constant<C>(1.0);
    const DflRow<C> result = gfl::dfl_forward<C>(x, bins, near);
    const C loss = result.loss * weight;
    total += static_cast<double>(loss);
    if (op.row_losses) op.row_losses[row] = loss * scale;
    if (kGrad) {
      const C upstream = op.grad_loss ? op.grad_loss[row * op.grad_loss_stride] : constant<C>(1.0);
      dfl_gradient(x, bins, near, result.inverse_sum, scale * weight * upstream);
    }
  });
  if (op.sum) op.sums.add_block(0, total);
}

int distribution_focal_loss(const gfl_device& device, const gfl_distribution_focal_loss& op, bool backward) {
  Stream stream(device);
  return with_bins(op.logits.dtype, op.bins, [&](auto type, auto bins) {
    using T = typename decltype(type)::type;
    constexpr int kBins = decltype(bins)::value;
    const DflArguments<T> arguments(op, backward);
    const auto kernel =
        op.grad.data ? distribution_focal_loss_kernel<T, kBins, true> : distribution_focal_loss_kernel<T, kBins, false>;
    const int blocks = launch_tiles(stream, kernel, arguments);
    if (arguments.sum) finish(stream, arguments.sums, blocks);
    return stream.status();
  });
}

}  // namespace

int distribution_focal_loss_forward(const gfl_device& device, const gfl_distribution_focal_loss& op) {
  return distribution_focal_loss(device, op, false);
}

int distribution_focal_loss_backward(const gfl_device& device, const gfl_distribution_focal_loss& op) {
  return distribution_focal_loss(device, op, true);
}

}  // namespace cuda
}  // namespace gfl
