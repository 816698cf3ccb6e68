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
  int index_shift;
  int index_bits;

  __device__ __forceinline__ explicit Prefix(const Candidates<T>& op)
      : shift(op.shift), index_shift(op.index_bits), index_bits(op.index_bits) {}

  __device__ __forceinline__ bool complete() const { return index_shift == 0; }
  // One digit more. Returns its bits.
  __device__ __forceinline__ int lengthen() {
    const int left = shift > 0 ? shift : index_shift;
    const int bits = left < kStepBits ? left : kStepBits;
    (shift > 0 ? shift : index_shift) -= bits;
    return bits;
  }
  __device__ __forceinline__ void append(int bits, uint32_t digit) {
    if (index_shift == index_bits) {
      distance = static_cast<Distance<T>>(distance << bits | digit);
    } else {
      index = index << bits | digit;
    }
  }
  // The next digit of a key that has the same ones before it; or -1.
  __device__ __forceinline__ int digit(int bits, Distance<T> d, uint32_t i) const {
    const uint32_t most = (1u << bits) - 1;
    if (index_shift == index_bits) {
      return d >> shift >> bits == distance ? static_cast<int>(static_cast<uint32_t>(d >> shift) & most) : -1;
    }
    const bool same = d == distance && static_cast<uint64_t>(i) >> index_shift >> bits == index;
    return same ? static_cast<int>(i >> index_shift & most) : -1;
  }
  __device__ __forceinline__ Bound<T> bound() const {
    Bound<T> bound;
    bound.distance = static_cast<Distance<T>>((distance << shift) + ((static_cast<Distance<T>>(1) << shift) - 1));
    bound.index = index_shift == index_bits ? 0xffffffffu : (index << index_shift) + ((1u << index_shift) - 1);
    return bound;
  }
};

// No logit below it has a score nearer to 1 than `distance`, or just there.
template <class T>
__device__ __forceinline__ T least_logit_at(const Candidates<T>& op, Distance<T> distance) {
  const T least = static_cast<T>(least_logit(static_cast<double>(score_at<T>(distance))));
  return least > op.least ? least : op.least;
}

// Lengthens the prefix by a digit and counts it for the keys that begin as the prefix does. Returns the digit's bits. Only
// chunks that reach the prefix's step are read.
template <class T, class S>
__device__ __forceinline__ int count_digits(const Candidates<T>& op, int64_t image, const CandidateLevel& level,
                                            Prefix<T>& prefix, uint32_t* counts) {
  const Distance<T> farthest = prefix.bound().distance;
  const int bits = prefix.lengthen();
  const T least = least_logit_at(op, farthest);
  const uint32_t step = static_cast<uint32_t>(farthest >> op.shift);
  const int thread = static_cast<int>(threadIdx.x);
  const uint32_t* best_steps = op.best_steps + image * op.chunks + level.first_chunk;
  const int64_t chunks = (level.size + op.chunk_logits - 1) / op.chunk_logits;
  for (int64_t chunk = thread / kFindThreads; chunk < chunks; chunk += kBoundThreads / kFindThreads) {
    if (best_steps[chunk] > step) continue;
    const ChunkShare<T, S> share(level, image, chunk, thread % kFindThreads);
    share.for_each(least, [&](uint32_t place, T logit) {
      const T score = score_of_logit(logit);
      if (!(score > op.threshold)) return;
      const int digit = prefix.digit(bits, distance_of(score), static_cast<uint32_t>(level.index(place)));
      if (digit >= 0) atomicAdd(&counts[digit], 1u);
    });
  }
  return bits;
}

// One block for each level of each image.
template <class T, class S>
__global__ void __launch_bounds__(kBoundThreads, 1) bound_kernel(const Candidates<T> op) {
  uint32_t (&counts)[kSteps] = static_shared<StepCounts>().of_step;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t image = blockIdx.x / op.num_levels;
  const CandidateLevel& level = op.levels[blockIdx.x % op.num_levels];
  const uint32_t* histogram = op.histogram + static_cast<int64_t>(blockIdx.x) * kSteps;
  for (int i = thread; i < kSteps; i += kBoundThreads) counts[i] = histogram[i];
  __syncthreads();

  Prefix<T> prefix(op);
  CrowdedStep last = step_of(counts, static_cast<uint32_t>(level.most));
  const bool all = last.step == kSteps;
  if (!all) prefix.distance = last.step;
  uint32_t before = last.before;
  while (!all && before + last.inside > level.room && !prefix.complete()) {
    for (int i = thread; i < kSteps; i += kBoundThreads) counts[i] = 0;
    __syncthreads();
    const int bits = count_digits<T, S>(op, image, level, prefix, counts);
    __syncthreads();
    last = step_of(counts, static_cast<uint32_t>(level.most) - before);
    before += last.before;
    prefix.append(bits, last.step);
  }
  if (thread != 0) return;
  Bound<T> bound = prefix.bound();
  if (all) bound.distance = op.threshold_distance;
  bound.step = static_cast<uint32_t>(bound.distance >> op.shift);
  bound.least = least_logit_at(op, bound.distance);
  op.bounds[blockIdx.x] = bound;
}

}  // namespace cuda
}  // namespace gfl
