"""Serve the decisions of one decision point over HTTP."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from seatrial.adapters.gateway.running import serve as run
from seatrial.cli.options import SettingsOption  # noqa: TC001 typer reads annotations when it runs
from seatrial.cli.terminal import say
from seatrial.wiring import DEFAULT_SETTINGS, open_gateway


def serve(
    decision_point: Annotated[str, typer.Argument(metavar="POINT", help="Decision point that callers address.")],
    *,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65_535, help="Port, instead of the settings'.")] = (
        None
    ),
    settings: SettingsOption = DEFAULT_SETTINGS,
) -> None:
    """Answer decisions over HTTP until Ctrl-C or SIGTERM, as the settings say under gateways."""
    parts = open_gateway(settings, os.environ, decision_point)
    chosen = parts.settings if port is None else parts.settings.model_copy(update={"port": port})
    run(
        decision_point,
        chosen,
        feed=parts.feed,
        find=parts.find,
        runtimes=parts.runtimes,
        log=parts.log,
        keep=parts.keep,
        keys=parts.keys,
        say=say,
    )
