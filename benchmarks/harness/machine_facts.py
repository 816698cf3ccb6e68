"""What a result was measured on, and with what."""

from __future__ import annotations

import argparse
import platform
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

import gfl_ops
from benchmarks import ROOT
from benchmarks.harness import json_file
from gfl_ops import _native


def facts(device: str = "cpu") -> dict[str, Any]:
    found: dict[str, Any] = {
        "gfl_ops": gfl_ops.__version__,
        "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "instruction_set": _native.cpu_isa(),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "gpu": properties.name,
            "multiprocessors": properties.multi_processor_count,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "cuda": torch.version.cuda,
            "driver": driver(),
            "architectures": _native.cuda_architectures(),
        }
    return found


def commit() -> str:
    """Of the work tree that the benchmark stands in; with a + where files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev=10", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((text.split(":")[1].strip() for text in lines if text.startswith("model name")), platform.processor())


def driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.split("\n")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    found = facts("cuda" if torch.cuda.is_available() else "cpu")
    print("\n".join(f"{name}: {value}" for name, value in found.items()))
    if options.json:
        json_file.write_json(options.json, found)


if __name__ == "__main__":
    main()
