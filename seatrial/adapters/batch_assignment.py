"""Assignment of many units at once, for batch scoring: a column of keys in, columns of who answers out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from xxhash import xxh64_intdigest

from seatrial.errors import InvalidDocumentError, Problem
from seatrial.routing.assignment import outcome
from seatrial.units import SLOTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from numpy.typing import NDArray

    from seatrial.routing import Assignment, RoutingSnapshot


def assign_all(snapshot: RoutingSnapshot, units: pa.Table, *, unit_key: str, now: datetime) -> pa.Table:
    """Return `units` with the columns ``release_id``, ``arm``, ``share`` and ``snapshot_no``, row by row as `assign`.

    Parameters
    ----------
    snapshot
        The snapshot to assign by; one for the whole of an output.
    units
        One row for each unit; a data frame becomes one with ``pa.Table.from_pandas``.
    unit_key
        The column of text that identifies a unit.
    now
        The moment at which leases and pins are looked at, the same for every row.

    Raises
    ------
    InvalidDocumentError
        When the column of keys is absent, no text, or empty in some row, or a column that a rule reads is no text.
    """
    keys = _keys(units, unit_key)
    drawn = _drawn(snapshot, keys)
    columns = sorted(_asked(snapshot) & set(units.column_names))
    codes, kinds = _kinds(units, columns)
    pinned = {pin.unit_key for pin in snapshot.pins if pin.unit_key is not None}
    is_pinned = pc.is_in(keys, pa.array(sorted(pinned), pa.string())).to_numpy(zero_copy_only=False)
    # Units with the same attributes and the same draw are assigned alike, those named in a pin apart.
    cases = codes * 2 + drawn
    found: list[Assignment] = []
    place = np.empty(len(keys), dtype=np.int64)
    for case in np.unique(cases):
        place[cases == case] = len(found)
        found.append(_outcome(snapshot, None, kinds[case // 2], is_drawn=bool(case % 2), now=now))
    for row in np.flatnonzero(is_pinned):
        place[row] = len(found)
        key = keys[int(row)].as_py()
        found.append(_outcome(snapshot, key, kinds[codes[row]], is_drawn=bool(drawn[row]), now=now))
    return _carried(units, found, place)


def _outcome(
    snapshot: RoutingSnapshot, key: str | None, attributes: Mapping[str, str], *, is_drawn: bool, now: datetime
) -> Assignment:
    return outcome(snapshot, key, attributes, is_drawn=is_drawn, is_copied=False, now=now)


def _keys(units: pa.Table, unit_key: str) -> pa.StringArray:
    if unit_key not in units.column_names:
        finding = f"found the columns {', '.join(units.column_names)}, expected {unit_key}"
        raise InvalidDocumentError([Problem(unit_key, finding, "name the column that identifies a unit")])
    keys = _text(units, unit_key)
    if keys.null_count:
        finding = f"found {keys.null_count:,} of {len(keys):,} rows without a key, expected one in each"
        raise InvalidDocumentError([Problem(unit_key, finding, "leave these rows out, or give them a key")])
    return keys


def _text(units: pa.Table, column: str) -> pa.StringArray:
    kind = units.schema.field(column).type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        finding = f"found {units.schema.field(column).type}, expected text"
        raise InvalidDocumentError([Problem(column, finding, "write it as text, as serving code sends it")])
    return units[column].cast(pa.string()).combine_chunks()


def _drawn(snapshot: RoutingSnapshot, keys: pa.StringArray) -> NDArray[np.int64]:
    """Return 1 for each unit whose slot is the challenger's."""
    if not snapshot.slots:
        return np.zeros(len(keys), dtype=np.int64)
    salt = snapshot.salt.encode()
    hashes = (xxh64_intdigest(salt + key.encode()) % SLOTS for key in keys.to_pylist())
    slots = np.fromiter(hashes, dtype=np.int64, count=len(keys))
    return (slots < snapshot.slots).astype(np.int64)


def _asked(snapshot: RoutingSnapshot) -> set[str]:
    """Return the columns that any rule of `snapshot` reads."""
    rules = [snapshot.when, *(pin.when for pin in snapshot.pins), *(kill.when for kill in snapshot.kills)]
    return {column for rule in rules for column in rule}


def _kinds(units: pa.Table, columns: list[str]) -> tuple[NDArray[np.int64], list[dict[str, str]]]:
    """Return for each row which combination of the columns' values it has, and those combinations."""
    codes = np.zeros(units.num_rows, dtype=np.int64)
    kinds: list[dict[str, str]] = [{}]
    for column in columns:
        encoded = _text(units, column).dictionary_encode("encode")
        values = encoded.dictionary.to_pylist()
        of_column = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        present, codes = np.unique(codes * len(values) + of_column, return_inverse=True)
        kinds = [_with(kinds[pair // len(values)], column, values[pair % len(values)]) for pair in present.tolist()]
    return codes.astype(np.int64), kinds


def _with(kind: dict[str, str], column: str, value: str | None) -> dict[str, str]:
    return kind if value is None else {**kind, column: value}


def _carried(units: pa.Table, found: list[Assignment], place: NDArray[np.int64]) -> pa.Table:
    rows = pa.array(place)
    columns = {
        # A kill leaves no release that answers; its rows are for the caller to treat as the order says.
        "release_id": pa.array([None if each.kill is not None else each.release_id for each in found], pa.string()),
        "arm": pa.array([each.arm.value for each in found], pa.string()),
        "share": pa.array([each.share for each in found], pa.float64()),
        "snapshot_no": pa.array([each.snapshot_no for each in found], pa.int64()),
    }
    for name, values in columns.items():
        units = units.drop_columns([name]) if name in units.column_names else units
        units = units.append_column(name, values.take(rows))
    return units
