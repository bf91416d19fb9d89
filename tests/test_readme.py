"""The README's "add a link estimator" runs as it stands."""

import re
from pathlib import Path

import pytest

from spo.cli import main
from spo.run_folder import RunFolder
from tests.tiny import write_pairs

README = Path(__file__).parents[1] / "README.md"


def block(language: str, containing: str) -> str:
    found = [b for b in re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.S) if containing in b]
    assert len(found) == 1
    return found[0]


def test_a_link_of_the_users_own_trains(
    tiny_llama_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    source = block("python", "class FittedLogistic")
    assert len([line for line in source.splitlines() if line.strip()]) <= 25
    (tmp_path / "my_link.py").write_text(source)
    (tmp_path / "conf" / "link").mkdir(parents=True)
    (tmp_path / "conf" / "link" / "fitted_logistic.yaml").write_text(block("yaml", "FittedLogistic"))
    pairs = write_pairs(tmp_path / "pairs.jsonl")
    monkeypatch.chdir(tmp_path)
    words = f"link=fitted_logistic policy=causal_lm policy.path={tiny_llama_dir} data.train_path={pairs} logger=none"
    words += " truth=shifted_mixture steps=4 global_batch=8 hydra.run.dir=out"
    assert main(["train", *words.split()]) == 0, capfd.readouterr().err
    assert RunFolder(tmp_path / "out").link["link"] == "FittedLogistic"


def test_every_group_and_option_is_in_the_table() -> None:
    conf = README.parent / "conf"
    rows = [row for row in README.read_text().splitlines() if row.startswith("| `")]
    table = {group: row for row in rows for group in re.findall(r"`(\w+)(?:@[\w.]+)?`", row.split("|")[1])}
    groups = {p.name: sorted(f.stem for f in p.glob("*.yaml")) for p in conf.iterdir() if p.is_dir()}
    for group, options in groups.items():
        if group in ("experiment", "run_folder", "hydra"):  # the last: docs/sweeps.md
            continue
        assert group in table, group
        for option in options:
            assert re.search(rf"\b{option}\b", table[group]), f"{group}={option}"
