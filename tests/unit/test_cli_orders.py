import json
from dataclasses import replace

import pytest
from builders import POINT, World

from seatrial.adapters.clock import ReplayClock
from seatrial.adapters.sql import SqlStore
from seatrial.cli import main
from seatrial.rollout import State
from seatrial.routing import KillMode, KillScope


class Shell:
    """A control plane on SQLite, its commands, and a router that follows."""

    def __init__(self, folder, capsys):
        self.capsys = capsys
        store = SqlStore(f"sqlite:///{folder / 'store.sqlite'}")
        store.create_tables()
        self.world = World(folder / "files", store)
        self.settings = folder / "seatrial.yaml"
        self.settings.write_text(
            f"database: sqlite:///{folder / 'store.sqlite'}\nlogs: logs\nreplay_clock: time\n"
            "approvers: {dana: [risk-owner]}\n"
        )
        self.clock = ReplayClock(folder / "time")

    def at(self, now):
        self.now = now
        self.clock.advance(now)
        self.world.router.refresh(now=now)
        return self

    def run(self, *words, code=0, as_json=True):
        found = main([*words, "--settings", str(self.settings), *(["--json"] if as_json else [])])
        said = self.capsys.readouterr()
        assert found == code, said
        return json.loads(said.out or said.err) if as_json else said.out + said.err

    @property
    def snapshot(self):
        return self.world.store.snapshot(POINT)


@pytest.fixture
def shell(tmp_path, capsys):
    shell = Shell(tmp_path, capsys)
    rollout, now = shell.world.advance_to(State.CANARY)
    shell.rollout = rollout
    yield shell.at(now)
    shell.world.store.close()


WHY = ("--reason", "wrong since noon", "--as", "oncall", "--wait-s", "0")


@pytest.mark.parametrize(
    ("words", "scope", "name", "mode"),
    [
        (["--decision-point", POINT], KillScope.DECISION_POINT, None, KillMode.SAFE_FALLBACK),
        (["--decision-point", POINT, "--mode", "refuse"], KillScope.DECISION_POINT, None, KillMode.REFUSE),
        (["--decision-point", POINT, "--segment", "commuter"], KillScope.SEGMENT, "commuter", KillMode.SAFE_FALLBACK),
        (
            ["--decision-point", POINT, "--action", "rebook", "--mode", "person"],
            KillScope.ACTION,
            "rebook",
            KillMode.PERSON,
        ),
    ],
)
def test_a_kill_that_no_router_took_yet_is_ordered_and_not_reported_as_done(shell, words, scope, name, mode):
    said = shell.run("kill", *words, *WHY, code=6)
    assert (said["is_complete"], said["missing"]) == (False, ["router"])
    (kill,) = shell.snapshot.kills
    assert (kill.scope, kill.name, kill.mode, kill.by, kill.reason) == (scope, name, mode, "oncall", "wrong since noon")
    shell.at(shell.now)
    assert shell.run("kill", *words, *WHY)["is_complete"]


def test_a_release_is_rolled_back_without_a_mode_and_ordered_out_with_one(shell):
    challenger = shell.world.challenger[7:15]
    said = shell.run("kill", challenger, "--mode", "safe fallback", *WHY, code=6)
    assert said["kill"]["name"] == shell.world.challenger
    assert shell.world.store.rollout(shell.rollout.id).state is State.ROLLING_BACK
    lifted = shell.run("lift", POINT, said["kill"]["id"], "--reason", "mended", "--as", "oncall")
    assert lifted["lifted"]["id"] == said["kill"]["id"]
    assert shell.snapshot.kills == ()


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["3f9a", "--decision-point", POINT],
        ["3f9a", "--segment", "commuter"],
        ["--decision-point", POINT, "--segment", "commuter", "--action", "rebook"],
        ["--segment", "commuter"],
    ],
)
def test_a_kill_names_one_thing(shell, words):
    said = shell.run("kill", *words, *WHY, code=2)
    assert "name a RELEASE, or --decision-point" in said["error"]["message"]
    assert shell.snapshot.kills == ()


def test_a_drill_says_which_router_was_not_seen_and_leaves_no_order(shell):
    said = shell.run("drill", POINT, *WHY, code=6)
    assert (said["is_complete"], said["missing"]) == (False, ["router"])
    assert shell.snapshot.kills == ()
    kinds = [entry.record.kind for entry in shell.world.store.entries()]
    assert kinds[-3:] == ["kill.ordered", "kill.drilled", "kill.lifted"]


def test_a_unit_is_pinned_shown_and_unpinned(shell):
    champion = shell.world.champion[7:15]
    why = ("--reason", "in dispute", "--as", "oncall")
    made = shell.run("pin", POINT, champion, "--unit", "u1", "--for", "7 d", *why)["pin"]
    assert (made["unit_key"], made["release_id"]) == ("u1", shell.world.champion)
    words = ["--when", "carrier=OO", "--when", "carrier=YV"]
    rule = shell.run("pin", POINT, champion, *words, "--for", "7 d", *why)["pin"]
    assert rule["when"] == {"carrier": ["OO", "YV"]}
    assert shell.run("routers", POINT)["pins"] == 2
    shell.run("unpin", POINT, "--unit", "u1", *why)
    assert "nobody" in shell.run("unpin", POINT, "--unit", "nobody", *why, code=3)["error"]["message"]
    assert len(shell.snapshot.pins) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--for", "7 d"], "expected --unit or --when"),
        (["--for", "7 d", "--unit", "u1", "--when", "carrier=OO"], "expected --unit or --when"),
        (["--for", "soon", "--unit", "u1"], "expected a duration"),
        (["--for", "7 d", "--when", "carrier", "--when", "=OO"], "2 problems"),
    ],
)
def test_a_pin_that_is_none_is_refused(shell, words, message):
    said = shell.run("pin", POINT, shell.world.champion, *words, "--reason", "x", "--as", "oncall", code=2)
    assert message in said["error"]["message"]
    assert shell.snapshot.pins == ()


def test_routers_are_shown_with_what_they_serve_against_the_plan(shell):
    for n in range(200):
        shell.world.router.assign(f"u{n}", {}, now=shell.now)
    shell.at(shell.now)
    report = shell.world.store.reports(POINT)[0]
    shell.world.store.report(replace(report, router="old", number=1, lease_until=None, refused={"malformed": 2}))
    said = shell.run("routers", POINT)
    assert (said["planned_share"], said["number"]) == (shell.snapshot.share, shell.snapshot.number)
    old, live = said["routers"]
    assert (live["router"], live["units"], old["refused"]) == ("router", 200, "2 malformed")
    assert 0 < float(live["share"].rstrip("%")) < 100
    text = shell.run("routers", POINT, as_json=False)
    assert "challenger's share 5.00%" in text
    said = shell.run("routers", POINT, "--forget", "old", "--reason", "scrapped", "--as", "oncall")
    assert [router["router"] for router in said["routers"]] == ["router"]
    assert shell.run("routers", POINT, "--forget", "router", code=2)["error"]["kind"] == "usage"


def test_keys_and_tokens_are_made_and_shown_once(shell, tmp_path):
    assert main(["keys", "new", "k1", "--folder", str(tmp_path / "keys"), "--json"]) == 0
    made = json.loads(shell.capsys.readouterr().out)
    assert made == {
        "signing_key": str(tmp_path / "keys" / "k1.key"),
        "keyring": [str(tmp_path / "keys" / "k1.pub")],
    }
    assert main(["keys", "token", "oncall", "--json"]) == 0
    token = json.loads(shell.capsys.readouterr().out)
    shell.settings.write_text(shell.settings.read_text() + f"operators: {{oncall: {token['token']}}}\n")
    said = shell.run("status", code=2)
    assert token["token"] not in json.dumps(said)
    assert "64 hexadecimal digits" in said["error"]["message"]
