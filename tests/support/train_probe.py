"""Run by test_engine.py in processes of their own: short trainings that are killed, or that two ranks share.

`python -m tests.support.train_probe` with

    resume FOLDER              kills at given moments, goes on, compares with an uninterrupted run
    random FOLDER KILLS        the same, at random moments
    ranks FOLDER               one of the processes that torchrun's variables tell of
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from gfl_ops import detector
from gfl_ops.detector import checkpoint, data, engine, heads

ITERATIONS = 7


def tiny(norm_eval: bool = False) -> detector.ModelConfig:
    lite = detector.get_config("gfl_r18_fpn_lite")
    return replace(
        lite,
        # Not fewer channels: torch 2.13's float32 convolution of 1 x 1 with stride 2, channels last and less than 16 of
        # them, reads past its input on a CPU when it computes the weight's gradient; on some machines it dies there.
        backbone=replace(lite.backbone, base_channels=16, norm_eval=norm_eval),
        neck=replace(lite.neck, out_channels=16),
        head=replace(lite.head, towers=heads.SharedTowers(16, 1, 4)),
        input=detector.InputConfig(64, 96, train_short_sides=(48, 64)),
        recipe=detector.Recipe(
            optimizer="adamw",
            iterations=ITERATIONS,
            schedule="cosine",
            learning_rate=1e-3,
            batch_size=4,
            warmup_iterations=2,
        ),
    )


def scenes() -> data.SyntheticScenes:
    return data.SyntheticScenes("train", 10, size=(64, 80))


class Grainy(data.SyntheticScenes):
    """With noise of torch's own generator, whose state a run that goes on must find again."""

    def __getitem__(self, index: int) -> data.Sample:
        sample = super().__getitem__(index)
        return sample._replace(image=sample.image ^ torch.randint_like(sample.image, 16))


def options(folder: Path) -> engine.TrainOptions:
    return engine.TrainOptions(folder, checkpoint_every=2, log_every=1, resume=True, keep=2, ema=0.9)


def train(folder: Path) -> None:
    torch.set_num_threads(1)
    folder.mkdir(exist_ok=True)
    with engine.connect("cpu") as ranks:
        engine.train(tiny(), Grainy("train", 10, size=(64, 80)), options(folder), ranks, quiet=True)


def in_child(work: Callable[[], None]) -> int:
    """The exit status of a process that does it; negative is the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def state(folder: Path) -> str:
    """A digest of the last checkpoint's tensors, the optimiser's and the average's among them."""
    digest = hashlib.sha256()

    def add(value: object) -> None:
        if isinstance(value, torch.Tensor):
            digest.update(value.contiguous().numpy().tobytes())
        elif isinstance(value, dict):
            for key in value:
                add(value[key])
        elif isinstance(value, (list, tuple)):
            for item in value:
                add(item)

    content = engine.Checkpoints(folder).load()
    assert content is not None and content["iteration"] == ITERATIONS
    add(content)
    return digest.hexdigest()


def logged(folder: Path) -> list[str]:
    """Without the columns of rate and memory."""
    return [line.rsplit(",", 2)[0] for line in (folder / "train.csv").read_text().splitlines()]


def kill_at_write(number: int, part: float) -> None:
    """Trains until the given write of a file, of which only a part gets to the disk."""
    real, count = checkpoint.write_atomically, 0

    def deadly(path: Path, write: Callable[[object], None]) -> None:
        nonlocal count
        count += path.suffix == ".pth"
        if path.suffix != ".pth" or count < number:
            return real(path, write)

        def cut(file: object) -> None:
            write(file)
            file.flush()  # type: ignore[attr-defined]
            os.ftruncate(file.fileno(), int(os.fstat(file.fileno()).st_size * part))  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGKILL)

        real(path, cut)

    engine.checkpoints.write_atomically = deadly
    train(FOLDER / "killed")


def kill_at_iteration(number: int) -> None:
    real = engine.RunLog.step

    def deadly(log: engine.RunLog, images: int) -> None:
        real(log, images)
        if log.steps == number:
            os.kill(os.getpid(), signal.SIGKILL)

    engine.RunLog.step = deadly  # type: ignore[method-assign]
    train(FOLDER / "killed")


def finish_and_compare() -> None:
    assert in_child(lambda: train(FOLDER / "killed")) == 0
    assert in_child(lambda: train(FOLDER / "whole")) == 0
    assert state(FOLDER / "killed") == state(FOLDER / "whole")
    assert logged(FOLDER / "killed") == logged(FOLDER / "whole")
    left = [path.name for path in (FOLDER / "killed" / "checkpoints").iterdir()]
    states = [f"{iteration:08d}.pth" for iteration in (ITERATIONS - 1, ITERATIONS)]
    assert sorted(left) == [*states, "last.safetensors"], left


def resume() -> None:
    moments = [
        lambda: kill_at_iteration(1),  # before any checkpoint
        lambda: kill_at_write(1, 0.5),
        lambda: kill_at_iteration(3),
        lambda: kill_at_write(2, 0.9),
        lambda: kill_at_iteration(2),
    ]
    for moment in moments:
        assert in_child(moment) == -signal.SIGKILL
    finish_and_compare()


def at_random(kills: int) -> None:
    """By a timer that counts the process' own time, so that a busy machine changes nothing; its signal, which nobody
    handles, ends the process as abruptly as SIGKILL."""
    assert in_child(lambda: train(FOLDER / "whole")) == 0
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    whole = spent.ru_utime + spent.ru_stime
    draw = random.Random(0)

    def doomed() -> None:
        signal.setitimer(signal.ITIMER_PROF, moment)
        train(FOLDER / "killed")

    for _ in range(kills):
        moment = draw.uniform(0.01, 0.15) * whole
        assert in_child(doomed) == -signal.SIGPROF
    finish_and_compare()


def of_ranks() -> None:
    """Two steps with SGD, so that a difference in the gradients is one of the same size in the weights; in float64,
    where rounding is far below whatever a mistake in the normalisation or the batches would make."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    # The box losses are divided by at least 1 a rank, as mmdet does it: with the scores of a fresh model the sum of
    # their weights is below that, and two ranks then count half of what one does.
    heads.towers._PRIOR = 0.5
    config = tiny(norm_eval=True)
    config = replace(config, recipe=replace(config.recipe, optimizer="sgd", learning_rate=0.01, iterations=2))
    with engine.connect("cpu") as ranks:
        result = engine.train(config, scenes(), engine.TrainOptions(FOLDER), ranks, quiet=True)
        if ranks.is_main:
            torch.save(result.model.state_dict(), FOLDER / "weights.pth")


if __name__ == "__main__":
    FOLDER = Path(sys.argv[2])
    if sys.argv[1] == "resume":
        resume()
    elif sys.argv[1] == "random":
        ITERATIONS = 61  # long enough for all of them
        at_random(int(sys.argv[3]))
    else:
        of_ranks()
    print("as it should be")
