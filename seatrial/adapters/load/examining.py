"""Answer the gate `latency`: runs of challenger and champion in turn, on the declared machine only."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from seatrial.adapters.load.machine import this_machine
from seatrial.adapters.load.working import SubprocessWorker
from seatrial.errors import NotFoundError
from seatrial.gates.latency import latency, machine
from seatrial.plan.asks import Latency
from seatrial.units import digest_of
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from seatrial.adapters.load.working import LoadWorker
    from seatrial.gates.finding import Finding
    from seatrial.gates.latency import FoundMachine, Run
    from seatrial.ports import Case


@dataclass(frozen=True, slots=True)
class LatencyExaminer:
    """Puts the declared load on both releases."""

    worker: LoadWorker = field(default_factory=SubprocessWorker)
    found: Callable[[], FoundMachine] = this_machine

    def reads(self, case: Case) -> Mapping[str, str]:  # noqa: ARG002 the machine is the same for every case
        """Return the digest of the machine: on another one the answer is another."""
        return {"machine": digest_of({name: str(value) for name, value in asdict(self.found()).items()})}

    def examine(self, case: Case) -> Sequence[Finding]:
        """Return what the runs say; on another machine than the declared one nothing is run."""
        ask = case.ask
        if not isinstance(ask, Latency):
            raise NotFoundError.of("rule of gate", case.gate, ("latency",))
        here = machine(self.found(), ask)
        if here.verdict is not Verdict.PASS:
            return [here]
        challenger: list[Run] = []
        champion: list[Run] = []
        for seed in range(ask.runs):
            turns = [(case.challenger, challenger), (case.champion, champion)]
            # Whoever runs first finds another machine than whoever runs second: they take turns in that too.
            for registered, runs in turns if seed % 2 else reversed(turns):
                runs.append(self.worker.run(registered, ask, seed=seed))
        return [here, *latency(challenger, champion, case.challenger.release.limits, ask)]
