"""gpu_check and its stage runner: one that hangs, fails or is interrupted costs no result of the others."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.harness import dry_run, graph_capture, kernel_times, ncu_counters, predictions, stages, traffic
from tests import ROOT
from tests.support.cases import CASES
from tests.support.programs import environment, run_benchmark

# ---- the runner ------------------------------------------------------------------------------------------


def stage(name: str, code: str, limit: float = 30, **options: Any) -> stages.Stage:
    return stages.Stage(name, 1, limit, lambda result: [sys.executable, "-c", code, str(result)], **options)


WRITES = "import sys; open(sys.argv[1], 'w').write('{\"found\": 1}')"
HANGS = f"{WRITES}; sys.stdout.write('here'); sys.stdout.flush(); import time; time.sleep(60)"


def run_stages(path: Path, *table: stages.Stage, total: float = 60.0, **options: Any) -> dict[str, Any]:
    stages.Runner(path, {"kind": "test"}, total, **options).run(table, say=lambda words: None)
    return {record["name"]: record for record in json.loads(path.read_text())["stages"]}


def test_stages_pass_fail_and_are_skipped(tmp_path: Path) -> None:
    found = run_stages(
        tmp_path / "out.json",
        stage("good", WRITES),
        stage("bad", "print('words'); raise SystemExit(3)"),
        stage("refused", "print('no counters here'); raise SystemExit(1)", unable=("no counters",)),
        stage("absent", WRITES, missing=lambda: "no GPU"),
    )
    assert [record["state"] for record in found.values()] == ["passed", "failed", "skipped", "skipped"]
    assert found["good"]["result"] == {"found": 1}
    assert found["bad"]["reason"] == "exit code 3"
    assert found["bad"]["tail"] == ["words"]
    assert found["refused"]["reason"] == "no counters"
    assert found["absent"]["reason"] == "no GPU"


def test_each_stage_has_its_whole_log_as_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the results, or in a folder; what is in the results is its end."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    lines = "; ".join(["for i in range(200): print('line', i, flush=True)"])
    looks = f"print(len(open({str(tmp_path / 'out-second.log')!r}).read()))"  # at its own log, half way through
    second = f"print('begun'); {looks}"
    found = run_stages(tmp_path / "out.json", stage("first", lines), stage("second", second))
    assert (tmp_path / "out-first.log").read_text().splitlines() == [f"line {i}" for i in range(200)]
    assert found["first"]["tail"] == [f"line {i}" for i in range(200)][-stages.TAIL_LINES :]
    assert (tmp_path / "out-second.log").read_text() == "begun\n6\n"
    assert found["second"]["log"] == "out-second.log"
    found = run_stages(tmp_path / "out.json", stage("first", lines), logs=tmp_path / "logs")
    assert (tmp_path / found["first"]["log"]).resolve() == tmp_path / "logs" / "out-first.log"
    assert (tmp_path / "logs" / "out-first.log").exists()


def test_a_stage_that_hangs_is_ended_with_its_children_and_keeps_its_results(tmp_path: Path) -> None:
    marker = tmp_path / "alive"
    child = f"import time; time.sleep(3); open({str(marker)!r}, 'w')"
    code = f"import subprocess; subprocess.Popen([{sys.executable!r}, '-c', {child!r}]); {HANGS}"
    start = time.monotonic()
    found = run_stages(tmp_path / "out.json", stage("hangs", code, limit=1.5), stage("next", WRITES))
    assert time.monotonic() - start < 20
    assert found["hangs"]["state"] == "timeout"
    assert found["hangs"]["result"] == {"found": 1}
    assert (tmp_path / "out-hangs.log").read_text().startswith("here")
    assert found["next"]["state"] == "passed"
    time.sleep(max(0, 4 - (time.monotonic() - start)))
    assert not marker.exists()


def test_a_stage_that_is_stopped_may_say_what_it_has(tmp_path: Path) -> None:
    """As pytest does with its failures, and loss_bench with its rows: an interrupt comes before anything harder."""
    says = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: print('what there is')"
    found = run_stages(tmp_path / "out.json", stage("says", says, limit=1.5))
    assert found["says"]["state"] == "timeout"
    assert found["says"]["tail"] == ["what there is"]


def test_a_stage_that_heeds_no_signal_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "ENDINGS", tuple((kind, 0.5) for kind, _ in stages.ENDINGS))
    deaf = "import os, signal, time; [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]; print(os.getpid())"
    start = time.monotonic()
    found = run_stages(tmp_path / "out.json", stage("deaf", f"{deaf}; time.sleep(60)", limit=2), stage("next", WRITES))
    assert time.monotonic() - start < 30
    assert found["deaf"]["state"] == "timeout"
    with pytest.raises(ProcessLookupError):
        os.kill(int(found["deaf"]["tail"][0]), 0)
    assert found["next"]["state"] == "passed"


def test_without_what_all_need_nothing_runs_and_the_reason_is_told(tmp_path: Path) -> None:
    bad = stage("build", "print('nvcc: error: no such architecture'); raise SystemExit(1)", required=True)
    found = run_stages(tmp_path / "out.json", bad, stage("tests", WRITES), stage("absent", WRITES, missing=lambda: "x"))
    assert found["build"]["state"] == "failed"
    reason = "build failed, exit code 1: nvcc: error: no such architecture"
    assert [(found[name]["state"], found[name]["reason"]) for name in ("tests", "absent")] == [("skipped", reason)] * 2
    skipped = stage("build", WRITES, required=True, missing=lambda: "installed already")
    assert run_stages(tmp_path / "out.json", skipped, stage("tests", WRITES))["tests"]["state"] == "passed"


def test_stages_share_the_time_that_is_left(tmp_path: Path) -> None:
    found = run_stages(tmp_path / "out.json", stage("hangs", HANGS), stage("late", WRITES), total=1.5)
    assert found["hangs"]["state"] == "timeout"
    assert found["late"] == {"name": "late", "state": "skipped", "seconds": 0, "log": None, "reason": "no time left"}


def test_a_slow_stage_leaves_the_later_ones_their_least(tmp_path: Path) -> None:
    later = [stage("late", WRITES, least=8), stage("absent", WRITES, least=60, missing=lambda: "no GPU")]
    found = run_stages(tmp_path / "out.json", stage("hangs", HANGS), *later, total=10)
    assert found["hangs"]["state"] == "timeout"
    assert found["hangs"]["seconds"] < 8
    assert found["late"]["state"] == "passed"


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_what_it_had(kind: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    code = (
        f"import pathlib; from benchmarks.harness import stages; stages.TICK = 0.05\n"
        f"make = lambda code: lambda result: [{sys.executable!r}, '-c', code, str(result)]\n"
        f"table = [stages.Stage('first', 1, 30, make({WRITES!r})), stages.Stage('second', 1, 30, make({HANGS!r}))]\n"
        f"stages.Runner(pathlib.Path({str(out)!r}), {{}}, 60).run(table)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.DEVNULL,
        env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # which a shell's background jobs ignore
    )
    end = time.monotonic() + 30
    while time.monotonic() < end:
        found = json.loads(out.read_text())["stages"] if out.exists() else []
        if len(found) == 2 and "result" in found[1]:
            break
        time.sleep(0.05)
    process.send_signal(kind)
    process.wait(20)
    first, second = json.loads(out.read_text())["stages"]
    assert (first["name"], first["state"]) == ("first", "passed")
    assert second["result"] == {"found": 1}
    assert second["state"] == ("running" if kind == signal.SIGKILL else "interrupted")
    assert (tmp_path / "out-second.log").read_text().startswith("here")


# ---- gpu_check -------------------------------------------------------------------------------------------


def test_gpu_check_keeps_no_more_than_it_has() -> None:
    table = gpu_check.table(force_build=False)
    total = 60 * gpu_check.MINUTES
    endings = sum(seconds for _, seconds in stages.ENDINGS)
    assert sum(stage.least for stage in table) <= total - 30
    assert total + 30 + 2 * endings <= 600  # a start, and two stages that do not end by themselves
    assert table[0].required and table[0].least == 180
    assert all(stage.least <= stage.expected + 15 and stage.expected < stage.limit for stage in table[1:])
    worth = [stage.least > 0 for stage in table]
    assert worth == sorted(worth, reverse=True)  # what may be left out comes last


ORDER = ["build", "smoke", "bench", "bench_half", "capture", "kernels", "memcheck", "racecheck", "synccheck", "ncu"]
ORDER += ["tests", "triton", "detector", "bench_rest"]


def test_a_dry_run_is_as_promised(tmp_path: Path) -> None:
    """All stages in their order, one that fails and one that hangs among them; results and logs of all that ran."""
    out = tmp_path / "results" / "gpu.json"
    printed = run_benchmark("gpu_check.py", "--out", str(out), "--dry-run", "30", "--minutes", "17", code=1)
    content = json.loads(out.read_text())
    found = content["stages"]
    names = [*ORDER[:2], dry_run.FAILING, dry_run.HANGING, *ORDER[2:]]
    assert [record["name"] for record in found] == names
    bad = {dry_run.FAILING: ("failed", "exit code 3"), dry_run.HANGING: ("timeout", "stopped after 1 s")}
    expected = {stage.name: stage.expected / 30 for stage in gpu_check.table(True)}
    for record in found:
        name = record["name"]
        assert {"name", "state", "seconds", "log"} <= set(record)
        assert (record["state"], record.get("reason")) == bad.get(name, ("passed", None)), name
        assert record["seconds"] >= expected.get(name, 0) - 0.1
        log = (out.parent / record["log"]).read_text()
        assert log.startswith(f"{name} begins\n") and (f"{name} ends" in log) == (name != dry_run.HANGING)
        assert record.get("result") == (None if name == dry_run.HANGING else {"of": name})
        assert f"{name}: {record['state']}" in printed


def test_the_page_has_the_stages() -> None:
    page = (ROOT / "docs" / "gpu.md").read_text()
    found = re.findall(r"^\| `(\w+)` \|.*\| (\d+) s \| (\d+) s \| (\d+) s \|$", page, re.MULTILINE)
    table = [(stage.name, stage.expected, stage.limit, stage.least) for stage in gpu_check.table(True)]
    assert [(name, *map(float, seconds)) for name, *seconds in found] == table


def test_the_page_has_the_predictions() -> None:
    page = predictions.PAGE.read_text()
    assert [found[2] for found in predictions.BLOCK.finditer(page)] == list(predictions.TABLES)
    assert predictions.of_text(page) == page, "python -m benchmarks.harness.predictions writes them"


def test_a_prediction_is_the_longer_of_memory_and_instructions() -> None:
    """And a little more where both are close; a kernel that neither limits has a guess."""
    moves = traffic.Kernel("x", bytes=430_000_000)
    assert predictions.microseconds("op", moves, "float32") == pytest.approx(102.0)
    elements = round(50e-6 * predictions.ISSUED / 43.4)
    computes = traffic.Kernel("class_loss_flat", 430_000_000, elements, traffic.BOTH)
    assert predictions.by_instructions(computes, "float32") == pytest.approx(50.0, rel=1e-3)
    assert 102.0 < predictions.microseconds("op", computes, "float32") < 105.0
    last = traffic.Kernel("scan_kernel")
    assert predictions.microseconds("nms", last, "float32") == 62.0
    assert predictions.microseconds("postprocess", last, "float32") == 7.0


def test_gpu_check_says_what_it_lacks(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    out = tmp_path / "out.json"
    output = run_benchmark("gpu_check.py", "--out", str(out))
    found = json.loads(out.read_text())["stages"]
    assert [record["name"] for record in found] == ORDER
    assert {(record["state"], record["reason"]) for record in found} == {("skipped", "no GPU")}
    assert all(f"{record['name']}: skipped, no GPU" in output for record in found)
    run_benchmark("gpu_check.py", "--out", str(out), "--only", "bench", "ncu")
    assert [record["name"] for record in json.loads(out.read_text())["stages"]] == ["bench", "ncu"]


def test_a_build_is_for_the_gpu_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "gpu", lambda: "NVIDIA H200, 580.159.04, 9.0")
    assert gpu_check.build_environment() == {"GFL_CUDA": "on", "GFL_CUDA_ARCHS": "90-real"}


# ---- which tests it runs ---------------------------------------------------------------------------------


def collected(command: list[str]) -> set[str]:
    """The tests that a stage would run."""
    done = subprocess.run(
        [*command, "--collect-only", "-q", "-q"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return {line for line in done.stdout.splitlines() if "::" in line}


def test_smoke_is_a_few_hundred_tests_of_all_ops_and_dtypes() -> None:
    smoke = collected(gpu_check.SMOKE)
    assert 300 <= len(smoke) <= 500  # 378 took an H200 13 seconds
    parity = [name.partition("[")[2] for name in smoke if "test_parity" in name]
    for op in {case.op for case in CASES}:
        for dtype in ("float64", "float32", "bfloat16", "float16"):
            assert any(f"cuda-{op}-" in name and name.endswith(f"{dtype}]") for name in parity), (op, dtype)
    files = {name.partition("::")[0].rpartition("/")[2] for name in smoke}
    there = {path.name for path in (ROOT / "tests").rglob("test_*_gpu.py")}
    assert files == {"test_parity.py", "test_determinism.py", *there}


def test_every_gpu_test_is_in_one_stage() -> None:
    """The marks and keywords of the three stages leave none out and have none twice."""
    marks, keywords = (
        [words[words.index(option) + 1] if option in words else "" for words in commands]
        for option, commands in (
            ("-m", (gpu_check.SMOKE, gpu_check.TESTS, gpu_check.TRITON)),
            ("-k", (gpu_check.TESTS, gpu_check.TRITON)),
        )
    )
    assert marks == ["gpu and smoke", *["gpu and not smoke and not slow and not exhaustive"] * 2]
    assert keywords[0] == f"not ({keywords[1]})"
    assert "-n" not in gpu_check.SMOKE and gpu_check.TESTS[gpu_check.TESTS.index("-n") + 1] == "8"
    promised = {"-rfE", "--tb=line", "--durations=20"}
    assert all(promised <= set(words) for words in (gpu_check.SMOKE, gpu_check.TESTS, gpu_check.TRITON))


# ---- its programs ----------------------------------------------------------------------------------------


def test_native_rows_are_captured_first_and_a_fresh_process_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_capture, "first_call_in_a_fresh_process", lambda: "captured and replayed")
    monkeypatch.setattr(graph_capture, "check", lambda row, backend: {"capture": backend})
    found = list(graph_capture.outcomes(["native", "triton"]))
    assert found[0] == (graph_capture.FIRST_CALL, {"capture": "captured and replayed"})
    of = [result["capture"] for _, result in found[1:]]
    assert of == sorted(of) and len(of) == 2 * len(graph_capture.chosen_rows())


def test_a_fresh_process_that_dies_is_a_failure() -> None:
    """Without a GPU it does: its last words are told."""
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert graph_capture.first_call_in_a_fresh_process() == "FAILED graph_capture: no GPU"


def test_kernels_are_those_of_each_call_with_what_they_move() -> None:
    names = ("void gfl::cuda::(anonymous namespace)::class_loss_flat<float, gfl::Op<2>, true>(int)", "finish_sums")
    names += ("void at::native::vectorized_elementwise_kernel<4, f>(int)",)
    calls = [tuple(zip(names, times, strict=True)) for times in ((20.0, 2.0, 3.0), (40.0, 4.0, 3.0), (30.0, 9.0, 3.0))]
    expected = [traffic.Kernel("class_loss_flat", 1000), traffic.Kernel("finish_sums")]
    found = kernel_times.kernels_of(sum(calls, ()), 3, expected, lambda kernel: kernel.bytes / 100)
    assert found == [
        {"kernel": "class_loss_flat", "us": 30.0, "predicted_us": 10.0, "bytes": 1000},
        {"kernel": "finish_sums", "us": 4.0, "predicted_us": 0.0, "bytes": 0},
        {"kernel": "vectorized_elementwise_kernel", "us": 3.0, "predicted_us": None, "bytes": 0},
    ]
    with pytest.raises(RuntimeError, match="8 launches in 3 calls"):
        kernel_times.kernels_of(sum(calls, ())[:-1], 3, expected, lambda kernel: 0.0)


@pytest.mark.usefixtures("needs_native")
def test_every_op_is_looked_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """By the sanitizers, in a process of their own: here on a CPU, which has the same ops."""
    command = [*gpu_check.program("harness.every_op_once"), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment())
    assert done.returncode == 0, done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines() if line.endswith(": done")} == set(traffic.TABLE)


NCU = """#!{python}
import sys
if "--kernel-name" in sys.argv and {refuses}:
    sys.exit("==ERROR== the argument ('regex:gfl::') for option '--kernel-name' is invalid.")
print('"ID","Kernel Name","Grid Size","gpu__time_duration.sum"')
print('"","","","us"')
print('"0","void gfl::cuda::tile(int)","(528, 1, 1)","63.1"')
"""


@pytest.mark.parametrize("refuses", [True, False])
def test_a_filter_that_ncu_refuses_is_dropped(refuses: bool, tmp_path: Path) -> None:
    ncu = tmp_path / "ncu"
    ncu.write_text(NCU.format(python=sys.executable, refuses=refuses))
    os.chmod(ncu, 0o755)
    found, _, code = ncu_counters.counters(str(ncu))
    assert found == [{"kernel": "void gfl::cuda::tile(int)", "grid": "(528, 1, 1)", "time": "63.1 us"}]
    assert code == 0


def test_all_launches_of_the_largest_rows_have_room() -> None:
    """Ours and the few of torch's, by the table of what moves."""
    launches = 0
    for row in kernel_times.rows.largest():
        small = next(other for other in kernel_times.rows.table() if other.op == row.op)
        launches += len(traffic.kernels(row, small.make(), row.gradient))
    assert 40 < launches <= ncu_counters.MOST_LAUNCHES - 30
    assert {row.op for row in kernel_times.rows.largest()} == set(traffic.TABLE)


def test_counters_are_read_from_what_ncu_prints() -> None:
    printed = [
        "==PROF== Connected to process 7",
        '"ID","Kernel Name","Grid Size","dram__bytes_read.sum","gpu__time_duration.sum"',
        '"","","","Mbyte","us"',
        '"0","void gfl::cuda::tile(gfl::Op<2, 3>)","(528, 1, 1)","114.69","63.1"',
        "==PROF== Disconnected",
    ]
    assert ncu_counters.parse(printed) == [
        {
            "kernel": "void gfl::cuda::tile(gfl::Op<2, 3>)",
            "grid": "(528, 1, 1)",
            "time": "63.1 us",
            "read": "114.69 Mbyte",
        }
    ]
    assert ncu_counters.parse(["==ERROR== ERR_NVGPUCTRPERM"]) == []
