// Test only: what the kernels work out in a short way, against the long one.
#pragma once

#include "buffers.h"
#include "cuda/candidates.cuh"
#include "cuda/class_loss.cuh"

namespace {

void dividers(Random& random) {
  const auto any = [&](int bits) {
    return static_cast<uint32_t>(random.below(1 << 16) << 16 | random.below(1 << 16)) >> (32 - bits);
  };
  const uint32_t divisor = random.below(8) == 0 ? 0xffffffffu : 1 + any(1 + random.below(32)) % 0xffffffffu;
  const gfl::cuda::Divider by(divisor);
  for (int i = 0; i < 200; ++i) {
    const uint32_t near =
        divisor * static_cast<uint32_t>(1 + random.below(9)) - 1;  // where a quotient is about to rise
    for (const uint32_t n : {any(1 + random.below(32)), near, near + 1, 0xffffffffu}) {
      if (by.divide(n) != n / divisor) die("divider: " + std::to_string(n) + " by " + std::to_string(divisor));
      const int small = static_cast<int>(n >> 1);
      if (divisor >> 31 == 0 && by.divide(small) != small / static_cast<int>(divisor)) die("divider of an int");
      if (by.divide_long(n) != static_cast<int64_t>(n / divisor)) die("divider of any size");
    }
  }
}

// A rough step is the step of the score, or says that it does not know; which is rare.
void rough_steps(Random& random) {
  const float threshold = static_cast<float>(random.of({0.0, 0.001, 0.05, 0.3, 0.999}));
  const uint32_t end = gfl::cuda::distance_of(threshold);
  int shift = 0;
  while (end >> shift >= gfl::cuda::kSteps) ++shift;
  int unknown = 0;
  constexpr int kTries = 4000;
  for (int i = 0; i < kTries; ++i) {
    float logit = static_cast<float>(random.between(-8.0, 6.0));
    if (i % 4 == 0)
      logit = random.of({-1e4f, -300.0f, -104.0f, -88.5f, -80.0f, 17.0f, 90.0f, 1e4f, INFINITY, -INFINITY});
    if (i % 4 == 1) {  // the score is at the end of a step, or of the whole range
      const uint32_t edge = random.coin() ? end : static_cast<uint32_t>(random.below(2048)) << shift;
      const double score = gfl::cuda::score_at<float>(edge);
      if (score > 0.0 && score < 1.0) logit = static_cast<float>(std::log(score / (1.0 - score)));
    }
    const float score = gfl::score_of_logit(logit);
    const uint32_t rough = gfl::cuda::rough_step(logit, shift, end);
    const uint32_t distance = gfl::cuda::distance_of(score);
    if (rough == gfl::cuda::kSteps) {
      if (i % 4 > 1 && score > threshold) ++unknown;
    } else if (!(score > threshold) || rough != distance >> shift) {
      die("rough step of " + std::to_string(logit));
    }
  }
  if (shift >= 12 && unknown > kTries / 20) die("rough steps are hardly ever known");
}

// The terms of a half logit, of which there are so few that all are tried, against those in double.
template <class T>
void brief_terms_of(int bits) {
  const gfl::QualityFocal<gfl::Square> formula{};
  const float x = gfl::widen(T{static_cast<uint16_t>(bits)});
  const gfl::LossGrad<float> term = gfl::cuda::negative_loss<T>(formula, x);
  const double p = 1.0 / (1.0 + std::exp(-static_cast<double>(x)));
  const double bce = std::fmax(x, 0.0) + std::log1p(std::exp(-std::fabs(static_cast<double>(x))));
  const double pull = std::isinf(x) ? 0.0 : (1.0 - p) * bce;
  const auto near = [&](double got, double truth) {
    return got == truth || std::fabs(got - truth) <= 3e-6 * truth + 1e-36 || (std::isnan(got) && std::isnan(x));
  };
  if (!near(term.loss, p * p * bce) || !near(term.grad, p * p * (p + 2.0 * pull))) {
    die("brief terms of " + std::to_string(x) + ": " + std::to_string(term.loss) + ", " + std::to_string(term.grad));
  }
}

void brief_terms(Random&) {
  static int tried = 0;  // 128 cases have them all
  for (int i = 0; i < 512; ++i, ++tried) {
    const int bits = tried % (1 << 16);
    brief_terms_of<gfl::bfloat16>(bits);
    brief_terms_of<gfl::float16>(bits);
  }
}

}  // namespace
