"""ONNX export of the network, with decoding, in standard operators."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gfl_ops

from .checkpoint import write_atomically
from .folding import fold_batchnorm
from .model import Detector

_OUTPUTS = ("boxes", "scores")
_TRACED, _VERIFIED = (2, 3, 96, 128), (1, 3, 128, 64)
_TOLERANCE = {"boxes": 0.01, "scores": 1e-4}  # pixels, and probabilities


class _Network(nn.Module):
    """What the graph computes: raw outputs and their decoding, by the reference operations."""

    def __init__(self, model: Detector) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        with gfl_ops.use_backend("reference"):
            return self.model.bbox_head.decode(self.model.raw(images))


def export_onnx(model: Detector, path: str | Path, *, opset: int = 18, verify: bool = True) -> None:
    """Writes the network as an ONNX file with dynamic batch size, height and width.

    Its input ``images`` (B, 3, H, W) is what :meth:`Detector.raw` takes: RGB, resized, normalised. Its outputs are
    every cell's ``boxes`` (B, A, 4), xyxy in pixels of that batch, and ``scores`` (B, A, C); thresholds and NMS are
    left to the caller. Batch normalisation is folded, and the file is in float32 whatever the model is in.

    Args:
        model: from :func:`build`.
        path: the file to write. An existing one is replaced when the new one is complete.
        opset: version of the ONNX operators.
        verify: run the graph in onnxruntime, at another size than it was traced at, and compare before writing.
    """
    if not isinstance(model, Detector):
        raise TypeError(f"export_onnx: model must be a Detector, got {type(model).__name__}")
    _require("onnx", "onnxscript", *(["onnxruntime"] if verify else []))
    network = _Network(fold_batchnorm(model).cpu().float()).eval()
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about itself
        program = torch.onnx.export(
            network,
            (torch.zeros(_TRACED),),
            input_names=["images"],
            output_names=list(_OUTPUTS),
            opset_version=opset,
            dynamo=True,
            dynamic_shapes=(dynamic,),
            verbose=False,
        )
    assert program is not None
    content = _named_axes(program.model_proto).SerializeToString()
    if verify:
        _verify(content, network)
    write_atomically(Path(path), lambda file: file.write(content))


def _named_axes(proto: Any) -> Any:
    axes = {"images": {0: "batch", 2: "height", 3: "width"}} | {name: {0: "batch", 1: "anchors"} for name in _OUTPUTS}
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, name in axes[value.name].items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    return proto


def _verify(content: bytes, network: nn.Module) -> None:
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    images = torch.randn(_VERIFIED, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = network(images)
    for name, got, reference in zip(_OUTPUTS, session.run(None, {"images": images.numpy()}), expected, strict=True):
        difference = float((torch.from_numpy(got) - reference).abs().max())
        if not difference <= _TOLERANCE[name]:
            raise RuntimeError(f"export_onnx: {name} of the exported graph differ by {difference:g} from the model's")


def _require(*packages: str) -> None:
    for package in packages:
        try:
            __import__(package)
        except ImportError as error:
            raise ImportError(f"export_onnx needs the {package} package: pip install 'gfl_ops[onnx]'") from error
