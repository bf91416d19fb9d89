"""Names for what tells the runs of a study apart: the conditions, and what was estimated under them."""

import math
import re
from collections.abc import Sequence

import pandas as pd

BASELINE, REFERENCE = "dpo", "known_link"  # methods: that of the differences, and that of the reference line
PAIR = "pair/"  # how the names of methods begin that are any objective with any link
ESTIMATORS_FIRST = (BASELINE, "pspo", "ospo", "rspo")  # the order of methods; the others follow by name
_ESTIMATOR = ["method", "objective", "link", "divergence"]
_OF_DATA = ("truth.", "data.", "evaluate.")  # settings of the condition; the others are the estimator's
_PLAIN = {"truth", "data_settings"}  # columns whose value says enough without their name
_NAMES = {"budget": "budget ", "teacher_divergence": "teacher ", "ensemble": "ensemble "}
_NAMES |= {"seed_scheme": "seeds ", "kappa_rule": "kappa rule "}


def split_settings(settings: str) -> tuple[str, str]:
    """Those of the condition and those of the estimator: "truth.rate=0.1 refit.every=7" -> the one and the other."""
    words = [word for word in re.split(r"\s+(?=[+~]{0,2}[\w./@]+=)", settings.strip()) if word]
    of_data = [word for word in words if word.lstrip("+~").startswith(_OF_DATA)]
    return " ".join(of_data), " ".join(word for word in words if word not in of_data)


def labelled(keys: pd.DataFrame) -> pd.DataFrame:
    """The keys with both labels and their parts, in the order to show them.

    condition = world (what drew the labels), then teacher, then the rest. estimator = kind, then divergence.
    """
    split = [split_settings(text) for text in keys["settings"]]
    keys = keys.assign(data_settings=[a for a, _ in split], own_settings=[b for _, b in split])
    keys["world"] = _joined(keys, ["truth", "data_settings"])
    keys["teacher"] = _joined(keys, ["teacher_divergence"])
    keys["rest"] = _joined(keys, ["budget", "ensemble", "seed_scheme", "kappa_rule"])
    keys["condition"] = [", ".join(filter(None, parts)) for parts in keys[["world", "teacher", "rest"]].to_numpy()]
    same_method = keys.groupby("method")
    told = {
        "objective": same_method["objective"].transform("nunique") > 1,
        "link": same_method["link"].transform("nunique") > 1,
        "own_settings": keys.groupby(_ESTIMATOR)["own_settings"].transform("nunique") > 1,
    }
    keys["kind"] = [
        " ".join(
            [method_name(row["method"]), *(row[name] for name, shown in told.items() if shown.iloc[i] and row[name])]
        )
        for i, row in enumerate(keys.to_dict("records"))
    ]
    several = keys.groupby("kind")["method"].transform("nunique") > 1
    keys["kind"] = keys["kind"].where(~several, keys["kind"] + " (" + keys["method"] + ")")
    keys["estimator"] = keys["kind"] + (" " + keys["divergence"] if keys["divergence"].nunique() > 1 else "")
    place = {name: float(i) for i, name in enumerate(ESTIMATORS_FIRST)} | {REFERENCE: math.inf}
    order = [place.get(m, place.get(m.partition("_")[0], float(len(ESTIMATORS_FIRST)))) for m in keys["method"]]
    keys = keys.assign(_order=order).sort_values(["_order", "method", "estimator", "condition"], kind="stable")
    return keys.drop(columns="_order").reset_index(drop=True)


def _joined(keys: pd.DataFrame, columns: Sequence[str]) -> list[str]:
    """Of each key the values of those columns that differ, with their names where the value alone says too little."""
    varying = [column for column in columns if keys[column].nunique() > 1]
    named = [(keys[c] if c in _PLAIN else _NAMES[c] + keys[c]).mask(keys[c] == "none", "") for c in varying]
    return [", ".join(filter(None, values)) for values in zip(*named, strict=True)] if named else [""] * len(keys)


def method_name(name: str) -> str:
    """`pspo_spline` -> PSPO spline, `robust_dpo` -> ROBUST DPO, `pair/brier-spline` -> BRIER spline."""
    if name == REFERENCE:
        return "known link"
    if name.startswith(PAIR):
        objective, _, link = name.removeprefix(PAIR).partition("-")
        return f"{objective.upper().replace('_', ' ')} {link.replace('_', ' ')}"
    base, _, rest = name.partition("_")
    return (
        f"{base.upper()} {rest.replace('_', ' ')}".strip()
        if base in ESTIMATORS_FIRST
        else name.upper().replace("_", " ")
    )
