"""A snapshot as Envoy's route configuration, or everything in it that Envoy cannot do.

Routes are tried in order: pins, the comparison while its lease lasts, the fallback; before each of them the same for
units of a killed segment. The challenger stands first among the weighted clusters, for Envoy walks their weights in
order: its slots are the lowest ones, as in `assign`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from seatrial.adapters.envoy.bootstrap import ASSIGN, LIVE, LUA, METADATA, ROUTES
from seatrial.adapters.envoy.clusters import cluster_of, clusters, shadow_of
from seatrial.adapters.envoy.matching import equals, is_live, is_present, matches
from seatrial.adapters.envoy.refusing import require_expressible
from seatrial.errors import InvalidDocumentError, Problem
from seatrial.evidence import Arm
from seatrial.routing import Assignment, KillScope
from seatrial.routing.assignment import arm_of, under_kills
from seatrial.routing.deciding import obey
from seatrial.units import SLOTS, digest_of, short

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from seatrial.adapters.envoy.settings import EnvoySettings
    from seatrial.routing import Kill, RoutingSnapshot

_ROUTE_TYPE = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
#: Answer to a unit that no release may answer: an error, so that nobody takes it for a score.
_STOPPED = 503
#: Milliseconds after which a release whose parts are unknown does not answer.
_PATIENCE_MS = 15_000.0


@dataclass(frozen=True, slots=True)
class Rendered:
    """What Envoy reads for one snapshot; the version names number and content."""

    version: str
    routes: dict[str, Any]
    clusters: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Branch:
    """Units that are assigned alike but for their draw."""

    match: tuple[dict[str, Any], ...]
    chosen: tuple[tuple[Assignment, int], ...]  #: with their slots, in the order in which Envoy walks them


def render(snapshot: RoutingSnapshot, settings: EnvoySettings, *, now: datetime) -> Rendered:
    """Return what Envoy serves by `snapshot`; raises InvalidDocumentError with all that it cannot do.

    What is over at `now` is left out; what ends later ends in Envoy.
    """
    require_expressible(snapshot, settings)
    routes = [route for branch in _branches(snapshot, settings, now) for route in _routes(snapshot, settings, branch)]
    configuration = {
        "@type": _ROUTE_TYPE,
        "name": ROUTES,
        "validate_clusters": True,
        "virtual_hosts": [
            {
                "name": snapshot.decision_point,
                "domains": ["*"],
                "metadata": {"filter_metadata": {LUA: {METADATA: _told(snapshot, settings)}}},
                "request_headers_to_remove": [ASSIGN, LIVE],
                "routes": routes,
            }
        ],
    }
    servers = clusters(snapshot, settings)
    version = f"{snapshot.number}/{short(digest_of([configuration, servers]))}"
    return Rendered(version, configuration, servers)


def _told(snapshot: RoutingSnapshot, settings: EnvoySettings) -> dict[str, Any]:
    ends = {f"pin-{at}": pin.expires_at for at, pin in enumerate(snapshot.pins)}
    if snapshot.lease_until is not None:
        ends["lease"] = snapshot.lease_until
    # Whole milliseconds, rounded down: in doubt it ends.
    told = {name: int(moment.timestamp() * 1_000) for name, moment in ends.items()}
    return {"salt": snapshot.salt, "unit_header": settings.unit_header, "ends": told}


def _branches(snapshot: RoutingSnapshot, settings: EnvoySettings, now: datetime) -> Iterator[_Branch]:
    number = snapshot.number
    for at, pin in enumerate(snapshot.pins):
        if now < pin.expires_at:
            named = (
                matches(pin.when, settings) if pin.unit_key is None else (equals(ASSIGN, snapshot.salt + pin.unit_key),)
            )
            pinned = Assignment(pin.release_id, arm_of(snapshot, pin.release_id), 0.0, number, None)
            yield _Branch((is_live(f"pin-{at}"), *named), ((pinned, SLOTS),))
    takes_part = (is_present(ASSIGN), *matches(snapshot.when, settings))
    shadow = snapshot.challenger if snapshot.shadow else None
    lease, challenger = snapshot.lease_until, snapshot.challenger
    if snapshot.slots and challenger is not None and lease is not None and now < lease:
        drawn = Assignment(challenger, Arm.CHALLENGER, snapshot.share, number, shadow)
        rest = Assignment(snapshot.champion, Arm.CHAMPION, snapshot.share, number, shadow)
        arms = ((drawn, snapshot.slots), (rest, SLOTS - snapshot.slots))
        yield _Branch((is_live("lease"), *takes_part), tuple(arm for arm in arms if arm[1]))
    fallback = Assignment(snapshot.fallback, arm_of(snapshot, snapshot.fallback), 0.0, number, shadow)
    if shadow is not None:
        yield _Branch(takes_part, ((fallback, SLOTS),))
    alone = Assignment(snapshot.fallback, fallback.arm, 0.0, number, None)
    yield _Branch((), ((alone, SLOTS),))


def _routes(snapshot: RoutingSnapshot, settings: EnvoySettings, branch: _Branch) -> Iterator[dict[str, Any]]:
    """Yield the branch's routes, for units in more killed segments first: the first match is all that hold."""
    segments = [kill for kill in snapshot.kills if kill.scope is KillScope.SEGMENT and not kill.is_drill]
    for size in range(len(segments), -1, -1):
        for inside in combinations(segments, size):
            rules = [rule for kill in inside for rule in matches(kill.when, settings)]
            arms = [
                (under_kills(snapshot, assigned, lambda kill, by, inside=inside: _holds(kill, by, inside)), slots)  # type: ignore[misc]
                for assigned, slots in branch.chosen
            ]
            yield {"match": {"prefix": "/", "headers": [*branch.match, *rules]}, **_action(snapshot, arms)}


def _holds(kill: Kill, release_id: str, inside: Sequence[Kill]) -> bool:
    if kill.scope is KillScope.SEGMENT:
        return kill in inside and release_id != kill.to
    return kill.holds(release_id, {})


def _action(snapshot: RoutingSnapshot, arms: list[tuple[Assignment, int]]) -> dict[str, Any]:
    stopped = [assigned for assigned, _ in arms if assigned.kill is not None]
    if stopped:
        if len(stopped) < len(arms):
            place = f"snapshot {snapshot.number} of {snapshot.decision_point!r}"
            finding = f"found order {_id_of(stopped[0])} on one of two releases that are compared"
            remedy = "roll the rollout back; Envoy cannot answer in the place of one arm"
            raise InvalidDocumentError([Problem(place, finding, remedy)])
        return _answer(snapshot, stopped[0])
    patience = max(_patience_ms(snapshot, assigned.release_id) for assigned, _ in arms)
    return {
        "route": {
            "timeout": f"{patience / 1_000:.3f}s",
            "weighted_clusters": {
                "use_hash_policy": True,
                "clusters": [
                    {"name": cluster_of(assigned.release_id), "weight": slots, **_headers(_said(assigned))}
                    for assigned, slots in arms
                ],
            },
            "hash_policy": [{"header": {"header_name": ASSIGN}}],
            **_mirror(snapshot, arms),
        }
    }


def _mirror(snapshot: RoutingSnapshot, arms: list[tuple[Assignment, int]]) -> dict[str, Any]:
    # One policy holds for the whole route: an order that moved one arm ends the copies of both.
    copied = {assigned.shadow_release_id for assigned, _ in arms}
    shadow = copied.pop() if len(copied) == 1 else None
    sampling = SLOTS if snapshot.budget is None else snapshot.budget.sampling
    if shadow is None or sampling == 0:
        return {}
    part = {"default_value": {"numerator": sampling, "denominator": "TEN_THOUSAND"}}
    mark = {"append": {"header": {"key": "x-seatrial-shadow", "value": shadow}, "append_action": _OVERWRITE}}
    policy = {"cluster": shadow_of(shadow), "runtime_fraction": part, "request_headers_mutations": [mark]}
    return {"request_mirror_policies": [policy]}


def _answer(snapshot: RoutingSnapshot, stopped: Assignment) -> dict[str, Any]:
    kill = stopped.kill
    parts = snapshot.parts.get(stopped.release_id)
    if kill is None or parts is None:
        place = f"snapshot {snapshot.number} of {snapshot.decision_point!r}"
        finding = f"found order {_id_of(stopped)} on release {short(stopped.release_id)}, whose policy is not there"
        raise InvalidDocumentError([Problem(place, finding, "publish the snapshot with its parts")])
    taken = obey(parts, kill)
    said = {"x-seatrial-kill": kill.id, "x-seatrial-course": taken.course.value, "x-seatrial-snapshot": snapshot.number}
    if taken.action is not None:
        said["x-seatrial-action"] = taken.action
    body = f"stopped by order {kill.id}; do as the headers x-seatrial-course and x-seatrial-action say\n"
    added = _headers(said)["response_headers_to_add"]
    return {
        "direct_response": {"status": _STOPPED, "body": {"inline_string": body}},
        "response_headers_to_add": added,
    }


def _id_of(assigned: Assignment) -> str:
    return "" if assigned.kill is None else assigned.kill.id


def _said(assigned: Assignment) -> dict[str, object]:
    """Return what server and caller are told, for the decision log."""
    return {
        "x-seatrial-release": assigned.release_id,
        "x-seatrial-arm": assigned.arm.value,
        "x-seatrial-share": assigned.share,
        "x-seatrial-snapshot": assigned.snapshot_no,
    }


_OVERWRITE = "OVERWRITE_IF_EXISTS_OR_ADD"


def _headers(said: dict[str, Any]) -> dict[str, Any]:
    # A percent sign would begin one of Envoy's commands.
    added = [
        {"header": {"key": name, "value": str(value).replace("%", "%%")}, "append_action": _OVERWRITE}
        for name, value in said.items()
    ]
    return {"request_headers_to_add": added, "response_headers_to_add": added}


def _patience_ms(snapshot: RoutingSnapshot, release_id: str) -> float:
    parts = snapshot.parts.get(release_id)
    return _PATIENCE_MS if parts is None else parts.timeout_ms
