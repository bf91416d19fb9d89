"""results.parquet: what the runs of a tabular study reached, one tidy table whatever trained them.

A row is one run (seed, s, n, method, link, budget, ...) at one beta; the row at the target KL has kl_target, the others
nan there. beta = inf is the reference. reward in the study's units, kl in nats, both exact means over fresh contexts.
"""

from collections.abc import Iterable, Mapping
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
}
_SAMPLED = ["seed", "s", "n", "beta", "kl_target", "reward", "kl", "reached", "reward_minus_reference"]
_SAMPLED += ["reward_of_teacher", "reward_minus_teacher", "spent", "direction_error"]
_SAMPLED += ["link_error", "calibration_error", "kept_step"]
RUN = ["seed", "s", "n", *_CHOSEN, "settings"]  # what tells runs apart
COLUMNS = [*RUN, *_SAMPLED[3:]]


def save(path: Path, samples: pd.DataFrame, choices: Mapping[str, str]) -> None:
    """samples: a row a run and beta, with the columns that an evaluation found. choices: Hydra's, group -> option;
    "none" where a group was not chosen. The file appears whole or not at all."""
    table = samples.rename(columns={"divergence": "spent"}).reindex(columns=_SAMPLED)
    chosen = {column: _named(choices.get(group)) for column, group in _CHOSEN.items()}
    arrow = pa.Table.from_pandas(table.assign(**chosen, settings="")[COLUMNS], preserve_index=False)
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
                f"{path} is no results table of version {VERSION}, but of {found}: run `spo evaluate` on its run again"
            )
        tables.append(arrow.to_pandas().assign(_file=len(tables)))
    if not tables:
        return pd.DataFrame(columns=COLUMNS)
    table = pd.concat(tables, ignore_index=True)
    newest = table.groupby(RUN, dropna=False)["_file"].transform("max")
    kept: pd.DataFrame = table[table["_file"] == newest]
    return kept.drop(columns="_file").reset_index(drop=True)


def _named(choice: str | None) -> str:
    return "none" if choice in (None, "null", "None") else str(choice)
