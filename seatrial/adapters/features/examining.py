"""Answer the gate `features`: look at the newest rows of the source that the plan names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seatrial.errors import NotFoundError
from seatrial.gates.features import features
from seatrial.plan.asks import Features
from seatrial.units import format_time

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from seatrial.adapters.features.rows import FeatureSource
    from seatrial.gates.finding import Finding
    from seatrial.ports import Case, Clock


@dataclass(frozen=True, slots=True)
class FeaturesExaminer:
    """Looks at feature sources."""

    clock: Clock
    sources: Mapping[str, FeatureSource] = field(default_factory=dict)

    def reads(self, case: Case) -> Mapping[str, str]:  # noqa: ARG002 the same for every source
        """Return the moment: a source that was fresh an hour ago says nothing about now, so it is always asked."""
        return {"asked_at": format_time(self.clock.now())}

    def examine(self, case: Case) -> Sequence[Finding]:
        """Return what the newest rows are like; raises UnavailableError when the source does not answer."""
        ask = case.ask
        if not isinstance(ask, Features):
            raise NotFoundError.of("rule of gate", case.gate, ("features",))
        if ask.source not in self.sources:
            raise NotFoundError.of("feature source of the settings", ask.source, self.sources)
        releases = (case.challenger.release, case.champion.release)
        wanted = dict.fromkeys(column.name for release in releases for column in release.features.columns)
        seen = self.sources[ask.source].look(list(wanted), ask.timestamp, rows=ask.rows)
        return features(*releases, seen, ask, now=self.clock.now())
