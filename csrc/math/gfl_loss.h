// What the sums over the positives come to in the whole GFL loss: their weights add up to W, of all ranks the mean.
//
//   L = scale sum / max(W, 1),   dL/dsum = scale / max(W, 1);   mean quality = sum / max(positives, 1)
#pragma once

#include "elementary.h"

namespace gfl {

template <class T>
GFL_FN T over_weight(double value, double scale, T weight) {
  return static_cast<T>(value * scale * (1.0 / static_cast<double>(maximum(weight, constant<T>(1.0)))));
}

template <class T>
GFL_FN T mean_quality(double sum, T positives) {
  return static_cast<T>(sum / static_cast<double>(maximum(positives, constant<T>(1.0))));
}

}  // namespace gfl
