/* The C ABI of the native core. It knows nothing of torch: pointers, sizes, strides, dtype codes,
 * a stream handle in; a status out. The caller allocates every output and every workspace.
 *
 * Words used throughout
 *   compute type   double where the logits (or predicted boxes) are float64, float otherwise.
 *   NULL data      the optional input is absent, or the optional output is not wanted.
 *   stride         counted in elements, not bytes; 0 broadcasts.
 *   scale          what multiplies every element of a reduced loss; see gfl_reduction.
 */
#ifndef GFL_H
#define GFL_H

#include <stdint.h>

#if defined(GFL_BUILD) && defined(__GNUC__)
#define GFL_API __attribute__((visibility("default")))
#else
#define GFL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum gfl_status {
  GFL_OK = 0,
  GFL_ERROR_ARGUMENT = 1,    /* a dtype, size or formula that the core does not know */
  GFL_ERROR_UNSUPPORTED = 2, /* e.g. a CUDA device in a core built without CUDA */
  GFL_ERROR_CUDA = 3         /* the CUDA runtime said no; gfl_last_error has its words */
} gfl_status;

typedef enum gfl_dtype {
  GFL_FLOAT64 = 0,
  GFL_FLOAT32 = 1,
  GFL_BFLOAT16 = 2,
  GFL_FLOAT16 = 3,
  GFL_INT64 = 4,
  GFL_INT32 = 5
} gfl_dtype;

typedef enum gfl_device_type { GFL_CPU = 0, GFL_CUDA = 1 } gfl_device_type;

typedef struct gfl_device {
  int32_t type;  /* gfl_device_type */
  int32_t index; /* which GPU; the core makes it current for the call and puts the old one back */
  void* stream;  /* cudaStream_t */
} gfl_device;

/* A strided (rows, cols) view; the sizes stand in the op that holds it. */
typedef struct gfl_matrix {
  void* data;
  int32_t dtype;
  int64_t row_stride;
  int64_t col_stride;
} gfl_matrix;

/* A strided (batch, sides, bins, length) view of edge logits. Channel c = side * bins + bin.
 * Rows (N, sides * bins): batch 1, length N, channel_stride 1. Maps (B, sides * bins, H, W): length H * W. */
typedef struct gfl_bins {
  void* data;
  int32_t dtype;
  int64_t batch_stride;
  int64_t channel_stride;
  int64_t length_stride;
} gfl_bins;

typedef enum gfl_reduction_mode {
  GFL_REDUCE_SUM = 0,     /* one value: scale * sum of loss * weight */
  GFL_REDUCE_ROWS = 1,    /* one value a row, times scale */
  GFL_REDUCE_ELEMENTS = 2 /* one value an element, times scale (class losses only) */
} gfl_reduction_mode;

/* The effective scale is scale / divisor, and with avg_factor also divided by (*avg_factor + float32 eps).
 * avg_factor lies on the op's device, in the compute type, so that nobody waits for it. */
typedef struct gfl_reduction {
  int32_t mode; /* gfl_reduction_mode */
  double scale;
  int64_t divisor; /* 0 counts as 1: the mean of nothing is 0 */
  const void* avg_factor;
} gfl_reduction;

/* ---- dense classification losses: one logit per (row, class) ---------------------------------- */

typedef enum gfl_class_formula {
  GFL_QUALITY_FOCAL = 0,             /* logits */
  GFL_QUALITY_FOCAL_PROBABILITY = 1, /* probabilities in [0, 1] */
  GFL_SIGMOID_FOCAL = 2,
  GFL_SOFT_CROSS_ENTROPY = 3,
  GFL_VARIFOCAL = 4, /* plus any of gfl_varifocal_form */
  GFL_CLASS_FORMULAS = 8
} gfl_class_formula;

typedef enum gfl_varifocal_form {
  GFL_VARIFOCAL_EVEN = 1,    /* every positive weighs 1, in place of its target */
  GFL_VARIFOCAL_DETACHED = 2 /* the modulating factor has no derivative */
} gfl_varifocal_form;

enum { GFL_BACKGROUND = -1, GFL_OUTSIDE = -2 };

typedef struct gfl_class_loss {
  int32_t formula;
  double exponent; /* beta of QFL, gamma of focal and varifocal loss */
  double alpha;    /* of focal and varifocal loss */
  int64_t rows;
  int64_t cols;
  gfl_matrix pred;
  gfl_matrix target;    /* dense targets (own dtype or the compute type), or NULL and labels given */
  const void* labels;   /* (rows,) contiguous; outside [0, cols) is background */
  int32_t labels_dtype; /* GFL_INT64 or GFL_INT32 */
  int32_t leave_out;    /* rows labelled GFL_OUTSIDE have neither loss nor gradient, in place of being background */
  const void* scores;   /* (rows,) contiguous, compute type, with labels; focal loss has none */
  gfl_matrix weight;    /* compute type; col_stride 0 for one weight a row */
  const void* class_weights; /* (cols,) contiguous, compute type; multiply the weight */
  gfl_matrix grad_loss;      /* backward: the incoming gradient, compute type, strides 0 where reduced */
  gfl_reduction reduction;
  void* loss;      /* forward: compute type, contiguous: 1, (rows,) or (rows, cols) */
  gfl_matrix grad; /* pred's dtype. Forward: NULL, or d loss / d pred in the same pass. Backward: the result */
  void* workspace; /* gfl_class_loss_workspace_bytes() bytes; the same of every op that has one */
} gfl_class_loss;

GFL_API int gfl_class_loss_forward(const gfl_device* device, const gfl_class_loss* op);
GFL_API int gfl_class_loss_backward(const gfl_device* device, const gfl_class_loss* op);
GFL_API int64_t gfl_class_loss_workspace_bytes(const gfl_device* device, const gfl_class_loss* op);

/* ---- losses and expectations over a softmax of bins ------------------------------------------- */

typedef struct gfl_distribution_focal_loss {
  int64_t rows;
  int64_t bins;           /* 2 .. 256 */
  gfl_bins logits;        /* batch 1, one side, length rows */
  const void* target;     /* (rows,) contiguous, compute type */
  const void* bin_values; /* (bins,) increasing, compute type; NULL: first_bin, first_bin + 1, ... */
  double first_bin;
  const void* left_weight; /* (rows,) contiguous, compute type; both or neither */
  const void* right_weight;
  const void* weight;       /* (rows,) contiguous, compute type */
  const void* grad_loss;    /* backward: compute type */
  int64_t grad_loss_stride; /* 0: one value, 1: one a row */
  gfl_reduction reduction;  /* SUM or ROWS */
  void* loss;
  gfl_bins grad;
  void* workspace;
} gfl_distribution_focal_loss;

GFL_API int gfl_distribution_focal_loss_forward(const gfl_device* device, const gfl_distribution_focal_loss* op);
GFL_API int gfl_distribution_focal_loss_backward(const gfl_device* device, const gfl_distribution_focal_loss* op);
GFL_API int64_t gfl_distribution_focal_loss_workspace_bytes(const gfl_device* device,
                                                            const gfl_distribution_focal_loss* op);

/* Of a student's distributions from a teacher's, both softened by the temperature. The caller's scale has what multiplies
 * a divergence: usually the temperature's square. */
typedef struct gfl_distribution_kl_loss {
  int64_t rows;
  int64_t bins;
  gfl_bins logits;  /* the student's: batch 1, one side, length rows */
  gfl_bins teacher; /* the same shape; the student's dtype or the compute type */
  double temperature;
  const void* weight;       /* (rows,) contiguous, compute type */
  const void* grad_loss;    /* backward: compute type */
  int64_t grad_loss_stride; /* 0: one value, 1: one a row */
  gfl_reduction reduction;  /* SUM or ROWS */
  void* loss;
  gfl_bins grad; /* of the student */
  void* workspace;
} gfl_distribution_kl_loss;

GFL_API int gfl_distribution_kl_loss_forward(const gfl_device* device, const gfl_distribution_kl_loss* op);
GFL_API int gfl_distribution_kl_loss_backward(const gfl_device* device, const gfl_distribution_kl_loss* op);
GFL_API int64_t gfl_distribution_kl_loss_workspace_bytes(const gfl_device* device, const gfl_distribution_kl_loss* op);

typedef struct gfl_integral {
  int64_t batch;
  int64_t sides;
  int64_t bins;
  int64_t length;
  gfl_bins logits;
  const void* bin_values; /* (bins,), compute type; NULL: 0, 1, ... */
  gfl_bins output; /* (batch, sides, length): channel = side. Forward: written. Backward: the incoming gradient */
  /* Backward: written; without logits it holds the slopes of a forward, and is multiplied. Forward, where given: the
     slopes dE/dx are written. Slopes are for CPUs; CUDA makes the softmax again. */
  gfl_bins grad;
} gfl_integral;

GFL_API int gfl_integral_forward(const gfl_device* device, const gfl_integral* op);
GFL_API int gfl_integral_backward(const gfl_device* device, const gfl_integral* op);

typedef struct gfl_distribution_statistics {
  int64_t batch;
  int64_t sides;
  int64_t bins;
  int64_t length;
  int64_t topk; /* 1 .. bins */
  gfl_bins logits;
  /* (batch, sides * (topk + 1), length): the topk highest probabilities of a side, the highest first, and their mean.
     Forward: written. Backward: the incoming gradient */
  gfl_bins output;
  gfl_bins grad; /* backward: written */
} gfl_distribution_statistics;

GFL_API int gfl_distribution_statistics_forward(const gfl_device* device, const gfl_distribution_statistics* op);
GFL_API int gfl_distribution_statistics_backward(const gfl_device* device, const gfl_distribution_statistics* op);

/* ---- boxes ------------------------------------------------------------------------------------ */

typedef enum gfl_iou_kind { GFL_IOU = 0, GFL_GIOU = 1, GFL_DIOU = 2, GFL_CIOU = 3 } gfl_iou_kind;

typedef enum gfl_iou_transform {
  GFL_IOU_LINEAR = 0, /* 1 - iou */
  GFL_IOU_SQUARE = 1, /* 1 - iou^2 */
  GFL_IOU_LOG = 2     /* -log(iou) */
} gfl_iou_transform;

typedef enum gfl_eps_rule {
  GFL_EPS_FLOOR = 0, /* max(denominator, eps), as mmdet's overlaps */
  GFL_EPS_ADD = 1    /* denominator + eps, as torchvision's losses */
} gfl_eps_rule;

/* When CIoU's shape term counts. */
typedef enum gfl_alpha_rule {
  GFL_ALPHA_HALF = 0,  /* where the IoU exceeds 0.5, as in mmdet */
  GFL_ALPHA_ALWAYS = 1 /* as in torchvision */
} gfl_alpha_rule;

typedef struct gfl_iou_options {
  int32_t iou_kind;   /* gfl_iou_kind */
  int32_t transform;  /* GFL_IOU only; the other kinds are linear */
  int32_t eps_rule;   /* DIoU and CIoU always add to union, diagonal and heights; GFL_EPS_ADD: also to alpha's
                        denominator, and without the clamps of enclosure and result */
  int32_t alpha_rule; /* GFL_CIOU only */
  double eps;
} gfl_iou_options;

typedef struct gfl_iou_loss {
  gfl_iou_options options;
  int64_t rows;
  gfl_matrix pred;   /* (rows, 4) xyxy */
  gfl_matrix target; /* (rows, 4), pred's dtype or the compute type */
  const void* weight;
  const void* grad_loss;
  int64_t grad_loss_stride;
  gfl_reduction reduction; /* SUM or ROWS */
  void* loss;
  gfl_matrix grad; /* pred's dtype */
  void* workspace;
} gfl_iou_loss;

GFL_API int gfl_iou_loss_forward(const gfl_device* device, const gfl_iou_loss* op);
GFL_API int gfl_iou_loss_backward(const gfl_device* device, const gfl_iou_loss* op);
GFL_API int64_t gfl_iou_loss_workspace_bytes(const gfl_device* device, const gfl_iou_loss* op);

typedef struct gfl_box_iou {
  int64_t rows; /* boxes in a */
  int64_t cols; /* boxes in b; aligned: 1, and b's row moves with a's */
  int32_t aligned;
  gfl_matrix a; /* (rows, 4); b's dtype */
  gfl_matrix b;
  double eps; /* floor of the union */
  void* iou;  /* (rows, cols) contiguous, compute type */
} gfl_box_iou;

GFL_API int gfl_box_iou_forward(const gfl_device* device, const gfl_box_iou* op);

/* Four edge distributions per positive against one target box: DFL, decoded box, quality, IoU loss. */
typedef struct gfl_distribution_box_loss {
  gfl_iou_options options;
  int64_t rows;
  int64_t bins;
  gfl_bins logits;           /* batch 1, four sides, length rows */
  const void* anchor_points; /* (rows, 2) contiguous, compute type, pixels */
  const void* target_boxes;  /* (rows, 4) contiguous, compute type, pixels */
  const void* strides;       /* (rows,), compute type: pixels per bin; NULL: stride */
  double stride;
  double target_margin;    /* distances are clamped to [0, bins - 1 - target_margin] */
  const void* weight;      /* (rows,), compute type */
  gfl_reduction reduction; /* of both losses */
  void* loss_iou;          /* forward: 1 or (rows,), compute type */
  void* loss_dfl;
  void* boxes;          /* forward: (rows, 4) decoded xyxy in pixels, compute type */
  void* quality;        /* forward: (rows,) plain IoU, union floored by 1e-6 stride units, compute type */
  const void* grad_iou; /* backward: compute type */
  const void* grad_dfl;
  int64_t grad_loss_stride; /* 0: one value, 1: one a row */
  gfl_bins grad;            /* backward */
  void* workspace;
} gfl_distribution_box_loss;

GFL_API int gfl_distribution_box_loss_forward(const gfl_device* device, const gfl_distribution_box_loss* op);
GFL_API int gfl_distribution_box_loss_backward(const gfl_device* device, const gfl_distribution_box_loss* op);
GFL_API int64_t gfl_distribution_box_loss_workspace_bytes(const gfl_device* device,
                                                          const gfl_distribution_box_loss* op);

/* ---- assignment ------------------------------------------------------------------------------- */

#define GFL_MAX_LEVELS 8

typedef struct gfl_level {
  int32_t height;
  int32_t width;
  double stride; /* pixels per cell */
} gfl_level;

/* The cells of all levels, level after level, rows of a level one after the other: the order of the anchors. */
typedef struct gfl_levels {
  int32_t count;
  gfl_level level[GFL_MAX_LEVELS];
} gfl_levels;

/* One level of a head's output: (batch, channels, height * width). */
typedef struct gfl_map {
  void* data;
  int64_t batch_stride;
  int64_t channel_stride;
  int64_t position_stride;
} gfl_map;

typedef struct gfl_maps {
  int32_t dtype;
  int32_t count; /* the number of levels, or 0 where the maps are absent */
  gfl_map level[GFL_MAX_LEVELS];
} gfl_maps;

typedef struct gfl_atss_assign {
  int64_t batch;
  int64_t num_gts;          /* padded: gts of an image past its count are not looked at */
  int32_t dtype;            /* of gt_boxes and valid_shapes: float32 or float64, the type that IoUs are computed in */
  const void* gt_boxes;     /* (batch, num_gts, 4) contiguous, xyxy in pixels */
  const int64_t* gt_counts; /* (batch,); NULL: all are real */
  const int64_t* gt_labels; /* (batch, num_gts): a gt whose label is outside [0, classes) takes no part; NULL: all do */
  int64_t classes;
  const void* valid_shapes; /* (batch, 2) height, width in pixels; NULL: every cell is valid */
  gfl_levels levels;
  int32_t topk;         /* candidates of a level; a level with fewer cells has no more than those */
  double anchor_scale;  /* an anchor's side in strides */
  double center_offset; /* of a cell's centre, in strides */
  int32_t* assigned_gt; /* (batch, anchors): a gt's index, GFL_BACKGROUND or GFL_OUTSIDE */
  float* assigned_iou;  /* (batch, anchors): the IoU with that gt, else 0; NULL: not wanted */
  int32_t* labels;      /* (batch, anchors): the label of that gt, else as assigned_gt; NULL: not wanted */
} gfl_atss_assign;

GFL_API int gfl_atss_assign_run(const gfl_device* device, const gfl_atss_assign* op);

typedef struct gfl_task_aligned_assign {
  int64_t batch;
  int64_t anchors;
  int64_t classes;
  int64_t num_gts;          /* padded: gts of an image past its count are not looked at */
  int32_t dtype;            /* of boxes, points, gt_boxes, IoUs and scores that come out: float32 or float64 */
  gfl_maps scores;          /* of all anchors together, or of each of `levels`: any floating point type */
  int32_t logits;           /* the scores are logits */
  const void* boxes;        /* (batch, anchors, 4) contiguous: predicted, xyxy in pixels */
  const void* points;       /* (anchors, 2) contiguous: x, y in pixels */
  const void* gt_boxes;     /* (batch, num_gts, 4) contiguous */
  const int64_t* gt_labels; /* (batch, num_gts): a gt whose label is outside [0, classes) claims nothing */
  const int64_t* gt_counts; /* (batch,); NULL: all are real */
  gfl_levels levels;        /* where the points are centres of cells; count 0: they lie anywhere */
  double center_offset;     /* of a cell's centre, in strides */
  int32_t topk;             /* candidates of a gt, 1 .. 256 */
  int32_t final_topk;       /* anchors that a gt may keep, 1 .. 256; 0: all */
  double alpha;
  double beta;
  int32_t inside_first; /* candidates are chosen from the anchors inside of a gt; else from all */
  double min_side;      /* shorter sides of a gt count as this long where its inside is asked for */
  int32_t iou_kind;     /* GFL_IOU or GFL_CIOU */
  int32_t* assigned_gt; /* (batch, anchors): a gt's index or GFL_BACKGROUND */
  void* assigned_iou;   /* (batch, anchors): the IoU with that gt, else 0 */
  void* assigned_score; /* (batch, anchors): the normalised metric, else 0 */
  int32_t* labels;      /* (batch, anchors): the label of that gt, else as assigned_gt; NULL: not wanted */
  void* workspace;      /* gfl_task_aligned_assign_workspace_bytes() bytes */
} gfl_task_aligned_assign;

GFL_API int gfl_task_aligned_assign_run(const gfl_device* device, const gfl_task_aligned_assign* op);
GFL_API int64_t gfl_task_aligned_assign_workspace_bytes(const gfl_device* device, const gfl_task_aligned_assign* op);

typedef struct gfl_max_iou_assign {
  int64_t batch;
  int64_t num_anchors;
  int64_t num_gts;        /* padded: gts of an image past its count are not looked at */
  int32_t dtype;          /* of anchors, gt_boxes and assigned_iou: float32 or float64 */
  const void* anchors;    /* (num_anchors, 4) contiguous, xyxy in pixels */
  int64_t anchors_stride; /* from one image's to the next; 0: all have the same */
  const uint8_t* valid;   /* (num_anchors): 0 takes no part; NULL: all do */
  int64_t valid_stride;
  const void* gt_boxes;     /* (batch, num_gts, 4) contiguous */
  const int64_t* gt_counts; /* (batch,); NULL: all are real */
  double positive_iou;      /* an anchor whose highest IoU reaches it becomes that gt's */
  double background_from;   /* one whose highest IoU is in [background_from, background_below) is background */
  double background_below;
  double least_iou;     /* a gt claims its best anchors if their IoU is above 0 and reaches this */
  int32_t all_best;     /* it claims all of them; else the first */
  int32_t* assigned_gt; /* (batch, num_anchors): a gt's index, GFL_BACKGROUND, or GFL_OUTSIDE: takes no part */
  void* assigned_iou;   /* (batch, num_anchors): the IoU with that gt, else 0 */
  void* workspace;      /* gfl_max_iou_assign_workspace_bytes() bytes */
} gfl_max_iou_assign;

GFL_API int gfl_max_iou_assign_run(const gfl_device* device, const gfl_max_iou_assign* op);
GFL_API int64_t gfl_max_iou_assign_workspace_bytes(const gfl_device* device, const gfl_max_iou_assign* op);

typedef enum gfl_cost_kind { GFL_DYNAMIC_SOFT_LABEL = 0, GFL_SIMOTA = 1 } gfl_cost_kind;

typedef struct gfl_cost_assign {
  int64_t batch;
  int64_t anchors;
  int64_t classes;
  int64_t num_gts;          /* padded: gts of an image past its count are not looked at */
  int32_t dtype;            /* of boxes, points, strides, gt_boxes and the IoUs that come out: float32 or float64 */
  int32_t kind;             /* gfl_cost_kind */
  gfl_bins scores;          /* (batch, classes, anchors): channel = class; any floating point type. Logits of soft
                              labels, probabilities of SimOTA */
  const void* boxes;        /* (batch, anchors, 4) contiguous: predicted, xyxy in pixels */
  const void* points;       /* (anchors, 2) contiguous: x, y in pixels */
  const void* strides;      /* (anchors,) contiguous */
  const void* gt_boxes;     /* (batch, num_gts, 4) contiguous */
  const int64_t* gt_labels; /* (batch, num_gts): a gt whose label is outside [0, classes) claims nothing */
  const int64_t* gt_counts; /* (batch,); NULL: all are real */
  int32_t topk;             /* IoUs of a gt whose sum is the number of its anchors, 1 .. 256 */
  double center_radius;     /* in strides */
  double cls_weight;        /* at least 0, as the next one */
  double iou_weight;
  int32_t* assigned_gt; /* (batch, anchors): a gt's index or GFL_BACKGROUND */
  void* assigned_iou;   /* (batch, anchors): the IoU with that gt, else 0 */
  void* workspace;      /* gfl_cost_assign_workspace_bytes() bytes */
} gfl_cost_assign;

GFL_API int gfl_cost_assign_run(const gfl_device* device, const gfl_cost_assign* op);
GFL_API int64_t gfl_cost_assign_workspace_bytes(const gfl_device* device, const gfl_cost_assign* op);

/* Of each level; low <= x <= high is inside. */
typedef struct gfl_ranges {
  double low[GFL_MAX_LEVELS];
  double high[GFL_MAX_LEVELS];
} gfl_ranges;

typedef struct gfl_fcos_assign {
  int64_t batch;
  int64_t num_gts;          /* padded: gts of an image past its count are not looked at */
  int32_t dtype;            /* of gt_boxes, distances and centerness: float32 or float64 */
  const void* gt_boxes;     /* (batch, num_gts, 4) contiguous, xyxy in pixels */
  const int64_t* gt_counts; /* (batch,); NULL: all are real */
  gfl_levels levels;
  gfl_ranges ranges; /* of the longest distance to a side, in pixels */
  double radius;     /* of the square around a gt's centre that cells must be in, in strides; 0: anywhere in the gt */
  double center_offset; /* of a cell's point, in strides */
  int32_t* assigned_gt; /* (batch, anchors): a gt's index or GFL_BACKGROUND */
  void* distances;      /* (batch, anchors, 4): to the left, top, right and bottom side of that gt in pixels, else 0 */
  void* centerness;     /* (batch, anchors): else 0 */
} gfl_fcos_assign;

GFL_API int gfl_fcos_assign_run(const gfl_device* device, const gfl_fcos_assign* op);

/* ---- detections ------------------------------------------------------------------------------- */

/* What must exceed the threshold for a box to suppress another. A pair of which either box has no area, is inverted or
 * reaches to infinity has no overlap. */
typedef enum gfl_nms_criterion {
  GFL_NMS_IOU = 0,
  GFL_NMS_DIOU = 1 /* IoU minus the squared distance of the centres over the squared diagonal of the enclosure */
} gfl_nms_criterion;

typedef struct gfl_nms {
  int64_t count;
  int32_t dtype;          /* of boxes and scores: float32 or float64 */
  const void* boxes;      /* (count, 4) contiguous, xyxy */
  const void* scores;     /* (count,) contiguous; a box whose score is NaN is dropped */
  const int64_t* classes; /* (count,) contiguous; boxes of different classes do not meet. NULL: one class */
  const int64_t* order;   /* CUDA: the boxes by descending score, stable, NaN anywhere. The CPU sorts for itself */
  double threshold;       /* at least 0 */
  int32_t criterion;
  int64_t room;  /* of keep: the search ends when it is full */
  int64_t* keep; /* (room,) the boxes that stay, by descending score; -1 behind them */
  int64_t* kept; /* (1,) how many those are */
  void* workspace;
} gfl_nms;

GFL_API int gfl_nms_run(const gfl_device* device, const gfl_nms* op);
GFL_API int64_t gfl_nms_workspace_bytes(const gfl_device* device, const gfl_nms* op);

/* One level of a dense head, as the head left it. */
typedef struct gfl_head_level {
  gfl_bins scores; /* (batch, classes, height * width) logits: channel = class, length_stride between cells */
  gfl_bins edges;  /* (batch, 4 * bins, height * width) logits: channel = side * bins + bin */
  int32_t height;
  int32_t width;
  double stride; /* pixels per cell and per bin */
} gfl_head_level;

typedef struct gfl_postprocess {
  int64_t batch;
  int64_t classes;
  int64_t bins;
  int32_t num_levels;
  gfl_head_level levels[GFL_MAX_LEVELS]; /* all scores of one dtype, all edges of one */
  int32_t dtype;                         /* the compute type: float64 where any level is float64, else float32 */
  const void* image_shapes;              /* (batch, 2) height, width: what boxes are clipped to; compute type */
  const void* scale_factors;             /* (batch, 2) x, y: what boxes are divided by; compute type, or NULL */
  double score_threshold;
  int64_t nms_pre; /* candidates that a level may have */
  double nms_threshold;
  int32_t criterion;   /* gfl_nms_criterion */
  int64_t room;        /* detections that an image may have */
  double min_size;     /* width and height of a box must exceed it */
  void* boxes;         /* (batch, room, 4), compute type as all outputs but labels and counts; 0 behind the last */
  void* scores;        /* (batch, room) */
  int64_t* labels;     /* (batch, room), -1 behind the last */
  int64_t* counts;     /* (batch,) */
  void* distributions; /* (batch, room, 4, bins), or NULL and the next two with it */
  void* deviations;    /* (batch, room, 4), in bins */
  void* strides;       /* (batch, room) of the level that a detection comes from */
  void* workspace;
} gfl_postprocess;

GFL_API int gfl_postprocess_run(const gfl_device* device, const gfl_postprocess* op);
GFL_API int64_t gfl_postprocess_workspace_bytes(const gfl_device* device, const gfl_postprocess* op);

/* ---- the heads of a detector: maps of several levels as they are ------------------------------------ */

/* A dense classification loss over all levels, the labels in the order of the anchors. Always summed. */
typedef struct gfl_multilevel_class_loss {
  int32_t formula; /* gfl_class_formula */
  double exponent;
  double alpha;
  int64_t batch;
  int64_t classes;
  gfl_levels levels;
  gfl_maps pred;
  const int32_t* labels; /* (batch, anchors): outside [0, classes) is background, but GFL_OUTSIDE is left out */
  const void* scores;    /* (batch, anchors), compute type, read at positives; focal loss has none */
  const void* grad_loss; /* backward: one value, compute type */
  double scale;
  const void* avg_factor; /* as in gfl_reduction */
  void* loss;             /* forward: one value, compute type */
  gfl_maps grad;          /* forward: absent, or the gradient in the same pass. Backward: the result */
  void* workspace;        /* gfl_multilevel_class_loss_workspace_bytes() bytes */
} gfl_multilevel_class_loss;

GFL_API int gfl_multilevel_class_loss_forward(const gfl_device* device, const gfl_multilevel_class_loss* op);
GFL_API int gfl_multilevel_class_loss_backward(const gfl_device* device, const gfl_multilevel_class_loss* op);
GFL_API int64_t gfl_multilevel_class_loss_workspace_bytes(const gfl_device* device,
                                                          const gfl_multilevel_class_loss* op);

/* Positives: the anchors whose gt (of gfl_atss_assign) is not negative. Anchor-shaped arrays are (batch, anchors), 0
 * where there is no positive. */
typedef struct gfl_positive_weights {
  int64_t batch;
  int64_t classes;
  gfl_levels levels;
  const int32_t* assigned_gt;
  gfl_maps scores;   /* logits */
  void* weights;     /* anchor-shaped, compute type: the highest probability of a class */
  void* normalisers; /* two values, compute type: sum over images of max(positives, 1); sum of the weights */
  void* num_pos;     /* one value, compute type */
  void* workspace;
} gfl_positive_weights;

GFL_API int gfl_positive_weights_forward(const gfl_device* device, const gfl_positive_weights* op);
GFL_API int64_t gfl_positive_weights_workspace_bytes(const gfl_device* device, const gfl_positive_weights* op);

/* Boxes of all cells from their distances to the four sides: of several bins the expectation, of one its logit itself. */
typedef struct gfl_decode_maps {
  int64_t batch;
  int64_t bins; /* 1 .. 256 */
  gfl_levels levels;
  double center_offset;
  gfl_maps edges;
  void* boxes;  /* (batch, anchors, 4) contiguous, xyxy in pixels, compute type */
  void* points; /* (anchors, 2) contiguous: the centres of the cells, x, y in pixels, compute type */
} gfl_decode_maps;

GFL_API int gfl_decode_maps_run(const gfl_device* device, const gfl_decode_maps* op);

enum { GFL_POSITIVE_SUMS = 5 }; /* of weight * IoU loss, weight * DFL of the four sides, quality, weight, 1 */

typedef struct gfl_positive_boxes {
  gfl_iou_options options;
  int64_t batch;
  int64_t bins; /* 1 .. 256. One is the distance itself, and has in place of DFL the L1 loss, as a share of the image */
  gfl_levels levels;
  double center_offset;
  double target_margin;
  const int32_t* assigned_gt;
  int64_t num_gts;      /* of an image, padding included */
  const void* gt_boxes; /* (batch, num_gts, 4) contiguous, compute type */
  const void* weights;  /* anchor-shaped, compute type */
  gfl_maps edges;
  void* quality;        /* forward: anchor-shaped, compute type */
  double* sums;         /* forward: (GFL_POSITIVE_SUMS,) */
  const void* grad_iou; /* backward: one value each, compute type; NULL: 0 */
  const void* grad_dfl;
  double scale_iou; /* backward: as in gfl_box_losses */
  double scale_dfl;
  const void* total_weight;
  gfl_maps grad; /* backward: every element is written */
  void* workspace;
} gfl_positive_boxes;

GFL_API int gfl_positive_boxes_forward(const gfl_device* device, const gfl_positive_boxes* op);
GFL_API int gfl_positive_boxes_backward(const gfl_device* device, const gfl_positive_boxes* op);
GFL_API int64_t gfl_positive_boxes_workspace_bytes(const gfl_device* device, const gfl_positive_boxes* op);

/* What the sums of gfl_positive_boxes come to once the weight of all is known: sum * scale / max(total_weight, 1). */
typedef struct gfl_box_losses {
  int32_t dtype; /* the compute type */
  const double* sums;
  const void* total_weight; /* one value each, compute type */
  const void* num_pos;
  double scale_iou;
  double scale_dfl;
  void* loss_iou;
  void* loss_dfl;
  void* mean_quality; /* 0 without positives */
} gfl_box_losses;

GFL_API int gfl_box_losses_forward(const gfl_device* device, const gfl_box_losses* op);

/* ---- the paper's unified form, element by element ---------------------------------------------- */

/* A flat input of `size` values: stride 1, or stride 0 for one value shared by all. */
typedef struct gfl_flat {
  const void* data;
  int64_t stride;
} gfl_flat;

typedef struct gfl_generalized_focal_loss {
  int64_t size;
  int32_t dtype; /* of p_left, p_right and both gradients */
  double beta;
  gfl_flat p_left;
  gfl_flat p_right;
  gfl_flat y; /* y, y_left, y_right, weight, grad_loss: compute type */
  gfl_flat y_left;
  gfl_flat y_right;
  gfl_flat weight;
  gfl_flat grad_loss;
  gfl_reduction reduction; /* SUM or ROWS (every element a row) */
  void* loss;
  void* grad_left; /* backward; contiguous, either may be NULL */
  void* grad_right;
  void* workspace;
} gfl_generalized_focal_loss;

GFL_API int gfl_generalized_focal_loss_forward(const gfl_device* device, const gfl_generalized_focal_loss* op);
GFL_API int gfl_generalized_focal_loss_backward(const gfl_device* device, const gfl_generalized_focal_loss* op);
GFL_API int64_t gfl_generalized_focal_loss_workspace_bytes(const gfl_device* device,
                                                           const gfl_generalized_focal_loss* op);

/* ---- shared ----------------------------------------------------------------------------------- */

/* data *= *factor in place, and nothing at all where *factor is 1. */
typedef struct gfl_scale_gradient {
  void* data; /* dense */
  int32_t data_dtype;
  int64_t size;
  const void* factor; /* compute type */
} gfl_scale_gradient;

GFL_API int gfl_scale_gradient_run(const gfl_device* device, const gfl_scale_gradient* op);

/* What went wrong in the last call of this thread that did not return GFL_OK. */
GFL_API const char* gfl_last_error(void);

GFL_API int gfl_has_cuda(void); /* compiled in; says nothing of a driver */
GFL_API const char* gfl_cuda_architectures(void);
GFL_API int gfl_cuda_driver_version(void);    /* the newest CUDA that the driver knows, 12040 for 12.4; 0 without one */
GFL_API int gfl_cuda_runtime_version(void);   /* of the runtime that is compiled in; 0 without CUDA */
GFL_API const char* gfl_cpu_isa(void);        /* "baseline", "avx2" or "avx512": the one in use */
GFL_API int gfl_set_cpu_isa(const char* isa); /* for tests and benchmarks; an unknown or unsupported one is an error */
GFL_API int gfl_cpu_threads(void);            /* how many the next call would use */

/* Asks the system to back the memory by huge pages, where it knows them and has not touched it yet. A page fault costs
 * more than our arithmetic on what lies in a page of 4 KiB, and memory of this size is mostly fresh. */
GFL_API void gfl_use_huge_pages(void* data, int64_t bytes);

#ifdef __cplusplus
}
#endif
#endif /* GFL_H */
