// What only the positives of a dense head need, wherever they lie in the maps of its levels: they are listed in the
// order of the anchors, and worked on a block of sixteen at a time.
#include <cstring>

#include "../maps.h"
#include "box_block.h"
#include "kernel.h"

namespace gfl {
namespace GFL_ISA {
namespace {

// Anchors of all images in a row: index = image * anchors + anchor.
class Positives {
 public:
  Positives(const gfl_levels& levels, int64_t batch, const int32_t* assigned_gt, void* workspace)
      : anchors_(levels), all_(batch * anchors_.all()), index_(static_cast<int64_t*>(workspace)) {
    for (int64_t image = 0, i = 0; image < batch; ++image) {
      const int64_t before = count_;
      for (const int64_t end = i + anchors_.all(); i < end; ++i) {
        index_[count_] = i;
        count_ += assigned_gt[i] >= 0;
      }
      at_least_one_each_ += count_ > before ? count_ - before : 1;
    }
    partials_ = reinterpret_cast<double*>(index_ + all_ + 1);
  }

  int64_t anchors() const { return all_; }
  int64_t count() const { return count_; }
  int64_t at_least_one_each() const { return at_least_one_each_; }

  struct Place {
    int64_t index;
    int64_t image;
    int level;
    int64_t position;
  };
  Place place(int64_t i) const {
    const int64_t image = index_[i] / anchors_.all();
    const int64_t anchor = index_[i] - image * anchors_.all();
    const int level = anchors_.level_of(anchor);
    return {index_[i], image, level, anchor - anchors_.first[level]};
  }

  // Calls run(places, how many, sums) for every block, and leaves in totals what the blocks added to the sums.
  template <int kSums, class Run>
  void for_each_block(double (&totals)[kSums], const Run& run) const {
    const int64_t chunks = positive_chunks(count_);
    parallel_chunks(chunks, [&](int64_t chunk) {
      double sums[kSums] = {};
      const int64_t end = (chunk + 1) * kChunkPositives < count_ ? (chunk + 1) * kChunkPositives : count_;
      for (int64_t begin = chunk * kChunkPositives; begin < end; begin += kBlock) {
        Place places[kBlock];
        const int size = static_cast<int>(end - begin < kBlock ? end - begin : kBlock);
        for (int i = 0; i < size; ++i) places[i] = place(begin + i);
        run(places, size, sums);
      }
      for (int k = 0; k < kSums; ++k) partials_[chunk * kSums + k] = sums[k];
    });
    for (int k = 0; k < kSums; ++k) {
      totals[k] = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) totals[k] += partials_[chunk * kSums + k];
    }
  }

 private:
  const AnchorLevels anchors_;
  const int64_t all_;
  int64_t* index_;
  double* partials_;
  int64_t count_ = 0;
  int64_t at_least_one_each_ = 0;
};

using Place = Positives::Place;

// Where the channels of a block of positions lie in maps of values S.
template <class S>
struct BlockView {
  S* base[kBlock];
  int64_t channel_stride[kBlock];
  int count;

  BlockView(const gfl_maps& maps, const Place* places, int count_, int64_t first_channel) : count(count_) {
    for (int i = 0; i < count; ++i) {
      const gfl_map& map = maps.level[places[i].level];
      channel_stride[i] = map.channel_stride;
      base[i] = static_cast<S*>(map.data) + places[i].image * map.batch_stride +
                places[i].position * map.position_stride + first_channel * map.channel_stride;
    }
  }

  // Channel k of position i stands at block[k * kBlock + i]; past `count` there are zeros.
  template <class T>
  void load(int64_t channels, T* block) const {
    for (int64_t k = 0; k < channels; ++k) {
      for (int i = 0; i < count; ++i) block[k * kBlock + i] = static_cast<T>(widen(base[i][k * channel_stride[i]]));
      for (int i = count; i < kBlock; ++i) block[k * kBlock + i] = T();
    }
  }
  template <class T>
  void store(const T* block, int64_t channels) const {
    for (int64_t k = 0; k < channels; ++k) {
      for (int i = 0; i < count; ++i) {
        base[i][k * channel_stride[i]] = narrow<S>(static_cast<Compute<S>>(block[k * kBlock + i]));
      }
    }
  }
};

template <class T, class S>
void positive_weights_of(const gfl_positive_weights& op) {
  const Positives positives(op.levels, op.batch, op.assigned_gt, op.workspace);
  std::memset(op.weights, 0, static_cast<size_t>(positives.anchors()) * sizeof(T));
  double total[1];
  positives.for_each_block(total, [&](const Place* places, int count, double* sum) {
    constexpr int64_t kChannels = 64;
    T block[kChannels * kBlock], most[kBlock];
    for (int64_t first = 0; first < op.classes; first += kChannels) {
      const int64_t channels = op.classes - first < kChannels ? op.classes - first : kChannels;
      BlockView<S>(op.scores, places, count, first).load(channels, block);
      for (int64_t k = 0; k < channels; ++k) {
        for (int i = 0; i < kBlock; ++i) {
          most[i] = first + k == 0 ? block[i] : maximum(most[i], block[k * kBlock + i]);
        }
      }
    }
    for (int i = 0; i < count; ++i) {
      const T weight = op.classes > 0 ? sigmoid_parts(most[i]).p : T();
      static_cast<T*>(op.weights)[places[i].index] = weight;
      sum[0] += static_cast<double>(weight);
    }
  });
  static_cast<T*>(op.normalisers)[0] = static_cast<T>(positives.at_least_one_each());
  static_cast<T*>(op.normalisers)[1] = static_cast<T>(total[0]);
  *static_cast<T*>(op.num_pos) = static_cast<T>(positives.count());
}

template <class T, class S>
class PositiveBoxes {
 public:
  explicit PositiveBoxes(const gfl_positive_boxes& op)
      : op_(op), bins_(static_cast<int>(op.bins)), positives_(op.levels, op.batch, op.assigned_gt, op.workspace) {}

  void forward() const {
    std::memset(op_.quality, 0, static_cast<size_t>(positives_.anchors()) * sizeof(T));
    double totals[kPositiveSums];
    positives_.for_each_block(totals, [&](const Place* places, int count, double* sums) {
      BoxBlock<T> block;
      load_inputs(places, count, block);
      block.forward(bins_, op_.target_margin, op_.options);
      for (int i = 0; i < count; ++i) {
        static_cast<T*>(op_.quality)[places[i].index] = block.quality[i];
        sums[0] += static_cast<double>(block.iou[i]);
        sums[1] += static_cast<double>(block.dfl[i]);
        sums[2] += static_cast<double>(block.quality[i]);
        sums[3] += static_cast<double>(block.weight[i]);
      }
      sums[4] += count;
    });
    for (int k = 0; k < kPositiveSums; ++k) op_.sums[k] = totals[k];
  }

  void backward() const {
    clear_gradient();
    const T weight = *static_cast<const T*>(op_.total_weight);
    const T grad_iou = over_weight(static_cast<double>(value(op_.grad_iou)), op_.scale_iou, weight);
    const T grad_dfl = over_weight(static_cast<double>(value(op_.grad_dfl)), op_.scale_dfl, weight);
    double nothing[1];
    positives_.for_each_block(nothing, [&](const Place* places, int count, double*) {
      BoxBlock<T> block;
      load_inputs(places, count, block);
      for (int i = 0; i < kBlock; ++i) {
        block.grad_iou[i] = grad_iou;
        block.grad_dfl[i] = grad_dfl;
      }
      block.backward(bins_, op_.target_margin, op_.options, T(1));
      for (int side = 0; side < kSides; ++side) {
        BlockView<S>(op_.grad, places, count, side * op_.bins).store(block.tiles[side].data, op_.bins);
      }
    });
  }

 private:
  static T value(const void* scalar) { return scalar ? *static_cast<const T*>(scalar) : T(); }

  // The positives' targets, and their anchor points from the grid.
  void load_inputs(const Place* places, int count, BoxBlock<T>& block) const {
    const ImageSize<T> image(op_.levels);
    for (int i = 0; i < kBlock; ++i) {
      const Place& at = places[i < count ? i : 0];
      const gfl_level& level = op_.levels.level[at.level];
      const T stride = static_cast<T>(level.stride);
      const T offset = static_cast<T>(op_.center_offset) * stride;
      const T* box = static_cast<const T*>(op_.gt_boxes) + 4 * (at.image * op_.num_gts + op_.assigned_gt[at.index]);
      block.x[i] = static_cast<T>(at.position % level.width) * stride + offset;
      block.y[i] = static_cast<T>(at.position / level.width) * stride + offset;
      block.stride[i] = stride;
      block.width[i] = image.width;
      block.height[i] = image.height;
      block.weight[i] = static_cast<const T*>(op_.weights)[at.index];
      for (int c = 0; c < 4; ++c) block.corner[c][i] = box[c];
    }
    for (int side = 0; side < kSides; ++side) {
      BlockView<S>(op_.edges, places, count, side * op_.bins).load(op_.bins, block.tiles[side].data);
    }
  }

  // Most anchors are not positive. The maps of a gradient are dense.
  void clear_gradient() const {
    constexpr int64_t kBytes = int64_t{1} << 18;
    const AnchorLevels levels(op_.levels);
    for (int level = 0; level < levels.count; ++level) {
      char* data = static_cast<char*>(op_.grad.level[level].data);
      const int64_t size = op_.batch * kSides * op_.bins * levels.size(level) * static_cast<int64_t>(sizeof(S));
      parallel_chunks((size + kBytes - 1) / kBytes, [&](int64_t chunk) {
        const int64_t begin = chunk * kBytes;
        std::memset(data + begin, 0, static_cast<size_t>(size - begin < kBytes ? size - begin : kBytes));
      });
    }
  }

  const gfl_positive_boxes& op_;
  const int bins_;
  const Positives positives_;
};

template <class T>
int box_losses_of(const gfl_box_losses& op) {
  const T weight = *static_cast<const T*>(op.total_weight);
  *static_cast<T*>(op.loss_iou) = over_weight(op.sums[0], op.scale_iou, weight);
  *static_cast<T*>(op.loss_dfl) = over_weight(op.sums[1], op.scale_dfl, weight);
  *static_cast<T*>(op.mean_quality) = mean_quality(op.sums[2], *static_cast<const T*>(op.num_pos));
  return GFL_OK;
}

// Calls run(T, S) with zeros of the compute type and of the type that is stored.
template <class Run>
int with_types(int32_t dtype, const Run& run) {
  switch (dtype) {
    case GFL_FLOAT64:
      return run(double(), double()), GFL_OK;
    case GFL_FLOAT32:
      return run(float(), float()), GFL_OK;
    case GFL_BFLOAT16:
      return run(float(), bfloat16()), GFL_OK;
    case GFL_FLOAT16:
      return run(float(), float16()), GFL_OK;
    default:
      return fail(GFL_ERROR_ARGUMENT, "unknown dtype %d of the maps", dtype);
  }
}

}  // namespace

int positive_weights(const gfl_positive_weights& op) {
  return with_types(op.scores.dtype, [&](auto t, auto s) { positive_weights_of<decltype(t), decltype(s)>(op); });
}

int positive_boxes(const gfl_positive_boxes& op, Pass pass) {
  return with_types(op.edges.dtype, [&](auto t, auto s) {
    const PositiveBoxes<decltype(t), decltype(s)> boxes(op);
    pass == Pass::kForward ? boxes.forward() : boxes.backward();
  });
}

int box_losses(const gfl_box_losses& op) {
  return op.dtype == GFL_FLOAT64 ? box_losses_of<double>(op) : box_losses_of<float>(op);
}

}  // namespace GFL_ISA
}  // namespace gfl
