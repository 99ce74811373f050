"""Random decision and label logs in which everything happens that a count has to tell apart."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
from builders import DAY, HOUR, POINT, T0, a_plan

from seatrial.adapters.log_schema import LABEL_ROWS
from seatrial.adapters.logs import LogWriter
from seatrial.ports import Scope
from seatrial.stats.scores import ScoreGrid

MATURITY, WINDOW = 36 * HOUR, 6 * HOUR
NOW = T0 + 72 * HOUR
SCOPE = Scope(POINT, "r1", "champion", "challenger", T0)
#: Share, stage and first hour of each snapshot.
SNAPSHOTS = {2: (0.2, 2, 0), 3: (0.5, 3, 30), 4: (0.5, 4, 60)}
GRID = ScoreGrid()
EPOCH, MICROSECOND = datetime(1970, 1, 1, tzinfo=UTC), timedelta(microseconds=1)
#: Files of dates before this are not opened.
FIRST_DATE = (T0 - timedelta(minutes=10) - 7 * DAY).date()


def a_mean(name, of, *, deviation=2.0, **changes):
    """Return a guardrail on a mean; what is no key of the mean itself is one of the guardrail."""
    own = {key: changes.pop(key) for key in ("per", "window", "worse") if key in changes}
    return {
        "name": name,
        "source": "runtime",
        "mean": {"of": of, "typical": 1.0, "deviation": deviation, **own},
        "margin": "20 % relative",
        "consequence": "freeze",
        **changes,
    }


LABELLED = {"source": "label", "label": "late", "maturity": "36 h"}
DECLARED = {
    "guardrails": [
        {
            "name": "failed",
            "source": "runtime",
            "bad_when": [{"outcome": ["error", "timeout"]}],
            "margin": "50 % relative",
            "slices": ["origin"],
            "consequence": "roll_back",
        },
        {
            "name": "slow",
            "source": "runtime",
            "exceeds": {"column": "latency_ms", "quantile": "90 %"},
            "margin": "50 % relative",
            "slices": ["origin"],
            "consequence": "freeze",
        },
        {
            "name": "high",
            "source": "proxy",
            "exceeds": {"column": "score", "quantile": "90 %"},
            "margin": "50 % relative",
            "consequence": "notify",
        },
        {
            "name": "rebooked",
            "source": "proxy",
            "bad_when": [{"action": "rebook"}],
            "margin": "50 % relative",
            "consequence": "freeze",
        },
        {
            "name": "refunded",
            "source": "label",
            "label": "refund",
            "maturity": "20 h",
            "bad_when": [{"label": 1, "action": "none"}],
            "observed_when": [{"action": "none"}],
            "margin": "15 % relative",
            "slices": ["origin"],
            "consequence": "roll_back",
        },
        a_mean("time", "latency_ms", slices=["origin"]),
        a_mean("certainty", "score", deviation=0.1, source="proxy"),
        a_mean("lateness", "label", **LABELLED),
        a_mean("misses", "feature_misses", window="6 h", slices=["origin"]),
        a_mean("time-per-decision", "latency_ms", window="6 h", per="decisions"),
        a_mean("misses-per-ms", "feature_misses", window="6 h", per="latency_ms"),
    ],
    "slices": {"origin": ["EWR", "JFK"]},
    "scores": {"range": [0, 1], "label": "late", "maturity": "36 h", "slices": ["origin"]},
}
PLAN = a_plan(**DECLARED)
MEANS = {g.name: g for g in PLAN.guardrails if g.mean}


@dataclass
class Logs:
    """Decisions and labels as they are written."""

    decisions: list
    labels: list

    def __add__(self, other):
        return Logs(self.decisions + other.decisions, self.labels + other.labels)


def a_row(**changes):
    row = {
        "decision_id": "d0",
        "ts": T0,
        "decision_point": POINT,
        "rollout_id": "r1",
        "snapshot_no": 2,
        "stage": 2,
        "release_id": "champion",
        "arm": "champion",
        "share": 0.2,
        "segment": "everyone",
        "unit_key": "u0",
        "feature_digest": "sha256:f",
        "score": 0.5,
        "action_recommended": "none",
        "action_taken": "none",
        "authority": "DECIDE",
        "latency_ms": 1.0,
        "outcome": "ok",
        "feature_misses": 0,
        "origin": "EWR",
    }
    return {**row, **changes}


def a_label(row, after=HOUR, **changes):
    arrived = row["ts"] + after
    label = {"decision_id": row["decision_id"], "name": "late", "value": 1.0, "fact_at": min(row["ts"], arrived)}
    return {**label, "arrived_at": arrived, **changes}


def pick(rng, values):
    return values[int(rng.integers(len(values)))]


def random_row(rng, name, unit, ts, number):
    share, stage, _ = SNAPSHOTS[number]
    odd_times = [math.nan, math.inf, 0.0, 0.0, 2e7]
    odd = [None, math.nan, -0.1, 1.5, math.inf, 0.0, 1.0]
    is_crossed = rng.random() < 0.02
    return a_row(
        decision_id=name,
        ts=ts,
        rollout_id=pick(rng, ["r1"] * 19 + ["r2"]),
        snapshot_no=number,
        stage=stage,
        arm="challenger" if (hash((unit, number)) % 10 < 10 * share) != is_crossed else "champion",
        share=pick(rng, [share] * 19 + [0.0]),
        unit_key=f"u{unit}",
        score=pick(rng, odd) if rng.random() < 0.3 else float(rng.random()),
        action_recommended=pick(rng, [None, "none", "rebook"]),
        action_taken=pick(rng, [None, "none", "none", "rebook"]),
        latency_ms=pick(rng, odd_times) if rng.random() < 0.2 else float(rng.lognormal(1.0, 1.0)),
        outcome=pick(rng, ["ok"] * 8 + ["error", "timeout", "fallback"]),
        release_id=pick(rng, ["champion", "challenger"] * 15 + ["other"]),
        feature_misses=int(rng.integers(4)),
        origin=pick(rng, ["EWR", "JFK", "LGA"]),
    )


def random_logs(rng, units, prefix=""):
    """Return decisions of each unit at random times, some twice, some with a copy in shadow, and labels of most."""
    decisions, labels = [], []
    for at in range(3 * len(units)):
        hours = float(rng.uniform(-0.16, 73.0))
        number = max(n for n, (_, _, first) in SNAPSHOTS.items() if hours >= first or n == min(SNAPSHOTS))
        ts = T0 + timedelta(microseconds=round(hours * 3600e6))
        row = random_row(rng, f"{prefix}d{at}", pick(rng, units), ts, number)
        decisions += [row] * pick(rng, [1, 1, 1, 1, 2])
        if rng.random() < 0.4:
            copy = {"arm": "shadow", "outcome": pick(rng, ["ok", "ok", "error"]), "action_taken": None}
            copy |= {"score": pick(rng, [None, math.nan, 2.0, float(rng.random())])}
            copy |= {"action_recommended": pick(rng, [None, "none", "rebook"]), "latency_ms": 77.0}
            decisions += [{**row, **copy}] * pick(rng, [1, 1, 2])
        labels += [
            a_label(
                row,
                pick(rng, [-HOUR, 0 * HOUR, 5 * HOUR, MATURITY, 40 * HOUR]) + float(rng.random()) * HOUR,
                name=pick(rng, ["late", "refund", "other"]),
                value=pick(rng, [0.0, 0.0, 1.0, 1.0, 2.0, math.nan]),
            )
            for _ in range(int(rng.integers(5)))
        ]
    return Logs(decisions, labels)


def random_reference(rng, size):
    """Return what both arms answered before the rollout; only the champion's settled week is frozen."""
    hours = rng.uniform(-200.0, 0.0, size)
    return Logs(
        [
            a_row(
                decision_id=f"before-{at}",
                ts=T0 + timedelta(microseconds=round(float(hour) * 3600e6)),
                rollout_id=pick(rng, [None, "r0"]),
                snapshot_no=1,
                arm=pick(rng, ["champion", "champion", "challenger"]),
                share=0.0,
                unit_key=f"before-{at}",
                score=float(rng.random()),
                latency_ms=float(rng.lognormal(1.0, 1.0)),
                outcome=pick(rng, ["ok", "ok", "error"]),
            )
            for at, hour in enumerate(hours)
        ],
        [],
    )


def snapshots_begin():
    """Return one request of nobody on trial at the begin of each snapshot, which says when the one before ended."""
    return Logs(
        [
            a_row(
                decision_id=f"begin-{n}",
                ts=T0 + first * HOUR,
                snapshot_no=n,
                stage=stage,
                share=0.0,
                unit_key=f"begin-{n}",
            )
            for n, (_, stage, first) in SNAPSHOTS.items()
        ],
        [],
    )


def write(root, logs, batches=1):
    for at in range(batches):
        writer = LogWriter(root, POINT, ("origin",))
        for row in logs.decisions[at::batches]:
            writer.decision(row)
        for row in logs.labels[at::batches]:
            if not math.isnan(row["value"]):
                writer.label(row)
        writer.flush()
        write_foreign(root, logs.labels[at::batches])


def write_foreign(root, labels):
    """Write labels that are no number, which our own writer would not let in, beside one that is."""
    folder = root / "labels" / f"decision_point={POINT}" / "date=2026-01-01"
    if any(math.isnan(row["value"]) for row in labels):
        folder.mkdir(parents=True, exist_ok=True)
        # Statistics know nothing of a NaN that stands beside a number.
        nobody = a_label(a_row(decision_id="nobody"))
        rows = [nobody, *(row for row in labels if math.isnan(row["value"]))]
        number = len(list(folder.iterdir()))
        pq.write_table(pa.Table.from_pylist(rows, schema=LABEL_ROWS.columns), folder / f"part-{number}.parquet")
