"""A pair of texts -> prompt ids and two lists of response ids, by one renderer for training and generation.

    ids of (x, y) = prompt ids + response ids;  the response ends with the end-of-turn token.

Prompt ids are those of the prompt rendered alone, ready for an answer. Where tokenising prompt and response
together gives other ids at the seam (BPE merges over it, or the template rewrites the prompt), the row is marked
and the longest common prefix of all three renderings is its prompt: what differs counts as response.
"""

import json
import re
from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, Literal

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from spo.data.bad_row import BadRow
from spo.errors import ConfigError, DataError
from spo.hashing import digest
from spo.types import Message, PreferencePair, Text, as_messages

Truncation = Literal["drop", "truncate_prompt_left", "truncate_response"]
ChatTemplate = Literal["model", "none"]
RENDERER_VERSION = 2  # raise it when the same text gives other ids
TemplateOptions = Mapping[str, Any]  # variables of a chat template -> values
_OURS = {"tokenize", "add_generation_prompt", "conversation", "chat_template"}  # what the renderer says itself
_PROBE = "qzqz"
_SHOWN = 80  # characters of a prompt in a message


@dataclass(frozen=True)
class Rendered:
    """One pair in file order. response_j are never empty; the prompt has at least one id."""

    prompt: Sequence[int]
    responses: tuple[Sequence[int], Sequence[int]]
    seam_mismatch: bool = False
    truncated_prompt: bool = False
    truncated: tuple[bool, bool] = (False, False)  # per response; its end-of-turn token is cut too

    def __len__(self) -> int:
        """Tokens of the longer side."""
        return len(self.prompt) + max(map(len, self.responses))

    def packed(self) -> "Rendered":
        """The same in int32 arrays: 4 bytes a token instead of 36, for the many rows of a file."""
        first, second = self.responses
        return replace(self, prompt=array("i", self.prompt), responses=(array("i", first), array("i", second)))


class _Form(ABC):
    """How a prompt and a response become one text; ids carry `bos` in front."""

    template: str | None  # the chat template's own text; None where there is none
    bos: list[int]
    end_of_turn: int | None  # written by the form itself, after the response
    tail: str  # text the form writes after the response

    @abstractmethod
    def prompt(self, prompt: Text) -> str: ...

    @abstractmethod
    def whole(self, prompt: Text, response: str) -> str: ...


class _Chat(_Form):
    """The tokenizer's own chat template, which also writes whatever BOS there is."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: TemplateOptions) -> None:
        if tokenizer.chat_template is None:
            raise ConfigError(
                f"the tokenizer of {tokenizer.name_or_path or 'this model'!r} has no chat template: "
                "give data.chat_template=none (prompt + response as plain text), or an instruction-tuned model"
            )
        if taken := sorted(set(options) & _OURS):
            raise ConfigError(f"template_options sets {', '.join(taken)}, which the renderer sets itself: leave it out")
        words = set(re.findall(r"\w+", str(tokenizer.chat_template)))
        if unknown := sorted(set(options) - words):
            raise ConfigError(
                f"template_options sets {', '.join(unknown)}, which the chat template of "
                f"{tokenizer.name_or_path or 'this model'!r} does not use: mend the name, or leave it out"
            )
        self.tokenizer, self.options = tokenizer, options
        said = f"{{# with {json.dumps(dict(options), sort_keys=True)} #}}" if options else ""
        self.template = str(tokenizer.chat_template) + said
        self.bos = []
        self.tail = self.whole("a", _PROBE).rpartition(_PROBE)[2]
        special = set(tokenizer.all_special_ids) | {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        tail_ids = _encode(tokenizer, [self.tail])[0]
        self.end_of_turn = next((i for i in tail_ids if i in special), None)

    def prompt(self, prompt: Text) -> str:
        return self._written(as_messages(prompt), add_generation_prompt=True)

    def whole(self, prompt: Text, response: str) -> str:
        turns = [*as_messages(prompt), {"role": "assistant", "content": response}]
        return self._written(turns)

    def _written(self, turns: list[Message], **how: Any) -> str:
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, **how, **self.options))


class _Plain(_Form):
    """prompt + response; BOS where the tokenizer itself would add one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, options: TemplateOptions) -> None:
        if options:
            raise ConfigError(
                f"template_options is {dict(options)}, and chat_template=none writes no template: give {{}}, or "
                "chat_template=model"
            )
        bos = tokenizer.bos_token_id
        adds_bos = bos is not None and tokenizer("a", add_special_tokens=True)["input_ids"][:1] == [bos]
        self.bos = [bos] if adds_bos else []
        self.template, self.tail, self.end_of_turn = None, "", None

    def prompt(self, prompt: Text) -> str:
        if isinstance(prompt, str):
            return prompt
        raise BadRow("needs_chat_template", "a prompt of several messages needs data.chat_template=model")

    def whole(self, prompt: Text, response: str) -> str:
        return self.prompt(prompt) + response


_FORMS: dict[str, Callable[[PreTrainedTokenizerBase, TemplateOptions], _Form]] = {"model": _Chat, "none": _Plain}


def _encode(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    """One batched call; special tokens only where the text spells them."""
    found = tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)
    ids: list[list[int]] = found["input_ids"]
    return ids


class Renderer:
    """render(pairs) -> one Rendered or BadRow a pair; prompt_ids(prompt) and stop_token_ids for generation.

    max_length: tokens of prompt + response, per side. max_prompt_length: tokens of the prompt; None: no limit of
    its own. truncation, for a row over a limit: `drop` it; `truncate_prompt_left` cuts the prompt's oldest
    tokens (a leading BOS stays), never a response; `truncate_response` cuts the end of a response, never a
    prompt. A row that the rule cannot make fit with a token left on each side is a BadRow. append_eos: end a
    response with the EOS token where the template writes no end of turn. template_options: variables that the chat
    template asks for, such as Qwen3's enable_thinking; a variable that it does not know changes nothing.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        chat_template: ChatTemplate = "model",
        max_length: int = 1024,
        max_prompt_length: int | None = None,
        truncation: Truncation = "drop",
        append_eos: bool = True,
        template_options: TemplateOptions | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.max_prompt_length = max_length - 1 if max_prompt_length is None else max_prompt_length
        self._form = _FORMS[chat_template](tokenizer, template_options or {})
        self._fit = _RULES[truncation]
        if append_eos and tokenizer.eos_token_id is None and self._form.end_of_turn is None:
            raise ConfigError(
                f"data.append_eos is true, but the tokenizer of {tokenizer.name_or_path!r} has no EOS token: "
                "give data.append_eos=false (no end of turn is learned then)"
            )
        self._eos = tokenizer.eos_token_id if append_eos else None
        # Tokens that end a response.
        self.stop_token_ids = sorted({i for i in (self._form.end_of_turn, tokenizer.eos_token_id) if i is not None})
        # What fills a batch up; masks, not ids, say what padding is, so that any id will do.
        self.pad_token_id = next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
        self._rules: dict[str, Any] = {
            "data.chat_template": chat_template,
            "data.max_length": max_length,
            "data.max_prompt_length": max_prompt_length,
            "data.truncation": truncation,
            "data.append_eos": append_eos,
            **({"data.template_options": dict(template_options)} if template_options else {}),  # no change of the hash
        }

    def fingerprint(self) -> str:
        """Hash of everything that turns texts into ids: vocabulary and merges, template, lengths, rules."""
        return digest([RENDERER_VERSION, *self._vocabulary, self.tokenizer.chat_template, [*self._rules.values()]])

    def parts(self) -> dict[str, Any]:
        """What the fingerprint is made of, by names that a message can say."""
        template = digest(self.tokenizer.chat_template)
        return {"tokenizer": self.tokenizer_fingerprint(), "text of the chat template": template, **self._rules}

    def tokenizer_fingerprint(self) -> str:
        """Hash of vocabulary, merges and special tokens alone."""
        return digest(self._vocabulary)

    @property
    def _vocabulary(self) -> list[Any]:
        tokenizer = self.tokenizer
        if tokenizer.is_fast:
            vocabulary = json.loads(tokenizer.backend_tokenizer.to_str())
            vocabulary = {k: v for k, v in vocabulary.items() if k not in ("truncation", "padding")}  # call state
        else:
            vocabulary = tokenizer.get_vocab()
        return [vocabulary, {name: str(token) for name, token in tokenizer.special_tokens_map.items()}]

    @property
    def template(self) -> str | None:
        """The text of the chat template in use; None where prompts are plain text."""
        return self._form.template

    def prompt_ids(self, prompt: Text) -> list[int]:
        """Ids after which the model is to answer: what training has before the response. Never truncated."""
        return self.prompts_ids([prompt])[0]

    def prompts_ids(self, prompts: Sequence[Text]) -> list[list[int]]:
        """The same for many, in one batched call. DataError for a prompt that the template refuses."""
        return [self._with_bos(ids) for ids in _encode(self.tokenizer, [self._prompt(prompt) for prompt in prompts])]

    def _prompt(self, prompt: Text) -> str:
        try:
            return self._form.prompt(prompt)
        except TemplateError as error:
            raise DataError(f"the chat template refuses the prompt {str(prompt)[:_SHOWN]!r}: {error}") from error

    def render(self, pairs: Sequence[PreferencePair]) -> list[Rendered | BadRow]:
        """Tokenises many pairs in one batched call."""
        texts: list[str] = []
        refused: dict[int, BadRow] = {}
        for position, pair in enumerate(pairs):
            try:
                texts += self._three_texts(pair)
            except BadRow as error:
                refused[position] = BadRow(error.reason, f"{pair.origin}: {error}")
                texts += ["", "", ""]
        ids = _encode(self.tokenizer, texts)
        return [
            refused[i] if i in refused else self._join(pair, *(self._with_bos(part) for part in ids[3 * i : 3 * i + 3]))
            for i, pair in enumerate(pairs)
        ]

    def responses_ids(
        self, prompts: Sequence[Text], responses: Sequence[str], ended: Sequence[bool]
    ) -> list[list[int] | None]:
        """What training has after prompts_ids of each, were there no limit of length; None where response and prompt
        together give other ids for the prompt, or the template refuses them."""

        def whole(prompt: Text, response: str) -> str:
            with suppress(TemplateError):
                return self._whole(prompt, response)
            return ""

        texts = [whole(*both) for both in zip(prompts, responses, strict=True)]
        wholes = [self._with_bos(ids) for ids in _encode(self.tokenizer, texts)]
        return [
            self._end(whole[len(prompt) :], end) if whole[: len(prompt)] == prompt else None
            for prompt, whole, end in zip(self.prompts_ids(prompts), wholes, ended, strict=True)
        ]

    def _three_texts(self, pair: PreferencePair) -> list[str]:
        try:
            whole = [self._whole(pair.prompt, str(response)) for response in (pair.response_0, pair.response_1)]
            return [self._form.prompt(pair.prompt), *whole]
        except TemplateError as error:
            raise BadRow("template_refuses", f"the chat template refuses the messages: {error}") from error

    def _whole(self, prompt: Text, response: str) -> str:
        """What the template writes after the response, and does not end it, is no response."""
        text = self._form.whole(prompt, response)
        return text.removesuffix(self._form.tail) if self._form.end_of_turn is None else text

    def _with_bos(self, ids: list[int]) -> list[int]:
        return ids if ids[:1] == self._form.bos else self._form.bos + ids

    def _join(self, pair: PreferencePair, prompt: list[int], *wholes: list[int]) -> Rendered | BadRow:
        origin = pair.origin
        clean = all(whole[: len(prompt)] == prompt for whole in wholes)
        cut = len(prompt) if clean else _common_prefix(prompt, *wholes)
        if cut == 0:
            return BadRow("seam", f"{origin}: no token of the prompt is left before the response: lengthen the prompt")
        responses = [self._end(whole[cut:], ended) for whole, ended in zip(wholes, pair.ended, strict=True)]
        if not all(any(i not in self.stop_token_ids for i in response) for response in responses):
            return BadRow("empty_response", f"{origin}: a response has no tokens left: give a text, or remove the row")
        fitted = self._fit(Rendered(prompt[:cut], (responses[0], responses[1]), not clean), self)
        if fitted is None:
            sizes = f"{cut} prompt + {len(responses[0])} and {len(responses[1])} response tokens"
            return BadRow("too_long", f"{origin}: {sizes} do not fit: raise data.max_length, or change data.truncation")
        if fitted.responses[0] == fitted.responses[1]:
            return BadRow("identical", f"{origin}: the two responses have equal tokens: no preference can be learned")
        return fitted

    def _end(self, response: list[int], ended: bool) -> list[int]:
        """Up to the form's last end of turn (the newline after it is never generated), or EOS put there; without
        either where generation was cut off before it ended."""
        end = self._form.end_of_turn
        if end is not None and end in response:
            return response[: len(response) - response[::-1].index(end) - (not ended)]
        if not ended:
            return response
        return response if self._eos is None or response[-1:] == [self._eos] else [*response, self._eos]


def _common_prefix(*lists: list[int]) -> int:
    return sum(1 for _ in takewhile(lambda ids: len(set(ids)) == 1, zip(*lists, strict=False)))


# -- truncation: (rendered, renderer) -> what fits, or None ----------------------------------------------------


def _drop(row: Rendered, limit: Renderer) -> Rendered | None:
    return row if len(row) <= limit.max_length and len(row.prompt) <= limit.max_prompt_length else None


def _truncate_prompt_left(row: Rendered, limit: Renderer) -> Rendered | None:
    """Both responses keep one prompt, so the longer response sets the room."""
    room = min(limit.max_prompt_length, limit.max_length - max(map(len, row.responses)))
    if len(row.prompt) <= room:
        return row
    first = [row.prompt[0]] if row.prompt[0] == limit.tokenizer.bos_token_id else []
    if room <= len(first):
        return None
    return replace(row, prompt=[*first, *row.prompt[len(row.prompt) - room + len(first) :]], truncated_prompt=True)


def _truncate_response(row: Rendered, limit: Renderer) -> Rendered | None:
    room = limit.max_length - len(row.prompt)
    if len(row.prompt) > limit.max_prompt_length or room < 1:
        return None
    first, second = row.responses
    return replace(row, responses=(first[:room], second[:room]), truncated=(len(first) > room, len(second) > room))


_RULES: dict[str, Callable[[Rendered, Renderer], Rendered | None]] = {
    "drop": _drop,
    "truncate_prompt_left": _truncate_prompt_left,
    "truncate_response": _truncate_response,
}
