// IoU losses of box pairs, and plain overlaps: a thread for each pair.
#include "../math/iou.h"
#include "cuda_ops.h"
#include "dispatch.cuh"
#include "index.cuh"
#include "reduce.cuh"
#include "vector.cuh"

namespace gfl {
namespace cuda {
namespace {

constexpr int kThreads = 256;

// Whether each row of four values can be loaded whole.
bool whole_rows(const gfl_matrix& boxes, int value_bytes) {
  const int bytes = 4 * value_bytes < 16 ? 4 * value_bytes : 16;
  return boxes.col_stride == 1 && aligned(boxes.data, bytes) && boxes.row_stride * value_bytes % bytes == 0;
}

template <class T>
struct Boxes {
  using C = Compute<T>;

  MatrixView<T> view;
  bool whole;

  Boxes(const gfl_matrix& boxes, int32_t own_dtype)
      : view(matrix_view<T>(boxes, own_dtype)), whole(whole_rows(boxes, view.wide ? sizeof(C) : sizeof(T))) {}

  __device__ __forceinline__ Box<C> at(int64_t row) const {
    C corners[4];
    if (!whole) {
#pragma unroll
      for (int i = 0; i < 4; ++i) corners[i] = view.at(row, i);
    } else if (view.wide) {
      Vector<C, 4>::load(static_cast<const C*>(view.data) + row * view.row_stride).widen_to(corners);
    } else {
      Vector<T, 4>::load(static_cast<const T*>(view.data) + row * view.row_stride).widen_to(corners);
    }
    return {corners[0], corners[1], corners[2], corners[3]};
  }
};

template <class T>
struct IouArguments {
  using C = Compute<T>;

  gfl_iou_options options;
  int64_t rows;
  Boxes<T> pred;
  Boxes<T> target;
  const C* weight;
  const C* grad_loss;
  int64_t grad_loss_stride;
  bool sum;
  LossSums<C> sums;
  C* row_losses;
  T* grad;
  int64_t grad_row_stride;
  int64_t grad_col_stride;
  bool grad_whole;

  IouArguments(const gfl_iou_loss& op, bool backward)
      : options(op.options),
        rows(op.rows),
        pred(op.pred, op.pred.dtype),
        target(op.target, op.pred.dtype),
        weight(static_cast<const C*>(op.weight)),
        grad_loss(static_cast<const C*>(op.grad_loss)),
        grad_loss_stride(op.grad_loss_stride),
        sum(!backward && op.reduction.mode == GFL_REDUCE_SUM),
        sums{static_cast<double*>(op.workspace), {static_cast<C*>(op.loss), nullptr}, Scale<C>(op.reduction)},
        row_losses(!backward && op.reduction.mode == GFL_REDUCE_ROWS ? static_cast<C*>(op.loss) : nullptr),
        grad(static_cast<T*>(op.grad.data)),
        grad_row_stride(op.grad.row_stride),
        grad_col_stride(op.grad.col_stride),
        grad_whole(whole_rows(op.grad, sizeof(T))) {}

  __device__ __forceinline__ void store_grad(int64_t row, const Box<C>& box, C factor) const {
    const C corners[4] = {box.x1 * factor, box.y1 * factor, box.x2 * factor, box.y2 * factor};
    T* to = grad + row * grad_row_stride;
    if (grad_whole) return Vector<T, 4>::narrowed(corners).store(to);
#pragma unroll
    for (int i = 0; i < 4; ++i) to[i * grad_col_stride] = narrow<T>(corners[i]);
  }
};

template <class T, int kKind>
__global__ void __launch_bounds__(kThreads) iou_loss_kernel(const IouArguments<T> op) {
  using C = Compute<T>;
  const C scale = op.sums.scale.value();
  gfl_iou_options options = op.options;
  options.iou_kind = kKind;  // a constant, so that the other kinds vanish
  double total = 0.0;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; row < op.rows; row += threads) {
    const BoxLoss<C> result = box_loss(op.pred.at(row), op.target.at(row), options);
    const C weight = op.weight ? op.weight[row] : constant<C>(1.0);
    const C loss = result.loss * weight;
    total += static_cast<double>(loss);
    if (op.row_losses) op.row_losses[row] = loss * scale;
    if (op.grad) {
      const C upstream = op.grad_loss ? op.grad_loss[row * op.grad_loss_stride] : constant<C>(1.0);
      op.store_grad(row, result.grad, scale * weight * upstream);
    }
  }
  if (op.sum) op.sums.add_block(0, total);
}

template <class T, int kKind>
int run_iou_loss(Stream& stream, const gfl_iou_loss& op, bool backward) {
  const IouArguments<T> arguments(op, backward);
  const int blocks = stream.blocks((op.rows + kThreads - 1) / kThreads, 8);
  stream.launch(iou_loss_kernel<T, kKind>, Grid{blocks, kThreads}, arguments);
  if (arguments.sum) finish(stream, arguments.sums, blocks);
  return stream.status();
}

int iou_loss(const gfl_device& device, const gfl_iou_loss& op, bool backward) {
  Stream stream(device);
  return with_float_type(op.pred.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    switch (op.options.iou_kind) {
      case GFL_IOU:
        return run_iou_loss<T, GFL_IOU>(stream, op, backward);
      case GFL_GIOU:
        return run_iou_loss<T, GFL_GIOU>(stream, op, backward);
      case GFL_DIOU:
        return run_iou_loss<T, GFL_DIOU>(stream, op, backward);
      case GFL_CIOU:
        return run_iou_loss<T, GFL_CIOU>(stream, op, backward);
      default:
        return fail(GFL_ERROR_ARGUMENT, "unknown IoU loss %d", static_cast<int>(op.options.iou_kind));
    }
  });
}

// One thread an entry of the result. Neighbours share a row of `a`, and b's rows stay in the cache.
template <class T>
__global__ void __launch_bounds__(kThreads) box_iou_kernel(const Boxes<T> a, const Boxes<T> b, int64_t size,
                                                           Divider by_cols, bool paired, double eps, Compute<T>* iou) {
  using C = Compute<T>;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < size; i += threads) {
    const int64_t row = paired ? i : by_cols.divide_long(i);
    const int64_t col = paired ? i : i - row * by_cols.divisor();
    iou[i] = plain_iou(a.at(row), b.at(col), constant<C>(eps));
  }
}

}  // namespace

int iou_loss_forward(const gfl_device& device, const gfl_iou_loss& op) { return iou_loss(device, op, false); }

int iou_loss_backward(const gfl_device& device, const gfl_iou_loss& op) { return iou_loss(device, op, true); }

int box_iou_forward(const gfl_device& device, const gfl_box_iou& op) {
  const int64_t size = op.aligned ? op.rows : op.rows * op.cols;
  if (size == 0) return GFL_OK;
  Stream stream(device);
  return with_float_type(op.a.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const int blocks = stream.blocks((size + kThreads - 1) / kThreads, 8);
    stream.launch(box_iou_kernel<T>, Grid{blocks, kThreads}, Boxes<T>(op.a, op.a.dtype), Boxes<T>(op.b, op.a.dtype),
                  size, Divider(op.cols > 0 ? op.cols : 1), op.aligned != 0, op.eps, static_cast<Compute<T>*>(op.iou));
    return stream.status();
  });
}

}  // namespace cuda
}  // namespace gfl
