"""A call of the C ABI as any other program would make it: scale_gradient, whose struct is small."""

from __future__ import annotations

import ctypes


class Device(ctypes.Structure):
    _fields_ = [("type", ctypes.c_int32), ("index", ctypes.c_int32), ("stream", ctypes.c_void_p)]


class ScaleGradient(ctypes.Structure):
    _fields_ = [
        ("data", ctypes.c_void_p),
        ("data_dtype", ctypes.c_int32),
        ("size", ctypes.c_int64),
        ("factor", ctypes.c_void_p),
    ]


FLOAT32, CUDA, ERROR_CUDA = 1, 1, 3


def scale_gradient(library: ctypes.CDLL, device: Device, data: int, size: int, factor: int) -> int:
    """The status."""
    op = ScaleGradient(data, FLOAT32, size, factor)
    return library.gfl_scale_gradient_run(ctypes.byref(device), ctypes.byref(op))
