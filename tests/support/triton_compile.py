"""Compile the Triton kernels without a GPU: run as a program, since interpreting and compiling do not mix in a process.

`python -m tests.support.triton_compile` with

    kernels ARCHITECTURES DTYPES [NAMES]    what the machine code of each launch says of itself
    sizes                                   how many compilations 20 sizes of each op take

The public functions run on CPU tensors with Triton's driver replaced by one that knows an architecture and no device,
so what is compiled is what a GPU would get: the same arguments, specialised in the same way. Prints JSON.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import random_head
from tests import ROOT
from tests.support import case_maker
from tests.support.cases import boxes, class_losses, distributions
from tests.support.programs import environment, support_program

KERNELS = (
    "class_loss_kernel",
    "distribution_focal_loss_kernel",
    "integral_kernel",
    "distribution_kl_loss_kernel",
    "distribution_statistics_kernel",
    "iou_loss_kernel",
    "aligned_iou_kernel",
)
KERNELS += (
    "pairwise_iou_kernel",
    "generalized_focal_loss_kernel",
    "distribution_box_loss_kernel",
    "finish_sums",
    "scale_kernel",
)
KERNELS += "multilevel_class_loss_kernel", "positive_weights_kernel", "positive_boxes_kernel", "box_losses_kernel"
# What these read is scattered, or hardly anything.
NARROW = "finish_sums", "positive_weights_kernel", "positive_boxes_kernel", "box_losses_kernel"


@dataclass(frozen=True)
class Call:
    """An op at a size where alignment is known, as a detector calls it."""

    op: str
    name: str
    inputs: Callable[[int], Callable[[case_maker.Maker], dict[str, Any]]]  # of a number of rows
    wide: tuple[str, ...] = ()  # the dtypes in which every launch of it has accesses of 128 bits
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.op}-{self.name}"

    def case(self, rows: int) -> case_maker.Case:
        differentiable = {
            "distribution_box_loss": distributions.EDGES,
            "distribution_statistics": distributions.EDGES,
            "distribution_kl_loss": distributions.STUDENT,
            "generalized_focal_loss": distributions.BOTH,
            "box_iou": (),
        }
        leaves = differentiable.get(self.op, ("pred",))
        return case_maker.Case(self.op, self.name, self.inputs(rows), self.options, leaves)

    def run(self, rows: int, dtype: torch.dtype) -> None:
        import gfl_ops
        from tests.support.running import run_case

        case = self.case(rows)
        run_case(gfl_ops, case, case.inputs(dtype))


@dataclass(frozen=True)
class HeadCall:
    """A loss of a whole head, whose first level has as many positions as the number of rows or a few more."""

    op: str
    name: str
    layout: Callable[[torch.Tensor], torch.Tensor] = case_maker.contiguous
    wide: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    channels: dict[str, int] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.op}-{self.name}"

    def run(self, rows: int, dtype: torch.dtype) -> None:
        import gfl_ops

        strides = (8, 16)
        height = math.isqrt(rows)
        size = (8 * height, 8 * -(-rows // height))
        head = random_head.head(
            1, (rows % 7, rows % 3), size, strides=strides, dtype=dtype, **{"classes": 80} | self.channels
        )
        head = head.map(self.layout)
        if self.op == "gfl_loss":
            random_head.gradients(random_head.losses_of(gfl_ops.gfl_loss, head, strides=strides, **self.options), head)
            return
        labels = torch.zeros(2, sum(x.shape[2] * x.shape[3] for x in head.cls_scores), dtype=torch.int32)
        target = (labels,) if self.op == "multilevel_sigmoid_focal_loss" else (labels, torch.zeros(labels.shape))
        loss = getattr(gfl_ops, self.op)(head.cls_scores, *target, **self.options)
        torch.autograd.grad(2 * loss, head.cls_scores)


ALL = ("float64", "float32", "bfloat16", "float16")
UNSQUARED = {"beta": 1.5}
CALLS = [
    Call("quality_focal_loss", "labels", lambda n: class_losses.qfl(n, 80, weight=True), ALL),
    Call(
        "quality_focal_loss", "labels-none", lambda n: class_losses.qfl(n, 80, weight=True), ALL, {"reduction": "none"}
    ),
    Call("quality_focal_loss", "labels-beta1.5", lambda n: class_losses.qfl(n, 80), ALL, UNSQUARED),
    Call("quality_focal_loss", "81-classes", lambda n: class_losses.qfl(n, 81)),
    Call("quality_focal_loss", "columns-first", lambda n: class_losses.qfl(n, 80, layout=case_maker.transposed)),
    Call("quality_focal_loss", "dense", lambda n: class_losses.qfl_dense(n, 80), ALL),
    Call("quality_focal_loss", "dense-none", lambda n: class_losses.qfl_dense(n, 80), ALL, {"reduction": "none"}),
    Call("quality_focal_loss", "dense-beta1.5", lambda n: class_losses.qfl_dense(n, 80), ALL, UNSQUARED),
    Call("quality_focal_loss", "activated", lambda n: class_losses.qfl_probability(n, 80), ALL, {"activated": True}),
    Call(
        "quality_focal_loss",
        "activated-dense",
        lambda n: class_losses.qfl_probability(n, 80, dense=True),
        ALL,
        {"activated": True},
    ),
    Call("sigmoid_focal_loss", "labels", lambda n: class_losses.focal(n, 80), ALL),
    Call("sigmoid_focal_loss", "dense", lambda n: class_losses.focal(n, 80, dense="soft"), ALL),
    Call("varifocal_loss", "labels", lambda n: class_losses.scored(n, 80, weight="row"), ALL),
    Call("varifocal_loss", "dense", lambda n: class_losses.scored(n, 80, dense=True), ALL, {"gamma": 1.5}),
    Call(
        "varifocal_loss",
        "even-detached",
        lambda n: class_losses.scored(n, 80),
        ALL,
        {"iou_weighted": False, "detach_factor": True},
    ),
    Call("soft_bce_loss", "labels", lambda n: class_losses.scored(n, 80, per_class=True), ALL),
    Call("soft_bce_loss", "dense", lambda n: class_losses.scored(n, 80, dense=True), ALL),
    Call("distribution_focal_loss", "17", lambda n: distributions.dfl(n, weight=True)),
    Call("distribution_focal_loss", "17-none", lambda n: distributions.dfl(n, weight=True), (), {"reduction": "none"}),
    Call(
        "distribution_focal_loss",
        "33-values",
        lambda n: distributions.dfl(n, bins=33, values=distributions.quadratic, sided=True),
    ),
    Call("distribution_focal_loss", "256", lambda n: distributions.dfl(n, bins=256)),
    Call("integral", "rows", lambda n: distributions.integral(n, 68)),
    Call("integral", "map", lambda n: distributions.integral(2, 68, 1, n), ALL),
    Call(
        "integral", "map-channels-last", lambda n: distributions.integral(2, 68, 16, n, layout=case_maker.channels_last)
    ),
    Call("integral", "map-256", lambda n: distributions.integral(2, 1024, 16, n), ALL, {"num_bins": 256}),
    Call("distribution_kl_loss", "17", lambda n: distributions.kl(n, weight=True), (), {"temperature": 10.0}),
    Call("distribution_statistics", "rows", lambda n: distributions.statistics(n, 68)),
    Call("distribution_statistics", "map", lambda n: distributions.statistics(2, 68, 1, n)),
    Call("distribution_statistics", "map-256", lambda n: distributions.statistics(2, 1024, 16, n), (), {"topk": 20}),
    *(
        Call("iou_loss", kind, lambda n: boxes.boxes(n, weight=(n,)), ALL[:2], {"kind": kind})
        for kind in ("iou", "giou", "diou", "ciou")
    ),
    Call("iou_loss", "giou-none", lambda n: boxes.boxes(n), ALL[:2], {"kind": "giou", "reduction": "none"}),
    Call("iou_loss", "columns-first", lambda n: boxes.boxes(n, layout=case_maker.transposed), (), {"kind": "giou"}),
    Call("box_iou", "aligned", lambda n: boxes.pairs(n, None), ALL[:2], {"aligned": True}),
    Call("box_iou", "pairs", lambda n: boxes.pairs(n, 64), ALL[:2]),
    Call("generalized_focal_loss", "17", lambda n: distributions.generalized(n, y="bins", weight=True), ALL),
    Call(
        "generalized_focal_loss",
        "none",
        lambda n: distributions.generalized(n),
        ALL,
        {"beta": 1.5, "reduction": "none"},
    ),
    Call("distribution_box_loss", "giou", lambda n: distributions.distribution_box_loss(n, weight=True, per_row=True)),
    Call(
        "distribution_box_loss",
        "ciou-none",
        lambda n: distributions.distribution_box_loss(n, weight=True),
        (),
        {"stride": 8.0, "iou_kind": "ciou", "reduction": "none", "eps_rule": "add", "alpha_rule": "always"},
    ),
    HeadCall("gfl_loss", "giou", wide=ALL),
    HeadCall("gfl_loss", "channels-last", case_maker.channels_last, ALL[:2]),  # 68 half values are no whole 16 bytes
    HeadCall("gfl_loss", "ciou-beta1.5", wide=ALL, options={"iou_kind": "ciou"} | UNSQUARED, channels={"bins": 33}),
    HeadCall("gfl_loss", "81-classes-channels-last", case_maker.channels_last, channels={"classes": 81, "bins": 8}),
    HeadCall("multilevel_sigmoid_focal_loss", "maps", wide=ALL),
    HeadCall("multilevel_sigmoid_focal_loss", "maps-gamma1.5", wide=ALL, options={"gamma": 1.5}),
    HeadCall("multilevel_sigmoid_focal_loss", "channels-last", case_maker.channels_last, ALL),
    HeadCall("multilevel_sigmoid_focal_loss", "one-class", wide=ALL, channels={"classes": 1}),
    HeadCall("multilevel_varifocal_loss", "maps", wide=ALL),
    HeadCall("multilevel_soft_bce_loss", "channels-last", case_maker.channels_last, ALL),
]
QUICK = ("quality_focal_loss-labels", "distribution_focal_loss-17", "integral-map", "iou_loss-giou", "box_iou-aligned")
QUICK += ("generalized_focal_loss-17", "distribution_box_loss-giou", "gfl_loss-giou")


class Driver:
    """What JITFunction asks of a driver before it launches anything."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0


Launch = tuple[Any, tuple[Any, ...], dict[str, Any]]


@contextmanager
def recorded(launches: list[Launch]) -> Iterator[None]:
    """Launches are noted down; the outputs stay unwritten."""
    import gfl_ops
    from gfl_ops import _dispatch
    from gfl_ops.ops import _triton

    def launch(kernel: Any, programs: int, tensor: Any, *args: Any, num_warps: int = 4, **constants: Any) -> None:
        launches.append((kernel, args, {"num_warps": num_warps, "enable_fp_fusion": False, **constants}))

    before = _triton.launch, _dispatch._triton_problem
    _triton.launch = launch
    _dispatch._triton_problem = lambda kind: ""
    try:
        with gfl_ops.use_backend("triton"):
            yield
    finally:
        _triton.launch, _dispatch._triton_problem = before


def launches_of(call: Call | HeadCall, rows: int, dtype: torch.dtype) -> list[Launch]:
    launches: list[Launch] = []
    with recorded(launches):
        call.run(rows, dtype)
    return launches


def compiled(launch: Launch, architecture: int) -> Any:
    import triton

    kernel, args, options = launch
    triton.runtime.driver.set_active(Driver(architecture))
    return kernel.run(*args, grid=(1,), warmup=True, **options)


def cuobjdump() -> str:
    import triton

    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return str(bundled) if bundled.exists() else shutil.which("cuobjdump") or "cuobjdump"


def facts(binary: Any) -> dict[str, Any]:
    """What the machine code says of itself."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, sass = (
            subprocess.run([cuobjdump(), option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        )
    return {
        "registers": int(re.search(r"REG:(\d+)", usage).group(1)),
        "stack": int(re.search(r"STACK:(\d+)", usage).group(1)),
        "shared": binary.metadata.shared,
        "local": len(re.findall(r"\b(?:LDL|STL)\b", sass)),
        "wide_loads": len(re.findall(r"\bLDG\.E\.128\b", sass)),
        "wide_stores": len(re.findall(r"\bSTG\.E\.128\b", sass)),
        "loads": len(re.findall(r"\bLDG\b", sass)),
        "stores": len(re.findall(r"\bSTG\b", sass)),
        "instructions": len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+\S", sass, re.M)),
    }


def kernels(architectures: str, dtypes: str, names: str = "") -> list[dict[str, Any]]:
    rows = []
    for call in (call for call in CALLS if not names or call.id in names.split(",")):
        for dtype in dtypes.split(","):
            for number, launch in enumerate(launches_of(call, 1024, getattr(torch, dtype))):
                for architecture in map(int, architectures.split(",")):
                    kernel = launch[0].fn.__name__
                    name = {"call": call.id, "dtype": dtype, "kernel": kernel, "launch": number}
                    wide = dtype in call.wide and kernel not in NARROW
                    wide_gradient = dtype in call.wide and stores_gradient(launch)
                    expected = {"architecture": architecture, "wide": wide, "wide_gradient": wide_gradient}
                    rows.append({**name, **expected, **facts(compiled(launch, architecture))})
    return rows


def stores_gradient(launch: Launch) -> bool:
    kernel, args, _ = launch
    return dict(zip(kernel.arg_names, args, strict=False)).get("grad") is not None


SIZES = (1, 2, 3, 5, 7, 8, 16, 17, 31, 48, 63, 64, 100, 160, 255, 333, 512, 777, 1000, 1024)


def sizes() -> dict[str, dict[str, tuple[int, int]]]:
    """For each call and kernel: its launches at one size, and what 20 sizes compiled."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    for call in (call for call in CALLS if call.id in QUICK):
        before: dict[Any, int] = {}
        for size in SIZES:
            launches = launches_of(call, size, torch.float32)
            for kernel, *rest in launches:
                before.setdefault(kernel, compilations(kernel))
                compiled((kernel, *rest), 90)
        found[call.id] = {
            kernel.fn.__name__: (sum(launch[0] is kernel for launch in launches), compilations(kernel) - count)
            for kernel, count in before.items()
        }
    return found


def compilations(kernel: Any) -> int:
    return len(kernel.device_caches[90][0]) if 90 in kernel.device_caches else 0


def run(*arguments: str) -> Any:
    """This program in a process of its own."""
    variables = environment(TRITON_INTERPRET="0", TRITON_CACHE_DIR=str(ROOT / "build" / "triton"))
    command = support_program("triton_compile", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, env=variables)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")
    return json.loads(done.stdout)


if __name__ == "__main__":
    print(json.dumps({"kernels": kernels, "sizes": sizes}[sys.argv[1]](*sys.argv[2:])))
