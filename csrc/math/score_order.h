// Scored things in the order in which detectors look at them: by descending score, equal scores by ascending index.
#pragma once

#include "detection.h"

namespace gfl {

// A score and an index that compare as one number. In float they are one: score bits above, index below.
struct WideOrderKey {
  uint64_t score;
  uint64_t index;
};
GFL_FN bool operator<(const WideOrderKey& a, const WideOrderKey& b) {
  return a.score != b.score ? a.score < b.score : a.index < b.index;
}

template <class T>
struct OrderKeyType;
template <>
struct OrderKeyType<float> {
  using type = uint64_t;
};
template <>
struct OrderKeyType<double> {
  using type = WideOrderKey;
};
template <class T>
using OrderKey = typename OrderKeyType<T>::type;

// An index must be less.
constexpr int64_t kOrderKeyIndices = int64_t{1} << 32;

GFL_FN uint64_t order_key(float score, int64_t index) {
  return static_cast<uint64_t>(descending_bits(score)) << 32 | static_cast<uint64_t>(index);
}
GFL_FN WideOrderKey order_key(double score, int64_t index) {
  return {descending_bits(score), static_cast<uint64_t>(index)};
}
GFL_FN int64_t index_of(uint64_t key) { return static_cast<int64_t>(key & 0xffffffffu); }
GFL_FN int64_t index_of(const WideOrderKey& key) { return static_cast<int64_t>(key.index); }
GFL_FN float score_of(uint64_t key) { return score_of_bits(static_cast<uint32_t>(key >> 32)); }
GFL_FN double score_of(const WideOrderKey& key) { return score_of_bits(key.score); }

}  // namespace gfl
