"""Everything that needs a real GPU, in one command of at most ten minutes, without a network.

    python -m benchmarks.gpu_check --out results.json
    python -m benchmarks.gpu_check --out results.json --only bench

Builds and installs where need be, then runs tests, benchmarks, NVIDIA's checkers and counters, what is worth most
first; docs/gpu.md has the list. Each stage has a time limit of its own. Results and logs are written as they come, so
an interrupted run leaves what it had: a JSON file, and beside it a log of each stage.
"""

from __future__ import annotations

import argparse
import filecmp
import functools
import importlib.util
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import ROOT
from benchmarks.harness import dry_run, stages
from benchmarks.harness.ncu_counters import tool
from benchmarks.harness.stages import Stage

MINUTES = 8.0  # so that a limit of ten on the command has room for its start and for what ends late
# The package as installed, never the work tree's: its folder must not come first on the path.
INSTALLED = "import sys; sys.path[:] = [p for p in sys.path if p not in ('', {root!r})]; "
PROBE = "import gfl_ops; from gfl_ops import _native; print(gfl_ops.__path__[0], _native.has_cuda())"
PYTEST = "import pytest; sys.exit(pytest.main(sys.argv[1:]))"
PYTEST_WORDS = ("-v", "-rfE", "--tb=line", "--durations=20", "--maxfail=20", "-p", "no:cacheprovider")
WORKERS = 8
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


# ---- the build -------------------------------------------------------------------------------------------


@functools.cache
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
        *(sys.executable, "-m", "pip", "install", "-v", "--no-build-isolation", "--no-deps", "--force-reinstall"),
        *("--disable-pip-version-check", str(ROOT)),
    ]


def build_environment() -> dict[str, str]:
    """For this GPU alone, which takes a third of the time."""
    architecture = gpu().split(",")[-1].strip().replace(".", "") if gpu() else ""
    chosen = f"{architecture}-real" if architecture else ""
    return {"GFL_CUDA": "on"} | ({"GFL_CUDA_ARCHS": chosen} if chosen else {})


# ---- the stages ------------------------------------------------------------------------------------------


def tests_command(marks: str, keywords: str = "", workers: int = 0, paths: Sequence[str] = ("tests",)) -> list[str]:
    words = [*PYTEST_WORDS, "-m", marks, *(["-k", keywords] if keywords else [])]
    if workers and importlib.util.find_spec("xdist"):
        words += ["-n", str(workers)]
    words += ["--continue-on-collection-errors", "--rootdir", str(ROOT)]
    return python(PYTEST, *words, *(str(ROOT / path) for path in paths))


OTHERS = "gpu and not smoke and not slow and not exhaustive"
SMOKE_PATHS = ("tests/cuda", "tests/ops/test_parity.py", "tests/ops/test_determinism.py")  # all that have any
SMOKE = tests_command("gpu and smoke", paths=SMOKE_PATHS)
COMPILED = "triton_cuda or compile"  # by Triton or torch.compile, seconds each
TESTS = tests_command(OTHERS, f"not ({COMPILED})", WORKERS)
TRITON = tests_command(OTHERS, COMPILED, WORKERS)


def _program(name: str, expected: float, limit: float, least: float, of: str, *arguments: str) -> Stage:
    """One of the benchmarks' programs, which writes its results into a file."""
    return Stage(
        name, expected, limit, lambda result: program(of, *arguments, "--json", str(result)), least, missing=no_gpu
    )


def _bench(name: str, expected: float, limit: float, least: float, *arguments: str) -> Stage:
    return _program(name, expected, limit, least, "loss_bench", "--device", "cuda", *arguments)


def _tests(name: str, expected: float, limit: float, least: float, command: list[str]) -> Stage:
    return Stage(name, expected, limit, lambda result: command, least, missing=no_gpu)


def _sanitizer(kind: str, expected: float) -> Stage:
    def command(result: Path) -> list[str]:
        return [
            *(tool("compute-sanitizer") or "compute-sanitizer", "--tool", kind, "--error-exitcode", "9"),
            # Torch asks CUDA for what may not be there; its answers are no errors of ours.
            *(("--report-api-errors", "no") if kind == "memcheck" else ()),
            *("--kernel-name", "kernel_substring=gfl", *program("harness.every_op_once")),
        ]

    no_caching = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}  # or a read beyond one tensor lands in another
    missing = no_tool("compute-sanitizer")
    return Stage(kind, expected, 60, command, 15, missing, environment=no_caching, unable=REFUSED)


def table(force_build: bool) -> list[Stage]:
    """What is kept for the stages adds up to less than all may take, so that no slow one costs a later one its turn.
    torch.compile and Triton compile for most of their time: they come last."""
    no_build = no_gpu if force_build else no_build_needed
    build = Stage(
        "build", 40, 300, build_command, 180, missing=no_build, environment=build_environment(), required=True
    )
    eager = ("--backend", "eager", "native", "--seconds", "0.15", "--sizes", "coco16", "dense")
    return [
        build,
        _tests("smoke", 20, 90, 30, SMOKE),
        _bench("bench", 120, 150, 60, *eager),
        _bench("bench_half", 90, 120, 30, *eager, "--dtype", "bfloat16"),
        _program("capture", 40, 60, 40, "harness.graph_capture"),
        _program("kernels", 28, 60, 28, "harness.kernel_times"),
        _sanitizer("memcheck", 8),
        _sanitizer("racecheck", 12),
        _sanitizer("synccheck", 10),
        Stage(
            *("ncu", 30, 90, lambda result: program("harness.ncu_counters", "--json", str(result)), 25, no_tool("ncu")),
            unable=REFUSED,
        ),
        _tests("tests", 120, 240, 0, TESTS),
        _tests("triton", 120, 240, 0, TRITON),
        _program("detector", 40, 90, 0, "detector_bench", "--device", "cuda"),
        _bench("bench_rest", 120, 240, 0, "--seconds", "0.2", "--sizes", "all"),
    ]


# ---- what is said at the end -----------------------------------------------------------------------------


def summary(content: dict[str, Any]) -> list[str]:
    """A line for each stage, and the figures that people look for first."""
    found = ["", f"{'stage':<12}{'':<13}{'s':>6}"]
    for record in content["stages"]:
        words = f"{record['name']:<12}{record['state']:<13}{record['seconds']:>6.0f}"
        found.append(f"{words}  {record.get('reason', '')}".rstrip())
    for record in content["stages"]:
        if record["name"].startswith("bench"):
            for row in record.get("result", {}).get("results", []):
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


def parse(names: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the results, a JSON file")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="for the logs (default: beside the results)")
    parser.add_argument("--only", nargs="+", choices=names, metavar="STAGE", help=f"of {', '.join(names)}")
    parser.add_argument("--build", action="store_true", help="build and install, whatever is installed")
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help=f"for all stages together (default: {MINUTES:g})"
    )
    parser.add_argument(
        "--dry-run",
        type=float,
        nargs="?",
        const=1.0,
        metavar="SPEED",
        help="commands that only take their time, so many times faster, one that fails and one that hangs among them",
    )
    return parser.parse_args()


def main() -> None:
    options = parse([stage.name for stage in table(False)])
    chosen = [stage for stage in table(options.build) if options.only is None or stage.name in options.only]
    seconds = options.minutes * 60
    if options.dry_run:
        chosen, seconds = dry_run.table(chosen, options.dry_run), seconds / options.dry_run
    head = {"kind": "gpu_check", "gpu": gpu() or "no GPU", "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    head |= {"dry_run": options.dry_run} if options.dry_run else {}
    runner = stages.Runner(options.out, head, seconds, ROOT, options.logs)
    print(f"gpu_check: {head['gpu']}", flush=True)
    runner.run(chosen, lambda words: print(words, flush=True))
    print("\n".join(summary(runner.content)))
    states = {record["state"] for record in runner.content["stages"]}
    sys.exit(1 if states & {stages.FAILED, stages.TIMEOUT, stages.INTERRUPTED} else 0)


if __name__ == "__main__":
    main()
