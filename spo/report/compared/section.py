"""The comparison as a part of the page of a folder of runs."""

from pathlib import Path

from spo.report import page
from spo.report.compared import figures, words
from spo.report.compared.comparison import Comparison
from spo.report.compared.panels import RANKING, SAMPLING
from spo.report.statistics import LEVEL
from spo.report.table import as_text

BANDS = (
    "Reward against KL: each seed's frontier interpolated in the root of KL (the axis is a root) between its betas,"
    f" the small marks; line and band are the mean over seeds and prompts and its {LEVEL:.0%} interval, as far as "
    "every seed reaches; the band of seeds that disagree may leave the figure. Dotted: the KL at which methods are "
    "compared. The methods share prompts and seeds, so that their differences are known better than the "
    "bands suggest: see the next figure."
)
AGAINST = (
    f"{LEVEL:.0%} intervals of the paired difference of reward to DPO's at the same KL, and of the win rate against "
    "DPO; a filled mark is told apart."
)
FIGURES = {  # name of the file: heading, caption, alternative text
    "frontier_bands": ("Reward against KL", BANDS, "Frontiers of all methods with bands"),
    "against_dpo": ("Against DPO", AGAINST, "Intervals of differences to DPO and of win rates"),
    "ranking": ("How the rankings stand", RANKING.format(level=LEVEL), "Ranking accuracies of policy and index"),
    "ways_to_sample": ("Other ways to sample", SAMPLING.format(level=LEVEL), "Sequence-level tilt and best of n"),
}


def comparison_body(found: Comparison, folder: Path) -> list[str]:
    """Sentences, table and figures; figures go into `folder`. Nothing where no run has samples or further files."""
    body = []
    if found.several:
        at = f" at KL {found.kl:g}" if found.kl is not None else ""
        body.append(page.heading(f"Methods compared{at}"))
        body += [page.paragraph(sentence) for sentence in words.sentences(found)]
        if found.kl is not None:
            head, rows, strong = words.table(found)
            note = words.NOTE.format(level=LEVEL, at=f"KL {found.kl:g}")
            body += [page.table(head, rows, strong=strong), f'<p class="soft">{page.text(note)}</p>']
    saved = figures.save(found, folder)
    body.append(page.missing(found.troubles if found.several else [t for one in found.evaluated for t in one.troubles]))
    for path in saved:
        title, caption, alt = FIGURES[path.stem]
        body += [page.heading(title, 2 if path.stem != "against_dpo" else 3), page.figure(path, caption, alt)]
    return body


def comparison_table(found: Comparison) -> list[str]:
    """For the terminal: the sentences below the table; nothing where there is nothing to compare."""
    if not found.several or found.kl is None:
        return []
    head, rows, _ = words.table(found)
    return ["\n".join([as_text(head, rows), "", *words.sentences(found)])]
