"""S13: the same logs give the same verdict, bit for bit, however they were delivered and however often one looks.

One rollout's decisions and labels are written to Parquet logs as they came, and again in another order, in other
batches, with every row delivered twice, and with labels that came in before the decisions they belong to. Each log is
looked at after each hour of a list, by one process or by a new one each time, and with looks left out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.decisions.ours import first_canary, plan_for
from benchmarks.decisions.streams import Delay, Ramp, Stream
from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.logs import LogWriter
from seatrial.gates.assignment import assignment, losses
from seatrial.gates.freshness import freshness
from seatrial.gates.guardrails import exposure, harm, promotion, warnings
from seatrial.plan import Canary
from seatrial.ports import Scope
from seatrial.rollout import Decision, Rollout, State, decide, limit_of
from seatrial.units import digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.evidence import Evidence
    from seatrial.plan import Plan

    Row = Mapping[str, Any]

STARTED = datetime(2026, 1, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
#: Hours at which a look is taken.
LOOKS = (20, 24, 40, 72)
RAMP = Ramp(shares=(0.05, 0.20, 0.50), ticks=24, units=40)
STREAM = Stream(ramp=RAMP, base=(0.2,), delay=Delay(median=6, window=24))
POINT = "benchmark"


def rollout_at(plan: Plan, stage: int, entered: datetime, state: State = State.CANARY) -> Rollout:
    """Return the rollout that entered `stage` of `plan` at `entered`."""
    return Rollout(
        id="r1",
        decision_point=POINT,
        champion=digest_of("champion"),
        challenger=digest_of("challenger"),
        plan_id=plan.id,
        requested_by="benchmark",
        created_at=STARTED,
        state=state,
        stage=stage,
        entered_at=entered,
        deadline=entered + limit_of(plan.stages[stage]),
        reason="started",
    )


def judged(evidence: Evidence, plan: Plan, rollout: Rollout, *, now: datetime) -> Decision:
    """Return the decision of the state machine on the findings of the gates."""
    stage = plan.stages[rollout.stage]
    half = plan.budgets.srm / 2
    found = [
        freshness(evidence, max_age=plan.evidence.max_age, now=now),
        assignment(evidence, alpha=half),
        *losses(evidence, plan, alpha=half),
        *harm(evidence, plan),
        *warnings(evidence, plan),
        *(exposure(evidence, plan, rule_out=stage.rule_out) if isinstance(stage, Canary) else ()),
        *(promotion(evidence, plan) if rollout.state is State.LABELS else ()),
    ]
    return decide(rollout, plan, found, now=now)


@dataclass(frozen=True, slots=True)
class Identity:
    """How many looks were compared, and how many differed from the first log's."""

    looks: int
    differing: int
    verdicts: int  #: different decisions among the looks at the first log, so that sameness says something


def compare(seeds: Sequence[int]) -> Identity:
    """Return how the verdicts of all deliveries compare over the rollouts of `seeds`."""
    looks = differing = 0
    verdicts: set[str] = set()
    plan = plan_for(STREAM)
    for seed in seeds:
        rng = np.random.default_rng([13, seed])
        decisions, labels = rows(rng, ratio=(1.0, 1.6)[seed % 2])
        with TemporaryDirectory() as folder:
            as_it_came = _looks(plan, _written(Path(folder) / "first", decisions, labels, batch=500))
            verdicts |= {decision.reason for _, decision in as_it_came.values()}
            for name, log in _deliveries(Path(folder), decisions, labels, rng):
                hours = LOOKS[::2] if name == "looks left out" else LOOKS
                for hour, found in _looks(plan, log, hours).items():
                    looks += 1
                    differing += found != as_it_came[hour]
    return Identity(looks, differing, len(verdicts))


def rows(rng: np.random.Generator, *, ratio: float) -> tuple[list[Row], list[Row]]:
    """Return the decision log and the label log of one rollout."""
    decisions: list[Row] = []
    labels: list[Row] = []
    first = first_canary(plan_for(STREAM))
    for unit in range(RAMP.planned * RAMP.units):
        tick = unit // RAMP.units
        stage = tick // RAMP.ticks
        at = STARTED + HOUR * tick + timedelta(minutes=unit % RAMP.units)
        is_challenger = bool(rng.random() < RAMP.shares[stage])
        arm = "challenger" if is_challenger else "champion"
        key = f"unit-{unit}"
        decisions.append(
            {
                "decision_id": key,
                "ts": at,
                "decision_point": POINT,
                "rollout_id": "r1",
                "snapshot_no": 2 + stage,
                "stage": first + stage,
                "release_id": digest_of(arm),
                "arm": arm,
                "share": RAMP.shares[stage],
                "segment": "everyone",
                "unit_key": key,
                "feature_digest": "none",
                "action_recommended": "none",
                "action_taken": "none",
                "authority": "DECIDE",
                "latency_ms": 1.0,
                "outcome": "ok",
                "feature_misses": 0,
            }
        )
        is_bad = rng.random() < STREAM.base[0] * (ratio if is_challenger else 1.0)
        arrives = at + HOUR * float(6 * rng.lognormal())
        labels.append(
            {"decision_id": key, "name": "guardrail-0", "value": float(is_bad), "fact_at": at, "arrived_at": arrives}
        )
    return decisions, sorted(labels, key=lambda row: row["arrived_at"])


def _deliveries(
    folder: Path, decisions: Sequence[Row], labels: Sequence[Row], rng: np.random.Generator
) -> list[tuple[str, ParquetLogs]]:
    """Return the same facts as other logs."""
    mixed, mixed_labels = _shuffled(decisions, rng), _shuffled(labels, rng)
    return [
        ("restarted", ParquetLogs(folder / "first")),
        ("looks left out", ParquetLogs(folder / "first")),
        ("out of order", _written(folder / "mixed", mixed, mixed_labels, batch=700)),
        ("one batch", _written(folder / "one", decisions, labels, batch=len(decisions))),
        (
            "every row twice",
            _written(folder / "twice", [*decisions, *mixed], [*labels, *mixed_labels], batch=900),
        ),
    ]


def _shuffled(rows_: Sequence[Row], rng: np.random.Generator) -> list[Row]:
    return [rows_[at] for at in rng.permutation(len(rows_))]


def _written(root: Path, decisions: Sequence[Row], labels: Sequence[Row], *, batch: int) -> ParquetLogs:
    writer = LogWriter(root, POINT, ())
    for start in range(0, max(len(decisions), len(labels)), batch):
        for row in labels[start : start + batch]:
            writer.label(row)
        for row in decisions[start : start + batch]:
            writer.decision(row)
        writer.flush()
    return ParquetLogs(root)


def _looks(plan: Plan, logs: ParquetLogs, hours: Sequence[int] = LOOKS) -> dict[int, tuple[str, Decision]]:
    """Return digest of the evidence and decision at each hour."""
    scope = Scope(POINT, "r1", digest_of("champion"), digest_of("challenger"), STARTED)
    found = {}
    for hour in hours:
        now = STARTED + HOUR * hour - timedelta(seconds=30)
        evidence = logs.look(plan, scope, now=now)
        stage = min((hour - 1) // RAMP.ticks, len(RAMP.shares) - 1)
        rollout = rollout_at(plan, first_canary(plan) + stage, STARTED + HOUR * RAMP.ticks * stage)
        # How often a row was delivered is counted too, and may differ; what is judged may not.
        delivered_once = replace(evidence, rows=0, labels={})
        found[hour] = (delivered_once.digest, judged(evidence, plan, rollout, now=now))
    return found
