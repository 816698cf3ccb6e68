// The one dtype switch of the CUDA core.
#pragma once

#include "../error.h"
#include "../math/half.h"

namespace gfl {
namespace cuda {

template <class T>
struct Type {
  using type = T;
};

// Calls run(Type<T>()) for the floating point type that a dtype code stands for.
template <class Run>
int with_float_type(int32_t dtype, const Run& run) {
  switch (dtype) {
    case GFL_FLOAT64:
      return run(Type<double>());
    case GFL_FLOAT32:
      return run(Type<float>());
    case GFL_BFLOAT16:
      return run(Type<bfloat16>());
    case GFL_FLOAT16:
      return run(Type<float16>());
    default:
      return fail(GFL_ERROR_ARGUMENT, "dtype code %d is not a floating point type", static_cast<int>(dtype));
  }
}

}  // namespace cuda
}  // namespace gfl
