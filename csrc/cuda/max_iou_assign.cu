// Assignment by the highest IoU in three launches, or five where one anchor alone is claimed: prepare the gts; what the
// thresholds say of each anchor, and the highest IoU of each gt; the claims. A warp has 32 anchors side by side, and looks at
// those gts alone that overlap the box around them. No result depends on the order in which blocks run.
#include "../math/max_iou_assign.h"
#include "assignment.cuh"
#include "launch.h"

namespace gfl {
namespace cuda {
namespace {

// Non-negative floats are in the order of their bits.
__device__ __forceinline__ void raise_best(float* address, float value) {
  atomicMax(reinterpret_cast<unsigned*>(address), float_bits(value));
}
__device__ __forceinline__ void raise_best(double* address, double value) {
  unsigned long long bits;
  memcpy(&bits, &value, sizeof bits);
  atomicMax(reinterpret_cast<unsigned long long*>(address), bits);
}

template <class T>
__device__ __forceinline__ T highest_of_warp(T value) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) value = larger(shuffled(value, bits), value);
  return value;
}

template <class T>
__device__ __forceinline__ Box<T> hull_of_warp(const Box<T>& box) {
  return {-highest_of_warp(-box.x1), -highest_of_warp(-box.y1), highest_of_warp(box.x2), highest_of_warp(box.y2)};
}

// An anchor of each lane. Lanes behind the last one have boxes that overlap nothing.
template <class T>
struct OwnAnchor {
  int64_t image;
  int64_t index;
  bool there;
  Box<T> box;
  T area;
  Box<T> hull;  // around the warp's

  __device__ __forceinline__ OwnAnchor(const MaxIou<T>& op, int64_t image_, int64_t index_)
      : image(image_), index(index_), there(index_ < op.op.num_anchors) {
    const T infinite = static_cast<T>(HUGE_VAL);
    box = there ? op.anchor(image, index) : Box<T>{infinite, infinite, -infinite, -infinite};
    area = box_area(box);
    hull = hull_of_warp(box);
  }
};

// Calls use(own) for each anchor, in whole warps of one image.
template <class T, class Use>
__device__ __forceinline__ void for_anchors(const MaxIou<T>& op, const Use& use) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t warps_of_image = (op.op.num_anchors + kWarp - 1) / kWarp;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAssignWarps;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kAssignWarps + threadIdx.x / kWarp;
       i < op.op.batch * warps_of_image; i += step) {
    const int64_t image = i / warps_of_image;
    use(OwnAnchor<T>(op, image, (i - image * warps_of_image) * kWarp + lane));
  }
}

// Calls use(gt) in all lanes for those that overlap the warp's hull and are wanted, in their order. Each lane asks for one.
template <class T, class Wanted, class Use>
__device__ __forceinline__ void for_near_gts(const MaxIou<T>& op, const OwnAnchor<T>& own, const Wanted& wanted,
                                             const Use& use) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t count = op.gts.count(own.image);
  for (int64_t begin = 0; begin < count; begin += kWarp) {
    const int64_t gt = begin + lane;
    uint32_t near = __ballot_sync(kFullWarp, gt < count && overlap(op.prepared(own.image, gt), own.hull) && wanted(gt));
    for (; near; near &= near - 1) use(static_cast<int32_t>(begin + __ffs(static_cast<int>(near)) - 1));
  }
}

template <class T>
__global__ void __launch_bounds__(kAssignThreads) max_iou_prepare(const MaxIou<T> op) {
  const int64_t size = op.op.batch * op.op.num_gts;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAssignThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kAssignThreads + threadIdx.x; i < size; i += step) {
    op.prepare(i / op.op.num_gts, i % op.op.num_gts);
  }
}

template <class T>
__global__ void __launch_bounds__(kAssignThreads, 3) max_iou_compare(const MaxIou<T> op) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for_anchors(op, [&](const OwnAnchor<T>& own) {
    T most = T();
    int32_t gt_of_most = 0;
    const auto any = [](int64_t) { return true; };
    for_near_gts(op, own, any, [&](int32_t gt) {
      const T iou = MaxIou<T>::iou(own.box, own.area, op.prepared(own.image, gt));
      if (iou > most) gt_of_most = gt;
      most = larger(iou, most);
      const T best = highest_of_warp(iou);
      if (lane == 0 && best > T()) raise_best(op.best(own.image) + gt, best);
    });
    if (!own.there) return;
    op.ious(own.image)[own.index] = most;
    op.assigned(own.image)[own.index] = op.by_threshold(own.image, own.index, most, gt_of_most);
  });
}

// A gt whose best IoU is above all that the warp's anchors have has it elsewhere.
template <class T>
__global__ void __launch_bounds__(kAssignThreads, 3) max_iou_claim(const MaxIou<T> op) {
  for_anchors(op, [&](const OwnAnchor<T>& own) {
    const T most = highest_of_warp(own.there ? op.ious(own.image)[own.index] : T());
    int32_t claimed = GFL_BACKGROUND;
    const auto wanted = [&](int64_t gt) {
      const T best = op.best(own.image)[gt];
      return op.may_claim(best) && best <= most;
    };
    if (op.may_claim(most)) {
      for_near_gts(op, own, wanted, [&](int32_t gt) {
        const T iou = MaxIou<T>::iou(own.box, own.area, op.prepared(own.image, gt));
        if (iou != op.best(own.image)[gt]) return;
        claimed = gt;
        if (!op.op.all_best) {
          atomicMin(reinterpret_cast<unsigned*>(op.first(own.image) + gt), static_cast<unsigned>(own.index));
        }
      });
    }
    if (op.op.all_best && own.there) op.finish(own.image, own.index, claimed);
  });
}

template <class T>
__global__ void __launch_bounds__(kAssignThreads) max_iou_claim_first(const MaxIou<T> op) {
  const int64_t size = op.op.batch * op.op.num_gts;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAssignThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kAssignThreads + threadIdx.x; i < size; i += step) {
    const int64_t image = i / op.op.num_gts;
    const int64_t gt = i - image * op.op.num_gts;
    const int32_t anchor = op.first(image)[gt];
    if (anchor < INT32_MAX) raise_to(op.assigned(image) + anchor, op.as_claim(gt), CompareExchange());
  }
}

template <class T>
__global__ void __launch_bounds__(kAssignThreads) max_iou_finish(const MaxIou<T> op, const Divider by_anchors) {
  const int64_t size = op.op.batch * op.op.num_anchors;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAssignThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kAssignThreads + threadIdx.x; i < size; i += step) {
    const int64_t image = by_anchors.divide_long(i);
    op.finish(image, i - image * op.op.num_anchors, op.op.assigned_gt[i] - static_cast<int32_t>(op.op.num_gts));
  }
}

template <class T>
int run(Stream& stream, const gfl_max_iou_assign& given) {
  const MaxIou<T> op(given);
  const int64_t anchors = given.batch * given.num_anchors;
  if (anchors == 0) return GFL_OK;
  const Grid of_anchors{stream.blocks((anchors + kAssignThreads - 1) / kAssignThreads, 8), kAssignThreads};
  const int64_t gts = given.batch * given.num_gts;
  const Grid of_gts{stream.blocks((gts + kAssignThreads - 1) / kAssignThreads, 8), kAssignThreads};
  if (gts > 0) stream.launch(max_iou_prepare<T>, of_gts, op);
  stream.launch(max_iou_compare<T>, of_anchors, op);
  stream.launch(max_iou_claim<T>, of_anchors, op);
  if (!given.all_best && gts > 0) stream.launch(max_iou_claim_first<T>, of_gts, op);
  if (!given.all_best) stream.launch(max_iou_finish<T>, of_anchors, op, Divider(given.num_anchors));
  return stream.status();
}

}  // namespace

int max_iou_assign(const gfl_device& device, const gfl_max_iou_assign& op) {
  Stream stream(device);
  return op.dtype == GFL_FLOAT64 ? run<double>(stream, op) : run<float>(stream, op);
}

}  // namespace cuda
}  // namespace gfl
