"""What README shows is what happens."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

import gfl_ops

README = (Path(__file__).resolve().parents[1] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)  # all, so that each ends its own
    return [text for name, text in found if name == language]


def test_example_runs() -> None:
    (example,) = (block for block in blocks("python") if block.startswith("import torch"))
    exec(compile(example, "README.md", "exec"), {})


def test_written_out_loss_becomes_one_call() -> None:
    (block,) = (block for block in blocks("python") if "# before" in block)
    before, after = block.split("# after")
    names = {
        "cross_entropy": torch.nn.functional.cross_entropy,
        "gfl_ops": gfl_ops,
        "logits": torch.randn(32, 17),
        "target": torch.rand(32) * 15.9,
        "weight": torch.rand(32),
        "avg_factor": 20.0,
    }
    expected, got = dict(names), dict(names)
    exec(before, expected)
    exec(after, got)
    torch.testing.assert_close(got["loss"], expected["loss"])


def test_post_processing_gives_what_is_shown() -> None:
    (block,) = (block for block in blocks("python") if "postprocess(" in block)
    sizes = [(80, 104), (40, 52), (20, 26), (10, 13), (5, 7)]
    names = {
        "gfl_ops": gfl_ops,
        "cls_scores": [torch.randn(2, 80, *size) - 4 for size in sizes],
        "bbox_preds": [torch.randn(2, 68, *size) for size in sizes],
        "image_shapes": [(640, 832), (600, 800)],
        "scale_factors": [1.5, (1.25, 1.2)],
    }
    exec(block, names)
    shown = re.findall(r"(found\.\w+)(?=,| )(?!\()", block)
    shapes = [tuple(eval(name, names).shape) for name in shown]
    assert shapes == [(2, 100, 4), (2, 100), (2, 100), (2,), (2, 100, 4)]


def raised(*, label: Tensor | None = None, score: Tensor | None = None, twice: bool = False) -> str:
    logits = torch.zeros(8400, 80, requires_grad=True)
    label = torch.zeros(8400, dtype=torch.int64) if label is None else label
    score = torch.zeros(8400) if score is None else score
    with pytest.raises((RuntimeError, TypeError, ValueError)) as error, gfl_ops.use_backend("native"):
        loss = gfl_ops.quality_focal_loss(logits, (label, score))
        if twice:
            (gradient,) = torch.autograd.grad(loss, logits, create_graph=True)
            gradient.sum().backward()
    return f"{error.type.__name__}: {error.value}"


@pytest.mark.usefixtures("needs_native")
def test_errors_look_as_shown() -> None:
    (shown,) = (block.splitlines() for block in blocks("") if "Error: " in block)
    assert shown == [
        raised(score=torch.zeros(8400, 1)),
        raised(label=torch.zeros(8400)),
        raised(score=torch.zeros(8400, requires_grad=True)),
        raised(twice=True),
    ]


def test_every_public_name_is_in_the_table() -> None:
    rest = {"DistributionBoxLosses", "__version__", "detector", "nn", "use_backend"}
    missing = [name for name in gfl_ops.__all__ if name not in rest and f"`{name}`" not in README]
    assert missing == []
