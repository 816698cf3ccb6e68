"""Run by test_gfl_loss.py, once for each of two ranks: the losses and gradients of its own image, as JSON."""

from __future__ import annotations

import json
import sys

import torch

import gfl_ops
from benchmarks.harness.random_head import gradients, head, losses_of


def main() -> None:
    rank, store, backend = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    own = head(45, (9, 2), dtype=torch.float64).image(rank)
    with gfl_ops.use_backend(backend):
        losses = losses_of(gfl_ops.gfl_loss, own)
    sums = [float(gradient.abs().sum()) for gradient in gradients(losses, own)]
    print(json.dumps({"losses": [loss.item() for loss in losses], "gradients": sums}))
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
