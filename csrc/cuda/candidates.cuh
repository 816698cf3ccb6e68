// The best (cell, class) pairs of every level of every image, exactly, without a list of all that exceed the threshold.
//
// `count` reads the logits once and counts the scores above the threshold in up to 2,048 steps. `bound` takes from that,
// for each level of each image, a bound which no more keys keep than the level's list has room for, and among them the
// best `most`; where a step of scores is too crowded for that, it looks closer, down to the last bit and the index.
// `collect` lists what keeps the bound, and reads again only where something does. `order` puts the list in order, or `place`
// where it is too long for shared memory. Which thread adds to a list first is chance; the order of keys is not, so neither is the result.
#pragma once

#include "../level_logits.h"
#include "../math/score_order.h"
#include "../math/elementary.h"
#include "dispatch.cuh"
#include "index.cuh"
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

// The most that a sigmoid in float may be off by: ex2, rcp and the roundings of their arguments come to 12 at most.
constexpr uint32_t kRoughError = 32;

// The step of a logit's score, from a sigmoid in float; kSteps where that is too near to the end of a step, or to the
// threshold, to tell. It takes a third of the instructions of the score itself, which is worked out in double.
__device__ __forceinline__ uint32_t rough_step(float logit, int shift, uint32_t threshold) {
  const uint32_t distance = distance_of(sigmoid_reciprocal(exponential(-logit)));
  const uint32_t nearest = distance < kRoughError ? 0 : distance - kRoughError;
  const uint32_t step = nearest >> shift;
  const bool sure = logit > -80.0f && distance + kRoughError < threshold && (distance + kRoughError) >> shift == step;
  return sure ? step : kSteps;
}
__device__ __forceinline__ uint32_t rough_step(double, int, uint64_t) { return kSteps; }

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

// A level has fewer than 2^32 logits, so that places in it are 32 bits wide and divided as such.
struct CandidateLevel : LevelLogits {
  int64_t room;  // of its list
  int64_t first_key;
  int64_t first_candidate;
  int64_t first_chunk;
  bool adjoining;  // all of an image's logits are
  Divider by_inside;
  Divider by_cells;
  Divider by_classes;

  CandidateLevel() = default;
  CandidateLevel(const gfl_postprocess& op, int level, int64_t first)
      : LevelLogits(op, level, first),
        adjoining(dense()),
        by_inside(at_least_one(inside())),
        by_cells(at_least_one(cells)),
        by_classes(at_least_one(classes)) {}

  // Where a logit stands in memory, from where its image's logits begin.
  __device__ __forceinline__ int64_t offset_in_image(uint32_t place) const {
    if (adjoining) return place;
    const uint32_t run = by_inside.divide(place);
    return run * outer() + (place - run * static_cast<uint32_t>(inside())) * step();
  }
  __device__ __forceinline__ int64_t index(uint32_t place) const {
    if (classes_inside) return first_index + place;
    const uint32_t its_class = by_cells.divide(place);
    const uint32_t cell = place - its_class * static_cast<uint32_t>(cells);
    return first_index + cell * classes + its_class;
  }

 private:
  static int64_t at_least_one(int64_t count) { return count > 0 ? count : 1; }
};

template <class T>
struct Candidates {
  int64_t batch;
  int num_levels;
  int shift;  // a step is so many bits of distance
  int index_bits = 0;
  T threshold;
  Distance<T> threshold_distance;
  T least;  // no logit below it has a score above the threshold
  CandidateLevel levels[GFL_MAX_LEVELS];
  int64_t chunk_logits;
  int64_t chunks = 0;  // of an image, as the next two
  int64_t keys = 0;
  int64_t most = 0;  // candidates
  Divider by_chunks;
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
        threshold_distance(distance_of(threshold)),
        least(static_cast<T>(least_logit(static_cast<double>(threshold)))),
        chunk_logits(logits_a_chunk) {
    while (threshold_distance >> shift >= kSteps) ++shift;
    int64_t logits = 0;
    for (int i = 0; i < num_levels; ++i) {
      CandidateLevel& level = levels[i];
      level = CandidateLevel(op, i, logits);
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
    by_chunks = Divider(chunks);
    while (logits >> index_bits) ++index_bits;
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

// A chunk of a level's logits S, shared by kFindThreads threads: what one of them has of it.
template <class T, class S>
class ChunkShare {
 public:
  static constexpr int N = kPack<S>;
  static constexpr int kLogits = kFindThreads * kFindVectors * N;  // of a chunk

  __device__ __forceinline__ ChunkShare(const CandidateLevel& level, int64_t image, int64_t chunk, int thread)
      : level_(level),
        logits_(static_cast<const S*>(level.scores.data) + image * level.scores.batch_stride),
        size_(static_cast<uint32_t>(level.size)),
        start_(static_cast<uint32_t>(chunk) * kLogits),
        first_(start_ + static_cast<uint32_t>(thread) * N) {}

  // Calls use(place, logit) for every logit that reaches `least`.
  template <class Use>
  __device__ __forceinline__ void for_each(T least, const Use& use) const {
    for (uint32_t bits = reaching(least); bits; bits &= bits - 1) {
      const uint32_t place = place_of(__ffs(static_cast<int>(bits)) - 1);
      use(place, static_cast<T>(widen(logits_[level_.offset_in_image(place)])));
    }
  }

 private:
  // Bit N j + i is the i-th logit of the share's j-th vector.
  __device__ __forceinline__ uint32_t place_of(int bit) const {
    return first_ + static_cast<uint32_t>(bit / N * kFindThreads * N + bit % N);
  }
  __device__ __forceinline__ bool whole() const {
    return level_.adjoining && size_ - start_ >= kLogits && reinterpret_cast<uintptr_t>(logits_) % 16 == 0;
  }
  __device__ __forceinline__ uint32_t reaching(T least) const {
    uint32_t bits = 0;
    if (whole()) {
      Vector<S, N> loaded[kFindVectors];
#pragma unroll
      for (int j = 0; j < kFindVectors; ++j) loaded[j] = Vector<S, N>::load(logits_ + place_of(j * N));
#pragma unroll
      for (int j = 0; j < kFindVectors; ++j) {
        Compute<S> values[N];
        loaded[j].widen_to(values);
#pragma unroll
        for (int i = 0; i < N; ++i) bits |= (values[i] >= least ? 1u : 0u) << (j * N + i);
      }
      return bits;
    }
#pragma unroll 1
    for (int j = 0; j < kFindVectors; ++j) {
      S values[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const uint32_t place = place_of(j * N + i);
        values[i] = place < size_ ? logits_[level_.offset_in_image(place)] : S();
      }
#pragma unroll
      for (int i = 0; i < N; ++i) {
        if (place_of(j * N + i) < size_ && widen(values[i]) >= least) bits |= 1u << (j * N + i);
      }
    }
    return bits;
  }

  const CandidateLevel& level_;
  const S* logits_;
  uint32_t size_;
  uint32_t start_;
  uint32_t first_;
};

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
    const int64_t image = op.by_chunks.divide_long(chunk);
    const int64_t in_image = chunk - image * op.chunks;
    const int i = op.level_of_chunk(in_image);
    const CandidateLevel& level = op.levels[i];
    if (thread == 0) best = kSteps;
    __syncthreads();
    uint32_t own_best = kSteps;
    const ChunkShare<T, S> share(level, image, in_image - level.first_chunk, thread);
    share.for_each(op.least, [&](uint32_t, T logit) {
      uint32_t step = rough_step(logit, op.shift, op.threshold_distance);
      if (step == kSteps) {
        const T score = score_of_logit(logit);
        if (!(score > op.threshold)) return;
        step = static_cast<uint32_t>(distance_of(score) >> op.shift);
      }
      atomicAdd(&counts[step], 1u);
      own_best = step < own_best ? step : own_best;
    });
    own_best = least_of_warp(own_best);
    if (thread % kWarp == 0 && own_best < kSteps) atomicMin(&best, own_best);
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

// What a block finds in a chunk: it asks for places in the list once, for all of them.
constexpr int kMostCollected = 1024;
template <class T>
struct Collected {
  OrderKey<T> keys[kMostCollected];
  uint32_t count;
  uint32_t first;  // place in the list
};

template <class T, class S>
__global__ void __launch_bounds__(kFindThreads) collect_kernel(const Candidates<T> op) {
  Collected<T>& shared = static_shared<Collected<T>>();
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t chunks = op.chunks * op.batch;
  for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    const int64_t image = op.by_chunks.divide_long(chunk);
    const int64_t in_image = chunk - image * op.chunks;
    const int i = op.level_of_chunk(in_image);
    const CandidateLevel& level = op.levels[i];
    const Bound<T> bound = op.bounds[image * op.num_levels + i];
    if (op.best_steps[chunk] > bound.step) continue;
    uint32_t* found = op.found + image * op.num_levels + i;
    OrderKey<T>* list = op.list + op.list_of(image, i);
    if (thread == 0) shared.count = 0;
    __syncthreads();
    const ChunkShare<T, S> share(level, image, in_image - level.first_chunk, thread);
    share.for_each(bound.least, [&](uint32_t place, T logit) {
      const T score = score_of_logit(logit);
      const int64_t index = level.index(place);
      if (!(score > op.threshold) || !bound.keeps(distance_of(score), index)) return;
      const uint32_t slot = atomicAdd(&shared.count, 1u);
      if (slot < kMostCollected) {
        shared.keys[slot] = order_key(score, index);
      } else {
        list[atomicAdd(found, 1u)] = order_key(score, index);
      }
    });
    __syncthreads();
    const uint32_t count = shared.count < kMostCollected ? shared.count : kMostCollected;
    if (thread == 0 && count > 0) shared.first = atomicAdd(found, count);
    __syncthreads();
    for (uint32_t k = static_cast<uint32_t>(thread); k < count; k += kFindThreads) {
      list[shared.first + k] = shared.keys[k];
    }
  }
}

// Puts a list in order in shared memory, where all lists have room there: one block each, by bitonic sorting.
constexpr int kSortThreads = 512;
constexpr int kMostSortedBytes = 32 << 10;

__device__ __forceinline__ void set_last(uint64_t& key) { key = ~uint64_t{0}; }
__device__ __forceinline__ void set_last(WideOrderKey& key) { key = {~uint64_t{0}, ~uint64_t{0}}; }

// The least power of two that has room for so many keys.
__host__ __device__ __forceinline__ int sorted_size(int64_t keys) {
  int size = 2;
  while (size < keys) size *= 2;
  return size;
}

template <class T>
__global__ void __launch_bounds__(kSortThreads) order_kernel(const Candidates<T> op) {
  OrderKey<T>* keys = dynamic_shared<OrderKey<T>>();
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t image = blockIdx.x / op.num_levels;
  const int i = static_cast<int>(blockIdx.x % op.num_levels);
  const OrderKey<T>* list = op.list + op.list_of(image, i);
  const int listed = static_cast<int>(op.found[blockIdx.x]);
  const int size = sorted_size(listed);
  for (int k = thread; k < size; k += kSortThreads) {
    if (k < listed) {
      keys[k] = list[k];
    } else {
      set_last(keys[k]);
    }
  }
  __syncthreads();
  for (int run = 2; run <= size; run *= 2) {
    for (int step = run / 2; step > 0; step /= 2) {
      for (int k = thread; k < size / 2; k += kSortThreads) {
        const int low = 2 * k - (k & (step - 1));
        const OrderKey<T> a = keys[low];
        const OrderKey<T> b = keys[low + step];
        if ((low & run) == 0 ? b < a : a < b) {
          keys[low] = b;
          keys[low + step] = a;
        }
      }
      __syncthreads();
    }
  }
  const int64_t count = op.count(image, i);
  OrderKey<T>* sorted = op.sorted + image * op.most + op.levels[i].first_candidate;
  for (int k = thread; k < count; k += kSortThreads) sorted[k] = keys[k];
}

// Longer lists: one warp for each key, whose place is the number of those before it.
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
