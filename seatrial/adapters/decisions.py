"""How one decision comes about, whoever asks the models: the order of things, and the row that is logged.

`deciding` asks for nothing by itself. It says which release must answer next and is told what that release made of
the unit, so that a service that waits and one that awaits take the same decisions and log the same rows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from seatrial.routing import Course, Parts, Taken, assign, take
from seatrial.routing.assignment import assign_fallback
from seatrial.routing.deciding import obey
from seatrial.units import canonical, digest_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from datetime import datetime

    from seatrial.adapters.router import InProcessRouter
    from seatrial.routing import Assignment, RoutingSnapshot


class Unit(NamedTuple):
    """What is asked about."""

    key: str
    attributes: Mapping[str, str]  #: what segments and slices are declared on
    features: Mapping[str, float]


class Answered(NamedTuple):
    """What one release made of one unit."""

    outcome: str  #: ok, timeout or error
    latency_ms: float
    segment: str  #: the release's own
    misses: int  #: features that the release reads and that had no value
    score: float | None = None
    cut_off: float | None = None
    rule: str | None = None
    action: str | None = None  #: recommended by the policy; None when the release failed


class Decided(NamedTuple):
    """What callers are told."""

    decision_id: str  #: names the decision when its label arrives
    action: str | None  #: None exactly when the decision point is out of service
    course: Course
    release_id: str  #: whose answer, or whose policy, it is
    snapshot_no: int


class Entry(NamedTuple):
    """What the decision log keeps of one answer, before it is made a row."""

    decision_id: str
    at: datetime
    unit: Unit
    rollout_id: str | None
    snapshot_no: int
    stage: int
    release_id: str
    arm: str
    share: float
    authority: str
    outcome: str
    action_taken: str | None
    answered: Answered


class Concluded(NamedTuple):
    """A decision, and what is logged of it."""

    decided: Decided
    entry: Entry
    shadow_release_id: str | None  #: release that scores a copy


def assigned(router: InProcessRouter, unit: Unit, *, now: datetime) -> tuple[RoutingSnapshot, Assignment]:
    """Return who answers `unit`, with the snapshot that says so: a refresh in another thread may come in between."""
    assignment = router.assign(unit.key, unit.attributes, now=now)
    snapshot = router.snapshot
    if snapshot.number != assignment.snapshot_no:
        assignment = assign(snapshot, unit.key, unit.attributes, now=now)
    return snapshot, assignment


def recommended(parts: Parts, unit: Unit, score: float, *, latency_ms: float, misses: int) -> Answered:
    """Return the answer of a release that gave `score` in time; an error when its output contract excludes that."""
    segment = parts.segments.segment_of(unit.attributes)
    low, high = parts.low, parts.high
    try:
        found = parts.policy.decide(score, segment, within=(low, high))
    except (ValueError, TypeError):
        return Answered("error", latency_ms, segment, misses)
    return Answered("ok", latency_ms, segment, misses, score, found.cut_off, found.rule, found.action)


def failed(
    parts: Parts, unit: Unit, outcome: str, *, latency_ms: float, misses: int, score: float | None = None
) -> Answered:
    """Return the answer of a release that gave none that counts."""
    return Answered(outcome, latency_ms, parts.segments.segment_of(unit.attributes), misses, score)


def missing(names: Iterable[str], features: Mapping[str, float]) -> int:
    """Return how many of `names` have no value."""
    return sum(math.isnan(features.get(name, math.nan)) for name in names)


def deciding(
    snapshot: RoutingSnapshot,
    assignment: Assignment,
    unit: Unit,
    parts_of: Callable[[str], Parts],
    *,
    decision_id: str,
    now: datetime,
) -> Generator[str, Answered, Concluded]:
    """Yield the id of each release that must answer, be sent its answer, and return the decision on what was assigned.

    A release that fails is answered for by the fallback release, and the failure stays its own: the log keeps the arm
    that was assigned. When the fallback fails too, its policy's safe action is taken. A kill outranks all of it.
    """
    release_id = assignment.release_id
    parts = parts_of(release_id)
    if assignment.kill is not None:
        # Nobody was asked; the share of 0 keeps the row out of every comparison.
        taken = obey(parts, assignment.kill)
        answered = failed(parts, unit, "fallback", latency_ms=0.0, misses=0)
        return _concluded(assignment, snapshot, unit, parts, answered, "fallback", taken, release_id, decision_id, now)
    answered = yield release_id
    outcome = answered.outcome
    if answered.action is not None:
        taken, answers = take(parts, answered.action, snapshot.kills), release_id
    else:
        rescue = assign_fallback(snapshot, unit.attributes)
        answers, rescuer = rescue.release_id, parts_of(rescue.release_id)
        if rescue.kill is not None:
            taken = obey(rescuer, rescue.kill)
        elif answers == release_id:
            taken = take(rescuer, None)
        else:
            taken = take(rescuer, (yield answers).action, snapshot.kills)
        if answers != release_id:
            outcome = "fallback"
    return _concluded(assignment, snapshot, unit, parts, answered, outcome, taken, answers, decision_id, now)


def _concluded(
    assignment: Assignment,
    snapshot: RoutingSnapshot,
    unit: Unit,
    parts: Parts,
    answered: Answered,
    outcome: str,
    taken: Taken,
    answers: str,
    decision_id: str,
    now: datetime,
) -> Concluded:
    entry = Entry(
        decision_id,
        now,
        unit,
        snapshot.rollout_id,
        assignment.snapshot_no,
        snapshot.stage,
        assignment.release_id,
        assignment.arm.value,
        assignment.share,
        parts.policy.authority.name,
        outcome,
        taken.action,
        answered,
    )
    decided = Decided(decision_id, taken.action, taken.course, answers, assignment.snapshot_no)
    return Concluded(decided, entry, assignment.shadow_release_id)


def copied(entry: Entry, release_id: str, answered: Answered) -> Entry:
    """Return the entry of a copy that the shadow scored, on which nobody acts."""
    return entry._replace(
        release_id=release_id,
        arm="shadow",
        authority="OBSERVE",
        outcome=answered.outcome,
        action_taken=None,
        answered=answered,
    )


def row_of(entry: Entry, decision_point: str) -> dict[str, Any]:
    """Return the row of the decision log."""
    answered, unit = entry.answered, entry.unit
    return {
        **unit.attributes,
        "decision_id": entry.decision_id,
        "ts": entry.at,
        "decision_point": decision_point,
        "rollout_id": entry.rollout_id,
        "snapshot_no": entry.snapshot_no,
        "stage": entry.stage,
        "release_id": entry.release_id,
        "arm": entry.arm,
        "share": entry.share,
        "segment": answered.segment,
        "unit_key": unit.key,
        "feature_digest": digest_bytes(canonical({name: repr(value) for name, value in unit.features.items()})),
        "score": answered.score,
        "cut_off": answered.cut_off,
        "rule": answered.rule,
        "action_recommended": answered.action,
        "action_taken": entry.action_taken,
        "authority": entry.authority,
        "latency_ms": answered.latency_ms,
        "outcome": entry.outcome,
        "feature_misses": answered.misses,
    }
