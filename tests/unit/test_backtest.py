from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest
from builders import DAY, HOUR, LABELS, PLAN, STAGES, T0, a_finding, a_plan
from scipy.stats import binom

from seatrial.backtest.drawing import ARMS, LEFT_OUT, Draw, keep_probabilities
from seatrial.backtest.playing import End, Ending, Glance, Play, Replay, default_every, default_start
from seatrial.backtest.plot import backtest_plot
from seatrial.backtest.repeating import Backtest
from seatrial.backtest.report import document, headline, parts, remarks
from seatrial.backtest.requests import Answers, Labels, Requests, micros, moment
from seatrial.backtest.standing_in import stand_in
from seatrial.change import keeps_scores
from seatrial.cli import main
from seatrial.evidence import Arm
from seatrial.gates.finding import Question
from seatrial.report.moves import Move
from seatrial.rollout import State
from seatrial.routing import RoutingSnapshot, assign

CHAMPION, CHALLENGER = ARMS.index(Arm.CHAMPION), ARMS.index(Arm.CHALLENGER)
#: How often a test of a share fails although the share is right.
FALSE_ALARM = 1e-4


def requests_of(units, *, propensity=None, is_challenger=None, at=None):
    """Requests of `units`, an hour apart."""
    keys, unit = np.unique(units, return_inverse=True)
    count = len(units)
    labels = Labels(pa.table({}), np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    is_known = np.ones(count, dtype=np.bool_)
    known = (is_known, is_known) if is_challenger is None else (~is_challenger, is_challenger)
    rows = pa.table({"unit_key": list(units)})
    return Requests(
        {arm: Answers(f"sha256:{arm}", rows, known[index], labels) for index, arm in enumerate(ARMS)},
        at=np.arange(count) * micros(T0 + HOUR) // 10**9 + micros(T0) if at is None else at,
        unit=unit,
        units=keys.tolist(),
        takes_part=is_known,
        propensity=propensity,
    )


def an_experiment(propensity, *, size=20_000, seed=1):
    """Requests of one experiment, each unit drawn with its own probability of `propensity`."""
    chance = np.random.default_rng(seed)
    p = chance.choice(propensity, size)
    return requests_of(
        [f"u{number:06d}" for number in range(size)], propensity=p, is_challenger=chance.random(size) < p
    )


def a_snapshot(share, **changes):
    snapshot = RoutingSnapshot(
        "point",
        2,
        champion="old",
        fallback="old",
        challenger="new",
        rollout_id="r",
        slots=round(share * 10_000),
        salt="salt/",
        lease_until=T0 + 10_000 * DAY,
    )
    return replace(snapshot, **changes)


def whole(requests):
    return slice(0, requests.at.size)


def is_refuted(hits, size, share):
    """Return whether `hits` of `size` say that the share is another one."""
    tail = min(binom.cdf(hits, size, share), binom.sf(hits - 1, size, share))
    return tail < FALSE_ALARM / 2


@pytest.mark.parametrize("propensity", [(0.5,), (0.05,), (0.9,), (0.02, 0.2, 0.5)], ids=str)
@pytest.mark.parametrize("share", [0.05, 0.2, 0.5, 0.95])
def test_thinned_units_are_the_challengers_with_exactly_the_share_of_the_plan(propensity, share):
    requests = an_experiment(propensity)
    served = Draw(requests, salt="a").serve(whole(requests), a_snapshot(share), challenger="new")
    kept, hits = int(served.is_compared.sum()), int((served.release == CHALLENGER).sum())
    assert kept > 500
    assert not is_refuted(hits, kept, share), hits / kept
    # The test can fail: it refutes a share that is half as large again.
    assert is_refuted(round(1.5 * share * kept) if share < 0.6 else round(0.6 * kept), kept, share)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
@pytest.mark.parametrize("propensity", [0.001, 0.5, 0.97])
def test_the_keep_probabilities_give_the_share_and_waste_as_little_as_can_be(share, propensity):
    champion, challenger = (each[0] for each in keep_probabilities(share, np.array([propensity])))
    kept = challenger * propensity
    assert math.isclose(kept / (kept + champion * (1 - propensity)), share)
    assert max(champion, challenger) == 1.0


def test_a_unit_that_was_left_out_never_comes_back_at_a_larger_share():
    first = an_experiment((0.5,), size=4_000)
    again = requests_of(
        [f"u{number:06d}" for number in range(4_000)] * 2,
        propensity=np.tile(first.propensity, 2),
        is_challenger=np.tile(first.answers[Arm.CHALLENGER].is_known, 2),
    )
    draw = Draw(again, salt="a")
    early = draw.serve(slice(0, 4_000), a_snapshot(0.05), challenger="new")
    late = draw.serve(slice(4_000, 8_000), a_snapshot(0.5), challenger="new")
    assert (early.release == LEFT_OUT).any()
    assert early.release.tolist() == late.release.tolist()


def test_a_unit_whose_assignment_moved_in_the_log_is_served_by_its_first_release_alone():
    requests = requests_of(["u"] * 3, propensity=np.array([0.5, 0.5, 0.5]), is_challenger=np.array([True, True, False]))
    served = Draw(requests, salt="a").serve(whole(requests), a_snapshot(0.5), challenger="new")
    assert served.release[2] == LEFT_OUT


def test_paired_requests_are_assigned_as_a_router_assigns_them():
    units = [f"u{number % 700}" for number in range(2_000)]
    requests = requests_of(units, at=micros(T0) + np.arange(2_000) * 60_000_000)
    snapshot = a_snapshot(0.2, lease_until=T0 + 20 * HOUR)
    served = Draw(requests, salt="ignored").serve(whole(requests), snapshot, challenger="new")
    routed = [assign(snapshot, unit, {}, now=moment(int(at))) for unit, at in zip(units, requests.at, strict=True)]
    assert [ARMS[release] for release in served.release] == [each.arm for each in routed]
    assert served.is_compared.tolist() == [each.share > 0 for each in routed]
    assert 0 < served.is_compared.sum() < 2_000


def test_without_a_share_the_release_that_serves_alone_answers_what_it_answered():
    requests = an_experiment((0.5,), size=100)
    is_challenger = requests.answers[Arm.CHALLENGER].is_known
    alone = a_snapshot(0.0, slots=0, lease_until=None)
    before = Draw(requests, salt="a").serve(whole(requests), alone, challenger="new")
    after = Draw(requests, salt="a").serve(whole(requests), replace(alone, fallback="new"), challenger="new")
    assert before.release.tolist() == np.where(is_challenger, LEFT_OUT, CHAMPION).tolist()
    assert after.release.tolist() == np.where(is_challenger, CHALLENGER, LEFT_OUT).tolist()
    assert not before.is_compared.any()


def test_another_salt_is_another_draw_and_the_same_one_the_same():
    requests = an_experiment((0.5,), size=1_000)
    one, same, other = (
        Draw(requests, salt=salt).serve(whole(requests), a_snapshot(0.1), challenger="new").release.tolist()
        for salt in ("a", "a", "b")
    )
    assert one == same
    assert one != other


def test_a_quarter_of_the_shortest_soak_is_the_rhythm_and_the_lease_bounds_it():
    assert default_every(a_plan()) == 12 * HOUR
    assert default_every(a_plan(lease="4 h")) == 4 * HOUR
    short = [{**stage, "soak": "8 h"} if stage["stage"] == "canary" else stage for stage in STAGES]
    assert default_every(a_plan(stages=short)) == 2 * HOUR


def test_a_plan_that_freezes_the_champion_starts_a_reference_later():
    requests = requests_of(["a", "b"], at=np.array([micros(T0), micros(T0 + 20 * DAY)]))
    frozen = {
        "name": "tail",
        "source": "runtime",
        "exceeds": {"column": "latency_ms", "quantile": "99 %"},
        "margin": "50 % relative",
        "consequence": "freeze",
    }
    assert default_start(a_plan(), requests) == T0
    asked = a_plan(guardrails=[*PLAN["guardrails"], frozen])
    assert default_start(asked, requests) == T0 + 7 * DAY + timedelta(minutes=10)


def test_a_stand_in_is_a_release_that_the_plan_can_roll_out_to_its_segment():
    champion = stand_in(a_plan(), "champion", salt="s")
    challenger = stand_in(a_plan(), "challenger", salt="s", target=champion.id)
    assert challenger.rollback_target == champion.id != challenger.id
    plan = a_plan(segment="commuter", stages=STAGES[: LABELS + 1])
    assert stand_in(plan, "champion", salt="s").segments.rule("commuter") == {"segment": ("commuter",)}


def test_stand_ins_of_a_plan_for_cut_offs_alone_share_their_model():
    without = [stage for stage in STAGES if stage["stage"] != "shadow"]
    for plan in (a_plan(changes=["policy"], stages=without), a_plan(stages=without), a_plan(changes=["routing"])):
        champion = stand_in(plan, "champion", salt="s")
        assert keeps_scores(stand_in(plan, "challenger", salt="s", target=champion.id), champion)
    assert not keeps_scores(stand_in(a_plan(), "b", salt="s"), stand_in(a_plan(), "a", salt="s"))


def a_play(end=End.ROLLED_BACK, *, days=2.0, exposed=100, excess=7.0):
    at = T0 + days * DAY
    made = [
        Move(1, T0, None, State.GATES, 0, "backtest", "requested by backtest", ()),
        Move(2, at, State.CANARY, State.ROLLING_BACK, 2, "backtest", "worse", (a_finding(Question.HARM),)),
    ]
    glances = [Glance(T0, 0.05, math.nan), Glance(T0 + DAY, 0.05, -1.0), Glance(at, 0.0, 0.4)]
    ending = Ending(end, at, at - T0, "worse", "canary-1", exposed, {"wrong-decision": excess})
    return Play(made, [0.0, 0.0], glances, ending)


def a_backtest(*plays, **changes):
    requests = replace(an_experiment((0.5,), size=50), left_out={"rows that were not drawn at random": 3})
    replay = Replay(a_plan(), requests, T0, T0 + 10 * DAY, 12 * HOUR, **changes)
    return Backtest(replay, 1, plays or (a_play(),))


def test_the_report_tells_the_end_of_the_first_draw_and_counts_all():
    found = a_backtest(a_play(), a_play(days=4.0), a_play(End.PROMOTED, days=9.0))
    text = headline(found)
    assert text.startswith("ROLLED BACK after 2 d, in canary-1: worse.")
    assert "1 of 3 draws promoted" in text.lower()
    assert "2 of 3 draws rolled back, half of these within 3 d" in text
    rows = {row[0]: row for row in parts(found)[1].rows}
    assert rows["rolled back"][1:3] == ("2", "66.7 %")


def test_the_report_says_what_was_not_replayed_and_what_was_left_out():
    text = " ".join(remarks(a_backtest(is_approved=False)))
    assert "Gates: not replayed, assumed passed" in text
    assert "Shadow: not replayed, assumed passed" in text
    assert "says no" in text
    assert "3 rows that were not drawn at random" in text


def test_only_what_lies_between_start_and_end_is_called_replayed():
    found = a_backtest()
    short = replace(found, replay=replace(found.replay, end=moment(int(found.replay.requests.at[20]))))
    assert remarks(short)[0].startswith("20 requests of 20 units")
    assert (document(short)["requests"], document(short)["units"]) == (20, 20)


def test_an_unknown_excess_is_no_number_and_no_zero():
    found = a_backtest(a_play(excess=None))
    assert parts(found)[2].rows == (("rolled back", "wrong-decision", "-", "-", "-"),)
    assert document(found)["draws"][0]["excess"] == {"wrong-decision": None}


def test_the_document_says_what_the_report_says():
    said = document(a_backtest(a_play(), a_play(End.OVER)))
    assert said["ends"]["rolled back"] == said["ends"]["log over before a decision"] == 1
    assert said["draws"][0]["after_s"] == 2 * 86_400.0
    assert [made["enters"] for made in said["draws"][0]["moves"]] == ["gates", "rolling back"]


@pytest.mark.parametrize("end", End)
def test_the_plot_is_a_png_for_every_end_also_when_evidence_is_unknown(end):
    assert backtest_plot(a_backtest(a_play(end), a_play())).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "words", [(), ("--log", "a", "--champion-log", "b"), ("--champion-log", "b"), ("--challenger-log", "b")], ids=str
)
def test_one_experiment_has_one_log_and_two_releases_have_two(words, tmp_path, capsys):
    assert main(["backtest", str(tmp_path / "plan.yaml"), *words]) == 2
    assert "expected --log, or --champion-log and --challenger-log" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"), [("--start", "yesterday"), ("--end", "2013-06-01"), ("--every", "often"), ("--every", "0 s")]
)
def test_a_time_that_is_none_is_refused_with_its_option(option, value, tmp_path, capsys):
    assert main(["backtest", str(tmp_path / "plan.yaml"), "--log", "a", option, value]) == 2
    assert option in capsys.readouterr().err


def test_a_plot_that_cannot_be_written_is_refused_before_anything_is_replayed(tmp_path, capsys):
    words = ["--log", "a", "--plot", str(tmp_path / "nowhere" / "plot.png")]
    assert main(["backtest", str(tmp_path / "plan.yaml"), *words]) == 2
    assert "--plot" in capsys.readouterr().err
