"""Serve decisions in process: assign, score, apply the policy, log; fall back when a release fails."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from seatrial.adapters.decisions import (
    Answered,
    Decided,
    Unit,
    assigned,
    copied,
    deciding,
    failed,
    missing,
    recommended,
    row_of,
)
from seatrial.adapters.scoring import Scorer, load_scorer
from seatrial.routing import parts_of
from seatrial.units import digest_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from seatrial.adapters.decisions import Concluded
    from seatrial.adapters.log_intake import DecisionLog
    from seatrial.adapters.router import InProcessRouter
    from seatrial.ports import Releases
    from seatrial.release import Release
    from seatrial.routing import Parts

__all__ = ["Decided", "DecisionService"]


class DecisionService:
    """Answers units of one decision point with the release that the router assigns."""

    def __init__(self, router: InProcessRouter, releases: Releases, log: DecisionLog) -> None:
        self._router = router
        self._releases = releases
        self._log = log
        self._loaded: dict[str, tuple[Release, Parts, Scorer | None]] = {}

    def decide(
        self,
        unit_key: str,
        attributes: Mapping[str, str],
        features: Mapping[str, float],
        *,
        now: datetime,
    ) -> Decided:
        """Return the action for one unit at `now`, and log how it came about.

        `deciding` says who answers, and for whom the fallback does. The action is None when the decision point is
        killed in the mode that refuses.
        """
        unit = Unit(unit_key, attributes, features)
        snapshot, assignment = assigned(self._router, unit, now=now)
        decision_id = digest_bytes(f"{snapshot.decision_point}\n{unit_key}\n{now.isoformat()}".encode())[7:39]
        steps = deciding(snapshot, assignment, unit, self._parts, decision_id=decision_id, now=now)
        try:
            asked = next(steps)
            while True:
                asked = steps.send(self._ask(asked, unit))
        except StopIteration as done:
            concluded: Concluded = done.value
        decided, entry, shadow = concluded
        self._log.decision(row_of(entry, snapshot.decision_point))
        if shadow is not None:
            self._log.decision(row_of(copied(entry, shadow, self._ask(shadow, unit)), snapshot.decision_point))
        return decided

    def _ask(self, release_id: str, unit: Unit) -> Answered:
        release, parts, scorer = self._load(release_id)
        misses = missing((column.name for column in release.features.columns), unit.features)
        started = perf_counter()
        if scorer is None:
            return failed(parts, unit, "error", latency_ms=_since(started), misses=misses)
        try:
            score = scorer.score(unit.features)
        except Exception:  # noqa: BLE001 edge of a service: whatever a model raises is its failure, and is logged
            return failed(parts, unit, "error", latency_ms=_since(started), misses=misses)
        latency_ms = _since(started)
        if latency_ms > parts.timeout_ms:
            return failed(parts, unit, "timeout", latency_ms=latency_ms, misses=misses, score=score)
        return recommended(parts, unit, score, latency_ms=latency_ms, misses=misses)

    def _parts(self, release_id: str) -> Parts:
        return self._load(release_id)[1]

    def _load(self, release_id: str) -> tuple[Release, Parts, Scorer | None]:
        """Return a release with its scorer, loaded once; without one when the artifact cannot be loaded."""
        if release_id not in self._loaded:
            registered = self._releases.release(release_id)
            try:
                scorer: Scorer | None = load_scorer(registered.release, registered.location)
            except Exception:  # noqa: BLE001 edge of a service: an artifact that does not load never answers
                scorer = None
            self._loaded[release_id] = (registered.release, parts_of(registered.release), scorer)
        return self._loaded[release_id]


def _since(started: float) -> float:
    return (perf_counter() - started) * 1_000.0
