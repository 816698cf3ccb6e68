// Post-processing: candidates.cuh finds the best of every level, detections.cuh decodes them, nms.cuh suppresses. All
// sizes are those of the tensors; how much of them is filled only the device knows, so that nothing waits for it.
#include <algorithm>

#include "../workspace.h"
#include "cuda_ops.h"
#include "level_bounds.cuh"
#include "detections.cuh"

namespace gfl {
namespace cuda {
namespace {

__global__ void __launch_bounds__(kFindThreads)
    clear_kernel(uint32_t* words, int64_t count, int64_t* kept, int64_t batch) {
  const int64_t thread = blockIdx.x * static_cast<int64_t>(kFindThreads) + threadIdx.x;
  const int64_t threads = static_cast<int64_t>(gridDim.x) * kFindThreads;
  for (int64_t i = thread; i < count; i += threads) words[i] = 0;
  for (int64_t i = thread; i < batch; i += threads) kept[i] = 0;
}

template <class S>
constexpr int64_t kChunkLogits = int64_t{kFindThreads} * kFindVectors * kPack<S>;

// The type of the class logits, which is not wider than what they are computed in.
template <class T, class Run>
int with_logit_type(int32_t dtype, const Run& run) {
  return with_float_type(dtype, [&](auto type) {
    if constexpr (sizeof(typename decltype(type)::type) <= sizeof(T)) {
      return run(type);
    } else {
      return fail(GFL_ERROR_ARGUMENT, "float64 logits are computed in float64");
    }
  });
}

template <class T>
struct Postprocess {
  Workspace pieces;
  Candidates<T> from;
  Detected<T> detected;
  Suppression suppression;
  uint32_t* cleared;
  int64_t cleared_words;

  Postprocess(const gfl_postprocess& op, int64_t chunk_logits)
      : pieces(op.workspace), from(op, chunk_logits), detected(op), suppression{} {
    const int64_t batch = op.batch;
    const int64_t levels = batch * op.num_levels;
    cleared = pieces.take<uint32_t>(0);
    from.histogram = pieces.take<uint32_t>(levels * kSteps);
    from.found = pieces.take<uint32_t>(levels);
    detected.removed = pieces.take<uint64_t>(batch * words_for(from.most));
    cleared_words = pieces.bytes() / static_cast<int64_t>(sizeof(uint32_t));
    from.bounds = pieces.take<Bound<T>>(levels);
    from.best_steps = pieces.take<uint32_t>(batch * from.chunks);
    from.list = pieces.take<OrderKey<T>>(batch * from.keys);
    from.sorted = pieces.take<OrderKey<T>>(batch * from.most);
    detected.boxes = pieces.take<T>(4 * batch * from.most);
    detected.labels = pieces.take<int64_t>(batch * from.most);
    detected.keys = pieces.take<OrderKey<T>>(batch * from.most);
    detected.totals = pieces.take<int64_t>(batch);
    suppression.keep = pieces.take<int64_t>(batch * op.room);
    suppression.batch = batch;
    suppression.most = from.most;
    suppression.mask = pieces.take<uint64_t>(suppression.mask_words());
    suppression.counts = detected.totals;
    suppression.removed = detected.removed;
    suppression.room = op.room;
    suppression.kept = op.counts;
    detected.keep = suppression.keep;
  }

  template <class S>
  void run(Stream& stream, const gfl_postprocess& op) const {
    const int64_t batch = op.batch;
    const BinsRows rows(1, kSides, op.bins, batch * from.most, true, sizeof(T));
    stream.launch(clear_kernel, grid(stream, cleared_words), cleared, cleared_words, op.counts, batch);
    stream.launch(count_kernel<T, S>, Grid{stream.blocks(batch * from.chunks, 8), kFindThreads}, from);
    stream.launch(bound_kernel<T, S>, Grid{static_cast<int>(batch * op.num_levels), kBoundThreads}, from);
    stream.launch(collect_kernel<T, S>, Grid{stream.blocks(batch * from.chunks, 8), kFindThreads}, from);
    put_in_order(stream);
    stream.launch(decode_kernel<T>, Grid{stream.blocks(rows.tiles(), 12), kTileThreads, rows.tile_bytes}, from,
                  detected, rows);
    suppress(stream, SortedBoxes<T>(detected.boxes, detected.labels, op.nms_threshold, op.criterion), suppression);
    stream.launch(write_kernel<T>, grid(stream, batch * op.room), from, detected);
    if (op.distributions) write_edges(stream, op);
  }

  void put_in_order(Stream& stream) const {
    int64_t longest = 0;
    for (int i = 0; i < from.num_levels; ++i) longest = std::max(longest, from.levels[i].room);
    const int64_t bytes = longest < kMostSortedBytes ? sorted_size(longest) * int64_t{sizeof(OrderKey<T>)} : longest;
    if (bytes <= kMostSortedBytes) {
      const int lists = static_cast<int>(from.batch) * from.num_levels;
      stream.launch(order_kernel<T>, Grid{lists, kSortThreads, static_cast<int>(bytes)}, from);
    } else {
      stream.launch(place_kernel<T>, grid(stream, from.batch * from.keys * kWarp), from);
    }
  }

  void write_edges(Stream& stream, const gfl_postprocess& op) const {
    const BinsRows rows(1, kSides, op.bins, op.batch * op.room, true, sizeof(T));
    const gfl_bins dense{op.distributions, op.dtype, 0, 1, kSides * op.bins};
    stream.launch(edges_kernel<T>, Grid{stream.blocks(rows.tiles(), 12), kTileThreads, rows.tile_bytes}, from, detected,
                  rows, BinsView<T>(dense, rows, 1));
  }

  static Grid grid(Stream& stream, int64_t threads) {
    return {stream.blocks((threads + kFindThreads - 1) / kFindThreads, 8), kFindThreads};
  }
};

template <class T>
int run(const gfl_device& device, const gfl_postprocess& op) {
  Stream stream(device);
  int64_t logits = 0;
  for (int i = 0; i < op.num_levels; ++i) {
    logits += static_cast<int64_t>(op.levels[i].height) * op.levels[i].width * op.classes;
  }
  if (logits >= kOrderKeyIndices) {
    return fail(GFL_ERROR_ARGUMENT, "an image may have fewer than 2^32 logits, got %lld",
                static_cast<long long>(logits));
  }
  return with_logit_type<T>(op.levels[0].scores.dtype, [&](auto type) {
    using S = typename decltype(type)::type;
    Postprocess<T>(op, kChunkLogits<S>).template run<S>(stream, op);
    return stream.status();
  });
}

template <class T>
int64_t workspace_bytes(const gfl_postprocess& op) {
  gfl_postprocess empty = op;
  empty.workspace = nullptr;
  int64_t bytes = 0;
  with_logit_type<T>(op.levels[0].scores.dtype, [&](auto type) {
    bytes = Postprocess<T>(empty, kChunkLogits<typename decltype(type)::type>).pieces.bytes();
    return static_cast<int>(GFL_OK);
  });
  return bytes;
}

}  // namespace

int postprocess(const gfl_device& device, const gfl_postprocess& op) {
  return op.dtype == GFL_FLOAT64 ? run<double>(device, op) : run<float>(device, op);
}

int64_t postprocess_workspace_bytes(const gfl_postprocess& op) {
  return op.dtype == GFL_FLOAT64 ? workspace_bytes<double>(op) : workspace_bytes<float>(op);
}

}  // namespace cuda
}  // namespace gfl
