"""A frozen second model as the reference: log pi_ref(y | x) of a language model that is never trained."""

import json
from typing import Any, cast

import torch
from torch import Tensor

from spo.errors import ConfigError
from spo.policy.base import Policy
from spo.policy.causal_lm import ATTENTION, DTYPES, CausalLM
from spo.policy.reference import Reference, RowKeeper
from spo.policy.remembered import RememberedRows
from spo.types import PreferenceBatch


class Frozen(Reference):
    """A second copy of the policy's model, or another architecture that reads the same tokens.

    path: as the policy's (spo.policy.weights), None for the policy's own. dtype, attn_implementation: as the policy's,
    None for the same. Refused where its tokenizer gives a text other ids than the policy's does. Costs the memory of
    its weights and one forward pass for a row the first time it comes (a training keeps what it gave, 16 bytes a row,
    also in the checkpoint); always in eval mode, in no optimizer, its weights in no checkpoint.
    """

    remembered: RememberedRows | None = None

    def __init__(self, *, path: str | None, dtype: str | None, attn_implementation: str | None) -> None:
        problems = []
        if dtype is not None and dtype not in DTYPES:
            problems.append(f"dtype is {dtype}: give one of {', '.join(DTYPES)}, or null for the policy's")
        if attn_implementation is not None and attn_implementation not in ATTENTION:
            problems.append(
                f"attn_implementation is {attn_implementation}: give one of {', '.join(ATTENTION)}, or null for the "
                "policy's"
            )
        if problems:
            raise ConfigError("\n".join(problems))
        self.path = path
        self.dtype = dtype
        self.attn_implementation = attn_implementation
        self._model: CausalLM | None = None
        self._equals_start = False

    def prepare(self, policy: Policy, data: RowKeeper) -> None:
        model = self._model = self._copy_of(policy)
        self.remembered = RememberedRows()
        assert isinstance(policy, CausalLM)
        if model.source.folder() != policy.source.folder():
            _compare_tokenizers(policy, model)
        self._equals_start = policy.starts_at_reference and model.dtype == policy.dtype and self.is_start_of(policy)

    def _copy_of(self, policy: Policy) -> CausalLM:
        if not isinstance(policy, CausalLM):
            raise ConfigError("reference=frozen is a language model: give reference=uniform with a tabular policy")
        given = {"path": self.path, "dtype": self.dtype, "attn_implementation": self.attn_implementation}
        return policy.bare(**{key: value for key, value in given.items() if value is not None})

    def is_start_of(self, policy: Policy) -> bool:
        mine, other = self._copy_of(policy).source, cast(CausalLM, policy).source
        return mine == other or mine.fingerprint() == other.fingerprint()

    def build(self) -> None:
        model = self._prepared
        if model.model is None:
            model.build()
            model.requires_grad_(False).eval()

    @property
    def network(self) -> CausalLM:
        return self._prepared

    @property
    def equals_initial_policy(self) -> bool:
        return self._equals_start

    @torch.no_grad()
    def log_prob(self, batch: PreferenceBatch, policy: Policy) -> Tensor:
        total: Tensor = self._prepared(batch.pair)
        return total

    @property
    def _prepared(self) -> CausalLM:
        if self._model is None:
            raise RuntimeError("Frozen.prepare() has not been called")
        return self._model


def _compare_tokenizers(policy: CausalLM, reference: CausalLM) -> None:
    """ConfigError where one text has other ids for the two models, or an id is outside the reference's vocabulary."""
    ours, theirs = policy.tokenizer, reference.tokenizer
    given = reference.source.given
    mend = "The reference must read the policy's tokens: give a model with the same tokenizer"
    mine, other = ours.get_vocab(), theirs.get_vocab()
    if mine != other:
        changed = sorted(token for token in mine.keys() | other.keys() if mine.get(token) != other.get(token))
        example = f"{changed[0]!r} is {mine.get(changed[0])} here, {other.get(changed[0])} there"
        raise ConfigError(f"reference.path {given} has another vocabulary ({len(changed)} tokens: {example}). {mend}")
    if _rules(ours) != _rules(theirs):
        raise ConfigError(f"reference.path {given} splits text into tokens by other rules. {mend}")
    from transformers import AutoConfig

    size = AutoConfig.from_pretrained(reference.source.folder()).get_text_config().vocab_size
    if size <= max(mine.values()):
        raise ConfigError(f"reference.path {given} has {size} tokens, the tokenizer {max(mine.values()) + 1}. {mend}")


def _rules(tokenizer: Any) -> dict[str, Any]:
    """How a fast tokenizer normalises, splits and merges; empty for a slow one, whose rules are code."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {}
    content = json.loads(backend.to_str())
    return {name: content.get(name) for name in ("normalizer", "pre_tokenizer", "model")}
