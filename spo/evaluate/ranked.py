"""Ranking of held-out pairs, alone (evaluate=ranking: nothing is sampled) or as a part of another evaluation."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from spo.callbacks.diagnosis import CURVES, Diagnosis, table_rows
from spo.callbacks.link_curve import short, symmetric_grid
from spo.callbacks.observer import Rows
from spo.divergence.base import Divergence
from spo.errors import ConfigError
from spo.evaluate.base import Evaluation, Finding, Learned, finite, pm
from spo.evaluate.bench import Bench
from spo.evaluate.generation import batch_problems
from spo.evaluate.held_out import ranking
from spo.evaluate.importance import FEWEST_SAMPLES, beta_at_kl
from spo.evaluate.pairs import Pairs, check_held_out, score_pairs
from spo.evaluate.part import Part
from spo.media import MediaLogger
from spo.policy.base import Policy
from spo.policy.causal_lm import CausalLM
from spo.report.verdict import headline
from spo.run_folder import Record, RunFolder

_SCALARS = ("accuracy_reference", "ideal_index_labels", "index_reward_correlation", "index_length_correlation")
_NOT_AT_KL = (
    "log pi of the ideal policy at the target KL: not given; {m} responses of the reference to a prompt, at "
    "temperature 1 and not truncated, show KLs up to about log({m}/4) nats"
)
_SHARES = ("auc", "accuracy_index", "accuracy_index_ordered", "accuracy_policy")


@dataclass(frozen=True)
class HeldOutRanking(Finding):
    """record: ranking.json; diagnosis: what the rows say of the link, None where that was not asked; note: for the
    terminal, what is not given."""

    record: dict[str, Any]
    diagnosis: Record | None = None
    note: str = ""

    def save(self, run: RunFolder, choices: Mapping[str, str], overrides: Sequence[str]) -> None:
        run.write_json("ranking.json", self.record)
        if self.diagnosis is not None:
            run.put_diagnosis(self.diagnosis)

    def metrics(self) -> dict[str, float]:
        """eval/ranking/accuracy_index, ..."""
        values = {name: self.record[name] for name in _SCALARS}
        for name in _SHARES:
            values |= {name: self.record[name]["value"], f"{name}_se": self.record[name]["se"]}
        return {f"eval/ranking/{name}": value for name, value in finite(values).items()}

    def summary(self) -> dict[str, float]:
        """ranking/auc, ranking/accuracy_index, ..."""
        return finite({f"ranking/{name}": self.record[name]["value"] for name in _SHARES})

    def lines(self) -> list[str]:
        r = self.record
        order = {"true": "the true order", "labels": "labels that are no ties"}[r["order"]]
        out = [
            f"ranking of {r['n_rows']} held-out pairs of {r['n_prompts']} prompts",
            f"  against labels: AUC {pm(**r['auc'])}, accuracy of the index {pm(**r['accuracy_index'])}"
            + (f" (ideal {r['ideal_index_labels']:.3f})" if np.isfinite(r["ideal_index_labels"]) else ""),
            f"  against {order} ({r['n_ordered']} pairs): index {pm(**r['accuracy_index_ordered'])}, log pi "
            f"{pm(**r['accuracy_policy'])}, the reference's log pi {pm(r['accuracy_reference'], None)}",
        ]
        if at := r["ideal_policy_at_kl"]:
            out.append(f"  log pi of the ideal policy at the target KL: {pm(at['value'], None)}")
        known = finite({"the reward's": r["index_reward_correlation"], "the length's": r["index_length_correlation"]})
        out.append(f"  correlation of the index with {', '.join(f'{k} difference {v:.2f}' for k, v in known.items())}")
        out += [f"  {self.note}"] if self.note else []
        return out if self.diagnosis is None else [*out, f"  {headline(self.diagnosis)}"]

    def show(self, run: RunFolder, logger: MediaLogger, step: int) -> None:
        """Under names of its own: `diagnosis/...` are of the training's validations, and these weights may be older."""
        if self.diagnosis is not None:
            from spo.report.diagnosis import diagnosis_image  # matplotlib, only where somebody looks

            logger.log_table("eval/diagnosis/curve", ["step", *CURVES], table_rows(self.diagnosis), step)
            logger.log_picture("eval/diagnosis/picture", diagnosis_image(self.diagnosis), step)


class Ranking(Part):
    """Ranking beside samples, which give the beta of the ideal policy at the target KL. ideal_betas: see `ranking`.

    At the target KL the ideal policy is that of the reward of the evaluation: it must be in the unit of the rows' own.
    """

    def __init__(self, *, ideal_betas: list[float]) -> None:
        self.ideal_betas = checked(ideal_betas)

    def check_data(self, data: Any) -> None:
        check_held_out(data)

    def run(self, bench: Bench) -> HeldOutRanking:
        pairs = score_pairs(bench.learned, bench.data, bench.batch_size)
        beta = None
        enough = (
            bench.reference_samples >= FEWEST_SAMPLES
            and not bench.sampling.truncates
            and bench.sampling.temperature == 1
        )
        if bench.kl_target is not None and pairs.reward_sd and enough:
            raw = beta_at_kl(bench.reference_rewards, bench.kl_target)
            beta = None if raw is None else raw / pairs.reward_sd
        found = ranking(pairs, self.ideal_betas, symmetric=is_symmetric(bench.learned), beta_at_kl=beta)
        wanted = bench.kl_target is not None and bool(pairs.reward_sd) and beta is None
        return HeldOutRanking(found, note=_NOT_AT_KL.format(m=bench.reference_samples) if wanted else "")


class RankingEvaluation(Evaluation):
    """AUC, ranking accuracy and the diagnostic link on the held-out pairs; nothing is sampled, no reward is needed.

    ideal_betas: see `ranking`; batch_size: pairs a forward pass; diagnosis: of the link.
    Cost: one forward pass of policy and reference each over the held-out rows.
    """

    samples = True

    def __init__(self, *, ideal_betas: list[float], batch_size: int, diagnosis: Diagnosis) -> None:
        if wrong := batch_problems(batch_size):
            raise ConfigError("\n".join(wrong))
        self.ideal_betas, self.batch_size, self.diagnosis = checked(ideal_betas), batch_size, diagnosis

    def check(self, divergence: Divergence, policy: Policy) -> None:
        if not isinstance(policy, CausalLM):
            raise ConfigError("evaluate=ranking scores pairs of text: give evaluate=tabular_tilt with this policy")

    def check_data(self, data: Any) -> None:
        check_held_out(data)

    def run(self, learned: Learned, data: Any) -> Iterable[Finding]:
        pairs = score_pairs(learned, data, self.batch_size)
        found = ranking(pairs, self.ideal_betas, symmetric=is_symmetric(learned), beta_at_kl=None)
        return [HeldOutRanking(found, self._diagnosed(learned, pairs))]

    def _diagnosed(self, learned: Learned, pairs: Pairs) -> Record | None:
        """The record of spo.callbacks.diagnosis, of the kept weights."""
        kept = (pairs.weight > 0) & np.isfinite(pairs.t)
        rows = Rows(*(x[kept] for x in (pairs.t, pairs.z, pairs.weight, pairs.row_id)))
        found = self.diagnosis.of(rows, pairs.group[kept], symmetric=is_symmetric(learned)) if kept.any() else None
        if found is None:
            return None
        sign, link = int(learned.orientation), learned.link
        working = None
        if link is not None:
            grid = torch.from_numpy(sign * symmetric_grid(rows)).float().to(learned.orientation.device)
            working = short(link(grid).detach().cpu().double().numpy())
        name = "none" if link is None else type(link).__name__
        return {"step": int(learned.kept_step), "link": name, "orientation": sign, **found, "working_p": working}


def is_symmetric(learned: Learned) -> bool:
    """Whether (t, z) and (-t, 1-z) are the same to the link."""
    return learned.link is None or learned.link.symmetric


def checked(betas: list[float]) -> list[float]:
    """ConfigError unless they are betas, each once; none are asked for where the list is empty."""
    if min(betas, default=1.0) <= 0 or len(set(betas)) < len(betas):
        raise ConfigError(f"ideal_betas is {betas}: give each once, each > 0, in sd of the reward difference")
    return betas
