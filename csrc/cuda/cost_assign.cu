// Assignment by the lowest costs in three launches: which anchors are candidates, and the sums of their classes; a block
// for each gt finds out how many anchors it claims and which; the anchors settle for one gt, a warp for each that several
// claim. No result depends on the order in which blocks run.
#include "../math/cost_assign.h"
#include "assignment.cuh"

namespace gfl {
namespace cuda {
namespace {

// ---- candidates ----

template <class T>
struct LaneSums {
  T highest;
  ClassSums<T> sums;

  __device__ __forceinline__ LaneSums shuffled(int bits) const {
    return {
        cuda::shuffled(highest, bits),
        {cuda::shuffled(sums.largest, bits), cuda::shuffled(sums.rest, bits), cuda::shuffled(sums.of_largest, bits)}};
  }
};

// The lanes of a warp share the classes, and all have the sums afterwards.
template <class T, class Cost>
__device__ __forceinline__ ClassSums<T> class_sums(const Cost& op, int64_t image, int64_t anchor) {
  const int classes = static_cast<int>(op.op.classes);
  LaneSums<T> own{Cost::no_score(), {T(), T(), classes}};
  for (int label = static_cast<int>(threadIdx.x) % kWarp; label < classes; label += kWarp) {
    const T score = op.score(image, anchor, label);
    const T term = Cost::negative(score);
    const bool higher = score > own.highest;
    own.sums.rest = own.sums.rest + (higher ? own.sums.largest : term);
    if (higher) own = {score, {term, own.sums.rest, label}};
  }
  for (int bits = kWarp / 2; bits > 0; bits /= 2) {
    const LaneSums<T> other = own.shuffled(bits);
    const bool higher =
        other.highest > own.highest || (other.highest == own.highest && other.sums.of_largest < own.sums.of_largest);
    const T rest = own.sums.rest + other.sums.rest + (higher ? own.sums.largest : other.sums.largest);
    if (higher) own = other;
    own.sums.rest = rest;
  }
  return own.sums;
}

template <class T, class Cost>
__device__ __forceinline__ bool is_candidate(const Cost& op, int64_t image, int64_t anchor) {
  if (!op.is_sound(image, anchor)) return false;
  const Point<T> point = op.point(anchor);
  const T stride = op.stride(anchor);
  const int64_t count = op.gts.count(image);
  for (int64_t gt = 0; gt < count; ++gt) {
    if (op.can_hold(point, stride, op.gts.box(image, gt)) && op.gts.takes_part(image, gt)) return true;
  }
  return false;
}

template <class T, class Cost>
__global__ void __launch_bounds__(kAssignThreads, 2) cost_prepare(const Cost op, const Divider by_anchors) {
  const int64_t size = op.op.batch * op.op.anchors;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAssignThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kAssignThreads + threadIdx.x - lane; first < size;
       first += step) {
    const int64_t i = first + lane;
    bool candidate = false;
    if (i < size) {
      const int64_t image = by_anchors.divide_long(i);
      candidate = is_candidate<T>(op, image, i - image * op.op.anchors);
      op.op.assigned_gt[i] = GFL_BACKGROUND;
      static_cast<T*>(op.op.assigned_iou)[i] = T();
      if (!candidate) op.largest_classes()[i] = -1;
    }
    for (uint32_t left = __ballot_sync(kFullWarp, candidate); left; left &= left - 1) {
      const int of_lane = __ffs(static_cast<int>(left)) - 1;
      const int64_t image = by_anchors.divide_long(first + of_lane);
      const ClassSums<T> sums = class_sums<T>(op, image, first + of_lane - image * op.op.anchors);
      if (lane != of_lane) continue;
      op.largest_terms()[i] = sums.largest;
      op.rests()[i] = sums.rest;
      op.largest_classes()[i] = sums.of_largest;
    }
  }
}

// ---- what a gt claims ----

template <class Cost, class Use>
__device__ __forceinline__ void for_each_candidate(const Cost& op, int64_t image, const Use& use) {
  const int32_t* classes = op.largest_classes() + op.place(image, 0);
  const Cells all{0, static_cast<int>(op.op.anchors), 1, static_cast<int>(op.op.anchors)};
  for_each_cell(all, [&](bool there, int64_t anchor) { use(there && classes[anchor] >= 0, anchor); });
}

struct WantedAnchors {
  int number;
};

// From the sum of a gt's highest IoUs. All threads have it.
template <class T, class Cost>
__device__ __forceinline__ int wanted_anchors(const Cost& op, int64_t image, const Box<T>& gt) {
  const int room = op.op.topk;
  int& wanted = static_shared<WantedAnchors>().number;
  WarpTopList<T> list(own_items<T>(room), room);
  for_each_candidate(op, image, [&](bool there, int64_t anchor) {
    const T iou = there ? overlapping_iou(op.box(image, anchor), gt) : T();
    list.offer(iou > T(), {iou, static_cast<int32_t>(anchor)});
  });
  Candidate<T>* items = dynamic_shared<Candidate<T>>();
  merge_lists(list, items, room);
  if (threadIdx.x < kWarp) {
    double sum = 0.0;
    for (int i = static_cast<int>(threadIdx.x); i < list.size(); i += kWarp) sum += static_cast<double>(items[i].value);
    for (int bits = kWarp / 2; bits > 0; bits /= 2) sum += shuffled(sum, bits);
    if (threadIdx.x == 0) wanted = op.wanted(sum);
  }
  __syncthreads();
  return wanted;
}

template <class T, class Cost>
__device__ __forceinline__ void claim_lowest(const Cost& op, int64_t image, int64_t gt) {
  const Box<T> box = op.gts.box(image, gt);
  const int64_t label = op.gts.label(image, gt);
  const int room = wanted_anchors<T>(op, image, box);
  WarpTopList<T> list(own_items<T>(room), room);  // of costs with their sign turned
  typename Cost::Bounds bounds{};
  T bounded = T();
  bool is_bounded = false;
  for_each_candidate(op, image, [&](bool there, int64_t anchor) {
    T cost = constant<T>(NAN);
    if (there) {
      const CostPair<T> pair = op.pair(image, anchor, box);
      if (!is_bounded || op.may_be_below(bounds, pair)) {
        cost = op.cost(image, anchor, pair, label, overlapping_iou(pair.box, box));
      }
    }
    list.offer(cost == cost, {-cost, static_cast<int32_t>(anchor)});
    if (!list.full() || (is_bounded && list.worst().value == bounded)) return;
    is_bounded = true;
    bounded = list.worst().value;
    bounds = op.below(-bounded);
  });
  Candidate<T>* items = dynamic_shared<Candidate<T>>();
  merge_lists(list, items, room);
  if (threadIdx.x < kWarp) {
    for (int i = static_cast<int>(threadIdx.x); i < list.size(); i += kWarp) {
      claim(&op.winner(image, items[i].anchor), static_cast<int32_t>(gt), CompareExchange());
    }
  }
  __syncthreads();
}

template <class T, class Cost>
__global__ void __launch_bounds__(kAssignThreads, 3) cost_claim(const Cost op) {
  for (int64_t i = blockIdx.x; i < op.op.batch * op.op.num_gts; i += gridDim.x) {
    const int64_t image = i / op.op.num_gts;
    const int64_t gt = i - image * op.op.num_gts;
    if (op.gts.takes_part(image, gt)) claim_lowest<T>(op, image, gt);
  }
}

// ---- who gets an anchor ----

template <class T>
struct RivalCost {
  T cost;
  int32_t gt;  // below 0: none
  __device__ __forceinline__ RivalCost shuffled(int bits) const {
    return {cuda::shuffled(cost, bits), cuda::shuffled(gt, bits)};
  }
  __device__ __forceinline__ bool before(const RivalCost& other) const {
    if (gt < 0 || other.gt < 0) return gt > other.gt;
    return cost < other.cost || (cost == other.cost && gt < other.gt);
  }
};

// Of all gts of the image: the lanes of a warp share them.
template <class T, class Cost>
__device__ __forceinline__ int32_t lowest_cost(const Cost& op, int64_t image, int64_t anchor) {
  RivalCost<T> best{T(), GFL_BACKGROUND};
  typename Cost::Bounds bounds{};
  const int64_t count = op.gts.count(image);
  for (int64_t gt = static_cast<int64_t>(threadIdx.x) % kWarp; gt < count; gt += kWarp) {
    if (!op.gts.takes_part(image, gt)) continue;
    const CostPair<T> pair = op.pair(image, anchor, op.gts.box(image, gt));
    if (best.gt >= 0 && !op.may_be_below(bounds, pair)) continue;
    const T cost = op.cost(image, anchor, pair, op.gts.label(image, gt), overlapping_iou(pair.box, pair.gt));
    if (!(best.gt < 0 ? cost == cost : cost < best.cost)) continue;
    best = {cost, static_cast<int32_t>(gt)};
    bounds = op.below(cost);
  }
  return first_of_warp(best, [](const RivalCost<T>& a, const RivalCost<T>& b) { return a.before(b); }).gt;
}

template <class T, class Cost>
__global__ void __launch_bounds__(kAssignThreads, 2) cost_settle(const Cost op, const Divider by_anchors) {
  const auto find = [&](int64_t i) {
    const int64_t image = by_anchors.divide_long(i);
    return lowest_cost<T>(op, image, i - image * op.op.anchors);
  };
  settle_all(op.op.assigned_gt, op.op.batch * op.op.anchors, find, [&](int64_t i, int32_t winner) {
    const int64_t image = by_anchors.divide_long(i);
    const int64_t anchor = i - image * op.op.anchors;
    op.winner(image, anchor) = winner;
    op.found_iou(image, anchor) = overlapping_iou(op.box(image, anchor), op.gts.box(image, winner));
  });
}

template <class T, class Cost>
int run(Stream& stream, const gfl_cost_assign& given) {
  const Cost op(given);
  const int64_t anchors = given.batch * given.anchors;
  if (anchors == 0) return GFL_OK;
  const Divider by_anchors(given.anchors);
  const int of_anchors = stream.blocks((anchors + kAssignThreads - 1) / kAssignThreads, 8);
  const int list_bytes = given.topk * kAssignWarps * static_cast<int>(sizeof(Candidate<T>));
  stream.launch(cost_prepare<T, Cost>, Grid{of_anchors, kAssignThreads}, op, by_anchors);
  if (given.num_gts > 0) {
    const int of_gts = stream.blocks(given.batch * given.num_gts, 8);
    stream.launch(cost_claim<T, Cost>, Grid{of_gts, kAssignThreads, list_bytes}, op);
    stream.launch(cost_settle<T, Cost>, Grid{of_anchors, kAssignThreads}, op, by_anchors);
  }
  return stream.status();
}

template <class T>
int run_kind(Stream& stream, const gfl_cost_assign& op) {
  return op.kind == GFL_DYNAMIC_SOFT_LABEL ? run<T, SoftLabelCost<T>>(stream, op) : run<T, SimotaCost<T>>(stream, op);
}

}  // namespace

int cost_assign(const gfl_device& device, const gfl_cost_assign& op) {
  Stream stream(device);
  return op.dtype == GFL_FLOAT64 ? run_kind<double>(stream, op) : run_kind<float>(stream, op);
}

}  // namespace cuda
}  // namespace gfl
