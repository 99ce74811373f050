"""Drills: a kill that changes no answer travels to every router, and how long that took is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.control.killing import KillWish, lift, order_kill
from seatrial.control.observing import seconds_to
from seatrial.ledger import Record
from seatrial.routing import KillMode, KillScope

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from seatrial.ports import Ports
    from seatrial.routing import Kill


@dataclass(frozen=True, slots=True)
class Drill:
    """How far a drill has come."""

    kill: Kill
    seconds: Mapping[str, float]  #: by router, from the order to its snapshot
    missing: tuple[str, ...]  #: routers that have not taken it

    @property
    def is_complete(self) -> bool:
        """Whether every router took it; no router at all took nothing."""
        return bool(self.seconds) and not self.missing


def begin_drill(ports: Ports, decision_point: str, *, reason: str, actor: str, now: datetime) -> Kill:
    """Order a kill that changes no answer and return it; one that is under way is returned."""
    wish = KillWish(KillScope.DECISION_POINT, KillMode.SAFE_FALLBACK, reason, actor, is_drill=True)
    return order_kill(ports, decision_point, wish, now=now)


def seen(ports: Ports, decision_point: str, kill: Kill) -> Drill:
    """Return which routers took the drill, and how fast."""
    reports = ports.store.reports(decision_point)
    seconds = seconds_to(kill, reports)
    return Drill(kill, seconds, tuple(sorted(report.router for report in reports if report.router not in seconds)))


def end_drill(ports: Ports, decision_point: str, drill: Drill, *, actor: str, now: datetime) -> None:
    """Record what a drill found, complete or not, and take its order back."""
    body = {
        "kill": drill.kill.id,
        "is_complete": drill.is_complete,
        "seconds": {router: f"{seconds:.3f}" for router, seconds in sorted(drill.seconds.items())},
        "missing": list(drill.missing),
    }
    key = f"{decision_point}/kill/{drill.kill.id}/drilled"
    ports.store.append([Record(now, "kill.drilled", actor, decision_point, None, key, body)])
    lift(ports, decision_point, drill.kill.id, reason="the drill is over", actor=actor, now=now)
