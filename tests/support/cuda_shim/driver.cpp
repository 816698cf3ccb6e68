// Test only: every CUDA op on the host, over odd small shapes, all dtypes and layouts, for the sanitizers.
//
//   driver [op] [cases]   all ops, 200 cases each
//
// The gradient of the forward must be the backward's, bit for bit; buffers.h says what else is seen. Values are the
// business of the parity tests.
#include "buffers.h"
#include "detections.h"
#include "levels.h"
#include "numbers.h"
#include "rows.h"

namespace {

// Large enough for several tiles a block: what one tile leaves in shared memory meets the next.
void large_class_loss(Random& random) {
  const int64_t rows = 3001;
  const int64_t cols = 80;
  Matrix pred(GFL_FLOAT32, rows, cols, Layout::kRows, 0);
  pred.buffer.fill(random, -6.0, 6.0);
  Buffer labels(GFL_INT64, rows);
  for (int64_t i = 0; i < rows; ++i) put(labels.data(), GFL_INT64, i, random.below(81));
  Buffer scores(GFL_FLOAT32, rows);
  scores.fill(random, 0.0, 1.0);
  Buffer loss(GFL_FLOAT32, 1);
  Matrix grad(GFL_FLOAT32, rows, cols, Layout::kRows, 0);
  gfl_class_loss op{};
  op.exponent = 2.0;
  op.rows = rows;
  op.cols = cols;
  op.pred = pred.view();
  op.labels = labels.data();
  op.scores = scores.data();
  op.reduction = {GFL_REDUCE_SUM, 1.0, 1, nullptr};
  op.loss = loss.data();
  op.grad = grad.view();
  Buffer scratch = workspace(gfl_class_loss_workspace_bytes(&kDevice, &op));
  op.workspace = scratch.data();
  check(gfl_class_loss_forward(&kDevice, &op));
  loss.written("large class loss");
  grad.buffer.written("gradient of the large class loss");

  Buffer row_losses(GFL_FLOAT32, rows);  // another kernel, without marks or tiles
  op.reduction.mode = GFL_REDUCE_ROWS;
  op.loss = row_losses.data();
  op.grad = {};
  check(gfl_class_loss_forward(&kDevice, &op));
  double sum = 0;
  for (int64_t i = 0; i < rows; ++i) sum += row_losses[i];
  if (!(std::fabs(loss[0] - sum) <= 1e-6 * sum)) die("large class loss: the sum and the rows differ");
}

void large(Random& random) {
  large_class_loss(random);
  distribution_focal_loss_of(random, 4000, 17);
  distribution_focal_loss_of(random, 1500, 200);
  integral_of(random, 1300, 8);
  distribution_statistics_of(random, 1300, 17, 4);
  distribution_kl_loss_of(random, 4000, 17);
  distribution_box_of(random, 900, 17);
  nms_of(random, 5300);
}

void errors() {
  const auto expect = [](int status, int wanted, const char* words) {
    if (status != wanted || !std::strstr(gfl_last_error(), words)) {
      die(std::string("expected an error about ") + words + ", got " + gfl_last_error());
    }
  };
  const gfl_device missing{GFL_CUDA, 7, nullptr};
  gfl_generalized_focal_loss op{};
  op.dtype = GFL_FLOAT32;
  expect(gfl_generalized_focal_loss_backward(&missing, &op), GFL_ERROR_CUDA, "CUDA device 7");
  op.dtype = GFL_INT64;
  expect(gfl_generalized_focal_loss_backward(&kDevice, &op), GFL_ERROR_ARGUMENT, "not a floating point type");
}

struct Op {
  const char* name;
  std::function<void(Random&)> run;
};

const Op kOps[] = {{"class_loss", class_loss},
                   {"distribution_focal_loss", distribution_focal_loss},
                   {"integral", integral},
                   {"distribution_kl_loss", distribution_kl_loss},
                   {"distribution_statistics", distribution_statistics},
                   {"iou", iou},
                   {"distribution_box_loss", distribution_box_loss},
                   {"generalized_focal_loss", generalized_focal_loss},
                   {"scale", scale},
                   {"atss_assign", atss_assign},
                   {"task_aligned_assign", task_aligned_assign},
                   {"max_iou_assign", max_iou_assign},
                   {"cost_assign", cost_assign},
                   {"fcos_assign", fcos_assign},
                   {"multilevel_class_loss", multilevel_class_loss},
                   {"positives", positives},
                   {"nms", nms},
                   {"postprocess", postprocess},
                   {"dividers", dividers},
                   {"rough_steps", rough_steps},
                   {"brief_terms", brief_terms}};

}  // namespace

int main(int argc, char** argv) {
  const std::string wanted = argc > 1 ? argv[1] : "all";
  const int cases = argc > 2 ? std::atoi(argv[2]) : 200;
  int ran = 0;
  for (const Op& op : kOps) {
    if (wanted != "all" && wanted != op.name) continue;
    for (int i = 0; i < cases; ++i, ++ran) {
      Random random(static_cast<uint64_t>(i) * 977 + static_cast<uint64_t>(op.name[0]));
      op.run(random);
    }
  }
  if (wanted == "all" || wanted == "large") {
    Random random(1);
    large(random);
    ++ran;
  }
  if (wanted == "all") errors();
  if (ran == 0) die("no op called " + wanted);
  std::printf("%d cases\n", ran);
  return 0;
}
