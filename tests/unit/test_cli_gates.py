import json
from datetime import UTC, datetime, timedelta

import pytest
import yaml
from builders import APPROVERS, DAY, STAGES, World, a_plan

from seatrial.adapters.clock import ReplayClock
from seatrial.adapters.sql import SqlStore
from seatrial.cli import main
from seatrial.report import page, question, stage_report
from seatrial.rollout import Choice, State
from seatrial.waiver import waived_of

T0 = datetime(2013, 6, 1, tzinfo=UTC)
NOW = T0 + timedelta(hours=1)
#: The challenger takes an action that nobody carries out.
ASKS = {"catalogue": {"actions": {"none": True, "review": True, "call": False}, "waivable": "failed"}}
REASON = "crews do it by hand this week"


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in ("SEATRIAL_DATABASE_URL", "COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    approvers = {name: sorted(roles) for name, roles in APPROVERS.items()}
    settings = {"logs": "logs", "replay_clock": "event-time", "approvers": approvers}
    (tmp_path / "seatrial.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("SEATRIAL_SETTINGS", str(tmp_path / "seatrial.yaml"))
    ReplayClock(tmp_path / "event-time").advance(NOW)
    return tmp_path


@pytest.fixture
def world(home):
    store = SqlStore(f"sqlite:///{home / 'seatrial.sqlite'}")
    store.create_tables()
    world = World(home / "releases", store)
    world.router.refresh(now=T0)
    yield world
    store.close()


@pytest.fixture
def rollout(world):
    return world.start(plan=a_plan(stages=[{**STAGES[0], **ASKS}, *STAGES[1:]]))


@pytest.fixture
def run(capsys):
    def call(*words):
        capsys.readouterr()
        code = main(list(map(str, words)))
        out, err = capsys.readouterr()
        return code, out, err

    return call


def waive(run, rollout, *words):
    words = words or ("--expires", "14 d")
    return run("waive", rollout.id, "catalogue", "--as", "approver", "--reason", REASON, *words)


def test_assess_asks_the_open_gates_and_says_what_each_answered(run, rollout):
    code, out, _ = run("assess", rollout.id, "--as", "ada")
    assert code == 0
    assert "rebook is carried out by nobody" in out
    (gate,) = json.loads(run("assess", rollout.id, "--json")[1])["gates"]
    assert (gate["gate"], gate["verdict"], gate["may_be_waived"]) == ("catalogue", "FAIL", True)


def test_assess_asks_again_only_when_told(run, rollout, world):
    run("assess", rollout.id)
    ReplayClock(world.folder.parent / "event-time").advance(NOW + timedelta(hours=1))
    first, again = (
        json.loads(run("assess", rollout.id, *words, "--json")[1])["gates"][0]["at"] for words in ((), ("--again",))
    )
    assert first < again


def test_assess_of_a_gate_that_is_none_is_exit_code_3(run, rollout):
    code, _, err = run("assess", rollout.id, "catalog")
    assert (code, "did you mean 'catalogue'" in err) == (3, True)


def test_a_plan_without_gates_is_said_to_have_none(run, world):
    assert run("assess", world.start().id)[1] == "the plan declares no gate\n"


def test_waive_says_who_until_when_and_why(run, rollout):
    run("assess", rollout.id)
    code, out, _ = waive(run, rollout)
    assert (code, f"waived by approver until 2013-06-15 01:00 UTC: {REASON}" in out) == (0, True)


@pytest.mark.parametrize(
    ("expires", "code", "finding"),
    [("soon", 2, "expected a duration"), ("91 d", 1, "more than 90 d"), ("0 s", 1, "an end after now")],
)
def test_a_waiver_without_a_sound_end_is_not_written(run, rollout, world, expires, code, finding):
    run("assess", rollout.id)
    found, _, err = waive(run, rollout, "--expires", expires)
    assert (found, finding in err) == (code, True)
    assert waived_of(world.store.entries(rollout.id)) == []


def test_a_waiver_is_shown_by_every_view_of_the_rollout(run, rollout, world):
    run("assess", rollout.id)
    waive(run, rollout)
    for words in (("status",), ("explain", rollout.id), ("history", rollout.id), ("status", rollout.id)):
        assert REASON in run(*words)[1]
    (row,) = json.loads(run("status", "--json")[1])["rollouts"]
    assert row["waivers"][0]["by"] == "approver"
    entries, plan = world.store.entries(rollout.id), world.store.plan(rollout.plan_id)
    assert REASON in page(rollout, plan, [], entries, {}, now=NOW)
    assert REASON in stage_report(rollout, plan, [], entries, now=NOW)


def test_a_waiver_that_has_ended_is_still_shown_as_ended(run, rollout, world):
    run("assess", rollout.id)
    waive(run, rollout)
    entries, plan = world.store.entries(rollout.id), world.store.plan(rollout.plan_id)
    assert "**ended**" in page(rollout, plan, [], entries, {}, now=NOW + 15 * DAY)
    ReplayClock(world.folder.parent / "event-time").advance(NOW + 15 * DAY)
    assert f"{REASON} (ended)" in run("status")[1]


def test_a_waiver_is_shown_to_the_approver_and_with_the_champion_that_the_release_becomes(run, rollout, world):
    run("assess", rollout.id)
    waive(run, rollout, "--expires", "89 d")
    now, asked = NOW, None
    for _ in range(40):
        rollout = world.store.rollout(rollout.id)
        if rollout.state is State.CHAMPION:
            break
        choice = Choice.APPROVE if rollout.state is State.AWAITING_APPROVAL else None
        asked = rollout if choice else asked
        now += DAY
        world.router.refresh(now=now)
        world.step(rollout, now, choice)
    waived = waived_of(world.store.entries(rollout.id))
    assert REASON in question(asked, world.store.plan(rollout.plan_id), [], {}, waived=waived, now=now)
    (point,) = json.loads(run("status", "--json")[1])["decision_points"]
    assert point["waivers"][0]["reason"] == REASON
    assert f"came into service with gate catalogue waived by approver: {REASON}" in run("status")[1]


def test_the_review_ends_with_readiness_and_exits_0_whatever_it_is(run, rollout):
    code, out, _ = run("review", rollout.id)
    assert (code, out.splitlines()[-1]) == (0, "readiness: INCONCLUSIVE, the worst of 8 answers")
    document = json.loads(run("review", rollout.id, "--json")[1])
    assert (document["readiness"], len(document["answers"])) == ("INCONCLUSIVE", 8)
