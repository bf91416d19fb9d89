"""Saves a dashboard at W&B. Nothing else of this package touches the network."""

import os
from collections.abc import Callable

from spo.dashboard.build import Dashboard
from spo.errors import ConfigError
from spo.reach import why_offline


def why_not() -> str | None:
    """Why nothing can be published now; None if it can."""
    mode = os.environ.get("WANDB_MODE")
    return f"WANDB_MODE is {mode}" if mode in ("offline", "disabled", "dryrun") else why_offline()


def default_entity() -> str:
    """That of the key at hand. ConfigError where W&B names none."""
    import wandb

    entity = _asked(lambda: wandb.Api().default_entity)
    if not entity:
        raise ConfigError("entity is null, and W&B names no default one: give entity=NAME, a W&B team or user")
    return str(entity)


def publish(dashboard: Dashboard, *, report: bool) -> list[str]:
    """Save the workspace and, if asked, a report; returns where they are."""
    places = [str(_asked(lambda: dashboard.workspace().save().url))]
    if report:
        places.append(str(_asked(lambda: dashboard.report().save().url)))
    return places


def _asked(question: "Callable[[], object]") -> object:
    import wandb

    try:
        return question()
    except (wandb.Error, OSError) as error:  # OSError: of the connection
        raise ConfigError(f"W&B refused it: {error}") from error
