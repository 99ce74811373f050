import json
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml
from builders import DAY, POINT, T0, a_plan, a_rollout
from log_builders import ClockAt, a_label, a_row, files, rows_of, write

from seatrial.adapters.clock import ReplayClock
from seatrial.adapters.counted import MEMORY
from seatrial.adapters.log_keeping import keeping
from seatrial.adapters.log_tables import SqlLogWriter
from seatrial.cli import main
from seatrial.cli.logs import COMMANDS
from seatrial.ledger import verify
from seatrial.ports import Commit
from seatrial.rollout import State
from seatrial.wiring import open_plant

ROOT = Path(__file__).parents[2]
NOW = T0 + 500 * DAY
KEY = "card-4711"


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("SEATRIAL_DATABASE_URL", "COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    settings = {"logs": "logs", "replay_clock": "event-time", "approvers": {"dana": ["risk-owner"]}}
    (tmp_path / "seatrial.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("SEATRIAL_SETTINGS", str(tmp_path / "seatrial.yaml"))
    ReplayClock(tmp_path / "event-time").advance(NOW)
    return tmp_path


@pytest.fixture
def logs(home):
    root = home / "logs"
    for day in range(3):
        for batch in range(2):
            at = 24 * day + batch
            write(root, [a_row(at, unit_key=KEY if batch else f"u{at}")], [a_label(at)])
    write(root, [a_row(3, share=2.0), a_row(4, arm="?"), a_row(5, share=3.0)], clock=ClockAt(T0))
    return root


@pytest.fixture
def store(home):
    plant = open_plant(home / "seatrial.yaml", {})
    yield plant.store
    plant.store.close()


@pytest.fixture
def run(home, capsys):  # noqa: ARG001 the settings that every command reads
    def call(*words):
        capsys.readouterr()
        code = main(["logs", *map(str, words)])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def told(run, *words):
    code, out, err = run(*words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


@pytest.mark.parametrize("command", [command.__name__ for command, _ in COMMANDS])
def test_every_command_has_help_with_an_example_and_stands_in_the_reference(command, run):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"Example: seatrial logs {command}" in " ".join(out.split())
    assert f"`seatrial logs {command}" in (ROOT / "docs" / "cli.md").read_text()


@pytest.mark.usefixtures("logs")
def test_check_lists_every_day_and_why_rows_were_turned_away(run):
    found = told(run, "check")
    assert found["unfinished_erasures"] == []
    assert len(found["partitions"]) == 7
    first, last = found["partitions"][0], found["partitions"][-1]
    assert (first["log"], first["date"], first["files"], first["rows"]) == ("decisions", "2013-06-01", 2, 2)
    assert first["small_files"] == 2
    assert last["quarantined"] == {"arm.unknown": 1, "share.out_of_range": 2}
    code, out, _ = run("check")
    assert code == 0
    assert "1 arm.unknown, 2 share.out_of_range" in out


def test_check_names_what_cannot_be_read_and_does_not_count_it(run, logs):
    path = files(logs)[0]
    path.write_bytes(b"torn")
    (logs / ".erasing").mkdir()
    (logs / ".erasing" / "abc.jsonl").touch()
    found = told(run, "check")
    assert (found["partitions"][0]["rows"], found["partitions"][0]["unreadable_files"]) == (None, [path.name])
    _, out, _ = run("check")
    assert f"cannot be read: {path.name}" in out
    assert "unfinished erasure abc" in out


def test_check_of_no_log_says_so_and_of_an_unknown_decision_point_is_an_error(run, home):
    assert "no log below" in run("check")[1]
    write(home / "logs", [a_row()])
    for command in ("check", "compact"):
        code, _, err = run(command, "--decision-point", "flight-delai")
        assert code == 3
        assert "did you mean 'flight-delay'?" in err


def test_compact_merges_days_that_are_over_and_leaves_the_others(run, logs, home):
    ReplayClock(home / "event-time").advance(T0 + 3 * DAY)
    before = rows_of(logs)
    done = told(run, "compact", "--decision-point", POINT)
    assert {(each["log"], each["date"]) for each in done["partitions"]} == {
        (log, f"2013-06-0{day}") for log in ("decisions", "labels") for day in (1, 2)
    }
    assert "merged 4 files" in run("compact", "--older-than", "0d")[1]
    assert rows_of(logs) == before
    assert len(files(logs)) == 3


def test_who_rewrites_logs_while_another_does_is_refused(run, logs):
    for words in (("compact",), ("retain", "--older-than", "1d"), ("erase", "--unit", KEY, "--reason", "r")):
        with keeping(logs):
            code, _, err = run(*words)
        assert (code, "another command is rewriting these logs" in err) == (1, True)


def test_retain_shows_what_would_go_and_deletes_nothing_unless_told_to(run, logs, store):
    before = files(logs)
    code, out, _ = run("retain", "--older-than", "400d")
    assert (code, "7 days of logs would go; nothing was deleted" in out) == (0, True)
    assert files(logs) == before
    found = told(run, "retain", "--older-than", "400d", "--yes", "--as", "ada")
    assert (found["is_deleted"], len(found["partitions"])) == (True, 7)
    assert files(logs) == []
    assert {(e.record.kind, e.record.actor) for e in store.entries()} == {("logs.expired", "ada")}
    assert verify(store.entries()) == 7
    assert "nothing is older than 400 d" in run("retain", "--older-than", "400d", "--yes")[1]


@pytest.mark.parametrize(
    ("state", "deadline", "is_kept"),
    [
        (State.CANARY, T0, True),
        (State.SUPERSEDED, None, True),
        (State.CHAMPION, T0, True),
        (State.CHAMPION, None, False),
        (State.ROLLED_BACK, None, False),
        (State.REJECTED, None, False),
    ],
)
@pytest.mark.usefixtures("logs")
def test_retain_keeps_what_an_open_rollout_reads(run, store, state, deadline, is_kept):
    # It reads the champion of the week before, and labels as long as they mature: 36 hours, and ten minutes.
    plan = a_plan()
    created = T0 + DAY + timedelta(days=7, hours=36, minutes=10) - timedelta(microseconds=1)
    store.add_plan(plan, now=T0)
    rollout = a_rollout(state, plan_id=plan.id, created_at=created, deadline=deadline)
    store.commit(Commit((), inserted=rollout))
    gone = {each["date"] for each in told(run, "retain", "--older-than", "400d")["partitions"]}
    assert gone == (set() if is_kept else {"2013-06-01", "2013-06-02", "2013-06-03"})


@pytest.mark.usefixtures("logs")
def test_a_day_before_all_that_an_open_rollout_reads_goes(run, store):
    plan = a_plan()
    store.add_plan(plan, now=T0)
    created = T0 + DAY + timedelta(days=7, hours=36, minutes=10)
    store.commit(Commit((), inserted=a_rollout(plan_id=plan.id, created_at=created)))
    assert {each["date"] for each in told(run, "retain", "--older-than", "400d")["partitions"]} == {"2013-06-01"}


def test_a_rollout_whose_plan_nobody_knows_keeps_everything(run, logs, store):
    store.commit(Commit((), inserted=a_rollout(created_at=T0)))
    before = files(logs)
    assert run("retain", "--older-than", "400d", "--yes")[0] == 3
    assert files(logs) == before


def test_erase_takes_the_unit_out_and_the_ledger_names_who_and_why_and_not_whom(run, logs, store):
    memory = logs / MEMORY / "one-rollout" / "units-1.parquet"
    memory.parent.mkdir(parents=True)
    memory.write_bytes(KEY.encode())
    done = told(run, "erase", "--unit", KEY, "--reason", "request 118", "--as", "privacy")
    assert (done["files"], done["rows"]) == (6, 6)
    (entry,) = store.entries()
    assert (entry.record.kind, entry.record.actor, entry.record.body["reason"]) == (
        "logs.erased",
        "privacy",
        "request 118",
    )
    assert KEY not in json.dumps(entry.record.document())
    assert KEY not in repr(rows_of(logs))
    assert not memory.exists()
    assert len({row["unit_key"] for row in rows_of(logs)}) == 4
    assert "no row names this unit" in run("erase", "--unit", KEY, "--reason", "request 118")[1]


def test_erase_takes_the_unit_out_of_tables_too(run, logs, home, store, postgres_url):
    engine = sa.create_engine(postgres_url)
    writer = SqlLogWriter(engine, POINT, ("origin",), ClockAt(T0 + DAY))
    for hour, unit in ((1, KEY), (2, "u2")):
        writer.decision(a_row(hour, unit_key=unit))
    writer.flush()
    settings = yaml.safe_load((home / "seatrial.yaml").read_text())
    (home / "seatrial.yaml").write_text(yaml.safe_dump({**settings, "warehouse": postgres_url}))
    done = told(run, "erase", "--unit", KEY, "--reason", "request 118", "--as", "privacy")
    assert (done["files"], done["rows_in_tables"], len(done["records"])) == (6, 1, 2)
    with engine.connect() as connection:
        keys = connection.execute(sa.text("SELECT unit_key FROM decision_log")).scalars().all()
    engine.dispose()
    assert KEY not in keys
    assert "u2" in keys
    assert KEY not in repr(rows_of(logs))
    assert [entry.record.kind for entry in store.entries()] == ["logs.erased", "logs.erased"]


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("erase", "--unit", KEY, "--reason", f"for {KEY}"), 1),
        (("erase", "--unit", KEY), 2),
        (("retain",), 2),
        (("retain", "--older-than", "old"), 2),
        (("compact", "--older-than", "-1d"), 2),
    ],
)
def test_a_command_that_is_not_understood_or_not_allowed_changes_nothing(run, logs, words, code):
    before = [path.name for path in files(logs)]
    assert run(*words)[0] == code
    assert [path.name for path in files(logs)] == before
