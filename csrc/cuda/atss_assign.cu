// ATSS in three launches: clear the anchors; a warp for each ground truth finds its positives and claims them; then what
// else is asked of an anchor is read from its winner.
//
// A claim replaces a weaker one by compare-and-swap: the order of (IoU, first ground truth) is total, so that the winner
// does not depend on who came first. The rival's IoU is worked out again, which is rarer than keeping all of them would
// be, and needs no memory.
#include "../math/atss_assign.h"
#include "assignment.cuh"
#include "cuda_ops.h"
#include "launch.h"
#include "levels.cuh"
#include "reduce.cuh"

namespace gfl {
namespace cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kGtsOfBlock = kThreads / kWarp;

// The ranks (column, row) whose cells can be among the k nearest; see math/atss_assign.h.
struct NearRanks {
  static constexpr int kMost = 119;  // for k = kMostCandidates
  int count = 0;
  uint8_t column[kMost];
  uint8_t row[kMost];

  explicit NearRanks(int k) : column{}, row{} {
    for (int j = 0; j < k; ++j) {
      for (int i = 0; (i + 1) * (j + 1) <= k; ++i, ++count) {
        column[count] = static_cast<uint8_t>(i);
        row[count] = static_cast<uint8_t>(j);
      }
    }
  }
};

template <class T>
struct AtssArguments {
  gfl_atss_assign op;
  LevelTable table;
  NearRanks ranks;

  explicit AtssArguments(const gfl_atss_assign& op_) : op(op_), table(op_.levels), ranks(op_.topk) {}

  __device__ __forceinline__ AtssLevel<T> level(int64_t image, int i) const {
    const T* shape = op.valid_shapes ? static_cast<const T*>(op.valid_shapes) + 2 * image : nullptr;
    return atss_level(op.levels.level[i], shape, op.anchor_scale, op.center_offset);
  }
  __device__ __forceinline__ Box<T> gt_box(int64_t image, int64_t gt) const {
    const T* corner = static_cast<const T*>(op.gt_boxes) + (image * op.num_gts + gt) * 4;
    return {corner[0], corner[1], corner[2], corner[3]};
  }
  __device__ __forceinline__ int64_t label(int64_t image, int64_t gt) const {
    return op.gt_labels[image * op.num_gts + gt];
  }
  __device__ __forceinline__ bool takes_part(int64_t image, int64_t gt) const {
    if (op.gt_counts && gt >= op.gt_counts[image]) return false;
    return !op.gt_labels || (label(image, gt) >= 0 && label(image, gt) < op.classes);
  }
  __device__ __forceinline__ T iou(int64_t image, int64_t gt, int64_t anchor) const {
    const LevelTable::Cell cell = table.cell(anchor);
    return plain_iou(anchor_box(level(image, cell.level), cell.x, cell.y), gt_box(image, gt), constant<T>(kUnionFloor));
  }
};

// What the warp of a ground truth keeps in shared memory.
template <class T>
struct AtssScratch {
  T* distances;  // (levels, columns and rows, topk)
  T* ious;       // (candidates)
  int* places;   // as distances
  int* anchors;  // (candidates), -1 where the centre is not inside

  static int bytes(const gfl_atss_assign& op) {
    const int most = op.levels.count * op.topk;
    return (3 * most * static_cast<int>(sizeof(T) + sizeof(int)) + 15) / 16 * 16;
  }
  __device__ __forceinline__ AtssScratch(unsigned char* memory, const gfl_atss_assign& op) {
    const int most = op.levels.count * op.topk;
    distances = reinterpret_cast<T*>(memory);
    ious = distances + 2 * most;
    places = reinterpret_cast<int*>(ious + most);
    anchors = places + 2 * most;
  }
};

// The candidates of one level go behind the first `found`, nearest first; returns how many there are then. Every lane
// takes cells and counts for each the cells that are nearer.
template <class T>
__device__ __forceinline__ int find_candidates(const AtssArguments<T>& op, const AtssScratch<T>& scratch,
                                               const AtssLevel<T>& seen, int i, const Box<T>& box, int found) {
  const int topk = op.op.topk;
  const T* across = scratch.distances + 2 * i * topk;
  const T* down = across + topk;
  const int* columns = scratch.places + 2 * i * topk;
  const int* rows = columns + topk;
  const auto exists = [&](int p) { return op.ranks.column[p] < seen.width && op.ranks.row[p] < seen.height; };
  const auto candidate = [&](int p) -> AtssCandidate<T> {
    const int column = op.ranks.column[p];
    const int row = op.ranks.row[p];
    return {across[column] * across[column] + down[row] * down[row], columns[column], rows[row]};
  };
  for (int p = static_cast<int>(threadIdx.x) % kWarp; p < op.ranks.count; p += kWarp) {
    if (!exists(p)) continue;
    const AtssCandidate<T> mine = candidate(p);
    int rank = 0;
    for (int q = 0; q < op.ranks.count; ++q) rank += exists(q) && nearer(candidate(q), mine);
    if (rank >= topk) continue;
    const int64_t anchor = op.table.first[i] + static_cast<int64_t>(mine.y) * seen.row_cells + mine.x;
    scratch.ious[found + rank] = plain_iou(anchor_box(seen, mine.x, mine.y), box, constant<T>(kUnionFloor));
    scratch.anchors[found + rank] = center_inside(seen, mine.x, mine.y, box) ? static_cast<int>(anchor) : -1;
  }
  const int64_t cells = static_cast<int64_t>(seen.width) * seen.height;
  return found + (cells < topk ? static_cast<int>(cells) : topk);
}

template <class T>
__device__ __forceinline__ void claim_positives(const AtssArguments<T>& op, const AtssScratch<T>& scratch,
                                                int64_t image, int gt) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const Box<T> box = op.gt_box(image, gt);
  T center_x, center_y;
  if (!op.takes_part(image, gt) || !box_center(box, center_x, center_y)) return;

  const int topk = op.op.topk;
  if (lane < 2 * op.table.count) {
    const AtssLevel<T> seen = op.level(image, lane / 2);
    const int cells = lane % 2 ? seen.height : seen.width;
    nearest_on_axis(lane % 2 ? center_y : center_x, seen.stride, seen.offset, cells, cells < topk ? cells : topk,
                    scratch.places + lane * topk, scratch.distances + lane * topk);
  }
  __syncwarp();
  int found = 0;
  for (int i = 0; i < op.table.count; ++i) found = find_candidates(op, scratch, op.level(image, i), i, box, found);
  __syncwarp();
  const double threshold = atss_threshold(scratch.ious, found);
  for (int k = lane; k < found; k += kWarp) {
    const T iou = scratch.ious[k];
    if (scratch.anchors[k] >= 0 && static_cast<double>(iou) >= threshold) {
      const int anchor = scratch.anchors[k];
      claim_from_weaker(op.op.assigned_gt + image * op.table.all() + anchor, gt, CompareExchange(), [&](int32_t rival) {
        const T other = op.iou(image, rival, anchor);
        return iou > other || (iou == other && gt < rival);
      });
    }
  }
  __syncwarp();  // the next ground truth writes the scratch again
}

template <class T>
__global__ void __launch_bounds__(kThreads) atss_clear(const AtssArguments<T> op) {
  const int64_t size = op.op.batch * op.table.all();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < size; i += step) {
    const int64_t image = op.table.by_anchors.divide_long(i);
    const LevelTable::Cell cell = op.table.cell(i - image * op.table.all());
    const AtssLevel<T> seen = op.level(image, cell.level);
    op.op.assigned_gt[i] = cell.x < seen.width && cell.y < seen.height ? GFL_BACKGROUND : GFL_OUTSIDE;
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 6) atss_claim(const AtssArguments<T> op, int scratch_bytes) {
  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const AtssScratch<T> scratch(dynamic_shared<unsigned char>() + warp * scratch_bytes, op.op);
  const int64_t gts = op.op.batch * op.op.num_gts;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kGtsOfBlock;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kGtsOfBlock + warp; i < gts; i += step) {
    const int64_t image = i / op.op.num_gts;
    claim_positives(op, scratch, image, static_cast<int>(i - image * op.op.num_gts));
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) atss_hand_out(const AtssArguments<T> op) {
  const int64_t size = op.op.batch * op.table.all();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < size; i += step) {
    const int gt = op.op.assigned_gt[i];
    const int64_t image = op.table.by_anchors.divide_long(i);
    const int64_t anchor = i - image * op.table.all();
    if (op.op.assigned_iou) op.op.assigned_iou[i] = gt < 0 ? 0.0f : static_cast<float>(op.iou(image, gt, anchor));
    if (op.op.labels) op.op.labels[i] = gt < 0 ? gt : static_cast<int32_t>(op.label(image, gt));
  }
}

template <class T>
int run(Stream& stream, const gfl_atss_assign& op) {
  const AtssArguments<T> arguments(op);
  const int64_t anchors = op.batch * arguments.table.all();
  if (anchors == 0) return GFL_OK;
  const int blocks = stream.blocks((anchors + kThreads - 1) / kThreads, 16);
  stream.launch(atss_clear<T>, Grid{blocks, kThreads}, arguments);
  if (op.num_gts > 0) {
    const int scratch_bytes = AtssScratch<T>::bytes(op);
    const int claiming = stream.blocks((op.batch * op.num_gts + kGtsOfBlock - 1) / kGtsOfBlock, 16);
    stream.launch(atss_claim<T>, Grid{claiming, kThreads, kGtsOfBlock * scratch_bytes}, arguments, scratch_bytes);
  }
  if (op.assigned_iou || op.labels) stream.launch(atss_hand_out<T>, Grid{blocks, kThreads}, arguments);
  return stream.status();
}

}  // namespace

int atss_assign(const gfl_device& device, const gfl_atss_assign& op) {
  Stream stream(device);
  return op.dtype == GFL_FLOAT64 ? run<double>(stream, op) : run<float>(stream, op);
}

}  // namespace cuda
}  // namespace gfl
