"""One metric value, and what is known of one rollout when its metrics are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from seatrial.control.moving import LOOKS_PER_LEASE
from seatrial.errors import NotFoundError
from seatrial.evidence import stored_evidence
from seatrial.metrics.families import FAMILIES, Absence
from seatrial.report.wording import is_watched

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from seatrial.evidence import Evidence
    from seatrial.ledger import Entry
    from seatrial.metrics.families import Family
    from seatrial.plan import Plan
    from seatrial.ports import Look, NoReading, Registered, Store
    from seatrial.rollout import Rollout


@dataclass(frozen=True, slots=True)
class Metric:
    """One number with its labels, or why there is none."""

    family: Family
    labels: Mapping[str, str]  #: all of the family; of an absent one those that are known
    value: float | None  #: finite; None exactly when `absent` says why
    absent: Absence | NoReading | None = None


def metric(name: str, value: float | Absence | NoReading, **labels: str) -> Metric:
    """Return one value of family `name`, or that it is absent; a number that is not finite is absent.

    >>> metric("watch_age_seconds", math.nan).absent
    <Absence.NOT_A_NUMBER: 'not_a_number'>
    """
    family = FAMILIES[name]
    is_whole = set(labels) == set(family.labels)
    if not is_whole and not (isinstance(value, str) and set(labels) < set(family.labels)):
        raise ValueError(f"{family.name}: found labels {sorted(labels)}; expected {list(family.labels)}; name them all")
    if isinstance(value, str):
        return Metric(family, labels, None, value)
    if math.isnan(value):
        return Metric(family, labels, None, Absence.NOT_A_NUMBER)
    if math.isinf(value):
        return Metric(family, labels, None, Absence.UNBOUNDED)
    return Metric(family, labels, float(value))


@dataclass(frozen=True, slots=True)
class Seen:
    """A rollout with all that is stored about it."""

    rollout: Rollout
    plan: Plan
    entries: Sequence[Entry]
    challenger: Registered | None  #: None when the store does not know it
    look: Look | None  #: the last kept one
    evidence: Evidence | None  #: its counts; None exactly when `missing` says why
    missing: Absence | None
    now: datetime

    @property
    def place(self) -> dict[str, str]:
        """The labels that every metric of a rollout has."""
        return {"decision_point": self.rollout.decision_point, "rollout": self.rollout.id}


def seen_of(store: Store, rollout: Rollout, plan: Plan, challenger: Registered | None, *, now: datetime) -> Seen:
    """Return what `store` knows of `rollout`; the logs are not asked."""
    look = store.last_look(rollout.id)
    counts = _counts(store, rollout, plan, look, now=now)
    evidence, missing = (None, counts) if isinstance(counts, Absence) else (counts, None)
    return Seen(rollout, plan, store.entries(rollout.id), challenger, look, evidence, missing, now)


def _counts(store: Store, rollout: Rollout, plan: Plan, look: Look | None, *, now: datetime) -> Evidence | Absence:
    if look is None:
        return Absence.NO_EVIDENCE
    if is_stale(rollout, plan, look, now=now):
        return Absence.STALE
    try:
        return stored_evidence(store.evidence(look.evidence_digest), digest=look.evidence_digest)
    except (NotFoundError, ValueError):
        return Absence.NO_EVIDENCE


def is_stale(rollout: Rollout, plan: Plan, look: Look, *, now: datetime) -> bool:
    """Return whether a later look should have been kept by now; of what is not watched, the last look stays true."""
    # A look without news is kept a few times in each lease only.
    patience = plan.evidence.max_age + plan.lease / LOOKS_PER_LEASE
    return is_watched(rollout) and now - look.at > patience
