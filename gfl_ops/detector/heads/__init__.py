"""Dense heads, made of parts: see :class:`HeadConfig`."""

from .assigners import ATSS, FCOSRanges, Fovea, MaxIoU
from .boxes import Deltas, Distances, Distribution, Gaussian, LogDistances
from .config import Divisors, HeadConfig
from .dense import DenseHead
from .parts import BranchedOutputs, HeadOutputs, Outputs
from .priors import Anchors, Points, SSDAnchors
from .quality import (
    Centerness,
    CenternessGuided,
    ClassOnly,
    IoUBranch,
    IoUGuided,
    Joint,
    JointFromDistribution,
    Softmax,
)
from .towers import AlignedTowers, LevelPredictors, Names, SharedTowers, Towers

__all__ = [
    "ATSS",
    "AlignedTowers",
    "Anchors",
    "BranchedOutputs",
    "Centerness",
    "CenternessGuided",
    "ClassOnly",
    "Deltas",
    "DenseHead",
    "Distances",
    "Distribution",
    "Divisors",
    "FCOSRanges",
    "Fovea",
    "Gaussian",
    "HeadConfig",
    "HeadOutputs",
    "IoUBranch",
    "IoUGuided",
    "Joint",
    "JointFromDistribution",
    "LevelPredictors",
    "LogDistances",
    "MaxIoU",
    "Names",
    "Outputs",
    "Points",
    "SSDAnchors",
    "SharedTowers",
    "Softmax",
    "Towers",
]
