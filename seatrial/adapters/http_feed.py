"""Snapshots over HTTP, asked for with the version that is held, so that an answer comes when there is another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import requests

from seatrial.adapters.reports import report_document
from seatrial.errors import NotFoundError, TamperedError, UnavailableError
from seatrial.routing.signing import unsealed

if TYPE_CHECKING:
    from seatrial.ports import RouterReport
    from seatrial.routing import RoutingSnapshot

#: Seconds after which a server that says nothing does not answer.
ANSWER_S = 5.0


class HttpFeed:
    """A snapshot server at `url`, such as ``http://127.0.0.1:8100``.

    With `wait_s` above 0 the server answers when there is a newer snapshot, at the latest after that time. One feed
    serves one thread.
    """

    def __init__(self, url: str, *, wait_s: float = 0.0, answer_s: float = ANSWER_S) -> None:
        self._url = url.rstrip("/")
        self._wait_s = wait_s
        self._answer_s = answer_s
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment is not on the way to a control plane
        self._held: dict[str, tuple[str, RoutingSnapshot]] = {}

    def snapshot(self, decision_point: str) -> RoutingSnapshot:
        """Return the present snapshot; raises NotFoundError, UnavailableError or TamperedError."""
        place = f"{self._url}/snapshots/{decision_point}"
        tag, held = self._held.get(decision_point, ("", None))
        headers = {"If-None-Match": tag} if held is not None else {}
        wait = {"wait": f"{self._wait_s:g}"} if held is not None and self._wait_s else {}
        patience = (self._answer_s, self._answer_s + (self._wait_s if wait else 0.0))
        try:
            answer = self._session.get(place, headers=headers, params=wait, timeout=patience, allow_redirects=False)
        except requests.RequestException as error:
            raise UnavailableError(f"{place}: no answer ({type(error).__name__}); start the server") from error
        match answer.status_code:
            case requests.codes.not_modified if held is not None:
                return held
            case requests.codes.not_found:
                raise NotFoundError(f"decision point {decision_point!r}: {self._url} does not know it")
            case requests.codes.ok:
                snapshot = _read(answer, place)
                self._held[decision_point] = (answer.headers.get("ETag", ""), snapshot)
                return snapshot
        raise UnavailableError(f"{place}: found HTTP {answer.status_code}; expected a snapshot; look at the server")

    def report(self, report: RouterReport) -> None:
        """Say what a router serves; raises UnavailableError when the server does not take it."""
        place = f"{self._url}/reports"
        try:
            answer = self._session.post(
                place, json=report_document(report), timeout=self._answer_s, allow_redirects=False
            )
        except requests.RequestException as error:
            raise UnavailableError(f"{place}: no answer ({type(error).__name__}); start the server") from error
        if answer.status_code != requests.codes.no_content:
            raise UnavailableError(f"{place}: found HTTP {answer.status_code}; expected 204; look at the server")

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()


def _read(answer: requests.Response, place: str) -> RoutingSnapshot:
    try:
        return unsealed(answer.json())
    except (ValueError, RecursionError) as error:
        raise TamperedError(f"{place}: found no sound snapshot ({error}); look at the server") from error
