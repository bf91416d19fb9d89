"""Prompts -> the rows of one shard: sampled, scored, paired."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spo.data.prompts import prompt_group
from spo.data.tokens import Renderer
from spo.errors import ConfigError
from spo.evaluate.bench import stop_ids
from spo.evaluate.generation import Generation, Sampling, sample
from spo.evaluate.progress import GenerationProgress
from spo.hashing import digest, hash_int64
from spo.policy.causal_lm import CausalLM
from spo.simulate.corpus import Row
from spo.simulate.rewards import Reward, score
from spo.types import Text


@dataclass(frozen=True)
class Labeller:
    """n_responses from the reference to each prompt; responses 0 and 1 are a row, 2 and 3 another, and so on.

    No response is in two rows, so that rows are independent given their prompts. Response j to a prompt is a function
    of (seed, prompt, j) and the sampling: not of the batch, the shard or the other responses, up to float noise.
    """

    policy: CausalLM
    renderer: Renderer
    reward: Reward
    sampling: Sampling
    n_responses: int
    batch_size: int
    seed: int
    run: Path  # for messages

    def rows(self, prompts: Sequence[Text], progress: GenerationProgress) -> tuple[list[Row], int]:
        """Rows, and how many of their responses a training reads as other tokens than were sampled: a text can be cut
        into tokens in several ways. ConfigError where the reward returns anything but a finite number a response."""
        every = [(prompt, j) for prompt in prompts for j in range(self.n_responses)]
        drawn = sample(
            self.policy,
            [ids for ids in self.renderer.prompts_ids(prompts) for _ in range(self.n_responses)],
            seeds=[hash_int64([self.seed, prompt_group(prompt), j]) for prompt, j in every],
            beta=None,
            sampling=self.sampling,
            batch_size=self.batch_size,
            stop_ids=stop_ids(self.policy, self.renderer),
            on_step=progress.step,
        )
        try:
            rewards = score(self.reward, [prompt for prompt, _ in every], [g.text for g in drawn])
        except ConfigError as error:
            raise ConfigError(
                f"{error}. The shards written so far are kept: mend what is behind the same options (the function, the "
                f"model's files) and go on with `spo execute {self.run}`; other options need a folder of their own"
            ) from error
        rows = [self._row(*every[i], drawn[i : i + 2], rewards[i : i + 2]) for i in range(0, len(every), 2)]
        read = self.renderer.responses_ids(
            [prompt for prompt, _ in every], [g.text for g in drawn], [g.ended for g in drawn]
        )
        return rows, sum(ids != g.ids for ids, g in zip(read, drawn, strict=True))

    def _row(self, prompt: Text, j: int, drawn: Sequence[Generation], rewards: Sequence[float]) -> Row:
        """Responses j and j + 1."""
        return {
            "id": digest([prompt, self.seed, j])[:16],
            "prompt": prompt,
            "response_0": drawn[0].text,
            "response_1": drawn[1].text,
            "ended_0": drawn[0].ended,
            "ended_1": drawn[1].ended,
            "reward_0": rewards[0],
            "reward_1": rewards[1],
        }
