// The CUDA side of the C ABI; core.cpp forwards here.
#pragma once

#include <cstdint>

#include "../gfl.h"

namespace gfl {
namespace cuda {

int class_loss_forward(const gfl_device& device, const gfl_class_loss& op);
int class_loss_backward(const gfl_device& device, const gfl_class_loss& op);
int distribution_focal_loss_forward(const gfl_device& device, const gfl_distribution_focal_loss& op);
int distribution_focal_loss_backward(const gfl_device& device, const gfl_distribution_focal_loss& op);
int distribution_kl_loss_forward(const gfl_device& device, const gfl_distribution_kl_loss& op);
int distribution_kl_loss_backward(const gfl_device& device, const gfl_distribution_kl_loss& op);
int integral_forward(const gfl_device& device, const gfl_integral& op);
int integral_backward(const gfl_device& device, const gfl_integral& op);
int distribution_statistics_forward(const gfl_device& device, const gfl_distribution_statistics& op);
int distribution_statistics_backward(const gfl_device& device, const gfl_distribution_statistics& op);
int iou_loss_forward(const gfl_device& device, const gfl_iou_loss& op);
int iou_loss_backward(const gfl_device& device, const gfl_iou_loss& op);
int box_iou_forward(const gfl_device& device, const gfl_box_iou& op);
int distribution_box_loss_forward(const gfl_device& device, const gfl_distribution_box_loss& op);
int distribution_box_loss_backward(const gfl_device& device, const gfl_distribution_box_loss& op);
int generalized_focal_loss_forward(const gfl_device& device, const gfl_generalized_focal_loss& op);
int generalized_focal_loss_backward(const gfl_device& device, const gfl_generalized_focal_loss& op);
int atss_assign(const gfl_device& device, const gfl_atss_assign& op);
int fcos_assign(const gfl_device& device, const gfl_fcos_assign& op);
int max_iou_assign(const gfl_device& device, const gfl_max_iou_assign& op);
int task_aligned_assign(const gfl_device& device, const gfl_task_aligned_assign& op);
int cost_assign(const gfl_device& device, const gfl_cost_assign& op);
int multilevel_class_loss_forward(const gfl_device& device, const gfl_multilevel_class_loss& op);
int multilevel_class_loss_backward(const gfl_device& device, const gfl_multilevel_class_loss& op);
int decode_maps(const gfl_device& device, const gfl_decode_maps& op);
int positive_weights_forward(const gfl_device& device, const gfl_positive_weights& op);
int positive_boxes_forward(const gfl_device& device, const gfl_positive_boxes& op);
int positive_boxes_backward(const gfl_device& device, const gfl_positive_boxes& op);
int box_losses_forward(const gfl_device& device, const gfl_box_losses& op);
int nms(const gfl_device& device, const gfl_nms& op);
int64_t nms_workspace_bytes(const gfl_nms& op);
int postprocess(const gfl_device& device, const gfl_postprocess& op);
int64_t postprocess_workspace_bytes(const gfl_postprocess& op);
int scale_gradient(const gfl_device& device, void* data, int32_t dtype, int64_t size, const void* factor);

int driver_version();
int runtime_version();

int64_t workspace_bytes(int64_t rows, int64_t cols);
int64_t maps_workspace_bytes(const gfl_levels& levels, int64_t batch, int64_t channels);

// "sm_80 sm_90 compute_80", as the build was told.
inline const char* architectures() {
#if defined(GFL_CUDA_ARCHS)
  return GFL_CUDA_ARCHS;
#else
  return "";
#endif
}

}  // namespace cuda
}  // namespace gfl
