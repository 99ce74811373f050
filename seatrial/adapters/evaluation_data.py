"""The rows that a release was evaluated on, from the Parquet file beside it, checked by their digest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from seatrial.errors import RefusedError, TamperedError, UnavailableError
from seatrial.units import digest_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from seatrial.release import Release


@dataclass(frozen=True, slots=True)
class EvaluationRows:
    """Rows with their outcome."""

    columns: Mapping[str, NDArray[np.float64]]  #: every column of numbers by name, missing values as NaN
    label: NDArray[np.float64]  #: 1 or 0
    attributes: Mapping[str, Sequence[str | None]]  #: every column of text by name

    def matrix(self, names: Sequence[str]) -> NDArray[np.float64]:
        """Return the columns `names` in that order; raises RefusedError when one is not there."""
        missing = [name for name in names if name not in self.columns]
        if missing:
            raise RefusedError(f"evaluation data: found no column of numbers {', '.join(missing)}; write it there")
        return np.column_stack([self.columns[name] for name in names])


def digest_of_rows(matrix: NDArray[np.float64], label: NDArray[np.float64]) -> str:
    """Return the digest of evaluation data: features as 64-bit numbers, row by row, then the label.

    Numbers and not the file are digested, so that another writer of Parquet does not change it.
    """
    return digest_bytes(np.ascontiguousarray(matrix, "<f8").tobytes() + np.ascontiguousarray(label, "<f8").tobytes())


def load_evaluation(release: Release, location: Path) -> EvaluationRows:
    """Return the rows that `release`, whose files lie in `location`, was evaluated on.

    Raises
    ------
    RefusedError
        When the release names no data, or data without the columns that it declares.
    UnavailableError
        When the file cannot be read.
    TamperedError
        When the rows are not those that the release declares.
    """
    declared = release.evaluation.data
    if declared is None:
        raise RefusedError(
            f"release {release.name}: found no evaluation.data; expected the rows of the report; write them beside it"
        )
    path = location / declared.file
    if not path.resolve().is_relative_to(location.resolve()):
        raise RefusedError(f"{path}: found a path that leaves the folder of the manifest; move the file below it")
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise UnavailableError(f"{path}: {error}; restore the file") from error
    if declared.label not in table.column_names:
        raise RefusedError(f"{path}: found no column {declared.label!r}; expected the outcome; write it there")
    numbers = {name: _numbers(table[name]) for name in table.column_names if _is_number(table[name].type)}
    texts = {
        name: [None if value is None else str(value) for value in table[name].to_pylist()]
        for name in table.column_names
        if name not in numbers
    }
    if declared.label not in numbers or not np.isin(numbers[declared.label], (0.0, 1.0)).all() or not len(table):
        raise RefusedError(f"{path}: found a label {declared.label!r} other than 1 and 0, or no row; correct the file")
    rows = EvaluationRows(numbers, numbers[declared.label], texts)
    found = digest_of_rows(rows.matrix([column.name for column in release.features.columns]), rows.label)
    if found != release.evaluation.dataset_digest:
        raise TamperedError(
            f"{path}: found rows {found}, expected {release.evaluation.dataset_digest}; restore the file, or evaluate"
            " the release again"
        )
    return rows


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_floating(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or pa.types.is_decimal(kind)
    )


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    whole = column.cast(pa.int8()) if pa.types.is_boolean(column.type) else column
    return np.asarray(whole.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False), dtype=np.float64)
