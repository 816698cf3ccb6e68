// The C ABI: checks what only the core can know, then hands on to the CPU's table of kernels or to CUDA.
#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "cpu/drivers/drivers.h"
#include "cpu/kernels/table.h"
#include "cpu/maps.h"
#include "cpu/parallel.h"
#include "error.h"
#include "gfl.h"
#include "math/cost_assign.h"
#include "math/max_iou_assign.h"
#include "math/task_aligned_assign.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if defined(__linux__)
#include <sys/mman.h>
#endif

#if defined(GFL_WITH_CUDA)
#include "cuda/cuda_ops.h"
#endif

namespace gfl {
namespace {

thread_local char last_error[512] = "";

struct Isa {
  const char* name;
  const CpuKernels* kernels;
  bool (*supported)();
};

#if defined(__x86_64__)
// What both instruction sets are compiled with beside their name. A virtual machine may hide either; not every compiler
// knows the name f16c in __builtin_cpu_supports.
bool has_fma_and_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __builtin_cpu_supports("fma") && __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

// Best first.
const Isa kIsas[] = {
#if defined(__x86_64__)
    {"avx512", &kernels_avx512,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
              __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") && has_fma_and_f16c();
     }},
    {"avx2", &kernels_avx2, [] { return __builtin_cpu_supports("avx2") && has_fma_and_f16c(); }},
#endif
    {"baseline", &kernels_baseline, [] { return true; }},
};

const Isa* best_isa() {
  for (const Isa& isa : kIsas) {
    if (isa.supported()) return &isa;
  }
  return nullptr;
}

std::atomic<const Isa*>& current_isa() {
  static std::atomic<const Isa*> isa{best_isa()};
  return isa;
}

const CpuKernels& cpu() { return *current_isa().load(std::memory_order_relaxed)->kernels; }

int no_such_device(const gfl_device& device) {
  if (device.type == GFL_CUDA) {
    return fail(GFL_ERROR_UNSUPPORTED,
                "this build of the native core has no CUDA kernels (nvcc was not found, or "
                "GFL_CUDA=off was set, when it was built)");
  }
  return fail(GFL_ERROR_ARGUMENT, "unknown device type %d", static_cast<int>(device.type));
}

int bad_bins(int64_t bins) {
  return fail(GFL_ERROR_ARGUMENT, "bins must be 2 to 256, got %lld", static_cast<long long>(bins));
}

bool bins_allowed(int64_t bins) { return bins >= 2 && bins <= 256; }

// Maps may hold distances in place of distributions.
int bad_map_bins(int64_t bins) {
  return fail(GFL_ERROR_ARGUMENT, "bins must be 1 to 256, got %lld", static_cast<long long>(bins));
}

bool map_bins_allowed(int64_t bins) { return bins == 1 || bins_allowed(bins); }

// Whether distributions lie one behind the other: (length, sides, bins) is dense, or not there at all.
bool is_dense(const gfl_bins& x, int64_t sides, int64_t bins) {
  return !x.data || (x.channel_stride == 1 && x.length_stride == sides * bins);
}

// Dense rows of several sides are rows of one side, and more of them. A side has `outputs` values in the output.
template <class Op>
Op of_one_side(Op op, int64_t outputs) {
  const gfl_bins& output = op.output;
  const bool one_value = output.channel_stride == 0 && output.length_stride == 0;  // the gradient of a sum
  if (op.batch != 1 || !is_dense(op.logits, op.sides, op.bins) || !is_dense(op.grad, op.sides, op.bins)) return op;
  if (!one_value && !is_dense(output, op.sides, outputs)) return op;
  op.length *= op.sides;
  op.sides = 1;
  op.logits.length_stride = op.grad.length_stride = op.bins;
  op.output.length_stride = one_value ? 0 : outputs;
  return op;
}

int bad_statistics(const gfl_distribution_statistics& op) {
  if (!bins_allowed(op.bins)) return bad_bins(op.bins);
  return fail(GFL_ERROR_ARGUMENT, "topk must be 1 to %lld, got %lld", static_cast<long long>(op.bins),
              static_cast<long long>(op.topk));
}

bool statistics_allowed(const gfl_distribution_statistics& op) {
  return bins_allowed(op.bins) && op.topk >= 1 && op.topk <= op.bins;
}

// For a sum over rows x cols elements.
int64_t bytes_of_sum(const gfl_device& device, int64_t rows, int64_t cols) {
#if defined(GFL_WITH_CUDA)
  if (device.type == GFL_CUDA) return cuda::workspace_bytes(rows, cols);
#endif
  (void)device;
  return chunk_count(rows, cols) * static_cast<int64_t>(sizeof(double));
}

int64_t bytes_for_maps(const gfl_device& device, const gfl_levels& levels, int64_t batch, int64_t channels) {
#if defined(GFL_WITH_CUDA)
  if (device.type == GFL_CUDA) return cuda::maps_workspace_bytes(levels, batch, channels);
#endif
  (void)device;
  return maps_workspace_bytes(levels, batch, channels);
}

}  // namespace

int fail(gfl_status status, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(last_error, sizeof last_error, format, arguments);
  va_end(arguments);
  return status;
}

}  // namespace gfl

using gfl::Pass;

// One line an entry point: where it runs is all that differs.
#if defined(GFL_WITH_CUDA)
#define GFL_DISPATCH(device, cpu_call, cuda_call)              \
  if ((device)->type == GFL_CPU) return gfl::cpu().cpu_call;   \
  if ((device)->type == GFL_CUDA) return gfl::cuda::cuda_call; \
  return gfl::no_such_device(*(device))
#else
#define GFL_DISPATCH(device, cpu_call, cuda_call)            \
  if ((device)->type == GFL_CPU) return gfl::cpu().cpu_call; \
  return gfl::no_such_device(*(device))
#endif

extern "C" {

int gfl_class_loss_forward(const gfl_device* device, const gfl_class_loss* op) {
  GFL_DISPATCH(device, class_loss(*op, Pass::kForward), class_loss_forward(*device, *op));
}

int gfl_class_loss_backward(const gfl_device* device, const gfl_class_loss* op) {
  GFL_DISPATCH(device, class_loss(*op, Pass::kBackward), class_loss_backward(*device, *op));
}

int gfl_distribution_focal_loss_forward(const gfl_device* device, const gfl_distribution_focal_loss* op) {
  if (!gfl::bins_allowed(op->bins)) return gfl::bad_bins(op->bins);
  GFL_DISPATCH(device, distribution_focal_loss(*op, Pass::kForward), distribution_focal_loss_forward(*device, *op));
}

int gfl_distribution_focal_loss_backward(const gfl_device* device, const gfl_distribution_focal_loss* op) {
  if (!gfl::bins_allowed(op->bins)) return gfl::bad_bins(op->bins);
  GFL_DISPATCH(device, distribution_focal_loss(*op, Pass::kBackward), distribution_focal_loss_backward(*device, *op));
}

int gfl_distribution_kl_loss_forward(const gfl_device* device, const gfl_distribution_kl_loss* op) {
  if (!gfl::bins_allowed(op->bins)) return gfl::bad_bins(op->bins);
  GFL_DISPATCH(device, distribution_kl_loss(*op, Pass::kForward), distribution_kl_loss_forward(*device, *op));
}

int gfl_distribution_kl_loss_backward(const gfl_device* device, const gfl_distribution_kl_loss* op) {
  if (!gfl::bins_allowed(op->bins)) return gfl::bad_bins(op->bins);
  GFL_DISPATCH(device, distribution_kl_loss(*op, Pass::kBackward), distribution_kl_loss_backward(*device, *op));
}

int gfl_integral_forward(const gfl_device* device, const gfl_integral* op) {
  if (!gfl::bins_allowed(op->bins)) return gfl::bad_bins(op->bins);
  const gfl_integral rows = gfl::of_one_side(*op, 1);
  GFL_DISPATCH(device, integral(rows, Pass::kForward), integral_forward(*device, rows));
}

int gfl_integral_backward(const gfl_device* device, const gfl_integral* op) {
  if (!gfl::bins_allowed(op->bins)) return gfl::bad_bins(op->bins);
  const gfl_integral rows = gfl::of_one_side(*op, 1);
  GFL_DISPATCH(device, integral(rows, Pass::kBackward), integral_backward(*device, rows));
}

int gfl_distribution_statistics_forward(const gfl_device* device, const gfl_distribution_statistics* op) {
  if (!gfl::statistics_allowed(*op)) return gfl::bad_statistics(*op);
  const gfl_distribution_statistics rows = gfl::of_one_side(*op, op->topk + 1);
  GFL_DISPATCH(device, distribution_statistics(rows, Pass::kForward), distribution_statistics_forward(*device, rows));
}

int gfl_distribution_statistics_backward(const gfl_device* device, const gfl_distribution_statistics* op) {
  if (!gfl::statistics_allowed(*op)) return gfl::bad_statistics(*op);
  const gfl_distribution_statistics rows = gfl::of_one_side(*op, op->topk + 1);
  GFL_DISPATCH(device, distribution_statistics(rows, Pass::kBackward), distribution_statistics_backward(*device, rows));
}

int gfl_iou_loss_forward(const gfl_device* device, const gfl_iou_loss* op) {
  GFL_DISPATCH(device, iou_loss(*op, Pass::kForward), iou_loss_forward(*device, *op));
}

int gfl_iou_loss_backward(const gfl_device* device, const gfl_iou_loss* op) {
  GFL_DISPATCH(device, iou_loss(*op, Pass::kBackward), iou_loss_backward(*device, *op));
}

int gfl_box_iou_forward(const gfl_device* device, const gfl_box_iou* op) {
  GFL_DISPATCH(device, box_iou(*op), box_iou_forward(*device, *op));
}

int gfl_distribution_box_loss_forward(const gfl_device* device, const gfl_distribution_box_loss* op) {
  if (!gfl::bins_allowed(op->bins)) return gfl::bad_bins(op->bins);
  GFL_DISPATCH(device, distribution_box_loss(*op, Pass::kForward), distribution_box_loss_forward(*device, *op));
}

int gfl_distribution_box_loss_backward(const gfl_device* device, const gfl_distribution_box_loss* op) {
  if (!gfl::bins_allowed(op->bins)) return gfl::bad_bins(op->bins);
  GFL_DISPATCH(device, distribution_box_loss(*op, Pass::kBackward), distribution_box_loss_backward(*device, *op));
}

int gfl_generalized_focal_loss_forward(const gfl_device* device, const gfl_generalized_focal_loss* op) {
  GFL_DISPATCH(device, generalized_focal_loss(*op, Pass::kForward), generalized_focal_loss_forward(*device, *op));
}

int gfl_generalized_focal_loss_backward(const gfl_device* device, const gfl_generalized_focal_loss* op) {
  GFL_DISPATCH(device, generalized_focal_loss(*op, Pass::kBackward), generalized_focal_loss_backward(*device, *op));
}

int gfl_atss_assign_run(const gfl_device* device, const gfl_atss_assign* op) {
  if (op->topk < 1) return gfl::fail(GFL_ERROR_ARGUMENT, "topk must be at least 1, got %d", op->topk);
  if (device->type == GFL_CPU) return gfl::cpu_atss_assign(*op);
#if defined(GFL_WITH_CUDA)
  if (device->type == GFL_CUDA) return gfl::cuda::atss_assign(*device, *op);
#endif
  return gfl::no_such_device(*device);
}

int gfl_task_aligned_assign_run(const gfl_device* device, const gfl_task_aligned_assign* op) {
  if (op->topk < 1 || op->topk > 256) return gfl::fail(GFL_ERROR_ARGUMENT, "topk must be 1 to 256, got %d", op->topk);
  if (op->final_topk < 0 || op->final_topk > 256) {
    return gfl::fail(GFL_ERROR_ARGUMENT, "final_topk must be 0 to 256, got %d", op->final_topk);
  }
  GFL_DISPATCH(device, task_aligned_assign(*op), task_aligned_assign(*device, *op));
}

// What is known of each gt; and its reach, for the CPU.
int64_t gfl_task_aligned_assign_workspace_bytes(const gfl_device* device, const gfl_task_aligned_assign* op) {
  const int64_t reach = 4 * (op->dtype == GFL_FLOAT64 ? sizeof(double) : sizeof(float));
  return gfl::task_aligned_best_bytes(*op) + (device->type == GFL_CPU ? op->batch * op->num_gts * reach : 0);
}

int gfl_max_iou_assign_run(const gfl_device* device, const gfl_max_iou_assign* op) {
  GFL_DISPATCH(device, max_iou_assign(*op), max_iou_assign(*device, *op));
}

int64_t gfl_max_iou_assign_workspace_bytes(const gfl_device*, const gfl_max_iou_assign* op) {
  return op->dtype == GFL_FLOAT64 ? gfl::MaxIou<double>::workspace_bytes(*op)
                                  : gfl::MaxIou<float>::workspace_bytes(*op);
}

int gfl_cost_assign_run(const gfl_device* device, const gfl_cost_assign* op) {
  if (op->topk < 1 || op->topk > 256) return gfl::fail(GFL_ERROR_ARGUMENT, "topk must be 1 to 256, got %d", op->topk);
  GFL_DISPATCH(device, cost_assign(*op), cost_assign(*device, *op));
}

// The sums of the anchors' classes; and for the CPU eight numbers and an index of each candidate, the number of candidates
// of each piece of anchors, and four numbers of each gt.
int64_t gfl_cost_assign_workspace_bytes(const gfl_device* device, const gfl_cost_assign* op) {
  const int64_t sums = gfl::cost_assign_sums_bytes(*op);
  if (device->type != GFL_CPU) return sums;
  const int64_t number = op->dtype == GFL_FLOAT64 ? sizeof(double) : sizeof(float);
  const int64_t index = sizeof(int32_t);
  const int64_t of_image = op->anchors * (8 * number + 2 * index) + index + 4 * op->num_gts * number;
  return sums + op->batch * of_image;
}

int gfl_fcos_assign_run(const gfl_device* device, const gfl_fcos_assign* op) {
  GFL_DISPATCH(device, fcos_assign(*op), fcos_assign(*device, *op));
}

int gfl_nms_run(const gfl_device* device, const gfl_nms* op) {
  if (device->type == GFL_CPU) return gfl::cpu_nms(gfl::cpu(), *op);
#if defined(GFL_WITH_CUDA)
  if (device->type == GFL_CUDA) return gfl::cuda::nms(*device, *op);
#endif
  return gfl::no_such_device(*device);
}

int64_t gfl_nms_workspace_bytes(const gfl_device* device, const gfl_nms* op) {
#if defined(GFL_WITH_CUDA)
  if (device->type == GFL_CUDA) return gfl::cuda::nms_workspace_bytes(*op);
#endif
  (void)device;
  return gfl::cpu_nms_workspace_bytes(*op);
}

int gfl_postprocess_run(const gfl_device* device, const gfl_postprocess* op) {
  if (!gfl::bins_allowed(op->bins)) return gfl::bad_bins(op->bins);
  if (device->type == GFL_CPU) return gfl::cpu_postprocess(gfl::cpu(), *op);
#if defined(GFL_WITH_CUDA)
  if (device->type == GFL_CUDA) return gfl::cuda::postprocess(*device, *op);
#endif
  return gfl::no_such_device(*device);
}

int64_t gfl_postprocess_workspace_bytes(const gfl_device* device, const gfl_postprocess* op) {
#if defined(GFL_WITH_CUDA)
  if (device->type == GFL_CUDA) return gfl::cuda::postprocess_workspace_bytes(*op);
#endif
  (void)device;
  return gfl::cpu_postprocess_workspace_bytes(*op);
}

int gfl_multilevel_class_loss_forward(const gfl_device* device, const gfl_multilevel_class_loss* op) {
  GFL_DISPATCH(device, multilevel_class_loss(*op, Pass::kForward), multilevel_class_loss_forward(*device, *op));
}

int gfl_multilevel_class_loss_backward(const gfl_device* device, const gfl_multilevel_class_loss* op) {
  GFL_DISPATCH(device, multilevel_class_loss(*op, Pass::kBackward), multilevel_class_loss_backward(*device, *op));
}

int gfl_positive_weights_forward(const gfl_device* device, const gfl_positive_weights* op) {
  GFL_DISPATCH(device, positive_weights(*op), positive_weights_forward(*device, *op));
}

int gfl_decode_maps_run(const gfl_device* device, const gfl_decode_maps* op) {
  if (!gfl::map_bins_allowed(op->bins)) return gfl::bad_map_bins(op->bins);
  GFL_DISPATCH(device, decode_maps(*op), decode_maps(*device, *op));
}

int gfl_positive_boxes_forward(const gfl_device* device, const gfl_positive_boxes* op) {
  if (!gfl::map_bins_allowed(op->bins)) return gfl::bad_map_bins(op->bins);
  GFL_DISPATCH(device, positive_boxes(*op, Pass::kForward), positive_boxes_forward(*device, *op));
}

int gfl_positive_boxes_backward(const gfl_device* device, const gfl_positive_boxes* op) {
  if (!gfl::map_bins_allowed(op->bins)) return gfl::bad_map_bins(op->bins);
  GFL_DISPATCH(device, positive_boxes(*op, Pass::kBackward), positive_boxes_backward(*device, *op));
}

int gfl_box_losses_forward(const gfl_device* device, const gfl_box_losses* op) {
  GFL_DISPATCH(device, box_losses(*op), box_losses_forward(*device, *op));
}

int gfl_scale_gradient_run(const gfl_device* device, const gfl_scale_gradient* op) {
  GFL_DISPATCH(device, scale_gradient(op->data, op->data_dtype, op->size, op->factor),
               scale_gradient(*device, op->data, op->data_dtype, op->size, op->factor));
}

// A backward adds nothing up, and needs none.
int64_t gfl_class_loss_workspace_bytes(const gfl_device* device, const gfl_class_loss* op) {
  return op->loss ? gfl::bytes_of_sum(*device, op->rows, op->cols) : 0;
}

int64_t gfl_distribution_focal_loss_workspace_bytes(const gfl_device* device, const gfl_distribution_focal_loss* op) {
  return op->loss ? gfl::bytes_of_sum(*device, op->rows, op->bins) : 0;
}

int64_t gfl_distribution_kl_loss_workspace_bytes(const gfl_device* device, const gfl_distribution_kl_loss* op) {
  return op->loss ? gfl::bytes_of_sum(*device, op->rows, op->bins) : 0;
}

int64_t gfl_iou_loss_workspace_bytes(const gfl_device* device, const gfl_iou_loss* op) {
  return op->loss ? gfl::bytes_of_sum(*device, op->rows, 16) : 0;
}

int64_t gfl_distribution_box_loss_workspace_bytes(const gfl_device* device, const gfl_distribution_box_loss* op) {
  return op->loss_iou ? 2 * gfl::bytes_of_sum(*device, op->rows, 4 * op->bins) : 0;
}

int64_t gfl_generalized_focal_loss_workspace_bytes(const gfl_device* device, const gfl_generalized_focal_loss* op) {
  return op->loss ? gfl::bytes_of_sum(*device, op->size, 4) : 0;
}

int64_t gfl_multilevel_class_loss_workspace_bytes(const gfl_device* device, const gfl_multilevel_class_loss* op) {
  return op->loss ? gfl::bytes_for_maps(*device, op->levels, op->batch, op->classes) : 0;
}

int64_t gfl_positive_weights_workspace_bytes(const gfl_device* device, const gfl_positive_weights* op) {
  return gfl::bytes_for_maps(*device, op->levels, op->batch, op->classes);
}

int64_t gfl_positive_boxes_workspace_bytes(const gfl_device* device, const gfl_positive_boxes* op) {
  return gfl::bytes_for_maps(*device, op->levels, op->batch, 4 * op->bins);
}

const char* gfl_last_error(void) { return gfl::last_error; }

int gfl_has_cuda(void) {
#if defined(GFL_WITH_CUDA)
  return 1;
#else
  return 0;
#endif
}

const char* gfl_cuda_architectures(void) {
#if defined(GFL_WITH_CUDA)
  return gfl::cuda::architectures();
#else
  return "";
#endif
}

int gfl_cuda_driver_version(void) {
#if defined(GFL_WITH_CUDA)
  return gfl::cuda::driver_version();
#else
  return 0;
#endif
}

int gfl_cuda_runtime_version(void) {
#if defined(GFL_WITH_CUDA)
  return gfl::cuda::runtime_version();
#else
  return 0;
#endif
}

const char* gfl_cpu_isa(void) { return gfl::current_isa().load()->name; }

int gfl_set_cpu_isa(const char* name) {
  for (const gfl::Isa& isa : gfl::kIsas) {
    if (std::strcmp(isa.name, name) != 0) continue;
    if (!isa.supported()) return gfl::fail(GFL_ERROR_UNSUPPORTED, "this CPU does not run %s", name);
    gfl::current_isa().store(&isa);
    return GFL_OK;
  }
  return gfl::fail(GFL_ERROR_ARGUMENT, "this build has no instruction set called '%s'", name);
}

int gfl_cpu_threads(void) { return gfl::cpu_threads(); }

void gfl_use_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t huge = uintptr_t{2} << 20;  // whole ones inside alone: a neighbour's memory is not ours to advise
  const uintptr_t start = (reinterpret_cast<uintptr_t>(data) + huge - 1) / huge * huge;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / huge * huge;
  if (start < end) madvise(reinterpret_cast<void*>(start), end - start, MADV_HUGEPAGE);  // an advice: it may fail
#else
  (void)data;
  (void)bytes;
#endif
}

}  // extern "C"
