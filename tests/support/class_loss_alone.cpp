// Test only: a table of kernels that has the class losses alone, so that a build that counts lines is quick; and the
// door to its counters.
#include "cpu/kernels/table.h"

extern "C" void __gcov_reset();
extern "C" void __gcov_dump();

namespace gfl {
namespace baseline {
int class_loss(const gfl_class_loss& op, Pass pass);
}

static CpuKernels class_loss_alone() {
  CpuKernels kernels{};
  kernels.class_loss = baseline::class_loss;
  return kernels;
}
const CpuKernels kernels_baseline = class_loss_alone();
const CpuKernels kernels_avx2 = {};
const CpuKernels kernels_avx512 = {};

}  // namespace gfl

extern "C" __attribute__((visibility("default"))) void start_counting() { __gcov_reset(); }
extern "C" __attribute__((visibility("default"))) void write_counts() { __gcov_dump(); }
