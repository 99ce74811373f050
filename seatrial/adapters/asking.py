"""Declared gates and the parts that answer them, by the gate's name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seatrial.errors import NotFoundError
from seatrial.gates.catalogue import catalogue
from seatrial.gates.parts import parts
from seatrial.plan import Catalogue, Parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.gates.finding import Finding
    from seatrial.ports import Case, Examiner

#: Gates that `Declared` answers.
DECLARED = ("parts", "catalogue")


@dataclass(frozen=True, slots=True)
class Examiners:
    """All declared gates, each put to the one part that can answer it."""

    by_gate: Mapping[str, Examiner] = field(default_factory=dict)

    def reads(self, case: Case) -> Mapping[str, str]:
        """Return the digest of every datum beside releases and plan that the answer rests on, by name.

        Raises NotFoundError when no part answers this gate.
        """
        return self._of(case.gate).reads(case)

    def examine(self, case: Case) -> Sequence[Finding]:
        """Return the answer of the part that can give it; raises NotFoundError when none can."""
        return self._of(case.gate).examine(case)

    def _of(self, gate: str) -> Examiner:
        if gate not in self.by_gate:
            raise NotFoundError.of("part that answers gate", gate, self.by_gate)
        return self.by_gate[gate]


@dataclass(frozen=True, slots=True)
class Declared:
    """Gates whose answer follows from releases and plan alone."""

    def reads(self, case: Case) -> Mapping[str, str]:  # noqa: ARG002 nothing beside the case is read
        """Return nothing: releases and plan are all that is read."""
        return {}

    def examine(self, case: Case) -> Sequence[Finding]:
        """Return the answer to the gate that `case` declares."""
        challenger, champion = case.challenger.release, case.champion.release
        match case.ask:
            case Catalogue():
                return catalogue(challenger, champion, case.ask)
            case Parts():
                return parts(challenger, champion, case.plan)
            case _:
                raise NotFoundError.of("rule of gate", case.gate, DECLARED)
