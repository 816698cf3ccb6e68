"""Hardware counters of our kernels at the sizes of a training step, by NVIDIA's ncu.

python -m benchmarks.harness.ncu_counters --json counters.json
"""

from __future__ import annotations

import argparse
import csv
import glob
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.harness import json_file

METRICS = {  # and what they are called here
    "gpu__time_duration.sum": "time",
    "dram__throughput.avg.pct_of_peak_sustained_elapsed": "memory",
    "dram__bytes_read.sum": "read",
    "dram__bytes_write.sum": "written",
    "sm__throughput.avg.pct_of_peak_sustained_elapsed": "arithmetic",
    "sm__inst_executed.sum": "instructions",
    "sm__warps_active.avg.pct_of_peak_sustained_active": "occupancy",
    "launch__registers_per_thread": "registers",
}
MOST_LAUNCHES = 140  # one step of every op of the largest rows, and torch's fills among them
CASE = "benchmarks.harness.every_op_once"


def tool(name: str) -> str | None:
    """One of CUDA's programs, on the path or where CUDA is usually installed."""
    folders = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda", *sorted(glob.glob("/usr/local/cuda-*"))]
    places = [os.path.join(folder, sub) for folder in folders if folder for sub in ("bin", "compute-sanitizer")]
    places += sorted(glob.glob("/opt/nvidia/nsight-compute/*"))
    return shutil.which(name) or shutil.which(name, path=os.pathsep.join(places))


def command(ncu: str, filtered: bool = True) -> list[str]:
    """Our kernels alone; or all, torch's few among them, where ncu does not take the filter."""
    kernels = ("--kernel-name-base", "demangled", "--kernel-name", "regex:gfl::") if filtered else ()
    return [
        *(ncu, "--clock-control", "none", *kernels, "--launch-count", str(MOST_LAUNCHES)),
        *("--csv", "--page", "raw", "--metrics", ",".join(METRICS), sys.executable, "-m", CASE, "--large"),
    ]


def counters(ncu: str) -> tuple[list[dict[str, str]], str, int]:
    """Those of each launch, and what ncu printed and returned."""
    for filtered in (True, False):
        done = subprocess.run(command(ncu, filtered), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        found = parse(done.stdout.splitlines())
        if found or "kernel-name" not in done.stdout:  # else it is the filter that it names
            break
    return found, done.stdout, done.returncode


def parse(lines: Iterable[str]) -> list[dict[str, str]]:
    """A kernel's name, grid and counters with their units, in the order of the launches."""
    table = [line for line in lines if line.startswith('"')]
    if len(table) < 3:
        return []
    names, units, *rows = csv.reader(table)
    place = {name: i for i, name in enumerate(names)}
    found = []
    for row in rows:
        counters = {
            short: f"{row[place[name]]} {units[place[name]]}".strip()
            for name, short in METRICS.items()
            if name in place
        }
        found.append({"kernel": row[place["Kernel Name"]], "grid": row[place["Grid Size"]], **counters})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    ncu = tool("ncu")
    if ncu is None:
        sys.exit("ncu is not there")
    found, printed, code = counters(ncu)
    for launch in found:
        print(", ".join(f"{name} {value}" for name, value in launch.items()))
    if options.json and found:
        json_file.write_json(options.json, {"launches": found})
    if not found:
        print(printed[-4000:])
        sys.exit(code or 1)


if __name__ == "__main__":
    main()
