"""How Envoy is started: one listener, one administration port on loopback, routes and clusters from files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seatrial.adapters.envoy.rendering import LUA, unrouted
from seatrial.adapters.file_feed import write_whole

if TYPE_CHECKING:
    from pathlib import Path

_HTTP = "type.googleapis.com/envoy.extensions.filters"
#: Bytes that one connection may buffer.
_BUFFER = 1 << 20
#: Connections of callers at once; without a limit Envoy warns, and a flood takes all memory.
_CONNECTIONS = 10_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where one Envoy lives."""

    folder: Path
    port: int
    admin_port: int
    host: str = "127.0.0.1"

    @property
    def routes(self) -> Path:
        """The file with the routes."""
        return self.folder / "routes" / "routes.json"

    @property
    def clusters(self) -> Path:
        """The file with the clusters."""
        return self.folder / "clusters" / "clusters.json"

    @property
    def bootstrap(self) -> Path:
        """The file that Envoy is started with."""
        return self.folder / "bootstrap.json"

    @property
    def admin_url(self) -> str:
        """Where Envoy answers questions about itself."""
        return f"http://127.0.0.1:{self.admin_port}"


def command(program: Path, place: Place, *, concurrency: int = 1) -> list[str]:
    """Return how `program` is started at `place`.

    Without the flag on unknown fields a misspelt route file is taken, and every request answered with 404.
    """
    flags = ["--disable-hot-restart", "--reject-unknown-dynamic-fields", "--log-level", "warning"]
    return [str(program), "--config-path", str(place.bootstrap), "--concurrency", str(concurrency), *flags]


def write_bootstrap(place: Place) -> None:
    """Write the file that Envoy is started with; before the first snapshot it answers every request with 503.

    Routes and clusters that are there already stay: an Envoy that is started again serves what it served.
    """
    for path, empty in ((place.clusters, {"resources": []}), (place.routes, unrouted())):
        if not path.exists():
            write_whole(path, json.dumps(empty).encode())
    write_whole(place.bootstrap, json.dumps(_bootstrap(place), indent=1).encode())


def _bootstrap(place: Place) -> dict[str, Any]:
    return {
        "admin": {"address": _address("127.0.0.1", place.admin_port)},
        "node": {"id": "seatrial", "cluster": "seatrial"},
        "overload_manager": {
            "resource_monitors": [
                {
                    "name": "envoy.resource_monitors.global_downstream_max_connections",
                    "typed_config": {
                        "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3"
                        ".DownstreamConnectionsConfig",
                        "max_active_downstream_connections": _CONNECTIONS,
                    },
                }
            ]
        },
        "dynamic_resources": {"cds_config": _watched(place.clusters)},
        "static_resources": {"listeners": [_listener(place)]},
    }


def _listener(place: Place) -> dict[str, Any]:
    manager = {
        "@type": f"{_HTTP}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "rds": {"route_config_name": "routes", "config_source": _watched(place.routes)},
        "http_filters": [
            {
                "name": "envoy.filters.http.lua",
                "typed_config": {
                    "@type": f"{_HTTP}.http.lua.v3.Lua",
                    "default_source_code": {"inline_string": LUA},
                },
            },
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{_HTTP}.http.router.v3.Router"},
            },
        ],
    }
    return {
        "name": "ingress",
        "address": _address(place.host, place.port),
        "per_connection_buffer_limit_bytes": _BUFFER,
        "filter_chains": [
            {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        ],
    }


def _watched(path: Path) -> dict[str, Any]:
    # Envoy sees a file that is moved into a watched folder, and never one that is written in place.
    return {
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
        "resource_api_version": "V3",
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
