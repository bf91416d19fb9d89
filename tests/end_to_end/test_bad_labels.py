"""Issue 6's bad input to `spo label` and to what reads its rows, as a user types it: one message that says the mend,
exit code 2, no traceback, and every shard that was finished is there as it was."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from spo.cli.execute import execute

from .conftest import Here

REWARDS = """
calls = 0

def broken(prompts, responses):
    global calls
    calls += 1
    values = [float(len(r)) for r in responses]
    return values if calls == 1 else {mistake}
"""
Refused = Callable[..., str]


@pytest.fixture
def refused(
    tiny_llama_dir: Path, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Refused:
    """`refused("n_prompts=9")`: what `spo label` says, having returned 2; into the folder run. Without words, what
    `spo execute run` says."""
    monkeypatch.chdir(tmp_path)
    policy = ["policy=causal_lm", "policy.lora.r=4", f"policy.path={tiny_llama_dir}"]
    small = ["n_prompts=8", "max_new_tokens=4", "shard_rows=4", "hydra.run.dir=run"]

    def run(*words: str) -> str:
        capfd.readouterr()
        if words:
            shutil.rmtree("run", ignore_errors=True)
        code = here("label", *policy, *small, *words) if words else execute("run")
        said = capfd.readouterr()
        assert code == 2, said
        assert "Traceback" not in said.err + said.out
        assert said.err.count("spo label:") == 1, said.err
        return said.err[said.err.find("spo label:") :]

    return run


def shards() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path("run/rows").glob("*.parquet"))}


def test_prompts_that_are_too_few_or_too_long(refused: Refused) -> None:
    assert "n_prompts is 100000, but there are" in refused("reward=length", "n_prompts=100000")
    Path("long.jsonl").write_text("".join(json.dumps({"prompt": f"{i} " + "z" * 700}) + "\n" for i in range(9)))
    given = ["reward=length", "prompts=file", "prompts.path=long.jsonl", "eval_fraction=0"]
    message = refused(*given, "n_prompts=null")
    assert "all 9 prompts are longer than the model's context, 512 tokens, less max_new_tokens=4: give" in message
    assert not shards()


@pytest.mark.parametrize(
    ("mistake", "said"),
    [("[float('nan')] + values[1:]", "is not finite for 1"), ("values[1:]", "returned 7 values for 8")],
)
def test_a_reward_that_is_none_loses_no_finished_shard(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: str, said: str
) -> None:
    """Right for the first shard; the run goes on once what is behind the same options is mended."""
    module = f"rewards_{abs(hash(mistake))}"
    monkeypatch.syspath_prepend(str(tmp_path))
    Path(f"{module}.py").write_text(REWARDS.format(mistake=mistake))
    message = refused("reward=imported", f"reward.path={module}.broken")
    assert said in message
    assert "shards written so far are kept" in message
    (first,) = kept = shards()
    assert said in refused()
    assert shards() == kept
    monkeypatch.setattr(f"{module}.broken", lambda prompts, responses: [float(len(r)) for r in responses])
    assert execute("run") == 0
    assert len(shards()) == 2
    assert shards()[first] == kept[first]


def test_a_reward_model_that_does_not_fit_its_template(refused: Refused, tiny_reward_dir: Path, tmp_path: Path) -> None:
    """Before anything is sampled."""
    folder = shutil.copytree(tiny_reward_dir, tmp_path / "reward")
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    )
    message = refused("reward=classifier", f"reward.path={folder}")
    assert f"reward model {folder}: its chat template leaves the prompt or the response out" in message
    assert not shards()
