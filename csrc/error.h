// The text behind gfl_last_error: one per thread, written where the failure is known best.
#pragma once

#include "gfl.h"

namespace gfl {

// Stores the message (printf style) and returns the status, so that a check reads `return fail(...)`.
__attribute__((format(printf, 2, 3))) int fail(gfl_status status, const char* format, ...);

}  // namespace gfl
