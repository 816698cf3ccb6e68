"""Whole detectors: images a second in training and inference, and what loss and post-processing take of it.

    python benchmarks/detector_bench.py                                             a small one on a CPU, R50 on a GPU
    python benchmarks/detector_bench.py --models gfl_r50_fpn --modes infer --size 800 1333

`ours` is the detector as it is; `eager` the same network with the eager formulas (benchmarks/eager/) for its loss
and its post-processing. A training step is forward, loss, backward and SGD; inference starts from uint8 images.
`share` is the part of the step that its loss (with its backward), or post-processing, takes by itself, and of the peak
memory likewise. `network` is the convolutional network alone on a ready batch, `convs` nothing but its convolutions.
All of them take turns. The classifier is set such that logits are about N(-4, 1), as a trained network's are.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

if not __package__:  # started as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from torch import Tensor, nn

import gfl_ops
from benchmarks.eager import measured
from benchmarks.harness import counting, json_file, machine_facts, progress_bar, timing
from gfl_ops import detector

GTS = 7
LEARNING_RATE = 1e-7  # the weights are to stay where they are


@dataclass(frozen=True)
class Case:
    model: str
    mode: str  # "train" or "infer"
    size: tuple[int, int]
    batch: int
    dtype: str
    device: str

    @property
    def name(self) -> str:
        height, width = self.size
        return f"{self.model} {self.mode} {self.batch}x{height}x{width} {self.dtype}"

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.dtype == "bfloat16")


# ---- the eager formulas in the same detector -------------------------------------------------------------


class EagerCriterion(nn.Module):
    def __init__(self, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.strides = strides

    def forward(self, cls_scores: Any, bbox_preds: Any, targets: Any, valid_shapes: Tensor) -> dict[str, Tensor]:
        wide = ([x.float() for x in maps] for maps in (cls_scores, bbox_preds))
        losses = measured.gfl_loss(*wide, targets, valid_shapes, strides=self.strides)
        return dict(zip(("loss_cls", "loss_bbox", "loss_dfl"), losses, strict=True))


def eager_detect(outputs: Any, image_shapes: Tensor, scale_factors: Tensor, config: Any, with_edges: bool) -> Any:
    wide = [[x.float() for x in maps] for maps in (outputs.cls_scores, outputs.bbox_preds)]
    strides = detector.gfl_head().strides
    found = measured.postprocess(*wide, strides, image_shapes.tolist(), scale_factors.tolist())
    return [dict(zip(("boxes", "scores", "labels"), image, strict=True)) for image in found]


def with_eager_formulas(model: detector.Detector) -> detector.Detector | None:
    """The same network and weights; None for heads whose eager formulas are not here."""
    if model.bbox_head.criterion is None:
        return None
    other = copy.copy(model)
    other._modules = {**model._modules, "bbox_head": copy.copy(model.bbox_head)}
    other.bbox_head._modules = {**model.bbox_head._modules, "criterion": EagerCriterion(model.bbox_head.strides)}
    other.bbox_head.detect = eager_detect  # type: ignore[method-assign]
    return other


# ---- one case --------------------------------------------------------------------------------------------


class Subject:
    """A model and its inputs."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.case = case
        height, width = case.size
        config = detector.get_config(case.model).from_scratch()
        sides = replace(config.input, short_side=min(case.size), long_side=max(case.size), train_short_sides=None)
        self.model = detector.build(replace(config, input=sides)).to(case.device)
        self.model.train(case.mode == "train")
        self.images = [torch.randint(0, 256, (3, height, width), dtype=torch.uint8) for _ in range(case.batch)]
        self.targets = [self._target(height, width) for _ in range(case.batch)]
        self._calibrate()
        self.models = {"ours": self.model}
        other = with_eager_formulas(self.model)
        if other is not None:
            self.models["eager"] = other
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=LEARNING_RATE, momentum=0.9)

    def _target(self, height: int, width: int) -> dict[str, Tensor]:
        corner = torch.rand(GTS, 2) * torch.tensor([width, height]) * 0.8
        extent = 16 + torch.rand(GTS, 2) * min(height, width) * 0.5
        return {"boxes": torch.cat([corner, corner + extent], 1), "labels": torch.randint(80, (GTS,))}

    @torch.no_grad()
    def _calibrate(self) -> None:
        head = self.model.bbox_head
        classifier = head.get_submodule(head.config.names.classes)
        outputs = self.model.raw(self.model.prepare(self.images[:1]).pixels)
        logits = torch.cat([x.flatten() for x in outputs.cls_scores])
        classifier.weight /= logits.std().clamp(min=1e-6)
        classifier.bias.fill_(-4.0)

    def train_step(self, model: detector.Detector) -> dict[str, Tensor]:
        self.optimizer.zero_grad(set_to_none=True)
        with self.case.autocast():
            losses = model(self.images, self.targets)
        sum(losses.values()).backward()  # type: ignore[union-attr]
        self.optimizer.step()
        return losses

    @torch.no_grad()
    def infer(self, model: detector.Detector) -> list[dict[str, Tensor]]:
        with self.case.autocast():
            return model(self.images)

    def steps(self) -> Iterator[tuple[str, Callable[[], Any]]]:
        batch = self.model.prepare(self.images)
        with torch.no_grad(), self.case.autocast():
            outputs = self.model.raw(batch.pixels)
        for name, model in self.models.items():
            if self.case.mode == "train":
                yield f"step {name}", lambda model=model: self.train_step(model)
                yield f"part {name}", lambda model=model: self._loss_alone(model, outputs, batch)
            else:
                yield f"step {name}", lambda model=model: self.infer(model)
                yield f"part {name}", lambda model=model: self._detect_alone(model, outputs, batch)
        if self.case.mode == "infer":
            yield "network", lambda: self._network(batch.pixels)
            yield "convs", self._convolutions(batch.pixels)

    def _loss_alone(self, model: detector.Detector, outputs: Any, batch: Any) -> None:
        leaves = type(outputs)(*([x.detach().requires_grad_() for x in maps] for maps in outputs))
        targets = [{name: x.to(self.case.device) for name, x in target.items()} for target in self.targets]
        with self.case.autocast():
            losses, _ = model.bbox_head.loss(leaves, targets, batch.padded_shapes)
        sum(losses.values()).backward()  # type: ignore[union-attr]

    @torch.no_grad()
    def _detect_alone(self, model: detector.Detector, outputs: Any, batch: Any) -> Any:
        return model._detect(outputs, batch, False)

    @torch.no_grad()
    def _network(self, pixels: Tensor) -> Any:
        with self.case.autocast():
            return self.model.raw(pixels)

    def _convolutions(self, pixels: Tensor) -> Callable[[], None]:
        """Each convolution of the network on an input of its shape, and nothing else."""
        calls: list[tuple[nn.Module, Tensor]] = []
        hooks = [
            module.register_forward_hook(lambda module, args, _: calls.append((module, torch.randn_like(args[0]))))
            for module in self.model.modules()
            if isinstance(module, nn.Conv2d)
        ]
        self._network(pixels)
        for hook in hooks:
            hook.remove()

        @torch.no_grad()
        def run() -> None:
            with self.case.autocast():
                for module, x in calls:
                    module(x)

        return run

    def check(self) -> None:
        """Both sets of formulas give the same losses, or the same detections."""
        if len(self.models) < 2:
            return
        run = self.train_step if self.case.mode == "train" else self.infer
        ours, others = (run(self.models[name]) for name in ("ours", "eager"))
        tolerance = {"rtol": 2e-3, "atol": 1e-3}
        if isinstance(ours, dict):
            for name, loss in others.items():
                torch.testing.assert_close(ours[name].float(), loss.float(), **tolerance, msg=name)
            return
        for found, expected in zip(ours, others, strict=True):
            torch.testing.assert_close(found["scores"].float(), expected["scores"].float(), **tolerance)


def measure(case: Case, seconds: float) -> dict[str, Any]:
    subject = Subject(case)
    subject.check()
    runs = dict(subject.steps())
    steps = {name: (lambda _, run=run: run()) for name, run in runs.items()}
    turns = timing.Turns(case.device)
    turns.run(steps, seconds)
    figures = {name: timing.figures(samples) for name, samples in turns.samples.items()}
    peaks = {}
    for name, run in runs.items():
        if " " in name:
            subject.optimizer.zero_grad(set_to_none=True)  # or the first thing that is counted would be their release
            peaks[name] = counting.peak_bytes(run, case.device)
    return {
        **case.__dict__,
        "ms": {name: found["ms"] for name, found in figures.items()},
        "spread": {name: found["spread"] for name, found in figures.items()},
        "peak_bytes": peaks,
    }


# ---- the table -------------------------------------------------------------------------------------------

HEADER = (
    f"{'model':<20}{'mode':<7}{'batch':<15}{'dtype':<10}{'formulas':<10}{'ms':>10}{'±%':>4}{'img/s':>8}{'part ms':>10}"
    f"{'share':>8}{'peak MB':>10}{'share':>8}{'network':>10}{'convs':>10}"
)


def lines(result: dict[str, Any]) -> Iterator[str]:
    ms, peak = result["ms"], result["peak_bytes"]
    shape = "x".join(str(n) for n in (result["batch"], *result["size"]))
    for name in ("ours", "eager"):
        step, part = f"step {name}", f"part {name}"
        if step in ms:
            rest = "".join(f"{ms[other]:>10.1f}" if other in ms else f"{'-':>10}" for other in ("network", "convs"))
            yield (
                f"{result['model']:<20}{result['mode']:<7}{shape:<15}{result['dtype']:<10}{name:<10}{ms[step]:>10.1f}"
                f"{100 * result['spread'][step]:>4.0f}{1e3 * result['batch'] / ms[step]:>8.2f}{ms[part]:>10.2f}"
                f"{100 * ms[part] / ms[step]:>6.1f} %{peak[step] / 1e6:>10.0f}"
                f"{100 * peak[part] / max(peak[step], 1):>6.1f} %{rest}"
            )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    models = detector.list_models()
    parser.add_argument("--models", nargs="+", choices=models, metavar="MODEL", help=f"of {', '.join(models)}")
    parser.add_argument("--modes", nargs="+", choices=("train", "infer"), default=["train", "infer"])
    parser.add_argument("--size", nargs=2, type=int, metavar=("H", "W"), help="of an image (default: the model's)")
    parser.add_argument("--batch", nargs="+", type=int, help="images a step (default: 2; 16 on a GPU)")
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), help="bfloat16 is by autocast")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="time for each case, at least five turns (default: 5)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results, as they come")
    options = parser.parse_args(arguments)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: torch finds no CUDA device")
    gpu = options.device == "cuda"
    options.models = options.models or ["gfl_r50_fpn" if gpu else "gfl_r18_fpn_lite"]
    options.batch = options.batch or [16 if gpu else 2]
    options.dtype = options.dtype or (["float32", "bfloat16"] if gpu else ["float32"])
    return options


def cases(options: argparse.Namespace) -> list[Case]:
    found = []
    for model in options.models:
        config = detector.get_config(model).input
        size = tuple(options.size or (config.short_side, config.long_side))
        for mode in options.modes:
            found += [
                Case(model, mode, size, batch, dtype, options.device)
                for batch in options.batch
                for dtype in options.dtype
            ]
    return found


def measure_all(chosen: list[Case], options: argparse.Namespace, content: dict[str, Any]) -> None:
    """A case that fails, in whatever way, gets no figures; the others do."""
    bar = progress_bar.Progress(len(chosen))
    for case in chosen:
        bar.start(case.name)
        try:
            result = measure(case, options.seconds)
        except Exception as error:
            content["failed"][case.name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            print(f"FAILED {case.name}: {error}", flush=True)
        else:
            content["results"].append(result)
            print("\n".join(lines(result)), flush=True)
        bar.finish()
        if options.json:
            json_file.write_json(options.json, content)


def main() -> None:
    options = parse()
    content: dict[str, Any] = {
        "kind": "detector_bench",
        "command": ["detector_bench.py", *(Path(word).name for word in sys.argv[1:])],
        "machine": machine_facts.facts(options.device),
        "results": [],
        "failed": {},
    }
    print(", ".join(f"{name} {value}" for name, value in content["machine"].items()))
    print(f"backend: {gfl_ops._dispatch.choose('gfl_loss', options.device)[0]}")
    print(HEADER, flush=True)
    measure_all(cases(options), options, content)
    sys.exit(bool(content["failed"]))


if __name__ == "__main__":
    main()
