"""Rows and plain text for a terminal; the caller prints them as a table or as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.gates.finding import Question
from seatrial.report.findings import assigned_units, counts, decisive, figures, meaning, ranked
from seatrial.report.moves import asked_look, closing, moves
from seatrial.report.wording import (
    headline,
    is_waiting,
    moment,
    name_of,
    next_step,
    percent,
    situation,
    stage_text,
)
from seatrial.rollout import State
from seatrial.units import SLOTS
from seatrial.waiver import waived_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime, timedelta

    from seatrial.gates.finding import Finding
    from seatrial.ledger import Entry, Record
    from seatrial.plan import Plan
    from seatrial.ports import Look
    from seatrial.report.moves import Move
    from seatrial.rollout import Rollout
    from seatrial.routing import RoutingSnapshot


@dataclass(frozen=True, slots=True)
class StatusRow:
    """One rollout at a glance."""

    rollout_id: str
    decision_point: str
    challenger: str  #: its name
    champion: str  #: its name
    state: str
    stage: str  #: "3/8 canary 5 %"
    share: float  #: challenger's share by the routing in force now, in [0, 1]; 0 when its lease is over
    lease_until: datetime | None  #: until when routers keep that share unattended
    in_stage: timedelta  #: time since the state was entered
    deadline: datetime | None
    reason: str


def status_rows(
    rollouts: Iterable[Rollout],
    plans: Mapping[str, Plan],
    names: Mapping[str, str],
    snapshots: Mapping[str, RoutingSnapshot],
    *,
    now: datetime,
) -> list[StatusRow]:
    """Return one row for each of `rollouts`, in their order.

    Parameters
    ----------
    plans
        By plan id, one for each rollout.
    snapshots
        Present routing by decision point; without one the share is 0, which is what routers do then.
    """
    return [_status(r, plans[r.plan_id], names, snapshots.get(r.decision_point), now=now) for r in rollouts]


def _status(
    rollout: Rollout,
    plan: Plan,
    names: Mapping[str, str],
    snapshot: RoutingSnapshot | None,
    *,
    now: datetime,
) -> StatusRow:
    share, lease_until = _routed(rollout, snapshot, now=now)
    return StatusRow(
        rollout_id=rollout.id,
        decision_point=rollout.decision_point,
        challenger=name_of(names, rollout.challenger),
        champion=name_of(names, rollout.champion),
        state=rollout.state.value,
        stage=f"{rollout.stage + 1}/{len(plan.stages)} {stage_text(plan.stages[rollout.stage])}",
        share=share,
        lease_until=lease_until,
        in_stage=now - rollout.entered_at,
        deadline=rollout.deadline,
        reason=rollout.reason,
    )


def _routed(rollout: Rollout, snapshot: RoutingSnapshot | None, *, now: datetime) -> tuple[float, datetime | None]:
    """Return the share that routers give `rollout`'s challenger, and until when."""
    if snapshot is None:
        return 0.0, None
    if snapshot.rollout_id == rollout.id and snapshot.lease_until is not None and now < snapshot.lease_until:
        return snapshot.share, snapshot.lease_until
    is_champion = rollout.state in (State.PROMOTING, State.CHAMPION) and snapshot.fallback == rollout.challenger
    return (1.0 if is_champion else 0.0), None


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One ledger entry at a glance."""

    number: int
    at: datetime
    who: str
    kind: str
    what: str  #: "canary > labels" for a move, otherwise what the record says
    reason: str
    rollout_id: str | None


def history_rows(entries: Iterable[Entry]) -> list[HistoryRow]:
    """Return one row for each of `entries`, in their order."""
    return [_history(entry) for entry in entries]


def _history(entry: Entry) -> HistoryRow:
    record = entry.record
    answer = record.body.get("answer")
    return HistoryRow(
        number=entry.number,
        at=record.at,
        who=record.actor if answer is None else f"{answer['by']} (by {record.actor})",
        kind=record.kind,
        what=_what(record),
        reason=str(record.body.get("reason", "")),
        rollout_id=record.rollout_id,
    )


def _what(record: Record) -> str:
    body = record.body
    match record.kind:
        case "rollout.started":
            return f"> {body['state']}"
        case "rollout.decided":
            return f"{body['from']} > {body['to']}"
        case "share.intended" | "share.corrected":
            shadow = ", shadow" if body["shadow"] else ""
            return f"snapshot {body['number']}: share {percent(body['slots'] / SLOTS)}{shadow}"
        case "share.observed":
            return f"snapshot {body['number']}: seen on {', '.join(body['routers'])}"
        case "gate.answered":
            return f"gate {body['gate']}: {body['verdict']}"
        case "gate.waived":
            return f"gate {body['gate']}: waived until {body['expires']}"
        case _:
            scalars = (f"{k} {v}" for k, v in body.items() if k != "reason" and isinstance(v, (str, int, float)))
            return ", ".join(scalars)


def explain(
    rollout: Rollout, plan: Plan, looks: Sequence[Look], entries: Sequence[Entry], names: Mapping[str, str]
) -> str:
    """Return why `rollout` stopped or where it stands, as plain text.

    One sentence of verdict, then a line each for the decisive findings with their thresholds, how many units the
    challenger was assigned until then, who decided, who serves now, and what a person should do next.
    """
    made = moves(entries)
    end = closing(made)
    reason, found = _ground(rollout, looks, made, end)
    lines = [
        f"{name_of(names, rollout.challenger)} on {rollout.decision_point}: {headline(rollout.state)}: {reason}",
        "",
        *(_line("evidence", _evidence(finding)) for finding in found[:MOST_FINDINGS]),
        *([] if found else [_line("evidence", "none: the decision rests on no finding")]),
        *(_line("waived", f"gate {each.gate} {each.words}") for each in waived_of(entries)),
        _line("exposure", _exposure(rollout, looks, made, end)),
        _line("decided by", _decided_by(rollout, made, end)),
        _line("serves now", situation(rollout, plan, names)),
        _line("next", next_step(rollout, plan, looks[-1].findings if looks else ())),
        _line("rollout", f"{rollout.id}, version {rollout.version}, plan {plan.name} {plan.version}"),
    ]
    return "\n".join(lines)


#: Findings that `explain` tells of; the page has them all.
MOST_FINDINGS = 5
#: States in which units are assigned to the challenger.
_EXPOSED = frozenset({State.CANARY, State.LABELS, State.PROMOTING, State.CHAMPION})


def _line(label: str, text: str) -> str:
    return f"{label:<11} {text}"


def _ground(
    rollout: Rollout, looks: Sequence[Look], made: Sequence[Move], end: Move | None
) -> tuple[str, list[Finding]]:
    """Return the reason to tell and the findings that it rests on."""
    if end is not None and end.after is State.PROMOTING:
        return end.reason, _relief(made)
    if end is not None:
        return end.reason, decisive(end.findings, end.reason)
    seen = asked_look(rollout, looks) if is_waiting(rollout) else next(reversed(looks), None)
    if seen is None:
        return rollout.reason, []
    reason = rollout.reason if is_waiting(rollout) else seen.reason
    return reason, decisive(seen.findings, reason) or _of_relief(seen.findings)


def _relief(made: Sequence[Move]) -> list[Finding]:
    """Return the findings that the last widening of exposure rests on."""
    return next((found for move in reversed(made) if (found := _of_relief(move.findings))), [])


def _of_relief(findings: Iterable[Finding]) -> list[Finding]:
    return [f for f in ranked(findings) if f.question in (Question.PROMOTION, Question.EXPOSURE) and f.is_binding]


def _evidence(finding: Finding) -> str:
    return f"{finding.subject}: {meaning(finding)}: {counts(finding) or figures(finding)}"


def _exposure(rollout: Rollout, looks: Sequence[Look], made: Sequence[Move], end: Move | None) -> str:
    if rollout.state not in _EXPOSED and not any(move.after in _EXPOSED for move in made):
        return "none: the challenger has answered no request that anybody acted on"
    before = [look.findings for look in looks if end is None or look.at <= end.at]
    known = [*before, () if end is None else end.findings]
    units = next((n for findings in reversed(known) if (n := assigned_units(findings)) is not None), None)
    if units is None:
        return "unknown: no look has counted the challenger's units"
    until = "so far" if end is None else f"until {moment(end.at)}"
    return f"{units:,.0f} units were assigned to the challenger {until}"


def _decided_by(rollout: Rollout, made: Sequence[Move], end: Move | None) -> str:
    last = end or (made[-1] if made else None)
    if last is None:
        return f"{rollout.requested_by}, who asked for it; nothing else is recorded"
    step = last.after.value if last.before is None else f"{last.before} > {last.after}"
    goes_on = "" if end is not None else "; the trial goes on"
    return f"{last.who} at {moment(last.at)} ({step}, ledger entry {last.number}){goes_on}"
