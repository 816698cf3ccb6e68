// ATSS in three launches: clear the anchors; a block for each ground truth, a warp for each level, finds its positives and
// claims them; then what else is asked of an anchor is read from its winner.
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

// The ranks (column, row) whose cells can be among the k nearest, for k up to kFewCandidates; see math/atss_assign.h.
struct NearRanks {
  static constexpr int kMost = 119;
  int count = 0;
  uint8_t column[kMost];
  uint8_t row[kMost];

  explicit NearRanks(int k) : column{}, row{} {
    if (k > kFewCandidates) return;
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
    return anchor_iou(level(image, cell.level), cell.x, cell.y, gt_box(image, gt));
  }
};

// The candidates of a level, few of them: the warp keeps them in shared memory, nearest first.
template <class T>
class FewCells {
 public:
  static int shared_bytes(const gfl_atss_assign& op) {
    return op.topk * static_cast<int>(2 * sizeof(T) + 4 * sizeof(int)) * op.levels.count;
  }

  // All lanes of the warp call it together. Every lane takes cells and counts for each the cells that are nearer.
  __device__ __forceinline__ FewCells(const AtssArguments<T>& op, const AtssLevel<T>& seen, T center_x, T center_y)
      : topk_(op.op.topk), found_(static_cast<int>(candidates_of(seen, topk_))) {
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    T* distances = dynamic_shared<T>() + 2 * warp * topk_;
    int* places = reinterpret_cast<int*>(dynamic_shared<T>() + 2 * op.table.count * topk_) + 4 * warp * topk_;
    cells_ = places + 2 * topk_;
    if (lane < 2) {
      const int cells = lane ? seen.height : seen.width;
      nearest_on_axis(lane ? center_y : center_x, seen.stride, seen.offset, cells, cells < topk_ ? cells : topk_,
                      places + lane * topk_, distances + lane * topk_);
    }
    __syncwarp();
    const auto exists = [&](int p) { return op.ranks.column[p] < seen.width && op.ranks.row[p] < seen.height; };
    const auto candidate = [&](int p) -> AtssCandidate<T> {
      const int column = op.ranks.column[p];
      const int row = topk_ + op.ranks.row[p];
      return {distances[column] * distances[column] + distances[row] * distances[row], places[column], places[row]};
    };
    for (int p = lane; p < op.ranks.count; p += kWarp) {
      if (!exists(p)) continue;
      const AtssCandidate<T> mine = candidate(p);
      int rank = 0;
      for (int q = 0; q < op.ranks.count; ++q) rank += exists(q) && nearer(candidate(q), mine);
      if (rank >= topk_) continue;
      cells_[2 * rank] = mine.x;
      cells_[2 * rank + 1] = mine.y;
    }
    __syncwarp();
  }

  __device__ __forceinline__ int64_t count() const { return found_; }
  // Calls use(x, y), the lanes sharing the cells.
  template <class Use>
  __device__ __forceinline__ void for_each(const Use& use) const {
    for (int k = static_cast<int>(threadIdx.x) % kWarp; k < found_; k += kWarp) use(cells_[2 * k], cells_[2 * k + 1]);
  }

 private:
  int topk_;
  int found_;
  int* cells_;
};

__device__ __forceinline__ int64_t warp_total(int64_t value) {
  for (int bits = kWarp / 2; bits > 0; bits /= 2) value += shuffled(value, bits);
  return value;
}

// Any number of them: a disc, whose rows the lanes share.
template <class T>
class ManyCells {
 public:
  __device__ __forceinline__ ManyCells(const AtssArguments<T>& op, const AtssLevel<T>& seen, T center_x, T center_y)
      : count_(candidates_of(seen, op.op.topk)) {
    if (count_ == 0) return;
    disc_ = cells_around(seen, center_x, center_y);
    disc_.hold(count_, [&](T most) {
      int64_t found = 0;
      const Run rows = disc_.rows_within(most);
      for (int row = rows.begin + lane(); row < rows.end; row += kWarp) found += disc_.columns_within(row, most).size();
      return warp_total(found);
    });
  }

  __device__ __forceinline__ int64_t count() const { return count_; }
  template <class Use>
  __device__ __forceinline__ void for_each(const Use& use) const {
    if (count_ == 0) return;
    const Run rows = disc_.rows_within(disc_.outer);
    int64_t edge = disc_.on_edge;  // before the rows that the lanes have
    for (int first = rows.begin; first < rows.end; first += kWarp) {
      const int row = first + lane();
      int64_t before = 0;
      if (edge > 0) {
        const int64_t own = row < rows.end ? disc_.on_edge_of_row(row) : 0;
        for (int other = 0; other < kWarp; ++other) {
          const int64_t of_other = __shfl_sync(kFullWarp, own, other);
          if (other < lane()) before += of_other;
        }
        if (row < rows.end) disc_.for_each_of_row(row, edge - before, [&](int column) { use(column, row); });
        edge -= warp_total(own);
      } else if (row < rows.end) {
        disc_.for_each_of_row(row, 0, [&](int column) { use(column, row); });
      }
    }
  }

 private:
  static __device__ __forceinline__ int lane() { return static_cast<int>(threadIdx.x) % kWarp; }

  int64_t count_;
  CellDisc<T> disc_;
};

struct CandidateSums {
  double of_level[GFL_MAX_LEVELS];
};

// Of all levels, each of which a warp has; all threads have the sum.
__device__ __forceinline__ double sum_of_levels(double value, int levels) {
  double (&sums)[GFL_MAX_LEVELS] = static_shared<CandidateSums>().of_level;
  for (int bits = kWarp / 2; bits > 0; bits /= 2) value += shuffled(value, bits);
  if (threadIdx.x % kWarp == 0) sums[threadIdx.x / kWarp] = value;
  __syncthreads();
  double sum = 0;
  for (int i = 0; i < levels; ++i) sum += sums[i];
  __syncthreads();  // the next call writes them again
  return sum;
}

template <class T, template <class> class Candidates>
__device__ __forceinline__ void claim_positives(const AtssArguments<T>& op, int64_t image, int gt) {
  const Box<T> box = op.gt_box(image, gt);
  T center_x, center_y;
  if (!op.takes_part(image, gt) || !box_center(box, center_x, center_y)) return;

  const int levels = op.table.count;
  const int level = static_cast<int>(threadIdx.x) / kWarp;
  const AtssLevel<T> seen = op.level(image, level);
  const Candidates<T> candidates(op, seen, center_x, center_y);
  double sum = 0;
  candidates.for_each([&](int x, int y) { sum += static_cast<double>(anchor_iou(seen, x, y, box)); });
  const bool counts = threadIdx.x % kWarp == 0;
  const double count = sum_of_levels(counts ? static_cast<double>(candidates.count()) : 0.0, levels);
  const double mean = sum_of_levels(sum, levels) / count;
  double squares = 0;
  candidates.for_each([&](int x, int y) {
    const double apart = static_cast<double>(anchor_iou(seen, x, y, box)) - mean;
    squares += apart * apart;
  });
  const double threshold = atss_threshold(mean, sum_of_levels(squares, levels), static_cast<int64_t>(count));
  candidates.for_each([&](int x, int y) {
    const T iou = anchor_iou(seen, x, y, box);
    if (!(static_cast<double>(iou) >= threshold) || !center_inside(seen, x, y, box)) return;
    const int64_t anchor = op.table.first[level] + static_cast<int64_t>(y) * seen.row_cells + x;
    claim_from_weaker(op.op.assigned_gt + image * op.table.all() + anchor, gt, CompareExchange(), [&](int32_t rival) {
      const T other = op.iou(image, rival, anchor);
      return iou > other || (iou == other && gt < rival);
    });
  });
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

// A block for each ground truth, in which each level has a warp.
template <class T, template <class> class Candidates>
__global__ void __launch_bounds__(GFL_MAX_LEVELS* kWarp) atss_claim(const AtssArguments<T> op) {
  for (int64_t i = blockIdx.x; i < op.op.batch * op.op.num_gts; i += gridDim.x) {
    const int64_t image = i / op.op.num_gts;
    claim_positives<T, Candidates>(op, image, static_cast<int>(i - image * op.op.num_gts));
    __syncthreads();  // the next ground truth writes the shared memory again
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
    Grid grid{stream.blocks(op.batch * op.num_gts, 16), op.levels.count * kWarp};
    if (op.topk <= kFewCandidates) {
      grid.shared_bytes = FewCells<T>::shared_bytes(op);
      stream.launch(atss_claim<T, FewCells>, grid, arguments);
    } else {
      stream.launch(atss_claim<T, ManyCells>, grid, arguments);
    }
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
