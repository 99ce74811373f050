"""A look that goes on from the last one gives what counting everything anew gives."""

import fcntl
import json
from dataclasses import fields
from datetime import timedelta

import numpy as np
import pyarrow.parquet as pq
import pytest
from builders import HOUR, T0, a_plan
from counting_logs import DECLARED, SCOPE, Logs, random_logs, random_reference, snapshots_begin, write

from seatrial.adapters.counted import CountedLogs, forget
from seatrial.adapters.counting import Looker
from seatrial.adapters.duckdb import ParquetLogs
from seatrial.errors import UnavailableError
from seatrial.evidence import Evidence

#: Without sums over a time, which are counted anew at every look.
PLAN = a_plan(**{**DECLARED, "guardrails": [g for g in DECLARED["guardrails"] if "window" not in g.get("mean", {})]})


@pytest.fixture
def anew(monkeypatch):
    """Return a list to which every count of everything adds an entry."""
    calls = []
    original = Looker.counted

    def counting(self, frozen):
        calls.append(self.now)
        return original(self, frozen)

    monkeypatch.setattr(Looker, "counted", counting)
    return calls


def assert_same(found: Evidence, expected: Evidence) -> None:
    for field in (each for each in fields(Evidence) if each.compare):
        assert getattr(found, field.name) == getattr(expected, field.name), field.name
    assert found.digest == expected.digest


def sticky(logs, *, shadow=False):
    """Return the logs without what sends a look back to the start: units in both arms, and copies."""
    arms = {}
    kept = []
    for row in sorted(logs.decisions, key=lambda row: row["ts"]):
        if row["arm"] == "shadow":
            if shadow:
                kept.append(row)
            continue
        kept.append({**row, "arm": arms.setdefault(row["unit_key"], row["arm"])})
    return Logs(kept, logs.labels)


def looks(root, memory, logs, hours, plan=PLAN):
    """Write what each hour adds to the logs, and look both ways."""
    before = T0 - timedelta(days=30)
    for hour in hours:
        now = T0 + hour * HOUR
        part = Logs(
            [row for row in logs.decisions if before < row["ts"] <= now],
            [row for row in logs.labels if before < row["arrived_at"] <= now],
        )
        write(root, part)
        before = now
        found = CountedLogs(ParquetLogs(root), memory, small_bytes=0).look(plan, SCOPE, now=now)
        yield found, ParquetLogs(root).look(plan, SCOPE, now=now)


@pytest.mark.parametrize("seed", range(4))
def test_going_on_gives_what_counting_anew_gives(tmp_path, anew, seed):
    rng = np.random.default_rng(seed)
    logs = random_reference(rng, 60) + sticky(random_logs(rng, range(150))) + snapshots_begin()
    hours = [1, 9, 20, 21, 36, 37, 50, 72, 80, 120]
    for found, expected in looks(tmp_path / "logs", tmp_path / "memory", logs, hours):
        assert_same(found, expected)
    # The other way counts everything at every look, and this one only at its first.
    assert len(anew) == len(hours) + 1


def both_ways(tmp_path, hours):
    now = T0 + hours * HOUR
    root = tmp_path / "logs"
    found = CountedLogs(ParquetLogs(root), tmp_path / "memory", small_bytes=0).look(PLAN, SCOPE, now=now)
    assert_same(found, ParquetLogs(root).look(PLAN, SCOPE, now=now))
    return found


def some_logs(units=60):
    rng = np.random.default_rng(3)
    return random_reference(rng, 60) + sticky(random_logs(rng, range(units))) + snapshots_begin()


def test_rows_that_were_written_before_their_time_are_counted_when_it_has_come(tmp_path, anew):
    write(tmp_path / "logs", some_logs())
    for hours in (5, 30, 60, 90):
        both_ways(tmp_path, hours)
    assert len(anew) == 4 + 1


def test_a_look_at_the_same_moment_changes_nothing(tmp_path):
    write(tmp_path / "logs", some_logs())
    assert both_ways(tmp_path, 40).digest == both_ways(tmp_path, 40).digest


def begun(tmp_path, anew):
    """Look once at half of the time, and return the logs."""
    logs = some_logs()
    write(tmp_path / "logs", logs)
    both_ways(tmp_path, 40)
    anew.clear()
    return logs


def test_a_decision_that_turns_up_before_the_first_one_of_its_unit_is_counted_instead(tmp_path, anew):
    logs = begun(tmp_path, anew)
    first = min((row for row in logs.decisions if 0 < row["share"] < 1), key=lambda row: row["ts"])
    write(tmp_path / "logs", Logs([{**first, "decision_id": "late", "ts": first["ts"] - timedelta(seconds=1)}], []))
    both_ways(tmp_path, 50)
    assert len(anew) == 2


def test_a_unit_that_turns_up_in_both_arms_is_counted(tmp_path, anew):
    logs = begun(tmp_path, anew)
    first = min((row for row in logs.decisions if 0 < row["share"] < 1), key=lambda row: row["ts"])
    other = {"champion": "challenger", "challenger": "champion"}[first["arm"]]
    crossing = {**first, "decision_id": "crossing", "arm": other, "ts": T0 + 41 * HOUR}
    write(tmp_path / "logs", Logs([crossing], []))
    assert both_ways(tmp_path, 50).crossed == 1
    assert len(anew) == 2


def test_a_copy_in_shadow_is_counted(tmp_path, anew):
    logs = begun(tmp_path, anew)
    row = next(row for row in logs.decisions if row["rollout_id"] == "r1" and row["ts"] > T0)
    write(tmp_path / "logs", Logs([{**row, "arm": "shadow", "release_id": "challenger"}], []))
    assert both_ways(tmp_path, 50).shadow.units == 1
    assert len(anew) == 2


@pytest.mark.parametrize("harm", ["cut off", "of another version", "without a part"])
def test_a_memory_that_cannot_be_read_is_made_again(tmp_path, anew, harm):
    begun(tmp_path, anew)
    (state,) = (tmp_path / "memory").glob("*/state.json")
    if harm == "cut off":
        state.write_text(state.read_text()[:-100])
    elif harm == "of another version":
        state.write_text(state.read_text().replace('"version": "2', '"version": "1'))
    else:
        next(state.parent.glob("firsts-*.parquet")).unlink()
    both_ways(tmp_path, 50)
    assert len(anew) == 2
    both_ways(tmp_path, 60)
    assert len(anew) == 3


def test_a_file_that_was_rewritten_under_its_name_is_read_again(tmp_path, anew):
    begun(tmp_path, anew)
    file = next((tmp_path / "logs" / "decisions").glob("*/*/*.parquet"))
    pq.write_table(pq.ParquetFile(file).read().slice(1), file)
    both_ways(tmp_path, 50)
    assert len(anew) == 2


def test_whoever_looks_while_another_one_does_counts_anew_and_remembers_nothing(tmp_path, anew):
    begun(tmp_path, anew)
    (state,) = (tmp_path / "memory").glob("*/state.json")
    before = state.read_bytes()
    with (state.parent / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        both_ways(tmp_path, 50)
    assert state.read_bytes() == before
    assert len(anew) == 2


def test_parts_that_nothing_names_are_deleted(tmp_path, anew):
    begun(tmp_path, anew)
    (state,) = (tmp_path / "memory").glob("*/state.json")
    (state.parent / "units-of-a-look-that-was-killed.parquet").write_bytes(b"half")
    both_ways(tmp_path, 50)
    named = {name for names in json.loads(state.read_text())["parts"].values() for name in names}
    assert {file.name for file in state.parent.glob("*.parquet")} == named


def test_a_label_in_the_folder_of_another_date_is_counted_when_it_has_arrived(tmp_path, anew):
    logs = some_logs()
    write(tmp_path / "logs", logs)
    folders = sorted((tmp_path / "logs" / "labels").glob("*/date=2013*"))
    for at, file in enumerate(sorted(file for folder in folders for file in folder.iterdir())):
        file.rename(folders[0] / f"part-moved-{at}.parquet")
    for hours in (5, 30, 60, 90):
        both_ways(tmp_path, hours)
    assert len(anew) == 4 + 1


@pytest.mark.parametrize("small_bytes", [0, 1 << 40])
def test_a_file_that_goes_while_it_is_read_is_an_error_that_may_be_tried_again(tmp_path, monkeypatch, small_bytes):
    write(tmp_path / "logs", some_logs())

    def gone(path):
        raise FileNotFoundError(path)

    monkeypatch.setattr("seatrial.adapters.duckdb.digest_file", gone)
    logs = CountedLogs(ParquetLogs(tmp_path / "logs"), tmp_path / "memory", small_bytes=small_bytes)
    with pytest.raises(UnavailableError, match="could not be read"):
        logs.look(PLAN, SCOPE, now=T0 + 40 * HOUR)


def test_what_a_killed_look_began_is_written_again_and_never_read(tmp_path, anew):
    begun(tmp_path, anew)
    (state,) = (tmp_path / "memory").glob("*/state.json")
    generation = json.loads(state.read_text())["generation"]
    for kind in ("units", "firsts"):
        (state.parent / f"{kind}-{generation + 1}.parquet").write_bytes(b"half")
    for hours in (50, 60):
        both_ways(tmp_path, hours)
    assert len(anew) == 2


def test_what_cannot_be_forgotten_is_said(tmp_path, monkeypatch):
    (tmp_path / "memory").mkdir()

    def refused(path):
        raise PermissionError(path)

    monkeypatch.setattr("seatrial.adapters.counted.shutil.rmtree", refused)
    with pytest.raises(PermissionError):
        forget(tmp_path / "memory")
    forget(tmp_path / "never was")


def test_a_look_at_an_earlier_moment_counts_anew(tmp_path, anew):
    begun(tmp_path, anew)
    both_ways(tmp_path, 20)
    assert len(anew) == 2
