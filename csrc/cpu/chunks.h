// How the CPU's work is cut into chunks: by its size alone, so that results do not know how many threads there are.
#pragma once

#include "../math/portable.h"
#include "parallel.h"

namespace gfl {

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

}  // namespace gfl
