"""True links, a class for each: what turns the difference of two rewards into a label.

noise.py: one annotator, one noise. annotators.py: several annotators, biased, careless or undecided ones.
"""

from spo.simulate.truth.annotators import Heteroskedastic, LabelNoise, PositionBias, ShiftedMixture, Ties
from spo.simulate.truth.base import TrueLink
from spo.simulate.truth.noise import CauchitTruth, LogisticTruth, ProbitTruth, StepTruth

__all__ = [
    "CauchitTruth",
    "Heteroskedastic",
    "LabelNoise",
    "LogisticTruth",
    "PositionBias",
    "ProbitTruth",
    "ShiftedMixture",
    "StepTruth",
    "Ties",
    "TrueLink",
]
