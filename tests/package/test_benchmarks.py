"""The benchmarks: no figure without a check, counts that are right, and pages that say what was measured."""

from __future__ import annotations

import csv
import ctypes
import json
import os
import re
import resource
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from torch.autograd import DeviceType
from torch.utils._python_dispatch import TorchDispatchMode

import gfl_ops
from benchmarks import detector_bench, loss_bench, tables
from benchmarks.harness import (
    charts,
    columns,
    counting,
    cuda_graph,
    gpu_time,
    json_file,
    measurement,
    own_process,
    random_inputs,
    report,
    rounds,
    rows,
    timing,
    traffic,
)
from tests import ROOT
from tests.support.programs import BENCHMARKS, run_benchmark

# ---- loss_bench.py ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two ops at 8, 64 and 512 rows, as a user would run them."""
    folder = tmp_path_factory.mktemp("bench")
    arguments = ["--quick", "--ops", "iou_loss", "nms", "--sizes", "small", "--seconds", "0.01", "--device", "cpu"]
    files = ["--json", f"{folder}/a.json", "--csv", f"{folder}/a.csv", "--plot", f"{folder}/a.svg"]
    if not gfl_ops._native.core():
        pytest.skip("gfl_ops is installed without its native core")
    return folder, run_benchmark("loss_bench.py", *arguments, *files)


def test_a_run_prints_a_line_for_each_pass_and_writes_its_files(small_run: tuple[Path, str]) -> None:
    folder, output = small_run
    assert output.count("iou_loss ") == 6  # three sizes, forward and with the backward
    assert "nms " in output
    content = json.loads((folder / "a.json").read_text())
    assert content["machine"]["torch"] == torch.__version__
    assert {result["op"] for result in content["results"]} == {"iou_loss", "nms"}
    for result in content["results"]:
        for found in result["passes"].values():
            assert {"eager", "native"} <= set(found)
            assert all(figures["ms"] > 0 for figures in found.values())
    with (folder / "a.csv").open() as file:
        assert {row["column"] for row in csv.DictReader(file)} >= {"eager", "native"}
    assert "iou_loss 512 giou" in (folder / "a.svg").read_text()


def test_compare_prints_what_changed(small_run: tuple[Path, str]) -> None:
    folder, _ = small_run
    content = json.loads((folder / "a.json").read_text())
    old = [result for result in content["results"] if result["op"] == "nms"]
    new = json.loads(json.dumps(content["results"]))
    for result in new:
        for figures in result["passes"].values():
            figures["native"]["ms"] = figures["eager"]["ms"] / 2
    assert "nms 100 float32 fwd native: new" not in report.compare(old, new)
    (changed,) = (words for words in report.compare(old, new) if words.startswith("nms"))
    assert "to 2.00 x eager" in changed
    assert report.compare(new, old)[-1].endswith("not measured now")


def test_a_result_file_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "old.json").write_text("[]")
    with pytest.raises(SystemExit):
        loss_bench.parse(["--compare", f"{tmp_path}/old.json"])
    assert "not a result file" in capsys.readouterr().err


def test_every_op_of_the_library_has_a_row() -> None:
    measured = {row.op for row in rows.table()}
    variants = {"giou_loss", "diou_loss", "ciou_loss", "nms_padded"}  # of iou_loss and nms
    without_a_row_yet = {"task_aligned_loss", "decode_maps", "class_loss_maps", "box_loss_maps"}
    functions = {name for name in gfl_ops.__all__ if name[0].islower()} - variants
    assert without_a_row_yet <= functions - measured
    functions -= without_a_row_yet
    assert functions - measured == {"detector", "nn", "use_backend"}


def test_names_of_rows_are_unique() -> None:
    names = [row.name for row in rows.table()]
    assert len(set(names)) == len(names)


def row_of(op: str, size: str = "small") -> rows.Row:
    return next(row for row in rows.table() if row.op == op and row.size == size)


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("op", sorted({row.op for row in rows.table() if row.size == "small"}))
def test_small_rows_pass_their_check(op: str) -> None:
    row = row_of(op)
    for dtype in (torch.float32, torch.bfloat16):
        inputs = row.on(row.make(), "cpu", dtype)
        expected = measurement.expected_of(row, inputs, "cpu")
        for column in columns.columns(("eager", "native", "reference")):
            call = column.call(row, "cpu")
            assert call is not None
            measurement.check(row, column, measurement.results(row, call, inputs), expected, dtype)


def test_a_wrong_result_gets_no_figure() -> None:
    row = row_of("integral")
    inputs = row.on(row.make(), "cpu", torch.float32)
    expected = measurement.expected_of(row, inputs, "cpu")
    (column,) = columns.columns(("reference",))
    wrong_value = [expected[0] * 1.01, *expected[1:]]
    with pytest.raises(measurement.Mismatch, match="reference is off by"):
        measurement.check(row, column, wrong_value, expected, torch.float32)
    not_a_number = [expected[0] * float("nan"), *expected[1:]]
    with pytest.raises(measurement.Mismatch, match="reference is off by"):
        measurement.check(row, column, not_a_number, expected, torch.float32)
    with pytest.raises(measurement.Mismatch, match="gives shapes"):
        measurement.check(row, column, expected[:1], expected, torch.float32)


class Counter:
    """Stands in for a measurement: what is asked of it, and how it may end."""

    def __init__(self, start: int, fails_at: int | None = None) -> None:
        if start < 0:
            raise measurement.Mismatch("below zero")
        self.value, self._fails_at = start, fails_at

    def add(self, by: int) -> int:
        self.value += by
        return self.value

    def turn(self, share: float) -> None:
        self.add(1)
        if self.value == self._fails_at:
            raise measurement.Mismatch("off by one")

    def is_measured(self) -> bool:
        return self.value > 0

    def result(self) -> dict[str, int]:
        return {"value": self.value, "process": os.getpid()}

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


def test_an_object_in_its_own_process_answers_raises_and_may_die() -> None:
    """As rows are measured on a CPU."""
    subject = own_process.OwnProcess(Counter, 1)
    assert [subject.call("add", 2), subject.call("add", 3)] == [3, 6]
    assert subject.call("result")["process"] != os.getpid()
    with pytest.raises(TypeError):
        subject.call("add", "text")
    assert subject.call("add", 0) == 6
    with pytest.raises(own_process.Died, match="-9"):
        subject.call("die")
    with pytest.raises(own_process.Died):
        subject.call("add", 1)
    with pytest.raises(measurement.Mismatch, match="below zero"):
        own_process.OwnProcess(Counter, -1)


class Temporaries:
    def page_faults(self) -> int:
        """Of eight blocks of 16 MiB that come and go."""
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [bytearray(b"x") * (16 << 20) for _ in range(8)]
        del blocks
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="the C library is not glibc")
def test_memory_that_is_kept_is_not_fetched_again() -> None:
    def third(subject: own_process.OwnProcess) -> int:
        return [subject.call("page_faults") for _ in range(3)][-1]

    assert (
        third(own_process.OwnProcess(Temporaries, keeps_memory=True)) < 100 < third(own_process.OwnProcess(Temporaries))
    )


def tasks(count: int) -> list[rounds.Task]:
    return [rounds.Task(row, "float32") for row in rows.table()[:count]]


def test_rows_take_their_turns_in_rounds_and_one_that_fails_is_one_less() -> None:
    four = tasks(4)
    subjects = {}

    def make(task: rounds.Task) -> rounds.Subject | None:
        place = four.index(task)
        if place == 3:
            return None
        subjects[task] = own_process.SameProcess(Counter, -place if place == 2 else 0, 2 if place == 1 else None)
        return subjects[task]

    measured = rounds.Rounds(four, make, rounds=3, at_once=4)
    assert [(task, result["value"]) for task, result in measured.results()] == [(four[0], 3)]
    assert measured.failed == [f"{four[2].name}: Mismatch: below zero", f"{four[1].name}: Mismatch: off by one"]


def test_rows_that_memory_has_no_space_for_follow_when_the_others_are_done() -> None:
    three = tasks(3)
    begun: list[rounds.Task] = []

    def make(task: rounds.Task) -> rounds.Subject:
        begun.append(task)
        return own_process.SameProcess(Counter, 0)

    results = rounds.Rounds(three, make, rounds=2, at_once=2).results()
    assert next(results)[0] is three[0]
    assert begun == three[:2]
    assert [(task, result["value"]) for task, result in results] == [(three[1], 2), (three[2], 2)]


def test_an_interruption_leaves_what_was_measured() -> None:
    three = tasks(3)

    class Interrupted(Counter):
        def turn(self, share: float) -> None:
            raise KeyboardInterrupt

    def make(task: rounds.Task) -> rounds.Subject:
        return own_process.SameProcess(Interrupted if task is three[1] else Counter, 0)

    measured = rounds.Rounds(three, make, rounds=3, at_once=3)
    assert [(task, result["value"]) for task, result in measured.results()] == [(three[0], 1)]
    assert measured.interrupted


def test_a_library_that_is_installed_becomes_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """mmdet's classes stand in for it: they are called with a row's inputs, and checked."""
    losses = SimpleNamespace(
        QualityFocalLoss=gfl_ops.QualityFocalLoss,
        DistributionFocalLoss=gfl_ops.DistributionFocalLoss,
        GIoULoss=gfl_ops.GIoULoss,
    )
    monkeypatch.setitem(sys.modules, "mmdet.models.losses", losses)
    (column,) = columns.columns(("mmdet",))
    for op in ("quality_focal_loss", "distribution_focal_loss", "iou_loss"):
        row = row_of(op)
        call = column.call(row, "cpu")
        assert call is not None
        inputs = row.on(row.make(), "cpu", torch.float32)
        expected = measurement.expected_of(row, inputs, "cpu")
        measurement.check(row, column, measurement.results(row, call, inputs), expected, torch.float32)
    assert column.call(row_of("integral"), "cpu") is None


def test_targets_are_marked() -> None:
    def figures(ms: float) -> dict[str, float]:
        return {"ms": ms, "spread": 0.0, "peak_bytes": 0}

    def line(native: float) -> str:
        passes = {measurement.FORWARD: {"native": figures(1.0)}}
        passes[measurement.BACKWARD] = {"eager": figures(28.0), "compile": figures(12.0), "native": figures(native)}
        result = {"op": "x", "shape": "y", "size": "coco2", "dtype": "float32", "device": "cpu", "copy_ms": 1.0}
        targets = {"cpu": rows.Target(14, 6, 3)}
        return report.text(list(report.lines(result | {"passes": passes}))[1], targets)

    assert "met >= 14x eager, met >= 6x compile, met <= 3 copies" in line(2.0)
    assert "MISSED >= 14x eager, MISSED >= 6x compile, MISSED <= 3 copies" in line(4.0)


# ---- what is counted -------------------------------------------------------------------------------------


def test_memory_counts_the_allocators_blocks() -> None:
    def run() -> torch.Tensor:
        first = torch.empty(1000)
        second = first + 1
        del first
        return second * 2

    found = counting.memory(run)
    assert found.blocks.count(4000) == 3
    assert 8000 <= found.peak < 8200  # the first is gone when the third comes


def test_a_slow_call_is_a_sample_and_is_made_no_oftener_than_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "WARM_UP", {True: 0.02, False: 0.02})
    calls = {"slow": 0, "fast": 0}

    def step(name: str, seconds: float) -> timing.Step:
        def call(i: int) -> None:
            calls[name] += 1
            time.sleep(seconds)

        return call

    turns = timing.Turns()
    steps = {"slow": step("slow", 0.03), "fast": step("fast", 0.0)}
    turns.run(steps, 0.0, share=0.5)
    assert calls["slow"] == 1 + len(turns.samples["slow"])  # one to warm up
    turns.run(steps, 0.0)
    assert calls["slow"] == 1 + len(turns.samples["slow"])
    assert len(turns.samples["slow"]) == timing.LEAST_SLOW_TURNS
    assert calls["fast"] > 10 * calls["slow"]


def test_figures_are_those_of_an_undisturbed_machine() -> None:
    quiet, disturbed = [1.0, 1.01, 0.99, 1.0], [1.5, 1.4, 1.7, 1.6, 1.5, 1.6, 1.4, 1.5, 2.0, 1.9, 1.8, 1.7]
    found = timing.figures(disturbed + quiet)
    assert found["ms"] == 1.0
    assert found["median_ms"] == 1.5
    assert found["spread"] > 0.1
    assert timing.figures([2.0]) == {"ms": 2.0, "median_ms": 2.0, "spread": 0.0}


def test_peak_of_changes() -> None:
    assert counting.memory_of([5, 7, -5, 4, -7]) == counting.Memory(12, (5, 7, 4))
    assert counting.memory_of([-5, 3]) == counting.Memory(0, (3,))


@dataclass(frozen=True)
class Event:
    """As the profiler gives them."""

    of: str
    device: DeviceType
    start: int
    nanoseconds: int = 1000

    def name(self) -> str:
        return self.of

    def device_type(self) -> DeviceType:
        return self.device

    def start_ns(self) -> int:
        return self.start

    def duration_ns(self) -> int:
        return self.nanoseconds


def test_launches_are_counted_on_the_device_and_waits_on_the_host() -> None:
    """Not by the names of what launches them: one that the profiler does not know leaves no trace on the host."""
    host = ["aten::add", "cudaMemcpyAsync", "cudaStreamSynchronize", "custom::Synchronize", "cudaStreamIsCapturing"]
    device = [("Memcpy DtoD", 2000), ("void gfl::cuda::scale_kernel<float>()", 3000), ("Stream Sync", 10)]
    events = [Event("gfl_ops counted call", DeviceType.CPU, 100, 50)]
    events += [Event(name, DeviceType.CPU, 100 + i) for i, name in enumerate(host)]
    events += [Event(name, DeviceType.CUDA, 400 - i, time) for i, (name, time) in enumerate(device)]
    events += [Event("gfl_ops counted call", DeviceType.CUDA, 300), Event("cudaDeviceSynchronize", DeviceType.CPU, 160)]
    profile = counting.profile_of(reversed(events))
    assert profile.on_device == (("void gfl::cuda::scale_kernel<float>()", 3.0), ("Memcpy DtoD", 2.0))
    assert (profile.launches, profile.syncs, profile.milliseconds) == (2, 1, 0.005)


def test_a_count_without_a_launch_is_an_error() -> None:
    with pytest.raises(counting.NothingLaunched):
        counting.profile_of(
            [Event("gfl_ops counted call", DeviceType.CPU, 100), Event("aten::add", DeviceType.CPU, 101)]
        )


def test_the_profilers_own_events_are_read() -> None:
    with torch.profiler.profile() as profile, torch.profiler.record_function("gfl_ops counted call"):
        torch.ones(3) + 1
    with pytest.raises(counting.NothingLaunched):  # the range and the times are there
        counting.profile_of(profile.profiler.kineto_results.events())


# ---- a GPU's time ----------------------------------------------------------------------------------------


class Waits(TorchDispatchMode):
    """For the number of what a mask finds, as the eager formulas do."""

    found = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.found |= func is torch.ops.aten.nonzero.default
        return func(*args, **(kwargs or {}))


class Device:
    """Stands in for a GPU: what is captured is kept and done again at each replay."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, refuses: bool = False) -> None:
        self._refuses = refuses
        monkeypatch.setattr(cuda_graph, "wait_of", self.wait_of)
        monkeypatch.setattr(cuda_graph, "captured", self.captured)
        monkeypatch.setattr(counting, "cuda_profile", self.profile)
        monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)

    def wait_of(self, run: Callable[[], object]) -> str:
        with Waits() as waits:
            run()
        return "cudaStreamSynchronize" if waits.found else ""

    def captured(self, step: Callable[[], object], warm_ups: int) -> tuple[SimpleNamespace, object]:
        for _ in range(warm_ups):
            step()
        if self._refuses:
            raise RuntimeError("operation not permitted when stream is capturing")
        return SimpleNamespace(replay=step), step()

    def profile(self, run: Callable[[], object]) -> counting.Profile:
        run()
        return counting.Profile((("kernel", 7000.0), ("fill", 500.0)), ("cudaStreamSynchronize",))


def test_a_graph_has_many_steps_on_all_inputs_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    Device(monkeypatch)
    seen: list[int] = []
    step = gpu_time.replay(lambda i: seen.append(i % 3) or True, 3)
    assert step is not None
    seen.clear()
    step(0)
    assert len(seen) == gpu_time.STEPS and seen[:4] == [0, 1, 2, 0]


@pytest.mark.parametrize("refuses", [True, False])
def test_what_no_graph_takes_is_timed_by_its_kernels(refuses: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    Device(monkeypatch, refuses)
    assert gpu_time.replay(lambda i: torch.ones(3) if refuses else torch.ones(3).nonzero(), 3) is None
    calls: list[int] = []
    assert gpu_time.of_kernels(lambda: calls.append(1)) == pytest.approx(7.5 / len(calls))


def test_the_hosts_part_is_its_own_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    Device(monkeypatch)
    assert 2 <= gpu_time.of_host(lambda: time.sleep(0.002)) < 20


@pytest.mark.usefixtures("needs_native")
def test_figures_of_a_gpu_are_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole measurement, with CPU tensors on what it takes for a GPU. Eager's quality focal loss waits there."""
    Device(monkeypatch)
    monkeypatch.setattr(timing, "LEAST_TURNS", 2)
    monkeypatch.setattr(timing, "SLICE", 0.0)
    monkeypatch.setattr(counting, "peak_bytes", lambda run, device: 0)
    row = row_of("quality_focal_loss")
    subject = measurement.Measurement(row, columns.columns(("eager", "native")), "cpu", torch.float32, 0.01)
    subject._rotation = lambda: [row.on(row.make(), "cpu", torch.float32) for _ in range(3)]  # type: ignore
    subject._device = "cuda"
    subject.turn()
    result = subject.result()
    own = result["passes"][measurement.BACKWARD]["native"]
    assert own["from"] == "replay" and own["launches"] == 2 and own["syncs"] == 1
    samples = subject._turns.samples[f"{measurement.BACKWARD} native replay"]
    assert own["ms"] == pytest.approx(timing.figures(samples)["ms"] / gpu_time.STEPS)
    assert own["call_ms"] > 0 and own["host_ms"] > 0
    eager = result["passes"][measurement.BACKWARD]["eager"]
    assert eager["from"] == "kernels" and eager["ms"] == pytest.approx(7.5 / gpu_time.REPEATS)
    (line,) = (line for line in report.lines(result) if line.part == measurement.BACKWARD)
    assert line.moved_copies is None  # the copy is too small to count
    header = report.header("cuda").split()
    assert report.text(line, {}).split()[header.index("launches") - len(header)] == "2"


def test_bandwidth_is_of_the_bytes_that_are_moved() -> None:
    """A float32 gradient comes out of the forward, one copy; a half one is worked out again, a copy and a half."""
    row = row_of("quality_focal_loss", "yolo")
    inputs = {dtype: row.on(row.make(), "cpu", dtype) for dtype in (torch.float32, torch.bfloat16)}
    main = {dtype: found["pred"].nbytes for dtype, found in inputs.items()}
    rest = 12 * 8400  # labels and scores
    wide, half = (lambda with_gradient, d=d: traffic.moved(row, inputs[d], with_gradient, "cpu") for d in inputs)
    assert wide(False) == main[torch.float32] + rest
    assert wide(True) == 2 * main[torch.float32] + rest
    assert half(True) == 3 * main[torch.bfloat16] + 2 * rest

    def line(dtype: torch.dtype, ms: float) -> report.Line:
        figures = {"native": {"ms": ms, "spread": 0.0, "peak_bytes": 0}}
        passes = {measurement.FORWARD: figures, measurement.BACKWARD: figures}
        moved = {part: traffic.moved(row, inputs[dtype], part == measurement.BACKWARD, "cpu") for part in passes}
        facts = {"op": "x", "shape": "y", "size": "yolo", "dtype": "float32", "device": "cuda", "copy_ms": 1.0}
        return list(report.lines(facts | {"bytes": main[dtype], "passes": passes, "moved_bytes": moved}))[1]

    assert line(torch.float32, 1.0).bandwidth == pytest.approx(1.0, abs=0.03)
    assert line(torch.bfloat16, 2.0).bandwidth == pytest.approx(0.75, abs=0.06)
    assert "MISSED >= 0.9 of a copy's bandwidth" in report.text(
        line(torch.float32, 1.0 / 0.6), {"cuda": rows.Target(bandwidth=0.9)}
    )


@pytest.mark.parametrize("op", traffic.TABLE)
def test_the_kernels_that_move_bytes_are_those_in_the_sources(op: str) -> None:
    row = next(row for row in rows.table() if row.op == op and row.size in ("small", "coco2", "yolo", "retina"))
    names = {kernel.name for kernel in traffic.kernels(row, row.make(), row.gradient)}
    sources = "".join(path.read_text() for path in sorted((ROOT / "csrc" / "cuda").glob("*.cu*")))
    there = set(re.findall(r"__global__ void\s+(?:__launch_bounds__\([^;{]*?\)\s+)?(\w+)\(", sources))
    assert names and names <= there, f"{sorted(names - there)} of {sorted(there)}"


# ---- detector_bench.py -----------------------------------------------------------------------------------


@pytest.mark.usefixtures("needs_native")
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_a_detector_is_measured_with_both_formulas(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "LEAST_TURNS", 2)
    monkeypatch.setattr(timing, "SLICE", 0.0)
    case = detector_bench.Case("gfl_r18_fpn_lite", mode, (64, 96), 1, "float32", "cpu")
    result = detector_bench.measure(case, 0.01)
    assert {"step ours", "part ours", "step eager", "part eager"} <= set(result["ms"])
    assert ("network" in result["ms"]) == (mode == "infer")
    assert 0 < result["peak_bytes"]["part ours"] <= result["peak_bytes"]["step ours"]
    assert [line.split()[4] for line in detector_bench.lines(result)] == ["ours", "eager"]


def test_a_case_that_fails_does_not_end_the_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cases = [detector_bench.Case("lite", mode, (64, 96), 1, "float32", "cpu") for mode in ("train", "infer")]

    def measure(case: detector_bench.Case, seconds: float) -> dict[str, Any]:
        if case.mode == "train":
            raise AssertionError("\nScalars are not close!\nsome lines more")
        return {**case.__dict__, "ms": {}, "spread": {}, "peak_bytes": {}}

    monkeypatch.setattr(detector_bench, "measure", measure)
    content: dict[str, Any] = {"results": [], "failed": {}}
    detector_bench.measure_all(cases, SimpleNamespace(seconds=1.0, json=tmp_path / "a.json"), content)
    assert [result["mode"] for result in content["results"]] == ["infer"]
    assert content["failed"] == {cases[0].name: "AssertionError: Scalars are not close!"}
    assert json.loads((tmp_path / "a.json").read_text())["failed"] == content["failed"]


def test_formulas_that_differ_get_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = detector_bench.Subject(detector_bench.Case("gfl_r18_fpn_lite", "train", (64, 96), 1, "float32", "cpu"))
    monkeypatch.setattr(detector_bench.measured, "gfl_loss", lambda *args, **options: (args[0][0].sum(),) * 3)
    with pytest.raises(AssertionError):
        subject.check()


# ---- charts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", charts.CHARTS)
def test_charts_are_well_formed(name: str, small_run: tuple[Path, str]) -> None:
    content = json.loads((small_run[0] / "a.json").read_text())
    content["machine"]["processor"] = "<A & B>"
    root = ElementTree.fromstring(charts.CHARTS[name](content))
    width = float(root.attrib["width"])
    for shape in root.iter("{http://www.w3.org/2000/svg}rect"):
        if shape.attrib["width"] != "100%":
            assert 0 <= float(shape.attrib["x"]) + float(shape.attrib["width"]) <= width


# ---- figures in README and docs --------------------------------------------------------------------------


@pytest.mark.parametrize("page", tables.PAGES)
def test_figures_are_those_of_committed_results(page: str) -> None:
    text = (ROOT / page).read_text()
    assert tables.BLOCK.search(text)
    assert tables.of_text(text, tables.read) == text, "python benchmarks/tables.py writes them"
    outside = tables.BLOCK.sub("", text)
    assert not re.findall(r"^\|.*\d ?(?:x|ms|times|GB/s|images/s) *\|.*$", outside, re.MULTILINE)


@pytest.mark.parametrize("page", tables.PAGES)
def test_a_changed_figure_is_noticed(page: str) -> None:
    text = (ROOT / page).read_text()
    block = tables.BLOCK.search(text)
    assert block is not None
    place = block.start(4) + re.search(r"\d\.\d+x", block[4]).start()  # type: ignore[union-attr]
    changed = text[:place] + str((int(text[place]) + 1) % 10) + text[place + 1 :]
    assert tables.of_text(changed, tables.read) == text != changed


@pytest.mark.parametrize("path", sorted((BENCHMARKS / "results").glob("*.json")), ids=lambda path: path.name)
def test_results_say_where_they_come_from(path: Path) -> None:
    content = json.loads(path.read_text())
    of_stages = [stage.get("result", {}).get("machine") for stage in content.get("stages", [])]
    facts = next(filter(None, [content.get("machine"), *of_stages]))
    assert {"commit", "date", "torch", "python", "processor", "threads"} <= set(facts)
    assert not facts["commit"].endswith("+"), "measured with files that no commit has"


def test_json_is_whole_or_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    json_file.write_json(path, {"value": 1.23456789})
    with pytest.raises(TypeError):
        json_file.write_json(path, {"value": object()})
    assert json.loads(path.read_text()) == {"value": 1.2346}
    assert list(tmp_path.iterdir()) == [path]


def test_map_tensors_keeps_the_rest() -> None:
    nested = {"a": [torch.ones(1)], "b": (torch.ones(1), 2), "c": "text"}
    changed = random_inputs.map_tensors(lambda x: x + 1, nested)
    assert changed["a"][0].item() == 2
    assert changed["b"][1] == 2
    assert changed["c"] == "text"
    assert len(random_inputs.tensors(nested)) == 2
