"""Options and arguments that commands share, and what they open."""

from __future__ import annotations

import os
from contextlib import contextmanager
from getpass import getuser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seatrial.adapters.prefect_api import PrefectApi
from seatrial.cli.terminal import Progress
from seatrial.wiring import SETTINGS_VARIABLE, open_plant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.wiring import Plant

#: Prefect's own variable for ``user:password``; a secret does not belong on a command line.
AUTH_VARIABLE = "PREFECT_API_AUTH_STRING"


def _os_user() -> str:
    """Return the name under which this process acts, where the operating system knows one."""
    try:
        return getuser()
    except (OSError, KeyError, ImportError) as error:  # Python 3.13 and later raise OSError alone
        raise typer.BadParameter("the operating system knows no name for this user; give --as NAME") from error


def _filled(text: str) -> str:
    """Return `text` without surrounding space, or refuse it when nothing is left."""
    if not text.strip():
        raise typer.BadParameter("found nothing; it is kept in the ledger, write at least a word")
    return text.strip()


SettingsOption = Annotated[
    Path, typer.Option("--settings", envvar=SETTINGS_VARIABLE, help="Settings file.", show_default=True)
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, errors too; keys are stable.")]
ActorOption = Annotated[
    str,
    typer.Option("--as", metavar="NAME", help="Who acts, for the ledger.", default_factory=_os_user, callback=_filled),
]
ReasonOption = Annotated[
    str, typer.Option("--reason", metavar="TEXT", help="Why; kept in the ledger.", callback=_filled)
]
WaitOption = Annotated[float, typer.Option("--wait-s", min=0.0, help="Seconds to wait until it is seen.")]
PrefectOption = Annotated[
    str, typer.Option("--prefect-api", envvar="PREFECT_API_URL", help="Address of the Prefect API, ending in /api.")
]
ReleaseArgument = Annotated[
    str, typer.Argument(metavar="RELEASE", help='Id, its first characters, name, or "name version".')
]
FilesArgument = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Plans and release manifests.")]
ManifestArgument = Annotated[
    Path, typer.Argument(metavar="MANIFEST", help="Release manifest; the files it names lie below its folder.")
]
PlanOption = Annotated[Path, typer.Option("--plan", help="Plan file, as workers find it: relative to the project.")]
RolloutArgument = Annotated[str, typer.Argument(metavar="ROLLOUT", help="Id, or its first characters.")]


def write_plot(path: Path, png: bytes) -> None:
    """Write the picture that ``--plot`` asks for; refuses a place that cannot be written."""
    try:
        path.write_bytes(png)
    except OSError as error:
        raise typer.BadParameter(
            f"--plot {path}: {error.strerror}; name a file in a folder that may be written"
        ) from error


@contextmanager
def opened(settings: Path) -> Iterator[Plant]:
    """Give the control plane that `settings` describe, and its connections back at the end."""
    plant = open_plant(settings, os.environ, Progress())
    try:
        yield plant
    finally:
        plant.store.close()
        if plant.warehouse is not None:
            plant.warehouse.dispose()


def prefect_at(url: str) -> PrefectApi:
    """Return the Prefect server at `url`, with the credentials of the environment."""
    return PrefectApi(url.rstrip("/"), os.environ.get(AUTH_VARIABLE))


def ui_of(api: PrefectApi, flow_run_id: str) -> str:
    """Return where a browser shows a flow run of the server behind `api`."""
    return f"{api.url.removesuffix('/api')}/runs/flow-run/{flow_run_id}"
