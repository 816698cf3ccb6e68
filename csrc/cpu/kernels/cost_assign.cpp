// Assignment by the lowest costs in three steps, each in parallel: the anchors that are candidates are packed side by side,
// and their classes summed; the gts look through them, first for the IoUs that say how many anchors they claim, then for
// the lowest costs; the anchors settle for one gt. Every step reads what the ones before it have written.
#include "kernel.h"
// Formulas come after the vectors.
#include "../../math/cost_assign.h"
#include "assignment.h"

namespace gfl {
namespace GFL_ISA {
namespace {

constexpr int kTogether = 64;
constexpr int kClassesTogether = 128;

template <class T>
using Column = const T* __restrict__;

template <class T, class Cost>
class CostSteps {
 public:
  explicit CostSteps(const gfl_cost_assign& op)
      : cost_(op), op_(op), pieces_((op.anchors + kAnchorsOfPiece - 1) / kAnchorsOfPiece) {
    T* next = reinterpret_cast<T*>(static_cast<char*>(op.workspace) + cost_assign_sums_bytes(op));
    for (int i = 0; i < kColumns; ++i, next += op.batch * op.anchors) columns_[i] = next;
    for (int i = 0; i < 4; ++i, next += op.batch * op.num_gts) gt_corners_[i] = next;
    packed_anchors_ = reinterpret_cast<int32_t*>(next);
    packed_counts_ = packed_anchors_ + op.batch * op.anchors;
  }

  void run() const {
    for_all(op_.batch, op_.num_gts, kGtsOfPiece, [&](int64_t image, int64_t gt) { keep_corners(image, gt); });
    parallel_chunks(op_.batch * pieces_, [&](int64_t piece) { pack(piece / pieces_, piece % pieces_); });
    for_all(op_.batch, op_.num_gts, 1, [&](int64_t image, int64_t gt) { claim_lowest(image, gt); });
    for_all(op_.batch, op_.anchors, kAnchorsOfPiece, [&](int64_t image, int64_t anchor) { settle(image, anchor); });
  }

 private:
  enum { kX1, kY1, kX2, kY2, kX, kY, kStride, kRest, kColumns };

  // One who takes no part has corners that hold no point and overlap with nothing.
  void keep_corners(int64_t image, int64_t gt) const {
    const T infinite = static_cast<T>(HUGE_VAL);
    const bool real = cost_.gts.takes_part(image, gt);
    const Box<T> box = real ? cost_.gts.box(image, gt) : Box<T>{infinite, infinite, -infinite, -infinite};
    const T corners[4] = {box.x1, box.y1, box.x2, box.y2};
    for (int i = 0; i < 4; ++i) gt_corners_[i][image * op_.num_gts + gt] = corners[i];
  }
  Box<T> kept_box(int64_t i) const {
    return {gt_corners_[0][i], gt_corners_[1][i], gt_corners_[2][i], gt_corners_[3][i]};
  }

  // ---- candidates ----

  void pack(int64_t image, int64_t piece) const {
    const int64_t begin = piece * kAnchorsOfPiece;
    const int64_t end = begin + kAnchorsOfPiece < op_.anchors ? begin + kAnchorsOfPiece : op_.anchors;
    int32_t count = 0;
    for (int64_t anchor = begin; anchor < end; ++anchor) {
      cost_.winner(image, anchor) = GFL_BACKGROUND;
      cost_.found_iou(image, anchor) = T();
      if (!cost_.is_sound(image, anchor) || !can_belong(image, anchor)) continue;
      const ClassSums<T> sums = class_sums(image, anchor);
      const int64_t own = cost_.place(image, anchor);
      cost_.largest_terms()[own] = sums.largest;
      cost_.rests()[own] = sums.rest;
      cost_.largest_classes()[own] = sums.of_largest;
      pack_one(image, anchor, cost_.place(image, begin) + count++);
    }
    packed_counts_[image * pieces_ + piece] = count;
  }
  void pack_one(int64_t image, int64_t anchor, int64_t place) const {
    const CostPair<T> pair = cost_.pair(image, anchor, {});
    const T values[kColumns] = {pair.box.x1,  pair.box.y1,  pair.box.x2, pair.box.y2,
                                pair.point.x, pair.point.y, pair.stride, pair.rest};
    for (int i = 0; i < kColumns; ++i) columns_[i][place] = values[i];
    packed_anchors_[place] = static_cast<int32_t>(anchor);
  }

  bool can_belong(int64_t image, int64_t anchor) const {
    const Point<T> point = cost_.point(anchor);
    const T stride = cost_.stride(anchor);
    const int64_t count = cost_.gts.count(image);
    for (int64_t begin = 0; begin < count; begin += kTogether) {
      const int64_t size = begin + kTogether < count ? kTogether : count - begin;
      const int64_t first = image * op_.num_gts + begin;
      Column<T> x1 = gt_corners_[0] + first, y1 = gt_corners_[1] + first;
      Column<T> x2 = gt_corners_[2] + first, y2 = gt_corners_[3] + first;
      int any = 0;
      for (int64_t i = 0; i < size; ++i) any |= cost_.can_hold(point, stride, Box<T>{x1[i], y1[i], x2[i], y2[i]});
      if (any) return true;
    }
    return false;
  }

  // Largest term and rest: where a run of classes has a larger one, the one so far joins the rest.
  ClassSums<T> class_sums(int64_t image, int64_t anchor) const {
    const int classes = static_cast<int>(op_.classes);
    ClassSums<T> sums{T(), T(), classes};
    T highest = static_cast<T>(-HUGE_VAL);
    for (int begin = 0; begin < classes; begin += kClassesTogether) {
      const int count = begin + kClassesTogether < classes ? kClassesTogether : classes - begin;
      T run[kClassesTogether + Lanes<T>::width];
      load_run(op_.scores.data, op_.scores.dtype, cost_.score_place(image, anchor, begin), op_.scores.channel_stride,
               count, run);
      int at = -1;
      T best = Cost::no_score();
      for (int i = 0; i < count; ++i) {
        run[i] = Cost::cleaned(run[i]);
        if (!(run[i] > best)) continue;
        best = run[i];
        at = i;
      }
      T largest = T();
      if (at >= 0) {
        largest = Cost::negative(best);
        run[at] = Cost::no_score();
      }
      sums.rest = sums.rest + sum_of_terms(run, count);
      const bool higher = at >= 0 && best > highest;
      sums.rest = sums.rest + (higher ? sums.largest : largest);
      if (!higher) continue;
      sums.largest = largest;
      sums.of_largest = begin + at;
      highest = best;
    }
    return sums;
  }
  static T sum_of_terms(T* run, int count) {
    using V = Vector<T>;
    for (int i = count; i < count + Lanes<T>::width; ++i) run[i] = Cost::no_score();
    V sum = V();
    for (int i = 0; i < count; i += Lanes<T>::width) sum = sum + Cost::negative(load(run + i));
    return static_cast<T>(lane_sum(sum));
  }

  // ---- what a gt claims ----

  void claim_lowest(int64_t image, int64_t gt) const {
    if (!cost_.gts.takes_part(image, gt)) return;
    const Box<T> box = cost_.gts.box(image, gt);
    TopList<T> lowest(wanted_anchors(image, box));  // of costs with their sign turned
    find_lowest(image, box, cost_.gts.label(image, gt), lowest);
    for (const Candidate<T>& mine : lowest) {
      claim(&cost_.winner(image, mine.anchor), static_cast<int32_t>(gt), compare_exchange);
    }
  }

  // Calls use(first, size) for packed candidates that lie side by side.
  template <class Use>
  void for_packed(int64_t image, const Use& use) const {
    for (int64_t piece = 0; piece < pieces_; ++piece) {
      const int64_t first = cost_.place(image, piece * kAnchorsOfPiece);
      const int count = packed_counts_[image * pieces_ + piece];
      for (int begin = 0; begin < count; begin += kTogether) {
        use(first + begin, begin + kTogether < count ? kTogether : count - begin);
      }
    }
  }

  int wanted_anchors(int64_t image, const Box<T>& gt) const {
    TopList<T> highest(op_.topk);
    T bar = T();
    for_packed(image, [&](int64_t first, int size) {
      Column<T> x1 = columns_[kX1] + first, y1 = columns_[kY1] + first;
      Column<T> x2 = columns_[kX2] + first, y2 = columns_[kY2] + first;
      uint8_t above[kTogether];
      for (int i = 0; i < size; ++i) {
        const T width = (x2[i] < gt.x2 ? x2[i] : gt.x2) - (x1[i] > gt.x1 ? x1[i] : gt.x1);
        const T height = (y2[i] < gt.y2 ? y2[i] : gt.y2) - (y1[i] > gt.y1 ? y1[i] : gt.y1);
        const T shared = width * height;
        const T both = (x2[i] - x1[i]) * (y2[i] - y1[i]) + box_area(gt);
        above[i] = static_cast<uint8_t>((width > T()) & (height > T()) & (shared > bar * (both - shared)));
      }
      for (int i = 0; i < size; ++i) {
        if (!above[i]) continue;
        const bool kept = highest.offer(overlapping_iou(Box<T>{x1[i], y1[i], x2[i], y2[i]}, gt), first + i);
        if (kept && highest.full()) bar = highest.worst().value * constant<T>(0.99999);
      }
    });
    double sum = 0;
    for (const Candidate<T>& one : highest) sum += static_cast<double>(one.value);
    return cost_.wanted(sum);
  }

  void find_lowest(int64_t image, const Box<T>& gt, int64_t label, TopList<T>& lowest) const {
    typename Cost::Bounds bounds{};
    for_packed(image, [&](int64_t first, int size) {
      uint8_t may[kTogether];
      if (lowest.full()) {
        for (int i = 0; i < size; ++i) may[i] = cost_.may_be_below(bounds, packed_pair(first + i, gt));
      }
      const bool all = !lowest.full();
      for (int i = 0; i < size; ++i) {
        if (!all && !may[i]) continue;
        const CostPair<T> pair = packed_pair(first + i, gt);
        if (lowest.full() && !cost_.may_be_below(bounds, pair)) continue;
        const int64_t anchor = packed_anchors_[first + i];
        const T cost = cost_.cost(image, anchor, pair, label, overlapping_iou(pair.box, gt));
        if (!(cost == cost) || !lowest.offer(-cost, anchor) || !lowest.full()) continue;
        bounds = cost_.below(-lowest.worst().value);
      }
    });
  }
  CostPair<T> packed_pair(int64_t i, const Box<T>& gt) const {
    return {{columns_[kX1][i], columns_[kY1][i], columns_[kX2][i], columns_[kY2][i]},
            gt,
            {columns_[kX][i], columns_[kY][i]},
            columns_[kStride][i],
            columns_[kRest][i]};
  }

  // ---- who gets an anchor ----

  void settle(int64_t image, int64_t anchor) const {
    int32_t& winner = cost_.winner(image, anchor);
    if (winner == kContested) winner = lowest_cost(image, anchor);
    if (winner < 0) return;
    cost_.found_iou(image, anchor) = overlapping_iou(cost_.box(image, anchor), cost_.gts.box(image, winner));
  }

  int32_t lowest_cost(int64_t image, int64_t anchor) const {
    const CostPair<T> own = cost_.pair(image, anchor, {});
    typename Cost::Bounds bounds{};
    T lowest = T();
    int64_t winner = GFL_BACKGROUND;
    const int64_t count = cost_.gts.count(image);
    for (int64_t begin = 0; begin < count; begin += kTogether) {
      const int64_t size = begin + kTogether < count ? kTogether : count - begin;
      const int64_t first = image * op_.num_gts + begin;
      const bool all = winner < 0;
      uint8_t may[kTogether];
      for (int64_t i = 0; i < size; ++i) may[i] = all | cost_.may_be_below(bounds, with_gt(own, first + i));
      for (int64_t i = 0; i < size; ++i) {
        if (!may[i] || !cost_.gts.takes_part(image, begin + i)) continue;
        const CostPair<T> pair = with_gt(own, first + i);
        if (winner >= 0 && !cost_.may_be_below(bounds, pair)) continue;
        const int64_t label = cost_.gts.label(image, begin + i);
        const T cost = cost_.cost(image, anchor, pair, label, overlapping_iou(pair.box, pair.gt));
        if (!(winner < 0 || cost < lowest)) continue;
        lowest = cost;
        winner = begin + i;
        bounds = cost_.below(lowest);
      }
    }
    return static_cast<int32_t>(winner);
  }
  CostPair<T> with_gt(CostPair<T> pair, int64_t i) const {
    pair.gt = kept_box(i);
    return pair;
  }

  Cost cost_;
  const gfl_cost_assign& op_;
  int64_t pieces_;
  T* columns_[kColumns];  // of the candidates of a piece of anchors, packed at its beginning
  T* gt_corners_[4];
  int32_t* packed_anchors_;
  int32_t* packed_counts_;  // of each piece
};

}  // namespace

int cost_assign(const gfl_cost_assign& op) {
  return with_compute_type(op.dtype, "boxes", [&](auto zero) {
    using T = decltype(zero);
    if (op.kind == GFL_DYNAMIC_SOFT_LABEL) {
      CostSteps<T, SoftLabelCost<T>>(op).run();
    } else {
      CostSteps<T, SimotaCost<T>>(op).run();
    }
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
