"""Answer the gates that rest on the rows of evaluation reports: what they mean, and how both releases score them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from seatrial.adapters.evaluation_data import EvaluationRows, load_evaluation
from seatrial.adapters.rescoring import Rescorer
from seatrial.errors import NotFoundError, RefusedError, TamperedError
from seatrial.gates.capacity import capacity
from seatrial.gates.cut_offs import Acted, cut_offs
from seatrial.gates.distribution import distribution
from seatrial.gates.evaluation import Scored
from seatrial.gates.finding import SUBJECT_MARK, Finding, Question
from seatrial.gates.semantics import semantics
from seatrial.gates.slices import slices
from seatrial.plan.asks import Capacity, CutOffs, Distribution, Semantics, Slices
from seatrial.verdict import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from seatrial.ports import Case, Registered

#: Gates that `SameRowsExaminer` answers.
GATES = ("semantics", "distribution", "slices", "cut_offs", "capacity")


@dataclass(frozen=True, slots=True)
class SameRowsExaminer:
    """Reads the rows of evaluation reports, and scores those of the challenger's with both releases."""

    rescorer: Rescorer = field(default_factory=Rescorer)

    def reads(self, case: Case) -> Mapping[str, str]:
        """Return the digests of the rows; those of the artifacts are part of the releases."""
        mine = {"evaluation_data": case.challenger.release.evaluation.dataset_digest}
        if not isinstance(case.ask, Semantics):
            return mine
        return {**mine, "champion_data": case.champion.release.evaluation.dataset_digest}

    def examine(self, case: Case) -> Sequence[Finding]:
        """Return what the rows say; ERROR when they cannot be scored, raises UnavailableError when not just now."""
        try:
            return self._answer(case)
        except (RefusedError, TamperedError, ValueError) as error:
            reason = f"the rows of an evaluation report cannot be used: {error}"
            return [Finding(Question.CONTRACT, f"{case.gate}{SUBJECT_MARK}rows", Verdict.ERROR, reason)]

    def _answer(self, case: Case) -> Sequence[Finding]:
        challenger, champion = case.challenger.release, case.champion.release
        rows = load_evaluation(challenger, case.challenger.location)
        if isinstance(case.ask, Semantics):
            reference = load_evaluation(champion, case.champion.location)
            return semantics(challenger, champion, rows.columns, reference.columns)
        scores = self.rescorer.scores(case.challenger, case.challenger)
        match case.ask:
            case Distribution():
                return distribution(challenger, champion, scores, self.rescorer.scores(case.champion, case.challenger))
            case Slices() as ask:
                return slices(scored(case.challenger, scores, rows), ask, groups(rows, ask.cluster))
            case CutOffs() as ask:
                acted = self.acted(case.challenger, case.champion)
                return cut_offs(challenger, champion, acted, ask, groups(rows, ask.cluster))
            case Capacity() as ask:
                actions = scored(case.challenger, scores, rows).values["action"]
                return capacity(challenger, actions, ask, groups(rows, ask.cluster))
            case _:
                raise NotFoundError.of("rule of gate", case.gate, GATES)

    def acted(self, challenger: Registered, champion: Registered) -> Acted:
        """Return the rows of the challenger's report as both releases act on them; raises as `Rescorer.scores`."""
        rows = load_evaluation(challenger.release, challenger.location)
        scores = self.rescorer.scores(challenger, challenger)
        mine = scored(challenger, scores, rows)
        theirs = scored(champion, self.rescorer.scores(champion, challenger), rows)
        told = [dict(zip(rows.attributes, row, strict=True)) for row in zip(*rows.attributes.values(), strict=True)]
        named = [challenger.release.segments.segment_of(each) for each in told or [{}] * len(scores)]
        return Acted(np.array(named, dtype=object), scores, mine.values["action"], theirs.values["action"])


def scored(by: Registered, scores: NDArray[np.float64], rows: EvaluationRows) -> Scored:
    """Return the rows as the release decides them."""
    return Scored.of(by.release, scores, rows.label, rows.attributes)


def groups(rows: EvaluationRows, column: str | None) -> NDArray[np.int64] | None:
    """Return the group of each row; raises RefusedError when a row has none."""
    if column is None:
        return None
    values = rows.attributes.get(column)
    if values is None or None in values:
        raise RefusedError(f"found no text in the column {column!r} for every row; expected the group of each")
    return np.unique(np.array(values), return_inverse=True)[1].astype(np.int64)
