"""What reviewers ask the ledger: who decided, who approved, what was waived, what was rolled back.

Answers are read from records alone. Two times are kept apart: when something held, and since when it is known. A record
is known from the moment of the latest record before it in the chain, which it cannot precede, or its own if later.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seatrial.control.crosschecking import recorded_snapshots
from seatrial.errors import NotFoundError
from seatrial.rollout import State
from seatrial.units import SLOTS, format_time
from seatrial.waiver import WAIVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from seatrial.ledger import Entry
    from seatrial.ports import Ports
    from seatrial.routing import RoutingSnapshot


def known_at(entries: Iterable[Entry], moment: datetime | None) -> list[Entry]:
    """Return the entries that were recorded by `moment`, all when it is None."""
    known = []
    for entry in entries:
        if moment is not None and entry.record.at > moment:
            break  # whatever stands behind it was recorded later, whenever it says that it happened
        known.append(entry)
    return known


def who_decided(
    ports: Ports, decision_point: str, *, segment: str | None, at: datetime, as_known_at: datetime | None = None
) -> dict[str, Any]:
    """Return which releases decided for `segment` at `at`, with their components, by what was known at `as_known_at`.

    Raises NotFoundError when nothing was published for the decision point by then.
    """
    entries = [e for e in known_at(ports.store.entries(), as_known_at) if e.record.at <= at]
    published = {
        number: entry for (point, number), (_, entry) in recorded_snapshots(entries).items() if point == decision_point
    }
    if not published:
        raise NotFoundError(f"decision point {decision_point!r}: no snapshot was published by {format_time(at)}")
    number = max(published)
    entry = published[number]
    snapshot = {s.number: s for s in ports.store.published() if s.decision_point == decision_point}[number]
    seen = [e for e in entries if e.record.key == f"{decision_point}/{number}/observed"]
    return {
        "decision_point": decision_point,
        "segment": segment,
        "at": format_time(at),
        "as_known_at": None if as_known_at is None else format_time(as_known_at),
        "snapshot": number,
        "snapshot_digest": snapshot.digest,
        "entry": entry.number,
        "published_at": format_time(entry.record.at),
        "seen_on_routers_at": format_time(seen[-1].record.at) if seen else None,
        "releases": [
            {"release": release_id, "role": role, "share": share, "components": _components(entries, release_id)}
            for release_id, role, share in _shares(snapshot, segment)
        ],
        "orders": {"kills": [kill.id for kill in snapshot.kills], "pins": len(snapshot.pins)},
    }


def _shares(snapshot: RoutingSnapshot, segment: str | None) -> Iterator[tuple[str, str, float]]:
    is_tried = snapshot.challenger is not None and snapshot.slots and snapshot.segment in (None, segment)
    share = snapshot.slots / SLOTS if is_tried else 0.0
    if share < 1.0:
        yield snapshot.champion, "champion", 1.0 - share
    if snapshot.challenger is not None and share:
        yield snapshot.challenger, "challenger", share


def _components(entries: Sequence[Entry], release_id: str) -> Any:
    registered = [e for e in entries if e.record.key == f"{release_id}/registered"]
    return registered[-1].record.body.get("components") if registered else None


def approvals(ports: Ports, rollout_id: str | None = None) -> list[dict[str, Any]]:
    """Return every answer that a person gave, with the evidence that it names."""
    return [
        {
            **_head(entry),
            **entry.record.body["answer"],
            "to": entry.record.body["to"],
            "plan": entry.record.body["plan_id"],
        }
        for entry in ports.store.entries(rollout_id)
        if entry.record.kind == "rollout.decided" and "answer" in entry.record.body
    ]


def waivers(ports: Ports, rollout_id: str | None = None) -> list[dict[str, Any]]:
    """Return every waiver, with the answer of the gate that it names."""
    return [
        {**_head(entry), "by": entry.record.actor, **entry.record.body}
        for entry in ports.store.entries(rollout_id)
        if entry.record.kind == WAIVED
    ]


def rollbacks(ports: Ports) -> list[dict[str, Any]]:
    """Return every rollback and kill: what triggered it, when it was ordered, and when routers were seen without it."""
    entries = ports.store.entries()
    by_key = {entry.record.key: entry for entry in entries}
    found = []
    for entry in entries:
        record = entry.record
        if record.kind == "rollout.decided" and record.body["to"] == State.ROLLING_BACK:
            effect = next(
                (
                    each
                    for each in entries[entry.number :]
                    if each.record.rollout_id == record.rollout_id and each.record.body.get("to") == State.ROLLED_BACK
                ),
                None,
            )
        elif record.kind == "kill.ordered":
            effect = by_key.get(record.key.replace("/ordered", "/observed"))
        else:
            continue
        seconds = None if effect is None else (effect.record.at - record.at).total_seconds()
        found.append(
            {
                **_head(entry),
                "what": record.kind,
                "trigger": record.body.get("reason"),
                "by": record.actor,
                "newest_evidence": record.body.get("evidence_digest"),
                "detected_at": format_time(record.at),
                "effect_at": None if effect is None else format_time(effect.record.at),
                "seconds_to_effect": seconds,
            }
        )
    return found


def about_decision(ports: Ports, decision: Mapping[str, Any], labels: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return everything about one decision: row, release, record of the snapshot, and labels as they came."""
    entries = ports.store.entries()
    recorded = recorded_snapshots(entries).get((decision["decision_point"], decision["snapshot_no"]))
    point = decision["decision_point"]
    outputs = [o.document() for o in ports.store.outputs(point) if o.snapshot_no == decision["snapshot_no"]]
    return {
        "decision": dict(decision),
        "release": _components(entries, decision["release_id"]),
        "snapshot": None if recorded is None else {"digest": recorded[0], **_head(recorded[1])},
        "labels": [dict(label) for label in labels],
        "batch_outputs": outputs,
        "rollout": None
        if decision["rollout_id"] is None
        else [{**_head(e), "to": e.record.body["to"]} for e in entries if _is_move_of(e, decision["rollout_id"])],
    }


def _is_move_of(entry: Entry, rollout_id: str) -> bool:
    return entry.record.kind == "rollout.decided" and entry.record.rollout_id == rollout_id


def _head(entry: Entry) -> dict[str, Any]:
    record = entry.record
    return {
        "entry": entry.number,
        "recorded_at": format_time(record.at),
        "decision_point": record.decision_point,
        "rollout": record.rollout_id,
    }
