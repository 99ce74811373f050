"""The few calls to a Prefect server that the command line needs, over its REST interface.

The core does not import Prefect: whoever starts a rollout or answers a question from a terminal needs only the
server's address.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests

from seatrial.errors import NotFoundError, RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class PrefectApi:
    """A Prefect server at `url`, such as ``http://127.0.0.1:4200/api``."""

    url: str
    auth: str | None = None  #: ``user:password`` when the server asks for one

    def start(self, deployment: str, parameters: Mapping[str, object]) -> str:
        """Start a flow run of `deployment`, written ``flow/deployment``, and return its id.

        Raises NotFoundError for an unknown deployment, RefusedError when the server refuses the parameters,
        UnavailableError when it does not answer.
        """
        found = self._call("GET", f"/deployments/name/{deployment}")
        run = self._call("POST", f"/deployments/{found['id']}/create_flow_run", {"parameters": dict(parameters)})
        return str(run["id"])

    def flow_run(self, flow_run_id: str) -> dict[str, Any]:
        """Return a flow run as the server describes it."""
        return self._call("GET", f"/flow_runs/{flow_run_id}")

    def answer(self, flow_run_id: str, filled: Mapping[str, object]) -> None:
        """Resume a suspended flow run with a filled-in form; raises RefusedError with the server's reason."""
        result = self._call("POST", f"/flow_runs/{flow_run_id}/resume", {"run_input": dict(filled)})
        if result["status"] != "ACCEPT":
            reason = (result.get("details") or {}).get("reason", "no reason given")
            raise RefusedError(f"flow run {flow_run_id}: the answer was refused: {reason}")

    def set_schedules(self, deployment: str, *, active: bool) -> None:
        """Switch every schedule of `deployment` on or off."""
        found = self._call("GET", f"/deployments/name/{deployment}")
        for schedule in found["schedules"]:
            self._call("PATCH", f"/deployments/{found['id']}/schedules/{schedule['id']}", {"active": active})

    def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, Any]:
        user, _, password = (self.auth or "").partition(":")
        credentials = (user, password) if self.auth is not None else None
        try:
            response = requests.request(method, f"{self.url}{path}", json=body, auth=credentials, timeout=_TIMEOUT_S)
        except requests.RequestException as error:
            raise UnavailableError(
                f"{self.url}: the Prefect server did not answer; start it, then try again"
            ) from error
        if response.status_code == requests.codes.not_found:
            raise NotFoundError(f"{self.url}{path}: not known to the Prefect server; run `prefect deploy --all`")
        if not response.ok:
            raise RefusedError(f"{self.url}{path}: {response.status_code} {response.text[:500]}")
        answer: dict[str, Any] = response.json() if response.content else {}
        return answer
