"""Three-way comparison: truth is float64; a result may be as far from it as same-precision eager is, plus a floor."""

from __future__ import annotations

import torch
from torch import Tensor

VALUE_FLOOR = {torch.float64: 1e-12, torch.float32: 2e-6}
GRADIENT_FLOOR = {torch.float64: 1e-12, torch.float32: 1e-5}

# Half an ulp relative to the value, and half of the smallest step near zero: one rounding on store.
STORE_ROUNDING = {
    torch.float64: (0.0, 0.0),
    torch.float32: (0.0, 0.0),
    torch.bfloat16: (2.0**-8, 0.0),
    torch.float16: (2.0**-11, 2.0**-25),
}


def error(x: Tensor, truth: Tensor, stored_as: torch.dtype = torch.float64, scale: float = 0.0) -> float:
    """The largest error beyond one rounding on store, relative to max(|truth|, a tenth of the largest one, scale)."""
    x, truth = x.double().cpu(), truth.double().cpu()
    if truth.numel() == 0:
        return 0.0
    if stored_as == torch.float16:  # infinite is right for what a half cannot hold
        limit = torch.finfo(stored_as).max
        x, truth = x.clamp(-limit, limit), truth.clamp(-limit, limit)
    same = (x == truth) | (x.isnan() & truth.isnan())  # infinities of the same sign among them
    magnitude = truth.abs()
    finite = magnitude[magnitude.isfinite()]
    least = max(0.1 * float(finite.max()) if finite.numel() else 0.0, scale, torch.finfo(torch.float64).tiny)
    relative, absolute = STORE_ROUNDING[stored_as]
    beyond = ((x - truth).abs() - relative * magnitude * 1.001 - absolute).clamp(min=0)
    ratio = torch.where(same, 0.0, beyond / magnitude.clamp(min=least))
    return float(ratio.nan_to_num(nan=torch.inf, posinf=torch.inf).max())


def assert_close(
    name: str, x: Tensor, truth: Tensor, eager: Tensor | None, compute_dtype: torch.dtype, scale: float = 0.0
) -> None:
    """`eager` is the same-precision result, None where only the floor counts."""
    assert x.shape == truth.shape, f"{name}: shape {tuple(x.shape)}, expected {tuple(truth.shape)}"
    floor = (GRADIENT_FLOOR if name.startswith("grad") else VALUE_FLOOR)[compute_dtype]
    ours = error(x, truth, x.dtype, scale)
    eagers = 0.0 if eager is None else error(eager, truth, scale=scale)
    assert ours <= eagers + floor, f"{name}: error {ours:.3g}; same-precision eager has {eagers:.3g}, floor {floor:g}"
