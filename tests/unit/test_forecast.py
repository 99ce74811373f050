import json
import math
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from builders import CANARY, CANARY_2, HOUR, PLAN, PROMOTION, STAGES, a_plan

from seatrial.cli import main
from seatrial.errors import InvalidDocumentError
from seatrial.evidence import Arm, Cell, Epoch, Evidence, Tally
from seatrial.forecast import Delay, expect, forecast
from seatrial.forecast.course import Course, Fate, log_e_harm, pass_through, time_to_harm
from seatrial.forecast.course import Tally as Counted
from seatrial.forecast.demands import demands
from seatrial.forecast.expectations import COMMON
from seatrial.gates import counted
from seatrial.gates import guardrails as gates
from seatrial.report.planning import forecast_plot, parts, shortfall_sentences, summary

FAILED, WRONG = PLAN["guardrails"]
RATES = {"call-failed": 0.01, "wrong-decision": 0.04}
DELAYS = {"wrong-decision": 6 * HOUR}


def a_small_plan(*, guardrails=(), stages=STAGES, **changes):
    """Return the plan of the builders without slices, so that all of its budget is for all units."""
    return a_plan(guardrails=[*guardrails] or [FAILED, WRONG | {"slices": []}], stages=stages, slices=None, **changes)


def stages(**changes):
    """Return the stages of the builders with the keys of one kind of stage changed."""
    return [stage | changes.get(stage["stage"], {}) for stage in STAGES]


def expected(plan, units_per_day=2_000.0, **options):
    return expect(plan, units_per_day=units_per_day, **{"rates": RATES, "delays": DELAYS} | options)


def a_course(plan=None, units_per_day=2_000.0, **options):
    plan = plan or a_small_plan()
    return Course.of(plan, expected(plan, units_per_day, **options))


def made(plan=None, *, seed=1, replicates=20, units_per_day=2_000.0, **options):
    plan = plan or a_small_plan()
    rng = np.random.default_rng(seed)
    return forecast(plan, expected(plan, units_per_day), rng=rng, replicates=replicates, **options)


@pytest.fixture(scope="module")
def usual():
    return made()


# -- what is counted on


def test_every_number_that_is_missing_is_named_at_once():
    with pytest.raises(InvalidDocumentError) as refused:
        expect(a_plan())
    places = " ".join(problem.place for problem in refused.value.problems)
    assert len(refused.value.problems) == 4
    for missing in (
        "expected.units_per_day",
        "call-failed expected.rate",
        "wrong-decision expected.rate",
        "wrong-decision expected.delay",
    ):
        assert missing in places


@pytest.mark.parametrize(
    ("options", "finding"),
    [
        ({"units_per_day": 0.0}, "above 0"),
        ({"units_per_day": math.nan}, "above 0"),
        ({"rates": RATES | {"call-failed": 0.0}}, "above 0 % and below 100 %"),
        ({"rates": RATES | {"wrong-decisions": 0.1}}, "did you mean 'wrong-decision'"),
        ({"delays": DELAYS | {"call-failed": HOUR}}, "without labels"),
        ({"delays": {"wrong-decision": 36 * HOUR}}, "less than the maturity, 1 d 12 h"),
    ],
)
def test_a_number_that_cannot_be_is_refused(options, finding):
    with pytest.raises(InvalidDocumentError, match=finding):
        expect(a_plan(), **{"units_per_day": 900.0, "rates": RATES, "delays": DELAYS} | options)


def test_the_numbers_of_the_plan_are_counted_on_and_those_given_win():
    guardrails = [FAILED | {"expected": {"rate": "3 %"}}, WRONG | {"expected": {"rate": "20 %", "delay": "8 h"}}]
    plan = a_plan(guardrails=guardrails, expected={"units_per_day": 900})
    found = expect(plan, rates={"call-failed": 0.02})
    assert found.units_per_day == 900
    assert [each.rate for each in found.guardrails] == [0.02, 0.2]
    assert found.guardrails[1].delay == Delay(1 / 3, 1.5)


def test_a_rate_that_is_given_does_not_change_how_the_gate_of_harm_counts():
    plan = a_plan(guardrails=[FAILED, WRONG | {"expected": {"rate": "20 %", "delay": "8 h"}}])
    found = expect(plan, units_per_day=900, rates={"call-failed": 0.3, "wrong-decision": 0.1})
    assert [each.declared_rate for each in found.guardrails] == [None, 0.2]
    assert COMMON == counted.COMMON


def test_a_tail_has_the_rate_that_its_quantile_says():
    tail = {"name": "slow", "source": "runtime", "exceeds": {"column": "latency_ms", "quantile": "99 %"}}
    plan = a_small_plan(
        guardrails=[tail | {"margin": "50 % relative", "consequence": "freeze"}, WRONG | {"slices": []}]
    )
    assert expected(plan, rates={"wrong-decision": 0.04}).guardrails[0].rate == pytest.approx(0.01)


def test_what_is_left_out_is_said():
    mean = {"name": "time", "source": "runtime", "mean": {"of": "latency_ms", "typical": 12, "deviation": 8}}
    others = [
        mean | {"margin": "20 % relative", "consequence": "freeze"},
        FAILED | {"name": "told", "consequence": "notify"},
        FAILED | {"name": "tried", "dry_run": True},
    ]
    plan = a_small_plan(
        guardrails=[*others, WRONG | {"slices": []}], stages=stages(promotion={"holdback": 0.0, "watch": "14 d"})
    )
    found = expected(plan, rates={"wrong-decision": 0.04})
    assert [each.name for each in found.guardrails] == ["wrong-decision"]
    said = " ".join(found.left_out)
    for part in ("time is a mean and is not planned", "told only notifies", "tried is a dry run", "no holdback"):
        assert part in said


@pytest.mark.parametrize(("median", "maturity"), [(0.25, 1.5), (0.75, 1.5), (1.4, 1.5), (0.001, 60.0)])
def test_half_of_the_labels_are_there_after_the_delay_and_all_when_mature(median, maturity):
    delay = Delay(median, maturity)
    assert delay.arrived([0.0, median, maturity, 2 * maturity]) == pytest.approx([0.0, 0.5, 1.0, 1.0], abs=1e-5)
    ages = np.linspace(0.0, 2 * maturity, 200_001)
    summed = np.concatenate([[0.0], np.cumsum(delay.arrived((ages[1:] + ages[:-1]) / 2)) * ages[1]])
    assert delay.accumulated(ages[::1000]) == pytest.approx(summed[::1000], rel=1e-4, abs=1e-6)


def test_labels_arrive_look_by_look_and_none_is_missing():
    parts_by_look = Delay(0.25, 1.5).by_look(0.25)
    assert parts_by_look.size == 7  # a unit served just before a look is mature six looks later
    assert (parts_by_look > 0).all()
    assert parts_by_look.sum() == pytest.approx(1.0)


# -- simulated rollouts


def as_evidence(course, tallies, at):
    """Return the counts of one simulated rollout as evidence for the real gates."""
    cells = {}
    for each, tally in zip(course.expectations.guardrails, tallies, strict=True):
        for arm, name in enumerate((Arm.CHALLENGER, Arm.CHAMPION)):
            for epoch in range(course.rho.size):
                bad, matured_bad, good = (int(n) for n in tally.counts[at, :, arm, epoch])
                matured = matured_bad + good
                cells[Cell(each.name, None, None, epoch, name)] = Tally(
                    matured, bad, matured, matured_bad, matured, good
                )
    epochs = {
        at: Epoch(float(rho), int(stage)) for at, (rho, stage) in enumerate(zip(course.rho, course.stage, strict=True))
    }
    return Evidence(epochs=epochs, cells=cells)


@pytest.mark.parametrize("declared", [{}, {"expected": {"rate": "20 %", "delay": "8 h"}}])
def test_the_evidence_of_a_simulated_rollout_is_that_of_the_gates(declared):
    plan = a_small_plan(guardrails=[FAILED | {"consequence": "roll_back"}, WRONG | {"slices": []} | declared])
    course, rng = a_course(plan, rates={"call-failed": 0.01, "wrong-decision": 0.2}), np.random.default_rng(4)
    tallies = [Counted.empty(each, course, 3) for each in course.expectations.guardrails]
    for step in course.steps:
        for _ in range(6):
            tallies = [
                t.served(e, course, step, 1.2, rng)
                for e, t in zip(course.expectations.guardrails, tallies, strict=True)
            ]
        log_es = [log_e_harm(e, course, t) for e, t in zip(course.expectations.guardrails, tallies, strict=True)]
        for at in range(3):
            real = [f.numbers["log_e"] for f in gates.harm(as_evidence(course, tallies, at), plan)]
            mine = [log_e[at] for log_e in log_es]
            assert [m for m in mine if m > -math.inf] == pytest.approx(
                [r for m, r in zip(mine, real, strict=True) if m > -math.inf], abs=1e-9
            )


def test_evidence_is_left_out_only_where_it_could_not_come_to_what_is_asked():
    course, rng = a_course(units_per_day=4_000.0), np.random.default_rng(5)
    guardrail = course.expectations.guardrails[1]
    tally = Counted.empty(guardrail, course, 300)
    for step in course.steps[:2] * 2:
        tally = tally.served(guardrail, course, step, 1.4, rng)
    exact, quick = log_e_harm(guardrail, course, tally), log_e_harm(guardrail, course, tally, at_least=2.0)
    known = quick > -math.inf
    assert 0 < known.sum() < known.size
    assert quick[known] == pytest.approx(exact[known], abs=1e-9)
    assert (exact[~known] < 2.0).all()


def test_bad_units_are_known_as_their_labels_arrive_and_counted_for_promotion_when_mature():
    course, rng = a_course(units_per_day=1e6), np.random.default_rng(3)
    guardrail, step = course.expectations.guardrails[1], course.steps[0]
    tally = Counted.empty(guardrail, course, 50).served(guardrail, course, step, 1.0, rng)
    served = 1e6 * course.interval * 0.04 * 0.95  # by the champion, bad
    looks = guardrail.delay.by_look(course.interval).size
    idle = replace(course, expectations=replace(course.expectations, units_per_day=0.0))
    known, mature = [], []
    for _ in range(looks):
        reported, matured_bad, _ = tally.counts[:, :, 1, 0].mean(axis=0) / served
        known.append(reported)
        mature.append(matured_bad)
        tally = tally.served(guardrail, idle, step, 1.0, rng)
    ages = course.interval * (np.arange(1, looks + 1)[:, None] - np.linspace(0.0005, 0.9995, 1000))
    assert known == pytest.approx(guardrail.delay.arrived(ages).mean(axis=1), abs=0.01)
    assert mature[:-1] == [0.0] * (looks - 1)
    assert mature[-1] == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize(("step", "least"), [(0, 2.0), (2, 1.5)])
def test_no_evidence_is_enough_before_the_soak_is_over_or_labels_are_mature(step, least):
    course = a_course(units_per_day=200_000.0)
    tallies = [Counted.empty(each, course, 50) for each in course.expectations.guardrails]
    passage = pass_through(course, course.steps[step], tallies, ratio=1.0, rng=np.random.default_rng(10))
    left = passage.lasted[passage.fate == Fate.LEFT]
    assert left.size > 40
    assert least <= left.min() < least + 2 * course.interval


def test_a_step_lasts_its_soak_and_at_most_its_deadline():
    course = a_course()
    tallies = [Counted.empty(each, course, 200) for each in course.expectations.guardrails]
    passage = pass_through(course, course.steps[0], tallies, ratio=1.0, rng=np.random.default_rng(6))
    assert set(passage.fate.tolist()) <= set(Fate)
    assert passage.lasted[passage.fate == Fate.LEFT].min() >= 2.0
    assert (passage.lasted[passage.fate == Fate.UNDECIDED] == 14.0).all()
    assert sorted(passage.left.tolist()) == np.flatnonzero(passage.fate == Fate.LEFT).tolist()
    assert passage.tallies[0].counts.shape[0] == passage.left.size > 0


def test_gross_harm_never_leaves_the_first_step():
    course = a_course(units_per_day=20_000.0)
    tallies = [Counted.empty(each, course, 100) for each in course.expectations.guardrails]
    passage = pass_through(course, course.steps[0], tallies, ratio=3.0, rng=np.random.default_rng(7))
    assert (passage.fate == Fate.ROLLED_BACK).all()


def test_a_margin_that_rules_out_nothing_ends_at_the_deadline():
    course = a_course(a_small_plan(stages=stages(canary={"rule_out": "1 % relative"})))
    tallies = [Counted.empty(each, course, 50) for each in course.expectations.guardrails]
    passage = pass_through(course, course.steps[0], tallies, ratio=1.0, rng=np.random.default_rng(8))
    assert not (passage.fate == Fate.LEFT).any()
    assert passage.tallies[0].counts.shape[0] == 0


def test_greater_harm_is_found_earlier_and_no_harm_hardly_ever():
    course, step = a_course(), a_course().steps[1]
    guardrail = course.expectations.guardrails[1]

    def found(ratio):
        empty = Counted.empty(guardrail, course, 200)
        return time_to_harm(course, step, guardrail, empty, ratio=ratio, rng=np.random.default_rng(9))

    medians = [np.median(found(ratio)) for ratio in (1.5, 2.0, 3.0)]
    assert medians == sorted(medians, reverse=True)
    assert medians[0] > medians[-1]
    assert np.isfinite(found(1.0)).mean() < 0.15


def test_looks_are_daily_unless_a_step_is_short_and_epochs_are_those_of_the_shares():
    course = a_course()
    assert course.interval == pytest.approx(8 / 24)  # a sixth of two days
    assert [step.name for step in course.steps] == ["canary-1", "canary-2", "labels", "promotion"]
    assert course.rho == pytest.approx([0.05, 0.2, 0.95])
    assert course.stage.tolist() == [CANARY, CANARY_2, PROMOTION]
    assert course.steps[2].epoch == 1
    assert a_course(a_small_plan(stages=stages(canary={"soak": "8 d"}))).interval == 1.0


# -- margins that can and cannot be shown


def lasting(course, days=3.0):
    return {step.name: days for step in course.steps}


def test_the_demand_of_a_margin_is_the_formula_at_the_share_of_the_step():
    course = a_course()
    demand = next(d for d in demands(course, lasting(course)) if (d.step, d.guardrail) == ("canary-1", "call-failed"))
    by_hand = 2 * math.log(20) / (0.05 * 0.95 * math.log(2) ** 2)
    assert demand.needed == pytest.approx(by_hand)
    assert demand.arrives == pytest.approx(2_000 * 0.01 * 14)
    assert demand.is_met is (demand.arrives >= by_hand)


def test_promotion_counts_matured_units_alone():
    course = a_course()
    demand = next(d for d in demands(course, lasting(course)) if (d.step, d.guardrail) == ("labels", "wrong-decision"))
    # 3 days at 5 % and 3 + 21 days at 20 %, of which the last day and a half is not mature
    information = 80 * (3 * 0.05 * 0.95 + (24 - 1.5) * 0.2 * 0.8)
    assert demand.arrives == pytest.approx(information / 0.16)


@pytest.mark.parametrize("advice", ["margin", "deadline", "traffic", "share"])
def test_what_is_advised_suffices_and_a_little_less_does_not(advice):
    def labels(stages=STAGES, margin="15 % relative", units=600.0):
        plan = a_small_plan(guardrails=[WRONG | {"slices": [], "margin": margin}], stages=stages)
        course = a_course(plan, units, rates={"wrong-decision": 0.04})
        return next(d for d in demands(course, lasting(course)) if d.step == "labels")

    short = labels()
    assert not short.is_met
    if advice == "margin":
        value = short.smallest_margin.value
        assert labels(margin=str(short.smallest_margin)).is_met
        assert not labels(margin=f"{100 * value - 1:.1f} % relative").is_met
    elif advice == "deadline":
        assert labels(stages(labels={"deadline": f"{math.ceil(short.longer_deadline)} d"})).is_met
        assert not labels(stages(labels={"deadline": f"{math.floor(short.longer_deadline - 1)} d"})).is_met
    elif advice == "traffic":
        assert labels(units=short.more_traffic).is_met
        assert not labels(units=short.more_traffic - 2).is_met
    else:
        course = a_course(a_small_plan(stages=stages(canary={"rule_out": "40 % relative"})), 450.0)
        asked = ("canary-2", "wrong-decision")
        found = next(d for d in demands(course, lasting(course)) if (d.step, d.guardrail) == asked)
        assert not found.is_met
        assert 0.2 < found.larger_share <= 0.5
        shares = [{"share": "5 %"}, {"share": f"{100 * found.larger_share:.0f} %"}]
        wider = [
            s | {"rule_out": "40 % relative"} | shares[at - CANARY] if s["stage"] == "canary" else s
            for at, s in enumerate(STAGES)
        ]
        again = a_course(a_small_plan(stages=wider), 450.0)
        assert next(d for d in demands(again, lasting(again)) if (d.step, d.guardrail) == asked).is_met


def test_a_rate_above_its_absolute_margin_cannot_be_shown_by_any_number_of_units():
    absolute = FAILED | {"margin": "1 % absolute"}
    found = made(a_small_plan(guardrails=[absolute, WRONG | {"slices": []}]))
    never = next(d for d in found.shortfalls if d.guardrail == "call-failed")
    assert math.isinf(never.needed)
    assert (never.longer_deadline, never.more_traffic, never.larger_share) == (None, None, None)
    assert "not far enough below 1 % absolute" in shortfall_sentences(found)[0]
    assert found.document()["margins"][0]["needed"] is None


# -- the forecast and its report


def test_a_plan_that_cannot_show_its_margin_says_so_with_numbers_that_would_suffice():
    found = made(units_per_day=300.0)
    assert found.equal.promoted < 0.1
    sentences = [s for s in shortfall_sentences(found) if s.startswith("labels: wrong-decision")]
    assert len(sentences) == 1
    for part in (
        "cannot show its margin in time",
        "15 % relative needs about 1,917 bad units",
        "a margin of",
        "units a day",
    ):
        assert part in sentences[0]


def test_a_plan_whose_every_margin_is_narrow_says_which_deadline_is_too_short():
    # 767 of the 840 bad units that arrive: enough for half of the releases, and too few for many others.
    steps = [s | {"deadline": "21 d", "rule_out": "50 % relative"} if s["stage"] == "canary" else s for s in STAGES]
    plan = a_small_plan(guardrails=[WRONG | {"slices": [], "margin": "50 % relative"}], stages=steps)
    numbers = expect(plan, units_per_day=1_050.0, rates={"wrong-decision": 0.04}, delays=DELAYS)
    found = forecast(plan, numbers, rng=np.random.default_rng(1), replicates=100)
    assert found.shortfalls == ()
    assert found.equal.undecided > 0.2
    assert shortfall_sentences(found)[-1].startswith("canary-1: its deadline of 21 d is too short for many")


def test_a_plan_that_can_show_its_margins_has_nothing_to_complain_of():
    found = made(units_per_day=50_000.0, replicates=60)
    assert found.shortfalls == ()
    assert found.equal.promoted > 0.8
    assert found.better.promoted >= found.equal.promoted
    assert found.equal.rolled_back + found.equal.rolled_back_in_watch < 0.2


def test_the_parts_of_an_ending_add_up_and_days_are_counted_from_the_shadow_on():
    found = made(units_per_day=4_000.0)
    for ending in (found.equal, found.better):
        assert ending.promoted + ending.rolled_back + ending.undecided == pytest.approx(1.0)
        assert ending.promoted_by[-1][1] == pytest.approx(ending.promoted)
        assert ending.days_p50 is None or ending.days_p50 >= found.lead_days + 4.0
    assert found.lead_days == 1.0
    assert made(units_per_day=100.0).lead_days == 5.0  # 500 units take longer than the soak


def test_the_same_seed_gives_the_same_forecast_and_another_one_another(usual):
    told = []
    again = made(on_progress=told.append)
    assert again.document() == usual.document() != made(seed=2).document()
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_too_few_replicates_or_nothing_to_plan_with_are_refused():
    with pytest.raises(ValueError, match="19 replicates"):
        made(replicates=19)


def test_exposure_is_the_share_of_the_traffic(usual):
    first = usual.steps[0]
    assert (first.units_per_day, first.exposed_by_soak, first.exposed_by_limit) == (100.0, 200.0, 1_400.0)
    assert usual.steps[2].label_wait_days == 1.5
    for found in first.detections:
        assert found.days_p50 is None or found.exposed_p50 == pytest.approx(100.0 * found.days_p50)


def test_a_planned_test_is_added_only_when_asked(usual):
    asked = made(is_planned_asked=True, units_per_day=500.0)
    assert any(d.planned is not None for s in asked.steps for d in s.detections)
    assert not any(d.planned for s in usual.steps for d in s.detections)
    assert parts(asked)[-1].header[-1] == "planned test"


def test_every_row_of_a_table_has_a_cell_for_each_column_and_the_plot_is_a_picture(usual):
    for part in parts(usual):
        assert {len(row) for row in part.rows} == {len(part.header)}
    assert "truly equal release" in summary(usual)
    assert forecast_plot(usual).startswith(b"\x89PNG")


def test_a_step_to_which_no_equal_release_comes_has_no_time_to_find_harm():
    found = made(a_small_plan(stages=stages(canary={"rule_out": "1 % relative"})))
    assert [step.reached for step in found.steps] == [1.0, 0.0, 0.0, 0.0]
    assert found.steps[1].detections == ()
    assert found.steps[1].in_time is None
    assert (found.equal.promoted, found.equal.days_p50) == (0.0, None)
    assert forecast_plot(found).startswith(b"\x89PNG")
    json.dumps(found.document(), allow_nan=False)


# -- the command


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    document = PLAN | {"guardrails": [FAILED, WRONG | {"slices": []}]}
    document = {key: value for key, value in document.items() if key != "slices"}
    Path("plan.yaml").write_text(yaml.safe_dump(json.loads(json.dumps(document))))

    def call(*words):
        code = main(["plan", "plan.yaml", "--replicates", "20", *words])
        return code, *capsys.readouterr()

    return call


NUMBERS = ("--rate", "call-failed=1 %", "--rate", "wrong-decision=0.04", "--delay", "wrong-decision=6 h")


def test_the_command_says_first_what_cannot_be_shown_and_ends_with_0(run):
    code, out, _ = run("--units-per-day", "300", *NUMBERS, "--plot", "plan.png")
    assert code == 0
    assert "cannot show its margin in time" in out.splitlines()[0]
    for part in ("How a rollout ends", "When an equal release may leave a step", "How soon harm is found"):
        assert part in out
    assert Path("plan.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_prints_one_json_object_with_stable_keys(run):
    code, out, err = run("--units-per-day", "2000", *NUMBERS, "--json", "--planned-horizon")
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert list(document) == [
        *("plan", "expected", "replicates", "look_every_s", "lead_days", "slices_alpha"),
        *("margins", "steps", "equal", "better"),
    ]
    assert set(document["steps"][0]["detections"][0]) == {
        *("guardrail", "ratio", "consequence", "found", "days_p50", "days_p80"),
        *("exposed_p50", "exposed_p80", "planned"),
    }
    assert set(document["margins"][0]) == {
        *("step", "guardrail", "margin", "is_met", "needed", "arrives", "counted", "smallest_margin", "suffices"),
    }
    assert document["expected"]["guardrails"][1]["delay_s"] == timedelta(hours=6).total_seconds()


def test_the_command_names_every_missing_number_and_writes_nothing(run):
    code, out, err = run("--plot", "plan.png")
    assert (code, out) == (2, "")
    for missing in ("--units-per-day N", '--rate "call-failed=2 %"', '--delay "wrong-decision=24 h"'):
        assert missing in err
    assert not Path("plan.png").exists()


@pytest.mark.parametrize(
    ("words", "finding"),
    [
        (("--rate", "call-failed"), "expected NAME=VALUE"),
        (("--rate", "=2 %"), "expected NAME=VALUE"),
        (("--rate", "call-failed=lots"), "--rate call-failed"),
        (("--delay", "wrong-decision=6"), "with its unit"),
        (("--replicates", "3"), "--replicates"),
        ((*NUMBERS, "--units-per-day", "300", "--plot", "no/such/plan.png"), "--plot"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(words, finding, run):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert finding in err
