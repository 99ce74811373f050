"""Take releases out of service, by a person's word; needs the store alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.control.moving import roll_back
from seatrial.control.outranking import is_ordered
from seatrial.errors import ConflictError, NotFoundError, RefusedError
from seatrial.rollout import FINAL, RETURNING, Rollout, State
from seatrial.routing import KillMode
from seatrial.units import short

if TYPE_CHECKING:
    from datetime import datetime

    from seatrial.ports import Ports

#: States from which nothing is left to take out.
_OUT = FINAL | RETURNING | {State.SUPERSEDED}
#: A rollback outranks whoever moves the rollout at the same moment.
_ATTEMPTS = 5


def kill(ports: Ports, release_id: str, *, reason: str, actor: str, now: datetime) -> Rollout:
    """Take one release out of service wherever it is tried or serves; its champion returns.

    Asked again before every router was seen without it, returns the rollout that is on its way out.
    Raises NotFoundError for an unknown release, RefusedError when it is out already or has nothing to return to.
    """
    release = ports.store.release(release_id).release
    rollouts = [r for r in ports.store.rollouts(release.decision_point) if r.challenger == release.id]
    if returning := [r for r in rollouts if r.state in RETURNING]:
        return returning[-1]
    serving = [r for r in rollouts if r.state not in _OUT]
    if serving:
        return insist(ports, serving[-1].id, reason=reason, actor=actor, now=now)
    modes = ", ".join(f"'{mode}'" for mode in KillMode if mode is not KillMode.PREVIOUS_RELEASE)
    if ports.store.champions().get(release.decision_point) == release.id:
        raise RefusedError(
            f"release {short(release.id)} is the first champion of {release.decision_point!r}; there is no release to"
            f" return to, add --mode with one of {modes}"
        )
    if is_ordered(ports.store.snapshot(release.decision_point), release.id, now=now):
        raise RefusedError(
            f"release {short(release.id)} answers units that a pin or another kill sends to it; add --mode with"
            f" '{KillMode.PREVIOUS_RELEASE}' or one of {modes}"
        )
    raise RefusedError(f"release {short(release.id)} serves nothing at present; `seatrial status` shows who does")


def roll_back_decision_point(ports: Ports, decision_point: str, *, reason: str, actor: str, now: datetime) -> Rollout:
    """End the active rollout of `decision_point`, or without one demote its champion to the release before.

    While a rollback is on its way, that one is returned: asked twice, it does not take out a second release.
    """
    champions = ports.store.champions()
    if decision_point not in champions:
        raise NotFoundError.of("decision point", decision_point, champions)
    rollouts = ports.store.rollouts(decision_point)
    if returning := [r for r in rollouts if r.state in RETURNING]:
        return returning[-1]
    active = [r for r in rollouts if r.is_active]
    promoted = [r for r in rollouts if r.state is State.CHAMPION]
    if not active and not promoted:
        raise RefusedError(
            f"decision point {decision_point!r}: no rollout is active and no release was promoted; nothing to roll back"
        )
    return insist(ports, (active or promoted)[-1].id, reason=reason, actor=actor, now=now)


def insist(ports: Ports, rollout_id: str, *, reason: str, actor: str, now: datetime) -> Rollout:
    """Roll a rollout back whoever moves it meanwhile, and return it; raises ConflictError when that goes on and on."""
    for _ in range(_ATTEMPTS):
        rollout = ports.store.rollout(rollout_id)
        if rollout.state in _OUT:
            return rollout
        try:
            return roll_back(ports, rollout, reason=f"{actor}: {reason}", actor=actor, now=now)
        except ConflictError:
            continue
    raise ConflictError(f"rollout {rollout_id}: moved {_ATTEMPTS} times meanwhile; run the command again")
