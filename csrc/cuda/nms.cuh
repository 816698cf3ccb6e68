// Greedy suppression among boxes that stand by descending score, for a batch of images; how many boxes an image has may
// be known to the device alone.
//
// A chunk of boxes at a time. `mask` compares all pairs of the chunk: a bit says that one suppresses the other. `scan`,
// one block an image, walks the chunk 64 boxes at a time and decides which stay. `sweep` compares the boxes behind the
// chunk with those that stayed. So the memory for the bits does not grow with the number of boxes, and up to kMostChunk
// of them, which is where detectors live, mask and scan are all there is.
#pragma once

#include "../math/nms.h"
#include "launch.h"
#include "warp.cuh"

namespace gfl {
namespace cuda {

constexpr int kMostChunk = 80 * kWordBits;

// What the bits say; boxes do not matter here.
struct Suppression {
  int64_t batch;
  int64_t most;           // places for boxes that an image has
  const int64_t* counts;  // (batch,) on the device: how many of them are filled; NULL: all
  const int64_t* order;   // (most,) what `keep` calls the box at each place; NULL: its place. For a batch of 1
  uint64_t* removed;      // (batch, words_for(most)), given: the boxes that take no part. Scratch from then on
  uint64_t* mask;         // (batch, chunk() / 64, chunk()): for each word of columns the rows, so that they adjoin
  int64_t room;           // of keep, for each image: the search ends when it is full
  int64_t* keep;          // (batch, room), written as far as `kept`
  int64_t* kept;          // (batch,), given as 0

  __host__ __device__ __forceinline__ int64_t words() const { return words_for(most); }
  __host__ __device__ __forceinline__ int64_t chunk() const {
    return most < kMostChunk ? words() * kWordBits : kMostChunk;
  }
  int64_t mask_words() const { return batch * chunk() * (chunk() / kWordBits); }
  __device__ __forceinline__ int64_t count(int64_t image) const { return counts ? counts[image] : most; }
  // Whether there is anything left to do in the chunk that starts at `first`.
  __device__ __forceinline__ bool goes_on(int64_t image, int64_t first) const {
    return first < count(image) && kept[image] < room;
  }
};

template <class T>
struct SortedBoxes {
  const T* boxes;         // (batch, most, 4) xyxy, 16-byte aligned
  const int64_t* labels;  // (batch, most): boxes of different labels do not meet; NULL: all do
  T threshold;
  T screen;
  int criterion;

  SortedBoxes(const T* boxes_, const int64_t* labels_, double threshold_, int criterion_)
      : boxes(boxes_),
        labels(labels_),
        threshold(static_cast<T>(threshold_)),
        screen(static_cast<T>(nms_screen(static_cast<double>(threshold)))),
        criterion(criterion_) {}
};

void suppress(Stream& stream, const SortedBoxes<float>& boxes, const Suppression& op);
void suppress(Stream& stream, const SortedBoxes<double>& boxes, const Suppression& op);

}  // namespace cuda
}  // namespace gfl
