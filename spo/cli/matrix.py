"""Which objective goes with which link, asked of the objects that the YAML files make."""

from pathlib import Path
from typing import Any

import yaml

from spo.cli.commands import Command, find_commands
from spo.cli.compose import compose_jobs
from spo.cli.hydra_app import hydra_app, prepare
from spo.cli.instantiate import instantiate
from spo.errors import ConfigError


def objectives_and_links(conf: Path) -> list[str]:
    """A Markdown table, rows conf/objective/*, columns conf/link/*: yes (or the method of that name), shown only, no.

    Below it, why an objective refuses a link, in its own words.
    """
    command = find_commands(conf)["train"]
    prepare(None)
    with hydra_app(command):
        objectives, links = _built(command, "objective"), _built(command, "link")
    methods = _methods(conf)
    out = [f"| objective | {' | '.join(f'`{link}`' for link in links)} |", f"| --- |{' --- |' * len(links)}"]
    refusals: dict[tuple[str, str], list[str]] = {}  # (objective, reason) -> links
    for name, objective in objectives.items():
        cells = []
        for other, link in links.items():
            reason = _refusal(objective, link)
            if reason:
                refusals.setdefault((name, reason), []).append(f"`{other}`")
            works = "yes" if objective.needs_link else "shown only"
            cells.append("no" if reason else methods.get((name, other), works))
        out.append(f"| `{name}` | {' | '.join(cells)} |")
    together: dict[tuple[str, str], list[str]] = {}  # (reason, links) -> objectives
    for (name, reason), refused in refusals.items():
        together.setdefault((reason, ", ".join(refused)), []).append(f"`{name}`")
    for (reason, refused_links), names in together.items():
        out += ["", f"{', '.join(names)} without {refused_links}: {reason}."]
    return out


def _built(command: Command, group: str) -> dict[str, Any]:
    """Option -> object, in alphabetical order."""
    out = {}
    for path in sorted((command.path.parent / group).glob("*.yaml")):
        _, jobs, problems = compose_jobs(command, [f"{group}={path.stem}"], multirun=False)
        if not jobs:
            raise ConfigError("\n".join(problems))
        out[path.stem] = instantiate(jobs[0].config[group], group)
    return out


def _refusal(objective: Any, link: Any) -> str:
    """Why not, in one line, without the names before the first colon; "" where they go together."""
    try:
        objective.check(link)
    except ConfigError as error:
        text = " ".join(str(error).split()).rstrip(".")
        return text.partition(": ")[2] or text
    return ""


def _methods(conf: Path) -> dict[tuple[str, str], str]:
    """(objective, link) -> `method=NAME`, of the methods that are these two and nothing more."""
    out = {}
    for path in sorted((conf / "method").glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        if content.keys() > {"defaults"}:
            continue
        chosen = {k: v for entry in content["defaults"] for k, v in entry.items()}
        pair = (str(chosen.get("override /objective")), str(chosen.get("override /link")))
        out[pair] = f"`method={path.stem}`"
    return out
