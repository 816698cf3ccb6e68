"""CIoU and DIoU as other libraries have them: values that torchvision 0.29.1 and ultralytics 8.4 gave, in float64."""

from __future__ import annotations

import pytest
import torch

import gfl_ops

# The fourth pair is identical. In the fifth one box is inverted, in the last both, and so is their enclosure.
# All but the fourth have an IoU below 0.5.
PRED = [[0, 0, 4, 2], [10, 10, 14, 30], [3, 3, 9, 5], [0, 0, 10, 10], [8, 2, 5, 7], [12, 2, 4, 9]]
TARGET = [[1, 0, 3, 4], [10, 12, 22, 20], [20, 20, 26, 50], [0, 0, 10, 10], [4, 1, 9, 8], [15, 1, 6, 8]]
TORCHVISION = {  # complete_box_iou_loss and distance_box_iou_loss
    "ciou": [0.7316683336005458, 0.8974121122180034, 1.5952667201701232, 0.0, 1.1928190845201516, 1.0725018290744215],
    "diou": [0.6979166693467882, 0.8366013073330504, 1.4565376186831067, 0.0, 1.0, 1.0724999999275],
}
ULTRALYTICS = {  # 1 - bbox_iou(..., CIoU=True)
    "ciou": [0.7316683477060799, 0.8974121132331634, 1.5952667137659349, 0.0, 1.1928190759950779, 1.0725018290744412],
}
TORCHVISION_GRADIENT = [  # of complete_box_iou_loss, for the first three pairs
    [-0.05823306434356929, -0.006363729902090349, 0.05823306434356929, -0.16334112988071492],
    [0.004475933517039794, 0.004016385777525327, -0.05183485526917056, 0.010689496572712565],
    [-0.011730375944663484, 0.04392623650221808, 0.006982651496123556, -0.05089682227398248],
]
ADDED = {"eps_rule": "add", "eps": 1e-7, "reduction": "none"}


def pair(backend, requires_grad: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    pred, target = (torch.tensor(x, dtype=torch.float64, device=backend.device) for x in (PRED, TARGET))
    return pred.requires_grad_(requires_grad), target


@pytest.mark.parametrize("values", [TORCHVISION, ULTRALYTICS], ids=["torchvision", "ultralytics"])
def test_ciou_of_other_libraries(values: dict[str, list[float]], backend) -> None:
    loss = gfl_ops.ciou_loss(*pair(backend), alpha_rule="always", **ADDED)
    expected = torch.tensor(values["ciou"], dtype=torch.float64)
    torch.testing.assert_close(loss.cpu(), expected, rtol=0, atol=5e-8)  # where they add eps differs


def test_gradient_of_ciou_of_torchvision(backend) -> None:
    pred, target = pair(backend, requires_grad=True)
    gfl_ops.ciou_loss(pred, target, alpha_rule="always", **ADDED).sum().backward()
    expected = torch.tensor(TORCHVISION_GRADIENT, dtype=torch.float64)
    torch.testing.assert_close(pred.grad[:3].cpu(), expected, rtol=0, atol=5e-8)


def test_diou_of_torchvision(backend) -> None:
    loss = gfl_ops.diou_loss(*pair(backend), **ADDED)
    torch.testing.assert_close(loss.cpu(), torch.tensor(TORCHVISION["diou"], dtype=torch.float64), rtol=0, atol=1e-8)


def test_as_it_stands_ciou_is_another_below_an_iou_of_a_half(backend) -> None:
    loss = gfl_ops.ciou_loss(*pair(backend), reduction="none").cpu()
    assert (loss[:3] < torch.tensor(TORCHVISION["ciou"][:3]) - 0.01).all()
