from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa

from deployments.postgres import Cluster
from deployments.processes import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Return a private PostgreSQL that ends with the tests."""
    cluster = Cluster.prepare(tmp_path_factory.mktemp("postgres"), port=free_port("PostgreSQL"))
    # Tests kill processes, never the machine: nothing has to reach the disk.
    with (cluster.home / "postgres" / "postgresql.conf").open("a") as settings:
        settings.write("fsync = off\nsynchronous_commit = off\n")
    child = cluster.start()
    try:
        child.await_ready(cluster.is_ready, deadline_s=30)
        yield cluster
    finally:
        child.stop(grace_s=10)


@contextmanager
def database(cluster: Cluster) -> Iterator[str]:
    """Make an empty database and return its URL; it is dropped at the end."""
    name = f"t{secrets.token_hex(6)}"
    cluster.create_databases([name])
    try:
        yield cluster.url(name, driver="psycopg")
    finally:
        engine = sa.create_engine(cluster.url("postgres", driver="psycopg"), isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        engine.dispose()


@pytest.fixture
def postgres_url(postgres: Cluster) -> Iterator[str]:
    """Return the URL of an empty database on PostgreSQL."""
    with database(postgres) as url:
        yield url
