"""Files -> rows -> tokens: what the data modules of text have in common, and the whole of it for rows in memory."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from spo.data.bad_row import BadRow
from spo.data.lookup import rows_digest
from spo.data.report import DataReport
from spo.data.rows import ParsedRow, RowParser
from spo.data.sources import Row, read_rows
from spo.data.table import TokenTable, refuse_constant_labels
from spo.data.tokens import Rendered, Renderer
from spo.errors import DataError
from spo.hashing import uniform

QUIET_ROWS = 2000  # no progress bar up to here
_CHUNK = 256  # rows tokenised in one call
# What to do about a bad row; "drop" has it counted in the report.
BadRowRule = Callable[[DataReport, BadRow], None]


def drop_bad_row(report: DataReport, row: BadRow) -> None:
    report.drop(row)


def raise_bad_row(report: DataReport, row: BadRow) -> None:
    raise DataError(f"{row} (or have such rows dropped and counted: data.on_bad_row=drop)") from row


@dataclass(frozen=True)
class Corpus:
    """What the files of a run hold, whatever its seed, truth and split. Read from them, or from a cache."""

    table: TokenTable
    counts: dict[str, Any]  # of reading and tokenising: DataReport.counts()
    seam_origin: str  # of the first row whose prompt's ids change when the response follows; of any where there is none
    digest: str  # hash of the kept rows' ids: whatever log-probabilities depend on


def read_corpus(
    paths: Sequence[str], parser: RowParser, renderer: Renderer, rule: BadRowRule, *, max_rows: int | None, hashed: bool
) -> Corpus:
    """paths: train_path, and val_path where there is one. max_rows: of train_path, by a hash of the row id.

    hashed: the order of responses is drawn in every row. Raises DataError.
    """
    report = DataReport()
    files = [read_file(path, parser, rule, report) for path in paths]
    parser.refuse_columns_never_seen(", ".join(paths))
    report.count_columns(parser)
    for path, rows in zip(paths, files, strict=True) if parser.needs_z else ():
        z, ordered = np.array([row.pair.z for row in rows]), np.array([row.ordered for row in rows])
        refuse_constant_labels(path, z, ordered, parser.columns_read, hashed=hashed)
    parsed = [row for rows in files for row in rows]
    from_val = np.arange(len(parsed)) >= len(files[0])
    train, val = np.flatnonzero(~from_val), np.flatnonzero(from_val)
    if max_rows is not None:
        train = train[shuffled(np.array([row.pair.row_id for row in files[0]]))]
    found = tokenise(parsed, train, max_rows, renderer, rule, report)
    if len(val):
        found |= tokenise(parsed, val, None, renderer, rule, report)
    report.rows_beyond_max = report.rows_read - report.dropped.total() - len(found)
    kept = np.array(sorted(found))
    rendered = [found[i] for i in kept]
    report.count_rendered(rendered)
    table = TokenTable.build(parsed, [found.get(i) for i in range(len(parsed))], from_val=from_val)
    return Corpus(
        table=table,
        counts=report.counts(),
        seam_origin=parsed[kept[first_seam(rendered)]].pair.origin,
        digest=rows_digest(table.oriented(kept, np.zeros(len(table), dtype=bool))),
    )


def read_file(path: str, parser: RowParser, rule: BadRowRule, report: DataReport) -> list[ParsedRow]:
    """The rows of a path that can be used. Raises DataError where there is none."""
    dropped: list[BadRow] = []

    def keep(report: DataReport, row: BadRow) -> None:
        dropped.append(row)
        rule(report, row)

    rows = tqdm(read_rows(path), desc=f"reading {path}", unit=" rows", delay=2, leave=False)
    parsed = parse(rows, parser, keep, report)
    report.files.append(path)
    if not parsed:
        raise nothing_left(path, dropped)
    return parsed


def parse(rows: Iterable[tuple[Row, str]], parser: RowParser, rule: BadRowRule, report: DataReport) -> list[ParsedRow]:
    """(row, origin) -> the rows that can be used; the others are counted."""
    parsed = []
    for row, origin in rows:
        report.rows_read += 1
        try:
            parsed.append(parser.parse(row, origin))
        except BadRow as error:
            rule(report, error)
    return parsed


def nothing_left(path: str, dropped: Sequence[BadRow]) -> DataError:
    """The error for a file without one usable row."""
    reasons = {row.reason: sum(r.reason == row.reason for r in dropped) for row in dropped}
    counts = ", ".join(f"{n} {reason}" for reason, n in reasons.items())
    return DataError(f"{path}: none of its {len(dropped)} rows can be used ({counts}). The first: {dropped[0]}")


def shuffled(row_id: np.ndarray) -> np.ndarray:
    """Positions by a hash of the row id: an order to take the first rows of, the same for every seed."""
    return np.argsort(uniform(row_id, 0, "max_rows"), kind="stable")


def held_out(group: np.ndarray, fraction: float) -> np.ndarray:
    """bool (n,): the rows for validation. Whole groups (prompts), least hash first, as many as fit into `fraction` of
    the rows; at least one group, and never all, where there are two. A function of the prompts alone, not of a seed,
    so that runs with different seeds, models and lengths are validated on the same prompts."""
    groups, inverse, rows = np.unique(group, return_inverse=True, return_counts=True)
    if fraction == 0 or len(groups) < 2:
        return np.zeros(len(group), dtype=bool)
    order = np.argsort(uniform(groups, 0, "validation"), kind="stable")
    fitting = int((np.cumsum(rows[order]) <= fraction * len(group)).sum())
    chosen = np.zeros(len(groups), dtype=bool)
    chosen[order[: min(max(fitting, 1), len(groups) - 1)]] = True
    return chosen[inverse]


def tokenise(
    parsed: Sequence[ParsedRow],
    positions: np.ndarray,
    limit: int | None,
    renderer: Renderer,
    rule: BadRowRule,
    report: DataReport,
) -> dict[int, Rendered]:
    """Position -> row, for the first `limit` of `positions` that can be rendered; None: all of them."""
    rendered: dict[int, Rendered] = {}
    dropped: list[BadRow] = []
    limit = len(positions) if limit is None else min(limit, len(positions))
    with tqdm(total=limit, desc="tokenising", unit=" rows", disable=limit <= QUIET_ROWS, leave=False) as bar:
        for start in range(0, len(positions), _CHUNK):
            chunk = positions[start : start + _CHUNK]
            for position, row in zip(chunk, renderer.render([parsed[i].pair for i in chunk]), strict=True):
                if len(rendered) == limit:
                    return rendered
                if isinstance(row, BadRow):
                    rule(report, row)
                    dropped.append(row)
                else:
                    rendered[int(position)] = row.packed()
            bar.update(len(rendered) - bar.n)
    if not rendered:
        raise nothing_left(", ".join(report.files), dropped)
    return rendered


def first_seam(rendered: Sequence[Rendered]) -> int:
    """Position of the first row whose prompt's ids change when the response follows; 0 where there is none."""
    return next((i for i, row in enumerate(rendered) if row.seam_mismatch), 0)


def refuse_seams(report: DataReport, rows: int, origin: str, limit: float) -> None:
    """The prompt's ids should begin the ids of prompt + response; a few rows may break that, not many.

    rows: rendered so far, over which the report has counted. origin: of one that breaks it.
    """
    share = report.seam_mismatches / max(rows, 1)
    if share > limit:
        raise DataError(
            f"{origin}: in {100 * share:.1f}% of {rows} rows, this one among them, the tokens of the prompt "
            f"change when the response follows (limit {100 * limit:g}%): the template rewrites it, or tokens merge "
            "over the seam. Let prompts end in a space or newline, change data.chat_template, "
            "or raise data.max_seam_mismatch"
        )
