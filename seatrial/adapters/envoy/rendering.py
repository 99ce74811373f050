"""A routing snapshot as Envoy's routes and clusters, unit by unit the same assignment.

Units are divided into classes by the rules that a snapshot holds; all units of a class are assigned alike but for their
slot. Each class becomes one or two routes, the most special first, whose action is what `outcome` says of it.

Envoy hashes a header as it is. A Lua filter writes the salted key into a header of its own and takes away what a caller
may have sent there, but only while the lease lasts: without that header no route of the comparison matches, so that
Envoy ends an experiment by itself, whoever else is gone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from itertools import combinations, product
from typing import TYPE_CHECKING, Any

from seatrial.errors import RefusedError
from seatrial.routing.assignment import outcome
from seatrial.routing.orders import KillMode, is_matched
from seatrial.units import SLOTS, short

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from seatrial.routing import Assignment, Kill, RoutingSnapshot

#: Header in which a caller names the unit; without it the fallback answers.
UNIT = "x-seatrial-unit"
#: Before the name of a column, with dashes: headers in which a caller says what is known of the unit.
ATTRIBUTE = "x-seatrial-attribute-"
#: Header that the filter writes and Envoy hashes; what a caller sends in it is thrown away.
KEY = "x-seatrial-slot-key"
#: Headers of the answer.
SNAPSHOT, RELEASE, KILL = "x-seatrial-snapshot", "x-seatrial-release", "x-seatrial-kill"

#: Rules of a snapshot beyond which there would be more classes than anybody could read.
MOST_RULES = 6
#: Requests to the shadow that may wait or be under way, unless the budget says otherwise: a slow one must not pile up.
_SHADOW_REQUESTS = 8
#: Longest time that Envoy waits for an answer where the release declares no timeout.
_TIMEOUT = "15s"

LUA = """
function envoy_on_request(handle)
  local headers = handle:headers()
  headers:remove("x-seatrial-slot-key")
  local route = handle:metadata()
  local salt, lease, unit = route:get("salt"), route:get("lease_ms"), headers:get("x-seatrial-unit")
  if salt and lease and unit and tonumber(handle:timestamp(EnvoyTimestampResolution.MILLISECOND)) < tonumber(lease) then
    headers:replace("x-seatrial-slot-key", salt .. unit)
  end
end
"""

_FILTER = "envoy.filters.http.lua"
_NEVER = datetime.max.replace(tzinfo=UTC)
_ALWAYS = datetime.min.replace(tzinfo=UTC)


def cluster_of(release_id: str) -> str:
    """Return the name of the cluster that answers for a release."""
    return f"release-{short(release_id)}"


def shadow_of(release_id: str) -> str:
    """Return the name of the cluster that scores copies for a release; its circuit breakers are its own."""
    return f"shadow-{short(release_id)}"


def version_of(snapshot: RoutingSnapshot) -> str:
    """Return the name under which Envoy reports the routes of `snapshot`; a longer lease is another one."""
    lease = 0 if snapshot.lease_until is None else _milliseconds(snapshot.lease_until)
    return f"{snapshot.number}-{short(snapshot.digest)}-{lease}"


def routes(snapshot: RoutingSnapshot, *, now: datetime) -> dict[str, Any]:
    """Return the discovery response with the routes of `snapshot` at `now`.

    Raises RefusedError for a snapshot whose rules are too many to be written out.
    """
    table = [route for members in _classes(snapshot) for route in _of_class(snapshot, members, now=now)]
    return _discovered(version_of(snapshot), table)


def unrouted() -> dict[str, Any]:
    """Return the discovery response of before the first snapshot: no release is known to answer."""
    body = {"inline_string": '{"error": "no snapshot yet"}'}
    return _discovered("none", [{"match": {"prefix": "/"}, "direct_response": {"status": 503, "body": body}}])


def _discovered(version: str, table: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "version_info": version,
        "resources": [
            {
                "@type": "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
                "name": "routes",
                # A route to a cluster that is not there would answer its part of the requests with 503.
                "validate_clusters": True,
                "virtual_hosts": [{"name": "all", "domains": ["*"], "routes": table}],
            }
        ],
    }


def clusters(snapshot: RoutingSnapshot, addresses: Mapping[str, tuple[str, int]]) -> dict[str, Any]:
    """Return the discovery response with a cluster for each release in `snapshot`, and the shadow's.

    `addresses` has host and port by release id. Raises RefusedError naming every release without one.
    """
    wanted = sorted(snapshot.releases())
    if missing := [short(release_id) for release_id in wanted if release_id not in addresses]:
        raise RefusedError(
            f"snapshot {snapshot.number}: no address of {', '.join(missing)}; name where each release answers before"
            " it is rolled out"
        )
    found = [_cluster(cluster_of(release_id), *addresses[release_id]) for release_id in wanted]
    if snapshot.shadow and snapshot.challenger is not None:
        at_once = _SHADOW_REQUESTS if snapshot.budget is None else snapshot.budget.max_concurrent
        limits = {
            "max_connections": at_once,
            "max_pending_requests": at_once,
            "max_requests": at_once,
            "max_retries": 0,
        }
        copies = _cluster(shadow_of(snapshot.challenger), *addresses[snapshot.challenger])
        found.append({**copies, "circuit_breakers": {"thresholds": [limits]}})
    return {"version_info": version_of(snapshot), "resources": found}


def _cluster(name: str, host: str, port: int) -> dict[str, Any]:
    address = {"socket_address": {"address": host, "port_value": port}}
    return {
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": name,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _classes(snapshot: RoutingSnapshot) -> Iterator[tuple[dict[str, str], list[Mapping[str, tuple[str, ...]]]]]:
    """Yield attributes that exactly some of the rules match, with those rules, the most rules first."""
    held = [snapshot.when, *(pin.when for pin in snapshot.pins), *(kill.when for kill in snapshot.kills)]
    rules = [rule for at, rule in enumerate(held) if rule and rule not in held[:at]]
    if len(rules) > MOST_RULES:
        raise RefusedError(
            f"snapshot {snapshot.number}: {len(rules)} rules of segments, pins and kills; Envoy is given at most"
            f" {MOST_RULES}; lift a pin or a kill"
        )
    for size in range(len(rules), -1, -1):
        for chosen in combinations(rules, size):
            witness = _witness(chosen, [rule for rule in rules if rule not in chosen])
            if witness is not None:
                yield witness, list(chosen)


def _witness(
    chosen: Sequence[Mapping[str, tuple[str, ...]]], others: Sequence[Mapping[str, tuple[str, ...]]]
) -> dict[str, str] | None:
    """Return attributes that all of `chosen` match and none of `others`; None when earlier classes have them all."""
    columns = sorted({column for rule in chosen for column in rule})
    allowed = [_allowed(chosen, column) for column in columns]
    for values in product(*allowed):
        attributes = dict(zip(columns, values, strict=True))
        if not any(is_matched(rule, attributes) for rule in others):
            return attributes
    return None


def _allowed(rules: Sequence[Mapping[str, tuple[str, ...]]], column: str) -> list[str]:
    sets = [rule[column] for rule in rules if column in rule]
    return [value for value in sets[0] if all(value in values for values in sets)]


def _of_class(
    snapshot: RoutingSnapshot,
    members: tuple[dict[str, str], list[Mapping[str, tuple[str, ...]]]],
    *,
    now: datetime,
) -> Iterator[dict[str, Any]]:
    """Yield the routes of one class: of pinned units, of the comparison, and of everybody else in it."""
    attributes, rules = members
    matchers = [_matcher(column, values) for rule in rules for column, values in sorted(rule.items())]

    def assigned(unit: str | None, moment: datetime, *, is_drawn: bool = False) -> Assignment:
        return outcome(snapshot, unit, attributes, is_drawn=is_drawn, is_copied=snapshot.shadow, now=moment)

    for unit in sorted({pin.unit_key for pin in snapshot.pins if pin.unit_key is not None and now < pin.expires_at}):
        exact = {"name": UNIT, "string_match": {"exact": unit}}
        yield _route(snapshot, [*matchers, exact], [(assigned(unit, now), 1)])
    if snapshot.slots and snapshot.lease_until is not None and now < snapshot.lease_until:
        drawn, rest = assigned(None, now, is_drawn=True), assigned(None, now)
        if drawn != rest:
            present = {"name": KEY, "present_match": True}
            split = [(drawn, snapshot.slots), (rest, SLOTS - snapshot.slots)]
            yield _route(snapshot, [*matchers, present], split)
    yield _route(snapshot, matchers, [(assigned(None, _later(snapshot, now)), 1)])


def _later(snapshot: RoutingSnapshot, now: datetime) -> datetime:
    """Return the first moment at which the lease does not count, for whoever is in no comparison."""
    return now if snapshot.lease_until is None else max(now, snapshot.lease_until)


def _matcher(column: str, values: tuple[str, ...]) -> dict[str, Any]:
    either = "|".join(re.escape(value) for value in values)
    return {"name": _header(column), "string_match": {"safe_regex": {"regex": f"^(?:{either})$"}}}


def _header(column: str) -> str:
    return f"{ATTRIBUTE}{column.lower().replace('_', '-')}"


def _route(
    snapshot: RoutingSnapshot, matchers: list[dict[str, Any]], split: list[tuple[Assignment, int]]
) -> dict[str, Any]:
    first = split[0][0]
    route: dict[str, Any] = {
        "match": {"prefix": "/", **({"headers": matchers} if matchers else {})},
        "metadata": {"filter_metadata": {_FILTER: _metadata(snapshot)}},
        "response_headers_to_add": [_told(SNAPSHOT, str(snapshot.number))],
    }
    if first.kill is not None:
        return {**route, **_killed(route, first.kill)}
    if len(split) == 1:
        route["response_headers_to_add"].append(_told(RELEASE, first.release_id))
        action: dict[str, Any] = {"cluster": cluster_of(first.release_id)}
    else:
        weighted = [
            {
                "name": cluster_of(each.release_id),
                "weight": weight,
                "response_headers_to_add": [_told(RELEASE, each.release_id)],
            }
            for each, weight in split
            if weight
        ]
        action = {
            "weighted_clusters": {"clusters": weighted, "use_hash_policy": True},
            "hash_policy": [{"header": {"header_name": KEY}}],
        }
    if first.shadow_release_id is not None:
        action["request_mirror_policies"] = [_mirror(snapshot, first.shadow_release_id)]
    return {**route, "route": {**action, "timeout": _timeout(snapshot, [each for each, _ in split])}}


def _metadata(snapshot: RoutingSnapshot) -> dict[str, str]:
    if not snapshot.slots or snapshot.lease_until is None:
        return {}
    return {"salt": snapshot.salt, "lease_ms": str(_milliseconds(snapshot.lease_until))}


def _told(header: str, value: str) -> dict[str, Any]:
    # A percent sign begins a command in Envoy's header values.
    return {
        "header": {"key": header, "value": value.replace("%", "%%")},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }


def _killed(route: Mapping[str, Any], kill: Kill) -> dict[str, Any]:
    """Return a route that answers for a killed class: Envoy has no policy, so the caller takes its safe action."""
    mode = kill.mode if kill.mode is not KillMode.PREVIOUS_RELEASE else KillMode.SAFE_FALLBACK
    headers = [*route["response_headers_to_add"], _told(KILL, f"{kill.id}; {mode}")]
    body = {"inline_string": f'{{"error": "taken out of service", "kill": "{kill.id}", "mode": "{mode}"}}'}
    return {"response_headers_to_add": headers, "direct_response": {"status": 503, "body": body}}


def _mirror(snapshot: RoutingSnapshot, release_id: str) -> dict[str, Any]:
    sampling = SLOTS if snapshot.budget is None else snapshot.budget.sampling
    share = {"numerator": sampling, "denominator": "TEN_THOUSAND"}
    return {"cluster": shadow_of(release_id), "runtime_fraction": {"default_value": share}}


def _timeout(snapshot: RoutingSnapshot, assigned: Sequence[Assignment]) -> str:
    limits = [snapshot.parts[each.release_id].timeout_ms for each in assigned if each.release_id in snapshot.parts]
    return f"{max(limits) / 1_000:.3f}s" if limits else _TIMEOUT


def _milliseconds(moment: datetime) -> int:
    """Return `moment` since 1970, rounded down: a lease ends early rather than late."""
    return int(moment.timestamp() * 1_000)
