"""Observers of a training run: they read what the module offers and write tables, curves and pictures.

Deleting any of them changes no weight, no random state and no row order (tests/test_callbacks.py).
"""

from collections.abc import Callable

from lightning.pytorch import Callback
from torch import Tensor

from spo.callbacks.diagnosis import Diagnosis, HeldOut, LinkDiagnosis, NoDiagnosis
from spo.callbacks.index_histogram import IndexHistogram
from spo.callbacks.link_curve import LinkCurve
from spo.callbacks.metrics_table import MetricsTable
from spo.callbacks.observer import LinkObserver
from spo.callbacks.progress import Progress
from spo.callbacks.reliability import Reliability
from spo.callbacks.throughput import Throughput
from spo.run_folder import RunFolder

__all__ = [
    "Diagnosis",
    "HeldOut",
    "IndexHistogram",
    "LinkCurve",
    "LinkDiagnosis",
    "LinkObserver",
    "MetricsTable",
    "NoDiagnosis",
    "Progress",
    "Reliability",
    "Throughput",
    "observers",
]


def observers(
    run: RunFolder,
    true_link: Callable[[Tensor], Tensor] | None = None,
    reward_difference: Callable[[Tensor], Tensor] | None = None,
) -> list[Callback]:
    """All that every run has, in the order in which they want to be called: the table first, so that it misses nothing.

    Progress is not among them: it comes after what validates, or its lines would show the AUC of the validation before.

    true_link: u -> P(z = 1), u in sd of the reward difference; reward_difference: row ids (N,) -> u (N,), nan where
    unknown. Both only for pictures.
    """
    return [
        MetricsTable(run),
        Throughput(),
        IndexHistogram(run),
        LinkCurve(run, true_link, reward_difference),
        Reliability(),
    ]
