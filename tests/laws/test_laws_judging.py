"""Laws of judging: what counts may never do to a verdict, whatever they are."""

import copy
import json
import math
from dataclasses import fields, replace

import numpy as np
import pytest
from builders import CANARY, DAY, PLAN, SHADOW, T0, a_finding, a_plan, a_rollout
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.evidence import (
    AMOUNT_STEP,
    WAIT_STEPS,
    Arm,
    Cell,
    Epoch,
    Evidence,
    Frozen,
    Moments,
    ScoreCell,
    ScoredPair,
    ScoreTally,
    ShadowTally,
    Tally,
    Wait,
    merge,
    stored_evidence,
)
from seatrial.gates import amounts
from seatrial.gates import assignment as gate_of_assignment
from seatrial.gates import guardrails as gate_of_guardrails
from seatrial.gates.assignment import assignment, losses
from seatrial.gates.delays import delays
from seatrial.gates.finding import Question
from seatrial.gates.freshness import freshness
from seatrial.gates.guardrails import exposure, harm, harm_and_warnings, promotion, warnings
from seatrial.gates.pairs import advice, paired_losses
from seatrial.gates.scores import scores, shadow_scores
from seatrial.gates.shadow import shadow
from seatrial.rollout import FREEZING, REQUIRED, Action, State, decide, is_judged
from seatrial.stats import kernel
from seatrial.stats.scores import ScoreGrid
from seatrial.verdict import Verdict, worst

DEVIATION = 8.0
SPENT = {
    "name": "spent",
    "source": "runtime",
    "mean": {"of": "latency_ms", "typical": 12, "deviation": DEVIATION},
    "margin": "20 % relative",
    "consequence": "roll_back",
}
SLOW = {
    "name": "slow",
    "source": "runtime",
    "exceeds": {"column": "latency_ms", "quantile": "95 %"},
    "margin": "20 % relative",
    "consequence": "roll_back",
}
COMMON = {**PLAN["guardrails"][1], "name": "common", "expected": {"rate": "25 %"}, "slices": []}
JUDGED = a_plan(
    guardrails=[*copy.deepcopy(PLAN["guardrails"]), SPENT, SLOW, COMMON],
    scores={"range": [0, 1], "label": "late", "maturity": "36 h", "slices": ["origin"], "consequence": "freeze"},
    stages=[{**stage, "max_brier_increase": 0.02} if stage["stage"] == "shadow" else stage for stage in PLAN["stages"]],
)
RULE_OUT = JUDGED.stages[CANARY].rule_out
SIZE = ScoreGrid().size
EPOCHS = {1: Epoch(0.05, 2), 2: Epoch(0.2, 3), 3: Epoch(0.5, 4)}
FROZEN = Frozen({"slow": 30.0}, dict.fromkeys(range(20, 90), 5))

FEW, MANY = st.integers(0, 40), st.integers(0, 4_000)
ARMS = st.sampled_from([Arm.CHALLENGER, Arm.CHAMPION])
NUMBERS = st.sampled_from(sorted(EPOCHS))
PLACES = st.sampled_from([(None, None), ("origin", "EWR"), ("origin", "JFK")])
GUARDRAILS = st.sampled_from(["call-failed", "wrong-decision", "slow", "common", "spent"])


def a_tally(good, bad, late, unlabelled, young, young_bad):
    """Return the tally of units of each fate."""
    labelled, matured = good + bad, good + bad + late + unlabelled
    units = matured + young + young_bad
    return Tally(units, bad + late + young_bad, matured, bad, labelled, good)


def some_moments(amounts_and_counts):
    step = DEVIATION * AMOUNT_STEP
    total = Moments()
    for amount, count in amounts_and_counts:
        k = round(amount / step)
        total += Moments(count, count * (k != 0), count * k, count, count * k * k, count * k, count)
    return total


def a_score_tally(unlabelled, negative, positive):
    return ScoreTally(unlabelled + negative + positive, negative + positive, positive)


def cell_of(guardrail, place, number, arm):
    return Cell(guardrail, *place, number, arm)


CELLS = st.builds(cell_of, GUARDRAILS, PLACES, NUMBERS, ARMS)
SPENT_CELLS = st.builds(cell_of, st.just("spent"), st.just((None, None)), NUMBERS, ARMS)
SCORE_CELLS = st.builds(
    lambda place, number, arm, at: ScoreCell(*place, number, arm, at), PLACES, NUMBERS, ARMS, st.integers(0, SIZE - 1)
)
BINS = st.sampled_from([0, 1, 2, 30, 31, 60, SIZE - 1])
LOOKS = st.builds(
    Evidence,
    newest=st.none() | st.just(T0),
    epochs=st.just(EPOCHS),
    cells=st.dictionaries(CELLS, st.builds(a_tally, MANY, MANY, FEW, FEW, MANY, FEW), max_size=12),
    assigned=st.dictionaries(st.tuples(NUMBERS, ARMS), MANY, max_size=6),
    shadow=st.builds(
        lambda alike, flipped, failed, lost: ShadowTally(
            alike + flipped + failed + lost, failed, lost, 0, alike + flipped, flipped
        ),
        MANY,
        FEW,
        FEW,
        FEW,
    ),
    moments=st.dictionaries(
        SPENT_CELLS,
        st.lists(st.tuples(st.sampled_from([0.0, 6.0, 12.0, 50.0]), MANY), max_size=3).map(some_moments),
        max_size=4,
    ),
    scores=st.dictionaries(SCORE_CELLS, st.builds(a_score_tally, FEW, MANY, MANY), max_size=12),
    pairs=st.dictionaries(
        st.builds(ScoredPair, BINS, BINS, st.sampled_from([-1, 0, 1])), st.integers(1, 2_000), max_size=6
    ),
    waits=st.dictionaries(
        st.builds(
            Wait,
            st.sampled_from(["wrong-decision", "common"]),
            NUMBERS,
            ARMS,
            st.booleans(),
            st.sampled_from([10, WAIT_STEPS]),
            st.sampled_from([-1, 0, 3, 20, WAIT_STEPS]),
        ),
        st.integers(1, 200),
        max_size=8,
    ),
    latencies=st.dictionaries(st.tuples(ARMS, st.integers(0, 900)), st.integers(1, 99), max_size=4),
    crossed=st.sampled_from([0, 0, 0, 3]),
    frozen=st.none() | st.just(FROZEN),
)


def questions(evidence):
    """Return what every gate that reads evidence finds."""
    return [
        freshness(evidence, max_age=DAY, now=T0),
        assignment(evidence, alpha=0.0025),
        *losses(evidence, JUDGED, alpha=0.0025),
        *shadow(evidence.shadow, JUDGED.stages[SHADOW], alpha=0.05),
        *shadow_scores(evidence, JUDGED),
        *paired_losses(evidence, JUDGED, JUDGED.stages[SHADOW]),
        *advice(evidence, JUDGED, cut_off=0.6),
        *harm(evidence, JUDGED),
        *warnings(evidence, JUDGED),
        *scores(evidence, JUDGED),
        *delays(evidence, JUDGED),
        *exposure(evidence, JUDGED, rule_out=RULE_OUT),
        *promotion(evidence, JUDGED),
    ]


def passed(evidence):
    return {(f.question, f.subject) for f in questions(evidence) if f.verdict is Verdict.PASS}


@settings(max_examples=40, deadline=None)
@given(st.lists(LOOKS, min_size=1, max_size=4), st.randoms())
def test_what_is_found_does_not_depend_on_the_order_of_the_looks(looks, rng):
    forth, back = ([f.document() for f in questions(merge(some))] for some in (looks, rng.sample(looks, len(looks))))
    assert forth == back


@settings(max_examples=60, deadline=None)
@given(LOOKS, LOOKS)
def test_counts_of_two_looks_are_their_sums(one, other):
    both = one + other
    for name in ("assigned", "pairs", "waits", "latencies"):
        ours, theirs, total = (getattr(each, name) for each in (one, other, both))
        assert {key: ours.get(key, 0) + theirs.get(key, 0) for key in {*ours, *theirs}} == total
    for name, nothing in (("moments", Moments()), ("scores", ScoreTally()), ("cells", Tally())):
        ours, theirs, total = (getattr(each, name) for each in (one, other, both))
        sums = {key: ours.get(key, nothing) + theirs.get(key, nothing) for key in {*ours, *theirs}}
        assert {key: each for key, each in sums.items() if each != nothing} == {
            key: each for key, each in total.items() if each != nothing
        }
    assert both.crossed == one.crossed + other.crossed
    for place in ((None, None), ("origin", "JFK")):
        parts, whole = [each.histograms(SIZE, *place) for each in (one, other)], both.histograms(SIZE, *place)
        for arm in ("challenger", "champion"):
            for count in ("units", "labelled", "positive"):
                first, second = (getattr(getattr(each, arm), count) for each in parts)
                np.testing.assert_array_equal(getattr(getattr(whole, arm), count), first + second)


@settings(max_examples=60, deadline=None)
@given(LOOKS)
def test_evidence_reads_back_as_it_was_stored(evidence):
    stored = json.loads(json.dumps(evidence.document()))
    again = stored_evidence(stored, digest=evidence.digest)
    assert {f.name: getattr(again, f.name) for f in fields(Evidence)} == {
        f.name: getattr(evidence, f.name) for f in fields(Evidence)
    }


def with_one_more_bad(evidence, name, number, instead_of_a_good_one):
    """Return `evidence` with one more bad unit of the challenger, matured and labelled."""
    cell = Cell(name, None, None, number, Arm.CHALLENGER)
    before = evidence.cells.get(cell, Tally())
    if instead_of_a_good_one and before.good:
        after = replace(before, good=before.good - 1, bad=before.bad + 1, matured_bad=before.matured_bad + 1)
    else:
        after = before + Tally(1, 1, 1, 1, 1)
    return replace(evidence, cells={**evidence.cells, cell: after})


def log_es(findings):
    return {f.subject: f.numbers["log_e"] for f in findings}


ROUNDING = 1e-9


@settings(max_examples=60, deadline=None)
@given(
    LOOKS,
    st.sampled_from(["call-failed", "wrong-decision", "slow", "common"]),
    NUMBERS,
    st.booleans(),
)
def test_one_more_bad_unit_never_lowers_evidence_of_harm_and_never_raises_evidence_of_its_absence(
    evidence, name, number, instead_of_a_good_one
):
    evidence = replace(evidence, frozen=FROZEN)
    worse = with_one_more_bad(evidence, name, number, instead_of_a_good_one)
    for ask in (harm, warnings):
        before, after = (log_es(ask(each, JUDGED)) for each in (evidence, worse))
        for guardrail in JUDGED.guardrails:
            log_e = before.get(guardrail.name)
            assert log_e is None or after[guardrail.name] >= log_e - ROUNDING
    for ask in (promotion, lambda each, plan: exposure(each, plan, rule_out=RULE_OUT)):
        before, after = (log_es(ask(each, JUDGED)) for each in (evidence, worse))
        for subject, log_e in after.items():
            # Before its first unit an arm is asked nothing.
            assert None in (log_e, before[subject]) or log_e <= before[subject] + ROUNDING


COUNTS = st.lists(st.tuples(FEW, FEW, FEW, FEW, st.sampled_from([0.01, 0.05, 0.2, 0.5, 0.9])), min_size=1, max_size=5)


@settings(max_examples=100, deadline=None)
@given(COUNTS, st.data())
def test_the_kernel_never_takes_a_bad_unit_for_a_good_sign(epochs, data):
    k1, k0, g1, g0, rho = (np.array(column) for column in zip(*epochs, strict=True))
    at = data.draw(st.integers(0, len(epochs) - 1))
    more = k1 + (np.arange(len(epochs)) == at)
    assert kernel.harm(more, k0, rho) >= kernel.harm(k1, k0, rho) - ROUNDING
    assert (
        kernel.harm_of_all(more, k0, g1, g0, rho, rate=0.25)
        >= kernel.harm_of_all(k1, k0, g1, g0, rho, rate=0.25) - ROUNDING
    )
    fewer = np.maximum(g1 - (np.arange(len(epochs)) == at), 0)
    assert (
        kernel.harm_of_all(k1, k0, fewer, g0, rho, rate=0.25)
        >= kernel.harm_of_all(k1, k0, g1, g0, rho, rate=0.25) - ROUNDING
    )
    assert kernel.noninferiority(more, k0, rho, margin=0.2) <= kernel.noninferiority(k1, k0, rho, margin=0.2) + ROUNDING


def spent_evidence(challenger, champion, number=2):
    """Return evidence of amounts, as many at `mean - 8` as at `mean + 8`."""
    moments = {
        Cell("spent", None, None, number, arm): some_moments([(mean - DEVIATION, count), (mean + DEVIATION, count)])
        for arm, (mean, count) in ((Arm.CHALLENGER, challenger), (Arm.CHAMPION, champion))
    }
    return Evidence(epochs=EPOCHS, moments=moments)


@settings(max_examples=150, deadline=None)
@given(st.integers(30, 4_000), st.integers(30, 4_000), st.floats(12.0, 13.2), st.floats(0.0, 1.2))
def test_greater_amounts_of_the_challenger_never_lower_evidence_of_harm_nor_raise_evidence_of_its_absence(
    units, champions, mean, rise
):
    (spent,) = [each for each in JUDGED.guardrails if each.name == "spent"]
    before, after = (spent_evidence((each, units), (12.0, champions)) for each in (mean, mean + rise))
    worse = [amounts.log_e_worse(each, spent, None, None) for each in (before, after)]
    relief = [amounts.log_e_not_worse(each, spent, margin=0.2) for each in (before, after)]
    assert worse[1] >= worse[0] - ROUNDING
    assert relief[1] <= relief[0] + ROUNDING


@settings(max_examples=150, deadline=None)
@given(st.integers(30, 4_000), st.integers(30, 4_000), st.floats(8.0, 18.0))
def test_a_mean_is_never_shown_to_be_worse_and_not_to_be(units, champions, mean):
    (spent,) = [each for each in JUDGED.guardrails if each.name == "spent"]
    evidence = spent_evidence((mean, units), (12.0, champions))
    worse = amounts.log_e_worse(evidence, spent, None, None)
    not_worse = amounts.log_e_not_worse(evidence, spent, margin=1e-9)
    assert min(worse, not_worse) <= math.log(2.0)


@settings(max_examples=40, deadline=None)
@given(
    LOOKS,
    st.sets(
        st.sampled_from(
            ["newest", "epochs", "cells", "assigned", "shadow", "moments", "scores", "pairs", "waits", "frozen"]
        )
    ),
)
def test_what_is_not_there_never_passes_what_did_not_pass_with_it(evidence, lost):
    nothing = Evidence()
    less = replace(evidence, **{name: getattr(nothing, name) for name in lost})
    assert passed(less) <= passed(evidence)


@settings(max_examples=40, deadline=None)
@given(LOOKS)
def test_evidence_without_epochs_or_units_passes_nothing_about_a_comparison(evidence):
    compared = {Question.ASSIGNMENT, Question.HARM, Question.EXPOSURE, Question.PROMOTION, *FREEZING}
    for changes in ({"epochs": {}}, {"cells": {}, "assigned": {}, "moments": {}, "scores": {}}):
        found = questions(replace(evidence, **changes))
        assert {f.verdict for f in found if f.question in compared} <= {
            Verdict.INCONCLUSIVE,
            Verdict.ERROR,
            *([Verdict.FAIL] if evidence.crossed or evidence.waits else []),
        }


@settings(max_examples=40, deadline=None)
@given(LOOKS)
def test_harm_warnings_delays_and_calibration_never_pass(evidence):
    silent = {Question.HARM, Question.WARNING, Question.DELAY, Question.CALIBRATION}
    assert Verdict.PASS not in {f.verdict for f in questions(evidence) if f.question in silent}


WIDENS = (Action.ADVANCE, Action.PROMOTE)

#: One guardrail on three slices, so that some may be quiet while others are not.
SLICED = a_plan(slices={"origin": ["EWR", "JFK", "LGA"]}, guardrails=copy.deepcopy(PLAN["guardrails"]))
SLICED_PLACES = [(None, None), *(("origin", value) for value in SLICED.slices["origin"])]
SLICED_LOOKS = st.builds(
    Evidence,
    newest=st.just(T0),
    epochs=st.just(EPOCHS),
    cells=st.dictionaries(
        st.builds(
            cell_of, st.sampled_from(["call-failed", "wrong-decision"]), st.sampled_from(SLICED_PLACES), NUMBERS, ARMS
        ),
        st.builds(a_tally, st.integers(0, 900), st.integers(0, 60), FEW, FEW, MANY, FEW),
        max_size=16,
    ),
    assigned=st.dictionaries(st.tuples(NUMBERS, ARMS), MANY, max_size=6),
)


def judged(evidence, plan):
    """Return what a look in a canary finds."""
    return [
        a_finding(Question.FRESHNESS),
        assignment(evidence, alpha=0.0025),
        *losses(evidence, plan, alpha=0.0025),
        *harm_and_warnings(evidence, plan),
        *exposure(evidence, plan, rule_out=RULE_OUT),
    ]


def one_by_one(evidence, plan):
    """Return the same with a finding for every slice and every label, whatever it says."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gate_of_guardrails, "FOLDED_FROM", math.inf)
        patch.setattr(gate_of_assignment, "FOLDED_FROM", math.inf)
        return judged(evidence, plan)


@settings(max_examples=150, deadline=None)
@given(SLICED_LOOKS | LOOKS, st.sampled_from([JUDGED, SLICED]), st.integers(0, 20))
def test_findings_that_are_shared_decide_what_they_decide_one_by_one(evidence, plan, days):
    shared, apart = judged(evidence, plan), one_by_one(evidence, plan)
    assert len(apart) >= len(shared)
    for state, stage in ((State.CANARY, CANARY), (State.LABELS, 4), (State.PROMOTING, 6)):
        now = T0 + days * DAY
        first, second = (decide(a_rollout(state, stage), plan, found, now=now) for found in (shared, apart))
        assert first.action is second.action
        if first.action not in WIDENS:
            assert first.reason == second.reason
    assert is_judged(shared) is is_judged(apart)


@settings(max_examples=150, deadline=None)
@given(SLICED_LOOKS | LOOKS, st.sampled_from([JUDGED, SLICED]))
def test_only_what_is_quiet_shares_a_finding_and_none_is_lost(evidence, plan):
    shared, apart = judged(evidence, plan), one_by_one(evidence, plan)
    own = {(f.question, f.subject): f for f in shared}
    left = [f for f in apart if (f.question, f.subject) not in own]
    folds = [f for f in shared if {"quiet_slices", "parts"} & f.numbers.keys()]
    assert [f for f in apart if f not in left] == [f for f in shared if f not in folds]
    assert sum(f.numbers.get("quiet_slices", f.numbers.get("parts")) for f in folds) == len(left)
    likely = math.log(1.0 / plan.budgets.hold)
    for finding in left:
        if finding.question is Question.HARM:
            assert finding.verdict is Verdict.INCONCLUSIVE
            assert finding.numbers["log_e"] < min(likely, finding.numbers["threshold"])
        else:
            assert (finding.question, finding.verdict) == (Question.ASSIGNMENT, Verdict.PASS)
    for fold in folds:
        of = [f for f in left if f.question is fold.question and f.subject.startswith(fold.subject.split(" · ")[0])]
        members = of if fold.question is Question.HARM else [f for f in left if f.question is fold.question]
        assert fold.verdict is worst(f.verdict for f in members)
        assert fold.numbers["log_e"] == max(f.numbers["log_e"] for f in members)
        assert {f.is_binding for f in members} == {fold.is_binding}


FINDINGS = st.lists(
    st.builds(a_finding, st.sampled_from(Question), st.sampled_from(Verdict), is_binding=st.booleans()), max_size=12
)
STATES = st.sampled_from([(State.GATES, 0), (State.SHADOW, SHADOW), (State.CANARY, CANARY), (State.LABELS, 4)])


@settings(max_examples=200)
@given(STATES, FINDINGS, st.integers(0, 20))
def test_exposure_widens_on_passes_of_every_question_that_must_be_answered_and_on_no_other(where, findings, days):
    state, stage = where
    decision = decide(a_rollout(state, stage), JUDGED, findings, now=T0 + days * DAY)
    if decision.action in WIDENS:
        for question in REQUIRED[state]:
            verdicts = {f.verdict for f in findings if f.question is question and f.is_binding}
            assert verdicts == {Verdict.PASS}
        if state in (State.CANARY, State.LABELS):
            assert not [f for f in findings if f.question in FREEZING and f.is_binding and f.verdict is Verdict.FAIL]


@settings(max_examples=200)
@given(
    STATES,
    FINDINGS,
    st.integers(0, 20),
    st.lists(
        st.builds(a_finding, st.sampled_from([*FREEZING, Question.HARM]), st.sampled_from(Verdict)),
        min_size=1,
        max_size=4,
    ),
)
def test_an_answer_to_a_question_of_harm_widens_nothing_that_stood_still_without_it(where, findings, days, answers):
    rollout, now = a_rollout(*where), T0 + days * DAY
    without = decide(rollout, JUDGED, findings, now=now)
    with_answers = decide(rollout, JUDGED, [*findings, *answers], now=now)
    assert with_answers.action not in WIDENS or without.action in WIDENS
