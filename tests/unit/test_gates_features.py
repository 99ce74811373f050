from datetime import timedelta
from types import SimpleNamespace

import pytest
from builders import HOUR, STAGES, T0, a_plan, a_release

from seatrial.adapters.features import FeaturesExaminer, MemorySource
from seatrial.adapters.features.settings import FeatureSourceSettings
from seatrial.documents import check, parse_yaml
from seatrial.errors import InvalidDocumentError, NotFoundError
from seatrial.gates.features import Kind, Seen, SeenColumn, features
from seatrial.ports import Case
from seatrial.verdict import Verdict

ASK = {"source": "store", "timestamp": "at", "max_age": "6 h"}
GOOD = Seen(1_000, {"distance": SeenColumn(Kind.FLOAT, 0, 0, 1.0, 9.0)}, T0)


def asked(**changes):
    plan = a_plan(stages=[{**STAGES[0], "features": {**ASK, **changes}}, *STAGES[1:]])
    return plan, plan.gates.asked()["features"]


def a_release_of(**column):
    document = a_release().document()["features"]
    return a_release(features={**document, "columns": [{**document["columns"][0], **column}]})


def found(seen=GOOD, *, challenger=None, champion=None, now=T0, **ask):
    _, ask = asked(**ask)
    return features(challenger or a_release(), champion or a_release(), seen, ask, now=now)


def of_column(column, **options):
    return found(Seen(1_000, {"distance": column}, T0), **options)[1]


def test_a_source_that_has_what_is_declared_passes():
    assert [(f.subject, f.verdict) for f in found()] == [
        ("features · freshness", Verdict.PASS),
        ("features · distance", Verdict.PASS),
    ]


@pytest.mark.parametrize(
    ("age", "verdict"),
    [
        (timedelta(0), Verdict.PASS),
        (6 * HOUR, Verdict.PASS),
        (6 * HOUR + timedelta(seconds=1), Verdict.FAIL),
        (-timedelta(minutes=5), Verdict.PASS),
        (-timedelta(minutes=6), Verdict.ERROR),
    ],
)
def test_the_newest_row_is_as_old_as_the_plan_allows_and_has_come(age, verdict):
    assert found(now=T0 + age)[0].verdict is verdict


@pytest.mark.parametrize(
    "seen",
    [
        Seen(0, {}, None),
        Seen(1_000, GOOD.columns, None),
        Seen(1_000, GOOD.columns, T0, undated=1),
    ],
)
def test_rows_that_do_not_say_when_are_an_error(seen):
    assert found(seen)[0].verdict is Verdict.ERROR


def test_no_row_is_an_error_for_every_column():
    assert {f.verdict for f in found(Seen(0, {}, None))} == {Verdict.ERROR}


def test_a_column_that_the_source_does_not_have_fails():
    (_, column) = found(Seen(1_000, {}, T0))
    assert (column.verdict, "has no column distance" in column.reason) == (Verdict.FAIL, True)


def test_a_column_of_which_nothing_is_known_is_an_error():
    assert of_column(SeenColumn(Kind.UNKNOWN, missing=1_000)).verdict is Verdict.ERROR


@pytest.mark.parametrize(
    ("declared", "kinds"),
    [
        ("float", {Kind.FLOAT, Kind.INT}),
        ("int", {Kind.INT}),
        ("bool", {Kind.BOOL}),
        ("category", {Kind.TEXT, Kind.INT}),
    ],
)
def test_types_are_compatible_when_no_value_is_lost(declared, kinds):
    release = a_release_of(dtype=declared)
    passed = {
        kind
        for kind in Kind
        if of_column(SeenColumn(kind), challenger=release, champion=release).verdict is Verdict.PASS
    }
    assert passed == kinds


@pytest.mark.parametrize(
    ("nullable", "missing", "verdict"),
    [
        (False, 1, Verdict.FAIL),
        (True, 1, Verdict.PASS),
        (True, 500, Verdict.PASS),
        (True, 501, Verdict.FAIL),
    ],
)
def test_values_are_missing_where_and_as_often_as_declared(nullable, missing, verdict):
    release = a_release_of(nullable=nullable)
    column = SeenColumn(Kind.FLOAT, missing=missing)
    assert of_column(column, challenger=release, champion=release).verdict is verdict


def test_few_rows_say_nothing_about_missing_values():
    few = Seen(299, GOOD.columns, T0)
    assert found(few)[1].verdict is Verdict.INCONCLUSIVE
    assert found(few, min_rows=299)[1].verdict is Verdict.PASS
    wrong = Seen(299, {"distance": SeenColumn(Kind.TEXT)}, T0)
    assert found(wrong)[1].verdict is Verdict.FAIL


def test_the_rollback_target_must_find_its_columns_too():
    assert found(champion=a_release_of(name="hour"))[2].verdict is Verdict.FAIL
    assert found(champion=a_release_of(dtype="int"))[1].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("sign", "least", "greatest", "verdict"),
    [
        ("non_negative", -0.1, 1.0, Verdict.FAIL),
        ("non_negative", 0.0, 1.0, Verdict.PASS),
        ("non_positive", -1.0, 0.1, Verdict.FAIL),
        ("any", -1.0, 1.0, Verdict.PASS),
    ],
)
def test_the_declared_sign_holds(sign, least, greatest, verdict):
    column = SeenColumn(Kind.FLOAT, least=least, greatest=greatest)
    assert of_column(column, challenger=a_release_of(sign=sign)).verdict is verdict


def test_an_infinite_value_fails():
    assert of_column(SeenColumn(Kind.FLOAT, infinite=1)).verdict is Verdict.FAIL


def a_case(**changes):
    plan, ask = asked(**changes)
    registered = SimpleNamespace(release=a_release())
    return Case("features", ask, plan, registered, registered)


def test_the_source_is_asked_every_time_for_freshness_does_not_keep():
    moments = iter([T0, T0 + HOUR])
    examiner = FeaturesExaminer(SimpleNamespace(now=lambda: next(moments)))
    assert examiner.reads(a_case()) != examiner.reads(a_case())


def test_a_source_is_examined_at_the_time_of_the_clock():
    rows = [{"at": T0, "distance": 1.0}] * 300
    examiner = FeaturesExaminer(SimpleNamespace(now=lambda: T0 + HOUR), {"store": MemorySource(rows)})
    assert {f.verdict for f in examiner.examine(a_case())} == {Verdict.PASS}
    with pytest.raises(NotFoundError, match="did you mean 'store'"):
        examiner.examine(a_case(source="stor"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_age": "0 h"}, "max_age"),
        ({"rows": 0}, "rows"),
        ({"max_missing": "100 %"}, "max_missing"),
    ],
)
def test_a_gate_that_could_not_fail_is_refused(changes, said):
    with pytest.raises(InvalidDocumentError, match=said):
        asked(**changes)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{}", "expected one of database, parquet and url"),
        ("{parquet: a, url: 'http://h/x'}", "found parquet and url"),
        ("{database: 'sqlite://'}", "expected both"),
        ("{database: 'nothing', table: t}", "no database URL"),
        ("{url: 'ftp://h'}", "no address"),
        ("{url: 'http://me:secret@h'}", "no address"),
    ],
)
def test_a_source_is_one_well_written_place(text, said):
    with pytest.raises(InvalidDocumentError, match=said) as refused:
        check(parse_yaml(text, "settings.yaml"), FeatureSourceSettings)
    assert "secret" not in str(refused.value)
