"""`spo dashboard SWEEP`: a W&B workspace from conf/dashboard.yaml, as a file or published."""

from collections.abc import Mapping
from importlib.util import find_spec

from spo.dashboard.build import Dashboard, project_of, specification
from spo.dashboard.panels import Section
from spo.dashboard.publish import default_entity, why_not
from spo.dashboard.publish import publish as _publish
from spo.errors import ConfigError
from spo.run_folder import RunFolder
from spo.sweep.store import find_sweep
from spo.sweep.sync import sync_command

PACKAGE = "wandb_workspaces"
FILE = "dashboard.json"


def dashboard(
    *,
    run: RunFolder,
    sweep: str,
    entity: str | None,
    project: str | None,
    publish: bool,
    report: bool,
    max_runs: int,
    columns: list[str],
    sections: Mapping[str, Section],
) -> None:
    """Writes SWEEP/dashboard.json in every case; the network is touched only to publish."""
    if report and not publish:
        raise ConfigError("report is true and publish false: a report is only made to be published: give publish=true")
    if find_spec(PACKAGE) is None:
        raise ConfigError("a dashboard needs the package wandb-workspaces: `pip install wandb-workspaces`")
    found = find_sweep(sweep)
    where = project or project_of(found)
    offline = why_not() if publish else None
    if publish and offline is None:
        entity = entity or default_entity()
    made = Dashboard(found, entity or "", where, list(sections.values()), columns, max_runs)
    path = found.path / FILE
    RunFolder(found.path).write_json(FILE, specification(made.workspace()))
    print(f"{path}: the specification of the dashboard")
    if waiting := sync_command(found.path):
        print(f"its runs are offline; upload them with `{waiting}`")
    again = f"spo dashboard {sweep} publish=true"
    if offline is not None:
        raise ConfigError(f"{path} is written but not published: {offline}. Later: `{again}`")
    if not publish:
        print(f"publish it with `{again}`")
        return
    print("\n".join(_publish(made, report=report)))
