from __future__ import annotations

import base64
import io
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from seatrial.errors import RefusedError
from seatrial.gates.finding import Finding, Question
from seatrial.ledger import GENESIS, Record, chain
from seatrial.plan import Plan
from seatrial.ports import Look
from seatrial.report import (
    data_uri,
    evidence_plot,
    explain,
    findings_table,
    history_rows,
    image,
    page,
    promotion_plot,
    question,
    share_plot,
    stage_report,
    status_rows,
)
from seatrial.report.findings import MOST_SLICES
from seatrial.report.plots import share_steps, tracks
from seatrial.rollout import Action, Rollout, State
from seatrial.routing import RoutingSnapshot
from seatrial.units import digest_of
from seatrial.verdict import Verdict

T0 = datetime(2013, 6, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)
CHAMPION, CHALLENGER = digest_of("champion"), digest_of("challenger")
NAMES = {CHAMPION: "baseline 1", CHALLENGER: "better 2"}
SEEN = digest_of("evidence")
THRESHOLD = math.log(50.0)
VERMILION, GREEN, BLUE = (213, 94, 0), (0, 158, 115), (0, 114, 178)

PLAN = Plan.model_validate(
    {
        "plan": {"name": "standard", "version": "1", "decision_point": "flight-delay"},
        "unit": "unit_key",
        "stages": [
            {"stage": "gates", "bounds": [{"metric": "auc", "at_least": 0.6}], "probe_max_age": "1 d"},
            {"stage": "shadow", "soak": "1 d", "deadline": "7 d", "min_units": 500, "max_flip_rate": "40 %"},
            {"stage": "approval", "expires": "3 d"},
            {"stage": "canary", "share": "5 %", "soak": "2 d"},
            {"stage": "canary", "share": "20 %", "soak": "2 d"},
            {"stage": "labels", "deadline": "21 d"},
            {"stage": "approval", "expires": "3 d"},
            {"stage": "promotion", "holdback": "5 %", "watch": "14 d"},
        ],
        "guardrails": [
            {
                "name": "wrong-decision",
                "source": "label",
                "label": "late",
                "bad_when": [{"label": 1, "action": "none"}],
                "margin": "15 % relative",
                "maturity": "36 h",
                "consequence": "roll_back",
            }
        ],
        "budgets": {"rollback": "2 %", "hold": "20 %", "promote": "5 %", "srm": "0.5 %"},
        "label_coverage": {"at_least": "80 %"},
        "evidence": {"max_age": "6 h"},
        "lease": "12 h",
        "on_deadline": "ask",
        "approvers": {"roles": ["risk-owner"]},
    }
)
#: Where each state is met in the plan above.
STAGES = {
    State.GATES: 0,
    State.REJECTED: 0,
    State.SHADOW: 1,
    State.SHADOW_PAUSED: 1,
    State.CANARY: 3,
    State.AWAITING_DECISION: 3,
    State.ROLLING_BACK: 3,
    State.ROLLED_BACK: 3,
    State.ROLLBACK_INCOMPLETE: 3,
    State.LABELS: 5,
    State.AWAITING_APPROVAL: 6,
    State.PROMOTING: 7,
    State.CHAMPION: 7,
    State.SUPERSEDED: 7,
    State.RETIRED: 7,
}


def rollout(state=State.CANARY, **changes):
    return replace(
        Rollout(
            id="a1b2c3d4e5f6",
            decision_point="flight-delay",
            champion=CHAMPION,
            challenger=CHALLENGER,
            plan_id=PLAN.id,
            requested_by="ada",
            created_at=T0,
            state=state,
            stage=STAGES[state],
            entered_at=T0 + 24 * HOUR,
            deadline=T0 + 96 * HOUR,
            reason="approved by grace: numbers are fine",
            version=4,
            evidence_digest=SEEN,
        ),
        **changes,
    )


def harm(subject="wrong-decision", log_e=0.5, verdict=None, **changes):
    found = verdict
    if verdict is None:
        found = Verdict.FAIL if log_e >= THRESHOLD else Verdict.INCONCLUSIVE
    numbers = {
        "challenger_bad": 60,
        "challenger_units": 1_040,
        "champion_bad": 300,
        "champion_units": 9_900,
        "log_e": log_e,
        "threshold": THRESHOLD,
    }
    reason = f"{subject} is {'worse' if found is Verdict.FAIL else 'not shown to be worse'}: 60 of 1,040"
    return replace(Finding(Question.HARM, subject, found, reason, numbers), **changes)


def relief(asked=Question.PROMOTION, log_e=3.5, **changes):
    found = Verdict.PASS if log_e >= math.log(20.0) else Verdict.INCONCLUSIVE
    finding = harm(log_e=log_e, verdict=found, question=asked, reason="15 % relative worse: 60 of 1,040")
    return replace(finding, numbers={**finding.numbers, "threshold": math.log(20.0)}, **changes)


ASSIGNED = Finding(
    Question.ASSIGNMENT,
    "units",
    Verdict.PASS,
    "1,040 of 10,940 units went to the challenger, 1,050 were expected",
    {"challenger_units": 1_040, "champion_units": 9_900, "expected_challenger_units": 1_050.0, "log_e": 0.1},
)
STALE = Finding(Question.FRESHNESS, "decision log", Verdict.ERROR, "the newest decision is 9 h old")


def look(at=T0 + 24 * HOUR, *findings, action=Action.HOLD, reason="soaking", share=0.05, digest=SEEN):
    return Look("a1b2c3d4e5f6", at, action, reason, share, digest, findings)


def rising(log_es, step=6 * HOUR):
    return [look(T0 + step * at, ASSIGNED, harm(log_e=value)) for at, value in enumerate(log_es)]


def ledger(*moves):
    """Return entries of (hour, kind, actor, body)."""
    entries = []
    for hour, kind, actor, body in moves:
        record = Record(T0 + hour * HOUR, kind, actor, "flight-delay", "a1b2c3d4e5f6", f"{hour}/{kind}", body)
        previous = entries[-1].hash if entries else GENESIS
        entries.append(chain(record, number=len(entries) + 1, previous=previous))
    return entries


def decided(hour, before, after, reason="soaked", findings=(), actor="rollout-flow", answer=None, stage=None):
    body = {
        "from": before.value,
        "to": after.value,
        "stage": STAGES[after] if stage is None else stage,
        "reason": reason,
        "findings": [finding.document() for finding in findings],
    }
    if answer is not None:
        body["answer"] = {"by": answer}
    return (hour, "rollout.decided", actor, body)


def routed(hour, slots, champion=CHAMPION):
    body = {"number": hour, "slots": slots, "champion": champion, "shadow": False}
    return (hour, "share.intended", "rollout-flow", body)


STARTED = (0, "rollout.started", "ada", rollout(State.GATES, reason="requested by ada").document())
WAY_TO_CANARY = (
    STARTED,
    decided(1, State.GATES, State.SHADOW),
    decided(20, State.SHADOW, State.AWAITING_APPROVAL, stage=2),
    decided(24, State.AWAITING_APPROVAL, State.CANARY, "approved by grace: numbers are fine", answer="grace"),
    routed(24, 500),
)
PROVEN = harm(log_e=4.5)
ROLLED_BACK = (
    *WAY_TO_CANARY,
    decided(30, State.CANARY, State.ROLLING_BACK, PROVEN.reason, (PROVEN, ASSIGNED), actor="watch"),
    routed(30, 0),
    decided(31, State.ROLLING_BACK, State.ROLLED_BACK, PROVEN.reason),
)
KILLED = decided(30, State.CANARY, State.ROLLING_BACK, "oncall: pager", actor="oncall")


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def count_near(png, colour):
    return int((np.abs(pixels(png) - np.array(colour)).max(axis=2) <= 12).sum())


# -- findings


def test_no_finding_is_told_as_nothing_asked_and_not_as_a_pass():
    text = findings_table(())
    assert "Nothing has been asked" in text
    assert "✓" not in text


def test_the_worst_finding_stands_first():
    warning = harm(log_e=2.0, verdict=Verdict.FAIL, question=Question.WARNING)
    text = findings_table([ASSIGNED, harm(), STALE, warning, harm("call-failed", 6.0)])
    marks = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")][2:]
    assert [word for mark in marks for word in ("FAIL", "ERROR", "INCONCLUSIVE", "PASS") if word in mark] == [
        "FAIL",
        "FAIL",
        "ERROR",
        "INCONCLUSIVE",
        "PASS",
    ]
    assert "harm proven" in marks[0]
    assert "likely worse" in marks[1]


def test_proven_harm_shows_its_rates_its_evidence_and_its_threshold():
    text = findings_table([PROVEN])
    assert "**✗ FAIL**: harm proven" in text
    assert "5.77 % against 3.03 % raw; E 90 of 50 needed" in text


def test_an_inconclusive_question_of_harm_reads_as_no_harm_shown_and_one_of_promotion_as_not_ruled_out():
    text = findings_table([harm(), relief(log_e=1.0)])
    assert "INCONCLUSIVE: no harm shown" in text
    assert "INCONCLUSIVE: harm beyond the margin not ruled out yet" in text


def quiet(slices=19, guardrail="wrong-decision", log_e=-0.3):
    """Return what the gate finds on several slices that are all quiet."""
    numbers = {**harm().numbers, "log_e": log_e, "nearest": "carrier=07", "quiet_slices": slices, "empty_slices": 0}
    return harm(f"{guardrail} · quiet slices", log_e, numbers=numbers)


def test_quiet_slices_stand_in_one_row_that_says_whose_numbers_it_shows():
    text = findings_table([harm(), quiet()])
    (row,) = [line for line in text.splitlines() if "quiet slices" in line]
    assert "carrier=07: 5.77 % against 3.03 % raw; E 0.74 of 50 needed" in row


def test_of_labels_and_slices_that_are_as_assigned_the_least_likely_is_named():
    together = replace(ASSIGNED, numbers={**ASSIGNED.numbers, "least_likely": "labels · late", "parts": 9})
    assert "labels · late: 9.51 % of units, 9.6 % recorded" in findings_table([together])


@pytest.mark.parametrize("verdict", [Verdict.FAIL, Verdict.ERROR])
def test_slices_that_fail_or_cannot_be_asked_are_shown_before_the_others(verdict):
    likely = [harm(f"wrong-decision · carrier={at:02}", log_e=3.0) for at in range(MOST_SLICES)]
    loud = [harm(f"wrong-decision · origin={at}", -3.0, verdict) for at in range(5)]
    text = findings_table([*likely, *loud])
    assert all(f"origin={at}" in text for at in range(5))
    assert "**5 more slices of wrong-decision; the worst of them is INCONCLUSIVE.**" in text


def test_more_failed_slices_than_fit_are_counted_as_failed_and_never_in_place_of_the_quiet_ones():
    text = findings_table([quiet(), *(harm(f"wrong-decision · carrier={at:02}", 9.0) for at in range(MOST_SLICES + 1))])
    assert "**1 more slice of wrong-decision; the worst of them is FAIL.**" in text
    assert "wrong-decision · quiet slices" in text


def test_a_failed_dry_run_says_that_nobody_acts_on_it():
    assert "shown only, not acted on" in findings_table([harm(log_e=9.0, is_binding=False)])


def test_findings_that_were_stored_as_text_give_the_same_table():
    found = [PROVEN, ASSIGNED, relief()]
    stored = [replace(each, numbers=each.document()["numbers"]) for each in found]
    assert findings_table(stored) == findings_table(found)


@pytest.mark.parametrize("value", [None, math.nan, "nan", "no number"])
def test_evidence_that_is_not_a_number_is_unknown(value):
    finding = harm(numbers={**PROVEN.numbers, "log_e": value})
    assert "E unknown of 50 needed" in findings_table([finding])


def test_counts_that_are_not_numbers_are_left_out():
    text = findings_table([harm(numbers={**PROVEN.numbers, "challenger_bad": math.nan})])
    assert "no unit against 3.03 % raw" in text
    assert "nan" not in text


def test_text_from_elsewhere_stays_inside_its_cell():
    text = findings_table([harm(reason="a | b\n| c <img src=x onerror=y> ![x](y) `z`")])
    assert "<img" not in text
    assert "![x]" not in text
    assert len([line for line in text.splitlines() if line.startswith("|")]) == 3


# -- plots


ONE_AFTER_ANOTHER = ((T0, relief(log_e=0.1)), (T0 + HOUR, relief(log_e=4.0)))


@pytest.mark.parametrize(
    ("plot", "looks"),
    [
        (share_plot, rising([0.0, 1.0, 2.0])),
        (evidence_plot, rising([0.0, 1.0, 2.0])),
        (promotion_plot, [look(*each) for each in ONE_AFTER_ANOTHER]),
        (evidence_plot, rising([0.5])),
        (evidence_plot, []),
        (promotion_plot, []),
        (share_plot, []),
    ],
    ids=["share", "harm", "promotion", "one look", "no harm asked", "no promotion asked", "no share"],
)
def test_a_plot_is_a_small_png_that_is_not_blank(plot, looks):
    png = plot(looks)
    assert png.startswith(b"\x89PNG")
    assert len(png) < 60_000
    drawn = pixels(png)
    assert (drawn == 255).all(axis=2).mean() > 0.5
    assert (drawn < 150).all(axis=2).sum() > 200


def test_equal_looks_give_equal_bytes():
    assert evidence_plot(rising([0.0, 1.0])) == evidence_plot(rising([0.0, 1.0]))


def test_a_crossing_of_the_threshold_is_dated_and_drawn():
    crossing, quiet = rising([0.0, 2.0, 4.5, 3.0, 4.6]), rising([0.0, 2.0, 3.5, 3.0, 3.6])
    (track,) = tracks(crossing, Question.HARM)
    assert track.reached == T0 + 12 * HOUR
    assert track.log10_e[2] > track.threshold > track.log10_e[1]
    assert tracks(quiet, Question.HARM)[0].reached is None
    assert count_near(evidence_plot(crossing), VERMILION) > count_near(evidence_plot(quiet), VERMILION) + 100


def test_ruled_out_harm_is_drawn_in_another_colour_than_proven_harm():
    png = promotion_plot([look(*each) for each in ONE_AFTER_ANOTHER])
    assert count_near(png, GREEN) > 200
    assert count_near(png, VERMILION) == 0


def test_promotion_is_drawn_as_soon_as_it_is_asked_and_exposure_before():
    exposure = [look(T0 + at * HOUR, relief(Question.EXPOSURE, 0.1 * at)) for at in range(5)]
    assert count_near(promotion_plot(exposure), BLUE) > 200
    assert promotion_plot([*exposure, look(T0 + 9 * HOUR, relief())]) != promotion_plot(exposure)


@pytest.mark.parametrize("value", [math.nan, None])
def test_unknown_evidence_leaves_a_gap_in_the_curve(value):
    unknown = look(T0 + 6 * HOUR, harm(numbers={"log_e": value, "threshold": THRESHOLD}))
    (track,) = tracks([look(T0, harm()), unknown, look(T0 + 12 * HOUR, harm())], Question.HARM)
    assert [math.isnan(each) for each in track.log10_e] == [False, True, False]


@pytest.mark.parametrize("log_e", [math.inf, -math.inf, 4_000.0, -4_000.0])
def test_evidence_beyond_all_measure_is_drawn_at_the_edge(log_e):
    assert count_near(evidence_plot(rising([0.0, log_e])), BLUE) > 200


def test_a_slice_has_a_panel_only_once_harm_is_proven_in_it():
    findings = [harm(), harm("wrong-decision · origin=EWR", 5.0), harm("wrong-decision · origin=JFK")]
    subjects = [track.subject for track in tracks([look(T0, *findings)], Question.HARM)]
    assert subjects == ["wrong-decision", "wrong-decision · origin=EWR"]


def test_the_track_of_a_slice_has_a_gap_where_it_was_quiet_and_begins_where_it_first_was_not():
    name = "wrong-decision · origin=EWR"
    told = [quiet(), harm(name, 2.0), quiet(), harm(name, 5.0), quiet()]
    (_, track) = tracks([look(T0 + at * HOUR, harm(), each) for at, each in enumerate(told)], Question.HARM)
    assert (track.subject, track.reached) == (name, T0 + 3 * HOUR)
    assert track.times == tuple(T0 + at * HOUR for at in (1, 2, 3))
    assert [math.isnan(each) for each in track.log10_e] == [False, True, False]


def test_many_slices_that_are_quiet_have_no_panel():
    assert [track.subject for track in tracks([look(T0, harm(), quiet())], Question.HARM)] == ["wrong-decision"]


def test_names_that_look_like_formulas_are_drawn_as_text():
    assert evidence_plot([look(T0, harm("$\\frac{x$"))]).startswith(b"\x89PNG")


@pytest.mark.parametrize("seed", [1])
def test_plots_stay_small_for_weeks_of_looks_at_many_guardrails(seed):
    walks = np.random.default_rng(seed).normal(0.0, 0.2, size=(400, 12)).cumsum(axis=0)
    looks = [
        look(T0 + at * HOUR, *(harm(f"guardrail-{name}", float(value)) for name, value in enumerate(row)))
        for at, row in enumerate(walks)
    ]
    assert len(evidence_plot(looks)) < 60_000


def test_an_image_holds_the_very_bytes_of_the_plot():
    png = evidence_plot([])
    assert base64.b64decode(data_uri(png).removeprefix("data:image/png;base64,")) == png
    assert image(png, "a [b]\nc") == f"![a (b) c]({data_uri(png)})"


def test_a_look_that_rolled_back_ends_the_share():
    looks = [look(T0), look(T0 + HOUR, action=Action.ROLL_BACK)]
    assert share_steps(looks) == [(T0, 0.05), (T0 + HOUR, 0.05), (T0 + HOUR, 0.0)]
    assert count_near(share_plot(looks), VERMILION) > 50


def test_the_ledger_dates_shares_better_than_looks_do():
    looks = [look(T0, share=0.0), look(T0 + 40 * HOUR, share=0.05)]
    assert share_steps(looks, ledger(*ROLLED_BACK)) == [
        (T0, 0.0),
        (T0 + 24 * HOUR, 0.05),
        (T0 + 30 * HOUR, 0.0),
        (T0 + 40 * HOUR, 0.0),
    ]


def test_a_champion_without_holdback_answers_everything_until_it_is_superseded():
    entries = ledger(STARTED, routed(50, 0, champion=CHALLENGER), decided(90, State.CHAMPION, State.SUPERSEDED))
    assert share_steps([], entries) == [(T0 + 50 * HOUR, 1.0), (T0 + 90 * HOUR, 0.0)]


# -- the page


@pytest.mark.parametrize("state", list(State))
def test_a_page_tells_state_reason_and_what_to_do_in_every_state(state):
    text = page(rollout(state), PLAN, [look()], ledger(*WAY_TO_CANARY), NAMES, now=T0 + 25 * HOUR)
    assert f"## {state.value.upper()}" in text
    assert "approved by grace: numbers are fine" in text
    assert "**To do:**" in text
    assert "better 2" in text
    assert "`a1b2c3d4e5f6`" in text


def test_a_page_of_a_rollout_that_has_just_begun_claims_nothing():
    fresh = rollout(State.GATES, reason="requested by ada", evidence_digest=None)
    text = page(fresh, PLAN, [], [], {}, now=T0 + 24 * HOUR)
    assert "Nothing has been asked yet" in text
    assert "Nothing is recorded yet" in text
    assert "last look | none yet" in text
    assert "data:image" not in text
    assert CHALLENGER.removeprefix("sha256:")[:12] in text


def test_a_page_shows_share_stage_time_and_exposure():
    text = page(rollout(), PLAN, rising([0.0, 0.4]), ledger(*WAY_TO_CANARY), NAMES, now=T0 + 26 * HOUR)
    assert "better 2 answers 5 % of flight-delay's requests; baseline 1 answers the rest." in text
    assert "4 of 8: canary 5 %" in text
    assert "2013-06-05 00:00 UTC (in 2 d 22 h)" in text
    assert "1,040 units were assigned to the challenger so far" in text
    assert text.count("data:image/png;base64,") == 2


def test_a_page_marks_stages_behind_here_and_to_come():
    text = page(rollout(), PLAN, [], ledger(*WAY_TO_CANARY), NAMES, now=T0 + 26 * HOUR)
    assert "| ✓ done | 2 | shadow | at least 1 d, decided within 7 d | 2013-06-01 01:00 UTC | 19 h |" in text
    assert (
        "| **▶ here** | 4 | **canary 5 %** | at least 2 d, decided within 14 d | 2013-06-02 00:00 UTC | 2 h |" in text
    )
    assert "|  | 5 | canary 20 % |" in text


def test_a_page_of_an_ended_rollout_shows_where_who_and_why():
    ended = rollout(State.ROLLED_BACK, reason=PROVEN.reason, deadline=None)
    text = page(ended, PLAN, rising([0.0, 4.5]), ledger(*ROLLED_BACK), NAMES, now=T0 + 99 * HOUR)
    assert "baseline 1 answers all of flight-delay's requests, as seen on every live router" in text
    assert (
        "| **✗ ended here** | 4 | **canary 5 %** | at least 2 d, decided within 14 d | 2013-06-02 00:00 UTC | 6 h |"
        in text
    )
    assert f"| 2013-06-02 06:00 UTC | canary → rolling back | watch | {PROVEN.reason} |" in text
    assert "| awaiting approval → canary | grace |" in text


def test_the_share_of_a_page_is_that_of_the_state_and_all_when_the_watch_is_over():
    watched = page(rollout(State.CHAMPION), PLAN, [], [], NAMES, now=T0)
    over = page(rollout(State.CHAMPION, deadline=None), PLAN, [], [], NAMES, now=T0)
    assert "champion with 95 % of flight-delay's requests and is watched until 2013-06-05" in watched
    assert "answers all of flight-delay's requests; its watch is over" in over
    assert "| challenger's share | **100 %** of flight-delay's requests |" in over


@pytest.mark.parametrize(
    ("state", "hours", "is_late"),
    [
        (State.CANARY, 6, False),
        (State.CANARY, 7, True),
        (State.SHADOW, 7, True),
        (State.AWAITING_APPROVAL, 7, True),
        (State.CHAMPION, 7, True),
        (State.AWAITING_DECISION, 7, False),
        (State.ROLLED_BACK, 700, False),
    ],
)
def test_a_watch_that_fell_silent_is_pointed_out_where_there_must_be_one(state, hours, is_late):
    text = page(rollout(state), PLAN, [look(T0)], [], NAMES, now=T0 + hours * HOUR)
    assert ("is the watch alive?" in text) is is_late


def test_a_champion_whose_watch_is_over_needs_no_look():
    text = page(rollout(State.CHAMPION, deadline=None), PLAN, [look(T0)], [], NAMES, now=T0 + 700 * HOUR)
    assert "is the watch alive?" not in text


@pytest.mark.parametrize("broken", [STALE, replace(ASSIGNED, verdict=Verdict.FAIL, reason="sample ratio mismatch")])
def test_evidence_that_cannot_be_judged_is_the_first_thing_to_do(broken):
    text = page(rollout(), PLAN, [look(T0, harm(), broken)], [], NAMES, now=T0)
    assert "**To do:** Repair what keeps evidence from being judged" in text
    assert broken.reason in text.split("**To do:**")[1].splitlines()[0]


# -- the question


def test_the_question_before_a_canary_says_what_each_answer_does():
    asked = rollout(State.AWAITING_APPROVAL, stage=2, reason="shadow: 3 findings, all PASS")
    text = question(asked, PLAN, [look(share=0.0)], NAMES, now=T0 + 25 * HOUR)
    assert "# May better 2 answer 5 % of flight-delay's requests?" in text
    assert "| **approve** | share 0 % → **5 %**: canary 5 %, at least 2 d, decided within 14 d |" in text
    assert "| **reject** | baseline 1 answers everything and the rollout ends for good |" in text
    assert "| no answer until 2013-06-05 00:00 UTC (in 2 d 23 h) | baseline 1 answers everything; a time-out is" in text
    assert f"`{SEEN}`" in text
    assert "role risk-owner" in text
    assert "cannot come from ada" in text


def test_the_question_before_promotion_asks_for_the_champion_and_shows_its_evidence():
    found = (ASSIGNED, harm(), relief())
    text = question(rollout(State.AWAITING_APPROVAL), PLAN, [look(T0, *found)], NAMES, now=T0 + 25 * HOUR)
    assert "# May better 2 become champion of flight-delay?" in text
    assert "share 20 % → **95 %**: promotion, holdback 5 %, watched for 14 d" in text
    assert "harm beyond the margin ruled out" in text
    assert "E 33.1 of 20 needed" in text
    assert text.count("data:image/png;base64,") == 3


def test_the_question_about_undecided_evidence_offers_continue_and_waits_for_ever():
    asked = rollout(State.AWAITING_DECISION, deadline=None, reason="undecided at the deadline of canary: too few")
    text = question(asked, PLAN, [look()], NAMES, now=T0 + 25 * HOUR)
    assert "undecided at its deadline" in text
    assert "| **continue** | share 0 % → **5 %**: canary 5 % once more, for 14 d at most |" in text
    assert "| no answer | nothing changes: baseline 1 answers everything until somebody answers |" in text
    assert "approve" not in text


def test_the_question_shows_the_evidence_that_the_answer_names_and_not_a_later_look():
    led = look(T0 + 24 * HOUR, relief())
    again = look(T0 + 30 * HOUR, harm(), reason="a person must approve")
    later = look(T0 + 36 * HOUR, PROVEN, digest=digest_of("newer"), reason=PROVEN.reason, action=Action.ROLL_BACK)
    text = question(rollout(State.AWAITING_APPROVAL), PLAN, [led, again, later], NAMES, now=T0 + 36 * HOUR)
    assert "harm beyond the margin ruled out" in text
    assert "harm proven" not in text
    assert (
        f"2 looks since then, on newer evidence; the last, at 2013-06-02 12:00 UTC, said ROLL BACK: {PROVEN.reason}"
        in text
    )


@pytest.mark.parametrize("digest", [None, digest_of("other")])
def test_a_question_whose_evidence_is_not_stored_offers_nothing_to_say_yes_to(digest):
    asked = rollout(State.AWAITING_APPROVAL, evidence_digest=digest)
    text = question(asked, PLAN, [look(T0, relief())], NAMES, now=T0 + 25 * HOUR)
    assert "there is nothing to say yes to" in text
    assert "ruled out |" not in text


@pytest.mark.parametrize("state", sorted(set(State) - {State.AWAITING_APPROVAL, State.AWAITING_DECISION}))
def test_nothing_is_asked_of_a_person_in_any_other_state(state):
    with pytest.raises(RefusedError, match=f"it is in state {state}; a person is asked in"):
        question(rollout(state), PLAN, [], NAMES, now=T0)


def test_a_question_fits_into_a_form_however_much_was_found():
    found = [
        harm(f"guardrail-{name}{' · column=' * (part > 0)}{part or ''}", float(part), reason="&|" * 4_000)
        for name in range(40)
        for part in range(40)
    ]
    looks = [look(T0 + at * HOUR, *found, relief()) for at in range(3)]
    asked = rollout(State.AWAITING_APPROVAL, reason="<" * 9_000, entered_at=T0 + 3 * HOUR)
    text = question(asked, PLAN, looks, NAMES, now=T0 + 25 * HOUR)
    assert len(text.encode()) < 400_000
    assert "more findings are not shown; the worst of them is" in text


# -- the stage


def test_a_stage_report_counts_only_looks_of_its_stage():
    looks = [look(T0 + hour * HOUR, harm(log_e=0.1 * hour)) for hour in (2, 24, 25, 26)]
    text = stage_report(rollout(), PLAN, looks, ledger(*WAY_TO_CANARY), now=T0 + 27 * HOUR)
    assert "# flight-delay: canary 5 %, stage 4 of 8" in text
    assert "Since 2013-06-02 00:00 UTC (3 h ago), 2 looks; at least 2 d, decided within 14 d." in text
    assert "E 13.5 of 50 needed" in text


def test_a_stage_report_keeps_its_findings_when_the_rollout_has_ended():
    ended = rollout(State.ROLLED_BACK, entered_at=T0 + 31 * HOUR, reason=PROVEN.reason)
    text = stage_report(ended, PLAN, [look(T0 + 30 * HOUR, PROVEN)], ledger(*ROLLED_BACK), now=T0 + 99 * HOUR)
    assert "**ROLLED BACK**" in text
    assert "harm proven" in text


def test_the_report_of_an_approval_begins_with_the_look_that_led_to_it():
    text = stage_report(rollout(State.AWAITING_APPROVAL), PLAN, [look(T0 + 24 * HOUR, relief())], now=T0 + 25 * HOUR)
    assert "harm beyond the margin ruled out" in text


# -- the terminal


def snapshot(**changes):
    base = RoutingSnapshot(
        "flight-delay",
        3,
        champion=CHAMPION,
        fallback=CHAMPION,
        challenger=CHALLENGER,
        rollout_id="a1b2c3d4e5f6",
        slots=500,
        lease_until=T0 + 36 * HOUR,
    )
    return {"flight-delay": replace(base, **changes)}


def status(snapshots, state=State.CANARY, hours=26):
    (row,) = status_rows([rollout(state)], {PLAN.id: PLAN}, NAMES, snapshots, now=T0 + hours * HOUR)
    return row


def test_a_status_row_names_release_stage_share_lease_and_time():
    row = status(snapshot())
    assert (row.challenger, row.champion, row.state, row.stage) == (
        "better 2",
        "baseline 1",
        "canary",
        "4/8 canary 5 %",
    )
    assert (row.share, row.lease_until, row.in_stage) == (0.05, T0 + 36 * HOUR, 2 * HOUR)


@pytest.mark.parametrize(
    "snapshots",
    [{}, snapshot(rollout_id="another"), snapshot(slots=0, lease_until=None)],
    ids=["none", "other", "alone"],
)
def test_a_share_that_routing_does_not_give_is_not_shown(snapshots):
    assert status(snapshots).share == 0.0


@pytest.mark.parametrize(("hours", "share"), [(35, 0.05), (36, 0.0)])
def test_a_share_ends_with_its_lease(hours, share):
    assert status(snapshot(), hours=hours).share == share


def test_a_champion_that_serves_alone_has_the_whole_share():
    alone = snapshot(champion=CHALLENGER, fallback=CHALLENGER, challenger=None, rollout_id=None, slots=0)
    assert status(alone, State.CHAMPION).share == 1.0
    assert status(alone, State.ROLLED_BACK).share == 0.0


def test_history_rows_tell_moves_shares_and_observations():
    seen = (32, "share.observed", "routers", {"number": 3, "routers": ["envoy", "gateway"]})
    kept = (33, "flow.restarted", "sweep", {"flow_run": "abc", "reason": "its process was gone"})
    rows = history_rows(ledger(*ROLLED_BACK, seen, kept))
    told = [(row.number, row.who, row.what) for row in rows]
    assert told[0] == (1, "ada", "> gates")
    assert told[3] == (4, "grace (by rollout-flow)", "awaiting approval > canary")
    assert told[4] == (5, "rollout-flow", "snapshot 24: share 5 %")
    assert told[5] == (6, "watch", "canary > rolling back")
    assert rows[5].reason == PROVEN.reason
    assert told[8] == (9, "routers", "snapshot 3: seen on envoy, gateway")
    assert told[9] == (10, "sweep", "flow_run abc")
    assert rows[9].reason == "its process was gone"


def test_an_explanation_of_a_rollback_has_numbers_threshold_exposure_person_and_next_step():
    ended = rollout(State.ROLLED_BACK, reason=PROVEN.reason)
    text = explain(ended, PLAN, rising([0.0, 4.5]), ledger(*ROLLED_BACK), NAMES)
    assert text.splitlines()[0] == f"better 2 on flight-delay: ROLLED BACK: {PROVEN.reason}"
    assert "challenger 60 of 1,040 bad (5.77 % raw); champion 300 of 9,900 bad (3.03 % raw); E 90 of 50 needed" in text
    assert "exposure    1,040 units were assigned to the challenger until 2013-06-02 06:00 UTC" in text
    assert "decided by  watch at 2013-06-02 06:00 UTC (canary > rolling back, ledger entry 6)" in text
    assert "serves now  baseline 1 answers all of flight-delay's requests" in text
    assert "next        Find the cause offline" in text


def test_exposure_is_counted_until_the_decision_and_not_after():
    later = replace(ASSIGNED, numbers={**ASSIGNED.numbers, "challenger_units": 7_777})
    looks = [look(T0 + 29 * HOUR, ASSIGNED), look(T0 + 40 * HOUR, later)]
    text = explain(rollout(State.ROLLING_BACK), PLAN, looks, ledger(*WAY_TO_CANARY, KILLED), NAMES)
    assert "1,040 units were assigned to the challenger until 2013-06-02 06:00 UTC" in text


def test_an_explanation_of_a_killed_release_rests_on_no_finding():
    text = explain(rollout(State.ROLLING_BACK), PLAN, [], ledger(*WAY_TO_CANARY, KILLED), NAMES)
    assert "evidence    none: the decision rests on no finding" in text
    assert "decided by  oncall at" in text
    assert "exposure    unknown" in text


def test_a_challenger_that_never_answered_has_no_exposure():
    rejected = decided(2, State.GATES, State.REJECTED, "columns: unit of recent_delay differs")
    text = explain(rollout(State.REJECTED), PLAN, [], ledger(STARTED, rejected), NAMES)
    assert "exposure    none: the challenger has answered no request" in text


def test_an_explanation_of_a_promotion_shows_what_ruled_harm_out_and_who_approved():
    entries = ledger(
        *WAY_TO_CANARY,
        decided(60, State.LABELS, State.AWAITING_APPROVAL, "labels: all PASS", (ASSIGNED, relief())),
        decided(70, State.AWAITING_APPROVAL, State.PROMOTING, "approved by grace: good", (ASSIGNED,), answer="grace"),
        decided(71, State.PROMOTING, State.CHAMPION, "every live router serves it"),
    )
    text = explain(rollout(State.CHAMPION), PLAN, [], entries, NAMES)
    assert "CHAMPION: approved by grace: good" in text
    assert "harm beyond the margin ruled out: challenger 60 of 1,040 bad" in text
    assert "decided by  grace at 2013-06-03 22:00 UTC (awaiting approval > promoting, ledger entry 7)" in text


def test_a_champion_that_was_demoted_is_explained_by_its_end():
    entries = ledger(
        *WAY_TO_CANARY,
        decided(70, State.AWAITING_APPROVAL, State.PROMOTING, "approved by grace: good", answer="grace"),
        decided(71, State.PROMOTING, State.CHAMPION, "every live router serves it"),
        decided(90, State.CHAMPION, State.ROLLING_BACK, PROVEN.reason, (PROVEN,), actor="watch"),
    )
    text = explain(rollout(State.ROLLING_BACK), PLAN, [], entries, NAMES)
    assert "ROLLING BACK: wrong-decision is worse" in text
    assert "decided by  watch at" in text


def test_an_explanation_on_the_way_tells_what_holds_it():
    waiting = relief(Question.EXPOSURE, 1.0)
    seen = look(T0 + 26 * HOUR, ASSIGNED, harm(), waiting, reason=waiting.reason)
    text = explain(rollout(), PLAN, [seen], ledger(*WAY_TO_CANARY), NAMES)
    assert "gross harm not ruled out yet: challenger 60 of 1,040" in text
    assert "E 2.72 of 20 needed" in text
    assert "the trial goes on" in text
    assert "1,040 units were assigned to the challenger so far" in text


@pytest.mark.parametrize("state", list(State))
def test_an_explanation_is_possible_in_every_state_with_nothing_stored(state):
    text = explain(rollout(state), PLAN, [], [], {})
    assert state.value.upper() in text
    assert "next        " in text


def test_an_answer_of_a_gate_says_whether_it_was_waived_or_may_be():
    found = Finding(Question.CONTRACT, "parts · cut-offs", Verdict.INCONCLUSIVE, "nobody says so", is_waivable=True)
    assert "not enough evidence yet (may be waived)" in findings_table([found])
    assert "not enough evidence yet (waived)" in findings_table([replace(found, is_binding=False)])
