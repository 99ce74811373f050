import json
from base64 import b64decode
from datetime import timedelta

import pytest
from builders import DAY, HOUR, POINT, T0, World

from seatrial.adapters.keys import new_key
from seatrial.adapters.sql import SqlStore
from seatrial.cli.app import main
from seatrial.control.ending import roll_back_decision_point
from seatrial.control.questions import approvals, known_at, rollbacks, who_decided
from seatrial.control.watching import watch
from seatrial.errors import NotFoundError
from seatrial.ledger import Record
from seatrial.merkle import is_continued, is_included, leaf_of
from seatrial.rollout import State


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "files")


def test_who_decided_is_told_by_segment_share_and_every_component(world):
    _, now = world.advance_to(State.CANARY)
    before = who_decided(world.ports, POINT, segment="commuter", at=T0)
    assert [(each["release"], each["share"]) for each in before["releases"]] == [(world.champion, 1.0)]
    after = who_decided(world.ports, POINT, segment="commuter", at=now)
    assert [(each["release"], each["role"], each["share"]) for each in after["releases"]] == [
        (world.champion, "champion", 0.95),
        (world.challenger, "challenger", 0.05),
    ]
    assert set(after["releases"][1]["components"]) >= {"model", "features", "policy"}
    with pytest.raises(NotFoundError):
        who_decided(world.ports, "elsewhere", segment=None, at=now)


def test_what_was_recorded_later_was_not_known_before(world):
    _, now = world.advance_to(State.CANARY)
    # Recorded late about an early hour: known only since the entry before it.
    world.store.append([Record(T0, "kill.observed", "routers", POINT, None, "late", {})])
    keys = [entry.record.key for entry in known_at(world.store.entries(), now - timedelta(seconds=1))]
    assert "late" not in keys
    assert "late" in [entry.record.key for entry in known_at(world.store.entries(), now)]
    asked = who_decided(world.ports, POINT, segment=None, at=now, as_known_at=T0)
    assert [each["release"] for each in asked["releases"]] == [world.champion]


def test_an_approval_names_who_why_and_what_was_seen(world):
    world.advance_to(State.CHAMPION)
    (answer,) = approvals(world.ports)
    assert (answer["by"], answer["choice"], answer["reason"]) == ("approver", "approve", "read it")
    assert answer["evidence_digest"].startswith("sha256:")


def test_a_rollback_tells_trigger_order_and_effect(world):
    _, now = world.advance_to(State.CANARY)
    roll_back_decision_point(world.ports, POINT, reason="losses doubled", actor="on-call", now=now)
    (ordered,) = rollbacks(world.ports)
    assert (ordered["trigger"], ordered["by"], ordered["effect_at"]) == ("on-call: losses doubled", "on-call", None)
    world.router.refresh(now=now)
    watch(world.ports, now=now + HOUR)
    (seen,) = rollbacks(world.ports)
    assert seen["seconds_to_effect"] == 3_600.0


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Return settings with a ledger that is signed and anchored, and a champion that was promoted."""
    monkeypatch.delenv("SEATRIAL_DATABASE_URL", raising=False)
    new_key(tmp_path / "keys", "ledger")
    store = SqlStore(f"sqlite:///{tmp_path / 'seatrial.sqlite'}")
    store.create_tables()
    _, now = World(tmp_path / "files", store).advance_to(State.CHAMPION)
    store.close()
    (tmp_path / "now").write_text((now + DAY).isoformat())
    path = tmp_path / "seatrial.yaml"
    path.write_text(
        "logs: logs\nreplay_clock: now\napprovers: {}\n"
        "ledger: {origin: ships.example/ledger, key: keys/ledger.key, keys: [{file: keys/ledger.pub}],"
        " anchors: [{file: anchor.jsonl}]}\n"
    )
    return path


def run(settings, *words):
    return main(["audit", *words, "--settings", str(settings)])


def test_a_ledger_is_signed_proven_and_handed_out_by_commands(settings, tmp_path, capsys):
    assert run(settings, "verify") == 0
    assert "unproven" in capsys.readouterr().out
    assert run(settings, "checkpoint") == 0
    assert run(settings, "verify", "--json") == 0
    said = capsys.readouterr().out
    assert json.loads(said[said.index("{") :])["proof"] == "proven"
    assert run(settings, "export", str(tmp_path / "export")) == 0
    assert run(settings, "export", str(tmp_path / "export")) == 1
    assert run(settings, "keys") == 0
    assert "ships.example/ledger+" in capsys.readouterr().out
    assert run(settings, "outside") == 0
    assert run(settings, "erase", "1", "--reason", "request 17", "--as", "dana") == 1
    assert run(settings, "who-decided", POINT, "--at", "2013-06-01T00:00:00Z") == 0
    assert run(settings, "who-decided", POINT, "--at", "yesterday") == 2
    for question in ("approvals", "waivers", "rollbacks"):
        assert run(settings, question) == 0
    assert run(settings, "decision", "unknown") == 3


def test_an_edit_ends_the_audit_with_the_code_of_tampering(settings, tmp_path, capsys):
    store = SqlStore(f"sqlite:///{tmp_path / 'seatrial.sqlite'}")
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ledger SET actor = 'nobody' WHERE number = 3")
    store.close()
    assert run(settings, "verify") == 5
    assert "chain  entry 3" in capsys.readouterr().out
    assert run(settings, "checkpoint") == 0  # nothing was signed before that it could contradict


def test_a_proof_of_one_entry_verifies_by_itself(settings, capsys):
    assert run(settings, "prove", "3") == 1
    assert run(settings, "checkpoint") == 0
    capsys.readouterr()
    assert run(settings, "prove", "3") == 0
    proof = json.loads(capsys.readouterr().out)
    point = proof["inclusion"]
    size, root = (int(proof["checkpoint"].split("\n")[1]), b64decode(proof["checkpoint"].split("\n")[2]))
    path = [b64decode(node) for node in point["path"]]
    assert is_included(leaf_of(proof["entry"]["hash"]), point["index"], size, path, root)
    assert is_continued(size, root, size, root, proof["consistency"]["path"])
    assert run(settings, "prove", "999") == 3
