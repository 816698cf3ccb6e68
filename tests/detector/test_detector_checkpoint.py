"""Weights in and out: every kind of file that people have, and every way in which one does not fit."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gfl_ops import detector
from tests.support.models import small


def build(seed: int, num_classes: int = 3, name: str = "gfl_r50_fpn") -> detector.Detector:
    torch.manual_seed(seed)
    return detector.build(small(name), num_classes=num_classes)


@pytest.fixture(scope="module")
def trained() -> detector.Detector:
    return build(1)


def equal(model: detector.Detector, weights: dict[str, Tensor]) -> bool:
    own = model.state_dict()
    return all(torch.equal(own[name], x) for name, x in weights.items())


def write(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def scaled(weights: dict[str, Tensor], factor: float) -> dict[str, Tensor]:
    return {name: x * factor if x.is_floating_point() else x for name, x in weights.items()}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".safetensors"])
def test_save_and_load(tmp_path: Path, trained: detector.Detector, suffix: str) -> None:
    if suffix == ".safetensors":
        pytest.importorskip("safetensors")
    path = tmp_path / f"model{suffix}"
    trained.save_checkpoint(path, meta={"epoch": 12, "classes": ["cat", "dog", "emu"]})
    model = build(2)
    report = model.load_checkpoint(str(path))
    assert equal(model, trained.state_dict())
    assert report.meta == {"epoch": 12, "classes": ["cat", "dog", "emu"]}
    assert (report.loaded, report.dropped, report.initial) == (len(trained.state_dict()), (), ())
    assert [x.name for x in tmp_path.iterdir()] == [path.name]


def test_channels_last_weights_are_saved_as_they_are_named(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    model = build(3).to(memory_format=torch.channels_last)
    model.save_checkpoint(tmp_path / "model.safetensors")
    other = build(4)
    other.load_checkpoint(tmp_path / "model.safetensors")
    assert equal(other, model.state_dict())


def test_an_interrupted_save_leaves_the_old_file(
    tmp_path: Path, trained: detector.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.pth"
    trained.save_checkpoint(path)
    before = path.read_bytes()

    def full_disk(_: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        build(5).save_checkpoint(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_published_mmdet_file_loads_strictly(tmp_path: Path, trained: detector.Detector) -> None:
    content = {"meta": {"CLASSES": ("a", "b", "c"), "epoch": 12}, "state_dict": OrderedDict(trained.state_dict())}
    path = write(tmp_path / "gfl.pth", content)
    model = build(6)
    model.load_state_dict(torch.load(path, weights_only=True)["state_dict"], strict=True)
    assert equal(model, trained.state_dict())
    report = build(7).load_checkpoint(path)
    assert report.meta["CLASSES"] == ("a", "b", "c") and not report.averaged


def test_mmengine_file_with_a_moving_average(tmp_path: Path, trained: detector.Detector) -> None:
    """mmengine writes the average as state_dict, and what is being trained as ema_state_dict."""
    average = trained.state_dict()
    raw = scaled(average, 0.5)
    ema_state = {"steps": torch.tensor(7)} | {f"module.{name}": x for name, x in raw.items()}
    path = write(tmp_path / "epoch_1.pth", {"meta": {"epoch": 1}, "state_dict": average, "ema_state_dict": ema_state})
    model = build(8)
    assert model.load_checkpoint(path).averaged
    assert equal(model, average)
    assert not model.load_checkpoint(path, weights="raw").averaged
    assert equal(model, raw)


def test_original_gfocal_file(tmp_path: Path, trained: detector.Detector) -> None:
    """Its integral has another name; files of DataParallel, and older than the counters of batches, load as well."""
    own = trained.state_dict()
    weights = {f"module.{name}": x for name, x in own.items() if not name.endswith("num_batches_tracked")}
    weights["module.bbox_head.distribution_project.project"] = weights.pop("module.bbox_head.integral.project")
    path = write(tmp_path / "gfocal.pth", {"meta": {}, "state_dict": weights})
    model = build(9)
    model.load_checkpoint(path)
    assert equal(model, own)


@pytest.mark.parametrize("counters", [True, False])
def test_imagenet_backbone(tmp_path: Path, trained: detector.Detector, counters: bool) -> None:
    """Names as torchvision's; the file's weights in, its classifier out, neck and head as they were."""
    backbone = trained.backbone.state_dict()
    content = {name: x for name, x in backbone.items() if counters or not name.endswith("num_batches_tracked")}
    content |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    path = write(tmp_path / "resnet50.pth", content)
    model = build(10)
    before = {name: x.clone() for name, x in model.state_dict().items() if not name.startswith("backbone.")}
    report = model.load_checkpoint(path)
    assert equal(model, {f"backbone.{name}": x for name, x in backbone.items()})
    assert equal(model, before)
    assert report.dropped == ("fc.weight", "fc.bias")
    assert set(report.initial) == set(before)


def test_build_takes_weights(tmp_path: Path, trained: detector.Detector) -> None:
    path = write(tmp_path / "model.pth", trained.state_dict())
    assert equal(detector.build(small("gfl_r50_fpn"), num_classes=3, weights=path), trained.state_dict())


def test_other_classes_are_refused_by_name_and_shape(tmp_path: Path, trained: detector.Detector) -> None:
    path = write(tmp_path / "model.pth", trained.state_dict())
    model = build(11, num_classes=5)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(detector.CheckpointMismatch) as error:
        model.load_checkpoint(path)
    assert "of another shape (2): bbox_head.gfl_cls.bias (3,) for (5,)" in str(error.value)
    assert "bbox_head.gfl_cls.weight (3, 16, 3, 3) for (5, 16, 3, 3)" in str(error.value)
    assert equal(model, before)

    report = model.load_checkpoint(path, leave=["bbox_head.gfl_cls"])
    left = ("bbox_head.gfl_cls.weight", "bbox_head.gfl_cls.bias")
    assert set(report.initial) == set(report.dropped) == set(left)
    assert equal(model, {name: x for name, x in trained.state_dict().items() if name not in left})
    assert equal(model, {name: before[name] for name in left})


def test_another_head_is_refused_by_name(tmp_path: Path, trained: detector.Detector) -> None:
    path = write(tmp_path / "model.pth", trained.state_dict())
    with pytest.raises(detector.CheckpointMismatch) as error:
        build(12, name="atss_r50_fpn").load_checkpoint(path)
    assert "bbox_head.atss_cls.weight" in error.value.missing
    assert "bbox_head.integral.project" in error.value.unexpected
    assert "missing (6): bbox_head.atss_centerness.bias, " in str(error.value)


def test_long_lists_are_shortened_in_the_text_alone(tmp_path: Path, trained: detector.Detector) -> None:
    path = write(tmp_path / "model.pth", trained.state_dict())
    torch.manual_seed(0)
    with pytest.raises(detector.CheckpointMismatch) as error:
        detector.build(small("gfl_r50_fpn", depth=101), num_classes=3).load_checkpoint(path)
    assert len(error.value.missing) == 17 * 3 * 5  # 17 blocks of 3 convolutions with 4 tensors of normalisation each
    assert "and 235 more" in str(error.value)


class Payload:
    def __reduce__(self) -> Any:
        return os.system, ("touch payload-ran",)


def test_what_could_run_code_is_refused(
    tmp_path: Path, trained: detector.Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "bad.pth", {"state_dict": trained.state_dict(), "message_hub": Payload()})
    with pytest.raises(detector.CheckpointError, match="holds more than tensors and plain values"):
        build(13).load_checkpoint(path)
    assert not (tmp_path / "payload-ran").exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"not a checkpoint", b"PK\x03\x04 half a zip", b"\x80\x02}q\x00."],
    ids=["empty", "text", "zip", "{}"],
)
def test_files_that_are_no_checkpoints(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(detector.CheckpointError):
        build(14).load_checkpoint(path)


def test_broken_safetensors(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"\xff" * 64)
    with pytest.raises(detector.CheckpointError, match="is not a safetensors file"):
        build(15).load_checkpoint(path)


def test_wrong_contents_and_arguments(tmp_path: Path, trained: detector.Detector) -> None:
    with pytest.raises(detector.CheckpointError, match="holds a list, not weights by name"):
        trained.load_checkpoint(write(tmp_path / "list.pth", [1, 2]))
    with pytest.raises(detector.CheckpointError, match="epoch must be a tensor, got int"):
        trained.load_checkpoint(write(tmp_path / "plain.pth", {"epoch": 3}))
    with pytest.raises(FileNotFoundError, match="there is no file"):
        trained.load_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(ValueError, match=r"must end in .safetensors, .pth or .pt, got 'model.h5'"):
        trained.save_checkpoint(tmp_path / "model.h5")
    with pytest.raises(ValueError, match="weights must be 'best' or 'raw', got 'ema'"):
        trained.load_checkpoint(write(tmp_path / "m.pth", trained.state_dict()), weights="ema")  # type: ignore[arg-type]


# ---- files of other programs -----------------------------------------------------------------------------------


def test_the_original_gfocals_geometry(tmp_path: Path) -> None:
    """Its points are at (stride - 1) / 2, and its boxes end on their last pixel: 8-pixel cell (1, 1) has its point at
    11.5, so that distances of one stride give the pixels 3.5 to 19.5, which is the box from 3.5 to 20.5."""
    model = build(20)
    with torch.no_grad():
        for parameter in model.bbox_head.parameters():
            parameter.zero_()
    weights = {name: x for name, x in model.state_dict().items() if name != "bbox_head.integral.project"}
    weights["bbox_head.distribution_project.project"] = torch.arange(17.0)
    path = write(tmp_path / "v1.pth", {"state_dict": weights})
    report = model.load_checkpoint(path)
    assert len(report.notes) == 1 and "mmdet 1.x" in report.notes[0]
    found = detected_one(model)
    torch.testing.assert_close(found, torch.tensor([[3.5, 3.5, 20.5, 20.5]]), rtol=0, atol=1e-3)

    model.save_checkpoint(tmp_path / "own.safetensors")
    other = build(21)
    assert other.load_checkpoint(tmp_path / "own.safetensors").notes == report.notes
    assert other.config.head.priors.inclusive and torch.equal(detected_one(other), found)
    losses, _ = other.bbox_head.loss(
        one_box(other, level=0, cell=(1, 1)),
        [{"boxes": torch.tensor([[3.5, 3.5, 20.5, 20.5]]), "labels": torch.tensor([0])}],
        torch.tensor([[64.0, 64.0]]),
    )
    assert all(x.isfinite() for x in losses.values())


def one_box(model: detector.Detector, level: int, cell: tuple[int, int]) -> Any:
    """Outputs of a 64 x 64 batch: one cell has a high score, and its edges are one bin away."""
    sizes = [-(-64 // stride) for stride in model.bbox_head.strides]
    scores = [torch.full((1, model.num_classes, n, n), -9.0) for n in sizes]
    scores[level][0, 0, cell[0], cell[1]] = 4.0
    edges = [torch.full((1, 4, 17, n, n), -30.0) for n in sizes]
    for x in edges:
        x[:, :, 1] = 30.0
    return model.bbox_head.outputs(scores, [x.flatten(1, 2) for x in edges])


def detected_one(model: detector.Detector) -> Tensor:
    outputs = one_box(model, 0, (1, 1))
    (found,) = model.bbox_head.detect(outputs, torch.tensor([[64.0, 64.0]]), torch.ones(1, 2), model.config.postprocess)
    return found["boxes"]


def test_a_file_that_does_not_fit_leaves_the_geometry(tmp_path: Path) -> None:
    model = build(22)
    path = write(tmp_path / "v1.pth", {"state_dict": {"bbox_head.distribution_project.project": torch.arange(17.0)}})
    with pytest.raises(detector.CheckpointMismatch):
        model.load_checkpoint(path)
    assert not model.config.head.priors.inclusive


@pytest.mark.parametrize(("family", "old"), [("fcos_r50_fpn", "fcos"), ("fovea_r50_fpn", "fovea")])
def test_names_of_before_mmdet_2(tmp_path: Path, family: str, old: str) -> None:
    model = detector.build(small(family), num_classes=2)
    weights = {
        re.sub(r"bbox_head\.conv_(cls|reg|centerness)", rf"bbox_head.{old}_\1", name): x
        for name, x in model.state_dict().items()
    }
    assert f"bbox_head.{old}_cls.weight" in weights
    other = detector.build(small(family), num_classes=2)
    other.load_checkpoint(write(tmp_path / "old.pth", {"state_dict": weights}))
    assert equal(other, model.state_dict())


@pytest.mark.parametrize("extra", [True, False])
def test_gflv2s_class_beyond_those_there_are(tmp_path: Path, extra: bool) -> None:
    """A file may have it or not, and the model, too."""

    def make(extra_class: bool) -> detector.Detector:
        config = small("gflv2_r50_fpn")
        quality = replace(config.head.quality, extra_class=extra_class)  # type: ignore[type-var]
        return detector.build(replace(config, head=replace(config.head, quality=quality)), num_classes=3)

    source, model = make(not extra), make(extra)
    path = tmp_path / "model.safetensors"
    source.save_checkpoint(path)
    own = model.state_dict()["bbox_head.gfl_cls.weight"].clone()
    (note,) = model.load_checkpoint(path).notes
    loaded = model.state_dict()["bbox_head.gfl_cls.weight"]
    assert "class beyond" in note and torch.equal(loaded[:3], source.state_dict()["bbox_head.gfl_cls.weight"][:3])
    assert not extra or torch.equal(loaded[3], own[3])


def test_a_vggs_imagenet_weights(tmp_path: Path) -> None:
    """mmdet's files have them all. torchvision's lack the two last convolutions, which keep their initial weights."""
    config = detector.get_config("ssd_vgg_lite")
    model = detector.build(config, num_classes=2)
    weights = {name.removeprefix("backbone."): x for name, x in model.state_dict().items() if "backbone" in name}
    weights["classifier.0.weight"] = torch.zeros(4, 4)
    other = detector.build(config, num_classes=2)
    report = other.load_checkpoint(write(tmp_path / "vgg.pth", weights))
    assert report.dropped == ("classifier.0.weight",) and equal(other.backbone, model.backbone.state_dict())
    torchvisions = {name: x for name, x in weights.items() if not name.startswith(("features.31", "features.33"))}
    report = other.load_checkpoint(write(tmp_path / "part.pth", torchvisions))
    assert "backbone.features.31.weight" in report.initial and "backbone.features.28.weight" not in report.initial
    del weights["features.28.weight"]
    with pytest.raises(detector.CheckpointMismatch, match=r"missing \(1\): backbone.features.28.weight"):
        other.load_checkpoint(write(tmp_path / "broken.pth", weights))
