"""What an H200 should take for each kernel, by a model that was written before the first run.

python -m benchmarks.harness.predictions        writes the tables of docs/gpu.md

A kernel takes as long as its bytes take in memory or its instructions take to issue, whichever is longer, a little more
where both are close, and some time to start and to end. Kernels that neither of the two limits have a guess.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import ROOT
from benchmarks.harness import rows, traffic
from benchmarks.harness.rows import Row
from benchmarks.harness.traffic import BOTH, GRADIENT, LOSS, Kernel

COPY = 4.3e12  # bytes a second, read and written, of a copy on an H200
ISSUED = 0.75 * 132 * 128 * 1.98e9  # instructions of a lane a second, at three quarters of the most
START = 2.0  # microseconds
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# For each element of the main input, in float32 and bfloat16. Those of the dense losses and of iou_loss are the
# shortest way once around the hot loop in the machine code for sm_90, as tests/cuda/test_cuda_resources.py reads it;
# those of the distributions are counted by hand in the source. The logits of post-processing are N(-4, 1): one in seven
# is above the bound, and a warp goes on until the last of its lanes is done.
INSTRUCTIONS = {
    ("class_loss_flat", LOSS): (35.2, 22.3),
    ("class_loss_flat", BOTH): (43.4, 0.0),
    ("class_loss_flat", GRADIENT): (0.0, 27.3),
    ("multilevel_class_loss_kernel", LOSS): (28.1, 19.1),
    ("multilevel_class_loss_kernel", BOTH): (36.6, 0.0),
    ("multilevel_class_loss_kernel", GRADIENT): (0.0, 24.4),
    ("iou_loss_kernel", LOSS): (50.0, 51.0),
    ("iou_loss_kernel", BOTH): (58.0, 0.0),
    ("iou_loss_kernel", GRADIENT): (0.0, 59.3),
    ("generalized_focal_loss_kernel", LOSS): (85.0, 86.0),
    ("generalized_focal_loss_kernel", GRADIENT): (99.0, 101.0),
    ("distribution_focal_loss_kernel", LOSS): (18.0, 18.0),
    ("distribution_focal_loss_kernel", BOTH): (26.0, 0.0),
    ("distribution_focal_loss_kernel", GRADIENT): (0.0, 26.0),
    ("integral_kernel", LOSS): (16.5, 17.0),
    ("integral_kernel", GRADIENT): (23.5, 24.0),
    ("distribution_kl_loss_kernel", LOSS): (33.0, 33.0),
    ("distribution_kl_loss_kernel", BOTH): (38.0, 0.0),
    ("distribution_kl_loss_kernel", GRADIENT): (0.0, 38.0),
    ("distribution_statistics_kernel", LOSS): (38.0, 38.5),
    ("distribution_statistics_kernel", GRADIENT): (55.0, 55.5),
    ("distribution_box_loss_kernel", LOSS): (35.0, 36.0),
    ("distribution_box_loss_kernel", GRADIENT): (50.0, 51.0),
    ("count_kernel", LOSS): (58.0, 55.0),
    ("mask_kernel", LOSS): (25.0, 25.0),  # for each pair
}

# Microseconds beside what bytes and instructions take: chains of dependent reads, few warps, or nothing to do at all.
GUESSED = {
    "finish_sums": 1.0,
    "scale_kernel": 1.0,  # each block reads the factor, which is 1
    "atss_claim": 8.0,
    "task_aligned_claim": 12.0,
    "task_aligned_settle": 6.0,
    "task_aligned_won": 6.0,
    "fcos_claim": 4.0,
    "max_iou_compare": 8.0,
    "max_iou_claim": 4.0,
    "cost_prepare": 6.0,
    "cost_claim": 30.0,
    "cost_settle": 8.0,
    "finish_weights": 3.0,
    "positive_weights_kernel": 8.0,
    "positive_boxes_kernel": 6.0,
    "finish_boxes": 1.0,
    "box_losses_kernel": 0.5,
    "bound_kernel": 8.0,
    "collect_kernel": 28.0,  # nearly every chunk has a candidate, and is read again
    "order_kernel": 10.0,  # 80 blocks, 66 steps of sorting
    "decode_kernel": 40.0,  # 80,000 boxes, whose 68 logits lie a whole plane apart
    "sort_kernel": 3.0,
    "scan_kernel": 60.0,
    "write_kernel": 1.0,
}
GUESSED_OF = {("postprocess", "scan_kernel"): 5.0}  # which ends with the hundredth box


def by_memory(kernel: Kernel) -> float:
    """Microseconds, as the next ones."""
    return kernel.bytes / COPY * 1e6


def by_instructions(kernel: Kernel, dtype: str) -> float:
    of_element = INSTRUCTIONS.get((kernel.name, kernel.makes), (0.0, 0.0))[list(DTYPES).index(dtype)]
    return kernel.elements * of_element / ISSUED * 1e6


def microseconds(op: str, kernel: Kernel, dtype: str) -> float:
    limits = by_memory(kernel), by_instructions(kernel, dtype)
    longer = sum(limit**4 for limit in limits) ** 0.25  # they overlap, the less so the closer they are
    return longer + START + GUESSED_OF.get((op, kernel.name), GUESSED.get(kernel.name, 0.0))


def largest(*passes: bool) -> Iterator[tuple[Row, str, list[Kernel]]]:
    """What kernel_times.py measures, with or without gradient; the inputs have no data."""
    for row in rows.largest():
        for dtype, of_torch in DTYPES.items() if row.main else [("float32", torch.float32)]:
            with FakeTensorMode():
                inputs = row.on(row.make(), "cpu", of_torch)
                for with_gradient in passes:
                    yield row, dtype, traffic.kernels(row, inputs, with_gradient and row.gradient)


# ---- the tables of docs/gpu.md ---------------------------------------------------------------------------


def operations() -> str:
    """A line for each operation and type: the pass with the gradient, where there is one."""
    body = []
    for row, dtype, found in largest(True):
        time = sum(microseconds(row.op, kernel, dtype) for kernel in found)
        memory = sum(map(by_memory, found))
        moved = _number(sum(kernel.bytes for kernel in found) / 1e6)
        body.append((f"`{row.op}` {row.shape}", dtype, str(len(found)), moved, f"{time:.0f} us", _share(memory, time)))
    return _table(("operation", "type", "launches", "MB", "time", "of a copy"), 2, body)


def kernels() -> str:
    """A line for each kernel and what it makes, at the largest size of the first operation that has it."""
    body: dict[tuple[str, str, str], tuple[str, ...]] = {}
    for row, dtype, found in largest(True, False):
        for kernel in found:
            time = microseconds(row.op, kernel, dtype)
            limits = [_number(kernel.bytes / 1e6), _number(by_memory(kernel)), _number(by_instructions(kernel, dtype))]
            makes = kernel.makes if kernel.elements or kernel.makes != LOSS else ""
            line = (f"`{kernel.name}`", makes, f"`{row.op}`", dtype, *limits)
            of_types = dtype if kernel.elements else ""  # the others take the same time in all
            key = kernel.name, kernel.makes, of_types
            body.setdefault(key, (*line, f"{time:.0f} us", _share(by_memory(kernel), time)))
    lines = sorted(body.values(), key=lambda line: line[0])  # those of one kernel together
    return _table(("kernel", "makes", "in", "type", "MB", "memory", "issue", "time", "of a copy"), 4, lines)


def _number(value: float) -> str:
    return f"{value:.1f}" if value >= 0.05 else ""


def _share(memory: float, time: float) -> str:
    """Of a copy's bandwidth; nothing where hardly anything is moved."""
    return f"{memory / time:.0%}" if memory > START else ""


def _table(names: tuple[str, ...], words: int, body: list[tuple[str, ...]]) -> str:
    line = "|" + "|".join(["---"] * words + ["--:"] * (len(names) - words)) + "|"
    return "\n".join(["| " + " | ".join(names) + " |", line, *("| " + " | ".join(row) + " |" for row in body), ""])


TABLES = {"operations": operations, "kernels": kernels}
BLOCK = re.compile(r"(<!-- predictions: (\w+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
PAGE = ROOT / "docs" / "gpu.md"


def of_text(text: str) -> str:
    """The page with its tables made anew."""
    return BLOCK.sub(lambda found: found[1] + TABLES[found[2]]() + found[4], text)


if __name__ == "__main__":
    PAGE.write_text(of_text(PAGE.read_text()))
