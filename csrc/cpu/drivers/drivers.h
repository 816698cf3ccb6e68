// What runs on the CPU outside the kernels: assigners, NMS and post-processing. It is scalar code, so one build of it
// serves every instruction set; the kernels that it calls are those of the set chosen.
#pragma once

#include "../../gfl.h"
#include "../kernels/table.h"

namespace gfl {

int cpu_atss_assign(const gfl_atss_assign& op);
int cpu_nms(const CpuKernels& kernels, const gfl_nms& op);
int64_t cpu_nms_workspace_bytes(const gfl_nms& op);
int cpu_postprocess(const CpuKernels& kernels, const gfl_postprocess& op);
int64_t cpu_postprocess_workspace_bytes(const gfl_postprocess& op);

}  // namespace gfl
