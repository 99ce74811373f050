import os
from dataclasses import replace
from datetime import timedelta, timezone

import pyarrow.parquet as pq
import pytest
from builders import DAY, HOUR, POINT, T0, World, a_plan
from log_builders import a_label, a_row
from log_builders import files as all_files
from log_builders import write as written

from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.log_intake import Flushed
from seatrial.adapters.logs import LogWriter
from seatrial.control.watching import watch
from seatrial.errors import InvalidDocumentError, UnavailableError
from seatrial.evidence import Arm, Evidence, Tally
from seatrial.gates.finding import Question
from seatrial.ports import Scope
from seatrial.rollout import State
from seatrial.verdict import Verdict

SCOPE = Scope(POINT, "r1", "champion", "challenger", T0)
NOW = T0 + 2 * DAY


@pytest.fixture
def logs(tmp_path):
    return ParquetLogs(tmp_path)


def write(logs, rows=(), labels=()):
    return written(logs.root, rows, labels)


def look(logs, **changes):
    return logs.look(a_plan(), replace(SCOPE, **changes), now=NOW)


def units(evidence):
    return evidence.series("wrong-decision").total("units")


def files(logs, kind="decisions"):
    return all_files(logs.root, kind)


def test_no_file_is_evidence_of_nothing(logs):
    assert look(logs) == Evidence()


def test_a_log_of_another_decision_point_or_rollout_is_none_of_this_one(logs):
    write(logs, [a_row()])
    assert look(logs, decision_point="elsewhere") == Evidence()
    other = look(logs, rollout_id="r2")
    assert (other.newest, dict(other.cells)) == (T0, {})


def test_rows_and_labels_are_counted_by_arm(logs):
    rows = [a_row(0), a_row(1, arm="challenger"), a_row(2, arm="challenger", action_taken="rebook")]
    assert write(logs, rows, [a_label(0), a_label(1), a_label(2)]) == Flushed(6, 0)
    seen = look(logs)
    assert units(seen) == (2, 1)
    assert seen.series("wrong-decision").total("bad") == (1, 1)
    assert dict(seen.assigned) == {(2, Arm.CHALLENGER): 2, (2, Arm.CHAMPION): 1}


def test_decisions_without_any_label_file_are_unlabelled_and_not_good(logs):
    write(logs, [a_row(n, arm="challenger") for n in range(5)])
    series = look(logs).series("wrong-decision")
    assert (series.total("matured")[0], series.total("labelled")[0]) == (5, 0)


def test_half_a_file_is_not_seen(logs):
    write(logs, [a_row(0)])
    (whole,) = files(logs)
    torn = whole.with_name(f".{whole.name}.1.partial")
    torn.write_bytes(whole.read_bytes()[:100])
    assert units(look(logs)) == (0, 1)
    whole.rename(torn)
    assert look(logs) == Evidence()


@pytest.mark.parametrize("damage", ["cut", "text", "empty", "other columns"])
@pytest.mark.parametrize("kind", ["decisions", "labels"])
def test_a_file_that_cannot_be_read_counts_nothing_and_says_so(logs, kind, damage):
    write(logs, [a_row(n) for n in range(3)], [a_label(n) for n in range(3)])
    (path,) = files(logs, kind)
    if damage == "other columns":
        for each in files(logs, kind):
            table = pq.read_table(each, partitioning=None)
            pq.write_table(table.drop_columns(["decision_id"]), each)
    else:
        path.write_bytes({"cut": path.read_bytes()[:-10], "text": b"not parquet", "empty": b""}[damage])
    with pytest.raises(UnavailableError, match="could not be read"):
        look(logs)


def test_a_snapshot_with_several_shares_or_stages_is_not_judged(logs):
    for changed in ({"share": 0.2}, {"stage": 3}, {"share": 0.2, "arm": "challenger"}):
        rows = [a_row(0), a_row(1, **changed)]
        root = logs.root / str(len(list(logs.root.iterdir())))
        write(ParquetLogs(root), rows)
        with pytest.raises(UnavailableError, match="snapshot 2: found several shares or stages"):
            look(ParquetLogs(root))


def test_the_same_batch_again_replaces_its_file(logs):
    for _ in range(2):
        write(logs, [a_row(0), a_row(1)], [a_label(0)])
    assert len(files(logs)) == len(files(logs, "labels")) == 1
    assert units(look(logs)) == (0, 2)


def test_batches_that_begin_and_end_alike_are_all_kept(logs):
    write(logs, [a_row(0), a_row(1), a_row(3)], [a_label(0, name="late")])
    write(logs, [a_row(0), a_row(2), a_row(3)], [a_label(0, name="refund")])
    assert units(look(logs)) == (0, 4)
    assert len(files(logs, "labels")) == 2


def test_a_row_lies_under_its_date_in_utc_whatever_its_zone(logs):
    new_york = timezone(timedelta(hours=-4))
    write(logs, [a_row(0, ts=T0.astimezone(new_york))])
    (path,) = files(logs)
    assert path.parent.name == "date=2013-06-01"
    assert units(look(logs)) == (0, 1)


def test_rows_from_before_the_rollout_do_not_count(logs):
    write(logs, [a_row(0), a_row(-1), a_row(-48)])
    assert units(look(logs)) == (0, 1)
    assert units(look(logs, since=T0 - HOUR)) == (0, 2)


def test_a_column_that_the_log_does_not_have_is_refused_at_the_door_and_the_rest_is_written(logs):
    writer = LogWriter(logs.root, POINT, ("origin",))
    writer.decision(a_row(0))
    with pytest.raises(InvalidDocumentError, match=r"decisions log, column colour(?s:.*)column size"):
        writer.decision(a_row(1, colour="red", size=1))
    with pytest.raises(InvalidDocumentError, match="labels log, column weight"):
        writer.label(a_label(0, weight=2.0))
    assert writer.flush() == Flushed(1, 0)


@pytest.mark.parametrize("name", ["score", "date", "batch"])
def test_attributes_may_not_take_the_names_of_the_log(tmp_path, name):
    with pytest.raises(ValueError, match=name):
        LogWriter(tmp_path, POINT, ("origin", name))


def test_an_attribute_that_came_later_is_missing_in_older_files_and_not_an_error(logs):
    write(logs, [a_row(0)])
    writer = LogWriter(logs.root, POINT, ("origin", "carrier"))
    writer.decision(a_row(1, carrier="UA"))
    writer.flush()
    assert units(look(logs)) == (0, 2)


def test_no_partial_file_is_left_behind(logs):
    write(logs, [a_row(0)], [a_label(0)])
    assert [path for path in logs.root.rglob("*") if ".partial" in path.name] == []
    assert all(os.access(path, os.R_OK) for path in files(logs))


def test_a_log_that_breaks_in_a_canary_ends_with_the_champion_and_never_with_more_share(tmp_path):
    world = World(tmp_path / "files")
    rollout, now = world.advance_to(State.CANARY)
    world.router.refresh(now=now)
    broken = tmp_path / "logs" / "decisions" / f"decision_point={POINT}" / "date=2013-06-03"
    broken.mkdir(parents=True)
    (broken / "part-1.parquet").write_bytes(b"torn")
    world.ports = replace(world.ports, evidence=ParquetLogs(tmp_path / "logs"))
    for hours in range(0, 40, 4):
        (watched,) = watch(world.ports, now=now + hours * HOUR)
        assert watched.rollout.state is State.CANARY
    (finding,) = world.store.looks(rollout.id)[-1].findings
    assert (finding.question, finding.verdict) == (Question.FRESHNESS, Verdict.ERROR)
    assert {world.router.assign(f"u{n}", {}, now=now + 13 * HOUR).release_id for n in range(200)} == {world.champion}


def test_tallies_of_a_unit_that_is_not_yet_mature_count_it_once(logs):
    write(logs, [a_row(47, arm="challenger")], [a_label(47, arrived_at=NOW)])
    (tally,) = [t for cell, t in look(logs).cells.items() if cell[:2] == ("wrong-decision", None)]
    assert tally == Tally(1, 1)


WINDOW = timedelta(hours=36)
INSTANT = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("age", "tally"),
    [
        (WINDOW - INSTANT, Tally(1, 0, 0, 0, 0)),
        (WINDOW, Tally(1, 0, 1, 0, 0)),
        (WINDOW + INSTANT, Tally(1, 0, 1, 0, 0)),
    ],
)
def test_a_unit_matures_exactly_when_its_window_closes(logs, age, tally):
    write(logs, [a_row(0, ts=NOW - age)])
    assert only_tally(logs) == tally


def only_tally(logs):
    (tally,) = [t for cell, t in look(logs).cells.items() if cell[:2] == ("wrong-decision", None)]
    return tally


@pytest.mark.parametrize(
    ("delay", "tally"),
    [
        (WINDOW, Tally(1, 1, 1, 1, 1)),
        (WINDOW + INSTANT, Tally(1, 1, 1, 0, 0)),
        (2 * DAY + INSTANT, Tally(1, 0, 1, 0, 0)),
    ],
)
def test_a_label_counts_within_the_window_later_for_harm_alone_and_not_before_it_is_there(logs, delay, tally):
    write(logs, [a_row(0)], [a_label(0, arrived_at=T0 + delay)])
    assert only_tally(logs) == tally


@pytest.mark.parametrize(
    ("first", "last", "tally"), [(1.0, 0.0, Tally(1, 0, 1, 0, 1, good=1)), (0.0, 1.0, Tally(1, 1, 1, 1, 1))]
)
def test_of_two_labels_the_last_to_arrive_wins(logs, first, last, tally):
    write(logs, [a_row(0)], [a_label(0, value=last, arrived_at=T0 + 2 * HOUR), a_label(0, value=first)])
    assert only_tally(logs) == tally


def test_a_label_that_was_corrected_after_the_window_keeps_what_the_window_saw(logs):
    write(logs, [a_row(0)], [a_label(0, value=0.0), a_label(0, value=1.0, arrived_at=T0 + WINDOW + INSTANT)])
    assert only_tally(logs) == Tally(1, 1, 1, 0, 1)
