// The boxes of the positives: four neighbouring threads for each, as in distribution_box_loss.cu, but where its edges lie in
// the maps says the list of a tile's positives.
#include "../math/atss_assign.h"
#include "../math/gfl_loss.h"
#include "bins_launch.cuh"
#include "cuda_ops.h"
#include "positives.cuh"
#include "sides.cuh"

namespace gfl {
namespace cuda {
namespace {

constexpr int kFinishThreads = 256;
constexpr int kRowsBytes = kTileBytes - 2048;  // the list of positives lies in shared memory, too

template <class T>
struct PositiveArguments {
  using C = Compute<T>;

  gfl_positive_boxes op;
  PositiveTiles tiles;
  int bins;
  int pitch;  // odd, as in bins_tile.cuh
  int rows;   // of shared memory: sides that are worked on at once
  C most;     // of a target distance
  ImageSize<C> image;

  explicit PositiveArguments(const gfl_positive_boxes& op_)
      : op(op_),
        tiles(op_.levels, op_.batch),
        bins(static_cast<int>(op_.bins)),
        pitch(bins | 1),
        rows(kRowsBytes / (pitch * static_cast<int>(sizeof(C))) / kSides * kSides),
        most(static_cast<C>(static_cast<double>(op_.bins - 1) - op_.target_margin)),
        image(op_.levels) {
    if (rows > kPositiveThreads) rows = kPositiveThreads;
  }

  __device__ __forceinline__ BoxTarget<C> target(const PositiveTiles::Place& tile, int cell) const {
    const C stride = static_cast<C>(op.levels.level[tile.level].stride);
    const C offset = static_cast<C>(op.center_offset) * stride;
    const int position = tile.position + cell;
    const int y = tiles.table.by_width[tile.level].divide(position);
    const int x = position - y * tiles.table.width[tile.level];
    const C* box =
        static_cast<const C*>(op.gt_boxes) + 4 * (tile.image * op.num_gts + op.assigned_gt[tile.index + cell]);
    return box_target(cell_center(x, stride, offset), cell_center(y, stride, offset),
                      Box<C>{box[0], box[1], box[2], box[3]}, stride);
  }
  __device__ __forceinline__ C weight(const PositiveTiles::Place& tile, int cell) const {
    return static_cast<const C*>(op.weights)[tile.index + cell];
  }
  // What a sum's gradient is, from the loss's.
  __device__ __forceinline__ C upstream(const void* grad_loss, double scale) const {
    const C grad = grad_loss ? *static_cast<const C*>(grad_loss) : C();
    return over_weight(static_cast<double>(grad), scale, *static_cast<const C*>(op.total_weight));
  }
};

// One side of one positive, in the thread's own row of shared memory.
template <class T, int kBins>
struct PositiveSide {
  using C = Compute<T>;

  const PositiveArguments<T>& op;
  const PositiveTiles::Place& tile;
  int cell;  // -1: none
  int side;
  TileRow<C> x;
  BoxTarget<C> target = {};
  DflTarget<C> near = {};
  DflRow<C> row = {};
  C expectation = C();
  C slope = C();  // of one bin

  __device__ __forceinline__ PositiveSide(const PositiveArguments<T>& op_, const PositiveTiles::Place& tile_, int cell_)
      : op(op_),
        tile(tile_),
        cell(cell_),
        side(static_cast<int>(threadIdx.x) % kSides),
        x{dynamic_shared<C>() + static_cast<int>(threadIdx.x) * op_.pitch} {
    if (cell < 0) return;
    const int64_t stride = op.op.edges.level[tile.level].channel_stride;
    const T* from = cell_of<const T>(op.op.edges, tile, cell) + side * bins() * stride;
#pragma unroll
    for (int k = 0; k < kBins; ++k) x(k) = widen(from[k * stride]);
#pragma unroll 4
    for (int k = kBins; k < bins(); ++k) x(k) = widen(from[k * stride]);
    target = op.target(tile, cell);
    if (bins() == 1) {
      expectation = x(0);
      const DistanceLoss<C> distance = distance_loss(target, side, expectation, op.image.along(side));
      row.loss = distance.loss;
      slope = distance.slope;
      return;
    }
    near = dfl_target(target_distance(target, side, op.most), C(), bins());
    row = gfl::dfl_forward<C>(x, bins(), near);
    expectation = bins_expectation(x, bins(), row.inverse_sum, CountingValues<C>{});
  }

  __device__ __forceinline__ int bins() const { return kBins ? kBins : op.bins; }

  // All threads of a warp must come to these two, also those without a positive.
  __device__ __forceinline__ void forward(double (&sums)[GFL_POSITIVE_SUMS]) const {
    C expectations[kSides];
    C dfl[kSides];
    gather_sides(expectation, expectations);
    gather_sides(row.loss, dfl);
    if (cell < 0 || side != 0) return;
    const DistributionBox<C> box = distribution_box(target, expectations, op.op.options);
    const C weight = op.weight(tile, cell);
    static_cast<C*>(op.op.quality)[tile.index + cell] = box.quality;
    sums[0] += static_cast<double>(box.loss * weight);
    sums[1] += static_cast<double>((dfl[0] + dfl[1] + dfl[2] + dfl[3]) * constant<C>(1.0 / kSides) * weight);
    sums[2] += static_cast<double>(box.quality);
    sums[3] += static_cast<double>(weight);
    sums[4] += 1.0;
  }

  __device__ __forceinline__ void backward(C grad_iou, C grad_dfl) const {
    C expectations[kSides];
    gather_sides(expectation, expectations);
    if (cell < 0) return;
    const DistributionBox<C> box = distribution_box(target, expectations, op.op.options);
    const C weight = op.weight(tile, cell);
    const C of_box = of_side(side, box.grad[0], box.grad[1], box.grad[2], box.grad[3]);
    const C through_box = grad_iou * weight * of_box;
    const C through_bins = grad_dfl * weight * constant<C>(1.0 / kSides);
    if (bins() == 1) {
      x(0) = through_box + through_bins * slope;
    } else {
      distribution_box_gradient(x, bins(), near, row.inverse_sum, expectation, through_box, through_bins);
    }
    const int64_t stride = op.op.grad.level[tile.level].channel_stride;
    T* to = cell_of<T>(op.op.grad, tile, cell) + side * bins() * stride;
#pragma unroll
    for (int k = 0; k < kBins; ++k) to[k * stride] = narrow<T>(x(k));
#pragma unroll 4
    for (int k = kBins; k < bins(); ++k) to[k * stride] = narrow<T>(x(k));
  }
};

// Zeros for `count` neighbours, shared by `workers`; 16 bytes at a time but for the ends.
template <class T>
__device__ __forceinline__ void clear_run(T* data, int64_t count, int worker, int workers) {
  constexpr int N = kPack<T>;
  const int misplaced = static_cast<int>(reinterpret_cast<uintptr_t>(data) % 16 / sizeof(T));
  int64_t head = misplaced ? N - misplaced : 0;
  if (head > count) head = count;
  const int64_t packs = (count - head) / N;
  uint4* aligned_data = reinterpret_cast<uint4*>(data + head);
  for (int64_t i = worker; i < packs; i += workers) aligned_data[i] = uint4{0, 0, 0, 0};
  if (worker < head) data[worker] = T();
  const int64_t rest = head + packs * N;
  if (rest + worker < count) data[rest + worker] = T();
}

// Most cells are not positive.
template <class T>
__device__ __forceinline__ void clear_tile(const gfl_maps& maps, const PositiveTiles::Place& tile, int channels) {
  const gfl_map& map = maps.level[tile.level];
  T* data = cell_of<T>(maps, tile, 0);
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarp;
  const int lane = thread % kWarp;
  constexpr int kWarps = kPositiveThreads / kWarp;
  if (map.position_stride == 1) {
    for (int c = warp; c < channels; c += kWarps) clear_run(data + c * map.channel_stride, tile.cells, lane, kWarp);
  } else if (map.channel_stride == 1 && map.position_stride == channels) {
    clear_run(data, static_cast<int64_t>(tile.cells) * channels, thread, kPositiveThreads);
  } else {
    for (int cell = warp; cell < tile.cells; cell += kWarps) {
      for (int c = lane; c < channels; c += kWarp) data[cell * map.position_stride + c * map.channel_stride] = T();
    }
  }
}

template <class T, int kBins, bool kGrad>
__global__ void __launch_bounds__(kPositiveThreads, kTileBlocks<T>)
    positive_boxes_kernel(const PositiveArguments<T> op) {
  using C = Compute<T>;
  PositiveList& list = static_shared<PositiveList>();
  const int thread = static_cast<int>(threadIdx.x);
  const C grad_iou = kGrad ? op.upstream(op.op.grad_iou, op.op.scale_iou) : C();
  const C grad_dfl = kGrad ? op.upstream(op.op.grad_dfl, op.op.scale_dfl) : C();
  C* qualities = static_cast<C*>(op.op.quality);
  for (int64_t number = blockIdx.x; number < op.tiles.count; number += gridDim.x) {
    const PositiveTiles::Place tile = op.tiles.place(number);
    if (kGrad) clear_tile<T>(op.op.grad, tile, kSides * op.bins);  // finished at the barriers of the next line
    const int count = list_positives(op.op.assigned_gt, tile, list, [&](int cell) {
      if (!kGrad) qualities[tile.index + cell] = C();
    });
    double sums[GFL_POSITIVE_SUMS] = {};
    for (int first = 0; first < count; first += op.rows / kSides) {
      const int i = first + thread / kSides;
      const PositiveSide<T, kBins> mine(op, tile, thread < op.rows && i < count ? list.cells[i] : -1);
      if (kGrad) {
        mine.backward(grad_iou, grad_dfl);
      } else {
        mine.forward(sums);
      }
    }
    if (kGrad) continue;
    double* partials = static_cast<double*>(op.op.workspace) + number * GFL_POSITIVE_SUMS;
#pragma unroll
    for (int k = 0; k < GFL_POSITIVE_SUMS; ++k) {
      const double sum = count > 0 ? block_sum(sums[k]) : 0.0;
      if (thread == 0) partials[k] = sum;
    }
  }
}

// A block for each sum.
__global__ void __launch_bounds__(kFinishThreads) finish_boxes(const double* partials, int64_t tiles, double* sums) {
  double sum = 0.0;
  for (int64_t i = threadIdx.x; i < tiles; i += kFinishThreads) sum += partials[i * GFL_POSITIVE_SUMS + blockIdx.x];
  sum = block_sum(sum);
  if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

template <class C>
__global__ void __launch_bounds__(kWarp) box_losses_kernel(const gfl_box_losses op) {
  if (threadIdx.x != 0) return;
  const C weight = *static_cast<const C*>(op.total_weight);
  *static_cast<C*>(op.loss_iou) = over_weight(op.sums[0], op.scale_iou, weight);
  *static_cast<C*>(op.loss_dfl) = over_weight(op.sums[1], op.scale_dfl, weight);
  *static_cast<C*>(op.mean_quality) = mean_quality(op.sums[2], *static_cast<const C*>(op.num_pos));
}

template <class T, int kBins>
void run(Stream& stream, const gfl_positive_boxes& op, bool backward) {
  const PositiveArguments<T> arguments(op);
  if (arguments.tiles.count > 0) {
    const Grid grid{stream.blocks(arguments.tiles.count, 12), kPositiveThreads,
                    arguments.rows * arguments.pitch * static_cast<int>(sizeof(Compute<T>))};
    stream.launch(backward ? positive_boxes_kernel<T, kBins, true> : positive_boxes_kernel<T, kBins, false>, grid,
                  arguments);
  }
  if (backward) return;
  stream.launch(finish_boxes, Grid{GFL_POSITIVE_SUMS, kFinishThreads}, static_cast<const double*>(op.workspace),
                arguments.tiles.count, op.sums);
}

int positive_boxes(const gfl_device& device, const gfl_positive_boxes& op, bool backward) {
  Stream stream(device);
  return with_bins(op.edges.dtype, op.bins, [&](auto type, auto bins) {
    run<typename decltype(type)::type, decltype(bins)::value>(stream, op, backward);
    return stream.status();
  });
}

}  // namespace

int positive_boxes_forward(const gfl_device& device, const gfl_positive_boxes& op) {
  return positive_boxes(device, op, false);
}

int positive_boxes_backward(const gfl_device& device, const gfl_positive_boxes& op) {
  return positive_boxes(device, op, true);
}

int box_losses_forward(const gfl_device& device, const gfl_box_losses& op) {
  Stream stream(device);
  stream.launch(op.dtype == GFL_FLOAT64 ? box_losses_kernel<double> : box_losses_kernel<float>, Grid{1, kWarp}, op);
  return stream.status();
}

}  // namespace cuda
}  // namespace gfl
