"""A decision that is recomputed from what is stored comes out the same, and a changed record does not."""

import copy
import json
from dataclasses import replace

import pytest
import yaml
from builders import DAY, HOUR, STAGES, T0, World, a_plan, a_release, evidence_at

from seatrial.adapters.clock import ReplayClock
from seatrial.adapters.memory import MemoryStore
from seatrial.adapters.sql import SqlStore
from seatrial.cli import main
from seatrial.control.assessing import assess
from seatrial.control.ending import kill
from seatrial.control.replaying import ABSENT, Result, read_chain, replay
from seatrial.control.waiving import waive
from seatrial.control.watching import watch
from seatrial.errors import NotFoundError, TamperedError, UnavailableError
from seatrial.evidence import Evidence, ShadowTally
from seatrial.gates.finding import Finding, Question
from seatrial.ledger import GENESIS, chain
from seatrial.ports import Commit
from seatrial.rollout import Choice, State
from seatrial.verdict import Verdict
from seatrial.wiring import open_plant

LOOKED = [Result.SAME] * 6


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "files")


@pytest.fixture(params=["memory", "sqlite"])
def either(request, tmp_path):
    if request.param == "memory":
        yield World(tmp_path / "files")
        return
    store = SqlStore(f"sqlite:///{tmp_path / 'store.sqlite'}")
    store.create_tables()
    yield World(tmp_path / "files", store)
    store.close()


def results(found):
    return [move.result for move in found.moves]


def differing(found):
    return {each.what: (each.recorded, each.found) for move in found.moves for each in move.differences}


class Changed:
    """A store that gives other answers than the one below it."""

    def __init__(self, store, **answers):
        self.store, self.answers = store, answers

    def __getattr__(self, name):
        return self.answers.get(name) or getattr(self.store, name)


def forged(store, change, **fields):
    """Return `store` with `change(kind, body)` applied to every record, and `fields` to moves, in a chain that fits."""
    entries, previous = [], GENESIS
    for entry in store.entries():
        body = copy.deepcopy(dict(entry.record.body))
        change(entry.record.kind, body)
        others = fields if entry.record.kind == "rollout.decided" else {}
        record = replace(entry.record, body=body, **others)
        entries.append(chain(record, number=entry.number, previous=previous))
        previous = entries[-1].hash
    return Changed(store, entries=lambda: entries)


def lost(*_):
    raise NotFoundError("not stored")


def in_decisions(to, change):
    """Return a forgery of the moves to one state."""

    def forge(kind, body):
        if kind == "rollout.decided" and body["to"] == to:
            change(body)

    return forge


# -- what was decided is decided again


def test_a_rollout_replays_the_same_from_its_start_to_its_promotion_and_the_end_of_its_watch(either):
    rollout, now = either.advance_to(State.CHAMPION)
    watch(either.ports, now=now + 14 * DAY)
    found = replay(either.store, rollout.id)
    assert results(found) == [*LOOKED, Result.NOT_RECOMPUTED, Result.SAME]
    assert found.moves[-2].note == "waited for the routers"
    assert all(move.recomputed for move in found.moves)
    assert (found.is_proven, found.stored, found.entries) == (True, (), len(either.store.entries()))


def test_a_rollout_replays_the_same_from_its_start_to_its_rollback(either):
    rollout, now = either.advance_to(State.CANARY)
    now += HOUR
    either.evidence.says = evidence_at(now, ratio=3.0)
    watch(either.ports, now=now)
    either.router.refresh(now=now)
    watch(either.ports, now=now)
    found = replay(either.store, rollout.id)
    assert [move.after for move in found.moves[-2:]] == [State.ROLLING_BACK, State.ROLLED_BACK]
    assert results(found) == [Result.SAME, Result.SAME, Result.SAME, Result.NOT_RECOMPUTED]
    assert found.is_proven


def test_the_logs_and_the_probe_are_not_asked(world):
    rollout, _ = world.advance_to(State.CHAMPION)
    world.evidence.says = world.probe.verdict = AssertionError("asked")
    (world.folder / "model.txt").unlink()
    assert replay(world.store, rollout.id).is_proven


@pytest.mark.parametrize(("choice", "after"), [(Choice.CONTINUE, State.GATES), (Choice.REJECT, State.ROLLING_BACK)])
def test_an_answer_of_a_person_is_replayed(either, choice, after):
    rollout, now = either.start(), T0 + 2 * DAY
    either.probe.verdict = None
    either.step(rollout, now)
    either.step(rollout, now + HOUR, choice)
    found = replay(either.store, rollout.id)
    assert (results(found), found.moves[-1].after) == ([Result.SAME, Result.SAME], after)
    assert found.is_proven


@pytest.mark.parametrize("choice", [Choice.CONTINUE, Choice.REJECT])
def test_an_answer_to_counts_that_decided_nothing_is_replayed(either, choice):
    rollout, now = either.advance_to(State.SHADOW)
    either.evidence.says = replace(evidence_at(now + 8 * DAY), shadow=ShadowTally(units=3))
    assert either.step(rollout, now + 8 * DAY).rollout.state is State.AWAITING_DECISION
    either.step(rollout, now + 8 * DAY + HOUR, choice)
    assert results(replay(either.store, rollout.id)) == [Result.SAME] * 3


@pytest.mark.parametrize("choice", [Choice.APPROVE, Choice.REJECT])
def test_an_approval_is_replayed(world, choice):
    rollout, now = world.advance_to(State.AWAITING_APPROVAL)
    world.step(rollout, now + HOUR, choice)
    assert results(replay(world.store, rollout.id)) == LOOKED


def test_a_rollback_at_a_deadline_without_logs_is_replayed_with_what_could_not_be_read(world):
    rollout, now = world.advance_to(State.SHADOW, a_plan(on_deadline="roll_back"))
    world.evidence.says = UnavailableError("down")
    world.step(rollout, now + 8 * DAY)
    found = replay(world.store, rollout.id)
    assert (found.moves[-1].result, found.moves[-1].recomputed, found.moves[-1].taken) == (Result.SAME, 0, 1)


def test_what_a_probe_found_is_taken_from_the_record_and_said_to_be(world):
    rollout, _ = world.advance_to(State.CANARY)
    gates, shadow = replay(world.store, rollout.id).moves
    assert (gates.recomputed, gates.taken) == (4, 2)
    assert shadow.taken == 1


def test_a_failed_probe_is_replayed_as_a_rejection(world):
    rollout = world.start()
    world.probe.verdict = Verdict.FAIL
    world.step(rollout, T0)
    (move,) = replay(world.store, rollout.id).moves
    assert (move.result, move.after) == (Result.SAME, State.REJECTED)


@pytest.mark.parametrize("state", [State.GATES, State.SHADOW, State.CANARY, State.LABELS, State.CHAMPION])
def test_a_kill_is_listed_with_who_did_it_and_why(either, state):
    rollout, now = either.advance_to(state)
    kill(either.ports, either.challenger, reason="fire", actor="oncall", now=now)
    found = replay(either.store, rollout.id)
    last = found.moves[-1]
    assert (last.result, last.note) == (Result.NOT_RECOMPUTED, "taken out by oncall")
    assert (last.actor, last.reason) == ("oncall", "oncall: fire")
    assert found.is_proven


def test_a_champion_that_another_one_replaced_is_replayed_to_its_retirement(world):
    first, now = world.advance_to(State.CHAMPION)
    second = world.start(world.register(a_release("second", world.challenger)), request="second", now=now)
    while second.state is not State.CHAMPION:
        now += DAY
        world.router.refresh(now=now)
        choice = Choice.APPROVE if second.state is State.AWAITING_APPROVAL else None
        second = world.step(second, now, choice).rollout
    watch(world.ports, now=now + 20 * DAY)
    found = replay(world.store, first.id)
    assert [move.after for move in found.moves[-2:]] == [State.SUPERSEDED, State.RETIRED]
    assert (found.moves[-2].result, found.moves[-2].note) == (Result.NOT_RECOMPUTED, "another rollout was promoted")
    assert found.moves[-1].result is Result.SAME
    assert found.is_proven


def test_a_rollout_without_a_move_is_proven_and_says_nothing_of_moves(world):
    rollout = world.start()
    found = replay(world.store, rollout.id)
    assert (found.moves, found.is_proven) == ((), True)


# -- what was changed is found


def test_an_entry_that_does_not_fit_the_chain_is_found_before_anything_is_recomputed(world):
    rollout, _ = world.advance_to(State.CANARY)
    mixed = list(world.store.entries())
    mixed[4] = replace(mixed[4], record=replace(mixed[4].record, actor="nobody"))
    with pytest.raises(TamperedError, match="ledger entry 5"):
        replay(Changed(world.store, entries=lambda: mixed, plan=lost), rollout.id)


def first_number(body):
    finding = next(finding for finding in body["findings"] if finding["numbers"])
    finding["numbers"][next(iter(finding["numbers"]))] = "77"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (first_number, "number"),
        (lambda body: body["findings"][2].update(verdict="INCONCLUSIVE"), "verdict"),
        (lambda body: body["findings"][2].update(reason="all is well"), "reason"),
        (lambda body: body["findings"][2].update(is_binding=False), "is_binding"),
        (lambda body: body["findings"].pop(2), "·"),
        (lambda body: body["findings"].append({**body["findings"][2], "subject": "made up"}), "made up"),
        (lambda body: body["findings"].reverse(), "order of the findings"),
        (lambda body: body.update(reason="all is well"), "reason"),
        (lambda body: body.update(deadline=None), "deadline"),
        (lambda body: body.update(champion="another"), "champion"),
        (lambda body: body.update(more="than there was"), "more"),
        (lambda body: body.pop("plan_id"), "plan_id"),
        (lambda body: body.update({"from": "gates"}), "from"),
        (lambda body: body.update(version=9), "version"),
        (lambda body: body.update(stage=5), "stage"),
    ],
)
def test_every_part_of_a_record_that_was_changed_is_named(world, change, what):
    rollout, _ = world.advance_to(State.LABELS)
    found = replay(forged(world.store, in_decisions("labels", change)), rollout.id)
    assert not found.is_proven
    assert results(found)[-1] is Result.DIFFERS
    assert [name for name in differing(found) if what in name]


@pytest.mark.parametrize("name", ["key", "decision_point"])
def test_a_record_that_was_changed_around_its_body_is_found(world, name):
    rollout, _ = world.advance_to(State.CANARY)
    found = replay(forged(world.store, lambda *_: None, **{name: "another"}), rollout.id)
    assert set(differing(found)) == {name}


def test_a_recorded_state_that_no_decision_leads_to_is_found(world):
    rollout, _ = world.advance_to(State.LABELS)
    other = forged(world.store, in_decisions("labels", lambda body: body.update(to="champion")))
    found = replay(other, rollout.id)
    assert differing(found)["move"] == ("canary to champion", "no such move is possible")
    assert {each.what for each in found.stored} == {"state"}


def test_a_move_that_the_findings_do_not_lead_to_is_found_with_what_they_lead_to(world):
    rollout, _ = world.advance_to(State.CANARY)
    little = replace(evidence_at(T0 + 2 * DAY), shadow=ShadowTally(units=3))
    world.store.commit(Commit(records=(), evidence=little))
    # The record and the stored evidence fit together; the decision does not follow from them.
    other = forged(world.store, in_decisions("canary", lambda body: body.update(evidence_digest=little.digest)))
    recorded, recomputed = differing(replay(other, rollout.id))["action"]
    assert recorded.startswith("advance: shadow")
    assert recomputed.startswith("hold: 0 of 3 shadow calls")


def test_findings_of_proven_harm_beside_a_promotion_are_found(world):
    rollout, now = world.advance_to(State.CHAMPION)
    bad = evidence_at(now, ratio=3.0)
    world.store.commit(Commit(records=(), evidence=bad))
    other = forged(world.store, in_decisions("champion", lambda body: body.update(evidence_digest=bad.digest)))
    assert differing(replay(other, rollout.id))["action"][1].startswith("roll back: wrong-decision")


def test_an_answer_to_other_evidence_is_found(world):
    rollout, now = world.advance_to(State.AWAITING_APPROVAL)
    world.step(rollout, now + HOUR, Choice.APPROVE)
    change = in_decisions("promoting", lambda body: body["answer"].update(evidence_digest="sha256:another"))
    assert "refused" in differing(replay(forged(world.store, change), rollout.id))["action"][1]


def test_an_answer_that_was_taken_out_is_found(world):
    rollout, now = world.advance_to(State.AWAITING_APPROVAL)
    world.step(rollout, now + HOUR, Choice.APPROVE)
    found = replay(forged(world.store, in_decisions("promoting", lambda body: body.pop("answer"))), rollout.id)
    assert differing(found)["action"][1] == "hold: a person must approve"


def test_a_kill_with_changed_evidence_is_found(world):
    rollout, now = world.advance_to(State.CANARY)
    kill(world.ports, world.challenger, reason="fire", actor="oncall", now=now)
    digest = Evidence().digest
    change = in_decisions("rolling back", lambda body: body.update(evidence_digest=digest))
    found = replay(forged(world.store, change), rollout.id)
    assert differing(found)["evidence_digest"][0] == digest


def test_evidence_that_is_missing_is_an_error_and_the_other_moves_are_still_replayed(world):
    rollout, _ = world.advance_to(State.LABELS)
    last = world.store.rollout(rollout.id).evidence_digest

    def evidence(digest):
        return lost() if digest == last else world.store.evidence(digest)

    found = replay(Changed(world.store, evidence=evidence), rollout.id)
    assert results(found) == [Result.SAME, Result.SAME, Result.SAME, Result.ERROR]
    assert found.moves[-1].reason == "not stored"
    assert not found.is_proven


def test_evidence_that_was_changed_is_an_error(world):
    rollout, _ = world.advance_to(State.LABELS)
    change = {"crossed": 1}
    store = Changed(world.store, evidence=lambda digest: {**world.store.evidence(digest), **change})
    found = replay(store, rollout.id)
    assert set(results(found)) == {Result.ERROR}
    assert "found counts of digest" in found.moves[-1].reason


def test_a_stored_rollout_that_the_ledger_does_not_lead_to_is_found(world):
    rollout, _ = world.advance_to(State.CANARY)
    other = replace(rollout, state=State.CHAMPION, reason="because")
    found = replay(Changed(world.store, rollout=lambda _: other), rollout.id)
    assert {each.what: each.found for each in found.stored} == {"state": "champion", "reason": "because"}
    assert not found.is_proven


def test_a_plan_that_is_not_the_one_it_was_started_with_is_tampered(world):
    rollout, _ = world.advance_to(State.CANARY)
    with pytest.raises(TamperedError, match="a plan of digest"):
        replay(Changed(world.store, plan=lambda _: a_plan(lease="6 h")), rollout.id)


@pytest.mark.parametrize("kind", ["plan", "release"])
def test_a_plan_or_release_that_is_missing_is_tampered_and_not_an_unknown_name(world, kind):
    rollout, _ = world.advance_to(State.CANARY)
    with pytest.raises(TamperedError, match="started with"):
        replay(Changed(world.store, **{kind: lost}), rollout.id)


def test_a_release_that_is_another_one_is_tampered(world):
    rollout, _ = world.advance_to(State.CANARY)
    champion = world.store.release(world.champion)
    with pytest.raises(TamperedError, match="a manifest of digest"):
        replay(Changed(world.store, release=lambda _: champion), rollout.id)


@pytest.mark.parametrize("change", [lambda body: body.clear(), lambda body: body.update(to="paradise")])
def test_a_record_that_cannot_be_read_is_tampered(world, change):
    rollout, _ = world.advance_to(State.CANARY)
    with pytest.raises(TamperedError, match=r"entry \d+ \(rollout.decided\)"):
        replay(forged(world.store, in_decisions("canary", change)), rollout.id)


def test_a_rollout_without_an_entry_of_its_start_is_tampered(world):
    rollout, _ = world.advance_to(State.CANARY)
    records = [entry.record for entry in world.store.entries() if entry.record.kind != "rollout.started"]
    other = MemoryStore()
    other.append(records)
    with pytest.raises(TamperedError, match="no entry of its start"):
        replay(Changed(world.store, entries=other.entries), rollout.id)


def test_an_unknown_rollout_is_not_found(world):
    with pytest.raises(NotFoundError):
        replay(world.store, "nothing")


def test_a_rollout_that_moves_while_the_ledger_is_read_is_read_again(world):
    rollout, now = world.advance_to(State.CANARY)

    told = []

    def entries():
        found = list(world.store.entries())
        if not told:
            told.append(kill(world.ports, world.challenger, reason="fire", actor="oncall", now=now))
        return found

    found = replay(Changed(world.store, entries=entries), rollout.id)
    assert (found.is_proven, found.rollout.state) == (True, State.ROLLING_BACK)


def test_a_chain_that_cannot_be_read_is_tampered():
    def entries():
        raise ValueError("no JSON")

    with pytest.raises(TamperedError, match="no JSON"):
        read_chain(Changed(None, entries=entries))


# -- the command


@pytest.fixture
def command(tmp_path, monkeypatch, capsys):
    """A world in the database of a settings file, and the command on it."""
    for name in ("SEATRIAL_DATABASE_URL", "COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    settings = {"logs": "logs", "replay_clock": "event-time", "approvers": {"dana": ["risk-owner"]}}
    (tmp_path / "seatrial.yaml").write_text(yaml.safe_dump(settings))
    monkeypatch.setenv("SEATRIAL_SETTINGS", str(tmp_path / "seatrial.yaml"))
    ReplayClock(tmp_path / "event-time").advance(T0)
    plant = open_plant(tmp_path / "seatrial.yaml", {})
    world = World(tmp_path / "files", plant.store)

    def call(*words):
        capsys.readouterr()
        code = main(["replay", *words])
        out, err = capsys.readouterr()
        return code, out, err

    yield world, call
    plant.store.close()


def test_the_command_lists_every_move_and_ends_with_0_when_all_are_the_same(command):
    world, call = command
    rollout, _ = world.advance_to(State.CHAMPION)
    code, out, err = call(rollout.id[:6])
    assert (code, err) == (0, "")
    assert "chain verified" in out
    assert "6 same, 1 not recomputed" in out
    assert "4 + 2 recorded" in out
    document = json.loads(call(rollout.id, "--json")[1])
    assert document["is_proven"] is True
    assert [move["result"] for move in document["moves"]] == [*map(str, LOOKED), "not recomputed"]


def test_the_command_shows_what_differs_and_ends_with_5(command):
    world, call = command
    rollout, _ = world.advance_to(State.CANARY)
    with world.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE rollouts SET reason = 'because'")
        connection.exec_driver_sql("DELETE FROM evidence WHERE digest = ?", (rollout.evidence_digest,))
    code, out, _ = call(rollout.id)
    assert code == 5
    assert "ERROR" in out
    assert "not stored" in out
    assert "against the ledger: reason" in out
    assert "stored: because" in out
    assert "NOT the one that the ledger leads to" in out
    code, out, _ = call(rollout.id, "--json")
    document = json.loads(out)
    assert (code, document["is_proven"]) == (5, False)
    assert document["stored_differences"][0]["stored"] == "because"


def test_the_command_finds_a_broken_chain_first(command):
    world, call = command
    rollout, _ = world.advance_to(State.CANARY)
    with world.store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ledger SET actor = 'nobody' WHERE number = 3")
    code, out, err = call(rollout.id)
    assert (code, out) == (5, "")
    assert "ledger entry 3" in err


def test_a_field_that_one_side_does_not_have_is_called_absent(world):
    rollout, _ = world.advance_to(State.CANARY)
    change = in_decisions("canary", lambda body: body.pop("plan_id"))
    assert differing(replay(forged(world.store, change), rollout.id))["plan_id"] == (ABSENT, rollout.plan_id)


# -- declared gates


def waived(world):
    """Return a rollout that left its gates by the answer to one gate and the waiver of another."""
    asks = {"parts": {}, "catalogue": {"actions": {"none": True}, "waivable": "failed"}}
    rollout = world.start(plan=a_plan(stages=[{**STAGES[0], **asks}, *STAGES[1:]]))
    for gate, verdict in (("parts", Verdict.PASS), ("catalogue", Verdict.FAIL)):
        world.examiner.answers[gate] = [Finding(Question.CONTRACT, f"{gate} · challenger", verdict, gate, {"n": 0.5})]
        assess(world.ports, rollout.id, gate, now=T0, actor="test")
    expires = T0 + DAY
    waive(world.ports, rollout.id, "catalogue", by="approver", reason="known", expires=expires, now=T0)
    assert world.step(rollout, T0 + HOUR).rollout.state is State.SHADOW
    return rollout


def test_what_gates_answered_is_recomputed_from_their_own_records(either):
    rollout = waived(either)
    found = replay(either.store, rollout.id)
    assert found.is_proven
    assert found.moves[0].taken == 2  # the two probes


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("gate.answered", lambda body: body["findings"][0].update(verdict="INCONCLUSIVE")),
        ("gate.answered", lambda body: body["findings"][0]["numbers"].update(n="0.6")),
        ("gate.waived", lambda body: body.update(digest="another")),
        ("gate.waived", lambda body: body.update(expires="2013-06-01T00:30:00.000000Z")),
        ("gate.waived", lambda body: body.update(gate="parts")),
    ],
)
def test_a_record_of_a_gate_that_was_changed_is_found(world, kind, change):
    rollout = waived(world)
    other = forged(world.store, lambda found, body: change(body) if found == kind else None)
    assert not replay(other, rollout.id).is_proven


def test_an_answer_of_a_gate_that_is_in_no_record_is_found(world):
    rollout = waived(world)
    hidden = [e for e in world.store.entries() if e.record.kind != "gate.answered"]
    entries, previous = [], GENESIS
    for number, entry in enumerate(hidden, 1):
        entries.append(chain(entry.record, number=number, previous=previous))
        previous = entries[-1].hash
    assert not replay(Changed(world.store, entries=lambda: entries), rollout.id).is_proven
