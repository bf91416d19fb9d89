"""The commands that there are: the files conf/<command>.yaml whose first line is `# spo <command> ...`."""

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Command:
    """What the head of conf/<name>.yaml declares (the convention is in spo/cli/compose.py)."""

    name: str
    usage: str  # "spo evaluate TRAIN_RUN [key=value ...]"
    positional: str | None  # "train_run": the key that TRAIN_RUN stands for
    several: bool  # TRAIN_RUN... : more than one may be given, as a list
    summary: str  # one sentence
    text: str  # the rest of the head
    path: Path

    def arguments(self, words: list[str]) -> list[str]:
        """The overrides, with the positional rewritten as one. ValueError if a word is neither."""
        overrides = [word for word in words if self._is_override(word)]
        places = [word for word in words if word not in overrides]
        if not places:
            return overrides
        if self.positional is None:
            raise ValueError(f"{places[0]!r} is no override: write key=value (usage: {self.usage})")
        if len(places) > 1 and not self.several:
            raise ValueError(f"{places[1]!r} is one argument too many (usage: {self.usage})")
        value = quote(places[0]) if len(places) == 1 else f"[{','.join(map(quote, places))}]"
        return [f"{self.positional}={value}", *overrides]

    def switched_on(self, words: list[str]) -> list[str]:
        """--html is short for html=true, for every key of the command that is false by itself."""
        import yaml  # `spo --help` does without

        keys = yaml.safe_load(self.path.read_text())
        switches = {f"--{key.replace('_', '-')}": f"{key}=true" for key, value in keys.items() if value is False}
        return [switches.get(word, word) for word in words]

    def _is_override(self, word: str) -> bool:
        """key=value or ~key; a folder that is there and has "=" in its name is the positional."""
        return ("=" in word or word.startswith("~")) and not (self.positional and _is_there(word))


def _is_there(word: str) -> bool:
    """A long grid is no path: the system refuses to look for it."""
    with contextlib.suppress(OSError, ValueError):
        return Path(word).exists()
    return False


def quote(text: str) -> str:
    """`text` as a quoted string of Hydra's override grammar: nothing in it has a meaning there.

    A run of backslashes is doubled where a quote follows it, and `${` is no interpolation.
    """
    escaped = re.sub(r"(\\*)'", lambda m: m.group(1) * 2 + r"\'", text)
    escaped = re.sub(r"(\\+)$", lambda m: m.group(1) * 2, escaped)
    return f"'{escaped}'"


def find_commands(conf: Path) -> dict[str, Command]:
    """Name -> command, in alphabetical order."""
    found = (_read(path) for path in sorted(conf.glob("*.yaml")))
    return {command.name: command for command in found if command is not None}


def _read(path: Path) -> Command | None:
    head: list[str] = []
    with path.open() as file:
        for line in file:
            if not line.startswith("#"):
                break
            head.append(line[1:].strip())
    if not head or not head[0].startswith(f"spo {path.stem}"):
        return None
    word = re.search(r"\s([A-Z][A-Z_]*)(\.\.\.)?(?:=([\w.]+))?(?=\s|$)", head[0])
    summary, *rest = [*head[1:], ""]
    positional, several = (word[3] or word[1].lower(), bool(word[2])) if word else (None, False)
    usage = head[0].replace(f"={word[3]}", "", 1) if word and word[3] else head[0]
    return Command(path.stem, usage, positional, several, summary, "\n".join(rest).strip(), path)
