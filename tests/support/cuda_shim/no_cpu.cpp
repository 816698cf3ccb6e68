// Test only: the core without its CPU kernels, for a build in which every op of their table runs as CUDA on the host;
// and how many kernels were launched.
#include "cpu/kernels.h"
#include "cuda_runtime.h"

namespace gfl {

const CpuKernels kernels_baseline{};
const CpuKernels kernels_avx2{};
const CpuKernels kernels_avx512{};

}  // namespace gfl

// For the tests that count launches: beside the module's own functions, which are those of the real core.
extern "C" __attribute__((visibility("default"))) int64_t gfl_shim_launches() { return shim::launches; }
