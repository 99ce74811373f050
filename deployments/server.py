"""The Prefect server of a stack: its settings and the few questions the stack asks it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

import requests

from deployments.processes import LOOPBACK
from seatrial.errors import UnavailableError

#: the work pool that prefect.yaml names
WORK_POOL: Final = "seatrial"

_ANSWER_S = 5.0
_JOB_TEMPLATE = Path(__file__).parent / "process-pool.json"


@dataclass(frozen=True, slots=True)
class Server:
    """One Prefect server on loopback, running or about to."""

    port: int
    #: SQLAlchemy address of its database, with the asyncpg driver
    database_url: str
    #: `user:password` it demands; None demands nothing
    auth: str | None

    @property
    def ui_url(self) -> str:
        """Address of the UI for a browser on this machine."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"{self.ui_url}/api"

    def client_settings(self) -> dict[str, str]:
        """Return the variables that lead Prefect's clients and workers here."""
        settings = {
            "DO_NOT_TRACK": "1",
            "PREFECT_API_URL": self.api_url,
            "PREFECT_CLI_PROMPT": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "PREFECT_WORKER_PREFETCH_SECONDS": "2",
            # The least that Prefect allows: a dead flow process is known after three missed beats.
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        }
        return settings if self.auth is None else {**settings, "PREFECT_API_AUTH_STRING": self.auth}

    def server_settings(self) -> dict[str, str]:
        """Return the variables for the server alone: no flow run needs the password of its database."""
        settings = {
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database_url,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            # Prefect forgets events after a week by itself, and flow runs, after 90 days, only when told to.
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
        }
        return settings if self.auth is None else {**settings, "PREFECT_SERVER_API_AUTH_STRING": self.auth}

    def is_ready(self) -> bool:
        """Whether the server and its database answer."""
        try:
            return self._request("GET", "/ready").ok
        except UnavailableError:
            return False

    def create_work_pool(self) -> None:
        """Create the work pool `WORK_POOL`, or give the one that exists today's job template.

        Raises
        ------
        UnavailableError
            The server did not answer, or refused.
        """
        template = json.loads(_JOB_TEMPLATE.read_text())
        pool = {"name": WORK_POOL, "type": "process", "base_job_template": template}
        answer = self._request("POST", "/work_pools/", pool)
        if answer.status_code == requests.codes.conflict:
            answer = self._request("PATCH", f"/work_pools/{WORK_POOL}", {"base_job_template": template})
        if not answer.ok:
            raise UnavailableError(
                f"work pool {WORK_POOL!r}: the server answered {answer.status_code}; expected it to be made; "
                f"read its reason: {answer.text}"
            )

    def has_heard_worker(self, *, since: datetime) -> bool:
        """Whether any worker of the pool has reported at or after `since` (aware)."""
        try:
            answer = self._request("POST", f"/work_pools/{WORK_POOL}/workers/filter", {})
        except UnavailableError:
            return False
        beats = [worker["last_heartbeat_time"] for worker in answer.json()] if answer.ok else []
        return any(datetime.fromisoformat(beat) >= since for beat in beats if beat)

    def _request(self, method: str, path: str, body: object = None) -> requests.Response:
        with requests.Session() as session:
            # A proxy named in the caller's environment does not reach this machine's loopback.
            session.trust_env = False
            if self.auth is not None:
                user, _, password = self.auth.partition(":")
                session.auth = (user, password)
            try:
                return session.request(method, f"{self.api_url}{path}", json=body, timeout=_ANSWER_S)
            except requests.RequestException as error:
                raise UnavailableError(
                    f"{self.api_url}{path}: {error}; expected an answer within {_ANSWER_S:g} s; read the server's log"
                ) from error
