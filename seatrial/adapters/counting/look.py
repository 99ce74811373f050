"""One look on any engine: the statements in their order, from the rows of a rollout to what was counted."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from seatrial.adapters.counting import statements
from seatrial.adapters.counting.assembly import Counted, evidence_of
from seatrial.adapters.counting.declaration import Declaration
from seatrial.adapters.counting.statements import DECISION_REASONS, Dialect, Statements
from seatrial.evidence import Frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    from seatrial.evidence import Evidence
    from seatrial.plan import Plan
    from seatrial.ports import Scope


class Engine(Dialect, Protocol):
    """A database with the relations `decisions`, `labels` and `quarantine`, whose times are also whole microseconds.

    They have the columns of the logs, and decided_us, arrived_us and seen_us.
    """

    def view(self, name: str, query: str) -> None:
        """Name `query`, without running it."""

    def keep(self, name: str, query: str) -> None:
        """Run `query` and keep its rows under `name` for the rest of the look, in place of what was there."""

    def rows(self, query: str) -> Sequence[tuple[Any, ...]]:
        """Run `query` and return its rows."""


def silent(_: str) -> None:
    """Say nothing."""


@dataclass(frozen=True, slots=True)
class Looker:
    """Counts for one plan and rollout on one engine."""

    engine: Engine
    plan: Plan
    scope: Scope
    now: datetime
    tell: Callable[[str], None] = silent  #: told what is done next

    def look(self) -> Evidence:
        """Return the evidence of a whole look."""
        frozen = self.frozen()
        counted = self.counted(frozen)
        return self.with_turned_away(evidence_of(self.declaration(frozen), counted, frozen, now=self.now))

    def with_turned_away(self, evidence: Evidence) -> Evidence:
        """Return the evidence with the rows that were turned away before they came into the log."""
        set_aside = Counter(evidence.set_aside)
        set_aside.update(dict(self.engine.rows(statements.turned_away(self.scope, self.now))))
        return replace(evidence, set_aside=dict(set_aside))

    def declaration(self, frozen: Frozen | None) -> Declaration:
        """Return what is counted, with the frozen thresholds."""
        return Declaration(self.plan, {} if frozen is None else frozen.quantiles)

    def statements(self, frozen: Frozen | None) -> Statements:
        """Return the statements of this look."""
        return Statements(self.declaration(frozen), self.scope, self.now, self.engine)

    def frozen(self) -> Frozen | None:
        """Return what the plan asks of the champion before the rollout; a quantile that is too far out is left out."""
        asked = [each for each in self.plan.guardrails if each.exceeds is not None]
        if not asked and self.plan.scores is None:
            return None
        self.tell("reading the champion before the rollout")
        columns = {each.exceeds.column for each in asked if each.exceeds is not None}
        self.engine.keep("reference", statements.reference(self.scope, columns | {"score", "outcome"}))
        quantiles: dict[str, float] = {}
        for each in asked:
            if each.exceeds is None:
                continue
            ((count,),) = self.engine.rows(statements.reference_size(each.exceeds.column))
            rank = math.ceil(round(count * each.exceeds.quantile, 9))
            # 10 times 1 - 0.9 is a little less than 1 in floats.
            if not count or round(count * (1.0 - each.exceeds.quantile), 9) < 1.0:
                continue
            ((value,),) = self.engine.rows(statements.reference_value(each.exceeds.column, rank))
            # Nothing exceeds an infinite number, or one that is none.
            if math.isfinite(value):
                quantiles[each.name] = float(value)
        grid = self.declaration(None).grid
        scores = {} if grid is None else dict(self.engine.rows(statements.reference_scores(grid)))
        return Frozen(quantiles, scores)

    def counted(self, frozen: Frozen | None) -> Counted:
        """Return everything that is counted, from the logs alone; keeps `units`, `firsts` and `pairs`."""
        asked = self.statements(frozen)
        read, set_aside = self.checked()
        self.engine.view("rows_of", statements.rows(self.scope, self.now, is_sound=not set_aside))
        self.tell("finding the first decision of each unit")
        self.engine.keep("units", statements.units_on_trial(self.plan.unit))
        self.keep_firsts(asked)
        if asked.declaration.windowed:
            self.tell("adding up the decisions of each unit")
            self.engine.keep("epochs", asked.epochs())
        for index in asked.declaration.windowed:
            self.engine.keep(f"window_{index}", asked.window(index))
        self.engine.keep("pairs", asked.pairs())
        groups = self.groups(asked, "firsts")
        pairs = self.pair_groups(asked, "pairs")
        return Counted(groups, pairs, self.newest(), self.crossed(), read, set_aside)

    def keep_firsts(self, asked: Statements) -> None:
        """Keep the first decision of each unit in `units` as `firsts`."""
        self.engine.keep("firsts", asked.firsts())
        ((firsts,),) = self.engine.rows("SELECT count(*) FROM firsts")
        ((expected,),) = self.engine.rows("SELECT count(*) FROM units")
        if firsts != expected:
            self.engine.keep("firsts", asked.distinct_firsts())

    def groups(self, asked: Statements, base: str, labels: str = "labels") -> dict[tuple[float, ...], tuple[int, ...]]:
        """Return the counts of the units in `base`, with what is known of them in `labels`."""
        if asked.declaration.maturities:
            self.tell("joining labels")
            self.engine.keep("labels_of_units", asked.labels(base, labels))
        self.tell("counting")
        size = len(asked.declaration.keys)
        return {row[:size]: tuple(int(number) for number in row[size:]) for row in self.engine.rows(asked.counts(base))}

    def pair_groups(self, asked: Statements, base: str, labels: str = "labels") -> dict[tuple[int, ...], int]:
        """Return the counts of the pairs in `base`."""
        scores = self.plan.scores
        if scores is not None and scores.label is not None:
            self.engine.keep("labels_of_pairs", asked.labels(base, labels, [scores.label]))
        return {tuple(pair): count for *pair, count in self.engine.rows(asked.pair_counts(base))}

    def newest(self) -> int | None:
        """Return when the last decision was made."""
        ((found,),) = self.engine.rows(statements.newest(self.now))
        return None if found is None else int(found)

    def crossed(self) -> int:
        """Return how many units were in both arms of one snapshot."""
        ((suspects,),) = self.engine.rows(statements.SUSPECTS)
        if not suspects:
            return 0
        ((found,),) = self.engine.rows(statements.crossed(self.plan.unit))
        return int(found)

    def orphans(self) -> dict[str, int]:
        """Return by name how many labels arrived during the rollout for no decision in the log."""
        names = self.declaration(None).maturities
        return dict(self.engine.rows(statements.orphans(names, self.scope, self.now))) if names else {}

    def checked(self) -> tuple[int, dict[str, int]]:
        """Return how many decisions of the rollout there are, and how many are set aside for each reason."""
        ((read, *aside),) = self.engine.rows(statements.set_aside(self.scope, self.now))
        found = dict(zip(DECISION_REASONS, map(int, aside), strict=True))
        return int(read), {reason: count for reason, count in found.items() if count}
