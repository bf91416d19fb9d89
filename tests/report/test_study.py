"""The page of a tabular study, from folders made by formulas."""

import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from spo import study
from spo.errors import DataError
from spo.report import study_figures
from spo.report.build import build_report
from spo.report.convergence import fits
from spo.report.labels import split_settings
from spo.report.results import find_results
from spo.report.study import Study, load_study, shown_shifts
from spo.report.study_frontiers import draw_frontiers
from spo.report.study_page import sentences
from spo.report.study_tables import divergence_tables, main_table, truth_tables
from spo.run_folder import RunFolder
from tests.report.studies import BETAS, KAPPA, rows, save, write
from tests.report.synthetic import write_run

SHIFTS = (0.0, 0.75, 1.5)


def loaded(folder: Path) -> Study:
    return load_study(find_results([folder]))


@pytest.fixture
def chunks(tmp_path: Path) -> Path:
    """DPO in two chunks of seeds, PSPO with one seed more and one less, a fit with the known link."""
    write(tmp_path / "dpo_a", rows(range(4), SHIFTS, method="dpo", link="logistic"), history=True)
    write(tmp_path / "dpo_b", rows(range(4, 8), SHIFTS, method="dpo", link="logistic"))
    write(tmp_path / "pspo", rows(range(1, 9), SHIFTS), history=True)
    write(tmp_path / "known", rows(range(8), SHIFTS, method="known_link", link="mixture"))
    return tmp_path


def test_chunks_are_one_curve(chunks: Path) -> None:
    """Means, paired differences over the seeds that both have, gaps: by brute force over the tables."""
    found = loaded(chunks)
    assert found.labels("estimator") == ["DPO", "PSPO", "known link"]
    assert found.labels("condition") == [""]
    at = {
        (m, row.seed, row.s): row
        for m in ("dpo", "pspo")
        for row in rows(range(9), SHIFTS, method=m).itertuples()
        if row.kl_target == KAPPA
    }
    means = found.means.set_index(["estimator", "s"])
    differences = found.differences.set_index(["estimator", "s"])
    gaps = found.gaps.set_index(["estimator", "s"])
    assert set(differences.index.get_level_values(0)) == {"PSPO", "known link"}
    for s in SHIFTS:
        pspo = [at["pspo", seed, s].reward for seed in range(1, 9)]
        paired = np.array([at["pspo", seed, s].reward - at["dpo", seed, s].reward for seed in range(1, 8)])
        gap = [at["pspo", seed, s].reward_of_teacher - at["pspo", seed, s].reward for seed in range(1, 9)]
        assert means.loc[("PSPO", s), "mean"] == pytest.approx(np.mean(pspo))
        assert means.loc[("DPO", s), "seeds"] == 8
        row = differences.loc[("PSPO", s)]
        assert (row["mean"], row["seeds"]) == (pytest.approx(paired.mean()), 7)
        assert row["se"] == pytest.approx(paired.std(ddof=1) / math.sqrt(7))
        assert gaps.loc[("PSPO", s), "mean"] == pytest.approx(np.mean(gap))


def test_page(chunks: Path) -> None:
    """One page for all runs, every figure as PNG and PDF, no run by itself; the same numbers in the terminal."""
    made = build_report([chunks], chunks / "out")
    text = made.html.read_text()
    tidy = study.read([chunks / "out/study.parquet"])  # all of it in one table
    assert len(tidy) == sum(len(study.read([path])) for path in chunks.glob("*/results.parquet"))
    names = ["reward", "differences", "frontiers", "links", "index"]
    assert sorted(path.name for path in (chunks / "out/figures").iterdir()) == sorted(
        f"{name}.{kind}" for name in names for kind in ("png", "pdf")
    )
    assert text.count("data:image/png;base64") == len(names)
    assert not re.search(r"https?://", text)
    assert "A study of 72 runs (3 curves, 9 seeds, 3 shifts, n = 1,000) from 4 folders." in text
    for words in ("90% intervals", "7 to 8 seeds that both have", "means over the seeds of each seed", "seed 0, s = 0"):
        assert words in text, words
    assert '<section class="run">' not in text
    assert made.table.splitlines()[0].split()[:3] == ["estimator", "s", "reward"]
    assert len(made.table.splitlines()) == 2 + 9


def test_a_language_model_beside_a_study(chunks: Path) -> None:
    """Keeps its own part of the page, and its label."""
    write_run(chunks / "lm")
    made = build_report([chunks], chunks / "out")
    text = made.html.read_text()
    assert text.count('<section class="run">') == 1
    assert "1 training run: PSPO." in text
    assert "at KL 1" in made.table


def test_what_is_left_out_is_said(chunks: Path) -> None:
    """Jobs without results, dead replicates, frontiers that end too early, runs without a target, runs in two files."""
    write(chunks / "x1", None, state="interrupted")
    write(chunks / "x2", None)
    early = rows(range(4), SHIFTS, budget="selected")
    lost = (early["kl_target"] == KAPPA) & (early["seed"] == 0)
    early.loc[lost, ["reached", "reward"]] = [False, math.nan]
    write(chunks / "y", early, replicates=14)
    ends = rows(range(4), SHIFTS, budget="selected", kappa_rule="paper")
    ends.loc[(ends["kl_target"] == KAPPA) & (ends["s"] == 0.0), "reached"] = False
    write(chunks / "z", ends)
    write(chunks / "w", rows(range(5), (0.0,), kappa=None, method="ospo"))
    results = find_results([chunks])
    text = "\n".join(sentences(load_study(results), results))
    for words in (
        "7 of 9 jobs have finished; missing are x1 (interrupted), x2 (trained, not evaluated)",
        "2 of 103 replicates met a non-finite number",
        "The frontiers of 3 of 96 runs end before KL 0.2: they are left out.",
        "The frontiers of 4 of 96 runs end before KL 0.2: their kappa rule takes the reward of the end",
        "5 of 101 runs were evaluated without a target KL",
    ):
        assert words in text, words
    write(chunks / "twice", rows(range(2), SHIFTS, method="dpo", link="logistic"))
    found = loaded(chunks)
    assert found.twice == 2 * 3 * (len(BETAS) + 1)
    assert found.means["seeds"].max() == 8


def test_only_frontiers(tmp_path: Path) -> None:
    """No run with a target: the frontiers are drawn, and what is missing is said."""
    write(tmp_path / "a", rows(range(3), (math.nan,), kappa=None))
    text = build_report([tmp_path], tmp_path).html.read_text()
    assert "3 of 3 runs were evaluated without a target KL" in text
    assert text.count("data:image/png;base64") == 1


def test_frontiers_of_truths_with_and_without_shifts(tmp_path: Path) -> None:
    """Every panel has the curves of its shift, whatever other truths there are."""
    write(tmp_path / "a", rows(range(3), SHIFTS))
    for truth in ("cauchit", "ties"):
        write(tmp_path / truth, rows(range(3), (math.nan,), truth=truth))
    figure = draw_frontiers(loaded(tmp_path))
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes] == [
        f"shifts\ns = {s:g}" for s in SHIFTS
    ]
    for axes in figure.axes:
        assert "PSPO" in axes.get_legend_handles_labels()[1]


def test_bad_tables(tmp_path: Path) -> None:
    """Another schema and two target KLs: one message each."""
    write(tmp_path / "a", rows(range(3), SHIFTS))
    write(tmp_path / "b", rows(range(3), SHIFTS, kappa=0.1, method="dpo").assign(kl_target=0.1))
    with pytest.raises(DataError, match=r"several KLs \(0.1, 0.2 nats\)"):
        build_report([tmp_path], tmp_path)
    pd.DataFrame({"seed": [1]}).to_parquet(tmp_path / "b/results.parquet")
    with pytest.raises(DataError, match=r"b/results\.parquet is no results table"):
        build_report([tmp_path], tmp_path)


def test_evaluations_of_one_run_are_kept_apart(tmp_path: Path) -> None:
    """By kappa rule; an evaluation repeated with the same rule counts once, the later one."""
    run = write(tmp_path / "train", rows(range(3), SHIFTS))
    for i, rule in enumerate(("paper", "exact")):
        folder = RunFolder(tmp_path / f"evaluate{i}")
        folder.create({"train_run": str(run.path)}, {"command": "evaluate"})
        save(folder.results_path, rows(range(3), SHIFTS, kappa_rule=rule).assign(reward=0.25))
    found = loaded(tmp_path)
    assert found.labels("condition") == ["kappa rule exact", "kappa rule paper"]
    assert set(found.at_target["reward"]) == {0.25}
    assert len(found.runs) == 18


def test_labels_and_baselines(tmp_path: Path) -> None:
    """A column is in a label where it tells curves apart; the baseline is DPO of the same condition."""
    dpo = {"method": "dpo", "link": "logistic"}
    write(tmp_path / "1", rows([0], SHIFTS, budget="paper", settings="link.scale=1", **dpo))
    write(tmp_path / "2", rows([0], SHIFTS, budget="selected", settings="link.scale=1", **dpo))
    write(tmp_path / "3", rows([0], SHIFTS, budget="selected", link="kernel"))
    write(tmp_path / "4", rows([0], SHIFTS, budget="selected", settings="refit.every=7"))
    write(tmp_path / "5", rows([0], SHIFTS, budget="selected", method="pspo_spline", link="spline"))
    found = loaded(tmp_path)
    labels = ["DPO", "PSPO isotonic", "PSPO kernel", "PSPO spline"]
    assert found.labels("estimator") == labels
    assert found.baselines == {("budget selected", label): "DPO" for label in labels[1:]}
    write(tmp_path / "6", rows([0], SHIFTS, budget="selected", settings="refit.every=14"))
    assert "PSPO isotonic refit.every=14" in loaded(tmp_path).labels("estimator")


def test_settings_of_an_estimator_are_told_under_every_condition(tmp_path: Path) -> None:
    """One name is one estimator, whatever the condition; another experiment is no setting that changes nothing."""
    every = {"settings": "refit.every=7"}
    write(tmp_path / "1", rows([0, 1], SHIFTS, budget="paper", **every))
    write(tmp_path / "2", rows([0, 1], SHIFTS, budget="selected", **every))
    write(tmp_path / "3", rows([0, 1], SHIFTS, budget="selected"))
    mine = rows([0, 1], SHIFTS, budget="selected", settings="experiment=mine")
    write(tmp_path / "4", mine.assign(beta=mine["beta"].mask(mine["kl_target"].notna(), 2.2)))
    found = loaded(tmp_path)
    labels = ["PSPO", "PSPO experiment=mine", "PSPO refit.every=7"]
    assert found.keys[["budget", "estimator"]].to_numpy().tolist() == [
        ["selected", labels[0]], ["selected", labels[1]], ["paper", labels[2]], ["selected", labels[2]]
    ]  # fmt: skip
    assert set(found.means["seeds"]) == {2}
    assert found.twice == 0


def test_settings_of_the_condition() -> None:
    assert split_settings("epochs=3 truth.rate=0.1 a.b='x y' +c=[1, 2]") == (
        "truth.rate=0.1",
        "epochs=3 a.b='x y' +c=[1, 2]",
    )
    assert split_settings("") == ("", "")


def test_errors_against_n(tmp_path: Path) -> None:
    """The direction error falls as 1/n, the link error as n^-0.8, DPO's gap ever slower; a table has every slope."""
    for n in (250, 1000, 4000):
        for method in ("dpo", "rspo"):
            write(tmp_path / f"{method}{n}", rows(range(20), (math.nan, 1.5)[1:], n=n, method=method))
    found = loaded(tmp_path)
    slopes = {fit.estimator: fit.slope for fit in fits(found, "", 1.5, "direction_error")}
    assert slopes["DPO"] is not None
    assert slopes["DPO"].slope == pytest.approx(-1, abs=0.02)
    (link,) = fits(found, "", 1.5, "link_error")
    assert link.estimator == "DPO"
    assert link.slope is not None
    assert link.slope.slope == pytest.approx(-0.8, abs=0.02)
    text = build_report([tmp_path], tmp_path).html.read_text()
    assert (tmp_path / "figures/sample_size.pdf").is_file()
    assert "250 to 4,000 (3)" not in text  # the same in every row
    assert re.search(r"<td>RSPO</td><td>-0\.\d{3} ± 0\.\d{3}</td><td>-[01]\.\d{3} ± 0\.\d{3}</td><td>-</td>", text)


def test_truths_and_divergences_as_tables(tmp_path: Path) -> None:
    """A column a truth with its settings; a matrix with the matched ones marked."""
    for method in ("dpo", "pspo"):
        write(tmp_path / f"a/{method}", rows(range(4), (math.nan,), method=method, truth="probit"))
        told = {"truth": "label_noise", "settings": "truth.rate=0.1"}
        write(tmp_path / f"b/{method}", rows(range(4), (math.nan,), method=method, **told))
        for teacher in ("kl", "chi_square"):
            for own in ("kl", "chi_square"):
                table = rows(range(4), (1.5,), method=method, divergence=own, teacher_divergence=teacher)
                write(tmp_path / f"d/{method}{teacher}{own}", table)
    (table,) = truth_tables(load_study(find_results([tmp_path / "a", tmp_path / "b"])))
    assert table.head == ["estimator", "label_noise, truth.rate=0.1", "probit"]
    assert [row[0] for row in table.rows] == ["DPO", "PSPO"]
    assert re.fullmatch(r"0\.\d{3} ± 0\.\d{3} \(-0\.\d{3} ± 0\.\d{3}\)", table.rows[1][2])
    assert "(" not in table.rows[0][1]
    found = loaded(tmp_path / "d")
    assert truth_tables(found) == []
    dpo, pspo = divergence_tables(found)
    assert (dpo.title, pspo.title) == ("DPO", "PSPO")
    assert [[cell.endswith("•") for cell in row[1:]] for row in dpo.rows] in (
        [[1, 0], [0, 1]],
        [[0, 1], [1, 0]],
    )
    build_report([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert (tmp_path / "out/figures/side_by_side.png").is_file()
    assert not (tmp_path / "out/figures/reward.png").exists()
    assert "<h2>Divergences</h2>" in build_report([tmp_path / "d"], tmp_path / "out2").html.read_text()


def test_the_table_drops_what_all_rows_share(chunks: Path) -> None:
    head, lines = main_table(loaded(chunks))[1:]
    assert head == ["estimator", "s", "reward", "seeds", "less DPO's", "seeds of both", "gap to the teacher"]
    assert [row[:2] for row in lines[:4]] == [["DPO", "0"], ["DPO", "0.75"], ["DPO", "1.5"], ["PSPO", "0"]]
    assert lines[0][4:6] == ["-", "-"]
    assert re.fullmatch(r"[+-]0\.\d{3} ± 0\.\d{3}", lines[3][4])


def test_lines_are_told_apart() -> None:
    """Twenty estimators have twenty looks; the reference is black and no other is."""
    names = [f"m{i}" for i in range(20)]
    keys = pd.DataFrame({"estimator": [*names, "known link"], "method": [*names, "known_link"]})
    table = pd.DataFrame({"estimator": pd.Categorical(keys["estimator"], categories=keys["estimator"])})
    style = study_figures.lines(Study(table, keys, 0, 0, table))
    assert len({(line.colour, line.marker) for line in style.values()}) == 21
    assert [name for name, line in style.items() if line.colour == study_figures.KNOWN] == ["known link"]


def test_shown_shifts() -> None:
    assert shown_shifts([1.5, 0.0, 0.5, 1.0, 0.5], 2) == [0.0, 1.5]
    assert shown_shifts([0.5], 4) == [0.5]
    assert all(math.isnan(s) for s in shown_shifts([math.nan], 4))
    assert [study_figures.even_columns(count, 4) for count in (1, 4, 5, 8, 9)] == [1, 4, 3, 4, 3]


def test_columns_are_those_of_the_study() -> None:
    """The tables of these tests have the documented columns."""
    assert list(rows([0], [0.0]).columns) == study.COLUMNS
