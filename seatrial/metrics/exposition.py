"""Metrics in the words of Prometheus, computed when they are scraped."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from threading import Lock
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from seatrial.errors import SeatrialError
from seatrial.metrics.families import ABSENT, UP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from seatrial.metrics.families import Family
    from seatrial.metrics.seen import Metric


def exposition(metrics: Iterable[Metric]) -> str:
    """Return `metrics` in the text format of Prometheus, under `seatrial_up` 1."""
    registry = CollectorRegistry(auto_describe=False)
    found = list(metrics)
    registry.register(MetricsCollector(lambda: found, elapsed=lambda: 0.0))
    return generate_latest(registry).decode()


@dataclass(slots=True, eq=False)
class MetricsCollector(Collector):
    """Computes metrics when Prometheus asks, at most once in `keep_s` seconds.

    When the store does not answer there is `seatrial_up` 0 and nothing else: neither an old number nor none at all,
    which would look like a scrape that found everything well.
    """

    compute: Callable[[], Sequence[Metric]]  #: raises SeatrialError when they cannot be had
    elapsed: Callable[[], float]  #: seconds on a clock that never goes back
    keep_s: float = 5.0  #: below every usual scrape interval, so that a number is never a scrape old
    on_failure: Callable[[SeatrialError], None] = lambda _: None  #: told why there are none
    _kept: tuple[float, Sequence[Metric]] | None = None
    _lock: Lock = field(default_factory=Lock)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return all metrics as Prometheus wants them."""
        try:
            found = self._found()
        except SeatrialError as error:
            self.on_failure(error)
            return [_gauge(UP, [({}, 0.0)])]
        return [_gauge(UP, [({}, 1.0)]), *_gauges(found)]

    def _found(self) -> Sequence[Metric]:
        # Two scrapes at once would do the same work twice; the second one waits and takes what the first has found.
        with self._lock:
            if self._kept is not None and self.elapsed() - self._kept[0] < self.keep_s:
                return self._kept[1]
            self._kept = None
            found = self.compute()
            self._kept = (self.elapsed(), found)
            return found


def _gauges(metrics: Iterable[Metric]) -> list[GaugeMetricFamily]:
    samples: defaultdict[Family, list[tuple[dict[str, str], float]]] = defaultdict(list)
    for each in metrics:
        if each.value is not None:
            samples[each.family].append((dict(each.labels), each.value))
        else:
            samples[ABSENT].append((_of_absent(each), 1.0))
    return [_gauge(family, found) for family, found in samples.items()]


def _of_absent(metric: Metric) -> dict[str, str]:
    """Return the labels that say which series is missing; those that only some families have stand in one."""
    labels = {name: text for name, text in metric.labels.items() if name in ABSENT.labels}
    rest = ",".join(f"{name}={text}" for name, text in sorted(metric.labels.items()) if name not in ABSENT.labels)
    return {**labels, "metric": metric.family.name, "reason": str(metric.absent), "detail": rest}


def _gauge(family: Family, samples: Iterable[tuple[dict[str, str], float]]) -> GaugeMetricFamily:
    unit = "" if family.unit in family.meaning else f" [{family.unit}]"
    gauge = GaugeMetricFamily(family.name, f"{family.meaning}{unit}", labels=family.labels)
    for labels, value in samples:
        gauge.add_metric([labels.get(name, "") for name in family.labels], value)
    return gauge
