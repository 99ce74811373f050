import json
import math
from types import SimpleNamespace

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders import STAGES, T0, a_plan, a_release
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from seatrial.adapters.evaluation_data import digest_of_rows, load_evaluation
from seatrial.adapters.isolated import Isolation
from seatrial.adapters.reproducing import ReproducingExaminer
from seatrial.adapters.rescoring import Rescorer
from seatrial.adapters.same_rows import SameRowsExaminer
from seatrial.adapters.scoring import load_scorer
from seatrial.errors import InvalidDocumentError, RefusedError, TamperedError, UnavailableError
from seatrial.gates import evaluation as gate
from seatrial.gates.evaluation import Scored, metric_of, not_worse
from seatrial.plan.asks import Evaluation
from seatrial.ports import Case, Registered
from seatrial.stats.clustered import clustered_mean
from seatrial.units import digest_bytes
from seatrial.verdict import Verdict

WRONG = [{"label": 1, "action": "none"}, {"label": 0, "action": ["review", "rebook"]}]
ROWS = 600


def rows_of(seed):
    rng = np.random.default_rng(seed)
    x = rng.random((ROWS, 2))
    x[::9, 0] = math.nan
    return x, (np.nan_to_num(x[:, 0], nan=0.5) + 0.3 * rng.standard_normal(ROWS) > 0.6).astype(np.float64)


@pytest.fixture(scope="module")
def booster():
    x, late = rows_of(1)
    settings = {"objective": "binary", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 20}
    return lightgbm.train(settings, lightgbm.Dataset(x, late, feature_name=["distance", "hour"]), num_boost_round=10)


@pytest.fixture
def made(tmp_path, booster):
    """Return a maker of registered releases with a true report, of which a test changes what it is about."""
    features = a_release().document()["features"]
    (column,) = features["columns"]
    x, late = rows_of(2)
    scores = booster.predict(x, num_threads=1)
    true = {
        "log_loss": log_loss(late, scores),
        "brier": brier_score_loss(late, scores),
        "auc": roc_auc_score(late, scores),
        "wrong": float(((scores >= 0.6) != (late == 1.0)).mean()),
    }

    def make(name="challenger", metrics=None, columns=("distance", "hour"), has_rows=True, **changes):
        folder = tmp_path / name
        folder.mkdir()
        content = booster.model_to_string().encode()
        (folder / "model.txt").write_bytes(content)
        days = [f"day {at % 40}" for at in range(ROWS)]
        table = {"distance": x[:, 0], "hour": x[:, 1], "late": late.astype(int), "day": days, "carrier": ["UA"] * ROWS}
        pq.write_table(pa.table({**table, **changes.pop("table", {})}), folder / "evaluation.parquet")
        metrics = {key: round(value, 6) for key, value in {**true, **(metrics or {})}.items()}
        digest = digest_of_rows(x, late)
        report = json.dumps({"metrics": metrics, "dataset_digest": digest}).encode()
        (folder / "evaluation.json").write_bytes(report)
        data = {"file": "evaluation.parquet", "label": "late", **changes.pop("data", {})}
        release = a_release(
            name,
            model={"artifact": "model.txt", "digest": digest_bytes(content), "format": "lightgbm-text"},
            features={**features, "columns": [{**column, "name": each} for each in columns]},
            evaluation={
                "report": "evaluation.json",
                "digest": digest_bytes(report),
                "metrics": metrics,
                "dataset_digest": digest,
                **({"data": data} if has_rows else {}),
                **changes,
            },
        )
        return Registered(release, folder, T0)

    return make


def a_case(challenger, champion=None, **ask):
    ask = {"rates": {"wrong": WRONG}, **ask}
    plan = a_plan(stages=[{**STAGES[0], "evaluation": ask}, *STAGES[1:]])
    return Case("evaluation", plan.gates.asked()["evaluation"], plan, challenger, champion or challenger)


class Here:
    """Scores in this process, which is what the other one does behind its limits."""

    def scores(self, scored_by, data_of):
        scorer = load_scorer(scored_by.release, scored_by.location)
        return scorer.score_all(load_evaluation(data_of.release, data_of.location).matrix(scorer.columns))


def examine(*args, by=None, **ask):
    return {f.subject: f for f in ReproducingExaminer(by or Here()).examine(a_case(*args, **ask))}


def test_a_report_that_is_computed_again_from_the_artifact_and_the_rows_passes(made):
    found = examine(made(), by=Rescorer())
    assert set(found) == {f"evaluation · {name}" for name in ("log_loss", "brier", "auc", "wrong")}
    assert {f.verdict for f in found.values()} == {Verdict.PASS}
    assert found["evaluation · log_loss"].numbers["rows"] == ROWS


@pytest.mark.parametrize("metric", ["log_loss", "brier", "auc", "wrong"])
def test_a_metric_that_is_not_what_the_report_says_fails(made, metric):
    found = examine(made(metrics={metric: 0.123456}))
    assert {s for s, f in found.items() if f.verdict is Verdict.FAIL} == {f"evaluation · {metric}"}


def test_a_metric_that_nobody_defined_cannot_be_reproduced_and_fails(made):
    found = examine(made(), rates={})
    assert found["evaluation · wrong"].verdict is Verdict.FAIL
    assert "define it under rates" in found["evaluation · wrong"].reason


def test_a_rate_on_a_column_that_the_rows_do_not_have_fails(made):
    found = examine(made(), rates={"wrong": [{"weather": "snow"}]})
    assert (found["evaluation · wrong"].verdict, "'weather'" in found["evaluation · wrong"].reason) == (
        Verdict.FAIL,
        True,
    )


def test_a_metric_that_is_reproduced_outside_its_bound_fails(made):
    case = a_case(made())
    bounds = [SimpleNamespace(metric="auc", at_least=0.99999, at_most=None)]
    scored = a_scored(case.challenger.release)
    reported = case.challenger.release.evaluation.metrics | {"auc": gate.auc(scored.scores, scored.label)}
    release = SimpleNamespace(evaluation=SimpleNamespace(metrics=reported))
    found = {f.subject: f for f in gate.reproduced(release, scored, case.ask, bounds)}
    assert (found["evaluation · auc"].verdict, "outside the bound" in found["evaluation · auc"].reason) == (
        Verdict.FAIL,
        True,
    )


def a_scored(release, shift=0.0, seed=3):
    rng = np.random.default_rng(seed)
    label = (rng.random(2_000) < 0.3).astype(np.float64)
    scores = np.clip(0.3 + 0.2 * (label - 0.3) + 0.05 * rng.standard_normal(2_000) + shift, 0.0, 1.0)
    return Scored.of(release, scores, label, {})


def test_rows_that_are_not_the_declared_ones_fail(made):
    changed = rows_of(2)[0][:, 0].copy()
    changed[1] += 1e-9
    found = examine(made(table={"distance": changed}))
    assert [f.verdict for f in found.values()] == [Verdict.FAIL]
    assert "cannot be reproduced" in found["evaluation · report"].reason


def test_a_report_without_its_rows_cannot_be_reproduced_and_fails(made):
    found = examine(made(has_rows=False))
    assert found["evaluation · report"].verdict is Verdict.FAIL


def test_rows_that_cannot_be_read_are_no_answer(made):
    registered = made()
    (registered.location / "evaluation.parquet").unlink()
    with pytest.raises(UnavailableError, match="restore the file"):
        examine(registered)


def test_an_artifact_that_is_not_the_declared_one_is_not_scored(made):
    registered = made()
    (registered.location / "model.txt").write_bytes(b"another")
    assert examine(registered, by=Rescorer())["evaluation · report"].verdict is Verdict.FAIL


def test_a_score_outside_the_contract_cannot_be_decided_on():
    with pytest.raises(ValueError, match="expected a finite score"):
        Scored.of(a_release(), np.array([1.5]), np.array([1.0]), {})


def test_a_release_is_not_worse_than_itself(made):
    found = examine(made(), made("champion"), not_worse={"log_loss": "5 % relative"})
    assert found["evaluation · log_loss against champion"].verdict is Verdict.PASS


def test_a_champion_that_needs_columns_which_the_rows_lack_is_not_compared(made):
    found = examine(made(), made("champion", columns=("distance", "origin")), not_worse={"log_loss": "5 % relative"})
    assert found["evaluation · against champion"].verdict is Verdict.INCONCLUSIVE


def test_a_group_that_the_rows_do_not_name_is_no_comparison(made):
    registered = made()
    found = examine(registered, not_worse={"brier": "5 % relative"}, cluster="week")
    assert found["evaluation · against champion"].verdict is Verdict.INCONCLUSIVE
    found = examine(registered, not_worse={"brier": "5 % relative"}, cluster="day")
    assert found["evaluation · brier against champion"].numbers["groups"] == 40


def asked(**margins):
    return a_case(SimpleNamespace(release=None), not_worse=margins).ask


@pytest.mark.parametrize(
    ("shift", "margin", "verdict"),
    [
        (0.0, "2 % relative", Verdict.PASS),
        (0.2, "2 % relative", Verdict.FAIL),
        (0.2, "90 % relative", Verdict.PASS),
        (0.01, "1 % absolute", Verdict.PASS),
    ],
)
def test_the_margin_decides_what_is_worse(shift, margin, verdict):
    release = a_release()
    (found,) = not_worse(a_scored(release, shift), a_scored(release), asked(brier=margin), None)
    assert found.verdict is verdict


def test_too_few_independent_groups_are_not_enough_to_tell():
    release, groups = a_release(), np.arange(2_000) % (gate.FEWEST_GROUPS - 1)
    (found,) = not_worse(a_scored(release), a_scored(release), asked(brier="5 % relative"), groups)
    assert found.verdict is Verdict.INCONCLUSIVE
    (found,) = not_worse(a_scored(release), a_scored(release), asked(brier="5 % relative"), np.arange(2_000) % 12)
    assert found.verdict is Verdict.PASS


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("side", ["difference_low", "difference_high"])
def test_a_margin_between_the_bounds_of_the_difference_does_not_tell(seed, side):
    release = a_release()
    mine, theirs = a_scored(release, seed=seed), a_scored(release, 0.004, seed=seed)
    noise = np.random.default_rng(seed).standard_normal(2_000)
    noisy = Scored.of(release, np.clip(mine.scores + 0.2 * noise, 0.0, 1.0), mine.label, {})
    (seen,) = not_worse(noisy, theirs, asked(brier="1 % absolute"), None)
    between = (seen.numbers["difference"] + seen.numbers[side]) / 2
    (found,) = not_worse(noisy, theirs, asked(brier=f"{100 * between:.5f} % absolute"), None)
    assert (seen.verdict, found.verdict) == (Verdict.FAIL, Verdict.INCONCLUSIVE)


def test_a_metric_without_both_outcomes_is_no_number():
    assert math.isnan(gate.auc(np.array([0.1, 0.2]), np.array([1.0, 1.0])))
    scored = Scored.of(a_release(), np.array([0.1, 0.2]), np.array([1.0, 1.0]), {})
    assert metric_of("unknown", scored, Evaluation()) is None


def test_an_error_over_groups_is_larger_when_a_group_moves_together():
    values = np.repeat(np.random.default_rng(5).standard_normal(50), 20)
    groups = np.repeat(np.arange(50), 20)
    together, apart = clustered_mean(values, groups), clustered_mean(values)
    assert together.mean == pytest.approx(apart.mean)
    assert together.error > 4 * apart.error
    assert clustered_mean([1.0, 2.0], np.array([7, 7])).bound(0.95) == math.inf


@pytest.mark.parametrize("seed", [21, 22])
def test_bounds_of_a_mean_over_groups_hold_as_often_as_they_say(seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(20), 10)
    shared = rng.standard_normal((2_000, 20)).repeat(10, axis=1)
    draws = shared + rng.standard_normal((2_000, 200))
    too_low = np.mean([clustered_mean(draw, groups).bound(0.95) < 0.0 for draw in draws])
    naive = np.mean([clustered_mean(draw).bound(0.95) < 0.0 for draw in draws])
    # Standard error of a share of 5 % over 2,000 draws: 0.5 %.
    assert 0.03 < too_low < 0.07
    assert naive > 0.15


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        ({"rates": {"auc": WRONG}}, "has a meaning already"),
        ({"not_worse": {"auc": "5 % relative"}}, "expected a mean over rows"),
        ({"not_worse": {"wrnog": "5 % relative"}}, "did you mean 'wrong'"),
        ({"tolerance": 0}, "tolerance"),
    ],
)
def test_what_cannot_be_computed_is_refused_in_the_plan(ask, said):
    with pytest.raises(InvalidDocumentError, match=said):
        a_case(SimpleNamespace(release=None), **ask)


def test_a_plan_that_asks_nothing_of_the_evaluation_keeps_its_digest():
    assert "evaluation" not in a_plan().document()["stages"][0]


def test_the_place_of_the_rows_says_nothing_about_the_release(made):
    document = made().release.document()["evaluation"]
    moved = {**document, "data": {"file": "elsewhere.parquet", "label": "late"}}
    other = {**document, "data": {"file": "elsewhere.parquet", "label": "cancelled"}}
    ids = [a_release(evaluation=each).id for each in (document, moved, other)]
    assert ids[0] == ids[1] != ids[2]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"table": {"late": ["yes"] * ROWS}}, RefusedError),
        ({"table": {"late": [2] * ROWS}}, RefusedError),
        ({"data": {"label": "lateness"}}, RefusedError),
        ({"table": {"hour": ["9"] * ROWS}}, RefusedError),
        ({"dataset_digest": digest_bytes(b"other")}, TamperedError),
    ],
    ids=str,
)
def test_rows_without_what_is_declared_are_refused(made, changes, error):
    registered = made(**changes)
    with pytest.raises(error):
        load_evaluation(registered.release, registered.location)


def test_scoring_that_takes_too_long_is_no_answer(made):
    registered = made()
    with pytest.raises(UnavailableError, match="no answer within"):
        Rescorer(isolation=Isolation(timeout_s=0.01)).scores(registered, registered)


GATES_ON_ROWS = {
    "semantics": {},
    "distribution": {},
    "slices": {
        "critical": {"carrier": ["UA"]},
        "quality": [{"metric": "wrong", "at_most": 0.99}],
        "rates": {"wrong": WRONG},
        "cluster": "day",
    },
    "cut_offs": {"max_change": {"rebook": "50 % absolute"}},
    "capacity": {"requests_per_day": 100, "review": ["review"], "reviews_per_day": 100},
}


@pytest.mark.parametrize("gate_name", GATES_ON_ROWS)
def test_gates_on_the_same_rows_are_answered_from_the_rows_of_the_report(made, gate_name):
    plan = a_plan(stages=[{**STAGES[0], gate_name: GATES_ON_ROWS[gate_name]}, *STAGES[1:]])
    challenger = made()
    case = Case(gate_name, plan.gates.asked()[gate_name], plan, challenger, challenger)
    found = SameRowsExaminer(Here()).examine(case)
    assert found
    assert {each.subject.split(" · ")[0] for each in found} == {gate_name}
    assert Verdict.ERROR not in {each.verdict for each in found}


@pytest.mark.parametrize("gate_name", GATES_ON_ROWS)
def test_gates_on_the_same_rows_without_rows_are_an_error(made, gate_name):
    plan = a_plan(stages=[{**STAGES[0], gate_name: GATES_ON_ROWS[gate_name]}, *STAGES[1:]])
    challenger = made(has_rows=False)
    case = Case(gate_name, plan.gates.asked()[gate_name], plan, challenger, challenger)
    assert [each.verdict for each in SameRowsExaminer(Here()).examine(case)] == [Verdict.ERROR]
