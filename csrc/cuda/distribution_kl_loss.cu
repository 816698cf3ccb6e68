// The divergence of a student's distributions from a teacher's: a thread for each row of both. The tile of the teacher's
// lies behind that of the student's.
#include "../math/distribution_kl_loss.h"
#include "bins_launch.cuh"
#include "cuda_ops.h"
#include "reduce.cuh"

namespace gfl {
namespace cuda {
namespace {

// T is the student's type, U the teacher's.
template <class T, class U>
struct KlArguments {
  using C = Compute<T>;

  BinsRows rows;
  BinsView<T> logits;
  BinsView<U> teacher;
  BinsView<T> grad;
  C inverse_temperature;
  const C* weight;
  const C* grad_loss;
  int64_t grad_loss_stride;
  bool sum;
  LossSums<C> sums;
  C* row_losses;

  KlArguments(const gfl_distribution_kl_loss& op, bool backward)
      : rows(1, 1, op.bins, op.rows, op.logits.channel_stride == 1, sizeof(C), (op.bins | 1) * sizeof(C)),
        logits(op.logits, rows, 1),
        teacher(op.teacher, rows, 1),
        grad(op.grad, rows, 1),
        inverse_temperature(static_cast<C>(1.0 / op.temperature)),
        weight(static_cast<const C*>(op.weight)),
        grad_loss(static_cast<const C*>(op.grad_loss)),
        grad_loss_stride(op.grad_loss_stride),
        sum(!backward && op.reduction.mode == GFL_REDUCE_SUM),
        sums{static_cast<double*>(op.workspace), {static_cast<C*>(op.loss), nullptr}, Scale<C>(op.reduction)},
        row_losses(!backward && op.reduction.mode == GFL_REDUCE_ROWS ? static_cast<C*>(op.loss) : nullptr) {}
};

template <class T, class U, int kBins, bool kGrad>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks<T>)
    distribution_kl_loss_kernel(const KlArguments<T, U> op) {
  using C = Compute<T>;
  const int thread = static_cast<int>(threadIdx.x);
  const int bins = kBins ? kBins : op.rows.bins;
  const C scale = op.sums.scale.value();
  double total = 0.0;
  for_each_tile<T, kGrad>(op.rows, op.logits, op.grad, [&](const BinsTile<T>& tile) {
    const BinsTile<U> teacher{tile.values + op.rows.tile_rows * op.rows.pitch, op.rows, tile.first, tile.count};
    teacher.load(op.teacher);
    __syncthreads();
    if (thread >= tile.count) return;
    const int64_t row = tile.first + thread;
    const TileRow<C> of_student = tile.row(thread);
    const TileRow<C> of_teacher = teacher.row(thread);
    const C weight = op.weight ? op.weight[row] : constant<C>(1.0);
    const KlRow<C> result = kl_forward<C>(of_student, of_teacher, bins, op.inverse_temperature);
    const C loss = result.loss * weight;
    total += static_cast<double>(loss);
    if (op.row_losses) op.row_losses[row] = loss * scale;
    if (kGrad) {
      const C upstream = op.grad_loss ? op.grad_loss[row * op.grad_loss_stride] : constant<C>(1.0);
      kl_gradient(of_student, of_teacher, bins, result, scale * op.inverse_temperature * weight * upstream);
    }
  });
  if (op.sum) op.sums.add_block(0, total);
}

template <class T, class U, int kBins>
int launch(Stream& stream, const gfl_distribution_kl_loss& op, bool backward) {
  const KlArguments<T, U> arguments(op, backward);
  const auto kernel =
      op.grad.data ? distribution_kl_loss_kernel<T, U, kBins, true> : distribution_kl_loss_kernel<T, U, kBins, false>;
  const int blocks = launch_tiles(stream, kernel, arguments);
  if (arguments.sum) finish(stream, arguments.sums, blocks);
  return stream.status();
}

int distribution_kl_loss(const gfl_device& device, const gfl_distribution_kl_loss& op, bool backward) {
  Stream stream(device);
  return with_bins(op.logits.dtype, op.bins, [&](auto type, auto bins) {
    using T = typename decltype(type)::type;
    constexpr int kBins = decltype(bins)::value;
    if (op.teacher.dtype == op.logits.dtype) return launch<T, T, kBins>(stream, op, backward);
    return launch<T, Compute<T>, kBins>(stream, op, backward);
  });
}

}  // namespace

int distribution_kl_loss_forward(const gfl_device& device, const gfl_distribution_kl_loss& op) {
  return distribution_kl_loss(device, op, false);
}

int distribution_kl_loss_backward(const gfl_device& device, const gfl_distribution_kl_loss& op) {
  return distribution_kl_loss(device, op, true);
}

}  // namespace cuda
}  // namespace gfl
