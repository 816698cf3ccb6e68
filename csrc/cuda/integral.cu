// The expectation of softmax distributions: a thread for each distribution.
#include "../math/softmax.h"
#include "bins_tile.cuh"
#include "cuda_ops.h"
#include "dispatch.cuh"

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
  const int64_t step = static_cast<int64_t>(gridDim.x) * op.rows.tile_rows;
  BinsTile<T> tile{dynamic_shared<C>(), op.rows, 0, 0};

  for (tile.first = static_cast<int64_t>(blockIdx.x) * op.rows.tile_rows; tile.first < op.rows.rows;
       tile.first += step) {
    const int64_t left = op.rows.rows - tile.first;
    tile.count = left < op.rows.tile_rows ? static_cast<int>(left) : op.rows.tile_rows;
    tile.load(op.logits);
    __syncthreads();
    if (thread < tile.count) {
      const TileRow<C> x = tile.row(thread);
      T& result = op.result(tile.first + thread);
      const Softmax<C> softmax = softmax_in_place<C>(x, bins, op.values);
      if (kGrad) {
        expectation_gradient(x, bins, softmax, op.values, widen(result));
      } else {
        result = narrow<T>(softmax.expectation);
      }
    }
    __syncthreads();  // the rows are finished, and free for the next tile once they are stored
    if (kGrad) {
      tile.store(op.grad);
      __syncthreads();
    }
  }
}

template <class T, int kBins>
void run(Stream& stream, const gfl_integral& op, bool backward) {
  const IntegralArguments<T> arguments(op);
  if (arguments.rows.rows == 0) return;
  const Grid grid{stream.blocks(arguments.rows.tiles(), 12), kTileThreads,
                  arguments.rows.shared_bytes(sizeof(Compute<T>))};
  stream.launch(backward ? integral_kernel<T, kBins, true> : integral_kernel<T, kBins, false>, grid, arguments);
}

// The bins of GFL's heads are known to the compiler; not in double, whose exponentials are not worth unrolling.
template <class T>
void run_bins(Stream& stream, const gfl_integral& op, bool backward) {
  if constexpr (!std::is_same<T, double>::value) {
    if (op.bins == 17) return run<T, 17>(stream, op, backward);
  }
  run<T, 0>(stream, op, backward);
}

int integral(const gfl_device& device, const gfl_integral& op, bool backward) {
  if (backward ? !op.logits.data && op.length > 0 : op.grad.data != nullptr) {
    return fail(GFL_ERROR_ARGUMENT, "slopes are for CPUs");
  }
  Stream stream(device);
  return with_float_type(op.logits.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    run_bins<T>(stream, op, backward);
    return stream.status();
  });
}

}  // namespace

int integral_forward(const gfl_device& device, const gfl_integral& op) { return integral(device, op, false); }

int integral_backward(const gfl_device& device, const gfl_integral& op) { return integral(device, op, true); }

}  // namespace cuda
}  // namespace gfl
