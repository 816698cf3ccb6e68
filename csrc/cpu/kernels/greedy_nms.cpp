// Greedy NMS: each candidate against all that stay so far, a vector of them at a time.
#include "kernel.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
struct Candidate {
  Box<T> box;
  T area;
  int32_t label;

  Candidate(const BoxColumns<T>& from, int64_t i)
      : box{from.x1[i], from.y1[i], from.x2[i], from.y2[i]},
        area(from.area[i]),
        label(from.labels ? from.labels[i] : 0) {}
};

template <class T>
class Greedy {
 public:
  explicit Greedy(const GreedyNms<T>& op)
      : op_(op),
        threshold_(static_cast<T>(op.threshold)),
        screen_(static_cast<T>(nms_screen(static_cast<double>(threshold_)))) {}

  int64_t run() const {
    constexpr int64_t block = 512;
    constexpr int64_t worth_threads = int64_t{1} << 18;  // pairs
    int64_t kept = op_.num_kept;
    for (int64_t start = 0; start < op_.count; start += block) {
      const int64_t end = start + block < op_.count ? start + block : op_.count;
      const int64_t before = kept * (end - start) >= worth_threads ? kept : 0;
      if (before > 0) compare_together(start, end, before);
      for (int64_t i = start; i < end; ++i) {
        if (kept == op_.most_kept) {
          for (; i < op_.count; ++i) op_.stays[i] = 0;
          return kept;
        }
        const Candidate<T> candidate(op_.candidates, i);
        op_.stays[i] = (before == 0 || op_.stays[i]) && !suppressed(candidate, before, kept);
        if (op_.stays[i]) keep(candidate, kept++);
      }
    }
    return kept;
  }

 private:
  using V = Vector<T>;

  // A block against what stayed before it, by all threads; its own survivors then meet one after the other.
  void compare_together(int64_t start, int64_t end, int64_t kept) const {
    constexpr int64_t share = 32;
    parallel_chunks((end - start + share - 1) / share, [&](int64_t chunk) {
      const int64_t first = start + chunk * share;
      const int64_t last = first + share < end ? first + share : end;
      for (int64_t i = first; i < last; ++i) op_.stays[i] = !suppressed(Candidate<T>(op_.candidates, i), 0, kept);
    });
  }

  bool suppressed(const Candidate<T>& candidate, int64_t begin, int64_t end) const {
    const Box<V> box{V() + candidate.box.x1, V() + candidate.box.y1, V() + candidate.box.x2, V() + candidate.box.y2};
    const V area = V() + candidate.area;
    const V screen = V() + screen_;
    for (int64_t i = begin; i < end; i += Lanes<T>::width) {
      const BoxColumns<T>& kept = op_.kept;
      const Box<V> other{load(kept.x1 + i), load(kept.y1 + i), load(kept.x2 + i), load(kept.y2 + i)};
      const Meeting<V> meeting(other, load(kept.area + i), box, area);
      auto meets = (meeting.width > V()) & (meeting.height > V()) & (meeting.inter >= screen * meeting.united);
      if (kept.labels) meets = meets & equal_lanes(kept.labels + i, candidate.label, V());
      if (!any_lane(meets)) continue;
      if (end - i < Lanes<T>::width) meets = meets & lanes_below(static_cast<int>(end - i), V());
      if (any_lane(meets & (nms_overlap(meeting, other, box, op_.criterion) > V() + threshold_))) return true;
    }
    return false;
  }

  void keep(const Candidate<T>& candidate, int64_t place) const {
    const BoxColumns<T>& kept = op_.kept;
    kept.x1[place] = candidate.box.x1;
    kept.y1[place] = candidate.box.y1;
    kept.x2[place] = candidate.box.x2;
    kept.y2[place] = candidate.box.y2;
    kept.area[place] = candidate.area;
    if (kept.labels) kept.labels[place] = candidate.label;
  }

  const GreedyNms<T>& op_;
  const T threshold_;
  const T screen_;
};

}  // namespace

int64_t greedy_nms(const GreedyNms<float>& op) { return Greedy<float>(op).run(); }
int64_t greedy_nms_double(const GreedyNms<double>& op) { return Greedy<double>(op).run(); }

}  // namespace GFL_ISA
}  // namespace gfl
