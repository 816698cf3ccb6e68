// The best (cell, class) pairs of every level of every image, exactly, without a list of all that exceed the threshold.
//
// `count` reads the logits once and counts the scores above the threshold in up to 2,048 steps. `bound` takes from that,
// for each level of each image, a bound which no more keys keep than the level's list has room for, and among them the
// best `most`; where a step of scores is too crowded for that, it looks closer, down to the last bit and the index.
// `collect` lists what keeps the bound, and reads again only where something does. `place` puts the list in order.
// Which thread adds to a list first is chance; the order of keys is not, so neither is the result.
#pragma once

#include "../level_logits.h"
#include "../math/score_order.h"
#include "dispatch.cuh"
#include "launch.h"
#include "vector.cuh"
#include "warp.cuh"

namespace gfl {
namespace cuda {

constexpr int kSteps = 2048;
constexpr int kStepBits = 11;
constexpr int kFindThreads = 256;
constexpr int kFindVectors = 4;  // in flight for each thread

// Scores as numbers: how far from 1 downwards.
template <class T>
using Distance = decltype(descending_bits(T()));
template <class T>
__host__ __device__ __forceinline__ Distance<T> distance_of(T score) {
  return descending_bits(score) - descending_bits(static_cast<T>(1));
}
template <class T>
__device__ __forceinline__ T score_at(Distance<T> distance) {
  return score_of_bits(static_cast<Distance<T>>(distance + descending_bits(static_cast<T>(1))));
}

// What a level's list takes: scores nearer to 1 than `distance`, and of those just there the ones up to `index`.
template <class T>
struct Bound {
  Distance<T> distance;
  uint32_t index;
  uint32_t step;  // of `distance`
  T least;        // no logit below it keeps the bound

  __device__ __forceinline__ bool keeps(Distance<T> d, int64_t i) const {
    return d < distance || (d == distance && i <= static_cast<int64_t>(index));
  }
};

struct CandidateLevel : LevelLogits {
  int64_t room;  // of its list
  int64_t first_key;
  int64_t first_candidate;
  int64_t first_chunk;
};

template <class T>
struct Candidates {
  int64_t batch;
  int num_levels;
  int shift;  // a step is so many bits of distance
  T threshold;
  T least;  // no logit below it has a score above the threshold
  CandidateLevel levels[GFL_MAX_LEVELS];
  int64_t chunk_logits;
  int64_t chunks = 0;  // of an image, as the next two
  int64_t keys = 0;
  int64_t most = 0;      // candidates
  uint32_t* histogram;   // (batch, levels, kSteps), given as 0
  uint32_t* found;       // (batch, levels) keys in a list, given as 0
  Bound<T>* bounds;      // (batch, levels)
  uint32_t* best_steps;  // (batch, chunks) the first step with anything in it
  OrderKey<T>* list;     // (batch, keys)
  OrderKey<T>* sorted;   // (batch, most), those of a level together and in order

  Candidates(const gfl_postprocess& op, int64_t logits_a_chunk)
      : batch(op.batch),
        num_levels(op.num_levels),
        shift(0),
        threshold(static_cast<T>(op.score_threshold)),
        least(static_cast<T>(least_logit(static_cast<double>(threshold)))),
        chunk_logits(logits_a_chunk) {
    while (distance_of(threshold) >> shift >= kSteps) ++shift;
    int64_t logits = 0;
    for (int i = 0; i < num_levels; ++i) {
      CandidateLevel& level = levels[i];
      static_cast<LevelLogits&>(level) = LevelLogits(op, i, logits);
      const int64_t slack = level.most < 1024 ? 1024 : level.most;
      level.room = level.most + slack < level.size ? level.most + slack : level.size;
      level.first_key = keys;
      level.first_candidate = most;
      level.first_chunk = chunks;
      logits += level.size;
      keys += level.room;
      most += level.most;
      chunks += (level.size + chunk_logits - 1) / chunk_logits;
    }
  }

  __device__ __forceinline__ int level_of_chunk(int64_t chunk) const {
    int level = 0;
    while (level + 1 < num_levels && chunk >= levels[level + 1].first_chunk) ++level;
    return level;
  }
  __device__ __forceinline__ int level_of_key(int64_t key) const {
    int level = 0;
    while (level + 1 < num_levels && key >= levels[level + 1].first_key) ++level;
    return level;
  }
  __device__ __forceinline__ int level_of_candidate(int64_t candidate) const {
    int level = 0;
    while (level + 1 < num_levels && candidate >= levels[level + 1].first_candidate) ++level;
    return level;
  }
  __device__ __forceinline__ int64_t list_of(int64_t image, int level) const {
    return image * keys + levels[level].first_key;
  }
  // How many candidates a level has.
  __device__ __forceinline__ int64_t count(int64_t image, int level) const {
    const int64_t listed = found[image * num_levels + level];
    return listed < levels[level].most ? listed : levels[level].most;
  }
};

// A logit of any dtype.
template <class T>
__device__ __forceinline__ T load_logit(const void* data, int32_t dtype, int64_t i) {
  if (dtype == GFL_FLOAT32) return static_cast<T>(static_cast<const float*>(data)[i]);
  if (dtype == GFL_BFLOAT16) return static_cast<T>(widen(static_cast<const bfloat16*>(data)[i]));
  if (dtype == GFL_FLOAT16) return static_cast<T>(widen(static_cast<const float16*>(data)[i]));
  return static_cast<T>(static_cast<const double*>(data)[i]);
}

// Of the logits S that a thread has of a chunk, those that reach `least`: bit N j + i is the i-th of its j-th vector.
template <class T, class S>
__device__ __forceinline__ uint32_t reaching(const CandidateLevel& level, int64_t image, int64_t start, T least) {
  constexpr int N = kPack<S>;
  const S* logits = static_cast<const S*>(level.scores.data);
  const int64_t first = start + static_cast<int64_t>(threadIdx.x) * N;
  uint32_t bits = 0;
  if (level.dense() && reinterpret_cast<uintptr_t>(logits + image * level.scores.batch_stride) % 16 == 0) {
    const S* from = logits + image * level.scores.batch_stride;
    Vector<S, N> loaded[kFindVectors];
#pragma unroll
    for (int j = 0; j < kFindVectors; ++j) {
      const int64_t at = first + j * kFindThreads * N;
      if (at + N <= level.size) {
        loaded[j] = Vector<S, N>::load(from + at);
      } else {
        loaded[j] = Vector<S, N>::load_some(from + at, at < level.size ? static_cast<int>(level.size - at) : 0);
      }
    }
#pragma unroll
    for (int j = 0; j < kFindVectors; ++j) {
      Compute<S> values[N];
      loaded[j].widen_to(values);
#pragma unroll
      for (int i = 0; i < N; ++i) bits |= (values[i] >= least ? 1u : 0u) << (j * N + i);
    }
    const int64_t left = level.size - first;  // what is past the end was taken for 0
    for (int b = 0; left < (kFindVectors - 1) * kFindThreads * N + N && b < kFindVectors * N; ++b) {
      if (b / N * kFindThreads * N + b % N >= left) bits &= ~(1u << b);
    }
    return bits;
  }
#pragma unroll 1
  for (int b = 0; b < kFindVectors * N; ++b) {
    const int64_t place = first + b / N * kFindThreads * N + b % N;
    if (place < level.size && widen(logits[level.offset(image, place)]) >= least) bits |= 1u << b;
  }
  return bits;
}

// Calls use(place, distance) for every logit of a chunk whose score exceeds the threshold and that reaches `least`.
template <class T, class S, class Use>
__device__ __forceinline__ void for_each_score(const Candidates<T>& op, const CandidateLevel& level, int64_t image,
                                               int64_t start, T least, const Use& use) {
  constexpr int N = kPack<S>;
  for (uint32_t bits = reaching<T, S>(level, image, start, least); bits; bits &= bits - 1) {
    const int b = __ffs(static_cast<int>(bits)) - 1;
    const int64_t place = start + (b / N * kFindThreads + static_cast<int64_t>(threadIdx.x)) * N + b % N;
    const S logit = static_cast<const S*>(level.scores.data)[level.offset(image, place)];
    const T score = score_of_logit(static_cast<T>(widen(logit)));
    if (score > op.threshold) use(place, distance_of(score));
  }
}

struct StepCounts {
  uint32_t of_step[kSteps];
  uint32_t best;  // the first step of the chunk with anything in it
};

// A block takes chunks that follow one another, and hands its counts on where the level ends.
template <class T, class S>
__global__ void __launch_bounds__(kFindThreads) count_kernel(const Candidates<T> op) {
  uint32_t (&counts)[kSteps] = static_shared<StepCounts>().of_step;
  uint32_t& best = static_shared<StepCounts>().best;
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t chunks = op.chunks * op.batch;
  const int64_t end = chunks * (blockIdx.x + 1) / gridDim.x;
  for (int i = thread; i < kSteps; i += kFindThreads) counts[i] = 0;
  for (int64_t chunk = chunks * blockIdx.x / gridDim.x; chunk < end; ++chunk) {
    const int64_t image = chunk / op.chunks;
    const int64_t in_image = chunk - image * op.chunks;
    const int i = op.level_of_chunk(in_image);
    const CandidateLevel& level = op.levels[i];
    if (thread == 0) best = kSteps;
    __syncthreads();
    for_each_score<T, S>(op, level, image, (in_image - level.first_chunk) * op.chunk_logits, op.least,
                         [&](int64_t, Distance<T> distance) {
                           const uint32_t step = static_cast<uint32_t>(distance >> op.shift);
                           atomicAdd(&counts[step], 1u);
                           atomicMin(&best, step);
                         });
    __syncthreads();
    if (thread == 0) op.best_steps[chunk] = best;
    const int64_t next = in_image + 1;
    const bool last = chunk + 1 == end || next == op.chunks || op.level_of_chunk(next) != i;
    if (!last) continue;
    uint32_t* histogram = op.histogram + (image * op.num_levels + i) * kSteps;
    for (int step = thread; step < kSteps; step += kFindThreads) {
      if (counts[step]) atomicAdd(&histogram[step], counts[step]);
      counts[step] = 0;
    }
  }
}

template <class T, class S>
__global__ void __launch_bounds__(kFindThreads) collect_kernel(const Candidates<T> op) {
  const int64_t chunks = op.chunks * op.batch;
  for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    const int64_t image = chunk / op.chunks;
    const int64_t in_image = chunk - image * op.chunks;
    const int i = op.level_of_chunk(in_image);
    const CandidateLevel& level = op.levels[i];
    const Bound<T> bound = op.bounds[image * op.num_levels + i];
    if (op.best_steps[chunk] > bound.step) continue;
    for_each_score<T, S>(op, level, image, (in_image - level.first_chunk) * op.chunk_logits, bound.least,
                         [&](int64_t place, Distance<T> distance) {
                           const int64_t index = level.index(place);
                           if (!bound.keeps(distance, index)) return;
                           const uint32_t slot = atomicAdd(&op.found[image * op.num_levels + i], 1u);
                           op.list[op.list_of(image, i) + slot] = order_key(score_at<T>(distance), index);
                         });
  }
}

// One warp for each key of a list: its place is the number of those before it.
template <class T>
__global__ void __launch_bounds__(kFindThreads) place_kernel(const Candidates<T> op) {
  constexpr int kWarps = kFindThreads / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / kWarp;
  for (int64_t i = warp; i < op.batch * op.keys; i += static_cast<int64_t>(gridDim.x) * kWarps) {
    const int64_t image = i / op.keys;
    const int level = op.level_of_key(i - image * op.keys);
    const int64_t start = op.list_of(image, level);
    const int64_t listed = op.found[image * op.num_levels + level];
    if (i - start >= listed) continue;
    const OrderKey<T> key = op.list[i];
    int before = 0;
    for (int64_t j = lane; j < listed; j += kWarp) before += op.list[start + j] < key ? 1 : 0;
    for (int offset = kWarp / 2; offset > 0; offset /= 2) before += __shfl_xor_sync(kFullWarp, before, offset);
    if (lane != 0 || before >= op.levels[level].most) continue;
    op.sorted[image * op.most + op.levels[level].first_candidate + before] = key;
  }
}

}  // namespace cuda
}  // namespace gfl
