// The boxes of all cells of a dense head, sixteen neighbouring cells at a time.
#include "../maps.h"
#include "../simd/bins_tile.h"
#include "../simd/formulas.h"
#include "kernel.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
class DecodeMaps {
 public:
  explicit DecodeMaps(const gfl_decode_maps& op)
      : op_(op), bins_(static_cast<int>(op.bins)), anchors_(op.levels), values_(nullptr, 0.0, op.bins) {}

  void run() const {
    for (int level = 0; level < anchors_.count; ++level) {
      const int64_t pieces = (anchors_.size(level) + kCells - 1) / kCells;
      parallel_chunks(op_.batch * pieces, [&](int64_t chunk) {
        const int64_t first = chunk % pieces * kCells;
        const int64_t end = first + kCells < anchors_.size(level) ? first + kCells : anchors_.size(level);
        for (int64_t cell = first; cell < end; cell += kBlock) {
          decode(level, chunk / pieces, cell, static_cast<int>(end - cell < kBlock ? end - cell : kBlock));
        }
      });
    }
    if (op_.batch == 0) write_points();
  }

 private:
  static constexpr int64_t kCells = 32 * kBlock;

  void decode(int level, int64_t image, int64_t cell, int count) const {
    using V = Vector<T>;
    const gfl_map& map = op_.edges.level[level];
    const gfl_bins logits{map.data, op_.edges.dtype, map.batch_stride, map.channel_stride, map.position_stride};
    BinsTile<T> tile;
    T distance[kSides][kBlock];
    for (int side = 0; side < kSides; ++side) {
      load_bins(logits, image, side, cell, count, bins_, tile.data);
      for (int i = 0; i < kBlock; i += Lanes<T>::width) {
        const V plain = load(tile.data + i);
        store(distance[side] + i,
              bins_ == 1 ? plain : softmax_in_place<V>(TileColumn<T>{tile.data + i}, bins_, values_).expectation);
      }
    }
    T* boxes = static_cast<T*>(op_.boxes) + (image * anchors_.all() + anchors_.first[level] + cell) * 4;
    const T stride = static_cast<T>(op_.levels.level[level].stride);
    for (int i = 0; i < count; ++i) {
      T point[2];
      find_point(level, cell + i, point);
      if (image == 0) keep_point(anchors_.first[level] + cell + i, point);
      for (int side = 0; side < kSides; ++side) {
        const T reach = distance[side][i] * stride;
        boxes[4 * i + side] = side < 2 ? point[side] - reach : point[side - 2] + reach;
      }
    }
  }

  void find_point(int level, int64_t cell, T (&point)[2]) const {
    const gfl_level& of_level = op_.levels.level[level];
    const T stride = static_cast<T>(of_level.stride);
    const T offset = static_cast<T>(op_.center_offset) * stride;
    point[0] = static_cast<T>(cell % of_level.width) * stride + offset;
    point[1] = static_cast<T>(cell / of_level.width) * stride + offset;
  }

  void keep_point(int64_t anchor, const T (&point)[2]) const {
    T* points = static_cast<T*>(op_.points) + 2 * anchor;
    points[0] = point[0];
    points[1] = point[1];
  }

  // Of a batch without images, which has no boxes.
  void write_points() const {
    for (int level = 0; level < anchors_.count; ++level) {
      for (int64_t cell = 0; cell < anchors_.size(level); ++cell) {
        T point[2];
        find_point(level, cell, point);
        keep_point(anchors_.first[level] + cell, point);
      }
    }
  }

  const gfl_decode_maps& op_;
  const int bins_;
  const AnchorLevels anchors_;
  const BinValues<T> values_;
};

}  // namespace

int decode_maps(const gfl_decode_maps& op) {
  return with_compute_type(op.edges.dtype, "edges", [&](auto zero) {
    DecodeMaps<decltype(zero)>(op).run();
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
