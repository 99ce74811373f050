"""Take one unit's personal data out of the tables of the logs: the same as in the files, in one transaction."""

from __future__ import annotations

import json
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from seatrial.adapters.log_erasure import ERASED, Pseudonyms, Request, is_named, require_nameless
from seatrial.adapters.log_schema import DECISIONS, LogKind
from seatrial.adapters.log_tables import TABLE_NAMES, log_tables
from seatrial.errors import UnavailableError
from seatrial.ledger import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from datetime import datetime

#: Ids that one statement replaces: each statement reads the whole table once.
_AT_ONCE = 500


def erase_in_tables(
    engine: sa.Engine,
    request: Request,
    append: Callable[[Sequence[Record]], None],
    *,
    salt: bytes,
    now: datetime,
) -> tuple[Record, ...]:
    """Replace the unit of `request` in the log tables, record it, and return the records, one for each decision point.

    The records are appended before the transaction ends: without them nothing is replaced. A unit that is in no row is
    recorded nowhere.

    Parameters
    ----------
    salt
        Random bytes that are used for nothing else and kept by nobody.

    Raises RefusedError when the reason names the unit, UnavailableError when the database does not answer.
    """
    require_nameless(request)
    names = Pseudonyms(request.unit, salt)
    try:
        present = {column["name"] for column in sa.inspect(engine).get_columns(TABLE_NAMES[LogKind.DECISIONS])}
        attributes = sorted(present - {*DECISIONS.names, "batch"})
        with engine.begin() as connection:
            rows = _replace(connection, log_tables(attributes).rows, request, names, attributes)
            records = tuple(_record(point, rows, request, names, now=now) for point in sorted({p for p, _ in rows}))
            append(records)
    except OperationalError as error:
        where = engine.url.render_as_string(hide_password=True)
        raise UnavailableError(f"{where}: the database of the logs did not answer; start it, then try again") from error
    return records


def _replace(
    connection: sa.Connection,
    tables: Mapping[LogKind, sa.Table],
    request: Request,
    names: Pseudonyms,
    attributes: Sequence[str],
) -> Counter[tuple[str, LogKind]]:
    """Replace the unit in every table, and return the rows by decision point and log."""
    decisions, labels = tables[LogKind.DECISIONS], tables[LogKind.LABELS]
    mine = decisions.c.unit_key == request.unit
    found = connection.execute(sa.select(decisions.c.decision_point, decisions.c.decision_id).where(mine)).all()
    rows = Counter((row.decision_point, LogKind.DECISIONS) for row in found)
    # Two decision points may use the same ids.
    ids = {point: frozenset(row.decision_id for row in found if row.decision_point == point) for point, _ in rows}
    rows += _blank_quarantine(connection, tables[LogKind.QUARANTINE], names, ids)
    for point, of_point in ids.items():
        for some in _chunks(sorted(of_point)):
            of_decisions = (mine, decisions.c.decision_point == point, decisions.c.decision_id.in_(some))
            of_labels = (labels.c.decision_point == point, labels.c.decision_id.in_(some))
            rows[point, LogKind.LABELS] += _rename(connection, labels, of_labels, some, names)
            _rename(connection, decisions, of_decisions, some, names)
    blanks = {"unit_key": names.token, "feature_digest": ERASED}
    blanks |= dict.fromkeys(attributes, ERASED) if request.with_attributes else {}
    connection.execute(sa.update(decisions).where(mine).values(blanks))
    return rows


def _rename(
    connection: sa.Connection,
    table: sa.Table,
    where: tuple[sa.ColumnElement[bool], ...],
    ids: Sequence[str],
    names: Pseudonyms,
) -> int:
    """Give the rows `where` other ids, and return how many there were."""
    renamed = sa.case({each: names.of_decision(each) for each in ids}, value=table.c.decision_id)
    return connection.execute(sa.update(table).where(*where).values(decision_id=renamed)).rowcount


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    rest = iter(ids)
    while some := list(islice(rest, _AT_ONCE)):
        yield some


def _blank_quarantine(
    connection: sa.Connection, table: sa.Table, names: Pseudonyms, ids: Mapping[str, frozenset[str]]
) -> Counter[tuple[str, LogKind]]:
    """Blank what came in with the unit; reasons and times stay."""
    rows: Counter[tuple[str, LogKind]] = Counter()
    for point, decision_id, text in connection.execute(
        sa.select(table.c.decision_point, table.c.decision_id, table.c.row)
    ).all():
        if decision_id not in ids.get(point, ()) and not is_named(json.loads(text), names.unit):
            continue
        rows[point, LogKind.QUARANTINE] += 1
        renamed = None if decision_id is None else names.of_decision(decision_id)
        blank = {"row": json.dumps({"unit_key": names.token}), "detail": ERASED, "decision_id": renamed}
        connection.execute(sa.update(table).where(table.c.decision_point == point, table.c.row == text).values(blank))
    return rows


def _record(
    point: str, rows: Counter[tuple[str, LogKind]], request: Request, names: Pseudonyms, *, now: datetime
) -> Record:
    by_table = {TABLE_NAMES[kind]: rows[point, kind] for kind in LogKind}
    body = {
        "reason": request.reason,
        "rows": sum(by_table.values()),
        "with_attributes": request.with_attributes,
        "tables": by_table,
    }
    return Record(now, "logs.erased", request.actor, point, None, f"logs/erased/{names.id}/{point}/tables", body)
