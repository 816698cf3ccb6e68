"""What the tests marked `gpu` share beside the graphs of benchmarks/harness/cuda_graph.py."""

from __future__ import annotations

import pytest
import torch


def needs_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
