// The boxes of all cells of a dense head: a thread for each side of each cell, cells of a side next to each other.
#include "../math/distribution_box_loss.h"
#include "../math/softmax.h"
#include "cuda_ops.h"
#include "dispatch.cuh"
#include "launch.h"
#include "levels.cuh"

namespace gfl {
namespace cuda {
namespace {

constexpr int kDecodeThreads = 256;

template <class T>
struct DecodeArguments {
  gfl_decode_maps op;
  LevelTable table;
  int64_t size;
  Divider by_anchors;

  explicit DecodeArguments(const gfl_decode_maps& op_)
      : op(op_),
        table(op_.levels),
        size((op_.batch > 0 ? op_.batch : 1) * kSides * table.all()),  // the points are wanted without an image, too
        by_anchors(table.all()) {}
};

template <class T>
struct MapSide {
  const T* first;
  int64_t channel_stride;
  __device__ __forceinline__ Compute<T> operator()(int k) const { return widen(first[k * channel_stride]); }
};

template <class T>
__global__ void __launch_bounds__(kDecodeThreads) decode_maps_kernel(const DecodeArguments<T> given) {
  using C = Compute<T>;
  const gfl_decode_maps& op = given.op;
  const int64_t anchors = given.table.all();
  const int bins = static_cast<int>(op.bins);
  const int64_t step = static_cast<int64_t>(gridDim.x) * kDecodeThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kDecodeThreads + threadIdx.x; i < given.size; i += step) {
    const int64_t of_image = given.by_anchors.divide_long(i);
    const int64_t anchor = i - of_image * anchors;
    const int64_t image = of_image / kSides;
    const int side = static_cast<int>(of_image % kSides);
    const LevelTable::Cell cell = given.table.cell(anchor);
    const C stride = static_cast<C>(op.levels.level[cell.level].stride);
    const C offset = static_cast<C>(op.center_offset) * stride;
    const C point = static_cast<C>(is_horizontal(side) ? cell.x : cell.y) * stride + offset;
    if (image == 0 && side < 2) static_cast<C*>(op.points)[2 * anchor + side] = point;
    if (image >= op.batch) continue;
    const gfl_map& map = op.edges.level[cell.level];
    const int64_t position = anchor - given.table.first[cell.level];
    const MapSide<T> x{static_cast<const T*>(map.data) + image * map.batch_stride + position * map.position_stride +
                           side * bins * map.channel_stride,
                       map.channel_stride};
    const C reach = (bins == 1 ? x(0) : expectation_of<C>(x, bins)) * stride;
    static_cast<C*>(op.boxes)[(image * anchors + anchor) * kSides + side] = side < 2 ? point - reach : point + reach;
  }
}

}  // namespace

int decode_maps(const gfl_device& device, const gfl_decode_maps& op) {
  Stream stream(device);
  return with_float_type(op.edges.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const DecodeArguments<T> arguments(op);
    if (arguments.size == 0) return static_cast<int>(GFL_OK);
    const int blocks = stream.blocks((arguments.size + kDecodeThreads - 1) / kDecodeThreads, 8);
    stream.launch(decode_maps_kernel<T>, Grid{blocks, kDecodeThreads}, arguments);
    return stream.status();
  });
}

}  // namespace cuda
}  // namespace gfl
