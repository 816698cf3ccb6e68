"""Every op on a small input, forward and with its backward: what compute-sanitizer looks at; or a step on a large one.

compute-sanitizer --tool memcheck python -m benchmarks.harness.every_op_once
ncu python -m benchmarks.harness.every_op_once --large
"""

from __future__ import annotations

import argparse

import torch

from benchmarks.harness import columns, measurement, rows
from benchmarks.harness.rows import Row


def small_rows() -> list[Row]:
    """One of each op: 64 rows where the table has that, else its first, which for heads is two images."""
    found: dict[str, Row] = {}
    for row in rows.table():
        if row.op not in found or (row.size == "small" and row.shape.startswith("64")):
            found[row.op] = row
    return list(found.values())


def run(row: Row, backend: str, device: str, *, step_alone: bool = False) -> bool:
    """False where the backend lacks the op."""
    call = columns.columns((backend,))[0].call(row, device)
    if call is None:
        return False
    torch.manual_seed(0)
    inputs = row.on(row.make(), device, torch.float32)
    if not (step_alone and row.gradient):
        measurement.forward(call, inputs)
    if row.gradient:
        measurement.gradients(row, call, inputs)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--large", action="store_true", help="the sizes of a training step of 16 images, once each")
    parser.add_argument("--backend", choices=columns.OURS, default="native")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    options = parser.parse_args()
    for row in rows.largest() if options.large else small_rows():
        done = run(row, options.backend, options.device, step_alone=options.large)
        print(f"{row.name}: {'done' if done else f'no {options.backend} kernels for {options.device}'}", flush=True)
    if options.device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
