"""What the settings say about a feature source."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from seatrial.adapters.features.endpoint import HttpSource
from seatrial.adapters.features.files import ParquetSource
from seatrial.adapters.features.tables import SqlSource
from seatrial.documents import Checked, Flaw, Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from seatrial.adapters.features.rows import FeatureSource


class FeatureSourceSettings(Checked):
    """Where the serving path has its features: a table, files or an endpoint, one of them."""

    database: Text | None = Field(None, description="URL of a database; with `table`")
    table: Text | None = Field(None, description="the table or view, with its schema if any")
    parquet: Text | None = Field(None, description="Parquet files, such as features/*.parquet")
    url: Text | None = Field(None, description="address that answers GET with rows as JSON")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules that there is one place, whole and well written."""
        yield self._is_one_place()
        yield self._database_is_one()
        yield self._url_is_an_address()

    def _is_one_place(self) -> Iterator[Flaw]:
        places = [name for name in ("database", "parquet", "url") if getattr(self, name) is not None]
        if len(places) != 1:
            found = " and ".join(places) or "none"
            yield Flaw((), f"found {found}, expected one of database, parquet and url", "keep one")
        if (self.table is None) != (self.database is None):
            yield Flaw(("table",), "found a table or a database without the other, expected both", "write both")

    def _database_is_one(self) -> Iterator[Flaw]:
        if self.database is not None:
            try:
                sa.create_engine(self.database)
            except (ArgumentError, NoSuchModuleError):
                remedy = "write it like postgresql+psycopg://user@host/name"
                # The message must not repeat what may hold a password.
                yield Flaw(("database",), "found text that is no database URL", remedy)

    def _url_is_an_address(self) -> Iterator[Flaw]:
        if self.url is not None:
            parts = urlsplit(self.url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
                remedy = "write http:// or https:// with a host and no user"
                yield Flaw(("url",), "found no address of a server", remedy)

    def open(self, base: Path) -> FeatureSource:
        """Return the source; a relative pattern of files begins at `base`."""
        if self.parquet is not None:
            return ParquetSource(str(base / self.parquet))
        if self.url is not None:
            return HttpSource(self.url)
        return SqlSource(sa.create_engine(str(self.database)), str(self.table))
