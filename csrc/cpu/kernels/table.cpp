// The kernels of one instruction set, as core.cpp sees them.
#include "table.h"

#include "isa.h"

namespace gfl {
namespace GFL_ISA {

int class_loss(const gfl_class_loss& op, Pass pass);
int distribution_focal_loss(const gfl_distribution_focal_loss& op, Pass pass);
int distribution_kl_loss(const gfl_distribution_kl_loss& op, Pass pass);
int integral(const gfl_integral& op, Pass pass);
int distribution_statistics(const gfl_distribution_statistics& op, Pass pass);
int iou_loss(const gfl_iou_loss& op, Pass pass);
int box_iou(const gfl_box_iou& op);
int distribution_box_loss(const gfl_distribution_box_loss& op, Pass pass);
int generalized_focal_loss(const gfl_generalized_focal_loss& op, Pass pass);
int multilevel_class_loss(const gfl_multilevel_class_loss& op, Pass pass);
int decode_maps(const gfl_decode_maps& op);
int positive_weights(const gfl_positive_weights& op);
int positive_boxes(const gfl_positive_boxes& op, Pass pass);
int box_losses(const gfl_box_losses& op);
int fcos_assign(const gfl_fcos_assign& op);
int max_iou_assign(const gfl_max_iou_assign& op);
int task_aligned_assign(const gfl_task_aligned_assign& op);
int cost_assign(const gfl_cost_assign& op);
int scale_gradient(void* data, int32_t dtype, int64_t size, const void* factor);
int64_t greedy_nms(const GreedyNms<float>& op);
int64_t greedy_nms_double(const GreedyNms<double>& op);
int scan_logits(const LogitScan<float>& op);
int scan_logits_double(const LogitScan<double>& op);
void expect_edges(EdgeBlock<float>& op);
void expect_edges_double(EdgeBlock<double>& op);

}  // namespace GFL_ISA

const CpuKernels GFL_JOIN(kernels_, GFL_ISA) = {
    GFL_ISA::class_loss,
    GFL_ISA::distribution_focal_loss,
    GFL_ISA::distribution_kl_loss,
    GFL_ISA::integral,
    GFL_ISA::distribution_statistics,
    GFL_ISA::iou_loss,
    GFL_ISA::box_iou,
    GFL_ISA::distribution_box_loss,
    GFL_ISA::generalized_focal_loss,
    GFL_ISA::multilevel_class_loss,
    GFL_ISA::decode_maps,
    GFL_ISA::positive_weights,
    GFL_ISA::positive_boxes,
    GFL_ISA::box_losses,
    GFL_ISA::fcos_assign,
    GFL_ISA::max_iou_assign,
    GFL_ISA::task_aligned_assign,
    GFL_ISA::cost_assign,
    GFL_ISA::scale_gradient,
    GFL_ISA::greedy_nms,
    GFL_ISA::greedy_nms_double,
    GFL_ISA::scan_logits,
    GFL_ISA::scan_logits_double,
    GFL_ISA::expect_edges,
    GFL_ISA::expect_edges_double,
};

}  // namespace gfl
