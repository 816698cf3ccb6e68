"""gpu_check and its stage runner: one that hangs, fails or is interrupted costs no result of the others."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import gpu_check
from benchmarks.harness import ncu_counters, stages
from tests.support.programs import environment, run_benchmark


def stage(name: str, code: str, limit: float = 30, **options: object) -> stages.Stage:
    return stages.Stage(name, limit, lambda result: [sys.executable, "-c", code, str(result)], **options)  # type: ignore


WRITES = "import sys; open(sys.argv[1], 'w').write('{\"found\": 1}')"
HANGS = f"{WRITES}; sys.stdout.write('here'); sys.stdout.flush(); import time; time.sleep(60)"


def run_stages(path: Path, *table: stages.Stage, total: float = 60.0) -> dict:
    stages.Runner(path, {"kind": "test"}, total).run(table, say=lambda words: None)
    return json.loads(path.read_text())["stages"]


def test_stages_pass_fail_and_are_skipped(tmp_path: Path) -> None:
    found = run_stages(
        tmp_path / "out.json",
        stage("good", WRITES),
        stage("bad", "print('words'); raise SystemExit(3)"),
        stage("refused", "print('no counters here'); raise SystemExit(1)", unable=("no counters",)),
        stage("absent", WRITES, missing=lambda: "no GPU"),
    )
    assert [record["status"] for record in found.values()] == ["passed", "failed", "skipped", "skipped"]
    assert found["good"]["result"] == {"found": 1}
    assert found["bad"]["reason"] == "exit code 3"
    assert "words" in found["bad"]["output"]
    assert found["refused"]["reason"] == "no counters"
    assert found["absent"]["reason"] == "no GPU"


def test_a_stage_that_hangs_is_ended_with_its_children_and_keeps_its_results(tmp_path: Path) -> None:
    marker = tmp_path / "alive"
    child = f"import time; time.sleep(3); open({str(marker)!r}, 'w')"
    code = f"import subprocess; subprocess.Popen([{sys.executable!r}, '-c', {child!r}]); {HANGS}"
    start = time.monotonic()
    found = run_stages(tmp_path / "out.json", stage("hangs", code, limit=1.5), stage("next", WRITES))
    assert time.monotonic() - start < 20
    assert found["hangs"]["status"] == "timeout"
    assert found["hangs"]["result"] == {"found": 1}
    assert found["hangs"]["output"] == "here"
    assert found["next"]["status"] == "passed"
    time.sleep(max(0, 4 - (time.monotonic() - start)))
    assert not marker.exists()


def test_stages_share_the_time_that_is_left(tmp_path: Path) -> None:
    found = run_stages(tmp_path / "out.json", stage("hangs", HANGS), stage("late", WRITES), total=1.5)
    assert found["hangs"]["status"] == "timeout"
    assert found["late"] == {"status": "skipped", "reason": "no time left"}


def test_a_slow_stage_leaves_the_later_ones_their_least(tmp_path: Path) -> None:
    later = [stage("late", WRITES, least=8), stage("absent", WRITES, least=60, missing=lambda: "no GPU")]
    found = run_stages(tmp_path / "out.json", stage("hangs", HANGS), *later, total=10)
    assert found["hangs"]["status"] == "timeout"
    assert found["hangs"]["seconds"] < 8
    assert found["late"]["status"] == "passed"


def test_gpu_check_keeps_no_more_than_it_has() -> None:
    table = gpu_check.table(force_build=False)
    assert sum(stage.least for stage in table) <= gpu_check.TOTAL - 100  # the build has the rest
    assert all(0 < stage.least <= stage.limit for stage in table if stage.name != "build")


@pytest.mark.parametrize("kind", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_run_leaves_what_it_had(kind: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    code = (
        f"import pathlib; from benchmarks.harness import stages; stages.TICK = 0.05\n"
        f"make = lambda code: lambda result: [{sys.executable!r}, '-c', code, str(result)]\n"
        f"table = [stages.Stage('first', 30, make({WRITES!r})), stages.Stage('second', 30, make({HANGS!r}))]\n"
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
        found = json.loads(out.read_text())["stages"] if out.exists() else {}
        if "result" in found.get("second", {}):
            break
        time.sleep(0.05)
    process.send_signal(kind)
    process.wait(20)
    found = json.loads(out.read_text())["stages"]
    assert found["first"]["status"] == "passed"
    assert found["second"]["result"] == {"found": 1}
    assert found["second"]["status"] == ("running" if kind == signal.SIGKILL else "interrupted")


def test_gpu_check_says_what_it_lacks(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    out = tmp_path / "out.json"
    output = run_benchmark("gpu_check.py", "--out", str(out))
    found = json.loads(out.read_text())["stages"]
    assert {(record["status"], record["reason"]) for record in found.values()} == {("skipped", "no GPU")}
    assert all(f"{name}: skipped, no GPU" in output for name in found)
    run_benchmark("gpu_check.py", "--out", str(out), "--only", "bench", "ncu")
    assert list(json.loads(out.read_text())["stages"]) == ["bench", "ncu"]


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
