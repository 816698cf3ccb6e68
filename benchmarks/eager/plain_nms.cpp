// Greedy NMS as the plain loop over pairs that libraries ship for CPUs: the baseline of the benchmarks, which
// compiles it where a C++ compiler is at hand. Boxes come by descending score.
#include <algorithm>
#include <cstdint>
#include <vector>

extern "C" int64_t plain_nms(const float* boxes, int64_t count, float threshold, int64_t* keep) {
  std::vector<float> areas(count);
  for (int64_t i = 0; i < count; ++i) {
    areas[i] = (boxes[4 * i + 2] - boxes[4 * i]) * (boxes[4 * i + 3] - boxes[4 * i + 1]);
  }
  std::vector<uint8_t> suppressed(count, 0);
  int64_t kept = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (suppressed[i]) continue;
    keep[kept++] = i;
    const float* a = boxes + 4 * i;
    for (int64_t j = i + 1; j < count; ++j) {
      if (suppressed[j]) continue;
      const float* b = boxes + 4 * j;
      const float width = std::max(0.0f, std::min(a[2], b[2]) - std::max(a[0], b[0]));
      const float height = std::max(0.0f, std::min(a[3], b[3]) - std::max(a[1], b[1]));
      const float inter = width * height;
      if (inter / (areas[i] + areas[j] - inter) > threshold) suppressed[j] = 1;
    }
  }
  return kept;
}
