"""The routing snapshot: the one versioned table that data planes read."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations
from types import NoneType
from typing import TYPE_CHECKING, Any

from seatrial.release import SegmentRule, common_unit
from seatrial.routing.deciding import Parts
from seatrial.routing.orders import Kill, Pin, ShadowBudget, is_matched
from seatrial.routing.written import require_kinds, require_rule
from seatrial.units import SLOTS, digest_of, format_time, parse_time

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime


@dataclass(frozen=True, slots=True)
class RoutingSnapshot:
    """The only thing that data planes read: self-contained, versioned, monotone in (number, lease_until).

    It divides units in at most two: those of the segment on trial, whose rule it carries, and everybody else, whom
    the fallback answers.
    """

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
    pins: tuple[Pin, ...] = ()  #: no two of which hold for one unit
    kills: tuple[Kill, ...] = ()  #: orders in force, oldest first
    budget: ShadowBudget | None = None  #: what copies may cost; None copies every unit
    parts: Mapping[str, Parts] = field(default_factory=dict)  #: policy and contract by release id
    signature: str | None = field(default=None, compare=False)  #: see `seatrial.routing.signing`

    def __post_init__(self) -> None:
        if not 0 <= self.slots <= SLOTS:
            raise ValueError(f"slots {self.slots}: expected 0 to {SLOTS}")
        if self.slots and (self.challenger is None or self.lease_until is None):
            raise ValueError("a snapshot with a challenger's share names the challenger and carries lease_until")
        if self.shadow and self.challenger is None:
            raise ValueError("a snapshot with shadow traffic names the challenger")
        for first, second in combinations(self.pins, 2):
            if _have_common_unit(first, second):
                raise ValueError(f"pins to {first.release_id} and {second.release_id} hold for the same unit")

    @property
    def share(self) -> float:
        """Challenger's share in [0, 1]."""
        return self.slots / SLOTS

    def releases(self) -> frozenset[str]:
        """Return the ids of every release that may answer or score by this snapshot."""
        named = {self.champion, self.fallback, self.challenger, *(pin.release_id for pin in self.pins)}
        return frozenset(filter(None, (*named, *(kill.to for kill in self.kills))))

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
        return is_matched(self.when, attributes)

    def document(self) -> dict[str, Any]:
        """Return the snapshot as plain data, without its signature."""
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
            "pins": [pin.document() for pin in self.pins],
            "kills": [kill.document() for kill in self.kills],
            "budget": None if self.budget is None else self.budget.document(),
            "parts": {release_id: parts.document() for release_id, parts in sorted(self.parts.items())},
        }

    @classmethod
    def of_document(cls, document: object) -> RoutingSnapshot:
        """Return the snapshot written by `document`; raises ValueError for anything else."""
        read = require_kinds("routing snapshot", document, _KINDS)
        lease, budget = read["lease_until"], read["budget"]
        return cls(
            **{
                **read,
                "when": require_rule("routing snapshot", read["when"]),
                "lease_until": None if lease is None else parse_time(lease),
                "pins": tuple(map(Pin.of_document, read["pins"])),
                "kills": tuple(map(Kill.of_document, read["kills"])),
                "budget": None if budget is None else ShadowBudget.of_document(budget),
                "parts": {release_id: Parts.of_document(parts) for release_id, parts in read["parts"].items()},
            }
        )

    @property
    def digest(self) -> str:
        """Digest of the snapshot without its lease, which is renewed in place."""
        return digest_of({**self.document(), "lease_until": None})


def _have_common_unit(first: Pin, second: Pin) -> bool:
    """Return whether one unit may be meant by both; a key says nothing of attributes, so a rule never excludes it."""
    if first.unit_key is not None or second.unit_key is not None:
        return first.unit_key == second.unit_key
    rules = (SegmentRule(name=f"pin-{at}", when=pin.when) for at, pin in enumerate((first, second)))
    return common_unit(*rules) is not None


#: Types of each key of a written snapshot.
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
    "pins": (list,),
    "kills": (list,),
    "budget": (dict, NoneType),
    "parts": (dict,),
}
