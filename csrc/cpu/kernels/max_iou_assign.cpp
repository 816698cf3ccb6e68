// Assignment by the highest IoU in steps, each in parallel: what the thresholds say of the anchors, and the highest IoU of
// each gt; then the claims. Anchors are taken in blocks, which most gts do not touch.
#include "kernel.h"
// Formulas come after the vectors.
#include "../../math/max_iou_assign.h"
#include "assignment.h"

namespace gfl {
namespace GFL_ISA {
namespace {

constexpr int kTogether = 64;
constexpr int64_t kBlocksOfPiece = 16;

// Anchors side by side, and the box around them.
template <class T>
struct AnchorBlock {
  T x1[kTogether], y1[kTogether], x2[kTogether], y2[kTogether], area[kTogether];
  Box<T> hull;

  Box<T> box(int i) const { return {x1[i], y1[i], x2[i], y2[i]}; }
};

// Non-negative floats are in the order of their bits.
inline void raise_best(float* address, float value) {
  uint32_t seen;
  __atomic_load(reinterpret_cast<uint32_t*>(address), &seen, __ATOMIC_RELAXED);
  const uint32_t wanted = float_bits(value);
  while (seen < wanted && !__atomic_compare_exchange_n(reinterpret_cast<uint32_t*>(address), &seen, wanted, true,
                                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}
inline void raise_best(double* address, double value) {
  uint64_t seen, wanted;
  __atomic_load(reinterpret_cast<uint64_t*>(address), &seen, __ATOMIC_RELAXED);
  memcpy(&wanted, &value, sizeof wanted);
  while (seen < wanted && !__atomic_compare_exchange_n(reinterpret_cast<uint64_t*>(address), &seen, wanted, true,
                                                       __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

template <class T>
class MaxIouSteps {
 public:
  explicit MaxIouSteps(const gfl_max_iou_assign& op) : max_(op), op_(op) {}

  void run() const {
    for_all(op_.batch, op_.num_gts, 1024, [&](int64_t image, int64_t gt) { max_.prepare(image, gt); });
    for_blocks([&](int64_t image, int64_t first, int size) { compare(image, first, size); });
    for_blocks([&](int64_t image, int64_t first, int size) { find_claims(image, first, size); });
    if (op_.all_best) return;
    for_all(op_.batch, op_.num_gts, 1024, [&](int64_t image, int64_t gt) { claim_first(image, gt); });
    for_blocks([&](int64_t image, int64_t first, int size) {
      for (int64_t anchor = first; anchor < first + size; ++anchor) {
        max_.finish(image, anchor, max_.assigned(image)[anchor] - static_cast<int32_t>(op_.num_gts));
      }
    });
  }

 private:
  // Calls use(image, first anchor, anchors).
  template <class Use>
  void for_blocks(const Use& use) const {
    const int64_t blocks = (op_.num_anchors + kTogether - 1) / kTogether;
    for_all(op_.batch, blocks, kBlocksOfPiece, [&](int64_t image, int64_t block) {
      const int64_t first = block * kTogether;
      const int64_t left = op_.num_anchors - first;
      use(image, first, static_cast<int>(left < kTogether ? left : kTogether));
    });
  }

  AnchorBlock<T> block_of(int64_t image, int64_t first, int size) const {
    const T infinite = static_cast<T>(HUGE_VAL);
    AnchorBlock<T> block;
    Box<T> hull{infinite, infinite, -infinite, -infinite};
    for (int i = 0; i < kTogether; ++i) {
      const Box<T> own = i < size ? max_.anchor(image, first + i) : Box<T>{infinite, infinite, -infinite, -infinite};
      block.x1[i] = own.x1;
      block.y1[i] = own.y1;
      block.x2[i] = own.x2;
      block.y2[i] = own.y2;
      block.area[i] = box_area(own);
      hull = {own.x1 < hull.x1 ? own.x1 : hull.x1, own.y1 < hull.y1 ? own.y1 : hull.y1,
              own.x2 > hull.x2 ? own.x2 : hull.x2, own.y2 > hull.y2 ? own.y2 : hull.y2};
    }
    block.hull = hull;
    return block;
  }

  // Calls use(gt) for those that overlap the block's hull and may be wanted; they are sorted out side by side.
  template <class Wanted, class Use>
  void for_near_gts(int64_t image, const Box<T>& hull, const Wanted& wanted, const Use& use) const {
    const T *x1 = max_.corner(0, image), *y1 = max_.corner(1, image);
    const T *x2 = max_.corner(2, image), *y2 = max_.corner(3, image);
    const int64_t count = max_.gts.count(image);
    for (int64_t begin = 0; begin < count; begin += kTogether) {
      const int size = static_cast<int>(count - begin < kTogether ? count - begin : kTogether);
      uint8_t near[kTogether];
      for (int i = 0; i < size; ++i) {
        const int64_t gt = begin + i;
        near[i] = static_cast<uint8_t>(overlap(Box<T>{x1[gt], y1[gt], x2[gt], y2[gt]}, hull) & wanted(gt));
      }
      for (int i = 0; i < size; ++i) {
        if (near[i]) use(begin + i);
      }
    }
  }

  static void ious_of(const AnchorBlock<T>& block, const Box<T>& gt, T* ious) {
    for (int i = 0; i < kTogether; ++i) ious[i] = MaxIou<T>::iou(block.box(i), block.area[i], gt);
  }

  void compare(int64_t image, int64_t first, int size) const {
    const AnchorBlock<T> block = block_of(image, first, size);
    T most[kTogether] = {};
    int32_t gt_of_most[kTogether] = {};
    for_near_gts(
        image, block.hull, [](int64_t) { return true; },
        [&](int64_t gt) {
          T ious[kTogether];
          ious_of(block, max_.prepared(image, gt), ious);
          for (int i = 0; i < kTogether; ++i) {
            const bool higher = ious[i] > most[i];
            most[i] = higher ? ious[i] : most[i];
            gt_of_most[i] = higher ? static_cast<int32_t>(gt) : gt_of_most[i];
          }
          raise_best(max_.best(image) + gt, highest(ious));
        });
    for (int i = 0; i < size; ++i) {
      max_.ious(image)[first + i] = most[i];
      max_.assigned(image)[first + i] = max_.by_threshold(image, first + i, most[i], gt_of_most[i]);
    }
  }

  // In sixteen chains: one alone would wait for each comparison.
  static T highest(const T* values) {
    T of_chain[16];
    for (int i = 0; i < 16; ++i) of_chain[i] = values[i];
    for (int begin = 16; begin < kTogether; begin += 16) {
      for (int i = 0; i < 16; ++i) of_chain[i] = values[begin + i] > of_chain[i] ? values[begin + i] : of_chain[i];
    }
    T most = of_chain[0];
    for (int i = 1; i < 16; ++i) most = larger(of_chain[i], most);
    return most;
  }

  // A gt whose best IoU is above all that the block's anchors have has it elsewhere.
  void find_claims(int64_t image, int64_t first, int size) const {
    T most = T();
    for (int i = 0; i < size; ++i) most = larger(max_.ious(image)[first + i], most);
    int32_t claimed[kTogether];
    for (int i = 0; i < kTogether; ++i) claimed[i] = GFL_BACKGROUND;
    if (max_.may_claim(most)) {
      const AnchorBlock<T> block = block_of(image, first, size);
      const T* best_of = max_.best(image);
      const auto wanted = [&](int64_t gt) { return max_.may_claim(best_of[gt]) & (best_of[gt] <= most); };
      for_near_gts(image, block.hull, wanted, [&](int64_t gt) {
        T ious[kTogether];
        ious_of(block, max_.prepared(image, gt), ious);
        const T best = best_of[gt];
        for (int i = 0; i < kTogether; ++i) claimed[i] = ious[i] == best ? static_cast<int32_t>(gt) : claimed[i];
        if (op_.all_best) return;
        for (int i = 0; i < size; ++i) {
          if (ious[i] == best) return lower_first(max_.first(image) + gt, static_cast<int32_t>(first + i));
        }
      });
    }
    if (!op_.all_best) return;
    for (int i = 0; i < size; ++i) max_.finish(image, first + i, claimed[i]);
  }

  static void lower_first(int32_t* address, int32_t anchor) {
    int32_t seen = compare_exchange(address, INT32_MAX, anchor);
    while (seen > anchor) seen = compare_exchange(address, seen, anchor);
  }

  void claim_first(int64_t image, int64_t gt) const {
    const int32_t anchor = max_.first(image)[gt];
    if (anchor < INT32_MAX) raise_to(max_.assigned(image) + anchor, max_.as_claim(gt), compare_exchange);
  }

  MaxIou<T> max_;
  const gfl_max_iou_assign& op_;
};

}  // namespace

int max_iou_assign(const gfl_max_iou_assign& op) {
  return with_compute_type(op.dtype, "anchors", [&](auto zero) {
    MaxIouSteps<decltype(zero)>(op).run();
    return GFL_OK;
  });
}

}  // namespace GFL_ISA
}  // namespace gfl
