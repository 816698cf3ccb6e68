// Test only: the core without its CPU kernels, for a build in which every op runs as CUDA on the host.
#include <initializer_list>

#include "cpu/kernels.h"
#include "cpu/parallel.h"

namespace gfl {

const CpuKernels kernels_baseline{};
const CpuKernels kernels_avx2{};
const CpuKernels kernels_avx512{};

int64_t cpu_partials(int64_t, int64_t) { return 0; }
int cpu_threads() { return 0; }

}  // namespace gfl
