"""Answer the gate `evaluation`: score the rows of the report again, with the challenger and with the champion."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seatrial.adapters.evaluation_data import load_evaluation
from seatrial.adapters.rescoring import Rescorer
from seatrial.adapters.same_rows import groups as groups_of
from seatrial.errors import NotFoundError, RefusedError, TamperedError
from seatrial.gates.evaluation import Scored, not_compared, not_worse, reproduced, unreproduced
from seatrial.plan.asks import Evaluation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.adapters.evaluation_data import EvaluationRows
    from seatrial.gates.finding import Finding
    from seatrial.ports import Case, Registered


@dataclass(frozen=True, slots=True)
class ReproducingExaminer:
    """Computes the metrics of an evaluation report again."""

    rescorer: Rescorer = field(default_factory=Rescorer)

    def reads(self, case: Case) -> Mapping[str, str]:
        """Return the digest of the rows; that of the artifact is part of the release."""
        return {"evaluation_data": case.challenger.release.evaluation.dataset_digest}

    def examine(self, case: Case) -> Sequence[Finding]:
        """Return what the rows say; raises UnavailableError when a file or a server does not answer."""
        if not isinstance(case.ask, Evaluation):
            raise NotFoundError.of("rule of gate", case.gate, ("evaluation",))
        try:
            rows = load_evaluation(case.challenger.release, case.challenger.location)
            mine = self._scored(case.challenger, case.challenger, rows)
        except (RefusedError, TamperedError, ValueError) as error:
            return unreproduced(str(error))
        found = reproduced(case.challenger.release, mine, case.ask, case.plan.gates.bounds)
        if not case.ask.not_worse:
            return found
        try:
            theirs = self._scored(case.champion, case.challenger, rows)
            groups = groups_of(rows, case.ask.cluster)
        except (RefusedError, TamperedError, ValueError) as error:
            return [*found, *not_compared(str(error))]
        return [*found, *not_worse(mine, theirs, case.ask, groups)]

    def _scored(self, scored_by: Registered, data_of: Registered, rows: EvaluationRows) -> Scored:
        scores = self.rescorer.scores(scored_by, data_of)
        return Scored.of(scored_by.release, scores, rows.label, rows.attributes)
