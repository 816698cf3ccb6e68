"""Bad calls: the exception's type, and a message that names the op and the argument and shows what came."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

import gfl_ops
from gfl_ops import nn
from tests.support.backends import only_backends
from tests.support.case_maker import Case
from tests.support.cases import BY_ID, CASES
from tests.support.running import as_tuple, require_grad

N, C, BINS = 6, 3, 8

# A good call of every op; the table below spoils one argument of it at a time.
GOOD: dict[str, Callable[[], dict[str, Any]]] = {
    "quality_focal_loss": lambda: {
        "pred": torch.randn(N, C),
        "target": (torch.zeros(N, dtype=torch.int64), torch.rand(N)),
    },
    "sigmoid_focal_loss": lambda: {"pred": torch.randn(N, C), "target": torch.zeros(N, dtype=torch.int64)},
    **{
        op: lambda: {"pred": torch.randn(N, C), "target": (torch.zeros(N, dtype=torch.int64), torch.rand(N))}
        for op in ("varifocal_loss", "soft_bce_loss")
    },
    "distribution_focal_loss": lambda: {"pred": torch.randn(N, BINS), "target": torch.rand(N)},
    "integral": lambda: {"pred": torch.randn(N, 4 * BINS), "num_bins": BINS},
    "distribution_kl_loss": lambda: {"student": torch.randn(N, BINS), "teacher": torch.randn(N, BINS)},
    "distribution_statistics": lambda: {"edge_logits": torch.randn(N, 4 * BINS)},
    "iou_loss": lambda: {"pred": torch.rand(N, 4), "target": torch.rand(N, 4)},
    "giou_loss": lambda: {"pred": torch.rand(N, 4), "target": torch.rand(N, 4)},
    "diou_loss": lambda: {"pred": torch.rand(N, 4), "target": torch.rand(N, 4)},
    "ciou_loss": lambda: {"pred": torch.rand(N, 4), "target": torch.rand(N, 4)},
    "box_iou": lambda: {"a": torch.rand(N, 4), "b": torch.rand(C, 4)},
    "generalized_focal_loss": lambda: {
        "p_left": torch.rand(N),
        "p_right": torch.rand(N),
        "y": 0.5,
        "y_left": 0.0,
        "y_right": 1.0,
    },
    "distribution_box_loss": lambda: {
        "edge_logits": torch.randn(N, 4 * BINS),
        "anchor_points": torch.rand(N, 2),
        "target_boxes": torch.rand(N, 4),
    },
    "decode_boxes": lambda: {
        "edge_logits": torch.randn(N, 4 * BINS),
        "anchor_points": torch.rand(N, 2),
        "stride": 8.0,
    },
}


@dataclass(frozen=True)
class Bad:
    op: str
    spoil: Callable[[], dict[str, Any]]
    error: type[Exception]
    message: str  # after "<op>: "

    @property
    def id(self) -> str:
        return f"{self.op}-{re.sub(r'[^a-z0-9_]+', '-', self.message.lower()).strip('-')[:60]}"


BAD: list[Bad] = []


def bad(op: str, error: type[Exception], message: str, **arguments: Any) -> None:
    """Arguments that are functions are called when the test runs."""
    BAD.append(
        Bad(
            op,
            lambda: {name: value() if callable(value) else value for name, value in arguments.items()},
            error,
            message,
        )
    )


def tensor(*shape: int, **options: Any) -> Callable[[], torch.Tensor]:
    return lambda: torch.zeros(shape, **options)


def requiring_grad(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.zeros(shape, requires_grad=True)


def _sparse(*shape: int) -> Callable[[], torch.Tensor]:
    return lambda: torch.ones(shape).to_sparse()


label, score = tensor(N, dtype=torch.int64), tensor(N)

# Not a tensor, or of a dtype that means something else.
for op_, name_ in (
    ("quality_focal_loss", "pred"),
    ("sigmoid_focal_loss", "pred"),
    ("varifocal_loss", "pred"),
    ("soft_bce_loss", "pred"),
    ("distribution_focal_loss", "pred"),
    ("distribution_focal_loss", "target"),
    ("integral", "pred"),
    ("distribution_kl_loss", "student"),
    ("distribution_kl_loss", "teacher"),
    ("distribution_statistics", "edge_logits"),
    ("iou_loss", "pred"),
    ("iou_loss", "target"),
    ("giou_loss", "pred"),
    ("diou_loss", "target"),
    ("ciou_loss", "target"),
    ("box_iou", "a"),
    ("box_iou", "b"),
    ("generalized_focal_loss", "p_left"),
    ("generalized_focal_loss", "p_right"),
    ("distribution_box_loss", "edge_logits"),
    ("distribution_box_loss", "anchor_points"),
    ("distribution_box_loss", "target_boxes"),
):
    bad(op_, TypeError, rf"{name_} must be a tensor, got list", **{name_: [1.0, 2.0]})
    shape_ = GOOD[op_]()[name_].shape
    bad(op_, TypeError, rf"{name_} must be a dense tensor, got sparse_coo", **{name_: _sparse(*shape_)})
    bad(op_, TypeError, rf"{name_} must be float32, .* got int64", **{name_: tensor(*shape_, dtype=torch.int64)})
    bad(op_, TypeError, rf"{name_} must be float32, .* got bool", **{name_: tensor(*shape_, dtype=torch.bool)})

for op_ in ("quality_focal_loss", "sigmoid_focal_loss", "varifocal_loss", "soft_bce_loss"):
    bad(op_, ValueError, r"pred must be \(N, C\), got \(6,\)", pred=tensor(N))
    bad(op_, ValueError, r"pred must be \(N, C\), got \(2, 3, 4\)", pred=tensor(2, 3, 4))
bad("quality_focal_loss", TypeError, r"target must be .* got list of 1", target=lambda: [label()])
bad("quality_focal_loss", TypeError, r"target must be .* got int", target=3)
bad("quality_focal_loss", TypeError, r"target must be .* got int64", target=tensor(N, C, dtype=torch.int64))
bad("quality_focal_loss", ValueError, r"target must be \(N, C\) = \(6, 3\), got \(6,\)", target=tensor(N))
bad("quality_focal_loss", ValueError, r"target must be \(N, C\) = \(6, 3\), got \(6, 4\)", target=tensor(N, 4))
bad("quality_focal_loss", TypeError, r"label must be int64, .* got float32", target=lambda: (score(), score()))
bad(
    "quality_focal_loss",
    TypeError,
    r"label must be int64, .* got int8",
    target=lambda: (label().to(torch.int8), score()),
)
bad("quality_focal_loss", TypeError, r"label must be int64, .* got bool", target=lambda: (label().bool(), score()))
bad("quality_focal_loss", TypeError, r"label must be a tensor, got int", target=lambda: (3, score()))
bad(
    "quality_focal_loss",
    ValueError,
    r"label must be \(N,\) = \(6,\), got \(5,\)",
    target=lambda: (label()[:5], score()),
)
bad(
    "quality_focal_loss",
    ValueError,
    r"label must be \(N,\) = \(6,\), got \(6, 1\)",
    target=lambda: (label()[:, None], score()),
)
bad(
    "quality_focal_loss",
    ValueError,
    r"score must be \(N,\) = \(6,\), got \(6, 1\)",
    target=lambda: (label(), score()[:, None]),
)
bad(
    "quality_focal_loss",
    ValueError,
    r"score must be \(N,\) = \(6,\), got \(7,\)",
    target=lambda: (label(), torch.zeros(7)),
)
bad("quality_focal_loss", TypeError, r"score must be float32, .* got int64", target=lambda: (label(), label()))
bad("quality_focal_loss", ValueError, r"score must not require grad", target=lambda: (label(), requiring_grad(N)()))
bad("quality_focal_loss", ValueError, r"target must not require grad", target=requiring_grad(N, C))
bad("quality_focal_loss", TypeError, r"activated must be True or False, got int", activated=1)
bad("box_iou", TypeError, r"aligned must be True or False, got str", aligned="yes")
bad("quality_focal_loss", ValueError, r"beta must be .* got -1", beta=-1.0)
bad("quality_focal_loss", ValueError, r"beta must be .* got nan", beta=float("nan"))
bad("quality_focal_loss", ValueError, r"beta must be .* got inf", beta=float("inf"))
bad("quality_focal_loss", TypeError, r"beta must be .* got Tensor", beta=tensor())
bad("quality_focal_loss", ValueError, r"weight must be \(N,\) = \(6,\), got \(6, 3\)", weight=tensor(N, C))

bad(
    "sigmoid_focal_loss",
    ValueError,
    r"target must be \(N,\) = \(6,\), got \(6, 3\)",
    target=tensor(N, C, dtype=torch.int64),
)
bad("sigmoid_focal_loss", ValueError, r"target must be \(N, C\) = \(6, 3\), got \(6,\)", target=tensor(N))
bad("sigmoid_focal_loss", TypeError, r"target must be int64, .* got bool", target=tensor(N, dtype=torch.bool))
bad("sigmoid_focal_loss", TypeError, r"target must be a tensor, got tuple", target=lambda: (label(), score()))
bad("sigmoid_focal_loss", ValueError, r"target must not require grad", target=requiring_grad(N, C))
bad("sigmoid_focal_loss", ValueError, r"weight must be .* 6, 3, got \(3,\)", weight=tensor(C))
bad("sigmoid_focal_loss", ValueError, r"weight must be .* 6, 3, got \(1, 3\)", weight=tensor(1, C))
bad("sigmoid_focal_loss", ValueError, r"gamma must be .* got -2", gamma=-2.0)
bad("sigmoid_focal_loss", ValueError, r"alpha must be .* got 1.5", alpha=1.5)
bad("sigmoid_focal_loss", ValueError, r"alpha must be .* got -1", alpha=-1)

for op_ in ("varifocal_loss", "soft_bce_loss"):
    bad(op_, TypeError, r"target must be a tensor or \(label, score\), got int", target=3)
    bad(op_, TypeError, r"target must be float32, .* got int64", target=label)
    bad(op_, ValueError, r"target must be \(N, C\) = \(6, 3\), got \(6, 4\)", target=tensor(N, 4))
    bad(op_, ValueError, r"label must be \(N,\) = \(6,\), got \(5,\)", target=lambda: (label()[:5], score()))
    bad(op_, ValueError, r"score must be \(N,\) = \(6,\), got \(6, 1\)", target=lambda: (label(), score()[:, None]))
    bad(op_, ValueError, r"target must not require grad", target=requiring_grad(N, C))
    bad(op_, ValueError, r"weight must be .* 6, 3, got \(1, 3\)", weight=tensor(1, C))
bad("varifocal_loss", ValueError, r"alpha must be .* got -1", alpha=-1)
bad("varifocal_loss", ValueError, r"gamma must be .* got nan", gamma=float("nan"))
bad("varifocal_loss", TypeError, r"iou_weighted must be True or False, got int", iou_weighted=1)
bad("varifocal_loss", TypeError, r"detach_factor must be True or False, got str", detach_factor="yes")
bad("soft_bce_loss", ValueError, r"class_weight must be \(C,\) = \(3,\), got \(6,\)", class_weight=tensor(N))
bad("soft_bce_loss", TypeError, r"class_weight must be a tensor, got list", class_weight=[1.0] * C)
bad("soft_bce_loss", ValueError, r"class_weight must not require grad", class_weight=requiring_grad(C))

bad("distribution_focal_loss", ValueError, r".*pred.* must be 2 to 256, got 1$", pred=tensor(N, 1))
bad("distribution_focal_loss", ValueError, r".*pred.* must be 2 to 256, got 257$", pred=tensor(N, 257))
bad("distribution_focal_loss", ValueError, r"pred must be \(\.\.\., bins\), got \(\)", pred=tensor())
bad("distribution_focal_loss", ValueError, r"target must be .* = \(6,\), got \(6, 1\)", target=tensor(N, 1))
bad("distribution_focal_loss", ValueError, r"target must be .* = \(6,\), got \(5,\)", target=tensor(5))
bad("distribution_focal_loss", ValueError, r"target must not require grad", target=requiring_grad(N))
bad("distribution_focal_loss", ValueError, r"weight must be .* = \(6,\), got \(6, 1\)", weight=tensor(N, 1))
bad(
    "distribution_focal_loss", ValueError, r"left_weight and right_weight .* got no right_weight", left_weight=tensor(N)
)
bad(
    "distribution_focal_loss", ValueError, r"left_weight and right_weight .* got no left_weight", right_weight=tensor(N)
)
bad(
    "distribution_focal_loss",
    ValueError,
    r"left_weight must be .* = \(6,\), got \(1,\)",
    left_weight=tensor(1),
    right_weight=tensor(N),
)
bad(
    "distribution_focal_loss",
    ValueError,
    r"right_weight must not require grad",
    left_weight=tensor(N),
    right_weight=requiring_grad(N),
)
bad("distribution_focal_loss", ValueError, r"bin_values must be \(bins,\) = \(8,\), got \(7,\)", bin_values=tensor(7))
bad(
    "distribution_focal_loss",
    TypeError,
    r"bin_values must be float32, .* got int64",
    bin_values=tensor(BINS, dtype=torch.int64),
)
bad("distribution_focal_loss", ValueError, r"bin_values must not require grad", bin_values=requiring_grad(BINS))
bad("distribution_focal_loss", TypeError, r"first_bin must be a number, got str", first_bin="0")
bad("distribution_focal_loss", ValueError, r"first_bin must be .* got nan", first_bin=float("nan"))

bad("integral", ValueError, r"pred must be .* 32, got \(6, 31\)", pred=tensor(N, 31))
bad("integral", ValueError, r"pred must be .* 32, got \(\)", pred=tensor())
bad("integral", TypeError, r"num_bins must be a whole number, got 8.0", num_bins=8.0)
bad("integral", TypeError, r"num_bins must be a whole number, got None", num_bins=None)
bad("integral", ValueError, r"num_bins must be 2 to 256, got 1", num_bins=1)
bad("integral", ValueError, r"num_bins must be 2 to 256, got 257", num_bins=257)
bad("integral", ValueError, r"channel_dim must be .* got 2 for 2-D", channel_dim=2)
bad("integral", ValueError, r"pred must be .* got \(2, 5, 4, 4\)", pred=tensor(2, 5, 4, 4), channel_dim=1)
bad("integral", ValueError, r"pred must be .* 32, got \(6, 32, 1\)", pred=tensor(N, 32, 1))
bad("integral", ValueError, r"bin_values must be \(bins,\) = \(8,\), got \(2, 4\)", bin_values=tensor(2, 4))
bad("integral", TypeError, r"bin_values must be float32, .* got int64", bin_values=tensor(BINS, dtype=torch.int64))
bad("integral", ValueError, r"bin_values must not require grad", bin_values=requiring_grad(BINS))

bad("distribution_kl_loss", ValueError, r"student must be \(\.\.\., bins\), got \(\)", student=tensor())
bad("distribution_kl_loss", ValueError, r"bins .* must be 2 to 256, got 1", student=tensor(N, 1))
bad("distribution_kl_loss", ValueError, r"teacher must be .* = \(6, 8\), got \(6, 7\)", teacher=tensor(N, 7))
bad("distribution_kl_loss", ValueError, r"teacher must not require grad", teacher=requiring_grad(N, BINS))
bad("distribution_kl_loss", TypeError, r"temperature must be a number, got str", temperature="10")
bad("distribution_kl_loss", ValueError, r"temperature must be in \[0.001, 1000\] .* got 0", temperature=0)
bad("distribution_kl_loss", ValueError, r"weight must be .* = \(6,\), got \(6, 8\)", weight=tensor(N, BINS))
bad("distribution_kl_loss", ValueError, r"bin_reduction must be .* got 'none'", bin_reduction="none")

bad("distribution_statistics", ValueError, r"edge_logits must be .* got \(6, 31\)", edge_logits=tensor(N, 31))
bad("distribution_statistics", ValueError, r"edge_logits must be .* got \(\)", edge_logits=tensor())
bad("distribution_statistics", ValueError, r"edge_logits must be .* got \(2, 5, 4, 4\)", edge_logits=tensor(2, 5, 4, 4))
bad("distribution_statistics", ValueError, r"bins .* must be 2 to 256, got 1", edge_logits=tensor(N, 4))
bad("distribution_statistics", ValueError, r"bins .* must be 2 to 256, got 257", edge_logits=tensor(N, 1028))
bad("distribution_statistics", ValueError, r"channel_dim must be .* got 2 for 2-D", channel_dim=2)
bad("distribution_statistics", TypeError, r"topk must be a whole number, got 4.0", topk=4.0)
bad("distribution_statistics", ValueError, r"topk must be at least 1 .* got 0", topk=0)
bad("distribution_statistics", ValueError, r"topk must be 1 to the number of bins, 8, got 9", topk=9)

for op_ in ("iou_loss", "giou_loss", "diou_loss", "ciou_loss"):
    bad(op_, ValueError, r"pred must be \(N, 4\), got \(6, 5\)", pred=tensor(N, 5))
    bad(op_, ValueError, r"pred must be \(N, 4\), got \(4,\)", pred=tensor(4))
    bad(op_, ValueError, r"target must be \(N, 4\) = \(6, 4\), got \(5, 4\)", target=tensor(5, 4))
    bad(op_, ValueError, r"target must be \(N, 4\) = \(6, 4\), got \(1, 4\)", target=tensor(1, 4))
    bad(op_, ValueError, r"target must not require grad", target=requiring_grad(N, 4))
    bad(op_, ValueError, r"weight must be .* = \(6,\), got \(5,\)", weight=tensor(5))
    bad(op_, ValueError, r"weight must be .* got \(6, 1\)", weight=tensor(N, 1))
    bad(op_, ValueError, r"eps must be .* got -1", eps=-1.0)
bad("iou_loss", ValueError, r"kind must be one of 'iou', .* got 'eiou'", kind="eiou")
bad("iou_loss", ValueError, r"transform must be one of 'linear', .* got 'exp'", kind="iou", transform="exp")
bad("iou_loss", ValueError, r"transform 'log' .* got kind 'giou'", transform="log")
bad("iou_loss", ValueError, r"eps_rule must be one of 'floor', .* got 'max'", eps_rule="max")
bad("iou_loss", ValueError, r"alpha_rule must be one of 'half', 'always', got 'never'", kind="ciou", alpha_rule="never")
bad("iou_loss", ValueError, r"alpha_rule 'always' needs kind 'ciou', got kind 'giou'", alpha_rule="always")
for op_ in ("diou_loss", "ciou_loss", "distribution_box_loss"):
    bad(op_, ValueError, r"eps_rule must be one of 'floor', .* got 'max'", eps_rule="max")
for op_ in ("ciou_loss", "distribution_box_loss"):
    bad(op_, ValueError, r"alpha_rule must be one of .* got None", alpha_rule=None)
bad("distribution_box_loss", ValueError, r"alpha_rule 'always' needs kind 'ciou', got kind 'giou'", alpha_rule="always")
bad("giou_loss", ValueError, r"eps_rule must be one of 'floor', .* got 'max'", eps_rule="max")
bad(
    "giou_loss", ValueError, r"avg_factor must be .* an int of at most 64 bits, got an int of 71 bits", avg_factor=2**70
)

bad("box_iou", ValueError, r"a must be \(N, 4\), got \(4,\)", a=tensor(4))
bad("box_iou", ValueError, r"b must be \(N, 4\), got \(3, 3\)", b=tensor(3, 3))
bad("box_iou", ValueError, r"b must be \(N, 4\) = \(6, 4\) .* got \(3, 4\)", aligned=True)
bad("box_iou", ValueError, r"eps must be .* got -1", eps=-1.0)

bad("generalized_focal_loss", ValueError, r"p_right must broadcast .* got \(6,\) and \(5,\)", p_right=tensor(5))
bad("generalized_focal_loss", ValueError, r"y must broadcast to \(6,\), got \(5,\)", y=tensor(5))
bad("generalized_focal_loss", ValueError, r"y_left must broadcast to \(6,\), got \(2, 6\)", y_left=tensor(2, N))
bad("generalized_focal_loss", TypeError, r"y_right must be float32, .* got int64", y_right=tensor(N, dtype=torch.int64))
bad("generalized_focal_loss", ValueError, r"y must not require grad", y=requiring_grad(N))
bad("generalized_focal_loss", TypeError, r"y must be a number, got str", y="1")
bad("generalized_focal_loss", ValueError, r"beta must be .* got -1", beta=-1)
bad("generalized_focal_loss", ValueError, r"weight must broadcast to \(6,\), got \(3,\)", weight=tensor(3))

bad("distribution_box_loss", ValueError, r"edge_logits must be .* got \(6, 33\)", edge_logits=tensor(N, 33))
bad("distribution_box_loss", ValueError, r"edge_logits must be .* got \(6, 8, 4\)", edge_logits=tensor(N, 8, 4))
bad("distribution_box_loss", ValueError, r"edge_logits must be .* got \(6,\)", edge_logits=tensor(N))
bad("distribution_box_loss", ValueError, r".*edge_logits.* must be 2 to 256, got 1$", edge_logits=tensor(N, 4))
bad(
    "distribution_box_loss",
    ValueError,
    r"anchor_points must be \(P, 2\) = \(6, 2\), got \(6,\)",
    anchor_points=tensor(N),
)
bad("distribution_box_loss", ValueError, r"anchor_points must not require grad", anchor_points=requiring_grad(N, 2))
bad(
    "distribution_box_loss",
    ValueError,
    r"target_boxes must be \(P, 4\) = \(6, 4\), got \(5, 4\)",
    target_boxes=tensor(5, 4),
)
bad("distribution_box_loss", ValueError, r"target_boxes must not require grad", target_boxes=requiring_grad(N, 4))
bad("distribution_box_loss", ValueError, r"weight must be \(P,\) = \(6,\), got \(6, 4\)", weight=tensor(N, 4))
bad("distribution_box_loss", ValueError, r"stride must be \(P,\) = \(6,\), got \(1,\)", stride=tensor(1))
bad("distribution_box_loss", TypeError, r"stride must be float32, .* got int64", stride=tensor(N, dtype=torch.int64))
bad("distribution_box_loss", ValueError, r"stride must be above 0 and finite, got 0", stride=0.0)
bad("distribution_box_loss", ValueError, r"stride must be .* got -8", stride=-8)
bad("distribution_box_loss", ValueError, r"iou_kind must be one of .* got 'siou'", iou_kind="siou")
bad("distribution_box_loss", ValueError, r"target_margin must be .* got -0.1", target_margin=-0.1)
bad("distribution_box_loss", ValueError, r"target_margin must be .* got 9", target_margin=9)
bad("distribution_box_loss", ValueError, r"eps must be .* got -1", eps=-1.0)

MAPS = {"edge_logits": tensor(2, 4 * BINS, 3, 5), "anchor_points": tensor(15, 2)}
bad(
    "decode_boxes",
    TypeError,
    r"edge_logits must be float32, .* got int64",
    edge_logits=tensor(N, 32, dtype=torch.int64),
)
bad(
    "decode_boxes", ValueError, r"edge_logits must be \(\.\.\., 4 \* bins\) .* got \(6, 30\)", edge_logits=tensor(N, 30)
)
bad("decode_boxes", ValueError, r"bins \(the channels .* must be 2 to 256, got 1", edge_logits=tensor(N, 4))
bad(
    "decode_boxes",
    ValueError,
    r"anchor_points must be \(\.\.\., 2\) = \(6, 2\), got \(5, 2\)",
    anchor_points=tensor(5, 2),
)
bad("decode_boxes", ValueError, r"anchor_points must be .* got \(6, 4\)", anchor_points=tensor(N, 4))
bad(
    "decode_boxes",
    ValueError,
    r"anchor_points must be \(H, W, 2\) = \(3, 5, 2\) .* got \(6, 2\)",
    edge_logits=MAPS["edge_logits"],
)
bad("decode_boxes", ValueError, r"stride must be .* got 0", stride=0)
bad("decode_boxes", TypeError, r"stride must be .* got str", stride="8")
bad("decode_boxes", ValueError, r"stride must be .* an int of at most 64 bits, got an int of 71 bits", stride=2**70)
bad(
    "decode_boxes",
    ValueError,
    r"max_shape must be .* an int of at most 64 bits, got an int of 1329 bits",
    max_shape=(10**400, 8),
)
bad("decode_boxes", ValueError, r"stride must be a number or \(\.\.\.\) = \(6,\), got \(5,\)", stride=tensor(5))
bad("decode_boxes", ValueError, r"stride must be .* one value for maps, got \(2,\)", stride=tensor(2), **MAPS)
bad("decode_boxes", ValueError, r"max_shape must be \(height, width\), got 8", max_shape=8)
bad("decode_boxes", ValueError, r"max_shape must be .* got -1", max_shape=(8, -1))
bad("decode_boxes", ValueError, r"max_shape must be \(2,\), got \(2, 2\)", max_shape=tensor(2, 2))
bad(
    "decode_boxes",
    ValueError,
    r"max_shape must be \(2,\) or \(B, 2\) = \(2, 2\), got \(3, 2\)",
    max_shape=tensor(3, 2),
    **MAPS,
)

# What every loss shares.
LOSSES = [op for op in GOOD if op not in ("integral", "distribution_statistics", "box_iou", "decode_boxes")]
for op_ in LOSSES:
    bad(op_, ValueError, r"reduction must be one of 'none', 'mean', 'sum', got 'average'", reduction="average")
    bad(op_, ValueError, r"reduction must be one of .* got None", reduction=None)
    bad(op_, ValueError, r"avg_factor .* 'sum', got 3", reduction="sum", avg_factor=3)
    bad(op_, ValueError, r"avg_factor must be .* got shape \(2,\)", reduction="mean", avg_factor=tensor(2))
    bad(op_, ValueError, r"avg_factor must not require grad", reduction="mean", avg_factor=requiring_grad())
    bad(
        op_,
        TypeError,
        r"avg_factor must be real .*complex64",
        reduction="mean",
        avg_factor=tensor(dtype=torch.complex64),
    )
    bad(op_, TypeError, r"avg_factor must be .* got str", reduction="mean", avg_factor="3")
    bad(op_, TypeError, r"weight must be float32, .* got int64", weight=tensor(N, dtype=torch.int64))
    bad(op_, ValueError, r"weight must not require grad", weight=requiring_grad(N))
    if op_ != "generalized_focal_loss":
        bad(op_, TypeError, r"weight must be a tensor, got float", weight=0.5)


@pytest.mark.parametrize("row", BAD, ids=lambda row: row.id)
def test_bad_call(row: Bad) -> None:
    arguments = GOOD[row.op]() | row.spoil()
    with pytest.raises(row.error, match=rf"^{row.op}: {row.message}"):
        getattr(gfl_ops, row.op)(**arguments)


@pytest.mark.parametrize("op", GOOD)
def test_the_calls_that_the_table_spoils_are_good(op: str) -> None:
    getattr(gfl_ops, op)(**GOOD[op]())


def test_every_op_is_in_the_table() -> None:
    assert set(GOOD) == {case.op for case in CASES} == {row.op for row in BAD}


# ---- devices -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "op, name",
    [
        ("quality_focal_loss", "weight"),
        ("sigmoid_focal_loss", "target"),
        ("soft_bce_loss", "class_weight"),
        ("distribution_focal_loss", "target"),
        ("distribution_kl_loss", "teacher"),
        ("iou_loss", "target"),
        ("box_iou", "b"),
        ("generalized_focal_loss", "p_right"),
        ("generalized_focal_loss", "y"),
        ("distribution_box_loss", "anchor_points"),
        ("decode_boxes", "anchor_points"),
    ],
)
def test_tensor_on_another_device(op: str, name: str) -> None:
    arguments = GOOD[op]()
    value = arguments.get(name)
    missing = torch.zeros(C if name == "class_weight" else N)
    arguments[name] = (value if isinstance(value, torch.Tensor) else missing).to("meta")
    with pytest.raises(ValueError, match=rf"^{op}: {name} must be on cpu.* got meta"):
        getattr(gfl_ops, op)(**arguments)


# ---- derivatives that do not exist -------------------------------------------------------------------

DIFFERENTIABLE = {case.op: case for case in CASES if case.differentiable and not case.large}
DIFFERENTIABLE |= {f"{case.op}-{r}": case for r in ("none", "sum", "mean") for case in CASES if case.name.endswith(r)}


@pytest.mark.parametrize("case", DIFFERENTIABLE.values(), ids=DIFFERENTIABLE.keys())
@only_backends(without=("reference",))
def test_second_derivative_raises(case: Case, backend) -> None:
    inputs = require_grad(case.inputs(torch.float64, backend.device), case.differentiable)
    leaves = [inputs[name] for name in case.differentiable]
    outputs = as_tuple(getattr(gfl_ops, case.op)(**inputs, **case.kwargs))
    total = sum(x.sum() for x in outputs if x.requires_grad)
    grads = torch.autograd.grad(total, leaves, create_graph=True)
    made_of = {"giou_loss": "iou_loss", "diou_loss": "iou_loss", "ciou_loss": "iou_loss"}
    op = made_of.get(case.op, case.op)
    with pytest.raises(RuntimeError, match=f"{op}: a second derivative"):
        sum(grad.square().sum() for grad in grads).backward()


def test_the_reference_has_a_second_derivative() -> None:
    x = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    label, score = torch.tensor([0, 3, 4]), torch.rand(3, dtype=torch.float64)
    with gfl_ops.use_backend("reference"):
        assert torch.autograd.gradgradcheck(lambda x: gfl_ops.quality_focal_loss(x, (label, score)), x)
        assert torch.autograd.gradgradcheck(lambda x: gfl_ops.distribution_focal_loss(x, 3 * score), x)


# ---- modules and backends ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: nn.QualityFocalLoss(use_sigmoid=False), "QualityFocalLoss: use_sigmoid must be True, got False"),
        (lambda: nn.SigmoidFocalLoss(use_sigmoid=False), "SigmoidFocalLoss: use_sigmoid must be True, got False"),
        (lambda: nn.VarifocalLoss(use_sigmoid=False), "VarifocalLoss: use_sigmoid must be True, got False"),
        (lambda: nn.SigmoidFocalLoss(activated=True), "SigmoidFocalLoss: activated must be False, got True"),
        (lambda: nn.GIoULoss(reduction="avg"), "GIoULoss: reduction must be .* got 'avg'"),
        (lambda: nn.DistributionFocalLoss(reduction=None), "DistributionFocalLoss: reduction must be .* got None"),
        (lambda: nn.IoULoss(mode="cube"), "IoULoss: mode must be .* got 'cube'"),
    ],
)
def test_bad_module(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_bad_reduction_override() -> None:
    case = BY_ID["giou_loss-plain"]
    with pytest.raises(ValueError, match=r"giou_loss: reduction must be .* got 'avg'"):
        nn.GIoULoss()(**case.inputs(torch.float32), reduction_override="avg")


def test_unknown_argument_of_a_module() -> None:
    case = BY_ID["giou_loss-plain"]
    with pytest.raises(TypeError, match="iou_weight"):
        nn.GIoULoss()(**case.inputs(torch.float32), iou_weight=1.0)


@pytest.mark.parametrize("name", ["cuda", "", "NATIVE", None])
def test_unknown_backend(name: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(f"got {name!r}")):
        gfl_ops.use_backend(name)
