"""What is installed and what runs where: ``python -m gfl_ops.info``."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

import torch

from gfl_ops import _dispatch, _native
from gfl_ops._version import __version__

PACKAGE = Path(__file__).resolve().parent
DEVICES = ("cpu", "cuda")


def report() -> str:
    """The whole report, as ``python -m gfl_ops.info`` prints it.

    Example:
        >>> from gfl_ops import info
        >>> print(info.report().splitlines()[0].split()[0])
        gfl_ops
    """
    return "\n".join([*_versions(), "", *_core(), "", *_backends()])


def _versions() -> list[str]:
    return _aligned(
        [
            (f"gfl_ops {__version__}", str(PACKAGE)),
            (f"python {platform.python_version()}", f"{platform.system()} {platform.machine()}"),
            (f"torch {torch.__version__}", _torch_cuda()),
            (f"triton {_version_of('triton')}", ""),
        ]
    )


def _version_of(distribution: str) -> str:
    # Asked of the metadata: importing triton takes longer than all the rest, and may fail.
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _torch_cuda() -> str:
    if torch.version.cuda is None:
        return "without CUDA"
    if not torch.cuda.is_available():
        return f"CUDA {torch.version.cuda}, no usable GPU"
    return f"CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}"


def _core() -> list[str]:
    if _native.core() is None:
        return [f"native core: missing ({_native.load_error or 'not built'})", *_how_to_get_it()]
    cuda = _native.cuda_architectures() if _native.has_cuda() else "not compiled in"
    return [
        "native core: loaded",
        f"  CPU: {_native.cpu_isa()}, {_native.cpu_threads()} threads",
        f"  CUDA: {cuda}",
    ]


def _how_to_get_it() -> list[str]:
    if (PACKAGE.parent / "CMakeLists.txt").exists():
        return [f"  This is the source tree; `pip install {PACKAGE.parent}` compiles the core and installs it."]
    return ["  The package was installed without one (GFL_NATIVE=off); an install without that variable compiles it."]


def _backends() -> list[str]:
    forced = _dispatch.forced()
    head = f"backend: {forced}, forced" if forced else "backend: auto"
    rows = [("op", *DEVICES)]
    notes: dict[str, str] = {}
    for op in _dispatch.OPS:
        cells = []
        for device in DEVICES:
            backend, reason = _choice(op, device)
            cells.append(f"{backend} [{notes.setdefault(reason, str(len(notes) + 1))}]")
        rows.append((op, *cells))
    reasons = [f"  [{number}] {reason}" for reason, number in notes.items()]
    return [head, *_aligned(rows), *reasons]


def _choice(op: str, device: str) -> tuple[str, str]:
    try:
        return _dispatch.choose(op, device)
    except RuntimeError as error:  # a backend is forced that this device does not have: the op would say so, too
        return "error", str(error).removeprefix(f"{op}: ")


def _aligned(rows: list[tuple[str, ...]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _installed_elsewhere() -> Path | None:
    """The directory of an installed gfl_ops that is not this one, as when `python -m` runs in the source tree."""
    try:
        distribution = importlib.metadata.distribution("gfl_ops")
    except importlib.metadata.PackageNotFoundError:
        return None
    module = Path(str(distribution.locate_file("gfl_ops/info.py")))
    return module.parent.parent if module.exists() and module.resolve().parent != PACKAGE else None


def main() -> int:
    installed = _installed_elsewhere() if _native.core() is None else None
    if installed is None:
        print(report())
        return 0
    # `python -m` puts the current directory first, so in the source tree it finds the package that has no core.
    print(f"{PACKAGE} is the source tree, which has no native core; the installed package says:\n", flush=True)
    return subprocess.run([sys.executable, "-m", "gfl_ops.info"], cwd=installed, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
