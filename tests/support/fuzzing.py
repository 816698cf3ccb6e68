"""Random calls of every public function: run as a program, so that a crash ends this process and not the test run.

A call returns or raises one of our errors, which begin with the op's name. Where it returns on ordinary values, the
native result is compared with the reference's. `python -m tests.support.fuzzing 10000` tries that many, never twice the
same; `10000 nms integral` only those; and with `--seed 7` the same ones each time in the same surroundings (hypothesis
also draws the constants of the sources that it finds beside the program).
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

import gfl_ops
from tests.support import fuzzing_assigners, fuzzing_detections
from tests.support.running import as_tuple, map_tensors

FLOATS = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
EXTREMES = torch.tensor(
    [0.0, -0.0, 1.0, -1.0, 1e4, -1e4, 1e30, -1e30, 1e-40, float("inf"), float("-inf"), float("nan")],
    dtype=torch.float64,
)
BIG = torch.tensor([-(2**63), 2**63 - 1, 2**31, -(2**31) - 1, -1, 255, 2**32])

# ---- tensors -----------------------------------------------------------------------------------------


def dress(draw: Callable[..., Any], x: Tensor) -> Tensor:
    """The same values as another kind of view."""
    layout = draw(st.sampled_from(["plain", "plain", "transposed", "wide", "steps", "offset", "expanded"]))
    if x.dim() == 0 or layout == "plain":
        return x
    if layout == "transposed":
        return x.transpose(0, -1).contiguous().transpose(0, -1)
    if layout == "wide":
        return torch.cat([x, x, x], -1)[..., x.shape[-1] : 2 * x.shape[-1]]
    if layout == "steps":
        return x.repeat_interleave(2, 0)[::2]
    if layout == "offset":
        storage = x.new_empty(x.numel() + 3)
        return storage[3:].view(x.shape).copy_(x)
    return x[:1].expand(x.shape) if x.shape[0] else x


class Call:
    """One call under construction: sizes, dtype, device and values are drawn first, then the arguments."""

    def __init__(self, draw: Callable[..., Any]) -> None:
        self.draw = draw
        self.generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
        self.dtype = draw(st.sampled_from(FLOATS))
        self.device = draw(st.sampled_from(["cpu", "cpu", "cpu", "meta"]))
        self.ordinary = draw(st.booleans())
        self.rows = draw(st.sampled_from([0, 1, 2, 3, 7, 16, 17, 33, 64, 100]))
        self.cols = draw(st.sampled_from([0, 1, 2, 3, 8, 16, 17, 80, 81]))
        self.bins = draw(st.sampled_from([2, 3, 8, 16, 17, 33, 256]))

    def some(self, *strategies: Any) -> Any:
        return self.draw(st.one_of(*strategies))

    def floats(self, *shape: int, low: float = 0.0, high: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        x = torch.rand(shape, generator=self.generator, dtype=torch.float64) * (high - low) + low
        if not self.ordinary:
            pick = EXTREMES[torch.randint(0, len(EXTREMES), shape, generator=self.generator)]
            x = torch.where(torch.rand(shape, generator=self.generator) < 0.3, pick, x)
        return dress(self.draw, x.to(self.device, dtype or self.dtype))

    def other(self, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
        return self.floats(*shape, low=low, high=high, dtype=self.draw(st.sampled_from([torch.float32, *FLOATS])))

    def labels(self, rows: int, classes: int) -> Tensor:
        dtype = self.draw(st.sampled_from([torch.int64, torch.int32, torch.int16, torch.uint8]))
        x = torch.randint(-2, classes + 3, (rows,), generator=self.generator)
        if not self.ordinary:
            pick = BIG[torch.randint(0, len(BIG), (rows,), generator=self.generator)]
            x = torch.where(torch.rand(rows, generator=self.generator) < 0.3, pick, x)
        return dress(self.draw, x.to(self.device, dtype))

    def maybe(self, make: Callable[[], Any]) -> Any:
        return make() if self.draw(st.booleans()) else None

    def boxes(self, rows: int, dtype: torch.dtype | None = None) -> Tensor:
        corner = torch.rand(rows, 2, generator=self.generator, dtype=torch.float64) * 20
        x = torch.cat([corner, corner + torch.rand(rows, 2, generator=self.generator) * 9], 1)
        return dress(self.draw, x.to(self.device, dtype or self.dtype)) if self.ordinary else self.floats(rows, 4)

    def reduction(self, arguments: dict[str, Any]) -> dict[str, Any]:
        arguments["reduction"] = self.draw(st.sampled_from(["none", "mean", "sum"]))
        if arguments["reduction"] != "sum":
            number = self.some(st.none(), st.floats(0.5, 9.0), st.integers(1, 5), st.just("tensor"))
            arguments["avg_factor"] = self.other(low=1.0, high=4.0) if number == "tensor" else number
        return arguments


# ---- calls that are right, up to what is drawn -------------------------------------------------------


def quality_focal_loss(call: Call) -> dict[str, Any]:
    activated = call.draw(st.booleans())
    low, high = (0.02, 0.98) if activated else (-6.0, 6.0)
    index = call.draw(st.booleans())
    labels, scores = call.labels(call.rows, call.cols), call.other(call.rows)
    return call.reduction(
        {
            "pred": call.floats(call.rows, call.cols, low=low, high=high),
            "target": (labels, scores) if index else call.other(call.rows, call.cols),
            "weight": call.maybe(lambda: call.other(call.rows)),
            "beta": call.some(st.just(2.0), st.floats(0.0, 4.0), st.integers(0, 3)),
            "activated": activated,
        }
    )


def sigmoid_focal_loss(call: Call) -> dict[str, Any]:
    rows, cols = call.rows, call.cols
    shape = call.draw(st.sampled_from([(rows,), (rows, 1), (rows, cols), (rows * cols,)]))
    return call.reduction(
        {
            "pred": call.floats(rows, cols, low=-6, high=6),
            "target": call.labels(rows, cols) if call.draw(st.booleans()) else call.other(rows, cols),
            "weight": call.maybe(lambda: call.other(*shape)),
            "gamma": call.some(st.just(2.0), st.floats(0.0, 4.0)),
            "alpha": call.draw(st.floats(0.0, 1.0)),
        }
    )


def soft_bce_loss(call: Call) -> dict[str, Any]:
    rows, cols = call.rows, call.cols
    shape = call.draw(st.sampled_from([(rows,), (rows, 1), (rows, cols), (rows * cols,)]))
    index = call.draw(st.booleans())
    labels, scores = call.labels(rows, cols), call.other(rows)
    return call.reduction(
        {
            "pred": call.floats(rows, cols, low=-6, high=6),
            "target": (labels, scores) if index else call.other(rows, cols),
            "weight": call.maybe(lambda: call.other(*shape)),
            "class_weight": call.maybe(lambda: call.other(cols)),
        }
    )


def varifocal_loss(call: Call) -> dict[str, Any]:
    arguments = soft_bce_loss(call)
    del arguments["class_weight"]
    return arguments | {
        "alpha": call.draw(st.floats(0.0, 2.0)),
        "gamma": call.some(st.just(2.0), st.floats(0.0, 4.0)),
        "iou_weighted": call.draw(st.booleans()),
        "detach_factor": call.draw(st.booleans()),
    }


def distribution_focal_loss(call: Call) -> dict[str, Any]:
    lead = call.draw(st.sampled_from([(call.rows,), (call.rows, 3), (2, 2, 3), ()]))
    first = call.draw(st.sampled_from([0.0, -2.0, 0.5]))
    arguments: dict[str, Any] = {
        "pred": call.floats(*lead, call.bins, low=-6, high=6),
        "target": call.other(*lead, low=first, high=first + 0.98 * (call.bins - 1)),
        "weight": call.maybe(lambda: call.other(*lead)),
        "first_bin": first,
    }
    if call.draw(st.booleans()):
        arguments["left_weight"], arguments["right_weight"] = call.other(*lead), call.other(*lead)
    if call.draw(st.booleans()):
        arguments["first_bin"] = 0.0
        values = torch.linspace(-1, call.bins, call.bins, dtype=torch.float64)
        arguments["bin_values"] = dress(call.draw, values.to(call.device, torch.float32))
    return call.reduction(arguments)


def integral(call: Call) -> dict[str, Any]:
    channels = 4 * call.bins
    shape = call.draw(
        st.sampled_from(
            [(call.rows, channels), (2, 3, channels), (channels,), (2, channels, 3, 2), (1, channels, 1, 5)]
        )
    )
    pred = call.floats(*shape, low=-6, high=6)
    if len(shape) == 4 and call.draw(st.booleans()):
        pred = pred.contiguous(memory_format=torch.channels_last)
    values = call.maybe(lambda: call.other(call.bins, low=-3, high=9))
    return {"pred": pred, "bin_values": values, "num_bins": call.bins}


def distribution_kl_loss(call: Call) -> dict[str, Any]:
    lead = call.draw(st.sampled_from([(call.rows,), (call.rows, 3), (2, 2, 3), ()]))
    return call.reduction(
        {
            "student": call.floats(*lead, call.bins, low=-6, high=6),
            "teacher": call.other(*lead, call.bins, low=-6, high=6),
            "temperature": call.some(st.just(10), st.floats(0.5, 20.0)),
            "weight": call.maybe(lambda: call.other(*lead)),
            "bin_reduction": call.draw(st.sampled_from(["sum", "mean"])),
        }
    )


def distribution_statistics(call: Call) -> dict[str, Any]:
    arguments = integral(call)
    pred, bins = arguments["pred"], call.bins
    topk = call.draw(st.integers(1, bins))
    return {"edge_logits": pred, "topk": topk, "channel_dim": 1 if pred.ndim == 4 else None}


def iou_loss(call: Call) -> dict[str, Any]:
    kind = call.draw(st.sampled_from(["iou", "giou", "diou", "ciou"]))
    arguments = {
        "pred": call.boxes(call.rows),
        "target": call.boxes(call.rows, call.draw(st.sampled_from(FLOATS))),
        "weight": call.maybe(lambda: call.other(*call.draw(st.sampled_from([(call.rows,), (call.rows, 4)])))),
        "kind": kind,
        "eps": call.draw(st.sampled_from([1e-7, 1e-6, 1e-3])),
    }
    if kind == "iou":
        arguments["transform"] = call.draw(st.sampled_from(["linear", "square", "log"]))
    arguments |= iou_rules(call, kind)
    return call.reduction(arguments)


def iou_rules(call: Call, kind: str) -> dict[str, Any]:
    rules = {"eps_rule": call.draw(st.sampled_from(["floor", "add"]))}
    return rules | {"alpha_rule": call.draw(st.sampled_from(["half", "always"]))} if kind == "ciou" else rules


def one_kind_of_iou(call: Call) -> dict[str, Any]:
    arguments = iou_loss(call)
    for name in ("kind", "transform", "alpha_rule"):
        arguments.pop(name, None)
    return arguments


def box_iou(call: Call) -> dict[str, Any]:
    aligned = call.draw(st.booleans())
    return {"a": call.boxes(call.rows), "b": call.boxes(call.rows if aligned else call.cols), "aligned": aligned}


def generalized_focal_loss(call: Call) -> dict[str, Any]:
    shape = call.draw(st.sampled_from([(call.rows,), (call.rows, 3), (2, 1, 3), ()]))
    values = [
        call.some(st.floats(-2, 2), st.just("tensor"), st.just("scalar tensor")) for _ in ("y", "y_left", "y_right")
    ]
    values = [
        call.other(*shape) if value == "tensor" else call.other() if value == "scalar tensor" else value
        for value in values
    ]
    return call.reduction(
        {
            "p_left": call.floats(*shape, low=0.02, high=0.98),
            "p_right": call.floats(*shape, low=0.02, high=0.98, dtype=call.draw(st.sampled_from(FLOATS))),
            "y": values[0],
            "y_left": values[1],
            "y_right": values[2],
            "beta": call.some(st.just(2.0), st.floats(0.0, 4.0)),
            "weight": call.maybe(lambda: call.other(*shape)),
        }
    )


def distribution_box_loss(call: Call) -> dict[str, Any]:
    shape = call.draw(st.sampled_from([(call.rows, 4 * call.bins), (call.rows, 4, call.bins)]))
    stride = call.some(st.sampled_from([1.0, 8, 128.0]), st.just("tensor"))
    kind = call.draw(st.sampled_from(["iou", "giou", "diou", "ciou"]))
    return iou_rules(call, kind) | call.reduction(
        {
            "edge_logits": call.floats(*shape, low=-5, high=5),
            "anchor_points": call.other(call.rows, 2, high=40),
            "target_boxes": call.boxes(call.rows, torch.float32),
            "weight": call.maybe(lambda: call.other(call.rows)),
            "stride": call.other(call.rows, low=1, high=9) if stride == "tensor" else stride,
            "iou_kind": kind,
        }
    )


OPS: dict[str, Callable[[Call], dict[str, Any]]] = {
    "quality_focal_loss": quality_focal_loss,
    "sigmoid_focal_loss": sigmoid_focal_loss,
    "varifocal_loss": varifocal_loss,
    "soft_bce_loss": soft_bce_loss,
    "distribution_focal_loss": distribution_focal_loss,
    "integral": integral,
    "distribution_kl_loss": distribution_kl_loss,
    "distribution_statistics": distribution_statistics,
    "iou_loss": iou_loss,
    "giou_loss": one_kind_of_iou,
    "diou_loss": one_kind_of_iou,
    "ciou_loss": one_kind_of_iou,
    "box_iou": box_iou,
    "generalized_focal_loss": generalized_focal_loss,
    "distribution_box_loss": distribution_box_loss,
    **fuzzing_detections.OPS,
    **fuzzing_assigners.OPS,
}
PREDICTIONS = ("pred", "student", "edge_logits", "p_left", "p_right")

# ---- and what may be wrong with one ------------------------------------------------------------------

JUNK = [None, 0, -1, 1.5, float("nan"), float("inf"), True, "mean", "", [], (), [1.0], {}, object(), 2**70, 10**400, 1j]


def spoiled(call: Call, value: Any) -> Any:
    if not isinstance(value, Tensor) or call.draw(st.booleans()):
        return call.draw(st.sampled_from(JUNK))
    if value.is_sparse or value.is_complex():  # spoiled already, and little that could follow is implemented for it
        return value
    change = call.draw(
        st.sampled_from(["dtype", "more", "fewer", "longer", "shorter", "device", "grad", "sparse", "half"])
    )
    if change == "dtype":
        kinds = [torch.int64, torch.int8, torch.bool, torch.complex64, torch.uint8]
        return value.to(call.draw(st.sampled_from(kinds)))
    if change == "more":
        return value[None]
    if change == "fewer":
        return value.flatten()
    if change == "longer":
        return torch.cat([value, value]) if value.dim() else value.expand(2)
    if change == "shorter":
        return value[1:] if value.dim() else value
    if change == "device":
        return value.to("meta")
    if change == "grad":
        return value.detach().requires_grad_() if value.is_floating_point() else value
    if change == "sparse":
        return value.to_sparse() if value.device.type == "cpu" and value.dim() else value
    return value.to(torch.float16)


def spoil(call: Call, arguments: dict[str, Any]) -> bool:
    count = call.draw(st.sampled_from([0, 0, 0, 1, 1, 2]))
    for _ in range(count):
        name = call.draw(st.sampled_from(sorted(arguments)))
        value = arguments[name]
        if isinstance(value, tuple) and len(value) == 2:
            place = call.draw(st.integers(0, 1))
            value = list(value)
            value[place] = spoiled(call, value[place])
            arguments[name] = tuple(value)
        else:
            arguments[name] = spoiled(call, value)
    return count > 0


# ---- one try -----------------------------------------------------------------------------------------


def attempt(op: str, arguments: dict[str, Any], backend: str, with_grad: bool) -> tuple[Tensor, ...] | None:
    """Outputs and gradients, or None where one of our errors was raised."""
    arguments = dict(arguments)
    leaves = []
    for name in PREDICTIONS if with_grad else ():
        value = arguments.get(name)
        if isinstance(value, Tensor) and value.is_floating_point() and value.layout == torch.strided:
            arguments[name] = value.detach().requires_grad_()
            leaves.append(arguments[name])
    with gfl_ops.use_backend(backend):
        try:
            outputs = tuple(x for x in as_tuple(getattr(gfl_ops, op)(**arguments)) if x is not None)
        except (ValueError, TypeError, RuntimeError) as error:
            if not str(error).startswith(f"{op}: "):
                raise
            return None
        attached = [x for x in outputs if x.requires_grad]
        if attached:
            torch.autograd.backward(attached, [torch.ones_like(x) for x in attached])
    return (*[x.detach() for x in outputs], *[leaf.grad for leaf in leaves if leaf.grad is not None])


def compare(op: str, values_too: bool, native: tuple[Tensor, ...], reference: tuple[Tensor, ...]) -> None:
    assert len(native) == len(reference), op
    for x, y in zip(native, reference, strict=True):
        assert x.shape == y.shape and x.dtype == y.dtype and x.device == y.device, op
        if values_too:
            slack = 0.02 if x.dtype in (torch.float16, torch.bfloat16) else 2e-3
            torch.testing.assert_close(x, y, rtol=slack, atol=slack, equal_nan=True)


def one_try(draw: Callable[..., Any], ops: list[str]) -> None:
    op = draw(st.sampled_from(sorted(ops)))
    call = Call(draw)
    arguments = OPS[op](call)
    changed = spoil(call, arguments)
    with_grad = draw(st.booleans()) and op != "box_iou"
    before = map_tensors(lambda x: x.clone() if x.device.type == "cpu" else x, arguments)
    native = attempt(op, arguments, "native", with_grad)
    reference = attempt(op, arguments, "reference", with_grad)
    assert (native is None) == (reference is None), f"{op}: one backend refused what the other took"
    assert changed or native is not None, f"{op}: a good call was refused"
    if native is not None and reference is not None:
        ordinary = call.device == "cpu" and call.ordinary and not changed and op not in fuzzing_assigners.OPS
        compare(op, ordinary and fuzzing_detections.has_one_result(op, arguments), native, reference)
    for name, value in before.items():  # kernels write into nothing that was passed in
        if isinstance(value, Tensor) and value.layout == torch.strided and value.device.type == "cpu":
            torch.testing.assert_close(arguments[name], value, rtol=0, atol=0, equal_nan=True)


def fuzz(tries: int, ops: list[str], seed: int | None) -> None:
    warnings.simplefilter("error", UserWarning)  # a warning from torch means that something odd went past our checks
    torch.set_warn_always(True)  # some come once a process, and would not come again when a failure is repeated

    @settings(
        max_examples=tries,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        one_try(data.draw, ops)

    (run if seed is None else hypothesis.seed(seed)(run))()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("tries", type=int)
    parser.add_argument("ops", nargs="*", choices=[[], *OPS])  # none is an empty list, which argparse looks up, too
    parser.add_argument("--seed", type=int)
    args = parser.parse_args()
    fuzz(args.tries, args.ops or list(OPS), args.seed)
    print(f"{args.tries} tries")
