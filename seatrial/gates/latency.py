"""Whether p99 and memory stay within their limits under load, and beside the champion.

Runs decide, not requests: requests of one run share whatever the machine was busy with, so that a verdict needs every
run on the same side, and the order statistics of all of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.stats.quantiles import quantile, quantile_bounds
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from seatrial.plan.asks import Latency
    from seatrial.release import ServingLimits

GATE = "latency"
#: Chance of each bound of p99 to be wrong, for independent requests.
ERROR = 0.05
_P50, _P99 = 0.50, 0.99
#: How much of a declared memory another machine of the same kind may have more or less.
_NEAR = 0.1


@dataclass(frozen=True, slots=True)
class FoundMachine:
    """The machine that this process may use."""

    cores: float
    memory_mb: float
    processor: str


@dataclass(frozen=True, slots=True)
class Run:
    """What one run of one release was like, after its warm-up."""

    latencies_ms: NDArray[np.float64]  #: from the moment at which each request was due to the end of its answer
    failed: int = 0  #: requests without a score within the contract
    lateness_ms: float = 0.0  #: 99 % of requests that found the worker idle were begun within this time of being due
    peak_mb: float | None = None  #: the most memory held; None when another machine's server held it

    @property
    def p99_ms(self) -> float:
        """The latency that one request in a hundred exceeds; NaN of none."""
        return quantile(self.latencies_ms, _P99)


def machine(found: FoundMachine, ask: Latency) -> Finding:
    """Return PASS when this is the declared machine; what is measured on another one says nothing."""
    declared = ask.machine
    other = []
    if found.cores != declared.cores:
        other.append(f"{found.cores:g} cores, not {declared.cores}")
    if not abs(found.memory_mb - declared.memory_mb) <= _NEAR * declared.memory_mb:
        other.append(f"{found.memory_mb:.0f} MB of memory, not {declared.memory_mb:g}")
    if declared.processor is not None and declared.processor.lower() not in found.processor.lower():
        other.append(f"the processor {found.processor or 'unknown'}, not {declared.processor}")
    numbers: dict[str, float | int | str | None] = {
        "cores": found.cores,
        "memory_mb": round(found.memory_mb),
        "processor": found.processor,
    }
    if other:
        reason = f"this machine has {'; '.join(other)}: what is measured here says nothing about the declared one"
        return _found("machine", Verdict.INCONCLUSIVE, reason, numbers)
    return _found("machine", Verdict.PASS, f"the declared machine: {found.cores:g} cores", numbers)


def latency(challenger: Sequence[Run], champion: Sequence[Run], limits: ServingLimits, ask: Latency) -> list[Finding]:
    """Return the findings on p99, memory, failures, and p99 beside the champion's in the same runs."""
    found = [_answered(challenger), _p99(challenger, limits.p99_ms), _memory(challenger, limits.memory_mb)]
    return found if ask.max_ratio is None else [*found, _ratio(challenger, champion, ask.max_ratio)]


def _answered(runs: Sequence[Run]) -> Finding:
    failed, asked = sum(run.failed for run in runs), sum(len(run.latencies_ms) for run in runs)
    numbers = {"requests": asked, "failed": failed}
    if not asked:
        return _found("answers", Verdict.ERROR, "no request was due in any run", numbers)
    reason = f"{failed} of {asked:,} requests got no score within the contract"
    return _found("answers", Verdict.FAIL if failed else Verdict.PASS, reason, numbers)


def _p99(runs: Sequence[Run], limit_ms: float) -> Finding:
    pooled = np.concatenate([run.latencies_ms for run in runs]) if runs else np.empty(0)
    each = [run.p99_ms for run in runs]
    low, high = quantile_bounds(pooled, _P99, error=ERROR)
    lateness = max((run.lateness_ms for run in runs), default=0.0)
    numbers = {
        "p50_ms": quantile(pooled, _P50),
        "p99_ms": quantile(pooled, _P99),
        "p99_low_ms": low,
        "p99_high_ms": high,
        "least_run_ms": min(each, default=None),
        "greatest_run_ms": max(each, default=None),
        "limit_ms": limit_ms,
        "lateness_ms": lateness,
        "requests": len(pooled),
        "runs": len(runs),
    }
    said = (
        f"p99 is {quantile(pooled, _P99):.3g} ms of {len(pooled):,} requests, {_spread(each)}; {limit_ms:g} ms allowed"
    )
    if lateness > limit_ms / 2:
        reason = f"{said}, but the machine was busy: requests were begun up to {lateness:.3g} ms after they were due"
        return _found("p99", Verdict.INCONCLUSIVE, reason, numbers)
    # Written so that a NaN is on no side.
    if runs and high <= limit_ms and all(p99 <= limit_ms for p99 in each):
        return _found("p99", Verdict.PASS, said, numbers)
    if runs and low > limit_ms and all(p99 > limit_ms for p99 in each):
        return _found("p99", Verdict.FAIL, said, numbers)
    reason = f"{said}; with chance that is between {low:.3g} and {high:.3g} ms, which does not tell"
    return _found("p99", Verdict.INCONCLUSIVE, reason, numbers)


def _spread(each: Sequence[float]) -> str:
    return f"by run {min(each):.3g} to {max(each):.3g} ms" if each else "in no run"


def _memory(runs: Sequence[Run], allowed_mb: float) -> Finding:
    peaks = [run.peak_mb for run in runs if run.peak_mb is not None]
    if not runs or len(peaks) < len(runs):
        reason = "the memory is a server's, which the protocol does not tell; measure it there"
        return _found("memory", Verdict.INCONCLUSIVE, reason)
    reason = f"the process held up to {max(peaks):.0f} MB, {allowed_mb:g} MB are declared"
    verdict = Verdict.PASS if max(peaks) <= allowed_mb else Verdict.FAIL
    return _found("memory", verdict, reason, {"peak_mb": round(max(peaks)), "allowed_mb": allowed_mb})


def _ratio(challenger: Sequence[Run], champion: Sequence[Run], greatest: float) -> Finding:
    each = [mine.p99_ms / theirs.p99_ms for mine, theirs in zip(challenger, champion, strict=True)]
    numbers = {"least": min(each, default=None), "greatest": max(each, default=None), "allowed": greatest}
    spread = f"{min(each):.3g} to {max(each):.3g}" if each else "no"
    reason = f"p99 is {spread} times the champion's in the same run; {greatest:g} times are allowed"
    verdict = Verdict.INCONCLUSIVE
    if each and all(ratio <= greatest for ratio in each):
        verdict = Verdict.PASS
    elif each and all(ratio > greatest for ratio in each):
        verdict = Verdict.FAIL
    return _found("p99 against champion", verdict, reason, numbers)


def _found(
    subject: str, verdict: Verdict, reason: str, numbers: Mapping[str, float | int | str | None] | None = None
) -> Finding:
    return Finding(Question.CONTRACT, f"{GATE}{SUBJECT_MARK}{subject}", verdict, reason, numbers or {})
