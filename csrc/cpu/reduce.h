// What the CPU kernels share around a sum: its scale, the partial sums of the chunks, the value at the end.
#pragma once

#include "../gfl.h"
#include "../math/reduction.h"
#include "chunks.h"

namespace gfl {

template <class T>
GFL_FN double effective_scale(const gfl_reduction& reduction) {
  const double scale = whole_scale(reduction);
  if (!reduction.avg_factor) return scale;
  constexpr double float32_eps = 1.1920928955078125e-07;
  return scale / (static_cast<double>(*static_cast<const T*>(reduction.avg_factor)) + float32_eps);
}

// The sum of a chunk's losses, whose blocks add to sixteen sums side by side: one alone would be a chain of additions.
class BlockSums {
 public:
  template <class T>
  GFL_MEMBER void add(const T* block, int count) {
    if (count == kBlock) {
      for (int i = 0; i < kBlock; ++i) lanes_[i] += static_cast<double>(block[i]);
    } else {
      for (int i = 0; i < count; ++i) lanes_[i] += static_cast<double>(block[i]);
    }
  }
  GFL_MEMBER double total() const {
    double sum = 0;
    for (int i = 0; i < kBlock; ++i) sum += lanes_[i];
    return sum;
  }

 private:
  double lanes_[kBlock] = {};
};

// One after the other, so that the result does not know how many threads made the partials.
template <class T>
GFL_FN void write_sum(const double* partials, int64_t count, double scale, void* loss) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += partials[i];
  *static_cast<T*>(loss) = static_cast<T>(sum * scale);
}

}  // namespace gfl
