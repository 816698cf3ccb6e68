// p = sigmoid(x), q = 1 - p and what binary cross entropy needs, from one exponential and one reciprocal.
//
// softplus  sp(x) = log(1 + e^x) = max(x, 0) + log1p(e), e = e^-|x|;  sp'(x) = p;  p' = p q.
// BCE       bce(x, t) = sp(x) - x t = |x| (x >= 0 ? 1 - t : t) + log1p(e), which has no cancellation.
#pragma once

#include "elementary.h"

namespace gfl {

template <class T>
struct SigmoidParts {
  T p;  // sigmoid(x)
  T q;  // 1 - p
  T e;  // e times slope is log(1 + e^-|x|)
  T slope;
};

// a + log(1 + e^-|x|)
template <class T>
GFL_FN T plus_log1p(T a, const SigmoidParts<T>& parts) {
  return fused(parts.e, parts.slope, a);
}

// In three steps, for whoever takes them one at a time: e, r of e, and the parts of all three.
template <class T>
GFL_FN T sigmoid_exponential(T x) {
  return exponential(-absolute(x));
}

template <class T>
GFL_FN T sigmoid_reciprocal(T e) {
  return reciprocal(e + 1.0f);
}

template <class T>
GFL_FN SigmoidParts<T> sigmoid_parts(T x, T e, T r) {
  const T smaller = e * r;
  return {select(x >= T(), r, smaller), select(x >= T(), smaller, r), e, log1p_slope(e)};
}

template <class T>
GFL_FN SigmoidParts<T> sigmoid_parts(T x) {
  const T e = sigmoid_exponential(x);
  return sigmoid_parts(x, e, sigmoid_reciprocal(e));
}

GFL_FN SigmoidParts<double> sigmoid_parts(double x) {
  const double e = ::exp(-::fabs(x));
  const double larger = 1.0 / (1.0 + e);
  const double smaller = e * larger;
  return {x >= 0 ? larger : smaller, x >= 0 ? smaller : larger, ::log1p(e), 1.0};
}

// Of a logit that was a half type, in little more than half of the instructions: a GPU reads two of those in the time that
// a float takes. q is exact relative to 1 alone, which its product with a softplus still is to 2e-6.
GFL_FN SigmoidParts<float> brief_sigmoid_parts(float x) {
  const float e = brief_exponential(-absolute(x));
  const float r = sigmoid_reciprocal(e);
  const float p = select(x >= 0.0f, r, e * r);
  return {p, 1.0f - p, e, brief_log1p_slope(e)};
}

template <class T>
GFL_FN T softplus(T x, const SigmoidParts<T>& parts) {
  return plus_log1p(select(x >= T(), x, T()), parts);
}

// At x = +-infinity the factor may be 0: nothing of the infinity is left then.
template <class T>
GFL_FN T bce_with_logits(T x, T target, const SigmoidParts<T>& parts) {
  const T slope = select(x >= T(), 1.0f - target, target);
  return plus_log1p(select(slope == T(), T(), absolute(x) * slope), parts);
}

// The exponent of a modulating factor: the usual 2 needs no power, any other costs a logarithm and an exponential.
struct Square {
  template <class T>
  GFL_MEMBER T of_sigmoid(T, const SigmoidParts<T>& parts) const {
    return parts.p * parts.p;
  }
  template <class T>
  GFL_MEMBER T of(T base) const {
    return base * base;
  }
  template <class T>
  GFL_MEMBER T slope(T base) const {
    return base + base;
  }
  template <class T>
  GFL_MEMBER T value() const {
    return constant<T>(2.0);
  }
};

struct Power {
  double exponent;

  // p^b = e^(-b sp(-x)): the logarithm of the sigmoid is at hand.
  template <class T>
  GFL_MEMBER T of_sigmoid(T x, const SigmoidParts<T>& parts) const {
    const T minus_log_p = plus_log1p(select(x < T(), -x, T()), parts);
    return exponential(-(value<T>() * capped(minus_log_p)));
  }
  template <class T>
  GFL_MEMBER T of(T base) const {
    return power(base, exponent);
  }
  // d base^b / d base; 0 at base 0, where an exponent below 1 has no derivative.
  template <class T>
  GFL_MEMBER T slope(T base) const {
    const T steep = value<T>() * power(base, exponent - 1.0);
    return select(base == T(), constant<T>(exponent == 1.0 ? 1.0 : 0.0), steep);
  }
  template <class T>
  GFL_MEMBER T value() const {
    return constant<T>(exponent);
  }
};

}  // namespace gfl
