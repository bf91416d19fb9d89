"""Charts of known records."""

import numpy as np
import pytest
import wandb

from spo.charts import POINTS, frontier_chart, index_chart, link_chart


def test_link_chart_has_the_curves_that_there_are():
    record = {"step": 7, "t": [-1.0, 1.0], "p": [0.2, 0.8], "logistic_p": [0.3, 0.7], "true_p": None}
    chart = link_chart(record)
    assert chart.rows == [
        [7, -1.0, "fitted", 0.2],
        [7, 1.0, "fitted", 0.8],
        [7, -1.0, "best logistic", 0.3],
        [7, 1.0, "best logistic", 0.7],
    ]
    assert link_chart(record | {"true_p": [0.0, 1.0]}).rows[-1] == [7, 1.0, "true", 1.0]


def test_index_chart_counts_weights():
    """A quarter of the weight lies at t = -1, the rest at t = 2."""
    chart = index_chart(np.array([2.0, -1.0]), np.array([3.0, 1.0]), step=5)
    values = [row[1] for row in chart.rows]
    assert (values.count(-1.0), values.count(2.0)) == (POINTS // 4, POINTS - POINTS // 4)


def test_frontier_chart_begins_at_the_reference():
    points = [
        {"beta": None, "kl": 0.0, "reward": 1.0, "kl_se": float("nan"), "reward_se": 0.1},
        {"beta": 1.0, "kl": 2.0, "reward": 3.0},
        {"beta": 4.0, "kl": 0.5, "reward": 2.0},
    ]
    chart = frontier_chart(points)
    assert [row[:3] for row in chart.rows] == [[0.0, 1.0, None], [0.5, 2.0, 4.0], [2.0, 3.0, 1.0]]
    assert chart.rows[0][3:] == [None, 0.1]


@pytest.mark.parametrize("chart", [index_chart(np.zeros(2), np.ones(2), 0), frontier_chart([])])
def test_the_fields_are_those_of_wandbs_own_presets(chart):
    table = wandb.Table(columns=["a", "b"], data=[[0.0, 1.0]])
    theirs = [wandb.plot.histogram(table, "a"), wandb.plot.line(table, "a", "b")]
    fields = {spec.spec.spec_name: spec.spec.fields.keys() for spec in theirs}
    assert chart.fields.keys() == fields[chart.preset]
