"""The compiled core: whether it is there, and how tensors become the addresses and strides that it takes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

import torch
from torch import Tensor

Device = tuple[int, int, int]
Matrix = tuple[int, int, int, int]
Bins = tuple[int, int, int, int, int]
Map = tuple[int, int, int, int]
Maps = tuple[int, tuple[Map, ...]]

_module: ModuleType | None
try:
    _module = importlib.import_module("._core", __package__)  # whose error says what failed, without "circular import"
    load_error = ""
except ImportError as error:  # built with GFL_NATIVE=off, or run from a source tree
    _module = None
    load_error = str(error)

_CPU = (0, 0, 0)
_LARGE = 4 << 20  # bytes; numpy draws the same line
_CUDA_KIND = 1
_routed: tuple[ModuleType, int] | None = None

# gfl_dtype in csrc/gfl.h
_DTYPES = {
    torch.float64: 0,
    torch.float32: 1,
    torch.bfloat16: 2,
    torch.float16: 3,
    torch.int64: 4,
    torch.int32: 5,
}


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


@contextmanager
def route(module: ModuleType, device_kind: int) -> Iterator[None]:
    """Inside, every native op on CPU tensors runs in another core, as the device kind given: for tests of CUDA code."""
    global _routed
    before, _routed = _routed, (module, device_kind)
    try:
        yield
    finally:
        _routed = before


def routed() -> bool:
    return _routed is not None


def core_for(tensor: Tensor) -> tuple[ModuleType, Device]:
    """The core that computes on this tensor's device, and the device as the core takes it."""
    if tensor.is_cuda:
        if not has_cuda():
            raise RuntimeError(
                "gfl_ops: the native core has no CUDA kernels for this CUDA tensor; see python -m gfl_ops.info"
            )
        stream = torch.cuda.current_stream(tensor.device).cuda_stream
        return _module, (_CUDA_KIND, tensor.device.index, stream)  # type: ignore[return-value]
    if _routed is not None:
        return _routed[0], (_routed[1], 0, 0)
    if _module is None:
        raise RuntimeError(f"gfl_ops: the native core is not there ({load_error}); see python -m gfl_ops.info")
    return _module, _CPU


def expect_to_fill(tensor: Tensor) -> Tensor:
    """Memory that a kernel will write whole: what is large comes fresh from the system, a page fault for each 4 KiB."""
    if tensor.is_cpu and tensor.nbytes >= _LARGE and _module is not None:
        _module.use_huge_pages(tensor.data_ptr(), tensor.nbytes)
    return tensor


def compute_dtype(tensor: Tensor) -> torch.dtype:
    """What the kernels compute in: float32 for the half types, float64 for itself."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32


def dtype_code(tensor: Tensor) -> int:
    return _DTYPES[tensor.dtype]


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def matrix(tensor: Tensor | None) -> Matrix | None:
    """A (rows, cols) tensor; one of fewer dimensions is broadcast along those it lacks, columns first."""
    if tensor is None:
        return None
    strides = tensor.stride()
    rows, cols = (*strides, 0, 0)[:2]
    return tensor.data_ptr(), _DTYPES[tensor.dtype], rows, cols


def flat(tensor: Tensor | None) -> tuple[int, int] | None:
    """A vector, or a single value that every row shares."""
    if tensor is None:
        return None
    return tensor.data_ptr(), tensor.stride(0) if tensor.ndim else 0


def bins_of_rows(tensor: Tensor) -> Bins:
    """Logits as (length, sides * bins)."""
    return tensor.data_ptr(), _DTYPES[tensor.dtype], 0, tensor.stride(1), tensor.stride(0)


def as_map(tensor: Tensor) -> Tensor:
    """(B, C, H, W) with rows that follow one another: as it is where contiguous or channels-last, else a copy."""
    if tensor.is_contiguous() or tensor.is_contiguous(memory_format=torch.channels_last):
        return tensor
    return tensor.contiguous()


def maps(tensors: Sequence[Tensor]) -> Maps | None:
    """Maps (B, C, H, W) of several levels; H and W are one axis."""
    if not tensors:
        return None
    return _DTYPES[tensors[0].dtype], tuple(_map(tensor) for tensor in tensors)


def _map(tensor: Tensor) -> Map:
    batch_stride, channel_stride, *strides = tensor.stride()
    height, width = tensor.shape[2:]
    return tensor.data_ptr(), batch_stride, channel_stride, strides[1] if width > 1 else strides[0] if height > 1 else 1


def maps_within(tensor: Tensor, like: Sequence[Tensor]) -> Maps:
    """Maps laid out as those of `like`, one behind the other in one tensor."""
    address, size = tensor.data_ptr(), tensor.element_size()
    result = []
    for level in like:
        result.append((address, *_map(level)[1:]))
        address += level.numel() * size
    return _DTYPES[tensor.dtype], tuple(result)


def levels(maps: Sequence[Tensor], strides: Sequence[float]) -> tuple[tuple[int, int, float], ...]:
    """gfl_levels"""
    return tuple((*x.shape[2:], stride) for x, stride in zip(maps, strides, strict=True))


def workspace(module: ModuleType, device: Device, rows: int, cols: int, like: Tensor, sums: int = 1) -> Tensor:
    return torch.empty(sums * module.workspace_bytes(device, rows, cols), dtype=torch.uint8, device=like.device)


def maps_workspace(
    module: ModuleType, device: Device, levels: tuple[tuple[int, int, float], ...], maps: Sequence[Tensor]
) -> Tensor:
    batch, channels = maps[0].shape[:2]
    size = module.maps_workspace_bytes(device, levels, batch, channels)
    return torch.empty(size, dtype=torch.uint8, device=maps[0].device)
