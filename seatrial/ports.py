"""What the control plane needs from the outside, as protocols of one to four methods.

Each has a real adapter and a public twin in memory that pass the same contract tests.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from seatrial.units import digest_of
from seatrial.verdict import worst

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from seatrial.checkpoints import VerifierKey
    from seatrial.evidence import Arm, Evidence
    from seatrial.gates.finding import Finding
    from seatrial.gates.load import ShadowLoad
    from seatrial.ledger import Entry, Record
    from seatrial.outputs import BatchOutput
    from seatrial.plan import Ask, Plan
    from seatrial.release import Release
    from seatrial.rollout import Action, Rollout
    from seatrial.routing import RoutingSnapshot
    from seatrial.routing.signing import SigningKey
    from seatrial.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Registered:
    """A release and where its files are."""

    release: Release
    location: Path  #: directory that artifact and report paths are relative to
    registered_at: datetime


@dataclass(frozen=True, slots=True)
class Commit:
    """Everything one move writes: all of it, or nothing.

    Raises ConflictError in the store when a rollout is not at the version it was read at, when another rollout is
    active on the decision point, or when somebody else published this snapshot number.
    """

    records: tuple[Record, ...]
    inserted: Rollout | None = None
    moved: tuple[Rollout, ...] = ()  #: each was read at `version - 1`
    snapshot: RoutingSnapshot | None = None  #: number is one above the present one
    champion: tuple[str, str] | None = None  #: (decision point, release id that is champion from now on)
    evidence: Evidence | None = None  #: what the decision rests on, kept under its digest
    outputs: tuple[BatchOutput, ...] = ()  #: new, or each was read at `version - 1`


@dataclass(frozen=True, slots=True)
class Look:
    """One judged look at a rollout's evidence, for display and for finding a stale watch."""

    rollout_id: str
    at: datetime
    action: Action
    reason: str
    share: float
    evidence_digest: str
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class RouterReport:
    """What a router says it serves."""

    router: str  #: name of the router, unique on its decision point
    decision_point: str
    number: int  #: snapshot it assigns by
    at: datetime
    fallback: str  #: release id that it serves when that snapshot's lease is over
    lease_until: datetime | None  #: None when the snapshot gives the challenger no share
    shadow: ShadowLoad | None = None  #: what its copies cost; None when it sends none
    served: Mapping[str, int] = field(default_factory=dict)  #: units assigned under that snapshot, by release id
    refused: Mapping[str, int] = field(default_factory=dict)  #: snapshots not taken since it started, by reason
    taken_at: datetime | None = None  #: when it took that snapshot


@dataclass(frozen=True, slots=True)
class Scope:
    """Which decisions a look covers."""

    decision_point: str
    rollout_id: str
    champion: str  #: release id
    challenger: str  #: release id
    since: datetime  #: start of the rollout


class Releases(Protocol):
    """Registered releases."""

    def add_release(self, registered: Registered, records: Sequence[Record]) -> None:
        """Store a release; storing the same one again changes nothing."""

    def release(self, release_id: str) -> Registered:
        """Return a release, by its whole id or by its first characters; raises NotFoundError."""

    def releases(self, decision_point: str | None = None) -> Sequence[Registered]:
        """Return the releases of one decision point, or all, in the order of registration."""


class Plans(Protocol):
    """Plans that rollouts refer to."""

    def add_plan(self, plan: Plan, *, now: datetime) -> None:
        """Store a plan; storing the same one again changes nothing."""

    def plan(self, plan_id: str) -> Plan:
        """Return a plan; raises NotFoundError."""


class Rollouts(Protocol):
    """Rollouts and the champion of each decision point."""

    def rollout(self, rollout_id: str) -> Rollout:
        """Return a rollout, by its whole id or by its first characters; raises NotFoundError."""

    def rollouts(self, decision_point: str | None = None) -> Sequence[Rollout]:
        """Return the rollouts of one decision point, or all, oldest first."""

    def champions(self) -> Mapping[str, str]:
        """Return the champion's release id by decision point."""

    def commit(self, commit: Commit) -> None:
        """Write `commit` as one transaction; raises ConflictError when it was decided on old state."""


class Snapshots(Protocol):
    """Routing snapshots, and what routers report about them."""

    def snapshot(self, decision_point: str) -> RoutingSnapshot:
        """Return the present snapshot; raises NotFoundError."""

    def published(self) -> Sequence[RoutingSnapshot]:
        """Return every routing snapshot that was ever published, as it is now; raises TamperedError."""

    def renew(self, snapshot: RoutingSnapshot) -> bool:
        """Extend the lease of the present snapshot to that of `snapshot`; False when it is no longer present."""

    def report(self, report: RouterReport) -> None:
        """Store what a router serves, replacing its last report."""

    def reports(self, decision_point: str) -> Sequence[RouterReport]:
        """Return the last report of each router."""

    def forget(self, decision_point: str, router: str) -> None:
        """Drop the report of a router that is gone for good; one that still runs reports again."""


class SnapshotFeed(Protocol):
    """Where a router gets its snapshots, and says what it serves; a store is one."""

    def snapshot(self, decision_point: str) -> RoutingSnapshot:
        """Return the present snapshot.

        Raises NotFoundError for an unknown decision point, UnavailableError without an answer, and TamperedError for
        an answer that is no snapshot.
        """

    def report(self, report: RouterReport) -> None:
        """Say what a router serves; raises UnavailableError when nobody listens."""


class Ledger(Protocol):
    """The append-only record."""

    def append(self, records: Sequence[Record]) -> None:
        """Append `records`; one whose key is present already is left out."""

    def entries(self, rollout_id: str | None = None) -> Sequence[Entry]:
        """Return entries in order, all or those of one rollout."""

    def head(self) -> tuple[int, str]:
        """Return number and hash of the newest entry; 0 and `GENESIS` before the first."""

    def erase(self, numbers: Sequence[int], texts: Iterable[str], records: Sequence[Record]) -> None:
        """Forget for ever the texts of the entries with these `numbers`, and append `records` that say so.

        Reasons elsewhere on the decision point of the records that hold one of `texts` are forgotten too.
        """


class Notes(Protocol):
    """What the ledger's checkpoints are made of, and those that were made."""

    def hashes(self) -> Sequence[str]:
        """Return the hash of each entry, in order."""

    def add_checkpoint(self, size: int, note: str, *, now: datetime) -> None:
        """Store the checkpoint of the ledger at `size`; a second one of the same size is left out."""

    def checkpoints(self) -> Sequence[str]:
        """Return the signed notes of all checkpoints, smallest first."""


class Anchor(Protocol):
    """A place outside the database where checkpoints are kept, best in the hands of somebody else."""

    @property
    def name(self) -> str:
        """What it is called in findings."""

    def publish(self, size: int, note: str) -> None:
        """Keep the note of the checkpoint of `size`; the same one again changes nothing; raises UnavailableError."""

    def notes(self) -> Sequence[str]:
        """Return every note that is kept, in the order of keeping; raises UnavailableError."""


class Looks(Protocol):
    """Judged looks, and what the watch last did."""

    def add_look(self, look: Look) -> None:
        """Store a look; a second one of the same rollout and time is left out."""

    def looks(self, rollout_id: str) -> Sequence[Look]:
        """Return the looks of a rollout, oldest first."""

    def last_look(self, rollout_id: str) -> Look | None:
        """Return the newest look of a rollout; None when there is none."""

    def evidence(self, digest: str) -> Mapping[str, object]:
        """Return stored evidence as plain data; raises NotFoundError."""


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """What one declared gate answered about one rollout."""

    rollout_id: str
    gate: str
    at: datetime
    inputs: str  #: digest of everything the answer rests on: the same inputs need not be asked again
    findings: tuple[Finding, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of the findings."""
        return worst(finding.verdict for finding in self.findings)

    @property
    def digest(self) -> str:
        """The digest of inputs and findings, which a waiver names."""
        return digest_of([self.gate, self.inputs, [finding.document() for finding in self.findings]])


class GateAnswers(Protocol):
    """What declared gates answered."""

    def add_gate_answer(self, answer: GateAnswer, records: Sequence[Record]) -> None:
        """Store the answer to one gate of a rollout with its records, replacing the rollout's answer before."""

    def gate_answers(self, rollout_id: str) -> Mapping[str, GateAnswer]:
        """Return the present answers of a rollout, by gate."""

    def answered_before(self, inputs: str) -> GateAnswer | None:
        """Return the newest answer to the same `inputs`, of whichever rollout; one that is an ERROR is none."""


class Beats(Protocol):
    """Signs of life of the parts that keep watch."""

    def beat(self, name: str, *, now: datetime) -> None:
        """Record that `name` finished a round at `now`."""

    def last_beat(self, name: str) -> datetime | None:
        """Return when `name` last finished a round; None when it never did."""


class Outputs(Protocol):
    """Batch outputs; they change by `Commit`."""

    def output(self, output_id: str) -> BatchOutput:
        """Return an output, by its whole id or by its first characters; raises NotFoundError."""

    def outputs(self, decision_point: str | None = None) -> Sequence[BatchOutput]:
        """Return the outputs of one decision point, or all, oldest first."""


class Store(Releases, Plans, Rollouts, Snapshots, Outputs, Ledger, Notes, Looks, GateAnswers, Beats, Protocol):
    """All of the control plane's memory."""


class Clock(Protocol):
    """Time, which only the edges read."""

    def now(self) -> datetime:
        """Return the present time, aware."""


class EvidenceSource(Protocol):
    """Decision and label logs."""

    def look(self, plan: Plan, scope: Scope, *, now: datetime) -> Evidence:
        """Return what the logs say up to `now`; raises UnavailableError when they cannot be read."""


class LogSource(EvidenceSource, Protocol):
    """Logs that can also be asked what is in them and belongs to no decision."""

    def orphans(self, plan: Plan, scope: Scope, *, now: datetime) -> Mapping[str, int]:
        """Return by name how many labels arrived during the rollout for no decision in the log."""


class ReleaseProbe(Protocol):
    """The runtime that releases are loaded in."""

    def probe(self, registered: Registered) -> Sequence[Finding]:
        """Load the release in its declared runtime, score its own examples, and say what was found."""


@dataclass(frozen=True, slots=True)
class Case:
    """One declared gate, put to one challenger and its rollback target."""

    gate: str  #: its name: the key under which the plan declares it
    ask: Ask  #: its declaration
    plan: Plan
    challenger: Registered
    champion: Registered


class Examiner(Protocol):
    """What answers declared gates: each adapter those it can measure, `adapters.asking` all of them."""

    def reads(self, case: Case) -> Mapping[str, str]:
        """Return the digest of every datum beside releases and plan that the answer rests on, by name.

        Same digests, same answer: the store then knows it and `examine` is not called. Raises UnavailableError when
        the data does not answer, which is tried again.
        """

    def examine(self, case: Case) -> Sequence[Finding]:
        """Return the answer: one or more findings on Question.CONTRACT whose subject begins with the gate's name.

        Raises UnavailableError when a part does not answer, which is tried again; whatever else is raised is an ERROR.
        """


class Quantity(StrEnum):
    """What a monitoring system may be asked about one arm, with its unit."""

    P50_MS = "p50_ms"  #: median latency
    P99_MS = "p99_ms"  #: latency that one call in a hundred exceeds
    ERROR_RATE = "error_rate"  #: part of the calls that failed, in [0, 1]


class NoReading(StrEnum):
    """Why a monitoring system has no number; none of them is a zero."""

    NO_SERIES = "no_series"  #: nothing answers to the query: no traffic, no such release, or a series that vanished
    SEVERAL_SERIES = "several_series"  #: the query does not name one number
    NOT_A_NUMBER = "not_a_number"  #: NaN: a rate or a quantile of nothing
    OUT_OF_RANGE = "out_of_range"  #: infinite, negative, or a part above 1
    TIMEOUT = "timeout"
    UNAVAILABLE = "unavailable"  #: no connection
    REFUSED = "refused"  #: an answer that is no success, a redirect among them
    DOUBTED = "doubted"  #: the answer came with a warning, as of a part that did not answer


@dataclass(frozen=True, slots=True)
class Reading:
    """One quantity of one arm as the monitoring system has it now, or why it has none."""

    rollout_id: str
    arm: Arm
    quantity: Quantity
    value: float | None = None  #: in the unit of the quantity; None exactly when `absent` says why
    absent: NoReading | None = None
    detail: str = ""  #: what was found, for people


class RuntimeMetrics(Protocol):
    """The monitoring system that watches the runtime."""

    def read(self, scopes: Sequence[Scope]) -> Sequence[Reading]:
        """Return a reading for each scope, arm and quantity that is asked for; a missing number is one of them."""


@dataclass(frozen=True, slots=True)
class Notary:
    """What makes and checks the ledger's checkpoints."""

    origin: str  #: name of the ledger, the same for ever
    keys: tuple[VerifierKey, ...]  #: every key that signs or ever signed
    private: Ed25519PrivateKey | None = None  #: None where checkpoints are only checked
    anchors: tuple[Anchor, ...] = ()


@dataclass(frozen=True, slots=True)
class Ports:
    """What the control plane works with."""

    store: Store
    evidence: EvidenceSource
    probe: ReleaseProbe
    approvers: Mapping[str, frozenset[str]] = field(default_factory=dict)  #: roles by name of the person
    runtime: RuntimeMetrics | None = None  #: None when no monitoring system is configured
    signer: SigningKey | None = None  #: signs snapshots; None leaves them unsigned
    notary: Notary | None = None  #: None where the ledger has no checkpoints
    examiner: Examiner | None = None  #: None where nothing answers declared gates, each of which is then an ERROR
