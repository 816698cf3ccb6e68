// Which CUDA the driver knows, and which one is compiled in. Neither question makes a context.
#include <cuda_runtime.h>

#include "cuda_ops.h"

namespace gfl {
namespace cuda {

int driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

int runtime_version() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

}  // namespace cuda
}  // namespace gfl
