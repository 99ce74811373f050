"""Routing snapshots and assignment: which release answers this unit.

Pure and fast; the in-process router, a gateway and Envoy compute the same assignment from the same snapshot. The
slot of a unit is ``xxh64(salt + unit key, seed 0) mod 10,000``, which is Envoy's weighted-cluster hash policy on a
header that holds the salted key. The challenger owns the lowest slots, so that a larger share never moves a unit
away from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import NoneType
from typing import TYPE_CHECKING, Any

from xxhash import xxh64_intdigest

from seatrial.evidence import Arm
from seatrial.units import SLOTS, digest_of, format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class RoutingSnapshot:
    """The only thing that data planes read: self-contained, versioned, monotone in (number, lease_until)."""

    decision_point: str
    number: int  #: raised by one whenever an assignment changes
    champion: str  #: release id of the arm that is compared against
    fallback: str  #: release id that serves when in doubt: lease over, challenger failed, unit outside the segment
    challenger: str | None = None  #: release id of the other arm
    rollout_id: str | None = None
    segment: str | None = None  #: name of the segment whose units take part; None means all
    when: Mapping[str, tuple[str, ...]] = field(
        default_factory=dict
    )  #: the segment's rule: column in values, all of them
    slots: int = 0  #: challenger's slots of 10,000
    shadow: bool = False  #: the challenger scores copies of the champion's requests
    stage: int = 0  #: index of the plan's stage, for the log
    salt: str = ""
    lease_until: datetime | None = None  #: mandatory when `slots` > 0

    def __post_init__(self) -> None:
        if not 0 <= self.slots <= SLOTS:
            raise ValueError(f"slots {self.slots}: expected 0 to {SLOTS}")
        if self.slots and (self.challenger is None or self.lease_until is None):
            raise ValueError("a snapshot with a challenger's share names the challenger and carries lease_until")
        if self.shadow and self.challenger is None:
            raise ValueError("a snapshot with shadow traffic names the challenger")

    @property
    def share(self) -> float:
        """Challenger's share in [0, 1]."""
        return self.slots / SLOTS

    def is_newer_than(self, other: RoutingSnapshot) -> bool:
        """Return whether a router that holds `other` should take this one."""
        return self._order() > other._order()

    def _order(self) -> tuple[int, str]:
        return (self.number, "" if self.lease_until is None else format_time(self.lease_until))

    def has_same_assignment(self, other: RoutingSnapshot) -> bool:
        """Return whether both send every unit to the same release while their leases last."""
        return self._assignment() == other._assignment()

    def _assignment(self) -> dict[str, Any]:
        return {k: v for k, v in self.document().items() if k not in ("number", "stage", "lease_until")}

    def is_in_segment(self, attributes: Mapping[str, str]) -> bool:
        """Return whether a unit takes part; one that lacks a column of the rule does not."""
        return all(attributes.get(column) in values for column, values in self.when.items())

    def document(self) -> dict[str, Any]:
        """Return the snapshot as plain data."""
        return {
            "decision_point": self.decision_point,
            "number": self.number,
            "champion": self.champion,
            "fallback": self.fallback,
            "challenger": self.challenger,
            "rollout_id": self.rollout_id,
            "segment": self.segment,
            "when": {column: list(values) for column, values in self.when.items()},
            "slots": self.slots,
            "shadow": self.shadow,
            "stage": self.stage,
            "salt": self.salt,
            "lease_until": None if self.lease_until is None else format_time(self.lease_until),
        }

    @classmethod
    def of_document(cls, document: dict[str, Any]) -> RoutingSnapshot:
        """Return the snapshot written by `document`; raises ValueError for anything else."""
        _require_kinds(document)
        lease = document["lease_until"]
        when = {column: tuple(values) for column, values in document["when"].items()}
        return cls(**{**document, "when": when, "lease_until": None if lease is None else parse_time(lease)})

    @property
    def digest(self) -> str:
        """Digest of the snapshot without its lease, which is renewed in place."""
        return digest_of({**self.document(), "lease_until": None})


#: Types of each key of a written snapshot; a bool is no number and a number no text.
_KINDS: Mapping[str, tuple[type, ...]] = {
    "decision_point": (str,),
    "number": (int,),
    "champion": (str,),
    "fallback": (str,),
    "challenger": (str, NoneType),
    "rollout_id": (str, NoneType),
    "segment": (str, NoneType),
    "when": (dict,),
    "slots": (int,),
    "shadow": (bool,),
    "stage": (int,),
    "salt": (str,),
    "lease_until": (str, NoneType),
}


def _require_kinds(document: object) -> None:
    if not isinstance(document, dict) or document.keys() != _KINDS.keys():
        raise ValueError(f"routing snapshot: found {document!r}; expected the keys {', '.join(_KINDS)}")
    wrong = [key for key, kinds in _KINDS.items() if type(document[key]) not in kinds]
    if not wrong:
        rules = document["when"].values()
        is_text = all(type(values) is list and all(type(value) is str for value in values) for values in rules)
        wrong = [] if is_text else ["when"]
    if wrong:
        found = ", ".join(f"{key} {document[key]!r}" for key in wrong)
        raise ValueError(
            f"routing snapshot: found {found}; expected what a snapshot's document holds; publish it again"
        )


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which release answers one unit, and with which probability it was the challenger."""

    release_id: str
    arm: Arm
    share: float  #: challenger's probability at assignment; 0 when the unit was not in the comparison
    snapshot_no: int
    shadow_release_id: str | None  #: release that scores a copy


def slot_of(salt: str, unit_key: str) -> int:
    """Return the slot of a unit, 0 to 9,999.

    >>> slot_of("s", "unit") == slot_of("s", "unit")
    True
    """
    return xxh64_intdigest(f"{salt}{unit_key}".encode()) % SLOTS


def assign(snapshot: RoutingSnapshot, unit_key: str, attributes: Mapping[str, str], *, now: datetime) -> Assignment:
    """Return the assignment of `unit_key` at `now`; in doubt the fallback release answers.

    The lease is checked here, on the serving side, so that a dead control plane ends an experiment by itself.
    """
    takes_part = snapshot.is_in_segment(attributes)
    shadow = snapshot.challenger if snapshot.shadow and takes_part else None
    if snapshot.slots and takes_part and snapshot.lease_until is not None and now < snapshot.lease_until:
        if snapshot.challenger is not None and slot_of(snapshot.salt, unit_key) < snapshot.slots:
            return Assignment(snapshot.challenger, Arm.CHALLENGER, snapshot.share, snapshot.number, shadow)
        return Assignment(snapshot.champion, Arm.CHAMPION, snapshot.share, snapshot.number, shadow)
    arm = Arm.CHALLENGER if snapshot.fallback == snapshot.challenger else Arm.CHAMPION
    return Assignment(snapshot.fallback, arm, 0.0, snapshot.number, shadow)
