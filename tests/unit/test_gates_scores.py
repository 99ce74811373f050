"""Findings on the score: collapse, shift and calibration of a challenger that serves, and losses in shadow."""

import math
from dataclasses import replace

import numpy as np
import pytest
from builders import PLAN, SHADOW, T0, a_finding, a_plan, a_rollout, evidence_at
from scipy.special import expit, logit

from seatrial.evidence import Arm, Epoch, Evidence, Frozen, ScoreCell, ScoredPair, ScoreTally
from seatrial.gates.finding import Question
from seatrial.gates.pairs import advice, paired_losses
from seatrial.gates.scores import scores, shadow_scores
from seatrial.rollout import Action, State, decide
from seatrial.stats.scores import ScoreGrid, deciles
from seatrial.units import canonical
from seatrial.verdict import Verdict

GRID = ScoreGrid()
BOUND = 0.02


def scored(**changes):
    """Return a plan that asks something of the score, and of its loss in shadow."""
    asked = {
        "range": [0, 1],
        "label": "late",
        "maturity": "36 h",
        "tolerance": 0.2,
        "slices": ["origin"],
        "consequence": "freeze",
        **changes,
    }
    stages = [dict(stage) for stage in PLAN["stages"]]
    if asked["label"] is not None:
        stages[SHADOW]["max_brier_increase"] = BOUND
    return a_plan(stages=stages, scores={key: value for key, value in asked.items() if value is not None})


SCORED = scored()
STAGE = SCORED.stages[SHADOW]


def bell(units, center=0.5, width=0.15):
    """Return counts by bin of about `units` scores around `center`."""
    density = np.nan_to_num(np.exp(-(((GRID.middle() - center) / width) ** 2) / 2))
    density[:3] = density[-1] = 0.0
    return np.round(units * density / density.sum()).astype(int)


HEALTHY = bell(2_000), bell(8_000)


def counted(challenger=HEALTHY[0], champion=HEALTHY[1], *, off=0.0, value=None, reference=HEALTHY[1]):
    """Return evidence of scores; the challenger's positives are `off` logits from its scores."""
    scale = logit(np.clip(np.nan_to_num(GRID.middle()), 1e-9, 1 - 1e-9))
    found = {}
    for arm, counts, shift in ((Arm.CHALLENGER, challenger, off), (Arm.CHAMPION, champion, 0.0)):
        positive = np.round(counts * expit(scale + shift))
        for at in np.flatnonzero(counts):
            tally = ScoreTally(int(counts[at]), int(counts[at]), int(positive[at]))
            found[ScoreCell(None if value is None else "origin", value, 2, arm, int(at))] = tally
    frozen = Frozen({}, {int(at): int(reference[at]) for at in np.flatnonzero(reference)})
    return Evidence(epochs={2: Epoch(0.2, 2)}, scores=found, frozen=frozen)


def about(found, subject):
    (finding,) = [f for f in found if f.subject == subject]
    return finding


def at(*bins_and_counts):
    counts = np.zeros(GRID.size, dtype=int)
    for index, count in bins_and_counts:
        counts[index] = count
    return counts


@pytest.mark.parametrize(
    ("challenger", "verdict", "says"),
    [
        (HEALTHY[0], Verdict.PASS, "as varied as the champion's"),
        (at((50, 2_000)), Verdict.FAIL, "100.0% of the scores are in one bin"),
        (at((0, 1_000)) + bell(1_000), Verdict.FAIL, "of the units have no score"),
        (at((1, 1)) + bell(30), Verdict.FAIL, "outside the contract"),
        (bell(300), Verdict.INCONCLUSIVE, "too few scores"),
        (at(), Verdict.INCONCLUSIVE, "too few scores"),
    ],
)
def test_a_collapse_is_read_off_the_counts(challenger, verdict, says):
    finding = about(scores(counted(challenger), SCORED), "score collapse")
    assert (finding.question, finding.verdict) == (Question.SCORES, verdict)
    assert says in finding.reason
    assert finding.numbers == {"challenger_scored": int(challenger.sum()), "champion_scored": int(HEALTHY[1].sum())}


@pytest.mark.parametrize(
    ("challenger", "verdict"),
    [(HEALTHY[0], Verdict.INCONCLUSIVE), (bell(2_000, 0.52), Verdict.FAIL), (bell(2_000, 0.5, 0.1), Verdict.FAIL)],
)
def test_a_score_that_moved_fails_at_the_hold_budget_and_one_that_did_not_passes_nothing(challenger, verdict):
    finding = about(scores(counted(challenger), SCORED), "score distribution")
    assert finding.verdict is verdict
    assert finding.numbers["threshold"] == pytest.approx(math.log(1 / SCORED.budgets.hold))
    assert (finding.numbers["log_e"] >= finding.numbers["threshold"]) == (verdict is Verdict.FAIL)
    assert {"psi", "psi_null_mean", "jensen_shannon", "wasserstein", "mean_difference"} <= set(finding.numbers)
    assert "PSI" in finding.reason


@pytest.mark.parametrize("evidence", [counted(reference=at()), counted(reference=at((0, 9), (2, 9))), Evidence()])
def test_a_shift_needs_scores_of_the_champion_from_before_the_rollout(evidence):
    finding = about(scores(evidence, SCORED), "score distribution")
    assert (finding.verdict, finding.numbers) == (Verdict.INCONCLUSIVE, {})
    assert "nothing to compare" in finding.reason


def test_a_shift_needs_both_arms():
    for challenger, champion in ((at(), HEALTHY[1]), (HEALTHY[0], at())):
        assert (
            about(scores(counted(challenger, champion), SCORED), "score distribution").verdict is Verdict.INCONCLUSIVE
        )


@pytest.mark.parametrize(
    ("off", "verdict", "often"),
    [
        (0.0, Verdict.INCONCLUSIVE, None),
        (0.15, Verdict.INCONCLUSIVE, None),
        (0.6, Verdict.FAIL, "more"),
        (-0.6, Verdict.FAIL, "less"),
    ],
)
def test_outcomes_beyond_the_tolerance_fail_calibration_and_none_pass_it(off, verdict, often):
    finding = about(scores(counted(off=off), SCORED), "score")
    assert (finding.question, finding.verdict) == (Question.CALIBRATION, verdict)
    assert finding.numbers["labelled"] == HEALTHY[0].sum()
    assert often is None or f"outcomes are {often} frequent than scored" in finding.reason


def test_half_of_the_hold_budget_is_on_all_units_and_half_on_slices_and_bands():
    found = [f for f in scores(counted(), SCORED) if f.question is Question.CALIBRATION]
    bands = len(deciles(HEALTHY[1])) + 1
    assert len(found) == 1 + 2 + bands
    # Two directions of each share its part.
    spent = [2.0 * math.exp(-f.numbers["threshold"]) for f in found]
    assert spent[0] == pytest.approx(SCORED.budgets.hold / 2)
    assert sum(spent) == pytest.approx(SCORED.budgets.hold)
    assert len(set(map(round, (1.0 / part for part in spent[1:])))) == 1


def test_a_slice_that_lost_calibration_is_named_and_the_others_are_not():
    evidence = counted()
    sliced = {**evidence.scores, **counted(off=0.8, value="JFK").scores, **counted(value="EWR").scores}
    found = scores(replace(evidence, scores=sliced), SCORED)
    failed = [f.subject for f in found if f.verdict is Verdict.FAIL]
    assert failed == ["score · origin=JFK"]


def test_a_band_of_scores_that_lost_calibration_is_named():
    tail = np.flatnonzero(HEALTHY[0])[-25:]
    good, bad = counted().scores, counted(off=-1.0).scores
    mixed = {cell: bad[cell] if cell.bin in tail else good[cell] for cell in good}
    failed = [f.subject for f in scores(replace(counted(), scores=mixed), SCORED) if f.verdict is Verdict.FAIL]
    assert [s for s in failed if s.startswith("score · ")] == failed[-1:]
    assert failed[-1].endswith("to 1")


@pytest.mark.parametrize(("consequence", "binds"), [("freeze", True), ("notify", False)])
def test_what_is_found_on_scores_binds_when_the_plan_says_freeze(consequence, binds):
    found = scores(counted(bell(2_000, 0.7), off=2.0), scored(consequence=consequence))
    assert {f.is_binding for f in found} == {binds}
    assert Verdict.FAIL in {f.verdict for f in found}


def test_a_score_that_predicts_no_label_is_asked_for_no_calibration():
    found = scores(counted(), scored(label=None, maturity=None))
    assert {f.question for f in found} == {Question.SCORES}


def test_a_plan_that_asks_nothing_of_scores_gets_no_finding():
    assert scores(counted(), a_plan()) == shadow_scores(counted(), a_plan()) == []
    assert paired_losses(counted(), a_plan(), a_plan().stages[SHADOW]) == []
    assert advice(paired(good=100), a_plan(), cut_off=0.6) == []


def test_counts_of_an_epoch_that_nobody_knows_are_not_read():
    evidence = counted()
    lost = replace(evidence, epochs={})
    assert {f.verdict for f in scores(lost, SCORED)} == {Verdict.INCONCLUSIVE}


# --- shadow ---


def paired(*, good=0, bad=0, unlabelled=0, same=0):
    """Return pairs in which the challenger was nearer to the outcome, farther from it, not yet judged, or alike."""
    low, high = (int(GRID.index(score)) for score in (0.305, 0.695))
    pairs = {
        ScoredPair(low, high, 1): good,
        ScoredPair(high, low, 1): bad,
        ScoredPair(high, low, -1): unlabelled,
        ScoredPair(low, low, 0): same,
    }
    return Evidence(pairs={pair: count for pair, count in pairs.items() if count})


@pytest.mark.parametrize(
    ("evidence", "verdict", "says"),
    [
        (paired(good=200, same=500), Verdict.PASS, "an increase of 0.02 is ruled out"),
        (paired(same=2_000), Verdict.PASS, "an increase of 0.02 is ruled out"),
        (paired(same=20), Verdict.INCONCLUSIVE, "not ruled out yet"),
        (paired(bad=200, same=500), Verdict.FAIL, "the Brier loss is greater than the champion's"),
        (paired(unlabelled=5_000), Verdict.INCONCLUSIVE, "no pair of scores has a matured label"),
        (Evidence(), Verdict.INCONCLUSIVE, "no pair of scores has a matured label"),
    ],
)
def test_a_loss_in_shadow_must_be_shown_not_to_be_greater(evidence, verdict, says):
    (finding,) = paired_losses(evidence, SCORED, STAGE)
    assert (finding.question, finding.verdict, finding.is_binding) == (Question.SHADOW, verdict, True)
    assert says in finding.reason
    assert canonical(finding.document())


def test_pairs_without_a_label_or_outside_the_range_are_no_pairs():
    (finding,) = paired_losses(paired(good=200, same=500), SCORED, STAGE)
    strange = {ScoredPair(0, 50, 1): 999, ScoredPair(50, 1, 0): 999, ScoredPair(50, 40, -1): 999}
    more = paired(good=200, same=500) + Evidence(pairs=strange)
    assert paired_losses(more, SCORED, STAGE) == [finding]
    assert finding.numbers["pairs"] == 700


def test_a_loss_is_judged_at_the_promotion_budget_and_shows_areas():
    (finding,) = paired_losses(paired(good=100, bad=20, same=300), SCORED, STAGE)
    assert finding.numbers["log_e"] >= math.log(1 / SCORED.budgets.promote)
    assert {"champion_auc", "challenger_auc", "auc_difference_low", "auc_difference_high"} <= set(finding.numbers)
    strict = SCORED.model_copy(update={"budgets": SCORED.budgets.model_copy(update={"promote": 1e-300})})
    assert paired_losses(paired(good=100, bad=20, same=300), strict, STAGE)[0].verdict is Verdict.INCONCLUSIVE


def shadowed(challenger):
    """Return pairs of healthy scores of the champion with such scores of the challenger."""
    ours, theirs = (np.repeat(np.arange(GRID.size), counts) for counts in (challenger, bell(challenger.sum())))
    size = min(ours.size, theirs.size)
    pairs = zip(theirs[:size].tolist(), ours[:size].tolist(), strict=True)
    total = {}
    for champion, own in pairs:
        total[ScoredPair(champion, own, -1)] = total.get(ScoredPair(champion, own, -1), 0) + 1
    return Evidence(pairs=total)


@pytest.mark.parametrize(
    ("challenger", "verdict", "action"),
    [
        (bell(2_000), Verdict.PASS, Action.ADVANCE),
        (at((50, 2_000)), Verdict.FAIL, Action.ROLL_BACK),
        (bell(100), Verdict.INCONCLUSIVE, Action.HOLD),
    ],
)
@pytest.mark.parametrize("consequence", ["freeze", "notify"])
def test_a_score_that_collapsed_in_shadow_ends_the_rollout_before_anybody_is_exposed(
    challenger, verdict, action, consequence
):
    (finding,) = shadow_scores(shadowed(challenger), scored(consequence=consequence))
    assert (finding.question, finding.verdict, finding.is_binding) == (Question.SHADOW, verdict, True)
    passes = [a_finding(q) for q in (Question.CONTRACT, Question.FRESHNESS, Question.SHADOW)]
    rollout = a_rollout(State.SHADOW, SHADOW)
    assert decide(rollout, SCORED, [*passes, finding], now=T0 + STAGE.soak).action is action


def test_a_loss_that_is_proven_greater_ends_the_rollout_in_shadow():
    passes = [a_finding(q) for q in (Question.CONTRACT, Question.FRESHNESS, Question.SHADOW)]
    found = [*passes, *paired_losses(paired(bad=200, same=500), SCORED, STAGE)]
    assert decide(a_rollout(State.SHADOW, SHADOW), SCORED, found, now=T0 + STAGE.soak).action is Action.ROLL_BACK


def test_what_a_release_expects_of_itself_is_shown_and_never_acted_on():
    for evidence in (paired(good=900), paired(unlabelled=900)):
        (finding,) = advice(evidence, SCORED, cut_off=0.6)
        assert (finding.verdict, finding.is_binding) == (Verdict.INCONCLUSIVE, False)
        assert "an overconfident release expects too much" in finding.reason
    assert advice(paired(good=900), SCORED, cut_off=None) == advice(Evidence(), SCORED, cut_off=0.6) == []


def test_scores_say_nothing_in_evidence_of_guardrails_alone():
    verdicts = {f.verdict for f in scores(evidence_at(T0), SCORED)}
    assert verdicts == {Verdict.INCONCLUSIVE}
