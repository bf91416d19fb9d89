"""What the data are, said before any weights load."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from transformers import PreTrainedTokenizerBase

from spo.data.bad_row import BadRow
from spo.data.collate import TokenisedRows
from spo.data.rows import RowParser
from spo.data.tally import Tally
from spo.data.tokens import Rendered

_SHOWN = 300  # characters of a text of the example
_OF_READING = (
    "files", "rows_read", "rows_beyond_max", "dropped", "first_dropped", "columns", "columns_unread",
    "seam_mismatches", "truncated_prompt", "truncated_0", "truncated_1",
)  # fmt: skip


@dataclass
class DataReport:
    """rows_read = rows_kept + sum(dropped) + rows_beyond_max + rows_held_out. Lengths in tokens; per-side counts are in
    file order (side 1 = chosen), differences and z after orientation: response 1 - response 0. Of a stream, it counts
    what this process has read so far, a row once for every time."""

    files: list[str] = field(default_factory=list)
    rows_read: int = 0
    rows_beyond_max: int = 0  # not needed, because max_rows were found before
    rows_held_out: int = 0  # of a stream: rows passed over in training because their prompt is kept for validation
    passes: int | None = None  # of a stream: times that its end was reached
    dropped: Counter[str] = field(default_factory=Counter)  # reason -> rows
    first_dropped: dict[str, str] = field(default_factory=dict)  # reason -> the first such row's message
    columns: dict[str, str] = field(default_factory=dict)  # ours -> the file's
    columns_unread: list[str] = field(default_factory=list)

    rows_kept: int = 0
    rows_train: int = 0
    rows_val: int = 0
    prompts: int | None = None  # distinct ones; None of a stream, which would have to remember them all
    val_prompts_in_train: int = 0  # more than 0 only where val_path was given
    repeated_rows: int | None = None  # rows beyond the first of each row id; None of a stream

    seam_mismatches: int = 0
    truncated_prompt: int = 0
    truncated_0: int = 0
    truncated_1: int = 0

    labels_from: str = "file"
    z_mean: float = float("nan")
    z_one: int = 0
    z_zero: int = 0
    z_tie: int = 0
    z_soft: int = 0  # neither 0, 0.5 nor 1
    swapped: int = 0
    reward_sd: float | None = None

    prompt_length_mean: float = float("nan")
    response_length_mean: float = float("nan")
    length_max: int = 0  # prompt + longer response
    length_difference_mean: float = float("nan")
    length_difference_corr_z: float | None = None  # None where one of the two is constant
    example: str = ""  # one row as the model sees it
    tally: Tally = field(default_factory=Tally)  # the sums behind the means, and histograms

    @classmethod
    def counted(cls, counts: dict[str, Any], *, labels_from: str) -> Self:
        """Goes on from the counts of reading and tokenising."""
        return cls(**{**counts, "dropped": Counter(counts["dropped"])}, labels_from=labels_from)

    def counts(self) -> dict[str, Any]:
        """What reading and tokenising count; the rest is read off the rows. Plain containers."""
        return {name: dict(v) if isinstance(v := getattr(self, name), Counter) else v for name in _OF_READING}

    def drop(self, row: BadRow) -> None:
        self.dropped[row.reason] += 1
        self.first_dropped.setdefault(row.reason, str(row))

    def count_columns(self, parser: RowParser) -> None:
        self.columns = parser.columns_read
        self.columns_unread = sorted(parser.columns_seen - set(parser.columns_read.values()))

    def count_rendered(self, rendered: Sequence[Rendered]) -> None:
        self.seam_mismatches += sum(row.seam_mismatch for row in rendered)
        self.truncated_prompt += sum(row.truncated_prompt for row in rendered)
        self.truncated_0 += sum(row.truncated[0] for row in rendered)
        self.truncated_1 += sum(row.truncated[1] for row in rendered)

    def count_rows(self, rows: TokenisedRows, *, val: bool = False) -> None:
        """Adds what is read off tokenised rows."""
        self.rows_train, self.rows_val = self.rows_train + len(rows) * (not val), self.rows_val + len(rows) * val
        self.rows_kept = self.rows_train + self.rows_val
        self.tally.add(rows)
        self.swapped += int(rows.swapped.sum())
        tally = self.tally
        self.z_mean, self.z_one, self.z_zero, self.z_tie = tally.z_mean, *tally.hard
        self.z_soft = self.rows_kept - self.z_one - self.z_zero - self.z_tie
        self.prompt_length_mean = tally.mean("prompt")
        self.response_length_mean = tally.mean("response")
        self.length_max = tally.length_max
        self.length_difference_mean, self.length_difference_corr_z = tally.difference_mean, tally.difference_corr_z

    def count_groups(self, train: TokenisedRows, val: TokenisedRows) -> None:
        """What only all rows together can tell."""
        row_id = np.concatenate([train.row_id, val.row_id])
        self.prompts = len(np.union1d(train.group, val.group))
        self.val_prompts_in_train = len(np.intersect1d(train.group, val.group))
        self.repeated_rows = len(row_id) - len(np.unique(row_id))

    def histograms(self) -> dict[str, dict[str, list[Any]]]:
        """Name -> {"edges", "counts"}: token lengths of prompts, responses and rows, and z."""
        return self.tally.histograms()

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for data_report.json; nan becomes None."""
        facts = {k: v for k, v in vars(self).items() if k != "tally"}
        plain = {k: dict(v) if isinstance(v, Counter) else v for k, v in facts.items()}
        return {k: None if isinstance(v, float) and np.isnan(v) else v for k, v in plain.items()}

    def lines(self) -> list[str]:
        """The report as text, a line a fact."""
        used = ", ".join(ours if ours == theirs else f"{ours} <- {theirs}" for ours, theirs in self.columns.items())
        dropped = ", ".join(f"{n} {reason}" for reason, n in self.dropped.most_common()) or "none"
        beyond = f", left out by max_rows: {self.rows_beyond_max}" if self.rows_beyond_max else ""
        prompts = "" if self.prompts is None else f", {self.prompts} prompts"
        if self.passes is not None:
            ends = {0: "not yet at the end", 1: "to the end"}.get(self.passes, f"{self.passes} times to the end")
            beyond = f", {self.rows_held_out} passed over (prompts of validation); read so far, {ends}"
        corr = "undefined" if self.length_difference_corr_z is None else f"{self.length_difference_corr_z:+.3f}"
        text = [
            f"files            {', '.join(self.files)}",
            f"columns          {used}"
            + (f" (not read: {', '.join(self.columns_unread)})" if self.columns_unread else ""),
            f"rows             {self.rows_read} read, {self.rows_kept} kept "
            f"({self.rows_train} train, {self.rows_val} val){prompts}{beyond}",
            f"dropped          {dropped}",
            *(f"                 first {reason}: {message}" for reason, message in self.first_dropped.items()),
            f"labels           from {self.labels_from}: mean z {self.z_mean:.3f}; "
            f"{self.z_one} one, {self.z_zero} zero, {self.z_tie} tied, {self.z_soft} soft; {self.swapped} turned round",
            f"tokens           prompt {self.prompt_length_mean:.1f}, response {self.response_length_mean:.1f} (means), "
            f"longest row {self.length_max}",
            f"truncated        {self.truncated_prompt} prompts, {self.truncated_0} responses 0, "
            f"{self.truncated_1} responses 1",
            f"seam mismatches  {self.seam_mismatches}",
            f"length bias      response 1 - response 0: {self.length_difference_mean:+.1f} tokens; "
            f"correlation with z {corr}",
        ]
        if self.reward_sd is not None:
            text.append(f"rewards          sd of the difference {self.reward_sd:.4g}")
        if self.val_prompts_in_train:
            text.append(
                f"WARNING          {self.val_prompts_in_train} validation prompts are also in the training file"
            )
        if self.repeated_rows:
            text.append(f"note             {self.repeated_rows} rows repeat another row's id")
        return [*text, "example          (prompt, then responses 0 and 1, each with its end)", self.example]


def decoded(rows: TokenisedRows, position: int, tokenizer: PreTrainedTokenizerBase) -> str:
    """One row, decoded from the very ids that the model gets."""
    shown = [repr(tokenizer.decode(part))[1:-1] for part in rows.tokens(position)]
    half = _SHOWN // 2 - 5
    prompt, *sides = [text if len(text) <= _SHOWN else f"{text[:half]} ... {text[-half:]}" for text in shown]
    return "\n".join([f"  [prompt] {prompt}", *(f"  [{j}] {side}" for j, side in enumerate(sides))])
