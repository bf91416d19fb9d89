"""Evaluation of a language model: tilted sampling over a grid of betas -> reward and KL with standard errors.

The token-level tilt is an approximation of the tilted family (spo.evaluate.generation); rewards and KLs are of the
distribution that was sampled. What else is measured on the same prompts are parts (spo.evaluate.part).
"""

import math
import sys
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from typing import Any

import pandas as pd

from spo.data.prompts import Prompts, prompt_group, split_prompts
from spo.divergence.base import Divergence
from spo.errors import ConfigError
from spo.evaluate.base import Evaluation, Finding, Frontier, Learned
from spo.evaluate.bench import Bench
from spo.evaluate.frontier import frontier, reward_at_kl
from spo.evaluate.generation import Sampling, batch_problems
from spo.evaluate.part import Part
from spo.evaluate.room import Room
from spo.evaluate.tilt import require_power_tilt
from spo.policy.base import Policy
from spo.policy.causal_lm import CausalLM
from spo.simulate.rewards import Reward, check_reward, reward_name
from spo.types import Text

_VALUE = {
    "KL exact": "kl",
    "KL sampled": "kl_mc",
    "reward": "reward",
    "- reference": "reward_minus_reference",
    "win rate": "win_rate",
}
_COLLAPSE = {
    "tokens": "length",
    "ended": "ended",
    "distinct-1": "distinct_1",
    "distinct-2": "distinct_2",
    "distinct-3": "distinct_3",
    "repetition": "repetition",
}


class TiltEvaluation(Evaluation):
    """Reward and KL of pi_beta over a grid of betas, and of the reference, on prompts that training did not see.

    betas: relative to the scale of the learned index; 1 is the policy itself, larger is nearer to the reference.
    kl_target: nats per response at which methods are compared, None for none. extra_betas: how many more may be sampled
    until betas lie on both sides of it, for the scale of an index whose link is unknown says nothing of KL. prompts,
    split_seed, eval_fraction: the evaluation side of the split that `spo label` made with the same three. n_prompts:
    how many of them. parts: what else is measured there, by any name.
    """

    samples = True

    def __init__(
        self,
        *,
        betas: list[float],
        kl_target: float | None,
        extra_betas: int,
        prompts: Prompts,
        split_seed: int,
        eval_fraction: float,
        n_prompts: int,
        samples_per_prompt: int,
        reward: Reward,
        max_new_tokens: int,
        temperature: float,
        top_p: float,
        top_k: int | None,
        batch_size: int,
        seed: int,
        parts: dict[str, Part],
    ) -> None:
        self.sampling = Sampling(max_new_tokens, temperature, top_p, top_k)
        problems = [
            (not betas or min(betas) <= 0, f"betas is {betas}: give at least one, each > 0"),
            (len(set(betas)) < len(betas), f"betas is {betas}: give each once"),
            (kl_target is not None and not kl_target > 0, f"kl_target is {kl_target}: give nats > 0, or null"),
            (extra_betas < 0, f"extra_betas is {extra_betas}: give a count >= 0"),
            (not 0 < eval_fraction <= 1, f"eval_fraction is {eval_fraction}: give a share in (0, 1]"),
            (n_prompts < 2, f"n_prompts is {n_prompts}: give at least 2, a standard error needs them"),
            (samples_per_prompt < 1, f"samples_per_prompt is {samples_per_prompt}: give at least 1"),
        ]
        wrong = [message for bad, message in problems if bad]
        wrong += self.sampling.problems() + batch_problems(batch_size)
        wrong += [f"parts.{name}: {said}" for name, part in parts.items() for said in part.problems(self.sampling)]
        if wrong:
            raise ConfigError("\n".join(wrong))
        self.betas, self.kl_target, self.extra_betas = betas, kl_target, extra_betas
        self.prompts, self.split_seed, self.eval_fraction, self.n_prompts = (
            prompts,
            split_seed,
            eval_fraction,
            n_prompts,
        )
        self.samples_per_prompt, self.reward, self.seed = samples_per_prompt, reward, seed
        self.batch_size, self.parts = batch_size, parts

    def check(self, divergence: Divergence, policy: Policy) -> None:
        require_power_tilt(divergence)
        if not isinstance(policy, CausalLM):
            raise ConfigError("evaluate=tilt samples from a language model: give evaluate=tabular_tilt, which is exact")
        check_reward(self.reward)

    def check_data(self, data: Any) -> None:
        """Says where the rows were scored by another reward than evaluation scores by, which may be meant."""
        if (theirs := data.scored_by) not in (None, ours := reward_name(self.reward)):
            print(
                f"evaluation: the rows were scored by {theirs}, and responses are scored by {ours}: give "
                "reward@evaluate.reward=... as in `spo label`, unless another reward is what you ask about",
                file=sys.stderr,
            )
        for part in self.parts.values():
            part.check_data(data)

    def run(self, learned: Learned, data: Any) -> Iterator[Finding]:
        """data: a data module of text; its renderer makes the prompts, and no evaluation prompt is among its own."""
        bench = self.bench(learned, data)
        yield self.frontier(bench)
        for part in self.parts.values():
            yield part.run(bench)

    def bench(self, learned: Learned, data: Any) -> Bench:
        assert isinstance(learned.policy, CausalLM)
        trained = data.renderer.max_prompt_length
        room = Room(learned.policy, data.renderer, self.sampling.max_new_tokens, trained=trained)
        return Bench(
            learned=learned,
            data=data,
            prompts=self.choose_prompts(data.prompts_among({prompt_group(prompt) for prompt in self._fresh}), room),
            reward=self.reward,
            sampling=self.sampling,
            batch_size=self.batch_size,
            seed=self.seed,
            reference_samples=max([self.samples_per_prompt, *(p.reference_samples for p in self.parts.values())]),
            kl_target=self.kl_target,
        )

    def frontier(self, bench: Bench) -> Frontier:
        """Sample the reference and every beta on the same prompts, and reduce."""
        frames = [bench.frame(None, bench.reference.first(self.samples_per_prompt))]
        numbers = range(self.samples_per_prompt)
        kl = {math.inf: float(frames[0]["kl"].mean())}
        while (beta := self._next_beta(kl)) is not None:
            frames.append(bench.frame(beta, bench.tilted(beta, numbers)))
            kl[beta] = float(frames[-1]["kl"].mean())
        samples = pd.concat(frames, ignore_index=True)
        target = None if self.kl_target is None else reward_at_kl(samples, self.kl_target)
        return Frontier(frontier(samples), target, samples, [_VALUE, _COLLAPSE])

    def _next_beta(self, kl: Mapping[float, float]) -> float | None:
        """The grid from above; then twice the largest beta while its KL is above the target, and half of the smallest
        while its KL is below it, `extra_betas` in all. kl: beta -> nats, of those that were sampled, inf the reference.
        None: enough, or no beta reaches the target, which a truncated reference is beyond."""
        if left := sorted(set(self.betas) - set(kl), reverse=True):
            return left[0]
        reached = {beta: nats for beta, nats in kl.items() if beta < math.inf}
        enough = len(reached) >= len(self.betas) + self.extra_betas
        if self.kl_target is None or enough or self.kl_target < kl[math.inf]:
            return None
        largest, smallest = max(reached), min(reached)
        if kl[largest] > self.kl_target:
            return 2 * largest
        return smallest / 2 if kl[smallest] < self.kl_target else None

    @cached_property
    def _fresh(self) -> list[Text]:
        """The evaluation side of the prompts."""
        return split_prompts(self.prompts.load(), self.split_seed, self.eval_fraction)[1]

    def choose_prompts(self, trained_on: Collection[int], room: Room) -> list[Text]:
        """The first n_prompts of the evaluation side; prompts that training saw after all are left out, and said."""
        fresh = self._fresh
        unseen = [prompt for prompt in fresh if prompt_group(prompt) not in trained_on]
        if len(unseen) < len(fresh):
            print(
                f"evaluation: {len(fresh) - len(unseen)} of {len(fresh)} prompts were trained on and are left out "
                "(was the data labelled with another split_seed or eval_fraction?)",
                file=sys.stderr,
            )
        chosen, longer = room.first(unseen, self.n_prompts)
        if len(chosen) < self.n_prompts:
            raise ConfigError(
                f"evaluate.n_prompts is {self.n_prompts}, but only {len(chosen)} prompts are left for evaluation "
                f"({longer} are too long): give a smaller number, more prompts or a larger eval_fraction"
            )
        return chosen
