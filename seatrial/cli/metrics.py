"""Show what an operator watches, once or to Prometheus."""

from __future__ import annotations

from enum import StrEnum
from time import monotonic
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from prometheus_client import CollectorRegistry, start_http_server

from seatrial.cli.options import JsonOption, SettingsOption, opened
from seatrial.cli.terminal import complain, say, show_json, show_table
from seatrial.errors import RefusedError
from seatrial.metrics import HEADER, Category, Metric, document, rows
from seatrial.metrics import metrics as computed
from seatrial.metrics.exposition import MetricsCollector, exposition
from seatrial.units import format_time
from seatrial.wiring import DEFAULT_SETTINGS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from seatrial.wiring import Plant

#: Loopback alone: whoever reads metrics learns what is on trial, and there is no password.
LISTEN = "127.0.0.1:9464"


class Format(StrEnum):
    """How metrics are printed."""

    TABLE = "table"
    JSON = "json"
    PROMETHEUS = "prometheus"


def metrics(
    target: Annotated[
        str | None,
        typer.Argument(metavar="DECISION_POINT|ROLLOUT", help="Of one; else of all that is open or ended lately."),
    ] = None,
    *,
    settings: SettingsOption = DEFAULT_SETTINGS,
    as_format: Annotated[Format, typer.Option("--format", help="How to print them.")] = Format.TABLE,
    as_json: JsonOption = False,
    serve: Annotated[bool, typer.Option("--serve", help="Answer Prometheus until interrupted.")] = False,
    listen: Annotated[str, typer.Option("--listen", metavar="HOST:PORT", help="Where, with --serve.")] = LISTEN,
) -> None:
    """Show what an operator watches, by category; a number that cannot be had is absent with its reason, never 0."""
    with opened(settings) as plant:
        if serve:
            if target is not None:
                raise typer.BadParameter("found a name with --serve; Prometheus selects by label, leave it out")
            _serve(plant, *_address(listen))
            return
        now = plant.clock.now()
        found = _asked(plant, target, now=now)
    if as_json or as_format is Format.JSON:
        show_json({"at": format_time(now), "metrics": [document(each) for each in found]})
    elif as_format is Format.PROMETHEUS:
        say(exposition(found).rstrip("\n"))
    else:
        _show(found)


def _asked(plant: Plant, target: str | None, *, now: datetime) -> Sequence[Metric]:
    if target is None or target in plant.store.champions():
        return computed(plant.ports, now=now, decision_point=target)
    return computed(plant.ports, now=now, rollout_id=target)


def _show(found: Sequence[Metric]) -> None:
    places = dict.fromkeys((each.labels.get("decision_point", ""), each.labels.get("rollout", "")) for each in found)
    for place in places:
        mine = [e for e in found if (e.labels.get("decision_point", ""), e.labels.get("rollout", "")) == place]
        said = rows(mine)
        for category in Category:
            cells = [row[1:] for row in said if row.category is category]
            if cells:
                say(" · ".join([*filter(None, place), category.value]))
                show_table(HEADER, cells)
                say("")


def _address(listen: str) -> tuple[str, int]:
    """Return host and port that `listen` names, or refuse it.

    >>> _address("127.0.0.1:9464"), _address("[::1]:0")
    (('127.0.0.1', 9464), ('::1', 0))
    """
    try:
        parts = urlsplit(f"//{listen}")
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or port is None or parts.netloc != listen or parts.username is not None:
        raise typer.BadParameter(f"found {listen!r}, expected HOST:PORT, such as {LISTEN}")
    return host, port


def _serve(plant: Plant, host: str, port: int) -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(
        MetricsCollector(
            lambda: computed(plant.ports, now=plant.clock.now()),
            elapsed=monotonic,
            on_failure=lambda error: complain(f"metrics: seatrial_up 0: {error}"),
        )
    )
    try:
        server, thread = start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise RefusedError(
            f"{host}:{port}: {error.strerror or error}; expected a free port of this machine; give another --listen"
        ) from error
    say(f"metrics: http://{host}:{server.server_port}/metrics, until Ctrl-C")
    try:
        thread.join()
    finally:
        server.shutdown()
        server.server_close()
