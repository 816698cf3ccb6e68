"""Which backend runs an op: the one asked for, or the best there is for the device."""

from __future__ import annotations

import functools
import importlib
import os
import re
from collections.abc import Callable
from types import ModuleType, TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor

from . import _native
from ._cuda_support import cuda_support_problem

BACKENDS = ("auto", "native", "triton", "reference")
ENVIRONMENT_VARIABLE = "GFL_OPS_BACKEND"
OPS = (
    "quality_focal_loss",
    "sigmoid_focal_loss",
    "distribution_focal_loss",
    "distribution_kl_loss",
    "integral",
    "distribution_statistics",
    "iou_loss",
    "box_iou",
    "generalized_focal_loss",
    "distribution_box_loss",
    "atss_assign",
    "task_aligned_assign",
    "max_iou_assign",
    "dynamic_soft_label_assign",
    "simota_assign",
    "fcos_assign",
    "nms",
    "postprocess",
    "decode_boxes",
    "gfl_loss",
    "multilevel_sigmoid_focal_loss",
    "varifocal_loss",
    "soft_bce_loss",
    "multilevel_varifocal_loss",
    "multilevel_soft_bce_loss",
    "decode_maps",
    "class_loss_maps",
    "box_loss_maps",
    "task_aligned_loss",
)
_WITHOUT_TRITON = {"nms", "postprocess", "decode_maps", "box_loss_maps", "task_aligned_loss"}
TRITON_OPS = {op for op in OPS if not op.endswith("_assign") and op not in _WITHOUT_TRITON}
_Function = TypeVar("_Function", bound=Callable[..., Any])
_triton_modules: dict[str, ModuleType] = {}
_LEAST_TRITON = (3, 3)


def _called_by_the_compiler(function: _Function) -> _Function:
    """torch.compile calls it while it traces, instead of tracing into it: torch.compiler.assume_constant_result, which
    would import all of torch's compiler, and Triton with it, to set this attribute."""
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def _checked(name: str, origin: str) -> str:
    if name not in BACKENDS:
        raise ValueError(f"{origin} must be one of {', '.join(BACKENDS)}, got {name!r}")
    return name


_asked = _checked(os.environ.get(ENVIRONMENT_VARIABLE, "auto"), ENVIRONMENT_VARIABLE)


class use_backend:
    """Runs everything inside on one backend: ``with gfl_ops.use_backend("reference"): ...``

    "auto" is the default: the native kernels where they were compiled for the device, on other GPUs the Triton ones,
    the reference elsewhere. The environment variable GFL_OPS_BACKEND sets the same for a whole process. The choice
    holds for all threads.
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
    capability = torch.cuda.get_device_capability(index)
    return cuda_support_problem(_native.cuda_architectures(), capability, *_native.cuda_versions())


@_called_by_the_compiler
def _cuda_problem(index: int | None) -> str:
    return _gpu_problem(index) if _native.has_cuda() else "the native core was built without CUDA kernels"


def _native_problem(device: torch.device) -> str:
    if not _native.is_there:
        return f"the native core is not available ({_native.load_error})"
    kind = device.type
    if kind in ("cpu", "meta"):
        return ""
    return _cuda_problem(device.index) if kind == "cuda" else f"the native core has no kernels for {kind}"


def triton_version_problem(version: str | None) -> str:
    if version is None:
        return "triton is not installed; pip install 'gfl_ops[triton]' installs it"
    if tuple(int(digits) for digits in re.findall(r"\d+", version)[:2]) < _LEAST_TRITON:
        return f"triton {version} is too old; {'.'.join(map(str, _LEAST_TRITON))} or later is needed"
    return ""


@functools.cache
def _missing_triton() -> str:
    try:
        import triton
    except ModuleNotFoundError:
        return triton_version_problem(None)
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    return triton_version_problem(triton.__version__)


# Triton is imported here at the earliest: when it was asked for, or no native kernel runs on a GPU.
@_called_by_the_compiler
def _triton_problem(kind: str) -> str:
    if kind not in ("cuda", "cpu", "meta"):
        return f"the triton kernels do not run on {kind}"
    problem = _missing_triton()
    if not problem and kind == "cpu" and not importlib.import_module("gfl_ops.ops._triton").INTERPRETED:
        return "the triton kernels run on CPU tensors only in Triton's interpreter (TRITON_INTERPRET=1)"
    return problem


def choose(op: str, device: torch.device | str) -> tuple[str, str]:
    """The backend for an op on a device, and why."""
    if _asked == "reference":
        return "reference", "asked for"
    device = torch.device(device)
    problem = _triton_problem(device.type) if _asked == "triton" else _native_problem(device)
    if _asked == "native" or (_asked == "triton" and (problem or op in TRITON_OPS)):
        if problem:
            raise RuntimeError(f"{op}: backend {_asked!r} was asked for, but {problem}; see python -m gfl_ops.info")
        return _asked, "asked for"
    backend, reason = _best(op, device)
    return backend, f"no triton kernels for it; {reason}" if _asked == "triton" else reason


def _best(op: str, device: torch.device) -> tuple[str, str]:
    problem = _native_problem(device)
    if not problem:
        return "native", "compiled for this device"
    if device.type != "cuda" or op not in TRITON_OPS:
        return "reference", problem
    triton_problem = _triton_problem(device.type)
    return ("reference", f"{problem}, and {triton_problem}") if triton_problem else ("triton", problem)


# All at once, so that what torch.compile has seen of the table stays true.
@_called_by_the_compiler
def _load_triton() -> None:
    if not _triton_modules:
        folders = {op: "integral" if op == "decode_boxes" else op for op in TRITON_OPS}  # whose kernel it uses
        loaded = {op: importlib.import_module(f"gfl_ops.ops.{folder}.triton") for op, folder in folders.items()}
        _triton_modules.update(loaded)


def kernels_for(op: str, tensor: Tensor, native: ModuleType) -> Any:
    """The module whose kernels run an op: `native`, its Triton kernels, or None where the reference does."""
    if tensor.is_cpu and _asked in ("auto", "native") and _native.is_there:  # the usual case, without words
        return native
    backend, _ = choose(op, tensor.device)
    if backend == "triton":
        _load_triton()
        return _triton_modules[op]
    return native if backend == "native" else None
