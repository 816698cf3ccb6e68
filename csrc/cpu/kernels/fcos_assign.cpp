// FCOS's assignment in three steps, each in parallel: clear the cells; the gts claim them; the cells get their distances.
#include "kernel.h"
// Formulas come after the vectors.
#include "../../math/fcos_assign.h"
#include "assignment.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
void claim_cells(const Fcos<T>& fcos, int64_t image, int32_t gt) {
  const Box<T> box = fcos.gts.box(image, gt);
  const T area = box_area(box);
  const auto is_stronger = [&](int32_t rival) { return fcos.is_stronger(image, gt, area, rival); };
  for (int level = 0; level < fcos.grid.levels.count; ++level) {
    const Box<T> reach = fcos.reach(level, box);
    const Cells cells = fcos.candidates(level, box, reach);
    for (int64_t i = 0; i < cells.count(); ++i) {
      const int64_t anchor = cells.anchor(i);
      if (!fcos.may_learn(level, fcos.point(level, anchor), box, reach)) continue;
      claim_from_weaker(fcos.assigned(image) + anchor, gt, compare_exchange, is_stronger);
    }
  }
}

template <class T>
int run(const gfl_fcos_assign& op) {
  const Fcos<T> fcos(op);
  for_all(op.batch, fcos.anchors, kAnchorsOfPiece,
          [&](int64_t image, int64_t anchor) { fcos.assigned(image)[anchor] = GFL_BACKGROUND; });
  for_all(op.batch, op.num_gts, kGtsOfPiece, [&](int64_t image, int64_t gt) {
    if (fcos.gts.takes_part(image, gt)) claim_cells(fcos, image, static_cast<int32_t>(gt));
  });
  for_all(op.batch, fcos.anchors, kAnchorsOfPiece, [&](int64_t image, int64_t anchor) { fcos.finish(image, anchor); });
  return GFL_OK;
}

}  // namespace

int fcos_assign(const gfl_fcos_assign& op) {
  return with_compute_type(op.dtype, "gt_boxes", [&](auto zero) { return run<decltype(zero)>(op); });
}

}  // namespace GFL_ISA
}  // namespace gfl
