// Dense classification losses of maps, whichever way they lie.
//
// Of a map of one level and image either the positions lie side by side or the classes do: that axis is cut into vectors
// of 16 bytes, and a thread follows one vector along the other axis for kItemSteps steps, several of them in flight.
// Neighbours take neighbouring vectors. The items of all levels and images are numbered through, so that small levels fill
// no block of their own, and those that are too few to go round all threads once more are cut in kItemParts parts.
// Everything counts as negative at first; what has a positive or a position that is left out in it goes the careful way.
#pragma once

#include "class_loss_flat.cuh"
#include "levels.cuh"

namespace gfl {
namespace cuda {

constexpr int kMapThreads = 256;
constexpr int kItemSteps = 16;
constexpr int kItemParts = 4;

// The usual losses of float have a kernel for each purpose; the unusual ones, and those of double, share one that can do
// all. Nobody wants a half gradient from the forward, which would be rounded twice once it is scaled: there are two
// kernels for that.
template <class T, class Formula>
constexpr bool kSharedKernel = sizeof(T) == 8 || (sizeof(T) == 4 && !UsualFormula<Formula>::value);

// One map: along the vectors, and across them.
template <class T>
struct MapAxes {
  int64_t batch_stride;
  int64_t along_stride;
  int64_t across_stride;

  MapAxes() : batch_stride(0), along_stride(0), across_stride(0) {}
  MapAxes(const gfl_map& map, bool positions_along)
      : batch_stride(map.batch_stride),
        along_stride(positions_along ? map.position_stride : map.channel_stride),
        across_stride(positions_along ? map.channel_stride : map.position_stride) {}

  // All vectors begin on a boundary.
  bool whole(const void* data, int64_t along) const {
    return aligned(data, 16) && along % kPack<T> == 0 && along_stride == 1 && batch_stride % kPack<T> == 0 &&
           across_stride % kPack<T> == 0;
  }
  __device__ __forceinline__ int64_t offset(int64_t image, int along, int across) const {
    return image * batch_stride + along * along_stride + across * across_stride;
  }
};

template <class T>
struct MapLevel {
  const T* pred;
  T* grad;
  MapAxes<T> pred_axes;
  MapAxes<T> grad_axes;
  bool positions_along;
  bool whole;
  int along;
  int across;
  int64_t anchor;  // the first
  int64_t vectors;
  int64_t items;  // of an image: vectors times runs
  Divider by_vectors;
  Divider by_items;

  MapLevel() = default;
  MapLevel(const gfl_multilevel_class_loss& op, const LevelTable& table, int level)
      : pred(static_cast<const T*>(op.pred.level[level].data)), anchor(table.first[level]) {
    const gfl_map& map = op.pred.level[level];
    const int positions = static_cast<int>(table.size(level));
    const int classes = static_cast<int>(op.classes);
    positions_along = classes == 1 || (positions > 1 && map.position_stride < map.channel_stride);
    along = positions_along ? positions : classes;
    across = positions_along ? classes : positions;
    pred_axes = MapAxes<T>(map, positions_along);
    whole = pred_axes.whole(pred, along);
    grad = nullptr;
    if (op.grad.count > 0) {
      grad = static_cast<T*>(op.grad.level[level].data);
      grad_axes = MapAxes<T>(op.grad.level[level], positions_along);
      whole = whole && grad_axes.whole(grad, along);
    }
    vectors = (along + kPack<T> - 1) / kPack<T>;
    items = vectors * ((across + kItemSteps - 1) / kItemSteps);
    by_vectors = Divider(vectors);
    by_items = Divider(items);
  }
};

template <class T>
struct MapArguments {
  using C = Compute<T>;

  int levels;
  MapLevel<T> level[GFL_MAX_LEVELS];
  int64_t first_item[GFL_MAX_LEVELS + 1];
  int64_t items;
  int64_t anchors;
  const int32_t* labels;
  const C* scores;
  const C* grad_loss;
  bool sum;
  LossSums<C> sums;

  MapArguments(const gfl_multilevel_class_loss& op, bool backward)
      : levels(op.levels.count),
        first_item{},
        labels(op.labels),
        scores(static_cast<const C*>(op.scores)),
        grad_loss(backward ? static_cast<const C*>(op.grad_loss) : nullptr),
        sum(!backward),
        sums{static_cast<double*>(op.workspace),
             {static_cast<C*>(op.loss), nullptr},
             Scale<C>(gfl_reduction{GFL_REDUCE_SUM, op.scale, 1, op.avg_factor})} {
    const LevelTable table(op.levels);
    anchors = table.all();
    for (int i = 0; i < levels; ++i) {
      level[i] = MapLevel<T>(op, table, i);
      first_item[i + 1] = first_item[i] + op.batch * level[i].items;
    }
    items = first_item[levels];
  }

  __device__ __forceinline__ C score(int64_t anchor) const { return scores ? scores[anchor] : constant<C>(1.0); }
};

// What a thread takes next: an item, or one part of it.
struct MapPiece {
  int64_t item;
  int part;  // -1: the whole item
};

// Whole items for as long as there is one for every thread; the others in parts, the first of each, then the second.
struct MapPlan {
  int64_t whole;
  int64_t rest;

  MapPlan(int64_t items, int64_t threads) : whole(items / threads * threads), rest(items - whole) {}

  __device__ __forceinline__ int64_t pieces() const { return whole + kItemParts * rest; }
  __device__ __forceinline__ MapPiece piece(int64_t i) const {
    if (i < whole) return {i, -1};
    int64_t item = i;
    int part = 0;
    for (; item - whole >= rest; item -= rest) ++part;
    return {item, part};
  }
};

// Where a vector lies, and how far its thread goes.
struct MapItem {
  int64_t image;
  int along;  // of the vector's first element
  int count;  // of its elements
  int across;
  int end;

  __device__ __forceinline__ void keep(const MapPiece& piece) {
    if (piece.part < 0) return;
    constexpr int kSteps = kItemSteps / kItemParts;
    across += piece.part * kSteps;
    end = across + kSteps < end ? across + kSteps : end;
  }
};

template <class T>
__device__ __forceinline__ MapItem map_item(const MapLevel<T>& level, int64_t item) {
  const int64_t image = level.by_items.divide_long(item);
  const int64_t within = item - image * level.items;
  const int64_t run = level.by_vectors.divide_long(within);
  const int along = static_cast<int>(within - run * level.vectors) * kPack<T>;
  const int across = static_cast<int>(run) * kItemSteps;
  return {image, along, level.along - along < kPack<T> ? level.along - along : kPack<T>, across,
          level.across - across < kItemSteps ? level.across : across + kItemSteps};
}

// Which elements of a vector are beyond the map.
template <int N>
__device__ __forceinline__ unsigned beyond(int count) {
  return count < N ? ~0u << count & ((1u << N) - 1u) : 0u;
}

// The labels of vectors of positions: the same for every class, of which the next that is somebody's is known. They are
// read again where that is come to, which is rare; keeping them would take registers.
template <int N>
class PositionLabels {
 public:
  __device__ __forceinline__ PositionLabels(const int32_t* labels, const MapItem& item)
      : labels_(labels + item.along), count_(item.count), left_out_(beyond<N>(item.count)) {
#pragma unroll
    for (int i = 0; i < N; ++i) {
      if (i < count_ && labels_[i] == GFL_OUTSIDE) left_out_ |= 1u << i;
    }
    positives(item.across - 1);
  }
  // Whether nothing but negatives stands in the next classes.
  __device__ __forceinline__ bool plain(int first, int classes) const {
    return left_out_ == 0 && next_ >= first + classes;
  }
  __device__ __forceinline__ unsigned left_out(int) const { return left_out_; }
  // Of class c, which must not be less than the last that was asked for.
  __device__ __forceinline__ unsigned positives(int c) {
    if (c < next_) return 0;
    unsigned found = 0;
    next_ = kNone;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const int label = i < count_ ? labels_[i] : GFL_BACKGROUND;
      found |= label == c ? 1u << i : 0u;
      if (label > c && label < next_) next_ = label;
    }
    return found;
  }
  static __device__ __forceinline__ int position(const MapItem& item, int, int i) { return item.along + i; }

 private:
  static constexpr int kNone = 0x7fffffff;
  const int32_t* labels_;
  int count_;
  unsigned left_out_;
  int next_ = GFL_OUTSIDE;  // nothing is known
};

// The labels of vectors of classes: one for each position.
template <int N>
class ClassLabels {
 public:
  __device__ __forceinline__ ClassLabels(const int32_t* labels, const MapItem& item)
      : labels_(labels), first_(item.along), beyond_(beyond<N>(item.count)) {}

  __device__ __forceinline__ bool plain(int first, int positions) const {
    bool all = beyond_ == 0;
    for (int k = 0; k < positions; ++k) {
      const int label = labels_[first + k];
      all = all & (label != GFL_OUTSIDE) & !within(label);
    }
    return all;
  }
  __device__ __forceinline__ unsigned left_out(int p) const {
    return labels_[p] == GFL_OUTSIDE ? (1u << N) - 1u : beyond_;
  }
  __device__ __forceinline__ unsigned positives(int p) const {
    const int label = labels_[p];
    return within(label) ? 1u << (label - first_) & ~beyond_ : 0u;
  }
  static __device__ __forceinline__ int position(const MapItem&, int p, int) { return p; }

 private:
  __device__ __forceinline__ bool within(int label) const {
    return static_cast<unsigned>(label) - static_cast<unsigned>(first_) < static_cast<unsigned>(N);
  }
  const int32_t* labels_;
  int first_;
  unsigned beyond_;
};

// The work of one thread on one item.
template <class T, class Formula, bool kLoss, bool kGrad>
struct MapThread {
  using C = Compute<T>;
  static constexpr int N = kPack<T>;
  // Vectors that are worked on together; as many are on their way meanwhile.
  static constexpr int kUnroll = UsualFormula<Formula>::value ? 2 : 1;

  const MapArguments<T>& op;
  const MapLevel<T>& level;
  const Formula& formula;
  const MapItem& item;
  C grad_scale;

  template <class Labels>
  __device__ __forceinline__ double run() const {
    Labels labels(op.labels + item.image * op.anchors + level.anchor, item);
    const T* pred = level.pred + level.pred_axes.offset(item.image, item.along, 0);
    T* grad = writes(level.grad) ? level.grad + level.grad_axes.offset(item.image, item.along, 0) : nullptr;
    double total = 0.0;
    Vector<T, N> next[kUnroll];
    load(pred, item.across, next);
    for (int at = item.across; at < item.end; at += kUnroll) {
      Vector<T, N> logits[kUnroll];
#pragma unroll
      for (int j = 0; j < kUnroll; ++j) logits[j] = next[j];
      load(pred, at + kUnroll, next);
      if (whole(at) && labels.plain(at, kUnroll)) {
        total += static_cast<double>(plain(logits, grad, at));
      } else {
        const int end = at + kUnroll < item.end ? at + kUnroll : item.end;
#pragma unroll 1
        for (int k = at; k < end; ++k) total += careful(pred, grad, k, labels);
      }
    }
    return total;
  }

 private:
  // The shared kernel may be asked for no gradient.
  static __device__ __forceinline__ bool writes(const T* grad) {
    return kGrad && (!kSharedKernel<T, Formula> || grad != nullptr);
  }

  __device__ __forceinline__ bool whole(int at) const { return level.whole && at + kUnroll <= item.end; }

  __device__ __forceinline__ void load(const T* pred, int at, Vector<T, N> (&logits)[kUnroll]) const {
    if (!whole(at)) return;
#pragma unroll
    for (int j = 0; j < kUnroll; ++j) {
      logits[j] = Vector<T, N>::load(pred + (at + j) * level.pred_axes.across_stride);
    }
  }

  __device__ __forceinline__ C plain(const Vector<T, N> (&logits)[kUnroll], T* grad, int at) const {
    LossLanes<C, N> loss;
#pragma unroll
    for (int j = 0; j < kUnroll; ++j) {
      const VectorTerms<T> terms = negative_terms<T>(formula, logits[j]);
      if (writes(grad)) {
        terms.narrowed_grad(grad_scale).store(grad + (at + j) * level.grad_axes.across_stride);
      }
      if (kLoss) terms.add_losses(loss);
    }
    return loss.sum();
  }

  // One vector, element by element: whatever its alignment, and whatever stands in it.
  template <class Labels>
  __device__ __forceinline__ double careful(const T* pred, T* grad, int at, Labels& labels) const {
    constexpr int kPart = 4 < N ? 4 : N;  // in flight; more of a half type would take too many registers
    const T* from = pred + at * level.pred_axes.across_stride;
    T* to = grad + (writes(grad) ? at * level.grad_axes.across_stride : 0);
    const unsigned left_out = labels.left_out(at);
    const unsigned positives = labels.positives(at);
    double loss = 0.0;
#pragma unroll 1
    for (int first = 0; first < item.count; first += kPart) {
      C x[kPart];
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        x[i] = left_out >> (first + i) & 1u ? C() : widen(from[(first + i) * level.pred_axes.along_stride]);
      }
#pragma unroll
      for (int i = 0; i < kPart; ++i) {
        const LossGrad<C> term = negative_loss<T>(formula, x[i]);
        const bool dropped = ((left_out | positives) >> (first + i) & 1u) != 0;
        if (kLoss) loss += static_cast<double>(select(dropped, C(), term.loss));
        if (writes(grad) && first + i < item.count) {
          to[(first + i) * level.grad_axes.along_stride] = narrow<T>(select(dropped, C(), term.grad * grad_scale));
        }
      }
    }
#pragma unroll 1
    for (int i = 0; positives >> i != 0; ++i) {
      if ((positives >> i & 1u) == 0) continue;
      const int64_t anchor = item.image * op.anchors + level.anchor + Labels::position(item, at, i);
      const LossGrad<C> term = formula.positive(widen(from[i * level.pred_axes.along_stride]), op.score(anchor));
      if (kLoss) loss += static_cast<double>(term.loss);
      if (writes(grad)) to[i * level.grad_axes.along_stride] = narrow<T>(term.grad * grad_scale);
    }
    return loss;
  }
};

// Blocks that a multiprocessor must have room for.
template <class T>
constexpr int kMapBlocks = std::is_same<T, double>::value ? 2 : 3;

template <class T, class Formula, bool kLoss, bool kGrad>
__global__ void __launch_bounds__(kMapThreads, kMapBlocks<T>)
    multilevel_class_loss_kernel(const MapArguments<T> op, const Formula formula, const MapPlan plan) {
  using C = Compute<T>;
  constexpr int N = kPack<T>;
  const C grad_scale = op.sums.scale.value() * (op.grad_loss ? *op.grad_loss : constant<C>(1.0));
  const int64_t step = static_cast<int64_t>(gridDim.x) * kMapThreads;
  double total = 0.0;
  int number = 0;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kMapThreads + threadIdx.x; i < plan.pieces(); i += step) {
    const MapPiece piece = plan.piece(i);
    if (piece.item < op.first_item[number]) number = 0;
    while (piece.item >= op.first_item[number + 1]) ++number;
    const MapLevel<T>& level = op.level[number];
    MapItem item = map_item(level, piece.item - op.first_item[number]);
    item.keep(piece);
    const MapThread<T, Formula, kLoss, kGrad> thread{op, level, formula, item, grad_scale};
    total += level.positions_along ? thread.template run<PositionLabels<N>>() : thread.template run<ClassLabels<N>>();
  }
  if (kLoss && op.sum) op.sums.add_block(0, total);
}

}  // namespace cuda
}  // namespace gfl
