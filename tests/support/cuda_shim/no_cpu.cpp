// Test only: the core without its CPU kernels, for a build in which every op of their table runs as CUDA on the host;
// and what the tests ask of the shim.
#include "cpu/kernels/table.h"
#include "cuda_runtime.h"

namespace gfl {

const CpuKernels kernels_baseline{};
const CpuKernels kernels_avx2{};
const CpuKernels kernels_avx512{};

}  // namespace gfl

#define GFL_SHIM_API extern "C" __attribute__((visibility("default")))

// For the tests that count launches or look at devices: beside the module's own functions, which are those of the real
// core. The last makes the process one that has used no device yet.
GFL_SHIM_API int64_t gfl_shim_launches() { return shim::launches; }
GFL_SHIM_API unsigned gfl_shim_contexts() { return shim::contexts; }
GFL_SHIM_API int gfl_shim_current_device() { return shim::current_device; }
GFL_SHIM_API void gfl_shim_forget_devices() {
  shim::contexts = 0;
  shim::current_device = 0;
}
