"""Run a gateway until SIGTERM or Ctrl-C: stop to accept, finish what is under way, write the log."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING

import uvicorn

from seatrial.adapters.gateway.app import Gateway
from seatrial.adapters.gateway.clock import SteadyClock
from seatrial.adapters.gateway.engine import Engine
from seatrial.adapters.gateway.logbook import Logbook
from seatrial.adapters.gateway.models import KeptReleases, Models
from seatrial.errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import FrameType

    from seatrial.adapters.gateway.settings import GatewaySettings
    from seatrial.adapters.log_intake import DecisionLog
    from seatrial.adapters.scoring import Runtimes
    from seatrial.ports import Registered, SnapshotFeed
    from seatrial.routing.signing import CheckingKey


def serve(
    decision_point: str,
    settings: GatewaySettings,
    *,
    feed: SnapshotFeed,
    find: Callable[[str], Registered],
    runtimes: Runtimes,
    log: DecisionLog,
    keep: Path | None,
    keys: Mapping[str, CheckingKey] | None,
    say: Callable[[str], None],
) -> None:
    """Serve `decision_point` until the process is asked to end; raises UnavailableError when rows could not be written.

    `find` returns a registered release, `keep` is where its manifest is kept for a start without the control plane.
    """
    listening = _listen(settings)
    port = listening.getsockname()[1]
    name = settings.name or f"gateway-{socket.gethostname()}-{port}"

    async def open_engine() -> Engine:
        models = Models(KeptReleases(find, keep), runtimes, settings)
        logbook = Logbook(log, decision_point, flush_s=settings.flush_s)
        return Engine(decision_point, name, feed, models, logbook, SteadyClock(), settings, keys)

    config = uvicorn.Config(
        Gateway(open_engine),
        loop="uvloop",
        http="httptools",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=max(1, round(settings.grace_s)),
    )
    server = uvicorn.Server(config)
    say(f"gateway {name} of {decision_point}: http://{settings.host}:{port}")
    # uvicorn raises the signal again once it has shut down; what became of the log is said first.
    signal.signal(signal.SIGTERM, _heard)
    signal.signal(signal.SIGINT, _heard)
    server.run(sockets=[listening])
    if not server.started:
        raise UnavailableError(f"gateway {name}: did not start; expected a decision point to serve; read what is above")
    if server.lifespan.should_exit:
        raise UnavailableError(f"gateway {name}: log rows could not be written; expected all; free the disk")


def _heard(_number: int, _frame: FrameType | None) -> None:
    """Let the program end by itself."""


def _listen(settings: GatewaySettings) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((settings.host, settings.port))
    except OSError as error:
        listening.close()
        where = f"{settings.host}:{settings.port}"
        raise RefusedError(f"{where}: {error.strerror}; expected a free port; choose another one") from error
    return listening
