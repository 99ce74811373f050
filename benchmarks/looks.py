"""Measure what one look costs, and the looks at ten thousand rollouts.

``python -m benchmarks.looks [--rollouts N]``

A look is all gates of a canary stage on 200 hypotheses, ten guardrails of twenty parts each, over fifty allocation
epochs. Reading the logs is not in it. Beside it stands the same evidence of harm from a loop over hypotheses.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from typing import TYPE_CHECKING

# Before the matrix library is loaded: each of the processes has one core, and threads would take each other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
from scipy.special import logsumexp

from seatrial.evidence import Epoch, Evidence
from seatrial.evidence.table import ARMS, COUNTS, Table, blank
from seatrial.gates.assignment import assignment, losses
from seatrial.gates.guardrails import exposure, harm_and_warnings
from seatrial.plan import Canary, Plan
from seatrial.stats import kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from seatrial.gates.finding import Finding

GUARDRAILS, VALUES, EPOCHS = 10, 19, 50
STAGE = 3  #: index of the canary that the rollout is in
SHARES = (0.05, 0.20)
UNITS, RATE = 2_000, 0.02  #: units of each part in each epoch, and the rate of bad ones
NOW = datetime(2013, 6, 1, tzinfo=UTC)
WORKERS, ROLLOUTS = 2, 10_000
REPEATS = 50
LOOK_MS, FLEET_S = 5.0, 60.0  #: what is aimed at


def a_plan() -> Plan:
    """Return a plan of ten guardrails, each on all units and on nineteen values of a slice."""
    guardrail = {
        "source": "runtime",
        "bad_when": [{"outcome": ["timeout"]}],
        "margin": "15 % relative",
        "slices": ["origin"],
        "consequence": "roll_back",
    }
    label = {**guardrail, "source": "label", "label": "late", "maturity": "36 h", "bad_when": [{"label": 1}]}
    return Plan.model_validate(
        {
            "plan": {"name": "looks", "version": "1", "decision_point": "looks"},
            "unit": "unit_key",
            "stages": [
                {"stage": "gates", "bounds": [{"metric": "auc", "at_least": 0.6}], "probe_max_age": "1 d"},
                {"stage": "shadow", "soak": "1 d", "deadline": "7 d", "min_units": 500, "max_flip_rate": "40 %"},
                *({"stage": "canary", "share": share, "soak": "2 d"} for share in SHARES),
                {"stage": "labels", "deadline": "21 d"},
                {"stage": "approval", "expires": "3 d"},
                {"stage": "promotion", "holdback": "5 %", "watch": "14 d"},
            ],
            "guardrails": [{"name": f"guardrail-{at}", **(guardrail if at else label)} for at in range(GUARDRAILS)],
            "slices": {"origin": [f"value-{at}" for at in range(VALUES)]},
            "budgets": {"rollback": "5 %", "hold": "20 %", "promote": "5 %", "srm": "0.5 %"},
            "label_coverage": {"at_least": "80 %"},
            "evidence": {"max_age": "6 h"},
            "lease": "12 h",
            "on_deadline": "ask",
            "approvers": {"roles": ["owner"]},
        }
    )


def an_evidence(plan: Plan, *, rng: np.random.Generator) -> Evidence:
    """Return counts of a challenger that does no harm, on every hypothesis of `plan`."""
    numbers = range(1, EPOCHS + 1)
    at = np.arange(EPOCHS) * len(SHARES) // EPOCHS
    share = np.array(SHARES)[at]
    keys = [each.key for each in plan.hypotheses()]
    counts = blank(len(keys), EPOCHS)
    for arm, part in enumerate((share, 1.0 - share)):
        units = rng.binomial(UNITS, part, (len(keys), EPOCHS))
        bad = rng.binomial(units, RATE)
        seen = {
            "units": units,
            "bad": bad,
            "matured": units,
            "matured_bad": bad,
            "labelled": units,
            "good": units - bad,
        }
        for place, name in enumerate(COUNTS):
            counts[:, arm, :, place] = seen.get(name, 0)
    return Evidence(
        newest=NOW,
        epochs={n: Epoch(float(share[n - 1]), STAGE - 1 + int(at[n - 1])) for n in numbers},
        cells=Table(keys, numbers, counts),
        assigned={(n, arm): int(counts[0, place, n - 1, 0]) for n in numbers for place, arm in enumerate(ARMS[:2])},
    )


def fresh(evidence: Evidence) -> Evidence:
    """Return `evidence` as a new look would: nothing about it is remembered from the last."""
    table = Table.of(evidence.cells)
    return Evidence(
        evidence.newest, evidence.epochs, Table(table.keys_at, table.numbers, table.array), evidence.assigned
    )


def look(evidence: Evidence, plan: Plan) -> list[Finding]:
    """Return what all gates of the canary stage find."""
    stage = plan.stages[STAGE]
    if not isinstance(stage, Canary):
        raise TypeError(f"stage {STAGE}: found {stage.stage}; expected a canary; correct STAGE")
    half = plan.budgets.srm / 2
    return [
        assignment(evidence, alpha=half),
        *losses(evidence, plan, alpha=half),
        *harm_and_warnings(evidence, plan),
        *exposure(evidence, plan, rule_out=stage.rule_out),
    ]


def stacked(evidence: Evidence, plan: Plan) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """Return bad units of every hypothesis, shape (hypotheses, 2, epochs), with share and stage of each epoch."""
    return evidence.counts_of([each.key for each in plan.hypotheses()], "bad"), evidence.rho, evidence.stage


def loop_of(evidence: Evidence, plan: Plan) -> list[float]:
    """Return the same, hypothesis by hypothesis and onset by onset, as the formula is written."""
    prior, late = kernel.half_normal(), kernel.LATE_WEIGHT
    stages = len(plan.stages)
    log_es = []
    for each in plan.hypotheses():
        series = evidence.series(each.guardrail, each.slice_column, each.slice_value)
        k1, k0 = series.of("bad")
        price = np.log1p(series.rho[:, None] * np.expm1(prior.log_ratios))
        log_lr = k1[:, None] * prior.log_ratios - (k1 + k0)[:, None] * price
        onsets = [logsumexp(log_lr[series.stage >= j].sum(axis=0), b=prior.weights) for j in range(stages)]
        weights = [late / stages + (1.0 - late) * (j == 0) for j in range(stages)]
        log_es.append(float(logsumexp(onsets, b=weights)))
    return log_es


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall time of one call."""

    best_ms: float
    median_ms: float

    def __str__(self) -> str:
        return f"best {self.best_ms:6.2f} ms, median {self.median_ms:6.2f} ms of {REPEATS}"


def cost_of(call: Callable[[Evidence], object], evidence: Evidence) -> Cost:
    """Return what `call` costs on evidence that it has not seen before."""
    times = []
    for _ in range(REPEATS):
        one = fresh(evidence)
        began = time.perf_counter()
        call(one)
        times.append(1e3 * (time.perf_counter() - began))
    return Cost(min(times), float(np.median(times)))


def looks_at(rollouts: int, seed: int) -> int:
    """Return how many findings the looks at so many rollouts have."""
    plan = a_plan()
    evidence = an_evidence(plan, rng=np.random.default_rng(seed))
    return sum(len(look(fresh(evidence), plan)) for _ in range(rollouts))


def fleet_s(rollouts: int) -> float:
    """Return the wall time of one look at each of `rollouts` rollouts, in two processes that are up already."""
    part, rest = divmod(rollouts, WORKERS)
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        list(pool.map(looks_at, [1] * WORKERS, range(WORKERS)))
        began = time.perf_counter()
        list(pool.map(looks_at, [part + (at < rest) for at in range(WORKERS)], range(WORKERS)))
        return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.looks", description=__doc__)
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS, help=f"rollouts of the fleet, {ROLLOUTS:,} else")
    rollouts = parser.parse_args(arguments).rollouts
    if rollouts < WORKERS:
        parser.error(f"--rollouts: found {rollouts}; expected at least {WORKERS}")
    plan = a_plan()
    evidence = an_evidence(plan, rng=np.random.default_rng(1))
    bad, rho, stage = stacked(evidence, plan)

    def by_kernel(_: Evidence) -> NDArray[np.float64]:
        return np.atleast_1d(kernel.harm(bad[:, 0], bad[:, 1], rho, stage=stage, stages=len(plan.stages)))

    np.testing.assert_allclose(by_kernel(evidence), loop_of(evidence, plan), rtol=1e-9, atol=1e-9)
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{os.cpu_count()} cores, {os.environ['OMP_NUM_THREADS']} thread a process, load {load} before the start")
    print(f"{len(plan.hypotheses())} hypotheses, {EPOCHS} epochs, {len(look(evidence, plan))} findings a look\n")
    whole = cost_of(lambda one: look(one, plan), evidence)
    print(f"one look, all gates       {whole}; target {LOOK_MS:g} ms: {_met(is_met=whole.best_ms <= LOOK_MS)}")
    quick, loop = cost_of(by_kernel, evidence), cost_of(lambda one: loop_of(one, plan), evidence)
    print(f"E of harm, kernel         {quick}")
    print(f"E of harm, loop           {loop}: {loop.best_ms / quick.best_ms:.0f} times the kernel")
    seconds = fleet_s(rollouts)
    limit = FLEET_S * rollouts / ROLLOUTS
    said = _met(is_met=seconds <= limit)
    print(f"{rollouts:,} rollouts, {WORKERS} processes  {seconds:.1f} s; target {limit:.3g} s: {said}")


def _met(*, is_met: bool) -> str:
    return "met" if is_met else "MISSED"


if __name__ == "__main__":
    main()
