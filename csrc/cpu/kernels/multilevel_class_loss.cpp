// A dense classification loss over the maps of all levels: each level of each image is a matrix of positions and
// classes, whichever way it lies, and all of them share one pool of chunks.
#include "../maps.h"
#include "class_loss.h"
#include "kernel.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
class MultilevelClassLoss {
 public:
  MultilevelClassLoss(const gfl_multilevel_class_loss& op, Pass pass) : op_(op), pass_(pass), anchors_(op.levels) {}

  void run() const {
    double* partials = static_cast<double*>(op_.workspace);
    int64_t chunks = 0;
    for (int level = 0; level < anchors_.count; ++level) chunks += op_.batch * chunks_of(level).count;
    parallel_chunks(chunks, [&](int64_t chunk) {
      const double sum = run_chunk(chunk);
      if (pass_ == Pass::kForward) partials[chunk] = sum;
    });
    const gfl_reduction reduction{GFL_REDUCE_SUM, op_.scale, 1, op_.avg_factor};
    if (pass_ == Pass::kForward) write_sum<T>(partials, chunks, effective_scale<T>(reduction), op_.loss);
  }

 private:
  MapChunks chunks_of(int level) const {
    const gfl_map& map = op_.pred.level[level];
    return MapChunks(anchors_.size(level), op_.classes, map.position_stride < map.channel_stride);
  }

  double run_chunk(int64_t chunk) const {
    int level = 0;
    while (chunk >= op_.batch * chunks_of(level).count) chunk -= op_.batch * chunks_of(level++).count;
    const MapChunks chunks = chunks_of(level);
    const int64_t piece = chunk % chunks.count;
    const gfl_class_loss matrix = matrix_of(level, chunk / chunks.count);
    const int64_t row = piece / chunks.across * chunks.chunk_positions;
    const int64_t col = piece % chunks.across * chunks.chunk_channels;
    const int64_t row_end = row + chunks.chunk_positions;
    const int64_t col_end = col + chunks.chunk_channels;
    return class_loss_of_part(
        matrix, pass_,
        {row, row_end < matrix.rows ? row_end : matrix.rows, col, col_end < matrix.cols ? col_end : matrix.cols});
  }

  gfl_class_loss matrix_of(int level, int64_t image) const {
    const int64_t first = image * anchors_.all() + anchors_.first[level];
    gfl_class_loss matrix{};
    matrix.formula = op_.formula;
    matrix.exponent = op_.exponent;
    matrix.alpha = op_.alpha;
    matrix.rows = anchors_.size(level);
    matrix.cols = op_.classes;
    matrix.pred = view(op_.pred, level, image);
    matrix.labels = op_.labels + first;
    matrix.labels_dtype = GFL_INT32;
    matrix.leave_out = 1;
    matrix.scores = op_.scores ? static_cast<const T*>(op_.scores) + first : nullptr;
    matrix.grad_loss.data = const_cast<void*>(op_.grad_loss);
    matrix.reduction = {GFL_REDUCE_SUM, op_.scale, 1, op_.avg_factor};
    matrix.grad = view(op_.grad, level, image);
    return matrix;
  }

  static gfl_matrix view(const gfl_maps& maps, int level, int64_t image) {
    if (maps.count == 0) return {};
    const gfl_map& map = maps.level[level];
    const int64_t value_bytes = maps.dtype == GFL_FLOAT64 ? 8 : maps.dtype == GFL_FLOAT32 ? 4 : 2;
    char* data = static_cast<char*>(map.data) + image * map.batch_stride * value_bytes;
    return {data, maps.dtype, map.position_stride, map.channel_stride};
  }

  const gfl_multilevel_class_loss& op_;
  const Pass pass_;
  const AnchorLevels anchors_;
};

}  // namespace

int multilevel_class_loss(const gfl_multilevel_class_loss& op, Pass pass) {
  if (op.formula == GFL_QUALITY_FOCAL_PROBABILITY || op.formula < 0 || op.formula >= GFL_CLASS_FORMULAS) {
    return fail(GFL_ERROR_ARGUMENT, "maps must be logits");
  }
  return with_compute_type(op.pred.dtype, "pred", [&](auto zero) {
    MultilevelClassLoss<decltype(zero)>(op, pass).run();
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
