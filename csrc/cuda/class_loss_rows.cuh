// Sums over the classes of each row of contiguous logits, for losses that are not reduced: wide loads, as in the flat kernel.
//
// 2^lane_bits neighbouring threads share a row, so few that each has kRowVectors vectors of it in flight.
#pragma once

#include "class_loss_tile.cuh"

namespace gfl {
namespace cuda {

constexpr int kRowThreads = 256;
constexpr int kRowVectors = 5;  // four lanes for 80 classes in float, two in a half type

template <class T>
bool whole_rows(const gfl_class_loss& op) {
  return op.cols > 0 && op.cols % kPack<T> == 0 && op.cols < (int64_t{1} << 30);
}

// As a power of two.
inline int lane_bits_of_row(int vectors) {
  int bits = 0;
  while (1 << bits < kWarp && kRowVectors << bits < vectors) ++bits;
  return bits;
}

// What a lane has of a row's negatives.
template <class T, class Formula>
__device__ __forceinline__ double row_negatives(const Formula& formula, const T* row, int vectors, int lane, int lanes,
                                                int label) {
  using C = Compute<T>;
  constexpr int N = kPack<T>;
  double total = 0.0;
  for (int first = lane; first < vectors; first += lanes * kRowVectors) {
    Vector<T, N> logits[kRowVectors];
#pragma unroll
    for (int j = 0; j < kRowVectors; ++j) {
      const int v = first + j * lanes;
      if (v < vectors) logits[j] = Vector<T, N>::load(row + v * N);
    }
    LossLanes<C, N> loss;
#pragma unroll
    for (int j = 0; j < kRowVectors; ++j) {
      const int v = first + j * lanes;
      if (v >= vectors) break;
      VectorTerms<T> terms = negative_terms<T>(formula, logits[j]);
      if (v == label / N) {
        terms.multiply_out();
        terms.drop(1u << label % N);
      }
      terms.add_losses(loss);
    }
    total += static_cast<double>(loss.sum());
  }
  return total;
}

template <class T, class Formula>
__global__ void __launch_bounds__(kRowThreads, 4)
    class_loss_rows(const ClassArguments<T> op, const Formula formula, int lane_bits) {
  using C = Compute<T>;
  const int lanes = 1 << lane_bits;
  const int lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  const int group = static_cast<int>(threadIdx.x) >> lane_bits;
  const int64_t groups = kRowThreads >> lane_bits;
  const int cols = static_cast<int>(op.cols);
  const T* pred = static_cast<const T*>(op.pred.data);
  const C scale = op.sums.scale.value();
  // All threads of a warp make the same number of rounds, since they exchange their sums.
  for (int64_t first = blockIdx.x * groups; first < op.rows; first += gridDim.x * groups) {
    const int64_t row = first + group;
    const bool exists = row < op.rows;
    double loss = 0.0;
    if (exists) {
      const int64_t given = op.label(row);
      const int label = given >= 0 && given < cols ? static_cast<int>(given) : -kPack<T>;  // a vector that no row has
      loss = row_negatives(formula, pred + row * cols, cols / kPack<T>, lane, lanes, label);
      if (label >= 0 && lane == 0) {
        loss += static_cast<double>(formula.positive(widen(pred[row * cols + label]), op.score(row)).loss);
      }
    }
    for (int offset = lanes / 2; offset > 0; offset /= 2) loss += __shfl_xor_sync(kFullWarp, loss, offset);
    if (exists && lane == 0) op.row_losses[row] = static_cast<C>(loss) * (op.factors.at(row, 0) * scale);
  }
}

}  // namespace cuda
}  // namespace gfl
