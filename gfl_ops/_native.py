"""The compiled core: whether it is there, and its kernels as functions of tensors and numbers."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

_module: ModuleType | None
try:
    _module = importlib.import_module("._core", __package__)  # whose error says what failed, without "circular import"
    load_error = ""
except ImportError as error:  # built with GFL_NATIVE=off, or run from a source tree
    _module = None
    load_error = str(error)

is_there = _module is not None
LARGE = 4 << 20  # bytes; numpy draws the same line

# gfl_dtype in csrc/gfl.h
_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.int32)

# Tracers, modes, transforms and profilers see a call only in torch's registry.
_WATCHERS = (
    torch._C._len_torch_dispatch_stack,
    torch._C._len_torch_function_stack,
    torch._C._functorch.peek_interpreter_stack,
    torch._C._get_tracing_state,
    torch._C._autograd._profiler_enabled,
)


def _stream_of(index: int) -> int:
    return torch.cuda.current_stream(index).cuda_stream


def _workspace(size: int, like: Tensor) -> Tensor:
    return torch.empty(size, dtype=torch.uint8, device=like.device)


def connect(module: ModuleType) -> None:
    """Tells a core what it has to know of torch."""
    module.connect(Tensor, torch.nn.Parameter, _DTYPES, _WATCHERS, _stream_of, _workspace)


def core() -> ModuleType | None:
    return _module


def has_cuda() -> bool:
    return _module is not None and bool(_module.has_cuda())


def cuda_architectures() -> str:
    return _module.cuda_architectures() if _module is not None else ""


def cuda_versions() -> tuple[int, int]:
    """Of the driver (0: there is none) and of the runtime inside the core, as 12040 for 12.4."""
    return (_module.cuda_driver_version(), _module.cuda_runtime_version()) if _module is not None else (0, 0)


def cpu_isa() -> str:
    return _module.cpu_isa() if _module is not None else ""


def cpu_threads() -> int:
    return _module.cpu_threads() if _module is not None else 0


_kernels: list[Kernel] = []


class Kernel:
    """A function of the C ABI, called with what fills the fields named, in that order; see csrc/kernel_call.h."""

    def __init__(self, function: str, fields: tuple[str, ...]) -> None:
        self.function = function
        self.fields = fields
        self.run: Callable[..., None] = self._missing if _module is None else self._in(_module, -1)
        _kernels.append(self)

    def _in(self, module: ModuleType, device_type: int) -> Callable[..., None]:
        return module.kernel(self.function, self.fields, device_type)

    def _missing(self, *_: Any) -> None:
        raise RuntimeError(f"gfl_ops: the native core is not available ({load_error}); see python -m gfl_ops.info")


is_routed = False  # for tests: native ops on CPU tensors run in another core


@contextmanager
def route(module: ModuleType, device_type: int) -> Iterator[None]:
    """Inside, every native op on CPU tensors runs in another core, as the device type given: for tests of CUDA code."""
    global is_routed
    before = is_routed, [(kernel, kernel.run) for kernel in _kernels]
    connect(module)
    for kernel in _kernels:
        kernel.run = kernel._in(module, device_type)
    is_routed = True
    try:
        yield
    finally:
        is_routed, runs = before
        for kernel, run in runs:
            kernel.run = run


def _are_plain(*args: Any) -> bool:
    """As the core's: whether all tensors have memory to be read, and nobody watches."""
    if any(watcher() for watcher in _WATCHERS):
        return False
    tensors = [x for arg in args for x in (arg if isinstance(arg, (list, tuple)) else (arg,)) if isinstance(x, Tensor)]
    return all(type(x) in (Tensor, torch.nn.Parameter) and (x.is_cpu or x.is_cuda) for x in tensors)


def _never(*_: Any) -> bool:
    return False


def signature() -> tuple[Callable[..., bool], Callable[..., Any]]:
    """(is_last, remember): whether arguments are like those that were remembered last; see csrc/bindings.cpp."""
    return (_never, _never) if _module is None else _module.signature()


are_plain: Callable[..., bool]
if _module is None:
    are_plain = _are_plain
else:
    connect(_module)
    are_plain = _module.are_plain


def backed_by_huge_pages(tensor: Tensor) -> Tensor:
    """Memory that a kernel will write whole: what is large comes fresh from the system, a page fault for each 4 KiB."""
    if tensor.nbytes >= LARGE and tensor.is_cpu and _module is not None:
        _module.use_huge_pages(tensor.data_ptr(), tensor.nbytes)
    return tensor


def as_map(tensor: Tensor) -> Tensor:
    """(B, C, H, W) with rows that follow one another: as it is where contiguous or channels-last, else a copy."""
    if tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor
    return tensor.contiguous()
