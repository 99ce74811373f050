"""The Envoy adapter with a real Envoy: every unit as `assign` says, and safe whatever is gone."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from builders import a_release

from deployments.envoys import PATIENCE_S, POINT, Feed, running
from seatrial.adapters.envoy import EnvoySettings, agent
from seatrial.adapters.file_feed import FileFeed
from seatrial.documents import check, parse_yaml
from seatrial.errors import InvalidDocumentError
from seatrial.routing import Kill, KillMode, KillScope, Pin, RoutingSnapshot, ShadowBudget, assign, parts_of

HOUR = timedelta(hours=1)
UNITS = [f"u{n}" for n in range(2_000)]


def now():
    return datetime.now(UTC)


def until(what):
    ends_at = time.monotonic() + PATIENCE_S
    while not (found := what()):
        assert time.monotonic() < ends_at
        time.sleep(0.02)
    return found


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    feed = Feed(RoutingSnapshot(POINT, 1, "champion", "champion"))
    with running(tmp_path_factory.mktemp("envoy"), feed, now()) as stack:
        yield stack


def following(stack, **changes):
    """Return the snapshot after the present one: a canary at 20 %, with `changes`."""
    canary = RoutingSnapshot(
        POINT,
        stack.feed.present.number + 1,
        "champion",
        "champion",
        "challenger",
        slots=2_000,
        salt="salt/r1/",
        lease_until=now() + HOUR,
    )
    return replace(canary, **changes)


def agree(stack, snapshot, units=UNITS, **attributes):
    headers = {f"x_seatrial_{column}": value for column, value in attributes.items()}
    moment = now()
    want = [assign(snapshot, unit, attributes, now=moment).release_id for unit in units]
    assert stack.releases(units, **headers) == want
    return set(want)


def test_a_hundred_thousand_units_are_assigned_as_assign_does(stack):
    canary = following(stack, slots=3_333)
    assert stack.publish(canary, now())
    units = [f"card-{n:x}/é" if n % 10 == 0 else f"card-{n:x}" for n in range(100_000)]
    assert agree(stack, canary, units) == {"champion", "challenger"}
    stack.agent.round(now=now())
    report = stack.feed.reports[-1]
    assert (report.number, report.router, report.lease_until) == (canary.number, "envoy", canary.lease_until)
    assert sum(report.served.values()) == 100_000
    challengers = sum(assign(canary, unit, {}, now=now()).release_id == "challenger" for unit in units)
    assert report.served["challenger"] == challengers


def test_the_answer_says_release_arm_share_and_snapshot(stack):
    canary = following(stack, slots=10_000)
    assert stack.publish(canary, now())
    (said,) = stack.asked(["u1"])
    assert (
        said.items()
        >= {
            "x-seatrial-release": "challenger",
            "x-seatrial-arm": "challenger",
            "x-seatrial-share": "1.0",
            "x-seatrial-snapshot": str(canary.number),
        }.items()
    )


def test_without_exactly_one_unit_key_the_fallback_answers_and_nobody_is_drawn_by_chance(stack):
    assert stack.publish(following(stack, slots=10_000), now())
    assert set(stack.releases([None] * 200)) == {"champion"}
    assert set(stack.releases(["u1"] * 50, x_seatrial_unit="u2")) == {"champion"}


def test_a_caller_cannot_choose_by_the_headers_that_the_script_writes(stack):
    assert stack.publish(following(stack), now())
    forged = {"x_seatrial_assign": "salt/r1/u1", "x_seatrial_live": "|lease|"}
    assert set(stack.releases([None] * 50, **forged)) == {"champion"}
    agree(stack, stack.feed.present)


def test_a_larger_share_moves_no_unit_away_from_the_challenger(stack):
    small, large = following(stack, slots=500), following(stack, slots=5_000)
    assert stack.publish(small, now())
    before = stack.releases(UNITS)
    assert stack.publish(replace(large, number=small.number + 1), now())
    after = stack.releases(UNITS)
    assert [a for a, b in zip(after, before, strict=True) if b == "challenger" != a] == []
    assert after.count("challenger") > before.count("challenger") > 0


def test_only_units_of_the_segment_take_part(stack):
    canary = following(stack, slots=10_000, segment="s", when={"carrier": ("OO", "Y.V"), "origin": ("EWR",)})
    assert stack.publish(canary, now())
    for carrier, origin in (("OO", "EWR"), ("Y.V", "EWR"), ("YxV", "EWR"), ("OO", "JFK"), ("OOx", "EWR")):
        agree(stack, canary, UNITS[:50], carrier=carrier, origin=origin)
    agree(stack, canary, UNITS[:50])
    assert agree(stack, canary, UNITS[:50], carrier="OO", origin="EWR") == {"challenger"}


def test_pins_outrank_the_comparison_and_end_in_envoy(stack):
    soon = now() + timedelta(seconds=2)
    pins = (
        Pin("older", "dana", "dispute", now() + HOUR, "u1"),
        Pin("older", "dana", "dispute", soon, "u2"),
        Pin("older", "dana", "dispute", now() + HOUR, when={"carrier": ("OO",)}),
    )
    pinned = following(stack, slots=10_000, pins=pins)
    assert stack.publish(pinned, now())
    assert stack.releases(["u1", "u3"]) == ["older", "challenger"]
    assert set(stack.releases(["u3", None], x_seatrial_carrier="OO")) == {"older"}
    # The agent does nothing any more.
    until(lambda: stack.releases(["u2"]) == ["challenger"])
    assert now() >= soon


def kill(scope, mode, name=None, **changes):
    return Kill("k1", scope, mode, "oncall", "losses", now(), name, **changes)


@pytest.mark.parametrize("carrier", [None, "OO", "UA"])
@pytest.mark.parametrize("slots", [0, 2_000])
def test_killed_releases_and_segments_are_answered_by_the_release_before(stack, slots, carrier):
    kills = (
        kill(KillScope.RELEASE, KillMode.PREVIOUS_RELEASE, "challenger", to="older"),
        kill(KillScope.SEGMENT, KillMode.PREVIOUS_RELEASE, "s", when={"carrier": ("OO",)}, to="older"),
    )
    killed = following(stack, slots=slots, kills=kills)
    assert stack.publish(killed, now())
    attributes = {} if carrier is None else {"carrier": carrier}
    assert "challenger" not in agree(stack, killed, **attributes)


def test_a_refused_decision_point_answers_with_an_error_that_names_the_order(stack):
    parts = parts_of(a_release("champion"))
    orders = (kill(KillScope.DECISION_POINT, KillMode.REFUSE), replace(kill(KillScope.DECISION_POINT, KillMode.PERSON)))
    for order in orders:
        killed = following(stack, slots=0, kills=(order,), parts={"champion": parts})
        assert stack.publish(killed, now())
        (said,) = stack.asked(["u1"])
        assert (said["status"], said["x-seatrial-kill"], said["x-seatrial-course"]) == ("503", "k1", order.mode.value)
        wanted = None if order.mode is KillMode.REFUSE else parts.policy.safe_action
        assert said.get("x-seatrial-action") == wanted
        assert "x-seatrial-release" not in said


def test_the_shadow_scores_copies_that_are_counted_and_marked(stack):
    shadow = following(stack, slots=0, lease_until=None, shadow=True, budget=ShadowBudget(max_concurrent=4))
    assert stack.publish(shadow, now())
    before = stack.requests_of("challenger")
    assert set(stack.releases(UNITS[:500])) == {"champion"}
    stack.releases([None] * 50)

    def load():
        stack.agent.round(now=now())
        return stack.feed.reports[-1].shadow

    # Those beyond four at once are shed, and said to be.
    until(lambda: (found := load()) and found.sent + found.shed == 500)
    assert load().sent > 0
    until(lambda: stack.requests_of("challenger") - before == load().sent)


def test_a_sample_of_the_units_is_copied(stack):
    budget = ShadowBudget(sampling=1_000, max_concurrent=1_000)
    assert stack.publish(following(stack, slots=0, lease_until=None, shadow=True, budget=budget), now())
    stack.releases(UNITS * 2)
    stack.agent.round(now=now())
    load = stack.feed.reports[-1].shadow
    # 4,000 copied at 10 %: outside these limits once in a billion runs.
    assert 280 < load.sent + load.shed < 520
    assert load.sampling == 1_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"kills": (kill(KillScope.ACTION, KillMode.PERSON, "refuse"),)}, "Envoy sees no action"),
        ({"challenger": "unheard-of"}, "of no known address"),
        ({"shadow": True, "budget": ShadowBudget(max_per_s=5.0)}, "copies a second"),
    ],
)
def test_what_envoy_cannot_do_ends_the_comparison_and_is_not_claimed(stack, changes, words):
    good = following(stack)
    assert stack.publish(good, now())
    assert not stack.publish(following(stack, **changes), now())
    report = stack.feed.reports[-1]
    assert (report.number, report.fallback, report.lease_until) == (good.number, "champion", None)
    assert any(words in reason for reason in report.refused)
    assert set(stack.releases(UNITS[:200])) == {"champion"}
    whole = following(stack)
    assert stack.publish(whole, now())
    assert stack.feed.reports[-1].number == whole.number
    agree(stack, whole)


def test_what_envoy_refuses_is_taken_back_out_of_the_files(stack, monkeypatch):
    good = following(stack)
    assert stack.publish(good, now())
    real = agent.render

    def misspelt(*args, **kwargs):
        rendered = real(*args, **kwargs)
        return replace(rendered, routes={**rendered.routes, "virtual_hots": []}, version=rendered.version + "x")

    monkeypatch.setattr(agent, "render", misspelt)
    assert not stack.publish(following(stack, slots=9_000), now())
    monkeypatch.undo()
    kept = json.loads((stack.files / "routes.json").read_bytes())
    assert kept["version_info"].startswith(f"{good.number}/")
    assert stack.feed.reports[-1].number == good.number
    assert stack.feed.reports[-1].refused["refused by Envoy"] == 1
    agree(stack, good)


def test_envoy_starts_again_with_what_it_served_and_without_anybody(stack):
    canary = following(stack, slots=4_000)
    assert stack.publish(canary, now())
    stack.feed.is_gone = True
    stack.child.stop(grace_s=10)
    assert not stack.agent.round(now=now())
    stack.start()
    agree(stack, canary)
    stack.feed.is_gone = False
    assert stack.agent.round(now=now())
    stack.releases(["u1"] * 7)
    stack.agent.round(now=now())
    assert sum(stack.feed.reports[-1].served.values()) >= 7


def test_an_agent_that_starts_again_finds_envoy_as_it_is_and_writes_nothing(stack):
    canary = following(stack)
    assert stack.publish(canary, now())
    written = (stack.files / "routes.json").stat().st_mtime_ns
    assert stack.new_agent().round(now=now())
    assert (stack.files / "routes.json").stat().st_mtime_ns == written
    assert stack.feed.reports[-1].number == canary.number


def test_a_lease_ends_in_envoy_with_agent_and_control_plane_gone(stack):
    lease = now() + timedelta(seconds=2)
    assert stack.publish(following(stack, slots=10_000, lease_until=lease), now())
    stack.feed.is_gone = True
    stack.agent = None
    until(lambda: set(stack.releases(UNITS[:20])) == {"champion"})
    assert now() >= lease
    stack.feed.is_gone = False
    stack.new_agent()


def test_the_agent_ends_a_lease_by_its_own_clock_too(stack):
    canary = following(stack, slots=10_000)
    assert stack.publish(canary, now())
    # Envoy's wall clock is an hour behind what the agent knows.
    assert stack.agent.round(now=canary.lease_until)
    assert set(stack.releases(UNITS[:20])) == {"champion"}


def test_the_command_brings_envoy_to_what_the_folder_holds(stack):
    canary = following(stack, slots=6_000)
    stack.feed.present = canary
    FileFeed(stack.home / "published").publish(canary)
    settings = {**stack.settings.model_dump(exclude_unset=True), "control": "published", "folder": stack.files.name}
    path = stack.home / "envoy.yaml"
    path.write_text(json.dumps(settings))
    program = "import sys; from seatrial.cli import main; sys.exit(main())"
    words = ["envoy", "agent", str(path), "--once"]
    subprocess.run([sys.executable, "-c", program, *words], check=True, timeout=PATIENCE_S)
    agree(stack, canary)
    (report,) = FileFeed(stack.home / "published").reports()
    assert report.number == canary.number


def test_all_that_is_wrong_with_the_settings_is_told_at_once():
    text = """
decision_point: fraud
router: envoy
control: published
folder: envoy
listen: 10000
admin: 99999
unit_header: X_Unit
releases: {champion: "https://host:1", challenger: "http://host"}
"""
    with pytest.raises(InvalidDocumentError) as caught:
        check(parse_yaml(text, "envoy.yaml"), EnvoySettings)
    places = {problem.place.split()[-1] for problem in caught.value.problems}
    assert places == {"admin", "unit_header", "releases.champion", "releases.challenger"}
