// ATSS on the CPU. It is scalar code, so one build of it serves every instruction set.
#pragma once

#include "../gfl.h"

namespace gfl {

int cpu_atss_assign(const gfl_atss& op);
int64_t cpu_atss_workspace_bytes(const gfl_atss& op);

}  // namespace gfl
