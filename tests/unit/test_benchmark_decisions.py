"""The benchmark's own rules: ours agrees with the gates, and peers do what their descriptions say."""

from datetime import timedelta
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.decisions import mixture, scoring
from benchmarks.decisions.controllers import INTERVAL, Argo, Flagger, Kayenta, kayenta_score, shift_limits
from benchmarks.decisions.engine import play
from benchmarks.decisions.experiments import (
    Peeking,
    SafeRollout,
    msprt_log_lambda,
    overlap_log_e,
    sequential_radius,
)
from benchmarks.decisions.identity import STARTED, compare, judged, rollout_at
from benchmarks.decisions.ours import Seatrial, first_canary
from benchmarks.decisions.planned import boundary, stratified_z
from benchmarks.decisions.report import table
from benchmarks.decisions.rules import Act, Look
from benchmarks.decisions.streams import Counts, Delay, Ramp, Stream, Tick, Traffic, beta_binomial
from benchmarks.decisions.suites import CELLS, Cell, Truth
from seatrial.evidence import Arm, Epoch, Evidence, Tally
from seatrial.evidence import Cell as EvidenceCell
from seatrial.plan import Labels
from seatrial.rollout import Action, State
from seatrial.stats import kernel, means, srm

SHARES = np.array([0.01, 0.05, 0.1, 0.25, 0.5])
STAGE, STAGES = np.arange(2, 7), 10
HOUR = timedelta(hours=1)


def counts_of(seed, rows=40):
    rng = np.random.default_rng(seed)
    bad, champion = rng.integers(0, 60, (rows, 5)), rng.integers(0, 900, (rows, 5))
    began = np.arange(5) < rng.integers(0, 6, (rows, 1))
    return bad * began, champion * began


# The fast sums against the statistics of the product.


@pytest.mark.parametrize("seed", [1])
def test_the_arranged_sums_are_those_of_the_kernel(seed):
    bad, champion = counts_of(seed)
    good, champion_good = (20 * each for each in counts_of(seed))
    both = np.concatenate([bad, good], axis=-1), np.concatenate([champion, champion_good], axis=-1)
    planned = {"stage": STAGE, "stages": STAGES}
    pairs = [
        (mixture.harm(SHARES, **planned).log_e(bad, champion), kernel.harm(bad, champion, SHARES, **planned)),
        (
            mixture.harm_of_all(SHARES, rate=0.2, **planned).log_e(*both),
            kernel.harm_of_all(bad, champion, good, champion_good, SHARES, rate=0.2, **planned),
        ),
        (
            mixture.noninferiority(SHARES, margin=0.15).log_e(bad, champion),
            kernel.noninferiority(bad, champion, SHARES, margin=0.15),
        ),
        (
            mixture.tilt_log_e(mixture.tilt(SHARES), 50 * bad, 50 * champion),
            srm.odds_tilt(50 * bad, 50 * champion, SHARES),
        ),
    ]
    for arranged, original in pairs:
        assert np.allclose(arranged, original, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", [2])
def test_a_floor_changes_no_value_above_it_and_lifts_none_over_it(seed):
    bad, champion = counts_of(seed, 400)
    exact = mixture.harm(SHARES, stage=STAGE, stages=STAGES)
    found, all_of_it = exact.log_e(bad, champion, floor=3.0), exact.log_e(bad, champion)
    assert (all_of_it >= 3.0).any()
    assert ((found >= 3.0) == (all_of_it >= 3.0)).all()
    assert (found[all_of_it >= 3.0] == all_of_it[all_of_it >= 3.0]).all()


@pytest.mark.parametrize("seed", [3])
def test_the_overlap_sequence_is_that_of_the_product(seed):
    rng = np.random.default_rng(seed)
    units = rng.integers(100, 5_000, (1, 2, 5))
    bad = rng.binomial(units, 0.05)[:, None]
    found = overlap_log_e(bad, units, SHARES, first=np.array([0.05]), tuned_at=np.array([30.0]))

    def sums(arm):
        k, n = bad[0, 0, arm], units[0, arm]
        return means.Sums(n, k, k, n, k, k, n)

    score = means.overlap_score(sums(0), sums(1), SHARES, center=0.05)
    assert found[0, 0] == pytest.approx(means.log_e_above(score, tuned_at=30.0), abs=1e-9)


# Ours against the gates and the state machine.


def evidence_of(look, plan, row):
    """Return the evidence of one replicate, as the logs would give it."""
    counts = look.counts
    epochs = {at: Epoch(float(share), first_canary(plan) + at) for at, share in enumerate(look.shares)}
    epochs = {at: epoch for at, epoch in epochs.items() if counts.units[row, :, at].any()}
    cells, assigned = {}, {}
    for at in epochs:
        for index, arm in enumerate((Arm.CHALLENGER, Arm.CHAMPION)):
            of = (row, index, at)
            assigned[at, arm] = int(counts.units[of])
            for g, guardrail in enumerate(plan.guardrails):
                cells[EvidenceCell(guardrail.name, None, None, at, arm)] = Tally(
                    units=int(counts.units[of]),
                    bad=int(counts.bad[row, g, index, at]),
                    matured=int(counts.matured[of]),
                    matured_bad=int(counts.matured_bad[row, g, index, at]),
                    labelled=int(counts.labelled[of]),
                    good=int(counts.labelled[of] - counts.matured_bad[row, g, index, at]),
                )
                for s, value in enumerate(plan.slices.get("slice", ())):
                    units = int(counts.slice_units[row, s, index, at])
                    bad = int(counts.slice_bad[row, g, s, index, at])
                    cells[EvidenceCell(guardrail.name, "slice", value, at, arm)] = Tally(units, bad)
    return Evidence(newest=STARTED + HOUR * (look.now + 1), epochs=epochs, cells=cells, assigned=assigned)


class Compared:
    """Puts the looks at some replicates to the gates and the state machine too."""

    def __init__(self, rule, rows, every):
        self.rule, self.rows, self.every = rule, rows, every
        self.entered = dict.fromkeys(rows, 0)
        self.is_in_labels = dict.fromkeys(rows, False)
        self.seen = []

    def __call__(self, look, acts):
        plan, last = self.rule.plan, look.shares.size - 1
        for row in self.rows:
            if not look.active[row]:
                continue
            is_last, labels = look.stage[row] == last, self.is_in_labels[row]
            stage = first_canary(plan) + look.stage[row] + (1 if labels else 0)
            moved = acts[row] != Act.STAY or self.rule._in_labels[row] != labels  # noqa: SLF001
            if moved or look.now % self.every == 0:
                state = State.LABELS if labels else State.CANARY
                rollout = rollout_at(plan, int(stage), STARTED + HOUR * self.entered[row], state)
                decision = judged(evidence_of(look, plan, row), plan, rollout, now=STARTED + HOUR * (look.now + 1))
                self.seen.append((Act(acts[row]), bool(moved), decision.action, decision.reason, labels))
            if acts[row] == Act.ADVANCE or (is_last and self.rule._in_labels[row] and not labels):  # noqa: SLF001
                self.entered[row], self.is_in_labels[row] = look.now + 1, bool(is_last)


EXPECTED = {
    Act.ROLL_BACK: Action.ROLL_BACK,
    Act.ADVANCE: Action.ADVANCE,
    Act.PROMOTE: Action.ADVANCE,
    Act.ASK: Action.ASK,
    Act.INVALID: Action.ASK,
}
SMALL = Ramp(ticks=6, units=20_000)
STREAMS = {
    "harmless": Stream(ramp=SMALL),
    "harmful": Stream(ramp=SMALL, ratio=(1.25,)),
    "two guardrails in slices": Stream(ramp=SMALL, base=(0.02, 0.05), ratio=(1.0, 1.6), has_slices=True, slice_at=0),
    "units lost": Stream(ramp=SMALL, lost=0.2),
    "few units lost": Stream(ramp=SMALL, lost=0.01),
    "labels lost": Stream(ramp=SMALL, labelled=(0.7, 1.0)),
    "labels late": Stream(ramp=Ramp(ticks=24, units=2_000), delay=Delay(median=6, window=18), swing=0.5),
    "labels scarce": Stream(ramp=SMALL, labelled=(0.7, 0.7)),
    "bad units common": Stream(ramp=Ramp(ticks=6, units=2_000), base=(0.3,), ratio=(1.15,)),
}


@pytest.mark.parametrize("seed", [4])
@pytest.mark.parametrize("name", STREAMS)
def test_our_acts_are_the_decisions_of_the_state_machine_on_the_findings_of_the_gates(name, seed):
    rule = Seatrial(declares_rate=max(STREAMS[name].base) > 0.1)
    compared = Compared(rule, rows=range(6), every=11)
    play(STREAMS[name], rule, 6, rng=np.random.default_rng(seed), watch=compared)
    assert len(compared.seen) >= 8
    for act, moved, action, reason, _ in compared.seen:
        expected = EXPECTED.get(act, Action.ADVANCE if moved else Action.HOLD)
        assert action is expected, (act, action, reason)
    assert any(moved for _, moved, *_ in compared.seen)


def test_the_streams_of_the_comparison_end_in_every_way():
    found = set()
    for stream in STREAMS.values():
        found |= set(play(stream, Seatrial(), 4, rng=np.random.default_rng(4)).act.tolist())
    assert found == {Act.PROMOTE, Act.ROLL_BACK, Act.ASK, Act.INVALID}


def test_our_rule_never_promotes_where_the_action_hides_the_label():
    ended = play(Stream(ramp=SMALL, ratio=(1.3,), labelled=(0.7, 0.95)), Seatrial(), 20, rng=np.random.default_rng(5))
    assert not (ended.act == Act.PROMOTE).any()


def test_the_plan_waits_three_soaks_at_a_share_and_in_labels():
    rule = Seatrial()
    rule.begin(Stream(ramp=SMALL), 1)
    labels = next(stage for stage in rule.plan.stages if isinstance(stage, Labels))
    assert labels.deadline == 18 * HOUR
    assert len(rule.plan.hypotheses()) == 1


# Streams.


def traffic(stream, seed=6, replicates=50, ticks=10):
    served = Traffic(stream, replicates, 200, np.random.default_rng(seed))
    stage = np.zeros(replicates, dtype=np.int64)
    for now in range(ticks):
        served.serve(now, stage, np.arange(replicates))
    return served


def test_lost_units_are_exposed_and_not_logged():
    served = traffic(Stream(lost=0.5, ramp=Ramp(shares=(0.5,))))
    assert served.counts.units[:, 0].sum() == pytest.approx(0.5 * served.exposed.sum(), rel=0.02)


def test_slices_share_out_the_units_and_the_bad_ones():
    counts = traffic(Stream(base=(0.02, 0.02), ratio=(1.0, 1.0), has_slices=True)).counts
    assert (counts.slice_units.sum(axis=1) == counts.units).all()
    assert (counts.slice_bad.sum(axis=2) == counts.bad).all()


def test_harm_in_one_slice_leaves_the_others_alone():
    stream = Stream(ratio=(3.0,), has_slices=True, slice_at=0, ramp=Ramp(shares=(0.5,)))
    bad = traffic(stream, ticks=100).counts.slice_bad[:, 0, :, :, 0].sum(axis=0)
    ratio = bad[:, 0] / bad[:, 1]
    assert ratio[0] == pytest.approx(3.0, rel=0.1)
    assert ratio[1:].mean() == pytest.approx(1.0, rel=0.05)


def test_late_labels_arrive_when_their_delay_says_and_mature_at_the_end_of_the_window():
    delay = Delay(median=6.0, window=12)
    stream = Stream(delay=delay, ramp=Ramp(shares=(0.5,)))
    served = traffic(stream, ticks=1)
    assert not served.counts.bad.any()
    for now in range(1, 13):
        served.serve(now, np.zeros(50, dtype=np.int64), np.array([], dtype=np.int64))
        served._deliver(now, np.arange(50))  # noqa: SLF001
    assert (served.counts.matured == served.counts.units).all()
    known = served.counts.bad.sum() / (50 * 2_000 * 0.02)
    assert known == pytest.approx(float(delay.known_within(np.array(12.0), 0)), abs=0.05)
    assert (served.counts.matured_bad == served.counts.bad).all()


def test_requests_of_an_entity_are_as_often_bad_whatever_their_correlation():
    for correlation in (0.0, 0.02, 0.2):
        chances = beta_binomial(8, np.array([0.02]), correlation)[0]
        assert chances.sum() == pytest.approx(1.0)
        assert chances @ np.arange(9) == pytest.approx(0.16)


# Peers.


def look_at(units, bad, *, now=0, stage=0, since=1, ramp=None, shares=SHARES):
    """Return a look at one replicate: `units` and `bad` of (challenger, champion), all at the present share."""
    counts = Counts.zeros(1, 1, 0, shares.size)
    counts.units[0, :, stage], counts.bad[0, 0, :, stage] = units, bad
    return Look(
        now=now,
        active=np.array([True]),
        stage=np.array([stage]),
        since=np.array([since]),
        shares=shares,
        ramp=ramp or Ramp(),
        counts=counts,
        tick=Tick(np.array([units]), np.array([[bad]])),
        rng=np.random.default_rng(7),
    )


def acts_of(rule, looks, stream=Stream()):  # noqa: B008 -- frozen
    rule.begin(stream, 1)
    return [Act(int(rule.look(look)[0])) for look in looks]


GOOD, BAD, SILENT = ((20, 1980), (0, 40)), ((20, 1980), (4, 40)), ((0, 0), (0, 0))


def interval(tick):
    return [look_at(*tick)] * INTERVAL


def test_argo_with_failure_limit_0_aborts_on_the_first_failed_measurement():
    assert acts_of(Argo(0), interval(GOOD) + interval(BAD))[-1] is Act.ROLL_BACK
    assert acts_of(Argo(0), interval(GOOD) * 3)[-1] is Act.STAY


def test_argo_with_failure_limit_3_aborts_on_the_fourth_however_many_succeed_between():
    three, four = (interval(GOOD) * 2 + interval(BAD)) * 3, (interval(GOOD) + interval(BAD)) * 4
    assert Act.ROLL_BACK not in acts_of(Argo(3), three)
    assert acts_of(Argo(3), four)[-1] is Act.ROLL_BACK


def test_argo_takes_no_value_for_no_failure():
    assert Act.ROLL_BACK not in acts_of(Argo(0), interval(SILENT) * 4)


def test_argo_with_a_fixed_bound_looks_at_the_challenger_alone():
    assert acts_of(Argo(0, None, 0.05), interval(((100, 100), (6, 90))))[-1] is Act.ROLL_BACK
    assert acts_of(Argo(0, None, 0.05), interval(((100, 100), (5, 0))))[-1] is Act.STAY


def test_flagger_never_forgets_a_failed_check_and_returns_one_check_after_the_threshold():
    looks = (interval(GOOD) + interval(BAD)) * 2
    acts = acts_of(Flagger(threshold=2), looks + interval(GOOD))
    assert Act.ROLL_BACK not in acts[:-1]
    assert acts[-1] is Act.ROLL_BACK


def test_flagger_takes_no_value_for_a_failed_check_and_does_not_advance_on_it():
    due = [look_at(*SILENT, since=60)] * INTERVAL
    assert acts_of(Flagger(threshold=9), due)[-1] is Act.STAY
    assert acts_of(Flagger(threshold=9), [look_at(*GOOD, since=60)] * INTERVAL)[-1] is Act.ADVANCE


def test_kayenta_ignores_metrics_that_erred_so_that_all_errors_score_100():
    assert kayenta_score(["Error", "Error"]) == 100.0
    assert kayenta_score(["Pass", "High", "Error", "Error"]) == 50.0
    assert kayenta_score(["Nodata", "Pass"]) == 0.0


def test_kayenta_finds_a_shift_beyond_the_tolerance_and_none_without_one():
    rng = np.random.default_rng(8)
    control = rng.normal(10.0, 1.0, (1, 1, 30))
    judge = Kayenta()
    assert judge.is_high(control + 5.0, control)[0, 0]
    assert not judge.is_high(control + 0.1, control)[0, 0]
    assert not judge.is_high(control - 5.0, control)[0, 0]


def test_the_shift_limits_are_order_statistics_of_all_pairs():
    low, estimate, high = shift_limits(np.arange(10.0), np.arange(10.0) - 3.0, 0.98)
    assert (low, estimate, high) == (-1.0, 3.0, 7.0)


def test_kayenta_returns_at_a_score_of_75_or_less_after_a_full_interval():
    rng = np.random.default_rng(9)
    looks = [look_at((1_000, 1_000), (int(60 + rng.integers(10)), 20), stage=4) for _ in range(30)]
    acts = acts_of(Kayenta(), looks)
    assert acts[-1] is Act.ROLL_BACK
    assert set(acts[:-1]) == {Act.STAY}


def test_the_sequential_radius_is_the_published_formula():
    # sigma = 1, n = 10,000, N* = 5,000, alpha = 5 %: rho^2 = (5.991465 + log 6.991465) / 5,000 = 0.00158724
    found = float(sequential_radius(np.float64(1e-4), np.float64(10_000), alpha=0.05, tuned_at=5_000))
    by_hand = np.sqrt(2 * (10_000 * 0.00158724 + 1) / (1e8 * 0.00158724) * np.log(np.sqrt(16.8724) / 0.05))
    assert found == pytest.approx(by_hand, rel=1e-5)


def test_the_mixture_sprt_is_the_published_formula():
    # V = 0.0001, tau = 0.02, d = 0.03: sqrt(1/5) exp(0.0004 * 0.0009 / (2 * 0.0001 * 0.0005)) = exp(3.6) / sqrt 5
    found = float(msprt_log_lambda(np.float64(0.03), np.float64(1e-4), 0.02))
    assert found == pytest.approx(3.6 - 0.5 * np.log(5))


def test_safe_rollout_ships_what_it_could_not_decide_and_not_what_is_not_split_as_planned():
    last = {"stage": 4, "since": 60, "now": 299}
    assert acts_of(SafeRollout(), [look_at((10_000, 10_000), (200, 200), **last)]) == [Act.PROMOTE]
    assert acts_of(SafeRollout(), [look_at((10_000, 10_000), (300, 200), **last)]) == [Act.ROLL_BACK]
    assert acts_of(SafeRollout(), [look_at((9_500, 10_000), (190, 200), **last)]) == [Act.INVALID]


def test_a_peeking_z_returns_beyond_196():
    assert acts_of(Peeking(), [look_at((1_000, 1_000), (40, 20))]) == [Act.ROLL_BACK]
    assert acts_of(Peeking(), [look_at((1_000, 1_000), (30, 20))]) == [Act.STAY]


def test_the_group_sequential_boundary_is_the_published_one():
    looks = np.arange(1, 6) / 5
    assert boundary(looks, "O'Brien-Fleming", 0.025).round(2).tolist() == [4.88, 3.36, 2.68, 2.29, 2.03]
    assert boundary(looks, "Pocock", 0.025).round(2).tolist() == [2.44, 2.43, 2.41, 2.40, 2.39]


def test_the_stratified_z_is_not_moved_by_a_ramp_under_a_drifting_base_rate():
    counts = Counts.zeros(1, 1, 0, 2)
    counts.units[0] = [[100, 5_000], [9_900, 5_000]]
    counts.bad[0, 0] = [[1, 500], [99, 500]]
    assert stratified_z(counts)[0, 0] == pytest.approx(0.0)
    pooled = SimpleNamespace(counts=counts)
    assert Peeking().is_harmed(pooled)[0, 0]


# Scoring.


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"), [(10, 100, 0.0552, 0.1744), (0, 20, 0.0, 0.1611), (20, 20, 0.8389, 1.0)]
)
def test_the_wilson_interval_has_its_published_values(hits, of, low, high):
    assert scoring.wilson(hits, of) == pytest.approx((low, high), abs=1e-4)


def test_nothing_counted_is_known_between_0_and_1():
    assert scoring.wilson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize(("ratio", "limit"), [(1.1, 30_300), (1.25, 5_066), (1.5, 1_352), (2.0, 378), (3.0, 112)])
def test_the_information_limit_is_that_of_wald(ratio, limit):
    assert scoring.information_limit(0.02, ratio) == pytest.approx(limit, rel=2e-3)


def test_a_share_that_is_not_small_costs_exposure_and_one_half_costs_twice_as_much():
    few, half = (scoring.information_limit(0.02, 1.1, share=share) for share in (0.001, 0.5))
    assert few == pytest.approx(scoring.information_limit(0.02, 1.1), rel=2e-3)
    assert half == pytest.approx(2 * few, rel=0.02)


@pytest.mark.parametrize(("ratio", "limit"), [(1.5, 5_700), (2.0, 2_200), (3.0, 800)])
def test_the_limit_for_positives_as_they_arrive_is_met_within_a_tick(ratio, limit):
    # A day at each share, 5,000 requests an hour, labels after 24 h in the median.
    stream = Stream(ramp=Ramp(ticks=24, units=5_000), ratio=(ratio,), delay=Delay())
    known = Delay().known_within(np.arange(400.0), 1)
    assert scoring.positives_limit(stream, known) == pytest.approx(limit, rel=0.12)


def test_every_wrong_answer_has_its_name():
    cells = {truth: next(cell for cell in CELLS if cell.truth is truth) for truth in Truth}
    ended = play(Stream(ramp=SMALL), Seatrial(), 2, rng=np.random.default_rng(10))
    names = {truth: scoring.score(cell, Seatrial(), ended).wrong[1] for truth, cell in cells.items()}
    assert names == {
        Truth.HARMLESS: "false rollback",
        Truth.UNEQUAL: "false rollback",
        Truth.HARMFUL: "missed",
        Truth.AT_MARGIN: "false promotion",
        Truth.BROKEN: "false promotion",
    }


def test_exposure_before_the_onset_is_not_counted_against_a_rule():
    stream = Stream(ramp=SMALL, ratio=(3.0,), onset=2)
    ended = play(stream, Seatrial(), 10, rng=np.random.default_rng(11))
    before = SMALL.ticks * SMALL.units * 0.06
    late = ended.act == Act.ROLL_BACK
    assert (ended.exposed - ended.exposed_after_onset)[late].mean() == pytest.approx(before, rel=0.05)
    cell = Cell("S3", "late", stream, Truth.HARMFUL)
    assert scoring.score(cell, Seatrial(), ended).exposed < before


def test_the_same_logs_give_the_same_verdict_however_they_were_delivered():
    found = compare([1])
    assert found.looks == 18
    assert found.differing == 0
    assert found.verdicts > 1


def test_a_table_has_one_width_for_each_column():
    assert table(["a", "bb"], [["1", "2"]]) == "| a | bb |\n|---|----|\n| 1 | 2  |"
