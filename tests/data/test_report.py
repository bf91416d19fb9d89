import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from spo.data.tally import Tally
from tests.data.conftest import rows_with_z
from tests.data.test_datamodule import every, loaded

Write = Callable[..., str]


def test_the_report_counts_by_hand(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """Six rows: z = 1, 0, .5, 1, 0, .5; one side cut; lengths counted from the ids themselves."""
    rows = rows_with_z(6)
    rows[3]["response_1"] = "abcdefgh" * 40
    rows[5] |= {"id": "row-2", **{k: rows[2][k] for k in ("prompt", "response_0", "response_1")}}
    data = loaded(write(rows), chatml, max_length=80, truncation="truncate_response")
    report, all_rows = data.report, every(data)
    assert (report.z_one, report.z_zero, report.z_tie, report.z_soft, report.z_mean) == (2, 2, 2, 0, 0.5)
    assert (report.truncated_0, report.truncated_1, report.truncated_prompt) == (0, 1, 0)
    assert (report.prompts, report.repeated_rows, report.length_max) == (5, 1, 80)
    lengths = np.array([[len(part) for part in all_rows.tokens(i)] for i in range(6)])
    difference = lengths[:, 2] - lengths[:, 1]
    assert report.prompt_length_mean == pytest.approx(lengths[:, 0].mean())
    assert report.response_length_mean == pytest.approx(lengths[:, 1:].mean())
    assert report.length_difference_mean == pytest.approx(difference.mean())
    assert report.length_difference_corr_z == pytest.approx(np.corrcoef(difference, all_rows.z)[0, 1])
    assert json.loads(json.dumps(report.to_dict())) == report.to_dict()
    text = "\n".join(report.lines())
    for fact in (
        "6 read, 6 kept",
        "2 one, 2 zero, 2 tied",
        "1 responses 1",
        "rows repeat another row's id",
        "<|im_end|>",
    ):
        assert fact in text


def test_histograms_count_every_length_and_label_once(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """Counted again from the ids; sums over parts are those over all (what a stream does)."""
    data = loaded(write(rows_with_z(40)), chatml)
    rows = every(data)
    lengths = {
        "prompt": rows.ends[:, 0] - rows.starts[:, 0],
        "response": rows.response_lengths.ravel(),
        "row": rows.lengths,
    }
    found = data.report.histograms()
    for name, values in lengths.items():
        histogram = np.histogram(values, bins=found[name]["edges"])[0]
        assert histogram.tolist() == found[name]["counts"]
        assert sum(found[name]["counts"]) == len(values)
    edges = np.array(found["z"]["edges"])
    middle = dict(zip(((edges[1:] + edges[:-1]) / 2).round(6), found["z"]["counts"], strict=True))
    assert {z: n for z, n in middle.items() if n} == {z: int((rows.z == z).sum()) for z in (0.0, 0.5, 1.0)}
    parts, whole = Tally(), Tally()
    for part in (data.train, data.val):
        parts.add(part)
    whole.add(rows)
    assert parts.histograms() == whole.histograms()
    assert parts.difference_corr_z == pytest.approx(whole.difference_corr_z)


def test_a_constant_has_no_correlation(write: Write, chatml: PreTrainedTokenizerFast) -> None:
    """Also one whose sums round; where z varies, the correlation is numpy's."""
    rows = loaded(write(rows_with_z(40)), chatml).train
    for z, known in [(np.full(len(rows), 1 / 3, np.float32), False), (rows.z, True)]:
        tally = Tally()
        tally.add(replace(rows, z=z))
        assert (tally.difference_corr_z is not None) == known
    difference = rows.response_lengths[:, 1] - rows.response_lengths[:, 0]
    assert tally.difference_corr_z == pytest.approx(np.corrcoef(difference, rows.z)[0, 1])
