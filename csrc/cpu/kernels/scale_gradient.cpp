// Scales a gradient that a forward has computed by the gradient that comes in.
#include "kernel.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
void scale_in_place(void* data, int32_t dtype, int64_t size, T factor) {
  constexpr int kPiece = 256;
  parallel_rows(size, 1, [&](int64_t, int64_t begin, int64_t end) {
    T buffer[kPiece];
    for (int64_t start = begin; start < end; start += kPiece) {
      const int n = static_cast<int>(end - start < kPiece ? end - start : kPiece);
      load_run(data, dtype, start, 1, n, buffer);
      for (int i = 0; i < n; ++i) buffer[i] *= factor;
      store_run(buffer, n, data, dtype, start, 1);
    }
  });
}

}  // namespace

int scale_gradient(void* data, int32_t dtype, int64_t size, const void* factor) {
  return with_compute_type(dtype, "a gradient", [&](auto zero) {
    const auto value = *static_cast<const decltype(zero)*>(factor);
    if (value != 1) scale_in_place(data, dtype, size, value);
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
