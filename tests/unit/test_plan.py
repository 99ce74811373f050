import copy
import math
import re
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from seatrial.documents import Document, check, parse_yaml
from seatrial.errors import InvalidDocumentError
from seatrial.plan import Above, AtLeast, Condition, Margin, OneOf, Plan, load_plan

EXAMPLE = Path(__file__).parents[2] / "config" / "plans" / "example-plan.yaml"

TEXT = """\
plan: {name: standard, version: "1", decision_point: flight-delay}
unit: unit_key
stages:
  - {stage: gates, bounds: [{metric: log_loss, at_most: 0.6}], probe_max_age: 1 d}
  - {stage: shadow, soak: 1 d, deadline: 7 d, min_units: 500, max_flip_rate: 40 %}
  - {stage: approval, before: canary, expires: 2 d}
  - {stage: canary, share: 5 %, soak: 2 d}
  - {stage: canary, share: 20 %, soak: 2 d}
  - {stage: labels, deadline: 21 d}
  - {stage: approval, expires: 3 d}
  - {stage: promotion, holdback: 5 %, watch: 14 d}
guardrails:
  - name: call-failed
    source: runtime
    bad_when: [{outcome: [timeout, error]}, {latency_ms: {above: 200}}]
    margin: 50 % relative
    consequence: freeze
  - name: wrong-decision
    source: label
    label: late
    maturity: 36 h
    bad_when: [{label: 1, action: none}, {label: 0, action: rebook}]
    only_when: [{origin: [EWR, JFK]}]
    margin: 15 % relative
    weight: 4
    slices: [origin]
    consequence: roll_back
    dry_run: false
slices: {origin: [EWR, JFK, LGA], carrier: [AA, UA]}
budgets: {rollback: 5 %, hold: 20 %, promote: 5 %, srm: 0.5 %}
label_coverage: {at_least: 80 %}
evidence: {max_age: 6 h}
lease: 12 h
on_deadline: ask
approvers: {roles: [risk-owner]}
"""


def plan_of(text):
    return check(parse_yaml(text, "plan.yaml"), Plan)


def edited(*edits):
    text = TEXT
    for old, new in edits:
        assert text.count(old) == 1, f"{old!r} must stand once"
        text = text.replace(old, new)
    return text


def refused(*edits):
    with pytest.raises(InvalidDocumentError) as caught:
        plan_of(edited(*edits))
    return caught.value.problems


def sole(problems, finding):
    (problem,) = [each for each in problems if finding in each.finding]
    return problem


def data():
    return copy.deepcopy(dict(parse_yaml(TEXT, "plan.yaml").data))


def test_the_reference_example_loads_and_names_every_key():
    plan = load_plan(EXAMPLE)
    text = EXAMPLE.read_text()
    assert plan.name == "flight-delay-example"
    assert [key for key in _keys_of(Plan) if f"{key}:" not in text] == []


def _keys_of(model):
    schema = model.model_json_schema(mode="serialization")
    return {key for each in [schema, *schema["$defs"].values()] for key in each.get("properties", {})}


def test_every_key_says_what_it_means():
    schema = Plan.model_json_schema(mode="serialization")
    for model in [schema, *schema["$defs"].values()]:
        assert [key for key, value in model.get("properties", {}).items() if not value.get("description")] == []


def test_a_plan_is_typed_values():
    plan = plan_of(TEXT)
    failed, wrong = plan.guardrails
    assert (plan.name, plan.version, plan.decision_point, plan.segment) == ("standard", "1", "flight-delay", None)
    assert failed.bad_when == (
        Condition((OneOf("outcome", ("timeout", "error")),)),
        Condition((Above("latency_ms", 200.0),)),
    )
    assert wrong.bad_when[0].columns() == {"label", "action"}
    assert wrong.margin == Margin(0.15)
    assert plan.stages[3].rule_out == Margin(1.0)


def test_stages_have_distinct_names():
    assert plan_of(TEXT).stage_names() == (
        "gates",
        "shadow",
        "approval-1",
        "canary-1",
        "canary-2",
        "labels",
        "approval-2",
        "promotion",
    )


def test_a_number_of_at_least_is_a_term():
    plan = plan_of(edited(("{latency_ms: {above: 200}}", "{latency_ms: {at_least: 200}}")))
    assert plan.guardrails[0].bad_when[1] == Condition((AtLeast("latency_ms", 200.0),))


@pytest.mark.parametrize(
    ("text", "margin", "spelled"),
    [
        ("15 % relative", Margin(0.15), "15 % relative"),
        ("12.5% relative", Margin(0.125), "12.5 % relative"),
        ("2 % absolute", Margin(0.02, is_relative=False), "2 % absolute"),
        ("100 % relative", Margin(1.0), "100 % relative"),
        ("0.1 % relative", Margin(0.001), "0.1 % relative"),
    ],
)
def test_a_margin_is_read_and_written_with_its_unit(text, margin, spelled):
    found = plan_of(edited(("margin: 15 % relative", f"margin: {text}"))).guardrails[1].margin
    assert (found, str(found)) == (margin, spelled)


GATES = "  - {stage: gates, bounds: [{metric: log_loss, at_most: 0.6}], probe_max_age: 1 d}\n"
SHADOW = "  - {stage: shadow, soak: 1 d, deadline: 7 d, min_units: 500, max_flip_rate: 40 %}\n"
FIRST = "  - {stage: canary, share: 5 %, soak: 2 d}\n"
SECOND = "  - {stage: canary, share: 20 %, soak: 2 d}\n"
LABELS = "  - {stage: labels, deadline: 21 d}\n"
APPROVAL = "  - {stage: approval, expires: 3 d}\n"
PROMOTION = "  - {stage: promotion, holdback: 5 %, watch: 14 d}\n"
ASK_FIRST = "  - {stage: approval, before: canary, expires: 2 d}\n"
FIRST_ABSOLUTE = "  - {stage: canary, share: 5 %, soak: 2 d, rule_out: 2 % absolute}\n"
RUNTIME = "    source: runtime\n"
NAMED = "    label: late\n"
MATURED = "    maturity: 36 h\n"
WHEN = "bad_when: [{label: 1, action: none}, {label: 0, action: rebook}]"
WRONG = f"    source: label\n{NAMED}{MATURED}    {WHEN}\n"
HARMED = "    source: proxy\n    bad_when: [{action: rebook}]\n"


@pytest.mark.parametrize(
    ("old", "new", "place", "finding", "remedy"),
    [
        (GATES, "", "4 stages[0].stage", "found 'shadow', expected gates first", "begin with a gates stage"),
        (GATES + SHADOW, SHADOW + GATES, "4 stages[0].stage", "found 'shadow', expected gates first", "begin with"),
        (GATES, GATES + GATES, "5 stages[1].stage", "found 'gates' after 'gates'", "move or remove this gates stage"),
        (SECOND, SECOND + SHADOW, "9 stages[5].stage", "found 'shadow' after 'canary'", "move or remove this shadow"),
        (FIRST + SECOND + LABELS, LABELS + FIRST, "8 stages[4].stage", "found 'canary' after 'labels'", "move or"),
        (LABELS, LABELS + LABELS, "10 stages[6].stage", "found 'labels' after 'labels'", "move or remove this labels"),
        (PROMOTION, "", "10 stages[6].stage", "found 'approval', expected promotion last", "end with a promotion"),
        (ASK_FIRST + FIRST + SECOND, "", "3 stages", "found no canary stage, expected at least one", "add a canary"),
        (APPROVAL, "", "10 stages[6]", "found promotion directly after 'labels', expected an approval", "add an"),
        (SHADOW, APPROVAL + SHADOW, "5 stages[1]", "found an approval before 'shadow', expected it", "move or remove"),
        (SECOND, APPROVAL + APPROVAL + SECOND, "8 stages[4]", "found an approval before 'approval'", "move or remove"),
        ("before: canary", "before: promotion", "6 stages[2].before", "found 'promotion', expected the", "correct it"),
        (
            "stage: labels",
            "stage: lables",
            "9 stages[5].stage",
            "expected one of gates, shadow,",
            "did you mean 'labels'",
        ),
    ],
)
def test_stages_keep_their_order(old, new, place, finding, remedy):
    problem = sole(refused((old, new)), finding)
    assert problem.place == f"plan.yaml:{place}"
    assert problem.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("old", "new", "place", "finding", "remedy"),
    [
        ("share: 20 %", "share: 5 %", "8 stages[4].share", "found 5.00% after 5.00%, expected a larger", "raise this"),
        ("share: 20 %", "share: 96 %", "11 stages[7].holdback", "found 5.00%, expected at most 4.00%", "lower the"),
        (", at_most: 0.6", "", "4 stages[0].bounds[0]", "found a metric without at_most or at_least", "add the value"),
        (
            "at_most: 0.6",
            "at_most: 1, at_least: 2",
            "4 stages[0].bounds[0].at_most",
            "found 1, expected",
            "correct the",
        ),
        (
            "deadline: 7 d",
            "deadline: 1 d",
            "5 stages[1].deadline",
            "found 1 d, expected more than soak, 1 d",
            "write a",
        ),
        (
            "20 %, soak: 2 d",
            "20 %, soak: 14 d",
            "8 stages[4].deadline",
            "found 14 d, expected more than soak",
            "write a",
        ),
        (
            "deadline: 21 d",
            "deadline: 36 h",
            "9 stages[5].deadline",
            "the maturity of 'wrong-decision'",
            "lengthen the",
        ),
        (FIRST, FIRST_ABSOLUTE, "7 stages[3].rule_out", "found 2 % absolute, expected a relative margin", "write it"),
    ],
)
def test_a_stage_agrees_with_itself_and_its_neighbours(old, new, place, finding, remedy):
    (problem,) = refused((old, new))
    assert problem.place == f"plan.yaml:{place}"
    assert finding in problem.finding
    assert problem.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("old", "new", "place", "finding", "remedy"),
    [
        (
            "name: wrong-decision",
            "name: call-failed",
            "18 guardrails[1].name",
            "found 'call-failed' again",
            "rename or",
        ),
        ("roll_back", "notify", "12 guardrails", "found none with consequence roll_back", "declare the harm that must"),
        ("dry_run: false", "dry_run: true", "12 guardrails", "that is not a dry run, expected at least one", "declare"),
        ("dry_run: false", "dry_run: true", "9 stages[5]", "found a labels stage and no guardrail with source", "add"),
        (
            WRONG,
            HARMED,
            "9 stages[5]",
            "found a labels stage and no guardrail with source label",
            "add such a guardrail",
        ),
        (NAMED, "", "18 guardrails[1].label", "found no such key, expected it with source label", "add it: label is"),
        (MATURED, "", "18 guardrails[1].maturity", "found no such key, expected it with source", "add it: maturity is"),
        (RUNTIME, RUNTIME + NAMED, "15 guardrails[0].label", "found it with source runtime, expected", "remove it, or"),
        (RUNTIME, RUNTIME + MATURED, "15 guardrails[0].maturity", "found it with source runtime,", "remove it, or"),
        (
            "label: 0, ",
            "",
            "22 guardrails[1].bad_when[1]",
            "found a condition without label, expected every",
            "add label",
        ),
        (
            "latency_ms: {above: 200}",
            "label: 1",
            "15 guardrails[0].bad_when[1]",
            "found label in a guardrail",
            "declare",
        ),
        (
            "slices: [origin]",
            "slices: [orign]",
            "26 guardrails[1].slices[0]",
            "undeclared slice 'orign'",
            "did you mean",
        ),
        (
            "slices: [origin]",
            "slices: [origin, origin]",
            "26 guardrails[1].slices[1]",
            "found 'origin' again",
            "rename",
        ),
        ("carrier: [AA, UA]", "carrier: [AA, AA]", "29 slices.carrier[1]", "found 'AA' again, expected it", "rename"),
        (
            "carrier: [AA, UA]",
            "action: [none]",
            "29 slices.action",
            "found action, expected columns known",
            "remove it",
        ),
        ("[risk-owner]", "[risk-owner, risk-owner]", "35 approvers.roles[1]", "found 'risk-owner' again", "rename"),
    ],
)
def test_guardrails_and_slices_agree_with_each_other(old, new, place, finding, remedy):
    problem = sole(refused((old, new)), finding)
    assert problem.place == f"plan.yaml:{place}"
    assert problem.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("share: 20 %", "share: 95 %"),
        ("at_most: 0.6", "at_most: 0.6, at_least: 0.6"),
        ("deadline: 21 d", "deadline: 37 h"),
        ("holdback: 5 %", "holdback: 0 %"),
        ("40 %", "0.01 %"),
        ("rollback: 5 %", "rollback: 50 %"),
        ("80 %", "100 %"),
        ("lease: 12 h", "lease: 3650 d"),
    ],
)
def test_a_value_at_its_bound_is_accepted(old, new):
    assert plan_of(edited((old, new)))


def test_a_canary_may_leave_exactly_the_holdback():
    # 1 - 0.9 is less than 0.1 in floats.
    assert plan_of(edited(("share: 20 %", "share: 10 %"), ("holdback: 5 %", "holdback: 90 %")))


@pytest.mark.parametrize("column", ["action", "Action", "score", "label", "outcome", "latency_ms", "arm", "rule"])
def test_units_are_never_chosen_by_what_the_decision_wrote(column):
    (problem,) = refused(("{origin: [EWR, JFK]}", f"{{{column}: 1}}"))
    assert problem.place == "plan.yaml:23 guardrails[1].only_when[0]"
    assert problem.finding == f"found {column}, expected columns known before the decision"
    assert problem.remedy == f"move {column} to bad_when, or remove it"


@pytest.mark.parametrize(
    ("old", "new", "place", "finding"),
    [
        ("bounds: [{metric: log_loss, at_most: 0.6}]", "bounds: []", "4 stages[0].bounds", "at least 1 entries"),
        (
            "probe_max_age: 1 d",
            "probe_max_age: 1",
            "4 stages[0].probe_max_age",
            "found 1, expected a duration with its",
        ),
        ("min_units: 500", "min_units: 0", "5 stages[1].min_units", "found 0, expected a number of at least 1"),
        ("40 %", "100 %", "5 stages[1].max_flip_rate", "found '100 %', expected a number below 1"),
        ("before: canary", "before: labels", "6 stages[2].before", "found 'labels', expected 'canary' or 'promotion'"),
        ("share: 20 %", "share: 2", "8 stages[4].share", "found 2, expected a share from 0 % to 100 %"),
        ("share: 20 %", "share: 120 %", "8 stages[4].share", "found '120 %', expected a share from 0 % to 100 %"),
        ("share: 20 %", "share: 100 %", "8 stages[4].share", "found '100 %', expected a number below 1"),
        ("share: 20 %", "share: 0 %", "8 stages[4].share", "found '0 %', expected a number above 0"),
        ("holdback: 5 %", "holdback: 100 %", "11 stages[7].holdback", "found '100 %', expected a number below 1"),
        ("5 %, soak: 2 d", "5 %, soak: 2", "7 stages[3].soak", "found 2, expected a duration with its unit"),
        ("lease: 12 h", "lease: 0 s", "33 lease", "found '0 s', expected a duration above 0 s"),
        ("lease: 12 h", "lease: 12", "33 lease", "found 12, expected a duration with its unit"),
        ("max_age: 6 h", "max_age: -6 h", "32 evidence.max_age", "found '-6 h', expected a duration with its unit"),
        ("roll_back", "rollback", "27 guardrails[1].consequence", "expected one of 'roll_back', 'freeze' or 'notify'"),
        (
            "source: runtime",
            "source: model",
            "14 guardrails[0].source",
            "one of 'runtime', 'proxy', 'label' or 'business'",
        ),
        ("dry_run: false", "dry_run: yes", "28 guardrails[1].dry_run", "found 'yes', expected true or false"),
        ("dry_run: false", "dry_run: 1", "28 guardrails[1].dry_run", "found 1, expected true or false"),
        (
            "15 % relative",
            "0.15",
            "24 guardrails[1].margin",
            'found 0.15, expected a margin with its unit, such as "15',
        ),
        ("15 % relative", "15 %", "24 guardrails[1].margin", "found '15 %', expected a margin with its unit"),
        ("15 % relative", "0 % relative", "24 guardrails[1].margin", "a margin above 0 % and below 1000%"),
        ("15 % relative", "1000 % relative", "24 guardrails[1].margin", "a margin above 0 % and below 1000%"),
        ("15 % relative", "100 % absolute", "24 guardrails[1].margin", "a margin above 0 % and below 100%"),
        ("weight: 4", "weight: 0", "25 guardrails[1].weight", "found 0, expected a number of at least 1e-06"),
        ("weight: 4", "weight: -1", "25 guardrails[1].weight", "found -1, expected a number of at least 1e-06"),
        ("weight: 4", "weight: '4'", "25 guardrails[1].weight", "found '4', expected a number"),
        ("{outcome: [timeout, error]}", "{}", "15 guardrails[0].bad_when[0]", "expected a mapping of columns"),
        ("[timeout, error]", "[]", "15 guardrails[0].bad_when[0]", "found outcome with an empty list"),
        ("[timeout, error]", "[[x]]", "15 guardrails[0].bad_when[0]", "found a list, expected text, a number"),
        ("[timeout, error]", "~", "15 guardrails[0].bad_when[0]", "found nothing, expected text, a number"),
        ("{outcome: [", "{out come: [", "15 guardrails[0].bad_when[0]", "found 'out come', expected a column name"),
        ("{above: 200}", "{above: fast}", "15 guardrails[0].bad_when[1]", "found latency_ms compared with 'fast'"),
        ("{above: 200}", "{above: true}", "15 guardrails[0].bad_when[1]", "found latency_ms compared with true"),
        (
            "{above: 200}",
            "{below: 2}",
            "15 guardrails[0].bad_when[1]",
            "found latency_ms with below, expected at_least",
        ),
        ("{above: 200}", "{above: 2, at_least: 3}", "15 guardrails[0].bad_when[1]", "with above, at_least, expected"),
        (WHEN, "bad_when: []", "22 guardrails[1].bad_when", "found an empty list, expected at least 1 entries"),
        ("[AA, UA]", "[]", "29 slices.carrier", "found an empty list, expected at least 1 entries"),
        ("[AA, UA]", "[AA, 1]", "29 slices.carrier[1]", "found 1, expected text"),
        ("carrier: [AA", '"a b": [AA', "29 slices.a b", "found 'a b', expected a column name"),
        ("rollback: 5 %", "rollback: 51 %", "30 budgets.rollback", "found '51 %', expected a number of at most 0.5"),
        ("hold: 20 %", "hold: 51 %", "30 budgets.hold", "found '51 %', expected a number of at most 0.5"),
        ("promote: 5 %", "promote: 51 %", "30 budgets.promote", "found '51 %', expected a number of at most 0.5"),
        ("srm: 0.5 %", "srm: 51 %", "30 budgets.srm", "found '51 %', expected a number of at most 0.5"),
        ("rollback: 5 %", "rollback: 0", "30 budgets.rollback", "found 0, expected a number above 0"),
        ("rollback: 5 %", "rollback: 5", "30 budgets.rollback", "found 5, expected a share from 0 % to 100 %"),
        ("80 %", "0 %", "31 label_coverage.at_least", "found '0 %', expected a number above 0"),
        ("on_deadline: ask", "on_deadline: ship", "34 on_deadline", "found 'ship', expected 'ask' or 'roll_back'"),
        ("[risk-owner]", "[]", "35 approvers.roles", "found an empty list, expected at least 1 entries"),
        ("unit: unit_key", "unit: unit key", "2 unit", "found 'unit key', expected a column name"),
        ("unit: unit_key", "unit: unit_key\nsegment: All", "3 segment", "found 'All', expected a name of at most 63"),
        ('version: "1"', "version: 1", "1 plan.version", "found 1, expected text (a number needs quotes to be text)"),
    ],
)
def test_a_wrong_value_is_refused_with_what_its_key_means(old, new, place, finding):
    (problem,) = refused((old, new))
    assert problem.place == f"plan.yaml:{place}"
    assert finding in problem.finding
    (key,) = re.findall(r"^correct it: (\w+) is ", problem.remedy)
    assert re.search(rf"\b{key}\b", problem.place)


@pytest.mark.parametrize("number", [".nan", ".inf", "-.inf", "1e999"])
@pytest.mark.parametrize(
    ("old", "place"),
    [
        ("weight: 4", "25 guardrails[1].weight"),
        ("share: 5 %", "7 stages[3].share"),
        ("rollback: 5 %", "30 budgets.rollback"),
        ("at_most: 0.6", "4 stages[0].bounds[0].at_most"),
        ("above: 200", "15 guardrails[0].bad_when[1].latency_ms.above"),
    ],
)
def test_a_number_that_is_not_finite_is_refused(old, place, number):
    problem = sole(refused((old, f"{old.partition(':')[0]}: {number}")), "expected a finite number")
    assert problem.place == f"plan.yaml:{place}"
    assert problem.remedy == "write the number that is meant"


@pytest.mark.parametrize(
    ("old", "place"),
    [
        ("    margin: 15 % relative\n", "18 guardrails[1].margin"),
        ("    consequence: roll_back\n", "18 guardrails[1].consequence"),
        (", srm: 0.5 %", "30 budgets.srm"),
        ("label_coverage: {at_least: 80 %}\n", "1 label_coverage"),
        ("evidence: {max_age: 6 h}\n", "1 evidence"),
        ("lease: 12 h\n", "1 lease"),
        ("on_deadline: ask\n", "1 on_deadline"),
        (", watch: 14 d", "11 stages[7].watch"),
    ],
)
def test_what_decides_about_harm_has_no_default(old, place):
    problem = sole(refused((old, "")), "found no such key, expected it")
    key = place.rpartition(".")[2].rpartition(" ")[2]
    assert problem.place == f"plan.yaml:{place}"
    assert problem.remedy.startswith(f"add it: {key} is ")


@pytest.mark.parametrize(
    ("old", "new", "place", "remedy"),
    [
        ("lease: 12 h", "lease: 12 h\nlaese: 3 h", "34 laese", "did you mean 'lease'?"),
        ("watch: 14 d", "watch: 14 d, wacth: 1 d", "11 stages[7].wacth", "did you mean 'watch'?"),
        ("weight: 4", "weight: 4\n    weigth: 3", "26 guardrails[1].weigth", "did you mean 'weight'?"),
        ("srm: 0.5 %", "srm: 0.5 %, fdr: 1 %", "30 budgets.fdr", "known: hold, promote, rollback, srm"),
    ],
)
def test_an_unknown_key_is_refused_at_every_depth(old, new, place, remedy):
    (problem,) = refused((old, new))
    assert problem.place == f"plan.yaml:{place}"
    assert problem.finding.startswith("found the unknown key ")
    assert problem.remedy == remedy


def test_many_mistakes_are_reported_at_once_cross_field_ones_included():
    problems = refused(
        ("share: 20 %", "share: 3 %"),  # smaller than the step before: between stages
        ("deadline: 7 d", "deadline: 1 h"),  # before the soak: between fields of one stage
        ("watch: 14 d", "watch: 14"),
        ("margin: 15 % relative", "margin: 0.15"),
        ("slices: [origin]", "slices: [orign]"),  # undeclared: between guardrail and slices
        ("srm: 0.5 %", "srm: .nan"),
        ("lease: 12 h", "leese: 12 h"),
        ("roles: [risk-owner]", "roles: []"),
    )
    assert {problem.place.removeprefix("plan.yaml:") for problem in problems} == {
        "8 stages[4].share",
        "5 stages[1].deadline",
        "11 stages[7].watch",
        "24 guardrails[1].margin",
        "26 guardrails[1].slices[0]",
        "30 budgets.srm",
        "33 leese",
        "1 lease",
        "35 approvers.roles",
    }


def test_a_plan_without_labels_cannot_promote():
    (problem,) = refused(("  - {stage: labels, deadline: 21 d}\n", ""))
    assert problem.place == "plan.yaml:3 stages"
    assert "without matured labels nothing is promoted" in problem.remedy


def test_a_plan_for_one_segment_ends_with_labels_and_never_promotes():
    (problem,) = refused(("unit: unit_key", "unit: unit_key\nsegment: commuter"))
    assert "expected labels last" in problem.finding
    ends = "  - {stage: approval, expires: 3 d}\n  - {stage: promotion, holdback: 5 %, watch: 14 d}\n"
    plan = plan_of(TEXT.replace("unit: unit_key", "unit: unit_key\nsegment: commuter").replace(ends, ""))
    assert plan.stage_names()[-1] == "labels"


def test_a_broken_stage_does_not_make_a_stage_missing():
    (problem,) = refused(("{stage: promotion, holdback: 5 %, watch: 14 d}", "promotion"))
    assert problem.place == "plan.yaml:11 stages[7]"


def test_the_id_is_the_same_for_every_spelling_and_order_of_keys():
    plan = plan_of(TEXT)
    respelled = edited(
        ("unit: unit_key\n", ""),
        ("lease: 12 h", "lease: 0.5 d"),
        ("share: 5 %", "share: 0.05"),
        ("{label: 1, action: none}", "{action: none, label: 1}"),
        ("margin: 50 % relative", "margin: 50.0%relative"),
        ("evidence:", "unit: unit_key\nevidence:"),
    )
    assert plan_of(respelled) == plan
    assert plan_of(respelled).id == plan.id


def test_the_canonical_form_does_not_drift():
    # A changed digest would orphan every plan that a ledger names; change it only together with a migration.
    assert plan_of(TEXT).id == "sha256:d72f684fc4bc02342362d842a55c5b727ea5e02418722395ee59aa235d208648"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("share: 20 %", "share: 21 %"),
        ("margin: 15 % relative", "margin: 16 % relative"),
        ("weight: 4", "weight: 5"),
        ("on_deadline: ask", "on_deadline: roll_back"),
        ('version: "1"', 'version: "2"'),
    ],
)
def test_a_change_of_meaning_is_another_id(old, new):
    assert plan_of(edited((old, new))).id != plan_of(TEXT).id


def test_a_copy_with_a_change_has_an_id_of_its_own():
    plan = plan_of(TEXT)
    assert plan.id != plan.model_copy(update={"unit": "flight"}).id


def test_the_canonical_document_reads_back_as_an_equal_plan():
    for plan in (plan_of(TEXT), load_plan(EXAMPLE)):
        stored = Plan.model_validate_json(plan.model_dump_json())
        assert check(Document("ledger", plan.document()), Plan) == plan == stored
        assert stored.id == plan.id


def test_a_plan_made_in_python_holds_the_same_rules():
    with pytest.raises(ValidationError, match="found 'shadow', expected gates first"):
        Plan.model_validate({**data(), "stages": data()["stages"][1:]})


def alphas(plan):
    return {(each.guardrail, each.slice_column, each.slice_value): each.alpha for each in plan.hypotheses()}


def test_half_of_the_rollback_budget_is_spent_on_all_units_and_half_on_slices():
    plan = plan_of(
        edited(("consequence: freeze", "consequence: roll_back"), ("slices: [origin]", "slices: [origin, carrier]"))
    )
    found = alphas(plan)
    assert found.pop(("call-failed", None, None)) == pytest.approx(0.025 * 1 / 5)
    assert found.pop(("wrong-decision", None, None)) == pytest.approx(0.025 * 4 / 5)
    assert set(found) == {
        *(("wrong-decision", "origin", value) for value in ("EWR", "JFK", "LGA")),
        *(("wrong-decision", "carrier", value) for value in ("AA", "UA")),
    }
    assert list(found.values()) == pytest.approx([0.025 / 5] * 5)


def test_without_slices_the_whole_rollback_budget_is_spent_on_all_units():
    assert alphas(plan_of(edited(("    slices: [origin]\n", "")))) == {("wrong-decision", None, None): 0.05}


def test_a_guardrail_that_cannot_roll_back_spends_nothing():
    assert "call-failed" not in {each.guardrail for each in plan_of(TEXT).hypotheses()}


def test_a_copy_with_another_budget_spends_that_budget():
    plan = plan_of(TEXT)
    before = plan.hypotheses()
    other = plan.model_copy(update={"budgets": plan.budgets.model_copy(update={"rollback": 0.5})})
    assert before is plan.hypotheses()
    assert sum(each.alpha for each in other.hypotheses()) == pytest.approx(0.5)
    assert other != plan == plan_of(TEXT)


def test_ending_a_dry_run_moves_no_other_alpha():
    live = edited(("consequence: freeze", "consequence: roll_back"))
    dry = live.replace("margin: 50 % relative\n", "margin: 50 % relative\n    dry_run: true\n")
    assert plan_of(dry).guardrails[0].dry_run
    assert alphas(plan_of(dry)) == alphas(plan_of(live))


@given(
    weights=st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=6),
    sliced=st.lists(st.booleans(), min_size=6, max_size=6),
    budget=st.integers(1, 5000).map(lambda slots: slots / 10_000),
)
@settings(deadline=None, max_examples=60)
def test_the_alphas_never_exceed_the_budget_and_lose_nothing_to_rounding(weights, sliced, budget):
    document = data()
    template = {**document["guardrails"][1], "slices": []}
    document["guardrails"] = [
        {**template, "name": f"guardrail-{at}", "weight": weight, "slices": ["origin", "carrier"] if cut else []}
        for at, (weight, cut) in enumerate(zip(weights, sliced, strict=False))
    ]
    document["budgets"]["rollback"] = budget
    spent = [each.alpha for each in check(Document("x", document), Plan).hypotheses()]
    assert min(spent) > 0
    assert sum(map(Fraction, spent)) <= Fraction(budget)
    assert math.fsum(spent) == pytest.approx(budget, rel=1e-14)


def test_events_are_refused_as_units_because_one_entity_sends_many():
    with pytest.raises(InvalidDocumentError, match="found decision_id, expected unit_key"):
        plan_of(TEXT.replace("unit: unit_key", "unit: decision_id"))


BAD = "    bad_when: [{outcome: [timeout, error]}, {latency_ms: {above: 200}}]\n"
TAIL = "    exceeds: {column: latency_ms, quantile: 99 %}\n"
MEAN = "    mean: {of: latency_ms, typical: 12, deviation: 8}\n"
OF_LABEL = "    mean: {of: label, typical: 0.2, deviation: 0.4}\n"
#: The action rebook hides the label; a bad unit is one that was let through.
SEEN = "    bad_when: [{label: 1, action: none}]\n    observed_when: [{action: none}]\n"
REBOOKED = "    bad_when: [{action: rebook}]\n"
PROXY = "    source: proxy\n"
COLUMNS = "slices: {origin:"
SCORES = f"scores: {{range: [0, 1], label: late, maturity: 36 h, slices: [origin]}}\n{COLUMNS}"
ON_BRIER = (SHADOW, SHADOW.replace("40 %", "40 %, max_brier_increase: 0.02"))
HIDES = (f"    {WHEN}\n", SEEN)


@pytest.mark.parametrize(
    "edits",
    [
        [(BAD, TAIL)],
        [(BAD, MEAN)],
        [(BAD, MEAN.replace("typical", "per: decisions, window: 7 d, worse: lower, typical"))],
        [(f"    {WHEN}\n", OF_LABEL)],
        [HIDES, (BAD, REBOOKED), (RUNTIME, PROXY)],
        [HIDES, (BAD, "    bad_when: [{action: none, outcome: error}, {action: review}]\n"), (RUNTIME, PROXY)],
        [(COLUMNS, SCORES), ON_BRIER],
        [(COLUMNS, f"scores: {{range: [-5, 10]}}\n{COLUMNS}")],
        [(COLUMNS, f"expected: {{units_per_day: 900}}\n{COLUMNS}")],
        [("weight: 4", "weight: 4\n    expected: {rate: 25 %, delay: 8 h}")],
    ],
)
def test_a_tail_a_mean_a_hidden_label_and_what_is_asked_of_scores_are_accepted_and_read_back(edits):
    plan = plan_of(edited(*edits))
    assert plan.id != plan_of(TEXT).id
    assert check(Document("ledger", plan.document()), Plan) == plan


@pytest.mark.parametrize(
    ("edits", "place", "finding", "remedy"),
    [
        ([(BAD, "")], "13 guardrails[0].bad_when", "expected one of bad_when, exceeds and mean", "add it: bad_when is"),
        ([(BAD, BAD + TAIL)], "16 guardrails[0].exceeds", "found bad_when and exceeds, expected one of", "make a"),
        ([(BAD, BAD + MEAN)], "16 guardrails[0].mean", "found bad_when and mean, expected one of", "make a guardrail"),
        ([(BAD, TAIL + MEAN)], "16 guardrails[0].mean", "found exceeds and mean, expected one of", "make a guardrail"),
        (
            [(BAD, TAIL), ("50 % relative", "2 % absolute")],
            "16 guardrails[0].margin",
            "found 2 % absolute, expected a margin relative to the champion",
            "write it relative, such as",
        ),
        (
            [(BAD, MEAN), ("50 % relative", "2 % absolute")],
            "16 guardrails[0].margin",
            "found 2 % absolute, expected a margin relative to the champion",
            "write it relative, such as",
        ),
        (
            [(BAD, MEAN.replace("typical", "per: decisions, typical"))],
            "15 guardrails[0].mean.per",
            "found a divisor without window",
            "add window, or remove per",
        ),
        (
            [(f"    {WHEN}\n", TAIL)],
            "22 guardrails[1].exceeds",
            "found exceeds latency_ms with source label, expected a column of the decision",
            "name a column of the decision log",
        ),
        (
            [(BAD, TAIL.replace("latency_ms", "label"))],
            "15 guardrails[0].exceeds",
            "found exceeds label with source runtime",
            "name a column of the decision log",
        ),
        (
            [(BAD, OF_LABEL)],
            "15 guardrails[0].mean.of",
            "found the mean of label with source runtime, expected label with source label or business only",
            "average label with source label",
        ),
        (
            [(f"    {WHEN}\n", MEAN)],
            "22 guardrails[1].mean.of",
            "found the mean of latency_ms with source label",
            "average label with source label",
        ),
        (
            [(f"    {WHEN}\n", OF_LABEL.replace("typical", "window: 1 d, typical"))],
            "22 guardrails[1].mean.window",
            "found window with source label",
            "remove window",
        ),
    ],
)
def test_a_guardrail_measures_one_thing_that_its_source_can_give(edits, place, finding, remedy):
    problem = sole(refused(*edits), finding)
    assert problem.place == f"plan.yaml:{place}"
    assert problem.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("edits", "place", "finding", "remedy"),
    [
        (
            [(BAD, BAD + "    observed_when: [{action: none}]\n")],
            "16 guardrails[0].observed_when",
            "found it with source runtime, expected it with source label or business only",
            "remove it; only labels can be hidden",
        ),
        (
            [(HIDES[0], SEEN.replace("observed_when: [{action: none}]", "observed_when: [{label: 1, action: none}]"))],
            "23 guardrails[1].observed_when[0]",
            "found label, expected what lets it be seen",
            "name the action",
        ),
        (
            [(HIDES[0], OF_LABEL + "    observed_when: [{action: none}]\n")],
            "22 guardrails[1].mean",
            "found observed_when with mean",
            "count units with bad_when",
        ),
        (
            [(HIDES[0], SEEN.replace("{label: 1, action: none}", "{label: 1}"))],
            "22 guardrails[1].bad_when[0]",
            "found a condition under which the label may be hidden",
            "add the action that lets the label be seen",
        ),
        (
            [(HIDES[0], SEEN.replace("{label: 1, action: none}", "{label: 1, action: [none, rebook]}"))],
            "22 guardrails[1].bad_when[0]",
            "found a condition under which the label may be hidden",
            "add the action that lets the label be seen",
        ),
    ],
)
def test_a_label_that_an_action_hides_counts_where_it_is_seen(edits, place, finding, remedy):
    problem = sole(refused(*edits), finding)
    assert problem.place == f"plan.yaml:{place}"
    assert problem.remedy.startswith(remedy)


@pytest.mark.parametrize(
    "action_guardrail",
    [
        [],
        [(BAD, REBOOKED), (RUNTIME, PROXY), ("consequence: freeze", "consequence: notify")],
        [(BAD, REBOOKED), (RUNTIME, PROXY), ("consequence: freeze", "consequence: freeze\n    dry_run: true")],
        # Who refuses more lets fewer through: a rate of the action that shows the label falls.
        [(BAD, "    bad_when: [{action: none}]\n"), (RUNTIME, PROXY)],
    ],
)
def test_a_label_that_an_action_hides_needs_a_guardrail_on_the_rate_of_such_an_action(action_guardrail):
    problem = sole(refused(HIDES, *action_guardrail), "found a label that an action can hide and no guardrail on")
    assert re.fullmatch(r"plan.yaml:2[34] guardrails\[1\].observed_when", problem.place)
    assert problem.remedy == "add one with consequence roll_back or freeze: who refuses everybody has no bad label"


@pytest.mark.parametrize(
    ("edits", "place", "finding", "remedy"),
    [
        (
            [(COLUMNS, SCORES.replace("[0, 1]", "[1, 0]"))],
            "29 scores.range",
            "found 1 to 0, expected the least",
            "exch",
        ),
        (
            [(COLUMNS, SCORES.replace("[0, 1]", "[1, 1]"))],
            "29 scores.range",
            "found 1 to 1, expected the least",
            "exch",
        ),
        (
            [(COLUMNS, SCORES.replace(", maturity: 36 h", ""))],
            "29 scores.maturity",
            "found label alone, expected maturity with it",
            "add maturity",
        ),
        (
            [(COLUMNS, SCORES.replace(", label: late", ""))],
            "29 scores.label",
            "found maturity alone, expected label with it",
            "add label",
        ),
        (
            [(COLUMNS, SCORES.replace("[0, 1]", "[0, 10]"))],
            "29 scores.label",
            "found a label with scores from 0 to 10, expected a probability",
            "remove label",
        ),
        (
            [(COLUMNS, SCORES.replace("slices: [origin]", "slices: [orign]"))],
            "29 scores.slices[0]",
            "found the undeclared slice 'orign'",
            "did you mean 'origin'",
        ),
        (
            [(COLUMNS, SCORES.replace("slices: [origin]", "slices: [origin, origin]"))],
            "29 scores.slices[1]",
            "found 'origin' again",
            "rename",
        ),
        (
            [ON_BRIER],
            "5 stages[1].max_brier_increase",
            "found a bound on the Brier loss without scores.label",
            "add scores with label and maturity",
        ),
        (
            [ON_BRIER, (COLUMNS, f"scores: {{range: [0, 1]}}\n{COLUMNS}")],
            "5 stages[1].max_brier_increase",
            "found a bound on the Brier loss without scores.label",
            "add scores with label and maturity",
        ),
        (
            [HIDES, (BAD, REBOOKED), (RUNTIME, PROXY), (COLUMNS, SCORES)],
            "30 scores.label",
            "found 'late', which an action can hide, expected a label that is always seen",
            "remove label",
        ),
    ],
)
def test_what_is_asked_of_scores_can_be_answered(edits, place, finding, remedy):
    problem = sole(refused(*edits), finding)
    assert problem.place == f"plan.yaml:{place}"
    assert problem.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("old", "new", "place", "finding"),
    [
        (BAD, TAIL.replace("99 %", "100 %"), "15 guardrails[0].exceeds.quantile", "expected a number below 1"),
        (BAD, MEAN.replace("12", "0"), "15 guardrails[0].mean.typical", "found 0, expected a number above 0"),
        (BAD, MEAN.replace("8", "0"), "15 guardrails[0].mean.deviation", "found 0, expected a number above 0"),
        (BAD, MEAN.replace("typical", "worse: up, typical"), "15 guardrails[0].mean.worse", "'higher' or 'lower'"),
        (COLUMNS, SCORES.replace("36 h", "36 h, tolerance: 6"), "29 scores.tolerance", "a number of at most 5"),
        (COLUMNS, SCORES.replace("36 h", "36 h, tolerance: -1"), "29 scores.tolerance", "a number of at least 0"),
        (
            COLUMNS,
            SCORES.replace("36 h", "36 h, consequence: roll_back"),
            "29 scores.consequence",
            "expected 'freeze' or 'notify'",
        ),
        (SHADOW, ON_BRIER[1].replace("0.02", "100 %"), "5 stages[1].max_brier_increase", "expected a number below 1"),
        (
            "weight: 4",
            "weight: 4\n    expected: {rate: 0 %}",
            "26 guardrails[1].expected.rate",
            "expected a number above 0",
        ),
    ],
)
def test_a_wrong_value_of_a_measure_or_of_scores_is_refused(old, new, place, finding):
    problem = sole(refused((old, new)), finding)
    assert problem.place == f"plan.yaml:{place}"
    assert problem.remedy.startswith("correct it: ")
