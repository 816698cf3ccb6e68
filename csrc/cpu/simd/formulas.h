// The formulas of csrc/math, for vectors as for scalars. A template takes overloads for a vector only from what stands
// before it, so the primitives come first; a file that has it the other way round does not compile.
#pragma once

#include "vec.h"

#include "../../math/class_loss.h"
#include "../../math/distribution_box_loss.h"
#include "../../math/generalized_focal_loss.h"
#include "../../math/gfl_loss.h"
#include "../../math/nms.h"
