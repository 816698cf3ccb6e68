"""Training by one process or several. An interrupted run continues bit for bit."""

from .checkpoints import Checkpoints
from .graphed import GraphedStep
from .guard import NotFinite
from .logs import RunLog
from .loop import TrainResult, train
from .optim import Average, build_optimizer
from .options import TrainOptions
from .ranks import Ranks, connect
from .step import EagerStep

__all__ = [
    "Average",
    "Checkpoints",
    "EagerStep",
    "GraphedStep",
    "NotFinite",
    "Ranks",
    "RunLog",
    "TrainOptions",
    "TrainResult",
    "build_optimizer",
    "connect",
    "train",
]
