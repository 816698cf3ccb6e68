"""Training: one loop for one process or many, that stops and goes on bit for bit."""

from .checkpoints import Checkpoints
from .guard import NotFinite
from .logs import RunLog
from .loop import TrainResult, train
from .optim import Average
from .options import TrainOptions
from .ranks import Ranks, connect

__all__ = ["Average", "Checkpoints", "NotFinite", "Ranks", "RunLog", "TrainOptions", "TrainResult", "connect", "train"]
