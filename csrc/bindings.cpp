// Python's door to the C ABI: casters.h says how arguments come, and a status that is not GFL_OK leaves as an exception.
// Arguments are trusted here; the package checks them where they enter.
#include "casters.h"

#include <stdexcept>

namespace {

using Address = uint64_t;
void* pointer(Address value) { return reinterpret_cast<void*>(value); }

template <class Op>
void call(int (*function)(const gfl_device*, const Op*), const gfl_device& device, const Op& op) {
  int status;
  {
    py::gil_scoped_release other_threads_may_run;
    status = function(&device, &op);
  }
  if (status == GFL_ERROR_ARGUMENT) throw py::value_error(gfl_last_error());
  if (status != GFL_OK) throw std::runtime_error(gfl_last_error());
}

void class_loss(bool backward, gfl_device device, int formula, double exponent, double alpha, int64_t rows,
                int64_t cols, gfl_matrix pred, gfl_matrix target, Address labels, int label_dtype, Address scores,
                gfl_matrix weight, gfl_matrix grad_loss, gfl_reduction reduction, Address loss, gfl_matrix grad,
                Address workspace) {
  const gfl_class_loss op{
      formula, exponent,        alpha,  rows,      cols,      pred,          target, pointer(labels),   label_dtype,
      0,       pointer(scores), weight, grad_loss, reduction, pointer(loss), grad,   pointer(workspace)};
  call(backward ? gfl_class_loss_backward : gfl_class_loss_forward, device, op);
}

void distribution_focal_loss(bool backward, gfl_device device, int64_t rows, int64_t bins, gfl_bins logits,
                             Address target, Address bin_values, double first_bin, Address left_weight,
                             Address right_weight, Address weight, gfl_flat grad_loss, gfl_reduction reduction,
                             Address loss, gfl_bins grad, Address workspace) {
  const gfl_distribution_focal_loss op{rows,
                                       bins,
                                       logits,
                                       pointer(target),
                                       pointer(bin_values),
                                       first_bin,
                                       pointer(left_weight),
                                       pointer(right_weight),
                                       pointer(weight),
                                       grad_loss.data,
                                       grad_loss.stride,
                                       reduction,
                                       pointer(loss),
                                       grad,
                                       pointer(workspace)};
  call(backward ? gfl_distribution_focal_loss_backward : gfl_distribution_focal_loss_forward, device, op);
}

void integral(bool backward, gfl_device device, int64_t batch, int64_t sides, int64_t bins, int64_t length,
              gfl_bins logits, Address bin_values, gfl_bins output, gfl_bins grad) {
  const gfl_integral op{batch, sides, bins, length, logits, pointer(bin_values), output, grad};
  call(backward ? gfl_integral_backward : gfl_integral_forward, device, op);
}

void iou_loss(bool backward, gfl_device device, gfl_iou_options options, int64_t rows, gfl_matrix pred,
              gfl_matrix target, Address weight, gfl_flat grad_loss, gfl_reduction reduction, Address loss,
              gfl_matrix grad, Address workspace) {
  const gfl_iou_loss op{options,          rows,      pred,          target, pointer(weight),   grad_loss.data,
                        grad_loss.stride, reduction, pointer(loss), grad,   pointer(workspace)};
  call(backward ? gfl_iou_loss_backward : gfl_iou_loss_forward, device, op);
}

void box_iou(gfl_device device, int64_t rows, int64_t cols, bool aligned, gfl_matrix a, gfl_matrix b, double eps,
             Address iou) {
  const gfl_box_iou op{rows, cols, aligned, a, b, eps, pointer(iou)};
  call(gfl_box_iou_forward, device, op);
}

void distribution_box_loss(bool backward, gfl_device device, gfl_iou_options options, int64_t rows, int64_t bins,
                           gfl_bins logits, Address anchor_points, Address target_boxes, Address strides, double stride,
                           double target_margin, Address weight, gfl_reduction reduction, Address loss_iou,
                           Address loss_dfl, Address boxes, Address quality, Address grad_iou, Address grad_dfl,
                           int64_t grad_loss_stride, gfl_bins grad, Address workspace) {
  const gfl_distribution_box_loss op{options,
                                     rows,
                                     bins,
                                     logits,
                                     pointer(anchor_points),
                                     pointer(target_boxes),
                                     pointer(strides),
                                     stride,
                                     target_margin,
                                     pointer(weight),
                                     reduction,
                                     pointer(loss_iou),
                                     pointer(loss_dfl),
                                     pointer(boxes),
                                     pointer(quality),
                                     pointer(grad_iou),
                                     pointer(grad_dfl),
                                     grad_loss_stride,
                                     grad,
                                     pointer(workspace)};
  call(backward ? gfl_distribution_box_loss_backward : gfl_distribution_box_loss_forward, device, op);
}

void generalized_focal_loss(bool backward, gfl_device device, int64_t size, int dtype, double beta, gfl_flat p_left,
                            gfl_flat p_right, gfl_flat y, gfl_flat y_left, gfl_flat y_right, gfl_flat weight,
                            gfl_flat grad_loss, gfl_reduction reduction, Address loss, Address grad_left,
                            Address grad_right, Address workspace) {
  const gfl_generalized_focal_loss op{size,
                                      dtype,
                                      beta,
                                      p_left,
                                      p_right,
                                      y,
                                      y_left,
                                      y_right,
                                      weight,
                                      grad_loss,
                                      reduction,
                                      pointer(loss),
                                      pointer(grad_left),
                                      pointer(grad_right),
                                      pointer(workspace)};
  call(backward ? gfl_generalized_focal_loss_backward : gfl_generalized_focal_loss_forward, device, op);
}

void atss_assign(gfl_device device, int64_t batch, int64_t gts, int dtype, Address gt_boxes, Address gt_counts,
                 Address gt_labels, int64_t classes, Address valid_shapes, gfl_levels levels, int topk,
                 double anchor_scale, double center_offset, Address assigned_gt, Address assigned_iou, Address labels,
                 Address workspace) {
  const gfl_atss_assign op{batch,
                           gts,
                           dtype,
                           pointer(gt_boxes),
                           static_cast<const int64_t*>(pointer(gt_counts)),
                           static_cast<const int64_t*>(pointer(gt_labels)),
                           classes,
                           pointer(valid_shapes),
                           levels,
                           topk,
                           anchor_scale,
                           center_offset,
                           static_cast<int32_t*>(pointer(assigned_gt)),
                           static_cast<float*>(pointer(assigned_iou)),
                           static_cast<int32_t*>(pointer(labels)),
                           pointer(workspace)};
  call(gfl_atss_assign_run, device, op);
}

int64_t atss_assign_workspace_bytes(gfl_device device, int64_t batch, int64_t gts, int dtype, gfl_levels levels,
                                    int topk) {
  gfl_atss_assign op{};
  op.batch = batch;
  op.gts = gts;
  op.dtype = dtype;
  op.levels = levels;
  op.topk = topk;
  return gfl_atss_assign_workspace_bytes(&device, &op);
}

gfl_nms nms_op(int64_t count, int dtype, Address boxes, Address scores, Address classes, Address order,
               double threshold, int criterion, int64_t room, Address keep, Address kept, Address workspace) {
  return {count,
          dtype,
          pointer(boxes),
          pointer(scores),
          static_cast<const int64_t*>(pointer(classes)),
          static_cast<const int64_t*>(pointer(order)),
          threshold,
          criterion,
          room,
          static_cast<int64_t*>(pointer(keep)),
          static_cast<int64_t*>(pointer(kept)),
          pointer(workspace)};
}

void nms(gfl_device device, int64_t count, int dtype, Address boxes, Address scores, Address classes, Address order,
         double threshold, int criterion, int64_t room, Address keep, Address kept, Address workspace) {
  call(gfl_nms_run, device,
       nms_op(count, dtype, boxes, scores, classes, order, threshold, criterion, room, keep, kept, workspace));
}

int64_t nms_workspace_bytes(gfl_device device, int64_t count, int dtype, bool has_classes) {
  static const int64_t some_class = 0;
  gfl_nms op{};
  op.count = count;
  op.dtype = dtype;
  op.classes = has_classes ? &some_class : nullptr;
  return gfl_nms_workspace_bytes(&device, &op);
}

// Shapes, levels and options as both functions below take them; outputs and the rest are filled in by the caller.
gfl_postprocess postprocess_op(int64_t batch, int64_t classes, int64_t bins, int dtype, const py::tuple& levels,
                               int64_t nms_pre, int64_t room) {
  gfl_postprocess op{};
  if (levels.size() > GFL_MAX_LEVELS) throw py::value_error("too many levels");
  op.batch = batch;
  op.classes = classes;
  op.bins = bins;
  op.num_levels = static_cast<int32_t>(levels.size());
  for (int i = 0; i < op.num_levels; ++i) op.levels[i] = py::cast<gfl_head_level>(levels[i]);
  op.dtype = dtype;
  op.nms_pre = nms_pre;
  op.room = room;
  return op;
}

void postprocess(gfl_device device, int64_t batch, int64_t classes, int64_t bins, int dtype, const py::tuple& levels,
                 int64_t nms_pre, int64_t room, Address image_shapes, Address scale_factors, double score_threshold,
                 double nms_threshold, int criterion, double min_size, Address boxes, Address scores, Address labels,
                 Address counts, Address distributions, Address deviations, Address strides, Address workspace) {
  gfl_postprocess op = postprocess_op(batch, classes, bins, dtype, levels, nms_pre, room);
  op.image_shapes = pointer(image_shapes);
  op.scale_factors = pointer(scale_factors);
  op.score_threshold = score_threshold;
  op.nms_threshold = nms_threshold;
  op.criterion = criterion;
  op.min_size = min_size;
  op.boxes = pointer(boxes);
  op.scores = pointer(scores);
  op.labels = static_cast<int64_t*>(pointer(labels));
  op.counts = static_cast<int64_t*>(pointer(counts));
  op.distributions = pointer(distributions);
  op.deviations = pointer(deviations);
  op.strides = pointer(strides);
  op.workspace = pointer(workspace);
  call(gfl_postprocess_run, device, op);
}

int64_t postprocess_workspace_bytes(gfl_device device, int64_t batch, int64_t classes, int64_t bins, int dtype,
                                    const py::tuple& levels, int64_t nms_pre, int64_t room) {
  const gfl_postprocess op = postprocess_op(batch, classes, bins, dtype, levels, nms_pre, room);
  return gfl_postprocess_workspace_bytes(&device, &op);
}

void multilevel_class_loss(bool backward, gfl_device device, int formula, double exponent, double alpha, int64_t batch,
                           int64_t classes, gfl_levels levels, gfl_maps pred, Address labels, Address scores,
                           Address grad_loss, double scale, Address avg_factor, Address loss, gfl_maps grad,
                           Address workspace) {
  const gfl_multilevel_class_loss op{formula,
                                     exponent,
                                     alpha,
                                     batch,
                                     classes,
                                     levels,
                                     pred,
                                     static_cast<const int32_t*>(pointer(labels)),
                                     pointer(scores),
                                     pointer(grad_loss),
                                     scale,
                                     pointer(avg_factor),
                                     pointer(loss),
                                     grad,
                                     pointer(workspace)};
  call(backward ? gfl_multilevel_class_loss_backward : gfl_multilevel_class_loss_forward, device, op);
}

void positive_weights(gfl_device device, int64_t batch, int64_t classes, gfl_levels levels, Address gts,
                      gfl_maps scores, Address weights, Address normalisers, Address num_pos, Address workspace) {
  const gfl_positive_weights op{batch,
                                classes,
                                levels,
                                static_cast<const int32_t*>(pointer(gts)),
                                scores,
                                pointer(weights),
                                pointer(normalisers),
                                pointer(num_pos),
                                pointer(workspace)};
  call(gfl_positive_weights_forward, device, op);
}

void positive_boxes(bool backward, gfl_device device, gfl_iou_options options, int64_t batch, int64_t bins,
                    gfl_levels levels, double center_offset, double target_margin, Address gts, int64_t num_gts,
                    Address gt_boxes, Address weights, gfl_maps edges, Address quality, Address sums, Address grad_iou,
                    Address grad_dfl, double scale_iou, double scale_dfl, Address normalisers, gfl_maps grad,
                    Address workspace) {
  const gfl_positive_boxes op{options,
                              batch,
                              bins,
                              levels,
                              center_offset,
                              target_margin,
                              static_cast<const int32_t*>(pointer(gts)),
                              num_gts,
                              pointer(gt_boxes),
                              pointer(weights),
                              edges,
                              pointer(quality),
                              static_cast<double*>(pointer(sums)),
                              pointer(grad_iou),
                              pointer(grad_dfl),
                              scale_iou,
                              scale_dfl,
                              pointer(normalisers),
                              grad,
                              pointer(workspace)};
  call(backward ? gfl_positive_boxes_backward : gfl_positive_boxes_forward, device, op);
}

void box_losses(gfl_device device, int dtype, Address sums, Address normalisers, Address num_pos, double scale_iou,
                double scale_dfl, Address loss_iou, Address loss_dfl, Address mean_quality) {
  const gfl_box_losses op{dtype,
                          static_cast<const double*>(pointer(sums)),
                          pointer(normalisers),
                          pointer(num_pos),
                          scale_iou,
                          scale_dfl,
                          pointer(loss_iou),
                          pointer(loss_dfl),
                          pointer(mean_quality)};
  call(gfl_box_losses_forward, device, op);
}

int64_t maps_workspace_bytes(gfl_device device, gfl_levels levels, int64_t batch, int64_t channels) {
  return gfl_maps_workspace_bytes(&device, &levels, batch, channels);
}

void scale_gradient(gfl_device device, Address data, int dtype, int64_t size, Address factor) {
  int status;
  {
    py::gil_scoped_release other_threads_may_run;
    status = gfl_scale_gradient(&device, pointer(data), dtype, size, pointer(factor));
  }
  if (status != GFL_OK) throw std::runtime_error(gfl_last_error());
}

int64_t workspace_bytes(gfl_device device, int64_t rows, int64_t cols) {
  return gfl_workspace_bytes(&device, rows, cols);
}

void set_cpu_isa(const char* isa) {
  if (gfl_set_cpu_isa(isa) != GFL_OK) throw py::value_error(gfl_last_error());
}

}  // namespace

#ifndef GFL_MODULE
#define GFL_MODULE _core
#endif

PYBIND11_MODULE(GFL_MODULE, module) {
  module.doc() = "The native kernels of gfl_ops. Private: use the functions of the package.";
  module.def("class_loss", &class_loss);
  module.def("distribution_focal_loss", &distribution_focal_loss);
  module.def("integral", &integral);
  module.def("iou_loss", &iou_loss);
  module.def("box_iou", &box_iou);
  module.def("distribution_box_loss", &distribution_box_loss);
  module.def("generalized_focal_loss", &generalized_focal_loss);
  module.def("atss_assign", &atss_assign);
  module.def("atss_assign_workspace_bytes", &atss_assign_workspace_bytes);
  module.def("nms", &nms);
  module.def("nms_workspace_bytes", &nms_workspace_bytes);
  module.def("postprocess", &postprocess);
  module.def("postprocess_workspace_bytes", &postprocess_workspace_bytes);
  module.def("multilevel_class_loss", &multilevel_class_loss);
  module.def("positive_weights", &positive_weights);
  module.def("positive_boxes", &positive_boxes);
  module.def("box_losses", &box_losses);
  module.def("maps_workspace_bytes", &maps_workspace_bytes);
  module.def("scale_gradient", &scale_gradient);
  module.def("workspace_bytes", &workspace_bytes);
  module.def("has_cuda", [] { return gfl_has_cuda() != 0; });
  module.def("cuda_architectures", &gfl_cuda_architectures);
  module.def("cuda_driver_version", &gfl_cuda_driver_version);
  module.def("cuda_runtime_version", &gfl_cuda_runtime_version);
  module.def("cpu_isa", &gfl_cpu_isa);
  module.def("set_cpu_isa", &set_cpu_isa);
  module.def("cpu_threads", &gfl_cpu_threads);
  module.def("use_huge_pages", [](Address data, int64_t bytes) { gfl_use_huge_pages(pointer(data), bytes); });
}
