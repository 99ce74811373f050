"""What the gateway counts, and how Prometheus reads it. Plain numbers on the hot path, metrics when somebody asks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from prometheus_client.core import Metric

#: Upper bounds of the latency buckets, in seconds.
BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Measured(Collector):
    """Counts of one gateway."""

    def __init__(self, gauges: Callable[[], Iterable[tuple[str, str, float]]]) -> None:
        self._gauges = gauges  #: name, meaning and value of what is read when somebody asks
        self.decisions: Counter[tuple[str, str, str, str]] = Counter()  #: arm, release, outcome, course
        self.requests: Counter[tuple[str, str]] = Counter()  #: what was asked, status
        self.labels: Counter[str] = Counter()  #: accepted, repeated or rejected
        self._buckets = [0] * (len(BUCKETS_S) + 1)
        self._sum_s = 0.0

    def answered(self, seconds: float) -> None:
        """Count one decision that took `seconds`."""
        self._buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self._sum_s += seconds

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        decisions = CounterMetricFamily(
            "seatrial_gateway_decisions",
            "Decisions by assigned arm and release.",
            labels=["arm", "release", "outcome", "course"],
        )
        for names, count in list(self.decisions.items()):
            decisions.add_metric(names, count)
        yield decisions
        requests = CounterMetricFamily(
            "seatrial_gateway_requests", "Requests by what was asked and status.", labels=["asked", "status"]
        )
        for pair, count in list(self.requests.items()):
            requests.add_metric(pair, count)
        yield requests
        labels = CounterMetricFamily("seatrial_gateway_labels", "Labels that arrived.", labels=["result"])
        for result, count in list(self.labels.items()):
            labels.add_metric([result], count)
        yield labels
        seconds = HistogramMetricFamily("seatrial_gateway_decision_seconds", "Time from request to answer.")
        seconds.add_metric([], self._cumulated(), self._sum_s)
        yield seconds
        for name, meaning, value in self._gauges():
            yield GaugeMetricFamily(f"seatrial_gateway_{name}", meaning, value)

    def _cumulated(self) -> list[tuple[str, float]]:
        found, total = [], 0
        for bound, count in zip((*map(str, BUCKETS_S), "+Inf"), self._buckets, strict=True):
            total += count
            found.append((bound, float(total)))
        return found
