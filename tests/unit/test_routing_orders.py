from dataclasses import replace
from datetime import UTC, datetime

import pytest
from builders import HOUR, POINT, T0, a_release
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from seatrial.errors import TamperedError
from seatrial.evidence import Arm
from seatrial.release import Authority
from seatrial.routing import (
    Course,
    Kill,
    KillMode,
    KillScope,
    Pin,
    RoutingSnapshot,
    ShadowBudget,
    Taken,
    assign,
    parts_of,
    slot_of,
    take,
)
from seatrial.routing.assignment import assign_fallback
from seatrial.routing.deciding import obey
from seatrial.routing.signing import Ed25519Check, Ed25519Key, HmacKey, require_signed, signed

CANARY = RoutingSnapshot(
    POINT,
    7,
    champion="champion",
    fallback="champion",
    challenger="challenger",
    rollout_id="r1",
    slots=10_000,
    salt="salt/r1/",
    lease_until=T0 + 12 * HOUR,
)
COMMUTER = {"carrier": ("OO", "YV")}


def a_pin(release_id="champion", unit_key="u1", **changes):
    return Pin(release_id, "oncall", "in dispute", T0 + HOUR, unit_key, **changes)


def a_kill(scope=KillScope.DECISION_POINT, mode=KillMode.SAFE_FALLBACK, **changes):
    return Kill("k1", scope, mode, "oncall", "wrong since noon", T0, **changes)


def assigned(snapshot, unit="u1", attributes=None, now=T0):
    return assign(snapshot, unit, attributes or {}, now=now)


def test_a_pin_outranks_the_comparison_until_it_expires():
    pinned = replace(CANARY, pins=(a_pin(),))
    assert (assigned(pinned).release_id, assigned(pinned).share) == ("champion", 0.0)
    assert assigned(pinned, "u2").release_id == "challenger"
    assert assigned(pinned, now=T0 + HOUR).release_id == "challenger"


def test_a_pin_on_a_rule_holds_for_its_units():
    pinned = replace(CANARY, pins=(a_pin(unit_key=None, when=COMMUTER),))
    assert assigned(pinned, attributes={"carrier": "OO"}).release_id == "champion"
    assert assigned(pinned, attributes={"carrier": "UA"}).release_id == "challenger"


def test_a_pinned_unit_is_not_copied_for_the_shadow():
    shadowed = replace(CANARY, slots=0, lease_until=None, shadow=True, pins=(a_pin(),))
    assert assigned(shadowed).shadow_release_id is None
    assert assigned(shadowed, "u2").shadow_release_id == "challenger"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (a_pin(), a_pin("challenger")),
        (a_pin(unit_key=None, when=COMMUTER), a_pin("challenger", None, when={"carrier": ("OO",), "origin": ("EWR",)})),
    ],
)
def test_pins_that_hold_for_one_unit_are_refused(first, second):
    with pytest.raises(ValueError, match="same unit"):
        replace(CANARY, pins=(first, second))


def test_a_pin_names_a_unit_or_a_rule():
    for changes in ({"unit_key": None}, {"when": COMMUTER}):
        with pytest.raises(ValueError, match="either a unit key or a rule"):
            a_pin(**changes)


def test_a_killed_release_is_replaced_by_the_one_before_wherever_it_would_answer():
    kill = a_kill(KillScope.RELEASE, KillMode.PREVIOUS_RELEASE, name="challenger", to="champion")
    killed = replace(CANARY, kills=(kill,), pins=(a_pin("challenger", "u2"),))
    for unit in ("u1", "u2", "u3"):
        got = assigned(killed, unit)
        assert (got.release_id, got.arm, got.share, got.kill) == ("champion", Arm.CHAMPION, 0.0, None)


@pytest.mark.parametrize("mode", [KillMode.SAFE_FALLBACK, KillMode.PERSON, KillMode.REFUSE])
def test_a_killed_decision_point_is_answered_by_no_release(mode):
    killed = replace(CANARY, shadow=True, kills=(a_kill(mode=mode),))
    got = assigned(killed)
    assert (got.kill.mode, got.share, got.shadow_release_id) == (mode, 0.0, None)


def test_a_kill_of_one_segment_leaves_the_others_alone():
    kill = a_kill(KillScope.SEGMENT, name="commuter", when=COMMUTER)
    killed = replace(CANARY, kills=(kill,))
    assert assigned(killed, attributes={"carrier": "OO"}).kill == kill
    assert assigned(killed, attributes={"carrier": "UA"}).kill is None
    assert assigned(killed).kill is None


def test_releases_that_are_killed_in_turn_end_in_the_safe_fallback_and_never_in_a_circle():
    one = a_kill(KillScope.RELEASE, KillMode.PREVIOUS_RELEASE, name="challenger", to="champion")
    other = replace(one, id="k2", name="champion", to="challenger")
    got = assigned(replace(CANARY, kills=(one, other)))
    assert got.kill is not None
    assert obey(PARTS, got.kill) == Taken(Course.ACT, "none", got.kill.id)


def test_a_killed_release_scores_no_copies_either():
    shadowed = replace(CANARY, slots=0, lease_until=None, shadow=True)
    kill = a_kill(KillScope.RELEASE, KillMode.PREVIOUS_RELEASE, name="challenger", to="champion")
    got = assigned(replace(shadowed, kills=(kill,)))
    assert (got.release_id, got.shadow_release_id) == ("champion", None)


def test_who_answers_for_a_failed_release_is_under_the_kills_too():
    stop = a_kill(KillScope.RELEASE, KillMode.PERSON, name="champion")
    assert assign_fallback(CANARY, {}).release_id == "champion"
    assert assign_fallback(replace(CANARY, kills=(stop,)), {}).kill == stop


def test_what_stops_every_release_outranks_what_names_another():
    release = a_kill(KillScope.RELEASE, KillMode.PREVIOUS_RELEASE, name="challenger", to="champion")
    point = replace(a_kill(mode=KillMode.REFUSE), id="k2")
    for kills in ((release, point), (point, release)):
        assert assigned(replace(CANARY, kills=kills)).kill == point


def test_a_drill_changes_no_answer():
    drill = a_kill(mode=KillMode.REFUSE, is_drill=True)
    assert assigned(replace(CANARY, kills=(drill,))) == assigned(CANARY)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "everything"},
        {"scope": KillScope.RELEASE},
        {"scope": KillScope.SEGMENT, "name": "commuter"},
        {"when": COMMUTER},
        {"mode": KillMode.PREVIOUS_RELEASE},
        {"to": "champion"},
        {"scope": KillScope.RELEASE, "name": "a", "mode": KillMode.PREVIOUS_RELEASE, "to": "a"},
        {"scope": KillScope.ACTION, "name": "rebook", "mode": KillMode.PREVIOUS_RELEASE, "to": "a"},
    ],
)
def test_a_kill_that_contradicts_itself_is_refused(changes):
    with pytest.raises(ValueError, match="kill k1"):
        a_kill(**changes)


PARTS = parts_of(a_release())


def with_authority(authority):
    return replace(PARTS, policy=PARTS.policy.model_copy(update={"authority": authority}))


@pytest.mark.parametrize(
    ("authority", "action", "course", "taken"),
    [
        (Authority.OBSERVE, "rebook", Course.PERSON, "none"),
        (Authority.RECOMMEND, "review", Course.PERSON, "none"),
        (Authority.DECIDE_WITH_REVIEW, "rebook", Course.REVIEW, "rebook"),
        (Authority.DECIDE_REVERSIBLE, "review", Course.ACT, "review"),
        (Authority.DECIDE_REVERSIBLE, "rebook", Course.PERSON, "none"),
        (Authority.DECIDE, "rebook", Course.ACT, "rebook"),
    ],
)
def test_what_an_answer_may_do_is_the_releases_authority(authority, action, course, taken):
    assert take(with_authority(authority), action) == Taken(course, taken)


def test_without_a_score_the_safe_action_is_taken():
    assert take(PARTS, None) == Taken(Course.ACT, "none")


def test_a_killed_action_is_taken_by_nobody():
    kill = a_kill(KillScope.ACTION, KillMode.PERSON, name="rebook")
    assert take(PARTS, "rebook", [kill]) == Taken(Course.PERSON, "none", "k1")
    assert take(PARTS, "review", [kill]) == Taken(Course.ACT, "review")
    assert take(PARTS, "rebook", [replace(kill, is_drill=True)]) == Taken(Course.ACT, "rebook")
    assert take(PARTS, "rebook", [replace(kill, mode=KillMode.REFUSE)]) == Taken(Course.REFUSE, None, "k1")


def test_the_sampled_part_of_the_units_is_copied_and_always_the_same():
    shadowed = replace(CANARY, slots=0, lease_until=None, shadow=True, budget=ShadowBudget(sampling=2_500))
    units = [f"u{n}" for n in range(4_000)]
    copied = {unit for unit in units if assigned(shadowed, unit).shadow_release_id is not None}
    assert copied == {unit for unit in units if slot_of("salt/r1/shadow/", unit) < 2_500}
    # Five standard deviations of a draw of 4,000 with a chance of 1 in 4.
    assert abs(len(copied) - 1_000) < 5 * 27.4


@pytest.mark.parametrize(
    "changes",
    [{"sampling": -1}, {"sampling": 10_001}, {"max_concurrent": 0}, {"max_per_s": -1.0}, {"dependencies": {"db": 0.0}}],
)
def test_a_shadow_budget_outside_its_limits_is_refused(changes):
    with pytest.raises(ValueError, match="expected"):
        ShadowBudget(**changes)


WHOLE = replace(
    CANARY,
    pins=(a_pin(), a_pin("challenger", None, when=COMMUTER)),
    kills=(
        a_kill(KillScope.RELEASE, KillMode.PREVIOUS_RELEASE, name="challenger", to="champion"),
        a_kill(KillScope.SEGMENT, name="commuter", when=COMMUTER, is_drill=True),
    ),
    budget=ShadowBudget(5_000, 12.5, 3, {"features": 40.0}),
    parts={"champion": PARTS},
)


def test_orders_budget_and_parts_survive_being_written_and_read():
    assert RoutingSnapshot.of_document(WHOLE.document()) == WHOLE


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pins", [{}]),
        ("pins", [{**a_pin().document(), "when": {"carrier": "OO"}}]),
        ("pins", [{**a_pin().document(), "expires_at": "soon"}]),
        ("kills", [{**a_kill().document(), "scope": "planet"}]),
        ("kills", [{**a_kill().document(), "is_drill": 1}]),
        ("kills", ["k1"]),
        ("budget", {"sampling": 1}),
        ("budget", {**ShadowBudget().document(), "dependencies": {"db": "1"}}),
        ("parts", {"champion": {}}),
        ("parts", {"champion": {**PARTS.document(), "policy": {}}}),
        ("parts", {"champion": {**PARTS.document(), "low": "0"}}),
    ],
)
def test_a_malformed_order_makes_the_snapshot_malformed(key, value):
    with pytest.raises(ValueError, match=r"."):
        RoutingSnapshot.of_document({**WHOLE.document(), key: value})


PRIVATE = Ed25519PrivateKey.generate()
KEYS = {"new": Ed25519Check(PRIVATE.public_key()), "old": HmacKey("old", b"secret")}


@pytest.mark.parametrize("key", [Ed25519Key("new", PRIVATE), HmacKey("old", b"secret")], ids=["ed25519", "hmac"])
def test_a_signature_holds_for_one_snapshot_with_one_lease(key):
    signed_one = signed(WHOLE, key)
    require_signed(signed_one, KEYS)
    for changes in ({"slots": 1}, {"number": 8}, {"lease_until": T0 + 13 * HOUR}, {"kills": ()}):
        with pytest.raises(TamperedError, match="not of"):
            require_signed(replace(signed_one, **changes), KEYS)


@pytest.mark.parametrize(
    ("signature", "match"),
    [(None, "no signature"), ("unknown:AA==", "signed by 'unknown'"), ("old:AA==", "not of"), ("old:?", "not of")],
)
def test_no_signature_of_a_known_key_is_no_snapshot(signature, match):
    with pytest.raises(TamperedError, match=match):
        require_signed(replace(WHOLE, signature=signature), KEYS)


def test_a_withdrawn_key_signs_nothing_any_more():
    with pytest.raises(TamperedError, match="expected one of the keys new"):
        require_signed(signed(WHOLE, HmacKey("old", b"secret")), {"new": KEYS["new"]})


def test_times_in_orders_are_aware():
    with pytest.raises(ValueError, match="zone"):
        replace(WHOLE, pins=(replace(a_pin(), expires_at=datetime(2013, 6, 1)),)).document()  # noqa: DTZ001 what is refused
    assert a_pin().expires_at.tzinfo is UTC
