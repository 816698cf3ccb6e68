"""The CUDA kernels on the host: csrc/cuda/*.cu compiled by the C++ compiler against cuda_shim/.

`route()` sends every native op on CPU tensors through them; `build()` makes the module for that, or a sanitized driver.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from gfl_ops import _native
from tests import ROOT

SHIM = ROOT / "tests" / "support" / "cuda_shim"
MODULE = "_core_shim"

FLAGS = [
    *("-std=c++17", "-fPIC", "-pthread", "-ffp-contract=off", "-fno-strict-aliasing"),
    *("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"),
    *("-DGFL_HOST_SHIM=1", "-DGFL_BUILD=1", "-DGFL_WITH_CUDA=1", '-DGFL_CUDA_ARCHS="host"', f"-DGFL_MODULE={MODULE}"),
    *("-I", str(SHIM), "-I", str(ROOT / "csrc")),
]
VARIANTS = {
    None: ["-O1", "-g1"],
    "address": ["-O1", "-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"],
    "thread": ["-O1", "-g1", "-fsanitize=thread", "-DGFL_SHIM_THREADS=1"],
}


def compiler() -> str:
    found = shutil.which(os.environ.get("CXX", "c++")) or shutil.which("g++") or shutil.which("clang++")
    if found is None:
        pytest.skip("the CUDA kernels are compiled for the host: no C++ compiler found")
    return found


def _sources(sanitize: str | None) -> list[Path]:
    """All of the core but the CPU's table of kernels, which is compiled once for each instruction set."""
    core = ROOT / "csrc"
    kernels = sorted(core.glob("cuda/*.cu"))
    cpu = [*sorted(core.glob("cpu/*.cpp")), *sorted(core.glob("cpu/drivers/*.cpp"))]
    main = SHIM / "driver.cpp" if sanitize else core / "bindings.cpp"
    return [*kernels, main, core / "core.cpp", *cpu, SHIM / "no_cpu.cpp"]


def _fingerprint(words: list[str]) -> str:
    digest = hashlib.sha256("\0".join(words).encode())
    for folder in (ROOT / "csrc", SHIM):
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            digest.update(str(path.relative_to(ROOT)).encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def struct_fields() -> Path:
    """The folder of the header that the bindings fill structs with, made as the build makes it."""
    folder = ROOT / "build" / "struct_fields"
    folder.mkdir(parents=True, exist_ok=True)
    script, header = ROOT / "cmake" / "struct_fields.py", ROOT / "csrc" / "gfl.h"
    run([sys.executable, str(script), str(header), str(folder / "struct_fields.h")])
    return folder


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stderr[-4000:]}")


@cache
def build(sanitize: str | None = None) -> Path:
    """The extension module, or with "address" or "thread" a driver program; cached by the contents of its sources."""
    flags = [*FLAGS, *VARIANTS[sanitize]]
    if sanitize is None:
        pybind11 = pytest.importorskip("pybind11", reason="the shim's module needs pybind11's headers")
        flags += ["-fvisibility=hidden", "-I", pybind11.get_include(), "-I", sysconfig.get_paths()["include"]]
        flags += ["-I", str(struct_fields())]
        name = MODULE + str(sysconfig.get_config_var("EXT_SUFFIX"))
    else:
        name = f"driver-{sanitize}"
    cxx = compiler()
    folder = ROOT / "build" / "cuda_shim"
    target = folder / _fingerprint([cxx, *flags]) / name
    if target.exists():
        return target

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        sources = _sources(sanitize)
        objects = [f"{scratch}/{source.name}.o" for source in sources]
        commands = [
            [cxx, *flags, "-x", "c++", "-c", str(source), "-o", output]
            for source, output in zip(sources, objects, strict=True)
        ]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(run, commands))
        built = f"{scratch}/{name}"
        run([cxx, *flags, *(["-shared"] if sanitize is None else []), *objects, "-o", built])
        target.parent.mkdir(exist_ok=True)
        os.replace(built, target)  # whole or not at all, also where two test runs build at once
    return target


@cache
def module() -> ModuleType:
    spec = importlib.util.spec_from_file_location(MODULE, build())
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def launches() -> int:
    """How many kernels were launched since the module was loaded."""
    count = shim().gfl_shim_launches
    count.restype = ctypes.c_int64
    return count()


def shim() -> ctypes.CDLL:
    """What the tests ask of the shim itself (cuda_shim/no_cpu.cpp)."""
    return ctypes.CDLL(str(build()))


@contextlib.contextmanager
def route() -> Iterator[None]:
    """Inside, native ops on CPU tensors run the CUDA kernels on the host."""
    with _native.route(module(), device_type=1):
        yield
