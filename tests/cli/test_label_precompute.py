"""`spo label` and `spo precompute` on a tiny model: rows, resuming, the table that training accepts (NUMERICS 32)."""

import contextlib
import functools
import json
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from spo.cli.execute import execute
from spo.cli.label import label
from spo.cli.precompute import precompute
from spo.data.datamodule import PreferenceDataModule
from spo.data.prompts import Prompts, PromptTemplate, described, prompt_group, split_prompts
from spo.data.rows import RowParser
from spo.data.sources import read_rows
from spo.data.stream import StreamDataModule
from spo.data.text import TextDataModule
from spo.data.tokens import Renderer
from spo.errors import ConfigError, DataError
from spo.evaluate.generation import Generation
from spo.policy.reference import StoredTable
from spo.run_folder import RunFolder
from spo.simulate.labels import TrueLinkLabels
from spo.simulate.rewards import NamedReward, ResponseLength
from spo.simulate.truth import LogisticTruth
from spo.types import Text
from tests.policy.conftest import tiny_policy

PROMPTS = PromptTemplate("Say {a} {b}.", {"a": list("abcdef"), "b": list("uvwxyz")})


class Given(Prompts):
    """These prompts."""

    def __init__(self, *prompts: Text) -> None:
        self.prompts = list(prompts)

    def load(self) -> list[Text]:
        return self.prompts


OPTIONS: dict[str, Any] = {
    "split_seed": 0,
    "eval_fraction": 0.25,
    "n_prompts": 10,
    "n_responses": 2,
    "max_new_tokens": 5,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": None,
    "batch_size": 8,
    "shard_rows": 4,
    "device": "cpu",
    "seed": 0,
}


def make_rows(folder: Path, model: Path, **changed: Any) -> list[dict[str, Any]]:
    options: dict[str, Any] = OPTIONS | {
        "policy": tiny_policy(model),
        "renderer": functools.partial(Renderer, chat_template="model", append_eos=True),
        "prompts": PROMPTS,
        "reward": ResponseLength(unit="characters"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    label(run=RunFolder(folder), **{**options, **changed})
    return [row for row, _ in read_rows(folder)]


def shards(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "rows").iterdir())}


def test_rows_and_manifest(tiny_llama_dir: Path, tmp_path: Path) -> None:
    rows = make_rows(tmp_path, tiny_llama_dir)
    training, held_out = split_prompts(PROMPTS.load(), 0, 0.25)
    assert [r["prompt"] for r in rows] == training[:10]
    assert not {r["prompt"] for r in rows} & set(held_out)
    assert len({r["id"] for r in rows}) == 10
    assert list(rows[0]) == ["id", "prompt", "response_0", "response_1", "ended_0", "ended_1", "reward_0", "reward_1"]
    assert all(r["reward_1"] == len(r["response_1"]) for r in rows)
    assert [*shards(tmp_path)] == ["00000.parquet", "00001.parquet", "00002.parquet"]
    assert not (tmp_path / "begun.json").exists()
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["version"], manifest["n_rows"]) == (1, 10)
    assert sum(manifest["reward"]["histogram"]["counts"]) == 20
    assert manifest["reward"]["mean"] == pytest.approx(sum(r["reward_0"] + r["reward_1"] for r in rows) / 20)
    assert manifest["prompts"]["n"] == 10
    assert manifest["prompts"]["evaluation"] == described(held_out)
    assert manifest["sampling"] == {
        "max_new_tokens": 5, "temperature": 1.0, "top_p": 1.0, "top_k": None, "n_responses": 2, "seed": 0
    }  # fmt: skip


def test_a_killed_job_continues_with_no_row_twice(tiny_llama_dir: Path, tmp_path: Path) -> None:
    """Killed in its second shard by a reward that raises: the rest is made, the first shard is not made again, and
    the files are those of a job that was not killed, at another batch size too."""
    calls: list[int] = []

    def fails_at_second(prompts: list[str], responses: list[str]) -> list[float]:
        calls.append(len(responses))
        if len(calls) == 2:
            raise RuntimeError("killed")
        return [float(len(r)) for r in responses]

    with pytest.raises(RuntimeError, match="killed"):
        make_rows(tmp_path / "a", tiny_llama_dir, reward=fails_at_second)
    assert [*shards(tmp_path / "a")] == ["00000.parquet"]
    with pytest.raises(DataError, match=r"has not finished here \(1 shards .* go on with `spo execute .*a`"):
        list(read_rows(tmp_path / "a"))
    make_rows(tmp_path / "a", tiny_llama_dir, reward=fails_at_second)
    assert calls == [8, 8, 8, 4]
    whole = make_rows(tmp_path / "b", tiny_llama_dir, batch_size=3)
    assert shards(tmp_path / "a") == shards(tmp_path / "b")
    make_rows(tmp_path / "a", tiny_llama_dir, reward=fails_at_second)  # a third time: nothing is to do
    assert calls == [8, 8, 8, 4]
    assert make_rows(tmp_path / "c", tiny_llama_dir, shard_rows=3) == whole
    assert len(shards(tmp_path / "c")) == 4


def test_responses_that_are_read_as_other_tokens_are_counted(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One text in the tokens that the tokenizer cuts it into, and in single bytes: of each pair one is read anew."""
    tokenizer = tiny_policy(tiny_llama_dir).tokenizer
    text, end = "The staff", tokenizer.eos_token_id
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    split = [i for letter in text for i in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    assert len(whole) < len(split)

    def drawn(policy: Any, prompts: list[list[int]], **options: Any) -> list[Generation]:
        return [Generation([*(split if i % 2 else whole), end], text, ended=True) for i in range(len(prompts))]

    monkeypatch.setattr("spo.cli.labeller.sample", drawn)
    make_rows(tmp_path, tiny_llama_dir)
    assert RunFolder(tmp_path).read_json("manifest.json")["retokenised_share"] == 0.5
    assert "50% of the responses are read as other tokens than were sampled" in capsys.readouterr().out


def test_every_version_of_the_code_that_wrote_rows_is_recorded(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed before its first shard, in its second, after its last, each time gone on with by another version; a set
    of an older spo had one version alone."""

    def answers(count: int) -> Callable[[list[str], list[str]], list[float]]:
        left = [1.0] * count

        def reward(prompts: list[str], responses: list[str]) -> list[float]:
            return [left.pop()] * len(responses)

        return reward

    def written(version: str, shards: int) -> Any:
        monkeypatch.setattr("spo.cli.label.code_version", lambda: {"spo": version, "git_commit": None})
        with contextlib.suppress(IndexError):
            make_rows(tmp_path, tiny_llama_dir, reward=answers(shards))
        made = RunFolder(tmp_path)
        return [code["spo"] for code in (made.read_json("manifest.json") or made.read_json("begun.json"))["code"]]

    assert written("1", 0) == ["1"]
    assert written("2", 1) == ["2"]
    assert written("2", 0) == ["2"]
    assert written("3", 1) == ["2", "3"]
    assert written("4", 1) == ["2", "3", "4"]
    manifest = RunFolder(tmp_path).read_json("manifest.json")
    assert written("5", 0) == ["2", "3", "4"]  # it is finished
    (tmp_path / "manifest.json").unlink()
    RunFolder(tmp_path).write_json("begun.json", manifest | {"code": {"spo": "0", "git_commit": None}})
    assert written("6", 0) == ["0"]  # every shard is there
    (tmp_path / "rows" / "00002.parquet").unlink()
    assert written("7", 1) == ["0", "7"]


class Terminated:
    """The length in characters; its second call in this process is the last thing before a SIGTERM."""

    calls = 0

    def __call__(self, prompts: list[str], responses: list[str]) -> list[float]:
        type(self).calls += 1
        if self.calls == 2:
            signal.raise_signal(signal.SIGTERM)
        return [float(len(r)) for r in responses]


def config(model: Path) -> dict[str, Any]:
    """What make_rows asks for, as a run folder has it, with a reward that is terminated."""
    policy = {"path": str(model), "dtype": "float32", "attn_implementation": "sdpa", "lora": None, "head_chunk": 7}
    return OPTIONS | {
        "_target_": "spo.cli.label.label",
        "policy": {
            "_target_": "spo.policy.causal_lm.CausalLM",
            **policy,
            "gradient_checkpointing": False,
            "packing": "auto",
            "compile": False,
            "seed": 0,
        },
        "renderer": {"_target_": "spo.data.tokens.Renderer", "_partial_": True},
        "prompts": {
            "_target_": "spo.data.prompts.PromptTemplate",
            "template": PROMPTS.template,
            "slots": PROMPTS.slots,
        },
        "reward": {"_target_": f"{__name__}.Terminated"},
    }


def test_a_terminated_job_goes_on_where_it_was(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`spo execute` twice gives the bytes of a job that nobody stopped."""
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.setattr(Terminated, "calls", 0)
    run = RunFolder(tmp_path / "run")
    run.create(config(tiny_llama_dir), {})
    assert execute(run.path) == 143
    assert run.status["state"] == "interrupted"
    assert len(shards(run.path)) == 1
    assert execute(run.path) == 0
    make_rows(tmp_path / "whole", tiny_llama_dir)
    assert shards(run.path) == shards(tmp_path / "whole")
    assert Terminated.calls == 4
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([1.0, 2.0, 3.0], "returned 3 values for 8"), ([1.0] * 7 + [float("nan")], "not finite for 1")],
)
def test_a_reward_that_is_no_reward_loses_no_shard(
    tiny_llama_dir: Path, tmp_path: Path, values: list[float], wanted: str
) -> None:
    """Right for the first shard, then not: one message, and the first shard is as it was."""
    answers = [[0.5] * 8, values]
    with pytest.raises(ConfigError, match=f"{wanted}.*shards written so far are kept.*`spo execute {tmp_path}`"):
        make_rows(tmp_path, tiny_llama_dir, reward=lambda prompts, responses: answers.pop(0))
    (kept,) = shards(tmp_path).values()
    make_rows(tmp_path, tiny_llama_dir, reward=lambda prompts, responses: [0.5] * len(responses))
    assert shards(tmp_path)["00000.parquet"] == kept


class Constant(NamedReward):
    """The same for every response."""

    def __init__(self, value: float) -> None:
        self.value = value

    @property
    def name(self) -> str:
        return "Constant"

    @property
    def fingerprint(self) -> str:
        return str(self.value)

    def __call__(self, prompts: Sequence[Text], responses: Sequence[str]) -> list[float]:
        return [self.value] * len(responses)


def test_one_set_has_one_reward(tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Begun with one reward, resumed with another: what is there is scored anew, and nothing is sampled again."""
    answers = iter([[1.0] * 8])
    with pytest.raises(ConfigError, match="returned None"):
        make_rows(tmp_path, tiny_llama_dir, reward=lambda prompts, responses: next(answers, None))
    rows = make_rows(tmp_path, tiny_llama_dir, reward=Constant(2.0))
    assert "the responses of 1 shards are scored anew" in capsys.readouterr().err
    assert {row[f"reward_{j}"] for row in rows for j in (0, 1)} == {2.0}
    assert RunFolder(tmp_path).read_json("manifest.json")["reward"]["mean"] == 2.0


def test_a_shard_that_is_lost_is_made_again(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = make_rows(tmp_path, tiny_llama_dir)
    (tmp_path / "rows" / "00001.parquet").unlink()
    (tmp_path / "rows" / "copy.parquet").write_text("none of ours")
    assert make_rows(tmp_path, tiny_llama_dir) == before
    assert "what is missing is made again" in capsys.readouterr().out


def test_more_responses_give_disjoint_pairs(tiny_llama_dir: Path, tmp_path: Path) -> None:
    """Of four responses the first two are those of a job that asks for two; no response is in two rows."""
    two = make_rows(tmp_path / "two", tiny_llama_dir)
    four = make_rows(tmp_path / "four", tiny_llama_dir, n_responses=4, batch_size=5)
    assert four[::2] == two
    assert [r["prompt"] for r in four[1::2]] == [r["prompt"] for r in two]
    assert len({r["id"] for r in four}) == 20
    assert all(a["response_0"] != b["response_0"] for a, b in zip(four[::2], four[1::2], strict=True))
    assert max(pq.read_metadata(p).num_rows for p in (tmp_path / "four" / "rows").iterdir()) == 4
    for wrong in (0, 1, 3):
        with pytest.raises(ConfigError, match=f"n_responses is {wrong}: give an even number >= 2"):
            make_rows(tmp_path / "odd", tiny_llama_dir, n_responses=wrong)


def test_rows_of_other_prompts_are_not_added(tiny_llama_dir: Path, tmp_path: Path) -> None:
    """The file of prompts was changed between a kill and the next try."""

    def killed(prompts: list[str], responses: list[str]) -> list[float]:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        make_rows(tmp_path, tiny_llama_dir, reward=killed)
    with pytest.raises(ConfigError, match=r"was begun with another prompts: .* label anew with hydra.run.dir=FOLDER"):
        make_rows(tmp_path, tiny_llama_dir, prompts=Given(*PROMPTS.load()[1:]))


def test_too_many_prompts_are_refused(tiny_llama_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="n_prompts is 1000, but there are"):
        make_rows(tmp_path, tiny_llama_dir, n_prompts=1000)


def test_prompts_longer_than_the_context_are_left_out(
    tiny_llama_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The tiny model has 512 positions, and a template of some tokens: 480 z's do not fit beside 40 new tokens."""
    prompts, options = Given("short", "z" * 480, "brief", "z" * 700), {"eval_fraction": 0.0, "max_new_tokens": 40}
    rows = make_rows(tmp_path / "a", tiny_llama_dir, prompts=prompts, n_prompts=None, **options)
    assert {r["prompt"] for r in rows} == {"short", "brief"}
    assert (
        "2 prompts are longer than the model's context, 512 tokens, less max_new_tokens=40" in capsys.readouterr().err
    )
    assert json.loads((tmp_path / "a" / "manifest.json").read_text())["prompts"]["too_long"] == 2
    for changed, wanted in (
        ({"prompts": Given("z" * 480, "z" * 700), "n_prompts": 1}, "all 2 prompts are longer than"),
        ({"prompts": prompts, "n_prompts": 3}, r"n_prompts is 3, but there are 2 .* 2 are too long"),
        ({"max_new_tokens": 512}, "max_new_tokens is 512, and the model's context, prompt included, has 512"),
    ):
        with pytest.raises(ConfigError, match=wanted):
            make_rows(tmp_path / "b", tiny_llama_dir, **{**options, **changed})


def test_conversations_are_labelled_and_read_back(tiny_llama_dir: Path, tmp_path: Path) -> None:
    """A column has one type: a text among conversations is written as one, and is the same prompt to the training."""
    talk: Text = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    make_rows(tmp_path, tiny_llama_dir, prompts=Given("Say a.", talk), eval_fraction=0.0, n_prompts=2)
    parser = RowParser(needs_z=False)
    pairs = [parser.parse(row, origin).pair for row, origin in read_rows(tmp_path)]
    assert {str(pair.prompt) for pair in pairs} == {"Say a.", str(talk)}
    assert {pair.group for pair in pairs} == {prompt_group("Say a."), prompt_group(talk)}


def test_a_set_of_another_tokenizer_is_refused(tiny_llama_dir: Path, tiny_gpt2_dir: Path, tmp_path: Path) -> None:
    """Both models are named, and the mend; the same rows as any text are taken."""
    make_rows(tmp_path / "rows", tiny_llama_dir, n_prompts=8)
    ours, other = tiny_policy(tiny_llama_dir).tokenizer, tiny_policy(tiny_gpt2_dir).tokenizer
    truth = TrueLinkLabels(link=LogisticTruth(temperature=0.25), draws=1, seed=0, reward_sd=1.0)
    options: dict[str, Any] = {"labels": truth, "global_batch": 2, "micro_batch": 2, "max_seam_mismatch": 1.0}

    def load(kind: type[TextDataModule], tokenizer: Any, **changed: Any) -> None:
        kind(**{"train_path": str(tmp_path / "rows"), "tokenizer": tokenizer, **options, **changed}).load()

    for kind in (PreferenceDataModule, StreamDataModule):
        load(kind, ours)
        with pytest.raises(DataError, match=rf"labelled by {tiny_llama_dir}, whose tokenizer .*{tiny_gpt2_dir}.*hub:"):
            load(kind, other)
        with pytest.raises(DataError, match=r"another chat template .* the tokenizer's template there, plain text"):
            load(kind, ours, chat_template="none")
    changed = tiny_policy(tiny_llama_dir).tokenizer
    changed.chat_template = changed.chat_template.replace("assistant", "helper")
    with pytest.raises(DataError, match=r"another chat template .*assistant.* there, .*helper.* here"):
        load(PreferenceDataModule, changed)
    load(PreferenceDataModule, other, train_path=f"hub:{tmp_path}/rows/rows")
    module = PreferenceDataModule(train_path=str(tmp_path / "rows"), tokenizer=ours, **options)
    assert module.scored_by == "ResponseLength (characters)"


@pytest.fixture
def data(tiny_llama_dir: Path, tmp_path: Path) -> Callable[..., PreferenceDataModule]:
    make_rows(tmp_path / "rows", tiny_llama_dir, n_prompts=20)
    return functools.partial(PreferenceDataModule, train_path=str(tmp_path / "rows"), orientation="hash", max_length=64)


def test_a_table_serves_every_seed(
    data: Callable[..., PreferenceDataModule], tiny_llama_dir: Path, tmp_path: Path
) -> None:
    """Made under seed 0, looked up under seed 1, where other rows are exchanged: equal to the online one, 1e-4."""
    truth = TrueLinkLabels(link=LogisticTruth(temperature=0.25), draws=1, seed=0, reward_sd=None)
    options: dict[str, Any] = {"micro_batch": 4, "micro_tokens": None, "shard_rows": 6, "device": "cpu", "seed": 0}
    run = RunFolder(tmp_path / "table")
    precompute(run=run, policy=tiny_policy(tiny_llama_dir), data=data, truth=truth, **options)
    shards = {p: p.stat().st_mtime_ns for p in (run.path / "reference").glob("shard-*")}
    assert len(shards) > 1
    policy = tiny_policy(tiny_llama_dir, seed=5)
    module = data(tokenizer=policy.tokenizer, labels=truth, seed=1, global_batch=4, micro_batch=4)
    module.load()
    stored = StoredTable(path=str(run.path / "reference"))
    stored.prepare(policy, module)
    swapped = []
    for batch in module.all_rows():
        torch.testing.assert_close(
            stored.log_prob(batch, policy), policy.reference_log_prob(batch.pair), atol=1e-4, rtol=0
        )
        swapped += module.swapped(batch.row_id).tolist()
    assert 0 < sum(swapped) < len(swapped)
    precompute(run=run, policy=policy, data=data, truth=truth, **options)  # a second time: nothing is computed again
    assert {p: p.stat().st_mtime_ns for p in (run.path / "reference").glob("shard-*")} == shards
    other = data(tokenizer=policy.tokenizer, labels=truth, seed=1, global_batch=4, micro_batch=4, max_length=63)
    with pytest.raises(ConfigError, match="chat template"):
        StoredTable(path=str(run.path / "reference")).prepare(policy, other)
