// Scored things in the order in which detectors look at them: by descending score, equal scores by ascending index.
#pragma once

#include "detection.h"

namespace gfl {

// A score and an index that compare as one number. In float they are one: score bits above, index below.
struct WideRank {
  uint64_t score;
  uint64_t index;
};
GFL_FN bool operator<(const WideRank& a, const WideRank& b) {
  return a.score != b.score ? a.score < b.score : a.index < b.index;
}

template <class T>
struct RankType;
template <>
struct RankType<float> {
  using type = uint64_t;
};
template <>
struct RankType<double> {
  using type = WideRank;
};
template <class T>
using Rank = typename RankType<T>::type;

constexpr int64_t kMostRanked = int64_t{1} << 32;

GFL_FN uint64_t rank_of(float score, int64_t index) {
  return static_cast<uint64_t>(descending_bits(score)) << 32 | static_cast<uint64_t>(index);
}
GFL_FN WideRank rank_of(double score, int64_t index) { return {descending_bits(score), static_cast<uint64_t>(index)}; }
GFL_FN int64_t index_of(uint64_t rank) { return static_cast<int64_t>(rank & 0xffffffffu); }
GFL_FN int64_t index_of(const WideRank& rank) { return static_cast<int64_t>(rank.index); }
GFL_FN float score_of(uint64_t rank) { return score_of_bits(static_cast<uint32_t>(rank >> 32)); }
GFL_FN double score_of(const WideRank& rank) { return score_of_bits(rank.score); }

}  // namespace gfl
