"""What is installed and what runs where: ``python -m gfl_ops.info``."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from gfl_ops import _dispatch, _native
from gfl_ops._version import __version__

PACKAGE = Path(__file__).resolve().parent
DEVICES = ("cpu", "cuda")


def collect() -> dict[str, Any]:
    """The contents of the report as plain values that can be written as JSON.

    Example:
        >>> from gfl_ops import info
        >>> sorted(info.collect()["choices"]["integral"])
        ['cpu', 'cuda']
    """
    return {
        "gfl_ops": __version__,
        "path": str(PACKAGE),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "torch": torch.__version__,
        "torch_cuda": torch.version.cuda,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "triton": _version_of("triton"),
        "native": _native.core() is not None,
        "load_error": _native.load_error,
        "cpu_isa": _native.cpu_isa(),
        "cpu_threads": _native.cpu_threads(),
        "cuda_architectures": _native.cuda_architectures() if _native.has_cuda() else None,
        "forced": _dispatch.forced(),
        "choices": {op: {device: _choice(op, device) for device in DEVICES} for op in _dispatch.OPS},
    }


def report() -> str:
    """The text that ``python -m gfl_ops.info`` prints."""
    facts = collect()
    return "\n".join([*_versions(facts), "", *_core(facts), _triton(facts), "", *_backends(facts)])


def _version_of(distribution: str) -> str | None:
    # Asked of the metadata: importing triton takes longer than all the rest, and may fail.
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _choice(op: str, device: str) -> tuple[str, str]:
    try:
        return _dispatch.choose(op, device)
    except RuntimeError as error:  # a backend is forced that this device does not have: the op would say so, too
        return "error", str(error).removeprefix(f"{op}: ").partition(";")[0]


def _versions(facts: dict[str, Any]) -> list[str]:
    if facts["torch_cuda"] is None:
        cuda = "without CUDA"
    else:
        cuda = f"CUDA {facts['torch_cuda']}, {facts['gpu'] or 'no usable GPU'}"
    return _aligned(
        [
            (f"gfl_ops {facts['gfl_ops']}", facts["path"]),
            (f"python {facts['python']}", facts["platform"]),
            (f"torch {facts['torch']}", cuda),
            (f"triton {facts['triton'] or 'not installed'}", ""),
        ]
    )


def _core(facts: dict[str, Any]) -> list[str]:
    if not facts["native"]:
        return [f"native core: missing ({facts['load_error']})", f"  {_how_to_get_it()}"]
    return [
        "native core: loaded",
        f"  CPU   {facts['cpu_isa']}, {facts['cpu_threads']} threads",
        f"  CUDA  {facts['cuda_architectures'] or 'not compiled in'}",
    ]


def _triton(facts: dict[str, Any]) -> str:
    problem = _dispatch.triton_version_problem(facts["triton"])
    return f"triton kernels: missing ({problem})" if problem else f"triton kernels: triton {facts['triton']}"


def _how_to_get_it() -> str:
    if _is_source_tree():
        return f"this is the source tree; `pip install {PACKAGE.parent}` compiles the core and installs it"
    return "the package was installed with GFL_NATIVE=off; install it without that variable to compile the core"


def _is_source_tree() -> bool:
    return (PACKAGE.parent / "CMakeLists.txt").exists()


def _backends(facts: dict[str, Any]) -> list[str]:
    rows: list[tuple[str, ...]] = [("op", *DEVICES)]
    notes: dict[str, int] = {}
    for op, choices in facts["choices"].items():
        cells = []
        for device in DEVICES:
            backend, reason = choices[device]
            cells.append(f"{backend} [{notes.setdefault(reason, len(notes) + 1)}]")
        rows.append((op, *cells))
    head = f"backend: {facts['forced'] or 'auto'}"
    return [head, *_aligned(rows), *(f"  [{number}] {reason}" for reason, number in notes.items())]


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _installed_elsewhere() -> Path | None:
    """Where an installed gfl_ops lies that is not this one."""
    # Not importlib.metadata.distribution: in a source tree that was built once, the first is the tree's own egg-info.
    for distribution in importlib.metadata.distributions(name="gfl_ops"):
        module = Path(str(distribution.locate_file("gfl_ops/info.py")))
        if module.exists() and module.resolve().parent != PACKAGE:
            return module.parent.parent
    return None


def main() -> int:
    # `python -m` puts the current directory first, so in the source tree it finds the package that has no core,
    # while a script or an installed program gets the one that has.
    installed = _installed_elsewhere() if _is_source_tree() and _native.core() is None else None
    if installed is None:
        print(report())
        return 0
    print(f"{PACKAGE} is the source tree and has no native core; this is the installed package:\n", flush=True)
    return subprocess.run([sys.executable, "-m", "gfl_ops.info"], cwd=installed, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
