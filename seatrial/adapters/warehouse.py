"""Evidence from logs that lie in tables: PostgreSQL, and Spark with whatever it reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from seatrial.adapters.counting import REFERENCE, SETTLED, Looker
from seatrial.adapters.counting.statements import quoted
from seatrial.adapters.engines import PostgreSQL, Spark
from seatrial.errors import UnavailableError
from seatrial.units import format_time

if TYPE_CHECKING:
    from datetime import datetime

    import sqlalchemy as sa
    from pyspark.sql import SparkSession

    from seatrial.evidence import Evidence
    from seatrial.plan import Plan
    from seatrial.ports import Scope


@dataclass(frozen=True, slots=True)
class PostgresLogs:
    """The tables that `SqlLogWriter` fills, counted where they are."""

    engine: sa.Engine

    def look(self, plan: Plan, scope: Scope, *, now: datetime) -> Evidence:
        """Return what the logs say up to `now`, all of it at one moment; raises UnavailableError."""
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
                # What was kept for the look goes with the transaction, which nobody commits.
                return Looker(PostgreSQL(connection), plan, scope, now).look()
        except SQLAlchemyError as error:
            where = self.engine.url.render_as_string(hide_password=True)
            raise UnavailableError(f"{where}: the logs could not be read: {error}") from error


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
            return Looker(engine, plan, scope, now).look()
        except PySparkException as error:
            raise UnavailableError(f"Spark: the logs could not be read: {error}") from error
        finally:
            engine.close()
