"""The choice of the Triton kernels, and what is said where they cannot run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

import gfl_ops
from gfl_ops import _dispatch
from tests import ROOT
from tests.support.backends import needs_triton

OP = "quality_focal_loss"


def python(code: str, **environment: str) -> str:
    paths = os.pathsep.join([str(Path(gfl_ops.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": paths} | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


@pytest.fixture
def triton_module(monkeypatch: pytest.MonkeyPatch):
    """Puts something in the place of the triton package; None for nothing at all."""

    def put(version: str | None) -> None:
        module = None
        if version is not None:
            module = ModuleType("triton")
            module.__version__ = version
        monkeypatch.setitem(sys.modules, "triton", module)

    _dispatch._missing_triton.cache_clear()
    yield put
    monkeypatch.undo()
    _dispatch._missing_triton.cache_clear()


@pytest.mark.parametrize(
    ("version", "words"),
    [
        (None, "triton is not installed; pip install 'gfl_ops[triton]' installs it"),
        ("3.2.0", "triton 3.2.0 is too old; 3.3 or later is needed"),
        ("2.9.1+git", "triton 2.9.1+git is too old; 3.3 or later is needed"),
    ],
)
def test_triton_that_will_not_do(version: str | None, words: str, triton_module) -> None:
    triton_module(version)
    logits, label, score = torch.zeros(2, 3), torch.tensor([0, 1]), torch.rand(2)
    with pytest.raises(RuntimeError) as error, gfl_ops.use_backend("triton"):
        gfl_ops.quality_focal_loss(logits, (label, score))
    expected = f"{OP}: backend 'triton' was asked for, but {words}; see python -m gfl_ops.info"
    assert str(error.value) == expected
    assert gfl_ops.quality_focal_loss(logits, (label, score)).isfinite()  # under "auto" nothing is said


@pytest.mark.parametrize("version", ["3.3.0", "3.10.0", "4.0"])
def test_triton_that_will_do(version: str, triton_module) -> None:
    triton_module(version)
    assert _dispatch._missing_triton() == ""


def test_auto_takes_native_then_triton_then_the_reference(monkeypatch: pytest.MonkeyPatch, triton_module) -> None:
    triton_module("3.7.0")
    with gfl_ops.use_backend("auto"):
        monkeypatch.setattr(_dispatch, "_native_problem", lambda device: "")
        assert _dispatch.choose(OP, "cuda")[0] == "native"
        monkeypatch.setattr(_dispatch, "_native_problem", lambda device: "no nvcc")
        assert _dispatch.choose(OP, "cuda") == ("triton", "no nvcc")
        assert _dispatch.choose(OP, "cpu") == ("reference", "no nvcc")
        assert _dispatch.choose("nms", "cuda") == ("reference", "no nvcc")
        triton_module("3.2.0")
        _dispatch._missing_triton.cache_clear()
        backend, reason = _dispatch.choose(OP, "cuda")
    assert backend == "reference"
    assert reason == "no nvcc, and triton 3.2.0 is too old; 3.3 or later is needed"


def test_cpu_tensors_need_the_interpreter() -> None:
    pytest.importorskip("triton")
    code = (
        "import torch, gfl_ops\n"
        "with gfl_ops.use_backend('triton'):\n"
        "    try: gfl_ops.giou_loss(torch.zeros(1, 4), torch.zeros(1, 4))\n"
        "    except RuntimeError as error: print(error)"
    )
    assert "on CPU tensors only in Triton's interpreter (TRITON_INTERPRET=1)" in python(code, TRITON_INTERPRET="0")


def test_importing_never_imports_triton() -> None:
    code = (
        "import sys, torch\n"
        "before = 'triton' in sys.modules\n"
        "import gfl_ops, gfl_ops.nn, gfl_ops.info\n"
        "gfl_ops.giou_loss(torch.zeros(1, 4), torch.zeros(1, 4))\n"
        "print(before or 'triton' not in sys.modules)"
    )
    assert python(code) == "True"


def test_ops_without_a_kernel_run_as_under_auto() -> None:
    needs_triton(interpreted=True)
    boxes = torch.tensor([[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.1], [9.0, 9.0, 12.0, 12.0]])
    with gfl_ops.use_backend("triton"):
        assert gfl_ops.nms(boxes, torch.tensor([0.9, 0.8, 0.7]), 0.5).tolist() == [0, 2]
        assert set(_dispatch.TRITON_OPS) < set(_dispatch.OPS)


def test_every_op_with_a_kernel_runs_it() -> None:
    needs_triton(interpreted=True)
    with gfl_ops.use_backend("triton"):
        for op in _dispatch.TRITON_OPS:
            assert _dispatch.choose(op, "cpu") == ("triton", "asked for")
            kernels = _dispatch.kernels_for(op, torch.zeros(1), gfl_ops)
            assert kernels.__name__.endswith(".triton")


def test_formulas_stand_beside_their_headers() -> None:
    headers = {path.stem for path in (ROOT / "csrc" / "math").glob("*.h")}
    formulas = {path.stem for path in (ROOT / "gfl_ops" / "ops" / "_triton_math").glob("*.py")} - {"__init__"}
    assert len(formulas) >= 8
    assert formulas <= headers
