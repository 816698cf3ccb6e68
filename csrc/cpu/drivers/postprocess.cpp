// Post-processing in two steps. Every level's logits are searched piece by piece, in parallel: a piece keeps the best
// candidates it has seen, and once it has enough of them, whatever cannot pass the worst is skipped unlooked-at. Then
// each image merges its levels, and decodes and compares its candidates from the best on until it has detections enough.
#include "../../error.h"
#include "../../level_logits.h"
#include "../../math/nms.h"
#include "../../workspace.h"
#include "../parallel.h"
#include "drivers.h"
#include "sort_by_score.h"

namespace gfl {
namespace {

constexpr int64_t kPiece = int64_t{1} << 19;  // logits that one thread searches
constexpr int kBlock = 16;                    // cells that are decoded together

// One level of one image, and the pieces in which it is searched.
struct SearchedLevel : LevelLogits {
  int64_t pieces;
  int64_t room;         // keys that a piece has place for
  int64_t first_piece;  // among an image's pieces
  int64_t first_key;    // among an image's keys
};

template <class T>
class Postprocess {
 public:
  Postprocess(const CpuKernels* kernels, const gfl_postprocess& op, void* workspace)
      : kernels_(kernels), op_(op), score_threshold_(static_cast<T>(op.score_threshold)) {
    for (int i = 0; i < op.num_levels; ++i) add_level(i);
    Workspace pieces(workspace);
    keys_ = pieces.take<OrderKey<T>>(op.batch * keys_an_image_);
    found_ = pieces.take<int64_t>(op.batch * pieces_an_image_);
    kept_keys_ = pieces.take<OrderKey<T>>(op.batch * op.room);
    const int64_t column = op.room + kColumnPadding;
    for (T** data : {&kept_.x1, &kept_.y1, &kept_.x2, &kept_.y2, &kept_.area}) {
      *data = pieces.take<T>(op.batch * column);
    }
    kept_.labels = pieces.take<int32_t>(op.batch * column);
    bytes_ = pieces.bytes();
  }

  int64_t bytes() const { return bytes_; }
  int64_t logits_an_image() const { return logits_; }

  void run() const {
    parallel_chunks(op_.batch * pieces_an_image_, [this](int64_t chunk) {
      const int64_t piece = chunk % pieces_an_image_;
      int level = 0;
      while (piece >= levels_[level].first_piece + levels_[level].pieces) ++level;
      search(chunk / pieces_an_image_, level, piece - levels_[level].first_piece);
    });
    parallel_chunks(op_.batch, [this](int64_t image) { detect(image); });
  }

 private:
  void add_level(int i) {
    SearchedLevel& level = levels_[i];
    static_cast<LevelLogits&>(level) = LevelLogits(op_, i, logits_);
    level.pieces = (level.size + kPiece - 1) / kPiece;
    level.room = std::min(level.most + std::max<int64_t>(level.most, 1024), std::min(level.size, kPiece));
    level.first_piece = pieces_an_image_;
    level.first_key = keys_an_image_;
    logits_ += level.size;
    pieces_an_image_ += level.pieces;
    keys_an_image_ += level.pieces * level.room;
  }

  OrderKey<T>* piece_keys(int64_t image, int level, int64_t piece) const {
    return keys_ + image * keys_an_image_ + levels_[level].first_key + piece * levels_[level].room;
  }
  int64_t& piece_found(int64_t image, int level, int64_t piece) const {
    return found_[image * pieces_an_image_ + levels_[level].first_piece + piece];
  }

  void search(int64_t image, int i, int64_t piece) const {
    const SearchedLevel& level = levels_[i];
    OrderKey<T>* keys = piece_keys(image, i, piece);
    int64_t found = 0;
    int32_t places[kScanTile + kColumnPadding];
    T values[kScanTile];
    T least = static_cast<T>(least_logit(static_cast<double>(score_threshold_)));
    const int64_t end = std::min((piece + 1) * kPiece, level.size);
    for (int64_t start = piece * kPiece; start < end;) {
      const int64_t run_end = (start / level.run + 1) * level.run;
      const int count = static_cast<int>(std::min<int64_t>(kScanTile, std::min(run_end, end) - start));
      const int reached = kernels_->scan(LogitScan<T>{level.scores.data, level.scores.dtype, level.offset(image, start),
                                                      level.step(), count, least, places, values});
      for (int j = 0; j < reached; ++j) {
        if (values[j] < least) continue;  // it rose while this tile was looked at
        const T score = score_of_logit(values[j]);
        if (!(score > score_threshold_)) continue;
        if (found == level.room) {
          keep_best(keys, found, level.most);
          least = std::max(least, static_cast<T>(least_logit(static_cast<double>(score_of(keys[level.most - 1])))));
        }
        keys[found++] = order_key(score, level.index(start + places[j]));
      }
      start += count;
    }
    if (found > level.most) keep_best(keys, found, level.most);
    piece_found(image, i, piece) = found;
  }

  // The best to the front, the worst of them last.
  static void keep_best(OrderKey<T>* keys, int64_t& count, int64_t most) {
    std::nth_element(keys, keys + most - 1, keys + count);
    count = most;
  }

  // The candidates of all levels together, at the front of the image's keys.
  int64_t merge(int64_t image) const {
    OrderKey<T>* keys = keys_ + image * keys_an_image_;
    int64_t total = 0;
    for (int i = 0; i < op_.num_levels; ++i) {
      int64_t found = 0;
      for (int64_t piece = 0; piece < levels_[i].pieces; ++piece) {
        const OrderKey<T>* from = piece_keys(image, i, piece);
        std::copy(from, from + piece_found(image, i, piece), keys + total + found);
        found += piece_found(image, i, piece);
      }
      if (found > levels_[i].most) keep_best(keys + total, found, levels_[i].most);
      total += found;
    }
    return total;
  }

  ImageFrame<T> frame(int64_t image) const {
    const T* shape = static_cast<const T*>(op_.image_shapes) + 2 * image;
    if (!op_.scale_factors) return {shape[0], shape[1], T(1), T(1)};
    const T* scale = static_cast<const T*>(op_.scale_factors) + 2 * image;
    return {shape[0], shape[1], scale[0], scale[1]};
  }

  struct Cell {
    int level;
    int64_t cell;
    int64_t label;
  };
  Cell cell_of(const OrderKey<T>& key) const {
    const int64_t index = index_of(key);
    int level = 0;
    while (index >= levels_[level].first_index + levels_[level].size) ++level;
    const int64_t place = index - levels_[level].first_index;
    return {level, place / op_.classes, place % op_.classes};
  }

  // The expectations of up to a block of candidates; with their distributions where `first` is a detection's number.
  EdgeBlock<T> decode(int64_t image, const OrderKey<T>* keys, int count, int64_t first = -1) const {
    EdgeBlock<T> block;
    block.count = count;
    block.bins = static_cast<int>(op_.bins);
    for (int i = 0; i < count; ++i) {
      const Cell cell = cell_of(keys[i]);
      const gfl_bins& edges = op_.levels[cell.level].edges;
      block.edges[i] = &edges;
      block.offsets[i] = image * edges.batch_stride + cell.cell * edges.length_stride;
      const int64_t detection = image * op_.room + first + i;
      block.distributions[i] = first < 0 ? nullptr : static_cast<T*>(op_.distributions) + detection * 4 * op_.bins;
      block.deviations[i] = first < 0 ? nullptr : static_cast<T*>(op_.deviations) + detection * 4;
    }
    kernels_->expect(block);
    return block;
  }

  void detect(int64_t image) const {
    constexpr int64_t batch = 512;  // candidates that are sorted at a time: most are never asked for
    OrderKey<T>* keys = keys_ + image * keys_an_image_;
    const int64_t total = merge(image);
    int64_t kept = 0;
    for (int64_t start = 0; start < total && kept < op_.room; start += batch) {
      const int64_t end = std::min(start + batch, total);
      if (end < total) std::nth_element(keys + start, keys + end - 1, keys + total);
      std::sort(keys + start, keys + end);
      for (int64_t i = start; i < end && kept < op_.room; i += kBlock) {
        kept = suppress_block(image, keys + i, static_cast<int>(std::min<int64_t>(kBlock, end - i)), kept);
      }
    }
    write(image, kept);
  }

  int64_t suppress_block(int64_t image, const OrderKey<T>* keys, int count, int64_t kept) const {
    T corners[5][kBlock];
    int32_t labels[kBlock];
    int which[kBlock];
    uint8_t stays[kBlock];
    const ImageFrame<T> image_frame = frame(image);
    const EdgeBlock<T> block = decode(image, keys, count);
    int large = 0;
    for (int i = 0; i < count; ++i) {
      const Cell cell = cell_of(keys[i]);
      const gfl_head_level& level = op_.levels[cell.level];
      const T expectation[4] = {block.expectation[0][i], block.expectation[1][i], block.expectation[2][i],
                                block.expectation[3][i]};
      const Box<T> box = detected_box(static_cast<T>(cell.cell % level.width), static_cast<T>(cell.cell / level.width),
                                      static_cast<T>(level.stride), expectation, image_frame);
      if (!exceeds(box, static_cast<T>(op_.min_size))) continue;
      corners[0][large] = box.x1;
      corners[1][large] = box.y1;
      corners[2][large] = box.x2;
      corners[3][large] = box.y2;
      corners[4][large] = box_area(box);
      labels[large] = static_cast<int32_t>(cell.label);
      which[large++] = i;
    }
    const BoxColumns<T> candidates{corners[0], corners[1], corners[2], corners[3], corners[4], labels};
    const int64_t end = kernels_->nms(GreedyNms<T>{candidates, large, kept_.from(image * (op_.room + kColumnPadding)),
                                                   kept, op_.room, op_.nms_threshold, op_.criterion, stays});
    for (int i = 0; i < large; ++i) {
      if (stays[i]) kept_keys_[image * op_.room + kept++] = keys[which[i]];
    }
    return end;
  }

  void write(int64_t image, int64_t kept) const {
    const BoxColumns<T> columns = kept_.from(image * (op_.room + kColumnPadding));
    T* boxes = static_cast<T*>(op_.boxes) + image * op_.room * 4;
    T* scores = static_cast<T*>(op_.scores) + image * op_.room;
    int64_t* labels = op_.labels + image * op_.room;
    const OrderKey<T>* keys = kept_keys_ + image * op_.room;
    op_.counts[image] = kept;
    for (int64_t i = 0; i < op_.room; ++i) {
      const bool there = i < kept;
      boxes[4 * i] = there ? columns.x1[i] : T();
      boxes[4 * i + 1] = there ? columns.y1[i] : T();
      boxes[4 * i + 2] = there ? columns.x2[i] : T();
      boxes[4 * i + 3] = there ? columns.y2[i] : T();
      scores[i] = there ? score_of(keys[i]) : T();
      labels[i] = there ? columns.labels[i] : -1;
    }
    if (op_.distributions) write_edges(image, kept);
  }

  void write_edges(int64_t image, int64_t kept) const {
    const OrderKey<T>* keys = kept_keys_ + image * op_.room;
    T* strides = static_cast<T*>(op_.strides) + image * op_.room;
    for (int64_t i = 0; i < kept; i += kBlock) {
      decode(image, keys + i, static_cast<int>(std::min<int64_t>(kBlock, kept - i)), i);
    }
    for (int64_t i = 0; i < kept; ++i) strides[i] = static_cast<T>(op_.levels[cell_of(keys[i]).level].stride);
    std::fill(strides + kept, strides + op_.room, T());
    T* distributions = static_cast<T*>(op_.distributions) + image * op_.room * 4 * op_.bins;
    std::fill(distributions + kept * 4 * op_.bins, distributions + op_.room * 4 * op_.bins, T());
    T* deviations = static_cast<T*>(op_.deviations) + image * op_.room * 4;
    std::fill(deviations + kept * 4, deviations + op_.room * 4, T());
  }

  const CpuKernels* kernels_;
  const gfl_postprocess& op_;
  const T score_threshold_;
  SearchedLevel levels_[GFL_MAX_LEVELS];
  int64_t logits_ = 0;
  int64_t pieces_an_image_ = 0;
  int64_t keys_an_image_ = 0;
  OrderKey<T>* keys_;
  int64_t* found_;
  OrderKey<T>* kept_keys_;
  BoxColumns<T> kept_;
  int64_t bytes_ = 0;
};

template <class T>
int run(const CpuKernels& kernels, const gfl_postprocess& op) {
  const Postprocess<T> postprocess(&kernels, op, op.workspace);
  if (postprocess.logits_an_image() >= kOrderKeyIndices) {
    return fail(GFL_ERROR_ARGUMENT, "an image may have fewer than 2^32 logits, got %lld",
                static_cast<long long>(postprocess.logits_an_image()));
  }
  postprocess.run();
  return GFL_OK;
}

}  // namespace

int cpu_postprocess(const CpuKernels& kernels, const gfl_postprocess& op) {
  return op.dtype == GFL_FLOAT64 ? run<double>(kernels, op) : run<float>(kernels, op);
}

int64_t cpu_postprocess_workspace_bytes(const gfl_postprocess& op) {
  return op.dtype == GFL_FLOAT64 ? Postprocess<double>(nullptr, op, nullptr).bytes()
                                 : Postprocess<float>(nullptr, op, nullptr).bytes();
}

}  // namespace gfl
