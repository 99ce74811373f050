"""The ledger's tables: entries, texts that stand outside the chain, checkpoints; how entries are written and read."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from seatrial.errors import ConflictError
from seatrial.ledger import Entry, Record, Seal, chain, restored, withheld
from seatrial.units import canonical, require_aware

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class AwareTime(sa.TypeDecorator[datetime]):
    """A time in UTC, stored with its zone where the engine has one and as UTC where it has not."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return the stored form; a time without a zone is refused."""
        if value is None:
            return None
        moment = require_aware(value)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """Return the aware time."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


METADATA = sa.MetaData()
LEDGER = sa.Table(
    "ledger",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("key", sa.String, nullable=False, unique=True),
    sa.Column("at", AwareTime, nullable=False),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("actor", sa.String, nullable=False),
    sa.Column("decision_point", sa.String, nullable=False),
    sa.Column("rollout_id", sa.String, index=True),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("previous", sa.String, nullable=False),
    sa.Column("hash", sa.String, nullable=False),
    sa.Column("withheld", sa.String),
)
#: Texts that stand outside the chain; erasing one deletes its row.
LEDGER_TEXTS = sa.Table(
    "ledger_texts",
    METADATA,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("salt", sa.String, nullable=False),
    sa.Column("texts", sa.Text, nullable=False),
)
CHECKPOINTS = sa.Table(
    "ledger_checkpoints",
    METADATA,
    sa.Column("size", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("at", AwareTime, nullable=False),
)
LEDGER_HEAD = sa.Table(
    "ledger_head",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("hash", sa.String, nullable=False),
)


def add_missing_columns(connection: sa.Connection) -> None:
    """Give a ledger of an earlier version the columns that it lacks; its entries stay as they are."""
    present = {column["name"] for column in sa.inspect(connection).get_columns(LEDGER.name)}
    if LEDGER.c.withheld.name not in present:
        # Two processes may start at once: the second finds the column there.
        guard = "IF NOT EXISTS " if connection.dialect.name == "postgresql" else ""
        connection.exec_driver_sql(f"ALTER TABLE {LEDGER.name} ADD COLUMN {guard}{LEDGER.c.withheld.name} VARCHAR")


def append(connection: sa.Connection, records: Sequence[Record], *, new_salt: Callable[[], str]) -> None:
    """Append `records` behind the head, which is moved from the number that was read."""
    acts: dict[str, Record] = {}
    for record in records:
        acts.setdefault(record.key, record)
    if not acts:
        return
    # Two writers may find the same act absent: keys are read only after the head is locked.
    head = connection.execute(sa.select(LEDGER_HEAD).with_for_update()).one()
    present = set(connection.scalars(sa.select(LEDGER.c.key).where(LEDGER.c.key.in_(acts))))
    number, previous = head.number, head.hash
    for record in acts.values():
        if record.key in present:
            continue
        entry = chain(record, number=number + 1, previous=previous, salt=new_salt())
        number, previous = entry.number, entry.hash
        _insert(connection, entry)
    moved = connection.execute(
        sa.update(LEDGER_HEAD).where(LEDGER_HEAD.c.number == head.number).values(number=number, hash=previous)
    )
    if moved.rowcount != 1:
        raise ConflictError(f"ledger: not at entry {head.number} any more; read again and decide again")


def select_entries(rollout_id: str | None = None) -> sa.Select[Any]:
    """Return the query for entries with their texts, all or those of one rollout."""
    query = (
        sa.select(LEDGER, LEDGER_TEXTS.c.salt, LEDGER_TEXTS.c.texts)
        .outerjoin(LEDGER_TEXTS, LEDGER_TEXTS.c.number == LEDGER.c.number)
        .order_by(LEDGER.c.number)
    )
    return query if rollout_id is None else query.where(LEDGER.c.rollout_id == rollout_id)


def entry_of(row: sa.Row[Any]) -> Entry:
    """Return the entry that a row of `select_entries` holds."""
    record = Record(row.at, row.kind, row.actor, row.decision_point, row.rollout_id, row.key, json.loads(row.body))
    if row.withheld is None:
        return Entry(row.number, record, row.previous, row.hash)
    texts = None if row.texts is None else json.loads(row.texts)
    return Entry(row.number, restored(record, texts), row.previous, row.hash, Seal(row.withheld, row.salt))


def _insert(connection: sa.Connection, entry: Entry) -> None:
    record, texts = withheld(entry.record)
    if entry.seal is None:
        record = entry.record
    connection.execute(
        sa.insert(LEDGER).values(
            number=entry.number,
            key=record.key,
            at=record.at,
            kind=record.kind,
            actor=record.actor,
            decision_point=record.decision_point,
            rollout_id=record.rollout_id,
            body=canonical(dict(record.body)).decode(),
            previous=entry.previous,
            hash=entry.hash,
            withheld=None if entry.seal is None else entry.seal.digest,
        )
    )
    if entry.seal is not None:
        values = {"number": entry.number, "salt": entry.seal.salt, "texts": canonical(texts).decode()}
        connection.execute(sa.insert(LEDGER_TEXTS).values(values))
