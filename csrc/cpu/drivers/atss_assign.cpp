// ATSS: every ground truth finds its positives by itself, in parallel, and claims them; the highest IoU wins, and the first
// ground truth of two equal ones, whoever comes first.
#include "../../math/atss_assign.h"

#include "../../math/assignment.h"
#include "../parallel.h"
#include "drivers.h"

namespace gfl {
namespace {

constexpr int64_t kGtsOfChunk = 8;
constexpr int32_t kTogether = 64;  // anchors that are asked at once whether any has a ground truth

template <class T>
class Atss {
 public:
  explicit Atss(const gfl_atss_assign& op) : op_(op) {
    for (int i = 0; i < op.levels.count; ++i) {
      first_anchor_[i] = anchors_;
      anchors_ += static_cast<int64_t>(op.levels.level[i].height) * op.levels.level[i].width;
    }
  }

  void run() const {
    parallel_chunks(op_.batch, [&](int64_t image) { clear(image); });
    const int64_t pieces = (op_.num_gts + kGtsOfChunk - 1) / kGtsOfChunk;
    parallel_chunks(op_.batch * pieces, [&](int64_t chunk) {
      const int64_t image = chunk / pieces;
      const int64_t begin = chunk % pieces * kGtsOfChunk;
      const int64_t end = begin + kGtsOfChunk < count(image) ? begin + kGtsOfChunk : count(image);
      for (int64_t gt = begin; gt < end; ++gt) claim_positives(image, gt);
    });
    parallel_chunks(op_.batch, [&](int64_t image) { finish(image); });
  }

 private:
  int64_t count(int64_t image) const {
    const int64_t given = op_.gt_counts ? op_.gt_counts[image] : op_.num_gts;
    return given < 0 ? 0 : given < op_.num_gts ? given : op_.num_gts;
  }
  int64_t label(int64_t image, int64_t gt) const { return op_.gt_labels[image * op_.num_gts + gt]; }
  bool known(int64_t label) const { return label >= 0 && label < op_.classes; }
  Box<T> gt_box(int64_t image, int64_t gt) const {
    const T* corners = static_cast<const T*>(op_.gt_boxes) + (image * op_.num_gts + gt) * 4;
    return {corners[0], corners[1], corners[2], corners[3]};
  }

  AtssLevel<T> level(int64_t image, int i) const {
    const T* shape = op_.valid_shapes ? static_cast<const T*>(op_.valid_shapes) + 2 * image : nullptr;
    return atss_level(op_.levels.level[i], shape, op_.anchor_scale, op_.center_offset);
  }
  int64_t anchor(int i, const AtssLevel<T>& seen, int x, int y) const {
    return first_anchor_[i] + static_cast<int64_t>(y) * seen.row_cells + x;
  }

  struct Claimant {
    int64_t image;
    int32_t gt;
    Box<T> box;
    T center_x, center_y;
  };

  void claim_positives(int64_t image, int64_t gt) const {
    Claimant own{image, static_cast<int32_t>(gt), gt_box(image, gt), T(), T()};
    if (op_.gt_labels && !known(label(image, gt))) return;
    if (!box_center(own.box, own.center_x, own.center_y)) return;
    if (op_.topk <= kFewCandidates) {
      claim_of_few(own);
    } else {
      claim_of_many(own);
    }
  }

  void claim_of_few(const Claimant& own) const {
    constexpr int most = GFL_MAX_LEVELS * kFewCandidates;
    T ious[most];
    int64_t inside[most];  // anchors, -1 where the centre is not inside
    int candidates = 0;
    for (int i = 0; i < op_.levels.count; ++i) {
      const AtssLevel<T> seen = level(own.image, i);
      AtssCandidate<T> nearest[kFewCandidates];
      const int cells =
          candidates_of(seen, op_.topk) > 0 ? nearest_cells(seen, own.center_x, own.center_y, op_.topk, nearest) : 0;
      for (int k = 0; k < cells; ++k, ++candidates) {
        const int x = nearest[k].x;
        const int y = nearest[k].y;
        ious[candidates] = anchor_iou(seen, x, y, own.box);
        inside[candidates] = center_inside(seen, x, y, own.box) ? anchor(i, seen, x, y) : -1;
      }
    }
    double sum = 0;
    for (int k = 0; k < candidates; ++k) sum += static_cast<double>(ious[k]);
    const double mean = sum / candidates;
    double squares = 0;
    for (int k = 0; k < candidates; ++k) squares += squared(static_cast<double>(ious[k]) - mean);
    const double threshold = atss_threshold(mean, squares, candidates);
    for (int k = 0; k < candidates; ++k) {
      if (inside[k] >= 0 && static_cast<double>(ious[k]) >= threshold) claim_anchor(own, inside[k], ious[k]);
    }
  }

  // They are not kept: each pass over them works their IoUs out again.
  void claim_of_many(const Claimant& own) const {
    AtssLevel<T> seen[GFL_MAX_LEVELS];
    CellDisc<T> discs[GFL_MAX_LEVELS];
    int64_t candidates = 0;
    for (int i = 0; i < op_.levels.count; ++i) {
      seen[i] = level(own.image, i);
      const int64_t cells = candidates_of(seen[i], op_.topk);
      if (cells > 0) discs[i] = disc_of(cells_around(seen[i], own.center_x, own.center_y), cells);
      candidates += cells;
    }
    const auto for_each = [&](const auto& use) {
      for (int i = 0; i < op_.levels.count; ++i) {
        if (candidates_of(seen[i], op_.topk) == 0) continue;
        for_each_cell(discs[i], [&](int x, int y) { use(i, x, y, anchor_iou(seen[i], x, y, own.box)); });
      }
    };
    double sum = 0;
    for_each([&](int, int, int, T iou) { sum += static_cast<double>(iou); });
    const double mean = sum / static_cast<double>(candidates);
    double squares = 0;
    for_each([&](int, int, int, T iou) { squares += squared(static_cast<double>(iou) - mean); });
    const double threshold = atss_threshold(mean, squares, candidates);
    for_each([&](int i, int x, int y, T iou) {
      if (static_cast<double>(iou) >= threshold && center_inside(seen[i], x, y, own.box)) {
        claim_anchor(own, anchor(i, seen[i], x, y), iou);
      }
    });
  }

  static double squared(double x) { return x * x; }

  static CellDisc<T> disc_of(CellDisc<T> disc, int64_t cells) {
    disc.hold(cells, [&](T most) {
      const Run rows = disc.rows_within(most);
      int64_t found = 0;
      for (int row = rows.begin; row < rows.end; ++row) found += disc.columns_within(row, most).size();
      return found;
    });
    return disc;
  }

  template <class Use>
  static void for_each_cell(const CellDisc<T>& disc, const Use& use) {
    const Run rows = disc.rows_within(disc.outer);
    int64_t edge = disc.on_edge;
    for (int row = rows.begin; row < rows.end; ++row) {
      disc.for_each_of_row(row, edge, [&](int column) { use(column, row); });
      if (edge > 0) edge -= disc.on_edge_of_row(row);
    }
  }

  void claim_anchor(const Claimant& own, int64_t anchor, T iou) const {
    claim_from_weaker(op_.assigned_gt + own.image * anchors_ + anchor, own.gt, compare_exchange, [&](int32_t rival) {
      const T other = iou_of_anchor(own.image, rival, anchor);
      return iou > other || (iou == other && own.gt < rival);
    });
  }

  T iou_of_anchor(int64_t image, int32_t gt, int64_t anchor) const {
    int i = op_.levels.count - 1;
    while (anchor < first_anchor_[i]) --i;
    return iou_of_cell(level(image, i), static_cast<int32_t>(anchor - first_anchor_[i]), gt_box(image, gt));
  }
  static T iou_of_cell(const AtssLevel<T>& seen, int32_t cell, const Box<T>& box) {
    return anchor_iou(seen, cell % seen.row_cells, cell / seen.row_cells, box);
  }

  void clear(int64_t image) const {
    int32_t* assigned = op_.assigned_gt + image * anchors_;
    for (int i = 0; i < op_.levels.count; ++i) {
      const AtssLevel<T> seen = level(image, i);
      for (int y = 0; y < op_.levels.level[i].height; ++y) {
        const int valid = y < seen.height ? seen.width : 0;
        for (int x = 0; x < seen.row_cells; ++x) *assigned++ = x < valid ? GFL_BACKGROUND : GFL_OUTSIDE;
      }
    }
  }

  void finish(int64_t image) const {
    for (int i = 0; op_.assigned_iou && i < op_.levels.count; ++i) write_ious(image, i);
    const int32_t* assigned = op_.assigned_gt + image * anchors_;
    for (int64_t anchor = 0; op_.labels && anchor < anchors_; ++anchor) {
      const int32_t gt = assigned[anchor];
      op_.labels[image * anchors_ + anchor] = gt < 0 ? gt : static_cast<int32_t>(label(image, gt));
    }
  }

  void write_ious(int64_t image, int i) const {
    const AtssLevel<T> seen = level(image, i);
    const int64_t first = image * anchors_ + first_anchor_[i];
    const int32_t* assigned = op_.assigned_gt + first;
    float* ious = op_.assigned_iou + first;
    const int32_t cells = op_.levels.level[i].height * op_.levels.level[i].width;
    for (int32_t begin = 0; begin < cells; begin += kTogether) {
      const int32_t end = cells - begin < kTogether ? cells : begin + kTogether;
      int32_t all = -1;
      for (int32_t cell = begin; cell < end; ++cell) {
        all &= assigned[cell];
        ious[cell] = 0.0f;
      }
      if (all < 0) continue;  // nearly always: none of them has a ground truth
      for (int32_t cell = begin; cell < end; ++cell) {
        if (assigned[cell] < 0) continue;
        ious[cell] = static_cast<float>(iou_of_cell(seen, cell, gt_box(image, assigned[cell])));
      }
    }
  }

  const gfl_atss_assign& op_;
  int64_t first_anchor_[GFL_MAX_LEVELS] = {};
  int64_t anchors_ = 0;
};

}  // namespace

int cpu_atss_assign(const gfl_atss_assign& op) {
  if (op.dtype == GFL_FLOAT64) {
    Atss<double>(op).run();
  } else {
    Atss<float>(op).run();
  }
  return GFL_OK;
}

}  // namespace gfl
