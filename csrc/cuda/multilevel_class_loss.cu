// A dense classification loss over the maps of all levels, in one launch: which thread takes what of which map.
#include "multilevel_class_loss.cuh"

#include "cuda_ops.h"
#include "dispatch.cuh"

namespace gfl {
namespace cuda {
namespace {

template <class T, class Formula, bool kLoss, bool kGrad>
void launch(Stream& stream, const MapArguments<T>& arguments, const Formula& formula) {
  const int blocks = stream.blocks((arguments.items * kItemParts + kMapThreads - 1) / kMapThreads, kMapBlocks<T>);
  const MapPlan plan(arguments.items, static_cast<int64_t>(blocks) * kMapThreads);
  stream.launch(multilevel_class_loss_kernel<T, Formula, kLoss, kGrad>, Grid{blocks, kMapThreads}, arguments, formula,
                plan);
  if (kLoss && arguments.sum) finish(stream, arguments.sums, blocks);
}

template <class T, class Formula>
int run(Stream& stream, const gfl_multilevel_class_loss& op, const Formula& formula, bool backward) {
  constexpr bool kShared = kSharedKernel<T, Formula>;
  const MapArguments<T> arguments(op, backward);
  const bool grad = op.grad.count > 0;
  if constexpr (sizeof(T) == 2) {
    if (!backward) launch<T, Formula, true, false>(stream, arguments, formula);
    if (grad) launch<T, Formula, false, true>(stream, arguments, formula);
  } else if (backward) {
    launch<T, Formula, kShared, true>(stream, arguments, formula);
  } else if (grad) {
    launch<T, Formula, true, true>(stream, arguments, formula);
  } else {
    launch<T, Formula, true, kShared>(stream, arguments, formula);
  }
  return stream.status();
}

int multilevel_class_loss(const gfl_device& device, const gfl_multilevel_class_loss& op, bool backward) {
  Stream stream(device);
  return with_float_type(op.pred.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    return with_class_formula(op, [&](const auto& formula) {
      if constexpr (std::decay_t<decltype(formula)>::of_logits) {
        return run<T>(stream, op, formula, backward);
      } else {
        return fail(GFL_ERROR_ARGUMENT, "maps must be logits");
      }
    });
  });
}

}  // namespace

int multilevel_class_loss_forward(const gfl_device& device, const gfl_multilevel_class_loss& op) {
  return multilevel_class_loss(device, op, false);
}

int multilevel_class_loss_backward(const gfl_device& device, const gfl_multilevel_class_loss& op) {
  return multilevel_class_loss(device, op, true);
}

}  // namespace cuda
}  // namespace gfl
