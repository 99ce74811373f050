"""One declaration, three engines: every count of DuckDB, PostgreSQL and Spark is the same."""

import os
from dataclasses import fields
from pathlib import Path

import numpy as np
import pyspark
import pytest
import sqlalchemy as sa
from builders import POINT, a_plan
from counting_logs import DECLARED, NOW, PLAN, SCOPE, random_logs, random_reference, snapshots_begin, write
from pyspark.sql import SparkSession

from seatrial.adapters.duckdb import ParquetLogs, log_files
from seatrial.adapters.log_files import read_file
from seatrial.adapters.log_schema import LogKind
from seatrial.adapters.log_tables import log_tables
from seatrial.adapters.warehouse import PostgresLogs, SparkLogs
from seatrial.errors import UnavailableError
from seatrial.evidence import Evidence

#: The same rules with the other answer to contradictory labels.
FIRST_ARRIVAL = a_plan(**DECLARED, evidence={"max_age": "6 h", "conflicts": "first"})
PLANS = {"last arrival": PLAN, "first arrival": FIRST_ARRIVAL}


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Return the root of logs that lie in several files of several dates."""
    root = tmp_path_factory.mktemp("logs")
    rng = np.random.default_rng(11)
    write(root, random_reference(rng, 60) + random_logs(rng, range(150)) + snapshots_begin(), batches=4)
    return root


@pytest.fixture(scope="module")
def expected(logs):
    return {name: ParquetLogs(logs).look(plan, SCOPE, now=NOW) for name, plan in PLANS.items()}


def assert_same(found: Evidence, expected: Evidence) -> None:
    for field in (each for each in fields(Evidence) if each.compare):
        assert getattr(found, field.name) == getattr(expected, field.name), field.name
    assert found.digest == expected.digest


@pytest.mark.parametrize("name", PLANS)
def test_postgresql_counts_what_duckdb_counts(logs, expected, postgres_url, name):
    engine = sa.create_engine(postgres_url)
    copy_into(engine, logs)
    assert_same(PostgresLogs(engine).look(PLANS[name], SCOPE, now=NOW), expected[name])
    with engine.connect() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM pg_class WHERE relname IN ('firsts', 'decisions')")
        assert left.scalar_one() == 0
    engine.dispose()


def test_a_database_without_logs_is_no_evidence_but_an_error(postgres_url):
    engine = sa.create_engine(postgres_url)
    with pytest.raises(UnavailableError, match="decision_log"):
        PostgresLogs(engine).look(PLAN, SCOPE, now=NOW)
    engine.dispose()


@pytest.fixture(scope="module")
def spark():
    """Return a session on a local cluster of two workers, each a process of its own."""
    os.environ["SPARK_HOME"] = str(Path(pyspark.__file__).parent)
    builder = SparkSession.builder.master("local-cluster[2,1,1024]").appName("seatrial tests")
    settings = {
        "spark.ui.enabled": "false",
        "spark.sql.session.timeZone": "UTC",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.sql.shuffle.partitions": "2",
    }
    for key, value in settings.items():
        builder = builder.config(key, value)
    session = builder.getOrCreate()
    yield session
    session.stop()


@pytest.mark.filterwarnings("ignore:PySpark does not yet fully support pandas:FutureWarning")
@pytest.mark.parametrize("name", PLANS)
def test_spark_counts_what_duckdb_counts(logs, expected, spark, name):
    for kind in ("decisions", "labels"):
        files = [str(file) for file in log_files(logs, kind, POINT)]
        spark.read.parquet(*files).createOrReplaceTempView(f"{kind}_log")
    found = SparkLogs(spark, "decisions_log", "labels_log").look(PLANS[name], SCOPE, now=NOW)
    assert_same(found, expected[name])


def copy_into(engine, root):
    """Copy the rows of the files into tables, as they are."""
    tables = log_tables(("origin",))
    tables.metadata.create_all(engine)
    with engine.begin() as connection:
        for kind in (LogKind.DECISIONS, LogKind.LABELS):
            for at, file in enumerate(log_files(root, kind, POINT)):
                rows = [{**row, "decision_point": POINT, "batch": at} for row in read_file(file).to_pylist()]
                connection.execute(sa.insert(tables.rows[kind]), rows)
