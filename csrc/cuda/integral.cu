// The expectation of softmax distributions: a thread for each distribution.
#include "../math/softmax.h"
#include "bins_launch.cuh"
#include "cuda_ops.h"

namespace gfl {
namespace cuda {
namespace {

template <class T>
struct IntegralArguments {
  using C = Compute<T>;

  BinsRows rows;
  BinsView<T> logits;
  BinsView<T> grad;
  BinValues<C> values;
  gfl_bins output;  // of T; its channels are the sides

  explicit IntegralArguments(const gfl_integral& op)
      : rows(op.batch, op.sides, op.bins, op.length, op.logits.channel_stride == 1, sizeof(C)),
        logits(op.logits, rows, op.batch),
        grad(op.grad, rows, op.batch),
        values{static_cast<const C*>(op.bin_values), C()},
        output(op.output) {}

  __device__ __forceinline__ T& result(int64_t row) const {
    const BinsRows::Place at = rows.place(row);
    return static_cast<T*>(output.data)[at.batch * output.batch_stride + at.side * output.channel_stride +
                                        at.position * output.length_stride];
  }
};

template <class T, int kBins, bool kGrad>
__global__ void __launch_bounds__(kTileThreads, kTileBlocks<T>) integral_kernel(const IntegralArguments<T> op) {
  using C = Compute<T>;
  const int thread = static_cast<int>(threadIdx.x);
  const int bins = kBins ? kBins : op.rows.bins;
  for_each_tile<T, kGrad>(op.rows, op.logits, op.grad, [&](const BinsTile<T>& tile) {
    if (thread >= tile.count) return;
    const TileRow<C> x = tile.row(thread);
    T& result = op.result(tile.first + thread);
    const Softmax<C> softmax = softmax_in_place<C>(x, bins, op.values);
    if (kGrad) {
      expectation_gradient(x, bins, softmax, op.values, widen(result));
    } else {
      result = narrow<T>(softmax.expectation);
    }
  });
}

int integral(const gfl_device& device, const gfl_integral& op, bool backward) {
  if (backward ? !op.logits.data && op.length > 0 : op.grad.data != nullptr) {
    return fail(GFL_ERROR_ARGUMENT, "slopes are for CPUs");
  }
  Stream stream(device);
  return with_bins(op.logits.dtype, op.bins, [&](auto type, auto bins) {
    using T = typename decltype(type)::type;
    constexpr int kBins = decltype(bins)::value;
    const IntegralArguments<T> arguments(op);
    if (arguments.rows.rows == 0) return static_cast<int>(GFL_OK);
    launch_tiles(stream, backward ? integral_kernel<T, kBins, true> : integral_kernel<T, kBins, false>, arguments);
    return stream.status();
  });
}

}  // namespace

int integral_forward(const gfl_device& device, const gfl_integral& op) { return integral(device, op, false); }

int integral_backward(const gfl_device& device, const gfl_integral& op) { return integral(device, op, true); }

}  // namespace cuda
}  // namespace gfl
