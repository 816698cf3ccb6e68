# mypy: disable-error-code="no-untyped-def"
"""What the Triton kernels share: their launch, numbers as arguments, and deterministic sums.

Configurations follow one rule: a tile holds about 8 elements a thread, 4 warps take it, and as many programs as fill
the GPU share the tiles. Nothing is tuned at run time. Sizes that change from call to call (rows, tiles) are never
specialised on, so that they compile nothing anew; classes, bins and options are constants of the model and of the
kernel. Pointers are specialised on their alignment to 16 bytes, which wide accesses need.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._arguments import SUM, compute_dtype
from .._op import SCALE_ARGUMENTS, Op

_PROGRAMS_PER_MULTIPROCESSOR = 16
_MULTIPROCESSORS_OF_THE_INTERPRETER = 1 / 4
_FINISH_BLOCK = 1024
_SCALE_BLOCK = 4096

# A kernel's constants.
COMPUTE = {torch.float32: tl.float32, torch.float64: tl.float64}


def cdiv(a: int, b: int) -> int:
    return -(-a // b)


def power_of_two(n: int) -> int:
    """The least one that is n or more."""
    return 1 << max(n - 1, 0).bit_length()


def compute_type(tensor: Tensor) -> Any:
    return COMPUTE[compute_dtype(tensor)]


def bits(value: float) -> int:
    """A double as the integer that `number` reads: as a float Triton would pass it in single precision."""
    return struct.unpack("q", struct.pack("d", value))[0]


@functools.cache
def _multiprocessors(device: torch.device) -> float:
    if device.type != "cuda":
        return _MULTIPROCESSORS_OF_THE_INTERPRETER
    return torch.cuda.get_device_properties(device).multi_processor_count


def programs_for(tiles: int, tensor: Tensor) -> int:
    """Enough to fill the device, each taking a share of the tiles; never 0, so that a sum of nothing is written too."""
    return max(1, min(tiles, int(_multiprocessors(tensor.device) * _PROGRAMS_PER_MULTIPROCESSOR)))


def launch(kernel: Any, programs: int, tensor: Tensor, *args: Any, num_warps: int = 4, **constants: Any) -> None:
    """On the tensor's device, with contraction off: a formula rounds as the native one does."""
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        with torch.cuda.device(tensor.device):
            kernel[(programs,)](*args, num_warps=num_warps, enable_fp_fusion=False, **constants)
    else:
        kernel[(programs,)](*args, num_warps=num_warps, enable_fp_fusion=False, **constants)


@triton.jit
def number(value_bits, DTYPE: tl.constexpr):
    return value_bits.to(tl.int64).to(tl.float64, bitcast=True).to(DTYPE)


@triton.jit
def effective_scale(scale_bits, avg_factor, DTYPE: tl.constexpr):
    """What a reduced loss is multiplied with; see gfl_reduction in csrc/gfl.h."""
    scale = number(scale_bits, DTYPE)
    if avg_factor is None:
        return scale
    else:
        return scale / (tl.load(avg_factor) + 1.1920928955078125e-07)


@triton.jit(do_not_specialize=["scale", "count"])
def finish_sums(partials, loss, other_loss, avg_factor, scale, count, BLOCK: tl.constexpr, DTYPE: tl.constexpr):
    """Program 0 adds the partial sums of the first loss in a fixed order, program 1 those of the other."""
    which = tl.program_id(0)
    offsets = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, count, BLOCK):
        total += tl.load(partials + which * count + start + offsets, mask=start + offsets < count, other=0.0)
    scaled = (tl.sum(total) * effective_scale(scale, avg_factor, DTYPE).to(tl.float64)).to(DTYPE)
    if which == 0:
        tl.store(loss, scaled)
    elif other_loss is not None:
        tl.store(other_loss, scaled)


def finish(
    partials: Tensor, pred: Tensor, losses: Sequence[Tensor | None], avg_factor: Tensor | None, scale_bits: int
) -> None:
    """Adds up what the programs left for each loss."""
    both = (*losses, None)[:2]
    count = partials.numel() // len(losses)
    constants = {"BLOCK": _FINISH_BLOCK, "DTYPE": compute_type(pred)}
    launch(finish_sums, len(losses), pred, partials, *both, avg_factor, scale_bits, count, **constants)


def arguments(kernel: Any, description: Any, values: dict[str, Any]) -> dict[str, Any]:
    """A kernel's arguments by their names: those of the description, floats as bits, constants in capitals; and what is
    given besides."""
    fields = description._asdict()
    given = {name: bits(x) if isinstance(x, float) else x for name, x in fields.items()}
    given |= {name.upper(): x for name, x in fields.items()}
    given |= values
    return {name: given[name] for name in kernel.arg_names}


def launch_loss(
    kernel: Any,
    description: Any,
    losses: dict[str, Tensor | None],
    size: int,
    block: int,
    **values: Any,
) -> None:
    """A kernel over tiles of `block` of `size` items, and what adds up the sums that its programs leave.

    Among its arguments are the losses where they are not reduced, `partials` where they are (neither in a backward,
    whose losses are None), avg_factor, `scale`, `rows` (the size) and `tiles`.
    """
    pred = description[0]
    scale_bits = bits(description.scale / max(description.divisor, 1))
    tiles = cdiv(size, block)
    programs = programs_for(tiles, pred)
    summed = description.mode == SUM
    partials = None
    if summed and next(iter(losses.values())) is not None:
        partials = torch.empty(len(losses) * programs, dtype=torch.float64, device=pred.device)
    values |= {name: None if summed else loss for name, loss in losses.items()}
    values |= {"partials": partials, "scale": scale_bits, "rows": size, "tiles": tiles, "DTYPE": compute_type(pred)}
    launch(kernel, programs, pred, **arguments(kernel, description, values))
    if partials is not None:
        finish(partials, pred, list(losses.values()), description.avg_factor, scale_bits)


def bins_constants(bins: int) -> dict[str, int]:
    """How far the loops over bins are unrolled, and how many bins of a row a gradient takes at once."""
    return {"BINS": bins, "UNROLL": 8, "BLOCK_BINS": min(power_of_two(bins), 8)}


def vector_stride(vector: Tensor | None) -> int:
    """Of a vector, or 0 for a single value that every row shares."""
    return vector.stride(0) if vector is not None and vector.ndim else 0


def matrix_strides(**matrices: Tensor | None) -> dict[str, int]:
    """<name>_row and <name>_col of each, of fewer dimensions broadcast along those that are missing, columns first."""
    strides = {}
    for name, matrix in matrices.items():
        strides[f"{name}_row"], strides[f"{name}_col"] = (*(() if matrix is None else matrix.stride()), 0, 0)[:2]
    return strides


@triton.jit
def _scale_tile(data, by, mask):
    value = tl.load(data, mask=mask)
    tl.store(data, (value.to(by.dtype) * by).to(value.dtype), mask=mask)


@triton.jit(do_not_specialize=["size"])
def scale_kernel(data, factor, size, BLOCK: tl.constexpr):
    by = tl.load(factor)
    start = tl.program_id(0).to(tl.int64) * BLOCK
    offsets = tl.arange(0, BLOCK)
    if by != 1.0:  # what a mean's own backward passes on: nothing to read or write
        if start + BLOCK <= size:
            _scale_tile(data + start + offsets, by, None)
        else:
            _scale_tile(data + start + offsets, by, start + offsets < size)


def _scale_gradient(grad: Tensor, factor: Tensor) -> None:
    size = grad.numel()
    if size:
        launch(scale_kernel, cdiv(size, _SCALE_BLOCK), grad, grad, factor, size, BLOCK=_SCALE_BLOCK, num_warps=8)


scale_gradient = Op("triton_scale_gradient_", SCALE_ARGUMENTS, "()", _scale_gradient, lambda *_: None)

INTERPRETED = not isinstance(finish_sums, triton.runtime.JITFunction)
