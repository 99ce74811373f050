"""Score units on a V2 model server from an event loop: for a gateway, where every request has a deadline."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import TYPE_CHECKING

import httpx

from seatrial.adapters.v2.client import JSON, refuse_length, unavailable
from seatrial.adapters.v2.protocol import (
    ModelAddress,
    model_metadata,
    refuse_failure,
    request_body,
    says_ready,
    scores_of,
    wiring_of,
)
from seatrial.errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.adapters.v2.protocol import Wiring


class AsyncV2Scorer:
    """One model on a V2 server.

    Parameters
    ----------
    url
        Address of the server, such as ``http://127.0.0.1:8080``.
    address
        The model; name its version wherever the server has versions, for an address without one follows the newest.
    columns
        Names of the feature columns in the order in which the release declares them.
    output
        Name of the output with the score; None when the model has one output only.
    timeout_s
        Limit of one question from its beginning to its last byte, connecting and waiting for a free connection
        included. `score` may be given a shorter one.
    client
        A client to share among models, which its owner closes; None for one of its own.
    """

    def __init__(
        self,
        url: str,
        address: ModelAddress,
        columns: Sequence[str],
        *,
        timeout_s: float,
        output: str | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self.columns = tuple(columns)
        self._url = url.rstrip("/")
        self._address = address
        self._output = output
        self._timeout_s = timeout_s
        self._owns_client = client is None
        # The limit of httpx is by operation; asyncio.timeout below is the one that counts.
        self._client = client or httpx.AsyncClient(timeout=timeout_s, trust_env=False, follow_redirects=False)
        self._numbers = count(1)
        self._wiring: Wiring | None = None

    async def close(self) -> None:
        """Close the connections that are its own."""
        if self._owns_client:
            await self._client.aclose()

    async def is_ready(self) -> bool:
        """Return whether the model answers now, by the ready address of its version; never raises for a dead server."""
        try:
            status, content = await self._ask("GET", f"{self._address.path}/ready", None, self._timeout_s)
        except UnavailableError:
            return False
        return says_ready(status, content)

    async def prepare(self) -> Wiring:
        """Read how the model wants its features, and return it; `score` does it once by itself when nobody did.

        Raises RefusedError when the served contract is not that of the columns, NotFoundError for an unknown model.
        """
        content = await self._answer("GET", self._address.path, None, self._timeout_s)
        self._wiring = wiring_of(model_metadata(content, self._address), self.columns, output=self._output)
        return self._wiring

    async def score(self, features: Mapping[str, float], *, timeout_s: float | None = None) -> float:
        """Return the score of one unit.

        Raises
        ------
        UnavailableError
            When no whole and sound answer came in time: the caller falls back.
        RefusedError
            When a feature is missing, infinite, or refused by the server.
        NotFoundError
            When the server does not know the model or version.
        """
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        where = f"{self._url}/{self._address.path}/infer"
        try:
            # One limit around both questions, so that the first unit waits no longer than any other.
            async with asyncio.timeout(limit_s):
                return await self._score(features, limit_s)
        except TimeoutError as error:
            raise unavailable(error, where, limit_s) from error

    async def _score(self, features: Mapping[str, float], limit_s: float) -> float:
        wiring = self._wiring or await self.prepare()
        missing = [name for name in self.columns if name not in features]
        if missing:
            raise RefusedError(f"{self._address}: found no feature {', '.join(missing)}; expected all; send them")
        request_id = str(next(self._numbers))
        body = request_body(wiring, [[features[name] for name in self.columns]], request_id=request_id)
        content = await self._answer("POST", f"{self._address.path}/infer", body, limit_s)
        return scores_of(content, wiring, self._address, rows=1, request_id=request_id)[0]

    async def _answer(self, method: str, path: str, body: bytes | None, limit_s: float) -> bytes:
        status, content = await self._ask(method, path, body, limit_s)
        refuse_failure(status, content, f"{self._url}/{path}")
        return content

    async def _ask(self, method: str, path: str, body: bytes | None, limit_s: float) -> tuple[int, bytes]:
        where = f"{self._url}/{path}"
        content = bytearray()
        try:
            async with (
                asyncio.timeout(limit_s),
                self._client.stream(method, where, content=body, headers=JSON if body else None) as response,
            ):
                async for part in response.aiter_bytes():
                    content += part
                    refuse_length(len(content), where)
                return response.status_code, bytes(content)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            raise unavailable(error, where, limit_s) from error
