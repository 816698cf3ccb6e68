"""On a GPU: does an op wait for the device, and can it be captured in a CUDA graph and replayed on other inputs?

python -m benchmarks.harness.graph_capture --json capture.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import gfl_ops
from benchmarks.harness import columns, json_file, measurement, random_inputs, rows
from benchmarks.harness.random_inputs import STRIDES, Inputs
from benchmarks.harness.rows import Row


def _padded_postprocess(inputs: Inputs) -> list[Tensor]:
    """With a result of fixed size; a list of detections has to wait for their number."""
    found = gfl_ops.postprocess(inputs["cls_scores"], inputs["bbox_preds"], STRIDES, inputs["image_shapes"])
    return random_inputs.tensors([found.boxes, found.scores, found.labels, found.counts])


def _padded_nms(inputs: Inputs) -> tuple[Tensor, ...]:
    return gfl_ops.nms_padded(inputs["boxes"], inputs["scores"], 0.6, inputs.get("labels"), max_output=100)


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
    loss = measurement.step(row, call, inputs)
    return [loss.detach(), *(leaf.grad for leaf in row.leaves(inputs) if leaf.grad is not None)]


def check(row: Row, backend: str) -> dict[str, str]:
    device = "cuda"
    call = call_of(row, backend, device)
    if call is None:
        return {"skipped": f"no {backend} kernels"}
    torch.manual_seed(0)
    inputs, other = (prepared(row, row.on(row.make(), device, torch.float32), device) for _ in range(2))
    return {"waits": waits(row, call, inputs), "capture": capture(row, call, inputs, other)}


def waits(row: Row, call: Callable[[Inputs], Any], inputs: Inputs) -> str:
    outcome(row, call, inputs)  # the first call may build and load what later ones find
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        outcome(row, call, inputs)
    except RuntimeError as error:
        return f"FAILED {str(error).splitlines()[0]}"
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return "none"


def capture(row: Row, call: Callable[[Inputs], Any], inputs: Inputs, other: Inputs) -> str:
    try:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                outcome(row, call, inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = outcome(row, call, inputs)
        with torch.no_grad():
            for leaf, value in zip(row.leaves(inputs), row.leaves(other), strict=True):
                leaf.copy_(value)
        other = {**inputs, **{name: other[name] for name in row.main}}
        expected = outcome(row, call, other)
        for _ in range(2):  # a second replay finds what the first left behind
            for x in captured:
                x.fill_(7)
            graph.replay()
            if not all(torch.equal(a, b) for a, b in zip(captured, expected, strict=True)):
                return "FAILED the replay's result differs"
    except RuntimeError as error:
        return f"FAILED {str(error).splitlines()[0]}"
    return "captured and replayed"


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
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("graph_capture: no GPU")
    found: dict[str, dict[str, str]] = {}
    for row in chosen_rows():
        for backend in options.backend:
            result = check(row, backend)
            found[f"{row.name} {backend}"] = result
            print(f"{row.name} {backend}: {', '.join(f'{name} {words}' for name, words in result.items())}", flush=True)
            if options.json:
                json_file.write_json(options.json, found)
    sys.exit(any(words.startswith("FAILED") for result in found.values() for words in result.values()))


if __name__ == "__main__":
    main()
