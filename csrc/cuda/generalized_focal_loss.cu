// The paper's unified loss: a thread for each element.
#include "../math/generalized_focal_loss.h"
#include "cuda_ops.h"
#include "dispatch.cuh"
#include "reduce.cuh"

namespace gfl {
namespace cuda {
namespace {

constexpr int kThreads = 256;

template <class T>
struct Flat {
  const T* data;
  int64_t stride;

  explicit Flat(const gfl_flat& flat) : data(static_cast<const T*>(flat.data)), stride(flat.stride) {}
  __device__ __forceinline__ Compute<T> at(int64_t i) const { return widen(data[i * stride]); }
  __device__ __forceinline__ Compute<T> or_one(int64_t i) const { return data ? at(i) : constant<Compute<T>>(1.0); }
};

template <class T>
struct GeneralizedArguments {
  using C = Compute<T>;

  int64_t size;
  Flat<T> p_left;
  Flat<T> p_right;
  Flat<C> y;
  Flat<C> y_left;
  Flat<C> y_right;
  Flat<C> weight;
  Flat<C> grad_loss;
  bool sum;
  LossSums<C> sums;
  C* row_losses;
  T* grad_left;
  T* grad_right;

  GeneralizedArguments(const gfl_generalized_focal_loss& op, bool backward)
      : size(op.size),
        p_left(op.p_left),
        p_right(op.p_right),
        y(op.y),
        y_left(op.y_left),
        y_right(op.y_right),
        weight(op.weight),
        grad_loss(op.grad_loss),
        sum(!backward && op.reduction.mode == GFL_REDUCE_SUM),
        sums{static_cast<double*>(op.workspace), {static_cast<C*>(op.loss), nullptr}, Scale<C>(op.reduction)},
        row_losses(!backward && op.reduction.mode == GFL_REDUCE_ROWS ? static_cast<C*>(op.loss) : nullptr),
        grad_left(static_cast<T*>(op.grad_left)),
        grad_right(static_cast<T*>(op.grad_right)) {}
};

template <class T, class Exponent>
__global__ void __launch_bounds__(kThreads)
    generalized_focal_loss_kernel(const GeneralizedArguments<T> op, const Exponent beta) {
  using C = Compute<T>;
  const C scale = op.sums.scale.value();
  double total = 0.0;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < op.size; i += threads) {
    const GeneralizedFocal<C> result =
        generalized_focal_term(op.p_left.at(i), op.p_right.at(i), op.y.at(i), op.y_left.at(i), op.y_right.at(i), beta);
    const C weight = op.weight.or_one(i);
    const C loss = result.loss * weight;
    total += static_cast<double>(loss);
    if (op.row_losses) op.row_losses[i] = loss * scale;
    const C factor = scale * weight * op.grad_loss.or_one(i);
    if (op.grad_left) op.grad_left[i] = narrow<T>(result.grad_left * factor);
    if (op.grad_right) op.grad_right[i] = narrow<T>(result.grad_right * factor);
  }
  if (op.sum) op.sums.add_block(0, total);
}

template <class T, class Exponent>
int run(Stream& stream, const gfl_generalized_focal_loss& op, const Exponent& beta, bool backward) {
  const GeneralizedArguments<T> arguments(op, backward);
  const int blocks = stream.blocks((op.size + kThreads - 1) / kThreads, 8);
  stream.launch(generalized_focal_loss_kernel<T, Exponent>, Grid{blocks, kThreads}, arguments, beta);
  if (arguments.sum) finish(stream, arguments.sums, blocks);
  return stream.status();
}

int generalized_focal_loss(const gfl_device& device, const gfl_generalized_focal_loss& op, bool backward) {
  Stream stream(device);
  return with_float_type(op.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    if (op.beta == 2.0) return run<T>(stream, op, Square{}, backward);
    return run<T>(stream, op, Power{op.beta}, backward);
  });
}

}  // namespace

int generalized_focal_loss_forward(const gfl_device& device, const gfl_generalized_focal_loss& op) {
  return generalized_focal_loss(device, op, false);
}

int generalized_focal_loss_backward(const gfl_device& device, const gfl_generalized_focal_loss& op) {
  return generalized_focal_loss(device, op, true);
}

}  // namespace cuda
}  // namespace gfl
