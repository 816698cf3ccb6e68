"""What a call costs, counted: allocations, kernel launches, waits. The same on every machine, so any change shows.

An op that starts to allocate a temporary of its input's size, to launch another kernel or to look at device data on the
host fails here, whatever a stopwatch would say. A change that is meant changes the table.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.harness import columns, counting, graph_capture, measurement, random_inputs, rows, traffic
from benchmarks.harness.random_inputs import Inputs
from benchmarks.harness.rows import Row
from gfl_ops import PaddedTargets
from tests.support import host_cuda

SIZE = (96, 128)  # of an image, in pixels


def padded(inputs: Inputs) -> Inputs:
    """Targets of one size, as a graph is captured with them: a list is packed first, by four kernels of torch's."""
    if "targets" not in inputs:
        return inputs
    boxes, labels = (torch.stack([target[name] for target in inputs["targets"]]) for name in ("boxes", "labels"))
    return inputs | {"targets": PaddedTargets(boxes, labels)}


INPUTS: dict[str, Callable[[], Inputs]] = {
    "quality_focal_loss": lambda: random_inputs.quality(400, 40),
    "sigmoid_focal_loss": lambda: random_inputs.focal(400, 40),
    "varifocal_loss": lambda: random_inputs.quality(400, 40),
    "soft_bce_loss": lambda: random_inputs.quality(400, 40),
    "distribution_focal_loss": lambda: random_inputs.dfl(400),
    "generalized_focal_loss": lambda: random_inputs.generalized(3000),
    "integral": lambda: random_inputs.integral(400),
    "distribution_kl_loss": lambda: random_inputs.distillation(400),
    "distribution_statistics": lambda: random_inputs.statistics(400),
    "iou_loss": lambda: random_inputs.box_pairs(500),
    "box_iou": lambda: random_inputs.box_lists(40, 50),
    "distribution_box_loss": lambda: random_inputs.edges(100),
    "decode_boxes": lambda: random_inputs.decode(100),
    "atss_assign": lambda: random_inputs.assignment(2, 5, SIZE),
    "task_aligned_assign": lambda: random_inputs.aligned(2, 5, SIZE),
    "max_iou_assign": lambda: random_inputs.anchor_boxes(2, 5, SIZE),
    "dynamic_soft_label_assign": lambda: random_inputs.costed(2, 5, SIZE, logits=True),
    "simota_assign": lambda: random_inputs.costed(2, 5, SIZE),
    "fcos_assign": lambda: random_inputs.pyramid_boxes(2, 5, SIZE),
    "gfl_loss": lambda: random_inputs.head(2, 5, 80, SIZE),
    "multilevel_sigmoid_focal_loss": lambda: random_inputs.focal_maps(2, 40, SIZE),
    "multilevel_varifocal_loss": lambda: random_inputs.scored_maps(2, 40, SIZE),
    "multilevel_soft_bce_loss": lambda: random_inputs.scored_maps(2, 40, SIZE),
    "nms": lambda: random_inputs.scored_boxes(300),
    "batched_nms": lambda: random_inputs.scored_boxes(300, 4),
    "postprocess": lambda: random_inputs.detections(1, -3.0, SIZE, 40),
}


@dataclasses.dataclass(frozen=True)
class Stated:
    """Of one call: a forward without gradient, and loss with its gradient (None where there is none)."""

    forward: int
    step: int | None = None


# Kernels on a GPU: ours, and those of torch that our Python calls. A gradient that arrives is scaled by one of them.
LAUNCHES = {
    "quality_focal_loss": Stated(2, 3),
    "sigmoid_focal_loss": Stated(2, 3),
    "varifocal_loss": Stated(2, 3),
    "soft_bce_loss": Stated(2, 3),
    "distribution_focal_loss": Stated(2, 3),
    "generalized_focal_loss": Stated(3, 4),  # two numbers become tensors
    "integral": Stated(1, 2),
    "distribution_kl_loss": Stated(2, 3),
    "distribution_statistics": Stated(1, 2),
    "iou_loss": Stated(2, 3),
    "box_iou": Stated(1),
    "distribution_box_loss": Stated(2, 5),  # two of torch's: zeros for the outputs that no gradient comes into
    "decode_boxes": Stated(5),  # an integral; what torch makes of it
    "atss_assign": Stated(3),
    "task_aligned_assign": Stated(5),
    "max_iou_assign": Stated(3),
    "dynamic_soft_label_assign": Stated(3),
    "simota_assign": Stated(3),
    "fcos_assign": Stated(3),
    "gfl_loss": Stated(10, 12),
    "multilevel_sigmoid_focal_loss": Stated(3, 4),  # the labels become int32
    "multilevel_varifocal_loss": Stated(3, 4),
    "multilevel_soft_bce_loss": Stated(3, 4),
    "nms": Stated(5),  # two of torch's: -0 to 0, and its sort
    "batched_nms": Stated(5),
    "postprocess": Stated(9),
}


def row_of(op: str) -> Row:
    row = next(row for row in rows.table() if row.op == op)
    return dataclasses.replace(row, make=INPUTS[op])


@dataclasses.dataclass
class Prepared:
    row: Row
    inputs: Inputs
    call: columns.Call

    def forward(self) -> Any:
        return measurement.forward(self.call, self.inputs)

    def step(self) -> Any:
        """The gradient arrives from outside, as from the rest of a network, and is not 1."""
        return measurement.gradients(self.row, self.call, self.inputs, self.incoming)

    @functools.cached_property
    def incoming(self) -> list[Tensor]:
        return [x / 2 for x in measurement.ones(self.row, self.call, self.inputs)]


def prepared(op: str, dtype: torch.dtype = torch.float32) -> Prepared:
    row = row_of(op)
    torch.manual_seed(0)
    call = columns.columns(("native",))[0].call(row, "cpu")
    assert call is not None
    return Prepared(row, row.on(padded(row.make()), "cpu", dtype), call)


# ---- memory ----------------------------------------------------------------------------------------------

SLACK = 0.25  # of the main input's bytes: a value or two per row, and partial sums
OPS_WITH_GRADIENT = [op for op in INPUTS if row_of(op).gradient]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])


def allocated(run: Callable[[], Any]) -> int:
    """The bytes of all blocks that torch's allocator gave out during a call."""
    run()  # what the first call loads and keeps
    return sum(counting.memory(run).blocks)


def sizes(case: Prepared) -> tuple[int, int]:
    """Bytes of the outputs, and of the main inputs (and so of their gradients)."""
    outputs = random_inputs.tensors(case.forward())
    return sum(x.nbytes for x in outputs), sum(leaf.nbytes for leaf in case.row.leaves(case.inputs))


@pytest.mark.usefixtures("needs_native")
@DTYPES
@pytest.mark.parametrize("op", OPS_WITH_GRADIENT)
def test_a_loss_allocates_its_outputs_and_its_gradient(op: str, dtype: torch.dtype) -> None:
    case = prepared(op, dtype)
    outputs, main = sizes(case)
    assert allocated(case.forward) <= outputs + SLACK * main
    assert main <= allocated(case.step) <= outputs + (1 + SLACK) * main


@pytest.mark.parametrize("op", OPS_WITH_GRADIENT)
def test_the_count_sees_temporaries(op: str) -> None:
    """The eager formulas make some, and would fail the test above."""
    row = row_of(op)
    case = Prepared(row, row.on(row.make(), "cpu", torch.float32), columns.eager_call(row))
    outputs, main = sizes(case)
    assert allocated(case.forward) > outputs + SLACK * main
    assert allocated(case.step) > outputs + (1 + SLACK) * main


# ---- launches and waits ----------------------------------------------------------------------------------

NO_KERNEL = {
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "promote_types",
    "_local_scalar_dense",
}


class TorchKernels(TorchDispatchMode):
    """The kernels of torch's own that calls come to: neither views nor allocations, nor a look at a CPU's tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        namespace, name = func._schema.name.split("::")
        is_view = any(x.alias_info is not None and not x.alias_info.is_write for x in func._schema.returns)
        if namespace == "aten" and not is_view and name not in NO_KERNEL:
            self.names.append(name)
        if namespace == "gfl_ops":  # past this mode, and with it: what an op of ours calls is seen, too
            with self:
                return func._op_dk(torch._C.DispatchKey.CPU, *args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def launches(run: Callable[[], Any]) -> tuple[int, list[str]]:
    """Of our kernels, run on the host, and the names of torch's."""
    with host_cuda.route():
        run()
        before = host_cuda.launches()
        with TorchKernels() as mode:
            run()
    return host_cuda.launches() - before, mode.names


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("op", INPUTS)
def test_launches_are_as_stated(op: str) -> None:
    case = prepared(op)
    found, words = [], []
    for run in (case.forward, case.step) if case.row.gradient else (case.forward,):
        ours, names = launches(run)
        found.append(ours + len(names))
        words.append(f"{ours} of ours and of torch {', '.join(names) or 'none'}")
    assert op in LAUNCHES, f"state the launches of {op}: {found}; {'; '.join(words)}"
    assert Stated(*found) == LAUNCHES[op], "; ".join(words)


@pytest.mark.usefixtures("needs_native")
@DTYPES
@pytest.mark.parametrize("op", INPUTS)
def test_the_table_of_what_moves_has_all_launches(op: str, dtype: torch.dtype) -> None:
    """All but those that add up the blocks' sums, where a grid has one block."""
    case = prepared(op, dtype)
    for run, with_gradient in ((case.forward, False), (case.step, True)):
        if case.row.gradient or not with_gradient:
            names = [kernel.name for kernel in traffic.kernels(case.row, case.inputs, with_gradient)]
            most = len(names)
            least = most if dtype == torch.float32 else most - names.count("finish_sums")
            assert least <= launches(run)[0] <= most


def test_the_count_sees_launches() -> None:
    row = row_of("quality_focal_loss")
    inputs = row.on(row.make(), "cpu", torch.float32)
    with TorchKernels() as mode:
        measurement.forward(columns.eager_call(row), inputs)
    assert len(mode.names) > 8


def on_meta(op: str) -> Prepared:
    """Tensors without data: whoever asks for a value gets an error, as a GPU would have to be waited for."""
    row = row_of(op)
    call = graph_capture.call_of(row, "native", "meta")
    assert call is not None
    return Prepared(row, graph_capture.prepared(row, row.on(row.make(), "meta", torch.float32), "meta"), call)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("op", INPUTS)
def test_the_host_asks_for_no_value_of_a_tensor(op: str) -> None:
    """nms and postprocess in their forms of fixed size; what the others return has a size that only the data tells."""
    case = on_meta(op)
    assert all(x.is_meta for x in random_inputs.tensors(case.forward()))
    if case.row.gradient:
        assert all(x.is_meta for x in case.step())


def test_asking_for_a_value_is_noticed() -> None:
    row = row_of("quality_focal_loss")
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        measurement.forward(columns.eager_call(row), row.on(row.make(), "meta", torch.float32))
