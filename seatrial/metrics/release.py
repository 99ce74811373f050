"""How rollouts go: how long they take, what ends them, and how fast a bad one is out."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from seatrial.control.watching import SWEEP
from seatrial.gates.finding import Question
from seatrial.metrics.families import Absence
from seatrial.metrics.seen import is_stale, metric
from seatrial.rollout import FINAL, RETURNING, State
from seatrial.units import parse_time
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from seatrial.ledger import Record
    from seatrial.metrics.seen import Metric, Seen
    from seatrial.ports import Store
    from seatrial.rollout import Rollout

OPEN, PROMOTED, ROLLED_BACK, REJECTED = "open", "promoted", "rolled_back", "rejected"
_OUTCOMES = {
    State.CHAMPION: PROMOTED,
    State.SUPERSEDED: PROMOTED,
    State.RETIRED: PROMOTED,
    State.ROLLING_BACK: ROLLED_BACK,
    State.ROLLBACK_INCOMPLETE: ROLLED_BACK,
    State.ROLLED_BACK: ROLLED_BACK,
    State.REJECTED: REJECTED,
}


def of_watch(store: Store, *, now: datetime) -> Metric:
    """Return how long ago the watch finished a round."""
    last = store.last_beat(SWEEP)
    return metric("watch_age_seconds", Absence.NOT_YET if last is None else (now - last).total_seconds())


def of_point(decision_point: str, rollouts: Iterable[Rollout]) -> Iterator[Metric]:
    """Return how all `rollouts` of a decision point ended; a count of the store that is zero is a zero."""
    counted = Counter(outcome_of(rollout) for rollout in rollouts)
    for outcome in (OPEN, PROMOTED, ROLLED_BACK, REJECTED):
        yield metric("rollouts", counted[outcome], decision_point=decision_point, outcome=outcome)
    ended = counted.total() - counted[OPEN]
    ratio = counted[ROLLED_BACK] / ended if ended else Absence.NOT_YET
    yield metric("rollback_ratio", ratio, decision_point=decision_point)


def outcome_of(rollout: Rollout) -> str:
    """Return what became of `rollout` so far."""
    return _OUTCOMES.get(rollout.state, OPEN)


def of_rollout(seen: Seen) -> Iterator[Metric]:
    """Return what the ledger says about the course of one rollout."""
    rollout, place = seen.rollout, seen.place
    yield metric(
        "rollout_info",
        1.0,
        **place,
        champion=rollout.champion,
        challenger=rollout.challenger,
        state=rollout.state.value,
        stage=seen.plan.stage_names()[rollout.stage],
    )
    decided = [entry.record for entry in seen.entries if entry.record.kind == "rollout.decided"]
    promoted, returning, returned = (
        _first(decided, state) for state in (State.CHAMPION, State.ROLLING_BACK, State.ROLLED_BACK)
    )
    yield metric("lead_time_seconds", _lead_time(seen, promoted), **place)
    yield metric("rollback_seconds", _since(seen, returning, returned), **place)
    yield metric("rollback_pending_seconds", _pending(seen, returning), **place)
    yield metric("approval_age_seconds", _asked(seen), **place)
    yield from _end(seen, returning or _first(decided, State.REJECTED))
    yield from _of_look(seen)


def _first(decided: Iterable[Record], state: State) -> Record | None:
    return next((record for record in decided if record.body["to"] == state.value), None)


def _open_or_never(seen: Seen) -> Absence:
    return Absence.NEVER if seen.rollout.state in FINAL else Absence.NOT_YET


def _lead_time(seen: Seen, promoted: Record | None) -> float | Absence:
    if promoted is None:
        return Absence.NEVER if seen.rollout.state in RETURNING else _open_or_never(seen)
    if seen.challenger is None:
        return Absence.NO_REFERENCE
    return (promoted.at - seen.challenger.registered_at).total_seconds()


def _since(seen: Seen, begun: Record | None, done: Record | None) -> float | Absence:
    if begun is None or done is None:
        return _open_or_never(seen)
    return (done.at - begun.at).total_seconds()


def _pending(seen: Seen, begun: Record | None) -> float | Absence:
    if begun is None or seen.rollout.state not in RETURNING:
        return _open_or_never(seen)
    return (seen.now - begun.at).total_seconds()


def _asked(seen: Seen) -> float | Absence:
    if seen.rollout.state not in (State.AWAITING_APPROVAL, State.AWAITING_DECISION):
        return _open_or_never(seen)
    return (seen.now - seen.rollout.entered_at).total_seconds()


def _end(seen: Seen, ended: Record | None) -> Iterator[Metric]:
    """Return what ended the rollout, and how long harm went unseen if it was harm."""
    if ended is None:
        yield metric("gate_fail_cause_info", _open_or_never(seen), **seen.place)
        yield metric("time_to_detect_seconds", _open_or_never(seen), **seen.place)
        return
    cause, subject = cause_of(seen, ended)
    outcome = REJECTED if ended.body["to"] == State.REJECTED.value else ROLLED_BACK
    yield metric("gate_fail_cause_info", 1.0, **seen.place, outcome=outcome, cause=cause, subject=subject)
    since = _exposed_since(seen)
    is_harm = cause == Question.HARM.value
    found = (ended.at - since).total_seconds() if is_harm and since is not None else Absence.NEVER
    yield metric("time_to_detect_seconds", found, **seen.place)


def cause_of(seen: Seen, ended: Record) -> tuple[str, str]:
    """Return the question that failed with its subject; or answer, deadline or request, about nothing."""
    for finding in ended.body["findings"]:
        is_failed = finding["verdict"] == Verdict.FAIL.name and finding["is_binding"]
        if is_failed and finding["reason"] == ended.body["reason"]:
            return finding["question"], finding["subject"]
    if "answer" in ended.body:
        return "answer", ""
    deadline = _deadline_before(seen, ended)
    return ("deadline" if deadline is not None and ended.at >= deadline else "request"), ""


def _deadline_before(seen: Seen, ended: Record) -> datetime | None:
    """Return by when the stage that `ended` left had to be decided."""
    text: str | None = None
    for entry in seen.entries:
        body: Any = entry.record.body
        if entry.record is ended:
            break
        if entry.record.kind in ("rollout.started", "rollout.decided"):
            text = body["deadline"]
    return None if text is None else parse_time(text)


def _exposed_since(seen: Seen) -> datetime | None:
    """Return when routers were first seen to serve a share of the challenger; None when they never were."""
    records: Sequence[Record] = [entry.record for entry in seen.entries]
    given = {
        record.body["number"]
        for record in records
        if record.kind in ("share.intended", "share.corrected") and record.body["slots"]
    }
    return next((r.at for r in records if r.kind == "share.observed" and r.body["number"] in given), None)


def _of_look(seen: Seen) -> Iterator[Metric]:
    """Return how old the last look is, and what it found."""
    look, place = seen.look, seen.place
    if look is None:
        yield metric("evidence_age_seconds", Absence.NO_EVIDENCE, **place)
        yield metric("findings", Absence.NO_EVIDENCE, **place)
        return
    yield metric("evidence_age_seconds", (seen.now - look.at).total_seconds(), **place)
    if is_stale(seen.rollout, seen.plan, look, now=seen.now):
        yield metric("findings", Absence.STALE, **place)
        return
    counted = Counter((finding.question, finding.verdict) for finding in look.findings if finding.is_binding)
    for question in sorted({question for question, _ in counted}):
        for verdict in Verdict:
            count = counted[question, verdict]
            yield metric("findings", count, **place, question=question.value, verdict=verdict.name)
