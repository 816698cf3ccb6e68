// Scored things in the order in which detectors look at them: by descending score, equal scores by ascending index.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../math/detection.h"

namespace gfl {

// A score and an index that compare as one number. In float they are one: score bits above, index below.
struct WideRank {
  uint64_t score;
  uint64_t index;
};
inline bool operator<(const WideRank& a, const WideRank& b) {
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

inline uint64_t rank_of(float score, int64_t index) {
  return static_cast<uint64_t>(descending_bits(score)) << 32 | static_cast<uint64_t>(index);
}
inline WideRank rank_of(double score, int64_t index) { return {descending_bits(score), static_cast<uint64_t>(index)}; }
inline int64_t index_of(uint64_t rank) { return static_cast<int64_t>(rank & 0xffffffffu); }
inline int64_t index_of(const WideRank& rank) { return static_cast<int64_t>(rank.index); }
inline float score_of(uint64_t rank) { return score_of_bits(static_cast<uint32_t>(rank >> 32)); }
inline double score_of(const WideRank& rank) { return score_of_bits(rank.score); }

// By score alone, eleven bits at a time: the ranks come with ascending indices, and equal scores keep them so.
inline void sort_by_score(uint64_t* ranks, int64_t count, uint64_t* scratch) {
  constexpr int kDigit = 11;
  constexpr uint64_t kDigits = uint64_t{1} << kDigit;
  if (count < 256) return std::sort(ranks, ranks + count);
  uint64_t* from = ranks;
  uint64_t* to = scratch;
  for (int shift = 32; shift < 64; shift += kDigit) {
    int64_t places[kDigits] = {};
    for (int64_t i = 0; i < count; ++i) ++places[(from[i] >> shift) & (kDigits - 1)];
    int64_t before = 0;
    for (int64_t& place : places) {
      const int64_t here = place;
      place = before;
      before += here;
    }
    for (int64_t i = 0; i < count; ++i) to[places[(from[i] >> shift) & (kDigits - 1)]++] = from[i];
    std::swap(from, to);
  }
  std::copy(from, from + count, ranks);
}
inline void sort_by_score(WideRank* ranks, int64_t count, WideRank*) { std::sort(ranks, ranks + count); }

// Hands out the pieces of a workspace; over nothing it only adds up their sizes.
class Workspace {
 public:
  explicit Workspace(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(int64_t count) {
    char* piece = base_ ? base_ + used_ : nullptr;
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return reinterpret_cast<T*>(piece);
  }
  int64_t bytes() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace gfl
