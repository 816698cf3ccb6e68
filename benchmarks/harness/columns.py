"""What a row is measured with: this library's backends, and what people use otherwise where it is installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import gfl_ops
from benchmarks.harness import random_inputs
from benchmarks.harness.random_inputs import STRIDES, Inputs
from benchmarks.harness.rows import Row
from gfl_ops import _dispatch

OURS = ("native", "triton", "reference")
Call = Callable[[Inputs], Any]  # from a row's inputs to its outputs


@dataclass(frozen=True)
class Column:
    name: str
    call: Callable[[Row, str], Call | None]  # None where it does not have the op on that device

    @property
    def ours(self) -> bool:
        return self.name in OURS


def widened(row: Row, call: Call) -> Call:
    """Half types go through other people's losses in float32, as autocast sends them; part of what they cost."""
    half = (torch.bfloat16, torch.float16)

    def wide(x: Tensor) -> Tensor:
        return x.float() if x.dtype in half else x

    return lambda inputs: call(inputs | {name: random_inputs.map_tensors(wide, inputs[name]) for name in row.main})


def eager_call(row: Row, device: str = "cpu") -> Call:
    function = row.function(ours=False)
    if row.op == "postprocess":
        return widened(
            row,
            lambda inputs: function(inputs["cls_scores"], inputs["bbox_preds"], STRIDES, inputs["image_shapes"]),
        )
    return widened(row, lambda inputs: function(**inputs, **row.kwargs))


def _compiled_call(row: Row, device: str) -> Call:
    torch._dynamo.reset()
    return torch.compile(eager_call(row), dynamic=False)


def _own_call(backend: str) -> Callable[[Row, str], Call | None]:
    def call(row: Row, device: str) -> Call | None:
        if not runs(row.op, backend, device):
            return None
        function = row.function(ours=True)
        if runs(row.op, backend, device, asked="auto"):  # a user would not ask for it, so no time goes into asking
            return lambda inputs: function(**inputs, **row.kwargs)

        def asked_for(inputs: Inputs) -> Any:
            with gfl_ops.use_backend(backend):
                return function(**inputs, **row.kwargs)

        return asked_for

    return call


def runs(op: str, backend: str, device: str, asked: str | None = None) -> bool:
    """Whether a backend has an op of its own for a device; or, asked for another, whether it is the one to run."""
    op = {"batched_nms": "nms"}.get(op, op)
    try:
        with gfl_ops.use_backend(asked or backend):
            return _dispatch.choose(op, device)[0] == backend
    except (RuntimeError, ValueError):
        return False


# ---- other libraries -------------------------------------------------------------------------------------


def _torchvision(ops: Any) -> dict[str, Callable[..., Any]]:
    def focal(pred: Any, target: Any) -> Any:
        classes = pred.shape[1]
        one_hot = torch.nn.functional.one_hot(target, classes + 1)[:, :classes].to(pred.dtype)
        return ops.sigmoid_focal_loss(pred, one_hot, reduction="mean")

    return {
        "sigmoid_focal_loss": focal,
        "iou_loss": lambda pred, target, kind: ops.generalized_box_iou_loss(pred, target, reduction="mean"),
        "box_iou": lambda a, b: ops.box_iou(a, b),
        "nms": lambda boxes, scores, threshold: ops.nms(boxes, scores, threshold),
        "batched_nms": lambda boxes, scores, labels, threshold: ops.batched_nms(boxes, scores, labels, threshold),
    }


def _mmdet(losses: Any) -> dict[str, Callable[..., Any]]:
    quality, dfl, giou = losses.QualityFocalLoss(), losses.DistributionFocalLoss(), losses.GIoULoss(eps=1e-7)
    return {
        "quality_focal_loss": lambda pred, target: quality(pred, target),
        "distribution_focal_loss": lambda pred, target: dfl(pred, target),
        "iou_loss": lambda pred, target, kind: giou(pred, target),
    }


def _ultralytics(losses: Any) -> dict[str, Callable[..., Any]]:
    dfl = losses.DFLoss(17)
    return {"distribution_focal_loss": lambda pred, target: dfl(pred, target.reshape(-1, 4)).mean()}


LIBRARIES = {  # the module that has them, and what they make of a row's inputs
    "torchvision": ("torchvision.ops", _torchvision),
    "mmdet": ("mmdet.models.losses", _mmdet),
    "ultralytics": ("ultralytics.utils.loss", _ultralytics),
}


def _library_call(name: str) -> Callable[[Row, str], Call | None]:
    module, functions = LIBRARIES[name]
    try:
        found = functions(importlib.import_module(module))
    except Exception:  # not installed, or not for this torch: then there is no such column
        found = {}

    def call(row: Row, device: str) -> Call | None:
        function = found.get(row.op)
        return None if function is None else widened(row, lambda inputs: function(**inputs, **row.kwargs))

    return call


NAMES = ("eager", "compile", *LIBRARIES, *OURS)


def columns(names: tuple[str, ...]) -> list[Column]:
    """In the order of NAMES, whatever the order asked for."""

    def call_of(name: str) -> Callable[[Row, str], Call | None]:
        if name in OURS:
            return _own_call(name)
        return {"eager": eager_call, "compile": _compiled_call}.get(name) or _library_call(name)

    return [Column(name, call_of(name)) for name in NAMES if name in names]


def without(row: Row, column: Column, everywhere: bool) -> bool:
    """Rows that a column leaves out for the time that it would take."""
    return column.name == "compile" and not (row.compiled or (everywhere and row.gradient and row.op != "gfl_loss"))
