"""What Envoy says of itself: the configuration it took, what it refused, and what it counted."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import requests

from seatrial.adapters.envoy.bootstrap import LISTENER, ROUTES
from seatrial.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROUTES, _CLUSTERS = f"http.{LISTENER}.rds.{ROUTES}", "cluster_manager.cds"
_NAMES = ("version_text", "update_rejected", "update_failure", "upstream_rq_total", "upstream_rq_pending_overflow")
_ASKED = rf"^({re.escape(_ROUTES)}|{re.escape(_CLUSTERS)}|cluster)\..*({'|'.join(_NAMES)})$"


@dataclass(frozen=True, slots=True)
class Taken:
    """One kind of configuration as Envoy has it."""

    version: str  #: of what it serves; empty before the first
    refused: int  #: configurations it did not take since it started, torn files among them


@dataclass(frozen=True, slots=True)
class Actual:
    """What Envoy serves now."""

    routes: Taken
    clusters: Taken
    totals: Mapping[str, int] = field(default_factory=dict)  #: requests by cluster, since Envoy started
    shed: Mapping[str, int] = field(default_factory=dict)  #: requests that a full cluster turned away


class Admin:
    """Envoy's administration on loopback."""

    def __init__(self, port: int, *, answer_s: float = 5.0) -> None:
        self._url = f"http://127.0.0.1:{port}"
        self._answer_s = answer_s
        self._session = requests.Session()
        self._session.trust_env = False

    def read(self) -> Actual:
        """Return what Envoy serves; raises UnavailableError when it does not answer."""
        try:
            answer = self._session.get(
                f"{self._url}/stats", params={"format": "json", "filter": _ASKED}, timeout=self._answer_s
            )
            answer.raise_for_status()
            found = {each["name"]: each["value"] for each in answer.json()["stats"] if "name" in each}
        except (requests.RequestException, ValueError, KeyError, TypeError) as error:
            raise UnavailableError(f"Envoy at {self._url}: no answer ({type(error).__name__}); start it") from error
        return Actual(
            _taken(found, _ROUTES), _taken(found, _CLUSTERS), _each(found, "total"), _each(found, "pending_overflow")
        )

    def close(self) -> None:
        """Give the connections back."""
        self._session.close()


def _taken(found: Mapping[str, object], prefix: str) -> Taken:
    counted = [found.get(f"{prefix}.update_{name}", 0) for name in ("rejected", "failure")]
    refused = sum(value for value in counted if isinstance(value, int))
    return Taken(str(found.get(f"{prefix}.version_text", "")), refused)


def _each(found: Mapping[str, object], name: str) -> dict[str, int]:
    ending = f".upstream_rq_{name}"
    return {
        key.removeprefix("cluster.").removesuffix(ending): value
        for key, value in found.items()
        if key.startswith("cluster.") and key.endswith(ending) and isinstance(value, int)
    }
