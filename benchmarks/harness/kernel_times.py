"""On a GPU: the launches and waits of every op, and of each kernel its time and its share of a copy's bandwidth.

python -m benchmarks.harness.kernel_times --json kernels.json
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import columns, counting, json_file, measurement, predictions, rows, timing, traffic
from benchmarks.harness.random_inputs import Inputs
from benchmarks.harness.rows import Row

CALLS = 6  # in a profile
INPUTS = 3  # of the large sizes: none is in a cache when its turn comes again
COPIED_BYTES = 1 << 30
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def short_name(name: str) -> str:
    """Without its namespaces and what stands behind the name."""
    found = re.match(r"(?:void )?(?:(?:\w+|\(anonymous namespace\))(?:<[^<>]*>)?::)*(\w+)", name)
    return found[1] if found else name


def kernels_of(
    on_device: tuple[tuple[str, float], ...],
    calls: int,
    expected: list[traffic.Kernel],
    predict: Callable[[traffic.Kernel], float],
) -> list[dict[str, Any]]:
    """Of one call: each launch with the median of its times; and where the table has it the bytes that it has to move,
    and the time that was predicted for it."""
    each = len(on_device) // calls
    if each * calls != len(on_device):
        raise RuntimeError(f"{len(on_device)} launches in {calls} calls")
    found, waiting = [], list(expected)
    for place in range(each):
        name = short_name(on_device[place][0])
        times = [on_device[call * each + place][1] for call in range(calls)]
        kernel = next((kernel for kernel in waiting if kernel.name == name), None)
        if kernel is not None:
            waiting.remove(kernel)
        found.append(
            {
                "kernel": name,
                "us": statistics.median(times),
                "predicted_us": predict(kernel) if kernel else None,
                "bytes": kernel.bytes if kernel else 0,
            }
        )
    return found


def runs_of(row: Row, call: columns.Call, inputs: list[Inputs]) -> Callable[[], None]:
    """CALLS calls of the pass with the gradient, where there is one."""
    incoming = measurement.ones(row, call, inputs[0]) if row.gradient else []

    def run() -> None:
        for i in range(CALLS):
            chosen = inputs[i % len(inputs)]
            if row.gradient:
                measurement.gradients(row, call, chosen, incoming)
            else:
                measurement.forward(call, chosen)

    return run


def measure(row: Row, dtype: torch.dtype, device: str, copy_bandwidth: float) -> dict[str, Any] | None:
    call = columns.columns(("native",))[0].call(row, device)
    if call is None:
        return None
    torch.manual_seed(0)
    inputs = [row.on(row.make(), device, dtype) for _ in range(INPUTS)]
    run = runs_of(row, call, inputs)
    run()
    profile = counting.cuda_profile(run)
    expected = traffic.kernels(row, inputs[0], row.gradient)
    name = str(dtype).removeprefix("torch.")
    kernels = kernels_of(
        profile.on_device, CALLS, expected, lambda kernel: predictions.microseconds(row.op, kernel, name)
    )
    for kernel in kernels:
        kernel["of_copy"] = kernel["bytes"] / (kernel["us"] * 1e-6) / copy_bandwidth if kernel["bytes"] else None
    return {"launches": len(kernels), "syncs": profile.syncs / CALLS, "kernels": kernels}


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a copy that no cache holds."""
    source = torch.randint(256, (COPIED_BYTES,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    turns = timing.Turns("cuda")
    turns.run({"copy": lambda i: target.copy_(source)}, 0.2)
    return 2 * COPIED_BYTES / (timing.figures(turns.samples["copy"])["ms"] * 1e-3)


def lines(name: str, result: dict[str, Any]) -> Iterator[str]:
    yield f"{name}: {result['launches']} launches, {result['syncs']:g} waits"
    for kernel in result["kernels"]:
        share = (
            "" if kernel["of_copy"] is None else f"{kernel['bytes'] / 1e6:>10.2f} MB{kernel['of_copy']:>8.0%} of copy"
        )
        predicted = "" if kernel["predicted_us"] is None else f"{kernel['predicted_us']:>9.2f} predicted"
        yield f"    {kernel['kernel']:<34}{kernel['us']:>9.2f} us{predicted:<20}{share}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("kernel_times: no GPU")
    copy = copy_bandwidth()
    print(f"a copy: {copy / 1e12:.2f} TB/s", flush=True)
    content: dict[str, Any] = {"copy_bandwidth": copy, "rows": {}, "failed": {}}
    for row in rows.largest():
        for dtype in DTYPES if row.main else ("float32",):
            name = f"{row.name} {dtype}"
            try:
                result = measure(row, DTYPES[dtype], "cuda", copy)
            except RuntimeError as error:  # one row less
                content["failed"][name] = str(error).splitlines()[0]
                print(f"{name}: FAILED {content['failed'][name]}", flush=True)
                continue
            if result is not None:
                content["rows"][name] = result
                print("\n".join(lines(name, result)), flush=True)
            if options.json:
                json_file.write_json(options.json, content)
    if options.json:
        json_file.write_json(options.json, content)
    sys.exit(bool(content["failed"]))


if __name__ == "__main__":
    main()
