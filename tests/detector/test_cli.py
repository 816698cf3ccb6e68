"""The command gfl as it is installed: what it prints, leaves behind and exits with."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("PIL")
pytest.importorskip("tqdm")
pytest.importorskip("pycocotools")
pytest.importorskip("matplotlib")
from PIL import Image

from gfl_ops.cli import main
from gfl_ops.cli.bench import ablation_configs
from gfl_ops.detector import build
from gfl_ops.detector.data import SyntheticScenes
from tests.support.blood_cells import bccd
from tests.support.programs import environment

EXTRAS = ("PIL", "tqdm", "safetensors", "pycocotools", "matplotlib", "onnx", "onnxscript", "onnxruntime")
SHORT = ["--iterations", "2", "--batch-size", "2", "--short-side", "64", "--threads", "1", "--log-every", "1"]


def gfl(*arguments: object, folder: Path, status: int = 0, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    """Through the console script beside this Python, or as a module where the package is not installed."""
    script = shutil.which("gfl", path=str(Path(sys.executable).parent))
    command = [script] if script is not None else [sys.executable, "-m", "gfl_ops.cli"]
    command += map(str, arguments)
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == status, f"{done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A COCO data set of a few scenes in "shapes", and a run on it in "run"."""
    root = tmp_path_factory.mktemp("cli")
    for split, count in (("train", 4), ("val", 3)):
        scenes = SyntheticScenes(split, count, size=(64, 96))  # type: ignore[arg-type]
        truth = scenes.ground_truth()
        (root / "shapes" / split).mkdir(parents=True)
        for image in truth["images"]:
            image["file_name"] = f"{image['id']}.png"
            pixels = scenes[image["id"] - 1].image.permute(1, 2, 0).numpy()
            Image.fromarray(np.ascontiguousarray(pixels)).save(root / "shapes" / split / image["file_name"])
        (root / "shapes" / f"{split}.json").write_text(json.dumps(truth))
    return root


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    done = gfl("train", "--data", "shapes", "--out", "run", *SHORT, folder=folder)
    assert "AP50" in done.stdout and "report: run/report.html" in done.stdout
    assert "4 images to train on, 3 to evaluate on, 12 classes" in done.stderr and "2/2: " in done.stderr
    return folder / "run"


def test_a_run_leaves_figures_and_pictures(trained: Path) -> None:
    metrics = json.loads((trained / "metrics.json").read_text())
    assert set(metrics["per_class"]) == set(SyntheticScenes.classes) and "AP50" in metrics["metrics"]
    assert isinstance(json.loads((trained / "results.json").read_text()), list)
    page = (trained / "report.html").read_text()
    for name in ("losses.svg", "precision_recall.svg", "score_and_quality.svg", "predictions.png"):
        assert f'src="report/{name}"' in page and (trained / "report" / name).stat().st_size > 1000
    assert "http://" not in page and "https://" not in page
    assert json.loads((trained / "run.json").read_text())["recipe"]["iterations"] == 2


def test_a_run_goes_on(trained: Path) -> None:
    again = gfl("train", "--data", "shapes", "--out", "run", *SHORT, folder=trained.parent, status=2)
    assert again.stderr.rstrip().endswith("run: holds another run's checkpoints; resume it, or choose another folder")
    done = gfl("train", "--data", "shapes", "--out", "run", "--resume", "--json", *SHORT, folder=trained.parent)
    assert json.loads(done.stdout)["run"] == "run"


def test_evaluation_is_what_training_said(trained: Path) -> None:
    weights = trained / "checkpoints" / "last.safetensors"
    done = gfl("eval", weights, "--data", "shapes", "--json", folder=trained.parent)
    assert json.loads(done.stdout)["metrics"] == json.loads((trained / "metrics.json").read_text())["metrics"]


def test_predictions_are_drawn_and_listed(trained: Path) -> None:
    root = trained.parent
    weights = ["--weights", trained / "checkpoints" / "last.safetensors", "--score-thr", "0"]
    done = gfl("predict", "shapes/val", "shapes/train/*.png", *weights, "--out", "drawn", "--json", folder=root)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(rows) == 7 and {path.name for path in (root / "drawn").iterdir()} == {
        "1.png", "2.png", "3.png", "4.png", "1_2.png", "2_2.png", "3_2.png"
    }  # fmt: skip
    assert set(rows[0]["detections"][0]) == {"box", "score", "label", "class", "edge_spread"}
    drawn, plain = Image.open(root / "drawn" / "1.png"), Image.open(root / "shapes" / "val" / "1.png")
    assert drawn.width % plain.width == 0 and drawn.width >= plain.width


def test_check_data_finds_what_is_broken(folder: Path, tmp_path: Path) -> None:
    sound = gfl("check-data", "shapes", folder=folder)
    assert "4 images" in sound.stdout and "nothing is wrong with it" in sound.stdout
    shutil.copytree(folder / "shapes", tmp_path / "shapes")
    (tmp_path / "shapes" / "train" / "2.png").write_bytes(b"no image")
    broken = gfl("check-data", "shapes", folder=tmp_path, status=1)
    assert "error: shapes/train/2.png: cannot be decoded" in broken.stdout
    refused = gfl("train", "--data", "shapes", "--out", "run", *SHORT, folder=tmp_path, status=2)
    assert "1 broken images; --skip-bad leaves them out" in refused.stderr and "train/2.png" in refused.stderr
    skipped = gfl("train", "--data", "shapes", "--out", "r2", "--skip-bad", "--no-report", *SHORT, folder=tmp_path)
    assert "1 broken images skipped" in skipped.stderr and "3 images to train on" in skipped.stderr


def torchrun(*arguments: object, folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += map(str, arguments)
    return subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_two_processes_start_anew_after_one_is_killed(folder: Path, tmp_path: Path) -> None:
    """torchrun starts both again, and they go on from the last checkpoint; nobody asks for --resume."""
    arguments = ["--max-restarts", "1", "-m", "gfl_ops.detector.train", "--data", folder / "shapes", "--out", "run"]
    options = ["--iterations", "60", "--checkpoint-every", "5", *SHORT[2:], "--no-report"]
    started = torchrun(*arguments, *options, folder=tmp_path)
    checkpoints = tmp_path / "run" / "checkpoints"
    deadline = time.monotonic() + 200
    while not list(checkpoints.glob("0*.pth")) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = subprocess.run(["pgrep", "-P", str(started.pid)], capture_output=True, text=True, check=True)
    os.kill(int(workers.stdout.split()[-1]), signal.SIGKILL)
    output, _ = started.communicate(timeout=300)
    assert started.returncode == 0 and output.count("AP50") == 1
    iterations = [line.split(",")[0] for line in (tmp_path / "run" / "train.csv").read_text().splitlines()]
    assert iterations == ["iteration", *map(str, range(1, 61))]

    weights = checkpoints / "last.safetensors"
    alone = gfl("eval", weights, "--data", folder / "shapes", "--json", folder=tmp_path)
    arguments = ["-m", "gfl_ops.cli", "eval", weights, "--data", folder / "shapes", "--json"]
    shared, _ = torchrun(*arguments, folder=tmp_path).communicate(timeout=300)
    assert json.loads(shared) == json.loads(alone.stdout)


@pytest.mark.slow
@pytest.mark.timeout(1600)
def test_the_lite_model_learns_scenes_in_three_minutes(tmp_path: Path) -> None:
    """On two cores; two fifths of the recipe."""
    done = gfl("train", "--iterations", 400, "--out", "run", "--json", folder=tmp_path, timeout=1500)
    assert json.loads(done.stdout)["metrics"]["AP50"] >= 0.2


@pytest.mark.slow
@pytest.mark.skipif("GFL_BCCD" not in os.environ, reason="trains for minutes; GFL_BCCD names the folder of blood cells")
@pytest.mark.timeout(1600)
def test_blood_cells_are_learned_from_scratch(tmp_path: Path) -> None:
    """A fifth of the recipe: white cells are found, red ones mostly, platelets begin to be."""
    done = gfl("train", "--data", bccd(), "--iterations", 200, "--out", "run", "--json", folder=tmp_path, timeout=1500)
    assert json.loads(done.stdout)["metrics"]["AP50"] >= 0.5


WRONG: dict[str, tuple[list[str], str]] = {
    "model": (["train", "--model", "gfl_r5_fpn"], "got 'gfl_r5_fpn'; did you mean gfl_r50_fpn?"),
    "data": (["train", "--data", "nowhere"], "gfl train: nowhere: there is no such folder"),
    "weights": (["eval", "nothing.safetensors"], "gfl eval: there is no file nothing.safetensors"),
    "no weights": (["eval"], "gfl eval: no weights: give a file of them; runs/ has none"),
    "image": (["predict", "no*.jpg", "--json"], "no*.jpg: there is no such file, and nothing fits it as a pattern"),
    "nowhere to": (["predict", "x.jpg"], "--out DIR or --json says what to do"),
    "check": (["check-data", "nowhere"], "gfl check-data: nowhere: there is no such folder"),
    "classes": (["train", "--classes", "a"], "--classes needs --data"),
    "weights of nothing": (["train", "--weights", "w.pth", "--out", "run"], "there is no file w.pth"),
    "row": (["bench", "ablation", "--only", "qlf"], "--only takes atss, qfl, dfl, gfl, got 'qlf'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_errors_are_one_line(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, message = WRONG[kind]
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error and error.startswith(f"gfl {arguments[0]}: ")


@pytest.mark.parametrize("arguments", [["train", "--batch-size", "0"], ["tain"], [], ["train", "--precision", "fp8"]])
def test_wrong_options_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2 and "usage: gfl" in capsys.readouterr().err


def without_extras(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """As `pip install .` leaves it: modules of its extras are not found."""
    program = f"""
import sys
from importlib.machinery import PathFinder

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name in {EXTRAS} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(PathFinder)] = Bare
from gfl_ops.cli import main
sys.exit(main())
"""
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment(), check=False)


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["info"], ["models"]], ids=" ".join)
def test_what_needs_no_extra_runs_without(arguments: list[str], tmp_path: Path) -> None:
    done = without_extras(*arguments, folder=tmp_path)
    assert done.returncode == 0 and done.stderr == "" and done.stdout != ""


@pytest.mark.parametrize("command", ["train", "eval", "predict x.png --json", "bench speed", "check-data ."])
def test_what_needs_an_extra_says_so_in_one_line(command: str, tmp_path: Path) -> None:
    done = without_extras(*command.split(), folder=tmp_path)
    assert done.returncode == 2 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"gfl {command.split()[0]}: needs PIL, tqdm")
    assert line.endswith("; install them with: pip install 'gfl_ops[detector]'")


def test_models_and_info(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["gfl_r50_fpn"]["published"]["ap"] == 40.2
    assert main(["models"]) == 0
    assert "gfl_r50_fpn" in capsys.readouterr().out
    assert main(["info"]) == 0
    assert "quality_focal_loss" in capsys.readouterr().out


def test_speed_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "speed", "--short-side", "64", "--batch-size", "1", "--repeat", "1", "--json"]) == 0
    measured = json.loads(capsys.readouterr().out)
    assert measured["train_images_per_s"] > 0 and measured["infer_images_per_s"] > 0 and measured["height"] == 64


def test_ablation_prints_its_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    monkeypatch.chdir(folder)
    out = str(tmp_path / "ablation")
    assert main(["bench", "ablation", "--data", "shapes", "--out", out, "--no-check", *SHORT]) == 0
    torch.set_num_threads(threads)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[2:]] == [
        ["atss", "-", "-"],
        ["qfl", "yes", "-"],
        ["dfl", "-", "yes"],
        ["gfl", "yes", "yes"],
    ]
    assert set(json.loads((tmp_path / "ablation" / "ablation.json").read_text())) == {"atss", "qfl", "dfl", "gfl"}


@pytest.mark.parametrize("name", ["qfl", "dfl"])
def test_halves_of_the_head_train_and_detect(name: str) -> None:
    from tests.support.train_probe import tiny

    torch.manual_seed(0)
    _, _, config = ablation_configs(tiny())[name]
    model = build(config, 3)
    target = {"boxes": torch.tensor([[8.0, 8, 40, 50]]), "labels": torch.tensor([1])}
    bare = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = model([torch.rand(3, 60, 80), torch.rand(3, 60, 80)], [target, bare])
    expected = {"loss_cls", "loss_bbox"} | ({"loss_centerness", "loss_dfl"} if name == "dfl" else set())
    assert set(losses) == expected and all(x > 0 for x in losses.values())
    torch.stack(list(losses.values())).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    (found,) = model.eval()([torch.rand(3, 60, 80)])
    assert set(found) == {"boxes", "scores", "labels"}


def test_frames_of_a_video(trained: Path, tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    writer = cv2.VideoWriter(str(tmp_path / "film.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (96, 64))
    for _ in range(5):
        writer.write(np.full((64, 96, 3), 90, dtype=np.uint8))
    writer.release()
    weights = ["--weights", trained / "checkpoints" / "last.safetensors"]
    gfl("predict", "film.avi", "--every", 2, "--out", "frames", *weights, folder=tmp_path)
    names = {path.name for path in (tmp_path / "frames").iterdir()}
    assert names == {"film_000000.png", "film_000002.png", "film_000004.png"}
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    refused = gfl("predict", "bad.mp4", "--json", *weights, folder=tmp_path, status=2)
    assert refused.stderr.rstrip().endswith("bad.mp4: cannot be read as a video")
