"""Everything that needs a real GPU, in one command of at most ten minutes, without a network.

    python -m benchmarks.gpu_check --out results.json
    python -m benchmarks.gpu_check --out results.json --only bench

Builds and installs where need be, runs the tests marked gpu, CUDA graph capture and sync checks, compute-sanitizer on
small cases, all benchmarks, and ncu's counters of the hot kernels. Each stage has its own time limit; the file is
written as results come, so an interrupted run leaves what it had.
"""

from __future__ import annotations

import argparse
import filecmp
import functools
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import ROOT
from benchmarks.harness import stages
from benchmarks.harness.ncu_counters import tool
from benchmarks.harness.stages import Stage

TOTAL = 590.0
# The package as installed, never the work tree's: its folder must not come first on the path.
INSTALLED = "import sys; sys.path[:] = [p for p in sys.path if p not in ('', {root!r})]; "
PROBE = "import gfl_ops; from gfl_ops import _native; print(gfl_ops.__path__[0], _native.has_cuda())"
PYTEST = "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
# What NVIDIA's tools say where a machine does not let them work.
REFUSED = ("Device not supported", "LibraryNotLoaded", "ERR_NVGPUCTRPERM", "driver resource was unavailable")


def python(words: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", INSTALLED.format(root=str(ROOT)) + words, *arguments]


def program(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", f"benchmarks.{name}", *arguments]


@functools.cache
def gpu() -> str:
    """Name, driver and compute capability of the first GPU; empty without one."""
    command = ["nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip().split("\n")[0] if done.returncode == 0 else ""


def no_gpu() -> str:
    return "" if gpu() else "no GPU"


def no_tool(name: str) -> Callable[[], str]:
    return lambda: no_gpu() or ("" if tool(name) else f"{name} is not there")


def no_build_needed() -> str:
    """The installed package has CUDA kernels, and its Python files are the work tree's."""
    if no_gpu():
        return no_gpu()
    done = subprocess.run(python(PROBE), capture_output=True, text=True, cwd="/")
    if done.returncode != 0 or not done.stdout.strip().endswith("True"):
        return ""
    installed = Path(done.stdout.split()[0])
    files = [path.relative_to(ROOT / "gfl_ops") for path in (ROOT / "gfl_ops").rglob("*.py")]
    same, _, _ = filecmp.cmpfiles(ROOT / "gfl_ops", installed, [str(path) for path in files], shallow=False)
    return "installed already" if len(same) == len(files) else ""


def build_command(result: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "pip", "install", "--no-build-isolation", "--no-deps", "--force-reinstall"),
        *("--disable-pip-version-check", str(ROOT)),
    ]


def build_environment() -> dict[str, str]:
    """For this GPU alone, which takes a third of the time."""
    architecture = gpu().split(",")[-1].strip().replace(".", "") if gpu() else ""
    chosen = f"{architecture}-real" if architecture else ""
    return {"GFL_CUDA": "on"} | ({"GFL_CUDA_ARCHS": chosen} if chosen else {})


def ncu_command(result: Path) -> list[str]:
    return program("harness.ncu_counters", "--json", str(result))


def sanitizer_command(kind: str) -> Callable[[Path], Sequence[str]]:
    return lambda result: [
        *(tool("compute-sanitizer") or "compute-sanitizer", "--tool", kind, "--error-exitcode", "9"),
        *("--kernel-name", "kernel_substring=gfl", *program("harness.every_op_once")),
    ]


def _program(name: str, least: float, limit: float, name_of_program: str, *arguments: str) -> Stage:
    return Stage(
        name,
        limit,
        lambda result: program(name_of_program, *arguments, "--json", str(result)),
        least=least,
        missing=no_gpu,
    )


def _bench(name: str, least: float, limit: float, *arguments: str) -> Stage:
    """Of loss_bench; torch.compile has the large sizes alone, or it would take all the time."""
    return _program(name, least, limit, "loss_bench", "--device", "cuda", *arguments)


def _sanitizer(kind: str) -> Stage:
    no_caching = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # or a read beyond one tensor lands in another
    missing = no_tool("compute-sanitizer")
    return Stage(kind, 60, sanitizer_command(kind), least=25, missing=missing, environment=no_caching, unable=REFUSED)


def table(force_build: bool) -> list[Stage]:
    """What is kept for the stages adds up to less than all may take, so that no slow one costs a later one its turn."""
    pytest_words = ("-m", "gpu and not slow and not exhaustive", "-q", "-p", "no:cacheprovider", "--maxfail=20")
    pytest_words += ("--continue-on-collection-errors", "--rootdir", str(ROOT), str(ROOT / "tests"))
    no_build = no_gpu if force_build else no_build_needed
    return [
        Stage("build", 240, build_command, missing=no_build, environment=build_environment()),
        _program("facts", 10, 60, "harness.machine_facts"),
        Stage("tests", 180, lambda result: python(PYTEST, *pytest_words), least=120, missing=no_gpu),
        _program("capture", 30, 90, "harness.graph_capture"),
        _bench("bench", 90, 200, "--seconds", "0.3", "--sizes", "coco16", "dense"),
        _bench("bench_rest", 60, 120, "--seconds", "0.2", "--quick", "--sizes", "small", "yolo", "coco2", "lvis"),
        _bench("bench_half", 25, 60, "--seconds", "0.2", "--quick", "--sizes", "coco16", "--dtype", "bfloat16"),
        _program("detector", 40, 90, "detector_bench", "--device", "cuda"),
        _sanitizer("memcheck"),
        _sanitizer("racecheck"),
        Stage("ncu", 90, ncu_command, least=40, missing=no_tool("ncu"), unable=REFUSED),
    ]


def summary(content: dict[str, Any]) -> list[str]:
    """A line for each stage, and the figures that people look for first."""
    found = ["", f"{'stage':<12}{'':<13}{'s':>6}"]
    for name, record in content["stages"].items():
        words = f"{name:<12}{record['status']:<13}{record.get('seconds', 0):>6.0f}"
        found.append(f"{words}  {record.get('reason', '')}".rstrip())
    for name in ("bench", "bench_rest", "bench_half"):
        for row in content["stages"].get(name, {}).get("result", {}).get("results", []):
            found += row_lines(row)
    return found


def row_lines(row: dict[str, Any]) -> list[str]:
    columns = row["passes"][list(row["passes"])[-1]]
    own = next((columns[name] for name in ("native", "triton") if name in columns), None)
    if own is None:
        return []
    words = f"{row['op']:<30}{row['shape']:<20}{row['dtype']:<9}{own['ms']:>9.3f} ms"
    for name in ("eager", "compile"):
        if name in columns:
            words += f"{columns[name]['ms'] / own['ms']:>9.1f} x {name}"
    return [f"{words}, {own.get('launches', '-')} launches, {own.get('syncs', '-')} syncs"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    names = [stage.name for stage in table(False)]
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the results, a JSON file")
    parser.add_argument("--only", nargs="+", choices=names, metavar="STAGE", help=f"of {', '.join(names)}")
    parser.add_argument("--build", action="store_true", help="build and install, whatever is installed")
    parser.add_argument("--minutes", type=float, default=TOTAL / 60, help="for all stages together (default: 9.8)")
    options = parser.parse_args()
    chosen = [stage for stage in table(options.build) if options.only is None or stage.name in options.only]
    head = {"kind": "gpu_check", "gpu": gpu() or "no GPU", "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    runner = stages.Runner(options.out, head, options.minutes * 60, ROOT)
    print(f"gpu_check: {head['gpu']}", flush=True)
    runner.run(chosen, lambda words: print(words, flush=True))
    print("\n".join(summary(runner.content)))
    statuses = {record["status"] for record in runner.content["stages"].values()}
    sys.exit(1 if statuses & {stages.FAILED, stages.TIMEOUT, stages.INTERRUPTED} else 0)


if __name__ == "__main__":
    main()
