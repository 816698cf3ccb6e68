// Test only: the core without its CPU kernels, for a build in which every op of their table runs as CUDA on the host.
#include "cpu/kernels.h"

namespace gfl {

const CpuKernels kernels_baseline{};
const CpuKernels kernels_avx2{};
const CpuKernels kernels_avx512{};

}  // namespace gfl
