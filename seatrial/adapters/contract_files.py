"""Feature contracts in a folder of files, by the name in their heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.contracts import FeatureContract
from seatrial.documents import check, parse_yaml
from seatrial.errors import NotFoundError, RefusedError, UnavailableError
from seatrial.gates.served import served
from seatrial.plan import Served
from seatrial.units import digest_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from seatrial.gates.finding import Finding
    from seatrial.ports import Case


@dataclass(frozen=True, slots=True)
class ServedExaminer:
    """Holds the columns of both releases against the contract that a plan names."""

    folder: Path | None  #: None where the settings name none

    def reads(self, case: Case) -> Mapping[str, str]:
        """Return the digest of the contract's file."""
        content, _ = self._find(case)
        return {f"contract {_asked(case).contract}": digest_bytes(content)}

    def examine(self, case: Case) -> Sequence[Finding]:
        """Return one finding on each release; raises InvalidDocumentError for a contract that is none."""
        _, contract = self._find(case)
        return served(case.challenger.release, case.champion.release, contract)

    def _find(self, case: Case) -> tuple[bytes, FeatureContract]:
        """Return bytes and content of the one contract that the plan names."""
        if self.folder is None:
            raise RefusedError("served: the settings name no folder of contracts; add the key contracts")
        named: dict[str, list[tuple[bytes, FeatureContract]]] = {}
        for path in sorted(self.folder.glob("*.yaml")):
            try:
                content = path.read_bytes()
            except OSError as error:
                raise UnavailableError(f"{path}: {error.strerror}; restore the contract") from error
            contract = check(parse_yaml(content.decode(), str(path)), FeatureContract)
            named.setdefault(contract.name, []).append((content, contract))
        wanted = _asked(case).contract
        if wanted not in named:
            raise NotFoundError.of("contract", wanted, named)
        if len(named[wanted]) > 1:
            raise RefusedError(f"contract {wanted!r}: found {len(named[wanted])} files in {self.folder}; keep one")
        return named[wanted][0]


def _asked(case: Case) -> Served:
    if not isinstance(case.ask, Served):
        raise RefusedError(f"gate {case.gate!r}: put to the wrong part; correct the wiring")
    return case.ask
