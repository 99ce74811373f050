"""Features in a table or view of any SQL engine that SQLAlchemy speaks to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, NoSuchTableError, SQLAlchemyError

from seatrial.adapters.features.rows import moment_of, seen_in
from seatrial.errors import NotFoundError, UnavailableError
from seatrial.gates.features import Kind

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.gates.features import Seen

#: Types of SQL, the narrower first: a truth value is not a number, and BigInteger is an Integer.
_KINDS = (
    (sa.Boolean, Kind.BOOL),
    (sa.Integer, Kind.INT),
    (sa.Numeric, Kind.FLOAT),
    (sa.String, Kind.TEXT),
)
_STATEMENT_S = 60


@dataclass(frozen=True, slots=True)
class SqlSource:
    """The table or view `table` (with its schema, if any) in the database of `engine`."""

    engine: sa.Engine
    table: str

    def look(self, columns: Sequence[str], timestamp: str, *, rows: int) -> Seen:
        """Return what the newest `rows` are like, rows without a `timestamp` first among them."""
        schema, _, name = self.table.rpartition(".")
        try:
            with self.engine.connect() as connection:
                if self.engine.dialect.name == "postgresql":
                    connection.execute(sa.text(f"SET statement_timeout = '{_STATEMENT_S}s'"))
                table = sa.Table(name, sa.MetaData(), schema=schema or None, autoload_with=connection)
                if timestamp not in table.c:
                    raise NotFoundError.of(f"column of {self.table}", timestamp, table.c.keys())
                held = [column for column in columns if column in table.c]
                at = table.c[timestamp]
                # Not NULLS FIRST, which MySQL does not know.
                order = (sa.case((at.is_(None), 0), else_=1), at.desc())
                query = sa.select(at, *(table.c[column] for column in held)).order_by(*order).limit(rows)
                found = [(moment_of(row[0]), row[1:]) for row in connection.execute(query)]
        except NoSuchTableError as error:
            raise NotFoundError(f"table {self.table!r}: not found in {self._where}; correct the settings") from error
        except (DBAPIError, SQLAlchemyError, OSError) as error:
            said = getattr(error, "orig", None) or error
            raise UnavailableError(f"{self._where}: {type(said).__name__}; wait and retry") from error
        return seen_in(found, held, {column: _kind(table.c[column].type) for column in held})

    @property
    def _where(self) -> str:
        return self.engine.url.render_as_string(hide_password=True)


def _kind(declared: object) -> Kind:
    return next((kind for base, kind in _KINDS if isinstance(declared, base)), Kind.OTHER)
