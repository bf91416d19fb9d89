"""Objects from plain nodes."""

import functools

import pytest

from spo.cli.instantiate import instantiate, instantiate_children, locate
from spo.errors import ConfigError

from .conftest import TOY


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOY))


def test_nested_partial_and_plain():
    node = {"_target_": "builtins.dict", "a": {"_target_": "datetime.timedelta", "days": 2}, "b": [{"c": 1}]}
    built = instantiate(node)
    assert built["a"].days == 2
    assert built["b"] == [{"c": 1}]
    partial = instantiate({"_target_": "datetime.timedelta", "_partial_": True, "days": 1})
    assert isinstance(partial, functools.partial)
    assert partial(hours=1).total_seconds() == 25 * 3600


def test_every_refusal_is_gathered_with_its_key():
    link = {"_target_": "toy_targets.Isotonic", "knots": 0, "symmetric": True}
    optim = {"_target_": "toy_targets.Optim", "learning_rate": -1, "betas": [], "columns": None, "every": 1}
    with pytest.raises(ConfigError) as refused:
        instantiate_children({"_target_": "x.y", "links": [link], "deep": {"optim": optim}})
    assert str(refused.value).splitlines() == [
        "links[0].knots is 0: give at least 1",
        "deep.optim.learning_rate is -1: give a value > 0",
        "deep.optim.betas has not two values: give two",
    ]


def test_a_node_of_another_version_is_refused_by_name():
    """A folder that was composed before an option had all its keys, or when it had more."""
    for change, said in (({"symmetric": None}, "'symmetric'"), ({"old": 1}, "'old'")):
        node = {"_target_": "toy_targets.Isotonic", "knots": 3, "symmetric": True, **change}
        node = {name: value for name, value in node.items() if value is not None}
        with pytest.raises(ConfigError, match=rf"link: .*{said}.*another version.*compose it anew"):
            instantiate(node, "link")


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("not_there.f", "there is no module"),
        ("toy_targets.nothing", "has no attribute 'nothing'"),
        ("toy_targets.LEAKED", "must be callable"),
    ],
)
def test_targets_that_are_not_there(target: str, message: str):
    with pytest.raises(ConfigError, match=message):
        locate(target)
