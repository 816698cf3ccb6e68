// FCOS's assignment in three launches: clear the cells; a block for each gt, a warp for each level, claims them; the cells
// get their distances. No result depends on the order in which blocks run.
#include "../math/fcos_assign.h"
#include "assignment.cuh"
#include "launch.h"

namespace gfl {
namespace cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kAssignThreads) fcos_clear(const Fcos<T> op) {
  const int64_t size = op.op.batch * op.anchors;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAssignThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kAssignThreads + threadIdx.x; i < size; i += step) {
    op.op.assigned_gt[i] = GFL_BACKGROUND;
  }
}

template <class T>
__global__ void __launch_bounds__(GFL_MAX_LEVELS* kWarp, 2) fcos_claim(const Fcos<T> op) {
  const int level = static_cast<int>(threadIdx.x) / kWarp;
  for (int64_t i = blockIdx.x; i < op.op.batch * op.op.num_gts; i += gridDim.x) {
    const int64_t image = i / op.op.num_gts;
    const int32_t gt = static_cast<int32_t>(i - image * op.op.num_gts);
    if (!op.gts.takes_part(image, gt)) continue;
    const Box<T> box = op.gts.box(image, gt);
    const T area = box_area(box);
    const Box<T> reach = op.reach(level, box);
    const Cells cells = op.candidates(level, box, reach);
    const int64_t count = cells.count();
    for (int64_t k = static_cast<int64_t>(threadIdx.x) % kWarp; k < count; k += kWarp) {
      const int64_t anchor = cells.anchor(k);
      if (!op.may_learn(level, op.point(level, anchor), box, reach)) continue;
      claim_from_weaker(op.assigned(image) + anchor, gt, CompareExchange(),
                        [&](int32_t rival) { return op.is_stronger(image, gt, area, rival); });
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kAssignThreads, 2) fcos_finish(const Fcos<T> op, const Divider by_anchors) {
  const int64_t size = op.op.batch * op.anchors;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAssignThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kAssignThreads + threadIdx.x; i < size; i += step) {
    const int64_t image = by_anchors.divide_long(i);
    op.finish(image, i - image * op.anchors);
  }
}

template <class T>
int run(Stream& stream, const gfl_fcos_assign& given) {
  const Fcos<T> op(given);
  const int64_t anchors = given.batch * op.anchors;
  if (anchors == 0) return GFL_OK;
  const Grid of_anchors{stream.blocks((anchors + kAssignThreads - 1) / kAssignThreads, 8), kAssignThreads};
  stream.launch(fcos_clear<T>, of_anchors, op);
  if (given.num_gts > 0) {
    const Grid of_gts{stream.blocks(given.batch * given.num_gts, 16), given.levels.count * kWarp};
    stream.launch(fcos_claim<T>, of_gts, op);
  }
  stream.launch(fcos_finish<T>, of_anchors, op, Divider(op.anchors));
  return stream.status();
}

}  // namespace

int fcos_assign(const gfl_device& device, const gfl_fcos_assign& op) {
  Stream stream(device);
  return op.dtype == GFL_FLOAT64 ? run<double>(stream, op) : run<float>(stream, op);
}

}  // namespace cuda
}  // namespace gfl
