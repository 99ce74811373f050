import json
import math
import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from builders import DAY, HOUR, POINT, T0
from log_builders import ClockAt, a_label, a_row, files, rows_of, write

from seatrial.adapters import log_files, logs
from seatrial.adapters.clock import ReplayClock
from seatrial.adapters.log_files import present_files, whole, write_whole
from seatrial.adapters.log_intake import Flushed
from seatrial.adapters.log_schema import LABEL_ROWS, decision_rows, faults
from seatrial.adapters.logs import LogWriter
from seatrial.errors import UnavailableError

INSTANT = timedelta(microseconds=1)
PROJECT = Path(__file__).parents[2]
DECISION_ROWS = decision_rows(("origin",))

# --- what is wrong with a row

BAD_DECISIONS = [
    ({"ts": None}, "ts.missing"),
    ({"unit_key": None}, "unit_key.missing"),
    ({"origin": None}, "origin.missing"),
    ({"ts": T0.replace(tzinfo=None)}, "ts.no_zone"),
    ({"ts": "2013-06-01T00:00:00Z"}, "ts.wrong_type"),
    ({"ts": datetime(1, 1, 1, tzinfo=timezone(HOUR))}, "ts.out_of_range"),
    ({"latency_ms": "fast"}, "latency_ms.wrong_type"),
    ({"latency_ms": 10**400}, "latency_ms.out_of_range"),
    ({"snapshot_no": "two"}, "snapshot_no.wrong_type"),
    ({"snapshot_no": 1.5}, "snapshot_no.wrong_type"),
    ({"snapshot_no": True}, "snapshot_no.wrong_type"),
    ({"snapshot_no": 2**63}, "snapshot_no.out_of_range"),
    ({"unit_key": 17}, "unit_key.wrong_type"),
    ({"unit_key": b"u"}, "unit_key.wrong_type"),
    ({"unit_key": "\ud800"}, "unit_key.not_text"),
    ({"origin": "E\0WR"}, "origin.not_text"),
    ({"arm": "canary"}, "arm.unknown"),
    ({"outcome": "fine"}, "outcome.unknown"),
    ({"share": 1.0000001}, "share.out_of_range"),
    ({"share": -0.1}, "share.out_of_range"),
    ({"share": math.nan}, "share.out_of_range"),
    ({"decision_point": "elsewhere"}, "decision_point.mismatch"),
    ({"ts": T0 + timedelta(minutes=5) + INSTANT}, "ts.in_future"),
]
BAD_LABELS = [
    ({"value": math.nan}, "value.not_a_number"),
    ({"value": None}, "value.missing"),
    ({"fact_at": T0 - HOUR, "arrived_at": T0 - HOUR - INSTANT}, "arrived_at.before_fact"),
    ({"fact_at": T0, "arrived_at": T0 + timedelta(minutes=5) + INSTANT}, "arrived_at.in_future"),
    ({"decision_id": None}, "decision_id.missing"),
]
BAD = [("decisions", *each) for each in BAD_DECISIONS] + [("labels", *each) for each in BAD_LABELS]


@pytest.mark.parametrize(("kind", "changes", "code"), BAD)
def test_a_bad_row_goes_to_the_quarantine_and_takes_no_other_with_it(tmp_path, kind, changes, code):
    rows, labels = [a_row(-1), a_row(-2)], [a_label(-3), a_label(-4)]
    if kind == "decisions":
        rows.insert(1, a_row(0, **changes))
    else:
        labels.insert(1, a_label(-1, **changes))
    assert write(tmp_path, rows, labels, clock=ClockAt(T0)) == Flushed(4, 1)
    assert {row["decision_id"] for row in rows_of(tmp_path)} == {"d-1", "d-2"}
    assert {row["decision_id"] for row in rows_of(tmp_path, "labels")} == {"d-3", "d-4"}
    (away,) = rows_of(tmp_path, "quarantine")
    assert (away["kind"], away["reason"], away["seen_at"]) == (kind, code, T0)
    assert away["decision_id"] == changes.get("decision_id", "d0" if kind == "decisions" else "d-1")
    assert {"decision_id"} <= json.loads(away["row"]).keys()


@pytest.mark.parametrize("changes", [{"ts": T0 + timedelta(minutes=5)}, {"share": 0}, {"share": 1}])
def test_a_row_at_the_bound_is_written(tmp_path, changes):
    assert write(tmp_path, [a_row(0, **changes)], clock=ClockAt(T0)) == Flushed(1, 0)


@pytest.mark.parametrize("column", ["score", "cut_off", "latency_ms"])
def test_a_release_that_gives_no_number_is_a_fact_and_no_bad_row(tmp_path, column):
    assert write(tmp_path, [a_row(0, **{column: math.nan})]) == Flushed(1, 0)
    assert math.isnan(rows_of(tmp_path)[0][column])


def test_without_a_clock_nobody_says_what_the_future_is(tmp_path):
    assert write(tmp_path, [a_row(24 * 365)]) == Flushed(1, 0)


def test_numbers_and_texts_of_numpy_and_enumerations_are_numbers_and_texts(tmp_path):
    class Colour(StrEnum):
        RED = "red"

    row = a_row(0, share=np.float32(0.5), snapshot_no=np.int32(2), latency_ms=np.float16(2), origin=Colour.RED)
    assert write(tmp_path, [row], [a_label(0, value=np.True_.item())]) == Flushed(2, 0)
    (found,) = rows_of(tmp_path)
    assert (found["share"], found["snapshot_no"], found["latency_ms"], found["origin"]) == (0.5, 2, 2.0, "red")


def test_all_faults_of_a_row_are_told_and_the_first_one_names_it(tmp_path):
    row = a_row(0, ts=None, share="much")
    assert [fault.code for fault in faults(row, DECISION_ROWS, decision_point=POINT)] == [
        "ts.missing",
        "share.wrong_type",
    ]
    write(tmp_path, [row], clock=ClockAt(T0))
    (away,) = rows_of(tmp_path, "quarantine")
    assert away["reason"] == "ts.missing"
    assert "share: found str, expected a number" in away["detail"]


def test_no_fault_tells_the_value_of_a_column_of_text():
    for name in ("unit_key", "arm", "outcome", "origin", "decision_point"):
        for value in ("secret\0", ["secret"]):
            told = faults(a_row(0, **{name: value}), DECISION_ROWS, decision_point=POINT)
            assert told
            assert "secret" not in str(told)


def test_a_good_row_has_no_fault():
    assert faults(a_row(), DECISION_ROWS, decision_point=POINT, now=T0) == ()
    assert faults(a_label(), LABEL_ROWS, decision_point=POINT, now=T0 + HOUR) == ()


def test_an_empty_row_is_missing_everything_that_is_mandatory():
    missing = {fault.code for fault in faults({}, DECISION_ROWS, decision_point=POINT)}
    assert missing == {f"{field.name}.missing" for field in DECISION_ROWS.columns if not field.nullable}


# --- the quarantine


def test_the_same_bad_row_again_replaces_its_file_also_on_another_day(tmp_path):
    for day in range(2):
        write(tmp_path, [a_row(0, share=2.0)], clock=ClockAt(T0 + day * DAY))
    (path,) = files(tmp_path, "quarantine")
    assert path.parent.name == "date=2013-06-01"
    assert len(rows_of(tmp_path, "quarantine")) == 1


def test_without_a_clock_the_quarantine_is_dated_by_the_rows_beside_it(tmp_path):
    write(tmp_path, [a_row(0), a_row(30), a_row(1, ts=None)])
    (away,) = rows_of(tmp_path, "quarantine")
    assert away["seen_at"] == T0 + 30 * HOUR
    write(tmp_path, [a_row(2, ts=None)])
    assert {path.parent.name for path in files(tmp_path, "quarantine")} == {"date=2013-06-02", "date=unknown"}


def test_whatever_a_bad_row_holds_is_kept_as_far_as_text_can_hold_it(tmp_path):
    odd = {"score": 10**5000, "rule": b"\xffu", "segment": [1, {"a": math.inf}], "arm": object(), "origin": "\ud800"}
    assert write(tmp_path, [a_row(0, ts=T0.replace(tzinfo=None), **odd)]) == Flushed(0, 1)
    kept = json.loads(rows_of(tmp_path, "quarantine")[0]["row"])
    assert kept["rule"] == "\\xffu"
    assert kept["segment"] == [1, {"a": "inf"}]
    assert (kept["arm"], kept["score"], kept["origin"]) == ("<object>", "<16610 bits>", "\ud800")
    assert kept["ts"] == "2013-06-01T00:00:00"


# --- flushing


def test_a_batch_that_could_not_be_written_is_written_by_the_next_flush_and_nothing_twice(tmp_path, monkeypatch):
    writer = LogWriter(tmp_path, POINT, ("origin",))
    for at in (0, 30):
        writer.decision(a_row(at))
    written = []

    def full(table, path, **replaces):
        if written:
            raise OSError(28, "No space left on device")
        written.append(path)
        write_whole(table, path, **replaces)

    with monkeypatch.context() as patch:
        patch.setattr(logs, "write_whole", full)
        with pytest.raises(OSError, match="No space"):
            writer.flush()
    writer.decision(a_row(1))
    assert writer.flush() == Flushed(3, 0)
    assert [row["decision_id"] for row in rows_of(tmp_path)] == ["d0", "d1", "d30"]
    assert writer.flush() == Flushed()


def test_a_clock_that_does_not_answer_costs_no_row(tmp_path):
    clock = ReplayClock(tmp_path / "event-time")
    writer = LogWriter(tmp_path, POINT, ("origin",), clock)
    writer.decision(a_row(0))
    with pytest.raises(UnavailableError):
        writer.flush()
    clock.advance(T0)
    assert writer.flush() == Flushed(1, 0)


def test_rows_beyond_the_declared_number_are_written_unasked(tmp_path):
    writer = LogWriter(tmp_path, POINT, ("origin",), max_rows=3)
    for at in range(2):
        writer.decision(a_row(at))
    assert rows_of(tmp_path) == []
    writer.label(a_label(0))
    assert (len(rows_of(tmp_path)), len(rows_of(tmp_path, "labels"))) == (2, 1)
    with pytest.raises(ValueError, match="max_rows 0"):
        LogWriter(tmp_path, POINT, (), max_rows=0)


def test_rows_of_many_threads_are_all_written_once(tmp_path):
    writer = LogWriter(tmp_path, POINT, ("origin",), max_rows=50)
    counted = []

    def add(thread):
        for at in range(200):
            writer.decision(a_row(thread * 200 + at))
            if at % 40 == 0:
                counted.append(writer.flush())

    threads = [threading.Thread(target=add, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.flush()
    assert sorted(int(row["decision_id"][1:]) for row in rows_of(tmp_path)) == list(range(800))


def test_a_row_that_its_caller_changes_later_is_written_as_it_was_given(tmp_path):
    writer = LogWriter(tmp_path, POINT, ("origin",))
    row = a_row(0)
    writer.decision(row)
    row["arm"] = "challenger"
    writer.flush()
    assert rows_of(tmp_path)[0]["arm"] == "champion"


# --- files


def test_every_file_tells_its_schema_and_that_it_replaces_nothing(tmp_path):
    write(tmp_path, [a_row(0), a_row(1, share=2.0)], [a_label(0)])
    for kind in ("decisions", "labels", "quarantine"):
        (path,) = files(tmp_path, kind)
        told = pq.read_metadata(path).metadata
        assert (told[b"seatrial.schema"], told[b"seatrial.replaces"]) == (b"1", b"[]")


def test_file_and_folders_are_on_disk_before_flush_returns(tmp_path, monkeypatch):
    synced, sync = [], os.fsync

    def noted(descriptor):
        synced.append((os.fstat(descriptor).st_ino, len(files(tmp_path))))
        sync(descriptor)

    monkeypatch.setattr(log_files.os, "fsync", noted)
    write(tmp_path, [a_row(0)])
    (path,) = files(tmp_path)
    folders = {folder.stat().st_ino for folder in path.parents if folder.is_relative_to(tmp_path)}
    assert folders <= {inode for inode, _ in synced}
    # The name is given after the content is on disk, and kept before anybody is told.
    assert synced[-2:] == [(path.stat().st_ino, 0), (path.parent.stat().st_ino, 1)]


KILLED = """
import os, signal, sys
from pathlib import Path
import pyarrow.parquet as pq
from builders import POINT
from log_builders import a_row, write
real = pq.write_table
def write_table(table, file, **options):
    real(table, file, **options)
    file.flush()
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    print("writing", flush=True)
    sys.stdin.read()
pq.write_table = write_table
write(Path(sys.argv[1]), [a_row(0)])
"""


def start_writer(root, how):
    path = os.pathsep.join([str(PROJECT), str(PROJECT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-c", KILLED, str(root), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )


def partials(root):
    return [path for path in root.rglob(".*") if path.name.endswith(".partial")]


def test_what_a_killed_writer_left_is_never_read_and_deleted_by_the_next_one(tmp_path):
    with start_writer(tmp_path, "killed") as process:
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert len(partials(tmp_path)) == 1
    assert rows_of(tmp_path) == []
    write(tmp_path, [a_row(1)])
    assert partials(tmp_path) == []
    assert len(rows_of(tmp_path)) == 1


def test_what_a_living_writer_is_writing_is_left_alone(tmp_path):
    with start_writer(tmp_path, "alive") as process:
        assert process.stdout.readline() == b"writing\n"
        LogWriter(tmp_path, POINT, ())
        write(tmp_path, [a_row(1)])
        assert len(partials(tmp_path)) == 1
        process.communicate(timeout=60)
    assert process.returncode == 0
    assert [row["decision_id"] for row in rows_of(tmp_path)] == ["d0", "d1"]


def test_a_file_whose_writing_fails_leaves_nothing(tmp_path):
    def torn():
        with whole(tmp_path / "part-1.parquet") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        torn()
    assert list(tmp_path.iterdir()) == []


def test_the_date_is_that_of_utc_in_every_year(tmp_path):
    write(tmp_path, [a_row(0, ts=datetime(12, 1, 1, tzinfo=UTC))])
    (path,) = files(tmp_path)
    assert path.parent.name == "date=0012-01-01"


# --- which files count


def a_table(tmp_path):
    write(tmp_path / "made", [a_row(0)])
    return pq.read_table(files(tmp_path / "made")[0], partitioning=None)


def test_a_file_that_a_present_one_replaces_does_not_count_and_comes_back_without_it(tmp_path):
    table, folder = a_table(tmp_path), tmp_path / "date=2013-06-01"
    for name, replaces in (("part-a", []), ("part-b", []), ("compact-1", ["part-a.parquet"])):
        write_whole(table, folder / f"{name}.parquet", replaces=replaces)
    assert [path.stem for path in present_files(folder)] == ["compact-1", "part-b"]
    write_whole(table, folder / "compact-2.parquet", replaces=["compact-1.parquet", "part-b.parquet"])
    # The first is not read any more, and still stands for what it replaced until it is deleted.
    assert [path.stem for path in present_files(folder)] == ["compact-2"]
    (folder / "compact-2.parquet").unlink()
    assert [path.stem for path in present_files(folder)] == ["compact-1", "part-b"]


def test_only_a_compacted_file_is_opened_to_find_out(tmp_path):
    folder = tmp_path / "date=2013-06-01"
    folder.mkdir()
    (folder / "part-a.parquet").write_bytes(b"torn")
    assert [path.stem for path in present_files(folder)] == ["part-a"]
    (folder / "compact-1.parquet").write_bytes(b"torn")
    with pytest.raises(UnavailableError, match=r"compact-1\.parquet: could not be read"):
        present_files(folder)


def test_a_folder_that_is_not_there_has_no_files(tmp_path):
    assert present_files(tmp_path / "nowhere") == []
