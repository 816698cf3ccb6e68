// A loss of one (rows, classes) matrix, part by part, for losses of several matrices.
#pragma once

#include "table.h"

namespace gfl {
namespace GFL_ISA {

struct MatrixPart {
  int64_t row, row_end;
  int64_t col, col_end;
};

// The losses of a part, of at most kChunkElements or kBlock rows, summed but not scaled.
double class_loss_of_part(const gfl_class_loss& op, Pass pass, const MatrixPart& part);

}  // namespace GFL_ISA
}  // namespace gfl
