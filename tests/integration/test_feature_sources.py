"""Every feature source answers alike: one contract, and what only one of them can do wrong."""

import json
import math
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from seatrial.adapters.features import HttpSource, MemorySource, ParquetSource, SqlSource
from seatrial.errors import NotFoundError, UnavailableError
from seatrial.gates.features import Kind

T0 = datetime(2013, 6, 1, tzinfo=UTC)
COLUMNS = ["delay", "stops", "is_late", "carrier"]


def row(hours, **changes):
    return {
        "at": T0 + timedelta(hours=hours),
        "delay": 1.5,
        "stops": 2,
        "is_late": True,
        "carrier": "UA",
        **changes,
    }


ROWS = [row(0, delay=-9.5), row(3, delay=None), row(1, carrier=None, stops=7), row(2)]


@contextmanager
def serving(content, status=200):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/rows"
    finally:
        server.shutdown()
        server.server_close()


def written(rows):
    return json.dumps([{n: v.isoformat() if isinstance(v, datetime) else v for n, v in each.items()} for each in rows])


@contextmanager
def in_memory(rows, _):
    yield MemorySource(rows)


@contextmanager
def over_http(rows, _):
    with serving(written(rows).encode()) as url:
        yield HttpSource(url)


@contextmanager
def in_files(rows, folder):
    kinds = {"at": pa.timestamp("us", "UTC"), "delay": pa.float64(), "stops": pa.int32(), "is_late": pa.bool_()}
    schema = pa.schema([(name, kinds.get(name, pa.string())) for name in ("at", *COLUMNS)])
    for number, part in enumerate((rows[:1], rows[1:])):
        pq.write_table(pa.Table.from_pylist(part, schema), folder / f"part-{number}.parquet")
    yield ParquetSource(str(folder / "*.parquet"))


def table(moment):
    kinds = {"at": moment, "delay": sa.Double(), "stops": sa.BigInteger(), "is_late": sa.Boolean()}
    return sa.Table("seen", sa.MetaData(), *(sa.Column(n, kinds.get(n, sa.Text())) for n in ("at", *COLUMNS)))


@contextmanager
def in_sqlite(rows, folder):
    # SQLite has no type for times: they are text with a zone.
    engine = sa.create_engine(f"sqlite:///{folder / 'features.sqlite'}")
    seen = table(sa.Text())
    seen.create(engine)
    with engine.begin() as connection:
        texts = [{**each, "at": each["at"] and each["at"].isoformat()} for each in rows]
        if texts:
            connection.execute(seen.insert(), texts)
    yield SqlSource(engine, "seen")
    engine.dispose()


SOURCES = {"memory": in_memory, "http": over_http, "parquet": in_files, "sqlite": in_sqlite, "postgresql": None}


@pytest.fixture(params=SOURCES)
def opened(request, tmp_path):
    """Return what opens a source that holds some rows."""
    if request.param != "postgresql":
        return lambda rows: SOURCES[request.param](rows, tmp_path)
    url = request.getfixturevalue("postgres_url")

    @contextmanager
    def in_postgres(rows):
        engine = sa.create_engine(url)
        seen = table(sa.DateTime(timezone=True))
        seen.drop(engine, checkfirst=True)
        seen.create(engine)
        with engine.begin() as connection:
            if rows:
                connection.execute(seen.insert(), rows)
        try:
            yield SqlSource(engine, "public.seen")
        finally:
            seen.drop(engine)
            engine.dispose()

    return in_postgres


def test_the_newest_rows_are_seen_with_types_missing_values_and_range(opened):
    with opened(ROWS) as source:
        seen = source.look([*COLUMNS, "distance"], "at", rows=100)
    assert (seen.rows, seen.newest, seen.undated) == (4, T0 + timedelta(hours=3), 0)
    assert {name: column.kind for name, column in seen.columns.items()} == {
        "delay": Kind.FLOAT,
        "stops": Kind.INT,
        "is_late": Kind.BOOL,
        "carrier": Kind.TEXT,
    }
    missing = {name: column.missing for name, column in seen.columns.items()}
    assert missing == {"delay": 1, "stops": 0, "is_late": 0, "carrier": 1}
    assert (seen.columns["delay"].least, seen.columns["delay"].greatest) == (-9.5, 1.5)
    assert (seen.columns["stops"].least, seen.columns["stops"].greatest) == (2.0, 7.0)


def test_only_as_many_of_the_newest_rows_are_seen_as_are_asked_for(opened):
    with opened(ROWS) as source:
        seen = source.look(["delay", "stops"], "at", rows=2)
    assert (seen.rows, seen.columns["delay"].missing, seen.columns["delay"].least) == (2, 1, 1.5)
    assert seen.columns["stops"].greatest == 2.0


def test_rows_that_do_not_say_when_are_seen_first(opened):
    with opened([*ROWS, row(9, at=None)]) as source:
        seen = source.look(["delay"], "at", rows=1)
    assert (seen.rows, seen.undated, seen.newest) == (1, 1, None)


def test_a_source_without_rows_says_so(opened):
    with opened([]) as source:
        seen = source.look(COLUMNS, "at", rows=10)
    assert (seen.rows, seen.newest) == (0, None)


def test_a_value_that_is_no_number_is_missing_and_an_infinite_one_is_told():
    rows = [row(0, delay=math.nan), row(1, delay=math.inf), row(2)]
    seen = MemorySource(rows).look(["delay"], "at", rows=10).columns["delay"]
    assert (seen.missing, seen.infinite, seen.greatest) == (1, 1, 1.5)


def test_a_column_of_mixed_values_is_no_feature():
    seen = MemorySource([row(0, delay="1.5"), row(1)]).look(["delay"], "at", rows=10)
    assert seen.columns["delay"].kind is Kind.OTHER


def test_sqlite_is_believed_by_its_values_and_not_by_its_declaration(tmp_path):
    with in_sqlite(ROWS, tmp_path) as source:
        with source.engine.begin() as connection:
            connection.execute(sa.text("UPDATE seen SET stops = 'many'"))
        seen = source.look(["stops"], "at", rows=10)
    assert seen.columns["stops"].kind is Kind.OTHER


def test_a_time_without_a_zone_is_no_moment(tmp_path):
    rows = pa.table({"at": pa.array([datetime(2013, 6, 1)], pa.timestamp("us")), "delay": [1.0]})  # noqa: DTZ001
    pq.write_table(rows, tmp_path / "a.parquet")
    seen = ParquetSource(str(tmp_path / "a.parquet")).look(["delay"], "at", rows=10)
    assert (seen.undated, seen.newest) == (1, None)


@pytest.mark.parametrize("name", ["memory", "http", "parquet", "sqlite"])
def test_a_timestamp_that_the_source_does_not_have_is_no_freshness(name, tmp_path):
    with SOURCES[name](ROWS, tmp_path) as source:
        if name == "memory":
            assert source.look(["delay"], "moment", rows=10).undated == len(ROWS)
        else:
            with pytest.raises(NotFoundError, match="'moment'"):
                source.look(["delay"], "moment", rows=10)


def test_a_source_that_is_not_there_is_told_apart_from_one_that_does_not_answer(tmp_path):
    with pytest.raises(NotFoundError, match="no such file"):
        ParquetSource(str(tmp_path / "*.parquet")).look(["delay"], "at", rows=10)
    with pytest.raises(NotFoundError, match="'seen'"):
        SqlSource(sa.create_engine("sqlite://"), "seen").look(["delay"], "at", rows=10)
    with serving(b"", 404) as url, pytest.raises(NotFoundError, match="404"):
        HttpSource(url).look(["delay"], "at", rows=10)


@pytest.mark.parametrize(("content", "status"), [(b"no", 200), (b"{}", 200), (b"[1]", 200), (b"[]", 500), (b"", 302)])
def test_an_endpoint_that_answers_no_rows_is_unavailable(content, status):
    with serving(content, status) as url, pytest.raises(UnavailableError):
        HttpSource(url).look(["delay"], "at", rows=10)


def test_rows_may_stand_in_an_object():
    with serving(f'{{"rows": {written(ROWS)}}}'.encode()) as url:
        assert HttpSource(url).look(["delay"], "at", rows=10).rows == len(ROWS)


def test_a_source_that_is_gone_or_broken_is_unavailable(tmp_path):
    with serving(b"[]") as url:
        pass
    with pytest.raises(UnavailableError, match="wait and retry"):
        HttpSource(url).look(["delay"], "at", rows=10)
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    with pytest.raises(UnavailableError, match="restore the files"):
        ParquetSource(str(tmp_path / "broken.parquet")).look(["delay"], "at", rows=10)
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'nowhere' / 'a.sqlite'}")
    with pytest.raises(UnavailableError, match="wait and retry"):
        SqlSource(engine, "seen").look(["delay"], "at", rows=10)


def test_a_name_with_quotes_stays_a_name(tmp_path):
    path = tmp_path / "a.parquet"
    with duckdb.connect(":memory:") as connection:
        connection.execute(f"""COPY (SELECT now() AS "a""t", 1.5 AS delay) TO '{path}' (FORMAT parquet)""")
    assert ParquetSource(str(path)).look(["delay"], 'a"t', rows=10).rows == 1
