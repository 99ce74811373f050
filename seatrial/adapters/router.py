"""In-process router: holds the last good snapshot, assigns by it, and reports what it serves."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from threading import Lock
from typing import TYPE_CHECKING

from seatrial.errors import NotFoundError, TamperedError, UnavailableError
from seatrial.ports import RouterReport
from seatrial.routing.compiled import compiled
from seatrial.routing.signing import require_signed

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from seatrial.gates.load import ShadowLoad
    from seatrial.ports import SnapshotFeed
    from seatrial.routing import Assignment, RoutingSnapshot
    from seatrial.routing.compiled import Assign
    from seatrial.routing.signing import CheckingKey


class InProcessRouter:
    """Assigns units of one decision point inside the process that serves them.

    With `keys` it takes only what one of them has signed.
    """

    def __init__(
        self, name: str, feed: SnapshotFeed, decision_point: str, keys: Mapping[str, CheckingKey] | None = None
    ) -> None:
        self._name = name
        self._feed = feed
        self._decision_point = decision_point
        self._keys = keys
        self._held: RoutingSnapshot | None = None
        self._assign = _unready(name, decision_point)
        self._taken_at: datetime | None = None
        self._served: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._counting = Lock()

    @property
    def name(self) -> str:
        """Name of the router, unique on its decision point."""
        return self._name

    @property
    def snapshot(self) -> RoutingSnapshot:
        """The snapshot it assigns by; raises UnavailableError before the first one was read."""
        if self._held is None:
            raise _missing(self._name, self._decision_point)
        return self._held

    @property
    def refused(self) -> Mapping[str, int]:
        """How many snapshots were not taken, by reason."""
        return dict(self._refused)

    def refresh(self, *, now: datetime, shadow: ShadowLoad | None = None) -> bool:
        """Take the published snapshot if it is newer, and report what is served; return whether anything was read.

        A feed that does not answer, or gives what is no sound snapshot, leaves the last good one in force; its lease
        ends the experiment by itself. `shadow` is what copies cost lately, for the report.
        """
        is_read = self.take(now=now)
        with suppress(UnavailableError):
            self.report(now=now, shadow=shadow)
            return is_read
        return False

    def take(self, *, now: datetime) -> bool:
        """Take the published snapshot if it is newer and sound; return whether anything was read."""
        try:
            published = self._feed.snapshot(self._decision_point)
        except TamperedError:
            self._refused["malformed"] += 1
            return False
        except (UnavailableError, NotFoundError):
            return False
        if (flaw := self._flaw(published)) is not None:
            self._refused[flaw] += 1
        elif self._held is None or published.is_newer_than(self._held):
            if self._held is None or published.number != self._held.number:
                with self._counting:
                    self._served = Counter()
                self._taken_at = now
            self._held = published
            self._assign = compiled(published)
        return True

    def _flaw(self, published: RoutingSnapshot) -> str | None:
        """Return why `published` must not be taken; None when it may, or is the one that is held."""
        if published.decision_point != self._decision_point:
            return "of another decision point"
        if self._keys is not None:
            try:
                require_signed(published, self._keys)
            except TamperedError:
                return "not signed by a known key"
        if self._held is None or published.is_newer_than(self._held):
            is_fork = self._held is not None and published.number == self._held.number
            return "another one of the same number" if is_fork and published.digest != self.snapshot.digest else None
        return "older" if self._held.is_newer_than(published) else None

    def report(self, *, now: datetime, shadow: ShadowLoad | None = None) -> None:
        """Say what is served; raises UnavailableError before the first snapshot, or when nobody listens."""
        held = self.snapshot
        with self._counting:
            served = dict(self._served)
        self._feed.report(
            RouterReport(
                self._name,
                self._decision_point,
                held.number,
                now,
                held.fallback,
                held.lease_until,
                shadow,
                served,
                dict(self._refused),
                self._taken_at,
            )
        )

    def assign(self, unit_key: str, attributes: Mapping[str, str], *, now: datetime) -> Assignment:
        """Return who answers `unit_key` at `now`."""
        assigned = self._assign(unit_key, attributes, now)
        with self._counting:
            self._served[assigned.release_id] += 1
        return assigned


def _missing(name: str, decision_point: str) -> UnavailableError:
    return UnavailableError(
        f"router {name!r}: no snapshot of {decision_point!r} yet; call refresh once it is published"
    )


def _unready(name: str, decision_point: str) -> Assign:
    """Return what assigns nobody before the first snapshot was read."""

    def assign(_unit_key: str, _attributes: Mapping[str, str], _now: datetime) -> Assignment:
        raise _missing(name, decision_point)

    return assign
