"""Evidence from logs that lie in tables: PostgreSQL, and Spark with whatever it reads."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from seatrial.adapters.counting import REFERENCE, SETTLED, Looker
from seatrial.adapters.counting.expressions import quoted
from seatrial.adapters.engines import PostgreSQL, Spark
from seatrial.errors import UnavailableError
from seatrial.units import digest_of, format_time

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import sqlalchemy as sa
    from pyspark.sql import SparkSession

    from seatrial.adapters.counting.look import Engine
    from seatrial.evidence import Evidence
    from seatrial.plan import Plan
    from seatrial.ports import Scope

#: Whoever writes a lake that Spark reads keeps a quarantine of their own.
_NO_QUARANTINE = "SELECT '' AS kind, '' AS rollout_id, '' AS reason, CAST(0 AS BIGINT) AS seen_us WHERE false"


@dataclass(frozen=True, slots=True)
class PostgresLogs:
    """The tables that `SqlLogWriter` fills, counted where they are."""

    engine: sa.Engine

    def look(self, plan: Plan, scope: Scope, *, now: datetime) -> Evidence:
        """Return what the logs say up to `now`, all of it at one moment; raises UnavailableError."""
        with self._looker(plan, scope, now) as looker:
            return replace(looker.look(), sources=self._sources(looker.engine, scope))

    def orphans(self, plan: Plan, scope: Scope, *, now: datetime) -> dict[str, int]:
        """Return by name how many labels arrived during the rollout for no decision in the log."""
        with self._looker(plan, scope, now) as looker:
            return looker.orphans()

    @contextmanager
    def _looker(self, plan: Plan, scope: Scope, now: datetime) -> Iterator[Looker]:
        try:
            with self.engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
                point = quoted(scope.decision_point)
                since = quoted(format_time(scope.since - SETTLED - REFERENCE))
                connection.exec_driver_sql("SET LOCAL TIME ZONE 'UTC'")
                connection.exec_driver_sql(f"""
                    CREATE TEMP VIEW decisions AS
                    SELECT *, CAST(extract(epoch FROM ts) * 1000000 AS BIGINT) AS decided_us
                    FROM decision_log WHERE decision_point = {point} AND ts >= {since}
                """)  # noqa: S608 quoted
                connection.exec_driver_sql(f"""
                    CREATE TEMP VIEW labels AS
                    SELECT *, CAST(extract(epoch FROM arrived_at) * 1000000 AS BIGINT) AS arrived_us
                    FROM label_log WHERE decision_point = {point}
                """)  # noqa: S608 quoted
                connection.exec_driver_sql(f"""
                    CREATE TEMP VIEW quarantine AS
                    SELECT *, CAST(extract(epoch FROM seen_at) * 1000000 AS BIGINT) AS seen_us
                    FROM quarantine_log WHERE decision_point = {point}
                """)  # noqa: S608 quoted
                # What was kept for the look goes with the transaction, which nobody commits.
                yield Looker(PostgreSQL(connection), plan, scope, now)
        except SQLAlchemyError as error:
            where = self.engine.url.render_as_string(hide_password=True)
            raise UnavailableError(f"{where}: the logs could not be read: {error}") from error

    @staticmethod
    def _sources(engine: Engine, scope: Scope) -> dict[str, str]:
        """Return the digest of what the batches of each log and date held when they were written."""
        batches = f"""
            SELECT kind, CAST(written_at AS DATE), digest FROM log_batches
            WHERE decision_point = {quoted(scope.decision_point)} AND kind IN ('decisions', 'labels')
        """  # noqa: S608 quoted
        dates: defaultdict[str, list[str]] = defaultdict(list)
        for kind, date, digest in engine.rows(batches):
            dates[f"{kind}/{date}"].append(digest)
        return {date: digest_of(sorted(digests)) for date, digests in sorted(dates.items())}


@dataclass(frozen=True, slots=True)
class SparkLogs:
    """Relations of a Spark session: views over files, or tables of its catalog."""

    session: SparkSession
    decisions: str  #: name of a relation with the columns of the decision log
    labels: str  #: name of a relation with the columns of the label log

    def look(self, plan: Plan, scope: Scope, *, now: datetime) -> Evidence:
        """Return what the logs say up to `now`; raises UnavailableError when Spark cannot say."""
        from pyspark.errors import PySparkException  # noqa: PLC0415 an extra, which only these logs need

        engine = Spark(self.session)
        point = quoted(scope.decision_point)
        since = quoted(format_time(scope.since - SETTLED - REFERENCE))
        try:
            self.session.sql(
                f"SELECT *, unix_micros(ts) AS decided_us FROM {self.decisions}"  # noqa: S608 named by the caller
                f" WHERE decision_point = {point} AND ts >= CAST({since} AS TIMESTAMP)"
            ).createOrReplaceTempView("decisions")
            self.session.sql(
                f"SELECT *, unix_micros(arrived_at) AS arrived_us FROM {self.labels}"  # noqa: S608 named by the caller
            ).createOrReplaceTempView("labels")
            self.session.sql(_NO_QUARANTINE).createOrReplaceTempView("quarantine")
            return Looker(engine, plan, scope, now).look()
        except PySparkException as error:
            raise UnavailableError(f"Spark: the logs could not be read: {error}") from error
        finally:
            engine.close()
