import math
import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from builders import DAY, POINT, T0
from log_builders import ClockAt, a_label, a_row, rows_of

from seatrial.adapters import log_table_erasure
from seatrial.adapters.log_erasure import Request
from seatrial.adapters.log_intake import Flushed
from seatrial.adapters.log_table_erasure import erase_in_tables
from seatrial.adapters.log_tables import SqlLogWriter, log_tables
from seatrial.adapters.logs import LogWriter
from seatrial.adapters.memory import MemoryStore
from seatrial.errors import InvalidDocumentError, RefusedError, UnavailableError

NOW = T0 + 2 * DAY
CLOCK = ClockAt(NOW)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path):
    url = f"sqlite:///{tmp_path / 'logs.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    engine = sa.create_engine(url)
    yield engine
    engine.dispose()


def in_tables(engine, kind, attributes=("origin",)):
    table = log_tables(attributes).rows[kind]
    with engine.connect() as connection:
        rows = [dict(row) for row in connection.execute(sa.select(table)).mappings()]
    ours = {"batch"} if kind == "decisions" else {"batch", "decision_point"}
    return sorted((in_utc({k: v for k, v in row.items() if k not in ours}) for row in rows), key=repr)


def in_utc(row):
    return {name: value.astimezone(UTC) if isinstance(value, datetime) else value for name, value in row.items()}


def batches(engine):
    with engine.connect() as connection:
        return connection.execute(sa.select(log_tables(()).batches).order_by("batch")).all()


class Files:
    """The files as a place to write to and read from."""

    def __init__(self, root):
        self.root = root

    def writer(self, attributes=("origin",), **options):
        return LogWriter(self.root, POINT, attributes, CLOCK, **options)

    def rows(self, kind):
        return sorted(map(in_utc, rows_of(self.root, kind)), key=repr)


class Tables:
    """The tables as a place to write to and read from."""

    def __init__(self, engine):
        self.engine = engine

    def writer(self, attributes=("origin",), **options):
        return SqlLogWriter(self.engine, POINT, attributes, CLOCK, **options)

    def rows(self, kind):
        return in_tables(self.engine, kind)


@pytest.fixture(params=["files", "sqlite", "postgresql"])
def place(request, tmp_path):
    if request.param == "files":
        yield Files(tmp_path)
        return
    url = f"sqlite:///{tmp_path / 'logs.sqlite'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_url")
    engine = sa.create_engine(url)
    yield Tables(engine)
    engine.dispose()


def fill(writer, rows, labels=()):
    for row in rows:
        writer.decision(row)
    for label in labels:
        writer.label(label)
    return writer.flush()


ROWS = [
    a_row(0),
    a_row(1, ts=T0 + timedelta(microseconds=1), rollout_id=None, origin="ä 'quoted' \\ \n", rule="", score=0.1 + 0.2),
    a_row(2, score=math.nan, latency_ms=math.nan, cut_off=math.inf),
    a_row(3, score=1e300, latency_ms=1, share=0, snapshot_no=2**62, arm="shadow", action_taken=None),
]
LABELS = [a_label(0, value=True), a_label(1, value=math.inf), a_label(2, value=1e-300)]
BAD = [a_row(4, share=2.0), a_row(5, ts=None, unit_key="\0", origin="\ud800", rule="'")]


# --- the contract of every writer


def test_the_same_rows_come_out_wherever_they_were_written(place, tmp_path):
    assert fill(place.writer(), ROWS + BAD, LABELS) == Flushed(7, 2)
    reference = Files(tmp_path / "reference")
    fill(reference.writer(), ROWS + BAD, LABELS)
    for kind in ("decisions", "labels", "quarantine"):
        # As text, for NaN is not equal to itself.
        assert repr(place.rows(kind)) == repr(reference.rows(kind)), kind
    assert [row["reason"] for row in place.rows("quarantine")] == ["share.out_of_range", "ts.missing"]
    assert {type(row["value"]) for row in place.rows("labels")} == {float}


def test_a_number_that_is_none_stays_one(place):
    fill(place.writer(), ROWS)
    (row,) = [row for row in place.rows("decisions") if row["decision_id"] == "d2"]
    assert math.isnan(row["score"])
    assert math.isnan(row["latency_ms"])
    assert row["cut_off"] == math.inf


def test_the_same_batch_again_changes_nothing(place):
    for _ in range(2):
        fill(place.writer(), ROWS[:2] + BAD, LABELS)
    assert [len(place.rows(kind)) for kind in ("decisions", "labels", "quarantine")] == [2, 3, 2]


def test_a_column_that_the_log_does_not_have_is_refused_at_the_door(place):
    writer = place.writer()
    with pytest.raises(InvalidDocumentError, match="column colour"):
        writer.decision(a_row(0, colour="red"))
    with pytest.raises(InvalidDocumentError, match="column colour"):
        writer.label(a_label(0, colour="red"))
    assert writer.flush() == Flushed()


def test_rows_beyond_the_declared_number_are_written_unasked(place):
    writer = place.writer(max_rows=2)
    writer.decision(a_row(0))
    assert place.rows("decisions") == []
    writer.decision(a_row(1))
    assert len(place.rows("decisions")) == 2
    with pytest.raises(ValueError, match="max_rows 0"):
        place.writer(max_rows=0)


# --- tables


def test_every_batch_has_a_number_above_the_last_and_tells_what_it_is(engine):
    for at in range(3):
        fill(SqlLogWriter(engine, POINT, ("origin",), CLOCK), [a_row(at)], [a_label(at)] if at == 1 else [])
    fill(SqlLogWriter(engine, "elsewhere", ("origin",), CLOCK), [a_row(9)])
    found = batches(engine)
    assert [row.batch for row in found] == [1, 2, 3, 4, 5]
    assert [row.kind for row in found] == ["decisions", "decisions", "labels", "decisions", "quarantine"]
    assert {row.written_at for row in found} == {NOW}
    assert found[4].decision_point == "elsewhere"
    with engine.connect() as connection:
        tagged = connection.execute(sa.text("SELECT batch, decision_id FROM decision_log ORDER BY batch")).all()
    assert tagged == [(1, "d0"), (2, "d1"), (4, "d2")]


def test_writers_at_the_same_time_lose_nothing_and_share_no_number(engine):
    SqlLogWriter(engine, POINT, ("origin",), CLOCK)
    failed = []

    def write(worker):
        try:
            writer = SqlLogWriter(engine, POINT, ("origin",), CLOCK)
            for at in range(10):
                fill(writer, [a_row(100 * worker + at, ts=T0), a_row(0)])
        except Exception as error:  # noqa: BLE001 a thread's own exception would be lost
            failed.append(error)

    threads = [threading.Thread(target=write, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [row.batch for row in batches(engine)] == list(range(1, 41))
    assert len(in_tables(engine, "decisions")) == 80


def test_a_batch_is_seen_whole_or_not_at_all(engine):
    writer = SqlLogWriter(engine, POINT, ("origin",), CLOCK)
    broken = sa.event.listens_for(engine, "before_cursor_execute")

    @broken
    def break_off(_connection, _cursor, statement, *_):
        if "INSERT INTO decision_log" in statement:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(writer, ROWS)
    assert batches(engine) == []
    sa.event.remove(engine, "before_cursor_execute", break_off)
    assert writer.flush() == Flushed(4, 0)
    assert len(in_tables(engine, "decisions")) == 4


def test_a_table_without_a_column_of_the_writer_is_refused_with_the_statement_that_adds_it(engine):
    fill(SqlLogWriter(engine, POINT, ("origin",), CLOCK), [a_row(0)])
    with pytest.raises(InvalidDocumentError) as refused:
        SqlLogWriter(engine, POINT, ("origin", "carrier", "group"), CLOCK)
    remedies = [problem.remedy for problem in refused.value.problems]
    assert len(remedies) == 2
    with engine.begin() as connection:
        for remedy in remedies:
            connection.execute(sa.text(remedy))
    fill(SqlLogWriter(engine, POINT, ("origin", "carrier", "group"), CLOCK), [a_row(1, carrier="UA", group="a")])
    found = in_tables(engine, "decisions", ("origin", "carrier", "group"))
    assert [(row["carrier"], row["group"]) for row in found] == [(None, None), ("UA", "a")]


def test_a_writer_with_fewer_attributes_leaves_the_others_empty(engine):
    fill(SqlLogWriter(engine, POINT, ("origin", "carrier"), CLOCK), [a_row(0, carrier="UA")])
    fill(SqlLogWriter(engine, POINT, ("origin",), CLOCK), [a_row(1)])
    assert [row["carrier"] for row in in_tables(engine, "decisions", ("origin", "carrier"))] == ["UA", None]


def test_a_database_that_does_not_answer_is_said_to_and_the_rows_wait(tmp_path):
    with pytest.raises(UnavailableError, match="did not answer"):
        SqlLogWriter(sa.create_engine("sqlite:////nowhere/at/all.sqlite"), POINT, (), CLOCK)
    path = tmp_path / "logs.sqlite"
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 0.1}, poolclass=sa.NullPool)
    writer = SqlLogWriter(engine, POINT, ("origin",), CLOCK)
    with engine.connect() as other:
        other.exec_driver_sql("BEGIN EXCLUSIVE")
        with pytest.raises(UnavailableError, match="did not answer"):
            fill(writer, [a_row(0)])
    assert writer.flush() == Flushed(1, 0)
    assert len(in_tables(engine, "decisions")) == 1


# --- erasure

KEY = "card-4711"
SALT = bytes(range(32))


def with_unit(engine):
    bad = [
        a_row(8, unit_key=KEY, share=2.0),
        a_row(7, decision_id="mine-1", share=3.0),
        a_row(9, origin=[KEY]),
        a_row(6, share=2.0),
    ]
    mine = [a_row(at, unit_key=KEY, decision_id=f"mine-{at}", feature_digest="sha256:mine") for at in range(3)]
    copy = {**mine[0], "arm": "shadow"}
    labels = [a_label(at, decision_id=f"mine-{at}") for at in range(3)]
    fill(SqlLogWriter(engine, POINT, ("origin",), CLOCK), [*mine, copy, a_row(3), *bad], [*labels, a_label(3)])


def erase(engine, store, *, reason="request 118", with_attributes=False, salt=SALT):
    request = Request(KEY, reason, "ada", with_attributes)
    return erase_in_tables(engine, request, store.append, salt=salt, now=NOW)


def everything(engine):
    return [in_tables(engine, kind) for kind in ("decisions", "labels", "quarantine")]


def test_nothing_of_an_erased_unit_is_left_and_the_rest_stays(engine, monkeypatch):
    monkeypatch.setattr(log_table_erasure, "_AT_ONCE", 2)
    with_unit(engine)
    decisions, labels, _ = everything(engine)
    store = MemoryStore()
    erase(engine, store)
    for secret in (KEY, "mine-", "sha256:mine"):
        assert secret not in repr(everything(engine))
    after, labelled, away = everything(engine)
    assert [row for row in after if row["decision_id"] == "d3"] == [r for r in decisions if r["decision_id"] == "d3"]
    assert [row for row in labelled if row["decision_id"] == "d3"] == [r for r in labels if r["decision_id"] == "d3"]
    assert {row["decision_id"] for row in after} == {row["decision_id"] for row in labelled}
    assert (len(after), len({row["decision_id"] for row in after})) == (5, 4)
    assert len({row["unit_key"] for row in after}) == 2
    assert {row["origin"] for row in after} == {"EWR"}
    assert sorted(row["reason"] for row in away) == ["origin.wrong_type", *["share.out_of_range"] * 3]
    assert [row["detail"] == "erased" for row in away].count(True) == 3
    (entry,) = store.entries()
    assert entry.record.body["tables"] == {"decision_log": 4, "label_log": 3, "quarantine_log": 3}
    assert KEY not in repr(entry)


def test_a_unit_is_erased_from_tables_with_its_record_or_not_at_all(engine):
    with_unit(engine)
    before = everything(engine)

    class Down:
        def append(self, _records):
            raise UnavailableError("the ledger did not answer")

    with pytest.raises(UnavailableError, match="ledger"):
        erase(engine, Down())
    assert everything(engine) == before
    with pytest.raises(RefusedError, match="found the key"):
        erase(engine, MemoryStore(), reason=f"for {KEY}")
    assert everything(engine) == before


def test_erasing_from_tables_again_changes_and_records_nothing(engine):
    with_unit(engine)
    store = MemoryStore()
    erase(engine, store, with_attributes=True)
    before = everything(engine)
    assert sorted(row["origin"] for row in before[0]) == ["EWR", *["erased"] * 4]
    assert erase(engine, store, salt=bytes(32)) == ()
    assert everything(engine) == before
    assert len(store.entries()) == 1


def test_another_decision_point_with_the_same_ids_keeps_them(engine):
    with_unit(engine)
    other = SqlLogWriter(engine, "elsewhere", ("origin",), CLOCK)
    fill(other, [a_row(1, decision_id="mine-1", decision_point="elsewhere")], [a_label(1, decision_id="mine-1")])
    erase(engine, MemoryStore())
    tables = log_tables(("origin",)).rows
    with engine.connect() as connection:
        for kind in ("decisions", "labels"):
            of_other = sa.select(tables[kind].c.decision_id).where(tables[kind].c.decision_point == "elsewhere")
            assert connection.scalars(of_other).all() == ["mine-1"]
