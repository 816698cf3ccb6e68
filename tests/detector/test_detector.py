"""The detector as it is used: images of any kind in; losses, or detections in each image's coordinates, out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import gfl_ops
from gfl_ops import detector
from gfl_ops.detector.batch import make_batch
from gfl_ops.detector.batch.resize import resize
from tests.support.models import small

CPU = torch.device("cpu")
HEADS = ["gfl_r50_fpn", "atss_r50_fpn"]


def tiny(name: str, num_classes: int = 3, side: int = 64) -> detector.Detector:
    torch.manual_seed(0)
    config = small(name, depth=18).from_scratch()
    return detector.build(replace(config, input=detector.InputConfig(side, 2 * side)), num_classes)


def target(boxes: list[list[float]], labels: list[int]) -> dict[str, Tensor]:
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}


def image(height: int = 60, width: int = 80) -> Tensor:
    return torch.rand(3, height, width)


ODD_IMAGES = {
    "one pixel": torch.zeros(3, 1, 1),
    "grey": torch.rand(1, 30, 40),
    "bytes": torch.randint(0, 256, (3, 33, 47), dtype=torch.uint8),
    "double": torch.rand(3, 30, 40, dtype=torch.float64),
    "half": torch.rand(3, 30, 40).half(),
    "panorama": torch.rand(3, 12, 10_000),
    "column": torch.rand(3, 500, 1),
    "strided": torch.rand(3, 60, 80)[:, ::2, ::2],
}


@pytest.mark.parametrize("kind", ODD_IMAGES)
@pytest.mark.parametrize("name", HEADS)
def test_any_image_gives_detections_inside_it(name: str, kind: str) -> None:
    model = tiny(name).eval()
    model.config = replace(model.config, postprocess=detector.PostprocessConfig(score_thr=0.0, max_per_img=20))
    odd = ODD_IMAGES[kind]
    found, _ = model([odd, image()])
    assert set(found) == {"boxes", "scores", "labels"} and len(found["scores"]) <= 20
    assert found["boxes"].shape == (len(found["scores"]), 4)
    limit = torch.tensor([odd.shape[2], odd.shape[1]]).repeat(2)
    assert (found["boxes"] >= 0).all() and (found["boxes"] <= limit + 1e-3).all()
    assert (found["scores"].diff() <= 0).all() and ((found["labels"] >= 0) & (found["labels"] < 3)).all()


def test_edges_come_when_asked_for() -> None:
    model = tiny("gfl_r50_fpn").eval()
    model.config = replace(model.config, postprocess=detector.PostprocessConfig(score_thr=0.0, max_per_img=5))
    (found,) = model([image()], with_edges=True)
    count = len(found["scores"])
    assert 0 < count <= 5 and found["edges"].shape == (count, 4, 17) and found["edge_std"].shape == (count, 4)
    torch.testing.assert_close(found["edges"].sum(-1), torch.ones(count, 4))
    with pytest.raises(ValueError, match="with_edges must be False, got True"):
        tiny("atss_r50_fpn").eval()([image()], with_edges=True)


def test_no_images() -> None:
    model = tiny("atss_r50_fpn")
    assert model.eval()([]) == []
    with pytest.raises(ValueError, match="images must not be empty in training"):
        model.train()([], [])


def losses(model: detector.Detector, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    result = model.train()(images, targets)
    sum(result.values()).backward()
    assert all(x.isfinite() for x in result.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    return result


THIRD_LOSS = {"gfl_r50_fpn": "loss_dfl", "atss_r50_fpn": "loss_centerness"}


@pytest.mark.parametrize("name", HEADS)
def test_trains_on_images_with_and_without_objects(name: str) -> None:
    model, third = tiny(name), THIRD_LOSS[name]
    result = losses(model, [image(), image(50, 41)], [target([[8, 8, 40, 50]], [2]), target([], [])])
    assert set(result) == {"loss_cls", "loss_bbox", third}
    assert all(x > 0 for x in result.values())
    _, figures = model.loss([image()], [target([[8, 8, 40, 50]], [2])])
    assert figures["num_pos"] > 0
    bare = {"boxes": torch.tensor([]), "labels": torch.tensor([])}
    nothing = losses(model, [image()], [bare])
    assert nothing["loss_bbox"] == 0 and nothing[third] == 0 and nothing["loss_cls"] > 0


@pytest.mark.parametrize("name", HEADS)
def test_boxes_without_area_or_outside_train_nothing(name: str) -> None:
    model = tiny(name)
    result = losses(model, [image()], [target([[8, 8, 8, 8], [500, 500, 600, 600]], [0, 1])])
    assert result["loss_bbox"] == 0 and result[THIRD_LOSS[name]] == 0


WRONG_TARGETS: dict[str, tuple[list[Any], str]] = {
    "too few": ([], r"targets must have one entry for each of 1 images, got 0"),
    "no labels": (
        [{"boxes": torch.zeros(0, 4)}],
        r"targets\[0\] must be a dict with boxes and labels, got \['boxes'\]",
    ),
    "nan": (
        [target([[0, 0, float("nan"), 4]], [0])],
        r"must be finite with x1 <= x2 and y1 <= y2, got \[0, 0, nan, 4\]",
    ),
    "inverted": ([target([[0, 0, 9, 9], [9, 0, 4, 4]], [0, 0])], r"got \[9, 0, 4, 4\] at index 1"),
    "label too large": ([target([[0, 0, 9, 9]], [3])], r"must be in \[0, 3\), got 3 at index 0"),
    "label negative": ([target([[0, 0, 9, 9]], [-1])], r"must be in \[0, 3\), got -1 at index 0"),
    "float labels": ([{"boxes": torch.ones(1, 4), "labels": torch.ones(1)}], "must be integers, got float32"),
    "counts differ": ([target([[0, 0, 9, 9]], [0, 1])], r"must be \(G,\) = \(1,\), got \(2,\)"),
    "shape": ([{"boxes": torch.ones(1, 5), "labels": torch.ones(1).long()}], r"must be \(G, 4\), got \(1, 5\)"),
}


@pytest.mark.parametrize("kind", WRONG_TARGETS)
def test_wrong_targets_are_named(kind: str) -> None:
    targets, message = WRONG_TARGETS[kind]
    with pytest.raises((TypeError, ValueError), match=message):
        tiny("atss_r50_fpn")([image()], targets)


def test_training_needs_targets() -> None:
    with pytest.raises(ValueError, match=r"targets must be given in training; call model.eval\(\)"):
        tiny("atss_r50_fpn")([image()])


WRONG_IMAGES: dict[str, tuple[Any, str]] = {
    "array": ([[0]], r"images\[0\] must be a tensor, got list"),
    "batch": (torch.rand(1, 3, 8, 8), r"must be \(3, H, W\), or \(1, H, W\) for grey, got \(1, 3, 8, 8\)"),
    "HWC": (torch.rand(8, 8, 3), r"got \(8, 8, 3\)"),
    "empty": (torch.rand(3, 0, 8), r"must have pixels, got \(3, 0, 8\)"),
    "int": (torch.ones(3, 8, 8, dtype=torch.int64), "must be uint8 or float, got int64"),
    "0 to 255": (torch.full((3, 8, 8), 255.0), "got values from 255 to 255"),
}


@pytest.mark.parametrize("kind", WRONG_IMAGES)
def test_wrong_images_are_named(kind: str) -> None:
    wrong, message = WRONG_IMAGES[kind]
    with pytest.raises((TypeError, ValueError), match=message):
        tiny("atss_r50_fpn").eval()([wrong])


# fmt: off
OPENCV = {
    (5, 7): [
        [7, 94, 233, 140, 36, 75, 99],
        [76, 103, 146, 98, 50, 91, 116],
        [180, 117, 16, 35, 71, 115, 142],
        [105, 111, 120, 112, 101, 80, 67],
        [55, 107, 190, 164, 120, 57, 17],
    ],
    (2, 3): [
        [73, 114, 98],
        [97, 132, 59],
    ],
    (3, 9): [
        [7, 47, 156, 238, 141, 43, 57, 88, 99],
        [180, 151, 72, 7, 35, 62, 96, 129, 142],
        [55, 79, 144, 197, 165, 132, 85, 35, 17],
    ],
    (1, 1): [
        [35],
    ],
}
# fmt: on


def test_resize_gives_what_opencv_gives() -> None:
    """cv2.resize(x, size, interpolation=cv2.INTER_LINEAR) of OpenCV 5.0.0."""
    source = torch.tensor([[7, 250, 31, 99], [180, 3, 66, 142], [55, 201, 128, 17]], dtype=torch.uint8)
    for size, expected in OPENCV.items():
        assert resize(source[None, None], size)[0, 0].tolist() == expected


def test_batch_is_resized_normalised_and_padded() -> None:
    config = detector.InputConfig(short_side=40, long_side=60)
    images = [torch.randint(0, 256, (3, 20, 25), dtype=torch.uint8), torch.rand(3, 10, 90), torch.rand(3, 20, 25)]
    batch = make_batch(images, config, CPU, training=False)
    assert batch.image_shapes.tolist() == [[40, 50], [7, 60], [40, 50]]
    assert batch.padded_shapes.tolist() == [[64, 64], [32, 64], [64, 64]]
    torch.testing.assert_close(batch.scale_factors, torch.tensor([[2.0, 2.0], [60 / 90, 7 / 10], [2.0, 2.0]]))
    assert batch.pixels.shape == (3, 3, 64, 64)
    assert batch.pixels[1, :, 7:].eq(0).all() and batch.pixels[0, :, :, 50:].eq(0).all()
    for i, alone in enumerate(images):
        pixels = make_batch([alone], config, CPU, training=False).pixels
        assert torch.equal(batch.pixels[i, :, : pixels.shape[2], : pixels.shape[3]], pixels[0])
    grey = make_batch([torch.full((1, 40, 40), 124, dtype=torch.uint8)], config, CPU, training=False).pixels
    expected = (124 - torch.tensor([123.675, 116.28, 103.53])) / torch.tensor([58.395, 57.12, 57.375])
    torch.testing.assert_close(grey[0, :, 5, 5], expected)


def test_training_draws_the_short_side() -> None:
    config = detector.InputConfig(short_side=40, long_side=999, train_short_sides=(20, 60))
    shapes = [make_batch([image(10, 10)], config, CPU, training=True).image_shapes[0, 0].item() for _ in range(40)]
    assert min(shapes) >= 20 and max(shapes) <= 60 and len(set(shapes)) > 10
    assert make_batch([image(10, 10)], config, CPU, training=False).image_shapes[0, 0] == 40


@pytest.mark.parametrize("name", ["gfl_r50_fpn", pytest.param("atss_r50_fpn", marks=pytest.mark.slow)])
def test_onnx_export_is_the_network(name: str, tmp_path: Path) -> None:
    for package in ("onnx", "onnxscript"):
        pytest.importorskip(package)
    onnxruntime = pytest.importorskip("onnxruntime")
    model = tiny(name).eval()
    path = tmp_path / "model.onnx"
    detector.export_onnx(model, path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for shape in [(1, 3, 64, 96), (3, 3, 33, 70)]:
        images = torch.randn(shape)
        with torch.no_grad():
            expected = model.bbox_head.decode(model.raw(images))
        for got, reference in zip(session.run(None, {"images": images.numpy()}), expected, strict=True):
            torch.testing.assert_close(torch.from_numpy(got), reference, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_and_half_models(name: str, dtype: torch.dtype) -> None:
    model = tiny(name)
    with torch.autocast("cpu", dtype):
        losses(model, [image()], [target([[8, 8, 40, 50]], [1])])
        model.eval()([image()])
    model.to(dtype).eval()([image()])


@pytest.mark.slow  # inductor compiles a whole network, in minutes; so it does for one of the two
@pytest.mark.parametrize(("name", "compiler"), [*zip(HEADS, ("inductor", "aot_eager"), strict=True)])
def test_compiled_models_train_and_detect_alike(name: str, compiler: str) -> None:
    torch.manual_seed(0)
    config = small(name, depth=18).from_scratch()
    config = replace(config, input=detector.InputConfig(64, 128), postprocess=replace(config.postprocess, score_thr=0))
    model = detector.build(config, 3)
    compiled = torch.compile(model, backend=compiler)
    images, targets = [image(), image(80, 60)], [target([[8, 8, 40, 50]], [1]), target([], [])]
    parameters = [x for x in model.parameters() if x.requires_grad]
    gradients = []
    for run in (model, compiled):
        torch.manual_seed(1)  # the short side is drawn
        gradients.append(torch.autograd.grad(sum(run(images, targets).values()), parameters))
    for expected, got in zip(*gradients, strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    model.eval()
    for expected, got in zip(model(images), compiled(images), strict=True):
        assert len(expected["boxes"]) > 0
        torch.testing.assert_close(got["scores"], expected["scores"], rtol=1e-4, atol=1e-5)


def scene(generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """Three rectangles in dim noise; the colour is the class."""

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    height, width = draw(90, 140), draw(90, 140)
    pixels = torch.rand(3, height, width, generator=generator) * 0.3
    boxes, labels = [], []
    for _ in range(3):
        w, h, label = draw(20, 50), draw(20, 50), draw(0, 3)
        x, y = draw(0, width - w), draw(0, height - h)
        pixels[label, y : y + h, x : x + w] = 0.9
        pixels[(label + 1) % 3, y : y + h, x : x + w] = 0.1
        boxes.append([float(v) for v in (x, y, x + w, y + h)])
        labels.append(label)
    return (pixels * 255).to(torch.uint8), target(boxes, labels)


def ap50(detections: list[dict[str, Tensor]], targets: list[dict[str, Tensor]], label: int) -> float:
    """Average precision of one class at an overlap of 0.5, interpolated at COCO's 101 recalls."""
    ranked, total = [], 0
    for found, truth in zip(detections, targets, strict=True):
        boxes = truth["boxes"][truth["labels"] == label]
        total += len(boxes)
        free = torch.ones(len(boxes), dtype=torch.bool)
        mine = found["labels"] == label
        for box, score in zip(found["boxes"][mine], found["scores"][mine], strict=True):
            overlap = torch.where(free, gfl_ops.box_iou(box[None], boxes)[0], -1.0)
            hit = len(boxes) > 0 and bool(overlap.max() >= 0.5)
            if hit:
                free[overlap.argmax()] = False
            ranked.append((float(score), hit))
    hits = torch.tensor([hit for _, hit in sorted(ranked, reverse=True)]).cumsum(0)
    precision, recall = hits / torch.arange(1, len(hits) + 1), hits / total
    levels = torch.linspace(0, 1, 101)
    best = [precision[recall >= level].max() if (recall >= level).any() else torch.tensor(0.0) for level in levels]
    return float(torch.stack(best).mean())


def test_a_lite_model_learns_eight_images_by_heart() -> None:
    """In training and back in evaluation: boxes go through both scalings. Half of the lite model's width."""
    torch.manual_seed(0)
    lite = detector.get_config("gfl_r18_fpn_lite")
    lite = replace(
        lite,
        backbone=replace(lite.backbone, base_channels=16),
        input=detector.InputConfig(short_side=128, long_side=256),
    )
    model = detector.build(lite, num_classes=3)
    generator = torch.Generator().manual_seed(0)
    images, targets = zip(*(scene(generator) for _ in range(8)), strict=True)
    steps, rate = 100, 3e-3
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.2)
    for _ in range(steps):
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
    detections = model.eval()(images)
    assert sum(ap50(detections, targets, label) for label in range(3)) / 3 >= 0.95
