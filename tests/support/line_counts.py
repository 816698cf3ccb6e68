"""The core in a build that counts the lines that run: which files of csrc/ a call enters."""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests import ROOT
from tests.support import host_cuda
from tests.support.programs import environment

CORE = ROOT / "csrc"
MODULE = "_core_counting"
SOURCES = [
    *("bindings.cpp", "core.cpp", "cpu/parallel.cpp", "cpu/kernels/class_loss.cpp"),
    "../tests/support/class_loss_alone.cpp",
]


def files_entered(folder: Path) -> list[str]:
    """Those whose lines run in a call of quality_focal_loss with 8 rows and its backward, on a CPU."""
    subprocess.run([sys.executable, __file__, str(_build(folder))], check=True, env=environment())
    return sorted({path for counts in folder.glob("*.gcda") for path in _with_lines_that_ran(counts)})


def _build(folder: Path) -> Path:
    pybind11 = pytest.importorskip("pybind11", reason="the bindings need pybind11's headers")
    flags = ["-std=c++17", "-fPIC", "-O0", "-g0", "--coverage", "-ffp-contract=off", "-fvisibility=hidden"]
    flags += ["-DGFL_BUILD=1", "-DGFL_ISA=baseline", f"-DGFL_MODULE={MODULE}", "-I", str(CORE)]
    flags += [
        "-I",
        pybind11.get_include(),
        "-I",
        sysconfig.get_paths()["include"],
        "-I",
        str(host_cuda.struct_fields()),
    ]

    def compile_one(name: str) -> str:
        target = folder / f"{Path(name).stem}.o"
        host_cuda.run([host_cuda.compiler(), *flags, "-c", str(CORE / name), "-o", str(target)])
        return str(target)

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compile_one, SOURCES))
    module = folder / (MODULE + str(sysconfig.get_config_var("EXT_SUFFIX")))
    # What the table has not, nobody calls: names are looked up when they are called.
    host_cuda.run([host_cuda.compiler(), "-shared", "--coverage", "-Wl,-z,lazy", *objects, "-o", str(module)])
    return module


def _with_lines_that_ran(counts: Path) -> set[str]:
    gcov = shutil.which("gcov") or pytest.skip("no gcov on this machine")
    command = [gcov, "--json-format", "--stdout", counts.name]
    report = subprocess.run(command, cwd=counts.parent, capture_output=True, text=True, check=True).stdout
    found = {
        Path(os.path.realpath(counts.parent / file["file"]))
        for file in json.loads(report)["files"]
        if any(line["count"] > 0 for line in file["lines"])
    }
    return {str(path.relative_to(ROOT)) for path in found if path.is_relative_to(CORE)}


def _call(path: Path) -> None:
    import torch

    import gfl_ops
    from gfl_ops import _native

    sys.setdlopenflags(os.RTLD_LAZY)
    spec = importlib.util.spec_from_file_location(MODULE, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.set_cpu_isa("baseline")
    counters = ctypes.CDLL(str(path), mode=os.RTLD_LAZY)
    pred, label, score = torch.randn(8, 80, requires_grad=True), torch.arange(8) * 11, torch.rand(8)
    with _native.route(module, device_type=-1):
        for _ in range(3):  # the first calls are checked, and remembered
            counters.start_counting()
            gfl_ops.quality_focal_loss(pred, (label, score), avg_factor=4.0).backward()
    counters.write_counts()
    os._exit(0)  # nothing else is counted


if __name__ == "__main__":
    _call(Path(sys.argv[1]))
