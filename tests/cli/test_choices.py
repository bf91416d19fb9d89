"""docs/choices.md, the README's generated table and `spo COMMAND --help GROUP` tell what the tree says (HABITS 16)."""

import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest

from spo.cli import main
from spo.cli.choices import fill, load_option, overview, page
from spo.cli.help import head_comment
from spo.cli.matrix import objectives_and_links
from spo.cli.signature import read_docstring
from spo.errors import ConfigError
from spo.link.base import Link
from spo.objective.profile import Profile
from spo.paths import asset_dir

from .conftest import ROOT, Spo

CONF = asset_dir("conf")
THEOREM = ["divergence", "link", "objective", "schedule"]  # groups whose options are formulas
WRITE_PAGE = "python -m spo.cli.choices > docs/choices.md"
FILL_README = "python -m spo.cli.choices README.md"


@functools.cache
def matrix() -> list[str]:
    return objectives_and_links(CONF)


def test_the_page_is_what_the_tree_says():
    assert (ROOT / "docs" / "choices.md").read_text() == page(CONF), f"stale: run `{WRITE_PAGE}`"


def test_the_readmes_tables_are_what_the_tree_says():
    text = (ROOT / "README.md").read_text()
    places = re.findall(r"<!-- generated: (\S+) -->", text)
    assert "objectives-links" in places
    blocks = {"options": "\n".join(overview(CONF)), "objectives-links": "\n".join(matrix())}
    assert fill(text, blocks) == text, f"stale: run `{FILL_README}`"


def test_every_option_is_on_the_page_with_every_key():
    text = page(CONF)
    found = re.findall(r"^### `(\S+)`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    sections = {re.sub(r"@[\w.]+", "", words): section for words, section in found}
    for path in CONF.glob("*/*.yaml"):
        group, keys = path.parent.name, load_option(path)
        section = sections[f"{group}={path.stem}"]
        if "_target_" in keys:
            assert str(keys["_target_"]) in section
            for key in keys.keys() - {"_target_", "_partial_"}:
                assert f"{group}.{key}" in section, f"{group}={path.stem} does not show {key}"


def test_a_group_inside_an_option_is_listed_by_the_words_to_type():
    text = page(CONF)
    assert "| `kappa_rule@evaluate.kappa_rule` | exact paper | " in text
    assert "### `held_out@data.held_out=share`" in text
    assert "data.held_out.share=0.1" in text
    assert "`prompts@evaluate.prompts`" not in text  # `spo label` has the group `prompts`, which stands there


@pytest.mark.parametrize("path", [p for group in THEOREM for p in sorted((CONF / group).glob("*.yaml"))], ids=str)
def test_a_formula_says_its_cost_and_its_source(path: Path):
    """The issue's "formula, source, cost and when to use it"; the last is the first line of the YAML."""
    text = read_docstring(load_option(path)["_target_"])
    assert text.splitlines()[0].strip()
    for word in ("Cost:", "Source:"):
        assert word in text, f"the docstring of the target of {path.name} has no sentence that begins with {word}"


def test_a_key_of_the_option_that_it_starts_from_is_shown_with_its_own_value():
    """policy=smollm2 starts from causal_lm and changes the path."""
    node = load_option(CONF / "policy" / "smollm2.yaml")
    assert node["path"].startswith("package:")
    assert node["lora"] == load_option(CONF / "policy" / "causal_lm.yaml")["lora"]


def test_marked_places_are_filled_and_nothing_else_is_touched():
    text = "a\n<!-- generated: x -->\nold\nolder\n<!-- end -->\nb\n<!-- generated: y -->\n<!-- end -->\nc"
    filled = fill(text, {"x": "new", "y": "two"})
    assert filled == "a\n<!-- generated: x -->\nnew\n<!-- end -->\nb\n<!-- generated: y -->\ntwo\n<!-- end -->\nc"
    assert fill(filled, {"x": "new", "y": "two"}) == filled
    with pytest.raises(KeyError):
        fill(text, {"x": "new"})


def test_a_refused_link_is_no_with_its_reason(monkeypatch: pytest.MonkeyPatch):
    def check(self: Profile, link: Link) -> None:
        if link.is_fitted_from_data:
            raise ConfigError("objective Profile refuses it: give a fixed link.")

    monkeypatch.setattr(Profile, "check", check)
    table = objectives_and_links(CONF)
    head, row = (
        next(line.split("|") for line in table if line.startswith(f"| {word}")) for word in ("obj", "`profile`")
    )
    cells = {name.strip(" `"): cell.strip() for name, cell in zip(head, row, strict=True)}
    assert (cells["logistic"], cells["isotonic"], cells["kernel"]) == ("`method=dpo`", "no", "no")
    (why,) = [line for line in table if line.startswith("`profile` without")]
    assert "`isotonic`, `kernel`" in why
    assert "`logistic`" not in why
    assert why.endswith(": give a fixed link.")


def test_an_objective_without_link_only_shows_one():
    rows = [line for line in matrix() if line.startswith("| `ranking_auc`")]
    assert len(rows) == 1
    assert "shown only" in rows[0]
    assert "yes" not in rows[0]


def test_help_of_a_group_is_its_page(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--help", "schedule"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("schedule: the learning rate over optimizer steps\n")
    section = re.search(r"^### `schedule=wsd`\n\n(.*?)\n\n```text\n(.*?)```", page(CONF), re.MULTILINE | re.DOTALL)
    assert section is not None
    assert section[1] in out
    for line in section[2].splitlines():
        assert line in out, line
    assert main(["evaluate", "evaluate", "--help", "logger"]) == 0
    assert "logger=wandb" in capsys.readouterr().out


def test_help_says_what_can_be_asked(capsys: pytest.CaptureFixture[str]):
    """A group misspelt is named with the nearest; a group whose options set other groups' keys has none of its own."""
    assert main(["train", "--help", "lnik"]) == 2
    err = capsys.readouterr().err
    assert "no group 'lnik': did you mean link?" in err
    assert "schedule" in err
    assert main(["train", "--help", "columns"]) == 0
    assert "columns.KEY" not in capsys.readouterr().out
    assert main(["train", "--help", "link"]) == 0
    assert "link.KEY" in capsys.readouterr().out


def test_the_first_line_of_an_option_is_a_whole_sentence():
    """It stands alone in the lists."""
    for path in [*CONF.glob("*/*.yaml"), *(CONF.parent / "sweeps").glob("*.yaml")]:
        first = head_comment(path)
        assert first.count("(") == first.count(")"), path
        assert first[-1] not in ",;:", path
        assert first.split()[-1] not in ("of", "and", "or", "if", "any", "from", "the", "a"), path


def test_a_users_own_option_is_in_the_help(spo: Spo, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "conf" / "link").mkdir(parents=True)
    (tmp_path / "conf" / "link" / "mine.yaml").write_text("# A link of my own\n_target_: toy_targets.Isotonic\n")
    assert spo("fit", "--help") == 0
    assert "mine" in (out := capsys.readouterr().out)
    assert "A link of my own" in out
    assert spo("fit", "--help", "link") == 0
    assert "link=mine\n  A link of my own" in capsys.readouterr().out


def test_page_and_help_come_at_once_and_without_torch():
    code = (
        "import sys, time; from spo.cli import main; main(['train', '--help'])\n"
        "assert time.process_time() < 2\n"
        "from spo.cli.choices import page; from spo.paths import asset_dir\n"
        "page(asset_dir('conf')); main(['train', '--help', 'link'])\n"
        "assert not {'torch', 'lightning', 'transformers', 'scipy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "refined" in done.stdout
