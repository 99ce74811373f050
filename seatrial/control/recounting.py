"""Count the logs again, wholly, at the time of every decision, and compare with the evidence that was stored.

A difference is told apart by what the ledger and the looks say: logs that were deleted by retention or blanked by an
erasure, rows that came into the log after the look, and what nothing explains.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from seatrial.control.judging import is_unread, scope_of
from seatrial.control.replaying import ABSENT, Difference, findings_of, read_chain
from seatrial.errors import NotFoundError
from seatrial.evidence import Evidence, stored_evidence
from seatrial.gates.finding import Question
from seatrial.units import format_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import datetime

    from seatrial.gates.finding import Finding
    from seatrial.ledger import Entry
    from seatrial.plan import Plan
    from seatrial.ports import EvidenceSource, Ports, Store
    from seatrial.rollout import Rollout

    Progress = Callable[[Sequence["Target"]], Iterable["Target"]]

#: Differences of one part that are shown.
EXAMPLES = 3
#: How often both looks of the present are taken, when rows come in between them.
_ATTEMPTS = 3
#: Kinds of records that say what became of logs, as those who keep logs write them.
EXPIRED, ERASED = "logs.expired", "logs.erased"
#: Logs that evidence is counted from.
COUNTED = ("decisions", "labels")


class Match(StrEnum):
    """What came out for one look."""

    SAME = "same"
    NOT_COUNTED = "not counted"  #: the logs could not be read then, and nothing was decided on counts
    EXPLAINED = "explained"  #: differs, and it is known why; what was counted then cannot be verified any more
    UNEXPLAINED = "unexplained"
    ERROR = "error"  #: the stored evidence is missing, or is not what was stored


@dataclass(frozen=True, slots=True)
class Part:
    """One part of the evidence that differs."""

    name: str
    differing: int  #: how many of its counts
    examples: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """A look of the past that is counted again."""

    number: int | None  #: of the ledger entry; None for a look that moved nothing
    at: datetime
    what: str
    digest: str
    is_unread: bool
    read: Mapping[str, str] | None = None  #: digests of what was read, by log and date; None when they were not kept


@dataclass(frozen=True, slots=True)
class Recounted:
    """A look of the past beside the same look now."""

    target: Target
    match: Match
    digest: str | None  #: of the recount; None when nothing was counted
    reasons: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Verified:
    """All looks of a rollout that are kept, recounted."""

    rollout: Rollout
    looks: tuple[Recounted, ...]
    present: Recounted  #: a look at the logs as they are now, against the same counted anew

    @property
    def worst(self) -> Match:
        """The match that says most against the evidence."""
        return max((each.match for each in (*self.looks, self.present)), key=list(Match).index)


@dataclass(frozen=True, slots=True)
class _Keeping:
    """What the ledger says about logs that are not any more what a look read."""

    expired: Mapping[str, str]  #: by log and date, how it was deleted
    blanked: tuple[str, ...]  #: erasures that changed counts by slice


def verify(
    ports: Ports,
    whole: EvidenceSource,
    rollout_id: str,
    *,
    now: datetime,
    progress: Progress = lambda targets: targets,
) -> Verified:
    """Recount every look that a decision of a rollout rests on, the newest kept look, and one at `now`.

    Parameters
    ----------
    whole
        Counts everything anew, while `ports.evidence` may go on from what it counted before.
    progress
        Is given what will be recounted, and gives it back one by one.

    Raises
    ------
    TamperedError
        When the ledger's chain is broken.
    UnavailableError
        When the logs cannot be read: that is no difference.
    """
    chain = read_chain(ports.store)
    rollout = ports.store.rollout(rollout_id)
    plan = ports.store.plan(rollout.plan_id)
    looks = tuple(
        _recounted(ports.store, whole, rollout, plan, target, _kept(chain, rollout, target))
        for target in progress(targets(ports.store, chain, rollout))
    )
    return Verified(rollout, looks, _at_present(ports.evidence, whole, rollout, plan, now=now))


def targets(store: Store, chain: Sequence[Entry], rollout: Rollout) -> list[Target]:
    """Return the looks at logs that decisions of `rollout` rest on, and the newest kept one."""
    found = []
    for entry in chain:
        record = entry.record
        if record.rollout_id != rollout.id or record.kind != "rollout.decided":
            continue
        body, findings = record.body, findings_of(entry)
        if _asked_logs(findings):
            what, digest = f"{body['from']} to {body['to']}", str(body["evidence_digest"])
            unread = any(map(is_unread, findings))
            found.append(Target(entry.number, record.at, what, digest, unread, body.get("read")))
    last = store.last_look(rollout.id)
    if last is not None and _asked_logs(last.findings) and last.at not in {target.at for target in found}:
        unread = any(map(is_unread, last.findings))
        found.append(Target(None, last.at, f"newest look: {last.action}", last.evidence_digest, unread))
    return found


def _asked_logs(findings: Sequence[Finding]) -> bool:
    return any(finding.question is not Question.CONTRACT for finding in findings)


def _kept(chain: Sequence[Entry], rollout: Rollout, target: Target) -> _Keeping:
    """Return what became of the decision point's logs since `target`."""
    expired, blanked = {}, []
    for entry in chain:
        record = entry.record
        if record.decision_point != rollout.decision_point or record.at < target.at:
            continue
        when = f"{format_time(record.at)[:10]} by {record.actor}, ledger entry {entry.number}"
        if record.kind == EXPIRED and record.body["log"] in COUNTED:
            expired[f"{record.body['log']}/{record.body['date']}"] = f"deleted on {when}"
        elif record.kind == ERASED and record.body["with_attributes"]:
            blanked.append(f"attributes of a unit were blanked on {when}: counts by slice change")
    return _Keeping(expired, tuple(blanked))


def _recounted(
    store: Store, whole: EvidenceSource, rollout: Rollout, plan: Plan, target: Target, keeping: _Keeping
) -> Recounted:
    if target.is_unread:
        return Recounted(target, Match.NOT_COUNTED, None, ("the logs could not be read then",))
    found = whole.look(plan, scope_of(rollout), now=target.at)
    try:
        recorded = stored_evidence(store.evidence(target.digest), digest=target.digest)
    except (NotFoundError, ValueError) as error:
        again = "the logs still give its digest" if found.digest == target.digest else "the logs give another one"
        return Recounted(target, Match.ERROR, found.digest, (str(error), again))
    if found.digest == target.digest:
        return Recounted(target, Match.SAME, found.digest)
    match, reasons = _explained(target, recorded, found, keeping)
    return Recounted(target, match, found.digest, reasons, parts_of(recorded, found))


def _explained(target: Target, recorded: Evidence, found: Evidence, keeping: _Keeping) -> tuple[Match, tuple[str, ...]]:
    """Return whether what is known explains that `found` is not `recorded`, and how."""
    read = target.read or {}
    changed = [each for each in sorted({*read, *found.sources}) if read.get(each) != found.sources.get(each)]
    gone = [each for each in read if each not in found.sources and each not in keeping.expired]
    if gone:
        return Match.UNEXPLAINED, (f"{_some(gone)}: gone, and the ledger has no record of it",)
    asked = changed if read else [each for each in keeping.expired if each.partition("/")[2] <= f"{target.at:%Y-%m-%d}"]
    expired = [f"{each}: {keeping.expired[each]}" for each in asked if each in keeping.expired]
    if expired or (keeping.blanked and _is_of_slices(recorded, found)):
        return Match.EXPLAINED, (*_first(expired), *keeping.blanked)
    if not read:
        known = "what was read then is not kept"
    elif changed:
        known = f"not the files that were read: {_some(changed)}"
    else:
        return Match.UNEXPLAINED, ("the files are those that were read: this version counts them otherwise",)
    if _has_grown(recorded, found):
        return Match.EXPLAINED, (f"rows came in after the look; {known}",)
    return Match.UNEXPLAINED, (f"rows were changed or taken out, for none came in; {known}",)


def _is_of_slices(recorded: Evidence, found: Evidence) -> bool:
    """Return whether all that differs is counted by slice."""
    for _, one, other in _compared(recorded, found):
        if not isinstance(one, Mapping):
            return False
        if any(getattr(key, "slice_column", None) is None for key, _, _ in _pairs(one, other)):
            return False
    return True


def _has_grown(recorded: Evidence, found: Evidence) -> bool:
    """Return whether more decisions or labels are there than then, and nowhere fewer."""
    then, now = _rows(recorded), _rows(found)
    return then != now and all(now.get(name, 0) >= count for name, count in then.items())


def _rows(evidence: Evidence) -> dict[str, int]:
    """Return the decisions, and the labels by name and arm; of more than two labels of a unit the third is not seen."""
    labels = {f"{cell.label} {cell.arm}": tally.units + tally.repeated for cell, tally in evidence.labels.items()}
    return {"decisions": evidence.rows, **labels}


def _first(reasons: Sequence[str]) -> list[str]:
    shown = list(reasons[:EXAMPLES])
    return [*shown, f"and {len(reasons) - EXAMPLES} more"] if len(reasons) > EXAMPLES else shown


def _some(names: Sequence[str]) -> str:
    return ", ".join(_first(names))


def _at_present(
    incremental: EvidenceSource, whole: EvidenceSource, rollout: Rollout, plan: Plan, *, now: datetime
) -> Recounted:
    """Return a look that may go on from an earlier one beside one that counts everything anew."""
    for _ in range(_ATTEMPTS):
        one = incremental.look(plan, scope_of(rollout), now=now)
        other = whole.look(plan, scope_of(rollout), now=now)
        target = Target(None, now, "present look", one.digest, is_unread=False, read=one.sources)
        if one.digest == other.digest:
            return Recounted(target, Match.SAME, other.digest)
        if one.sources == other.sources:
            reason = "the look that goes on from the last one counts otherwise than a whole one"
            return Recounted(target, Match.UNEXPLAINED, other.digest, (reason,), parts_of(one, other))
    reason = f"files came in between both looks, {_ATTEMPTS} times; try again"
    return Recounted(target, Match.EXPLAINED, other.digest, (reason,), parts_of(one, other))


# --- which counts differ


def parts_of(recorded: Evidence, found: Evidence) -> tuple[Part, ...]:
    """Return the parts in which two looks differ, each with a few examples.

    Examples
    --------
    >>> (part,) = parts_of(Evidence(rows=3), Evidence(rows=4))
    >>> part.name, part.examples[0].recorded, part.examples[0].found
    ('rows', '3', '4')
    """
    parts = []
    for name, one, other in _compared(recorded, found):
        differing = (
            [_difference(_where(key), then, now) for key, then, now in _pairs(one, other)]
            if isinstance(one, Mapping)
            else [_difference(name, one, other)]
        )
        parts.append(Part(name, len(differing), tuple(differing[:EXAMPLES])))
    return tuple(parts)


def _compared(recorded: Evidence, found: Evidence) -> Iterator[tuple[str, Any, Any]]:
    """Give the parts that are not the same, by name; sources are none."""
    for field in fields(Evidence):
        one, other = getattr(recorded, field.name), getattr(found, field.name)
        if field.compare and one != other:
            yield field.name, one, other


def _pairs(one: Mapping[Any, Any], other: Mapping[Any, Any]) -> list[tuple[Any, Any, Any]]:
    """Return the places in which two tables differ, with what stands there; None where one has nothing."""
    pairs = [(key, one.get(key), other.get(key)) for key in dict.fromkeys([*one, *other])]
    return [(key, then, now) for key, then, now in pairs if then != now]


def _difference(where: str, then: Any, now: Any) -> Difference:
    """Return how two values differ; of several counts in one place only those that do."""
    if then is None or now is None or not _names(then):
        return Difference(where, _text(then), _text(now))
    names = [name for name in _names(then) if getattr(then, name) != getattr(now, name)]
    texts = (", ".join(f"{name} {_text(getattr(each, name))}" for name in names) for each in (then, now))
    return Difference(where, *texts)


def _names(value: Any) -> tuple[str, ...]:
    if is_dataclass(value):
        return tuple(field.name for field in fields(value))
    return getattr(value, "_fields", ())


def _where(key: Any) -> str:
    """Return the place that `key` names, in words."""
    if names := getattr(key, "_fields", ()):
        return ", ".join(f"{name} {part}" for name, part in zip(names, key, strict=True) if part is not None)
    return ", ".join(map(str, key)) if isinstance(key, tuple) else str(key)


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    if _names(value):
        return ", ".join(f"{name} {_text(getattr(value, name))}" for name in _names(value))
    return str(value)
