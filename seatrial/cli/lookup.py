"""What a person typed, found in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.errors import NotFoundError
from seatrial.units import short

if TYPE_CHECKING:
    from seatrial.ports import Registered, Store
    from seatrial.release import Release
    from seatrial.rollout import Rollout


def find_release(store: Store, wanted: str) -> Registered:
    """Return the one release that `wanted` names: its id, the first characters of it, its name, or "name version".

    Raises NotFoundError when none or more than one answers to it.
    """
    known = store.releases()
    found = [each for each in known if _answers_to(each.release, wanted)]
    match found:
        case [one]:
            return one
        case []:
            raise NotFoundError.of("release", wanted, {title(each.release) for each in known})
        case several:
            named = ", ".join(f"{short(each.release.id)} ({title(each.release)})" for each in several)
            raise NotFoundError(f"release {wanted!r}: found {named}; expected one; give the id, or more of it")


def _answers_to(release: Release, wanted: str) -> bool:
    start = wanted.removeprefix("sha256:")
    is_start = bool(start) and release.id.removeprefix("sha256:").startswith(start)
    return is_start or wanted in (release.name, title(release))


def title(release: Release) -> str:
    """Return "name version" of `release`."""
    return f"{release.name} {release.version}"


def titles(store: Store) -> dict[str, str]:
    """Return "name version" by release id."""
    return {each.release.id: title(each.release) for each in store.releases()}


def find_rollouts(store: Store, wanted: str) -> list[Rollout]:
    """Return all rollouts of the decision point `wanted`, oldest first, or the one rollout whose id begins so."""
    champions = store.champions()
    if wanted in champions:
        return list(store.rollouts(wanted))
    known = [rollout.id for rollout in store.rollouts()]
    if not any(wanted and rollout_id.startswith(wanted) for rollout_id in known):
        raise NotFoundError.of("decision point or rollout", wanted, [*champions, *known])
    return [store.rollout(wanted)]
