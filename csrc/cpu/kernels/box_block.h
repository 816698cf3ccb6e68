// A block of sixteen positives, each with four edge distributions and a target box: DFL, decoded box, quality and IoU
// loss forward, the gradient of all four distributions backward. Who uses it fills the inputs and takes the results.
#pragma once

#include "../simd/bins_tile.h"
#include "../simd/formulas.h"

namespace gfl {

template <class T>
struct Counting {
  GFL_MEMBER T operator()(int k) const { return static_cast<T>(k); }
};

template <class T>
struct BoxBlock {
  using V = Vector<T>;

  BinsTile<T> tiles[kSides];  // logits; afterwards scratch, or their gradient
  T x[kBlock], y[kBlock], corner[4][kBlock], stride[kBlock], weight[kBlock];
  T width[kBlock], height[kBlock];                                  // of the image, where there is one bin
  T grad_iou[kBlock], grad_dfl[kBlock];                             // backward
  T iou[kBlock], dfl[kBlock], quality[kBlock], decoded[4][kBlock];  // forward: losses with their weight; pixels

  GFL_MEMBER void forward(int bins, double margin, const gfl_iou_options& options) {
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const Distributions sides(*this, i, bins, margin);
      const DistributionBox<V> box = distribution_box(sides.target, sides.expectation, options);
      store(iou + i, box.loss * load(weight + i));
      store(dfl + i, sides.dfl_sum * 0.25f * load(weight + i));
      store(quality + i, box.quality);
      store(decoded[0] + i, box.pixels.x1);
      store(decoded[1] + i, box.pixels.y1);
      store(decoded[2] + i, box.pixels.x2);
      store(decoded[3] + i, box.pixels.y2);
    }
  }

  GFL_MEMBER void backward(int bins, double margin, const gfl_iou_options& options, T scale) {
    for (int i = 0; i < kBlock; i += Lanes<T>::width) {
      const Distributions sides(*this, i, bins, margin);
      const DistributionBox<V> box = distribution_box(sides.target, sides.expectation, options);
      const V scales = load(weight + i) * scale;
      const V through_bins = load(grad_dfl + i) * scales * 0.25f;
      for (int side = 0; side < kSides; ++side) {
        const V through_box = load(grad_iou + i) * scales * box.grad[side];
        if (bins == 1) {
          store(tiles[side].data + i, through_box + through_bins * sides.slope[side]);
          continue;
        }
        distribution_box_gradient(TileColumn<T>{tiles[side].data + i}, bins, sides.near[side], sides.inverse_sum[side],
                                  sides.expectation[side], through_box, through_bins);
      }
    }
  }

 private:
  // A vector of positives: their targets, and what the softmax of each side says.
  struct Distributions {
    BoxTarget<V> target;
    DflTarget<V> near[kSides];
    V expectation[kSides], inverse_sum[kSides];
    V slope[kSides];  // of one bin
    V dfl_sum = V();

    GFL_MEMBER Distributions(BoxBlock& block, int i, int bins, double margin)
        : target(box_target(load(block.x + i), load(block.y + i),
                            Box<V>{load(block.corner[0] + i), load(block.corner[1] + i), load(block.corner[2] + i),
                                   load(block.corner[3] + i)},
                            load(block.stride + i))) {
      if (bins == 1) {
        read_distances(block, i);
        return;
      }
      // Step by step for all four sides: one side alone is a chain of operations in which each waits for the one before.
      const V farthest = V() + static_cast<T>(static_cast<double>(bins - 1) - margin);
      V most[kSides];
      DflSums<V> sums[kSides];
      const auto column = [&](int side) { return TileColumn<T>{block.tiles[side].data + i}; };
      for (int side = 0; side < kSides; ++side) {
        near[side] = dfl_target(target_distance(target, side, farthest), V(), bins);
      }
      for (int side = 0; side < kSides; ++side) most[side] = bins_maximum<V>(column(side), bins);
      for (int side = 0; side < kSides; ++side) {
        sums[side] = dfl_exponentials(column(side), bins, most[side], near[side]);
      }
      for (int side = 0; side < kSides; ++side) {
        const DflRow<V> row_loss = dfl_row(sums[side], near[side]);
        inverse_sum[side] = row_loss.inverse_sum;
        dfl_sum = dfl_sum + row_loss.loss;
      }
      for (int side = 0; side < kSides; ++side) {
        expectation[side] = bins_expectation(column(side), bins, inverse_sum[side], Counting<T>{});
      }
    }

    GFL_MEMBER void read_distances(const BoxBlock& block, int i) {
      for (int side = 0; side < kSides; ++side) {
        expectation[side] = load(block.tiles[side].data + i);
        const V length = load((is_horizontal(side) ? block.width : block.height) + i);
        const DistanceLoss<V> distance = distance_loss(target, side, expectation[side], length);
        slope[side] = distance.slope;
        dfl_sum = dfl_sum + distance.loss;
      }
    }
  };
};

}  // namespace gfl
