"""Features from an HTTP endpoint that answers JSON: a list of rows, or an object whose ``rows`` are one."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING

import httpx
import orjson

from seatrial.adapters.features.rows import MemorySource
from seatrial.errors import NotFoundError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.gates.features import Seen

_LARGEST_ANSWER = 64 * 2**20
_OK, _NOT_FOUND = 200, 404


@dataclass(frozen=True, slots=True)
class HttpSource:
    """The endpoint at `url`, which is asked for ``?limit=`` the newest rows by GET."""

    url: str
    timeout_s: float = 30.0

    def look(self, columns: Sequence[str], timestamp: str, *, rows: int) -> Seen:
        """Return what the newest `rows` are like, rows without a `timestamp` first among them."""
        try:
            answer = orjson.loads(self._answer(rows))
        except orjson.JSONDecodeError as error:
            raise UnavailableError(f"{self.url}: found no JSON ({error}); expected rows") from error
        found = answer.get("rows") if isinstance(answer, dict) else answer
        if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
            raise UnavailableError(f"{self.url}: found no list of rows; expected objects of column and value")
        if found and not any(timestamp in row for row in found):
            raise NotFoundError.of(f"column of {self.url}", timestamp, {name for row in found for name in row})
        return MemorySource(found).look(columns, timestamp, rows=rows)

    def _answer(self, rows: int) -> bytes:
        ends = perf_counter() + self.timeout_s
        content = bytearray()
        try:
            # Neither a proxy nor a password of the process's environment is meant for this server.
            with (
                httpx.Client(timeout=self.timeout_s, trust_env=False, follow_redirects=False) as client,
                client.stream("GET", self.url, params={"limit": rows}) as response,
            ):
                if response.status_code == _NOT_FOUND:
                    raise NotFoundError(f"{self.url}: found HTTP 404; expected rows; correct the settings")
                if response.status_code != _OK:
                    raise UnavailableError(f"{self.url}: found HTTP {response.status_code}; expected 200")
                for part in response.iter_bytes():
                    content += part
                    if len(content) > _LARGEST_ANSWER or perf_counter() > ends:
                        raise UnavailableError(f"{self.url}: no whole answer within {self.timeout_s:g} s and 64 MiB")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise UnavailableError(f"{self.url}: {error or type(error).__name__}; wait and retry") from error
        return bytes(content)
