"""Model servers as Envoy's clusters: one for each release, and a small one for copies to the shadow."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from seatrial.adapters.envoy.settings import EnvoySettings
    from seatrial.routing import RoutingSnapshot

_CLUSTER_TYPE = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
#: Copies under way at once where no budget says it.
_COPIES = 8
#: Connections and requests under way to a release that answers; overload is for its server to refuse.
_REQUESTS = 10_000


def cluster_of(release_id: str) -> str:
    """Return the name of the cluster that answers, under which Envoy counts: the digits of the release's id."""
    return release_id.removeprefix("sha256:").replace(":", "-")


def shadow_of(release_id: str) -> str:
    """Return the name of the cluster that takes copies."""
    return f"shadow-{cluster_of(release_id)}"


def clusters(snapshot: RoutingSnapshot, settings: EnvoySettings) -> list[dict[str, Any]]:
    """Return the clusters that `snapshot` needs."""
    found = [
        _cluster(cluster_of(release_id), settings.releases[release_id], _REQUESTS)
        for release_id in sorted(snapshot.releases())
    ]
    if snapshot.shadow and snapshot.challenger is not None:
        # A slow shadow would else pile up connections and requests without end.
        limit = _COPIES if snapshot.budget is None else snapshot.budget.max_concurrent
        found.append(_cluster(shadow_of(snapshot.challenger), settings.releases[snapshot.challenger], limit))
    return found


def _cluster(name: str, url: str, limit: int) -> dict[str, Any]:
    server = urlsplit(url)
    address = {"socket_address": {"address": server.hostname, "port_value": server.port}}
    most = dict.fromkeys(("max_connections", "max_pending_requests", "max_requests"), limit)
    return {
        "@type": _CLUSTER_TYPE,
        "name": name,
        "type": "STATIC" if _is_ip(server.hostname or "") else "STRICT_DNS",
        "connect_timeout": "1s",
        "circuit_breakers": {"thresholds": [{**most, "max_retries": 0}]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
    }


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
