"""Raw ops in torch's registry, and what makes them differentiable.

A raw op is described once: its arguments' names and types. Its schema follows from them, and with them every backend
fills its call. torch.compile, fake tensors and profilers see an op in the registry; where nobody watches, a call goes
straight to the kernel, since the registry's way to a kernel in Python costs 10 us. Library.define with an
implementation and a fake kernel, and one autograd.Function around them: custom_op and register_autograd do the same at
two to three times the cost of a call.

    Op                  a raw op: quality_focal_loss's forward, its backward, nms, atss_assign
    DifferentiableOp    two raw ops, forward and backward, and what is kept between them
    LossOp              a DifferentiableOp whose reduced loss makes its gradient in the forward
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NewType, get_type_hints

import torch
from torch import Tensor

from ._arguments import ROWS, SUM
from ._native import LARGE, Kernel, are_plain, backed_by_huge_pages
from ._version import __version__

Size = NewType("Size", int)  # an int that torch.compile may make symbolic
Arguments = Mapping[str, Any]  # names and types; a type that is a string stands in the schema as it is

_SCHEMA_TYPES = {
    Tensor: "Tensor",
    Tensor | None: "Tensor?",
    list[Tensor]: "Tensor[]",
    int: "int",
    Size: "SymInt",
    list[Size]: "SymInt[]",
    float: "float",
    list[float]: "float[]",
    bool: "bool",
}
_library = torch.library.Library("gfl_ops", "DEF")


def arguments_of(description: type) -> dict[str, Any]:
    """The fields of a NamedTuple."""
    return get_type_hints(description)


@functools.cache
def _source(path: str) -> bytes:
    return Path(path).read_bytes() if Path(path).is_file() else b""


def _overload(schema: str, fake: Callable[..., Any]) -> str:
    """The name of an op's only overload, which another release's op of the same name does not have.

    Inductor keeps compiled graphs on disk and finds them by the text of the traced graph, which has an op's name, but
    not its schema nor what its fake kernel said of the outputs. A graph that an older gfl_ops left there would run
    against today's op, and give wrong results or write past its outputs.
    """
    depends_on = (__version__.encode(), schema.encode(), _source(__file__), _source(fake.__code__.co_filename))
    return "v" + hashlib.sha256(b"\0".join(depends_on)).hexdigest()[:12]


class Op:
    """gfl_ops::<name>, with one kernel for CPU and CUDA."""

    def __init__(
        self, name: str, arguments: Arguments, returns: str, kernel: Callable[..., Any], fake: Callable[..., Any]
    ) -> None:
        words = [f"{kind if isinstance(kind, str) else _SCHEMA_TYPES[kind]} {x}" for x, kind in arguments.items()]
        schema = f"({', '.join(words)}) -> {returns}"
        overload = _overload(schema, fake)
        _library.define(f"{name}.{overload}{schema}", tags=(torch.Tag.pt2_compliant_tag,))
        for key in ("CPU", "CUDA"):
            _library.impl(f"{name}.{overload}", kernel, key)
        torch.library.register_fake(f"gfl_ops::{name}.{overload}", fake, lib=_library)
        self.kernel = kernel
        self.registered = getattr(getattr(torch.ops.gfl_ops, name), overload)

    def __call__(self, *args: Any) -> Any:
        if torch.compiler.is_dynamo_compiling() or not are_plain(*args):
            return self.registered(*args)
        return self.kernel(*args)


# ---- gradients ---------------------------------------------------------------------------------------


class _Differentiate(torch.autograd.Function):
    """The one autograd.Function; which op it differentiates is its first argument."""

    @staticmethod
    def forward(ctx: Any, op: DifferentiableOp, forward: Callable[..., Any], num_inputs: int, *args: Any) -> Any:
        return op.forward(ctx, forward, num_inputs, *args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return (None, None, None, *ctx.op.backward(ctx, *grads))


# Function.apply without what it does for transforms: are_plain has seen that there is none.
_differentiate_plain = super(torch.autograd.Function, _Differentiate).apply

# Absent from a torch that moved it: then every graph counts as kept, which costs a copy and is right.
keeps_graph: Callable[[], bool] = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", lambda: True)


def wants_gradient(*inputs: Tensor) -> bool:
    if torch.is_grad_enabled():
        for x in inputs:
            if x.requires_grad:
                return True
    return False


def refuse_second_derivative(op: str, grads: Sequence[Tensor]) -> Sequence[Tensor]:
    """The gradients as they leave a backward. Differentiating them again is an error, never a silent zero."""
    if not torch.is_grad_enabled() or torch.compiler.is_dynamo_compiling():
        return grads
    refusal = f"{op}: a second derivative is not implemented; use_backend('reference') has one"
    barrier = torch._C._functions.DelayedError(refusal.encode(), len(grads))
    grads = barrier(*(grad.detach().requires_grad_() for grad in grads))
    return grads if isinstance(grads, tuple) else (grads,)


def _save(ctx: Any, args: Sequence[Any]) -> None:
    ctx.constants = [None if isinstance(arg, Tensor) else arg for arg in args]
    ctx.places = [i for i, arg in enumerate(args) if isinstance(arg, Tensor)]
    ctx.save_for_backward(*[args[i] for i in ctx.places])


def _saved(ctx: Any) -> list[Any]:
    args = list(ctx.constants)
    for place, tensor in zip(ctx.places, ctx.saved_tensors, strict=True):
        args[place] = tensor
    return args


class DifferentiableOp:
    """outputs = op(inputs, *others), differentiable by the inputs; every other tensor is a constant.

    Made of raw ops: forward(*inputs, *others) and backward(*grads, *inputs, *others), which gives a gradient, or a
    tuple of one an input. An op that keeps a tensor for its backward in place of its arguments returns it from
    `compute`, and makes the gradients of it in `gradients_of_kept`. `compute` is given the forward to call: the raw op,
    or its kernel where nobody watches.
    """

    materialize_grads = True  # zeros for the gradient of an output that nothing used, in place of None

    def __init__(self, name: str, raw_forward: Op, raw_backward: Op, num_losses: int = 1) -> None:
        self.name = name  # as errors have it
        self.raw_forward = raw_forward
        self.raw_backward = raw_backward
        self.num_losses = num_losses  # the outputs behind these have no gradient

    def compute(
        self, forward: Callable[..., Any], inputs: Sequence[Tensor], others: Sequence[Any], keep: bool
    ) -> tuple[Any, Tensor | None]:
        return forward(*inputs, *others), None

    def gradients(self, grads: Sequence[Any], inputs: Sequence[Tensor], others: Sequence[Any]) -> Sequence[Tensor]:
        result = self.raw_backward(*grads, *inputs, *others)
        return (result,) if isinstance(result, Tensor) else result

    def gradients_of_kept(self, kept: Tensor, grad: Tensor, layouts: Any) -> Sequence[Tensor]:
        raise NotImplementedError

    layouts: Callable[[Sequence[Tensor]], Any] | None = None  # what `gradients_of_kept` has to know of the inputs

    def __call__(self, inputs: Sequence[Tensor], *others: Any) -> Any:
        watched = torch.compiler.is_dynamo_compiling() or not are_plain(*inputs, *others)
        forward = self.raw_forward if watched else self.raw_forward.kernel
        if torch.is_grad_enabled():
            for x in inputs:
                if x.requires_grad:
                    differentiate = _Differentiate.apply if watched else _differentiate_plain
                    return differentiate(self, forward, len(inputs), *inputs, *others)
        return self.compute(forward, inputs, others, False)[0]

    def forward(self, ctx: Any, forward: Callable[..., Any], num_inputs: int, *args: Any) -> Any:
        others = args[num_inputs:]
        outputs, kept = self.compute(forward, args[:num_inputs], others, True)
        ctx.op, ctx.num_inputs, ctx.num_others = self, num_inputs, len(others)
        ctx.is_kept = kept is not None
        if kept is not None:
            ctx.layouts = None if self.layouts is None else self.layouts(args[:num_inputs])
            ctx.save_for_backward(kept)
        else:
            _save(ctx, args)
        if isinstance(outputs, tuple):
            ctx.mark_non_differentiable(*outputs[self.num_losses :])
        if not self.materialize_grads:
            ctx.set_materialize_grads(False)
        return outputs

    def backward(self, ctx: Any, *grads: Any) -> Sequence[Tensor | None]:
        if ctx.is_kept:
            gradients = self.gradients_of_kept(ctx.saved_tensors[0], grads[0], ctx.layouts)
        elif all(grad is None for grad in grads[: self.num_losses]):
            return (None,) * (ctx.num_inputs + ctx.num_others)
        else:
            args = _saved(ctx)
            n = ctx.num_inputs
            gradients = self.gradients(grads[: self.num_losses], args[:n], args[n:])
        return (*refuse_second_derivative(self.name, gradients), *(None,) * ctx.num_others)


# ---- losses ------------------------------------------------------------------------------------------


def _scale_gradient(grad: Tensor, factor: Tensor) -> None:
    _scale_kernel.run(grad, grad.numel(), factor)


_scale_kernel = Kernel("scale_gradient_run", ("data", "size", "factor"))
SCALE_ARGUMENTS = {"grad": "Tensor(a!)", "factor": Tensor}
scale_gradient = Op("scale_gradient_", SCALE_ARGUMENTS, "()", _scale_gradient, lambda *_: None)


def gradient_in_forward(pred: Tensor, mode: int) -> bool:
    """Whether a loss makes its gradient in the forward, while loss and gradient share their exponentials; the backward
    then only multiplies. Not where it is unreduced, and not for half types: a half gradient would be rounded twice, and
    under a gradient scaler it would underflow before the scale reaches it."""
    return mode == SUM and pred.dtype in (torch.float32, torch.float64)


def scaled(grad: Tensor, factor: Tensor, scale: Op) -> Tensor:
    """A gradient from the forward times the incoming one. In a graph that is kept, the saved one stays as it is."""
    if torch.compiler.is_dynamo_compiling():
        return grad * factor
    if keeps_graph():
        grad = grad.clone()
    if type(factor) is Tensor and factor.is_cpu and factor.item() == 1:  # on a CPU looking is cheaper than the call
        return grad
    scale(grad, factor)
    return grad


class RawLoss:
    """The raw ops gfl_ops::<name>_forward and _backward of a loss on one backend.

    The description begins with pred and the reduction's mode. run(grad_loss, loss, grad, *arguments) writes into the
    loss of a forward, and into the gradient where there is one.
    """

    def __init__(self, name: str, description: type, run: Callable[..., None], scale: Op = scale_gradient) -> None:
        arguments = arguments_of(description)
        with_grad = {**arguments, "with_grad": bool}
        with_grad_loss = {"grad_loss": Tensor, **arguments}
        self.run = run
        self.scale = scale
        self.forward = Op(f"{name}_forward", with_grad, "(Tensor, Tensor)", self._forward, self._forward_fake)
        self.backward = Op(f"{name}_backward", with_grad_loss, "Tensor", self._backward, self._backward_fake)

    def _loss_like(self, pred: Tensor, mode: int) -> Tensor:
        size = () if mode == SUM else pred.shape[:1] if mode == ROWS else pred.shape
        return pred.new_empty(size, dtype=torch.float64 if pred.dtype == torch.float64 else torch.float32)

    def _forward_fake(self, pred: Tensor, mode: int, *args: Any) -> tuple[Tensor, Tensor]:
        return self._loss_like(pred, mode), torch.empty_like(pred) if args[-1] else pred.new_empty(0)

    def _forward(self, pred: Tensor, mode: int, *args: Any) -> tuple[Tensor, Tensor]:
        loss = self._loss_like(pred, mode)
        if not args[-1]:
            self.run(None, loss, None, pred, mode, *args[:-1])
            return loss, pred.new_empty(0)
        grad = torch.empty_like(pred)
        if grad.nbytes >= LARGE:
            backed_by_huge_pages(grad)
        self.run(None, loss, grad, pred, mode, *args[:-1])
        return loss, grad

    def _backward_fake(self, grad_loss: Tensor, pred: Tensor, *args: Any) -> Tensor:
        return torch.empty_like(pred)

    def _backward(self, grad_loss: Tensor, pred: Tensor, *args: Any) -> Tensor:
        grad = backed_by_huge_pages(torch.empty_like(pred))
        self.run(grad_loss, None, grad, pred, *args)
        return grad


class LossOp(DifferentiableOp):
    """loss = op((pred,), mode, ...), differentiable by pred."""

    def __init__(self, name: str, raw: RawLoss) -> None:
        super().__init__(name, raw.forward, raw.backward)
        self.scale = raw.scale

    def compute(
        self, forward: Callable[..., Any], inputs: Sequence[Tensor], others: Sequence[Any], keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        (pred,) = inputs
        keep = keep and gradient_in_forward(pred, others[0])
        loss, grad = forward(pred, *others, keep)
        return loss, grad if keep else None

    def gradients_of_kept(self, kept: Tensor, grad: Tensor, layouts: Any) -> Sequence[Tensor]:
        return (scaled(kept, grad, self.scale),)


class NativeLoss:
    """RawLoss's run on the compiled core: a function of the C ABI, whose struct has the description's names. The sizes
    named are pred's first ones."""

    def __init__(self, function: str, description: type, *sizes: str) -> None:
        fields = (*arguments_of(description), *sizes)
        self.num_sizes = len(sizes)
        self.forward = Kernel(f"{function}_forward", (*fields, "loss", "grad"))
        self.backward = Kernel(f"{function}_backward", (*fields, "grad_loss", "grad"))

    def __call__(self, grad_loss: Tensor | None, loss: Tensor | None, grad: Tensor | None, *args: Any) -> None:
        sizes = args[0].shape[: self.num_sizes]
        if grad_loss is None:
            self.forward.run(*args, *sizes, loss, grad)
        else:
            self.backward.run(*args, *sizes, grad_loss, grad)
