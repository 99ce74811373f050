"""In-process router: holds the last good snapshot, assigns by it, and reports what it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.errors import NotFoundError, TamperedError, UnavailableError
from seatrial.ports import RouterReport
from seatrial.routing import Assignment, RoutingSnapshot, assign

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from seatrial.ports import Snapshots


class InProcessRouter:
    """Assigns units of one decision point inside the process that serves them."""

    def __init__(self, name: str, snapshots: Snapshots, decision_point: str) -> None:
        self._name = name
        self._snapshots = snapshots
        self._decision_point = decision_point
        self._held: RoutingSnapshot | None = None

    @property
    def snapshot(self) -> RoutingSnapshot:
        """The snapshot it assigns by; raises UnavailableError before the first one was read."""
        if self._held is None:
            raise UnavailableError(
                f"router {self._name!r}: no snapshot of {self._decision_point!r} yet; call refresh once it is published"
            )
        return self._held

    def refresh(self, *, now: datetime) -> bool:
        """Take the published snapshot if it is newer, and report what is served; return whether anything was read.

        A store that does not answer, or holds a malformed snapshot, leaves the last good one in force; its lease ends
        the experiment by itself.
        """
        try:
            published = self._snapshots.snapshot(self._decision_point)
            if published.decision_point == self._decision_point and (
                self._held is None or published.is_newer_than(self._held)
            ):
                self._held = published
            self._report(now=now)
        except (UnavailableError, NotFoundError, TamperedError):
            return False
        return True

    def _report(self, *, now: datetime) -> None:
        held = self.snapshot
        self._snapshots.report(
            RouterReport(self._name, self._decision_point, held.number, now, held.fallback, held.lease_until)
        )

    def assign(self, unit_key: str, attributes: Mapping[str, str], *, now: datetime) -> Assignment:
        """Return who answers `unit_key` at `now`."""
        return assign(self.snapshot, unit_key, attributes, now=now)
