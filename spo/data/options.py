"""The options of preference rows as text, whether they lie in memory or are streamed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from spo.data.load import BadRowRule, drop_bad_row, raise_bad_row
from spo.data.micro import MicroBatch, micro_batches
from spo.data.micro import problems as problems_of_micro
from spo.data.origin import refuse_other_tokens
from spo.data.row_ids import RowIds
from spo.data.rows import RowParser
from spo.data.sources import open_source
from spo.data.table import Labels
from spo.data.tokens import Renderer
from spo.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BAD_ROW: dict[str, BadRowRule] = {"drop": drop_bad_row, "raise": raise_bad_row}


@dataclass(kw_only=True, eq=False, repr=False)
class TextOptions:
    """What conf/data/preferences.yaml and stream.yaml both explain, up to prefetch; then what the command gives:

    tokenizer: of the policy. labels: draws z from reward_0, reward_1; None: z is in the rows. seed: of orientation and
    row order. global_batch: pairs of an optimizer step. micro_batch: pairs of a forward pass on each process; None
    where micro_tokens is given: tokens of one, padding counted (2 x rows x the longest side).
    """

    train_path: str
    val_path: str | None = None
    val_fraction: float = 0.1
    columns: dict[str, str | None] | None = None
    label_map: dict[str, float | None] | None = None
    orientation: Literal["keep", "hash"] = "keep"
    on_bad_row: Literal["drop", "raise"] = "drop"
    max_length: int = 1024
    max_prompt_length: int | None = None
    truncation: Literal["drop", "truncate_prompt_left", "truncate_response"] = "drop"
    chat_template: Literal["model", "none"] = "model"
    append_eos: bool = True
    template_options: dict[str, Any] | None = None
    max_seam_mismatch: float = 0.05
    bucket_window: int = 8
    prefetch: int = 2
    tokenizer: PreTrainedTokenizerBase
    labels: Labels | None = None
    seed: int = 0
    global_batch: int
    micro_batch: int | None
    micro_tokens: int | None = None

    def refuse(self, *own: tuple[bool, str]) -> None:
        """Every shared option, and the checks of one's own, in one ConfigError."""
        longest = self.max_prompt_length
        checks = (
            (
                self.tokenizer is None,
                "the data are text, and the policy has no tokenizer: give a language model, or data=tabular",
            ),
            (
                not 0 <= self.val_fraction < 1,
                f"data.val_fraction is {self.val_fraction}: give a share in [0, 1)",
            ),
            (self.max_length < 2, f"data.max_length is {self.max_length}: give tokens >= 2 (prompt + response)"),
            (
                longest is not None and not 1 <= longest < self.max_length,
                f"data.max_prompt_length is {longest}: give tokens >= 1, < max_length {self.max_length}, or null",
            ),
            (
                not 0 <= self.max_seam_mismatch <= 1,
                f"data.max_seam_mismatch is {self.max_seam_mismatch}: give a share in [0, 1]",
            ),
            (self.bucket_window < 1, f"data.bucket_window is {self.bucket_window}: give global batches >= 1"),
            *problems_of_micro(self.micro_batch, self.micro_tokens),
            (
                self.prefetch < 0,
                f"data.prefetch is {self.prefetch}: give optimizer steps >= 1, or 0 for none",
            ),
            (self.global_batch < 1, f"global_batch is {self.global_batch}: give pairs >= 1"),
            *own,
        )
        if problems := [message for wrong, message in checks if wrong]:
            raise ConfigError("\n".join(problems))
        self.parser()  # says now what is wrong with the column map

    def parser(self, row_ids: RowIds | None = None) -> RowParser:
        return RowParser(self.columns, label_map=self.label_map, needs_z=self.labels is None, row_ids=row_ids)

    def build_renderer(self) -> Renderer:
        """DataError where labelled rows were written for other tokens."""
        renderer = Renderer(
            self.tokenizer,
            chat_template=self.chat_template,
            max_length=self.max_length,
            max_prompt_length=self.max_prompt_length,
            truncation=self.truncation,
            append_eos=self.append_eos,
            template_options=self.template_options,
        )
        refuse_other_tokens(filter(None, (self.train_path, self.val_path)), renderer)
        return renderer

    @property
    def micro(self) -> MicroBatch:
        return micro_batches(self.micro_batch, self.micro_tokens)

    @property
    def scored_by(self) -> str | None:
        """The true reward of rows that `spo label` wrote, by name; None of other rows."""
        manifest = open_source(self.train_path).manifest
        return None if manifest is None else str(manifest["reward"]["name"])

    @property
    def hashed(self) -> bool:
        """The order of responses is drawn in every row, also where rows give one."""
        return self.orientation == "hash"

    @property
    def bad_row(self) -> BadRowRule:
        return _BAD_ROW[self.on_bad_row]
