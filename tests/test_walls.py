"""DESIGN, "what a room may not know": who imports whom, read from the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SPO = ROOT / "spo"
THEOREM = ["divergence", "logprob", "index", "link", "objective"]
SCIENCE = {"torch", "numpy", "scipy"}
BASE = {"types", "errors", "hashing", "lock", "cache"}  # every room may use these


def imports(path: Path) -> Iterator[str]:
    """Absolute dotted names of everything a file imports, also inside functions."""
    package = [*path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def files(room: str) -> list[Path]:
    return sorted((SPO / room).rglob("*.py")) if (SPO / room).is_dir() else [SPO / f"{room}.py"]


def rooms_of(path: Path) -> set[str]:
    """The rooms of spo that a file imports."""
    return {name.split(".")[1] for name in imports(path) if name.startswith("spo.") and len(name.split(".")) > 1}


ALL = sorted(SPO.rglob("*.py"))


@pytest.mark.parametrize("path", [p for room in THEOREM for p in files(room)], ids=lambda p: str(p.relative_to(SPO)))
def test_the_theorem_imports_science_only(path: Path):
    allowed = SCIENCE | set(sys.stdlib_module_names) | {"spo"}
    assert {name.split(".")[0] for name in imports(path)} <= allowed
    assert rooms_of(path) <= set(THEOREM) | BASE


@pytest.mark.parametrize(
    ("room", "allowed"),
    [
        ("divergence", {"divergence"}),
        ("logprob", set()),
        ("link", {"link"}),
        ("index", {"divergence"}),
        ("objective", {"objective", "link"}),
        ("simulate", {"simulate", "divergence"}),
        ("policy", {"policy", "logprob"}),
        ("data", {"data"}),
    ],
)
def test_a_room_knows_only_its_neighbours(room: str, allowed: set[str]):
    for path in files(room):
        extra = rooms_of(path) - allowed - BASE
        assert not extra, f"{path.relative_to(ROOT)} imports {extra}"


def test_simulate_is_imported_by_cli_and_evaluate_only():
    users = {path.relative_to(SPO).parts[0] for path in ALL if "simulate" in rooms_of(path)}
    assert users <= {"simulate", "cli", "evaluate"}


def test_only_cli_knows_hydra():
    for path in ALL:
        heads = {name.split(".")[0] for name in imports(path)}
        if heads & {"hydra", "omegaconf"}:
            assert path.relative_to(SPO).parts[0] == "cli", path


def test_only_cli_is_above_the_rooms():
    for path in ALL:
        if "cli" in rooms_of(path):
            assert path.relative_to(SPO).parts[0] in {"cli", "__main__.py"}, path


def test_reports_are_made_from_saved_results_only():
    for path in files("report"):
        assert not rooms_of(path) & {"policy", "data", "module", "link", "objective"}, path


def test_the_theorem_imports_nothing_heavy_when_it_runs():
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for room in THEOREM for path in files(room)]
    code = "; ".join(["import sys", *(f"import {module}" for module in modules)]) + (
        "; assert not {'lightning', 'transformers', 'hydra', 'wandb', 'pandas'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
