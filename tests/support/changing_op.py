"""Run by test_registration.py: compiles a call of an op in a process of its own, as one release of the package has it.

Prints the shape that comes out, and how many graphs inductor found in its cache.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from gfl_ops import _op

parser = argparse.ArgumentParser()
parser.add_argument("--version", default="1.0")
parser.add_argument("--argument", default="x")
parser.add_argument("--length", type=int)
options = parser.parse_args()


def repeat(x: Tensor) -> Tensor:
    return x.new_empty(options.length)


_op.__version__ = options.version
op = _op.Op("repeat", {options.argument: Tensor}, "Tensor", repeat, repeat)
# A view of what the op returns: a compiled graph makes it of the sizes that it was compiled for.
compiled = torch.compile(lambda x: op(x)[None], fullgraph=True)
shape = compiled(torch.zeros(2)).shape
print(f"shape {'x'.join(map(str, shape))}, graphs found: {counters['inductor']['fxgraph_cache_hit']}")
