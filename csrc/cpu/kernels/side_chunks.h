// How the positions and sides of distributions are shared out among threads.
#pragma once

#include "../parallel.h"

namespace gfl {

struct SideChunk {
  int64_t batch;
  int64_t first_side;
  int64_t sides;
  int64_t begin;  // positions
  int64_t end;
};

// Calls body(chunk) for all of them, in parallel. Where a position's sides stand side by side, they are taken together, so
// that memory is passed over once.
template <class Body>
GFL_FN void parallel_sides(int64_t batch, int64_t sides, int64_t bins, int64_t length, bool sides_adjoin,
                           const Body& body) {
  if (sides == 0) return;
  const int64_t together = sides_adjoin ? sides : 1;
  const int64_t rows = chunk_rows(bins * together);
  const int64_t pieces = chunk_count(length, bins * together);
  parallel_chunks(batch * sides / together * pieces, [&](int64_t chunk) {
    const int64_t first = chunk / pieces * together;
    const int64_t begin = chunk % pieces * rows;
    body(SideChunk{first / sides, first % sides, together, begin, begin + rows < length ? begin + rows : length});
  });
}

}  // namespace gfl
