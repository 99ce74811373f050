"""Measure what one assignment costs, and a table of them.

``python -m benchmarks.routing.assignment [--units N] [--repeats N]``

Everybody splits the same units 20 to 80 with their own hash: ours with lease, segment rule and the answer as a value;
Envoy's arithmetic alone; and what three Python SDKs do in the process, without their servers and without events. The
peers answer one flag; a unit key is all that they are given.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from statistics import median
from typing import TYPE_CHECKING

import pyarrow as pa
from growthbook import Experiment, GrowthBook
from openfeature.evaluation_context import EvaluationContext
from openfeature.flag_evaluation import FlagResolutionDetails
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider
from UnleashClient.utils import normalized_hash
from xxhash import xxh64_intdigest
from yggdrasil_engine.engine import UnleashEngine

from seatrial.adapters.batch_assignment import assign_all
from seatrial.adapters.router import InProcessRouter
from seatrial.errors import UnavailableError
from seatrial.routing import RoutingSnapshot, assign
from seatrial.routing.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seatrial.ports import RouterReport

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_CANARY = RoutingSnapshot(
    "fraud",
    1,
    "champion",
    "champion",
    "challenger",
    slots=2_000,
    salt="salt/r1/",
    lease_until=_NOW + timedelta(hours=1),
    segment="bank",
    when={"bank": ("b1", "b2")},
)
_SLOTS = 10_000


class _Held:
    """A control plane with one snapshot."""

    def snapshot(self, _decision_point: str) -> RoutingSnapshot:
        return _CANARY

    def report(self, _report: RouterReport) -> None:
        raise UnavailableError("nobody listens")


def _ours() -> Callable[[str], object]:
    decide, attributes = compiled(_CANARY), {"bank": "b1"}
    return lambda unit: decide(unit, attributes, _NOW)


def _router() -> Callable[[str], object]:
    router, attributes = InProcessRouter("bench", _Held(), "fraud"), {"bank": "b1"}
    router.take(now=_NOW)
    return lambda unit: router.assign(unit, attributes, now=_NOW)


def _plain() -> Callable[[str], object]:
    attributes = {"bank": "b1"}
    return lambda unit: assign(_CANARY, unit, attributes, now=_NOW)


def _envoy() -> Callable[[str], object]:
    ends = list(zip(accumulate((2_000, 8_000)), ("challenger", "champion"), strict=True))

    def pick(unit: str) -> object:
        slot = xxh64_intdigest(f"salt/r1/{unit}".encode()) % _SLOTS
        return next(name for end, name in ends if slot < end)

    return pick


def _openfeature() -> Callable[[str], object]:
    def evaluate(flag: InMemoryFlag[str], context: EvaluationContext) -> FlagResolutionDetails[str]:
        slot = normalized_hash(context.targeting_key or "", "fraud", _SLOTS)
        variant = "challenger" if slot <= 2_000 else "champion"
        return FlagResolutionDetails(flag.variants[variant], variant=variant)

    variants = {"challenger": "challenger", "champion": "champion"}
    flag = InMemoryFlag("champion", variants, context_evaluator=evaluate)
    provider = InMemoryProvider({"fraud": flag})
    return lambda unit: provider.resolve_string_details("fraud", "champion", EvaluationContext(unit))


def _unleash() -> Callable[[str], object]:
    engine = UnleashEngine()
    parameters = {"rollout": "20", "stickiness": "userId", "groupId": "fraud"}
    strategy = {"name": "flexibleRollout", "parameters": parameters}
    feature = {"name": "fraud", "enabled": True, "strategies": [strategy]}
    engine.take_state(json.dumps({"version": 2, "features": [feature]}))
    return lambda unit: engine.is_enabled("fraud", {"userId": unit})


def _growthbook() -> Callable[[str], object]:
    experiment = Experiment(key="fraud", variations=["challenger", "champion"], weights=[0.2, 0.8])
    book = GrowthBook(attributes={"id": ""})

    def pick(unit: str) -> object:
        book.set_attributes({"id": unit})
        return book.run(experiment)

    return pick


_WAYS = {
    "seatrial, compiled": _ours,
    "seatrial, router with its counts": _router,
    "seatrial, assign": _plain,
    "Envoy's arithmetic": _envoy,
    "OpenFeature, in-memory provider": _openfeature,
    "Unleash, engine of the SDK": _unleash,
    "GrowthBook": _growthbook,
}


def _each_us(pick: Callable[[str], object], units: Sequence[str], repeats: int) -> float:
    """Return microseconds for one unit: the median of `repeats` runs, the loop itself included."""
    spent = []
    for _ in range(repeats):
        began = time.perf_counter()
        for unit in units:
            pick(unit)
        spent.append((time.perf_counter() - began) / len(units) * 1e6)
    return median(spent)


def main() -> None:
    """Print one row for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--units", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=7)
    asked = parser.parse_args()
    units = [f"card-{n:016x}" for n in range(asked.units)]
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{asked.units:,} units, median of {asked.repeats} runs")
    ours = None
    for name, make in _WAYS.items():
        spent = _each_us(make(), units, asked.repeats)
        ours = ours or spent
        print(f"{name:34} {spent:8.3f} us a unit   {spent / ours:6.1f} x")
    table = pa.table({"unit": units * 50, "bank": ["b1"] * (len(units) * 50)})
    began = time.perf_counter()
    assign_all(_CANARY, table, unit_key="unit", now=_NOW)
    spent = (time.perf_counter() - began) / table.num_rows * 1e6
    print(f"{'seatrial, a table at once':34} {spent:8.3f} us a unit   {spent / (ours or spent):6.1f} x")


if __name__ == "__main__":
    main()
