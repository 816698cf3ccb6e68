// Task-aligned assignment in five launches: clear the anchors; a block for each gt finds its candidates and claims them;
// the anchors settle for one gt, a warp for each that several claim; a block for each gt looks at what it has won; the
// anchors get their scores. No result depends on the order in which blocks run.
#include "../math/task_aligned_assign.h"
#include "assignment.cuh"

namespace gfl {
namespace cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kAssignThreads) task_aligned_clear(const TaskAligned<T> op) {
  const int64_t size = op.op.batch * op.op.anchors;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAssignThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kAssignThreads + threadIdx.x; i < size; i += step) {
    op.op.assigned_gt[i] = GFL_BACKGROUND;
  }
}

template <class T>
__device__ __forceinline__ void claim_anchor(const TaskAligned<T>& op, int64_t image, int32_t gt, int64_t anchor,
                                             const Box<T>& box) {
  int32_t* winner = op.winners(image) + anchor;
  if (op.op.inside_first) {
    claim(winner, gt, CompareExchange());
    return;
  }
  if (!op.has(op.reach(box), anchor)) return;
  const T iou = op.iou(image, anchor, box);
  claim_from_weaker(winner, gt, CompareExchange(),
                    [&](int32_t rival) { return op.is_stronger(image, anchor, gt, iou, rival); });
}

template <class T>
__device__ __forceinline__ void claim_best(const TaskAligned<T>& op, int64_t image, int64_t gt) {
  const int room = op.op.topk;
  const Box<T> box = op.gts.box(image, gt);
  const Box<T> reach = op.reach(box);
  const int64_t label = op.gts.label(image, gt);
  WarpTopList<T> list(own_items<T>(room), room);
  T bar = T();  // what an IoU must exceed for its anchor to become one of the best of this warp
  const auto look_at = [&](bool there, int64_t anchor) {
    const bool candidate = there && (!op.op.inside_first || op.has(reach, anchor));
    const T metric = candidate ? op.metric_above(image, anchor, box, label, bar) : T();
    list.offer(metric > T(), {metric, static_cast<int32_t>(anchor)});
    if (list.full()) bar = op.bar_of(list.worst().value);
  };
  if (op.op.inside_first) {
    for_each_covered(op.grid, reach, look_at);
  } else {
    const Cells all{0, static_cast<int>(op.op.anchors), 1, static_cast<int>(op.op.anchors)};
    for_each_cell(all, look_at);
  }
  Candidate<T>* items = dynamic_shared<Candidate<T>>();
  merge_lists(list, items, room);
  if (threadIdx.x < kWarp) {
    for (int i = static_cast<int>(threadIdx.x); i < list.size(); i += kWarp) {
      claim_anchor(op, image, static_cast<int32_t>(gt), items[i].anchor, box);
    }
  }
  __syncthreads();
}

template <class T>
__global__ void __launch_bounds__(kAssignThreads, 2) task_aligned_claim(const TaskAligned<T> op) {
  for (int64_t i = blockIdx.x; i < op.op.batch * op.op.num_gts; i += gridDim.x) {
    const int64_t image = i / op.op.num_gts;
    const int64_t gt = i - image * op.op.num_gts;
    if (op.gts.takes_part(image, gt)) claim_best(op, image, gt);
  }
}

template <class T>
struct RivalIou {
  T iou;
  int32_t gt;
  __device__ __forceinline__ RivalIou shuffled(int bits) const {
    return {cuda::shuffled(iou, bits), cuda::shuffled(gt, bits)};
  }
};

// Of all gts that an anchor is inside of: the lanes of a warp share them.
template <class T>
__device__ __forceinline__ int32_t highest_iou(const TaskAligned<T>& op, int64_t image, int64_t anchor) {
  RivalIou<T> best{static_cast<T>(-1), GFL_BACKGROUND};
  const int64_t count = op.gts.count(image);
  for (int64_t gt = static_cast<int64_t>(threadIdx.x) % kWarp; gt < count; gt += kWarp) {
    const Box<T> box = op.gts.box(image, gt);
    if (!op.has(op.reach(box), anchor) || !op.gts.takes_part(image, gt)) continue;
    const T iou = op.iou(image, anchor, box);
    if (iou > best.iou) best = {iou, static_cast<int32_t>(gt)};
  }
  return first_of_warp(best, [](const RivalIou<T>& a,
                                const RivalIou<T>& b) { return a.iou > b.iou || (a.iou == b.iou && a.gt < b.gt); })
      .gt;
}

template <class T>
__global__ void __launch_bounds__(kAssignThreads)
    task_aligned_settle(const TaskAligned<T> op, const Divider by_anchors) {
  const auto find = [&](int64_t i) {
    const int64_t image = by_anchors.divide_long(i);
    return highest_iou(op, image, i - image * op.op.anchors);
  };
  settle_all(op.op.assigned_gt, op.op.batch * op.op.anchors, find, [&](int64_t i, int32_t winner) {
    const int64_t image = by_anchors.divide_long(i);
    const int64_t anchor = i - image * op.op.anchors;
    const TaskAlignedPair<T> pair = op.pair(image, anchor, op.gts.box(image, winner), op.gts.label(image, winner));
    op.winners(image)[anchor] = winner;
    op.ious(image)[anchor] = pair.iou;
    op.metrics(image)[anchor] = pair.metric;
  });
}

template <class T>
struct Highest {
  T metric[kAssignWarps];
  T iou[kAssignWarps];
};

// Of all threads of a block; the first thread has it.
template <class T>
__device__ __forceinline__ void highest_of_block(T& metric, T& iou) {
  Highest<T>& of_warps = static_shared<Highest<T>>();
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  for (int bits = kWarp / 2; bits > 0; bits /= 2) {
    metric = larger(shuffled(metric, bits), metric);
    iou = larger(shuffled(iou, bits), iou);
  }
  if (lane == 0) of_warps.metric[warp] = metric;
  if (lane == 0) of_warps.iou[warp] = iou;
  __syncthreads();
  for (int other = 1; threadIdx.x == 0 && other < kAssignWarps; ++other) {
    metric = larger(of_warps.metric[other], metric);
    iou = larger(of_warps.iou[other], iou);
  }
  __syncthreads();
}

template <class T>
__device__ __forceinline__ void look_at_won(const TaskAligned<T>& op, int64_t image, int64_t gt) {
  const int room = op.op.final_topk;
  const int32_t* winners = op.winners(image);
  const T* ious = op.ious(image);
  const T* metrics = op.metrics(image);
  TaskAlignedBest<T> best{T(), T(), {static_cast<T>(-HUGE_VAL), 0}};
  WarpTopList<T> list(own_items<T>(room), room);
  for_each_covered(op.grid, op.reach(op.gts.box(image, gt)), [&](bool there, int64_t anchor) {
    const bool won = there && winners[anchor] == gt;
    const T metric = won ? metrics[anchor] : T();
    best.metric = larger(metric, best.metric);
    if (won) best.iou = larger(ious[anchor], best.iou);
    if (room > 0) list.offer(won, {metric, static_cast<int32_t>(anchor)});
  });
  highest_of_block(best.metric, best.iou);
  if (room > 0) {
    Candidate<T>* items = dynamic_shared<Candidate<T>>();
    merge_lists(list, items, room);
    if (threadIdx.x < kWarp && list.full()) {
      best.last = list.worst();
      best.iou = T();
      for (int i = static_cast<int>(threadIdx.x); i < room; i += kWarp)
        best.iou = larger(ious[items[i].anchor], best.iou);
      for (int bits = kWarp / 2; bits > 0; bits /= 2) best.iou = larger(shuffled(best.iou, bits), best.iou);
    }
    __syncthreads();
  }
  if (threadIdx.x == 0) op.best(image)[gt] = best;
}

template <class T>
__global__ void __launch_bounds__(kAssignThreads, 2) task_aligned_won(const TaskAligned<T> op) {
  for (int64_t i = blockIdx.x; i < op.op.batch * op.op.num_gts; i += gridDim.x) {
    const int64_t image = i / op.op.num_gts;
    const int64_t gt = i - image * op.op.num_gts;
    if (op.gts.takes_part(image, gt)) look_at_won(op, image, gt);
  }
}

template <class T>
__global__ void __launch_bounds__(kAssignThreads)
    task_aligned_finish(const TaskAligned<T> op, const Divider by_anchors) {
  const int64_t size = op.op.batch * op.op.anchors;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kAssignThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kAssignThreads + threadIdx.x; i < size; i += step) {
    int32_t winner = op.op.assigned_gt[i];
    int32_t label = winner;
    T score = T();
    if (winner >= 0) {
      const int64_t image = by_anchors.divide_long(i);
      const TaskAlignedBest<T> best = op.best(image)[winner];
      const T metric = static_cast<const T*>(op.op.assigned_score)[i];
      const bool goes = better(best.last, {metric, static_cast<int32_t>(i - image * op.op.anchors)});
      score = goes ? T() : op.normalized(best, metric);
      label = goes ? GFL_BACKGROUND : static_cast<int32_t>(op.gts.label(image, winner));
      if (goes) winner = GFL_BACKGROUND;
    }
    static_cast<T*>(op.op.assigned_score)[i] = score;
    if (op.op.labels) op.op.labels[i] = label;
    if (winner >= 0) continue;
    op.op.assigned_gt[i] = winner;
    static_cast<T*>(op.op.assigned_iou)[i] = T();
  }
}

template <class T>
int run(Stream& stream, const gfl_task_aligned_assign& given) {
  const TaskAligned<T> op(given);
  const int64_t anchors = given.batch * given.anchors;
  if (anchors == 0) return GFL_OK;
  const Divider by_anchors(given.anchors);
  const int of_anchors = stream.blocks((anchors + kAssignThreads - 1) / kAssignThreads, 8);
  const int of_gts = stream.blocks(given.batch * given.num_gts, 8);
  const int of_item = kAssignWarps * static_cast<int>(sizeof(Candidate<T>));
  stream.launch(task_aligned_clear<T>, Grid{of_anchors, kAssignThreads}, op);
  if (given.num_gts > 0) {
    stream.launch(task_aligned_claim<T>, Grid{of_gts, kAssignThreads, given.topk * of_item}, op);
    stream.launch(task_aligned_settle<T>, Grid{of_anchors, kAssignThreads}, op, by_anchors);
    stream.launch(task_aligned_won<T>, Grid{of_gts, kAssignThreads, given.final_topk * of_item}, op);
  }
  stream.launch(task_aligned_finish<T>, Grid{of_anchors, kAssignThreads}, op, by_anchors);
  return stream.status();
}

}  // namespace

int task_aligned_assign(const gfl_device& device, const gfl_task_aligned_assign& op) {
  Stream stream(device);
  return op.dtype == GFL_FLOAT64 ? run<double>(stream, op) : run<float>(stream, op);
}

}  // namespace cuda
}  // namespace gfl
