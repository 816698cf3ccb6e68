// NMS: see nms.cuh for the three steps. What `gfl_nms_run` adds is the order.
#include "nms.cuh"

#include "../workspace.h"
#include "cuda_ops.h"
#include "vector.cuh"

namespace gfl {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTileWords = kThreads / kWordBits;  // words of columns in a tile of the mask; its rows are one word
constexpr int kLabelSlots = 128;

template <class T>
__device__ __forceinline__ Box<T> load_box(const T* boxes, int64_t i) {
  T corners[4];
  Vector<T, 4>::load(boxes + 4 * i).widen_to(corners);
  return {corners[0], corners[1], corners[2], corners[3]};
}

template <class T>
struct MaskColumns {
  alignas(16) T boxes[4 * kThreads];
  T areas[kThreads];
  int64_t labels[kThreads];
  unsigned long long of_slot[kTileWords * kLabelSlots];  // for each word the columns of the labels that share a slot
};

// Labels are told apart by their last bits first: a row meets only the columns in its label's slot.
__device__ __forceinline__ int label_slot(int word, int64_t label) {
  return word * kLabelSlots + static_cast<int>(label & (kLabelSlots - 1));
}

// 64 rows by 256 columns at a time; a thread has one row and one word of columns, which its warp shares. In double the
// compiler would rather spill than go beyond 64 registers: asked for fewer blocks, it does neither.
template <class T>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 3 : 4)
    mask_kernel(const SortedBoxes<T> boxes, const Suppression op, const int64_t first) {
  MaskColumns<T>& shared = static_shared<MaskColumns<T>>();
  const int thread = static_cast<int>(threadIdx.x);
  const int own_word = thread / kWordBits;
  const int64_t row_words = op.chunk() / kWordBits;
  const int64_t groups = (row_words + kTileWords - 1) / kTileWords;
  const int64_t tiles = op.batch * row_words * groups;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    const int64_t image = tile / (row_words * groups);
    const int64_t row_word = tile / groups % row_words;
    const int64_t first_word = tile % groups * kTileWords;
    const int64_t last = op.count(image);
    const int64_t row = first + row_word * kWordBits + thread % kWordBits;
    const int64_t start = first + first_word * kWordBits;
    if (first_word + kTileWords <= row_word) continue;  // below the diagonal
    if (first + row_word * kWordBits >= last || start >= last || !op.goes_on(image, first)) continue;

    const T* corners = boxes.boxes + image * op.most * 4;
    const int64_t* of_image = boxes.labels ? boxes.labels + image * op.most : nullptr;
    if (of_image) {
      for (int i = thread; i < kTileWords * kLabelSlots; i += kThreads) shared.of_slot[i] = 0;
      __syncthreads();
    }
    if (start + thread < last) {
      const Box<T> box = load_box(corners, start + thread);
      const T values[4] = {box.x1, box.y1, box.x2, box.y2};
      Vector<T, 4>::narrowed(values).store(shared.boxes + 4 * thread);
      shared.areas[thread] = box_area(box);
      if (of_image) {
        const int64_t label = of_image[start + thread];
        shared.labels[thread] = label;
        atomicOr(&shared.of_slot[label_slot(own_word, label)], 1ull << (thread % kWordBits));
      }
    }
    __syncthreads();

    const int64_t word = first_word + own_word;
    if (row < last && word >= row_word && word < row_words) {
      const Box<T> box = load_box(corners, row);
      const T area = box_area(box);
      const int64_t label = of_image ? of_image[row] : 0;
      const int64_t left = last - (first + word * kWordBits);
      const auto meets = [&](int i) {
        const int column = own_word * kWordBits + i;
        if (of_image && shared.labels[column] != label) return false;
        const Box<T> other = load_box(shared.boxes, column);
        return suppresses(box, area, other, shared.areas[column], boxes.threshold, boxes.screen, boxes.criterion);
      };
      uint64_t suppressed = 0;
      if (of_image) {
        for (uint64_t rest = shared.of_slot[label_slot(own_word, label)]; rest; rest &= rest - 1) {
          const int i = __ffsll(static_cast<long long>(rest)) - 1;
          if (meets(i)) suppressed |= uint64_t{1} << i;
        }
      } else {
        const int bits = left < 0 ? 0 : left < kWordBits ? static_cast<int>(left) : kWordBits;
        for (int i = 0; i < bits; ++i) {
          if (meets(i)) suppressed |= uint64_t{1} << i;
        }
      }
      op.mask[(image * row_words + word) * op.chunk() + (row - first)] = suppressed;
    }
    __syncthreads();  // the columns are free for the next tile
  }
}

constexpr int kScanThreads = 512;
constexpr int kScanWarps = kScanThreads / kWarp;
constexpr int kWordsAWarp = (kMostChunk / kWordBits + kScanWarps - 1) / kScanWarps;

// Which of up to 64 boxes stay. Each lane knows, for its own number and the one 32 above, which lower ones suppress it.
// All that no other one left could suppress stay at once, those that one of them suppresses go, and again.
__device__ __forceinline__ uint64_t resolve(uint64_t left, uint64_t by_low, uint64_t by_high) {
  uint64_t stays = 0;
  while (left) {
    const bool low_goes = by_low & stays;
    const bool high_goes = by_high & stays;
    const uint64_t new_ones = where(!low_goes && !(by_low & left), !high_goes && !(by_high & left)) & left;
    left &= ~(where(low_goes, high_goes) | new_ones);
    stays |= new_ones;
  }
  return stays;
}

// The first `most` of a set.
__device__ __forceinline__ uint64_t first_of(uint64_t set, int64_t most) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  if (size_of(set) <= most) return set;
  return set & where(size_of(set & below(lane)) < most, size_of(set & below(lane + kWarp)) < most);
}

struct ScanWords {
  uint64_t removed[kMostChunk / kWordBits];
  uint64_t chosen;
};

// The bits of a word's rows that a warp reads: of its share of the words behind, and for the first warp of the word itself.
struct WordColumns {
  uint64_t low[kWordsAWarp];
  uint64_t high[kWordsAWarp];
  uint64_t own[2];

  __device__ __forceinline__ void load(const uint64_t* mask, int64_t chunk, int word, int words) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    const int warp = static_cast<int>(threadIdx.x) / kWarp;
    const uint64_t* rows = mask + word * kWordBits + lane;
#pragma unroll
    for (int i = 0; i < kWordsAWarp; ++i) {
      const int target = word + 1 + warp + i * kScanWarps;
      low[i] = target < words ? rows[target * chunk] : 0;
      high[i] = target < words ? rows[target * chunk + kWarp] : 0;
    }
    const bool decides = warp == 0 && word < words;
    own[0] = decides ? rows[word * chunk] : 0;
    own[1] = decides ? rows[word * chunk + kWarp] : 0;
  }
};

__global__ void __launch_bounds__(kScanThreads) scan_kernel(const Suppression op, const int64_t first) {
  uint64_t (&removed)[kMostChunk / kWordBits] = static_shared<ScanWords>().removed;
  uint64_t& chosen = static_shared<ScanWords>().chosen;
  const int64_t image = blockIdx.x;
  if (!op.goes_on(image, first)) return;
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarp;
  const int warp = thread / kWarp;
  const int64_t chunk = op.chunk();
  const int64_t left = op.count(image) - first;
  const int rows = static_cast<int>(left < chunk ? left : chunk);
  const int words = static_cast<int>(words_for(rows));
  const uint64_t* mask = op.mask + image * chunk * (chunk / kWordBits);
  uint64_t* given = op.removed + image * op.words() + first / kWordBits;
  int64_t* keep = op.keep + image * op.room;
  int64_t kept = op.kept[image];
  if (thread < words) {
    const int last = rows - thread * kWordBits;
    removed[thread] = given[thread] | (last < kWordBits ? ~below(last) : 0);
  }
  __syncthreads();

  // What a word's boxes would remove from the words behind it is read while the word before is decided. Rows past the last
  // are not written; they never stay.
  WordColumns next;
  next.load(mask, chunk, 0, words);
  for (int word = 0; word < words && kept < op.room; ++word) {
    const WordColumns columns = next;
    next.load(mask, chunk, word + 1, words);
    if (warp == 0) {
      const uint64_t by_low = columns.own[0] & below(lane);
      const uint64_t by_high = columns.own[1] & below(lane + kWarp);
      const uint64_t stays = first_of(resolve(~removed[word], by_low, by_high), op.room - kept);
      for (int number = lane; number < kWordBits; number += kWarp) {
        if (!has(stays, number)) continue;
        const int64_t place = first + word * kWordBits + number;
        keep[kept + size_of(stays & below(number))] = op.order ? op.order[place] : place;
      }
      if (lane == 0) chosen = stays;
    }
    __syncthreads();
    const uint64_t stays = chosen;
    kept += size_of(stays);
#pragma unroll
    for (int i = 0; i < kWordsAWarp; ++i) {
      const int target = word + 1 + warp + i * kScanWarps;
      if (target >= words) break;
      const uint64_t low = has(stays, lane) ? columns.low[i] : 0;
      const uint64_t gone = united(low | (has(stays, lane + kWarp) ? columns.high[i] : 0));
      if (lane == 0) removed[target] |= gone;
    }
    if (thread == 0) removed[word] = ~stays;
    __syncthreads();  // the next word is decided with what this one removed
  }
  if (thread == 0) op.kept[image] = kept;
  if (thread < words) given[thread] = removed[thread];
}

// Boxes behind a full chunk, whose bits in `removed` now say which of its boxes did not stay.
template <class T>
__global__ void __launch_bounds__(kThreads)
    sweep_kernel(const SortedBoxes<T> boxes, const Suppression op, const int64_t first) {
  const int64_t behind = first + op.chunk();
  const int64_t tiles_an_image = (op.most - behind + kThreads - 1) / kThreads;
  for (int64_t tile = blockIdx.x; tile < op.batch * tiles_an_image; tile += gridDim.x) {
    const int64_t image = tile / tiles_an_image;
    const int64_t last = op.count(image);
    const int64_t start = behind + tile % tiles_an_image * kThreads;
    if (start >= last || !op.goes_on(image, first)) continue;
    const T* corners = boxes.boxes + image * op.most * 4;
    const int64_t* labels = boxes.labels ? boxes.labels + image * op.most : nullptr;
    const uint64_t* removed = op.removed + image * op.words();
    const int64_t i = start + threadIdx.x;
    uint32_t* of_warp = reinterpret_cast<uint32_t*>(op.removed + image * op.words()) + i / kWarp;
    bool goes = i >= last || (*of_warp >> (i % kWarp) & 1);
    const Box<T> box = goes ? Box<T>{} : load_box(corners, i);
    const T area = box_area(box);
    const int64_t label = goes || !labels ? 0 : labels[i];
    uint64_t stays = 0;
    for (int64_t place = first; place < behind && !goes; ++place) {
      if (place % kWordBits == 0) stays = ~removed[place / kWordBits];
      if (!has(stays, static_cast<int>(place % kWordBits)) || (labels && labels[place] != label)) continue;
      const Box<T> other = load_box(corners, place);
      goes = suppresses(other, box_area(other), box, area, boxes.threshold, boxes.screen, boxes.criterion);
    }
    const uint32_t gone = __ballot_sync(kFullWarp, goes);
    if (i < last && i % kWarp == 0) *of_warp = gone;
  }
}

template <class T>
void suppress_chunks(Stream& stream, const SortedBoxes<T>& boxes, const Suppression& op) {
  const int64_t row_words = op.chunk() / kWordBits;
  const int64_t tiles = op.batch * row_words * ((row_words + kTileWords - 1) / kTileWords);
  for (int64_t first = 0; first < op.most; first += op.chunk()) {
    stream.launch(mask_kernel<T>, Grid{stream.blocks(tiles, 8), kThreads}, boxes, op, first);
    stream.launch(scan_kernel, Grid{static_cast<int>(op.batch), kScanThreads}, op, first);
    const int64_t behind = op.most - first - op.chunk();
    if (behind <= 0) continue;
    const int64_t sweep_tiles = op.batch * ((behind + kThreads - 1) / kThreads);
    stream.launch(sweep_kernel<T>, Grid{stream.blocks(sweep_tiles, 8), kThreads}, boxes, op, first);
  }
}

// ---- one set of boxes in any order -------------------------------------------------------------------

template <class T>
struct Unsorted {
  const T* boxes;
  const T* scores;
  const int64_t* classes;
  T* sorted_boxes;
  int64_t* sorted_classes;

  Unsorted(const gfl_nms& op, Workspace& pieces)
      : boxes(static_cast<const T*>(op.boxes)),
        scores(static_cast<const T*>(op.scores)),
        classes(op.classes),
        sorted_boxes(pieces.take<T>(4 * op.count)),
        sorted_classes(op.classes ? pieces.take<int64_t>(op.count) : nullptr) {}
};

// Copies the boxes in their order, marks those without a score, and writes what stands behind the last that stays.
template <class T>
__global__ void __launch_bounds__(kThreads) sort_kernel(const Unsorted<T> from, const Suppression op) {
  const int64_t padded = op.words() * kWordBits;
  const int64_t items = (padded < op.room ? op.room : padded) + 1;  // one in any case: the count is written, too
  for (int64_t start = static_cast<int64_t>(blockIdx.x) * kThreads; start < items;
       start += static_cast<int64_t>(gridDim.x) * kThreads) {
    const int64_t i = start + threadIdx.x;
    bool dropped = true;
    if (i < op.most) {
      const int64_t index = op.order[i];
#pragma unroll
      for (int j = 0; j < 4; ++j) from.sorted_boxes[4 * i + j] = from.boxes[4 * index + j];
      if (from.classes) from.sorted_classes[i] = from.classes[index];
      dropped = !(from.scores[index] == from.scores[index]);
    }
    const uint32_t removed = __ballot_sync(kFullWarp, dropped);
    if (i < padded && i % kWarp == 0) reinterpret_cast<uint32_t*>(op.removed)[i / kWarp] = removed;
    if (i < op.room) op.keep[i] = -1;
    if (i == 0) *op.kept = 0;
  }
}

template <class T>
struct Nms {
  Workspace pieces;
  Unsorted<T> given;
  Suppression op;

  Nms(const gfl_nms& nms, void* workspace)
      : pieces(workspace),
        given(nms, pieces),
        op{1, nms.count, nullptr, nms.order, nullptr, nullptr, nms.room, nms.keep, nms.kept} {
    op.removed = pieces.take<uint64_t>(op.words());
    op.mask = pieces.take<uint64_t>(op.mask_words());
  }

  int run(Stream& stream, const gfl_nms& nms) const {
    const int64_t items = nms.count < nms.room ? nms.room : nms.count;
    stream.launch(sort_kernel<T>, Grid{stream.blocks((items + kThreads - 1) / kThreads, 8), kThreads}, given, op);
    suppress(stream, SortedBoxes<T>(given.sorted_boxes, given.sorted_classes, nms.threshold, nms.criterion), op);
    return stream.status();
  }
};

}  // namespace

void suppress(Stream& stream, const SortedBoxes<float>& boxes, const Suppression& op) {
  suppress_chunks(stream, boxes, op);
}
void suppress(Stream& stream, const SortedBoxes<double>& boxes, const Suppression& op) {
  suppress_chunks(stream, boxes, op);
}

int nms(const gfl_device& device, const gfl_nms& op) {
  Stream stream(device);
  return op.dtype == GFL_FLOAT64 ? Nms<double>(op, op.workspace).run(stream, op)
                                 : Nms<float>(op, op.workspace).run(stream, op);
}

int64_t nms_workspace_bytes(const gfl_nms& op) {
  return op.dtype == GFL_FLOAT64 ? Nms<double>(op, nullptr).pieces.bytes() : Nms<float>(op, nullptr).pieces.bytes();
}

}  // namespace cuda
}  // namespace gfl
