"""Gate `latency`: p99 and memory under a declared load on a declared machine, beside the champion in the same run."""

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Annotated, ClassVar

from pydantic import Field

from seatrial.documents import Checked, Count, Duration, Flaw, Number, Text
from seatrial.plan.asks.ask import Ask
from seatrial.plan.conditions import is_unset

#: Requests below which the greatest latency seen is no upper bound of p99 at 95 %: 0.99 ** 299 < 5 %.
FEWEST_REQUESTS = 299
MOST_REQUESTS = 1_000_000


class Machine(Checked):
    """The machine on which the promise is made; figures of another one say nothing about it."""

    cores: Annotated[Count, Field(gt=0)] = Field(description="the number of processor cores that the process may use")
    memory_mb: Annotated[Number, Field(gt=0)] = Field(description="the memory in megabytes, met within a tenth")
    processor: Text | None = Field(
        None, exclude_if=is_unset, description="a part of the processor's name; any when left out"
    )


class Latency(Ask):
    """The load under which `limits.p99_ms` and `limits.memory_mb` of the release are promises."""

    # What runs beside it would be measured with it.
    is_alone: ClassVar[bool] = True

    rate_per_s: Annotated[Number, Field(gt=0, le=10_000)] = Field(
        description="arrivals a second, which do not wait for answers"
    )
    duration: Annotated[Duration, Field(ge=timedelta(seconds=1), le=timedelta(minutes=10))] = Field(
        description="the time that is measured in each run, such as 20 s"
    )
    warm_up: Annotated[Duration, Field(le=timedelta(minutes=10))] = Field(
        # Caches fill within the first hundred requests or so.
        timedelta(seconds=2),
        description="the time before it, under the same load, that does not count; 2 s when left out",
    )
    runs: Annotated[Count, Field(ge=2, le=20)] = Field(
        # Of three runs that agree, none was an accident of the machine's.
        3,
        description="runs of each release, each in a new process, the champion's between them; 3 when left out",
    )
    machine: Machine = Field(description="the machine on which the promise is made")
    max_ratio: Annotated[Number, Field(gt=0)] | None = Field(
        None,
        exclude_if=is_unset,
        description="the greatest p99 in units of the champion's in the same run; not compared when left out",
    )

    @property
    def requests(self) -> float:
        """How many requests are expected to count, of one release in all runs."""
        return self.rate_per_s * self.duration.total_seconds() * self.runs

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules that there are enough requests to tell, and not more than anybody waits for."""
        yield self._requests_are_enough()

    def _requests_are_enough(self) -> Iterator[Flaw]:
        # Arrivals are random: half as many again, so that enough come.
        if self.requests < 1.5 * FEWEST_REQUESTS:
            finding = f"found {self.requests:g} requests in all runs, expected at least {1.5 * FEWEST_REQUESTS:g}"
            yield Flaw(("duration",), finding, "nobody can tell p99 of fewer; raise duration, rate_per_s or runs")
        if self.requests > MOST_REQUESTS:
            finding = f"found {self.requests:g} requests in all runs, expected at most {MOST_REQUESTS}"
            yield Flaw(("duration",), finding, "shorten it")
