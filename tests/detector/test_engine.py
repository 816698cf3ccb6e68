"""Training: it goes on where it stopped, bit for bit, and two processes do what one does."""

from __future__ import annotations

import math
import socket
import subprocess
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.support.programs import environment, support_program

pytest.importorskip("PIL")
pytest.importorskip("tqdm")
pytest.importorskip("safetensors")

from gfl_ops import detector
from gfl_ops.detector import data, engine
from gfl_ops.detector.data.loader import collate
from gfl_ops.detector.engine.ranks import meet
from gfl_ops.detector.engine.schedule import learning_rate_factor
from tests.support.gpu import needs_gpu
from tests.support.train_probe import ITERATIONS, scenes, tiny

CPU = engine.Ranks(0, 1, torch.device("cpu"))


def probe(*arguments: object, **variables: str) -> None:
    command = support_program("train_probe", *arguments)
    done = subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0 and "as it should be" in done.stdout, done.stdout[-2000:] + done.stderr[-4000:]


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    """Killed between and in the middle of writes: the same weights, optimiser state, average and log in the end."""
    probe("resume", tmp_path)


@pytest.mark.slow
def test_a_run_killed_ten_times_at_random(tmp_path: Path) -> None:
    probe("random", tmp_path, 10)


def test_two_processes_train_as_one_with_the_joined_batch(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for world_size in (1, 2):
        folder = tmp_path / str(world_size)
        folder.mkdir()
        variables = {"WORLD_SIZE": str(world_size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        ranks = [
            subprocess.Popen(
                support_program("train_probe", "ranks", folder),
                env=environment(**variables, RANK=str(rank), LOCAL_RANK=str(rank)),
            )
            for rank in range(world_size)
        ]
        assert [process.wait(timeout=300) for process in ranks] == [0] * world_size
    alone, shared = (torch.load(tmp_path / str(n) / "weights.pth", weights_only=True) for n in (1, 2))
    moved = 0
    for name in alone:
        torch.testing.assert_close(shared[name], alone[name], rtol=1e-6, atol=1e-9)
        moved += alone[name].dtype == torch.float64 and not torch.equal(alone[name].float().double(), alone[name])
    assert moved > 50


def run(tmp_path: Path, config: detector.ModelConfig | None = None, **changes: object) -> engine.TrainResult:
    options = engine.TrainOptions(tmp_path, **{"log_every": 2, **changes})  # type: ignore[arg-type]

    def figures(model: detector.Detector) -> dict[str, float]:
        return {"AP": 0.5, "AP50": 1.0, "AP75": 0.0}

    return engine.train(config or tiny(), scenes(), options, CPU, quiet=True, evaluate=figures)


def test_processes_that_start_anew_do_not_meet_the_dead() -> None:
    """torchrun's store outlives them, and holds what they wrote."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def gathering(first: int) -> str:
        with ThreadPoolExecutor() as pool:
            early = pool.submit(meet, store, first, 2, 60)
            time.sleep(0.2)
            assert not early.done()
            late = pool.submit(meet, store, 1 - first, 2, 60)
            assert early.result() == late.result()
        return late.result()

    assert len({gathering(0), gathering(0), gathering(1)}) == 3
    with pytest.raises(TimeoutError, match=r"rank 0 of 2 waited 0.1 s for the others to start"):
        meet(store, 0, 2, limit=0.1)


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    result = run(tmp_path, iterations=5, checkpoint_every=1, evaluate_every=2, keep=2)
    assert result.iteration == 5 and result.best == 0.5
    files = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert files == {"00000004.pth", "00000005.pth", "best.safetensors", "last.safetensors"}
    rows = (tmp_path / "train.csv").read_text().splitlines()
    assert rows[0].startswith("iteration,lr,loss,loss_cls,loss_bbox,loss_dfl,grad_norm") and len(rows) == 4
    assert len((tmp_path / "eval.csv").read_text().splitlines()) == 4
    model = detector.build(tiny(), 12)
    report = model.load_checkpoint(tmp_path / "checkpoints" / "last.safetensors")
    assert report.meta["model"] == tiny().name and len(report.meta["classes"]) == 12
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), result.model.state_dict().values(), strict=True)
    )
    with pytest.raises(FileExistsError, match="holds another run's checkpoints; resume it, or choose another folder"):
        run(tmp_path, iterations=5)
    with pytest.raises(ValueError, match=r"cannot go on with other settings: total 5 -> 9, seed 0 -> 1"):
        run(tmp_path, iterations=9, seed=1, resume=True)


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path) -> None:
    run(tmp_path, checkpoint_every=2)
    expected = engine.Checkpoints(tmp_path).load()
    newest = engine.Checkpoints(tmp_path).paths()[0]
    newest.write_bytes(newest.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="cannot be read .* trying the one before it"):
        result = run(tmp_path, checkpoint_every=2, resume=True)
    assert result.iteration == ITERATIONS and expected is not None
    assert all(torch.equal(x, expected["model"][name]) for name, x in result.model.state_dict().items())


def test_a_loss_that_is_not_finite_stops_and_keeps_the_batch(tmp_path: Path) -> None:
    with pytest.raises(engine.NotFinite, match=r"iteration 1: .*nan.*; the batch \(images \[.*\]\) is in") as caught:
        run(tmp_path, learning_rate=1e30)
    (path,) = tmp_path.glob("not_finite_*.pth")
    kept = torch.load(path, weights_only=True)
    assert str(path) in str(caught.value) and len(kept["images"]) == len(kept["targets"]) == 4
    assert not engine.Checkpoints(tmp_path).paths()


@pytest.mark.parametrize(
    "changes",
    [{"precision": "bf16"}, {"precision": "fp16"}, {"accumulate": 2, "channels_last": False}, {"clip_norm": 0.1}],
)
def test_options_train(tmp_path: Path, changes: dict[str, object]) -> None:
    # Not smaller: torch 2.13's bfloat16 convolution with stride 2 of a map of one pixel reads memory that nobody wrote
    # when it computes the weight's gradient on a CPU.
    config = replace(tiny(), input=detector.InputConfig(160, 200))
    result = run(tmp_path, config, iterations=3, **changes)
    assert all(x.isfinite().all() for x in result.model.state_dict().values())


def batches(*short_sides: int | None) -> list[data.Batch]:
    """One of four landscape images for each short side, resized to it."""
    wide = [sample for sample in scenes() if sample.image.shape[2] > sample.image.shape[1]]
    batches = [collate([wide[(i + j) % len(wide)] for j in range(4)]) for i in range(len(short_sides))]
    return [
        batch if side is None else batch._replace(short_sides=[side] * 4)
        for batch, side in zip(batches, short_sides, strict=True)
    ]


def stepped(step: engine.EagerStep | engine.GraphedStep, parts: list[data.Batch]) -> list[dict[str, torch.Tensor]]:
    losses: list[dict[str, torch.Tensor]] = []
    for i, batch in enumerate(parts):
        step([batch], 1e-3 / (i + 1), lambda loss, _: losses.append({k: v.detach().clone() for k, v in loss.items()}))
    return losses


def both_steps(
    head: detector.HeadConfig, device: str, **graphed: object
) -> tuple[engine.EagerStep, engine.GraphedStep]:
    """Of one model with the same weights, each with its own optimizer."""
    config = replace(tiny(), head=head, input=detector.InputConfig(64, 96))
    models = [detector.Detector(config, 12).to(device, torch.float64) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    options = engine.TrainOptions(Path())
    eager, taped = (engine.build_optimizer(x, config.recipe, 1e-3) for x in models)
    scaler = torch.amp.GradScaler(device, enabled=False)
    return (
        engine.EagerStep(models[0].train(), eager, scaler, 1.0, options),
        engine.GraphedStep(models[1].train(), taped, 1.0, options, **graphed),  # type: ignore[arg-type]
    )


ATSS = detector.atss_head(towers=tiny().head.towers)
heads = pytest.mark.parametrize("head", [tiny().head, ATSS], ids=["gfl", "atss"])


@heads
def test_a_step_on_fixed_buffers_is_a_step(head: detector.HeadConfig) -> None:
    """What is captured on a GPU, run as it stands: the buffers, their padding and the optimiser."""
    eager, graphed = both_steps(head, "cpu", record=lambda work: work)
    parts = batches(*[None] * 6)
    for mine, theirs in zip(stepped(graphed, parts), stepped(eager, parts), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-9)
    assert graphed.captures == 1
    for mine, expected in zip(graphed.model.parameters(), eager.forward.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-7)


def test_a_larger_batch_is_captured_anew() -> None:
    _, graphed = both_steps(tiny().head, "cpu", record=lambda work: work)
    losses = stepped(graphed, batches(*[48] * 5, *[96] * 4, 48))
    assert graphed.captures == 2 and all(x.isfinite() for loss in losses for x in loss.values())


@pytest.mark.gpu
@heads
def test_a_captured_step_is_a_step(head: detector.HeadConfig) -> None:
    needs_gpu()
    eager, graphed = both_steps(head, "cuda")
    parts = batches(*[None] * 8)
    for mine, theirs in zip(stepped(graphed, parts), stepped(eager, parts), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    assert graphed.captures == 1


@pytest.mark.gpu
def test_a_run_of_captured_steps_goes_on(tmp_path: Path) -> None:
    needs_gpu()
    ranks = engine.Ranks(0, 1, torch.device("cuda", 0))
    options = engine.TrainOptions(tmp_path, cuda_graph=True, iterations=12, resume=True, checkpoint_every=6)
    for _ in range(2):
        result = engine.train(tiny(), scenes(), options, ranks, quiet=True)
        assert result.iteration == 12 and all(x.isfinite().all() for x in result.model.state_dict().values())
        engine.Checkpoints(tmp_path).paths()[0].unlink()  # the second goes on from the one before it


def test_the_average_is_one(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 2)
    average = engine.Average(model, 0.5)
    expected = model.weight.detach().clone()
    for i in range(20):
        torch.nn.init.normal_(model.weight)
        average.update(model, i)
        weight = 1 - min(0.5, (1 + i) / (10 + i))
        expected = expected * (1 - weight) + model.weight.detach() * weight
    torch.testing.assert_close(average.model.weight.detach(), expected)


def test_learning_rates() -> None:
    step = detector.Recipe(epochs=12, milestones=(8, 11), warmup_iterations=10, warmup_factor=0.1)
    rates = [learning_rate_factor(step, i, 100) for i in (0, 5, 10, 799, 800, 1099, 1100)]
    assert rates == pytest.approx([0.1, 0.55, 1, 1, 0.1, 0.1, 0.01])
    cosine = replace(step, schedule="cosine", iterations=100)
    assert learning_rate_factor(cosine, 50, 10) == pytest.approx(0.5)
    assert learning_rate_factor(cosine, 100, 10) == pytest.approx(0)
    recipe = engine.TrainOptions(Path(), batch_size=8, epochs=24).recipe(detector.get_config("gfl_r50_fpn"))
    assert math.isclose(recipe.learning_rate, 0.005) and recipe.milestones == (16, 22)


WRONG = {
    "batch": ({"batch_size": 3, "accumulate": 2}, "batch_size must be a multiple of processes x accumulate = 2, got 3"),
    "both": ({"iterations": 3, "epochs": 3}, "iterations and epochs must not both be given"),
    "rate": ({"learning_rate": -1.0}, "learning_rate must be positive, got -1"),
    "keep": ({"keep": 0}, "keep must be at least 1, got 0"),
    "graph": ({"cuda_graph": True}, "cuda_graph must be off where there is no CUDA device, got cpu"),
    "precision": ({"precision": "fp8"}, "precision must be fp32, bf16 or fp16, got 'fp8'"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_options_are_named(tmp_path: Path, kind: str) -> None:
    changes, message = WRONG[kind]
    with warnings.catch_warnings(), pytest.raises(ValueError, match=message):
        run(tmp_path, **changes)


def test_a_constant_warmup_and_repeated_epochs() -> None:
    recipe = detector.Recipe(epochs=3, milestones=(2,), warmup="constant", warmup_factor=1 / 3, warmup_iterations=5)
    rates = [learning_rate_factor(recipe, i, 10) for i in (0, 4, 5, 19, 20)]
    assert rates == pytest.approx([1 / 3, 1 / 3, 1, 1, 0.1])


def test_recipes_rules_for_biases_and_decay() -> None:
    """FCOS: twice the rate for biases of convolutions, no decay of any bias; group norms' weights decay."""
    model = detector.build("fcos_r18_fpn_lite", num_classes=2)
    recipe = detector.Recipe(bias_rate=2.0, bias_decay=0.0, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rules = {
        names[id(parameter)]: (group["factor"], group["weight_decay"], group["lr"])
        for group in engine.build_optimizer(model, recipe, 0.5).param_groups
        for parameter in group["params"]
    }
    assert rules.keys() == {name for name, x in model.named_parameters() if x.requires_grad}
    assert rules["bbox_head.conv_cls.bias"] == (2.0, 0.0, 1.0)
    assert rules["bbox_head.cls_convs.0.gn.bias"] == (1.0, 0.0, 0.5)
    assert rules["bbox_head.cls_convs.0.gn.weight"] == (1.0, 0.1, 0.5)
    assert rules["backbone.conv1.weight"] == (1.0, 0.1, 0.5)

    named = detector.Recipe(optimizer="adamw", no_decay=("norm", "bn1"), weight_decay=0.1)
    decays = {
        names[id(parameter)]: group["weight_decay"]
        for group in engine.build_optimizer(model, named, 0.5).param_groups
        for parameter in group["params"]
    }
    assert decays["backbone.bn1.weight"] == 0.0 and decays["bbox_head.cls_convs.0.gn.weight"] == 0.1


def test_a_groups_factor_multiplies_every_iterations_rate() -> None:
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD([{"params": [model.weight], "factor": 1.0}, {"params": [model.bias], "factor": 2.0}])
    before = [x.detach().clone() for x in model.parameters()]
    scaler = torch.amp.GradScaler("cpu", enabled=False)

    class Loss(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *args: object, **kwargs: object) -> dict[str, torch.Tensor]:
            return {"loss": self.model(torch.ones(2)).sum()}

    step = engine.EagerStep(Loss(), optimizer, scaler, None, engine.TrainOptions(Path()))
    step(batches(64)[:1], 0.1, lambda *_: None)
    weight, bias = (old - new for old, new in zip(before, model.parameters(), strict=True))
    torch.testing.assert_close(weight, torch.full((1, 2), 0.1))
    torch.testing.assert_close(bias, torch.tensor([0.2]))
