"""Looks that go on from the last one: counts are kept, and only what is new or has matured is counted again.

What is kept is the counts themselves, the first decision of each unit and which units were seen. A new look reads the
files that are new, finds the units whose counts can have changed (a decision, a label, a window that has closed),
takes their old counts off and adds their new ones. Wherever that would not be exact the look counts everything anew,
so that both ways always give the same evidence; `seatrial evidence verify` proves it for a rollout.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import duckdb

from seatrial.adapters.counting import Counted, Looker, aged, evidence_of, statements
from seatrial.adapters.counting.expressions import name, quoted
from seatrial.adapters.counting.statements import whole
from seatrial.adapters.duckdb import decisions_of, identity_of, labels_of, log_files, open_logs, open_quarantine
from seatrial.adapters.engines import DuckDB, duck_engine
from seatrial.adapters.log_files import make_folder
from seatrial.errors import UnavailableError
from seatrial.evidence import Evidence, Frozen
from seatrial.units import digest_of, format_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from seatrial.adapters.duckdb import ParquetLogs
    from seatrial.plan import Plan
    from seatrial.ports import Scope

#: Folder of the memory beside the logs.
MEMORY = "counted"
#: Logs up to this size are counted anew in less time than it takes to find out what has changed.
SMALL_BYTES = 64 << 20
#: A look that would go on from more parts than this counts anew, and begins with one part again.
MOST_PARTS = 100
#: What of a look is kept beside its counts.
KEPT = ("units", "firsts", "pairs")
#: The hashes of names are those of one version of DuckDB.
_VERSION = f"2, DuckDB {duckdb.__version__}"


@dataclass(frozen=True, slots=True)
class CountedLogs:
    """Parquet logs with a memory of what was counted. The memory may be deleted at any time: it is made again."""

    logs: ParquetLogs
    folder: Path  #: where the memory lies
    small_bytes: int = SMALL_BYTES

    def look(self, plan: Plan, scope: Scope, *, now: datetime) -> Evidence:
        """Return what the logs say up to `now`; raises UnavailableError when they cannot be read."""
        decisions = log_files(self.logs.root, "decisions", scope.decision_point)
        has_window = any(guardrail.mean is not None and guardrail.mean.window for guardrail in plan.guardrails)
        if has_window or sum(file.stat().st_size for file in decisions) <= self.small_bytes:
            return self.logs.look(plan, scope, now=now)
        memory = _Memory(self.folder / digest_of([plan.id, scope.rollout_id, format_time(scope.since)])[-16:])
        with memory.held() as is_ours:
            if not is_ours:
                return self.logs.look(plan, scope, now=now)
            labels = log_files(self.logs.root, "labels", scope.decision_point)
            try:
                with duck_engine() as engine:
                    return _Look(engine, plan, scope, now, decisions, labels, memory, self.logs).evidence()
            except (duckdb.Error, OSError) as error:
                raise UnavailableError(f"{self.logs.root}: the logs could not be read: {error}") from error


def forget(folder: Path) -> None:
    """Delete everything that is remembered: it names units that are to be erased. It is made again by the next look.

    Raises OSError when something stays.
    """
    if folder.exists():
        shutil.rmtree(folder)


@dataclass(frozen=True, slots=True)
class _State:
    """What is remembered of the last look."""

    now: datetime
    decisions: dict[str, int]  #: by identity of the files that were read, the latest time in it
    labels: dict[str, int]
    counted: Counted
    frozen: Frozen | None
    parts: dict[str, list[str]]  #: names of the files that hold what was kept
    generation: int  #: one more than that of the state before, for the names of parts
    digests: dict[str, str]  #: by identity of the files


class _Memory:
    """The files of one rollout's memory; who holds it may write."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Yield whether nobody else is looking; a second look at the same time counts anew and remembers nothing."""
        make_folder(self.folder)
        with (self.folder / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    def read(self) -> _State | None:
        """Return what is remembered; None when that is nothing, or nothing that can be read whole."""
        try:
            return _state_of(json.loads((self.folder / "state.json").read_text()))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def part(self, kind: str, generation: int) -> Path:
        """Return the path of a new part, which no state names yet; a look that was killed may have begun it."""
        return self.folder / f"{kind}-{generation}.parquet"

    def write(self, state: _State) -> None:
        """Remember `state`, whose parts are written; then delete the parts that no state names any more."""
        partial = self.folder / "state.json.partial"
        with partial.open("w") as file:
            # In one piece: written bit by bit it takes ten times as long.
            file.write(json.dumps(_state_document(state)))
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self.folder / "state.json")
        named = {name for names in state.parts.values() for name in names}
        for file_ in self.folder.glob("*.parquet"):
            if file_.name not in named:
                file_.unlink(missing_ok=True)


class _Look:
    """One look that goes on from the memory where it can."""

    def __init__(
        self,
        engine: DuckDB,
        plan: Plan,
        scope: Scope,
        now: datetime,
        decisions: Sequence[Path],
        labels: Sequence[Path],
        memory: _Memory,
        logs: ParquetLogs,
    ) -> None:
        self._engine = engine
        self._logs = logs
        self._scope = scope
        self._decisions, self._labels = decisions, labels
        self._memory = memory
        self._looker = Looker(engine, plan, scope, now, logs.tell)
        self._now = now
        self._generation = 0
        self._identities = {file: identity_of(file) for file in (*decisions, *labels)}

    def evidence(self) -> Evidence:
        state = self._memory.read()
        if state is not None:
            self._logs.digests.update(state.digests)
            self._generation = state.generation + 1
        sources = self._logs.sources(self._decisions, self._labels)
        advanced = None if state is None else self._advanced(state)
        if advanced is None:
            advanced = self._anew(None if state is None else state.frozen)
        self._memory.write(advanced)
        declaration = self._looker.declaration(advanced.frozen)
        evidence = evidence_of(declaration, advanced.counted, advanced.frozen, now=self._now)
        open_quarantine(self._engine, self._logs.root, self._scope)
        return replace(self._looker.with_turned_away(evidence), sources=sources)

    def _anew(self, frozen: Frozen | None) -> _State:
        open_logs(self._engine, self._scope, self._decisions, self._labels)
        frozen = frozen or self._looker.frozen()
        counted = self._looker.counted(frozen)
        return self._state(counted, frozen, {kind: [self._kept(kind, kind)] for kind in KEPT}, None)

    def _state(
        self, counted: Counted, frozen: Frozen | None, parts: dict[str, list[str]], before: _State | None
    ) -> _State:
        decisions = self._latest(self._decisions, "ts", {} if before is None else before.decisions)
        labels = self._latest(self._labels, "arrived_at", {} if before is None else before.labels)
        digests = {identity: self._logs.digests[identity] for identity in (*decisions, *labels)}
        return _State(self._now, decisions, labels, counted, frozen, parts, self._generation, digests)

    def _latest(self, files: Sequence[Path], time: str, known: dict[str, int]) -> dict[str, int]:
        """Return the latest time in each file: the date of its folder is what whoever wrote it took for one."""
        names = {str(file): self._identities[file] for file in files}
        new = ", ".join(quoted(path) for path, identity in names.items() if identity not in known)
        found = dict(known)
        if new:
            query = (
                f"SELECT filename, epoch_us(max({time})) FROM read_parquet([{new}], filename = true) GROUP BY filename"  # noqa: S608
            )
            found |= {names[path]: latest or 0 for path, latest in self._engine.rows(query)}
        return {identity: found.get(identity, 0) for identity in names.values()}

    def _kept(self, kind: str, relation: str) -> str:
        path = self._memory.part(kind, self._generation)
        hashed = f"SELECT *, hash({self._named(kind)}) AS name_hash FROM {relation}"  # noqa: S608
        self._engine.connection.execute(f"COPY ({hashed}) TO {quoted(str(path))} (FORMAT parquet)")
        return path.name

    def _named(self, kind: str) -> str:
        return name(self._looker.plan.unit) if kind == "units" else "decision_id"

    def _is_among(self, kind: str, relation: str) -> str:
        """Return whether a row of a kept part has a name in `relation`.

        A whole number is found three times as fast as a name, and names are read of those rows only that it finds.
        """
        column = self._named(kind)
        hashes, names = (f"SELECT {each} FROM {relation}" for each in (f"hash({column})", column))  # noqa: S608
        return f"name_hash IN ({hashes}) AND {column} IN ({names})"

    def _advanced(self, state: _State) -> _State | None:
        """Return the state at this look; None when only counting anew is sure to be exact."""
        is_rewritten = not (state.decisions.keys() | state.labels.keys()) <= set(self._identities.values())
        parts = [self._memory.folder / name for names in state.parts.values() for name in names]
        if (
            is_rewritten
            or state.now > self._now
            or len(parts) > MOST_PARTS
            or not all(part.is_file() for part in parts)
        ):
            return None
        self._logs.tell("finding out what has changed since the last look")
        self._open_new(state)
        if not self._adds_units_only(state):
            return None
        then = Looker(self._engine, self._looker.plan, self._scope, state.now)
        before, after = then.statements(state.frozen), self._looker.statements(state.frozen)
        self._looker.keep_firsts(after)
        self._keep_changed(state)
        old = self._looker.groups(before, "changed", "labels_then")
        self._engine.keep("counted_now", "SELECT * FROM changed UNION ALL SELECT * FROM firsts")
        new = self._looker.groups(after, "counted_now", "labels_now")
        taken = Counted(old, self._pairs(state, then, "labels_then"))
        added = Counted(
            new,
            self._pairs(state, self._looker, "labels_now"),
            self._looker.newest(),
            0,
            *self._looker.checked(),
        )
        declaration = self._looker.declaration(state.frozen)
        counted = aged(declaration, state.counted.plus(taken, -1), now=self._now).plus(added)
        more = {"units": "fresh_units", "firsts": "firsts"}
        grown = {
            kind: [*names, self._kept(kind, more[kind])] if kind in more else names
            for kind, names in state.parts.items()
        }
        return self._state(counted, state.frozen, grown, state)

    def _open_new(self, state: _State) -> None:
        """Name as `decisions` what this look sees and the last one did not, and as `labels` all of them."""
        since, until = whole(state.now), whole(self._now)
        new = [file for file in self._decisions if self._identities[file] not in state.decisions]
        seen = [file for file in self._decisions if state.decisions.get(self._identities[file], 0) > since]
        relations = [f"SELECT * FROM ({decisions_of(new, self._scope)}) AS new"] if new else []  # noqa: S608
        if seen:
            relations.append(
                f"SELECT * FROM ({decisions_of(seen, self._scope)}) AS seen WHERE decided_us > {since}"  # noqa: S608
            )
        if not relations:
            relations = [f"SELECT * FROM ({decisions_of(self._decisions[:1], self._scope)}) AS none WHERE false"]  # noqa: S608
        self._engine.view("decisions", " UNION ALL BY NAME ".join(relations))
        old = [file for file in self._labels if self._identities[file] in state.labels]
        added = [file for file in self._labels if self._identities[file] not in state.labels]
        self._engine.view("labels_before", labels_of(old))
        self._engine.view("labels_added", labels_of(added))
        later = [file for file in old if state.labels[self._identities[file]] > since]
        self._engine.keep(
            "touched",
            f"""
            SELECT DISTINCT decision_id FROM (
                SELECT decision_id FROM labels_added WHERE arrived_us <= {until}
                UNION ALL
                SELECT decision_id FROM ({labels_of(later)}) AS later
                WHERE arrived_us > {since} AND arrived_us <= {until}
            ) AS arrived
            """,  # noqa: S608
        )

    def _adds_units_only(self, state: _State) -> bool:
        """Return whether the new decisions add units and change nothing of those that were counted; keeps `units`."""
        plan = self._looker.plan
        unit = name(plan.unit)
        self._engine.view("rows_of", statements.rows(self._scope, self._now))
        ((copies,),) = self._engine.rows("SELECT count(*) FROM rows_of WHERE arm = 'shadow'")
        if copies:
            return False
        self._engine.keep("fresh_units", statements.units_on_trial(plan.unit))
        self._engine.keep(
            "known_units",
            f"""
            SELECT {unit}, min(decided_us) AS decided_us, min(from_snapshot) AS from_snapshot,
                max(to_snapshot) AS to_snapshot
            FROM {self._part(state, "units")} WHERE {self._is_among("units", "fresh_units")} GROUP BY {unit}
            """,  # noqa: S608
        )
        ((unsure,),) = self._engine.rows(f"""
            SELECT count(*) FROM fresh_units AS fresh LEFT JOIN known_units AS known ON fresh.{unit} = known.{unit}
            WHERE fresh.decided_us <= known.decided_us
                OR least(fresh.from_snapshot, known.from_snapshot) <= greatest(fresh.to_snapshot, known.to_snapshot)
        """)  # noqa: S608
        self._engine.keep(
            "units",
            f"SELECT * FROM fresh_units WHERE {unit} NOT IN (SELECT {unit} FROM known_units)",  # noqa: S608
        )
        return not unsure

    def _keep_changed(self, state: _State) -> None:
        """Keep the first decisions whose counts can have changed, and the labels that they had and have."""
        since, until = whole(state.now), whole(self._now)
        boundaries = self._looker.declaration(state.frozen).boundaries
        crossed = " OR ".join(
            f"(decided_us > {since - window} AND decided_us <= {until - window})" for window in boundaries
        )
        for kind, changed in (("firsts", "changed"), ("pairs", "changed_pairs")):
            is_touched = self._is_among(kind, "touched")
            self._engine.keep(changed, self._changed(self._part(state, kind), crossed or "false", is_touched))
        ids = [f"SELECT decision_id FROM {relation}" for relation in ("changed", "firsts", "changed_pairs")]  # noqa: S608
        self._engine.keep("asked", " UNION ".join(ids))
        some = " UNION ALL ".join(
            f"SELECT decision_id, name, value, arrived_us, {is_new} AS is_new FROM {relation}"  # noqa: S608
            f" WHERE decision_id IN (SELECT decision_id FROM asked)"
            for relation, is_new in (("labels_before", 0), ("labels_added", 1))
        )
        self._engine.keep("labels_now", some)
        self._engine.view("labels_then", "SELECT * FROM labels_now WHERE is_new = 0")

    def _changed(self, part: str, crossed: str, is_touched: str) -> str:
        """Return the query of the rows of a part whose window has closed, or for which a label has come."""
        closed = f"SELECT * EXCLUDE (name_hash) FROM {part} WHERE {crossed}"  # noqa: S608
        # Two columns say between which times the others have to be read.
        ((low, high),) = self._engine.rows(f"SELECT min(decided_us), max(decided_us) FROM {part} WHERE {is_touched}")  # noqa: S608
        if low is None:
            return closed
        within = f"decided_us BETWEEN {low} AND {high}"
        touched = f"{within} AND NOT ({crossed}) AND {is_touched}"
        return f"{closed} UNION ALL SELECT * EXCLUDE (name_hash) FROM {part} WHERE {touched}"  # noqa: S608

    def _pairs(self, state: _State, looker: Looker, labels: str) -> dict[tuple[int, ...], int]:
        return looker.pair_groups(looker.statements(state.frozen), "changed_pairs", labels)

    def _part(self, state: _State, kind: str) -> str:
        paths = ", ".join(quoted(str(self._memory.folder / name)) for name in state.parts[kind])
        return f"read_parquet([{paths}])"


def _state_document(state: _State) -> dict[str, Any]:
    counted = state.counted
    return {
        "version": _VERSION,
        "now": format_time(state.now),
        "decisions": state.decisions,
        "labels": state.labels,
        "groups": [[list(key), list(numbers)] for key, numbers in counted.groups.items()],
        "pairs": [[list(pair), count] for pair, count in counted.pairs.items()],
        "newest_us": counted.newest_us,
        "crossed": counted.crossed,
        "rows": counted.rows,
        "set_aside": dict(counted.set_aside),
        "frozen": None if state.frozen is None else state.frozen.document(),
        "parts": state.parts,
        "generation": state.generation,
        "digests": state.digests,
    }


def _state_of(document: Any) -> _State:
    if document["version"] != _VERSION:
        raise ValueError(f"version {document['version']}: expected {_VERSION}; count anew")
    frozen = document["frozen"]
    return _State(
        datetime.fromisoformat(document["now"]),
        dict(document["decisions"]),
        dict(document["labels"]),
        Counted(
            {tuple(key): tuple(numbers) for key, numbers in document["groups"]},
            {tuple(pair): count for pair, count in document["pairs"]},
            document["newest_us"],
            document["crossed"],
            document["rows"],
            document["set_aside"],
        ),
        None if frozen is None else Frozen.of(frozen),
        document["parts"],
        document["generation"],
        dict(document["digests"]),
    )
