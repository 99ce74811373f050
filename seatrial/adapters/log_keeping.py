"""Keep logs readable and no longer than needed: see what is there, merge small files, delete old partitions.

Each step leaves a state that readers understand and that the same command, again, goes on from.
"""

from __future__ import annotations

import fcntl
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from seatrial.adapters.log_files import (
    COMPACT,
    abandoned,
    clear_abandoned,
    digest_file,
    make_folder,
    present_files,
    read_file,
    remove_files,
    remove_replaced,
    replaced_by,
    sync_folder,
    write_whole,
)
from seatrial.adapters.log_schema import LABEL_ROWS, QUARANTINE_ROWS, LogKind, decision_rows
from seatrial.errors import RefusedError, UnavailableError
from seatrial.ledger import Record
from seatrial.units import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

#: Bytes of a merged file: large enough that a look opens few, small enough to be rewritten in memory.
TARGET_BYTES = 128 * 2**20
#: A smaller file is worth merging; two of this size reach the target.
SMALL_BYTES = TARGET_BYTES // 2
#: Folder of the state of erasures, below the root of the logs.
ERASING = ".erasing"
#: What begins a partition that is recorded as expired, and on its way out.
_EXPIRED = ".expired-"
_TIMES = {of.kind: of.time for of in (decision_rows(()), LABEL_ROWS, QUARANTINE_ROWS)}


@dataclass(frozen=True, slots=True)
class Partition:
    """One day of one log of one decision point."""

    kind: LogKind
    decision_point: str
    date: str  #: YYYY-MM-DD, or any other text for rows without a date
    folder: Path

    @property
    def end(self) -> datetime | None:
        """When its day is over, in UTC; None when it has none."""
        try:
            day = date.fromisoformat(self.date)
            return datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        except (ValueError, OverflowError):
            return None

    def is_older(self, age: timedelta, *, now: datetime) -> bool:
        """Return whether its day ended `age` ago; a partition without a day is never old."""
        return self.end is not None and self.end + age <= now


def partitions(root: Path, decision_point: str | None = None) -> list[Partition]:
    """Return the partitions of all logs below `root`, or of one decision point."""
    found = []
    for kind in LogKind:
        for folder in sorted(root.glob(f"{kind}/decision_point={decision_point or '*'}/date=*")):
            name = folder.parent.name.partition("=")[2]
            found.append(Partition(kind, name, folder.name.partition("=")[2], folder))
    return found


@contextmanager
def keeping(root: Path) -> Iterator[None]:
    """Hold the logs below `root` alone, as whoever rewrites or deletes files must; writers and readers go on.

    Raises RefusedError when somebody else holds them: two that rewrite the same file would
    bring back what one of them took out.
    """
    make_folder(root)
    with (root / ".keeping.lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RefusedError(
                f"{root}: another command is rewriting these logs; wait until it has ended, then try again"
            ) from error
        yield


# --- what is there


@dataclass(frozen=True, slots=True)
class Inspected:
    """What one partition holds."""

    partition: Partition
    files: int  #: that hold its rows
    rows: int | None  #: None when a file cannot be read: nobody knows how many
    size: int  #: bytes
    small: int  #: files worth merging
    replaced: int  #: files that another one stands for, and that a cut-off command left
    partials: int  #: hidden files whose writers are dead
    unreadable: tuple[str, ...]  #: names of files
    reasons: Mapping[str, int]  #: rows in quarantine by reason


def inspect(partition: Partition) -> Inspected:
    """Return what `partition` holds; a file that cannot be read is named and leaves the number of rows unknown."""
    folder = partition.folder
    everything = sorted(folder.glob("*.parquet"))
    unreadable = [path for path in everything if _rows(path) is None]
    try:
        present = present_files(folder)
    except UnavailableError:
        present = everything
    sound = [path for path in present if path not in unreadable]
    counts = [_rows(path) for path in sound]
    sizes = [path.stat().st_size for path in present]
    reasons: Counter[str] = Counter()
    if partition.kind is LogKind.QUARANTINE:
        for path in sound:
            reasons.update(read_file(path)["reason"].to_pylist())
    return Inspected(
        partition,
        files=len(present),
        rows=None if unreadable else sum(count or 0 for count in counts),
        size=sum(sizes),
        small=sum(size < SMALL_BYTES for size in sizes),
        replaced=len(everything) - len(present),
        partials=len(abandoned(folder)),
        unreadable=tuple(path.name for path in unreadable),
        reasons=dict(sorted(reasons.items())),
    )


def _rows(path: Path) -> int | None:
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, ValueError):
        return None


# --- compaction


@dataclass(frozen=True, slots=True)
class Compacted:
    """What became of one partition."""

    partition: Partition
    merged: int  #: files that were merged
    into: int  #: files that stand for them
    cleared: int  #: files that a killed process had left


def compact(partition: Partition) -> Compacted:
    """Merge the small files of `partition`, sorted by time, into files of about `TARGET_BYTES`.

    The rows are the same, bit for bit. Files with different columns are not merged: a column that came later would
    have to be made up. The merged file is there before the first of those it stands for is deleted.
    """
    folder = partition.folder
    cleared = clear_abandoned(folder) + remove_replaced(folder)
    merged = into = 0
    for group in list(_groups(folder)):
        _merge(group, folder, _TIMES[partition.kind])
        merged, into = merged + len(group), into + 1
    return Compacted(partition, merged, into, cleared)


def _groups(folder: Path) -> Iterator[list[Path]]:
    """Give the files that become one, several at a time: alike in columns, together of about the target size."""
    small = [(_columns(path), path) for path in present_files(folder) if path.stat().st_size < SMALL_BYTES]
    for _, alike in groupby(sorted(small), key=lambda each: each[0]):
        group: list[Path] = []
        for _, path in alike:
            group.append(path)
            if sum(each.stat().st_size for each in group) >= TARGET_BYTES:
                yield group
                group = []
        if len(group) > 1:
            yield group


def _columns(path: Path) -> bytes:
    try:
        return bytes(pq.read_schema(path).remove_metadata().serialize())
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{path}: could not be read: {error}; restore the file, or move it away") from error


def _merge(group: Sequence[Path], folder: Path, time: str) -> None:
    table = pa.concat_tables([read_file(path) for path in group]).sort_by(time)
    names = [path.name for path in group]
    # What a merged file already stood for goes along: a writer that repeats an old batch must not bring it back.
    replaces = {*names, *(name for path in group if path.name.startswith(COMPACT) for name in replaced_by(path))}
    write_whole(table, folder / f"{COMPACT}{digest_of(sorted(names))[-16:]}.parquet", replaces=replaces)
    remove_files(group, folder)


# --- retention


def expired(
    root: Path,
    age: timedelta,
    *,
    now: datetime,
    needed_since: Mapping[str, datetime],
    decision_point: str | None = None,
) -> list[Partition]:
    """Return the partitions whose day ended `age` ago, without those that an open rollout may still read.

    Parameters
    ----------
    needed_since
        From when on each decision point's logs are needed; one that is missing has no open rollout.
    """
    return [
        partition
        for partition in partitions(root, decision_point)
        if partition.is_older(age, now=now) and not _is_needed(partition, needed_since.get(partition.decision_point))
    ]


def _is_needed(partition: Partition, since: datetime | None) -> bool:
    return since is not None and partition.end is not None and partition.end > since


def expire(
    partition: Partition, append: Callable[[Sequence[Record]], None], *, now: datetime, actor: str, age: timedelta
) -> Record:
    """Record what `partition` holds, by digest, then delete it; return the record.

    The record is written first. Then the folder disappears as one, so that no reader finds half a day, and its files
    after it. Cut off anywhere, the same again finds the record written or writes it, and never writes it twice.
    """
    record = _expiry(partition, partition.folder, now=now, actor=actor, age=age)
    append([record])
    out = partition.folder.with_name(f"{_EXPIRED}{partition.folder.name}")
    if out.exists():
        shutil.rmtree(out)
    partition.folder.rename(out)
    sync_folder(out.parent)
    late = {path.name for path in out.glob("*.parquet")} - record.body["digests"].keys()
    if late:
        append([_expiry(partition, out, now=now, actor=actor, age=age)])
    shutil.rmtree(out)
    sync_folder(out.parent)
    return record


def clear_expired(root: Path) -> int:
    """Delete the partitions that a cut-off command had recorded and taken out, and return how many there were."""
    left = sorted(root.glob(f"*/decision_point=*/{_EXPIRED}*"))
    for folder in left:
        shutil.rmtree(folder)
        sync_folder(folder.parent)
    return len(left)


def _expiry(partition: Partition, folder: Path, *, now: datetime, actor: str, age: timedelta) -> Record:
    files = sorted(folder.glob("*.parquet"))
    counts = [_rows(path) for path in files]
    digests = {path.name: digest_file(path) for path in files}
    body: dict[str, Any] = {
        "log": partition.kind.value,
        "date": partition.date,
        "files": len(files),
        # None is not 0: nobody can say how many rows a torn file had.
        "rows": None if None in counts else sum(count or 0 for count in counts),
        "older_than_s": age.total_seconds(),
        "digests": digests,
    }
    where = f"{partition.kind}/{partition.decision_point}/{partition.date}"
    key = f"logs/expired/{where}/{digest_of(digests)}"
    return Record(now, "logs.expired", actor, partition.decision_point, None, key, body)


# --- erasures that are not finished


def unfinished(root: Path) -> list[str]:
    """Return the ids of erasures that were cut off."""
    return [path.stem for path in sorted((root / ERASING).glob("*.jsonl"))]


def require_finished(root: Path) -> None:
    """Refuse to rewrite files while an erasure is unfinished: it must find what it wrote to record it."""
    if left := unfinished(root):
        raise RefusedError(
            f"{root / ERASING}: found unfinished erasure {', '.join(left)}; expected none; repeat `seatrial logs erase`"
            " for the same unit, with the same options, first"
        )
