"""The page of a tabular study: its figures and tables, and in sentences what is missing or left out."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from spo.report import drawing, page, study_figures, study_links
from spo.report.convergence import SLOPE_SETTINGS, SLOPES_HEAD, draw_convergence, slope_rows, swept
from spo.report.results import Result
from spo.report.statistics import LEVEL
from spo.report.study import Study
from spo.report.study_frontiers import draw_frontiers
from spo.report.study_tables import Table, divergence_tables, main_table, truth_tables, without_constant

BANDS = f"Bands are {LEVEL:.0%} intervals of the mean over seeds: mean ± the quantile of t times the standard error."
REWARDS = (
    "Reward at KL {kl:g} nats to the reference, means over seeds, exact on fresh contexts. The grey line is the "
    "teacher's, the most that any policy can have at that KL{known}. {bands} The curves share their seeds: "
    "their differences are known better than the bands suggest, as the next figure shows."
)
KNOWN = "; the dashed black one, without its band, is a fit that is told the true link"
DIFFERENCES = (
    "The same, less DPO's on the same seeds, data, budget and start ({seeds} seeds that both have): what the two "
    "share cancels, so that a band beyond the line at 0 is a difference. {bands}"
)
SIDE = (
    "Reward at KL {kl:g} nats. Bars are {level:.0%} intervals of the mean over seeds; they share their seeds, so two "
    "may differ although their bars overlap: the table has the paired differences. The grey line is the teacher's."
)
FRONTIERS = (
    "Reward against KL, means over the seeds of each seed's frontier, which is interpolated in the root of KL between "
    "its betas and the target KL. The grey line is the teacher's own, the upper bound at every KL. Dotted: the KL at "
    "which methods are compared. Shown up to five times it."
)
LINKS = (
    "The last link that was fitted in training, of replicate 0 of one run a curve ({who}; with folds it is the run "
    "that leaves the first one out), over the histogram of the rows it was fitted to; where the index follows the true "
    "rewards, on the scale of the true reward difference (t = c·u by least squares)."
)
INDEX = (
    "The index t of the held-out rows at the last validation, replicate 0 of the same runs, over its own root mean "
    "square, which the title gives: a fitted link leaves the scale of t free. Pairs of equal actions have t = 0."
)
CONVERGENCE = (
    "Means over seeds against the number of rows, both axes logarithmic; lines are least squares of log mean error on "
    "log n, ± the slope's standard error. All are of second order in how far index and link are off, so that -1 is the "
    "rate of a fit with a fixed number of parameters. Bars are {level:.0%} intervals."
)
TABLE = (
    "± is one standard error over seeds: of the reward at KL {kl:g}, of its difference to DPO's over the seeds that "
    "both have, and of the gap to the teacher's reward at that KL. DPO is that of the same condition and divergence."
)
_LONG = 40  # rows; a longer table is folded


def has_study(results: Sequence[Result]) -> bool:
    return any(result.studied for result in results)


def intro(study: Study, results: Sequence[Result]) -> str:
    runs, at = study.runs, study.means
    parts = [
        _count(len(study.curves), "curve"),
        _count(runs["seed"].nunique(), "seed"),
        *([_count(at["s"].nunique(), "shift")] if at["s"].nunique() > 1 else []),
        "n = " + ", ".join(f"{n:,}" for n in sorted(runs["n"].unique())),
    ]
    folders = sum(bool(result.studied) for result in results)
    return f"A study of {_count(len(runs), 'run')} ({', '.join(parts)}) from {_count(folders, 'folder')}."


def study_body(study: Study, results: Sequence[Result], output: Path) -> list[str]:
    """results: all runs of the study, those without results too. Figures go into output/figures."""
    figures = output / "figures"
    body = [page.missing(sentences(study, results))]
    if study.target is not None and len(study.at_target):
        body += [*_compared(study, figures), *_table(study), *_tables(study), *_convergence(study, figures)]
    path = drawing.save(draw_frontiers(study), figures / "frontiers.png")
    body += [page.heading("Reward against KL"), page.figure(path, FRONTIERS, "Reward against KL, a line an estimator")]
    return [*body, *_replicate_0(study, results, figures), *_made(results)]


def sentences(study: Study, results: Sequence[Result]) -> list[str]:
    """What was left out, and what would complete the study."""
    out = []
    missing = [result for result in results if not result.studied]
    if missing:
        names = [f"{result.run.name} ({_state(result)})" for result in missing]
        out.append(
            f"{len(results) - len(missing)} of {len(results)} jobs have finished; missing are {_listed(names)}: "
            "`spo execute FOLDER` goes on with one, `spo evaluate FOLDER evaluate=tabular_tilt` evaluates one."
        )
    if study.asked > len(study.runs) and not study.twice:
        out.append(f"{study.asked - len(study.runs)} of {study.asked} replicates met a non-finite number in training.")
    if study.twice:
        out.append(f"{study.twice} rows are of runs that stand in two files: each counts once, as the later has it.")
    return [*out, *_beyond(study)]


def _state(result: Result) -> str:
    state = str(result.run.status.get("state") or "not begun")
    return "trained, not evaluated" if state == "ok" else state


def _beyond(study: Study) -> list[str]:
    """Runs without a row at the target, and those whose frontier ends before it."""
    rows = study.table[study.table["kl_target"].notna()]
    out = []
    if without := len(study.runs) - len(rows):
        out.append(
            f"{without} of {len(study.runs)} runs were evaluated without a target KL (evaluate.kl_target=null): they "
            "are in the frontiers only. `spo evaluate RUN evaluate=tabular_tilt` adds it."
        )
    lost = int((~rows["reached"].astype(bool) & rows["reward"].isna()).sum())
    ends = int((~rows["reached"].astype(bool) & rows["reward"].notna()).sum())
    if lost:
        out.append(f"The frontiers of {lost} of {len(rows)} runs end before KL {study.target:g}: they are left out.")
    if ends:
        out.append(
            f"The frontiers of {ends} of {len(rows)} runs end before KL {study.target:g}: their kappa rule takes the "
            "reward of the end, with which they count."
        )
    return out


def _compared(study: Study, figures: Path) -> list[str]:
    body = [page.heading(f"Reward at KL {study.target:g}")]
    divergences = study.curves["divergence"].nunique() > 1  # every one with each estimator: the matrices show them
    over = [] if divergences else study_figures.panels_over_shifts(study)
    over = study_figures.spread(over, study_figures.MOST_PANELS)
    single = study_figures.spread(study_figures.panels_at_one_shift(study), study_figures.MOST_PANELS)
    if over:
        path = drawing.save(study_figures.draw_rewards(study, over), figures / "reward.png")
        known = KNOWN if study.references else ""
        caption = REWARDS.format(kl=study.target, known=known, bands=BANDS)
        body.append(page.figure(path, caption, "Reward at the target KL against the shift"))
    if over and len(study.differences):
        path = drawing.save(study_figures.draw_differences(study, over), figures / "differences.png")
        caption = DIFFERENCES.format(seeds=_range(study.differences["seeds"]), bands=BANDS)
        body.append(page.figure(path, caption, "Paired differences to DPO against the shift"))
    if single:
        path = drawing.save(study_figures.draw_side_by_side(study, single), figures / "side_by_side.png")
        caption = SIDE.format(kl=study.target, level=LEVEL)
        body.append(page.figure(path, caption, "Reward at the target KL of each estimator"))
    if not len(study.differences):
        body.append(page.missing(["There is no DPO on the same seeds, so there are no paired differences."]))
    return body


def _table(study: Study) -> list[str]:
    _, head, rows = main_table(study)
    table = page.table(head, rows)
    note = f'<p class="soft">{page.text(TABLE.format(kl=study.target))}</p>'
    return [page.folded(f"The table: {len(rows)} rows", table) if len(rows) > _LONG else table, note]


def _tables(study: Study) -> list[str]:
    body = []
    matched = "Rewards made by a teacher under one, learned under another; • where both are the same."
    for title, found, note in (
        ("True links", truth_tables(study), "In brackets the paired difference to DPO under the same truth."),
        (
            "Divergences",
            divergence_tables(study),
            matched,
        ),
    ):
        if found:
            words = f"Reward at KL {study.target:g}, mean ± standard error over seeds. {note}"
            body += [page.heading(title), page.paragraph(words), *map(_titled, found)]
    return body


def _titled(table: Table) -> str:
    return (page.heading(table.title, 3) if table.title else "") + page.table(table.head, table.rows)


def _convergence(study: Study, figures: Path) -> list[str]:
    conditions = swept(study)
    if not conditions:
        return []
    body = [page.heading("Error against n")]
    for i, condition in enumerate(conditions[: study_figures.MOST_PANELS]):
        name = "sample_size.png" if i == 0 else f"sample_size_{i + 1}.png"
        path = drawing.save(draw_convergence(study, condition), figures / name)
        caption = " ".join(filter(None, [condition and f"{condition}:", CONVERGENCE.format(level=LEVEL)]))
        body.append(page.figure(path, caption, "Errors against the number of rows"))
    return [*body, page.table(*without_constant(SLOPES_HEAD, slope_rows(study), SLOPE_SETTINGS))]


def _replicate_0(study: Study, results: Sequence[Result], figures: Path) -> list[str]:
    shown = study_links.shown_runs(study, results)
    links, indices = study_links.with_links(shown), study_links.with_indices(shown)
    body = []
    if links:
        path = drawing.save(study_links.draw_study_links(study, links), figures / "links.png")
        replicates = sorted({(run.seed, run.s, run.n) for run in links})
        who = "; ".join(
            f"seed {seed}" + (f", s = {s:g}" if s == s else "") + f", n = {n:,}" for seed, s, n in replicates
        )
        body += [page.heading("Fitted links"), page.figure(path, LINKS.format(who=who), "Fitted links over the true")]
    if indices:
        path = drawing.save(study_links.draw_study_index(study, indices), figures / "index.png")
        body += [page.heading("The index"), page.figure(path, INDEX, "Distributions of the index")]
    return body


def _made(results: Sequence[Result]) -> list[str]:
    """Folder, state, commit and command of every run, folded."""
    rows = []
    for result in results:
        made, status = result.run.invocation, result.run.status
        facts = [result.run.path, status.get("state"), made.get("git_commit"), made.get("command_line")]
        rows.append([str(fact or "-") for fact in [*facts[:2], str(facts[2] or "-")[:10], facts[3]]])
    table = page.table(["folder", "state", "commit", "command"], rows)
    return [page.heading("How it was made"), page.folded(f"The {_count(len(rows), 'run folder')}", table)]


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _listed(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
