"""The comparison as a table and in sentences, which say plainly where nothing can be told apart."""

from collections.abc import Sequence

from spo.evaluate import DETERMINED
from spo.report.compared.comparison import Cell, Comparison
from spo.report.statistics import LEVEL, Estimate

EVEN = 0.5  # a win rate that tells nothing apart
HEAD = ["under", "method", "reward at KL {kl:g}", "less DPO's", "win rate against DPO", "win rate against reference",
        "seeds", "prompts"]  # fmt: skip
NOTE = (
    "In brackets the {level:.0%} interval. Each seed's frontier is interpolated at {at}; a difference is paired: "
    "the same prompts and, where there are several, the same training seeds. With K seeds and I prompts, se² = "
    "max(A, C) + max(B, C) - C, of A the variance of the seed means / K, B that of the prompt means / I and C the "
    "rest's mean square / (K·I), and t has Satterthwaite's degrees of freedom; the error of the KLs themselves is "
    "not in it. A win is a higher true reward on the same prompt at the same sample number, drawn with the same "
    "random numbers, a tie half a win; between two betas the policy is their mixture."
)
ONE_SEED = "One seed: the interval is over prompts only, and says nothing of what another training seed would give."


def table(found: Comparison) -> tuple[list[str], list[list[str]], list[int]]:
    """Head, rows and the rows in bold: those told apart from DPO. Conditions together, so that methods are beside one
    another; without the column of conditions where there is one only."""
    assert found.kl is not None
    rows = [_row(cell) for cell in found.cells]
    strong = [i for i, cell in enumerate(found.cells) if apart(cell)]
    head = [name.format(kl=found.kl) for name in HEAD]
    kept = [i for i in range(len(head)) if i or any(row[i] != "-" for row in rows)]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in rows], strong


def _row(cell: Cell) -> list[str]:
    level = cell.reward
    return [
        cell.group.condition or "-",
        cell.group.label,
        interval(cell.reward),
        "baseline" if cell.group.is_baseline else interval(cell.difference, signed=True),
        "baseline" if cell.group.is_baseline else interval(cell.win),
        interval(cell.win_reference),
        "-" if level is None else str(level.seeds),
        "-" if level is None else str(level.prompts),
    ]


def interval(found: Estimate | None, *, signed: bool = False) -> str:
    """`+0.012 [-0.003, +0.027]`; a dash for what is not there."""
    if found is None:
        return "-"
    sign = "+" if signed else ""
    ends = f" [{found.low:{sign}.3f}, {found.high:{sign}.3f}]" if found.low == found.low else ""
    return f"{found.mean:{sign}.3f}{ends}"


def apart(cell: Cell) -> int:
    """1, -1: its reward is told apart from DPO's; 0: it is not, or there is no DPO."""
    return 0 if cell.difference is None else cell.difference.apart()


def sentences(found: Comparison) -> list[str]:
    """What can be told apart and what cannot, and what the intervals are over."""
    if found.kl is None:
        return []
    compared = [cell for cell in found.cells if cell.difference is not None]
    out = [_verdict(compared, found.kl)] if compared else [_nothing(found)]
    winners = [cell for cell in compared if cell.win is not None and cell.win.apart(EVEN)]
    if compared:
        named = _listed([f"{cell.group.name} {interval(cell.win)}" for cell in winners])
        out.append(f"By win rate against DPO {'apart from 1/2: ' + named if winners else 'none is apart from 1/2'}.")
    levels = [cell.reward for cell in found.cells if cell.reward is not None]
    if levels and all(level.seeds == 1 for level in levels):
        out.append(ONE_SEED)
    elif lonely := [cell.group.name for cell in found.cells if cell.reward is not None and cell.reward.seeds == 1]:
        out.append(f"Of {_listed(lonely)} there is one seed: there the interval is over prompts only.")
    if unclear := [name for cell in found.cells for name in _undetermined(cell)]:
        out.append(
            f"The data do not say which way the index points (z-score below {DETERMINED:g}) of {_listed(unclear)}."
        )
    return out


def _undetermined(cell: Cell) -> list[str]:
    scores = [member.evaluated.result.undetermined for member in cell.group.members.values()]
    found = [f"{score:.1f}" for score in scores if score is not None]
    return [f"{cell.group.name} {' and '.join(found)}"] if found else []


def _verdict(compared: Sequence[Cell], kl: float) -> str:
    told = [cell for cell in compared if apart(cell)]
    if not told:
        return f"No method is told apart from DPO at {LEVEL:.0%}, by its reward at KL {kl:g}."
    parts = []
    for side, words in ((1, "above DPO"), (-1, "below DPO")):
        names = [f"{c.group.name} by {interval(c.difference, signed=True)}" for c in told if apart(c) == side]
        parts += [f"{words}: {_listed(names)}"] if names else []
    rest = len(compared) - len(told)
    others = f"; {rest} of {len(compared)} comparisons {'is' if rest == 1 else 'are'} open" if rest else ""
    chance = (
        f" Where no method differed, about {(1 - LEVEL) * len(compared):.1g} of {len(compared)} comparisons would be "
        "told apart by chance alone."
        if len(compared) > 1
        else ""
    )
    return f"At {LEVEL:.0%}, by reward at KL {kl:g}, {'; '.join(parts)}{others}.{chance}"


def _nothing(found: Comparison) -> str:
    if any(group.is_baseline for group in found.groups):
        return "No other method was trained and evaluated on the seeds and under the settings of DPO: no differences."
    return "There is no evaluated DPO (method=dpo) with the same settings: no differences and no win rates to it."


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
