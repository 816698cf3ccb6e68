// p = sigmoid(x), q = 1 - p and what binary cross entropy needs, from one exponential and one reciprocal.
//
// softplus  sp(x) = log(1 + e^x) = max(x, 0) + log1p(e), e = e^-|x|;  sp'(x) = p;  p' = p q.
//           r = 1 / ((1 + e)(2 + e)) gives 1 / (1 + e) = r (2 + e) and log1p(e) = 2 atanh(e r (1 + e)).
// BCE       bce(x, t) = sp(x) - x t = |x| (x >= 0 ? 1 - t : t) + log1p(e), which has no cancellation.
#pragma once

#include "elementary.h"

namespace gfl {

template <class T>
struct SigmoidParts {
  T p;        // sigmoid(x)
  T q;        // 1 - p
  T log1p_e;  // log(1 + e^-|x|)
};

// In three steps, for whoever takes them one at a time: e, r of e, and the parts of all three.
template <class T>
GFL_FN T sigmoid_exponential(T x) {
  return exponential(-absolute(x));
}

template <class T>
GFL_FN T sigmoid_reciprocal(T e) {
  return reciprocal((e + 1.0f) * (e + 2.0f));
}

template <class T>
GFL_FN SigmoidParts<T> sigmoid_parts(T x, T e, T r) {
  const T larger = r * (e + 2.0f);
  const T smaller = e * larger;
  const T s = e * (r * (e + 1.0f));
  return {select(x >= T(), larger, smaller), select(x >= T(), smaller, larger), twice_atanh(s)};
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
  return {x >= 0 ? larger : smaller, x >= 0 ? smaller : larger, ::log1p(e)};
}

template <class T>
GFL_FN T softplus(T x, const SigmoidParts<T>& parts) {
  return select(x > T(), x, T()) + parts.log1p_e;
}

// At x = +-infinity the factor may be 0: nothing of the infinity is left then.
template <class T>
GFL_FN T bce_with_logits(T x, T target, const SigmoidParts<T>& parts) {
  const T slope = select(x >= T(), 1.0f - target, target);
  return select(slope == T(), T(), absolute(x) * slope) + parts.log1p_e;
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
    const T minus_log_p = select(x < T(), -x, T()) + parts.log1p_e;
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
