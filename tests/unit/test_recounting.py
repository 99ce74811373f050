"""Logs that are counted again give the evidence that was stored, and where they do not it is said why."""

import json
import shutil
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from builders import DAY, HOUR, POINT, T0, World
from log_builders import a_label, a_row, write

from seatrial.adapters import log_erasure
from seatrial.adapters.clock import ReplayClock
from seatrial.adapters.counted import CountedLogs
from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.log_files import present_files
from seatrial.adapters.log_keeping import compact, expire, partitions
from seatrial.cli import main
from seatrial.control.judging import scope_of
from seatrial.control.recounting import EXAMPLES, Match, parts_of, verify
from seatrial.errors import NotFoundError, TamperedError, UnavailableError
from seatrial.evidence import Arm, Cell, Epoch, Evidence, Tally
from seatrial.ledger import Record
from seatrial.ports import Commit
from seatrial.rollout import State
from seatrial.wiring import open_plant

HOURS = range(26, 130)
ASKED_AT = T0 + 9 * DAY
NOW = T0 + 12 * DAY


class Trial:
    """A rollout that was asked about on real logs, at the deadline of its shadow."""

    def __init__(self, folder, root, store=None):
        self.root = root
        self.whole = ParquetLogs(root)
        self.incremental = CountedLogs(self.whole, folder / "counted", small_bytes=0)
        self.world = World(folder / "files", store)
        self.rollout, _ = self.world.advance_to(State.SHADOW)
        self.world.ports = replace(self.world.ports, evidence=self.incremental)
        for day in range(6):
            hours = [hour for hour in HOURS if hour // 24 == day]
            write(
                root, [self.row(hour) for hour in hours], [a_label(hour, value=float(hour % 9 == 0)) for hour in hours]
            )
        assert self.world.step(self.rollout, ASKED_AT).rollout.state is State.AWAITING_DECISION

    def row(self, hour, **changes):
        arm = "challenger" if hour % 3 == 0 else "champion"
        release = {"champion": self.rollout.champion, "challenger": self.rollout.challenger}[arm]
        known = {"rollout_id": self.rollout.id, "release_id": release, "arm": arm, "share": 0.25}
        return a_row(hour, **{**known, **changes})

    def verify(self, **changes):
        ports = replace(self.world.ports, **changes)
        return verify(ports, self.whole, self.rollout.id, now=NOW)

    @property
    def store(self):
        return self.world.store

    def partition(self, kind, date):
        (found,) = [each for each in partitions(self.root, POINT) if (each.kind, each.date) == (kind, date)]
        return found

    def change(self, kind, value_of, date="2013-06-03"):
        """Change the first row of a day in its file to `value_of(row)`."""
        path, *_ = present_files(self.partition(kind, date).folder)
        table = pq.ParquetFile(path).read()
        rows = table.to_pylist()
        rows[0] |= value_of(rows[0])
        pq.write_table(pa.Table.from_pylist(rows, table.schema), path)

    def change_label(self):
        self.change("labels", lambda row: {"value": 1.0 - row["value"]})


@pytest.fixture
def trial(tmp_path):
    return Trial(tmp_path, tmp_path / "logs")


def only(found):
    (look,) = found.looks
    return look


def test_logs_that_nobody_touched_are_counted_the_same_then_and_now_and_in_both_ways(trial):
    found = trial.verify()
    look = only(found)
    assert (look.match, look.target.at, look.parts) == (Match.SAME, ASKED_AT, ())
    assert look.digest == look.target.digest == trial.store.rollout(trial.rollout.id).evidence_digest
    assert (found.present.match, found.worst) == (Match.SAME, Match.SAME)
    assert trial.whole.look(*scope(trial), now=ASKED_AT).rows == len(HOURS)


def scope(trial):
    return trial.store.plan(trial.rollout.plan_id), scope_of(trial.rollout)


def test_what_came_in_for_later_times_changes_nothing_about_the_past(trial):
    later = (ASKED_AT - T0) // HOUR
    write(trial.root, [trial.row(later + 1)], [a_label(later + 1)])
    assert trial.verify().worst is Match.SAME


def test_compacted_logs_are_counted_the_same(trial):
    write(trial.root, [], [a_label(30, arrived_at=T0 + 11 * DAY, decision_id="of nobody")])
    for each in partitions(trial.root, POINT):
        compact(each)
    assert trial.verify().worst is Match.SAME


def test_a_label_that_was_changed_is_found_with_the_counts_that_differ(trial):
    trial.change_label()
    found = trial.verify()
    look = only(found)
    assert (look.match, found.worst) == (Match.UNEXPLAINED, Match.UNEXPLAINED)
    assert "labels/2013-06-03" in look.reasons[0]
    assert "none came in" in look.reasons[0]
    (cells,) = [part for part in look.parts if part.name == "cells"]
    assert any("guardrail wrong-decision" in each.what for each in cells.examples)
    assert all("bad" in each.recorded and each.recorded != each.found for each in cells.examples)
    assert found.present.match is Match.SAME


def test_a_label_that_was_moved_to_nobody_is_not_taken_for_rows_that_came(trial):
    trial.change("labels", lambda _: {"decision_id": "of nobody"})
    assert only(trial.verify()).match is Match.UNEXPLAINED


def test_rows_that_came_late_explain_what_differs(trial):
    write(trial.root, [trial.row(140)], [a_label(140)])
    look = only(trial.verify())
    assert look.match is Match.EXPLAINED
    assert "rows came in after the look" in look.reasons[0]
    assert "decisions/2013-06-06" in look.reasons[0]
    assert [(part.examples[0].recorded, part.examples[0].found) for part in look.parts if part.name == "rows"] == [
        (str(len(HOURS)), str(len(HOURS) + 1))
    ]


def test_a_label_that_came_late_for_a_unit_that_had_one_is_a_row_that_came(trial):
    write(trial.root, [], [a_label(30, value=1.0, arrived_at=T0 + 50 * HOUR)])
    assert only(trial.verify()).match is Match.EXPLAINED


def test_a_day_that_retention_deleted_explains_what_differs_and_is_named(trial):
    expire(trial.partition("labels", "2013-06-03"), trial.store.append, now=NOW, actor="platform", age=DAY)
    found = trial.verify()
    look = only(found)
    assert (look.match, found.worst) == (Match.EXPLAINED, Match.EXPLAINED)
    assert "labels/2013-06-03: deleted on 2013-06-13 by platform" in look.reasons[0]


def test_logs_that_are_all_deleted_are_explained_with_the_first_days_named(trial):
    for each in partitions(trial.root, POINT):
        expire(each, trial.store.append, now=NOW, actor="platform", age=DAY)
    look = only(trial.verify())
    assert look.match is Match.EXPLAINED
    assert len(look.reasons) == EXAMPLES + 1
    assert look.reasons[-1].startswith("and ")


def test_a_day_that_is_gone_without_a_record_is_not_explained(trial):
    shutil.rmtree(trial.partition("labels", "2013-06-03").folder)
    expire(trial.partition("labels", "2013-06-04"), trial.store.append, now=NOW, actor="platform", age=DAY)
    look = only(trial.verify())
    assert look.match is Match.UNEXPLAINED
    assert look.reasons == ("labels/2013-06-03: gone, and the ledger has no record of it",)


def test_a_day_that_was_deleted_before_the_look_explains_nothing(trial):
    expire(trial.partition("labels", "2013-06-03"), trial.store.append, now=T0, actor="platform", age=DAY)
    assert only(trial.verify()).match is Match.UNEXPLAINED


@pytest.mark.parametrize(("attributes", "match"), [(False, Match.SAME), (True, Match.EXPLAINED)])
def test_an_erasure_is_seen_only_in_slices_whose_attributes_were_blanked(trial, attributes, match):
    request = log_erasure.Request("u30", "request 12", "privacy", attributes)
    log_erasure.erase(trial.root, request, trial.store.append, salt=bytes(32), now=NOW)
    look = only(trial.verify())
    assert look.match is match
    assert [reason for reason in look.reasons if "attributes of a unit" in reason] == list(look.reasons)


@pytest.mark.parametrize("attributes", [False, True])
def test_an_erasure_explains_nothing_but_slices(trial, attributes):
    request = log_erasure.Request("u30", "request 12", "privacy", attributes)
    log_erasure.erase(trial.root, request, trial.store.append, salt=bytes(32), now=NOW)
    trial.change_label()
    assert only(trial.verify()).match is Match.UNEXPLAINED


@pytest.mark.parametrize(("attributes", "match"), [(False, Match.UNEXPLAINED), (True, Match.EXPLAINED)])
def test_an_erasure_that_left_attributes_does_not_explain_slices_either(trial, attributes, match):
    request = log_erasure.Request("u30", "request 12", "privacy", attributes)
    log_erasure.erase(trial.root, request, trial.store.append, salt=bytes(32), now=NOW)
    trial.change("decisions", lambda _: {"origin": "JFK"})
    assert only(trial.verify()).match is match


class Otherwise:
    """Logs of which one unit more is counted than there is."""

    def __init__(self, below):
        self.below = below

    def look(self, plan, scope, *, now):
        found = self.below.look(plan, scope, now=now)
        return replace(found, rows=found.rows + 1)


def test_the_same_files_that_are_counted_otherwise_are_not_explained(trial):
    found = verify(trial.world.ports, Otherwise(trial.whole), trial.rollout.id, now=NOW)
    look = only(found)
    assert (look.match, look.reasons) == (
        Match.UNEXPLAINED,
        ("the files are those that were read: this version counts them otherwise",),
    )


def test_an_incremental_look_that_is_not_the_whole_one_is_found(trial):
    found = trial.verify(evidence=Otherwise(trial.incremental))
    assert (only(found).match, found.present.match, found.worst) == (Match.SAME, Match.UNEXPLAINED, Match.UNEXPLAINED)
    assert [part.name for part in found.present.parts] == ["rows"]


def growing(trial, times):
    """Return logs into which a row comes after each of so many looks."""

    class Growing:
        left = times

        def look(self, plan, scope, *, now):
            found = trial.incremental.look(plan, scope, now=now)
            if self.left:
                self.left -= 1
                write(trial.root, [trial.row(220 + self.left)])
            return found

    return Growing()


@pytest.mark.parametrize(("times", "match"), [(1, Match.SAME), (3, Match.EXPLAINED)])
def test_rows_that_come_in_between_both_looks_are_no_difference(trial, times, match):
    assert trial.verify(evidence=growing(trial, times)).present.match is match


def test_a_newest_look_that_moved_nothing_is_counted_again_too(trial):
    world = trial.world
    evidence = trial.whole.look(*scope(trial), now=ASKED_AT + HOUR)
    look = replace(world.store.last_look(trial.rollout.id), at=ASKED_AT + HOUR, evidence_digest=evidence.digest)
    world.store.add_look(look)
    world.store.commit(Commit(records=(), evidence=evidence))
    found = trial.verify()
    assert [each.target.number is None for each in found.looks] == [False, True]
    assert found.worst is Match.SAME
    write(trial.root, [trial.row(140)])
    newest = trial.verify().looks[-1]
    assert (newest.match, newest.reasons) == (
        Match.EXPLAINED,
        ("rows came in after the look; what was read then is not kept",),
    )
    expire(trial.partition("labels", "2013-06-03"), trial.store.append, now=NOW, actor="platform", age=DAY)
    assert "deleted on" in trial.verify().looks[-1].reasons[0]


def test_a_quarantine_that_was_deleted_explains_nothing(trial):
    newest = replace(trial.store.last_look(trial.rollout.id), at=ASKED_AT + HOUR)
    trial.store.add_look(newest)
    body = {"log": "quarantine", "date": "2013-06-03"}
    trial.store.append([Record(NOW, "logs.expired", "platform", POINT, None, "quarantine", body)])
    trial.change_label()
    assert [look.match for look in trial.verify().looks] == [Match.UNEXPLAINED, Match.UNEXPLAINED]


def broken(store, **answers):
    class Broken:
        def __getattr__(self, name):
            return answers.get(name) or getattr(store, name)

    return Broken()


def test_evidence_that_is_missing_or_changed_is_an_error_that_says_what_the_logs_give(trial):
    def missing(_):
        raise NotFoundError("not stored")

    look = only(trial.verify(store=broken(trial.store, evidence=missing)))
    assert (look.match, look.reasons) == (Match.ERROR, ("not stored", "the logs still give its digest"))
    trial.change_label()

    def changed(digest):
        return {**trial.store.evidence(digest), "crossed": 1}

    look = only(trial.verify(store=broken(trial.store, evidence=changed)))
    assert look.match is Match.ERROR
    assert look.reasons[1] == "the logs give another one"


def test_a_decision_on_logs_that_could_not_be_read_is_not_counted_and_not_hidden(tmp_path):
    world = World(tmp_path / "files")
    rollout, now = world.advance_to(State.SHADOW)
    world.evidence.says = UnavailableError("down")
    world.step(rollout, now + 8 * DAY)
    logs = ParquetLogs(tmp_path)
    found = verify(replace(world.ports, evidence=logs), logs, rollout.id, now=NOW)
    assert (only(found).match, only(found).digest, found.worst) == (Match.NOT_COUNTED, None, Match.NOT_COUNTED)


def test_each_look_is_counted_only_when_its_progress_is_told(trial):
    told = []

    def progress(targets):
        for target in targets:
            told.append(f"{target.what} of {len(targets)}")
            yield target

    verify(trial.world.ports, trial.whole, trial.rollout.id, now=NOW, progress=progress)
    assert told == ["shadow to awaiting decision of 1"]


def test_logs_that_cannot_be_read_now_are_no_difference(trial):
    def look(*_, **__):
        raise UnavailableError("down")

    with pytest.raises(UnavailableError):
        verify(trial.world.ports, broken(trial.whole, look=look), trial.rollout.id, now=NOW)


def test_a_broken_chain_is_found_first(trial):
    entries = list(trial.store.entries())
    entries[3] = replace(entries[3], record=replace(entries[3].record, actor="nobody"))
    with pytest.raises(TamperedError, match="ledger entry 4"):
        trial.verify(store=broken(trial.store, entries=lambda: entries))


def test_each_part_that_differs_is_shown_by_name_with_a_few_examples():
    cells = {Cell("late", "origin", f"A{n}", 2, Arm.CHALLENGER): Tally(5, 1) for n in range(5)}
    one = Evidence(newest=T0, epochs={2: Epoch(0.05, 2)}, cells=cells, assigned={(2, Arm.CHAMPION): 7})
    other = Evidence(
        newest=T0, epochs={2: Epoch(0.2, 2)}, cells={cell: Tally(5, 2) for cell in cells}, set_aside={"bad": 1}
    )
    parts = {part.name: part for part in parts_of(one, other)}
    assert list(parts) == ["epochs", "cells", "assigned", "set_aside"]
    assert (parts["cells"].differing, len(parts["cells"].examples)) == (5, EXAMPLES)
    shown = {name: (each.what, each.recorded, each.found) for name, part in parts.items() for each in part.examples[:1]}
    assert shown == {
        "epochs": ("2", "share 0.05", "share 0.2"),
        "cells": (
            "guardrail late, slice_column origin, slice_value A0, snapshot_no 2, arm challenger",
            "bad 1",
            "bad 2",
        ),
        "assigned": ("2, champion", "7", "absent"),
        "set_aside": ("bad", "absent", "1"),
    }


# -- the command


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """A trial in the database of a settings file, and the command on it."""
    for name in ("SEATRIAL_DATABASE_URL", "COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    settings = {"logs": "logs", "replay_clock": "event-time", "approvers": {"dana": ["risk-owner"]}}
    (tmp_path / "seatrial.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("SEATRIAL_SETTINGS", str(tmp_path / "seatrial.yaml"))
    ReplayClock(tmp_path / "event-time").advance(NOW)
    plant = open_plant(tmp_path / "seatrial.yaml", {})

    def call(*words):
        capsys.readouterr()
        code = main(["evidence", "verify", *words])
        out, err = capsys.readouterr()
        return code, out, err

    yield Trial(tmp_path, plant.logs, plant.store), call
    plant.store.close()


def test_the_command_ends_with_0_when_everything_is_counted_the_same(command):
    trial, call = command
    code, out, err = call(trial.rollout.id[:6])
    assert (code, err) == (0, "")
    assert "1 of 1 looks are the same" in out
    document = json.loads(call(trial.rollout.id, "--json")[1])
    assert (document["result"], document["present"]["result"]) == ("same", "same")
    assert document["looks"][0]["digest"] == document["looks"][0]["recounted_digest"]


def test_the_command_ends_with_5_and_shows_the_counts_when_nothing_explains_them(command):
    trial, call = command
    trial.change_label()
    code, out, _ = call(trial.rollout.id)
    assert code == 5
    assert "UNEXPLAINED" in out
    assert "counts that are different: cells 2" in out
    assert "recounted: bad" in out
    code, out, _ = call(trial.rollout.id, "--json")
    (look,) = json.loads(out)["looks"]
    assert (code, look["result"]) == (5, "unexplained")
    assert "cells" in {part["part"] for part in look["parts"]}


def test_the_command_ends_with_1_when_it_can_no_longer_be_verified(command):
    trial, call = command
    expire(trial.partition("labels", "2013-06-03"), trial.store.append, now=NOW, actor="platform", age=DAY)
    code, out, _ = call(trial.rollout.id)
    assert code == 1
    assert "not verifiable" in out
    assert "recounted: " not in out


@pytest.mark.parametrize(
    ("command_", "example"), [("verify", "seatrial evidence verify"), ("labels", "seatrial evidence labels")]
)
def test_the_command_has_help_with_an_example(command_, example, capsys):
    assert main(["evidence", command_, "--help"]) == 0
    assert f"Example: {example}" in " ".join(capsys.readouterr().out.split())


def test_a_record_of_another_decision_point_explains_nothing(trial):
    body = {"log": "labels", "date": "2013-06-03"}
    trial.store.append([Record(NOW, "logs.expired", "platform", "another", None, "another", body)])
    shutil.rmtree(trial.partition("labels", "2013-06-03").folder)
    assert only(trial.verify()).match is Match.UNEXPLAINED


def test_labels_are_counted_by_how_they_came_and_those_of_nobody_as_well(command, capsys):
    trial, _ = command
    again, against = a_label(30, value=0.0), a_label(30, value=1.0)
    write(trial.root, [], [again, against, a_label(31, decision_id="of nobody")])
    capsys.readouterr()
    assert main(["evidence", "labels", trial.rollout.id, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["orphans"] == {"late": 1}
    assert sum(row["repeated"] for row in found["labels"]) == 1
    assert sum(row["contradictory"] for row in found["labels"]) == 1
    assert sum(row["labelled"] for row in found["labels"]) == len(HOURS)
    assert main(["evidence", "labels", trial.rollout.id]) == 0
    out = capsys.readouterr().out
    assert "late: 1 labels belong to no decision in the log" in out
    assert "the last arrival counts" in out
