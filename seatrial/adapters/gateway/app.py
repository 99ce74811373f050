"""The gateway's addresses. Decisions are answered before any framework is asked; everything else is Starlette's."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import orjson
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from seatrial.adapters.gateway.engine import Engine, OverloadedError
from seatrial.adapters.gateway.labels import Labels
from seatrial.adapters.gateway.questions import answer_of, infer_answer, parsed, unit_of, units_of
from seatrial.errors import InvalidDocumentError, NotFoundError, SeatrialError, UnavailableError
from seatrial.routing import Course
from seatrial.routing.signing import sealed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

_JSON = (b"content-type", b"application/json")
_RETRY = (b"retry-after", b"1")
_TOO_LARGE = 413


class Gateway:
    """The ASGI application; `engine` opens what it needs once there is a loop, and closes it at shutdown."""

    def __init__(self, open_engine: Callable[[], Awaitable[Engine]]) -> None:
        self._open = open_engine
        self._rest: ASGIApp | None = None
        self._engine: Engine | None = None
        self._limit = 0

    @property
    def engine(self) -> Engine:
        """What decides; only between startup and shutdown."""
        if self._engine is None:
            raise UnavailableError("gateway: not started; expected the server to start it; run `seatrial serve`")
        return self._engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one start and stop of the server."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http" and scope["path"] == "/decisions" and scope["method"] == "POST":
            await self._decide(receive, send)
        elif scope["type"] == "http" and self._rest is not None:
            await self._rest(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    self._engine = await self._open()
                    await self._engine.start()
                except Exception as error:  # noqa: BLE001 edge of a service: the server ends and says why
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                self._limit = self._engine.settings.max_body_kb * 1024
                self._rest = _rest_of(self._engine, self._limit)
                await send({"type": "lifespan.startup.complete"})
            else:
                is_written = await self.engine.close()
                kind = "complete" if is_written else "failed"
                await send({"type": f"lifespan.shutdown.{kind}", **({} if is_written else {"message": "rows lost"})})
                return

    async def _decide(self, receive: Receive, send: Send) -> None:
        engine = self.engine
        try:
            body = await _body(receive, self._limit)
            decided = await engine.decide(unit_of(parsed(body), engine.settings.attributes))
            status = 503 if decided.course is Course.REFUSE else 200
            content = orjson.dumps(answer_of(decided))
            more: tuple[tuple[bytes, bytes], ...] = ()
        except (SeatrialError, _TooLargeError) as error:
            status, document, more = _refusal(error)
            content = orjson.dumps(document)
        engine.measured.requests["decisions", _CODES[status]] += 1
        headers = [_JSON, (b"content-length", b"%d" % len(content)), *more]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


_CODES = {status: str(status) for status in (200, 404, 413, 422, 500, 503)}


class _TooLargeError(Exception):
    """A request is larger than the settings allow."""


async def _body(receive: Receive, limit: int) -> bytes:
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")
        if len(body) > limit:
            break
    if len(body) > limit:
        raise _TooLargeError(f"body: found more than {limit} bytes; expected less; send smaller requests")
    return body


def _refusal(error: Exception) -> tuple[int, dict[str, Any], tuple[tuple[bytes, bytes], ...]]:
    match error:
        case InvalidDocumentError():
            problems = [
                {"place": each.place, "finding": each.finding, "remedy": each.remedy} for each in error.problems
            ]
            return 422, {"error": "invalid question", "problems": problems}, ()
        case _TooLargeError():
            return _TOO_LARGE, {"error": str(error)}, ()
        case OverloadedError() | UnavailableError():
            return 503, {"error": str(error)}, (_RETRY,)
        case NotFoundError():
            return 503, {"error": str(error)}, ()
        case _:
            return 500, {"error": type(error).__name__}, ()


def _rest_of(engine: Engine, limit: int) -> ASGIApp:
    """Return the application of every other address."""
    registry = CollectorRegistry()
    registry.register(engine.measured)
    labels = Labels(engine.logbook, engine.decision_point)
    point = engine.decision_point

    async def infer(body: bytes) -> tuple[int, Mapping[str, Any]]:
        question = parsed(body)
        units = units_of(question, engine.settings.attributes)
        decisions = await asyncio.gather(*map(engine.decide, units))
        status = 503 if any(each.course is Course.REFUSE for each in decisions) else 200
        return status, infer_answer(point, question, decisions)

    async def take_labels(body: bytes) -> tuple[int, Mapping[str, Any]]:
        answer = labels.take(parsed(body), now=engine.clock.now())
        # Written before it is answered: whoever is told 200 need not send it again.
        await asyncio.to_thread(engine.logbook.flush)
        engine.measured.labels["accepted"] += answer["accepted"]
        engine.measured.labels["repeated"] += answer["repeated"]
        engine.measured.labels["rejected"] += len(answer["rejected"])
        return (422 if not answer["accepted"] + answer["repeated"] else 200), answer

    def posted(name: str, answer: Callable[[bytes], Awaitable[tuple[int, Mapping[str, Any]]]]) -> Any:
        async def endpoint(request: Request) -> Response:
            try:
                status, document = await answer(await _body(request.receive, limit))
                more: tuple[tuple[bytes, bytes], ...] = ()
            except (SeatrialError, _TooLargeError) as error:
                status, document, more = _refusal(error)
            engine.measured.requests[name, str(status)] += 1
            headers = {key.decode(): value.decode() for key, value in more}
            return Response(orjson.dumps(document), status, headers, "application/json")

        return endpoint

    def got(answer: Callable[[], tuple[int, Mapping[str, Any]]]) -> Any:
        async def endpoint(_request: Request) -> Response:
            status, document = answer()
            return Response(orjson.dumps(document), status, media_type="application/json")

        return endpoint

    def ready() -> tuple[int, Mapping[str, Any]]:
        return (200 if engine.is_ready else 503), {"ready": engine.is_ready}

    def snapshot() -> tuple[int, Mapping[str, Any]]:
        return (200, sealed(engine.snapshot)) if engine.is_ready else (503, {"error": "no snapshot yet"})

    async def metrics(_request: Request) -> Response:
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    model = f"/v2/models/{point}"
    return Starlette(
        routes=[
            Route(f"{model}/infer", posted("infer", infer), methods=["POST"]),
            Route("/labels", posted("labels", take_labels), methods=["POST"]),
            Route("/snapshot", got(snapshot)),
            Route("/metrics", metrics),
            Route("/v2/health/live", got(lambda: (200, {"live": True}))),
            Route("/v2/health/ready", got(ready)),
            Route(f"{model}/ready", got(ready)),
            Route(model, got(lambda: (200, _metadata(engine)))),
            Route("/v2", got(lambda: (200, {"name": "seatrial", "version": "2", "extensions": []}))),
        ]
    )


def _metadata(engine: Engine) -> dict[str, Any]:
    texts = [{"name": name, "datatype": "BYTES", "shape": [-1]} for name in ("unit_key", *engine.settings.attributes)]
    outputs = [
        {"name": name, "datatype": "BYTES", "shape": [-1]} for name in ("action", "course", "decision_id", "release")
    ]
    number = {"name": "snapshot", "datatype": "INT64", "shape": [-1]}
    return {
        "name": engine.decision_point,
        "versions": [],
        "platform": "seatrial",
        "inputs": texts,
        "outputs": [*outputs, number],
    }
