"""Recompute every decision of a rollout from what is stored, and compare it with what was recorded.

Asks the ledger, the stored evidence, the plan and the releases: never the logs, a probe or a router. What those
answered at the time stands in the records, and is taken from them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from seatrial.control.assessing import recorded_findings
from seatrial.control.judging import Judged, is_from_outside, is_unread, judged_from
from seatrial.control.recording import decided
from seatrial.errors import NotFoundError, RefusedError, TamperedError
from seatrial.evidence import Evidence, stored_evidence
from seatrial.gates.finding import Finding
from seatrial.ledger import verify
from seatrial.rollout import TRANSITIONS, Action, Answer, Choice, Decision, Rollout, State, decide, move
from seatrial.units import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from seatrial.ledger import Entry, Record
    from seatrial.plan import Plan
    from seatrial.ports import Ledger, Store

#: Stands for a field that one side does not have.
ABSENT = "absent"


class Result(StrEnum):
    """What came out for one move."""

    SAME = "same"
    NOT_RECOMPUTED = "not recomputed"  #: no evidence decided it: a person's word, or routers that were awaited
    DIFFERS = "differs"
    ERROR = "error"  #: what it rests on is not stored any more, or is not what was stored


#: Results that leave a record unproven.
UNPROVEN = frozenset({Result.DIFFERS, Result.ERROR})


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it was recorded."""

    what: str
    recorded: str
    found: str  #: recomputed or recounted


@dataclass(frozen=True, slots=True)
class Replayed:
    """One move as recorded, and what became of it when it was recomputed."""

    number: int  #: of the ledger entry
    at: datetime
    actor: str
    before: State
    after: State
    stage: int
    result: Result
    reason: str  #: of the move; of an ERROR, what is missing
    note: str = ""  #: why it was not recomputed
    recomputed: int = 0  #: findings
    taken: int = 0  #: findings of probes and unread logs, taken from the record
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True, slots=True)
class Replay:
    """A whole rollout, replayed."""

    rollout: Rollout  #: as the store has it
    entries: int  #: of the whole ledger, every link verified
    head: str  #: hash of its newest entry
    moves: tuple[Replayed, ...]
    stored: tuple[Difference, ...]  #: between the store's rollout and the one that the ledger leads to

    @property
    def is_proven(self) -> bool:
        """Whether nothing differs and nothing is missing."""
        return not self.stored and not any(move.result in UNPROVEN for move in self.moves)


def read_chain(ledger: Ledger) -> Sequence[Entry]:
    """Return all entries after every link was verified; raises TamperedError at the first that does not fit."""
    try:
        entries = ledger.entries()
        verify(entries)
    except ValueError as error:
        raise TamperedError(
            f"ledger: found an entry that cannot be read ({error}); expected what was recorded; stop promoting and"
            " call the person who owns the ledger"
        ) from error
    return entries


def replay(store: Store, rollout_id: str) -> Replay:
    """Recompute every move of a rollout, in order, each from the rollout as the ledger has it before.

    Raises TamperedError when the ledger's chain is broken, or plan, releases or the start of the rollout are not what
    was recorded: then nothing can be recomputed.
    """
    present, chain = _settled(store, rollout_id)
    own = [entry for entry in chain if entry.record.rollout_id == present.id]
    before = _opened(present.id, own)
    plan = _plan_of(store, before)
    _require_releases(store, before)
    moves = []
    for entry in own:
        if entry.record.kind == "rollout.decided":
            after = _recorded(before, entry)
            earlier = [each for each in own if each.number < entry.number]
            moves.append(_replayed(store, plan, before, after, entry, earlier))
            before = after
    stored = tuple(_fields(before.document(), present.document()))
    return Replay(present, len(chain), chain[-1].hash, tuple(moves), stored)


def _settled(store: Store, rollout_id: str) -> tuple[Rollout, Sequence[Entry]]:
    """Return a rollout with the ledger of the same moment: one that moves between two reads is read again."""
    present = store.rollout(rollout_id)
    while True:
        chain = read_chain(store)
        again = store.rollout(rollout_id)
        if again == present:
            return present, chain
        present = again


def _opened(rollout_id: str, own: Sequence[Entry]) -> Rollout:
    """Return the rollout as it was started."""
    for entry in own:
        if entry.record.kind == "rollout.started":
            body = dict(entry.record.body)
            try:
                times = {name: parse_time(body[name]) for name in ("created_at", "entered_at", "deadline")}
                return Rollout(**{**body, **times, "state": State(body["state"])})
            except (KeyError, TypeError, ValueError) as error:
                raise _broken(entry, error) from error
    raise TamperedError(
        f"rollout {rollout_id}: found no entry of its start in the ledger, expected rollout.started; call the person"
        " who owns the ledger"
    )


def _recorded(before: Rollout, entry: Entry) -> Rollout:
    """Return the rollout after a move, as the record has it."""
    body = entry.record.body
    try:
        return replace(
            before,
            state=State(body["to"]),
            stage=body["stage"],
            entered_at=entry.record.at,
            deadline=None if body["deadline"] is None else parse_time(body["deadline"]),
            reason=body["reason"],
            version=body["version"],
            evidence_digest=body["evidence_digest"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(entry, error) from error


def _broken(entry: Entry, error: Exception) -> TamperedError:
    return TamperedError(
        f"ledger entry {entry.number} ({entry.record.kind}): found a record that cannot be read"
        f" ({type(error).__name__}: {error}), expected a whole one; call the person who owns the ledger"
    )


def _plan_of(store: Store, rollout: Rollout) -> Plan:
    """Return the plan that `rollout` was started with, or raise TamperedError."""
    try:
        plan = store.plan(rollout.plan_id)
    except (NotFoundError, ValueError) as error:
        raise _changed("plan", rollout.plan_id, str(error)) from error
    if plan.id != rollout.plan_id:
        raise _changed("plan", rollout.plan_id, f"a plan of digest {plan.id}")
    return plan


def _require_releases(store: Store, rollout: Rollout) -> None:
    for release_id in (rollout.champion, rollout.challenger):
        try:
            found = store.release(release_id).release.id
        except (NotFoundError, ValueError) as error:
            raise _changed("release", release_id, str(error)) from error
        if found != release_id:
            raise _changed("release", release_id, f"a manifest of digest {found}")


def _changed(kind: str, name: str, found: str) -> TamperedError:
    return TamperedError(
        f"{kind} {name}: found {found}; expected what the rollout was started with; restore the database, or call the"
        " person who owns the ledger"
    )


def _replayed(
    store: Store, plan: Plan, before: Rollout, after: Rollout, entry: Entry, earlier: Sequence[Entry]
) -> Replayed:
    record = entry.record
    shown = Replayed(
        entry.number, record.at, record.actor, before.state, after.state, after.stage, Result.SAME, after.reason
    )
    try:
        answer = _answer(record)
        gates = recorded_findings(earlier, before, plan, now=record.at)
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(entry, error) from error
    recorded = findings_of(entry)
    action = _action(before.state, after.state)
    if action is None:
        impossible = Difference("move", f"{before.state} to {after.state}", "no such move is possible")
        return replace(shown, result=Result.DIFFERS, differences=(impossible,))
    without = _decided_without_evidence(before, action, record)
    evidence = None
    if without is None or recorded:
        try:
            evidence = _evidence_of(store, after.evidence_digest)
        except (NotFoundError, ValueError) as error:
            return replace(shown, result=Result.ERROR, reason=str(error))
    judged = None if evidence is None else _rejudged(store, plan, before, evidence, recorded, gates, now=record.at)
    decision, differences = _redecided(before, plan, judged, answer, action, after.reason, without, now=record.at)
    differences += _compared(before, plan, decision, judged, answer, record)
    taken = sum(is_from_outside(finding, plan) for finding in judged.findings) if judged else 0
    return replace(
        shown,
        result=Result.DIFFERS if differences else Result.NOT_RECOMPUTED if without else Result.SAME,
        note=without or "",
        recomputed=len(judged.findings) - taken if judged else 0,
        taken=taken,
        differences=tuple(differences),
    )


def _action(before: State, after: State) -> Action | None:
    """Return the action that leads from one state to the other, which is never more than one."""
    return next((action for (state, action), into in TRANSITIONS.items() if state is before and after in into), None)


def _decided_without_evidence(before: Rollout, action: Action, record: Record) -> str | None:
    """Return why a move was no decision on evidence, or None when it was one."""
    match before.state, action:
        case State.CHAMPION, Action.PROMOTE:
            return "another rollout was promoted"
        case State.PROMOTING, Action.PROMOTE:
            return "waited for the routers"
        case ((State.ROLLING_BACK | State.ROLLBACK_INCOMPLETE), _):
            return "waited for the routers"
        case _, Action.ROLL_BACK if not record.body["findings"] and "answer" not in record.body:
            return f"taken out by {record.actor}"
        case _:
            return None


def _answer(record: Record) -> Answer | None:
    given = record.body.get("answer")
    if given is None:
        return None
    return Answer(Choice(given["choice"]), given["by"], given["reason"], given["evidence_digest"])


def findings_of(entry: Entry) -> list[Finding]:
    """Return the findings that a move was recorded with; their numbers stay text."""
    try:
        return [Finding.of_document(document) for document in entry.record.body["findings"]]
    except (KeyError, TypeError, ValueError) as error:
        raise _broken(entry, error) from error


def _evidence_of(store: Store, digest: str | None) -> Evidence:
    """Return the stored evidence of a record, proven by its digest; of a record that names none, evidence of nothing.

    Raises NotFoundError when it is missing, ValueError when it is not what was stored.
    """
    return Evidence() if digest is None else stored_evidence(store.evidence(digest), digest=digest)


def _rejudged(
    store: Store,
    plan: Plan,
    before: Rollout,
    evidence: Evidence,
    recorded: Sequence[Finding],
    gates: Sequence[Finding],
    *,
    now: datetime,
) -> Judged:
    """Return what the gates find now in `evidence`, with what no evidence holds in the place that it had.

    `gates` is what declared gates had answered by then, as the ledger has it.
    """
    outside = tuple(finding for finding in recorded if is_from_outside(finding, plan))
    if any(map(is_unread, outside)):
        return Judged(evidence, outside)
    return Judged(evidence, (*judged_from(evidence, before, plan, store, now=now), *outside, *gates))


def _redecided(
    before: Rollout,
    plan: Plan,
    judged: Judged | None,
    answer: Answer | None,
    action: Action,
    reason: str,
    without: str | None,
    *,
    now: datetime,
) -> tuple[Decision | None, list[Difference]]:
    """Return the decision that the findings lead to, and how it differs from the recorded `action`.

    A move without evidence stays as it is recorded, unless the findings beside it demand a rollback.
    """
    try:
        found = decide(before, plan, judged.findings if judged else (), now=now, answer=answer)
    except RefusedError as error:
        return None, [Difference("action", action.value, f"refused: {error}")]
    if without is not None and (found.action is not Action.ROLL_BACK or judged is None):
        return Decision(action, reason), []
    if found.action is action:
        return found, []
    return None, [Difference("action", f"{action}: {reason}", f"{found.action}: {found.reason}")]


def _compared(
    before: Rollout,
    plan: Plan,
    decision: Decision | None,
    judged: Judged | None,
    answer: Answer | None,
    record: Record,
) -> list[Difference]:
    """Return how `record` differs from the one that would be written now."""
    findings = [] if judged is None else [finding.document() for finding in judged.findings]
    differences = list(_findings(record.body["findings"], findings))
    if decision is None:
        return differences
    rests_on = judged.evidence.digest if judged and (judged.findings or decision.action is Action.ROLL_BACK) else None
    try:
        after = move(before, plan, decision, now=record.at, evidence_digest=rests_on)
    except RefusedError as error:
        return [*differences, Difference("move", f"{before.state} to {record.body['to']}", f"refused: {error}")]
    again = decided(before, after, record.actor, judged, answer, now=record.at).document()
    written = record.document()
    return [
        *_fields(_without(written, "body"), _without(again, "body")),
        *_fields(_without(written["body"], "findings", "read"), _without(again["body"], "findings", "read")),
        *differences,
    ]


def _without(document: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in document.items() if name not in names}


def _fields(recorded: Mapping[str, Any], found: Mapping[str, Any], where: str = "") -> Iterator[Difference]:
    """Give the fields that are not the same."""
    for name in dict.fromkeys([*recorded, *found]):
        one, other = recorded.get(name, ABSENT), found.get(name, ABSENT)
        if one != other:
            yield Difference(f"{where}{name}", _text(one), _text(other))


def _findings(recorded: Sequence[Mapping[str, Any]], found: Sequence[Mapping[str, Any]]) -> Iterator[Difference]:
    """Give the findings that are not the same: verdict, reason, numbers, and those that one side does not have."""
    then, now = _by_subject(recorded), _by_subject(found)
    for key in dict.fromkeys([*then, *now]):
        where = f"{key[0]} · {key[1]}"
        if key not in now:
            yield Difference(where, then[key]["verdict"], ABSENT)
        elif key not in then:
            yield Difference(where, ABSENT, now[key]["verdict"])
        else:
            one, other = then[key], now[key]
            yield from _fields(_without(one, "numbers"), _without(other, "numbers"), f"{where}: ")
            yield from _fields(one["numbers"], other["numbers"], f"{where}: number ")
    moved = [(one, other) for one, other in zip(then, now, strict=False) if one != other]
    if moved and then.keys() == now.keys():
        yield Difference("order of the findings", *(" · ".join(key[:2]) for key in moved[0]))


def _by_subject(findings: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, int], Mapping[str, Any]]:
    """Return findings by question, subject, and the how manieth of the same it is."""
    seen: Counter[tuple[str, str]] = Counter()
    named = {}
    for finding in findings:
        key = finding["question"], finding["subject"]
        named[*key, seen[key]] = finding
        seen[key] += 1
    return named


def _text(value: object) -> str:
    return "none" if value is None else str(value)
