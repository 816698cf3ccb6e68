// The dense classification losses of one matrix.
#include "class_loss_types.h"
#include "cuda_ops.h"
#include "dispatch.cuh"

namespace gfl {
namespace cuda {
namespace {

int class_loss(const gfl_device& device, const gfl_class_loss& op, bool backward) {
  Stream stream(device);
  return with_float_type(op.pred.dtype,
                         [&](auto type) { return class_loss_of<typename decltype(type)::type>(stream, op, backward); });
}

}  // namespace

int class_loss_forward(const gfl_device& device, const gfl_class_loss& op) { return class_loss(device, op, false); }

int class_loss_backward(const gfl_device& device, const gfl_class_loss& op) { return class_loss(device, op, true); }

}  // namespace cuda
}  // namespace gfl
