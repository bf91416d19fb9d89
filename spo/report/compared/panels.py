"""What one run's ranking and its other ways to sample show, as panels of plain numbers: Matplotlib draws them into
files, and the page of a sweep draws the same ones."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from scipy.special import ndtri

from spo.report.compared.evaluated import Evaluated
from spo.report.statistics import LEVEL, wilson
from spo.run_folder import Record

RANKING = (
    "Held-out rows of the training, of the first run of each group. Against beta: the share of pairs in which the "
    "policy's log-probability puts the truly better response first (blue), beside what the best policy of each beta "
    "would reach (it leans on the reference, so that it is below 1 where beta is large), and the share in which the "
    "index agrees with the sampled label (red), beside the most that any index can reach against such labels, E "
    "max(Psi, 1 - Psi); shaded or barred: {level:.0%} over prompts. By the reference's error: the same two shares by "
    "how wrong the reference ranks the pair: its log-probability of the worse response less that of the better one "
    "lies to the right where the reference is wrong. At the dotted line it is indifferent. An index may be right "
    "where the policy's ranking is not."
)
SAMPLING = (
    "Ways to spend KL with the same learned index, of the first run of each group. Token by token: what `spo "
    "evaluate` samples, an approximation of the tilt. Sequence level: the tilt itself, by weights of responses of "
    "the reference (points with too few effective samples are left out). Best of n responses of the reference, by "
    "the true reward (an oracle, no method) and by the learned index, at the bound log n - (n-1)/n of its KL: the "
    "true KL may be smaller. Bars: {level:.0%} over prompts. Compare them as frontiers, not at equal beta."
)
_Z = float(ndtri((1 + LEVEL) / 2))
BLUE, ORANGE, GREEN, PURPLE, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#5a5a5a"


class Line(NamedTuple):
    """label: in the legend. low, high: ends of the bars, or of the band where `band`; None for none. notes: of each
    point, what hovering says beside its numbers. marker: "" for none; dash: "" for points alone."""

    label: str
    colour: str
    marker: str
    dash: str
    x: list[float]
    y: list[float]
    low: list[float] | None = None
    high: list[float] | None = None
    band: bool = False
    notes: list[str] | None = None


class Panel(NamedTuple):
    """Axes with their lines. part: what tells the panels of one run apart. log: whether x is on a log axis."""

    part: str
    xtitle: str
    ytitle: str
    log: bool
    lines: list[Line]

    @property
    def record(self) -> Record:
        """For the page."""
        return self._asdict() | {"lines": [line._asdict() for line in self.lines]}


def ranking_panels(one: Evaluated) -> list[Panel]:
    found = one.ranking
    if found is None:
        return []
    return [panel for panel in (_accuracy(found), _by_error(found)) if panel.lines]


def _order(found: Record) -> str:
    """What pairs are ranked against, where it is not their labels as they are."""
    return "true order" if found.get("order", "true") == "true" else "labels without ties"


def _accuracy(found: Record) -> Panel:
    ideal = [point for point in found["ideal_policy"] or [] if point["value"] is not None]
    betas = sorted({float(point["beta"]) for point in ideal}) or [1.0]
    ends = [betas[0], betas[-1]] if len(betas) > 1 else [betas[0] / 2, betas[0] * 2]
    lines = []
    if ideal:
        at = sorted((float(point["beta"]), float(point["value"])) for point in ideal)
        x, y = [list(column) for column in zip(*at, strict=True)]
        lines.append(Line("ideal policy", BLUE, "circle-open", "dash", x, y))
    for name, label, colour in (
        ("accuracy_policy", f"log π, {_order(found)}", BLUE),
        ("accuracy_index", "index, labels", ORANGE),
    ):
        lines += _level(label, colour, ends, found[name])
    if (most := _number(found.get("ideal_index_labels"))) is not None:
        lines.append(Line("ideal index, labels", ORANGE, "", "dash", ends, [most, most]))
    if (plain := _number(found.get("accuracy_reference"))) is not None:
        lines.append(Line(f"reference, {_order(found)}", GREY, "", "dot", ends, [plain, plain]))
    xtitle = "beta of the ideal policy" if ideal else ""  # without a truth there is none
    return Panel(f"{found['n_rows']:,} rows", xtitle, "share ranked right", True, lines)


def _level(label: str, colour: str, ends: list[float], measured: Record | None) -> list[Line]:
    value = _number((measured or {}).get("value"))
    if value is None:
        return []
    half = _Z * (_number((measured or {}).get("se")) or 0.0)
    return [Line(label, colour, "", "solid", ends, [value] * 2, [value - half] * 2, [value + half] * 2, band=True)]


def _by_error(found: Record) -> Panel:
    bins = sorted((b for b in found["by_reference_error"] if b.get("n")), key=lambda b: -_centre(b))
    lines = []
    for name, label, colour, marker in (
        ("policy", f"log π, {_order(found)}", BLUE, "circle"),
        ("index", f"index, {_order(found)}", ORANGE, "square"),
    ):
        known = [b for b in bins if _number(b.get(name)) is not None]
        if known:
            ends = [_share_ends(float(b[name]), _number(b.get(f"{name}_se")), b) for b in known]
            x, y, notes = (
                [-_centre(b) for b in known],
                [float(b[name]) for b in known],
                [f"{b['n']} pairs" + (f" of {b['prompts']} prompts" if "prompts" in b else "") for b in known],
            )
            lines.append(
                Line(label, colour, marker, "solid", x, y, [e[0] for e in ends], [e[1] for e in ends], notes=notes)
            )
    reach = [-_centre(b) for b in bins]
    if lines and min(reach) < 0 < max(reach):
        lines.append(Line("", GREY, "", "dot", [0.0, 0.0], [0.0, 1.0]))
    return Panel("by the reference's error", "how wrong the reference is (nats)", "share ranked right", False, lines)


def _share_ends(share: float, se: float | None, part: Record) -> tuple[float, float]:
    """Wilson's interval of as many independent pairs as have this standard error over prompts, share (1 - share) / se²,
    at most all; of as many as there are prompts where they agree. No interval where one prompt alone tells no error."""
    if se is None:
        return share, share
    return wilson(share, min(share * (1 - share) / se**2, part["n"]) if se > 0 else float(part["prompts"]))


def _centre(part: Record) -> float:
    """Of a bin of the reference's log-ratio of the better to the worse response; of an open one its end."""
    low, high = _number(part.get("low")), _number(part.get("high"))
    known = [end for end in (low, high) if end is not None]
    return sum(known) / len(known) if known else 0.0


def sampling_panels(one: Evaluated) -> list[Panel]:
    """None where there is nothing but the token-level frontier, which has a figure of its own."""
    sequence, best = one.sequence_tilt, one.best_of_n
    if not sequence and not best:
        return []
    frontier = [
        p for p in one.result.frontier if _number(p.get("kl")) is not None and _number(p.get("reward")) is not None
    ]
    lines = [
        *_points("tilt, token by token", BLUE, "circle", "solid", frontier, "kl", "reward", "beta"),
        *_points("tilt of whole responses", ORANGE, "square", "dash", sequence, "kl", "reward", "beta"),
        *_points("best of n by the index", GREEN, "triangle-up", "dashdot", best, "kl_bound", "reward_index", "n"),
        *_points("best of n by the true reward", PURPLE, "diamond", "dot", best, "kl_bound", "reward_true", "n"),
    ]
    return [Panel("", "KL (nats; of best-of-n its bound)", "mean true reward", False, lines)]


def _points(
    label: str, colour: str, marker: str, dash: str, records: Sequence[Record], x: str, y: str, told: str
) -> list[Line]:
    known = [r for r in records if _number(r.get(x)) is not None and _number(r.get(y)) is not None]
    if not known:
        return []
    at = sorted(known, key=lambda r: float(r[x]))
    half = [_Z * (_number(r.get(f"{y}_se")) or 0.0) for r in at]
    values = [float(r[y]) for r in at]
    low, high = ([v + sign * h for v, h in zip(values, half, strict=True)] for sign in (-1, 1))
    notes = ["reference" if r[told] is None else f"{told} {r[told]:g}" + _ess(r) for r in at]
    return [Line(label, colour, marker, dash, [float(r[x]) for r in at], values, low, high, notes=notes)]


def _ess(record: Record) -> str:
    size = _number(record.get("ess_median"))
    return "" if size is None else f", median effective samples {size:.3g} of {record.get('m', '?')}"


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
