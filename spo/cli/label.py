"""`spo label`: prompts -> responses of the reference -> rewards -> rows in shards, and their manifest."""

import dataclasses
import sys
from collections.abc import Callable, Sequence
from typing import Literal

from spo.cli.labeller import Labeller
from spo.cli.version import code_version
from spo.data.prompts import Prompts, described, split_prompts
from spo.data.sources.labelled import MANIFEST, ROWS, VERSION, rows_of
from spo.data.tokens import Renderer
from spo.errors import ConfigError
from spo.evaluate.generation import Sampling, batch_problems
from spo.evaluate.progress import GenerationProgress
from spo.evaluate.room import Room
from spo.policy.causal_lm import CausalLM, pick_device
from spo.quiet import quieten
from spo.run_folder import Record, RunFolder
from spo.simulate.corpus import RowShards, reward_summary
from spo.simulate.rewards import Reward, check_reward, reward_fingerprint, reward_name
from spo.types import Text

_BEGUN = "begun.json"  # the manifest, as far as it is known at the beginning; there while rows are made


def label(
    *,
    run: RunFolder,
    policy: CausalLM,
    renderer: Callable[..., Renderer],
    prompts: Prompts,
    reward: Reward,
    split_seed: int,
    eval_fraction: float,
    n_prompts: int | None,
    n_responses: int,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    top_k: int | None,
    batch_size: int,
    shard_rows: int,
    device: Literal["auto", "cpu", "cuda"],
    seed: int,
) -> None:
    """Writes rows/ and manifest.json into the run folder; a killed job continues after the shards that are there."""
    quieten()
    sampling = Sampling(max_new_tokens, temperature, top_p, top_k)
    _check(n_prompts, n_responses, sampling, batch_size, shard_rows)
    if (manifest := run.read_json(MANIFEST)) is not None:
        if (there := rows_of(run.path / ROWS)) == manifest["n_rows"]:
            print(f"{run.path} has finished already\n{_said(run, manifest)}")
            return
        print(f"{run.path} had {manifest['n_rows']} rows and has {there}: what is missing is made again")
        run.write_json(_BEGUN, manifest)
        (run.path / MANIFEST).unlink()
    check_reward(reward)
    rendered = renderer(policy.tokenizer)
    room = Room(policy, rendered, max_new_tokens, trained=None)
    chosen, of_prompts = _training_prompts(prompts, split_seed, eval_fraction, n_prompts, room)
    begun: Record = {
        "version": VERSION,
        "code": [code_version()],
        "model": {"path": policy.source.given, "fingerprint": policy.fingerprint()},
        "tokenizer": rendered.tokenizer_fingerprint(),
        "renderer": rendered.fingerprint(),
        "chat_template": rendered.template,
        "sampling": {**dataclasses.asdict(sampling), "n_responses": n_responses, "seed": seed},
        "prompts": {"split_seed": split_seed, "eval_fraction": eval_fraction, **of_prompts},
        "reward": {"name": reward_name(reward), "fingerprint": reward_fingerprint(reward)},
    }
    before = _before(run, begun)
    shards = RowShards(run.path / ROWS, messages=any(isinstance(prompt, list) for prompt in chosen))
    parts = _parts(chosen, max(1, 2 * shard_rows // n_responses))
    missing = [k for k in range(len(parts)) if k not in shards.done]
    another_reward = bool(shards.done) and before["reward"]["fingerprint"] != begun["reward"]["fingerprint"]
    if shards.done:
        begun["code"] = _writers(before["code"], begun["code"] if missing or another_reward else [])
    if another_reward:
        print(
            f"the reward is another since: the responses of {len(shards.done)} shards are scored anew", file=sys.stderr
        )
        shards.rescore(reward)
    run.write_json(_BEGUN, begun)
    labeller = Labeller(policy, rendered, reward, sampling, n_responses, batch_size, seed, run.path)
    _make(shards, parts, missing, labeller, device)
    summary = reward_summary(shards)
    n_rows = summary.pop("n_rows")
    reward_record = {**begun["reward"], **summary}
    shares = {"n_rows": n_rows, "retokenised_share": shards.retokenised_share()}
    run.write_json(MANIFEST, {**begun, "reward": reward_record, **shares})
    (run.path / _BEGUN).unlink()
    print(_said(run, run.read_json(MANIFEST)))


def _check(n_prompts: int | None, n_responses: int, sampling: Sampling, batch_size: int, shard_rows: int) -> None:
    wrong = sampling.problems() + batch_problems(batch_size)
    if n_prompts is not None and n_prompts < 1:
        wrong.append(f"n_prompts is {n_prompts}: give at least 1, or null for all")
    if n_responses < 2 or n_responses % 2:
        wrong.append(f"n_responses is {n_responses}: give an even number >= 2, for a row has two")
    if shard_rows < 1:
        wrong.append(f"shard_rows is {shard_rows}: give at least 1")
    if wrong:
        raise ConfigError("\n".join(wrong))


def _training_prompts(
    prompts: Prompts, split_seed: int, eval_fraction: float, n_prompts: int | None, room: Room
) -> tuple[list[Text], Record]:
    """Prompts to label, and what the manifest says of them and of those that are kept for evaluation."""
    training, held_out = split_prompts(prompts.load(), split_seed, eval_fraction)
    chosen, longer = room.first(training, n_prompts)
    if len(chosen) < (n_prompts or 1):
        raise ConfigError(
            f"n_prompts is {n_prompts}, but there are {len(chosen)} prompts for training ({len(held_out)} are kept for "
            f"evaluation, {longer} are too long): give a smaller number, more prompts or a smaller eval_fraction"
        )
    print(
        f"{len(chosen)} prompts of {len(training)} for training; {len(held_out)} kept for evaluation", file=sys.stderr
    )
    return chosen, {**described(chosen), "too_long": longer, "evaluation": described(held_out)}


def _before(run: RunFolder, begun: Record) -> Record:
    """What was begun here before, or now. Rows that are there must be of the same prompts, model and sampling as those
    that are made now; by which reward they were scored is the caller's to see."""
    before = run.read_json(_BEGUN)
    if before is None:
        return begun
    if other := [key for key in begun if key not in ("code", "reward") and before.get(key) != begun[key]]:
        raise ConfigError(
            f"{run.path} was begun with another {' and another '.join(other)}: a file or model that it is made from "
            "has changed since. Bring it back as it was, or label anew with hydra.run.dir=FOLDER; no row has been lost"
        )
    return before  # type: ignore[no-any-return]


def _parts(prompts: Sequence[Text], per_shard: int) -> list[Sequence[Text]]:
    """The prompts of each shard: which are in one does not depend on what was made."""
    return [prompts[i : i + per_shard] for i in range(0, len(prompts), per_shard)]


def _writers(earlier: list[Record] | Record, now: Sequence[Record]) -> list[Record]:
    """The versions of the code that wrote rows, each once, in the order in which they began to."""
    before = earlier if isinstance(earlier, list) else [earlier]  # one alone, as sets of older versions have it
    return [*before, *(code for code in now if code not in before)]


def _make(
    shards: RowShards, parts: Sequence[Sequence[Text]], missing: Sequence[int], labeller: Labeller, device: str
) -> None:
    """Every shard that is not there."""
    if missing:
        labeller.policy.build()
        labeller.policy.to(pick_device(device))
    done = labeller.n_responses * sum(len(part) for k, part in enumerate(parts) if k not in missing)
    with GenerationProgress("label", labeller.n_responses * sum(map(len, parts)), done) as progress:
        for k in missing:
            shards.write(k, *labeller.rows(parts[k], progress))


def _said(run: RunFolder, manifest: Record) -> str:
    reward, retokenised = manifest["reward"], manifest.get("retokenised_share")
    other = f"; {retokenised:.0%} of the responses are read as other tokens than were sampled" if retokenised else ""
    return (
        f"{manifest['n_rows']} rows in {run.path}{other}\nreward: mean {reward['mean']:.3f}, sd {reward['sd']:.3f}; "
        f"difference: sd {reward['difference_sd']:.3f}, 0 in {reward['equal_share']:.0%} of the rows\n"
        f"train on them with: data.train_path={run.path} truth=..."
    )
