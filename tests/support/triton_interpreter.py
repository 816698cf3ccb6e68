"""Triton's interpreter, in which the Triton kernels run on CPU tensors. Imported before anything imports triton."""

from __future__ import annotations

import functools
import importlib.util
import os
from typing import Any

import torch

# Where there is a GPU the kernels are compiled for it instead: a process has room for one of the two.
os.environ.setdefault("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1")

IS_THERE = importlib.util.find_spec("triton") is not None
INTERPRETED = os.environ["TRITON_INTERPRET"] == "1"


@functools.cache
def round_to_nearest_even() -> None:
    """Makes the interpreter store bfloat16 as a GPU does.

    Its own conversion of float32 cuts the lower half of the bits off, an error of up to a whole unit in the last place,
    and drops NaNs whose payload lies in that half.
    """
    from triton import language
    from triton.runtime import interpreter

    convert = interpreter._convert_float

    def convert_float(data: Any, source: Any, target: Any, rounding_mode: Any) -> Any:
        if (source, target) == (language.float32, language.bfloat16):
            return torch.from_numpy(data.copy()).bfloat16().view(torch.int16).numpy().view("uint16")
        return convert(data, source, target, rounding_mode)

    interpreter._convert_float = convert_float
