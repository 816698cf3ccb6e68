"""What holds for any input: bounds, symmetries, minima, and the special cases of the unified loss."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

import gfl_ops
from tests.support.backends import only_backends

# The backends' context is entered once for all examples of a test; nothing of it changes between two examples.
few = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
# On the CPU; what these relate to each other, the parity tests have compared with the truth on every device.
pytestmark = only_backends(without=("cuda", "triton", "triton_cuda"))

seeds = st.integers(0, 2**31 - 1)
betas = st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 3.0])


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def uniform(seed: int, *shape: int, low: float = 0.0, high: float = 1.0) -> Tensor:
    return torch.rand(shape, generator=generator(seed), dtype=torch.float64) * (high - low) + low


def boxes(seed: int, rows: int, extent: float) -> Tensor:
    corner = uniform(seed, rows, 2, high=extent)
    return torch.cat([corner, corner + uniform(seed + 1, rows, 2, low=1e-3, high=extent)], 1)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


class TestBoxes:
    @few
    @given(seed=seeds, rows=st.integers(1, 40), extent=st.sampled_from([1.0, 50.0, 1e3]))
    def test_bounds(self, backend: Any, seed: int, rows: int, extent: float) -> None:
        a, b = boxes(seed, rows, extent), boxes(seed + 2, rows, extent)
        iou = 1 - gfl_ops.iou_loss(a, b, kind="iou", reduction="none")
        giou = 1 - gfl_ops.giou_loss(a, b, reduction="none")
        diou = 1 - gfl_ops.diou_loss(a, b, reduction="none")
        ciou = 1 - gfl_ops.ciou_loss(a, b, reduction="none")
        assert ((iou >= 0) & (iou <= 1 + 1e-12)).all()
        assert ((giou >= -1) & (giou <= 1)).all()
        assert ((ciou >= -1) & (ciou <= 1)).all()
        assert (giou <= iou + 1e-6).all() and (diou <= iou + 1e-6).all() and (ciou <= diou + 1e-12).all()

    @few
    @given(seed=seeds, kind=st.sampled_from(["iou", "giou", "diou", "ciou"]))
    def test_symmetry_and_identity(self, backend: Any, seed: int, kind: str) -> None:
        a, b = boxes(seed, 20, 50.0), boxes(seed + 2, 20, 50.0)
        there = gfl_ops.iou_loss(a, b, kind=kind, reduction="none")
        close(there, gfl_ops.iou_loss(b, a, kind=kind, reduction="none"))
        assert gfl_ops.iou_loss(a, a.clone(), kind=kind, reduction="none").abs().max() < 1e-3
        overlap = gfl_ops.box_iou(a, b)
        close(overlap, gfl_ops.box_iou(b, a).T)
        close(overlap.diagonal(), gfl_ops.box_iou(a, b, aligned=True))

    @few
    @given(seed=seeds, kind=st.sampled_from(["iou", "giou", "diou", "ciou"]), shift=st.floats(-100, 100))
    def test_translation_and_reflection(self, backend: Any, seed: int, kind: str, shift: float) -> None:
        a, b = boxes(seed, 20, 50.0), boxes(seed + 2, 20, 50.0)
        loss = gfl_ops.iou_loss(a, b, kind=kind, reduction="none")
        close(loss, gfl_ops.iou_loss(a + shift, b + shift, kind=kind, reduction="none"), 1e-9)
        turned = [-box[:, [2, 3, 0, 1]] for box in (a, b)]
        close(loss, gfl_ops.iou_loss(*turned, kind=kind, reduction="none"), 1e-9)


class TestClassification:
    @few
    @given(seed=seeds, beta=st.sampled_from([1.0, 1.5, 2.0, 3.0]), quality=st.floats(0.05, 0.95))
    def test_quality_focal_loss_is_least_where_the_score_is_the_quality(
        self, backend: Any, seed: int, beta: float, quality: float
    ) -> None:
        best = torch.logit(torch.tensor([[quality]], dtype=torch.float64))
        x = torch.cat([best, uniform(seed, 64, 1, low=-8, high=8)])
        label, score = torch.zeros(65, dtype=torch.int64), torch.full((65,), quality, dtype=torch.float64)
        x.requires_grad_()
        loss = gfl_ops.quality_focal_loss(x, (label, score), beta=beta, reduction="none")
        loss.sum().backward()
        assert loss[0] < 1e-12 and (loss >= loss[0]).all()
        away = (x - best).detach()[1:, 0]
        assert (x.grad[1:, 0].sign() == away.sign()).all(), "every step against the gradient goes towards the quality"

    @few
    @given(seed=seeds, beta=betas, rows=st.integers(1, 9), cols=st.integers(1, 9))
    def test_index_targets_are_dense_targets(self, backend: Any, seed: int, beta: float, rows: int, cols: int) -> None:
        x, score = uniform(seed, rows, cols, low=-6, high=6), uniform(seed + 1, rows)
        label = torch.randint(0, cols + 1, (rows,), generator=generator(seed + 2))
        dense = torch.zeros(rows, cols + 1, dtype=torch.float64)
        dense[torch.arange(rows), label] = score
        dense = dense[:, :cols]
        a = gfl_ops.quality_focal_loss(x, (label, score), beta=beta)
        close(a, gfl_ops.quality_focal_loss(x, dense, beta=beta))
        close(a, gfl_ops.quality_focal_loss(x.sigmoid(), dense, beta=beta, activated=True), 1e-9)
        hot = (dense > 0).double()
        target = torch.where(hot.any(1), label, cols)
        close(gfl_ops.sigmoid_focal_loss(x, target, gamma=beta), gfl_ops.sigmoid_focal_loss(x, hot, gamma=beta), 1e-12)

    @few
    @given(seed=seeds, rows=st.integers(2, 70), cols=st.integers(1, 20))
    def test_permutations(self, backend: Any, seed: int, rows: int, cols: int) -> None:
        x, score = uniform(seed, rows, cols, low=-6, high=6), uniform(seed + 1, rows)
        label = torch.randint(-1, cols + 1, (rows,), generator=generator(seed + 2))
        order = torch.randperm(rows, generator=generator(seed + 3))
        loss = gfl_ops.quality_focal_loss(x, (label, score), reduction="none")
        shuffled = gfl_ops.quality_focal_loss(x[order], (label[order], score[order]), reduction="none")
        close(loss[order], shuffled)
        classes = torch.randperm(cols, generator=generator(seed + 4))
        renamed = torch.where((label >= 0) & (label < cols), classes.argsort()[label.clamp(0, cols - 1)], label)
        close(loss, gfl_ops.quality_focal_loss(x[:, classes], (renamed, score), reduction="none"))
        close(loss.mean(), gfl_ops.quality_focal_loss(x[order], (label[order], score[order])))


class TestDistributions:
    @few
    @given(seed=seeds, bins=st.integers(2, 256), shift=st.floats(-50, 50))
    def test_softmax_does_not_see_a_shift(self, backend: Any, seed: int, bins: int, shift: float) -> None:
        x, y = uniform(seed, 5, bins, low=-5, high=5), uniform(seed + 1, 5, high=bins - 1)
        x.requires_grad_()
        loss = gfl_ops.distribution_focal_loss(x, y)
        close(loss, gfl_ops.distribution_focal_loss(x + shift, y), 1e-9)
        (grad,) = torch.autograd.grad(loss, x)
        assert grad.sum(-1).abs().max() < 1e-14
        maps = uniform(seed, 3, 4 * bins, low=-5, high=5)
        close(gfl_ops.integral(maps, num_bins=bins), gfl_ops.integral(maps + shift, num_bins=bins), 1e-9)

    @few
    @given(seed=seeds, bins=st.integers(2, 64), first=st.integers(-9, 9), step=st.sampled_from([0.25, 1.0, 2.0]))
    def test_bins_may_be_named_in_three_ways(self, backend: Any, seed: int, bins: int, first: int, step: float) -> None:
        x, y = uniform(seed, 5, bins, low=-5, high=5), uniform(seed + 1, 5, high=bins - 1)
        plain = gfl_ops.distribution_focal_loss(x, y)
        close(plain, gfl_ops.distribution_focal_loss(x, y + first, first_bin=float(first)), 1e-9)
        values = (torch.arange(bins, dtype=torch.float64) + first) * step
        close(plain, gfl_ops.distribution_focal_loss(x, (y + first) * step, bin_values=values), 1e-9)
        right = y - y.floor()
        close(plain, gfl_ops.distribution_focal_loss(x, y, left_weight=1 - right, right_weight=right))

    @few
    @given(seed=seeds, bins=st.integers(2, 64), scale=st.sampled_from([0.1, 3.0, 100.0]))
    def test_integral_stays_within_the_bins(self, backend: Any, seed: int, bins: int, scale: float) -> None:
        x = uniform(seed, 6, 4 * bins, low=-scale, high=scale)
        values = uniform(seed + 1, bins, low=-3, high=5).sort().values
        out = gfl_ops.integral(x, num_bins=bins)
        assert (out >= 0).all() and (out <= bins - 1 + 1e-9).all()
        out = gfl_ops.integral(x, values)
        assert (out >= values[0] - 1e-9).all() and (out <= values[-1] + 1e-9).all()
        flat = gfl_ops.integral(torch.zeros(1, 4 * bins, dtype=torch.float64), num_bins=bins)
        close(flat, torch.full((1, 4), (bins - 1) / 2, dtype=torch.float64))

    @few
    @given(seed=seeds, bins=st.integers(2, 32), height=st.integers(1, 5), width=st.integers(1, 5))
    def test_integral_of_maps_is_that_of_their_rows(
        self, backend: Any, seed: int, bins: int, height: int, width: int
    ) -> None:
        maps = uniform(seed, 2, 4 * bins, height, width, low=-5, high=5)
        rows = maps.permute(0, 2, 3, 1)
        expected = gfl_ops.integral(rows.reshape(-1, 4 * bins), num_bins=bins)
        for layout in (maps, maps.contiguous(memory_format=torch.channels_last)):
            out = gfl_ops.integral(layout, num_bins=bins, channel_dim=1)
            close(out.permute(0, 2, 3, 1).reshape(-1, 4), expected)

    @few
    @given(seed=seeds, bins=st.integers(3, 24), stride=st.sampled_from([1.0, 8.0, 128.0]))
    def test_box_loss_is_its_parts(self, backend: Any, seed: int, bins: int, stride: float) -> None:
        x = uniform(seed, 7, 4 * bins, low=-4, high=4)
        points = uniform(seed + 1, 7, 2, high=99 * stride)
        edges = uniform(seed + 2, 7, 4, high=bins - 1.1)
        scaled = points / stride
        target = torch.cat([scaled - edges[:, :2], scaled + edges[:, 2:]], 1)
        got = gfl_ops.distribution_box_loss(x, points, target * stride, stride=stride, reduction="none")
        distance = gfl_ops.integral(x, num_bins=bins)
        boxes = torch.cat([scaled - distance[:, :2], scaled + distance[:, 2:]], 1)
        dfl = gfl_ops.distribution_focal_loss(x.reshape(7, 4, bins), edges, reduction="none").mean(1)
        close(got.boxes, boxes * stride, 1e-9)
        close(got.loss_dfl, dfl, 1e-8)
        close(got.loss_iou, gfl_ops.giou_loss(boxes, target, eps=1e-6, reduction="none"), 1e-8)
        close(got.quality, gfl_ops.box_iou(boxes, target, aligned=True), 1e-8)


class TestUnifiedForm:
    """Focal loss, quality focal loss and distribution focal loss are generalized_focal_loss, gradients included."""

    @few
    @given(seed=seeds, beta=betas)
    def test_quality_focal_loss(self, backend: Any, seed: int, beta: float) -> None:
        x = uniform(seed, 9, 4, low=-5, high=5).requires_grad_()
        y = uniform(seed + 1, 9, 4)
        p = x.sigmoid()
        self.same(
            x,
            gfl_ops.generalized_focal_loss(1 - p, p, y, 0.0, 1.0, beta).sum(1),
            gfl_ops.quality_focal_loss(x, y, beta=beta, reduction="none"),
        )

    @few
    @given(seed=seeds, gamma=betas)
    def test_focal_loss(self, backend: Any, seed: int, gamma: float) -> None:
        x = uniform(seed, 9, 4, low=-5, high=5).requires_grad_()
        y = (uniform(seed + 1, 9, 4) < 0.3).double()
        p = x.sigmoid()
        share = 0.25 * y + 0.75 * (1 - y)
        self.same(
            x,
            gfl_ops.generalized_focal_loss(1 - p, p, y, 0.0, 1.0, gamma, weight=share),
            gfl_ops.sigmoid_focal_loss(x, y, gamma=gamma, reduction="none"),
        )

    @few
    @given(seed=seeds, bins=st.integers(2, 20))
    def test_distribution_focal_loss(self, backend: Any, seed: int, bins: int) -> None:
        x = uniform(seed, 9, bins, low=-5, high=5).requires_grad_()
        y = uniform(seed + 1, 9, high=bins - 1)
        left = y.floor()
        p = x.softmax(-1)
        p_left = p.gather(1, left.long()[:, None])[:, 0]
        p_right = p.gather(1, left.long()[:, None] + 1)[:, 0]
        self.same(
            x,
            gfl_ops.generalized_focal_loss(p_left, p_right, y, left, left + 1, beta=0.0),
            gfl_ops.distribution_focal_loss(x, y, reduction="none"),
        )

    @staticmethod
    def same(x: Tensor, unified: Tensor, special: Tensor) -> None:
        close(unified, special, 1e-10)
        for a, b in zip(torch.autograd.grad(unified.sum(), x), torch.autograd.grad(special.sum(), x), strict=True):
            close(a, b, 1e-9)
