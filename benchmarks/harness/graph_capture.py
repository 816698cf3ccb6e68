"""On a GPU: does an op wait for the device, and can it be captured in a CUDA graph and replayed on other inputs?

python -m benchmarks.harness.graph_capture --json capture.json
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gfl_ops
from benchmarks import ROOT
from benchmarks.harness import columns, cuda_graph, json_file, measurement, random_inputs, rows
from benchmarks.harness.random_inputs import STRIDES, Inputs
from benchmarks.harness.rows import Row


def _padded_postprocess(inputs: Inputs) -> list[Tensor]:
    """With a result of fixed size; a list of detections has to wait for their number."""
    found = gfl_ops.postprocess(inputs["cls_scores"], inputs["bbox_preds"], STRIDES, inputs["image_shapes"])
    return random_inputs.tensors([found.boxes, found.scores, found.labels, found.counts])


def _padded_nms(inputs: Inputs) -> tuple[Tensor, ...]:
    return gfl_ops.nms_padded(inputs["boxes"], inputs["scores"], 0.6, inputs.get("labels"), max_output=100)


FAILED = "FAILED"
FIRST_CALL = "the first call of a process"
# Ops whose usual result has a size that only the device knows, in the form that has not.
FIXED_SIZE: dict[str, Callable[[Inputs], Any]] = {
    "nms": _padded_nms,
    "batched_nms": _padded_nms,
    "postprocess": _padded_postprocess,
}


def prepared(row: Row, inputs: Inputs, device: str) -> Inputs:
    if row.op == "postprocess":
        return inputs | {"image_shapes": torch.tensor(inputs["image_shapes"], dtype=torch.float32, device=device)}
    return inputs


def call_of(row: Row, backend: str, device: str) -> Callable[[Inputs], Any] | None:
    call = columns.columns((backend,))[0].call(row, device)
    return None if call is None else FIXED_SIZE.get(row.op, call)


def outcome(row: Row, call: Callable[[Inputs], Any], inputs: Inputs) -> list[Tensor]:
    """Outputs, or loss and gradients."""
    if not row.gradient:
        return random_inputs.tensors(measurement.forward(call, inputs))
    losses = row.losses(call(inputs))
    gradients = torch.autograd.grad(losses, row.leaves(inputs), [torch.ones_like(loss) for loss in losses])
    return [*(loss.detach() for loss in losses), *gradients]


def check(row: Row, backend: str) -> dict[str, str]:
    device = "cuda"
    call = call_of(row, backend, device)
    if call is None:
        return {"skipped": f"no {backend} kernels"}
    torch.manual_seed(0)
    inputs, other = (prepared(row, row.on(row.make(), device, torch.float32), device) for _ in range(2))
    wait = cuda_graph.wait_of(lambda: outcome(row, call, inputs))
    return {"waits": f"{FAILED} {wait}" if wait else "none", "capture": capture(row, call, inputs, other)}


def capture(
    row: Row, call: Callable[[Inputs], Any], inputs: Inputs, other: Inputs, warm_ups: int = cuda_graph.WARM_UPS
) -> str:
    """Replays on other inputs must give what a call gives on them."""
    try:
        graph, results = cuda_graph.captured(lambda: outcome(row, call, inputs), warm_ups)
        with torch.no_grad():
            for leaf, value in zip(row.leaves(inputs), row.leaves(other), strict=True):
                leaf.copy_(value.mul_(0.75))  # some rows draw the same values each time
        other = {**inputs, **{name: other[name] for name in row.main}}
        expected = outcome(row, call, other)
        for _ in range(2):  # a second replay finds what the first left behind
            for x in results:
                x.fill_(7)
            graph.replay()
            if not all(torch.equal(a, b) for a, b in zip(results, expected, strict=True)):
                return f"{FAILED} the replay's result differs"
    except RuntimeError as error:
        return f"{FAILED} {str(error).splitlines()[0]}"
    return "captured and replayed"


def first_call() -> str:
    """The capture is the first that this process has to do with our kernels, so that they are loaded inside of it."""
    (row,) = (row for row in rows.table() if row.op == "gfl_loss" and "padded" in row.shape)
    call = call_of(row, "native", "cuda")
    if call is None:
        return f"{FAILED} no native kernels"
    inputs, other = (row.on(row.make(), "cuda", torch.float32) for _ in range(2))
    return capture(row, call, inputs, other, warm_ups=0)


def first_call_in_a_fresh_process() -> str:
    command = [sys.executable, "-m", "benchmarks.harness.graph_capture", "--first-call"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)
    lines = done.stdout.strip().splitlines() or [""]
    return lines[-1] if done.returncode == 0 else f"{FAILED} {lines[-1].removeprefix(FAILED).strip()}"


def outcomes(backends: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """What is worth most comes first: all rows of one backend, then those of the next."""
    if "native" in backends:
        yield FIRST_CALL, {"capture": first_call_in_a_fresh_process()}
    for backend in backends:
        for row in chosen_rows():
            yield f"{row.name} {backend}", check(row, backend)


def chosen_rows() -> list[Row]:
    """One size of each op; the whole loss with a few and with many ground truths."""
    found: dict[str, Row] = {}
    for row in rows.table():
        if row.size in ("coco2", "dense") and (row.size == "coco2" or row.op == "gfl_loss"):
            found.setdefault(f"{row.op} {row.size}", row)
    return list(found.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--backend", nargs="+", choices=columns.OURS, default=["native", "triton"])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--first-call", action="store_true", help="only the first call of a process, inside a capture")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("graph_capture: no GPU")
    if options.first_call:
        words = first_call()
        print(words)
        sys.exit(words.startswith(FAILED))
    found: dict[str, dict[str, str]] = {}
    for name, result in outcomes(options.backend):
        found[name] = result
        print(f"{name}: {', '.join(f'{key} {words}' for key, words in result.items())}", flush=True)
        if options.json:
            json_file.write_json(options.json, found)
    sys.exit(any(words.startswith(FAILED) for result in found.values() for words in result.values()))


if __name__ == "__main__":
    main()
