"""The control plane's memory in one process, for tests and studies; passes the same contract as the SQL adapter."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from secrets import token_hex
from typing import TYPE_CHECKING, TypeVar

from seatrial.errors import ConflictError, NotFoundError
from seatrial.ledger import ERASED, GENESIS, chain, restored, withheld
from seatrial.rollout import RETURNING
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from seatrial.gates.finding import Finding
    from seatrial.ledger import Entry, Record
    from seatrial.outputs import BatchOutput
    from seatrial.plan import Plan
    from seatrial.ports import Case, Commit, GateAnswer, Look, Registered, RouterReport
    from seatrial.rollout import Rollout
    from seatrial.routing import RoutingSnapshot


ForgetfulT = TypeVar("ForgetfulT", "Rollout", "Look", "BatchOutput")


@dataclass(slots=True)
class MemoryStore:
    """Everything a `Store` keeps, in dictionaries."""

    _releases: dict[str, Registered] = field(default_factory=dict)
    _plans: dict[str, Plan] = field(default_factory=dict)
    _rollouts: dict[str, Rollout] = field(default_factory=dict)
    _champions: dict[str, str] = field(default_factory=dict)
    _snapshots: dict[str, RoutingSnapshot] = field(default_factory=dict)
    _reports: dict[tuple[str, str], RouterReport] = field(default_factory=dict)
    _published: dict[tuple[str, int], RoutingSnapshot] = field(default_factory=dict)
    _checkpoints: dict[int, str] = field(default_factory=dict)
    _entries: list[Entry] = field(default_factory=list)
    _keys: set[str] = field(default_factory=set)
    _looks: dict[tuple[str, datetime], Look] = field(default_factory=dict)
    _evidence: dict[str, Mapping[str, object]] = field(default_factory=dict)
    _gate_answers: dict[tuple[str, str], GateAnswer] = field(default_factory=dict)
    _outputs: dict[str, BatchOutput] = field(default_factory=dict)
    _beats: dict[str, datetime] = field(default_factory=dict)

    def add_release(self, registered: Registered, records: Sequence[Record]) -> None:
        """Store a release; storing the same one again changes nothing."""
        self._releases.setdefault(registered.release.id, registered)
        self.append(records)

    def release(self, release_id: str) -> Registered:
        """Return a release, by its whole id or by its first characters; raises NotFoundError."""
        return self._releases[match_id("release", release_id, self._releases)]

    def releases(self, decision_point: str | None = None) -> Sequence[Registered]:
        """Return the releases of one decision point, or all, in the order of registration."""
        known = self._releases.values()
        return [r for r in known if decision_point in (None, r.release.decision_point)]

    def add_plan(self, plan: Plan, *, now: datetime) -> None:  # noqa: ARG002 the SQL adapter keeps the time
        """Store a plan; storing the same one again changes nothing."""
        self._plans.setdefault(plan.id, plan)

    def plan(self, plan_id: str) -> Plan:
        """Return a plan; raises NotFoundError."""
        return self._plans[match_id("plan", plan_id, self._plans)]

    def rollout(self, rollout_id: str) -> Rollout:
        """Return a rollout, by its whole id or by its first characters; raises NotFoundError."""
        return self._rollouts[match_id("rollout", rollout_id, self._rollouts)]

    def rollouts(self, decision_point: str | None = None) -> Sequence[Rollout]:
        """Return the rollouts of one decision point, or all, oldest first."""
        return [r for r in self._rollouts.values() if decision_point in (None, r.decision_point)]

    def champions(self) -> Mapping[str, str]:
        """Return the champion's release id by decision point."""
        return dict(self._champions)

    def commit(self, commit: Commit) -> None:
        """Write `commit` as one transaction; raises ConflictError when it was decided on old state."""
        self._refuse_conflicts(commit)
        if commit.inserted is not None:
            self._rollouts[commit.inserted.id] = commit.inserted
        for rollout in commit.moved:
            self._rollouts[rollout.id] = rollout
        if commit.snapshot is not None:
            self._snapshots[commit.snapshot.decision_point] = commit.snapshot
            self._published[commit.snapshot.decision_point, commit.snapshot.number] = commit.snapshot
        if commit.champion is not None:
            self._champions.update([commit.champion])
        if commit.evidence is not None:
            self._evidence[commit.evidence.digest] = commit.evidence.document()
        self._outputs.update((output.id, output) for output in commit.outputs)
        self.append(commit.records)

    def _refuse_conflicts(self, commit: Commit) -> None:
        inserted = commit.inserted
        if inserted is not None:
            holders = [r.id for r in self.rollouts(inserted.decision_point) if r.is_active]
            champion = self._champions.get(inserted.decision_point, inserted.champion)
            if inserted.id in self._rollouts or holders:
                raise ConflictError(f"decision point {inserted.decision_point!r}: held by {holders}; wait for its end")
            if champion != inserted.champion:
                raise ConflictError(
                    f"decision point {inserted.decision_point!r}: {champion} is champion, expected {inserted.champion};"
                    " read again and decide again"
                )
        for rollout in commit.moved:
            present = self.rollout(rollout.id)
            if present.version != rollout.version - 1:
                raise ConflictError(
                    f"rollout {rollout.id}: at version {present.version}, expected {rollout.version - 1}; read it"
                    " again and decide again"
                )
        for output in commit.outputs:
            known = self._outputs.get(output.id)
            if (0 if known is None else known.version) != output.version - 1:
                raise ConflictError(f"output {output.id}: changed meanwhile; read it again and decide again")
        if commit.snapshot is not None:
            newest = self._snapshots.get(commit.snapshot.decision_point)
            if newest is not None and newest.number != commit.snapshot.number - 1:
                raise ConflictError(f"snapshot {commit.snapshot.number}: {newest.number} is present; read again")
        if commit.champion is not None:
            self._refuse_untold(commit, *commit.champion)

    def _refuse_untold(self, commit: Commit, decision_point: str, champion: str) -> None:
        after = {**self._rollouts, **{rollout.id: rollout for rollout in commit.moved}}
        untold = [
            rollout.id
            for rollout in after.values()
            if rollout.decision_point == decision_point
            and rollout.is_active
            and rollout.state not in RETURNING
            and rollout.champion != champion
        ]
        if untold:
            raise ConflictError(
                f"decision point {decision_point!r}: rollout {', '.join(untold)} returns to another champion; read"
                " again and decide again"
            )

    def snapshot(self, decision_point: str) -> RoutingSnapshot:
        """Return the present snapshot; raises NotFoundError."""
        try:
            return self._snapshots[decision_point]
        except KeyError:
            raise NotFoundError.of("decision point", decision_point, self._snapshots) from None

    def renew(self, snapshot: RoutingSnapshot) -> bool:
        """Extend the lease of the present snapshot to that of `snapshot`; False when it is no longer present."""
        present = self._snapshots[snapshot.decision_point]
        if present.number != snapshot.number:
            return False
        if snapshot.is_newer_than(present):
            renewed = replace(present, lease_until=snapshot.lease_until, signature=snapshot.signature)
            self._snapshots[snapshot.decision_point] = renewed
            self._published[snapshot.decision_point, snapshot.number] = renewed
        return True

    def report(self, report: RouterReport) -> None:
        """Store what a router serves, replacing its last report."""
        self._reports[report.decision_point, report.router] = report

    def reports(self, decision_point: str) -> Sequence[RouterReport]:
        """Return the last report of each router."""
        return [r for (name, _), r in sorted(self._reports.items()) if name == decision_point]

    def output(self, output_id: str) -> BatchOutput:
        """Return an output, by its whole id or by its first characters; raises NotFoundError."""
        return self._outputs[match_id("output", output_id, self._outputs)]

    def outputs(self, decision_point: str | None = None) -> Sequence[BatchOutput]:
        """Return the outputs of one decision point, or all, oldest first."""
        known = sorted(self._outputs.values(), key=lambda output: (output.made_at, output.id))
        return [output for output in known if decision_point in (None, output.decision_point)]

    def forget(self, decision_point: str, router: str) -> None:
        """Drop the report of a router that is gone for good; one that still runs reports again."""
        self._reports.pop((decision_point, router), None)

    def append(self, records: Sequence[Record]) -> None:
        """Append `records`; one whose key is present already is left out."""
        for record in records:
            if record.key in self._keys:
                continue
            previous = self._entries[-1].hash if self._entries else GENESIS
            number = len(self._entries) + 1
            self._entries.append(chain(record, number=number, previous=previous, salt=token_hex(32)))
            self._keys.add(record.key)

    def entries(self, rollout_id: str | None = None) -> Sequence[Entry]:
        """Return entries in order, all or those of one rollout."""
        return [e for e in self._entries if rollout_id in (None, e.record.rollout_id)]

    def head(self) -> tuple[int, str]:
        """Return number and hash of the newest entry; 0 and `GENESIS` before the first."""
        return (self._entries[-1].number, self._entries[-1].hash) if self._entries else (0, GENESIS)

    def hashes(self) -> Sequence[str]:
        """Return the hash of each entry, in order."""
        return [entry.hash for entry in self._entries]

    def erase(self, numbers: Sequence[int], texts: Iterable[str], records: Sequence[Record]) -> None:
        """Forget for ever the texts of the entries with these `numbers`, and append `records` that say so.

        Reasons elsewhere on the decision point of the records that hold one of `texts` are forgotten too.
        """
        points, words = {record.decision_point for record in records}, tuple(texts)
        for at, entry in enumerate(self._entries):
            if entry.number in numbers and entry.seal is not None:
                record = restored(withheld(entry.record)[0], None)
                self._entries[at] = replace(entry, record=record, seal=replace(entry.seal, salt=None))
        for rollout in [each for each in self._rollouts.values() if each.decision_point in points]:
            self._rollouts[rollout.id] = _forgetful(rollout, words)
            for key in [key for key in self._looks if key[0] == rollout.id]:
                self._looks[key] = _forgetful(self._looks[key], words)
        for output in [each for each in self._outputs.values() if each.decision_point in points]:
            self._outputs[output.id] = _forgetful(output, words)
        self.append(records)

    def add_checkpoint(self, size: int, note: str, *, now: datetime) -> None:  # noqa: ARG002 kept by the SQL adapter
        """Store the checkpoint of the ledger at `size`; a second one of the same size is left out."""
        self._checkpoints.setdefault(size, note)

    def checkpoints(self) -> Sequence[str]:
        """Return the signed notes of all checkpoints, smallest first."""
        return [self._checkpoints[size] for size in sorted(self._checkpoints)]

    def published(self) -> Sequence[RoutingSnapshot]:
        """Return every routing snapshot that was ever published, as it is now."""
        return [self._published[key] for key in sorted(self._published)]

    def add_look(self, look: Look) -> None:
        """Store a look; a second one of the same rollout and time is left out."""
        self._looks.setdefault((look.rollout_id, look.at), look)

    def looks(self, rollout_id: str) -> Sequence[Look]:
        """Return the looks of a rollout, oldest first."""
        return [look for (name, _), look in sorted(self._looks.items()) if name == rollout_id]

    def last_look(self, rollout_id: str) -> Look | None:
        """Return the newest look of a rollout; None when there is none."""
        return next(reversed(self.looks(rollout_id)), None)

    def evidence(self, digest: str) -> Mapping[str, object]:
        """Return stored evidence as plain data; raises NotFoundError."""
        try:
            return self._evidence[digest]
        except KeyError:
            raise NotFoundError.of("evidence", digest, self._evidence) from None

    def add_gate_answer(self, answer: GateAnswer, records: Sequence[Record]) -> None:
        """Store the answer to one gate of a rollout with its records, replacing the rollout's answer before."""
        self._gate_answers[answer.rollout_id, answer.gate] = answer
        self.append(records)

    def gate_answers(self, rollout_id: str) -> Mapping[str, GateAnswer]:
        """Return the present answers of a rollout, by gate."""
        return {gate: answer for (name, gate), answer in sorted(self._gate_answers.items()) if name == rollout_id}

    def answered_before(self, inputs: str) -> GateAnswer | None:
        """Return the newest answer to the same `inputs`, of whichever rollout; one that is an ERROR is none."""
        known = [
            answer
            for _, answer in sorted(self._gate_answers.items(), reverse=True)
            if answer.inputs == inputs and answer.verdict is not Verdict.ERROR
        ]
        return max(known, key=lambda answer: answer.at, default=None)

    def beat(self, name: str, *, now: datetime) -> None:
        """Record that `name` finished a round at `now`."""
        self._beats[name] = now

    def last_beat(self, name: str) -> datetime | None:
        """Return when `name` last finished a round; None when it never did."""
        return self._beats.get(name)


@dataclass(slots=True)
class MemoryExaminer:
    """Answers to declared gates as a test or a study sets them; a gate without one answers nothing."""

    answers: dict[str, Sequence[Finding] | Exception] = field(default_factory=dict)
    data: dict[str, Mapping[str, str]] = field(default_factory=dict)  #: digests by gate, then by name of what it reads
    asked: list[Case] = field(default_factory=list)  #: every case that was examined, in order

    def reads(self, case: Case) -> Mapping[str, str]:
        """Return the digest of every datum beside releases and plan that the answer rests on, by name."""
        return self.data.get(case.gate, {})

    def examine(self, case: Case) -> Sequence[Finding]:
        """Return the answer that was set, or raise it."""
        self.asked.append(case)
        answer = self.answers.get(case.gate, ())
        if isinstance(answer, Exception):
            raise answer
        return answer


def _forgetful(kept: ForgetfulT, words: tuple[str, ...]) -> ForgetfulT:
    """Return `kept` without its reason when that holds one of `words`."""
    return replace(kept, reason=ERASED) if any(word in kept.reason for word in words) else kept


def match_id(kind: str, wanted: str, known: Mapping[str, object]) -> str:
    """Return the one id in `known` that is `wanted` or begins with it, the prefix ``sha256:`` apart."""
    if wanted in known:
        return wanted
    found = [name for name in known if wanted and name.removeprefix("sha256:").startswith(wanted)]
    if len(found) != 1:
        if found:
            raise NotFoundError(f"{kind} {wanted!r}: {len(found)} begin with it; give more characters")
        raise NotFoundError.of(kind, wanted, known)
    return found[0]
