import base64
import io
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from builders import CANARY, DAY, PLAN, T0, World, a_plan, evidence_at
from PIL import Image

from seatrial.control.measuring import decided_on, measured
from seatrial.errors import UnavailableError
from seatrial.evidence import (
    Arm,
    Cell,
    Epoch,
    Evidence,
    Frozen,
    Moments,
    ScoreCell,
    ScoredPair,
    ScoreTally,
    Tally,
    Wait,
    stored_evidence,
)
from seatrial.report import quality, question, stage_report
from seatrial.report.quality import latency_table
from seatrial.report.quality_labels import arrival, label_counts, maturity_plot
from seatrial.report.quality_scores import (
    calibration_table,
    reliability_plot,
    score_plot,
    score_table,
    scored_arms,
    shift_of,
)
from seatrial.rollout import State
from seatrial.stats.exceedance import BUCKETS, LatencySketch
from seatrial.stats.scores import ScoreGrid

TAIL = {
    "name": "slow",
    "source": "runtime",
    "exceeds": {"column": "latency_ms", "quantile": "99 %"},
    "margin": "50 % relative",
    "consequence": "freeze",
}
LABEL = PLAN["guardrails"][1]
SCORES = {"range": [0, 1], "label": "late", "maturity": "36 h"}
SCORED = a_plan(guardrails=[TAIL, LABEL], scores=SCORES)
GRID = ScoreGrid()
NAME = "wrong-decision"
ONE_EPOCH = {1: Epoch(0.5, CANARY)}
DELAYS = {(9, 4): 30, (50, 4): 50, (50, 24): 50, (50, 50): 20, (50, -1): 10, (9, -1): 40}
PNG = re.compile(r"base64,([A-Za-z0-9+/=]+)\)")


def latencies(values, arm=Arm.CHAMPION):
    counts = LatencySketch.of(values).counts
    return {(arm, int(at)): int(counts[at]) for at in np.flatnonzero(counts)}


def scored(champion, challenger, number=1):
    """Return tallies of both arms by score: (units, labelled, positive)."""
    return {
        ScoreCell(None, None, number, arm, int(GRID.index([score])[0])): ScoreTally(*counts)
        for arm, table in ((Arm.CHAMPION, champion), (Arm.CHALLENGER, challenger))
        for score, counts in table.items()
    }


def waits(arm=Arm.CHALLENGER, delays=DELAYS):
    return {Wait(NAME, 1, arm, False, age, delay): count for (age, delay), count in delays.items()}


SCORES_SEEN = scored(
    {0.105: (600, 500, 50), 0.505: (400, 300, 150)},
    {0.105: (50, 40, 20), 0.505: (40, 30, 15), float("nan"): (10, 0, 0)},
)
EVERYTHING = Evidence(
    T0,
    ONE_EPOCH,
    {
        Cell(NAME, None, None, 1, Arm.CHALLENGER): Tally(210, 5, 135, 5, 100, 95, 5),
        Cell(NAME, None, None, 1, Arm.CHAMPION): Tally(200, 5, 130, 5, 100, 95),
        Cell("slow", None, None, 1, Arm.CHALLENGER): Tally(units=200, bad=8),
        Cell("slow", None, None, 1, Arm.CHAMPION): Tally(units=200, bad=2),
    },
    scores=SCORES_SEEN,
    waits=waits() | waits(Arm.CHAMPION),
    latencies=latencies(range(1, 1001)) | latencies([10.0] * 40, Arm.CHALLENGER),
    frozen=Frozen({"slow": 72.5}, {13: 60, 53: 40}),
)


@cache
def everything():
    return quality(EVERYTHING, SCORED)


def row(text, *cells):
    """Return the cells after the first ones of the table row that begins with `cells`."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {' | '.join(cells)} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][len(cells) :]


def pictures(text):
    return [base64.b64decode(encoded) for encoded in PNG.findall(text)]


# -- nothing to show


def test_counts_that_cannot_be_read_are_no_sign_of_health():
    assert "The counts could not be read: **nothing is known of them, good or bad.**" in quality(None, SCORED)


def test_what_was_not_measured_is_said_and_not_drawn():
    text = quality(Evidence(), SCORED)
    assert "No latency of either arm is logged." in text
    assert "Nothing has been scored by both releases yet." in text
    assert "No unit waits for a label or has one yet." in text
    assert row(text, NAME, "challenger")[-1] == "none matured"
    assert row(text, "slow") == [
        "not frozen: the champion answered too few units",
        "99 % quantile of latency_ms",
        "none",
        "none",
    ]
    assert not pictures(text)


def test_what_the_plan_does_not_ask_is_said():
    seen = replace(EVERYTHING, waits={})
    assert "The plan declares no score to look at." in quality(seen, a_plan())
    unlabelled = a_plan(scores={"range": [0, 1]})
    assert "The plan declares no label that the score predicts." in quality(seen, unlabelled)


def test_scores_without_a_matured_label_have_no_reliability():
    unlabelled = {cell: replace(tally, labelled=0, positive=0) for cell, tally in SCORES_SEEN.items()}
    text = quality(replace(EVERYTHING, scores=unlabelled, waits={}), SCORED)
    assert "No scored unit has a matured label yet." in text
    assert len(pictures(text)) == 1


@pytest.mark.parametrize("evidence", [None, Evidence()])
def test_the_section_says_that_it_decides_nothing(evidence):
    assert all("**nothing here decides.**" in text for text in (quality(evidence, SCORED), everything()))


# -- latency


def test_latencies_are_shown_by_arm_with_the_number_of_units():
    units, *quantiles = row(latency_table(EVERYTHING), "champion")
    assert units == "1,000"
    assert [float(each) for each in quantiles] == pytest.approx([500, 950, 990], rel=0.011)


def test_a_quantile_above_which_no_unit_is_expected_is_not_shown():
    assert row(latency_table(EVERYTHING), "challenger") == ["40", "10", "10", "too few units"]


def test_a_quantile_among_the_requests_without_an_answer_is_no_number():
    lost = Evidence(latencies={(Arm.CHAMPION, BUCKETS - 1): 200})
    assert row(latency_table(lost), "champion") == ["200", *["no answer"] * 3]


def test_the_frozen_quantile_stands_beside_how_often_each_arm_exceeds_it():
    assert row(everything(), "slow") == ["72.5", "99 % quantile of latency_ms", "4 %", "1 %"]


# -- scores and calibration


def test_missing_scores_and_the_mean_are_told_by_arm():
    text = score_table(scored_arms(EVERYTHING, SCORED))
    assert row(text, "champion", "1,000") == ["0.265", "0 %", "0 %", "0 %", "0 %"]
    assert row(text, "challenger", "100") == ["0.2828", "10 %", "0 %", "0 %", "0 %"]


def test_a_ramp_does_not_mix_drift_into_the_difference_of_the_arms():
    # Both arms score alike in each epoch; pooled, the challenger's units are mostly of the second.
    first = scored({0.1: (900, 0, 0)}, {0.1: (100, 0, 0)}, 1)
    second = scored({0.9: (100, 0, 0)}, {0.9: (900, 0, 0)}, 2)
    drifted = Evidence(T0, {1: Epoch(0.1, CANARY), 2: Epoch(0.9, CANARY)}, scores=first | second)
    champion, challenger = scored_arms(drifted, SCORED).shares()
    np.testing.assert_allclose(champion, challenger)
    # Both epochs have one harmonic weight, 90, whatever the arms' shares are.
    np.testing.assert_allclose(champion[champion > 0], [0.5, 0.5])


def test_the_parts_of_the_brier_score_are_those_computed_by_hand():
    # Champion: 50 of 500 at .105 and 150 of 300 at .505; the mean label is 1/4 and the recalibrated rates .1 and .5.
    brier = (450 * 0.105**2 + 50 * 0.895**2 + 150 * 0.505**2 + 150 * 0.495**2) / 800
    best = (500 * 0.1 * 0.9 + 300 * 0.5 * 0.5) / 800
    expected = [brier, brier - best, 0.25 * 0.75 - best, 0.25 * 0.75]
    assert row(calibration_table(scored_arms(EVERYTHING, SCORED)), "champion", "800") == [
        "25 %",
        *(f"{part:.4f}" for part in expected),
    ]


def test_in_shadow_the_scores_are_those_of_the_pairs():
    pairs = {ScoredPair(13, 23, 1): 30, ScoredPair(13, 23, 0): 70, ScoredPair(53, 23, -1): 100}
    arms = scored_arms(Evidence(pairs=pairs), SCORED)
    assert arms.is_paired
    assert arms.champion.units[0, [13, 53]].tolist() == [100, 100]
    assert (arms.challenger.units[0, 23], arms.challenger.labelled[0, 23], arms.challenger.positive[0, 23]) == (
        200,
        100,
        30,
    )
    assert "the challenger in shadow" in quality(Evidence(pairs=pairs), SCORED)
    assert not scored_arms(replace(EVERYTHING, pairs=pairs), SCORED).is_paired


def test_the_index_is_told_with_its_value_under_chance_or_not_at_all():
    shift = shift_of(scored_arms(EVERYTHING, SCORED), EVERYTHING)
    assert f"index is {shift.psi:.3f}; arms that score alike have {shift.psi_null_mean:.3f}" in everything()
    unfrozen = replace(EVERYTHING, frozen=None, waits={})
    assert shift_of(scored_arms(unfrozen, SCORED), unfrozen) is None
    text = quality(unfrozen, SCORED)
    assert "How far they moved is not known" in text
    assert row(text, "slow")[2:] == ["none", "none"]


# -- labels


def test_labels_are_counted_as_waiting_come_missing_or_hidden():
    champion, challenger = label_counts(EVERYTHING, SCORED)
    assert (champion.arm, challenger.arm) == (Arm.CHAMPION, Arm.CHALLENGER)
    assert (challenger.waiting, challenger.labelled, challenger.missing, challenger.hidden) == (40, 130, 30, 5)
    assert challenger.coverage == 100 / 130
    assert champion.coverage == 100 / 130


def test_both_curves_are_those_computed_by_hand():
    # 200 units: 80 labels at step 4, then 40 units censored at step 9, then 50 labels of 80 units at step 24.
    seen = arrival(EVERYTHING, SCORED.guardrails[1], Arm.CHALLENGER)
    after_4, after_24 = 80 / 200, 1 - (120 / 200) * (30 / 80)
    np.testing.assert_array_equal(seen.of_units.times, [4, 24])
    np.testing.assert_allclose(seen.of_units.shares, [after_4 / after_24, 1.0])
    # Of labels alone: 50 of the 100 that had the time came at step 24.
    np.testing.assert_allclose(seen.of_labels.shares, [1 - 50 / 100, 1.0])
    assert seen.by(0.9) == 25 / 50


def test_of_many_units_an_even_part_gives_the_same_curve():
    few = arrival(EVERYTHING, SCORED.guardrails[1], Arm.CHALLENGER)
    many = replace(EVERYTHING, waits={wait: 100_003 * count for wait, count in EVERYTHING.waits.items()})
    thinned = arrival(many, SCORED.guardrails[1], Arm.CHALLENGER)
    np.testing.assert_allclose(thinned.of_units.shares, few.of_units.shares, atol=1e-4)
    np.testing.assert_allclose(thinned.of_labels.shares, few.of_labels.shares, atol=1e-4)


def test_an_arm_without_a_label_has_no_curve():
    waiting = Evidence(waits=waits(delays={(9, -1): 40, (50, 50): 3}))
    assert arrival(waiting, SCORED.guardrails[1], Arm.CHALLENGER) is None
    assert not pictures(quality(waiting, SCORED))


# -- plots and text


def plots(evidence):
    arms = scored_arms(evidence, SCORED)
    return [score_plot(arms, shift_of(arms, evidence)), reliability_plot(arms), maturity_plot(evidence, SCORED)]


def test_plots_are_pictures_and_the_same_counts_give_the_same_bytes():
    first = plots(EVERYTHING)
    assert first == pictures(everything())
    for png in first:
        with Image.open(io.BytesIO(png)) as picture:
            assert len(picture.convert("RGB").getcolors(100_000)) > 8


def test_other_counts_give_another_picture():
    moved = replace(
        EVERYTHING, scores=scored({0.1: (900, 500, 50)}, {0.4: (100, 50, 40)}), waits=waits(delays={(50, 3): 9})
    )
    assert all(one != other for one, other in zip(pictures(everything()), plots(moved), strict=True))


def test_every_row_of_every_table_has_the_cells_of_its_header():
    tables = re.findall(r"(?:^\|.*\n?)+", everything(), re.MULTILINE)
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_a_section_of_many_guardrails_still_fits_into_a_form():
    many = a_plan(guardrails=[LABEL | {"name": f"label-{at}", "slices": []} for at in range(30)], scores=SCORES)
    seen = {replace_name(wait, f"label-{at}"): count for wait, count in EVERYTHING.waits.items() for at in range(30)}
    # Its latencies and scores are drawn once in any plan: those of one guardrail are added.
    of_labels = quality(Evidence(waits=seen), many)
    assert pictures(of_labels)
    assert len(of_labels.encode()) + len(everything().encode()) < 200_000


def replace_name(wait, name):
    return wait._replace(guardrail=name)


# -- where it is shown


AMOUNTS = {Cell("m", "origin", "EWR", 1, Arm.CHAMPION): Moments(3, 2, 10**30, 3, 10**60, 7, 3)}


@pytest.mark.parametrize(
    "evidence", [Evidence(), evidence_at(T0), EVERYTHING, replace(EVERYTHING, moments=AMOUNTS, crossed=2)]
)
def test_stored_evidence_is_read_back_as_it_was(evidence):
    again = stored_evidence(evidence.document(), digest=evidence.digest)
    assert again == evidence


@pytest.mark.parametrize("change", [{"crossed": 7}, {"cells": 3}, {"newest": "yesterday"}, {"waits": [[1]]}])
def test_evidence_that_was_changed_is_refused(change):
    with pytest.raises(ValueError, match="look at the logs again"):
        stored_evidence({**EVERYTHING.document(), **change}, digest=EVERYTHING.digest)


def test_evidence_of_another_version_is_refused():
    document = EVERYTHING.document()
    del document["waits"]
    with pytest.raises(ValueError, match="look at the logs again"):
        stored_evidence(document, digest=EVERYTHING.digest)


def test_a_question_shows_the_counts_that_its_answer_names(tmp_path):
    world = World(tmp_path)
    rollout, now = world.advance_to(State.AWAITING_APPROVAL)
    evidence = decided_on(world.ports, rollout)
    assert evidence.digest == rollout.evidence_digest
    world.evidence.says = evidence_at(now, units=7)
    plan = world.store.plan(rollout.plan_id)
    text = question(
        rollout, plan, world.store.looks(rollout.id), {}, evidence=decided_on(world.ports, rollout), now=now
    )
    assert quality(evidence, plan) in text


def test_a_question_without_its_counts_says_so(tmp_path):
    rollout, now = World(tmp_path).advance_to(State.AWAITING_APPROVAL)
    assert "The counts could not be read" in question(rollout, a_plan(), [], {}, now=now)


def test_a_stage_report_shows_what_is_measured_now(tmp_path):
    world = World(tmp_path)
    rollout, now = world.advance_to(State.CANARY)
    undrawn = replace(EVERYTHING, scores={}, waits={})
    world.evidence.says = undrawn
    seen = measured(world.ports, rollout, SCORED, now=now)
    assert seen is undrawn
    assert quality(undrawn, SCORED) in stage_report(rollout, SCORED, [], evidence=seen, now=now)


def test_a_rollout_that_ended_shows_what_moved_it_last(tmp_path):
    world = World(tmp_path)
    rollout, now = world.advance_to(State.CANARY)
    world.evidence.says = evidence_at(now + DAY, ratio=3.0)
    ended = world.step(rollout, now + DAY).rollout
    assert ended.state is State.ROLLING_BACK
    harmful, world.evidence.says = world.evidence.says, EVERYTHING
    assert measured(world.ports, ended, a_plan(), now=now + DAY) == harmful


def test_logs_that_cannot_be_read_give_no_counts(tmp_path):
    world = World(tmp_path)
    rollout, now = world.advance_to(State.CANARY)
    world.evidence.says = UnavailableError("logs are away")
    assert measured(world.ports, rollout, a_plan(), now=now) is None


def test_a_rollout_without_stored_evidence_has_no_counts(tmp_path):
    world = World(tmp_path)
    rollout = world.start()
    assert decided_on(world.ports, replace(rollout, evidence_digest=None)) is None
    assert decided_on(world.ports, replace(rollout, evidence_digest="sha256:unknown")) is None
