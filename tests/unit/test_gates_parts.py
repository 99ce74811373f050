import copy
from datetime import timedelta

import pytest
from builders import APPROVERS, DAY, STAGES, T0, World, a_plan, a_release

from seatrial.adapters.asking import Declared, Examiners
from seatrial.adapters.people import ConsumersExaminer, OwnershipExaminer
from seatrial.change import Change, changed_parts, changes, keeps_scores
from seatrial.control.acknowledging import acknowledge
from seatrial.control.assessing import assess
from seatrial.errors import InvalidDocumentError, NotFoundError, RefusedError
from seatrial.gates.consumers import consumers
from seatrial.gates.ownership import ownership
from seatrial.gates.parts import parts
from seatrial.plan.asks import Consumers, Ownership
from seatrial.rollout import State
from seatrial.units import digest_bytes
from seatrial.verdict import Verdict

BASE = a_release().document()
TARGET = digest_bytes(b"champion")


def changed(*path, to):
    """Return a release of which one key is another one."""
    document = copy.deepcopy(BASE)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = to
    return a_release(**{path[0]: document[path[0]]})


POLICY = changed("policy", "cut_offs", to={"default": [{"action": "rebook", "at_least": 0.7}]})
ROUTING = changed("segments", "salt", to="other")
SCHEMA = changed("features", "columns", 0, "owner", to="somebody else")
RUNTIME = changed("limits", "p99_ms", to=60)
OTHER_MODEL = changed("model", "digest", to=digest_bytes(b"other model"))
KINDS = [
    (POLICY, Change.POLICY),
    (ROUTING, Change.ROUTING),
    (SCHEMA, Change.SCHEMA),
    (RUNTIME, Change.RUNTIME),
    (OTHER_MODEL, Change.MODEL),
]


@pytest.mark.parametrize(("release", "kind"), KINDS)
def test_a_part_only_release_is_told_by_the_digests_of_its_parts(release, kind):
    assert changes(release, a_release()) == {kind}
    assert len(changed_parts(release, a_release())) == 1


def test_only_policy_and_routing_leave_every_score_as_it_was():
    assert [kind for release, kind in KINDS if keeps_scores(release, a_release())] == [Change.POLICY, Change.ROUTING]
    assert keeps_scores(a_release("renamed"), a_release())
    assert changes(a_release("renamed"), a_release()) == frozenset()


def found(subject, findings):
    (finding,) = [each for each in findings if each.subject.endswith(f"· {subject}")]
    return finding


def test_cut_offs_that_nobody_chose_for_the_new_scores_are_not_taken_for_chosen():
    finding = found("cut-offs", parts(OTHER_MODEL, a_release(), a_plan()))
    assert finding.verdict is Verdict.INCONCLUSIVE
    assert "the cut-offs are those of the champion" in finding.reason
    new = a_release(model=OTHER_MODEL.document()["model"], policy=POLICY.document()["policy"])
    assert "the cut-offs are new" in found("cut-offs", parts(new, a_release(), a_plan())).reason


def test_cut_offs_chosen_for_the_model_or_for_unchanged_scores_pass():
    policy = BASE["policy"] | {"chosen_for": OTHER_MODEL.model.digest}
    chosen = a_release(model=OTHER_MODEL.document()["model"], policy=policy)
    assert found("cut-offs", parts(chosen, a_release(), a_plan())).verdict is Verdict.PASS
    assert found("cut-offs", parts(POLICY, a_release(), a_plan())).verdict is Verdict.PASS


def test_a_release_whose_cut_offs_were_chosen_for_another_model_is_refused():
    with pytest.raises(InvalidDocumentError, match=r"policy.chosen_for: found cut-offs chosen for sha256"):
        a_release(policy=BASE["policy"] | {"chosen_for": digest_bytes(b"another")})


def test_a_release_without_chosen_cut_offs_keeps_its_digest():
    assert "chosen_for" not in a_release().document()["policy"]


@pytest.mark.parametrize(("release", "kind"), KINDS)
def test_a_plan_is_for_the_changes_that_it_names(release, kind):
    plan = a_plan(changes=["policy", "routing"])
    expected = Verdict.PASS if kind in plan.changes else Verdict.FAIL
    assert found("change", parts(release, a_release(), plan)).verdict is expected
    assert found("change", parts(release, a_release(), a_plan())).verdict is Verdict.PASS


def without_shadow(**changes_):
    return a_plan(stages=[stage for stage in STAGES if stage["stage"] != "shadow"], **changes_)


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    world.router.refresh(now=T0)
    return world


def policy_only(world):
    """Register a release that shares every part with the champion but the policy."""
    return world.register(a_release("stricter", world.champion, policy=POLICY.document()["policy"]))


def test_a_policy_only_release_may_spare_its_shadow(world):
    rollout = world.start(policy_only(world), without_shadow(changes=["policy"]))
    assert world.step(rollout, T0).rollout.state is State.CANARY


def test_a_release_that_may_score_otherwise_needs_a_shadow(world):
    runtime = world.register(a_release("larger", world.champion, limits=RUNTIME.document()["limits"]))
    with pytest.raises(RefusedError, match="has no shadow, which only a change of policy or routing may spare"):
        world.start(runtime, without_shadow())
    world.start(runtime, a_plan())


def test_a_release_that_changes_something_else_cannot_take_a_cheaper_plan(world):
    runtime = world.register(a_release("larger", world.champion, limits=RUNTIME.document()["limits"]))
    with pytest.raises(RefusedError, match="is for changes of policy, routing; the release is a change of runtime"):
        world.start(runtime, a_plan(changes=["policy", "routing"]))


def test_a_plan_for_any_change_keeps_its_digest():
    assert "changes" not in a_plan().document()


CONSUMERS = {
    "known": [
        {"name": "crew-planning", "reads": "score", "owners": ["ines"]},
        {"name": "rebooking", "reads": "action", "owners": ["omar", "reader"]},
    ]
}


def verdicts(findings):
    return [finding.verdict for finding in findings]


def test_a_consumer_is_asked_when_what_it_reads_changes():
    ask = Consumers.model_validate(CONSUMERS)
    open_, passed = Verdict.INCONCLUSIVE, Verdict.PASS
    assert verdicts(consumers(OTHER_MODEL, a_release(), ask, {})) == [open_, open_]
    assert verdicts(consumers(POLICY, a_release(), ask, {})) == [passed, open_]
    assert verdicts(consumers(a_release("renamed"), a_release(), ask, {})) == [passed, passed]
    assert verdicts(consumers(OTHER_MODEL, a_release(), ask, {"rebooking": "acknowledged"})) == [open_, passed]


def test_a_consumer_stands_once():
    with pytest.raises(InvalidDocumentError, match="found 'crew-planning' again"):
        asking(consumers={"known": [CONSUMERS["known"][0]] * 2})


def asking(**asks):
    return a_plan(stages=[{**STAGES[0], **asks}, *STAGES[1:]])


@pytest.fixture
def informed(world):
    """A rollout whose one gate asks the consumers, who read it from the ledger."""
    object.__setattr__(world.ports, "examiner", Examiners({"consumers": ConsumersExaminer(world.store)}))
    rollout = world.start(policy_only(world), asking(consumers=CONSUMERS))
    assess(world.ports, rollout.id, "consumers", now=T0, actor="test")
    return rollout


def test_an_owner_acknowledges_for_its_consumer_and_the_gate_is_asked_again(world, informed):
    assert "omar or reader has not acknowledged it" in world.step(informed, T0).decision.reason
    acknowledge(world.ports, informed.id, "rebooking", by="omar", reason="tested", now=T0)
    assert world.step(informed, T0 + timedelta(hours=1)).rollout.state is State.SHADOW
    (record,) = [e.record for e in world.store.entries(informed.id) if e.record.kind == "consumer.acknowledged"]
    assert (record.actor, record.body["release_id"]) == ("omar", informed.challenger)


@pytest.mark.parametrize(
    ("consumer", "by", "reason", "error", "finding"),
    [
        ("rebooking", "ines", "fine", RefusedError, "'ines' does not speak for it; omar or reader must say so"),
        ("rebooking", "omar", " ", RefusedError, "has no reason"),
        ("rebook", "omar", "fine", NotFoundError, "did you mean 'rebooking'"),
    ],
)
def test_nobody_else_acknowledges(world, informed, consumer, by, reason, error, finding):
    with pytest.raises(error, match=finding):
        acknowledge(world.ports, informed.id, consumer, by=by, reason=reason, now=T0)
    assert world.step(informed, T0).rollout.state is State.GATES


TIERS = {
    "low": {"roles": ["risk-owner", "reader"]},
    "medium": {"roles": ["risk-owner"]},
    "high": {"roles": ["risk-owner"], "approvals": 2},
}


def owned(release=None, plan=None, approvers=APPROVERS, tiers=None):
    return ownership(
        release or a_release(), plan or a_plan(), Ownership.model_validate({"tiers": tiers or TIERS}), approvers
    )


def test_who_must_approve_follows_from_the_risk_tier():
    assert verdicts(owned()) == [Verdict.PASS] * 4
    assert found("people", owned()).reason == "approver, requester may approve as risk-owner"
    strict = owned(a_release(risk_tier="high"))
    assert found("approvals", strict).verdict is Verdict.FAIL
    assert found("approvals", strict).reason == "the plan holds 1 approval, risk tier high asks for 2"


def test_a_plan_that_lets_others_approve_fails():
    lax = a_plan(approvers={"roles": ["risk-owner", "reader"]})
    assert found("roles", owned(plan=lax)).verdict is Verdict.FAIL
    assert found("roles", owned(a_release(risk_tier="low"), lax)).verdict is Verdict.PASS


def test_nobody_but_the_makers_is_nobody():
    makers = {name: APPROVERS[name] for name in ("author", "trainer")}
    assert found("people", owned(approvers=makers)).verdict is Verdict.FAIL
    assert found("people", owned(approvers={})).verdict is Verdict.FAIL


def test_every_risk_tier_stands_in_the_table():
    with pytest.raises(InvalidDocumentError, match=r"stages\[0\].ownership.tiers.high: found no such tier"):
        asking(ownership={"tiers": {name: TIERS[name] for name in ("low", "medium")}})


def test_an_examiner_answers_its_own_gate_only(world):
    plan = asking(parts={}, consumers=CONSUMERS, ownership={"tiers": TIERS})
    rollout = world.start(plan=plan)
    for examiner, gate in (
        (ConsumersExaminer(world.store), "ownership"),
        (OwnershipExaminer(APPROVERS), "consumers"),
        (Declared(), "ownership"),
    ):
        object.__setattr__(world.ports, "examiner", Examiners({gate: examiner}))
        answer = assess(world.ports, rollout.id, gate, now=T0, actor="test")
        assert answer.verdict is Verdict.ERROR
    object.__setattr__(
        world.ports, "examiner", Examiners({"parts": Declared(), "ownership": OwnershipExaminer(APPROVERS)})
    )
    assert assess(world.ports, rollout.id, "ownership", now=T0 + DAY, actor="test").verdict is Verdict.PASS
