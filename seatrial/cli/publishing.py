"""Run the snapshot server, and make the keys and tokens that it works with."""

from __future__ import annotations

import hashlib
import secrets
from pathlib import Path  # noqa: TC003 typer reads annotations when it runs
from typing import Annotated

import typer
import uvicorn

from seatrial.adapters.file_feed import FileFeed
from seatrial.adapters.keys import new_key
from seatrial.cli.options import JsonOption, SettingsOption, opened
from seatrial.cli.terminal import say, show_json
from seatrial.service.app import Service, application
from seatrial.wiring import DEFAULT_SETTINGS

keys = typer.Typer(name="keys", help="Keys that sign routing snapshots, and tokens of operators.")


def publish(
    *,
    port: Annotated[int, typer.Option("--port", min=0, max=65_535, help="Port to listen on.")] = 8100,
    host: Annotated[str, typer.Option("--host", help="Address to listen on; beyond loopback behind TLS only.")] = (
        "127.0.0.1"
    ),
    folder: Annotated[
        Path | None, typer.Option("--folder", help="Also keep each snapshot as a file here, and read reports from it.")
    ] = None,
    settings: SettingsOption = DEFAULT_SETTINGS,
) -> None:
    """Serve routing snapshots to routers over HTTP until Ctrl-C, take their reports and operators' kills."""
    with opened(settings) as plant:
        service = Service(
            plant.ports,
            plant.clock,
            plant.operators,
            plant.store.listen_url,
            None if folder is None else FileFeed(folder),
        )
        uvicorn.run(application(service), host=host, port=port, log_level="warning", lifespan="on")


@keys.command(epilog="Example: seatrial keys new router-2026 --folder ~/.seatrial/keys")
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key; signatures carry it.")],
    *,
    folder: Annotated[Path, typer.Option("--folder", help="Where its files are put; outside any repository.")],
    hmac: Annotated[bool, typer.Option("--hmac", help="One secret for both sides instead of a key pair.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Make a key that signs routing snapshots; keys that exist are never written over."""
    signs, checks = new_key(folder, name, is_hmac=hmac)
    if as_json:
        show_json({"signing_key": str(signs), "keyring": [str(checks)]})
    else:
        say(f"signing_key: {signs}    # for the control plane alone\nkeyring: [{checks}]    # for every router")


@keys.command(epilog="Example: seatrial keys token oncall")
def token(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Whose token it is.")], *, as_json: JsonOption = False
) -> None:
    """Make a token with which somebody may kill over HTTP; it is shown once, the settings keep its digest."""
    made = secrets.token_urlsafe(32)
    digest = hashlib.sha256(made.encode()).hexdigest()
    if as_json:
        show_json({"name": name, "token": made, "sha256": digest})
    else:
        say(f"token of {name}, shown once: {made}\nin the settings:\noperators:\n  {name}: {digest}")
