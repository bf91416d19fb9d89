"""The usable training rows of a source, some at a time, from any place in it."""

from collections.abc import Iterator
from itertools import islice

import numpy as np

from spo.data.bad_row import BadRow
from spo.data.load import BadRowRule, first_seam, parse, refuse_seams
from spo.data.report import DataReport
from spo.data.rows import ParsedRow, RowParser
from spo.data.sources import Place, Row, open_source
from spo.data.table import Labels, TokenTable
from spo.data.tokens import Rendered, Renderer
from spo.hashing import uniform

_CHUNK = 256  # rows parsed and tokenised in one call


class RowStream:
    """take(place, n): the next n rows after a place that can be used and whose prompt is not held out.

    labels: draws z; None: it is in the rows. held_out: share of the prompts, by a hash of each alone (the same for
    every seed), that is kept for validation.
    Nothing here grows with the source. Reading on from where the last call stopped opens nothing anew.
    """

    def __init__(
        self,
        path: str,
        *,
        parser: RowParser,
        renderer: Renderer,
        rule: BadRowRule,
        report: DataReport,
        labels: Labels | None,
        held_out: float,
        max_seam_mismatch: float,
    ) -> None:
        self.source = open_source(path)
        self.parser, self.renderer, self.rule, self.report = parser, renderer, rule, report
        self.labels, self.held_out, self.max_seam_mismatch = labels, held_out, max_seam_mismatch
        self._rows: Iterator[tuple[Row, str, Place]] = iter(())
        self._place: Place | None = None  # of self._rows; None: at an end
        self._rendered = 0

    def take(self, place: Place, n: int) -> tuple[TokenTable, Place | None]:
        """(rows in the source's order, the place after them); None as a place: the source ended before n rows."""
        if place != self._place:
            self._rows = self.source.rows(place, streamed=True)
        kept: list[tuple[ParsedRow, Rendered]] = []
        now: Place | None = place
        while len(kept) < n:
            raw = list(islice(self._rows, min(n - len(kept), _CHUNK)))
            if not raw:
                now = None
                break
            now = raw[-1][2]
            parsed = parse((row[:2] for row in raw), self.parser, self.rule, self.report)
            fresh = [row for row, held in zip(parsed, self._is_held_out(parsed), strict=True) if not held]
            self.report.rows_held_out += len(parsed) - len(fresh)
            kept += self._render(fresh)
        self._place = now
        table = self._table(kept)
        if kept:
            origin = kept[first_seam([row for _, row in kept])][0].pair.origin
            refuse_seams(self.report, self._rendered, origin, self.max_seam_mismatch)
        return table, now

    def validation(self, limit: int) -> TokenTable:
        """The first `limit` usable rows of held-out prompts; the source is read from its beginning until they are
        found. Other rows are not counted: training meets them again."""
        unseen = DataReport()
        kept: list[tuple[ParsedRow, Rendered]] = []
        rows = self.source.rows({}, streamed=True)
        while len(kept) < limit and (raw := list(islice(rows, _CHUNK))):
            parsed = parse((row[:2] for row in raw), self.parser, self.rule, unseen)
            held = [row for row, held in zip(parsed, self._is_held_out(parsed), strict=True) if held]
            kept += self._render(held)[: limit - len(kept)]
        return self._table(kept)

    def _table(self, kept: list[tuple[ParsedRow, Rendered]]) -> TokenTable:
        rendered = [row for _, row in kept]
        self._rendered += len(kept)
        self.report.count_rendered(rendered)
        table = TokenTable.build([row for row, _ in kept], rendered)
        return table if self.labels is None or not kept else table.labelled(self.labels)

    def prompts(self) -> Iterator[int]:
        """`group` of every row of one pass; nothing is tokenised."""
        rows = self.source.rows({}, streamed=True)
        while raw := list(islice(rows, _CHUNK)):
            yield from (row.pair.group for row in parse((r[:2] for r in raw), self.parser, self.rule, DataReport()))

    def _is_held_out(self, parsed: list[ParsedRow]) -> np.ndarray:
        group = np.array([row.pair.group for row in parsed], dtype=np.int64)
        return uniform(group, 0, "validation") < self.held_out

    def _render(self, parsed: list[ParsedRow]) -> list[tuple[ParsedRow, Rendered]]:
        """Those that can be rendered; the others are counted."""
        found = []
        for row, tokens in zip(parsed, self.renderer.render([r.pair for r in parsed]) if parsed else [], strict=True):
            if isinstance(tokens, BadRow):
                self.rule(self.report, tokens)
            else:
                found.append((row, tokens.packed()))
        return found
