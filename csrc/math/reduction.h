// The scale of a reduced loss, without its avg_factor, which only the device can read.
#pragma once

#include "../gfl.h"
#include "portable.h"

namespace gfl {

GFL_FN double whole_scale(const gfl_reduction& reduction) {
  return reduction.scale / static_cast<double>(reduction.divisor > 0 ? reduction.divisor : 1);
}

}  // namespace gfl
