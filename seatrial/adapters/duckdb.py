"""Evidence from Parquet logs, counted by DuckDB in this process."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import duckdb

from seatrial.adapters.counting import REFERENCE, SETTLED, Looker, silent
from seatrial.adapters.engines import DuckDB, duck_engine
from seatrial.adapters.log_files import digest_file, present_files
from seatrial.errors import UnavailableError
from seatrial.evidence import Evidence
from seatrial.units import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from pathlib import Path

    from seatrial.plan import Plan
    from seatrial.ports import Scope

#: Logs up to this size fit into memory as they are.
SMALL_BYTES = 8 << 20

_NO_LABELS = (
    "SELECT NULL::VARCHAR AS decision_id, NULL::VARCHAR AS name, NULL::DOUBLE AS value,"
    " NULL::BIGINT AS arrived_us WHERE false"
)
_NO_QUARANTINE = (
    "SELECT NULL::VARCHAR AS kind, NULL::VARCHAR AS rollout_id, NULL::VARCHAR AS reason, NULL::BIGINT AS seen_us"
    " WHERE false"
)


@dataclass(frozen=True, slots=True)
class ParquetLogs:
    """The logs under one directory."""

    root: Path
    tell: Callable[[str], None] = silent  #: told what a look does next
    digests: dict[str, str] = field(default_factory=dict, compare=False, repr=False)  #: of files that were read

    def look(self, plan: Plan, scope: Scope, *, now: datetime) -> Evidence:
        """Return what the logs say up to `now`.

        Raises UnavailableError when the logs cannot be read. A log without any decision gives evidence of nothing.
        """
        decisions = log_files(self.root, "decisions", scope.decision_point)
        if not decisions:
            return Evidence()
        labels = log_files(self.root, "labels", scope.decision_point)
        try:
            with duck_engine() as engine:
                open_logs(engine, scope, decisions, labels, once=_is_small([*decisions, *labels]))
                open_quarantine(engine, self.root, scope)
                evidence = Looker(engine, plan, scope, now, self.tell).look()
            return replace(evidence, sources=self.sources(decisions, labels))
        # A file may go between the listing and the reading, when it is merged into another one.
        except (duckdb.Error, OSError) as error:
            raise UnavailableError(f"{self.root}: the logs could not be read: {error}") from error

    def orphans(self, plan: Plan, scope: Scope, *, now: datetime) -> dict[str, int]:
        """Return by name how many labels arrived during the rollout for no decision in the log.

        Decisions of the week before the rollout are known as well. Raises UnavailableError as `look` does.
        """
        decisions = log_files(self.root, "decisions", scope.decision_point)
        labels = log_files(self.root, "labels", scope.decision_point)
        if not decisions:
            return {}
        try:
            with duck_engine() as engine:
                open_logs(engine, scope, decisions, labels)
                return Looker(engine, plan, scope, now).orphans()
        except duckdb.Error as error:
            raise UnavailableError(f"{self.root}: the logs could not be read: {error}") from error

    def sources(self, decisions: Sequence[Path], labels: Sequence[Path]) -> dict[str, str]:
        """Return the digest of the contents of these files, by log and date."""
        dates: defaultdict[str, list[str]] = defaultdict(list)
        for kind, files in (("decisions", decisions), ("labels", labels)):
            for file in files:
                dates[f"{kind}/{file.parent.name.removeprefix('date=')}"].append(self._digest(file))
        return {date: digest_of(sorted(digests)) for date, digests in sorted(dates.items())}

    def _digest(self, file: Path) -> str:
        """Return the digest of a file, read once: a file that is complete never changes under its name."""
        identity = identity_of(file)
        if identity not in self.digests:
            self.digests[identity] = digest_file(file)
        return self.digests[identity]


def identity_of(file: Path) -> str:
    """Return what says that a file is the one that was read: nobody should rewrite one under its name, but may."""
    status = file.stat()
    return f"{file.parent.parent.parent.name}/{file.parent.name}/{file.name}/{status.st_size}/{status.st_mtime_ns}"


def _is_small(files: Sequence[Path]) -> bool:
    return sum(file.stat().st_size for file in files) <= SMALL_BYTES


def log_files(root: Path, kind: str, decision_point: str) -> list[Path]:
    """Return the complete files of a log, oldest date first."""
    folders = sorted((root / kind / f"decision_point={decision_point}").glob("date=*"))
    return [file for folder in folders for file in present_files(folder)]


def open_logs(
    engine: DuckDB, scope: Scope, decisions: Sequence[Path], labels: Sequence[Path], *, once: bool = False
) -> None:
    """Let the engine read these files as the relations `decisions` and `labels`: for each statement, or only `once`."""
    name = engine.keep if once else engine.view
    name("decisions", decisions_of(decisions, scope))
    name("labels", labels_of(labels))


def open_quarantine(engine: DuckDB, root: Path, scope: Scope) -> None:
    """Let the engine read the rows that were turned away as the relation `quarantine`."""
    files = log_files(root, "quarantine", scope.decision_point)
    found = f"SELECT *, epoch_us(seen_at) AS seen_us FROM {_parquet(files)}" if files else _NO_QUARANTINE  # noqa: S608
    engine.view("quarantine", found)


def decisions_of(files: Sequence[Path], scope: Scope) -> str:
    """Return the query of the decisions in these files; the date spares files from before the reference."""
    since = (scope.since - SETTLED - REFERENCE).strftime("%Y-%m-%d")
    return f"SELECT *, epoch_us(ts) AS decided_us FROM {_parquet(files)} WHERE date >= '{since}'"  # noqa: S608


def labels_of(files: Sequence[Path]) -> str:
    """Return the query of the labels in these files."""
    if not files:
        return _NO_LABELS
    return f"SELECT *, epoch_us(arrived_at) AS arrived_us FROM {_parquet(files)}"  # noqa: S608


def _parquet(files: Sequence[Path]) -> str:
    paths = ", ".join("'" + str(file).replace("'", "''") + "'" for file in files)
    # A NaN would pass a filter that excludes it: Parquet keeps none in its statistics, and DuckDB 2.0 believes them
    # (duckdb/duckdb#25521). Delete can_have_nan when that is closed.
    options = "hive_partitioning = true, hive_types = {'date': VARCHAR}, union_by_name = true, can_have_nan = true"
    return f"read_parquet([{paths}], {options})"
