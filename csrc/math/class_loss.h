// Dense classification losses of one logit x (or one probability p), and their derivatives; p, q and sp: see elementary.h.
//
// bce(x, t) = sp(x) - x t = |x| (x >= 0 ? 1 - t : t) + log1p(e^-|x|), which has no cancellation.
//
// Quality focal loss, d = p - t
//   negative  L = p^b sp(x)         L' = p^b (p + b q sp(x))                  since (p^b)' = b p^b q
//   dense     L = |d|^b bce(x, t)   L' = |d|^b d + b |d|^(b-1) sign(d) p q bce(x, t)
//   positive  the dense form with t = score; t = 0 makes the dense form the negative one.
//   bce' = p - t is taken as p (1 - t) - q t, exact relative to the result for t = 0 and 1.
// The same of probabilities, with BCE as torch has it: logs clamped at -100, bce' = (p - t) / max(p q, 1e-12).
//   A probability outside [0, 1] gives NaN.
// Sigmoid focal loss, u = p (1 - t) + q t, a = alpha t + (1 - alpha)(1 - t)
//   dense     L = a u^g bce(x, t)   L' = a (u^g (p - t) + g u^(g-1) (1 - 2t) p q bce(x, t))
//   negative  t = 0: (1 - alpha) times QFL's negative;   positive  t = 1: alpha times the same of -x.
// Soft cross entropy: bce(x, t), which is QFL with b = 0.
// Varifocal loss
//   dense     L = t bce(x, t) for t > 0, alpha times QFL for the others; `even`: 1 in place of the factor t
//   negative  alpha times QFL's negative;   positive  the form of t > 0, also at t = 0.
//   `detached`: the modulating factor |d|^g counts as a constant, so that L' loses its second term.
//
// At x = +-infinity one factor is 0 while bce is infinite; the limit of their product is 0, hence capped(bce).
#pragma once

#include "elementary.h"

namespace gfl {

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

// A negative's loss as the product that it is, which a sum of losses takes in one step.
template <class T>
struct NegativeTerm {
  T modulation;
  T bce;
  T grad;
};

// bce times the factor p^b of a negative, or |d|^b of a dense target with d = p - t. `detached` leaves out the gradient of
// the factor.
template <class Exponent, class T>
GFL_FN NegativeTerm<T> modulated_negative(const Exponent& exponent, T x, const SigmoidParts<T>& parts, bool detached) {
  const T modulation = exponent.of_sigmoid(x, parts);
  const T bce = softplus(x, parts);
  const T pull = vanishing_product(parts.q, bce);
  const T slope = detached ? T() : exponent.template value<T>();
  return {modulation, bce, modulation * fused(slope, pull, parts.p)};
}
template <class Exponent, class T>
GFL_FN LossGrad<T> modulated_dense(const Exponent& exponent, T d, T bce, const SigmoidParts<T>& parts, bool detached) {
  const T distance = absolute(d);
  const T modulation = exponent.of(distance);
  const T steep = detached ? T() : exponent.slope(distance) * (parts.p * parts.q * capped(bce));
  const T pull = select(d > T(), steep, select(d == T(), T(), -steep));
  return {modulation * bce, modulation * d + pull};
}

template <class Exponent>
struct QualityFocal {
  static constexpr bool of_logits = true;
  Exponent beta;

  template <class T>
  GFL_MEMBER LossGrad<T> negative(T x) const {
    return negative(x, sigmoid_parts(x));
  }
  template <class T>
  GFL_MEMBER LossGrad<T> negative(T x, const SigmoidParts<T>& parts) const {
    const NegativeTerm<T> term = negative_term(x, parts);
    return {term.modulation * term.bce, term.grad};
  }
  template <class T>
  GFL_MEMBER NegativeTerm<T> negative_term(T x, const SigmoidParts<T>& parts) const {
    return modulated_negative(beta, x, parts, false);
  }

  template <class T>
  GFL_MEMBER LossGrad<T> dense(T x, T target) const {
    return dense(x, target, sigmoid_parts(x));
  }
  template <class T>
  GFL_MEMBER LossGrad<T> dense(T x, T target, const SigmoidParts<T>& parts) const {
    const T d = parts.p * (1.0f - target) - parts.q * target;
    return modulated_dense(beta, d, bce_with_logits(x, target, parts), parts, false);
  }

  template <class T>
  GFL_MEMBER LossGrad<T> positive(T x, T score) const {
    return dense(x, score);
  }
};

template <class Exponent>
struct QualityFocalProbability {
  static constexpr bool of_logits = false;
  Exponent beta;

  template <class T>
  GFL_MEMBER LossGrad<T> dense(T p, T target) const {
    const T floor = constant<T>(-100.0);
    const T log_p = maximum(logarithm(p), floor);
    const T log_q = maximum(log_complement(p), floor);
    const T bce = -(target * log_p + (1.0f - target) * log_q);
    const T variance = maximum(p * (1.0f - p), constant<T>(1e-12f));  // a float in torch, for double as well
    const T d = p - target;
    const T distance = absolute(d);
    const T modulation = beta.of(distance);
    const T steep = beta.slope(distance) * bce;
    const T pull = select(d > T(), steep, select(d == T(), T(), -steep));
    const T inside = select(p >= T(), select(p <= constant<T>(1.0), T(), constant<T>(NAN)), constant<T>(NAN));
    return {modulation * bce + inside, modulation * (d / variance) + pull + inside};
  }

  template <class T>
  GFL_MEMBER LossGrad<T> negative(T p) const {
    return dense(p, T());
  }
  template <class T>
  GFL_MEMBER LossGrad<T> positive(T p, T score) const {
    return dense(p, score);
  }
};

template <class Exponent>
struct SigmoidFocal {
  static constexpr bool of_logits = true;
  Exponent gamma;
  double alpha;

  template <class T>
  GFL_MEMBER LossGrad<T> negative(T x) const {
    return negative(x, sigmoid_parts(x));
  }
  template <class T>
  GFL_MEMBER LossGrad<T> negative(T x, const SigmoidParts<T>& parts) const {
    const LossGrad<T> term = QualityFocal<Exponent>{gamma}.negative(x, parts);
    const T share = constant<T>(1.0 - alpha);
    return {share * term.loss, share * term.grad};
  }
  template <class T>
  GFL_MEMBER NegativeTerm<T> negative_term(T x, const SigmoidParts<T>& parts) const {
    const NegativeTerm<T> term = QualityFocal<Exponent>{gamma}.negative_term(x, parts);
    const T share = constant<T>(1.0 - alpha);
    return {share * term.modulation, term.bce, share * term.grad};
  }

  template <class T>
  GFL_MEMBER LossGrad<T> positive(T x, T) const {
    const LossGrad<T> term = QualityFocal<Exponent>{gamma}.negative(-x);
    const T share = constant<T>(alpha);
    return {share * term.loss, -(share * term.grad)};
  }

  template <class T>
  GFL_MEMBER LossGrad<T> dense(T x, T target) const {
    return dense(x, target, sigmoid_parts(x));
  }
  template <class T>
  GFL_MEMBER LossGrad<T> dense(T x, T target, const SigmoidParts<T>& parts) const {
    const T rest = 1.0f - target;
    const T u = parts.p * rest + parts.q * target;
    const T share = constant<T>(alpha) * target + constant<T>(1.0 - alpha) * rest;
    const T bce = bce_with_logits(x, target, parts);
    const T modulation = gamma.of(u);
    const T pull = gamma.slope(u) * ((rest - target) * (parts.p * parts.q * capped(bce)));
    return {share * (modulation * bce), share * (modulation * (parts.p * rest - parts.q * target) + pull)};
  }
};

struct SoftCrossEntropy {
  static constexpr bool of_logits = true;

  template <class T>
  GFL_MEMBER LossGrad<T> negative(T x) const {
    return negative(x, sigmoid_parts(x));
  }
  template <class T>
  GFL_MEMBER LossGrad<T> negative(T x, const SigmoidParts<T>& parts) const {
    return {softplus(x, parts), parts.p};
  }
  template <class T>
  GFL_MEMBER NegativeTerm<T> negative_term(T x, const SigmoidParts<T>& parts) const {
    return {constant<T>(1.0), softplus(x, parts), parts.p};
  }

  template <class T>
  GFL_MEMBER LossGrad<T> dense(T x, T target) const {
    return dense(x, target, sigmoid_parts(x));
  }
  template <class T>
  GFL_MEMBER LossGrad<T> dense(T x, T target, const SigmoidParts<T>& parts) const {
    return {bce_with_logits(x, target, parts), parts.p * (1.0f - target) - parts.q * target};
  }

  template <class T>
  GFL_MEMBER LossGrad<T> positive(T x, T score) const {
    return dense(x, score);
  }
};

template <class Exponent>
struct Varifocal {
  static constexpr bool of_logits = true;
  Exponent gamma;
  double alpha;
  bool even;
  bool detached;

  template <class T>
  GFL_MEMBER LossGrad<T> negative(T x) const {
    return negative(x, sigmoid_parts(x));
  }
  template <class T>
  GFL_MEMBER LossGrad<T> negative(T x, const SigmoidParts<T>& parts) const {
    const NegativeTerm<T> term = negative_term(x, parts);
    return {term.modulation * term.bce, term.grad};
  }
  template <class T>
  GFL_MEMBER NegativeTerm<T> negative_term(T x, const SigmoidParts<T>& parts) const {
    const NegativeTerm<T> term = modulated_negative(gamma, x, parts, detached);
    const T share = constant<T>(alpha);
    return {share * term.modulation, term.bce, share * term.grad};
  }

  template <class T>
  GFL_MEMBER LossGrad<T> dense(T x, T target) const {
    return dense(x, target, sigmoid_parts(x));
  }
  template <class T>
  GFL_MEMBER LossGrad<T> dense(T x, T target, const SigmoidParts<T>& parts) const {
    const T d = parts.p * (1.0f - target) - parts.q * target;
    const T bce = bce_with_logits(x, target, parts);
    const T share = constant<T>(alpha);
    const LossGrad<T> of_negative = modulated_dense(gamma, d, bce, parts, detached);
    const LossGrad<T> of_positive = weighed(bce, d, target);
    return {select(target > T(), of_positive.loss, share * of_negative.loss),
            select(target > T(), of_positive.grad, share * of_negative.grad)};
  }

  template <class T>
  GFL_MEMBER LossGrad<T> positive(T x, T score) const {
    const LossGrad<T> term = SoftCrossEntropy{}.dense(x, score);
    return weighed(term.loss, term.grad, score);
  }

  // A factor of 0 leaves nothing of an infinite loss.
  template <class T>
  GFL_MEMBER LossGrad<T> weighed(T bce, T d, T target) const {
    if (even) return {bce, d};
    return {target * select(target == T(), capped(bce), bce), target * d};
  }
};

}  // namespace gfl
