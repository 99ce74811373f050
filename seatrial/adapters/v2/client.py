"""Ask a V2 model server, one question after another: for gates, which may wait."""

from __future__ import annotations

from itertools import count
from time import perf_counter
from typing import TYPE_CHECKING

import httpx
import numpy as np

from seatrial.adapters.v2.protocol import (
    LARGEST_ANSWER,
    REPOSITORY,
    ModelAddress,
    ModelMetadata,
    RepositoryEntry,
    ServerMetadata,
    Wiring,
    model_metadata,
    refuse_failure,
    repository_index,
    request_body,
    says_ready,
    scores_of,
    server_metadata,
)
from seatrial.errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

JSON = {"Content-Type": "application/json"}
#: Rows of one question: its answer stays far below the largest, and comes well within the time limit.
_ROWS_AT_ONCE = 1_000


class V2Server:
    """A V2 server at `url`, such as ``http://127.0.0.1:8080``.

    Every question has `timeout_s` from its beginning to its last byte. Neither a proxy nor a password of the process's
    environment is used, and no redirect is followed.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._timeout_s = timeout_s
        self._numbers = count(1)
        self._client = httpx.Client(timeout=timeout_s, trust_env=False, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def metadata(self) -> ServerMetadata:
        """Return what the server says about itself."""
        return server_metadata(self._answer("GET", "v2"), self.url)

    def is_ready(self, address: ModelAddress) -> bool:
        """Return whether the model answers now, by the ready address of its version.

        The repository's index is not asked: MLServer lists versions as ready that it has not loaded.
        """
        status, content = self._ask("GET", f"{address.path}/ready")
        return says_ready(status, content)

    def model(self, address: ModelAddress) -> ModelMetadata:
        """Return what the server says about a model: names, types and shapes of inputs and outputs."""
        return model_metadata(self._answer("GET", address.path), address)

    def infer(self, address: ModelAddress, wiring: Wiring, rows: Sequence[Sequence[float]]) -> list[float]:
        """Return the score of each of `rows`; raises UnavailableError for an answer that is not exactly that."""
        request_id = str(next(self._numbers))
        body = request_body(wiring, rows, request_id=request_id)
        content = self._answer("POST", f"{address.path}/infer", body)
        return scores_of(content, wiring, address, rows=len(rows), request_id=request_id)

    def index(self) -> tuple[RepositoryEntry, ...]:
        """Return the index of the server's repository; raises RefusedError when the server has none."""
        self._require_repository()
        return repository_index(self._answer("POST", "v2/repository/index", b"{}"), f"{self.url} repository")

    def load(self, name: str) -> None:
        """Have the server load a model; whether a version answers then is for `is_ready` to say."""
        self._require_repository()
        self._answer("POST", f"v2/repository/{ModelAddress(name).path.removeprefix('v2/')}/load", b"{}")

    def _require_repository(self) -> None:
        extensions = self.metadata().extensions
        if REPOSITORY.isdisjoint(extensions):
            raise RefusedError(
                f"{self.url}: found the extensions {list(extensions)}; expected model_repository;"
                " load the model as this server is configured"
            )

    def _answer(self, method: str, path: str, body: bytes | None = None) -> bytes:
        status, content = self._ask(method, path, body)
        refuse_failure(status, content, f"{self.url}/{path}")
        return content

    def _ask(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        where = f"{self.url}/{path}"
        ends = perf_counter() + self._timeout_s
        content = bytearray()
        try:
            with self._client.stream(method, where, content=body, headers=JSON if body else None) as response:
                for part in response.iter_bytes():
                    content += part
                    # httpx limits the time between two bytes; a server that drips would never end.
                    if perf_counter() > ends:
                        raise UnavailableError(f"{where}: no whole answer within {self._timeout_s:g} s; wait and retry")
                    refuse_length(len(content), where)
                return response.status_code, bytes(content)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise unavailable(error, where, self._timeout_s) from error


def refuse_length(length: int, where: str) -> None:
    """Raise UnavailableError when an answer is longer than any score can be."""
    if length > LARGEST_ANSWER:
        raise UnavailableError(
            f"{where}: found more than {LARGEST_ANSWER} bytes; expected scores; compare the server with the protocol"
        )


def unavailable(error: Exception, where: str, timeout_s: float) -> UnavailableError:
    """Return the error for a question that httpx could not put."""
    if isinstance(error, httpx.TimeoutException | TimeoutError):
        return UnavailableError(f"{where}: no answer within {timeout_s:g} s; wait and retry")
    said = str(error) or type(error).__name__
    return UnavailableError(f"{where}: {said}; expected an answer; start the server or correct the address")


class V2Scorer:
    """A model on a V2 server, as a loaded model; `wiring` was read from the server's own description."""

    #: Servers compute in single precision as they like, whatever type they announce.
    tolerance = 1e-6

    def __init__(self, server: V2Server, address: ModelAddress, wiring: Wiring) -> None:
        self._server, self._address, self._wiring = server, address, wiring
        self.columns = wiring.columns

    def close(self) -> None:
        """Close the connections to the server."""
        self._server.close()

    def score(self, vector: Mapping[str, float]) -> float:
        """Return the score of one unit; raises KeyError when a column is missing."""
        return self._server.infer(self._address, self._wiring, [[vector[name] for name in self.columns]])[0]

    def score_all(self, matrix: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the scores of many units, one row each, with the columns in the order of `columns`."""
        scores: list[float] = []
        for first in range(0, len(matrix), _ROWS_AT_ONCE):
            rows = matrix[first : first + _ROWS_AT_ONCE].tolist()
            scores += self._server.infer(self._address, self._wiring, rows)
        return np.array(scores, dtype=np.float64)
