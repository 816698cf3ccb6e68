// NMS and post-processing on the CPU: what is sorted, grouped and merged around the kernels. It is scalar code, so one
// build of it serves every instruction set.
#pragma once

#include "../gfl.h"
#include "kernels.h"

namespace gfl {

int cpu_nms(const CpuKernels& kernels, const gfl_nms& op);
int64_t cpu_nms_workspace_bytes(const gfl_nms& op);
int cpu_postprocess(const CpuKernels& kernels, const gfl_postprocess& op);
int64_t cpu_postprocess_workspace_bytes(const gfl_postprocess& op);

}  // namespace gfl
