// The class logits of one level of a head, in the order in which they lie in memory.
#pragma once

#include "gfl.h"
#include "math/portable.h"

namespace gfl {

struct LevelLogits {
  gfl_bins scores;
  int64_t classes;
  int64_t cells;
  int64_t size;
  int64_t first_index;  // candidates are numbered over all levels: (level, cell, class)
  int64_t most;         // candidates that the level may have
  bool classes_inside;  // neighbours in memory are classes of a cell, not cells of a class
  int64_t run;          // logits in one run of constant stride

  LevelLogits() = default;
  LevelLogits(const gfl_postprocess& op, int level, int64_t first)
      : scores(op.levels[level].scores),
        classes(op.classes),
        cells(static_cast<int64_t>(op.levels[level].height) * op.levels[level].width),
        size(cells * op.classes),
        first_index(first),
        most(op.nms_pre < size ? op.nms_pre : size),
        classes_inside(scores.channel_stride == 1 && scores.length_stride != 1),
        run(outer() == inside() * step() ? size : inside()) {}

  GFL_MEMBER int64_t inside() const { return classes_inside ? classes : cells; }
  GFL_MEMBER int64_t step() const { return classes_inside ? scores.channel_stride : scores.length_stride; }
  GFL_MEMBER int64_t outer() const { return classes_inside ? scores.length_stride : scores.channel_stride; }
  // All of an image's side by side.
  GFL_MEMBER bool dense() const { return run == size && step() == 1; }

  // Where a logit stands in memory, from its place in that order.
  GFL_MEMBER int64_t offset(int64_t image, int64_t place) const {
    return image * scores.batch_stride + place / inside() * outer() + place % inside() * step();
  }
  GFL_MEMBER int64_t index(int64_t place) const {
    if (classes_inside) return first_index + place;
    return first_index + place % cells * classes + place / cells;
  }
};

}  // namespace gfl
