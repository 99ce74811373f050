"""Log files on disk: each appears whole and lasting, or not at all, and says which files it stands for.

A file that is being written is hidden and locked. Its writer's death gives the lock back, whatever process ids a
container deals out, so that what is left of it can be told from what is still being written.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from seatrial.adapters.log_schema import SCHEMA_VERSION
from seatrial.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

#: How the names of files begin that may stand for others; no other file is opened to find out.
COMPACT = "compact-"
PART = "part-"
_PARTIAL = ".partial"
_SCHEMA_KEY = b"seatrial.schema"
_REPLACES_KEY = b"seatrial.replaces"
#: Rows of one group: what DuckDB gives to one thread.
_GROUP_ROWS = 122_880


def present_files(folder: Path) -> list[Path]:
    """Return the files of one date partition that hold its rows, in the order of their names.

    Whoever merges or rewrites files writes the new one first and then deletes those it stands for. In between both are
    there: a file named in ``seatrial.replaces`` of a present file does not count. Only names that begin with
    ``compact-`` can carry it, so that no other footer is read.

    Raises UnavailableError when a footer cannot be read, also because its file was just replaced: try again.
    """
    files = sorted(folder.glob("*.parquet"))
    gone = {name for path in files if path.name.startswith(COMPACT) for name in replaced_by(path)}
    return [path for path in files if path.name not in gone]


def replaced_by(path: Path) -> list[str]:
    """Return the names of the files that the file at `path` stands for."""
    try:
        metadata = pq.read_metadata(path).metadata or {}
        return list(json.loads(metadata.get(_REPLACES_KEY, b"[]")))
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{path}: could not be read: {error}; try again, or restore the file") from error


def read_file(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Return all rows of one file, by default all columns; raises UnavailableError when it is torn."""
    try:
        return pq.read_table(path, columns=columns, partitioning=None)
    except (OSError, ValueError) as error:
        raise UnavailableError(f"{path}: could not be read: {error}; restore the file, or move it away") from error


def remove_replaced(folder: Path) -> int:
    """Delete the files that a present file stands for, and return how many there were."""
    left = set(folder.glob("*.parquet")) - set(present_files(folder))
    remove_files(left, folder)
    return len(left)


def remove_files(paths: Iterable[Path], folder: Path) -> None:
    """Delete `paths`, which lie in `folder`; the disk knows of it when this returns."""
    for path in sorted(paths):
        path.unlink(missing_ok=True)
    sync_folder(folder)


def write_whole(table: pa.Table, path: Path, *, replaces: Iterable[str] = ()) -> None:
    """Write `table` under the name `path`; a reader sees the whole file or none, and so it is after a power cut."""
    own = {_SCHEMA_KEY: str(SCHEMA_VERSION).encode(), _REPLACES_KEY: json.dumps(sorted(replaces)).encode()}
    with whole(path) as file:
        pq.write_table(table.replace_schema_metadata(own), file, compression="zstd", row_group_size=_GROUP_ROWS)


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """Give a hidden file that gets the name `path` at the end, unless the block fails."""
    make_folder(path.parent)
    partial, file = _open_partial(path)
    with file:
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    sync_folder(path.parent)


def _open_partial(path: Path) -> tuple[Path, BinaryIO]:
    """Return a hidden file of this writer alone, locked."""
    for number in count():
        partial = path.with_name(f".{path.name}.{os.getpid()}-{number}{_PARTIAL}")
        try:
            file = partial.open("xb")
        except FileExistsError:
            continue
        # Somebody who clears up may have come between opening and locking.
        fcntl.flock(file, fcntl.LOCK_EX)
        if _is_same(file.fileno(), partial):
            return partial, file
        file.close()
    raise AssertionError  # pragma: no cover - count never ends


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def abandoned(folder: Path) -> list[Path]:
    """Return the hidden files below `folder` whose writers are dead."""
    return [path for path in sorted(folder.rglob(f".*{_PARTIAL}")) if _is_abandoned(path, delete=False)]


def clear_abandoned(folder: Path) -> int:
    """Delete the hidden files below `folder` whose writers are dead, and return how many there were."""
    return sum(_is_abandoned(path, delete=True) for path in sorted(folder.rglob(f".*{_PARTIAL}")))


def _is_abandoned(path: Path, *, delete: bool) -> bool:
    """Return whether nobody writes the hidden file at `path`, and delete it then if asked to, under its lock."""
    try:
        descriptor = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        is_dead = _is_same(descriptor, path)
        if is_dead and delete:
            path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return is_dead


def make_folder(folder: Path) -> None:
    """Make `folder` and what it lies in, so that it is there after a power cut."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in `folder` are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_file(path: Path) -> str:
    """Return ``sha256:`` and the digest of the bytes of the file at `path`."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
