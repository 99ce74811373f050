"""Standing orders in a snapshot: pins, kills, and what a shadow may cost.

An order stands until it is lifted or, for a pin, until it expires; it travels from snapshot to snapshot.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from types import NoneType
from typing import TYPE_CHECKING, Any

from seatrial.routing.written import require_kinds, require_rule
from seatrial.units import SLOTS, format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


def is_matched(when: Mapping[str, tuple[str, ...]], attributes: Mapping[str, str]) -> bool:
    """Return whether a unit has a listed value in every column of `when`; one that lacks a column has not."""
    return all(attributes.get(column) in values for column, values in when.items())


@dataclass(frozen=True, slots=True)
class Pin:
    """Units that one release answers whatever the shares say, such as a customer who is in a dispute."""

    release_id: str
    by: str
    reason: str
    expires_at: datetime
    unit_key: str | None = None  #: one unit; None when `when` describes the units
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: column in values, all of them

    def __post_init__(self) -> None:
        if (self.unit_key is None) == (not self.when):
            raise ValueError("pin: expected either a unit key or a rule; name one of them")

    def holds(self, unit_key: str | None, attributes: Mapping[str, str], *, now: datetime) -> bool:
        """Return whether the pin decides who answers this unit at `now`; None is a unit that no pin names."""
        if now >= self.expires_at:
            return False
        return unit_key == self.unit_key if self.unit_key is not None else is_matched(self.when, attributes)

    def document(self) -> dict[str, Any]:
        """Return the pin as plain data."""
        return {
            "release_id": self.release_id,
            "by": self.by,
            "reason": self.reason,
            "expires_at": format_time(self.expires_at),
            "unit_key": self.unit_key,
            "when": {column: list(values) for column, values in self.when.items()},
        }

    @classmethod
    def of_document(cls, document: object) -> Pin:
        """Return the pin written by `document`; raises ValueError for anything else."""
        read = require_kinds("pin", document, _PIN)
        when = require_rule("pin", read["when"])
        return cls(**{**read, "when": when, "expires_at": parse_time(read["expires_at"])})


class KillScope(StrEnum):
    """What a kill switch takes out of service."""

    DECISION_POINT = "decision point"
    SEGMENT = "segment"
    RELEASE = "release"
    ACTION = "action"


class KillMode(StrEnum):
    """What happens instead."""

    PREVIOUS_RELEASE = "previous release"  #: the release named in the order answers
    SAFE_FALLBACK = "safe fallback"  #: the policy's safe action, without a score
    PERSON = "person"  #: a person decides; until then the policy's safe action holds
    REFUSE = "refuse"  #: no answer at all; the caller is told so


@dataclass(frozen=True, slots=True)
class Kill:
    """One thrown kill switch. A drill goes the same way to every router and changes no answer."""

    id: str
    scope: KillScope
    mode: KillMode
    by: str
    reason: str
    at: datetime
    name: str | None = None  #: segment, release id or action; None exactly for the whole decision point
    when: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  #: the segment's rule
    to: str | None = None  #: release id that answers instead, exactly for PREVIOUS_RELEASE
    is_drill: bool = False
    since: int = 1  #: number of the snapshot that it came with

    def __post_init__(self) -> None:
        if (self.name is None) != (self.scope is KillScope.DECISION_POINT):
            raise ValueError(f"kill {self.id}: a {self.scope} is named, a decision point is not")
        if bool(self.when) != (self.scope is KillScope.SEGMENT):
            raise ValueError(f"kill {self.id}: a segment carries its rule, and nothing else does")
        if (self.to is None) == (self.mode is KillMode.PREVIOUS_RELEASE):
            raise ValueError(f"kill {self.id}: {KillMode.PREVIOUS_RELEASE} names a release, and no other mode does")
        if self.to is not None and self.to == self.name:
            raise ValueError(f"kill {self.id}: a killed release cannot answer for itself")
        if self.scope is KillScope.ACTION and self.mode is KillMode.PREVIOUS_RELEASE:
            raise ValueError(f"kill {self.id}: an action has no previous release; name another mode")

    def holds(self, release_id: str, attributes: Mapping[str, str]) -> bool:
        """Return whether a unit that `release_id` would answer is meant; actions are known only after the score."""
        if self.is_drill:
            return False
        match self.scope:
            case KillScope.DECISION_POINT:
                return release_id != self.to
            case KillScope.SEGMENT:
                return release_id != self.to and is_matched(self.when, attributes)
            case KillScope.RELEASE:
                return release_id == self.name
            case KillScope.ACTION:
                return False

    def document(self) -> dict[str, Any]:
        """Return the order as plain data."""
        return {
            "id": self.id,
            "scope": self.scope.value,
            "mode": self.mode.value,
            "by": self.by,
            "reason": self.reason,
            "at": format_time(self.at),
            "name": self.name,
            "when": {column: list(values) for column, values in self.when.items()},
            "to": self.to,
            "is_drill": self.is_drill,
            "since": self.since,
        }

    @classmethod
    def of_document(cls, document: object) -> Kill:
        """Return the order written by `document`; raises ValueError for anything else."""
        read = require_kinds("kill", document, _KILL)
        return cls(
            **{
                **read,
                "scope": KillScope(read["scope"]),
                "mode": KillMode(read["mode"]),
                "at": parse_time(read["at"]),
                "when": require_rule("kill", read["when"]),
            }
        )


@dataclass(frozen=True, slots=True)
class ShadowBudget:
    """What copies for the shadow may cost; a data plane that cannot keep to it sends fewer."""

    sampling: int = SLOTS  #: slots of 10,000 whose units are copied
    max_per_s: float | None = None  #: copies a second on one router; None is no limit
    max_concurrent: int = 8  #: copies under way at once on one router
    dependencies: Mapping[str, float] = field(default_factory=dict)  #: extra requests a second that each may see

    def __post_init__(self) -> None:
        if not 0 <= self.sampling <= SLOTS:
            raise ValueError(f"shadow sampling {self.sampling}: expected 0 to {SLOTS}")
        if self.max_concurrent < 1:
            raise ValueError(f"shadow max_concurrent {self.max_concurrent}: expected at least 1")
        if any(not limit > 0 for limit in (*self.dependencies.values(), *filter(None, [self.max_per_s]))):
            raise ValueError("shadow budget: expected rates above 0; leave a limit out for none")

    def document(self) -> dict[str, Any]:
        """Return the budget as plain data."""
        return {
            "sampling": self.sampling,
            "max_per_s": self.max_per_s,
            "max_concurrent": self.max_concurrent,
            "dependencies": dict(self.dependencies),
        }

    @classmethod
    def of_document(cls, document: object) -> ShadowBudget:
        """Return the budget written by `document`; raises ValueError for anything else."""
        read = require_kinds("shadow budget", document, _BUDGET)
        if any(type(limit) not in (int, float) for limit in read["dependencies"].values()):
            raise ValueError(f"shadow budget: found dependencies {read['dependencies']!r}; expected numbers")
        return cls(**read)


_PIN: Mapping[str, tuple[type, ...]] = {
    "release_id": (str,),
    "by": (str,),
    "reason": (str,),
    "expires_at": (str,),
    "unit_key": (str, NoneType),
    "when": (dict,),
}
_KILL: Mapping[str, tuple[type, ...]] = {
    "id": (str,),
    "scope": (str,),
    "mode": (str,),
    "by": (str,),
    "reason": (str,),
    "at": (str,),
    "name": (str, NoneType),
    "when": (dict,),
    "to": (str, NoneType),
    "is_drill": (bool,),
    "since": (int,),
}
_BUDGET: Mapping[str, tuple[type, ...]] = {
    "sampling": (int,),
    "max_per_s": (int, float, NoneType),
    "max_concurrent": (int,),
    "dependencies": (dict,),
}
