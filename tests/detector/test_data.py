"""Data: COCO's format with all that can be wrong in it, synthetic scenes, augmentation, batches."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.support.blood_cells import bccd

pytest.importorskip("PIL")
from PIL import Image

from gfl_ops.detector import data
from gfl_ops.detector.data.distort import _recoloured, distort, expand, overlap_crop
from gfl_ops.detector.data.rendering import render_scene
from gfl_ops.detector.data.sample import Sample
from gfl_ops.detector.data.shapes import CLASSES


def write_image(path: Path, width: int = 80, height: int = 60, **options: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def annotation(i: int, image: int, bbox: Any, category: int = 7, **more: Any) -> dict[str, Any]:
    return {"id": i, "image_id": image, "category_id": category, "bbox": bbox, **more}


def make_set(root: Path, rows: list[dict[str, Any]], count: int = 2, **changes: Any) -> Path:
    """One split "train" of 80 x 60 images, with categories 7 (cat) and 3 (dog)."""
    for i in range(count):
        write_image(root / "images" / f"{i}.png")
    content = {
        "images": [{"id": 10 + i, "file_name": f"{i}.png", "width": 80, "height": 60} for i in range(count)],
        "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
        "annotations": rows,
    } | changes
    (root / "train.json").write_text(json.dumps(content))
    return root


GOOD = [10.0, 10.0, 20.0, 30.0]


def test_boxes_and_labels_are_mmdets(tmp_path: Path) -> None:
    """Degenerate, crowded and ignored boxes do not train; labels follow the ids' order, or the classes asked for."""
    rows = [
        annotation(1, 10, GOOD),
        annotation(2, 10, [5, 5, 0, 0]),
        annotation(3, 10, [5, 5, 0.5, 20]),
        annotation(4, 10, [-30, 5, 20, 20]),
        annotation(5, 10, GOOD, area=0),
        annotation(6, 10, GOOD, iscrowd=1),
        annotation(7, 10, GOOD, ignore=1),
        annotation(8, 10, [70, 50, 30, 30], category=3),
    ]
    found = data.open_split(make_set(tmp_path, rows), "train")
    assert found.classes == ("dog", "cat") and list(found.category_ids) == [3, 7]
    assert found[0].boxes.tolist() == [[10, 10, 30, 40], [70, 50, 100, 80]] and found[0].labels.tolist() == [1, 0]
    assert found[0].image.shape == (3, 60, 80) and found[0].image_id == 10 and len(found[1].boxes) == 0
    kinds = [finding.kind for finding in found.findings]
    assert kinds == ["box without use"] * 4 + ["box beyond the image"]
    assert not any(finding.fatal for finding in found.findings)
    training = data.open_split(tmp_path, "train", training=True)
    assert len(training) == 1 and training.left_out == 1
    subset = data.open_split(tmp_path, "train", classes=["cat"])
    assert subset[0].labels.tolist() == [0] and list(subset.category_ids) == [7]
    with pytest.raises(data.BadData, match="has no category 'cow'; it has cat, dog"):
        data.open_split(tmp_path, "train", classes=["cow"])


def test_ground_truth_is_what_the_file_says(tmp_path: Path) -> None:
    rows = [annotation(1, 10, GOOD, iscrowd=1, area=5.0), annotation(1, 11, GOOD), annotation(3, 11, GOOD, category=3)]
    truth = data.open_split(make_set(tmp_path, rows), "train", classes=["cat"]).ground_truth()
    assert [(a["id"], a["iscrowd"], a["area"]) for a in truth["annotations"]] == [(1, 1, 5.0), (2, 0, 600.0)]
    assert truth["categories"] == [{"id": 7, "name": "cat"}]


MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "three numbers": ({"annotations": [annotation(1, 10, [1, 2, 3])]}, r"0.png: annotation 1: bbox must be four"),
    "text": ({"annotations": [annotation(1, 10, ["a", 2, 3, 4])]}, r"got \['a', 2, 3, 4\]"),
    "nan": ({"annotations": [annotation(1, 10, [float("nan"), 2, 3, 4])]}, "must be four finite numbers"),
    "no box": ({"annotations": [{"id": 1, "image_id": 10, "category_id": 7}]}, "got None"),
    "unknown image": ({"annotations": [annotation(1, 99, GOOD)]}, r"annotations\[0\]: is of image 99, which is not"),
    "unknown category": ({"annotations": [annotation(1, 10, GOOD, 8)]}, r"is of category 8, which is not listed"),
    "image entry": ({"images": [{"id": 1, "file_name": "0.png"}]}, r"images\[0\]: has not all of id, file_name"),
    "no width": ({"images": [{"id": 1, "file_name": "0.png", "width": 0, "height": 2}]}, "0.png: width x height is 0"),
    "same id": ({"images": [{"id": 1, "file_name": f"{i}.png", "width": 9, "height": 9} for i in (0, 1)]}, "is taken"),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_annotations_are_named_or_skipped(tmp_path: Path, kind: str) -> None:
    changes, message = MALFORMED[kind]
    root = make_set(tmp_path, [], **changes)
    with pytest.raises(data.BadData, match=message) as caught:
        data.open_split(root, "train")
    assert "train.json" in str(caught.value)
    found = data.open_split(root, "train", skip_bad=True)
    assert len(found.findings) == 1 and found.findings[0].fatal and sum(len(r.boxes) for r in found.records) == 0


WRONG_FILES = {
    "not json": (b"{", "train.json: cannot be read as JSON"),
    "list": (b"[]", "train.json: is not in COCO's format: there is no list 'images'"),
    "no images": (b'{"images": [], "annotations": [], "categories": []}', "train.json: lists no images"),
    "category": (b'{"images": [1], "annotations": [], "categories": [{}]}', r"categories\[0\] has not both id and"),
    "bytes": (b"\xff\xfe\x00", "cannot be read as JSON"),
}


@pytest.mark.parametrize("kind", WRONG_FILES)
def test_wrong_files_are_named(tmp_path: Path, kind: str) -> None:
    content, message = WRONG_FILES[kind]
    (tmp_path / "train.json").write_bytes(content)
    with pytest.raises(data.BadData, match=message):
        data.open_split(tmp_path, "train")


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(data.BadData, match="nowhere: there is no such folder"):
        data.open_split(tmp_path / "nowhere", "train")
    with pytest.raises(data.BadData, match=r"no annotations of the split 'val'; looked for val\.json, "):
        data.open_split(make_set(tmp_path, []), "val")


LAYOUTS = [
    ("train.json", "images"),
    ("train.json", "train"),
    ("annotations/instances_train2017.json", "train2017"),
    ("train/_annotations.coco.json", "train"),
    ("annotations/train.json", "images/train"),
]


@pytest.mark.parametrize(("annotations", "images"), LAYOUTS)
def test_layouts(tmp_path: Path, annotations: str, images: str) -> None:
    make_set(tmp_path, [annotation(1, 10, GOOD)])
    content = (tmp_path / "train.json").read_text()
    for path, name in ((tmp_path / "images" / "0.png", "0.png"), (tmp_path / "images" / "1.png", "1.png")):
        (tmp_path / images).mkdir(parents=True, exist_ok=True)
        path.rename(tmp_path / images / name)
    (tmp_path / "train.json").unlink()
    (tmp_path / annotations).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / annotations).write_text(content)
    assert data.open_split(tmp_path, "train")[0].image.shape == (3, 60, 80)


def test_check_names_every_broken_image(tmp_path: Path) -> None:
    root = make_set(tmp_path, [annotation(1, 10, GOOD), annotation(2, 10, [11, 10, 19, 30])], count=6)
    folder = root / "images"
    whole = (folder / "1.png").read_bytes()
    (folder / "1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "2.png").write_bytes(b"")
    (folder / "3.png").write_text("not an image")
    (folder / "4.png").unlink()
    write_image(folder / "5.png", width=60, height=80)
    found = data.open_split(root, "train", skip_bad=True)
    report = data.check(found)
    by_name = {Path(finding.where).name: finding.what for finding in report.fatal}
    assert set(by_name) == {"1.png", "2.png", "3.png", "4.png", "5.png"}
    assert "truncated" in by_name["1.png"] and by_name["2.png"] == "is empty"
    assert "cannot be decoded" in by_name["3.png"] and by_name["4.png"] == "there is no such file"
    assert by_name["5.png"] == "is 60 x 80, the annotations say 80 x 60"
    assert report.kinds() == {"double": 1, "image file": 4, "image size": 1} and len(report.as_json()["errors"]) == 5
    assert found.drop(report.bad_images) == 5 and len(found) == 1
    quick = data.check(data.open_split(root, "train", skip_bad=True), read_images=False)
    assert {Path(finding.where).name for finding in quick.fatal} == {"2.png", "3.png", "4.png", "5.png"}
    with pytest.raises(data.BadImage, match=r"1\.png: cannot be decoded"):
        data.read_image(folder / "1.png")


def test_images_of_every_kind_are_read_as_rgb(tmp_path: Path) -> None:
    for mode in ("L", "LA", "P", "RGBA", "CMYK", "1"):
        suffix = "tif" if mode == "CMYK" else "png"
        Image.new(mode, (7, 5)).save(tmp_path / f"{mode}.{suffix}")
        image = data.read_image(tmp_path / f"{mode}.{suffix}")
        assert image.shape == (3, 5, 7) and image.dtype == torch.uint8 and image.is_contiguous()
    turned = Image.Exif()
    turned[0x0112] = 6
    write_image(tmp_path / "turned.jpg", exif=turned)
    assert data.read_image(tmp_path / "turned.jpg").shape == (3, 80, 60)
    assert data.image_size(tmp_path / "turned.jpg") == (80, 60)


def test_synthetic_scenes_are_the_same_every_time() -> None:
    first, again = data.SyntheticScenes("val", 20), data.SyntheticScenes("val", 20)
    for i in (0, 7):
        assert all(torch.equal(a, b) for a, b in zip(first[i][:3], again[i][:3], strict=True))
    others = [data.SyntheticScenes("train", 20), data.SyntheticScenes("val", 20, seed=1)]
    assert all(not torch.equal(first.scene(0).boxes, other.scene(0).boxes) for other in others)
    for image, size in zip((first[i].image for i in range(20)), first.sizes(), strict=True):
        assert image.shape[1:] == tuple(size)
    assert set(map(tuple, first.sizes().tolist())) == {(192, 256), (256, 192)}


def test_synthetic_scenes_have_what_they_promise() -> None:
    scenes = data.SyntheticScenes("train", 400)
    drawn = [scenes.scene(i) for i in range(400)]
    boxes, labels = torch.cat([scene.boxes for scene in drawn]), torch.cat([scene.labels for scene in drawn])
    sides = (boxes[:, 2:] - boxes[:, :2]).amax(1)
    assert len(CLASSES) >= 10 and (labels.bincount(minlength=len(CLASSES)) > 20).all()
    assert sides.min() < 10 and sides.max() > 140 and (boxes[:, 2:] > boxes[:, :2]).all()
    for scene in drawn:
        height, width = scene.size
        assert (scene.boxes >= 0).all() and (scene.boxes <= torch.tensor([width, height, width, height])).all()
    truth = scenes.ground_truth()
    assert len(truth["annotations"]) == len(boxes) and len(truth["images"]) == 400


def test_synthetic_boxes_are_exact() -> None:
    """A scene painted with and without one sharp object differs in that object's box, up to its border."""
    scenes = data.SyntheticScenes("val", 60)
    checked = 0
    for i in range(60):
        scene = scenes.scene(i)
        last = len(scene.objects.kind) - 1
        if scene.objects.blur[last] > 0 or scene.objects.edge[last] > 1.5:
            continue
        sharp = scene.objects._replace(shadow=torch.zeros(last + 1, 3))
        with_it = render_scene(scene._replace(objects=sharp)).int()
        without = render_scene(scene._replace(objects=type(sharp)(*(field[:last] for field in sharp)))).int()
        rows, columns = ((with_it - without).abs().amax(0) > 40).nonzero().unbind(1)
        if last < len(scene.objects.kind) - len(scene.labels) or len(rows) < 30:
            continue
        seen = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
        assert (seen[:2] >= scene.boxes[-1][:2] - 1.5).all() and (seen[2:] <= scene.boxes[-1][2:] + 1.5).all()
        checked += bool(((seen - scene.boxes[-1]).abs() < 2.5).all())
    assert checked >= 10


def test_scenes_painted_together_are_those_painted_alone() -> None:
    scenes = data.SyntheticScenes("val", 6)
    for (image, boxes, labels), i in zip(scenes.batch(range(6), "cpu"), range(6), strict=True):
        alone = scenes[i]
        assert (image.int() - alone.image.int()).abs().max() <= 1
        assert torch.equal(boxes, alone.boxes) and torch.equal(labels, alone.labels)


def test_flip_and_crop_keep_boxes_on_their_objects() -> None:
    """Objects are bright rectangles on black: their extent in the changed image is their box."""
    image = torch.zeros(3, 60, 80, dtype=torch.uint8)
    image[:, 10:30, 20:50] = 255
    sample = data.Sample(image, torch.tensor([[20.0, 10, 50, 30]]), torch.tensor([1]), 1)
    cropped = 0
    for seed in range(40):
        augment = data.Augment(flip=0.5, crop=True, photometric=seed % 2 == 0)
        augmented = augment(sample, np.random.default_rng(seed))
        rows, columns = (augmented.image.float().mean(0) > 127).nonzero().unbind(1)
        seen = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert [float(x) for x in seen] == augmented.boxes[0].tolist()
        cropped += augmented.image.shape != image.shape
    assert 5 < cropped < 35
    sides = {data.Augment(short_sides=(48, 64))(sample, np.random.default_rng(seed)).short_side for seed in range(60)}
    assert min(sides) >= 48 and max(sides) <= 64 and len(sides) > 8


def places(start: int, count: int, **options: Any) -> list[list[tuple[int, int, int]]]:
    sizes = np.array([(60, 80) if i % 3 else (80, 60) for i in range(23)])
    return [[tuple(p) for p in batch] for batch in islice(data.EpochBatches(sizes, start=start, **options), count)]


def test_batches_resume_and_divide() -> None:
    everything = places(0, 30, batch_size=4, seed=3)
    assert places(17, 13, batch_size=4, seed=3) == everything[17:]
    halves = [places(0, 30, batch_size=2, seed=3, rank=rank, world_size=2) for rank in (0, 1)]
    assert [a + b for a, b in zip(*halves, strict=True)] == everything
    per_epoch = [{index for batch in everything for e, _, index in batch if e == epoch} for epoch in (0, 1)]
    assert per_epoch == [set(range(23))] * 2
    assert all(len({index % 3 == 0 for _, _, index in batch}) == 1 for batch in everything)
    assert [p[2] for p in everything[0]] != [p[2] for p in places(0, 1, batch_size=4, seed=4)[0]]


def test_workers_change_nothing() -> None:
    scenes = data.SyntheticScenes("train", 10, size=(64, 96))
    runs = []
    for workers in (0, 2):
        batches = data.EpochBatches(scenes.sizes(), 2, seed=1)
        loader = data.training_loader(scenes, batches, data.Augment(short_sides=(48, 64)), workers=workers)
        runs.append(list(islice(loader, 8)))
    for alone, together in zip(*runs, strict=True):
        assert alone.image_ids == together.image_ids and alone.short_sides == together.short_sides
        assert all(torch.equal(a, b) for a, b in zip(alone.images, together.images, strict=True))


def test_blood_cells() -> None:
    """Real photographs, with mistakes in their annotations: two boxes without area, cells annotated twice."""
    train, val = (data.open_split(bccd(), split) for split in ("train", "val"))
    assert (len(train), len(val)) == (292, 72) and train.classes == ("RBC", "WBC", "Platelets")
    report = data.check(train)
    assert not report.fatal and report.kinds()["box without use"] == 2
    assert report.boxes == sum(report.boxes_per_class.values()) == 3941
    assert sum(len(sample.boxes) for sample in (val[i] for i in range(72))) == 945


# ---- SSD's augmentation ------------------------------------------------------------------------------------


def test_expand_moves_the_image_with_its_boxes() -> None:
    sample = Sample(
        torch.full((3, 20, 30), 200, dtype=torch.uint8), torch.tensor([[2.0, 3, 12, 13]]), torch.tensor([1]), 7
    )
    for seed in range(20):
        larger = expand(sample, np.random.default_rng(seed), (10.0, 20.0, 30.0))
        x1, y1, x2, y2 = (int(v) for v in larger.boxes[0])
        assert (larger.image[:, y1:y2, x1:x2] == 200).all() and (larger.image[0] == 200).sum() == 600
        assert larger.image[:, 0, 0].tolist() in ([10, 20, 30], [200, 200, 200])
        assert 20 <= larger.image.shape[1] <= 80 and larger.boxes[0, 2:].sub(larger.boxes[0, :2]).tolist() == [10, 10]


def test_overlap_crop_keeps_what_has_its_centre_inside() -> None:
    sample = Sample(
        torch.zeros(3, 100, 100, dtype=torch.uint8),
        torch.tensor([[10.0, 10, 90, 90], [60, 60, 95, 95]]),
        torch.tensor([0, 1]),
        7,
    )
    sizes = set()
    for seed in range(60):
        part = overlap_crop(sample, np.random.default_rng(seed))
        height, width = part.image.shape[1:]
        sizes.add((height, width))
        assert 0.45 <= height / width <= 2.1 and len(part.boxes) == len(part.labels) >= 1
        assert (part.boxes >= 0).all() and (part.boxes[:, 2] <= width).all() and (part.boxes[:, 3] <= height).all()
    assert len(sizes) > 20


def test_distort_keeps_grey_grey_and_turns_hues() -> None:
    """Red turned by the whole range stays a mixture in which nothing but its neighbours has a part."""
    grey = torch.full((3, 4, 4), 100, dtype=torch.uint8)
    red = torch.zeros(3, 4, 4, dtype=torch.uint8)
    red[0] = 255
    changed = 0
    for seed in range(40):
        assert len({int(v) for v in distort(grey, np.random.default_rng(seed)).float().mean((1, 2))}) == 1
        changed += not torch.equal(distort(red, np.random.default_rng(seed)), red)
    assert changed > 30
    same = _recoloured(red.float(), 1.0, 0.0)
    torch.testing.assert_close(same, red.float(), rtol=0, atol=1e-4)
    turned = _recoloured(red.float(), 1.0, 120.0)
    torch.testing.assert_close(turned, red.float().roll(1, 0), rtol=0, atol=1e-3)
    torch.testing.assert_close(_recoloured(red.float(), 0.5, 0.0)[1], torch.full((4, 4), 127.5), rtol=0, atol=1e-3)
