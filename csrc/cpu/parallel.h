// Threads for the CPU kernels: those of the OpenMP runtime that torch has already loaded, so that a step runs one pool
// of threads and follows torch.set_num_threads. Nothing is linked; where no runtime is found, the work runs serially.
#pragma once

#include <cstdint>

namespace gfl {

using ChunkFunction = void (*)(void* context, int64_t chunk);

// Calls function(context, i) for every i in [0, chunks). Chunks are what determinism rests on: a kernel cuts its work
// by its size alone and keeps one partial result a chunk, whichever thread runs it.
void parallel_chunks(int64_t chunks, ChunkFunction function, void* context);

int cpu_threads();

template <class Body>
void parallel_chunks(int64_t chunks, const Body& body) {
  parallel_chunks(
      chunks, [](void* context, int64_t chunk) { (*static_cast<const Body*>(context))(chunk); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

}  // namespace gfl
