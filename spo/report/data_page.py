"""One self-contained page about preference rows, from their data report."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from spo.report import page
from spo.report.drawing import FITTED, GREY, STYLE, TRUE, plain_log_ticks, save

Histograms = Mapping[str, Mapping[str, list[Any]]]  # name -> {"edges": (bins + 1), "counts": (bins)}

LENGTHS = (
    "Tokens of prompts, of single responses with their end of turn, and of whole rows (prompt and longer response), "
    "two bins an octave. What is over data.max_length was dropped or cut before, as the table says."
)
LABELS = (
    "The labels z after orientation: 1 where response 1 was preferred. Rows of chosen and rejected are turned round by "
    "a hash, so that both ends should be equally high; a lean in rows that come with z is a position bias."
)
DROPPED = "Rows that cannot be used, by reason, with the first of each. data.on_bad_row=raise stops at the first one."
EXAMPLE = "One training row, decoded from the very ids that the model gets: the prompt, then responses 0 and 1."
_NAMES = {  # of what its key does not say well enough
    "rows_beyond_max": "rows beyond data.max_rows",
    "rows_held_out": "rows passed over (prompts of validation)",
    "passes": "times read to the end",
    "rows_train": "rows to train on",
    "rows_val": "rows to validate on",
    "val_prompts_in_train": "validation prompts that are also trained on",
    "repeated_rows": "rows that repeat another one's id",
    "seam_mismatches": "rows whose prompt tokens change at the seam",
    "truncated_prompt": "prompts cut",
    "truncated_0": "responses 0 (rejected) cut",
    "truncated_1": "responses 1 (chosen) cut",
    "z_mean": "z, mean",
    "z_one": "rows with z = 1",
    "z_zero": "rows with z = 0",
    "z_tie": "rows with z = 0.5",
    "z_soft": "rows with another z",
    "swapped": "rows turned round",
    "reward_sd": "reward difference, sd",
    "prompt_length_mean": "prompt, mean tokens",
    "response_length_mean": "response, mean tokens",
    "length_max": "longest row, tokens",
    "length_difference_mean": "response 1 - response 0, mean tokens",
    "length_difference_corr_z": "correlation of that difference with z",
}
_APART = ("dropped", "first_dropped", "example", "files", "columns", "columns_unread")  # shown elsewhere on the page
_PANELS = (("prompt", "prompts"), ("response", "responses"), ("row", "rows"))


def build_data_page(facts: Mapping[str, Any], histograms: Histograms, output: Path) -> Path:
    """facts: data_report.json. Writes output/data.html and its figures into output/figures; returns the page's path."""
    files = facts.get("files", [])
    body = [page.heading("What was read"), _facts(facts)]
    if histograms:
        lengths = save(draw_lengths(histograms), output / "figures" / "lengths.png")
        labels = save(draw_labels(histograms["z"]), output / "figures" / "labels.png")
        body += [page.heading("Lengths"), page.figure(lengths, LENGTHS, "Histograms of token lengths")]
        body += [page.heading("Labels"), page.figure(labels, LABELS, "Histogram of the labels z")]
    body += [page.heading("Dropped rows"), _dropped(facts)]
    if facts.get("example"):
        body += [page.heading("An example row"), page.paragraph(EXAMPLE), page.code(str(facts["example"]))]
    path = output / "data.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page.page("Data report", ", ".join(map(str, files)), body), encoding="utf-8")
    return path


def _facts(facts: Mapping[str, Any]) -> str:
    columns = [f"{ours} <- {theirs}" for ours, theirs in facts.get("columns", {}).items()]
    named = {"columns": ", ".join(columns), "columns not read": ", ".join(facts.get("columns_unread", []))}
    plain = {key: value for key, value in facts.items() if key not in _APART and value is not None}
    return page.table(
        ["fact", "value"],
        [[_NAMES.get(key, key.replace("_", " ")), _shown(v)] for key, v in {**plain, **named}.items() if v != ""],
    )


def _dropped(facts: Mapping[str, Any]) -> str:
    dropped, first = facts.get("dropped", {}), facts.get("first_dropped", {})
    if not dropped:
        return page.paragraph("None.")
    counts = sorted(dropped.items(), key=lambda item: -item[1])
    examples = "\n".join(f"{reason}: {first.get(reason, '')}" for reason, _ in counts)
    rows = [[reason, str(n)] for reason, n in counts]
    return page.paragraph(DROPPED) + page.table(["reason", "rows"], rows) + page.code(examples)


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def draw_lengths(histograms: Histograms) -> Figure:
    """Prompts, responses and rows, on one logarithmic axis of tokens."""
    with rc_context(STYLE):
        figure = Figure(figsize=(10.4, 3.4))
        for axes, (name, label) in zip(figure.subplots(1, len(_PANELS), sharex=True).flat, _PANELS, strict=True):
            edges, counts = np.array(histograms[name]["edges"], dtype=float), histograms[name]["counts"]
            axes.stairs(counts, edges, fill=True, color=FITTED, alpha=0.85)
            axes.set(xscale="log", xlabel="tokens", title=label.capitalize(), ylabel=label)
            plain_log_ticks(axes.xaxis)
        shown = [edge for name, _ in _PANELS for edge in _occupied(histograms[name])]
        if shown:
            axes.set_xlim(min(shown) / 1.2, max(shown) * 1.2)
        return figure


def _occupied(histogram: Mapping[str, list[Any]]) -> list[float]:
    """The outer edges of the first and the last bin that holds anything."""
    filled = np.flatnonzero(histogram["counts"])
    return [histogram["edges"][filled[0]], histogram["edges"][filled[-1] + 1]] if filled.size else []


def draw_labels(histogram: Mapping[str, list[Any]]) -> Figure:
    """Rows by z, in [0, 1], with their mean."""
    with rc_context(STYLE):
        figure = Figure(figsize=(6.6, 3.2))
        axes = figure.add_subplot()
        edges, counts = np.array(histogram["edges"]), np.array(histogram["counts"])
        axes.stairs(counts, edges, fill=True, color=FITTED, alpha=0.85)
        axes.axvline(0.5, color=GREY, lw=0.8, ls="--")
        if counts.sum():
            axes.axvline(np.average((edges[1:] + edges[:-1]) / 2, weights=counts), color=TRUE, lw=1.6, label="mean z")
            axes.legend(loc="upper center")
        axes.set(xlabel="z", ylabel="rows", xlim=(edges[0], edges[-1]), title="Labels")
        return figure
