"""Envoy as a router: what it is started with, and the agent beside it."""

from __future__ import annotations

from pathlib import Path
from time import sleep
from typing import TYPE_CHECKING, Annotated

import typer

from seatrial.adapters.clock import SteadyClock, WallClock
from seatrial.adapters.envoy import Admin, EnvoyAgent, EnvoySettings
from seatrial.adapters.envoy import bootstrap as configuration
from seatrial.adapters.file_feed import FileFeed, KeptFeed
from seatrial.adapters.http_feed import HttpFeed
from seatrial.adapters.keys import keyring
from seatrial.adapters.router import InProcessRouter
from seatrial.cli.terminal import say, show_json
from seatrial.documents import check, load_yaml
from seatrial.errors import UnavailableError

if TYPE_CHECKING:
    from seatrial.ports import SnapshotFeed

app = typer.Typer(name="envoy", help="Envoy as a router: its configuration, and the agent that keeps it current.")

#: Seconds for which the control plane is asked to wait with its answer.
_WAIT_S = 1.0
#: Seconds between two rounds.
_PAUSE_S = 0.2

FileArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Settings of this Envoy and its agent.")]
OnceOption = Annotated[bool, typer.Option("--once", help="One round; fails unless Envoy serves what is published.")]


@app.command(epilog="Example: seatrial envoy bootstrap envoy.yaml > bootstrap.json")
def bootstrap(file: FileArgument) -> None:
    """Print what Envoy is started with; it stays the same while releases come and go."""
    settings = check(load_yaml(file), EnvoySettings)
    show_json(configuration(settings, _folder(file, settings)))


@app.command(epilog="Example: seatrial envoy agent envoy.yaml")
def agent(
    file: FileArgument,
    *,
    once: OnceOption = False,
) -> None:
    """Keep Envoy at the published snapshot and report what it serves, until Ctrl-C."""
    settings = check(load_yaml(file), EnvoySettings)
    beside = _agent(file, settings, wait_s=0.0 if once else _WAIT_S)
    clock = SteadyClock(WallClock())
    told = None
    while True:
        is_there = beside.round(now=clock.now())
        if once:
            if not is_there:
                raise UnavailableError(f"{file}: Envoy does not serve what is published; see `seatrial routers`")
            return
        if told is not is_there:
            say(f"envoy.round router={settings.router} is_current={str(is_there).lower()}")
            told = is_there
        sleep(_PAUSE_S)


def _agent(file: Path, settings: EnvoySettings, *, wait_s: float) -> EnvoyAgent:
    base, folder = file.resolve().parent, _folder(file, settings)
    is_http = settings.control.startswith(("http://", "https://"))
    source: SnapshotFeed = HttpFeed(settings.control, wait_s=wait_s) if is_http else FileFeed(base / settings.control)
    feed = KeptFeed(source, FileFeed(folder / "snapshots"))
    keys = keyring(base / path for path in settings.keyring) if settings.keyring else None
    holder = InProcessRouter(settings.router, feed, settings.decision_point, keys)
    return EnvoyAgent(settings, folder, Admin(settings.admin), holder, feed)


def _folder(file: Path, settings: EnvoySettings) -> Path:
    """Return the folder of Envoy's files, made where it is missing: Envoy watches it from the start."""
    folder = file.resolve().parent / settings.folder
    folder.mkdir(parents=True, exist_ok=True)
    return folder
