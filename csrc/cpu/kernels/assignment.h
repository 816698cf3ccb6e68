// What the assigners share on the CPU: shares of work, the best candidates of a ground truth, claims. In an anonymous
// namespace: kernel files are compiled once for each instruction set.
#pragma once

#include <algorithm>

#include "../../math/assignment.h"
#include "../parallel.h"

namespace gfl {
namespace {

constexpr int64_t kGtsOfPiece = 8;
constexpr int64_t kAnchorsOfPiece = 1024;

// Calls use(image, i) for each of every image's `items`, in parallel.
template <class Use>
void for_all(int64_t images, int64_t items, int64_t of_piece, const Use& use) {
  const int64_t pieces = (items + of_piece - 1) / of_piece;
  parallel_chunks(images * pieces, [&](int64_t chunk) {
    const int64_t begin = chunk % pieces * of_piece;
    const int64_t end = begin + of_piece < items ? begin + of_piece : items;
    for (int64_t i = begin; i < end; ++i) use(chunk / pieces, i);
  });
}

// Calls use(begin, end) for runs of anchors that may lie inside of a box.
template <class T, class Use>
void for_each_run(const AnchorGrid& grid, const Box<T>& box, const Use& use) {
  for (int i = 0; i < grid.levels.count; ++i) {
    const Cells cells = grid.covered(i, box);
    for (int row = 0; row < cells.rows && cells.columns > 0; ++row) {
      const int64_t begin = cells.first + static_cast<int64_t>(row) * cells.row_cells;
      use(begin, begin + cells.columns);
    }
  }
}

struct ComesFirst {
  template <class T>
  bool operator()(const Candidate<T>& a, const Candidate<T>& b) const {
    return better(a, b);
  }
};

// The best `room` candidates that were offered: a heap with the worst of them on top.
template <class T>
class TopList {
 public:
  explicit TopList(int room) : room_(room) {}

  // Whether it is one of them now.
  bool offer(T value, int64_t anchor) {
    const Candidate<T> candidate{value, static_cast<int32_t>(anchor)};
    if (size_ == room_) {
      if (!better(candidate, items_[0])) return false;
      std::pop_heap(items_, items_ + size_, ComesFirst());
      --size_;
    }
    items_[size_++] = candidate;
    std::push_heap(items_, items_ + size_, ComesFirst());
    return true;
  }
  bool full() const { return size_ == room_; }
  const Candidate<T>& worst() const { return items_[0]; }
  const Candidate<T>* begin() const { return items_; }
  const Candidate<T>* end() const { return items_ + size_; }

 private:
  Candidate<T> items_[kMostTopk];
  int room_;
  int size_ = 0;
};

}  // namespace
}  // namespace gfl
