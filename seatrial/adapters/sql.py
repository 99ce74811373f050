"""The control plane's memory in SQL: PostgreSQL, or SQLite for a quick look.

A move is one transaction. Two writers are told apart by three constraints, not by locks that a crash could leave
behind: the version of the rollout, one active rollout for each decision point, one row for each snapshot number. The
ledger's head is one row that each append moves from the number it read.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError, OperationalError

from seatrial.adapters.ledger_tables import (
    CHECKPOINTS,
    LEDGER,
    LEDGER_HEAD,
    LEDGER_TEXTS,
    METADATA,
    AwareTime,
    add_missing_columns,
    append,
    entry_of,
    select_entries,
)
from seatrial.adapters.memory import match_id
from seatrial.errors import ConflictError, NotFoundError, TamperedError, UnavailableError
from seatrial.gates.finding import Finding
from seatrial.gates.load import ShadowLoad
from seatrial.ledger import ERASED, GENESIS
from seatrial.outputs import BatchOutput, Standing
from seatrial.plan import Plan
from seatrial.ports import GateAnswer, Look, Registered, RouterReport
from seatrial.release import Release
from seatrial.rollout import RETURNING, Action, Rollout, State
from seatrial.routing import RoutingSnapshot
from seatrial.units import canonical
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from seatrial.ledger import Entry, Record
    from seatrial.ports import Commit


RELEASES = sa.Table(
    "releases",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("position", sa.Integer, nullable=False),
    sa.Column("decision_point", sa.String, nullable=False, index=True),
    sa.Column("manifest", sa.Text, nullable=False),
    sa.Column("location", sa.String, nullable=False),
    sa.Column("registered_at", AwareTime, nullable=False),
)
PLANS = sa.Table(
    "plans",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("added_at", AwareTime, nullable=False),
)
DECISION_POINTS = sa.Table(
    "decision_points",
    METADATA,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("champion", sa.String, nullable=False),
)
ROLLOUTS = sa.Table(
    "rollouts",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("decision_point", sa.String, nullable=False),
    sa.Column("champion", sa.String, nullable=False),
    sa.Column("challenger", sa.String, nullable=False),
    sa.Column("plan_id", sa.String, nullable=False),
    sa.Column("requested_by", sa.String, nullable=False),
    sa.Column("created_at", AwareTime, nullable=False),
    sa.Column("state", sa.String, nullable=False),
    sa.Column("stage", sa.Integer, nullable=False),
    sa.Column("entered_at", AwareTime, nullable=False),
    sa.Column("deadline", AwareTime),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("evidence_digest", sa.String),
    sa.Column("flow_run_id", sa.String),
    sa.Column("is_active", sa.Boolean, nullable=False),
)
#: One rollout on trial for each decision point, whoever asks and however often. Two may roll back at once: a champion
#: that is demoted takes its challenger along.
_ON_TRIAL = ROLLOUTS.c.is_active & ROLLOUTS.c.state.not_in([state.value for state in sorted(RETURNING)])
ONE_ON_TRIAL = sa.Index(
    "one_rollout_on_trial",
    ROLLOUTS.c.decision_point,
    unique=True,
    postgresql_where=_ON_TRIAL,
    sqlite_where=_ON_TRIAL,
)
SNAPSHOTS = sa.Table(
    "snapshots",
    METADATA,
    sa.Column("decision_point", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("lease_until", AwareTime),
    sa.Column("signature", sa.String),
)
REPORTS = sa.Table(
    "router_reports",
    METADATA,
    sa.Column("decision_point", sa.String, primary_key=True),
    sa.Column("router", sa.String, primary_key=True),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("at", AwareTime, nullable=False),
    sa.Column("fallback", sa.String, nullable=False),
    sa.Column("lease_until", AwareTime),
    sa.Column("shadow", sa.Text),
    sa.Column("served", sa.Text, nullable=False),
    sa.Column("refused", sa.Text, nullable=False),
    sa.Column("taken_at", AwareTime),
)
LOOKS = sa.Table(
    "looks",
    METADATA,
    sa.Column("rollout_id", sa.String, primary_key=True),
    sa.Column("at", AwareTime, primary_key=True),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("share", sa.Float, nullable=False),
    sa.Column("evidence_digest", sa.String, nullable=False),
    sa.Column("findings", sa.Text, nullable=False),
)
EVIDENCE = sa.Table(
    "evidence",
    METADATA,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("body", sa.Text, nullable=False),
)
GATE_ANSWERS = sa.Table(
    "gate_answers",
    METADATA,
    sa.Column("rollout_id", sa.String, primary_key=True),
    sa.Column("gate", sa.String, primary_key=True),
    sa.Column("at", AwareTime, nullable=False),
    sa.Column("inputs", sa.String, nullable=False, index=True),
    sa.Column("findings", sa.Text, nullable=False),
    sa.Column("verdict", sa.String, nullable=False),
)
OUTPUTS = sa.Table(
    "batch_outputs",
    METADATA,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("decision_point", sa.String, nullable=False, index=True),
    sa.Column("location", sa.String, nullable=False),
    sa.Column("snapshot_no", sa.Integer, nullable=False),
    sa.Column("rows", sa.Text, nullable=False),
    sa.Column("consumers", sa.Text, nullable=False),
    sa.Column("made_at", AwareTime, nullable=False),
    sa.Column("made_by", sa.String, nullable=False),
    sa.Column("standing", sa.String, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
)

BEATS = sa.Table(
    "beats",
    METADATA,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("at", AwareTime, nullable=False),
)

#: PostgreSQL channel on which the decision point of a new or renewed snapshot is told.
CHANNEL = "seatrial_snapshots"
#: Seconds after which an unreachable database counts as one that does not answer: a kill must not hang.
CONNECT_TIMEOUT_S = 5
#: Columns that a move writes; every other column of a rollout is fixed when it is opened.
_MOVING = ("state", "stage", "entered_at", "deadline", "reason", "version", "evidence_digest", "flow_run_id")


class SqlStore:
    """Everything a `Store` keeps, in the tables above."""

    def __init__(self, url: str) -> None:
        is_remote = sa.make_url(url).get_backend_name() == "postgresql"
        patience = {"connect_timeout": CONNECT_TIMEOUT_S} if is_remote else {}
        self._engine = sa.create_engine(url, pool_pre_ping=True, connect_args=patience)
        # One query is its own transaction: a kill must not wait for two answers that say nothing.
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT") if is_remote else self._engine
        if self._engine.dialect.name == "sqlite":
            sa.event.listen(self._engine, "connect", _wait_for_other_writers)
            sa.event.listen(self._engine, "begin", _take_write_lock_at_once)

    @property
    def engine(self) -> sa.Engine:
        """The engine, for tests that cut off writes."""
        return self._engine

    @property
    def listen_url(self) -> str | None:
        """Address for a driver of PostgreSQL that listens to `CHANNEL`; None for an engine that tells nobody."""
        if self._engine.dialect.name != "postgresql":
            return None
        return self._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)

    def create_tables(self) -> None:
        """Create what is missing; tables that exist stay as they are."""
        with self._translated():
            METADATA.create_all(self._engine)
            with self._engine.begin() as connection:
                add_missing_columns(connection)
                self._insert_new(connection, LEDGER_HEAD, id=1, number=0, hash=GENESIS)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    # -- releases and plans

    def add_release(self, registered: Registered, records: Sequence[Record]) -> None:
        """Store a release; storing the same one again changes nothing."""
        release = registered.release
        with self._writing() as connection:
            position = connection.scalar(sa.select(sa.func.count()).select_from(RELEASES)) or 0
            self._insert_new(
                connection,
                RELEASES,
                id=release.id,
                position=position,
                decision_point=release.decision_point,
                manifest=release.model_dump_json(),
                location=str(registered.location),
                registered_at=registered.registered_at,
            )
            self._append(connection, records)

    def release(self, release_id: str) -> Registered:
        """Return a release, by its whole id or by its first characters; raises NotFoundError."""
        if (row := self._row(sa.select(RELEASES).where(RELEASES.c.id == release_id))) is not None:
            return _registered(row)
        known = {registered.release.id: registered for registered in self.releases()}
        return known[match_id("release", release_id, known)]

    def releases(self, decision_point: str | None = None) -> Sequence[Registered]:
        """Return the releases of one decision point, or all, in the order of registration."""
        query = sa.select(RELEASES).order_by(RELEASES.c.position, RELEASES.c.id)
        if decision_point is not None:
            query = query.where(RELEASES.c.decision_point == decision_point)
        return [_registered(row) for row in self._rows(query)]

    def add_plan(self, plan: Plan, *, now: datetime) -> None:
        """Store a plan; storing the same one again changes nothing."""
        with self._writing() as connection:
            self._insert_new(connection, PLANS, id=plan.id, body=plan.model_dump_json(), added_at=now)

    def plan(self, plan_id: str) -> Plan:
        """Return a plan; raises NotFoundError."""
        rows = self._rows(sa.select(PLANS.c.body).where(PLANS.c.id == plan_id))
        if not rows:
            known = [row.id for row in self._rows(sa.select(PLANS.c.id))]
            raise NotFoundError.of("plan", plan_id, known)
        return Plan.model_validate_json(rows[0].body)

    # -- rollouts

    def rollout(self, rollout_id: str) -> Rollout:
        """Return a rollout, by its whole id or by its first characters; raises NotFoundError."""
        rows = self._rows(sa.select(ROLLOUTS).where(ROLLOUTS.c.id == rollout_id))
        if rows:
            return _rollout(rows[0])
        known = {rollout.id: rollout for rollout in self.rollouts()}
        return known[match_id("rollout", rollout_id, known)]

    def rollouts(self, decision_point: str | None = None) -> Sequence[Rollout]:
        """Return the rollouts of one decision point, or all, oldest first."""
        query = sa.select(ROLLOUTS).order_by(ROLLOUTS.c.created_at, ROLLOUTS.c.id)
        if decision_point is not None:
            query = query.where(ROLLOUTS.c.decision_point == decision_point)
        return [_rollout(row) for row in self._rows(query)]

    def champions(self) -> Mapping[str, str]:
        """Return the champion's release id by decision point."""
        return {row.name: row.champion for row in self._rows(sa.select(DECISION_POINTS))}

    def commit(self, commit: Commit) -> None:
        """Write `commit` as one transaction; raises ConflictError when it was decided on old state."""
        try:
            with self._writing() as connection:
                self._commit(connection, commit)
        except IntegrityError as error:
            raise ConflictError(
                f"{_what(commit)}: another rollout holds the decision point, or somebody published first; read again"
                " and decide again"
            ) from error

    def _commit(self, connection: sa.Connection, commit: Commit) -> None:
        if commit.inserted is not None:
            _require_free(connection, commit.inserted)
            row = {c.name: getattr(commit.inserted, c.name) for c in ROLLOUTS.columns}
            connection.execute(sa.insert(ROLLOUTS).values({**row, "state": commit.inserted.state.value}))
        for rollout in commit.moved:
            row = {name: getattr(rollout, name) for name in _MOVING}
            moved = connection.execute(
                sa.update(ROLLOUTS)
                .where(ROLLOUTS.c.id == rollout.id, ROLLOUTS.c.version == rollout.version - 1)
                .values({**row, "state": rollout.state.value, "is_active": rollout.is_active})
            )
            if moved.rowcount != 1:
                raise ConflictError(
                    f"rollout {rollout.id}: not at version {rollout.version - 1}; read it again and decide again"
                )
        if commit.snapshot is not None:
            _publish(connection, commit.snapshot)
        if commit.champion is not None:
            name, champion = commit.champion
            self._insert_new(connection, DECISION_POINTS, name=name, champion=champion)
            connection.execute(
                sa.update(DECISION_POINTS).where(DECISION_POINTS.c.name == name).values(champion=champion)
            )
            _require_told(connection, name, champion)
        if commit.evidence is not None:
            body = canonical(commit.evidence.document()).decode()
            self._insert_new(connection, EVIDENCE, digest=commit.evidence.digest, body=body)
        for output in commit.outputs:
            self._write_output(connection, output)
        self._append(connection, commit.records)

    # -- snapshots

    def snapshot(self, decision_point: str) -> RoutingSnapshot:
        """Return the present snapshot; raises NotFoundError, or TamperedError when it is not one any more."""
        rows = self._rows(
            sa.select(SNAPSHOTS)
            .where(SNAPSHOTS.c.decision_point == decision_point)
            .order_by(SNAPSHOTS.c.number.desc())
            .limit(1)
        )
        if not rows:
            known = [row.name for row in self._rows(sa.select(DECISION_POINTS.c.name))]
            raise NotFoundError.of("decision point", decision_point, known)
        return _snapshot(rows[0], decision_point)

    def renew(self, snapshot: RoutingSnapshot) -> bool:
        """Extend the lease of the present snapshot to that of `snapshot`; False when it is no longer present."""
        newer = SNAPSHOTS.alias()
        with self._writing() as connection:
            newest = connection.scalar(
                sa.select(sa.func.max(newer.c.number)).where(newer.c.decision_point == snapshot.decision_point)
            )
            if newest != snapshot.number:
                return False
            connection.execute(
                sa.update(SNAPSHOTS)
                .where(
                    SNAPSHOTS.c.decision_point == snapshot.decision_point,
                    SNAPSHOTS.c.number == snapshot.number,
                    SNAPSHOTS.c.lease_until < snapshot.lease_until,
                )
                .values(lease_until=snapshot.lease_until, signature=snapshot.signature)
            )
            _tell(connection, snapshot.decision_point)
        return True

    def report(self, report: RouterReport) -> None:
        """Store what a router serves, replacing its last report."""
        texts = {
            "shadow": None if report.shadow is None else canonical(report.shadow.document()).decode(),
            "served": canonical(dict(report.served)).decode(),
            "refused": canonical(dict(report.refused)).decode(),
        }
        row = {**{c.name: getattr(report, c.name) for c in REPORTS.columns}, **texts}
        with self._writing() as connection:
            self._insert_new(connection, REPORTS, **row)
            connection.execute(
                sa.update(REPORTS)
                .where(REPORTS.c.decision_point == report.decision_point, REPORTS.c.router == report.router)
                .values(row)
            )

    def reports(self, decision_point: str) -> Sequence[RouterReport]:
        """Return the last report of each router."""
        query = sa.select(REPORTS).where(REPORTS.c.decision_point == decision_point).order_by(REPORTS.c.router)
        return [_report(row) for row in self._rows(query)]

    def forget(self, decision_point: str, router: str) -> None:
        """Drop the report of a router that is gone for good; one that still runs reports again."""
        gone = (REPORTS.c.decision_point == decision_point) & (REPORTS.c.router == router)
        with self._writing() as connection:
            connection.execute(sa.delete(REPORTS).where(gone))

    # -- batch outputs

    def output(self, output_id: str) -> BatchOutput:
        """Return an output, by its whole id or by its first characters; raises NotFoundError."""
        known = {output.id: output for output in self.outputs()}
        return known[match_id("output", output_id, known)]

    def outputs(self, decision_point: str | None = None) -> Sequence[BatchOutput]:
        """Return the outputs of one decision point, or all, oldest first."""
        query = sa.select(OUTPUTS).order_by(OUTPUTS.c.made_at, OUTPUTS.c.id)
        if decision_point is not None:
            query = query.where(OUTPUTS.c.decision_point == decision_point)
        return [_output(row) for row in self._rows(query)]

    def _write_output(self, connection: sa.Connection, output: BatchOutput) -> None:
        if output.version == 1:
            row = {column.name: getattr(output, column.name) for column in OUTPUTS.columns}
            texts = {"rows": canonical(dict(output.rows)).decode(), "consumers": canonical(output.consumers).decode()}
            connection.execute(sa.insert(OUTPUTS).values({**row, **texts, "standing": output.standing.value}))
            return
        moved = connection.execute(
            sa.update(OUTPUTS)
            .where(OUTPUTS.c.id == output.id, OUTPUTS.c.version == output.version - 1)
            .values(standing=output.standing.value, reason=output.reason, version=output.version)
        )
        if moved.rowcount != 1:
            raise ConflictError(f"output {output.id}: changed meanwhile; read it again and decide again")

    # -- ledger and looks

    def append(self, records: Sequence[Record]) -> None:
        """Append `records`; one whose key is present already is left out."""
        with self._writing() as connection:
            self._append(connection, records)

    def entries(self, rollout_id: str | None = None) -> Sequence[Entry]:
        """Return entries in order, all or those of one rollout."""
        return [entry_of(row) for row in self._rows(select_entries(rollout_id))]

    def head(self) -> tuple[int, str]:
        """Return number and hash of the newest entry; 0 and `GENESIS` before the first."""
        (row,) = self._rows(sa.select(LEDGER_HEAD.c.number, LEDGER_HEAD.c.hash))
        return row.number, row.hash

    def hashes(self) -> Sequence[str]:
        """Return the hash of each entry, in order."""
        return [row.hash for row in self._rows(sa.select(LEDGER.c.hash).order_by(LEDGER.c.number))]

    def erase(self, numbers: Sequence[int], texts: Iterable[str], records: Sequence[Record]) -> None:
        """Forget for ever the texts of the entries with these `numbers`, and append `records` that say so.

        Reasons elsewhere on the decision point of the records that hold one of `texts` are forgotten too.
        """
        points = {record.decision_point for record in records}
        of_points = sa.select(ROLLOUTS.c.id).where(ROLLOUTS.c.decision_point.in_(points))
        with self._writing() as connection:
            connection.execute(sa.delete(LEDGER_TEXTS).where(LEDGER_TEXTS.c.number.in_(numbers)))
            for text in texts:
                for table, belongs in (
                    (ROLLOUTS, ROLLOUTS.c.decision_point.in_(points)),
                    (OUTPUTS, OUTPUTS.c.decision_point.in_(points)),
                    (LOOKS, LOOKS.c.rollout_id.in_(of_points)),
                ):
                    held = table.c.reason.contains(text, autoescape=True)
                    connection.execute(sa.update(table).where(belongs, held).values(reason=ERASED))
            self._append(connection, records)

    def add_checkpoint(self, size: int, note: str, *, now: datetime) -> None:
        """Store the checkpoint of the ledger at `size`; a second one of the same size is left out."""
        with self._writing() as connection:
            self._insert_new(connection, CHECKPOINTS, size=size, note=note, at=now)

    def checkpoints(self) -> Sequence[str]:
        """Return the signed notes of all checkpoints, smallest first."""
        return [row.note for row in self._rows(sa.select(CHECKPOINTS.c.note).order_by(CHECKPOINTS.c.size))]

    def published(self) -> Sequence[RoutingSnapshot]:
        """Return every routing snapshot that was ever published, as it is in the database now."""
        query = sa.select(SNAPSHOTS).order_by(SNAPSHOTS.c.decision_point, SNAPSHOTS.c.number)
        return [_snapshot(row, row.decision_point) for row in self._rows(query)]

    def add_look(self, look: Look) -> None:
        """Store a look; a second one of the same rollout and time is left out."""
        findings = canonical([finding.document() for finding in look.findings]).decode()
        with self._writing() as connection:
            self._insert_new(
                connection,
                LOOKS,
                rollout_id=look.rollout_id,
                at=look.at,
                action=look.action.value,
                reason=look.reason,
                share=look.share,
                evidence_digest=look.evidence_digest,
                findings=findings,
            )

    def looks(self, rollout_id: str) -> Sequence[Look]:
        """Return the looks of a rollout, oldest first."""
        query = sa.select(LOOKS).where(LOOKS.c.rollout_id == rollout_id).order_by(LOOKS.c.at)
        return [_look(row) for row in self._rows(query)]

    def last_look(self, rollout_id: str) -> Look | None:
        """Return the newest look of a rollout; None when there is none."""
        query = sa.select(LOOKS).where(LOOKS.c.rollout_id == rollout_id).order_by(LOOKS.c.at.desc()).limit(1)
        rows = self._rows(query)
        return _look(rows[0]) if rows else None

    def evidence(self, digest: str) -> Mapping[str, object]:
        """Return stored evidence as plain data; raises NotFoundError."""
        rows = self._rows(sa.select(EVIDENCE.c.body).where(EVIDENCE.c.digest == digest))
        if not rows:
            raise NotFoundError(f"evidence {digest!r}: not stored; only that of kept looks and of moves is")
        document: Mapping[str, object] = json.loads(rows[0].body)
        return document

    # -- declared gates

    def add_gate_answer(self, answer: GateAnswer, records: Sequence[Record]) -> None:
        """Store the answer to one gate of a rollout with its records, replacing the rollout's answer before."""
        row = {
            "rollout_id": answer.rollout_id,
            "gate": answer.gate,
            "at": answer.at,
            "inputs": answer.inputs,
            "findings": canonical([finding.document() for finding in answer.findings]).decode(),
            "verdict": answer.verdict.name,
        }
        with self._writing() as connection:
            self._insert_new(connection, GATE_ANSWERS, **row)
            connection.execute(
                sa.update(GATE_ANSWERS)
                .where(GATE_ANSWERS.c.rollout_id == answer.rollout_id, GATE_ANSWERS.c.gate == answer.gate)
                .values(row)
            )
            self._append(connection, records)

    def gate_answers(self, rollout_id: str) -> Mapping[str, GateAnswer]:
        """Return the present answers of a rollout, by gate."""
        query = sa.select(GATE_ANSWERS).where(GATE_ANSWERS.c.rollout_id == rollout_id).order_by(GATE_ANSWERS.c.gate)
        return {row.gate: _gate_answer(row) for row in self._rows(query)}

    def answered_before(self, inputs: str) -> GateAnswer | None:
        """Return the newest answer to the same `inputs`, of whichever rollout; one that is an ERROR is none."""
        query = (
            sa.select(GATE_ANSWERS)
            .where(GATE_ANSWERS.c.inputs == inputs, GATE_ANSWERS.c.verdict != Verdict.ERROR.name)
            .order_by(GATE_ANSWERS.c.at.desc(), GATE_ANSWERS.c.rollout_id)
            .limit(1)
        )
        rows = self._rows(query)
        return _gate_answer(rows[0]) if rows else None

    # -- signs of life

    def beat(self, name: str, *, now: datetime) -> None:
        """Record that `name` finished a round at `now`."""
        with self._writing() as connection:
            self._insert_new(connection, BEATS, name=name, at=now)
            connection.execute(sa.update(BEATS).where(BEATS.c.name == name).values(at=now))

    def last_beat(self, name: str) -> datetime | None:
        """Return when `name` last finished a round; None when it never did."""
        rows = self._rows(sa.select(BEATS.c.at).where(BEATS.c.name == name))
        return rows[0].at if rows else None

    # -- how rows are read and written

    def _append(self, connection: sa.Connection, records: Sequence[Record]) -> None:
        """Append `records` behind the head, which is moved from the number that was read."""
        append(connection, records, new_salt=lambda: token_hex(32))

    def _insert_new(self, connection: sa.Connection, table: sa.Table, **row: Any) -> None:
        """Insert `row` unless its primary key is present."""
        if connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert  # noqa: PLC0415 chosen by the engine at run time
        else:
            from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]  # noqa: PLC0415 as above
        connection.execute(insert(table).values(row).on_conflict_do_nothing())

    def _row(self, query: sa.Select[Any]) -> sa.Row[Any] | None:
        return next(iter(self._rows(query)), None)

    def _rows(self, query: sa.Select[Any]) -> Sequence[sa.Row[Any]]:
        with self._translated(), self._reading.connect() as connection:
            return connection.execute(query).all()

    @contextmanager
    def _writing(self) -> Iterator[sa.Connection]:
        with self._translated(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OperationalError as error:
            where = self._engine.url.render_as_string(hide_password=True)
            raise UnavailableError(f"{where}: the database did not answer; start it, then try again") from error


def _require_free(connection: sa.Connection, rollout: Rollout) -> None:
    """Lock the decision point of a rollout that starts, and refuse it when another holds it or its champion left."""
    name = rollout.decision_point
    champion = connection.scalar(
        sa.select(DECISION_POINTS.c.champion).where(DECISION_POINTS.c.name == name).with_for_update()
    )
    holders = connection.scalars(
        sa.select(ROLLOUTS.c.id).where(ROLLOUTS.c.decision_point == name, ROLLOUTS.c.is_active)
    ).all()
    if holders:
        raise ConflictError(f"decision point {name!r}: held by rollout {', '.join(holders)}; wait for its end")
    if champion not in (None, rollout.champion):
        raise ConflictError(
            f"decision point {name!r}: {champion} is champion, expected {rollout.champion}; read again and decide again"
        )


def _require_told(connection: sa.Connection, decision_point: str, champion: str) -> None:
    """Refuse a new champion while a rollout on trial would return to another one."""
    untold = connection.scalars(
        sa.select(ROLLOUTS.c.id).where(
            ROLLOUTS.c.decision_point == decision_point, _ON_TRIAL, ROLLOUTS.c.champion != champion
        )
    ).all()
    if untold:
        raise ConflictError(
            f"decision point {decision_point!r}: rollout {', '.join(untold)} returns to another champion; read again"
            " and decide again"
        )


def _publish(connection: sa.Connection, snapshot: RoutingSnapshot) -> None:
    newest = connection.scalar(
        sa.select(sa.func.max(SNAPSHOTS.c.number)).where(SNAPSHOTS.c.decision_point == snapshot.decision_point)
    )
    if newest is not None and newest != snapshot.number - 1:
        raise ConflictError(f"snapshot {snapshot.number}: number {newest} is present; read again and decide again")
    connection.execute(
        sa.insert(SNAPSHOTS).values(
            decision_point=snapshot.decision_point,
            number=snapshot.number,
            body=canonical(snapshot.document()).decode(),
            lease_until=snapshot.lease_until,
            signature=snapshot.signature,
        )
    )
    _tell(connection, snapshot.decision_point)


def _tell(connection: sa.Connection, decision_point: str) -> None:
    """Wake whoever listens, once the transaction is committed."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_notify(CHANNEL, decision_point)))


def _snapshot(row: sa.Row[Any], decision_point: str) -> RoutingSnapshot:
    try:
        written = RoutingSnapshot.of_document(json.loads(row.body))
        return replace(written, lease_until=row.lease_until, signature=row.signature)
    except ValueError as error:
        raise TamperedError(
            f"snapshot {row.number} of {decision_point!r}: {error}; call the person who owns the database"
        ) from error


def _what(commit: Commit) -> str:
    if commit.inserted is not None:
        return f"decision point {commit.inserted.decision_point!r}"
    return f"rollout {commit.moved[0].id}" if commit.moved else "routing snapshot"


def _registered(row: sa.Row[Any]) -> Registered:
    return Registered(Release.model_validate_json(row.manifest), Path(row.location), row.registered_at)


def _output(row: sa.Row[Any]) -> BatchOutput:
    fields = {**row._mapping, "rows": json.loads(row.rows), "standing": Standing(row.standing)}  # noqa: SLF001 as above
    return BatchOutput(**{**fields, "consumers": tuple(json.loads(row.consumers))})


def _report(row: sa.Row[Any]) -> RouterReport:
    texts = {name: json.loads(getattr(row, name)) for name in ("served", "refused")}
    load = None if row.shadow is None else ShadowLoad(**json.loads(row.shadow))
    return RouterReport(**{**row._mapping, **texts, "shadow": load})  # noqa: SLF001 as above


def _rollout(row: sa.Row[Any]) -> Rollout:
    fields = {name: value for name, value in row._mapping.items() if name != "is_active"}  # noqa: SLF001 public by documentation
    return Rollout(**{**fields, "state": State(row.state)})


def _look(row: sa.Row[Any]) -> Look:
    findings = tuple(map(Finding.of_document, json.loads(row.findings)))
    return Look(row.rollout_id, row.at, Action(row.action), row.reason, row.share, row.evidence_digest, findings)


def _gate_answer(row: sa.Row[Any]) -> GateAnswer:
    findings = tuple(map(Finding.of_document, json.loads(row.findings)))
    return GateAnswer(row.rollout_id, row.gate, row.at, row.inputs, findings)


def _wait_for_other_writers(connection: Any, _record: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA journal_mode = WAL")


def _take_write_lock_at_once(connection: sa.Connection) -> None:
    """Begin as a writer: a reader that turns writer later is refused at once instead of waiting its turn."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
