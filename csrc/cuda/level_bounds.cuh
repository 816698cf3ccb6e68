// From the steps that scores fall into to a bound for each level's list; see candidates.cuh.
#pragma once

#include "candidates.cuh"

namespace gfl {
namespace cuda {

constexpr int kBoundThreads = 512;
constexpr int kStepsAThread = kSteps / kBoundThreads;

struct CrowdedStep {
  uint32_t step;
  uint32_t before;  // how many are in the steps before it
  uint32_t inside;
};

struct StepSearch {
  uint32_t warp_sums[kBoundThreads / kWarp];
  CrowdedStep found;
};

// The step in which the `wanted`-th is, for wanted >= 1; kSteps where there are not so many. All threads get it.
__device__ __forceinline__ CrowdedStep step_of(const uint32_t* counts, uint32_t wanted) {
  uint32_t (&warp_sums)[kBoundThreads / kWarp] = static_shared<StepSearch>().warp_sums;
  CrowdedStep& found = static_shared<StepSearch>().found;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarp;
  uint32_t own = 0;
  for (int i = 0; i < kStepsAThread; ++i) own += counts[thread * kStepsAThread + i];
  uint32_t sum = own;
  for (int offset = 1; offset < kWarp; offset *= 2) {
    const uint32_t other = __shfl_sync(kFullWarp, sum, lane >= offset ? lane - offset : lane);
    if (lane >= offset) sum += other;
  }
  if (lane == kWarp - 1) warp_sums[thread / kWarp] = sum;
  if (thread == 0) found = {kSteps, 0, 0};
  __syncthreads();
  uint32_t before = sum - own;
  for (int i = 0; i < thread / kWarp; ++i) before += warp_sums[i];
  if (before < wanted && before + own >= wanted) {
    int i = thread * kStepsAThread;
    for (; before + counts[i] < wanted; ++i) before += counts[i];
    found = {static_cast<uint32_t>(i), before, counts[i]};
  }
  __syncthreads();
  return found;
}

// The digits of (distance, index) that are known of the last key to be listed, from the top.
template <class T>
struct Prefix {
  Distance<T> distance = 0;  // without its last `shift` bits
  int shift;
  uint32_t index = 0;  // without its last `index_shift` bits
  int index_shift = 32;

  __device__ __forceinline__ bool complete() const { return index_shift == 0; }
  // One digit more. Returns its bits.
  __device__ __forceinline__ int lengthen() {
    const int left = shift > 0 ? shift : index_shift;
    const int bits = left < kStepBits ? left : kStepBits;
    (shift > 0 ? shift : index_shift) -= bits;
    return bits;
  }
  __device__ __forceinline__ void append(int bits, uint32_t digit) {
    if (index_shift == 32) {
      distance = static_cast<Distance<T>>(distance << bits | digit);
    } else {
      index = index << bits | digit;
    }
  }
  // The next digit of a key that has the same ones before it; or -1.
  __device__ __forceinline__ int digit(int bits, Distance<T> d, uint32_t i) const {
    const uint32_t most = (1u << bits) - 1;
    if (index_shift == 32) {
      return d >> shift >> bits == distance ? static_cast<int>(static_cast<uint32_t>(d >> shift) & most) : -1;
    }
    const bool same = d == distance && static_cast<uint64_t>(i) >> index_shift >> bits == index;
    return same ? static_cast<int>(i >> index_shift & most) : -1;
  }
  __device__ __forceinline__ Bound<T> bound() const {
    Bound<T> bound;
    bound.distance = static_cast<Distance<T>>((distance << shift) + ((static_cast<Distance<T>>(1) << shift) - 1));
    bound.index = index_shift == 32 ? 0xffffffffu : (index << index_shift) + ((1u << index_shift) - 1);
    return bound;
  }
};

// One block for each level of each image.
template <class T>
__global__ void __launch_bounds__(kBoundThreads) bound_kernel(const Candidates<T> op) {
  uint32_t (&counts)[kSteps] = static_shared<StepCounts>().of_step;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t image = blockIdx.x / op.num_levels;
  const CandidateLevel& level = op.levels[blockIdx.x % op.num_levels];
  const uint32_t* histogram = op.histogram + static_cast<int64_t>(blockIdx.x) * kSteps;
  for (int i = thread; i < kSteps; i += kBoundThreads) counts[i] = histogram[i];
  __syncthreads();

  Prefix<T> prefix;
  prefix.shift = op.shift;
  CrowdedStep last = step_of(counts, static_cast<uint32_t>(level.most));
  const bool all = last.step == kSteps;
  if (!all) prefix.distance = last.step;
  uint32_t before = last.before;
  while (!all && before + last.inside > level.room && !prefix.complete()) {
    const int bits = prefix.lengthen();
    for (int i = thread; i < kSteps; i += kBoundThreads) counts[i] = 0;
    __syncthreads();
    for (int64_t place = thread; place < level.size; place += kBoundThreads) {
      const T logit = load_logit<T>(level.scores.data, level.scores.dtype, level.offset(image, place));
      if (!(logit >= op.least)) continue;
      const T score = score_of_logit(logit);
      if (!(score > op.threshold)) continue;
      const int digit = prefix.digit(bits, distance_of(score), static_cast<uint32_t>(level.index(place)));
      if (digit >= 0) atomicAdd(&counts[digit], 1u);
    }
    __syncthreads();
    last = step_of(counts, static_cast<uint32_t>(level.most) - before);
    before += last.before;
    prefix.append(bits, last.step);
  }
  if (thread != 0) return;
  Bound<T> bound = prefix.bound();
  if (all) bound.distance = distance_of(op.threshold);
  bound.step = static_cast<uint32_t>(bound.distance >> op.shift);
  const T least = static_cast<T>(least_logit(static_cast<double>(score_at<T>(bound.distance))));
  bound.least = least > op.least ? least : op.least;
  op.bounds[blockIdx.x] = bound;
}

}  // namespace cuda
}  // namespace gfl
