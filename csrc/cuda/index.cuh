// Divisions by a number that the host knows, and views with strides.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "../gfl.h"
#include "../math/half.h"

namespace gfl {
namespace cuda {

// n / d = (high half of n m, plus n) >> shift, exact for 0 <= n < 2^32 and 0 < d < 2^32: two or three instructions in place
// of the twenty of a division.
class Divider {
 public:
  explicit Divider(int64_t divisor = 1) : divisor_(divisor) {
    if (divisor < 1 || divisor >= 2 * kLimit) return;
    while ((int64_t{1} << shift_) < divisor) ++shift_;
    multiplier_ = static_cast<uint32_t>(((uint64_t{1} << 32) * ((uint64_t{1} << shift_) - divisor)) / divisor + 1);
  }

  // Neither n nor the divisor may reach 2^31: the sum has no bit to spare.
  __device__ __forceinline__ int divide(int n) const {
    return static_cast<int>((__umulhi(static_cast<uint32_t>(n), multiplier_) + static_cast<uint32_t>(n)) >> shift_);
  }
  __device__ __forceinline__ uint32_t divide(uint32_t n) const {
    return static_cast<uint32_t>((static_cast<uint64_t>(__umulhi(n, multiplier_)) + n) >> shift_);
  }
  // Of any size: the short way where it will do.
  __device__ __forceinline__ int64_t divide_long(int64_t n) const {
    return n < kLimit && divisor_ < kLimit ? divide(static_cast<int>(n)) : n / divisor_;
  }
  __host__ __device__ __forceinline__ int64_t divisor() const { return divisor_; }

 private:
  static constexpr int64_t kLimit = int64_t{1} << 31;
  int64_t divisor_;
  uint32_t multiplier_ = 1;
  int shift_ = 0;
};

// A (rows, cols) view of values that are T, or already of the compute type.
template <class T>
struct MatrixView {
  const void* data;
  int64_t row_stride;
  int64_t col_stride;
  bool wide;  // the compute type

  __device__ __forceinline__ Compute<T> at(int64_t row, int64_t col) const {
    const int64_t offset = row * row_stride + col * col_stride;
    return wide ? static_cast<const Compute<T>*>(data)[offset] : widen(static_cast<const T*>(data)[offset]);
  }
};

template <class T>
MatrixView<T> matrix_view(const gfl_matrix& matrix, int32_t own_dtype) {
  return {matrix.data, matrix.row_stride, matrix.col_stride, matrix.dtype != own_dtype};
}

}  // namespace cuda
}  // namespace gfl
