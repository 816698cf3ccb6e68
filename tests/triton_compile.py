"""Compile the Triton kernels without a GPU: run as a program, since interpreting and compiling do not mix in a process.

    python triton_compile.py kernels PATTERN...    every launch of the cases whose names match, for sm_80 and sm_90
    python triton_compile.py sizes                 how many compilations 20 sizes of each op take

The public functions run on CPU tensors with Triton's driver replaced by one that knows an architecture and no device,
so what is compiled is what a GPU would get: the same arguments, specialised in the same way. Prints JSON.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import triton
from cases import CASES
from running import run_case
from triton.backends.compiler import GPUTarget

import gfl_ops
from gfl_ops import _dispatch
from gfl_ops.ops import _triton

ARCHITECTURES = (80, 90)
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


class Driver:
    """What JITFunction asks of a driver before it launches anything."""

    def __init__(self, architecture: int) -> None:
        self.architecture = architecture

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.architecture, 32)

    def get_current_device(self) -> int:
        return self.architecture

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def recorded(launches: list[tuple[Any, tuple[Any, ...], dict[str, Any]]]) -> Iterator[None]:
    """Launches are noted down; the outputs stay unwritten."""

    def launch(kernel: Any, programs: int, tensor: Any, *args: Any, num_warps: int = 4, **constants: Any) -> None:
        launches.append((kernel, args, {"num_warps": num_warps, "enable_fp_fusion": False, **constants}))

    before = _triton.launch, _dispatch._triton_problem
    _triton.launch = launch
    _dispatch._triton_problem = lambda kind: ""
    try:
        with gfl_ops.use_backend("triton"):
            yield
    finally:
        _triton.launch, _dispatch._triton_problem = before


def compiled(kernel: Any, args: tuple[Any, ...], options: dict[str, Any], architecture: int) -> Any:
    triton.runtime.driver.set_active(Driver(architecture))
    return kernel.run(*args, grid=(1,), warmup=True, **options)


def cuobjdump() -> str:
    bundled = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    return str(bundled) if bundled.exists() else shutil.which("cuobjdump") or "cuobjdump"


def facts(binary: Any) -> dict[str, Any]:
    """What the machine code says of itself."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary.asm["cubin"])
        file.flush()
        usage, sass = (
            subprocess.run([cuobjdump(), option, file.name], capture_output=True, text=True, check=True).stdout
            for option in ("--dump-resource-usage", "--dump-sass")
        )
    count = {name: len(re.findall(rf"\b{name}\b", sass)) for name in ("LDG.E.128", "STG.E.128", "LDL", "STL")}
    for name in ("LDG", "STG", "LDL", "STL", "MUFU"):
        count[name] = len(re.findall(rf"\b{name}\b", sass))
    return {
        "registers": int(re.search(r"REG:(\d+)", usage).group(1)),
        "stack": int(re.search(r"STACK:(\d+)", usage).group(1)),
        "shared": binary.metadata.shared,
        "instructions": len(re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+\S", sass, re.M)),
        **count,
    }


def kernels(pattern: str) -> list[dict[str, Any]]:
    rows = []
    for case in (case for case in CASES if re.fullmatch(pattern, case.id)):
        for dtype in DTYPES:
            launches: list[Any] = []
            with recorded(launches):
                run_case(gfl_ops, case, case.inputs(dtype))
            for number, (kernel, args, options) in enumerate(launches):
                for architecture in ARCHITECTURES:
                    binary = compiled(kernel, args, options, architecture)
                    name = {"case": case.id, "dtype": str(dtype)[6:], "kernel": kernel.fn.__name__, "launch": number}
                    rows.append({**name, "architecture": architecture, **facts(binary)})
    return rows


if __name__ == "__main__":
    print(json.dumps(kernels(sys.argv[2])))
