// NMS in three steps: the boxes by descending score, cut into classes; every class by itself, in parallel; and what
// stayed, by descending score again.
#include "../../error.h"
#include "../../math/nms.h"
#include "../../workspace.h"
#include "../parallel.h"
#include "drivers.h"
#include "sort_by_score.h"

namespace gfl {
namespace {

// The boxes of one class, by descending score.
struct Segment {
  int64_t begin;  // in the order by class
  int64_t end;
  int64_t column;  // where its columns start
};

template <class T>
class Nms {
 public:
  Nms(const CpuKernels* kernels, const gfl_nms& op, void* workspace) : kernels_(kernels), op_(op) {
    Workspace pieces(workspace);
    const int64_t n = op.count;
    keys_ = pieces.take<OrderKey<T>>(n);
    scratch_ = pieces.take<OrderKey<T>>(n);
    stays_ = pieces.take<uint8_t>(columns());
    for (T** column : {&boxes_.x1, &boxes_.y1, &boxes_.x2, &boxes_.y2, &boxes_.area}) {
      *column = pieces.take<T>(columns());
    }
    boxes_.labels = nullptr;
    if (op.classes) {
      by_class_ = pieces.take<int64_t>(n);
      segments_ = pieces.take<Segment>(n);
      places_ = pieces.take<int64_t>(most_counted());
    }
    bytes_ = pieces.bytes();
  }

  int64_t bytes() const { return bytes_; }

  void run() {
    sort_boxes();
    Segment all{0, num_sorted_, 0};
    num_segments_ = 1;
    if (op_.classes) {
      split_by_class();
    } else {
      segments_ = &all;
    }
    suppress();
    collect();
  }

 private:
  static constexpr int64_t kLarge = 4096;  // boxes of a class that are worth all threads

  // Every class is padded, except those of one box, which need no columns.
  int64_t columns() const { return op_.classes ? op_.count * 9 + kColumnPadding : op_.count + kColumnPadding; }
  // Classes within this range of numbers are counted, wilder ones sorted.
  int64_t most_counted() const { return 4 * op_.count + 1024; }

  void sort_boxes() {
    const T* scores = static_cast<const T*>(op_.scores);
    for (int64_t i = 0; i < op_.count; ++i) {
      if (scores[i] == scores[i]) keys_[num_sorted_++] = order_key(scores[i], i);
    }
    sort_by_score(keys_, num_sorted_, scratch_);
  }

  int64_t class_at(int64_t position) const { return op_.classes[index_of(keys_[position])]; }
  int64_t position_at(int64_t i) const { return op_.classes ? by_class_[i] : i; }

  void split_by_class() {
    order_by_class();
    num_segments_ = 0;
    int64_t column = 0;
    for (int64_t i = 0; i < num_sorted_;) {
      Segment segment{i, i + 1, column};
      while (segment.end < num_sorted_ && class_at(by_class_[segment.end]) == class_at(by_class_[i])) ++segment.end;
      const int64_t size = segment.end - segment.begin;
      if (size > 1) column += (size + kColumnPadding - 1) / kColumnPadding * kColumnPadding;
      segments_[num_segments_++] = segment;
      i = segment.end;
    }
  }

  void order_by_class() {
    int64_t least = INT64_MAX;
    int64_t most = INT64_MIN;
    for (int64_t i = 0; i < num_sorted_; ++i) {
      least = std::min(least, class_at(i));
      most = std::max(most, class_at(i));
    }
    const uint64_t range = static_cast<uint64_t>(most) - static_cast<uint64_t>(least);
    if (num_sorted_ == 0) return;
    if (range + 1 == 0 || range >= static_cast<uint64_t>(most_counted())) {
      for (int64_t i = 0; i < num_sorted_; ++i) by_class_[i] = i;
      std::sort(by_class_, by_class_ + num_sorted_, [this](int64_t a, int64_t b) {
        return class_at(a) != class_at(b) ? class_at(a) < class_at(b) : a < b;
      });
      return;
    }
    const int64_t numbers = static_cast<int64_t>(range) + 1;
    std::fill(places_, places_ + numbers, 0);
    for (int64_t i = 0; i < num_sorted_; ++i) ++places_[class_at(i) - least];
    int64_t before = 0;
    for (int64_t i = 0; i < numbers; ++i) {
      const int64_t here = places_[i];
      places_[i] = before;
      before += here;
    }
    for (int64_t i = 0; i < num_sorted_; ++i) by_class_[places_[class_at(i) - least]++] = i;
  }

  void suppress() {
    constexpr int64_t worth_threads = 1024;
    for (int64_t i = 0; i < num_segments_; ++i) {
      if (segments_[i].end - segments_[i].begin >= kLarge) suppress(segments_[i]);
    }
    const auto small = [this](int64_t i) {
      if (segments_[i].end - segments_[i].begin < kLarge) suppress(segments_[i]);
    };
    if (num_sorted_ >= worth_threads) return parallel_chunks(num_segments_, small);
    for (int64_t i = 0; i < num_segments_; ++i) small(i);
  }

  void suppress(const Segment& segment) const {
    const int64_t size = segment.end - segment.begin;
    if (size == 1) {
      position_stays(segment.begin, true);
      return;
    }
    const BoxColumns<T> columns = boxes_.from(segment.column);
    for (int64_t i = 0; i < size; ++i) {
      const T* box = static_cast<const T*>(op_.boxes) + 4 * index_of(keys_[position_at(segment.begin + i)]);
      columns.x1[i] = box[0];
      columns.y1[i] = box[1];
      columns.x2[i] = box[2];
      columns.y2[i] = box[3];
      columns.area[i] = (box[2] - box[0]) * (box[3] - box[1]);
    }
    const int64_t most = op_.classes ? size : op_.room;
    uint8_t* stays = stays_ + segment.column;
    kernels_->nms(GreedyNms<T>{columns, size, columns, 0, most, op_.threshold, op_.criterion, stays});
    for (int64_t i = 0; i < size; ++i) position_stays(segment.begin + i, stays[i]);
  }

  // The scratch of the sort is free by now: it remembers for every position whether its box stays.
  void position_stays(int64_t i, bool stays) const { reinterpret_cast<uint8_t*>(scratch_)[position_at(i)] = stays; }

  void collect() const {
    const uint8_t* stays = reinterpret_cast<const uint8_t*>(scratch_);
    int64_t kept = 0;
    for (int64_t i = 0; i < num_sorted_ && kept < op_.room; ++i) {
      if (stays[i]) op_.keep[kept++] = index_of(keys_[i]);
    }
    *op_.kept = kept;
    std::fill(op_.keep + kept, op_.keep + op_.room, -1);
  }

  const CpuKernels* kernels_;
  const gfl_nms& op_;
  OrderKey<T>* keys_;
  OrderKey<T>* scratch_;
  uint8_t* stays_;
  BoxColumns<T> boxes_;
  int64_t* by_class_ = nullptr;
  Segment* segments_ = nullptr;
  int64_t* places_ = nullptr;
  int64_t num_sorted_ = 0;
  int64_t num_segments_ = 0;
  int64_t bytes_ = 0;
};

}  // namespace

int cpu_nms(const CpuKernels& kernels, const gfl_nms& op) {
  if (op.count >= kOrderKeyIndices)
    return fail(GFL_ERROR_ARGUMENT, "too many boxes: %lld", static_cast<long long>(op.count));
  if (op.dtype == GFL_FLOAT64) {
    Nms<double>(&kernels, op, op.workspace).run();
  } else {
    Nms<float>(&kernels, op, op.workspace).run();
  }
  return GFL_OK;
}

int64_t cpu_nms_workspace_bytes(const gfl_nms& op) {
  return op.dtype == GFL_FLOAT64 ? Nms<double>(nullptr, op, nullptr).bytes() : Nms<float>(nullptr, op, nullptr).bytes();
}

}  // namespace gfl
