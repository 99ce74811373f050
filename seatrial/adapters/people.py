"""Gates that ask who answers for what: consumers of the score, and approvers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.errors import RefusedError
from seatrial.gates.consumers import ACKNOWLEDGED, consumers
from seatrial.gates.ownership import ownership
from seatrial.plan import Consumers, Ownership
from seatrial.units import digest_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.gates.finding import Finding
    from seatrial.ports import Case, Store


@dataclass(frozen=True, slots=True)
class ConsumersExaminer:
    """Asks the ledger which consumers know of the challenger."""

    store: Store

    def reads(self, case: Case) -> Mapping[str, str]:
        """Return the digest of what is acknowledged."""
        return {"acknowledgements": digest_of(self._acknowledged(case))}

    def examine(self, case: Case) -> Sequence[Finding]:
        """Return one finding on each consumer; raises RefusedError when the gate is another one."""
        if not isinstance(case.ask, Consumers):
            raise _foreign(case)
        return consumers(case.challenger.release, case.champion.release, case.ask, self._acknowledged(case))

    def _acknowledged(self, case: Case) -> dict[str, str]:
        """Return by consumer who acknowledged this challenger, in whichever rollout of it."""
        challenger = case.challenger.release
        records = [
            entry.record
            for rollout in self.store.rollouts(challenger.decision_point)
            if rollout.challenger == challenger.id
            for entry in self.store.entries(rollout.id)
            if entry.record.kind == ACKNOWLEDGED
        ]
        return {
            record.body["consumer"]: f"acknowledged by {record.actor} on {record.at:%Y-%m-%d}" for record in records
        }


@dataclass(frozen=True, slots=True)
class OwnershipExaminer:
    """Asks the settings who may approve."""

    approvers: Mapping[str, frozenset[str]]

    def reads(self, case: Case) -> Mapping[str, str]:  # noqa: ARG002 the same for every case
        """Return the digest of the approvers and their roles."""
        return {"approvers": digest_of({name: sorted(roles) for name, roles in self.approvers.items()})}

    def examine(self, case: Case) -> Sequence[Finding]:
        """Return the findings on owner and approvers; raises RefusedError when the gate is another one."""
        if not isinstance(case.ask, Ownership):
            raise _foreign(case)
        return ownership(case.challenger.release, case.plan, case.ask, self.approvers)


def _foreign(case: Case) -> RefusedError:
    return RefusedError(f"gate {case.gate!r}: put to the wrong part; correct the wiring")
