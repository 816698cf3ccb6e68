// Dense classification losses of any layout, and their per-row sums.
//
// `lanes` neighbouring threads share a row: a warp where the columns lie side by side, one thread where the rows do, so
// that neighbours read neighbours either way.
#pragma once

#include "class_loss.cuh"

namespace gfl {
namespace cuda {

constexpr int kStridedThreads = 256;

// Room for that many blocks is no limit that matters here, but with none stated ptxas chose 40 registers, and spilled.
template <class T, class Formula>
__global__ void __launch_bounds__(kStridedThreads, std::is_same<T, double>::value ? 2 : 4)
    class_loss_strided(const ClassArguments<T> op, const Formula formula, int lanes) {
  using C = Compute<T>;
  constexpr int kChunk = 16;  // columns that a thread adds in the compute type before it goes on in double
  const int lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  const int group = static_cast<int>(threadIdx.x) / lanes;
  const int groups = kStridedThreads / lanes;
  const C scale = op.sums.scale.value();
  const bool dense = op.target.data != nullptr;
  double total = 0.0;

  // All threads of a warp make the same number of rounds, since they exchange their sums.
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * groups; first < op.rows;
       first += static_cast<int64_t>(gridDim.x) * groups) {
    const int64_t row = first + group;
    double row_loss = 0.0;
    if (row < op.rows) {
      const int64_t label = dense ? -1 : op.label(row);
      for (int64_t start = lane; start < op.cols; start += kChunk * lanes) {
        C chunk_loss = C();
        const int64_t end = start + kChunk * lanes < op.cols ? start + kChunk * lanes : op.cols;
        for (int64_t col = start; col < end; col += lanes) {
          const C x = op.pred.at(row, col);
          const LossGrad<C> term = dense          ? formula.dense(x, op.target.at(row, col))
                                   : col == label ? formula.positive(x, op.score(row))
                                                  : negative_term<T>(formula, x);
          const C factor = op.factors.at(row, col);
          chunk_loss = chunk_loss + term.loss * factor;
          if (op.element_losses) op.element_losses[row * op.cols + col] = term.loss * (factor * scale);
          if (op.grad) {
            op.grad[row * op.grad_row_stride + col * op.grad_col_stride] = narrow<T>(term.grad * (factor * scale));
          }
        }
        row_loss += static_cast<double>(chunk_loss);
      }
    }
    if (op.row_losses) {
      for (int offset = lanes / 2; offset > 0; offset /= 2) row_loss += __shfl_xor_sync(kFullWarp, row_loss, offset);
      if (lane == 0 && row < op.rows) op.row_losses[row] = static_cast<C>(row_loss) * scale;
    }
    total += row_loss;
  }
  if (op.sum) op.sums.add_block(0, total);
}

}  // namespace cuda
}  // namespace gfl
