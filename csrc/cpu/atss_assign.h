// ATSS on the CPU. It is scalar code, so one build of it serves every instruction set.
#pragma once

#include "../gfl.h"

namespace gfl {

int cpu_atss_assign(const gfl_atss_assign& op);
int64_t cpu_atss_assign_workspace_bytes(const gfl_atss_assign& op);

}  // namespace gfl
