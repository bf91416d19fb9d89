"""Which prompts a model can be asked: those that leave room for the response in its context, and that are not longer
than any of its training."""

import sys
from collections.abc import Sequence

from spo.data.prompts import that_fit
from spo.data.tokens import Renderer
from spo.errors import ConfigError
from spo.policy.causal_lm import CausalLM
from spo.types import Text


class Room:
    """The tokens that a prompt may have. ConfigError where nothing is left for one."""

    def __init__(self, policy: CausalLM, renderer: Renderer, max_new_tokens: int, *, trained: int | None) -> None:
        """trained: tokens of the longest prompt that the policy's training takes; None before a training."""
        context = policy.context_length
        if context is not None and context <= max_new_tokens:
            raise ConfigError(
                f"max_new_tokens is {max_new_tokens}, and the model's context, prompt included, has {context} tokens: "
                "give a smaller number"
            )
        self.renderer = renderer
        self.tokens = sys.maxsize if context is None else context - max_new_tokens
        self.why = f"longer than the model's context, {context} tokens, less max_new_tokens={max_new_tokens}"
        self.mend = "give shorter ones, or a smaller number"
        if trained is not None and trained < self.tokens:
            self.tokens = trained
            self.why = (
                f"longer than any that was trained on, {trained} tokens (by its data.max_prompt_length or "
                "data.max_length)"
            )
            self.mend = "give shorter ones, or train with more"

    def first(self, prompts: Sequence[Text], n: int | None) -> tuple[list[Text], int]:
        """(the first n prompts that fit, how many before the last of them do not), said where there are such. n None:
        all. ConfigError where none fits."""
        found, longer = that_fit(prompts, self._lengths, self.tokens, n)
        if prompts and not found:
            raise ConfigError(f"all {len(prompts)} prompts are {self.why}: {self.mend}")
        if longer:
            print(f"{longer} prompts are {self.why}, and are left out", file=sys.stderr)
        return found, longer

    def _lengths(self, prompts: Sequence[Text]) -> list[int]:
        return [len(ids) for ids in self.renderer.prompts_ids(prompts)]
