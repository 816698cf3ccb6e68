// What every kernel file begins with.
#pragma once

#include "../../error.h"
#include "../reduce.h"
#include "../simd/formulas.h"
#include "../simd/run.h"
#include "isa.h"
#include "table.h"

namespace gfl {

// Returns run(T()), a status, with the type that values of a dtype are computed in: double for doubles, float for all
// others. `name` is what an error calls them.
template <class Run>
GFL_FN int with_compute_type(int32_t dtype, const char* name, const Run& run) {
  if (!is_float_dtype(dtype)) return fail(GFL_ERROR_ARGUMENT, "unknown dtype %d of %s", dtype, name);
  return dtype == GFL_FLOAT64 ? run(double()) : run(float());
}

}  // namespace gfl
