"""Evaluation of a language model end to end on a tiny one: rows, points, prompts, refusals."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from spo.data.prompts import PromptTemplate, prompt_group, split_prompts
from spo.data.tokens import Renderer
from spo.divergence.jensen_shannon import JensenShannon
from spo.divergence.kl import KL
from spo.errors import ConfigError
from spo.evaluate.base import Frontier, Learned
from spo.evaluate.bench import Bench
from spo.evaluate.lm import TiltEvaluation
from spo.evaluate.room import Room
from spo.policy.causal_lm import CausalLM
from spo.run_folder import RunFolder
from spo.simulate.rewards import ResponseLength
from tests.policy.conftest import move_adapters, tiny_policy

PROMPTS = PromptTemplate("Say {a} {b}.", {"a": list("abcdef"), "b": list("uvwxyz")})
OPTIONS = {
    "betas": [1.0, 4.0],
    "kl_target": 0.05,
    "extra_betas": 0,
    "prompts": PROMPTS,
    "split_seed": 0,
    "eval_fraction": 0.5,
    "n_prompts": 6,
    "samples_per_prompt": 2,
    "reward": ResponseLength(unit="characters"),
    "max_new_tokens": 4,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": None,
    "batch_size": 8,
    "seed": 0,
    "parts": {},
}


@pytest.fixture(scope="module")
def policy(tiny_llama_dir: Path) -> CausalLM:
    return move_adapters(tiny_policy(tiny_llama_dir), 0.1)


def learned(policy: CausalLM, orientation: float = 1.0) -> Learned:
    kept = {"alive": torch.tensor(True), "kept_step": torch.tensor(0), "first_refit": None}
    return Learned(policy, KL(), None, orientation=torch.tensor(orientation), **kept)


def bench(
    policy: CausalLM, orientation: float = 1.0, longest: int | None = None, **changes: Any
) -> tuple[TiltEvaluation, Bench]:
    """On data that hold none of the evaluation prompts. longest: tokens of a prompt of the training."""
    renderer = Renderer(policy.tokenizer, max_prompt_length=longest)
    data = SimpleNamespace(renderer=renderer, prompts_among=lambda groups: set())
    evaluation = TiltEvaluation(**{**OPTIONS, **changes})
    return evaluation, evaluation.bench(learned(policy, orientation), data)


def run(policy: CausalLM, **changes: Any) -> Frontier:
    evaluation, made = bench(policy, **changes)
    return evaluation.frontier(made)


def test_points_target_and_files(policy: CausalLM, tmp_path: Path) -> None:
    """The reference row is exactly at KL 0 and difference 0; KL rises as beta falls; files are read back."""
    found = run(policy)
    reference, four, one = found.points
    assert [p["beta"] for p in found.points] == [None, 4.0, 1.0]
    assert reference["kl"] == reference["kl_mc"] == reference["reward_minus_reference"] == 0
    assert 0 < four["kl"] < one["kl"]
    assert (one["n_prompts"], one["n_samples"]) == (6, 12)
    assert len(found.samples) == 3 * 12
    folder = RunFolder(tmp_path)
    found.save(folder, {}, [])
    assert [p["beta"] for p in folder.frontier] == [None, 4.0, 1.0]
    assert not folder.results_path.exists()  # prompts are no runs of a study
    assert folder.read_json("target.json")["kl"] == 0.05
    assert found.metrics()["eval/beta_1/kl"] == one["kl"]
    assert math.isfinite(found.metrics()["eval/reference/reward"])
    assert len(found.lines()) == 9  # two tables of a head and three points, and the reward at the target KL
    assert max(map(len, found.lines())) <= 110
    assert (reference["win_rate"], reference["win_rate_se"]) == (0.5, 0)
    assert found.summary()["target/kl"] == 0.05


def test_two_runs_of_one_seed_are_equal_whatever_the_batch_size(policy: CausalLM) -> None:
    one, two = run(policy).samples, run(policy, batch_size=3).samples
    assert one["response"].tolist() == two["response"].tolist()


@pytest.mark.parametrize(
    ("kl_at_1", "extra", "betas"),
    [
        (1.0, 3, [4, 1]),  # KL 1/16 and 1 lie on both sides of 0.5
        (0.1, 3, [4, 1, 0.5, 0.25]),  # 0.1, 0.4, 1.6
        (0.1, 1, [4, 1, 0.5]),
        (0.1, 0, [4, 1]),
        (20.0, 3, [4, 1, 8]),  # 1.25, 20, 0.3125
    ],
)
def test_betas_are_added_until_the_target_lies_between_two(kl_at_1: float, extra: int, betas: list[float]) -> None:
    """KL = kl_at_1 / beta^2, as it is for a small tilt."""
    evaluation = TiltEvaluation(**{**OPTIONS, "kl_target": 0.5, "extra_betas": extra})
    kl = {math.inf: 0.0}
    while (beta := evaluation._next_beta(kl)) is not None:
        kl[beta] = kl_at_1 / beta**2
    assert list(kl)[1:] == betas
    assert evaluation._next_beta({math.inf: 0.6, 4.0: 0.7, 1.0: 0.9}) is None  # a truncated reference is beyond it


def test_a_frontier_has_the_added_betas(policy: CausalLM) -> None:
    found = run(policy, kl_target=1e4, extra_betas=2)
    assert [p["beta"] for p in found.points] == [None, 4.0, 1.0, 0.5, 0.25]
    assert "lies outside the frontier" in "\n".join(found.lines())


def test_prompts_are_disjoint_from_training(policy: CausalLM, capsys: pytest.CaptureFixture[str]) -> None:
    """By the split; and where rows were labelled under another split, by leaving out what was trained on."""
    training, fresh = split_prompts(PROMPTS.load(), 0, 0.5)
    room = Room(policy, Renderer(policy.tokenizer), 4, trained=None)
    chosen = TiltEvaluation(**OPTIONS).choose_prompts({prompt_group(p) for p in training}, room)
    assert not set(chosen) & set(training)
    assert chosen == fresh[:6]
    assert capsys.readouterr().err == ""
    again = TiltEvaluation(**OPTIONS).choose_prompts({prompt_group(p) for p in fresh[:3]}, room)
    assert again == fresh[3:9]
    assert "3 of" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="prompts are left for evaluation"):
        TiltEvaluation(**OPTIONS).choose_prompts({prompt_group(p) for p in fresh}, room)


def test_prompts_longer_than_any_that_was_trained_on_are_left_out(
    policy: CausalLM, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model's context has room for every one of them, but the policy never learned to answer such."""
    prompts = PromptTemplate("Say {a}{b}.", {"a": list("abcdef"), "b": ["", " please" * 9]})
    lengths = [len(ids) for ids in Renderer(policy.tokenizer).prompts_ids(prompts.load())]
    short = max(lengths[::2])
    assert short < min(lengths[1::2])
    options: dict[str, Any] = {"prompts": prompts, "eval_fraction": 1.0}
    _, made = bench(policy, longest=short, **options)
    assert sorted(map(str, made.prompts)) == [f"Say {a}." for a in "abcdef"]
    _, shorter = bench(policy, longest=short, **{**options, "n_prompts": 5})
    assert shorter.prompts == made.prompts[:5]
    assert f"longer than any that was trained on, {short} tokens" in capsys.readouterr().err
    _, whole = bench(policy, longest=None, **{**options, "n_prompts": 12})
    assert len(whole.prompts) == 12
    with pytest.raises(ConfigError, match=r"only 6 prompts are left for evaluation \(6 are too long\)"):
        bench(policy, longest=short, **{**options, "n_prompts": 7})
    with pytest.raises(ConfigError, match=r"all 12 prompts are longer than .* or train with more"):
        bench(policy, longest=min(lengths) - 1, **options)


def test_another_reward_than_that_of_the_rows_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    evaluation = TiltEvaluation(**OPTIONS)
    for theirs in (None, "ResponseLength (characters)"):
        evaluation.check_data(SimpleNamespace(scored_by=theirs))
    assert capsys.readouterr().err == ""
    evaluation.check_data(SimpleNamespace(scored_by="Vader"))
    assert "scored by Vader, and responses are scored by ResponseLength (characters)" in capsys.readouterr().err


def test_options_are_checked_together() -> None:
    with pytest.raises(ConfigError, match=r"(?s)betas is \[0.0\].*kl_target is 0.*n_prompts is 1.*temperature is -1"):
        TiltEvaluation(**{**OPTIONS, "betas": [0.0], "kl_target": 0.0, "n_prompts": 1, "temperature": -1.0})


def test_a_divergence_without_a_token_level_tilt_is_refused(policy: CausalLM) -> None:
    TiltEvaluation(**OPTIONS).check(KL(), policy)
    with pytest.raises(ConfigError, match=r"JensenShannon: .* evaluate=none, or divergence=kl"):
        TiltEvaluation(**OPTIONS).check(JensenShannon(), policy)
