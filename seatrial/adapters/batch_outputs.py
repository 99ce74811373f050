"""Batch outputs as Parquet files: who decided which row is read from the file itself."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from pyarrow import ArrowException

from seatrial.errors import InvalidDocumentError, Problem, UnavailableError
from seatrial.outputs import BatchOutput

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

#: Columns that every output carries: the release that decided the row, and the snapshot that assigned its unit.
RELEASE, SNAPSHOT = "release_id", "snapshot_no"
_CHUNK = 1 << 20


def described(path: Path, *, decision_point: str, consumers: tuple[str, ...], now: datetime, actor: str) -> BatchOutput:
    """Return what the file at `path` is, to be registered.

    Raises UnavailableError when it cannot be read, InvalidDocumentError when it does not say of each row which
    release decided it, or was assigned by several snapshots.
    """
    try:
        digest = _digest(path)
        table = pq.read_table(path, columns=[RELEASE, SNAPSHOT], partitioning=None)
    except OSError as error:
        raise UnavailableError(f"{path}: {error.strerror or error}; name a file that can be read") from error
    except ArrowException as error:
        raise InvalidDocumentError(
            [Problem(str(path), f"found {error}", f"write Parquet with the columns {RELEASE} and {SNAPSHOT}")]
        ) from error
    rows = {str(each["values"]): int(each["counts"]) for each in table[RELEASE].value_counts().to_pylist()}
    numbers = table[SNAPSHOT].unique().to_pylist()
    problems = []
    if table[RELEASE].null_count or not rows:
        finding = f"found {table[RELEASE].null_count:,} of {table.num_rows:,} rows without a release"
        problems.append(Problem(f"{path} {RELEASE}", f"{finding}, expected one in each", "carry the assignment"))
    if len(numbers) != 1 or not isinstance(numbers[0], int):
        finding = f"found the snapshots {', '.join(map(str, numbers)) or 'none'}, expected one"
        problems.append(Problem(f"{path} {SNAPSHOT}", finding, "assign all units of an output by the same snapshot"))
    if problems:
        raise InvalidDocumentError(problems)
    return BatchOutput(digest, decision_point, str(path), numbers[0], rows, consumers, now, actor)


def _digest(path: Path) -> str:
    content = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            content.update(chunk)
    return f"sha256:{content.hexdigest()}"
