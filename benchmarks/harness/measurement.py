"""One row of the table: checked, then timed in turns, then counted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import columns as columns_of
from benchmarks.harness import counting, gpu_time, own_process, random_inputs, timing, traffic
from benchmarks.harness.columns import Call, Column
from benchmarks.harness.random_inputs import Inputs
from benchmarks.harness.rows import Row

FORWARD, BACKWARD = "forward", "forward+backward"
ROTATED_BYTES = {"cpu": 96 << 20, "cuda": 256 << 20}  # more than the caches hold
MOST_COPIES = 16
MOST_KEPT_BYTES = 32 << 20  # of inputs: what larger ones free goes back to the system, which has other rows to serve
COUNTED = ("eager", *columns_of.OURS)  # launches and waits on a GPU; each look costs a tenth of a second

# Of a value, and of the largest value of its tensor: what the results may differ by.
TOLERANCES = {
    torch.float64: (1e-6, 1e-9),
    torch.float32: (1e-3, 2e-6),
    torch.bfloat16: (1e-2, 1e-4),
    torch.float16: (2e-3, 1e-4),
}


class Mismatch(AssertionError):
    """A column's result is not the reference's: it gets no figure."""


def forward(call: Call, inputs: Inputs) -> Any:
    with torch.no_grad():
        return call(inputs)


def step(row: Row, call: Call, inputs: Inputs) -> Tensor:
    for leaf in row.leaves(inputs):
        leaf.grad = None
    loss = row.scalar(call(inputs))
    loss.backward()
    return loss


def gradients(row: Row, call: Call, inputs: Inputs, incoming: Sequence[Tensor] | None = None) -> tuple[Tensor, ...]:
    """Loss and gradient and nothing else: `step` also adds the losses up, and fills a one to begin with. Without what
    comes in, ones are filled here as well."""
    losses = row.losses(call(inputs))
    incoming = [torch.ones_like(loss) for loss in losses] if incoming is None else incoming
    return torch.autograd.grad(losses, row.leaves(inputs), incoming)


def ones(row: Row, call: Call, inputs: Inputs) -> list[Tensor]:
    """Gradients that come in: one for each loss of the row."""
    with torch.no_grad():
        return [torch.ones_like(loss) for loss in row.losses(call(inputs))]


def expected_of(row: Row, inputs: Inputs, device: str) -> list[Tensor]:
    """The eager formulas' outputs and gradients in at least float32."""
    dtype = row.leaves(inputs)[0].dtype if row.main else torch.float32
    wide = row.on(inputs, device, torch.float64 if dtype == torch.float64 else torch.float32)
    return results(row, columns_of.eager_call(row), wide)


def results(row: Row, call: Call, inputs: Inputs) -> list[Tensor]:
    found = random_inputs.tensors(forward(call, inputs))
    if row.gradient:
        step(row, call, inputs)
        found += [leaf.grad for leaf in row.leaves(inputs) if leaf.grad is not None]
    return [x.detach().double() for x in found]


def check(row: Row, column: Column, found: list[Tensor], expected: list[Tensor], dtype: torch.dtype) -> None:
    relative, absolute = TOLERANCES[dtype]
    if column.name in columns_of.LIBRARIES and row.gradient:  # whose losses may be reduced otherwise
        found, expected = found[-len(row.main) :], expected[-len(row.main) :]
    if [x.shape for x in found] != [x.shape for x in expected]:
        shapes = [[tuple(x.shape) for x in tensors] for tensors in (found, expected)]
        raise Mismatch(f"{row.name}: {column.name} gives shapes {shapes[0]}, expected {shapes[1]}")
    for got, truth in zip(found, expected, strict=True):
        scale = float(truth.abs().max()) if truth.numel() else 0.0
        excess = (got - truth).abs() - relative * truth.abs() - absolute * scale
        if excess.numel() and not float(excess.max()) <= 0:
            raise Mismatch(f"{row.name}: {column.name} is off by {float((got - truth).abs().max()):.3g} of {scale:.3g}")


def copies_of(row: Row, rotated: list[Inputs]) -> timing.Step | None:
    """Copies the main inputs, which is what reading and writing them once costs."""
    sources = [[leaf.detach() for leaf in row.leaves(inputs)] for inputs in rotated]
    if not sources[0]:
        return None
    copies = [[torch.empty_like(x) for x in source] for source in sources]

    def copy(i: int) -> None:
        for target, source in zip(copies[i % len(copies)], sources[i % len(sources)], strict=True):
            target.copy_(source)

    return copy


class Measurement:
    """Of a row: made and checked, timed in one stretch or in several between which others have theirs, then counted."""

    def __init__(
        self,
        row: Row,
        chosen: list[Column],
        device: str,
        dtype: torch.dtype,
        seconds: float,
        everywhere: bool = False,
    ) -> None:
        self._row, self._device, self._dtype, self._seconds = row, device, dtype, seconds
        columns = [column for column in chosen if not columns_of.without(row, column, everywhere)]
        found = {column: column.call(row, device) for column in columns}
        self._calls = {column: call for column, call in found.items() if call is not None}
        self._turns = timing.Turns(device)
        if not self.has_ours():
            return
        torch.manual_seed(0)
        self._inputs = row.on(row.make(), device, dtype)
        expected = expected_of(row, self._inputs, device)
        for column, call in list(self._calls.items()):
            if column.name == "eager":  # what is expected came from it
                continue
            try:
                check(row, column, results(row, call, self._inputs), expected, dtype)
            except Mismatch:
                if column.name not in columns_of.LIBRARIES:
                    raise
                del self._calls[column]  # whose formula is another for this type: no figure, and no end to ours
        self._without_gradients()

    def has_ours(self) -> bool:
        return any(column.ours for column in self._calls)

    def turn(self, share: float = 1.0) -> None:
        """Goes on until that share of the time has passed. The inputs' copies, whose places in memory are chance, are
        made anew for each stretch and do not outlast it."""
        if self._turns.are_due(self._seconds, share):
            self._stretch(share)
            if self._bytes() > MOST_KEPT_BYTES:
                own_process.give_memory_back()

    def _stretch(self, share: float) -> None:
        rotated = self._rotation()
        steps: dict[str, timing.Step] = {}
        for part, named in self._runs().items():
            for name, run in named.items():
                steps[f"{part} {name}"] = lambda i, run=run: run(rotated[i % len(rotated)])
        copy = copies_of(self._row, rotated)
        if copy is not None:
            steps["copy"] = copy
        if self._device == "cuda":
            steps |= self._replays(rotated, copy)
        self._turns.run(steps, self._seconds, share, warm_up=max(3, 2 * len(rotated)))

    def _replays(self, rotated: list[Inputs], copy: timing.Step | None) -> dict[str, timing.Step]:
        """The same steps from CUDA graphs, as far as they can be captured."""
        steps: dict[str, timing.Step] = {} if copy is None else {"copy": copy}
        for part, named in self._bare_runs().items():
            for name, run in named.items():
                steps[f"{part} {name}"] = lambda i, run=run: run(rotated[i % len(rotated)])
        found = {name: gpu_time.replay(step, len(rotated)) for name, step in steps.items()}
        return {f"{name} replay": again for name, again in found.items() if again is not None}

    def is_measured(self) -> bool:
        return bool(self._turns.samples)

    def result(self) -> dict[str, Any]:
        """Milliseconds, spread and counts by pass and column."""
        row, samples = self._row, self._turns.samples
        copy = self._gpu_samples("copy") or samples.get("copy")
        return {
            "op": row.op,
            "shape": row.shape,
            "size": row.size,
            "dtype": str(self._dtype).removeprefix("torch."),
            "device": self._device,
            "bytes": self._bytes(),
            "copy_ms": None if copy is None else timing.figures(copy)["ms"],
            "moved_bytes": {
                part: traffic.moved(row, self._inputs, part == BACKWARD, self._device) for part in self._runs()
            },
            "passes": {
                part: {name: self._timed(part, name) | self._counted(part, name, run) for name, run in named.items()}
                for part, named in self._runs().items()
            },
        }

    def _gpu_samples(self, name: str) -> list[float]:
        return [sample / gpu_time.STEPS for sample in self._turns.samples.get(f"{name} replay", [])]

    def _timed(self, part: str, name: str) -> dict[str, Any]:
        """On a GPU `ms` is its own time; calls one after the other, and the host's part of one, stand beside it."""
        call = timing.figures(self._turns.samples[f"{part} {name}"])
        if self._device != "cuda":
            return call
        run = self._bare_runs()[part][name]
        replayed = self._gpu_samples(f"{part} {name}")
        own = timing.figures(replayed or [gpu_time.of_kernels(lambda: run(self._inputs))])
        host = gpu_time.of_host(lambda: run(self._inputs))
        return own | {"from": "replay" if replayed else "kernels", "call_ms": call["ms"], "host_ms": host}

    def _runs(self) -> dict[str, dict[str, Call]]:
        row = self._row
        runs: dict[str, dict[str, Call]] = {FORWARD: {}}
        if row.gradient:
            runs[BACKWARD] = {}
        for column, call in self._calls.items():
            runs[FORWARD][column.name] = lambda inputs, call=call: forward(call, inputs)
            if row.gradient:
                runs[BACKWARD][column.name] = lambda inputs, call=call: step(row, call, inputs)
        return runs

    def _bytes(self) -> int:
        return sum(leaf.nbytes for leaf in self._row.leaves(self._inputs))

    def _rotation(self) -> list[Inputs]:
        """Enough copies of the inputs that none is still cached when its turn comes again."""
        size = self._bytes()
        count = min(MOST_COPIES, max(1, ROTATED_BYTES[self._device] // size)) if size > 1 << 20 else 1
        return [self._row.on(self._inputs, self._device, self._dtype) for _ in range(count)]

    def _counted(self, part: str, name: str, run: Call) -> dict[str, int]:
        self._without_gradients()  # or the first thing that is counted would be its release
        found = {"peak_bytes": counting.peak_bytes(lambda: run(self._inputs), self._device)}
        if self._device == "cuda" and name in COUNTED:
            bare = self._bare_runs()[part][name]
            profile = counting.cuda_profile(lambda: bare(self._inputs))
            found |= {"launches": profile.launches, "syncs": profile.syncs}
        return found

    def _bare_runs(self) -> dict[str, dict[str, Call]]:
        """The passes without what this benchmark adds to them."""
        runs: dict[str, dict[str, Call]] = {}
        for part, named in self._runs().items():
            calls = {column.name: call for column, call in self._calls.items()}
            runs[part] = {name: self._bare_run(part, calls[name]) for name in named}
        return runs

    def _bare_run(self, part: str, call: Call) -> Call:
        if part == FORWARD:
            return lambda inputs: forward(call, inputs)
        incoming = ones(self._row, call, self._inputs)
        return lambda inputs: gradients(self._row, call, inputs, incoming)

    def _without_gradients(self) -> None:
        for leaf in random_inputs.tensors(list(self._inputs.values())):
            leaf.grad = None
