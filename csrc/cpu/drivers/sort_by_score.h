// Sorts order keys.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../math/score_order.h"

namespace gfl {

// By score alone, eleven bits at a time: the keys come with ascending indices, and equal scores keep them so.
inline void sort_by_score(uint64_t* keys, int64_t count, uint64_t* scratch) {
  constexpr int kDigit = 11;
  constexpr uint64_t kDigits = uint64_t{1} << kDigit;
  if (count < 256) return std::sort(keys, keys + count);
  uint64_t* from = keys;
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
  std::copy(from, from + count, keys);
}
inline void sort_by_score(WideOrderKey* keys, int64_t count, WideOrderKey*) { std::sort(keys, keys + count); }

}  // namespace gfl
