// The IoU family on aligned boxes, a block of sixteen pairs at a time, and the pairwise overlap.
#include "../simd/bins_tile.h"
#include "kernel.h"

namespace gfl {
namespace GFL_ISA {
namespace {

constexpr int64_t kPairCost = 16;  // a pair is worth as much arithmetic as this many class logits

// Corner c of box i stands at data[c * kBlock + i].
template <class T>
struct BoxTile {
  alignas(64) T data[4 * kBlock];

  GFL_MEMBER Box<Vector<T>> at(int i) const {
    return {load(data + i), load(data + kBlock + i), load(data + 2 * kBlock + i), load(data + 3 * kBlock + i)};
  }
  GFL_MEMBER void set(int i, const Box<Vector<T>>& box) {
    store(data + i, box.x1);
    store(data + kBlock + i, box.y1);
    store(data + 2 * kBlock + i, box.x2);
    store(data + 3 * kBlock + i, box.y2);
  }
};

#if defined(__GNUC__) && !defined(__clang__)
// The even or odd lanes of two vectors in one, and back.
GFL_FN VecF unzip(VecF a, VecF b, int odd) {
  VecI lanes;
  for (int j = 0; j < Lanes<float>::width; ++j) lanes[j] = 2 * j + odd;
  return __builtin_shuffle(a, b, lanes);
}
GFL_FN VecF zip(VecF a, VecF b, int upper) {
  constexpr int width = Lanes<float>::width;
  VecI lanes;
  for (int j = 0; j < width; ++j) lanes[j] = j / 2 + upper * width / 2 + (j % 2) * width;
  return __builtin_shuffle(a, b, lanes);
}

// Contiguous boxes, a vector's width of them: two rounds of unzipping part the four corners.
GFL_FN void boxes_to_tile(const float* in, float* tile) {
  constexpr int width = Lanes<float>::width;
  const VecF a = load(in), b = load(in + width), c = load(in + 2 * width), d = load(in + 3 * width);
  const VecF x_low = unzip(a, b, 0), y_low = unzip(a, b, 1), x_high = unzip(c, d, 0), y_high = unzip(c, d, 1);
  store(tile, unzip(x_low, x_high, 0));
  store(tile + kBlock, unzip(y_low, y_high, 0));
  store(tile + 2 * kBlock, unzip(x_low, x_high, 1));
  store(tile + 3 * kBlock, unzip(y_low, y_high, 1));
}
GFL_FN void tile_to_boxes(const float* tile, float* out) {
  constexpr int width = Lanes<float>::width;
  const VecF x1 = load(tile), y1 = load(tile + kBlock), x2 = load(tile + 2 * kBlock), y2 = load(tile + 3 * kBlock);
  const VecF x_low = zip(x1, x2, 0), x_high = zip(x1, x2, 1), y_low = zip(y1, y2, 0), y_high = zip(y1, y2, 1);
  store(out, zip(x_low, y_low, 0));
  store(out + width, zip(x_low, y_low, 1));
  store(out + 2 * width, zip(x_high, y_high, 0));
  store(out + 3 * width, zip(x_high, y_high, 1));
}
constexpr bool kTransposesBoxes = true;
#else
GFL_FN void boxes_to_tile(const float*, float*) {}
GFL_FN void tile_to_boxes(const float*, float*) {}
constexpr bool kTransposesBoxes = false;
#endif

bool whole_block(const gfl_matrix& m, int count) {
  return kTransposesBoxes && m.dtype == GFL_FLOAT32 && m.col_stride == 1 && m.row_stride == 4 && count == kBlock;
}

template <class T>
void load_boxes(const gfl_matrix& m, int64_t row, int count, BoxTile<T>& tile) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (whole_block(m, count)) {
      const float* in = static_cast<const float*>(m.data) + row * 4;
      prefetch_ahead<0>(in, sizeof(tile.data));
      for (int i = 0; i < kBlock; i += Lanes<float>::width) boxes_to_tile(in + i * 4, tile.data + i);
      return;
    }
  }
  for (int c = 0; c < 4; ++c) {
    load_run(m.data, m.dtype, row * m.row_stride + c * m.col_stride, m.row_stride, count, tile.data + c * kBlock);
    for (int i = count; i < kBlock; ++i) tile.data[c * kBlock + i] = T();
  }
}

template <class T>
void store_boxes(const BoxTile<T>& tile, const gfl_matrix& m, int64_t row, int count) {
  if constexpr (sizeof(T) == sizeof(float)) {
    if (whole_block(m, count)) {
      float* out = static_cast<float*>(m.data) + row * 4;
      prefetch_ahead<1>(out, sizeof(tile.data));
      for (int i = 0; i < kBlock; i += Lanes<float>::width) tile_to_boxes(tile.data + i, out + i * 4);
      return;
    }
  }
  for (int c = 0; c < 4; ++c) {
    store_run(tile.data + c * kBlock, count, m.data, m.dtype, row * m.row_stride + c * m.col_stride, m.row_stride);
  }
}

template <class T>
class IouLoss {
 public:
  IouLoss(const gfl_iou_loss& op, Pass pass) : op_(op), pass_(pass), scale_(effective_scale<T>(op.reduction)) {}

  void run() const {
    double* partials = static_cast<double*>(op_.workspace);
    const bool summed = pass_ == Pass::kForward && op_.reduction.mode == GFL_REDUCE_SUM;
    parallel_rows(op_.rows, kPairCost, [&](int64_t chunk, int64_t begin, int64_t end) {
      BlockSums sums;
      for (int64_t row = begin; row < end; row += kBlock) {
        run_block(row, static_cast<int>(end - row < kBlock ? end - row : kBlock), sums);
      }
      if (summed) partials[chunk] = sums.total();
    });
    if (summed) write_sum<T>(partials, chunk_count(op_.rows, kPairCost), scale_, op_.loss);
  }

 private:
  using V = Vector<T>;

  void run_block(int64_t row, int count, BlockSums& sums) const {
    BoxTile<T> pred, target, grad;
    T weight[kBlock], upstream[kBlock], loss[kBlock];
    load_boxes(op_.pred, row, count, pred);
    load_boxes(op_.target, row, count, target);
    load_block(op_.weight, row, 1, count, T(1), weight);
    if (op_.grad_loss)
      load_block(op_.grad_loss, row * op_.grad_loss_stride, op_.grad_loss_stride, count, T(), upstream);
    const V scale = V() + static_cast<T>(scale_);
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const BoxLoss<V> pair = box_loss(pred.at(i), target.at(i), op_.options);
      store(loss + i, pair.loss * load(weight + i));
      V factor = scale * load(weight + i);
      if (op_.grad_loss) factor = factor * load(upstream + i);
      grad.set(i, {pair.grad.x1 * factor, pair.grad.y1 * factor, pair.grad.x2 * factor, pair.grad.y2 * factor});
    }
    if (op_.grad.data) store_boxes(grad, op_.grad, row, count);
    if (pass_ == Pass::kBackward) return;
    sums.add(loss, count);
    if (op_.reduction.mode == GFL_REDUCE_ROWS) {
      T* out = static_cast<T*>(op_.loss) + row;
      for (int i = 0; i < count; ++i) out[i] = static_cast<T>(static_cast<double>(loss[i]) * scale_);
    }
  }

  const gfl_iou_loss& op_;
  const Pass pass_;
  const double scale_;
};

template <class T>
void run_box_iou(const gfl_box_iou& op) {
  using V = Vector<T>;
  const V floor = V() + static_cast<T>(op.eps);
  const int64_t across = op.aligned ? op.rows : op.cols;  // the axis that fills the vectors
  const int64_t lines = op.aligned ? 1 : op.rows;
  const int64_t pieces = chunk_count(across, kPairCost);
  parallel_chunks(lines * pieces, [&](int64_t chunk) {
    const int64_t line = chunk / pieces;
    const int64_t begin = chunk % pieces * chunk_rows(kPairCost);
    const int64_t end = begin + chunk_rows(kPairCost) < across ? begin + chunk_rows(kPairCost) : across;
    T corner[4] = {};
    if (!op.aligned) load_run(op.a.data, op.a.dtype, line * op.a.row_stride, op.a.col_stride, 4, corner);
    const Box<V> one{V() + corner[0], V() + corner[1], V() + corner[2], V() + corner[3]};
    for (int64_t start = begin; start < end; start += kBlock) {
      const int count = static_cast<int>(end - start < kBlock ? end - start : kBlock);
      BoxTile<T> a, b;
      T iou[kBlock];
      load_boxes(op.b, start, count, b);
      if (op.aligned) load_boxes(op.a, start, count, a);
      for (int i = 0; i < kBlock; i += Lanes<T>::width) {
        store(iou + i, plain_iou(op.aligned ? a.at(i) : one, b.at(i), floor));
      }
      T* out = static_cast<T*>(op.iou) + line * across + start;
      for (int i = 0; i < count; ++i) out[i] = iou[i];
    }
  });
}

}  // namespace

int iou_loss(const gfl_iou_loss& op, Pass pass) {
  return with_compute_type(op.pred.dtype, "pred", [&](auto zero) {
    IouLoss<decltype(zero)>(op, pass).run();
    return GFL_OK;
  });
}

int box_iou(const gfl_box_iou& op) {
  return with_compute_type(op.a.dtype, "a", [&](auto zero) {
    run_box_iou<decltype(zero)>(op);
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
