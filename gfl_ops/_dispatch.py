"""Which backend runs an op: the one asked for, or the best there is for the device."""

from __future__ import annotations

import os
from types import TracebackType

from . import _native

BACKENDS = ("auto", "native", "triton", "reference")
ENVIRONMENT_VARIABLE = "GFL_OPS_BACKEND"
OPS = (
    "quality_focal_loss",
    "sigmoid_focal_loss",
    "distribution_focal_loss",
    "integral",
    "iou_loss",
    "box_iou",
    "generalized_focal_loss",
    "distribution_box_loss",
)


def _checked(name: str, origin: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{origin} must be one of {', '.join(BACKENDS)}, got {name!r}")
    if name == "triton":
        raise ValueError(f"{origin}: this version has no triton kernels; 'native' and 'reference' are there")
    return name


_asked = _checked(os.environ.get(ENVIRONMENT_VARIABLE, "auto"), ENVIRONMENT_VARIABLE)


class use_backend:
    """Runs everything inside on one backend: ``with gfl_ops.use_backend("reference"): ...``

    "auto" is the default: the native kernels where they were compiled for the device, the reference elsewhere. The
    environment variable GFL_OPS_BACKEND sets the same for a whole process. The choice holds for all threads.
    """

    def __init__(self, name: str) -> None:
        self._name = _checked(name, "use_backend: name")
        self._before: list[str] = []

    def __enter__(self) -> None:
        global _asked
        self._before.append(_asked)
        _asked = self._name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        global _asked
        _asked = self._before.pop()


def forced() -> str | None:
    """The backend that was asked for, or None for "auto"."""
    return None if _asked == "auto" else _asked


def _native_problem(device_type: str) -> str:
    """Why the native kernels cannot run on such a device; empty where they can."""
    if _native.core() is None:
        return f"the native core is not there ({_native.load_error})"
    if device_type in ("cpu", "meta"):
        return ""
    if device_type == "cuda":
        return "" if _native.has_cuda() else "the native core was built without CUDA kernels"
    return f"the native core has no kernels for {device_type}"


def choose(op: str, device_type: str) -> tuple[str, str]:
    """The backend for an op on a device, and why."""
    problem = _native_problem(device_type)
    if _asked == "reference":
        return "reference", "asked for"
    if _asked == "native":
        if problem:
            raise RuntimeError(f"{op}: backend 'native' was asked for, but {problem}; see python -m gfl_ops.info")
        return "native", "asked for"
    return ("reference", problem) if problem else ("native", "compiled for this device")


def runs_natively(op: str, device_type: str) -> bool:
    return choose(op, device_type)[0] == "native"
