// Finds the logits that reach a threshold: the candidates of post-processing.
#include "kernel.h"

namespace gfl {
namespace GFL_ISA {
namespace {

GFL_FN int find_lanes(const float* values, int count, float least, int32_t* places) {
  constexpr int width = Lanes<float>::width;
  const VecF floor = VecF() + least;
  int found = 0;
  int i = 0;
  for (; i + 4 * width <= count; i += 4 * width) {
    uint64_t lanes = 0;
    for (int j = 0; j < 4; ++j) {
      lanes |= static_cast<uint64_t>(lane_bits(load(values + i + j * width) >= floor)) << (j * width);
    }
    for (; lanes; lanes &= lanes - 1) places[found++] = i + __builtin_ctzll(lanes);
  }
  for (; i < count; ++i) {
    if (values[i] >= least) places[found++] = i;
  }
  return found;
}
GFL_FN int find_lanes(const double* values, int count, double least, int32_t* places) {
  int found = 0;
  for (int i = 0; i < count; ++i) {
    if (values[i] >= least) places[found++] = i;
  }
  return found;
}

template <class T>
int scan(const LogitScan<T>& op) {
  T buffer[kScanTile];
  const T* values = buffer;
  if (op.dtype == DtypeOf<T>::code && op.stride == 1) {
    values = static_cast<const T*>(op.data) + op.offset;
  } else {
    load_run(op.data, op.dtype, op.offset, op.stride, op.count, buffer);
  }
  const int found = find_lanes(values, op.count, op.least, op.places);
  for (int i = 0; i < found; ++i) op.values[i] = values[op.places[i]];
  return found;
}

}  // namespace

int scan_logits(const LogitScan<float>& op) { return scan(op); }
int scan_logits_double(const LogitScan<double>& op) { return scan(op); }

}  // namespace GFL_ISA
}  // namespace gfl
