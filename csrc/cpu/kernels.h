// The CPU kernels, once for each instruction set; core.cpp picks a table at run time.
#pragma once

#include "../gfl.h"

namespace gfl {

enum class Pass { kForward, kBackward };

struct CpuKernels {
  int (*class_loss)(const gfl_class_loss&, Pass);
  int (*dfl)(const gfl_dfl&, Pass);
  int (*integral)(const gfl_integral&, Pass);
  int (*iou_loss)(const gfl_iou_loss&, Pass);
  int (*box_iou)(const gfl_box_iou&);
  int (*box_distribution)(const gfl_box_distribution_loss&, Pass);
  int (*generalized_focal)(const gfl_generalized_focal&, Pass);
  int (*dense_loss)(const gfl_dense_loss&, Pass);
  int (*positive_weights)(const gfl_positive_weights&);
  int (*positive_boxes)(const gfl_positive_boxes&, Pass);
  int (*box_losses)(const gfl_box_losses&);
  int (*scale_gradient)(void* data, int32_t dtype, int64_t size, const void* factor);
};

extern const CpuKernels kernels_baseline;
extern const CpuKernels kernels_avx2;
extern const CpuKernels kernels_avx512;

}  // namespace gfl
