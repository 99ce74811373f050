"""Serve decisions in process: assign, score, apply the policy, log; fall back when the challenger fails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any

from seatrial.adapters.scoring import Scorer, load_scorer
from seatrial.routing import assign
from seatrial.units import canonical, digest_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from seatrial.adapters.log_intake import DecisionLog
    from seatrial.adapters.router import InProcessRouter
    from seatrial.ports import Releases
    from seatrial.release import Release
    from seatrial.routing import Assignment, RoutingSnapshot


@dataclass(frozen=True, slots=True)
class Answered:
    """What one release made of one unit."""

    outcome: str  #: ok, timeout or error
    latency_ms: float
    score: float | None = None
    cut_off: float | None = None
    rule: str | None = None
    action: str | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """What callers are told."""

    decision_id: str  #: names the decision when its label arrives
    action: str


class DecisionService:
    """Answers units of one decision point with the release that the router assigns."""

    def __init__(self, router: InProcessRouter, releases: Releases, log: DecisionLog) -> None:
        self._router = router
        self._releases = releases
        self._log = log
        self._loaded: dict[str, tuple[Release, Scorer | None]] = {}

    def decide(
        self,
        unit_key: str,
        attributes: Mapping[str, str],
        features: Mapping[str, float],
        *,
        now: datetime,
    ) -> Decided:
        """Return the action for one unit at `now`, and log how it came about.

        A challenger that fails is answered for by the fallback release, and the failure stays the challenger's: the
        log keeps the arm that was assigned. When the fallback fails too, its policy's safe action is taken.
        """
        # Held, for a refresh in another thread would log the stage of another snapshot.
        snapshot = self._router.snapshot
        assignment = assign(snapshot, unit_key, attributes, now=now)
        answered = self._ask(assignment.release_id, attributes, features)
        outcome, taken = answered.outcome, answered.action
        if taken is None:
            rescue = self._ask(snapshot.fallback, attributes, features)
            taken = rescue.action or self._release(snapshot.fallback).policy.safe_action
            outcome = "fallback" if assignment.release_id != snapshot.fallback else answered.outcome
        decision_id = digest_bytes(f"{snapshot.decision_point}\n{unit_key}\n{now.isoformat()}".encode())[7:39]
        shared = self._row(decision_id, unit_key, attributes, features, snapshot, assignment, now=now)
        self._log.decision({**shared, **_answer(answered), "outcome": outcome, "action_taken": taken})
        if assignment.shadow_release_id is not None:
            copy = self._ask(assignment.shadow_release_id, attributes, features)
            seen = {"release_id": assignment.shadow_release_id, "arm": "shadow", "outcome": copy.outcome}
            self._log.decision({**shared, **_answer(copy), **seen, "authority": "OBSERVE", "action_taken": None})
        return Decided(decision_id, taken)

    def _row(
        self,
        decision_id: str,
        unit_key: str,
        attributes: Mapping[str, str],
        features: Mapping[str, float],
        snapshot: RoutingSnapshot,
        assignment: Assignment,
        *,
        now: datetime,
    ) -> dict[str, Any]:
        release = self._release(assignment.release_id)
        return {
            **attributes,
            "decision_id": decision_id,
            "ts": now,
            "decision_point": snapshot.decision_point,
            "rollout_id": snapshot.rollout_id,
            "snapshot_no": assignment.snapshot_no,
            "stage": snapshot.stage,
            "release_id": assignment.release_id,
            "arm": assignment.arm.value,
            "share": assignment.share,
            "segment": release.segments.segment_of(attributes),
            "unit_key": unit_key,
            "feature_digest": digest_bytes(canonical({k: repr(v) for k, v in features.items()})),
            "authority": release.policy.authority.name,
            "feature_misses": sum(math.isnan(features.get(c.name, math.nan)) for c in release.features.columns),
        }

    def _ask(self, release_id: str, attributes: Mapping[str, str], features: Mapping[str, float]) -> Answered:
        release, scorer = self._load(release_id)
        started = perf_counter()
        if scorer is None:
            return Answered("error", _since(started))
        try:
            score = scorer.score(features)
            recommended = release.decide(score, release.segments.segment_of(attributes))
        except Exception:  # noqa: BLE001 edge of a service: whatever a model raises is its failure, and is logged
            return Answered("error", _since(started))
        latency_ms = _since(started)
        if latency_ms > release.limits.timeout_ms:
            return Answered("timeout", latency_ms, score)
        return Answered("ok", latency_ms, score, recommended.cut_off, recommended.rule, recommended.action)

    def _release(self, release_id: str) -> Release:
        return self._load(release_id)[0]

    def _load(self, release_id: str) -> tuple[Release, Scorer | None]:
        """Return a release with its scorer, loaded once; without one when the artifact cannot be loaded."""
        if release_id not in self._loaded:
            registered = self._releases.release(release_id)
            try:
                scorer: Scorer | None = load_scorer(registered.release, registered.location)
            except Exception:  # noqa: BLE001 edge of a service: an artifact that does not load never answers
                scorer = None
            self._loaded[release_id] = (registered.release, scorer)
        return self._loaded[release_id]


def _since(started: float) -> float:
    return (perf_counter() - started) * 1_000.0


def _answer(answered: Answered) -> dict[str, Any]:
    return {
        "score": answered.score,
        "cut_off": answered.cut_off,
        "rule": answered.rule,
        "action_recommended": answered.action,
        "latency_ms": answered.latency_ms,
    }
