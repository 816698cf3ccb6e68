// The CPU kernels, once for each instruction set; core.cpp picks a table at run time.
#pragma once

#include "../../gfl.h"
#include "detection_args.h"

namespace gfl {

enum class Pass { kForward, kBackward };

struct CpuKernels {
  int (*class_loss)(const gfl_class_loss&, Pass);
  int (*distribution_focal_loss)(const gfl_distribution_focal_loss&, Pass);
  int (*distribution_kl_loss)(const gfl_distribution_kl_loss&, Pass);
  int (*integral)(const gfl_integral&, Pass);
  int (*distribution_statistics)(const gfl_distribution_statistics&, Pass);
  int (*iou_loss)(const gfl_iou_loss&, Pass);
  int (*box_iou)(const gfl_box_iou&);
  int (*distribution_box_loss)(const gfl_distribution_box_loss&, Pass);
  int (*generalized_focal_loss)(const gfl_generalized_focal_loss&, Pass);
  int (*multilevel_class_loss)(const gfl_multilevel_class_loss&, Pass);
  int (*decode_maps)(const gfl_decode_maps&);
  int (*positive_weights)(const gfl_positive_weights&);
  int (*positive_boxes)(const gfl_positive_boxes&, Pass);
  int (*box_losses)(const gfl_box_losses&);
  int (*fcos_assign)(const gfl_fcos_assign&);
  int (*max_iou_assign)(const gfl_max_iou_assign&);
  int (*task_aligned_assign)(const gfl_task_aligned_assign&);
  int (*cost_assign)(const gfl_cost_assign&);
  int (*scale_gradient)(void* data, int32_t dtype, int64_t size, const void* factor);
  // The number of boxes that stay; of logits that were found.
  int64_t (*greedy_nms)(const GreedyNms<float>&);
  int64_t (*greedy_nms_double)(const GreedyNms<double>&);
  int (*scan_logits)(const LogitScan<float>&);
  int (*scan_logits_double)(const LogitScan<double>&);
  void (*expect_edges)(EdgeBlock<float>&);
  void (*expect_edges_double)(EdgeBlock<double>&);

  int64_t nms(const GreedyNms<float>& op) const { return greedy_nms(op); }
  int64_t nms(const GreedyNms<double>& op) const { return greedy_nms_double(op); }
  int scan(const LogitScan<float>& op) const { return scan_logits(op); }
  int scan(const LogitScan<double>& op) const { return scan_logits_double(op); }
  void expect(EdgeBlock<float>& op) const { expect_edges(op); }
  void expect(EdgeBlock<double>& op) const { expect_edges_double(op); }
};

extern const CpuKernels kernels_baseline;
extern const CpuKernels kernels_avx2;
extern const CpuKernels kernels_avx512;

}  // namespace gfl
