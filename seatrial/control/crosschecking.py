"""Hold the database against the ledger: what stands in one and not in the other was done outside the process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seatrial.errors import NotFoundError, TamperedError
from seatrial.rollout import TRANSITIONS, State
from seatrial.units import digest_of, plain_name, short

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from seatrial.ledger import Entry
    from seatrial.ports import Ports

_FOLLOWS = {(before, after) for (before, _), states in TRANSITIONS.items() for after in states}


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that an audit found."""

    kind: str  #: one word, stable: what a program may act on
    where: str
    what: str

    def document(self) -> dict[str, str]:
        """Return it as plain data."""
        return {"kind": self.kind, "where": self.where, "what": self.what}


def crosscheck(ports: Ports, entries: Sequence[Entry]) -> Iterator[Fault]:
    """Give everything that database and ledger do not say alike."""
    yield from _snapshots(ports, entries)
    yield from _champions(ports, entries)
    yield from _releases(ports, entries)
    yield from _rollouts(ports, entries)
    yield from _outputs(ports, entries)
    for rollout_id, decided in _moves(entries).items():
        started = [e for e in entries if e.record.kind == "rollout.started" and e.record.rollout_id == rollout_id]
        yield from _moves_of(ports, rollout_id, started, decided)


def recorded_snapshots(entries: Iterable[Entry]) -> dict[tuple[str, int], tuple[str, Entry]]:
    """Return digest and entry of every published snapshot, by decision point and number."""
    found = {}
    for entry in entries:
        body = entry.record.body
        said = body if entry.record.kind in ("share.intended", "share.corrected") else body.get("snapshot")
        if isinstance(said, dict) and "number" in said and "digest" in said:
            found[entry.record.decision_point, said["number"]] = (said["digest"], entry)
    return found


def _snapshots(ports: Ports, entries: Sequence[Entry]) -> Iterator[Fault]:
    recorded = recorded_snapshots(entries)
    try:
        published = ports.store.published()
    except TamperedError as error:
        yield Fault("outside", "snapshots", str(error))
        return
    for snapshot in published:
        where = f"snapshot {snapshot.number} of {snapshot.decision_point!r}"
        digest, _ = recorded.pop((snapshot.decision_point, snapshot.number), (None, None))
        if digest is None:
            yield Fault("outside", where, "no record says that it was published")
        elif digest != snapshot.digest:
            yield Fault("outside", where, f"is {short(snapshot.digest)}; {short(digest)} was published")
    for point, number in recorded:
        yield Fault("outside", f"snapshot {number} of {point!r}", "was published, and is not in the database any more")


def _champions(ports: Ports, entries: Sequence[Entry]) -> Iterator[Fault]:
    recorded: dict[str, str] = {}
    for entry in entries:
        point, body = entry.record.decision_point, entry.record.body
        if entry.record.kind == "decision_point.opened":
            recorded[point] = body["champion"]
        elif entry.record.kind == "rollout.decided" and body["to"] == State.CHAMPION:
            recorded[point] = body["challenger"]
        elif entry.record.kind == "rollout.decided" and body["to"] == State.ROLLING_BACK:
            was_champion = recorded.get(point) == body["challenger"]
            recorded[point] = body["champion"] if was_champion else recorded.get(point, body["champion"])
    champions = dict(ports.store.champions())
    for point in sorted(champions.keys() | recorded.keys()):
        is_now, was = champions.get(point), recorded.get(point)
        if is_now != was:
            what = f"is {short(str(is_now))}; by the records it is {short(str(was))}"
            yield Fault("outside", f"champion of {point!r}", what)


def _releases(ports: Ports, entries: Sequence[Entry]) -> Iterator[Fault]:
    kind = "release.registered"
    recorded = {e.record.key.removesuffix("/registered") for e in entries if e.record.kind == kind}
    present = {registered.release.id for registered in ports.store.releases()}
    for release_id in sorted(present - recorded):
        yield Fault("outside", f"release {short(release_id)}", "no record says that it was registered as it is")
    for release_id in sorted(recorded - present):
        yield Fault("outside", f"release {short(release_id)}", "was registered, and is not in the database as it was")


def _rollouts(ports: Ports, entries: Sequence[Entry]) -> Iterator[Fault]:
    last: dict[str, tuple[str, int]] = {}
    for entry in entries:
        body, rollout_id = entry.record.body, entry.record.rollout_id
        if entry.record.kind == "rollout.started" and rollout_id is not None:
            last[rollout_id] = body["state"], body["version"]
        elif entry.record.kind == "rollout.decided" and rollout_id is not None:
            last[rollout_id] = body["to"], body["version"]
    for rollout in ports.store.rollouts():
        said = last.pop(rollout.id, None)
        if said != (rollout.state.value, rollout.version):
            found = "nothing" if said is None else f"{said[0]} at version {said[1]}"
            what = f"is {rollout.state} at version {rollout.version}; the records say {found}"
            yield Fault("outside", f"rollout {rollout.id}", what)
    for rollout_id in last:
        yield Fault("outside", f"rollout {rollout_id}", "was started, and is not in the database any more")


def _outputs(ports: Ports, entries: Sequence[Entry]) -> Iterator[Fault]:
    last: dict[str, Any] = {}
    for entry in entries:
        if entry.record.kind in ("output.registered", "output.marked"):
            last[entry.record.key.split("/")[1]] = entry.record.body.get("standing")
    for output in ports.store.outputs():
        said = last.get(output.id)
        if said != output.standing.value:
            yield Fault("outside", f"output {short(output.id)}", f"is {output.standing}; the records say {said}")


def _moves(entries: Sequence[Entry]) -> Mapping[str, list[Entry]]:
    moves: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.record.kind == "rollout.decided" and entry.record.rollout_id is not None:
            moves.setdefault(entry.record.rollout_id, []).append(entry)
    return moves


def _moves_of(ports: Ports, rollout_id: str, started: Sequence[Entry], decided: Sequence[Entry]) -> Iterator[Fault]:
    """Give what is wrong with the moves of one rollout: order, plan, evidence, answers."""
    if not started:
        yield Fault("outside", f"rollout {rollout_id}", "was moved, and no record says that it was started")
        return
    seen: Mapping[str, Any] = started[0].record.body
    yield from _plan(ports, rollout_id, seen["plan_id"])
    for entry in decided:
        body, where = entry.record.body, f"entry {entry.number}, rollout {rollout_id}"
        before = seen.get("to", seen.get("state"))
        follows = (State(body["from"]), State(body["to"])) in _FOLLOWS
        if (body["from"], body["version"]) != (before, seen["version"] + 1) or not follows:
            what = f"{body['from']} to {body['to']} at version {body['version']} cannot follow {before}"
            yield Fault("transition", where, f"{what} at version {seen['version']}")
        fixed = [name for name in ("plan_id", "challenger") if body[name] != seen[name]]
        if fixed:
            yield Fault("changed plan", where, f"{' and '.join(fixed)} are not those that the rollout was started with")
        yield from _evidence(ports, where, body)
        if (answer := body.get("answer")) is not None:
            yield from _answer(ports, where, answer, seen, started[0].record.body)
        seen = body


def _plan(ports: Ports, rollout_id: str, plan_id: str) -> Iterator[Fault]:
    try:
        plan = ports.store.plan(plan_id)
    except NotFoundError:
        yield Fault(
            "changed plan", f"rollout {rollout_id}", f"its plan {short(plan_id)} is not in the database any more"
        )
        return
    if plan.id != plan_id:
        what = f"its plan is {short(plan.id)} now; it was started with {short(plan_id)}"
        yield Fault("changed plan", f"rollout {rollout_id}", what)


def _evidence(ports: Ports, where: str, body: Mapping[str, Any]) -> Iterator[Fault]:
    digest = body["evidence_digest"]
    if digest is None or not body["findings"]:
        return
    try:
        kept = digest_of(ports.store.evidence(digest))
    except NotFoundError:
        yield Fault("evidence", where, f"the evidence {short(digest)} that it rests on is not kept any more")
        return
    if kept != digest:
        yield Fault("evidence", where, f"rests on evidence {short(digest)}; what is kept is {short(kept)}")


def _answer(
    ports: Ports, where: str, answer: Mapping[str, Any], seen: Mapping[str, Any], started: Mapping[str, Any]
) -> Iterator[Fault]:
    if answer["choice"] == "reject":
        return
    if answer["evidence_digest"] != seen["evidence_digest"]:
        what = f"{answer['by']} answered to evidence {short(answer['evidence_digest'])}; what was to be seen is"
        yield Fault("approval", where, f"{what} {short(str(seen['evidence_digest']))}")
    try:
        release = ports.store.release(started["challenger"]).release
    except NotFoundError:
        return  # said among the releases
    makers = (started["requested_by"], release.owner.person, release.training.trained_by)
    if plain_name(answer["by"]) in map(plain_name, makers):
        yield Fault("approval", where, f"{answer['by']} asked for the rollout or made the release")
