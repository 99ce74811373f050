from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import get_args

import pytest
from builders import DAY, HOUR, STAGES, T0, World, a_plan, a_release, a_rollout, an_answer

from seatrial.adapters.asking import Declared, Examiners
from seatrial.adapters.memory import MemoryExaminer
from seatrial.control.assessing import assess, gate_findings, open_gates
from seatrial.control.replaying import replay
from seatrial.control.waiving import LONGEST, waive
from seatrial.errors import NotFoundError, RefusedError, UnavailableError
from seatrial.gates.contract import contract
from seatrial.gates.finding import Finding, Question
from seatrial.plan import Ask, Gates
from seatrial.ports import Case
from seatrial.report.wording import next_step
from seatrial.rollout import Action, Choice, State, decide
from seatrial.verdict import Verdict
from seatrial.waiver import waived_of
from seatrial.wiring import open_plant

ACTIONS = {"none": True, "review": True, "rebook": False}
CONSUMERS = {"known": [{"name": "crew-planning", "reads": "score", "owners": ["ines"]}]}


def asking(waivable=None, **asks):
    """Return a plan whose gates ask `asks`, by default the catalogue."""
    asks = asks or {"catalogue": {"actions": ACTIONS}}
    if waivable is not None:
        asks = {name: {**ask, "waivable": waivable} for name, ask in asks.items()}
    return a_plan(stages=[{**STAGES[0], **asks}, *STAGES[1:]])


def says(verdict, reason="because", subject="catalogue · challenger"):
    return Finding(Question.CONTRACT, subject, verdict, reason, {"value": 0.5})


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.router.refresh(now=T0)
    return world


def answered(world, verdict, *, plan=None, **kwargs):
    """Start a rollout whose one gate answers `verdict`, and return it."""
    rollout = world.start(plan=plan or asking())
    world.examiner.answers["catalogue"] = verdict if isinstance(verdict, Exception) else [says(verdict)]
    assess(world.ports, rollout.id, "catalogue", now=T0, actor="test", **kwargs)
    return rollout


def waived(world, rollout, *, now=T0, by="approver", reason="the slice is two flights", ends=3 * DAY):
    return waive(world.ports, rollout.id, "catalogue", by=by, reason=reason, expires=now + ends, now=now)


def test_a_plan_without_declared_gates_keeps_its_digest():
    assert a_plan().gates.asked() == {}
    assert "catalogue" not in a_plan().document()["stages"][0]


def test_a_declared_gate_stands_in_the_canonical_plan_and_changes_its_digest():
    assert asking().id != a_plan().id
    assert asking().document()["stages"][0]["catalogue"] == {"actions": ACTIONS}
    assert asking(waivable="undecided").id == asking().id


def test_no_declared_gate_has_the_name_of_a_question_that_is_always_asked():
    always = {f.subject for f in contract(a_release(), a_release(), bounds=a_plan().gates.bounds)} | {"load"}
    assert not always & set(Gates.model_fields)


def test_a_gate_without_an_answer_holds_the_rollout_and_never_passes(world):
    rollout = world.start(plan=asking())
    outcome = world.step(rollout, T0)
    assert outcome.decision.action is Action.HOLD
    assert outcome.decision.reason == "gate catalogue has not been answered yet"
    assert outcome.judged.findings[-1].verdict is Verdict.INCONCLUSIVE


def test_a_gate_that_passes_lets_the_rollout_into_its_shadow(world):
    rollout = answered(world, Verdict.PASS)
    assert world.step(rollout, T0).rollout.state is State.SHADOW


def test_a_gate_that_fails_rejects_the_rollout(world):
    rollout = answered(world, Verdict.FAIL)
    assert world.step(rollout, T0).rollout.state is State.REJECTED


@pytest.mark.parametrize("error", [ValueError("no such column"), KeyError("x"), ZeroDivisionError()])
def test_a_gate_that_raises_is_an_error_that_blocks(world, error):
    rollout = answered(world, error)
    outcome = world.step(rollout, T0)
    assert outcome.decision.action is Action.HOLD
    assert outcome.judged.findings[-1].verdict is Verdict.ERROR
    assert type(error).__name__ in outcome.judged.findings[-1].reason


def test_a_part_that_does_not_answer_leaves_an_error_and_is_tried_again(world):
    rollout = world.start(plan=asking())
    world.examiner.answers["catalogue"] = UnavailableError("warehouse: no answer")
    with pytest.raises(UnavailableError, match="warehouse"):
        assess(world.ports, rollout.id, "catalogue", now=T0, actor="test")
    assert world.store.gate_answers(rollout.id)["catalogue"].verdict is Verdict.ERROR
    assert open_gates(world.store, rollout) == (("catalogue",),)
    world.examiner.answers["catalogue"] = [says(Verdict.PASS)]
    assess(world.ports, rollout.id, "catalogue", now=T0 + HOUR, actor="test")
    assert open_gates(world.store, rollout) == ()
    assert world.step(rollout, T0 + HOUR).rollout.state is State.SHADOW


@pytest.mark.parametrize(
    "found",
    [
        [],
        [says(Verdict.PASS, subject="semantics · delay")],
        [replace(says(Verdict.PASS), question=Question.SHADOW)],
        [says(Verdict.PASS), says(Verdict.PASS, subject="cataloguer")],
    ],
)
def test_an_answer_about_nothing_or_something_else_is_an_error(world, found):
    rollout = world.start(plan=asking())
    world.examiner.answers["catalogue"] = found
    assert assess(world.ports, rollout.id, "catalogue", now=T0, actor="test").verdict is Verdict.ERROR


def test_without_a_part_that_answers_gates_a_declared_gate_is_an_error(world):
    rollout = world.start(plan=asking())
    ports = replace(world.ports, examiner=None)
    assert assess(ports, rollout.id, "catalogue", now=T0, actor="test").verdict is Verdict.ERROR


def test_the_same_inputs_are_asked_once_and_other_data_again(world):
    rollout = answered(world, Verdict.PASS)
    again = assess(world.ports, rollout.id, "catalogue", now=T0 + HOUR, actor="test")
    assert len(world.examiner.asked) == 1
    assert again.verdict is Verdict.PASS
    world.examiner.data["catalogue"] = {"reference": "sha256:other"}
    assess(world.ports, rollout.id, "catalogue", now=T0 + HOUR, actor="test")
    assert len(world.examiner.asked) == 2
    assess(world.ports, rollout.id, "catalogue", now=T0 + HOUR, actor="test", is_again=True)
    assert len(world.examiner.asked) == 3


def test_an_error_is_not_remembered_as_an_answer_to_the_same_inputs(world):
    rollout = answered(world, ValueError("broken"))
    world.examiner.answers["catalogue"] = [says(Verdict.PASS)]
    assert assess(world.ports, rollout.id, "catalogue", now=T0, actor="test").verdict is Verdict.PASS


def test_every_answer_is_in_the_ledger_with_what_it_read(world):
    world.examiner.data["catalogue"] = {"reference": "sha256:1"}
    rollout = answered(world, Verdict.FAIL)
    (record,) = [e.record for e in world.store.entries(rollout.id) if e.record.kind == "gate.answered"]
    assert record.body["read"] == {"reference": "sha256:1"}
    assert record.body["findings"][0]["verdict"] == "FAIL"
    assert record.body["digest"] == world.store.gate_answers(rollout.id)["catalogue"].digest


def test_the_same_answer_again_is_recorded_once_and_one_that_returns_is_recorded_anew(world):
    rollout = answered(world, Verdict.PASS)
    for verdict in (Verdict.PASS, Verdict.FAIL, Verdict.FAIL, Verdict.PASS):
        world.examiner.answers["catalogue"] = [says(verdict)]
        assess(world.ports, rollout.id, "catalogue", now=T0, actor="test", is_again=True)
    recorded = [e.record.body["verdict"] for e in world.store.entries(rollout.id) if e.record.kind == "gate.answered"]
    assert recorded == ["PASS", "FAIL", "PASS"]


def test_a_gate_that_the_plan_does_not_declare_is_not_asked(world):
    rollout = world.start(plan=asking())
    with pytest.raises(NotFoundError, match="catalogue"):
        assess(world.ports, rollout.id, "catalog", now=T0, actor="test")


def test_gates_that_are_behind_a_rollout_are_not_asked_again(world):
    rollout = world.step(answered(world, Verdict.PASS), T0).rollout
    with pytest.raises(RefusedError, match="behind it"):
        assess(world.ports, rollout.id, "catalogue", now=T0, actor="test")


def test_a_decision_on_answers_of_gates_replays(world):
    rollout = answered(world, Verdict.INCONCLUSIVE)
    waived(world, rollout)
    world.step(rollout, T0 + HOUR)
    replayed = replay(world.store, rollout.id)
    assert replayed.is_proven
    assert len(replayed.moves) == 1


def test_an_inconclusive_gate_passes_by_a_waiver_that_every_record_shows(world):
    rollout = answered(world, Verdict.INCONCLUSIVE)
    held = world.step(rollout, T0)
    assert held.decision.action is Action.HOLD
    assert held.judged.findings[-1].is_waivable
    todo = next_step(held.rollout, world.store.plan(rollout.plan_id), held.judged.findings)
    assert todo.startswith("Mend the cause and start a mended release, or a person with the role risk-owner waives")
    waived(world, rollout)
    moved = world.step(rollout, T0 + HOUR)
    assert moved.rollout.state is State.SHADOW
    finding = moved.judged.findings[-1]
    assert (finding.verdict, finding.is_binding) == (Verdict.INCONCLUSIVE, False)
    assert finding.reason == (
        "waived by approver until 2013-06-04 00:00 UTC, by a reason in the ledger; the answer was: because"
    )
    assert waived_of(world.store.entries(rollout.id))[0].by == "approver"


def test_no_finding_repeats_the_own_words_of_a_person_which_may_have_to_be_erased(world):
    rollout = answered(world, Verdict.INCONCLUSIVE)
    waived(world, rollout, reason="my aunt is on it")
    outcome = world.step(rollout, T0)
    assert not [finding for finding in outcome.judged.findings if "aunt" in finding.reason]


def test_a_failed_gate_is_waived_only_where_the_plan_says_so(world):
    rollout = answered(world, Verdict.FAIL)
    with pytest.raises(RefusedError, match="FAIL, expected what the plan lets people waive"):
        waived(world, rollout)


def test_a_failed_gate_that_may_be_waived_holds_until_somebody_does(world):
    rollout = answered(world, Verdict.FAIL, plan=asking(waivable="failed"))
    assert world.step(rollout, T0).decision.action is Action.HOLD
    waived(world, rollout)
    assert world.step(rollout, T0).rollout.state is State.SHADOW


def test_a_failed_gate_that_nobody_waives_goes_the_way_of_the_deadline(world):
    rollout = answered(world, Verdict.FAIL, plan=asking(waivable="failed"))
    assert world.step(rollout, T0 + 2 * DAY).rollout.state is State.AWAITING_DECISION


@pytest.mark.parametrize("waivable", ["never", "undecided", "failed"])
def test_a_gate_that_could_not_be_asked_is_waived_by_nobody(world, waivable):
    rollout = answered(world, ValueError("broken"), plan=asking(waivable=waivable))
    with pytest.raises(RefusedError, match="is ERROR"):
        waived(world, rollout)


def test_a_plan_may_let_nobody_waive(world):
    rollout = answered(world, Verdict.INCONCLUSIVE, plan=asking(waivable="never"))
    with pytest.raises(RefusedError, match="never"):
        waived(world, rollout)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"by": "nobody"}, "not among the approvers"),
        ({"by": "reader"}, "the plan asks for one of"),
        ({"by": "requester"}, "somebody else must approve"),
        ({"by": "author"}, "somebody else must approve"),
        ({"by": "trainer"}, "somebody else must approve"),
        ({"reason": "  "}, "no reason"),
        ({"ends": timedelta(0)}, "an end after now"),
        ({"ends": LONGEST + timedelta(seconds=1)}, "within 90 d"),
    ],
)
def test_a_waiver_needs_an_independent_person_a_reason_and_an_end(world, changes, why):
    rollout = answered(world, Verdict.INCONCLUSIVE)
    with pytest.raises(RefusedError, match=why):
        waived(world, rollout, **changes)
    assert waived_of(world.store.entries(rollout.id)) == []


def test_a_gate_that_passed_or_was_not_answered_needs_no_waiver(world):
    rollout = world.start(plan=asking())
    with pytest.raises(NotFoundError, match="not answered yet"):
        waived(world, rollout)
    world.examiner.answers["catalogue"] = [says(Verdict.PASS)]
    assess(world.ports, rollout.id, "catalogue", now=T0, actor="test")
    with pytest.raises(RefusedError, match="it passed"):
        waived(world, rollout)


def test_a_waiver_ends(world):
    rollout = answered(world, Verdict.INCONCLUSIVE)
    waived(world, rollout, ends=HOUR)
    plan = world.store.plan(rollout.plan_id)
    assert not gate_findings(world.store, rollout, plan, now=T0 + HOUR - timedelta(seconds=1))[0].is_binding
    (ended,) = gate_findings(world.store, rollout, plan, now=T0 + HOUR)
    assert ended.is_binding
    assert "the waiver of approver ended 2013-06-01 01:00 UTC" in ended.reason


def test_a_waiver_counts_for_the_answer_that_was_waived_and_no_other(world):
    rollout = answered(world, Verdict.INCONCLUSIVE)
    waived(world, rollout)
    world.examiner.answers["catalogue"] = [says(Verdict.INCONCLUSIVE, "another slice")]
    assess(world.ports, rollout.id, "catalogue", now=T0, actor="test", is_again=True)
    assert world.step(rollout, T0).decision.action is Action.HOLD


def test_a_waiver_that_ends_on_the_way_holds_the_share_until_it_is_given_anew(world):
    rollout = answered(world, Verdict.INCONCLUSIVE)
    waived(world, rollout, ends=2 * DAY)
    now = T0
    for _ in range(5):
        now += DAY
        world.router.refresh(now=now)
        rollout = world.step(rollout, now).rollout
    assert rollout.state is State.SHADOW
    assert "the waiver of approver ended" in world.step(rollout, now).decision.reason
    waived(world, rollout, now=now)
    assert world.step(rollout, now).rollout.state is State.CANARY


def test_an_approval_is_refused_while_a_waiver_has_ended():
    rollout = a_rollout(State.AWAITING_APPROVAL, 5)
    ended = says(Verdict.INCONCLUSIVE)
    with pytest.raises(RefusedError, match="waive it anew"):
        decide(rollout, a_plan(), [ended], now=T0, answer=an_answer(Choice.APPROVE))
    assert decide(rollout, a_plan(), [ended], now=T0, answer=an_answer(Choice.REJECT)).action is Action.ROLL_BACK


def test_gates_that_measure_the_machine_are_asked_alone_and_last(world, monkeypatch):
    plan = asking(catalogue={"actions": ACTIONS}, consumers=CONSUMERS, parts={})
    monkeypatch.setattr(type(plan.gates.asked()["parts"]), "is_alone", True)
    assert open_gates(world.store, world.start(plan=plan)) == (("catalogue", "consumers"), ("parts",))


def a_case(challenger, champion, ask):
    plan = asking(catalogue=ask)
    registered = [type("Registered", (), {"release": release}) for release in (challenger, champion)]
    return Case("catalogue", plan.gates.asked()["catalogue"], plan, *registered)


def test_the_catalogue_names_actions_that_nobody_carries_out_or_that_are_undone_otherwise():
    known = {"none": True, "review": True, "call": True}
    found = Declared().examine(a_case(a_release(), a_release("champion"), {"actions": known}))
    assert [f.verdict for f in found] == [Verdict.FAIL, Verdict.FAIL]
    assert found[0].reason == "rebook is carried out by nobody"
    found = Declared().examine(a_case(a_release(), a_release("champion"), {"actions": dict.fromkeys(ACTIONS, True)}))
    assert found[0].reason == "rebook is called irreversible and is reversible"
    found = Declared().examine(a_case(a_release(), a_release("champion"), {"actions": ACTIONS}))
    assert {f.verdict for f in found} == {Verdict.PASS}


def test_a_gate_that_no_part_answers_is_named():
    case = a_case(a_release(), a_release("champion"), {"actions": ACTIONS})
    assert Examiners({"catalogue": MemoryExaminer()}).examine(case) == ()
    for ask in (Examiners().reads, Examiners().examine):
        with pytest.raises(NotFoundError, match="catalogue"):
            ask(case)


def test_wiring_answers_every_gate_that_a_plan_can_declare(tmp_path):
    settings = tmp_path / "settings.yaml"
    settings.write_text("logs: logs\napprovers: {}\n")
    plant = open_plant(settings, {})
    declared = {
        name
        for name, info in Gates.model_fields.items()
        if any(isinstance(part, type) and issubclass(part, Ask) for part in get_args(info.annotation))
    }
    assert declared == set(plant.ports.examiner.by_gate)
    plant.store.close()
