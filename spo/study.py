"""results.parquet: what the runs of a tabular study reached, one tidy table whatever trained them.

A row is one run (seed, s, n, method, link, budget, ...) at one beta; the row at the target KL has kl_target, the others
nan there. beta = inf is the reference. reward in the study's units, kl in nats, both exact means over fresh contexts.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from spo.errors import DataError

VERSION = "2"  # of the columns below
_KEY = b"spo.study"
_CHOSEN = {  # column -> Hydra's group
    "truth": "truth",
    "method": "method",
    "objective": "objective",
    "link": "link",
    "divergence": "divergence",
    "teacher_divergence": "divergence@data.source.divergence",
    "budget": "budget",
    "seed_scheme": "seed_scheme@data.source.seed_scheme",
    "kappa_rule": "kappa_rule@evaluate.kappa_rule",
    "ensemble": "ensemble@evaluate.ensemble",
}
_SAMPLED = ["seed", "s", "n", "beta", "kl_target", "reward", "kl", "reached", "reward_minus_reference"]
_SAMPLED += ["reward_of_teacher", "reward_minus_teacher", "spent", "direction_error", "link_error", "calibration_error"]
_SAMPLED += ["kept_step"]
RUN = ["seed", "s", "n", *_CHOSEN, "settings"]  # what tells runs apart
COLUMNS = [*RUN, *_SAMPLED[3:]]


def save(path: Path, samples: pd.DataFrame, choices: Mapping[str, str], overrides: Sequence[str]) -> None:
    """samples: a row a run and beta, with the columns that an evaluation found. choices: Hydra's, group -> option;
    "none" where a group was not chosen. overrides: words of the command line."""
    table = samples.rename(columns={"divergence": "spent"})[_SAMPLED]
    chosen = {column: _named(choices.get(group)) for column, group in _CHOSEN.items()}
    write(path, table.assign(**chosen, settings=settings_of(overrides)))


def write(path: Path, table: pd.DataFrame) -> None:
    """A table with all of COLUMNS, such as `read` gives. The file appears whole or not at all."""
    arrow = pa.Table.from_pandas(table[COLUMNS], preserve_index=False)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), _KEY: VERSION.encode()})
    part = path.with_suffix(".part")
    pq.write_table(arrow, part)
    part.replace(path)


def read(paths: Iterable[Path]) -> pd.DataFrame:
    """All of them as one table. A run that stands in two of them counts once, as the later one has it.

    Raises DataError where a file is no such table, or one of another version."""
    tables: list[pd.DataFrame] = []
    for path in paths:
        try:
            arrow = pq.read_table(path)
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path} cannot be read as Parquet: {error}") from error
        version = (arrow.schema.metadata or {}).get(_KEY, b"").decode()
        if version != VERSION or arrow.column_names != COLUMNS:
            found = f"version {version}" if version else "another schema"
            raise DataError(
                f"{path} is no results table of version {VERSION}, but of {found}: make it again with "
                "`spo evaluate RUN evaluate=tabular_tilt`"
            )
        tables.append(arrow.to_pandas().assign(_file=len(tables)))
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.concat(tables, ignore_index=True)
    newest = table.groupby(RUN, dropna=False)["_file"].transform("max")
    kept: pd.DataFrame = table[table["_file"] == newest]
    return kept.drop(columns="_file").reset_index(drop=True)


_ASIDE = {  # keys whose value has a column, or that say where and how a run is done and not what it is
    "method", "objective", "link", "divergence", "budget", "truth", "truth.shifts", "truth.link.shift",
    "data.source.seeds", "data.source.rows", "evaluate", "evaluate.betas", "evaluate.kl_target",
    "micro_batch", "log_every", "checkpoint_every", "diagnosis", "device", "train_run", "sweeps",
}  # fmt: skip
_ASIDE_WITH_KEYS = ("hydra", "hardware", "logger", "run_folder")  # groups that stand aside with all their keys
_ASIDE_GROUPS = ("seed_scheme@", "kappa_rule@", "ensemble@", "divergence@")  # and those that lie inside an option
_STUDY = "experiment=synthetic"  # the sweeps set it by themselves


def settings_of(overrides: Iterable[str]) -> str:
    """What a command line asked for that no column tells: its other overrides, sorted, joined by spaces; "" for none.

    Of a key that is given twice the last one counts, as with Hydra; + and ++ are as the plain key.
    "data.source.seeds=0-7 link=kernel refit.every=7 link.constant=2.0" -> "link.constant=2.0 refit.every=7"."""
    last = {(word := override.lstrip("+")).partition("=")[0]: word for override in overrides}
    return " ".join(sorted(word for key, word in last.items() if word != _STUDY and not _stands_aside(key)))


def _stands_aside(key: str) -> bool:
    group = key.partition(".")[0].partition("/")[0]
    return key in _ASIDE or group in _ASIDE_WITH_KEYS or key.startswith(_ASIDE_GROUPS)


def _named(choice: str | None) -> str:
    return "none" if choice in (None, "null", "None") else str(choice)
