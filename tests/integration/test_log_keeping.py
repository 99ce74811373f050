import math
import shutil
import struct
import tempfile
from datetime import timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from builders import DAY, POINT, T0, a_plan
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_builders import ClockAt, a_label, a_row, cut_off_at, files, rows_of, write

from seatrial.adapters import log_keeping
from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.log_files import present_files, replaced_by, write_whole
from seatrial.adapters.log_keeping import (
    compact,
    expire,
    expired,
    inspect,
    keeping,
    partitions,
    require_finished,
)
from seatrial.adapters.memory import MemoryStore
from seatrial.errors import RefusedError, UnavailableError
from seatrial.ports import Scope

NOW = T0 + 400 * DAY


def many(root, count=6):
    for at in range(count):
        write(root, [a_row(2 * at), a_row(2 * at + 1)], [a_label(at)])


def compact_all(root):
    return [compact(partition) for partition in partitions(root)]


def bits(value):
    return struct.pack("<d", value) if isinstance(value, float) else value


def exact(root, kind="decisions"):
    return sorted(repr({name: bits(value) for name, value in row.items()}) for row in rows_of(root, kind))


# --- compaction

FLOATS = st.floats() | st.sampled_from(
    [-0.0, 0.0, math.nan, struct.unpack("<d", b"\x01\x00\x00\x00\x00\x00\xf8\x7f")[0]]
)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "at": st.integers(0, 40),
            "score": st.none() | FLOATS,
            "latency_ms": FLOATS,
            "origin": st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
            "share": st.sampled_from([0.0, 0.05, 2.0]),
        }
    ),
    max_size=12,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ROWS, max_size=5), st.booleans())
def test_the_rows_are_the_same_bit_for_bit_before_and_after(batches, is_again):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, rows in enumerate(batches):
            made = [a_row(row["at"], **{k: v for k, v in row.items() if k != "at"}) for row in rows]
            labels = [a_label(row["at"], name=str(number), value=row["latency_ms"]) for row in rows]
            write(root, made, labels, clock=ClockAt(NOW))
            if is_again:
                compact_all(root)
        before = [exact(root, kind) for kind in ("decisions", "labels", "quarantine")]
        compact_all(root)
        assert [exact(root, kind) for kind in ("decisions", "labels", "quarantine")] == before
        assert all(len(present_files(partition.folder)) == 1 for partition in partitions(root))


def test_small_files_become_one_that_is_sorted_and_says_which_it_replaces(tmp_path):
    many(tmp_path)
    names = [path.name for path in files(tmp_path)]
    done = compact(next(p for p in partitions(tmp_path) if p.kind == "decisions"))
    (path,) = files(tmp_path)
    assert (done.merged, done.into, path.name.startswith("compact-")) == (6, 1, True)
    assert replaced_by(path) == sorted(names)
    times = pq.read_table(path, partitioning=None)["ts"].to_pylist()
    assert times == sorted(times)


def test_what_was_merged_is_not_merged_again_and_alone_nothing_is(tmp_path):
    many(tmp_path)
    compact_all(tmp_path)
    before = {path: path.stat().st_ino for path in files(tmp_path)}
    assert [done.merged for done in compact_all(tmp_path)] == [0, 0]
    assert {path: path.stat().st_ino for path in files(tmp_path)} == before


def test_a_batch_that_is_written_again_after_it_was_merged_comes_back_to_nobody(tmp_path):
    many(tmp_path, 2)
    compact_all(tmp_path)
    write(tmp_path, [a_row(20), a_row(21)])
    compact_all(tmp_path)
    write(tmp_path, [a_row(0), a_row(1)])
    assert len(files(tmp_path)) == 2
    assert len(rows_of(tmp_path)) == 6
    compact_all(tmp_path)
    assert len(files(tmp_path)) == 1
    assert len(rows_of(tmp_path)) == 6


def test_files_with_other_columns_are_not_merged(tmp_path):
    for at in range(2):
        write(tmp_path, [a_row(at)])
        write(tmp_path, [a_row(at + 5, carrier="UA")], attributes=("origin", "carrier"))
    before = exact(tmp_path)
    compact_all(tmp_path)
    assert len(files(tmp_path)) == 2
    assert exact(tmp_path) == before


def test_files_that_reach_the_target_are_not_touched(tmp_path, monkeypatch):
    many(tmp_path)
    size = files(tmp_path)[0].stat().st_size
    monkeypatch.setattr(log_keeping, "TARGET_BYTES", 2 * size)
    monkeypatch.setattr(log_keeping, "SMALL_BYTES", size - 100)  # labels are smaller
    assert [done.merged for done in compact_all(tmp_path)] == [0, 6]
    monkeypatch.setattr(log_keeping, "SMALL_BYTES", size + 100)
    done = compact_all(tmp_path)[0]
    assert (done.merged, done.into >= 2) == (6, True)


def test_cut_off_anywhere_a_reader_sees_the_same_rows_and_the_same_again_comes_to_the_same_end(tmp_path, monkeypatch):
    filled = tmp_path / "filled"
    many(filled)
    shutil.copytree(filled, tmp_path / "straight")
    compact_all(tmp_path / "straight")
    end = [path.name for path in files(tmp_path / "straight")]
    for changes in range(100):
        root = tmp_path / str(changes)
        shutil.copytree(filled, root)
        before = exact(root)
        was_cut = cut_off_at(monkeypatch, changes, lambda root=root: compact_all(root))
        assert exact(root) == before
        compact_all(root)
        assert exact(root) == before
        assert [path.name for path in files(root)] == end
        assert list(root.rglob(".*.partial")) == []
        if not was_cut:
            break
    assert changes > 10


def test_a_torn_file_is_not_merged_away(tmp_path):
    many(tmp_path, 2)
    path = files(tmp_path)[0]
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UnavailableError, match="could not be read"):
        compact_all(tmp_path)
    assert len(files(tmp_path)) == 2


def test_a_look_says_the_same_before_and_after(tmp_path):
    for at in range(6):
        arm = "challenger" if at % 2 else "champion"
        write(tmp_path, [a_row(at, arm=arm), a_row(at + 30, arm=arm)], [a_label(at)])
    look = ParquetLogs(tmp_path).look
    scope = Scope(POINT, "r1", "champion", "challenger", T0)
    before = look(a_plan(), scope, now=T0 + 3 * DAY)
    compact_all(tmp_path)
    assert look(a_plan(), scope, now=T0 + 3 * DAY) == before
    assert before.cells


# --- only one at a time


def test_two_that_rewrite_at_once_are_refused(tmp_path):
    with keeping(tmp_path), pytest.raises(RefusedError, match="another command"), keeping(tmp_path):
        pass
    with keeping(tmp_path):
        pass


def test_nothing_is_rewritten_while_an_erasure_is_unfinished(tmp_path):
    require_finished(tmp_path)
    (tmp_path / ".erasing").mkdir()
    (tmp_path / ".erasing" / "abc.jsonl").touch()
    with pytest.raises(RefusedError, match="unfinished erasure abc"):
        require_finished(tmp_path)


# --- retention


def days_of(root, kind="decisions"):
    return [p.date for p in partitions(root) if p.kind == kind]


def old_ones(root, age=DAY, *, now=NOW, needed_since=None, **of):
    return [p.date for p in expired(root, age, now=now, needed_since=needed_since or {}, **of) if p.kind == "decisions"]


def three_days(root):
    for day in range(3):
        for batch in range(2):
            write(root, [a_row(24 * day + batch)], [a_label(24 * day + batch)])
    write(root, [a_row(1, share=2.0)], clock=ClockAt(T0))


@pytest.mark.parametrize(
    ("now", "gone"),
    [
        (T0 + 11 * DAY - timedelta(microseconds=1), []),
        (T0 + 11 * DAY, ["2013-06-01"]),
        (T0 + 12 * DAY, ["2013-06-01", "2013-06-02"]),
    ],
)
def test_a_day_is_old_when_all_of_it_is(tmp_path, now, gone):
    three_days(tmp_path)
    assert old_ones(tmp_path, 10 * DAY, now=now) == gone


@pytest.mark.parametrize(
    ("since", "gone"),
    [
        (T0, []),
        (T0 + DAY - timedelta(microseconds=1), []),
        (T0 + DAY, ["2013-06-01"]),
        (T0 + 3 * DAY, ["2013-06-01", "2013-06-02", "2013-06-03"]),
    ],
)
def test_a_day_that_an_open_rollout_may_read_is_kept_whatever_its_age(tmp_path, since, gone):
    three_days(tmp_path)
    assert old_ones(tmp_path, needed_since={POINT: since}) == gone
    assert old_ones(tmp_path, needed_since={"elsewhere": T0}) == ["2013-06-01", "2013-06-02", "2013-06-03"]


def test_a_partition_without_a_day_is_never_old(tmp_path):
    write(tmp_path, [a_row(0, ts=None)])
    (tmp_path / "decisions" / f"decision_point={POINT}" / "date=2013-13-01").mkdir(parents=True)
    (tmp_path / "decisions" / f"decision_point={POINT}" / "date=9999-12-31").mkdir()
    assert expired(tmp_path, timedelta(0), now=NOW, needed_since={}) == []


def expire_all(root, store):
    log_keeping.clear_expired(root)
    for partition in expired(root, DAY, now=NOW, needed_since={}):
        expire(partition, store.append, now=NOW, actor="ada", age=DAY)


def test_the_ledger_keeps_what_was_deleted_by_digest(tmp_path):
    three_days(tmp_path)
    digests = {path.name: log_keeping.digest_file(path) for path in files(tmp_path)[:2]}
    store = MemoryStore()
    expire_all(tmp_path, store)
    assert partitions(tmp_path) == []
    records = [entry.record for entry in store.entries()]
    assert len(records) == 7
    assert (records[0].kind, records[0].actor, records[0].decision_point) == ("logs.expired", "ada", POINT)
    assert records[0].body == {
        "log": "decisions",
        "date": "2013-06-01",
        "files": 2,
        "rows": 2,
        "older_than_s": 86400.0,
        "digests": digests,
    }


def test_a_torn_file_is_recorded_with_an_unknown_number_of_rows(tmp_path):
    write(tmp_path, [a_row(0)])
    files(tmp_path)[0].write_bytes(b"torn")
    store = MemoryStore()
    expire_all(tmp_path, store)
    assert store.entries()[0].record.body["rows"] is None


def test_nothing_is_deleted_that_is_not_recorded(tmp_path):
    three_days(tmp_path)
    before = files(tmp_path)

    def down(_records):
        raise UnavailableError("the database did not answer")

    partition = partitions(tmp_path)[0]
    with pytest.raises(UnavailableError):
        expire(partition, down, now=NOW, actor="ada", age=DAY)
    assert files(tmp_path) == before


def test_cut_off_anywhere_half_a_day_is_never_seen_and_each_day_is_recorded_once(tmp_path, monkeypatch):
    filled = tmp_path / "filled"
    three_days(filled)
    for changes in range(200):
        root, store = tmp_path / str(changes), MemoryStore()
        shutil.copytree(filled, root)
        before = dict.fromkeys(days_of(root), 2)
        was_cut = cut_off_at(monkeypatch, changes, lambda root=root, store=store: expire_all(root, store))
        seen = {p.date: len(present_files(p.folder)) for p in partitions(root) if p.kind == "decisions"}
        assert seen.items() <= before.items()
        expire_all(root, store)
        assert [path for path in root.rglob("*") if path.is_file()] == []
        assert len(store.entries()) == 7
        if not was_cut:
            break
    assert changes > 10


def test_a_file_that_comes_while_its_day_is_deleted_is_recorded_too(tmp_path):
    write(tmp_path, [a_row(0)])
    store = MemoryStore()

    def append(records):
        store.append(records)
        if len(store.entries()) == 1:
            write(tmp_path, [a_row(1)])

    expire(partitions(tmp_path)[0], append, now=NOW, actor="ada", age=DAY)
    assert [entry.record.body["files"] for entry in store.entries()] == [1, 2]


# --- what is there


def test_a_day_is_inspected_with_its_rows_and_what_was_left_in_it(tmp_path):
    three_days(tmp_path)
    folder = partitions(tmp_path)[0].folder
    first = present_files(folder)[0]
    (folder / ".part-x.parquet.1-0.partial").write_bytes(b"half")
    write_whole(pq.read_table(first, partitioning=None), folder / "compact-1.parquet", replaces=[first.name])
    found = inspect(partitions(tmp_path)[0])
    assert (found.files, found.rows, found.small, found.replaced, found.partials) == (2, 2, 2, 1, 1)
    assert (found.unreadable, found.reasons) == ((), {})
    away = inspect(next(p for p in partitions(tmp_path) if p.kind == "quarantine"))
    assert away.reasons == {"share.out_of_range": 1}


@pytest.mark.parametrize("name", ["part-torn.parquet", "compact-torn.parquet"])
def test_a_file_that_cannot_be_read_is_named_and_its_rows_are_not_counted_as_none(tmp_path, name):
    three_days(tmp_path)
    partition = partitions(tmp_path)[0]
    (partition.folder / name).write_bytes(b"torn")
    found = inspect(partition)
    assert (found.rows, found.unreadable) == (None, (name,))


def test_a_day_before_the_rows_is_no_partition(tmp_path):
    assert partitions(tmp_path) == []
    many(tmp_path, 1)
    assert [p.decision_point for p in partitions(tmp_path, POINT)] == [POINT, POINT]
    assert partitions(tmp_path, "elsewhere") == []
