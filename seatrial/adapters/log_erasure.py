"""Take one unit's personal data out of the logs, and leave every count as it was.

In all files the unit's key becomes one token, and its decisions get other ids, for an id that is a digest of key and
time would let anybody who guesses the key prove it. Token and ids are made from a salt that is drawn for this erasure,
kept in its state until the end and then thrown away: nobody can make them again.

The state is on disk before the first file is rewritten. Cut off anywhere, the same erasure again finds it, makes the
same tokens and comes to the same end.
"""

from __future__ import annotations

import hmac
import json
import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from seatrial.adapters.log_files import (
    COMPACT,
    clear_abandoned,
    digest_file,
    present_files,
    read_file,
    remove_files,
    remove_replaced,
    replaced_by,
    sync_folder,
    whole,
    write_whole,
)
from seatrial.adapters.log_keeping import ERASING, Partition, clear_expired, partitions, require_finished
from seatrial.adapters.log_schema import DECISIONS, LogKind
from seatrial.errors import RefusedError, TamperedError
from seatrial.ledger import Record
from seatrial.units import digest_bytes, digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    Progress = Callable[[Sequence[Path]], Iterable[Path]]

#: What stands where something was erased.
ERASED = "erased"
#: Bytes of salt: as many as the digest that it keys.
SALT_BYTES = 32
#: How often the logs are read through; a unit that is still logged after that must stop first.
_ROUNDS = 3
#: Labels first: they are found by the ids that decisions still have.
_ORDER = (LogKind.LABELS, LogKind.QUARANTINE, LogKind.DECISIONS)


@dataclass(frozen=True, slots=True)
class Request:
    """What a person asks for."""

    unit: str  #: key of the unit; it is never written anywhere
    reason: str
    actor: str
    with_attributes: bool  #: also the attribute columns, which changes counts by slice


@dataclass(frozen=True, slots=True)
class Erased:
    """What was rewritten, over all attempts."""

    files: int
    rows: int
    records: tuple[Record, ...]


@dataclass(frozen=True, slots=True)
class Pseudonyms:
    """What stands for one unit and its decisions, made from a salt that is thrown away."""

    unit: str
    salt: bytes

    @property
    def id(self) -> str:
        """Name of the erasure, from which nobody learns the salt."""
        return digest_bytes(self.salt)[7:23]

    @property
    def token(self) -> str:
        """What stands for the unit from now on."""
        return f"{ERASED}-{self.keyed('unit', self.unit)}"

    def of_decision(self, decision_id: str) -> str:
        """Return what stands for a decision of the unit from now on."""
        return self.keyed("decision", decision_id)

    def keyed(self, what: str, text: str) -> str:
        """Return 32 digits that nobody without the salt can make."""
        return hmac.digest(self.salt, f"{what}\n{text}".encode(), "sha256").hex()[:32]


@dataclass(slots=True)
class _Erasure:
    """One erasure under way: its salt, and what it has rewritten."""

    root: Path
    request: Request
    names: Pseudonyms
    rewritten: dict[str, dict[str, Any]] = field(default_factory=dict)  #: by path of the file that is no more

    @property
    def state(self) -> Path:
        return self.root / ERASING / f"{self.names.id}.jsonl"

    @property
    def check(self) -> str:
        """What tells this unit's state from another one's, as long as there is one."""
        return self.names.keyed("check", f"{self.request.unit}\n{self.request.with_attributes}")

    def begin(self) -> None:
        """Put the salt on disk."""
        header = json.dumps({"salt": self.names.salt.hex(), "check": self.check})
        with whole(self.state) as file:
            self.state.parent.chmod(0o700)
            file.write(f"{header}\n".encode())

    def note(self, path: Path, entry: Mapping[str, Any]) -> None:
        """Put on disk what is about to become of the file at `path`."""
        name = path.relative_to(self.root).as_posix()
        with self.state.open("ab") as file:
            file.write(f"{json.dumps({'file': name, **entry})}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        self.rewritten[name] = dict(entry)


def erase(
    root: Path,
    request: Request,
    append: Callable[[Sequence[Record]], None],
    *,
    salt: bytes,
    now: datetime,
    progress: Progress = lambda paths: paths,
) -> Erased:
    """Replace the unit of `request` in every file below `root`, record it, and return what was rewritten.

    The caller holds the logs alone (`keeping`). Writers go on; what they log of the unit later is not erased. When no
    file names the unit nothing is recorded.

    Parameters
    ----------
    append
        Takes the records: one for each decision point, with digests of the files before and after.
    salt
        `SALT_BYTES` random bytes, which are not used when an erasure of the unit was cut off.
    progress
        Is given the files of each round, and gives them back one by one.

    Raises RefusedError when the reason names the unit, when the erasure of another one is unfinished, or when the unit
    is still being logged.
    """
    require_nameless(request)
    clear_expired(root)
    clear_abandoned(root / ERASING)
    erasure = _resumed(root, request)
    if erasure is None:
        require_finished(root)
        erasure = _Erasure(root, request, Pseudonyms(request.unit, salt))
        erasure.begin()
    for _ in range(_ROUNDS):
        if not _round(erasure, progress):
            break
    else:
        raise RefusedError(
            f"{root}: found new rows of the unit {_ROUNDS} times; expected none; stop whoever still logs it, then"
            " repeat this command"
        )
    return _finish(erasure, append, now=now)


def require_nameless(request: Request) -> None:
    """Refuse a request that would write the key of its unit into the ledger, or that names no unit."""
    if not request.unit:
        raise RefusedError("unit: found no key; expected the one in unit_key; name the unit")
    if re.search(rf"(?<!\w){re.escape(request.unit)}(?!\w)", f"{request.reason}\n{request.actor}"):
        raise RefusedError(
            "reason: found the key of the unit in it; expected a reason that does not name it; the ledger keeps it for"
            " ever: write the number of the request instead"
        )


def _resumed(root: Path, request: Request) -> _Erasure | None:
    """Return the erasure of the same unit that was cut off, if there is one."""
    for path in sorted((root / ERASING).glob("*.jsonl")):
        header, *lines = path.read_bytes().split(b"\n")
        known = json.loads(header)
        erasure = _Erasure(root, request, Pseudonyms(request.unit, bytes.fromhex(known["salt"])))
        if not hmac.compare_digest(erasure.check, known["check"]):
            continue
        for line in lines[:-1]:  # a line without its end was cut off, and nothing was done after it
            entry = json.loads(line)
            erasure.rewritten[entry.pop("file")] = entry
        if lines[-1]:
            _drop_torn(path, len(lines[-1]))
        return erasure
    return None


def _drop_torn(path: Path, length: int) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - length)
        os.fsync(file.fileno())


def _round(erasure: _Erasure, progress: Progress) -> int:
    """Rewrite every file that names the unit, and return how many did."""
    everywhere = partitions(erasure.root)
    for partition in everywhere:
        # Files that are not read any more hold the key as well.
        clear_abandoned(partition.folder)
        remove_replaced(partition.folder)
    # Two decision points may use the same ids.
    points = {partition.decision_point for partition in everywhere}
    ids = {point: _ids([p for p in everywhere if p.decision_point == point], erasure.request.unit) for point in points}
    at = {path: partition for partition in everywhere for path in present_files(partition.folder)}
    return sum(
        _rewrite(erasure, path, kind, ids[at[path].decision_point])
        for kind in _ORDER
        for path in progress([path for path, partition in at.items() if partition.kind is kind])
    )


def _ids(of_point: Sequence[Partition], unit: str) -> frozenset[str]:
    """Return the ids of the unit's decisions at one decision point, quarantined ones included."""
    served, turned_away = set[str](), set[str]()
    for partition in of_point:
        for path in present_files(partition.folder):
            if partition.kind is LogKind.DECISIONS:
                table = _named(path)
                served.update(table.filter(pc.equal(table["unit_key"], unit))["decision_id"].to_pylist())
            elif partition.kind is LogKind.QUARANTINE:
                rows = (json.loads(text) for text in read_file(path, columns=["row"])["row"].to_pylist())
                turned_away.update(str(r["decision_id"]) for r in rows if _is_of(r, unit) and r.get("decision_id"))
    return frozenset(served | _unclaimed(turned_away - served, of_point))


def _unclaimed(ids: set[str], of_point: Sequence[Partition]) -> set[str]:
    """Return those of `ids` that no decision has: a row with a wrong id must not take another unit's labels."""
    if not ids:
        return ids
    wanted, claimed = pa.array(sorted(ids), pa.string()), set[str]()
    for partition in of_point:
        for path in present_files(partition.folder) if partition.kind is LogKind.DECISIONS else ():
            table = _named(path)
            claimed.update(table.filter(pc.is_in(table["decision_id"], value_set=wanted))["decision_id"].to_pylist())
    return ids - claimed


def _named(path: Path) -> pa.Table:
    return read_file(path, columns=["unit_key", "decision_id"])


def _is_of(row: Mapping[str, Any], unit: str) -> bool:
    return str(row.get("unit_key")) == unit


def _rewrite(erasure: _Erasure, path: Path, kind: LogKind, ids: frozenset[str]) -> bool:
    """Replace the file at `path` when it names the unit."""
    # Most files do not: one or two columns say so.
    hits = _hits(path, kind, erasure.request.unit, ids)
    count = int(pc.sum(hits).as_py() or 0)
    if not count:
        return False
    table = read_file(path)
    match kind:
        case LogKind.LABELS:
            table = _replaced(table, hits, "decision_id", [erasure.names.of_decision(each) for each in ids], list(ids))
        case LogKind.DECISIONS:
            table = _without_unit(table, hits, erasure, ids)
        case LogKind.QUARANTINE:
            table = _without_row(table, hits, erasure)
    name = f"{COMPACT}{digest_of([path.name, erasure.names.id])[-16:]}.parquet"
    carried = replaced_by(path) if path.name.startswith(COMPACT) else []
    erasure.note(path, {"before": digest_file(path), "after": name, "rows": count})
    write_whole(table, path.with_name(name), replaces=[path.name, *carried])
    remove_files([path], path.parent)
    return True


def _hits(path: Path, kind: LogKind, unit: str, ids: frozenset[str]) -> pa.ChunkedArray:
    """Return for each row whether it is one of the unit."""
    if kind is LogKind.DECISIONS:
        return pc.equal(read_file(path, columns=["unit_key"])["unit_key"], unit)
    if kind is LogKind.LABELS:
        wanted = pa.array(sorted(ids), pa.string())
        return pc.is_in(read_file(path, columns=["decision_id"])["decision_id"], value_set=wanted)
    table = read_file(path, columns=["decision_id", "row"])
    rows = zip(table["decision_id"].to_pylist(), table["row"].to_pylist(), strict=True)
    return pa.chunked_array([[is_named(json.loads(row), unit) or decision_id in ids for decision_id, row in rows]])


def is_named(value: Any, unit: str) -> bool:
    """Return whether `value` is the key, or holds it anywhere: what is wrong with a row may be its place."""
    if isinstance(value, dict):
        return any(is_named(inner, unit) for pair in value.items() for inner in pair)
    if isinstance(value, list):
        return any(is_named(inner, unit) for inner in value)
    return str(value) == unit


def _without_unit(table: pa.Table, hits: pa.ChunkedArray, erasure: _Erasure, ids: frozenset[str]) -> pa.Table:
    table = _replaced(table, hits, "decision_id", [erasure.names.of_decision(each) for each in ids], list(ids))
    blanks = {"unit_key": erasure.names.token, "feature_digest": ERASED}
    if erasure.request.with_attributes:
        blanks |= dict.fromkeys((name for name in table.column_names if name not in DECISIONS.names), ERASED)
    for name, text in blanks.items():
        table = _set(table, name, pc.if_else(hits, text, table[name]))
    return table


def _without_row(table: pa.Table, hits: pa.ChunkedArray, erasure: _Erasure) -> pa.Table:
    """Return the quarantine with reasons and times as they were, and nothing of what came in."""
    ids = [None if each is None else erasure.names.of_decision(each) for each in table["decision_id"].to_pylist()]
    table = _set(table, "decision_id", pc.if_else(hits, pa.array(ids, pa.string()), table["decision_id"]))
    for name, text in (("row", json.dumps({"unit_key": erasure.names.token})), ("detail", ERASED)):
        table = _set(table, name, pc.if_else(hits, text, table[name]))
    return table


def _replaced(table: pa.Table, hits: pa.ChunkedArray, name: str, after: list[str], before: list[str]) -> pa.Table:
    at = pc.index_in(table[name], value_set=pa.array(before, pa.string()))
    return _set(table, name, pc.if_else(hits, pc.take(pa.array(after, pa.string()), at), table[name]))


def _set(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), values)


def _finish(erasure: _Erasure, append: Callable[[Sequence[Record]], None], *, now: datetime) -> Erased:
    """Record what was rewritten, then throw the salt away."""
    by_point: dict[str, list[dict[str, Any]]] = {}
    for file, point, entry in _files(erasure):
        by_point.setdefault(point, []).append({"before_file": file, **entry})
    records = tuple(
        Record(
            now,
            "logs.erased",
            erasure.request.actor,
            point,
            None,
            f"logs/erased/{erasure.names.id}/{point}",
            {
                "reason": erasure.request.reason,
                "files": len(files),
                "rows": sum(each["rows"] for each in files),
                "with_attributes": erasure.request.with_attributes,
                "rewritten": files,
            },
        )
        for point, files in sorted(by_point.items())
    )
    append(records)
    erasure.state.unlink()
    sync_folder(erasure.state.parent)
    rows = sum(each["rows"] for files in by_point.values() for each in files)
    return Erased(sum(map(len, by_point.values())), rows, records)


def _files(erasure: _Erasure) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Give path, decision point and digests of each file that was rewritten."""
    for file, entry in sorted(erasure.rewritten.items()):
        after = (erasure.root / file).with_name(entry["after"])
        if not after.exists():
            raise TamperedError(
                f"{after}: not there; expected what the erasure wrote; find out who deleted it, restore it, then repeat"
                " this command"
            )
        point = file.split("/")[1].partition("=")[2]
        digests = {"before": entry["before"], "after_file": after.name, "after": digest_file(after)}
        yield file, point, {**digests, "rows": entry["rows"]}
