"""The snapshot server: routers read what they should serve and say what they do; people throw kill switches.

It works while Prefect is down, for it needs the database alone.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from seatrial.adapters.reports import report_of
from seatrial.control.killing import KillWish, lift, order_kill
from seatrial.control.observing import observe
from seatrial.errors import InvalidDocumentError, NotFoundError, RefusedError, SeatrialError, UnavailableError
from seatrial.ledger import Record
from seatrial.routing import KillMode, KillScope
from seatrial.routing.written import require_kinds
from seatrial.service.board import Board
from seatrial.service.mirroring import Mirror
from seatrial.service.waking import LISTENING_S, LOOKING_S, listen, look_now_and_then

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from starlette.requests import Request

    from seatrial.adapters.file_feed import FileFeed
    from seatrial.ports import Clock, Ports

#: Longest time in seconds that a router may ask to wait.
LONGEST_WAIT_S = 60.0
#: Largest body in bytes; a report with a thousand releases has a tenth of it.
_LARGEST_BODY = 1 << 18


@dataclass(frozen=True, slots=True)
class Service:
    """What the server works with."""

    ports: Ports
    clock: Clock
    operators: Mapping[str, str]  #: who may kill, by the sha256 of their token in hexadecimal digits
    listen_url: str | None = None  #: PostgreSQL database that says by itself what is new; None looks instead
    folder: FileFeed | None = None  #: where snapshots and reports of routers that read files lie


class _Refused(Exception):  # noqa: N818 an answer, not an error of ours
    """An answer other than success, with its status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def application(service: Service) -> Starlette:
    """Return the server's application."""
    mirror = None if service.folder is None else Mirror(service.ports, service.clock, service.folder)
    board = Board(service.ports.store, None if mirror is None else mirror.write)
    tasks: list[asyncio.Task[None]] = []
    answers = _Answers(service, board, tasks)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        every_s = LOOKING_S if service.listen_url is None else LISTENING_S
        tasks.append(asyncio.create_task(look_now_and_then(board, every_s=every_s)))
        if service.listen_url is not None:
            tasks.append(asyncio.create_task(listen(board, service.listen_url)))
        if mirror is not None:
            tasks.append(asyncio.create_task(mirror.tend()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    return Starlette(
        routes=[
            Route("/health", answers.health),
            Route("/snapshots/{decision_point:path}", answers.snapshot),
            Route("/reports", answers.report, methods=["POST"]),
            Route("/kill", answers.kill, methods=["POST"]),
            Route("/lift", answers.lift, methods=["POST"]),
        ],
        exception_handlers={_Refused: _refused, SeatrialError: _failed},
        lifespan=lifespan,
    )


class _Answers:
    def __init__(self, service: Service, board: Board, tasks: Sequence[asyncio.Task[None]]) -> None:
        self._service = service
        self._board = board
        self._tasks = tasks
        self._numbers: dict[tuple[str, str], int] = {}

    async def health(self, _request: Request) -> Response:
        """Answer 503 when a part that looks for new snapshots has ended: what is served then only grows older."""
        if any(task.done() for task in self._tasks):
            raise _Refused(503, "a part of the server has ended; restart it")
        return JSONResponse({"status": "up"})

    async def snapshot(self, request: Request) -> Response:
        """Answer with the present snapshot, or 304 when it is held already; with ``?wait=`` as soon as it changes."""
        held = request.headers.get("If-None-Match", "")
        posted = await self._board.newer(request.path_params["decision_point"], held, timeout_s=_wait_of(request))
        headers = {"ETag": posted.tag, "Cache-Control": "no-cache"}
        if posted.tag == held:
            return Response(status_code=304, headers=headers)
        return Response(posted.body, media_type="application/json", headers=headers)

    async def report(self, request: Request) -> Response:
        """Keep what a router serves; the first report of a snapshot is at once an observation."""
        try:
            report = report_of(await _body(request))
        except ValueError as error:
            raise _Refused(422, str(error)) from error
        # It raises what the store says of an unknown decision point, so that a misspelt one is no silent success.
        self._board.posted(report.decision_point)
        await asyncio.to_thread(self._service.ports.store.report, report)
        router = (report.decision_point, report.router)
        if self._numbers.get(router) != report.number:
            now = self._service.clock.now()
            await asyncio.to_thread(observe, self._service.ports, report.decision_point, now=now)
            self._numbers[router] = report.number
        return Response(status_code=204)

    async def kill(self, request: Request) -> Response:
        """Throw a kill switch for an operator."""
        actor = await self._operator(request)
        read = _read("kill", await _body(request), {"decision_point", "scope", "mode", "reason"}, {"name"})
        try:
            wish = KillWish(KillScope(read["scope"]), KillMode(read["mode"]), read["reason"], actor, read.get("name"))
        except ValueError as error:
            raise _Refused(422, f"kill: {error}; expected {', '.join(KillScope)}; {', '.join(KillMode)}") from error
        kill = await self._order(order_kill, read["decision_point"], wish)
        return JSONResponse(kill.document(), status_code=201)

    async def lift(self, request: Request) -> Response:
        """Take a kill back for an operator."""
        actor = await self._operator(request)
        read = _read("lift", await _body(request), {"decision_point", "kill", "reason"}, set())
        kill = await self._order(lift, read["decision_point"], read["kill"], reason=read["reason"], actor=actor)
        return JSONResponse(kill.document())

    async def _order(self, act: Callable[..., Any], decision_point: str, *words: Any, **named: Any) -> Any:
        now = self._service.clock.now()
        done = await asyncio.to_thread(act, self._service.ports, decision_point, *words, **named, now=now)
        await self._board.refresh([decision_point])
        return done

    async def _operator(self, request: Request) -> str:
        """Return who asks, by the token; a wrong one is recorded, at most once a minute, and refused."""
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        digest = hashlib.sha256(token.encode()).hexdigest()
        # Every digest is compared, so that the time taken says nothing about which one is nearly right.
        known = [name for name, kept in self._service.operators.items() if hmac.compare_digest(kept, digest)]
        if scheme.lower() == "bearer" and known:
            return known[0]
        now = self._service.clock.now()
        where = "unknown" if request.client is None else request.client.host
        key = f"operators/refused/{now:%Y-%m-%dT%H:%M}"
        record = Record(now, "operator.refused", "snapshot server", "", None, key, {"from": where})
        with suppress(UnavailableError):
            await asyncio.to_thread(self._service.ports.store.append, [record])
        raise _Refused(401, "found no token of an operator; send Authorization: Bearer TOKEN")


def _wait_of(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0.0 <= seconds <= LONGEST_WAIT_S:
        raise _Refused(422, f"wait {text!r}: expected seconds from 0 to {LONGEST_WAIT_S:g}")
    return seconds


async def _body(request: Request) -> object:
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > _LARGEST_BODY:
            raise _Refused(413, f"found more than {_LARGEST_BODY} bytes; send less")
    try:
        return orjson.loads(content)
    except ValueError as error:
        raise _Refused(422, f"found no JSON: {error}") from error


def _read(what: str, document: object, required: set[str], optional: set[str]) -> dict[str, str]:
    keys = required | (optional & (document.keys() if isinstance(document, dict) else set()))
    kinds: dict[str, tuple[type, ...]] = dict.fromkeys(sorted(keys), (str,))
    try:
        return require_kinds(what, document, kinds)
    except ValueError as error:
        raise _Refused(422, str(error)) from error


async def _refused(_request: Request, error: Exception) -> Response:
    status = error.status if isinstance(error, _Refused) else 500
    return JSONResponse({"error": str(error)}, status_code=status)


async def _failed(_request: Request, error: Exception) -> Response:
    statuses = {NotFoundError: 404, InvalidDocumentError: 422, RefusedError: 409, UnavailableError: 503}
    status = next((code for kind, code in statuses.items() if isinstance(error, kind)), 500)
    return JSONResponse({"error": str(error)}, status_code=status)
