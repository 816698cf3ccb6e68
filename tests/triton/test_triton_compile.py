"""The Triton kernels compiled for real GPUs, read where there is none: registers, local memory, wide accesses.

`pytest -s tests/triton/test_triton_compile.py` prints the tables; with `-m exhaustive`, those of every kernel.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.support import triton_compile

pytest.importorskip("triton")

ARCHITECTURES = (80, 90)


def check(rows: list[dict[str, Any]]) -> None:
    print("\narch dtype     registers stack shared instructions loads (wide) stores (wide)  kernel")
    for row in rows:
        print(
            "{architecture:4} {dtype:9} {registers:9} {stack:5} {shared:6} {instructions:12} "
            "{loads:5} {wide_loads:6} {stores:6} {wide_stores:6}  {call}: {kernel} {launch}".format(**row)
        )
    for row in rows:
        name = f"{row['call']} {row['dtype']} {row['kernel']} {row['launch']} for sm_{row['architecture']}"
        assert (row["stack"], row["local"]) == (0, 0), f"{name}: local memory"
        assert row["registers"] <= (255 if row["dtype"] == "float64" else 168), name
        if row["wide"]:
            assert row["wide_loads"] > 0, f"{name}: no load of 128 bits"
        if row["wide_gradient"]:
            assert row["wide_stores"] > 0, f"{name}: no store of 128 bits"


def test_the_usual_kernels() -> None:
    check(triton_compile.run("kernels", "90", "float32,bfloat16", ",".join(triton_compile.QUICK)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("dtype", triton_compile.ALL)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_kernel(architecture: int, dtype: str) -> None:
    rows = triton_compile.run("kernels", str(architecture), dtype)
    check(rows)
    kernels = set(triton_compile.KERNELS)
    if dtype in ("bfloat16", "float16"):  # whose gradients are made when they are wanted, scaled already
        kernels.remove("scale_kernel")
    assert {row["kernel"] for row in rows} == kernels


def test_sizes_compile_nothing_anew() -> None:
    """A launch is compiled for what is aligned, what is not, and what is one; never for each of the 20 sizes."""
    found = triton_compile.run("sizes")
    assert set(found) == set(triton_compile.QUICK)
    for call, kernels in found.items():
        for kernel, (launches, compilations) in kernels.items():
            print(f"{call}: {kernel} {launches} launches, {compilations} compilations")
            assert compilations <= 3 * launches, (call, kernel)
        assert any(compilations > 0 for _, compilations in kernels.values()), call
