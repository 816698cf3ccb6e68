"""Run by test_memory.py in a process of its own: prints the extra memory of each op's step as JSON.

What is measured is the process's peak resident size over a forward and backward, as the kernel counts it, less its
size before, in units of the prediction's bytes. Nothing that touches memory escapes it, whoever allocated it; the
environment makes every large block a mapping of its own, so that what is freed is gone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import torch

import gfl_ops
from benchmarks.harness import random_head

ROWS, CLASSES, BINS = 40_000, 80, 17


def steps(dtype: torch.dtype) -> dict[str, tuple[torch.Tensor, Callable[[torch.Tensor], Any]]]:
    """The prediction, and the loss of it."""
    label = torch.randint(0, 4 * CLASSES, (ROWS,))
    score, weight = torch.rand(ROWS), torch.rand(ROWS)
    logits = torch.randn(ROWS, CLASSES, dtype=dtype)
    bins = torch.randn(4 * ROWS, BINS, dtype=dtype)
    teacher = torch.randn_like(bins)
    flat = bins.view(ROWS, 4 * BINS)
    maps = flat.view(ROWS // 400, 20, 20, 4 * BINS).permute(0, 3, 1, 2)
    boxes = torch.rand(8 * ROWS, 4, dtype=dtype)
    boxes[:, 2:] += boxes[:, :2]
    points = torch.rand(ROWS, 2) * 8
    targets = torch.cat([points - 3, points + 4], 1)
    return {
        "quality_focal_loss": (logits, lambda x: gfl_ops.quality_focal_loss(x, (label, score), weight, avg_factor=9.0)),
        "quality_focal_loss none": (
            logits,
            lambda x: gfl_ops.quality_focal_loss(x, (label, score), weight, reduction="none").sum(),
        ),
        "sigmoid_focal_loss": (logits, lambda x: gfl_ops.sigmoid_focal_loss(x, label, weight)),
        "varifocal_loss": (logits, lambda x: gfl_ops.varifocal_loss(x, (label, score), weight)),
        "soft_bce_loss": (
            logits,
            lambda x: gfl_ops.soft_bce_loss(x, (label, score), weight, class_weight=score[:CLASSES]),
        ),
        "distribution_focal_loss": (bins, lambda x: gfl_ops.distribution_focal_loss(x, score.repeat(4) * 16)),
        "integral": (flat, lambda x: gfl_ops.integral(x).sum()),
        "integral of channels-last maps": (maps, lambda x: gfl_ops.integral(x).sum()),
        "distribution_kl_loss": (bins, lambda x: gfl_ops.distribution_kl_loss(x, teacher, 10.0)),
        "distribution_statistics of maps": (
            maps.contiguous(),
            lambda x: gfl_ops.distribution_statistics(x, 1).sum(),
        ),
        "giou_loss": (boxes, lambda x: gfl_ops.giou_loss(x, boxes, avg_factor=7.0)),
        "distribution_box_loss": (flat, lambda x: sum(gfl_ops.distribution_box_loss(x, points, targets)[:2])),
    }


def status(key: str) -> int:
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def extra_memory_once(run: Callable[[], Any]) -> int:
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")  # the peak starts from here
    before = status("VmRSS")
    run()
    return status("VmHWM") - before


def extra_memory(run: Callable[[], Any], rounds: int = 5) -> int:
    """The median: the kernel may take pages back, or hand some to another thread, in the middle of one."""
    return sorted(extra_memory_once(run) for _ in range(rounds))[rounds // 2]


def step(pred: torch.Tensor, loss: Callable[[torch.Tensor], Any]) -> None:
    pred = pred.detach().requires_grad_()
    loss(pred).backward()


def forward(pred: torch.Tensor, loss: Callable[[torch.Tensor], Any]) -> None:
    with torch.no_grad():
        loss(pred)


def whole_loss() -> dict[str, dict[str, int]]:
    """Bytes of the GFL loss of one image at 800 x 1344 with 80 classes, by the number of ground truths."""
    found = {}
    for gts in (7, 1000):
        inputs = random_head.head(0, (gts,), (800, 1344), classes=80)

        def step(inputs: random_head.Head = inputs) -> None:
            random_head.gradients(random_head.losses_of(gfl_ops.gfl_loss, inputs), inputs)

        def forward(inputs: random_head.Head = inputs) -> None:
            with torch.no_grad():
                random_head.losses_of(gfl_ops.gfl_loss, inputs)

        step()
        found[str(gts)] = {"step": extra_memory(step), "forward": extra_memory(forward)}
    return found


def main() -> None:
    if sys.argv[1] == "gfl_loss":
        print(json.dumps(whole_loss()))
        return
    backend, dtype = sys.argv[1], getattr(torch, sys.argv[2])
    torch.set_num_threads(2)
    rounds = 5 if backend == "native" else 1  # the reference is far from its bounds, and slow with so much new memory
    found = {}
    with gfl_ops.use_backend(backend):
        for name, (pred, loss) in steps(dtype).items():
            unit = pred.numel() * pred.element_size()
            step(pred, loss)  # threads, caches and code are there before anything is counted
            found[name] = {
                "step": extra_memory(lambda pred=pred, loss=loss: step(pred, loss), rounds) / unit,
                "forward": extra_memory(lambda pred=pred, loss=loss: forward(pred, loss), rounds) / unit,
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
