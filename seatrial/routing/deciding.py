"""What becomes of an answer: the policy's action, under the release's authority and the standing orders."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, assert_never

from seatrial.release import Authority, Policy, Segments
from seatrial.routing.orders import Kill, KillMode, KillScope
from seatrial.routing.written import require_kinds

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.release import Recommendation, Release


@dataclass(frozen=True, slots=True)
class Parts:
    """What a data plane needs of one release to turn a score into an action, without the control plane."""

    policy: Policy
    segments: Segments
    low: float  #: least score of the output contract
    high: float  #: greatest score of the output contract
    timeout_ms: float  #: after which the fallback answers

    def recommend(self, score: float, attributes: Mapping[str, object]) -> Recommendation:
        """Return what the policy makes of `score`; raises ValueError for a score outside the output contract."""
        return self.policy.decide(score, self.segments.segment_of(attributes), within=(self.low, self.high))

    def document(self) -> dict[str, Any]:
        """Return the parts as plain data."""
        return {
            "policy": self.policy.document(),
            "segments": self.segments.document(),
            "low": self.low,
            "high": self.high,
            "timeout_ms": self.timeout_ms,
        }

    @classmethod
    def of_document(cls, document: object) -> Parts:
        """Return the parts written by `document`; raises ValueError for anything else."""
        read = require_kinds("parts of a release", document, _KINDS)
        policy, segments = Policy.model_validate(read["policy"]), Segments.model_validate(read["segments"])
        return cls(policy, segments, read["low"], read["high"], read["timeout_ms"])


_KINDS: Mapping[str, tuple[type, ...]] = {
    "policy": (dict,),
    "segments": (dict,),
    "low": (int, float),
    "high": (int, float),
    "timeout_ms": (int, float),
}


def parts_of(release: Release) -> Parts:
    """Return what a data plane needs of `release`."""
    low, high = release.output.range
    return Parts(release.policy, release.segments, low, high, release.limits.timeout_ms)


class Course(StrEnum):
    """How an action comes about."""

    ACT = "act"  #: the caller takes the action
    REVIEW = "review"  #: the caller takes it, and a person looks at it afterwards
    PERSON = "person"  #: a person decides; until then the caller takes the policy's safe action
    REFUSE = "refuse"  #: the decision point is out of service and says so


@dataclass(frozen=True, slots=True)
class Taken:
    """What the caller does now."""

    course: Course
    action: str | None  #: None exactly when refused
    kill: str | None = None  #: id of the order that decided instead of the policy


def take(parts: Parts, action: str | None, kills: Iterable[Kill] = ()) -> Taken:
    """Return what the caller does about `action`, which the policy recommends; None when there is no score.

    A killed action is replaced as its order says. Otherwise the release's authority decides: what it may not do by
    itself is left to a person, and until then the policy's safe action holds.
    """
    policy = parts.policy
    if action is None:
        return Taken(Course.ACT, policy.safe_action)
    for kill in kills:
        if kill.scope is KillScope.ACTION and kill.name == action and not kill.is_drill:
            return obey(parts, kill)
    match policy.authority:
        case Authority.OBSERVE | Authority.RECOMMEND:
            return Taken(Course.PERSON, policy.safe_action)
        case Authority.DECIDE_WITH_REVIEW:
            return Taken(Course.REVIEW, action)
        case Authority.DECIDE_REVERSIBLE:
            is_alone = policy.actions[action].reversible
            return Taken(Course.ACT, action) if is_alone else Taken(Course.PERSON, policy.safe_action)
        case Authority.DECIDE:
            return Taken(Course.ACT, action)
        case unreachable:
            assert_never(unreachable)


def obey(parts: Parts, kill: Kill) -> Taken:
    """Return what the caller does under `kill`, whose mode is not another release."""
    match kill.mode:
        case KillMode.REFUSE:
            return Taken(Course.REFUSE, None, kill.id)
        case KillMode.PERSON:
            return Taken(Course.PERSON, parts.policy.safe_action, kill.id)
        case KillMode.SAFE_FALLBACK | KillMode.PREVIOUS_RELEASE:
            return Taken(Course.ACT, parts.policy.safe_action, kill.id)
        case unreachable:
            assert_never(unreachable)
