"""Latencies and error rates of both arms from a Prometheus server, by queries that the settings hold.

An empty answer means nothing: a release that never failed has no series of failures, and one without traffic has NaN.
Neither is a zero here, nor anything else but absent; a query that means zero says so, as with ``or vector(0)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING, Any

import requests

from seatrial.adapters.readings import ARMS, absent_reading, names_of, reading_of
from seatrial.ports import NoReading, Quantity, Reading

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.evidence import Arm
    from seatrial.ports import Scope

#: Seconds for a connection, and between two bytes of an answer; a scrape of the metrics waits for both.
CONNECT_S, READ_S = 1.0, 3.0
#: After one of these the server is asked nothing more in the same round: all answers would take as long.
_SILENT = (NoReading.TIMEOUT, NoReading.UNAVAILABLE)
_LONGEST = 200


class _NoAnswerError(Exception):
    """Why a query has no usable answer."""

    def __init__(self, reason: NoReading, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True, slots=True)
class PrometheusRuntime:
    """A Prometheus server at `url`, such as ``http://127.0.0.1:9090``, and what is asked of it."""

    url: str
    queries: Mapping[Quantity, str]  #: PromQL with placeholders such as ``$release``, which stand inside quotes

    def read(self, scopes: Sequence[Scope]) -> Sequence[Reading]:
        """Return a reading for each scope, arm and quantity that is asked for; a missing number is one of them.

        Never raises: a server that does not answer is the reason of every reading that it leaves open.
        """
        readings: list[Reading] = []
        for scope, arm, quantity in self._asked(scopes):
            last = readings[-1] if readings else None
            if last is not None and last.absent in _SILENT:
                readings.append(absent_reading(scope.rollout_id, arm, quantity, last.absent, last.detail))
            else:
                readings.append(self._read(scope, arm, quantity))
        return readings

    def _asked(self, scopes: Sequence[Scope]) -> list[tuple[Scope, Arm, Quantity]]:
        return [(scope, arm, quantity) for scope in scopes for arm in ARMS for quantity in self.queries]

    def _read(self, scope: Scope, arm: Arm, quantity: Quantity) -> Reading:
        quoted = {name: _quoted(text) for name, text in names_of(scope, arm).items()}
        query = Template(self.queries[quantity]).substitute(quoted)
        try:
            values = self._values(query)
        except _NoAnswerError as error:
            return absent_reading(scope.rollout_id, arm, quantity, error.reason, error.detail)
        return reading_of(scope.rollout_id, arm, quantity, values)

    def _values(self, query: str) -> list[float]:
        """Return the value of each series that answers to `query` now."""
        answer = _document(self._response(query))
        if answer.get("warnings"):
            raise _NoAnswerError(NoReading.DOUBTED, _clipped(answer["warnings"]))
        try:
            match answer["data"]["resultType"], answer["data"]["result"]:
                case "scalar", [_, value]:
                    return [float(value)]
                case "vector", series:
                    return [float(each["value"][1]) for each in series]
                case kind, _:
                    raise _NoAnswerError(NoReading.REFUSED, f"a {kind}, expected one number: an instant query")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise _NoAnswerError(NoReading.REFUSED, f"no answer of Prometheus: {_clipped(error)}") from error

    def _response(self, query: str) -> requests.Response:
        with requests.Session() as session:
            # Neither a proxy nor a password of the process's environment is meant for this server.
            session.trust_env = False
            try:
                return session.post(
                    f"{self.url.rstrip('/')}/api/v1/query",
                    data={"query": query, "timeout": f"{READ_S:g}s"},
                    timeout=(CONNECT_S, READ_S),
                    # A redirect would hand the queries to a host that nobody configured.
                    allow_redirects=False,
                )
            except requests.Timeout as error:
                raise _NoAnswerError(NoReading.TIMEOUT, f"no answer within {READ_S:g} s") from error
            except requests.RequestException as error:
                raise _NoAnswerError(NoReading.UNAVAILABLE, _clipped(error)) from error


def _document(response: requests.Response) -> dict[str, Any]:
    """Return the answer as data; raises for a redirect and for everything that Prometheus does not call a success."""
    if response.is_redirect:
        raise _NoAnswerError(NoReading.REFUSED, f"{response.status_code}: a redirect, which is not followed")
    try:
        answer = response.json()
    except ValueError as error:
        raise _NoAnswerError(NoReading.REFUSED, f"{response.status_code} without JSON") from error
    if not isinstance(answer, dict) or answer.get("status") != "success" or not response.ok:
        said = answer.get("error") if isinstance(answer, dict) else answer
        kind = answer.get("errorType") if isinstance(answer, dict) else None
        reason = NoReading.TIMEOUT if kind == "timeout" else NoReading.REFUSED
        raise _NoAnswerError(reason, f"{response.status_code}: {_clipped(said)}")
    return answer


def _quoted(text: str) -> str:
    r"""Return `text` as it stands inside a double-quoted string of PromQL.

    >>> print(_quoted('a"b\\c'))
    a\"b\\c
    """
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _clipped(found: object) -> str:
    text = " ".join(str(found).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
