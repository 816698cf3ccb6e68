// How the CPU's work is divided: threads, chunks of work, and the sums of chunks.
//
// The threads are those of the OpenMP runtime that torch has already loaded, so that a step runs one pool of threads and
// follows torch.set_num_threads. Nothing is linked; where no runtime is found, the work runs serially.
//
// Chunks are what determinism rests on: a kernel cuts its work by its size alone and keeps one partial result a chunk,
// whichever thread runs it.
#pragma once

#include "../gfl.h"
#include "../math/portable.h"

namespace gfl {

// ---- threads -------------------------------------------------------------------------------------

int cpu_threads();

// Calls function(context, i) for every i in [0, chunks), by several threads.
void run_by_threads(int64_t chunks, void (*function)(void* context, int64_t chunk), void* context);

// Calls body(i) for every i in [0, chunks). Waking threads for a few chunks costs more than they save.
template <class Body>
GFL_FN void parallel_chunks(int64_t chunks, const Body& body) {
  constexpr int64_t worth_threads = 4;
  if (chunks < worth_threads) {
    for (int64_t chunk = 0; chunk < chunks; ++chunk) body(chunk);
    return;
  }
  run_by_threads(
      chunks, [](void* context, int64_t chunk) { (*static_cast<const Body*>(context))(chunk); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// As CUDA's atomicCAS.
GFL_FN int32_t compare_exchange(int32_t* address, int32_t expected, int32_t desired) {
  __atomic_compare_exchange_n(address, &expected, desired, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED);
  return expected;
}

// ---- chunks --------------------------------------------------------------------------------------

// Elements in a chunk of work: enough to be worth a thread, small enough that two threads share a middling tensor.
constexpr int64_t kChunkElements = 16384;

// Rows that are worked on together where a vector spans rows; chunks are made of whole blocks.
constexpr int kBlock = 16;

GFL_FN int64_t chunk_rows(int64_t cols) {
  const int64_t rows = kChunkElements / (cols > 0 ? cols : 1) / kBlock * kBlock;
  return rows > 0 ? rows : kBlock;
}

GFL_FN int64_t chunk_count(int64_t rows, int64_t cols) {
  const int64_t size = chunk_rows(cols);
  return (rows + size - 1) / size;
}

// Calls body(chunk, begin, end) for the rows of every chunk, in parallel.
template <class Body>
GFL_FN void parallel_rows(int64_t rows, int64_t cols, const Body& body) {
  const int64_t size = chunk_rows(cols);
  parallel_chunks(chunk_count(rows, cols), [&](int64_t chunk) {
    const int64_t begin = chunk * size;
    body(chunk, begin, begin + size < rows ? begin + size : rows);
  });
}

// ---- sums ----------------------------------------------------------------------------------------

template <class T>
GFL_FN double effective_scale(const gfl_reduction& reduction) {
  const double scale = whole_scale(reduction);
  if (!reduction.avg_factor) return scale;
  constexpr double float32_eps = 1.1920928955078125e-07;
  return scale / (static_cast<double>(*static_cast<const T*>(reduction.avg_factor)) + float32_eps);
}

// The sum of a chunk's losses, whose blocks add to sixteen sums side by side: one alone would be a chain of additions.
class BlockSums {
 public:
  template <class T>
  GFL_MEMBER void add(const T* block, int count) {
    if (count == kBlock) {
      for (int i = 0; i < kBlock; ++i) lanes_[i] += static_cast<double>(block[i]);
    } else {
      for (int i = 0; i < count; ++i) lanes_[i] += static_cast<double>(block[i]);
    }
  }
  GFL_MEMBER double total() const {
    double sum = 0;
    for (int i = 0; i < kBlock; ++i) sum += lanes_[i];
    return sum;
  }

 private:
  double lanes_[kBlock] = {};
};

// One after the other, so that the result does not know how many threads made the partials.
template <class T>
GFL_FN void write_sum(const double* partials, int64_t count, double scale, void* loss) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += partials[i];
  *static_cast<T*>(loss) = static_cast<T>(sum * scale);
}

}  // namespace gfl
