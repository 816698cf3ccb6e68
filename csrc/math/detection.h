// From a head's logits to scored boxes.
//
//   score  s(x) = 1 / (1 + e^-x), rounded to the compute type: s never falls where x rises, so a threshold on scores is
//          one on logits but for the rounding, which `least_logit` leaves room for
//   box    point (column, row) * stride; x1 = point - E_left * stride and so on, clipped to the image and then divided by
//          the factor that the image was scaled with
#pragma once

#include "iou.h"

namespace gfl {

// In double and rounded once: the same bits on every device and whatever stands beside it, so that equal logits tie.
GFL_FN float score_of_logit(float x) { return static_cast<float>(1.0 / (1.0 + ::exp(-static_cast<double>(x)))); }
GFL_FN double score_of_logit(double x) { return 1.0 / (1.0 + ::exp(-x)); }

// No logit below this one has a score above or equal to `score`; a few above it may have none either.
GFL_FN double least_logit(double score) {
  const double lower = score * (1.0 - 2e-6);
  if (!(lower > 0.0)) return -HUGE_VAL;
  const double logit = ::log(lower / (1.0 - lower));
  return logit - 1e-6 * (1.0 + ::fabs(logit));
}

// Numbers whose ascending order is the scores' descending one; 0 and -0 are one score.
GFL_FN uint32_t descending_bits(float score) {
  const uint32_t bits = float_bits(score + 0.0f);
  return bits >> 31 ? bits : ~(bits | 0x80000000u);
}
GFL_FN uint64_t descending_bits(double score) {
  uint64_t bits;
  const double positive_zero = score + 0.0;
  memcpy(&bits, &positive_zero, sizeof bits);
  constexpr uint64_t sign = uint64_t{1} << 63;
  return bits & sign ? bits : ~(bits | sign);
}
GFL_FN float score_of_bits(uint32_t descending) {
  const uint32_t bits = ~descending;
  return bits_float(bits >> 31 ? bits & 0x7fffffffu : descending);
}
GFL_FN double score_of_bits(uint64_t descending) {
  constexpr uint64_t sign = uint64_t{1} << 63;
  const uint64_t bits = ~descending & sign ? ~descending & ~sign : descending;
  double score;
  memcpy(&score, &bits, sizeof score);
  return score;
}

// torch.clamp's: a NaN stays one.
template <class T>
GFL_FN T clipped(T x, T most) {
  const T positive = select(x < T(), T(), x);
  return select(positive > most, most, positive);
}

template <class T>
struct ImageFrame {
  T height, width;
  T scale_x, scale_y;
};

template <class T>
GFL_FN Box<T> detected_box(T column, T row, T stride, const T (&expectation)[4], const ImageFrame<T>& image) {
  const T x = column * stride;
  const T y = row * stride;
  return {clipped(x - expectation[0] * stride, image.width) / image.scale_x,
          clipped(y - expectation[1] * stride, image.height) / image.scale_y,
          clipped(x + expectation[2] * stride, image.width) / image.scale_x,
          clipped(y + expectation[3] * stride, image.height) / image.scale_y};
}

template <class T>
GFL_FN bool exceeds(const Box<T>& box, T min_size) {
  return box.x2 - box.x1 > min_size && box.y2 - box.y1 > min_size;
}

}  // namespace gfl
