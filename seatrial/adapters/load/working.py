"""One run of one release under load, in a process of its own with limits."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from seatrial.adapters.isolated import Isolation, answering, how_it_ended, limit, peak_memory_mb
from seatrial.adapters.load.driving import RealTimer, arrivals, drive, drive_server
from seatrial.adapters.probing import loading_of, loading_request
from seatrial.adapters.scoring import NOTHING, Runtimes, load_scorer
from seatrial.adapters.v2 import AsyncV2Scorer, ModelAddress, V2Scorer
from seatrial.errors import RefusedError, SeatrialError, UnavailableError
from seatrial.gates.latency import Run
from seatrial.stats.quantiles import quantile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from seatrial.adapters.load.driving import Sent
    from seatrial.plan.asks import Latency
    from seatrial.ports import Registered
    from seatrial.release import Release

_MODULE = "seatrial.adapters.load.working"
#: Starting the process and loading the model, beside the time of the run.
_STARTING_S = 60.0


class LoadWorker(Protocol):
    """What puts a load on a release."""

    def run(self, registered: Registered, ask: Latency, *, seed: int) -> Run:
        """Return one run under the load that `ask` declares; the same `seed` has requests due at the same times.

        Raises UnavailableError when the release does not load or end in time.
        """


@dataclass(frozen=True, slots=True)
class SubprocessWorker:
    """Runs releases in a process of its own, asked by one worker, or on their server, asked by many."""

    runtimes: Runtimes = NOTHING
    isolation: Isolation = field(default_factory=Isolation)

    def run(self, registered: Registered, ask: Latency, *, seed: int) -> Run:
        """Return one run under the load that `ask` declares; the same `seed` has requests due at the same times."""
        seconds = (ask.warm_up + ask.duration).total_seconds()
        # Twice the time: what is too slow by a little is measured, what is too slow by far is ended.
        isolation = replace(self.isolation, timeout_s=2 * seconds + _STARTING_S)
        request = {
            **loading_request(registered, self.runtimes),
            "rate_per_s": ask.rate_per_s,
            "warm_up_s": ask.warm_up.total_seconds(),
            "seconds": seconds,
            "seed": seed,
            "cpu_s": math.ceil(isolation.timeout_s),
        }
        ended = isolation.run(_MODULE, request)
        if ended.code is None:
            raise UnavailableError(f"load: the run did not end within {isolation.timeout_s:g} s; lower the rate")
        if ended.code != 0:
            raise RefusedError(f"load: the process {how_it_ended(ended)}; expected a run; mend the release")
        answer = json.loads(ended.answer)
        return Run(np.array(answer.pop("latencies_ms"), dtype=np.float64), **answer)


def summary(sent: Sequence[Sent], *, warm_up_s: float, peak_mb: float | None) -> Run:
    """Return what the requests after the warm-up were like."""
    counted = [each for each in sent if each.due_s >= warm_up_s]
    late = [each.lateness_ms for each in counted if each.lateness_ms is not None]
    return Run(
        latencies_ms=np.array([each.latency_ms for each in counted], dtype=np.float64),
        failed=sum(not each.is_answered for each in counted),
        lateness_ms=quantile(late, 0.99) if late else 0.0,
        peak_mb=peak_mb,
    )


def _vectors(release: Release, location: Path, count: int) -> list[dict[str, float]]:
    """Return as many feature vectors, over and over those of the examples in the evaluation report."""
    report = json.loads((location / release.evaluation.report).read_bytes())
    examples = report.get("examples") or []
    if not examples:
        raise RefusedError("load: the evaluation report has no examples to ask for; add some with their scores")
    vectors = [
        {name: math.nan if value is None else float(value) for name, value in example["features"].items()}
        for example in examples
    ]
    return list(islice(cycle(vectors), count))


def run_here(release: Release, location: Path, runtimes: Runtimes, load: Mapping[str, Any]) -> Run:
    """Return one run of `release` in this process."""
    due = arrivals(load["rate_per_s"], load["seconds"], seed=load["seed"])
    vectors = _vectors(release, location, len(due))
    low, high = release.output.range
    scorer = load_scorer(release, location, runtimes)
    if isinstance(scorer, V2Scorer):
        scorer.close()
        sent = asyncio.run(_ask_server(release, runtimes, due, vectors))
        return summary(sent, warm_up_s=load["warm_up_s"], peak_mb=None)

    def ask(number: int) -> bool:
        try:
            return low <= scorer.score(vectors[number]) <= high
        except Exception:  # noqa: BLE001 whatever a model raises is its failure, and is counted
            return False

    sent = drive(ask, due, RealTimer())
    return summary(sent, warm_up_s=load["warm_up_s"], peak_mb=peak_memory_mb())


async def _ask_server(
    release: Release, runtimes: Runtimes, due: Sequence[float], vectors: Sequence[Mapping[str, float]]
) -> list[Sent]:
    served = release.runtime.served
    if served is None:
        raise RefusedError(f"release {release.name}: found no served model; expected one; correct the manifest")
    low, high = release.output.range
    scorer = AsyncV2Scorer(
        runtimes.servers[served.server],
        ModelAddress(served.model, served.version),
        [column.name for column in release.features.columns],
        timeout_s=release.limits.timeout_ms / 1e3,
        output=served.output,
    )

    async def ask(number: int) -> bool:
        try:
            return low <= await scorer.score(vectors[number]) <= high
        except SeatrialError:
            return False

    try:
        # So that no request pays for reading the served contract.
        await scorer.prepare()
        return await drive_server(ask, due)
    finally:
        await scorer.close()


def main() -> None:
    """Run the release of the request under its load, and answer with the run."""
    with answering() as (request, answer):
        release, location, runtimes = loading_of(request)
        limit(memory_mb=release.limits.memory_mb, cpu_s=request["cpu_s"])
        run = run_here(release, location, runtimes, request)
        json.dump(
            {
                "latencies_ms": run.latencies_ms.tolist(),
                "failed": run.failed,
                "lateness_ms": run.lateness_ms,
                "peak_mb": run.peak_mb,
            },
            answer,
        )


if __name__ == "__main__":
    main()
