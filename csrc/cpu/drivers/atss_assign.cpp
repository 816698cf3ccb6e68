// ATSS in two steps. Every ground truth finds its positives by itself, in parallel; then each image hands its anchors
// out, ground truth after ground truth, so that the highest IoU wins and the first of two equal ones.
#include "../../math/atss_assign.h"

#include "../../error.h"
#include "../parallel.h"
#include "drivers.h"

namespace gfl {
namespace {

// A positive that a ground truth leaves for the second step.
template <class T>
struct Claim {
  int32_t anchor;
  T iou;
};

template <class T>
class Atss {
 public:
  explicit Atss(const gfl_atss_assign& op) : op_(op) {
    for (int i = 0; i < op.levels.count; ++i) {
      first_anchor_[i] = anchors_;
      anchors_ += static_cast<int64_t>(op.levels.level[i].height) * op.levels.level[i].width;
    }
    most_claims_ = static_cast<int64_t>(op.levels.count) * op.topk;
  }

  int64_t workspace_bytes() const {
    return op_.batch * op_.num_gts * (most_claims_ * static_cast<int64_t>(sizeof(Claim<T>)) + 8);
  }

  void run() const {
    constexpr int64_t gts_a_chunk = 8;
    const int64_t pieces = (op_.num_gts + gts_a_chunk - 1) / gts_a_chunk;
    parallel_chunks(op_.batch * pieces, [&](int64_t chunk) {
      const int64_t image = chunk / pieces;
      const int64_t begin = chunk % pieces * gts_a_chunk;
      const int64_t end = begin + gts_a_chunk < count(image) ? begin + gts_a_chunk : count(image);
      for (int64_t gt = begin; gt < end; ++gt) claim(image, gt);
    });
    parallel_chunks(op_.batch, [&](int64_t image) { hand_out(image); });
  }

 private:
  int64_t count(int64_t image) const {
    const int64_t given = op_.gt_counts ? op_.gt_counts[image] : op_.num_gts;
    return given < 0 ? 0 : given < op_.num_gts ? given : op_.num_gts;
  }

  int64_t* num_claims(int64_t image, int64_t gt) const {
    return static_cast<int64_t*>(op_.workspace) + image * op_.num_gts + gt;
  }

  int64_t label(int64_t image, int64_t gt) const { return op_.gt_labels[image * op_.num_gts + gt]; }
  bool known(int64_t label) const { return label >= 0 && label < op_.classes; }

  Claim<T>* claims(int64_t image, int64_t gt) const {
    char* past_counts = static_cast<char*>(op_.workspace) + op_.batch * op_.num_gts * 8;
    return reinterpret_cast<Claim<T>*>(past_counts) + (image * op_.num_gts + gt) * most_claims_;
  }

  AtssLevel<T> level(int64_t image, int i) const {
    const T* shape = op_.valid_shapes ? static_cast<const T*>(op_.valid_shapes) + 2 * image : nullptr;
    return atss_level(op_.levels.level[i], shape, op_.anchor_scale, op_.center_offset);
  }

  void claim(int64_t image, int64_t gt) const {
    const T* corners = static_cast<const T*>(op_.gt_boxes) + (image * op_.num_gts + gt) * 4;
    const Box<T> box{corners[0], corners[1], corners[2], corners[3]};
    T center_x, center_y;
    int64_t& found = *num_claims(image, gt);
    found = 0;
    if (op_.gt_labels && !known(label(image, gt))) return;
    if (!box_center(box, center_x, center_y)) return;

    Claim<T>* mine = claims(image, gt);
    T ious[GFL_MAX_LEVELS * kMostCandidates];
    bool inside[GFL_MAX_LEVELS * kMostCandidates];
    int candidates = 0;
    for (int i = 0; i < op_.levels.count; ++i) {
      const AtssLevel<T> seen = level(image, i);
      AtssCandidate<T> nearest[kMostCandidates];
      const int cells =
          seen.height > 0 && seen.width > 0 ? nearest_cells(seen, center_x, center_y, op_.topk, nearest) : 0;
      for (int k = 0; k < cells; ++k, ++candidates) {
        const int x = nearest[k].x;
        const int y = nearest[k].y;
        const int64_t cell = static_cast<int64_t>(y) * seen.row_cells + x;
        ious[candidates] = plain_iou(anchor_box(seen, x, y), box, constant<T>(kUnionFloor));
        inside[candidates] = center_inside(seen, x, y, box);
        mine[candidates] = {static_cast<int32_t>(first_anchor_[i] + cell), ious[candidates]};
      }
    }
    const double threshold = atss_threshold(ious, candidates);
    for (int k = 0; k < candidates; ++k) {
      if (inside[k] && static_cast<double>(ious[k]) >= threshold) mine[found++] = mine[k];
    }
  }

  void hand_out(int64_t image) const {
    int32_t* assigned = op_.assigned_gt + image * anchors_;
    clear(image, assigned);
    for (int64_t gt = 0; gt < count(image); ++gt) {
      const Claim<T>* mine = claims(image, gt);
      for (int64_t k = 0; k < *num_claims(image, gt); ++k) {
        int32_t& winner = assigned[mine[k].anchor];
        if (winner < 0 || mine[k].iou > winning(image, winner, mine[k].anchor)) winner = static_cast<int32_t>(gt);
      }
    }
    for (int64_t anchor = 0; op_.assigned_iou && anchor < anchors_; ++anchor) {
      op_.assigned_iou[image * anchors_ + anchor] =
          assigned[anchor] < 0 ? 0.0f : static_cast<float>(winning(image, assigned[anchor], anchor));
    }
    for (int64_t anchor = 0; op_.labels && anchor < anchors_; ++anchor) {
      const int32_t gt = assigned[anchor];
      op_.labels[image * anchors_ + anchor] = gt < 0 ? gt : static_cast<int32_t>(label(image, gt));
    }
  }

  void clear(int64_t image, int32_t* assigned) const {
    for (int i = 0; i < op_.levels.count; ++i) {
      const AtssLevel<T> seen = level(image, i);
      for (int y = 0; y < op_.levels.level[i].height; ++y) {
        const int valid = y < seen.height ? seen.width : 0;
        for (int x = 0; x < seen.row_cells; ++x) *assigned++ = x < valid ? GFL_BACKGROUND : GFL_OUTSIDE;
      }
    }
  }

  // The winner's IoU in full precision: a float64 tie must not be decided by its float32 rounding.
  T winning(int64_t image, int64_t gt, int64_t anchor) const {
    const Claim<T>* winner = claims(image, gt);
    while (winner->anchor != anchor) ++winner;
    return winner->iou;
  }

  const gfl_atss_assign& op_;
  int64_t first_anchor_[GFL_MAX_LEVELS] = {};
  int64_t anchors_ = 0;
  int64_t most_claims_ = 0;
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

int64_t cpu_atss_assign_workspace_bytes(const gfl_atss_assign& op) {
  return op.dtype == GFL_FLOAT64 ? Atss<double>(op).workspace_bytes() : Atss<float>(op).workspace_bytes();
}

}  // namespace gfl
