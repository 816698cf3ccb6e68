"""Which backend runs an op: the one asked for, or the best there is for the device."""

from __future__ import annotations

import functools
import os
import re
from types import TracebackType

import torch
from torch import Tensor

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
    "atss_assign",
    "nms",
    "postprocess",
    "decode_boxes",
    "gfl_loss",
    "multilevel_sigmoid_focal_loss",
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


@functools.cache
def _gpu_problem(index: int | None) -> str:
    """Why the compiled kernels cannot run on this GPU; empty where they can. Without a GPU to ask, they can."""
    if torch.version.hip is not None:
        return "the native core has no kernels for ROCm"
    if not torch.cuda.is_available():
        return ""
    major, minor = torch.cuda.get_device_capability(index)
    compiled = [tuple(divmod(int(digits), 10)) for digits in re.findall(r"\d+", _native.cuda_architectures())]
    if any(least <= (major, minor) for least in compiled):
        return ""
    return f"this GPU is sm_{major}{minor}, and the native core was built for {_native.cuda_architectures()}"


# torch.compile calls it while it traces, instead of tracing into it.
@torch.compiler.assume_constant_result
def _cuda_problem(index: int | None) -> str:
    return _gpu_problem(index) if _native.has_cuda() else "the native core was built without CUDA kernels"


def _native_problem(op: str, device: torch.device) -> str:
    if _native.core() is None:
        return f"the native core is not there ({_native.load_error})"
    kind = device.type
    if kind in ("cpu", "meta"):
        return ""
    return _cuda_problem(device.index) if kind == "cuda" else f"the native core has no kernels for {kind}"


def choose(op: str, device: torch.device | str) -> tuple[str, str]:
    """The backend for an op on a device, and why."""
    if _asked == "reference":
        return "reference", "asked for"
    problem = _native_problem(op, torch.device(device))
    if _asked == "native":
        if problem:
            raise RuntimeError(f"{op}: backend 'native' was asked for, but {problem}; see python -m gfl_ops.info")
        return "native", "asked for"
    return ("reference", problem) if problem else ("native", "compiled for this device")


def runs_natively(op: str, tensor: Tensor) -> bool:
    if tensor.is_cpu and _asked != "reference" and _native.core() is not None:  # the usual case, without the words
        return True
    return choose(op, tensor.device)[0] == "native"
