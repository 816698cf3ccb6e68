// Task-aligned assignment in four steps, each in parallel: the gts claim anchors; the anchors settle for one gt; the gts
// look at what they have won; the anchors get their scores. Every step reads what the ones before it have written.
#include "kernel.h"
// Formulas come after the vectors.
#include "../../math/task_aligned_assign.h"
#include "assignment.h"

namespace gfl {
namespace GFL_ISA {
namespace {

constexpr int kTogether = 64;

template <class T>
class TaskAlignedSteps {
 public:
  explicit TaskAlignedSteps(const gfl_task_aligned_assign& op) : aligned_(op), op_(op) {
    char* past_best = static_cast<char*>(op.workspace) + task_aligned_best_bytes(op);
    for (int i = 0; i < 4; ++i) reach_[i] = reinterpret_cast<T*>(past_best) + i * op.batch * op.num_gts;
  }

  void run() const {
    for_anchors([&](int64_t image, int64_t anchor) { aligned_.winners(image)[anchor] = GFL_BACKGROUND; });
    for_gts([&](int64_t image, int64_t gt) { claim_best(image, gt); });
    for_anchors([&](int64_t image, int64_t anchor) { settle(image, anchor); });
    for_gts([&](int64_t image, int64_t gt) { look_at_won(image, gt); });
    for_anchors([&](int64_t image, int64_t anchor) { finish(image, anchor); });
  }

 private:
  template <class Use>
  void for_gts(const Use& use) const {
    for_all(op_.batch, op_.num_gts, kGtsOfPiece, use);
  }
  template <class Use>
  void for_anchors(const Use& use) const {
    for_all(op_.batch, op_.anchors, kAnchorsOfPiece, use);
  }

  // One who takes no part has a reach that holds no point.
  void keep_reach(int64_t image, int64_t gt, const Box<T>& reach) const {
    const T corners[4] = {reach.x1, reach.y1, reach.x2, reach.y2};
    for (int i = 0; i < 4; ++i) reach_[i][image * op_.num_gts + gt] = corners[i];
  }

  void claim_best(int64_t image, int64_t gt) const {
    const T infinite = static_cast<T>(HUGE_VAL);
    keep_reach(image, gt, {infinite, infinite, -infinite, -infinite});
    if (!aligned_.gts.takes_part(image, gt)) return;
    const Box<T> box = aligned_.gts.box(image, gt);
    const Box<T> reach = aligned_.reach(box);
    keep_reach(image, gt, reach);

    Search search{TopList<T>(op_.topk), box, image, aligned_.gts.label(image, gt)};
    const auto look_at = [&](int64_t begin, int64_t end) {
      for (int64_t anchor = begin; anchor < end; ++anchor) {
        search.anchors[search.waiting] = static_cast<int32_t>(anchor);
        search.waiting += !op_.inside_first || aligned_.has(reach, anchor);
        if (search.waiting == kTogether) look_at_waiting(search);
      }
    };
    if (op_.inside_first) {
      for_each_run(aligned_.grid, reach, look_at);
    } else {
      look_at(0, op_.anchors);
    }
    look_at_waiting(search);
    for (const Candidate<T>& mine : search.best) claim_anchor(image, static_cast<int32_t>(gt), mine.anchor, box, reach);
  }

  struct Search {
    TopList<T> best;
    Box<T> box;
    int64_t image;
    int64_t label;
    T bar = T();  // what an IoU must exceed for its anchor to become one of the best
    int waiting = 0;
    int32_t anchors[kTogether] = {};
  };

  // Their IoUs are compared with the bar side by side; few go on from there, once there are enough candidates.
  void look_at_waiting(Search& search) const {
    const T* boxes = static_cast<const T*>(op_.boxes) + search.image * op_.anchors * 4;
    T x1[kTogether], y1[kTogether], x2[kTogether], y2[kTogether];
    for (int i = 0; i < search.waiting; ++i) {
      const T* corners = boxes + static_cast<int64_t>(search.anchors[i]) * 4;
      x1[i] = corners[0];
      y1[i] = corners[1];
      x2[i] = corners[2];
      y2[i] = corners[3];
    }
    const Box<T> box = search.box;
    const T area = box_area(box);
    uint8_t worth[kTogether];
    for (int i = 0; i < search.waiting; ++i) {
      const T width = (x2[i] < box.x2 ? x2[i] : box.x2) - (x1[i] > box.x1 ? x1[i] : box.x1);
      const T height = (y2[i] < box.y2 ? y2[i] : box.y2) - (y1[i] > box.y1 ? y1[i] : box.y1);
      const T shared = width * height;
      const T both = (x2[i] - x1[i]) * (y2[i] - y1[i]) + area;
      worth[i] = static_cast<uint8_t>((width > T()) & (height > T()) & (shared > search.bar * (both - shared)));
    }
    int found = 0;
    for (int i = 0; i < search.waiting; ++i) {
      search.anchors[found] = search.anchors[i];
      found += worth[i];
    }
    for (int i = 0; i < found; ++i) fetch_score(search, search.anchors[i]);
    for (int i = 0; i < found; ++i) look_at_anchor(search, search.anchors[i]);
    search.waiting = 0;
  }

  // Each lies on its own in memory: the processor brings many at once, but waits for one at a time.
  void fetch_score(const Search& search, int64_t anchor) const {
    const auto place = aligned_.score_place(search.image, anchor, search.label);
    const int64_t bytes = op_.scores.dtype == GFL_FLOAT64 ? 8 : op_.scores.dtype == GFL_FLOAT32 ? 4 : 2;
    __builtin_prefetch(static_cast<const char*>(place.map.data) + place.offset * bytes);
  }

  void look_at_anchor(Search& search, int64_t anchor) const {
    const T metric = aligned_.metric_above(search.image, anchor, search.box, search.label, search.bar);
    if (!(metric > T()) || !search.best.offer(metric, anchor) || !search.best.full()) return;
    search.bar = aligned_.bar_of(search.best.worst().value);
  }

  void claim_anchor(int64_t image, int32_t gt, int64_t anchor, const Box<T>& box, const Box<T>& reach) const {
    int32_t* winner = aligned_.winners(image) + anchor;
    if (op_.inside_first) return claim(winner, gt, compare_exchange);
    if (!aligned_.has(reach, anchor)) return;
    const T iou = aligned_.iou(image, anchor, box);
    claim_from_weaker(winner, gt, compare_exchange,
                      [&](int32_t rival) { return aligned_.is_stronger(image, anchor, gt, iou, rival); });
  }

  void settle(int64_t image, int64_t anchor) const {
    int32_t& winner = aligned_.winners(image)[anchor];
    if (winner == kContested) winner = highest_iou(image, anchor);
    if (winner < 0) return;
    const TaskAlignedPair<T> pair =
        aligned_.pair(image, anchor, aligned_.gts.box(image, winner), aligned_.gts.label(image, winner));
    aligned_.ious(image)[anchor] = pair.iou;
    aligned_.metrics(image)[anchor] = pair.metric;
  }

  // Of all gts that an anchor is inside of. Most are not looked at: they are sorted out side by side.
  int32_t highest_iou(int64_t image, int64_t anchor) const {
    const T* point = static_cast<const T*>(op_.points) + 2 * anchor;
    const T x = point[0];
    const T y = point[1];
    const T margin = aligned_.margin();
    T highest = static_cast<T>(-1);
    int64_t winner = GFL_BACKGROUND;
    const int64_t count = aligned_.gts.count(image);
    for (int64_t begin = 0; begin < count; begin += kTogether) {
      const int64_t size = begin + kTogether < count ? kTogether : count - begin;
      const int64_t offset = image * op_.num_gts + begin;
      const T *left = reach_[0] + offset, *top = reach_[1] + offset;
      const T *right = reach_[2] + offset, *bottom = reach_[3] + offset;
      uint8_t holds[kTogether];
      for (int64_t i = 0; i < size; ++i) {
        holds[i] = static_cast<uint8_t>((x - left[i] > margin) & (y - top[i] > margin) & (right[i] - x > margin) &
                                        (bottom[i] - y > margin));
      }
      for (int64_t i = 0; i < size; ++i) {
        if (!holds[i]) continue;
        const T iou = aligned_.iou(image, anchor, aligned_.gts.box(image, begin + i), highest);
        if (!(iou > highest)) continue;
        highest = iou;
        winner = begin + i;
      }
    }
    return static_cast<int32_t>(winner);
  }

  void look_at_won(int64_t image, int64_t gt) const {
    TaskAlignedBest<T> best{T(), T(), {static_cast<T>(-HUGE_VAL), 0}};
    if (aligned_.gts.takes_part(image, gt)) {
      const T* ious = aligned_.ious(image);
      const T* metrics = aligned_.metrics(image);
      TopList<T> kept(op_.final_topk ? op_.final_topk : 1);
      for_each_won(image, gt, [&](int64_t anchor) {
        best.metric = larger(metrics[anchor], best.metric);
        best.iou = larger(ious[anchor], best.iou);
        kept.offer(metrics[anchor], anchor);
      });
      if (op_.final_topk && kept.full()) {
        best.last = kept.worst();
        best.iou = T();
        for (const Candidate<T>& mine : kept) best.iou = larger(ious[mine.anchor], best.iou);
      }
    }
    aligned_.best(image)[gt] = best;
  }

  template <class Use>
  void for_each_won(int64_t image, int64_t gt, const Use& use) const {
    const int32_t* winners = aligned_.winners(image);
    for_each_run(aligned_.grid, aligned_.reach(aligned_.gts.box(image, gt)), [&](int64_t begin, int64_t end) {
      for (int64_t anchor = begin; anchor < end; ++anchor) {
        if (winners[anchor] == gt) use(anchor);
      }
    });
  }

  void finish(int64_t image, int64_t anchor) const {
    int32_t& winner = aligned_.winners(image)[anchor];
    T& iou = aligned_.ious(image)[anchor];
    T& metric = aligned_.metrics(image)[anchor];
    if (winner >= 0) {
      const TaskAlignedBest<T>& best = aligned_.best(image)[winner];
      if (better(best.last, {metric, static_cast<int32_t>(anchor)})) winner = GFL_BACKGROUND;
      metric = aligned_.normalized(best, metric);
    }
    if (winner < 0) iou = metric = T();
    if (!op_.labels) return;
    const int64_t label = winner < 0 ? winner : aligned_.gts.label(image, winner);
    op_.labels[image * op_.anchors + anchor] = static_cast<int32_t>(label);
  }

  TaskAligned<T> aligned_;
  const gfl_task_aligned_assign& op_;
  T* reach_[4];  // corners of the gts' reaches, each side by side
};

}  // namespace

int task_aligned_assign(const gfl_task_aligned_assign& op) {
  return with_compute_type(op.dtype, "boxes", [&](auto zero) {
    TaskAlignedSteps<decltype(zero)>(op).run();
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
