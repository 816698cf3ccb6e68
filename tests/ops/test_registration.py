"""The raw ops as torch.library sees them; the public functions under torch.compile and autocast."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import gfl_ops
from tests.support.backends import only_backends
from tests.support.case_maker import Case
from tests.support.cases import BY_ID, CASES, KINDS_OF_ARGUMENTS, TYPICAL
from tests.support.programs import environment
from tests.support.raw_ops import OF_THE_WHOLE_LOSS, RecordRawOps, with_raw_ops
from tests.support.running import as_tuple, run, run_case


def registered_ops() -> set[str]:
    return {name for name in torch._C._dispatch_get_all_op_names() if name.startswith("gfl_ops::")}


def record(case: Case) -> RecordRawOps:
    """Some rows in a half type, whose backward is an op of its own where float32 keeps what its forward left."""
    half = case.name.endswith(("none", "channels-last"))
    recorder = RecordRawOps()
    with recorder:
        run_case(gfl_ops, case, case.inputs(torch.bfloat16 if half else torch.float32))
    return recorder


@pytest.mark.parametrize("case", [BY_ID[name] for name in KINDS_OF_ARGUMENTS], ids=lambda c: c.id)
@with_raw_ops
def test_opcheck(case: Case, backend) -> None:
    calls = record(case).calls
    assert calls, "no raw op was called"
    for op, args, kwargs in calls:
        torch.library.opcheck(op, args, kwargs)


@with_raw_ops
def test_opcheck_covers_every_raw_op(backend) -> None:
    seen = {op.name() for name in KINDS_OF_ARGUMENTS for op, _, _ in record(BY_ID[name]).calls}
    if backend.name == "native":
        seen |= {
            f"gfl_ops::{op}"
            for op in (
                "atss_assign",
                "task_aligned_assign",
                "max_iou_assign",
                "cost_assign",
                "fcos_assign",
                "decode_maps",
                "nms",
                "postprocess",
            )
        }  # in the tests of these ops
    prefix = "gfl_ops::triton_" if backend.name == "triton" else "gfl_ops::"
    seen |= {prefix + name for name in OF_THE_WHOLE_LOSS}  # test_gfl_loss.py
    registered = {name for name in registered_ops() if ("::triton_" in name) == (backend.name == "triton")}
    assert {name.split(".")[0] for name in seen} == {name.split(".")[0] for name in registered}


def test_a_profiler_sees_the_raw_ops(needs_native) -> None:
    """Where nobody watches, calls pass by the registry; a profiler is somebody."""
    pred = torch.randn(5, 17, requires_grad=True)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        (2 * gfl_ops.distribution_focal_loss(pred, torch.rand(5))).backward()
    names = {event.name for event in profile.events()}
    assert names >= {"gfl_ops::distribution_focal_loss_forward", "gfl_ops::scale_gradient_"}


# ---- torch.compile -----------------------------------------------------------------------------------

# Not the CUDA kernels on the host: their route is a patch of the eager path. Inductor takes seconds per graph of the
# reference and has nothing to generate for a native op, so the former goes through the tracer alone.
traced_backends = only_backends(without=("host_cuda",))
compiled_backends = only_backends(without=("host_cuda", "reference"))


def assert_compiled_equals_eager(case: Case, backend: Any, compiler: str, dynamic: bool | None = None) -> None:
    function = getattr(gfl_ops, case.op)
    inputs = case.inputs(torch.float32, backend.device)
    eager = run(function, inputs, case.kwargs, case.differentiable)
    torch._dynamo.reset()
    compiled = run(
        torch.compile(function, fullgraph=True, backend=compiler, dynamic=dynamic),
        inputs,
        case.kwargs,
        case.differentiable,
    )
    # A native op is called as it is; the reference's own arithmetic may be fused in another order.
    tolerance = {"rtol": 0, "atol": 0} if backend.is_native else {"rtol": 1e-5, "atol": 1e-5}
    for name, x in compiled.named().items():
        torch.testing.assert_close(x, eager.named()[name], **tolerance, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("case", [BY_ID[name] for name in TYPICAL], ids=lambda c: c.id)
@compiled_backends
def test_compile(case: Case, backend) -> None:
    assert_compiled_equals_eager(case, backend, "inductor")


@pytest.mark.parametrize("case", [BY_ID[name] for name in TYPICAL], ids=lambda c: c.id)
@traced_backends
def test_compile_as_one_graph(case: Case, backend) -> None:
    # With symbolic sizes where that is quick: the reference's many small ops take seconds each.
    assert_compiled_equals_eager(case, backend, "aot_eager", dynamic=True if backend.is_native else None)


def test_every_public_function_is_compiled() -> None:
    assert {BY_ID[name].op for name in TYPICAL} == {case.op for case in CASES}


PROGRAM = Path(__file__).parents[1] / "support" / "changing_op.py"


def test_a_graph_that_was_compiled_for_another_op_of_this_name_is_not_found(tmp_path: Path) -> None:
    """Inductor looks graphs up by their text, which is the same for all of these ops."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.read_text())

    def compile_and_run(*options: str) -> str:
        command = [sys.executable, str(program), *options]
        cache = environment(TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=cache, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    new = "shape 1x{length}, graphs found: 0\n"
    assert compile_and_run("--length=3") == new.format(length=3)
    assert compile_and_run("--length=3") == "shape 1x3, graphs found: 1\n"
    assert compile_and_run("--length=4", "--version=2.0") == new.format(length=4)
    assert compile_and_run("--length=5", "--argument=y") == new.format(length=5)
    program.write_text(PROGRAM.read_text() + "# Another fake kernel.\n")
    assert compile_and_run("--length=6") == new.format(length=6)


# ---- no host sync ------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.id)
@only_backends(without=("host_cuda", "cuda", "triton_cuda"))
def test_nothing_waits_for_the_device(case: Case, backend) -> None:
    """Meta tensors have no values: whoever reads one on the host raises. Shapes and dtypes are those of the CPU."""
    real = run_case(gfl_ops, case, case.inputs(torch.bfloat16)).named()
    for name, x in run_case(gfl_ops, case, case.inputs(torch.bfloat16, "meta")).named().items():
        assert x.is_meta
        assert (x.shape, x.dtype, x.stride()) == (real[name].shape, real[name].dtype, real[name].stride()), name


# ---- autocast ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("autocast_dtype", [torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("case", [BY_ID[name] for name in TYPICAL], ids=lambda c: c.id)
def test_autocast_changes_nothing(case: Case, dtype: torch.dtype, autocast_dtype: torch.dtype, backend) -> None:
    inputs = case.inputs(dtype, backend.device)
    plain = run_case(gfl_ops, case, inputs).named()
    with torch.autocast(backend.device, autocast_dtype):
        function = getattr(gfl_ops, case.op)
        leaves = {name: inputs[name].detach().requires_grad_() for name in case.differentiable}
        outputs = as_tuple(function(**inputs | leaves, **case.kwargs))
    for i, x in enumerate(outputs):
        assert x.dtype == plain[f"output {i}"].dtype
        assert torch.equal(x, plain[f"output {i}"])


def test_autocast_head(backend) -> None:
    """A head whose convolution autocast makes half: the loss is float32, the weight's gradient flows."""
    head = torch.nn.Conv2d(3, 5, 1, device=backend.device)
    image = torch.rand(1, 3, 4, 4, device=backend.device)
    label = torch.arange(16, device=backend.device) % 7
    score = torch.rand(16, device=backend.device)
    with torch.autocast(backend.device, torch.bfloat16):
        logits = head(image).permute(0, 2, 3, 1).reshape(-1, 5)
        assert logits.dtype == torch.bfloat16
        loss = gfl_ops.quality_focal_loss(logits, (label, score))
    assert loss.dtype == torch.float32
    loss.backward()
    assert head.weight.grad.abs().sum() > 0
