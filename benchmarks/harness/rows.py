"""The table of what is measured: one row per op and size. A new op is a new row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

import gfl_ops
from benchmarks.eager import measured
from benchmarks.harness import random_head, random_inputs
from benchmarks.harness.random_inputs import STRIDES, Inputs

SIZES = {
    "coco2": "2 images at 800 x 1344 with 80 classes, 7 ground truths each",
    "coco16": "16 of them",
    "lvis": "2 images with 1,203 classes",
    "dense": "300 and 1,000 ground truths an image",
    "yolo": "640 x 640: 8,400 cells",
    "small": "8, 64 and 512 rows: what one image's positives come to",
}


@dataclass(frozen=True)
class Target:
    """What the design asks for: at least so many times faster, at most so many copies, …"""

    eager: float | None = None
    compiled: float | None = None
    copies: float | None = None
    bandwidth: float | None = None  # a share of a copy's
    launches: int | None = None
    syncs: int | None = None


@dataclass(frozen=True)
class Row:
    op: str
    shape: str  # as the table shows it
    size: str  # a key of SIZES
    make: Callable[[], Inputs]  # on the CPU, in float32
    main: tuple[str, ...] = ("pred",)  # these take the dtype, and get a gradient where there is one
    gradient: bool = True
    kwargs: dict[str, Any] = field(default_factory=dict)
    ours: Callable[..., Any] | None = None  # where it is not the function of that name
    scalar: Callable[[Any], Tensor] = lambda result: result if result.ndim == 0 else result.sum()
    losses: Callable[[Any], Sequence[Tensor]] = lambda result: (result,)  # what a gradient comes into
    standard: bool = False  # in the default run on a CPU
    compiled: bool = False  # torch.compile too, unless it is asked for everywhere
    targets: dict[str, Target] = field(default_factory=dict)  # by device

    @property
    def name(self) -> str:
        return f"{self.op} {self.shape}"

    def function(self, ours: bool) -> Callable[..., Any]:
        if not ours:
            return getattr(measured, self.op)
        return self.ours or getattr(gfl_ops, self.op)

    def leaves(self, inputs: Inputs) -> list[Tensor]:
        return random_inputs.tensors([inputs[name] for name in self.main])

    def on(self, inputs: Inputs, device: str, dtype: torch.dtype) -> Inputs:
        """The main inputs in the dtype, as fresh leaves; everything on the device."""

        def leaf(x: Tensor) -> Tensor:
            return x.detach().to(device, dtype, copy=True).requires_grad_(self.gradient)

        moved = random_inputs.map_tensors(lambda x: x.to(device), inputs)
        return moved | {name: random_inputs.map_tensors(leaf, inputs[name]) for name in self.main}


NEVER_SLOWER = {"cpu": Target(eager=1), "cuda": Target(eager=1)}


def _box_scalar(result: Any) -> Tensor:
    """The two losses, weighted as the GFL loss weights them."""
    return 2.0 * result[0] + 0.25 * result[1]


def _three_of(result: Any) -> tuple[Tensor, ...]:
    return tuple(result[name] for name in random_head.LOSSES) if isinstance(result, dict) else tuple(result)


def _three_losses(**arguments: Any) -> dict[str, Tensor]:
    result = gfl_ops.gfl_loss(**arguments)
    return {name: result[name] for name in random_head.LOSSES}


def _whole_loss(
    shape: str, size: str, images: int, gts: int, classes: int = 80, *, padded: bool = False, **options: Any
) -> Row:
    return Row(
        "gfl_loss",
        shape,
        size,
        lambda: random_inputs.head(images, gts, classes, padded=padded),
        ("cls_scores", "bbox_preds"),
        kwargs={"strides": STRIDES},
        ours=_three_losses,
        scalar=lambda result: sum(_three_of(result)),  # type: ignore[arg-type,return-value]
        losses=_three_of,
        **options,
    )


def _atss(shape: str, size: str, images: int, gts: int, **options: Any) -> Row:
    return Row(
        "atss_assign",
        shape,
        size,
        lambda: random_inputs.assignment(images, gts),
        (),
        gradient=False,
        ours=lambda **arguments: gfl_ops.atss_assign(**arguments)[0],
        **options,
    )


YOLO = {"topk": 10, "alpha": 0.5, "min_side": 16.0, "iou": "ciou"}


def _task_aligned(gts: int, target: float, **options: Any) -> Row:
    return Row(
        "task_aligned_assign",
        f"4x{gts:,} gts",
        "yolo",
        lambda: random_inputs.aligned(4, gts),
        (),
        gradient=False,
        kwargs=YOLO,
        targets={"cpu": Target(target)},
        **options,
    )


def _max_iou(gts: int, target: float, **options: Any) -> Row:
    return Row(
        "max_iou_assign",
        f"2x{gts:,} gts",
        "retina",
        lambda: random_inputs.anchor_boxes(2, gts),
        (),
        gradient=False,
        targets={"cpu": Target(target)},
        **options,
    )


def _by_cost(op: str, gts: int, **options: Any) -> Row:
    return Row(
        op,
        f"1x{gts:,} gts",
        "yolo",
        lambda: random_inputs.costed(1, gts, logits=op == "dynamic_soft_label_assign"),
        (),
        gradient=False,
        targets={"cpu": Target(10)},
        **options,
    )


def _fcos(gts: int, target: float, **options: Any) -> Row:
    return Row(
        "fcos_assign",
        f"2x{gts:,} gts",
        "coco2",
        lambda: random_inputs.pyramid_boxes(2, gts),
        (),
        gradient=False,
        targets={"cpu": Target(target)},
        **options,
    )


def _detected(**arguments: Any) -> list[tuple[Tensor, ...]]:
    found = gfl_ops.postprocess(strides=STRIDES, **arguments).to_list()
    return [(image["boxes"], image["scores"], image["labels"]) for image in found]


def _postprocess(shape: str, size: str, mean: float, images: int, image: tuple[int, int], **options: Any) -> Row:
    return Row(
        "postprocess",
        shape,
        size,
        lambda: random_inputs.detections(images, mean, image),
        ("cls_scores", "bbox_preds"),
        gradient=False,
        ours=_detected,
        **options,
    )


def _nms(count: int, classes: int | None = None, **options: Any) -> Row:
    op = "nms" if classes is None else "batched_nms"
    ours = getattr(gfl_ops, op)
    return Row(
        op,
        f"{count:,}" + (f" of {classes}" if classes else ""),
        "small" if count < 1000 else "coco2",
        lambda: random_inputs.scored_boxes(count, classes),
        ("boxes",),
        gradient=False,
        kwargs={"threshold": 0.6},
        ours=lambda threshold, **boxes: ours(*boxes.values(), threshold),
        **options,
    )


GIOU = {"kind": "giou"}
STRIDE = {"stride": 8.0}
EDGES = ("edge_logits",)


def _elementwise(
    size: str, cells: int, classes: int, sides: int, pairs: int, positives: int, **options: Any
) -> list[Row]:
    """The plain losses at one size of input."""
    return [
        Row(
            "quality_focal_loss", f"{cells:,}x{classes}", size, lambda: random_inputs.quality(cells, classes), **options
        ),
        Row("sigmoid_focal_loss", f"{cells:,}x{classes}", size, lambda: random_inputs.focal(cells, classes), **options),
        Row("distribution_focal_loss", f"{sides:,}x17", size, lambda: random_inputs.dfl(sides), **options),
        Row(
            "distribution_kl_loss",
            f"{sides:,}x17",
            size,
            lambda: random_inputs.distillation(sides),
            ("student",),
            kwargs={"temperature": 10.0, "bin_reduction": "mean"},
            **options,
        ),
        Row("integral", f"{sides:,}x17", size, lambda: random_inputs.integral(sides), **options),
        Row(
            "distribution_statistics", f"{sides:,}x17", size, lambda: random_inputs.statistics(sides), EDGES, **options
        ),
        Row("iou_loss", f"{pairs:,} giou", size, lambda: random_inputs.box_pairs(pairs), kwargs=GIOU, **options),
        Row(
            "distribution_box_loss",
            f"{positives:,}x4x17",
            size,
            lambda: random_inputs.edges(positives),
            EDGES,
            kwargs=STRIDE,
            scalar=_box_scalar,
            losses=lambda result: result[:2],
            **options,
        ),
    ]


def _scored(op: str) -> list[Row]:
    """A class loss of labels and scores: of a matrix, and of maps."""
    return [
        Row(op, "44,800x80", "coco2", lambda: random_inputs.quality(44_800, 80), standard=True, compiled=True),
        Row(op, "358,400x80", "coco16", lambda: random_inputs.quality(358_400, 80), compiled=True),
        *(
            Row(op, f"{n}x80", "small", lambda n=n: random_inputs.quality(n, 80), targets=NEVER_SLOWER)
            for n in (8, 64, 512)
        ),
        Row(f"multilevel_{op}", "2x800x1344", "coco2", lambda: random_inputs.scored_maps(2), ("preds",), standard=True),
        Row(f"multilevel_{op}", "16x800x1344", "coco16", lambda: random_inputs.scored_maps(16), ("preds",)),
    ]


_TARGETS = {
    ("quality_focal_loss", "coco2"): {"cpu": Target(14, 6, 3)},
    ("quality_focal_loss", "coco16"): {"cuda": Target(15, 2, bandwidth=0.9)},
    ("distribution_focal_loss", "coco2"): {"cpu": Target(12, 6, 4)},
    ("integral", "coco2"): {"cpu": Target(5, 5, 4)},
    ("iou_loss", "coco2"): {"cpu": Target(25, 8)},
}


def _main_sizes() -> list[Row]:
    rows = [
        *_elementwise("coco2", 44_800, 80, 80_000, 100_000, 2_000, standard=True, compiled=True),
        *_elementwise("coco16", 358_400, 80, 640_000, 800_000, 16_000, compiled=True),
        *_elementwise("yolo", 8_400, 80, 33_600, 8_400, 400),
    ]
    for n in (8, 64, 512):
        rows += _elementwise("small", n, 80, n, n, n, standard=True, targets=NEVER_SLOWER)
    return [_with_targets(row) for row in rows]


def _with_targets(row: Row) -> Row:
    found = _TARGETS.get((row.op, row.size))
    return row if found is None else Row(**{**row.__dict__, "targets": found})


def table() -> list[Row]:
    lvis, gpu = 1203, Target(15, launches=12, syncs=0)
    maps = ("preds",)
    return [
        *_main_sizes(),
        Row("quality_focal_loss", f"44,800x{lvis:,}", "lvis", lambda: random_inputs.quality(44_800, lvis)),
        Row("sigmoid_focal_loss", f"44,800x{lvis:,}", "lvis", lambda: random_inputs.focal(44_800, lvis)),
        Row(
            "generalized_focal_loss",
            "100,000",
            "coco2",
            lambda: random_inputs.generalized(100_000),
            ("p_left", "p_right"),
            standard=True,
        ),
        Row(
            "multilevel_sigmoid_focal_loss",
            "2x800x1344",
            "coco2",
            lambda: random_inputs.focal_maps(2),
            maps,
            standard=True,
        ),
        Row("multilevel_sigmoid_focal_loss", "16x800x1344", "coco16", lambda: random_inputs.focal_maps(16), maps),
        *(row for op in ("varifocal_loss", "soft_bce_loss") for row in _scored(op)),
        Row("box_iou", "1,000x1,000", "coco2", lambda: random_inputs.box_lists(1000, 1000), ("a", "b"), gradient=False),
        Row(
            "decode_boxes",
            "44,800",
            "coco2",
            lambda: random_inputs.decode(44_800),
            EDGES,
            gradient=False,
            kwargs=STRIDE,
        ),
        _atss("2x7 gts", "coco2", 2, 7),
        _atss("2x300 gts", "dense", 2, 300),
        _atss("1x1,000 gts", "dense", 1, 1000),
        _task_aligned(7, 5),
        _task_aligned(100, 40, standard=True),
        _task_aligned(500, 150),
        _max_iou(7, 5),
        _max_iou(100, 10, standard=True),
        *(_by_cost(op, gts) for op in ("dynamic_soft_label_assign", "simota_assign") for gts in (7, 100)),
        _fcos(7, 10),
        _fcos(100, 50, standard=True),
        _whole_loss("2x7 gts", "coco2", 2, 7, standard=True, targets={"cpu": Target(15)}),
        _whole_loss("16x7 gts", "coco16", 16, 7),
        _whole_loss("16x7 gts, padded", "coco16", 16, 7, padded=True, targets={"cuda": gpu}),
        _whole_loss("2x7 gts, 1,203 cl.", "lvis", 2, 7, lvis),
        _whole_loss("2x300 gts", "dense", 2, 300, standard=True, targets={"cpu": Target(60)}),
        _whole_loss("1x1,000 gts", "dense", 1, 1000, standard=True, targets={"cpu": Target(150)}),
        _nms(100),
        _nms(1000, standard=True),
        _nms(5000, standard=True, targets={"cpu": Target(3)}),
        _nms(1000, 80),
        _nms(5000, 80, standard=True),
        _postprocess("N(-4,1)", "coco2", -4.0, 1, (800, 1344), standard=True, targets={"cpu": Target(10)}),
        _postprocess("N(-7,1)", "coco2", -7.0, 1, (800, 1344), standard=True),
        _postprocess("16x N(-4,1)", "coco16", -4.0, 16, (800, 1344)),
        _postprocess("4x640x640", "yolo", -4.0, 4, (640, 640)),
    ]


def largest() -> list[Row]:
    """A training step of 16 images; of the ops that have no such size the last row."""
    of_step = [row for row in table() if row.size == "coco16"]
    others = {row.op: row for row in table() if row.op not in {row.op for row in of_step}}
    return [*of_step, *others.values()]
