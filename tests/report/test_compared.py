"""Methods compared at one KL: against brute force on hand-made samples, and what is said of what is missing."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from spo.cli.report import report
from spo.errors import ConfigError
from spo.evaluate.frontier import reward_at_kl, rewards_at_kl
from spo.report.build import build_report
from spo.report.compared import words
from spo.report.compared.comparison import Comparison
from spo.report.compared.panels import ranking_panels, sampling_panels
from spo.report.compared.payload import payload
from spo.report.results import find_results
from spo.report.statistics import LEVEL, two_way, wilson
from spo.run_folder import RunFolder
from tests.report.evaluations import KAPPA, samples, write_evaluated, write_more, write_samples
from tests.report.sweeps import job, write_sweep
from tests.report.test_sweep import data_of

KL = 0.16  # sqrt 0.4, two thirds of the way from sqrt(0) to sqrt(0.36)


def by_hand(rewards: dict[float, list[list[float]]], first: int = 0) -> pd.DataFrame:
    """beta -> reward of each sample of each prompt. KL 0 of the reference, 0.36 of beta 1, 1.44 of beta 0.5."""
    kl = {math.inf: 0.0, 1.0: 0.36, 0.5: 1.44}
    return pd.DataFrame(
        [
            {"beta": beta, "prompt_id": i, "sample": k, "prompt": f"p{first + i}", "response": "a", "reward": r,
             "kl": kl[beta], "kl_mc": 0.0, "length": 1, "ended": True}
            for beta, prompts in rewards.items() for i, of in enumerate(prompts) for k, r in enumerate(of)
        ]
    )  # fmt: skip


REFERENCE = [[0.0, 1.0], [0.0, 0.0], [1.0, 1.0], [0.5, 0.0]]
DPO = by_hand({math.inf: REFERENCE, 1.0: [[1.0, 1.0], [0.0, 1.0], [1.0, 2.0], [0.0, 0.0]]})
PSPO = by_hand({math.inf: REFERENCE, 1.0: [[2.0, 0.0], [1.0, 1.0], [1.0, 3.0], [0.0, -1.5]]})


def pair(tmp_path: Path, mine: pd.DataFrame = PSPO, base: pd.DataFrame = DPO, kl: float | None = KL) -> Comparison:
    """One seed of DPO and of PSPO."""
    for method, table in (("dpo", base), ("pspo", mine)):
        write_samples(write_evaluated(tmp_path / method, method, 0, 0.3, prompts=2, draws=1, kl=kl), table, kl)
    return Comparison(find_results([tmp_path]), None)


def test_rewards_at_kl_are_what_reward_at_kl_averages() -> None:
    """Two thirds of the way: r = (1/3) r_ref + (2/3) r_1 of each prompt."""
    expected = [0.5 / 3 + 2 / 3, 1 / 3, 1 / 3 + 1, 0.25 / 3]
    found = rewards_at_kl(DPO, KL)
    assert found is not None
    assert found.to_list() == pytest.approx(expected)
    assert reward_at_kl(DPO, KL)["reward"] == pytest.approx(np.mean(expected))
    assert rewards_at_kl(DPO, 0.4) is None


def test_one_seed_is_a_paired_t_interval_over_prompts(tmp_path: Path) -> None:
    """Difference and its interval as scipy has them; and it is said that the interval is over prompts only."""
    found = pair(tmp_path)
    dpo, pspo = found.cells
    a, b = ((1 / 3) * np.mean(REFERENCE, 1) + (2 / 3) * table.query("beta == 1").groupby("prompt_id")["reward"].mean()
            for table in (PSPO, DPO))  # fmt: skip
    difference = (a - b).to_numpy()
    low, high = stats.t.interval(LEVEL, 3, loc=difference.mean(), scale=stats.sem(difference))
    assert pspo.difference is not None
    assert [pspo.difference.mean, pspo.difference.low, pspo.difference.high] == pytest.approx(
        [difference.mean(), low, high]
    )
    assert (dpo.difference, dpo.win, pspo.difference.seeds, pspo.difference.prompts) == (None, None, 1, 4)
    said = words.sentences(found)
    assert said[0] == f"No method is told apart from DPO at 90%, by its reward at KL {KL}."
    assert said[-1].startswith("One seed: the interval is over prompts only")


def test_win_rate_by_brute_force(tmp_path: Path) -> None:
    """Every choice of a beta of each, with both shares, at the same sample number; ties half."""
    pspo = pair(tmp_path).cells[1]
    mixture = ((math.inf, 1 / 3), (1.0, 2 / 3))
    total = {"dpo": 0.0, "reference": 0.0}
    for i, k in itertools.product(range(4), range(2)):
        value = {(m, b): t.set_index(["beta", "prompt_id", "sample"]).loc[(b, i, k), "reward"]
                 for m, t in (("pspo", PSPO), ("dpo", DPO)) for b in (math.inf, 1.0)}  # fmt: skip
        for (b, p), (c, q) in itertools.product(mixture, mixture):
            total["dpo"] += p * q * (0.5 + 0.5 * np.sign(value["pspo", b] - value["dpo", c])) / 8
        for b, p in mixture:
            total["reference"] += p * (0.5 + 0.5 * np.sign(value["pspo", b] - value["dpo", math.inf])) / 8
    assert pspo.win is not None
    assert pspo.win_reference is not None
    assert [pspo.win.mean, pspo.win_reference.mean] == pytest.approx([total["dpo"], total["reference"]])


def test_two_way_by_brute_force() -> None:
    """The mean squares of the two-way table by loops; of one seed scipy's interval."""
    d = np.array([[1.0, 2.0, 4.0], [0.0, 3.0, 3.5]])
    found = two_way(d)
    a = sum((row.mean() - d.mean()) ** 2 for row in d) / 1 / 2
    b = sum((column.mean() - d.mean()) ** 2 for column in d.T) / 2 / 3
    rest = [(d[k, i] - d[k].mean() - d[:, i].mean() + d.mean()) ** 2 for k in range(2) for i in range(3)]
    c = sum(rest) / 2 / 6
    square = max(a, c) + max(b, c) - c
    degrees = max(math.floor(square**2 / (a**2 / 1 + b**2 / 2 + c**2 / 2)), 1)
    low, high = stats.t.interval(LEVEL, degrees, loc=d.mean(), scale=math.sqrt(square))
    assert [found.se, found.low, found.high] == pytest.approx([math.sqrt(square), low, high])
    assert (found.seeds, found.prompts, found.apart()) == (2, 3, 0)
    low, high = stats.t.interval(LEVEL, 2, loc=d[0].mean(), scale=stats.sem(d[0]))
    assert [two_way(d[:1]).low, two_way(d[:1]).high] == pytest.approx([low, high])
    assert math.isnan(two_way(d[:, :1]).se)


def test_two_way_covers_what_it_says() -> None:
    """Of 2,000 draws of 3 seeds and 30 prompts, both with effects of their own, 86% to 97% hold the mean."""
    rng = np.random.default_rng(0)
    draws = rng.normal(0, 0.2, (2000, 3, 1)) + rng.normal(0, 1, (2000, 1, 30)) + rng.normal(0, 0.5, (2000, 3, 30))
    assert 0.86 < np.mean([two_way(d).apart() == 0 for d in draws]) < 0.97


def test_wilson_is_that_of_scipy() -> None:
    ends = stats.binomtest(7, 10).proportion_ci(LEVEL, method="wilson")
    assert wilson(0.7, 10) == pytest.approx((ends.low, ends.high))


def test_prompts_are_paired_by_their_text(tmp_path: Path) -> None:
    """PSPO has p2 to p5, DPO p0 to p3: two prompts are shared, whatever their numbers."""
    found = pair(tmp_path, by_hand({math.inf: REFERENCE, 1.0: [[5.0, 5.0]] * 4}, first=2))
    difference = found.cells[1].difference
    assert difference is not None
    assert difference.prompts == 2
    ours = (np.mean(REFERENCE, 1)[:2] + 2 * 5.0) / 3
    theirs = (np.mean(REFERENCE, 1)[2:] + 2 * np.array([1.5, 0.0])) / 3
    assert difference.mean == pytest.approx((ours - theirs).mean())


def study(path: Path, seeds: int = 2) -> Path:
    """DPO and RSPO by shifts and seeds; RSPO is far better, PSPO is DPO's twin and only at shift 0."""
    for shift, seed in itertools.product((0.0, 0.75), range(seeds)):
        for method, gain in (("dpo", 0.3), ("rspo", 0.6), *((("pspo", 0.3),) if shift == 0 else ())):
            write_evaluated(path / f"{method}{shift}{seed}", method, seed, gain, shift=shift, prompts=20)
    return path


def test_pairs_are_of_the_same_seed_and_shift(tmp_path: Path) -> None:
    """PSPO's samples are DPO's, so that its difference is 0; a seed that DPO has not is in the level alone."""
    write_evaluated(study(tmp_path) / "more", "rspo", 5, 0.6, shift=0.75, prompts=20)
    found = Comparison(find_results([tmp_path]), None)
    cells = {(cell.group.label, cell.group.s): cell for cell in found.cells}
    assert list(cells) == [("DPO", 0.0), ("PSPO", 0.0), ("RSPO", 0.0), ("DPO", 0.75), ("RSPO", 0.75)]
    twin, better = cells["PSPO", 0.0], cells["RSPO", 0.75]
    assert twin.difference is not None and twin.win is not None and better.difference is not None  # noqa: PT018
    assert (twin.difference.mean, twin.difference.se, twin.win.mean) == (0.0, 0.0, 0.5)
    assert (better.difference.seeds, better.reward.seeds if better.reward else 0) == (2, 3)
    assert better.difference.low > 0
    said = words.sentences(found)[0]
    assert said.startswith("At 90%, by reward at KL 0.5, above DPO: RSPO (shift 0.0) by +")
    assert "1 of 3 comparisons is open" in said


def test_an_index_whose_direction_nobody_knows_is_said(tmp_path: Path) -> None:
    """By the last refit up to the kept step: at |z| < 2, in the words of all runs, the page's numbers and the run's."""
    study(tmp_path, 1)
    for path, steps in {"rspo0.00": {5: 4.0, 10: -0.14, 15: 9.0}, "pspo0.00": {10: -2.5}}.items():
        run = RunFolder(tmp_path / path)
        run.update_status(kept_step=12)
        for step, score in steps.items():
            run.append_metrics(step, {"link/orientation_z": score})
    found = Comparison(find_results([tmp_path]), None)
    said = "The data do not say which way the index points (z-score below 2) of RSPO (shift 0.0) -0.1."
    assert words.sentences(found)[-1] == said
    assert [job["undetermined"] for job in payload(found)["jobs"].values()].count(-0.14) == 1
    unsure = [result for result in find_results([tmp_path]) if result.undetermined is not None]
    assert [any("(z-score -0.1, below 2)" in part for part in one.missing) for one in unsure] == [True]


def test_the_reference_alone_is_a_page_too(tmp_path: Path) -> None:
    """Two runs that sampled nothing but the reference have no frontier to draw."""
    for method in ("dpo", "pspo"):
        write_evaluated(tmp_path / method, method, 0, 0.3, prompts=4, betas=())
    assert "end before KL 0.5" in build_report([tmp_path], tmp_path).html.read_text()


def test_a_ranking_without_samples_is_shown(tmp_path: Path) -> None:
    """evaluate=ranking samples nothing: its figure is there all the same, without an axis of betas where labels are
    people's."""
    run = write_evaluated(tmp_path / "dpo", "dpo", 0, 0.3, prompts=4)
    write_more(run, 0.3)
    for name in ("samples.parquet", "frontier.json", "target.json", "sequence_tilt.json", "best_of_n.json"):
        (run.path / name).unlink()
    found = run.read_json("ranking.json")
    run.write_json("ranking.json", found | {"order": "labels", "ideal_policy": []})
    build_report([tmp_path], tmp_path)
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"ranking.png", "ranking.pdf"}
    assert "How the rankings stand" in (tmp_path / "report.html").read_text()
    (one,) = Comparison(find_results([tmp_path]), None).evaluated
    assert [panel.xtitle for panel in ranking_panels(one)] == ["", "how wrong the reference is (nats)"]


def test_report_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Table, sentences and figures as PNG and PDF; further files in their figures; half-written ones are said."""
    write_more(RunFolder(study(tmp_path, 1) / "rspo0.00"), 0.6)
    (tmp_path / "dpo0.00" / "ranking.json").write_text('{"n_rows": 3')
    (tmp_path / "dpo0.750" / "best_of_n.json").write_text('[{"n": 1}]')
    (tmp_path / "pspo0.00" / "samples.parquet").write_bytes(b"PAR1 torn")
    report(run=RunFolder("unused"), directory=str(tmp_path), output=None, title="t", kl=None)
    assert "One seed: the interval is over prompts only" in capsys.readouterr().out
    text = (tmp_path / "report.html").read_text()
    for part in (
        "Methods compared at KL 0.5",
        "win rate against reference",
        "ranking.json is half-written",
        "best_of_n.json has no kl_bound, reward_true, reward_index",
        "samples.parquet is half-written",
    ):
        assert part in text, part
    for name in ("frontier_bands", "against_dpo", "ranking", "ways_to_sample"):
        for ending in ("png", "pdf"):
            assert (tmp_path / "figures" / f"{name}.{ending}").is_file()


def test_another_kl(tmp_path: Path) -> None:
    """kl= replaces the target everywhere; outside the frontier it is said; where nothing has samples it is refused."""
    pair(tmp_path)
    (tmp_path / "report").mkdir()
    made = build_report([tmp_path], tmp_path / "report", kl=0.25)
    assert "at KL 0.25" in made.table
    assert f"at KL {KL}" not in made.table
    assert "end before KL 0.4: they are left out" in Comparison(find_results([tmp_path]), 0.4).troubles[0]
    with pytest.raises(ConfigError, match="kl is -1: give nats > 0"):
        build_report([tmp_path], tmp_path / "report", kl=-1)
    for method in ("dpo", "pspo"):
        (tmp_path / method / "samples.parquet").unlink()
    with pytest.raises(ConfigError, match=r"no run has samples"):
        build_report([tmp_path], tmp_path / "report", kl=0.25)


def test_several_targets_and_none_are_said(tmp_path: Path) -> None:
    found = pair(tmp_path / "none", kl=None)
    assert found.kl is None
    assert "No evaluation has a target KL: compare the runs at one with kl=NATS." in found.troubles
    pair(tmp_path / "both")
    write_samples(RunFolder(tmp_path / "both/dpo"), DPO, 0.09)
    found = Comparison(find_results([tmp_path / "both"]), None)
    assert found.troubles == [
        "The runs were evaluated at several target KLs (0.09, 0.16 nats): compare them at one with kl=NATS."
    ]


def test_panels_hold_the_numbers_of_the_files(tmp_path: Path) -> None:
    run = write_evaluated(tmp_path, "pspo", 0, 0.3)
    write_more(run, 0.3)
    (one,) = Comparison(find_results([tmp_path]), None).evaluated
    accuracy, by_error = ranking_panels(one)
    lines = {line.label: line for line in accuracy.lines}
    assert lines["ideal policy"].x == [0.03, 0.1, 0.3, 1.0, 3.0]
    assert lines["log π, true order"].y == [0.56, 0.56]
    assert lines["ideal index, labels"].y == [0.83, 0.83]
    assert by_error.lines[0].x == [-30, -15, -6.5, 0, 6.5, 15, 30]
    policy, index = by_error.lines[:2]
    for line, at, n in (
        (policy, 3, 0.25 / 0.1**2),  # between bins: a share of 1/2 with a standard error of 0.1, as of 25 pairs
        (policy, 6, 20),  # never as of more pairs than there are
        (index, 6, 10),  # all prompts agree
    ):
        assert line.low is not None
        assert line.high is not None
        assert (line.low[at], line.high[at]) == pytest.approx(wilson(line.y[at], n))
    assert policy.notes is not None
    assert policy.notes[-1] == "20 pairs of 10 prompts"
    (panel,) = sampling_panels(one)
    assert [len(line.x) for line in panel.lines] == [5, 4, 5, 5]
    plain = json.loads(json.dumps(panel.record))
    assert plain["lines"][1]["notes"][0] == "beta 2, median effective samples 14 of 16"


def test_a_sweep_carries_the_comparison(tmp_path: Path) -> None:
    """Each job with the DPO of its seed, rewards of each prompt, panels of those that have files; one is not begun."""
    rows = []
    for i, (method, seed) in enumerate(itertools.product(("dpo", "pspo"), (0, 1))):
        write_evaluated(tmp_path / str(i), method, seed, 0.3 + 0.1 * i, prompts=6)
        rows.append(job(i, str(i), [f"method={method}", f"seed={seed}"]))
    write_more(RunFolder(tmp_path / "2"), 0.4)
    rows.append(job(4, "later", ["method=ospo", "seed=0"], "queued", attempts=0))
    write_sweep(tmp_path, rows)
    assert data_of(build_report([tmp_path], tmp_path, kl=0.2).html)["compared"]["kl"] == 0.2
    found = data_of(build_report([tmp_path], tmp_path).html)["compared"]
    assert found["kl"] == KAPPA
    assert [found["jobs"][str(i)]["base"] for i in range(4)] == [None, None, 0, 1]
    table = samples(0.5, 0, prompts=6)
    expected = rewards_at_kl(table, KAPPA)
    assert expected is not None
    assert found["jobs"]["2"]["at"] == pytest.approx(expected.to_list(), abs=1e-4)
    assert list(found["ranking"]) == list(found["sampling"]) == ["2"]
    assert {"frontier_bands", "against_dpo"} <= {path.stem for path in (tmp_path / "figures").glob("*.pdf")}


def test_another_link_under_the_name_of_dpo_is_no_baseline(tmp_path: Path) -> None:
    """method=dpo link=kernel is compared with DPO, as any other; the others with DPO as it is."""
    for name, overrides in (("a", ["method=dpo", "link=kernel"]), ("b", ["method=dpo"]), ("c", ["method=pspo"])):
        run = RunFolder(tmp_path / name)
        method = overrides[0].removeprefix("method=")
        link = {"b": "logistic"}.get(name, "kernel")
        run.create(
            {"seed": 0}, {"command": "train", "overrides": overrides, "choices": {"method": method, "link": link}}
        )
        by_hand({math.inf: [[0.0], [0.0]], 1.0: [[1.0], [2.0 if name == "b" else 1.0]]}).to_parquet(run.samples_path)
        run.write_json("frontier.json", [])
    found = Comparison(find_results([tmp_path]), KL)
    assert [group.is_baseline for group in found.groups].count(True) == 1
    assert sum(cell.difference is not None for cell in found.cells) == 2


def test_a_truncated_reference_begins_above_kl_0(tmp_path: Path) -> None:
    """The band begins where the reference lies; an incomplete reference is said, and nothing is drawn of it."""
    run = RunFolder(tmp_path / "a")
    run.create({"seed": 0}, {"command": "train", "choices": {"method": "dpo"}})
    truncated = by_hand({math.inf: [[0.0], [0.0]], 1.0: [[1.0], [2.0]]})
    truncated["kl"] += 0.5
    truncated.to_parquet(run.samples_path)
    run.write_json("frontier.json", [])
    found = Comparison(find_results([tmp_path]), 0.6)
    band = found.band(found.groups[0])
    assert band.kl[0] == pytest.approx(0.5)
    assert (band.reward[0].mean, band.reward[-1].mean) == pytest.approx((0.0, 1.5), abs=1e-6)
    assert "is below 0.5, the KL of the truncated reference" in reward_at_kl(truncated, 0.4)["note"]
    truncated.drop(index=0).to_parquet(run.samples_path)
    assert not Comparison(find_results([tmp_path]), 0.6).groups
