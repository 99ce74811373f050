import itertools
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml

from seatrial.adapters.clock import ReplayClock
from seatrial.adapters.sql import LEDGER, SqlStore
from seatrial.cli import main, terminal
from seatrial.cli.app import COMMANDS
from seatrial.cli.exits import MEANINGS, ExitCode, classify
from seatrial.cli.following import follow_out
from seatrial.cli.terminal import printable
from seatrial.control.moving import step
from seatrial.control.opening import start
from seatrial.control.watching import SWEEP
from seatrial.documents import check, load_yaml
from seatrial.errors import InvalidDocumentError, SeatrialError, UnavailableError
from seatrial.ledger import Record
from seatrial.plan import load_plan
from seatrial.ports import Commit, RouterReport
from seatrial.release import load_release
from seatrial.rollout import Answer, Choice, State
from seatrial.units import digest_bytes, short
from seatrial.wiring import Settings, open_plant

ROOT = Path(__file__).parents[2]
PLAN = ROOT / "config" / "plans" / "example-plan.yaml"
T0 = datetime(2013, 6, 1, tzinfo=UTC)
NOW = T0 + timedelta(hours=2)
POINT = "flight-delay"
EVIDENCE = digest_bytes(b"evidence")
RUN = "5e1f0000-0000-4000-8000-000000000000"


def manifest(folder, name="calm", version="1", *, target="none", **parts):
    folder.mkdir(parents=True, exist_ok=True)
    data = yaml.safe_load((ROOT / "config" / "releases" / "example-release.yaml").read_text())
    model, dataset = f"model of {name} {version}".encode(), digest_bytes(b"holdout")
    report = json.dumps({"metrics": data["evaluation"]["metrics"], "dataset_digest": dataset}).encode()
    (folder / "model.txt").write_bytes(model)
    (folder / "evaluation.json").write_bytes(report)
    data["release"] = {"name": name, "version": version, "decision_point": POINT}
    data["model"] |= {"artifact": "model.txt", "digest": digest_bytes(model)}
    data["evaluation"] |= {
        "report": "evaluation.json",
        "digest": digest_bytes(report),
        "dataset_digest": dataset,
    }
    data["training"]["as_of"] = "2013-04-01T00:00:00+00:00"
    data["rollback_target"] = target
    if target == "none":
        data["first_release"] = True
    path = folder / "release.yaml"
    path.write_text(yaml.safe_dump(data | parts))
    return path


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch):
    for name in ("SEATRIAL_DATABASE_URL", "PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.delenv(name, raising=False)
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path, monkeypatch):
    settings = {"logs": "logs", "replay_clock": "event-time", "approvers": {"dana": ["risk-owner"]}}
    (tmp_path / "seatrial.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("SEATRIAL_SETTINGS", str(tmp_path / "seatrial.yaml"))
    ReplayClock(tmp_path / "event-time").advance(NOW)
    return tmp_path


@pytest.fixture
def plant(home):
    plant = open_plant(home / "seatrial.yaml", {})
    yield plant
    plant.store.close()


@pytest.fixture
def run(home, capsys, monkeypatch):
    monkeypatch.chdir(home)

    def call(*words):
        capsys.readouterr()
        code = main(list(map(str, words)))
        out, err = capsys.readouterr()
        return code, out, err

    return call


@pytest.fixture
def releases(home, plant, run):
    """Two registered releases: the champion, and one that wants to replace it."""
    assert run("register", manifest(home / "calm"), "--as", "ada")[0] == 0
    champion = plant.store.champions()[POINT]
    assert run("register", manifest(home / "bold", "bold", "2", target=champion), "--as", "ada")[0] == 0
    challenger = next(each.release.id for each in plant.store.releases() if each.release.name == "bold")
    return champion, challenger


@pytest.fixture
def rollout(plant, releases):
    """A rollout in its first canary step, served to a twentieth of all units."""
    opened = start(plant.ports, releases[1], load_plan(PLAN), request="r1", requested_by="ada", now=T0, flow_run_id=RUN)
    present = plant.store.snapshot(POINT)
    moved = replace(opened, state=State.CANARY, stage=3, version=2, evidence_digest=EVIDENCE, reason="shadow was sound")
    snapshot = replace(
        present,
        number=present.number + 1,
        challenger=moved.challenger,
        rollout_id=moved.id,
        slots=500,
        lease_until=NOW + timedelta(hours=12),
    )
    key = f"{moved.id}/2/decided"
    body = {"from": "shadow", "to": "canary", "stage": 3, "version": 2, "reason": moved.reason, "findings": []}
    record = Record(NOW, "rollout.decided", "rollout flow", POINT, moved.id, key, body)
    plant.store.commit(Commit((record,), moved=(moved,), snapshot=snapshot))
    return moved


def put(plant, rollout, state, **fields):
    moved = replace(rollout, state=state, version=rollout.version + 1, **fields)
    plant.store.commit(Commit((), moved=(moved,)))
    return moved


def reports(plant, number, *, name="east", lease=None):
    champion = plant.store.champions()[POINT]
    plant.store.report(RouterReport(name, POINT, number, NOW, champion, lease))


# -- exit codes and errors


def test_every_error_class_has_an_exit_code_of_its_own_kind():
    def below(cls):
        return [cls, *itertools.chain.from_iterable(map(below, cls.__subclasses__()))]

    unnamed = [c for c in below(SeatrialError)[1:] if classify(c.__new__(c))[1] is ExitCode.UNEXPECTED]
    assert unnamed == []


@pytest.mark.parametrize("page", ["help", "reference"])
def test_help_and_reference_name_every_exit_code(page, run):
    text = run("--help")[1] if page == "help" else (ROOT / "docs" / "cli.md").read_text()
    flat = " ".join(text.split())
    for code, meaning in MEANINGS.items():
        assert re.search(rf"\b{int(code)}\b[ |]+{re.escape(meaning)}", flat), meaning


@pytest.mark.parametrize("command", [command.__name__ for command, _ in COMMANDS])
def test_every_command_has_help_with_an_example_and_stands_in_the_reference(command, run):
    code, out, _ = run(command, "--help")
    assert code == 0
    assert f"Example: seatrial {command}" in out
    assert f"seatrial {command}" in (ROOT / "docs" / "cli.md").read_text()


def test_no_words_at_all_show_help(run):
    code, out, _ = run()
    assert (code, "Usage: seatrial" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "finding"),
    [
        (("status", "--nonsense"), "--nonsense"),
        (("kill", "--reason", "x", "--as", "oncall"), "RELEASE"),
        (("kill", "bold", "--as", "oncall"), "--reason"),
        (("kill", "bold", "--reason", "  ", "--as", "oncall"), "write at least a word"),
        (("rollback", POINT, "--reason", "x", "--wait-s", "-1"), "--wait-s"),
        (("start", "bold", "--plan", "p.yaml", "--as", "ada"), "PREFECT_API_URL"),
        (("answer", "3f", "perhaps", "--reason", "x", "--prefect-api", "http://x"), "perhaps"),
        (("stauts",), "Did you mean 'status'"),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_bad_usage_is_exit_code_2_and_one_message_on_stderr(words, finding, as_json, run):
    code, out, err = run(*words, *(["--json"] if as_json else []))
    message = json.loads(err)["error"]["message"] if as_json else err
    assert (code, out) == (2, "")
    assert finding in message
    assert "Traceback" not in err


def test_an_error_as_json_has_kind_code_message_and_problems(run, tmp_path):
    (tmp_path / "bad.yaml").write_text("plan: {name: x}\n")
    code, out, err = run("check", tmp_path / "bad.yaml", "--json")
    error = json.loads(err)["error"]
    assert (code, out, error["kind"], error["exit_code"]) == (2, "", "invalid_document", 2)
    assert set(error["problems"][0]) == {"place", "finding", "remedy"}


def test_a_defect_is_neither_a_success_nor_a_refusal(run, monkeypatch):
    monkeypatch.setattr("seatrial.cli.options.open_plant", lambda *_: 1 / 0)
    code, _, err = run("status")
    assert code == 70
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err


def test_an_unknown_database_does_not_answer(run, monkeypatch):
    monkeypatch.setenv("SEATRIAL_DATABASE_URL", "sqlite:////nowhere/at/all.sqlite")
    code, _, err = run("status")
    assert code == 4
    assert "did not answer" in err


def test_missing_settings_are_bad_input_with_their_path(run):
    code, _, err = run("status", "--settings", "nowhere.yaml")
    assert code == 2
    assert "nowhere.yaml" in err


# -- check and register


def test_check_names_every_problem_of_every_file_and_writes_nothing(home, plant, run):
    broken = home / "broken.yaml"
    text = PLAN.read_text().replace("share: 5 %", "sahre: 5 %").replace("on_deadline: ask", "on_deadline: perhaps")
    broken.write_text(text)
    release = manifest(home / "calm")
    (home / "calm" / "model.txt").write_bytes(b"another model")
    other = home / "other.yaml"
    other.write_text("something: else\n")
    code, out, err = run("check", broken, release, other, PLAN)
    assert (code, out) == (2, "")
    for found in ("sahre", "did you mean 'share'?", "perhaps", "model.artifact", "neither the key 'plan' nor"):
        assert found in err
    assert list(plant.store.releases()) == []


def test_check_says_what_sound_files_are(home, run):
    path = manifest(home / "calm")
    code, out, _ = run("check", PLAN, path, "--json")
    assert code == 0
    assert [(f["kind"], f["id"]) for f in json.loads(out)["files"]] == [
        ("plan", load_plan(PLAN).id),
        ("release", load_release(path).id),
    ]


def test_register_says_the_id_and_whether_it_serves(home, plant, run):
    path = manifest(home / "calm")
    code, out, _ = run("register", path, "--as", "ada", "--json")
    document = json.loads(out)
    assert code == 0
    assert document == {
        "release_id": load_release(path).id,
        "name": "calm",
        "version": "1",
        "decision_point": POINT,
        "is_champion": True,
    }
    assert run("register", path, "--as", "ada")[1].startswith(f"registered {short(document['release_id'])}: calm 1")
    assert [e.record.actor for e in plant.store.entries()] == ["ada", "ada"]


def test_register_refuses_files_that_are_not_those_declared(home, plant, run):
    path = manifest(home / "calm")
    (home / "calm" / "model.txt").unlink()
    (home / "calm" / "evaluation.json").write_text("{}")
    code, _, err = run("register", path)
    assert (code, err.splitlines()[0]) == (2, "2 problems, nothing was written")
    assert list(plant.store.releases()) == []


# -- names and ids


@pytest.mark.parametrize("how", ["id", "bare id", "short id", "name", "name version"])
def test_a_release_answers_to_its_id_the_start_of_it_and_its_name(how, plant, releases, rollout, run):
    wanted = {
        "id": releases[1],
        "bare id": releases[1].removeprefix("sha256:"),
        "short id": short(releases[1])[:6],
        "name": "bold",
        "name version": "bold 2",
    }[how]
    run("kill", wanted, "--reason", "test", "--as", "oncall", "--wait-s", "0")
    assert plant.store.rollout(rollout.id).state is State.ROLLING_BACK


def test_a_name_that_two_releases_bear_takes_neither_out(home, plant, releases, rollout, run):
    again = manifest(home / "again", "bold", "3", target=releases[0])
    run("register", again)
    code, _, err = run("kill", "bold", "--reason", "test")
    assert code == 3
    assert all(short(r) in err for r in (releases[1], load_release(again).id))
    assert plant.store.rollout(rollout.id) == rollout


@pytest.mark.parametrize(
    "words",
    [
        ("kill", "bald", "--reason", "x"),
        ("kill", "", "--reason", "x"),
        ("kill", "sha256:", "--reason", "x"),
        ("rollback", "flight-dely", "--reason", "x"),
        ("status", "flight-dely"),
        ("status", ""),
        ("explain", "zzz"),
        ("history", "zzz"),
    ],
)
def test_an_unknown_name_is_exit_code_3(words, rollout, plant, run):
    code, out, err = run(*words)
    assert (code, out) == (3, "")
    assert "not found" in err
    assert plant.store.rollout(rollout.id) == rollout


@pytest.mark.usefixtures("rollout")
def test_an_unknown_name_comes_with_the_closest_known_one(run):
    assert "did you mean 'flight-delay'?" in run("status", "flight-dely")[2]
    assert "did you mean 'bold 2'?" in run("kill", "bold2", "--reason", "x")[2]


# -- status, history, explain


def test_status_shows_who_serves_what_is_tried_and_what_routers_were_seen_on(plant, releases, rollout, run):
    reports(plant, 2)
    reports(plant, 1, name="west")
    plant.store.beat(SWEEP, now=NOW - timedelta(seconds=12))
    code, out, _ = run("status", POINT)
    assert code == 0
    for shown in ("calm 1", short(releases[0]), "1 of 2", "1 (behind)", rollout.id, "canary", "5 %", "4/8", "12 s ago"):
        assert shown in out
    assert json.loads(run("status", "--json")[1]) == {
        "watch": {"last_round_at": "2013-06-01T01:59:48.000000Z"},
        "decision_points": [
            {
                "name": POINT,
                "champion": "calm 1",
                "champion_id": releases[0],
                "snapshot": 2,
                "routers": [
                    {
                        "router": router,
                        "snapshot": number,
                        "is_current": number == 2,
                        "fallback": "calm 1",
                        "fallback_id": releases[0],
                        "reported_at": "2013-06-01T02:00:00.000000Z",
                        "lease_until": None,
                    }
                    for router, number in (("east", 2), ("west", 1))
                ],
                "kills": [],
                "waivers": [],
            }
        ],
        "rollouts": [
            {
                "rollout_id": rollout.id,
                "decision_point": POINT,
                "challenger": "bold 2",
                "champion": "calm 1",
                "state": "canary",
                "stage": "4/8 canary 5 %",
                "share": 0.05,
                "lease_until": "2013-06-01T14:00:00.000000Z",
                "in_stage_s": 7200.0,
                "deadline": "2013-06-02T00:00:00.000000Z",
                "reason": "shadow was sound",
                "waivers": [],
            }
        ],
    }


@pytest.mark.usefixtures("rollout")
def test_status_says_that_nothing_is_judged_when_the_watch_never_ran(run):
    assert "nothing is judged" in run("status")[1]


@pytest.mark.usefixtures("home")
def test_status_of_an_empty_store_says_how_to_begin(run):
    code, out, _ = run("status")
    assert code == 0
    assert "register the release that serves it now" in out


def test_status_without_a_name_shows_what_is_open_and_the_newest_that_ended(plant, releases, rollout, run):
    ended = put(plant, put(plant, rollout, State.ROLLING_BACK), State.ROLLED_BACK)
    assert ended.id in run("status")[1]
    second = start(plant.ports, releases[1], load_plan(PLAN), request="r2", requested_by="ada", now=NOW)
    out = run("status")[1]
    assert second.id in out
    assert ended.id not in out
    assert ended.id in run("status", POINT)[1]
    assert ended.id in run("status", ended.id[:8])[1]


@pytest.mark.parametrize("columns", ["20", "40", "60", "80", "100", "120", "160", None])
@pytest.mark.parametrize("command", ["status", "history"])
def test_no_terminal_is_too_narrow_for_an_id(command, columns, rollout, releases, run, monkeypatch):
    if columns is not None:
        monkeypatch.setenv("COLUMNS", columns)
    out = run(command)[1]
    assert rollout.id in out
    assert command == "history" or short(releases[0]) in out
    assert "…" not in out


@pytest.mark.usefixtures("rollout")
def test_a_pipe_gets_one_line_for_each_row(plant, run):
    lines = run("history")[1].splitlines()
    assert len([line for line in lines if re.match(r"\d+ ", line)]) == len(plant.store.entries())


def test_history_verifies_the_chain_and_says_so(plant, rollout, run):
    code, out, _ = run("history", rollout.id[:6])
    assert code == 0
    assert f"chain verified: {len(plant.store.entries())} entries" in out
    document = json.loads(run("history", rollout.id, "--json")[1])
    assert document["chain"] == {"entries": 5, "head": plant.store.entries()[-1].hash}
    assert [(e["kind"], e["what"]) for e in document["entries"]] == [
        ("rollout.started", "> gates"),
        ("rollout.decided", "shadow > canary"),
    ]
    assert {e["rollout_id"] for e in document["entries"]} == {rollout.id}
    assert set(document["entries"][0]) == {
        "number", "at", "who", "kind", "what", "reason", "rollout_id", "record", "previous", "hash"
    }  # fmt: skip


@pytest.mark.parametrize("body", ['{"to":"canary"}', "not JSON", '{"x":NaN}'])
def test_history_of_an_edited_ledger_is_exit_code_5_and_shows_nothing(body, plant, rollout, run):
    with plant.store.engine.begin() as connection:
        connection.execute(sa.update(LEDGER).where(LEDGER.c.number == 2).values(body=body))
    code, out, err = run("history", rollout.id)
    assert (code, out) == (5, "")
    assert "call the person who owns the ledger" in err


def test_explain_says_where_a_rollout_stands_and_exits_0_although_it_failed(plant, rollout, run):
    failed = put(plant, rollout, State.ROLLBACK_INCOMPLETE, reason="east was not seen")
    code, out, _ = run("explain", failed.id[:5])
    assert code == 0
    assert "bold 2 on flight-delay: ROLLBACK INCOMPLETE" in out
    document = json.loads(run("explain", failed.id, "--json")[1])
    assert set(document) == {"rollout", "explanation", "last_findings", "waivers"}
    assert document["rollout"]["state"] == "rollback incomplete"


def test_a_reason_cannot_hide_lines_from_a_reader(rollout, run):
    run("kill", "bold", "--reason", "x\x1b[2Jy\u202e [red]z", "--as", "oncall", "--wait-s", "0")
    for words in (("history",), ("status",), ("explain", rollout.id)):
        out = run(*words)[1]
        assert "x\\x1b[2Jy\\u202e [red]z" in out
        assert "\x1b" not in out
    assert printable("two\nlines") == "two\nlines"


@pytest.mark.usefixtures("plant", "rollout")
def test_no_color_is_respected(run, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    words = ("kill", "bold", "--reason", "x", "--wait-s", "0")
    assert "\x1b[1;31m" in run(*words)[1]
    monkeypatch.setenv("NO_COLOR", "1")
    assert not re.search(r"\x1b\[[0-9;]*3[0-9]", run(*words)[1])


# -- kill and rollback


@pytest.mark.parametrize("words", [("kill", "bold"), ("rollback", POINT)])
@pytest.mark.usefixtures("releases")
def test_a_rollback_seen_on_every_router_is_exit_code_0(words, plant, rollout, run):
    reports(plant, 3)
    reports(plant, 4, name="west")
    code, out, _ = run(*words, "--reason", "it harms", "--as", "oncall", "--wait-s", "0")
    assert code == 0
    assert "rolled back, seen on 2 routers: east, west; calm 1 serves flight-delay" in out
    assert plant.store.rollout(rollout.id).state is State.ROLLED_BACK
    decided = [e.record for e in plant.store.entries(rollout.id) if e.record.body.get("to") == "rolling back"]
    assert [(r.actor, r.body["reason"]) for r in decided] == [("oncall", "oncall: it harms")]


@pytest.mark.parametrize("words", [("kill", "bold"), ("rollback", POINT)])
@pytest.mark.parametrize("seen", ["no router", "one behind"])
@pytest.mark.usefixtures("rollout")
def test_a_rollback_that_was_not_seen_is_exit_code_6(words, seen, plant, run):
    if seen == "one behind":
        reports(plant, 3)
        reports(plant, 2, name="west", lease=NOW + timedelta(hours=12))
    code, out, err = run(*words, "--reason", "it harms", "--as", "oncall", "--wait-s", "0")
    assert (code, err) == (6, "")
    assert "ROLLBACK INCOMPLETE" in out
    assert "rolled back" not in out
    expected = {"no router": "no router of 'flight-delay' has ever reported", "one behind": "west (snapshot 2, lease"}
    assert expected[seen] in out
    assert plant.store.snapshot(POINT).slots == 0


def test_the_outcome_of_a_rollback_as_json(plant, releases, rollout, run):
    reports(plant, 2, lease=NOW + timedelta(hours=12))
    code, out, _ = run("kill", "bold", "--reason", "it harms", "--as", "oncall", "--wait-s", "0", "--json")
    assert code == 6
    assert json.loads(out) == {
        "rollout_id": rollout.id,
        "decision_point": POINT,
        "release_id": releases[1],
        "returns_to": releases[0],
        "state": "rolling back",
        "is_out": False,
        "reason": "oncall: it harms",
        "snapshot": 3,
        "seen_on": [],
        "not_seen_on": ["east"],
    }


@pytest.mark.parametrize("words", [("kill", "bold"), ("rollback", POINT)])
@pytest.mark.parametrize("state", [State.ROLLING_BACK, State.ROLLBACK_INCOMPLETE])
def test_the_same_command_again_goes_on_waiting_and_takes_nothing_else_out(words, state, plant, releases, rollout, run):
    words = (*words, "--reason", "it harms", "--as", "oncall", "--wait-s", "0")
    assert run(*words)[0] == 6
    if state is State.ROLLBACK_INCOMPLETE:
        put(plant, plant.store.rollout(rollout.id), state)
    assert run(*words)[0] == 6
    assert len([e for e in plant.store.entries() if e.record.body.get("to") == "rolling back"]) == 1
    reports(plant, 3)
    code, out, _ = run(*words)
    assert (code, "seen on 1 router: east" in out) == (0, True)
    assert plant.store.champions()[POINT] == releases[0]


def test_a_kill_does_not_take_the_leaving_of_another_release_for_its_own(rollout, run):
    run("kill", "bold", "--reason", "it harms", "--wait-s", "0")
    code, out, err = run("kill", "calm", "--reason", "it harms too", "--wait-s", "0")
    assert (code, out) == (1, "")
    assert "first champion" in err
    assert rollout.id not in err


@pytest.mark.usefixtures("rollout")
def test_a_router_silent_beyond_its_lease_is_not_counted_as_seen(plant, run):
    reports(plant, 3)
    reports(plant, 2, name="west", lease=NOW - timedelta(hours=1))
    code, out, _ = run("kill", "bold", "--reason", "it harms", "--wait-s", "0")
    assert code == 0
    assert "seen on 1 router: east (silent, and back on the champion because the lease is over: 1 router: west)" in out


def test_a_release_that_saw_no_traffic_is_rejected_without_waiting(plant, releases, run):
    start(plant.ports, releases[1], load_plan(PLAN), request="r1", requested_by="ada", now=T0)
    code, out, _ = run("kill", "bold", "--reason", "wrong model", "--as", "oncall")
    assert code == 0
    assert out.startswith("rejected before it saw any traffic; calm 1 serves flight-delay")


@pytest.mark.parametrize("words", [("kill", "bold"), ("kill", "calm"), ("rollback", POINT)])
@pytest.mark.usefixtures("releases")
def test_what_cannot_be_taken_out_is_refused_with_exit_code_1(words, run):
    code, out, err = run(*words, "--reason", "x")
    assert (code, out) == (1, "")
    assert "Traceback" not in err


def test_the_wait_goes_on_until_the_last_router_follows(plant, rollout, run):
    run("kill", "bold", "--reason", "x", "--wait-s", "0")
    waited = []

    def pause(seconds):
        waited.append(seconds)
        if len(waited) == 3:
            reports(plant, 3)

    after = follow_out(
        plant,
        plant.store.rollout(rollout.id),
        actor="oncall",
        patience_s=60.0,
        pause=pause,
        elapsed=lambda: sum(waited),
    )
    assert after.state is State.ROLLED_BACK
    assert waited == [0.5, 0.5, 0.5]


def test_the_wait_ends_with_a_last_look_when_patience_does(plant, rollout, run):
    run("kill", "bold", "--reason", "x", "--wait-s", "0")
    waited = []
    rolling = plant.store.rollout(rollout.id)
    after = follow_out(plant, rolling, actor="oncall", patience_s=1.2, pause=waited.append, elapsed=lambda: sum(waited))
    assert after.state is State.ROLLING_BACK
    assert sum(waited) == pytest.approx(1.2)


@pytest.mark.usefixtures("rollout")
def test_a_store_that_stops_answering_after_the_write_leaves_the_rollback_incomplete(plant, run, monkeypatch):
    def gone(*_):
        raise UnavailableError("the database did not answer")

    monkeypatch.setattr(SqlStore, "reports", gone)
    code, out, _ = run("kill", "bold", "--reason", "x", "--wait-s", "0")
    assert code == 6
    assert "ROLLBACK INCOMPLETE" in out
    assert "the store stopped answering" in out
    assert plant.store.snapshot(POINT).slots == 0


@pytest.mark.usefixtures("rollout")
def test_who_acts_is_the_user_of_the_operating_system_unless_told(plant, run, monkeypatch):
    monkeypatch.setattr("seatrial.cli.options.getuser", lambda: "night-shift")
    run("kill", "bold", "--reason", "x", "--wait-s", "0")
    decided = [e.record for e in plant.store.entries() if e.record.body.get("to") == "rolling back"]
    assert [record.actor for record in decided] == ["night-shift"]


@pytest.mark.usefixtures("rollout")
def test_a_user_without_a_name_must_give_one(run, monkeypatch):
    def nameless():
        raise OSError("no entry for this user")

    monkeypatch.setattr("seatrial.cli.options.getuser", nameless)
    code, _, err = run("kill", "bold", "--reason", "x")
    assert (code, "--as NAME" in err) == (2, True)


# -- start and answer, against a twin of the Prefect server


class Prefect:
    """Deployments that can be started and one run that asks; `on_resume` is what its flow does with an answer."""

    def __init__(self):
        self.started = []
        self.state_name = "Suspended"
        self.authorizations = set()
        self.on_resume = lambda _filled: None

    def get(self, path):
        if path == "/api/deployments/name/rollout/rollout":
            return {"id": "d1"}
        return {"id": RUN, "state_name": self.state_name} if path == f"/api/flow_runs/{RUN}" else None

    def post(self, path, body):
        if path == "/api/deployments/d1/create_flow_run":
            self.started.append(body["parameters"])
            return {"id": RUN}
        if path == f"/api/flow_runs/{RUN}/resume":
            self.state_name = "Running"
            self.on_resume(body["run_input"])
            return {"status": "ACCEPT"}
        return None


@pytest.fixture
def prefect(monkeypatch):
    twin = Prefect()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.reply(twin.get(self.path))

        def do_POST(self):
            self.reply(twin.post(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

        def reply(self, document):
            twin.authorizations.add(self.headers["Authorization"])
            content = json.dumps(document).encode()
            self.send_response(404 if document is None else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api/")
    twin.url = f"http://127.0.0.1:{server.server_port}"
    yield twin
    server.shutdown()
    thread.join()
    server.server_close()


def test_start_starts_a_flow_run_and_says_where_to_see_it(prefect, plant, releases, run, monkeypatch):
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "admin:secret")
    code, out, _ = run("start", "bold", "--plan", PLAN, "--as", "ada", "--json")
    assert code == 0
    assert json.loads(out) == {
        "flow_run_id": RUN,
        "ui": f"{prefect.url}/runs/flow-run/{RUN}",
        "release_id": releases[1],
        "plan_id": load_plan(PLAN).id,
        "decision_point": POINT,
    }
    assert prefect.started == [{"release": short(releases[1]), "plan": str(PLAN), "requested_by": "ada"}]
    assert prefect.authorizations == {"Basic YWRtaW46c2VjcmV0"}
    assert list(plant.store.rollouts()) == []
    assert RUN in run("start", "bold", "--plan", PLAN)[1]


@pytest.mark.usefixtures("releases")
def test_start_refuses_before_anything_is_started(prefect, home, rollout, run):
    broken = home / "plan.yaml"
    broken.write_text(PLAN.read_text().replace("on_deadline: ask", "on_deadline: never").replace("lease: 12 h", ""))
    code, _, err = run("start", "bold", "--plan", broken)
    assert (code, err.splitlines()[0]) == (2, "2 problems, nothing was written")
    assert run("start", "unknown", "--plan", PLAN)[0] == 3
    code, _, err = run("start", "bold", "--plan", PLAN)
    assert (code, f"rollout {rollout.id} holds 'flight-delay'" in err) == (1, True)
    code, _, err = run("start", "calm", "--plan", PLAN, "--json")
    assert (code, json.loads(err)["error"]["kind"]) == (1, "refused")
    assert prefect.started == []


@pytest.mark.usefixtures("releases")
def test_start_without_a_server_is_exit_code_4(run):
    code, _, err = run("start", "bold", "--plan", PLAN, "--prefect-api", "http://127.0.0.1:9/api")
    assert (code, "did not answer" in err) == (4, True)


@pytest.fixture
def asked(plant, rollout):
    return put(plant, rollout, State.AWAITING_APPROVAL, deadline=NOW + timedelta(days=1))


def answers(plant, rollout):
    def resume(filled):
        given = Answer(Choice(filled["decision"]), filled["approver"], filled["reason"], rollout.evidence_digest)
        step(plant.ports, rollout.id, now=NOW, actor="rollout flow", answer=given)

    return resume


@pytest.mark.parametrize(
    ("state", "choice", "after"),
    [
        (State.AWAITING_APPROVAL, "reject", "rolling back"),
        (State.AWAITING_DECISION, "continue", "canary"),
        (State.AWAITING_DECISION, "reject", "rolling back"),
    ],
)
def test_an_answer_is_done_once_the_ledger_has_it(state, choice, after, prefect, plant, rollout, run):
    asked = put(plant, rollout, state, deadline=None)
    prefect.on_resume = answers(plant, asked)
    code, out, _ = run("answer", asked.id[:6], choice, "--as", "dana", "--reason", "read it", "--json")
    assert code == 0
    document = json.loads(out)
    assert set(document) == {"rollout_id", "choice", "by", "state", "reason", "ui"}
    assert (document["state"], document["by"]) == (after, "dana")
    assert plant.store.entries(asked.id)[-1].record.body.get("to", after) == after


def test_an_answer_that_does_not_count_is_refused(prefect, plant, asked, run):
    def ask_again(_filled):
        prefect.state_name = "Suspended"

    prefect.on_resume = ask_again
    code, out, err = run("answer", asked.id, "approve", "--as", "mallory", "--reason", "x")
    assert (code, out) == (1, "")
    assert "does not count" in err
    assert plant.store.rollout(asked.id) == asked


@pytest.mark.usefixtures("prefect")
def test_an_answer_that_nobody_recorded_is_not_called_done(asked, run):
    code, out, err = run("answer", asked.id, "approve", "--as", "dana", "--reason", "x", "--wait-s", "0")
    assert (code, out) == (4, "")
    assert "not recorded" in err


def test_an_answer_overtaken_by_another_move_is_not_called_done(prefect, plant, asked, run):
    prefect.on_resume = lambda filled: answers(plant, asked)({**filled, "decision": "reject", "approver": "yusuf"})
    settings = yaml.safe_load(Path(os.environ["SEATRIAL_SETTINGS"]).read_text())
    plant.ports.approvers.update({"yusuf": frozenset(settings["approvers"]["dana"])})
    code, _, err = run("answer", asked.id, "approve", "--as", "dana", "--reason", "x", "--json")
    assert (code, json.loads(err)["error"]["kind"]) == (1, "conflict")


@pytest.mark.parametrize(
    ("state", "choice", "finding"),
    [
        (State.CANARY, "approve", "asks nobody"),
        (State.AWAITING_APPROVAL, "continue", "expected approve or reject"),
        (State.AWAITING_DECISION, "approve", "expected continue or reject"),
    ],
)
def test_what_is_not_asked_cannot_be_answered(state, choice, finding, prefect, plant, rollout, run):
    asked = rollout if state is State.CANARY else put(plant, rollout, state)
    code, _, err = run("answer", asked.id, choice, "--as", "dana", "--reason", "x")
    assert (code, finding in err) == (1, True)
    assert prefect.state_name == "Suspended"


def test_a_question_that_was_not_put_yet_is_not_answered(prefect, asked, run):
    prefect.state_name = "Running"
    code, _, err = run("answer", asked.id, "approve", "--as", "dana", "--reason", "x")
    assert (code, "has not put the question yet" in err) == (1, True)


# -- the program


def test_the_default_settings_are_sound_and_name_every_key():
    path = ROOT / "config" / "seatrial.yaml"
    settings = check(load_yaml(path), Settings)
    assert not settings.database.startswith("sqlite")
    assert [key for key in Settings.model_fields if f"{key}:" not in path.read_text()] == []


@pytest.mark.usefixtures("home", "releases")
def test_the_program_runs_as_a_process_and_its_exit_code_reaches_the_shell():
    program = "import sys; from seatrial.cli import main, terminal; sys.exit(main())"
    words = [sys.executable, "-c", program, "kill", "nobody", "--reason", "x"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 3
    assert ended.stdout == ""
    assert "release 'nobody': not found" in ended.stderr


@pytest.mark.parametrize(
    ("is_terminal", "patience_s", "told"), [(True, 0.0, True), (True, 60.0, False), (False, 0.0, False)]
)
def test_long_work_says_on_a_terminal_what_it_does(monkeypatch, capsys, is_terminal, patience_s, told):
    monkeypatch.setattr(terminal, "PATIENCE_S", patience_s)
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    terminal.Progress()("counting")
    assert ("counting" in capsys.readouterr().err) is told


@pytest.mark.parametrize(
    ("url", "finding"), [("nowhere", "found text that is no database URL"), ("sqlite:///x", "found sqlite, expected")]
)
def test_logs_in_a_database_that_is_none_are_refused_with_their_key(tmp_path, url, finding):
    settings = tmp_path / "seatrial.yaml"
    settings.write_text(yaml.safe_dump({"logs": "logs", "warehouse": url, "approvers": {"dana": ["risk-owner"]}}))
    with pytest.raises(InvalidDocumentError, match=finding) as refused:
        open_plant(settings, {})
    assert "seatrial.yaml warehouse" in str(refused.value)
