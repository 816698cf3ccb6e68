// The divergence of a student's distributions from a teacher's: sixteen rows of both at a time, transposed.
#include "kernel.h"

#include "../../math/distribution_kl_loss.h"
#include "../simd/bins_tile.h"

namespace gfl {
namespace GFL_ISA {
namespace {

template <class T>
class Kl {
 public:
  Kl(const gfl_distribution_kl_loss& op, Pass pass)
      : op_(op),
        pass_(pass),
        bins_(static_cast<int>(op.bins)),
        inverse_temperature_(static_cast<T>(1.0 / op.temperature)),
        scale_(effective_scale<T>(op.reduction)) {}

  void run() const {
    with_constant_bins<T>(bins_, [&](auto bins) { run_with<decltype(bins)::value>(); });
  }

 private:
  using V = Vector<T>;

  template <int kBins>
  void run_with() const {
    double* partials = static_cast<double*>(op_.workspace);
    const bool summed = pass_ == Pass::kForward && op_.reduction.mode == GFL_REDUCE_SUM;
    parallel_rows(op_.rows, op_.bins, [&](int64_t chunk, int64_t begin, int64_t end) {
      BlockSums sums;
      for (int64_t row = begin; row < end; row += kBlock) {
        run_block<kBins>(row, static_cast<int>(end - row < kBlock ? end - row : kBlock), sums);
      }
      if (summed) partials[chunk] = sums.total();
    });
    if (summed) write_sum<T>(partials, chunk_count(op_.rows, op_.bins), scale_, op_.loss);
  }

  template <int kBins>
  void run_block(int64_t row, int count, BlockSums& sums) const {
    const int bins = kBins > 0 ? kBins : bins_;
    BinsTile<T> student, teacher;
    T weight[kBlock], upstream[kBlock], loss[kBlock];
    load_bins(op_.logits, 0, 0, row, count, bins, student.data);
    load_bins(op_.teacher, 0, 0, row, count, bins, teacher.data);
    load_block(op_.weight, row, 1, count, T(1), weight);
    load_block(op_.grad_loss, row * op_.grad_loss_stride, op_.grad_loss_stride, count, T(1), upstream);
    const V of_gradient = V() + static_cast<T>(scale_ / op_.temperature);
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const TileColumn<T> of_student{student.data + i};
      const TileColumn<T> of_teacher{teacher.data + i};
      const KlRow<V> found = kl_forward<V>(of_student, of_teacher, bins, V() + inverse_temperature_);
      store(loss + i, found.loss * load(weight + i));
      if (!op_.grad.data) continue;
      kl_gradient(of_student, of_teacher, bins, found, of_gradient * load(weight + i) * load(upstream + i));
    }
    if (op_.grad.data) store_bins(student.data, op_.grad, 0, 0, row, count, bins);
    take_losses(row, count, loss, sums);
  }

  // Adds them up, or writes one for each row.
  void take_losses(int64_t row, int count, const T* loss, BlockSums& sums) const {
    if (pass_ == Pass::kBackward) return;
    if (op_.reduction.mode == GFL_REDUCE_SUM) return sums.add(loss, count);
    T* out = static_cast<T*>(op_.loss) + row;
    for (int i = 0; i < count; ++i) out[i] = static_cast<T>(static_cast<double>(loss[i]) * scale_);
  }

  const gfl_distribution_kl_loss& op_;
  const Pass pass_;
  const int bins_;
  const T inverse_temperature_;
  const double scale_;
};

}  // namespace

int distribution_kl_loss(const gfl_distribution_kl_loss& op, Pass pass) {
  return with_compute_type(op.logits.dtype, "student", [&](auto zero) {
    Kl<decltype(zero)>(op, pass).run();
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
