"""What Envoy is started with: where it listens, the files it watches, and the script that looks at the lease.

The script runs before the route is chosen. It writes the header that Envoy hashes, salt and unit key, and names the
comparison and the pins whose time is not over, so that an experiment ends in Envoy itself, whoever else is gone. What a
caller sends under these names is taken out first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.adapters.envoy.settings import EnvoySettings

#: Prefix of Envoy's counters of requests from callers.
LISTENER = "ingress"
#: Name of the route configuration that the agent writes.
ROUTES = "main"
#: Files that Envoy watches, in the agent's folder.
ROUTES_FILE, CLUSTERS_FILE = "routes.json", "clusters.json"
#: Header that Envoy hashes: salt and unit key; absent without exactly one unit key.
ASSIGN = "x-seatrial-assign"
#: Header that names what is not over yet, as ``|lease|pin-0|``.
LIVE = "x-seatrial-live"
#: Key of the virtual host's metadata that the script reads.
LUA, METADATA = "envoy.filters.http.lua", "seatrial"

_TYPE = "type.googleapis.com/envoy.extensions.filters"

_SCRIPT = f"""
function envoy_on_request(handle)
  local headers = handle:headers()
  headers:remove("{ASSIGN}")
  headers:remove("{LIVE}")
  local told = handle:virtualHost():metadata():get("{METADATA}")
  local unit = headers:get(told["unit_header"])
  if unit ~= nil and headers:getNumValues(told["unit_header"]) == 1 then
    headers:add("{ASSIGN}", told["salt"] .. unit)
  end
  local now = tonumber(tostring(handle:timestamp(EnvoyTimestampResolution.MILLISECOND)))
  local live = "|"
  for name, ends in pairs(told["ends"]) do
    if now < ends then live = live .. name .. "|" end
  end
  headers:add("{LIVE}", live)
  handle:clearRouteCache()
end
"""


def bootstrap(settings: EnvoySettings, folder: Path) -> dict[str, Any]:
    """Return the configuration that Envoy is started with; it never changes while releases come and go."""
    return {
        "node": {"id": settings.router, "cluster": settings.decision_point},
        "admin": {"address": _address("127.0.0.1", settings.admin)},
        "dynamic_resources": {"cds_config": watched(folder / CLUSTERS_FILE)},
        "static_resources": {
            "listeners": [
                {
                    "name": LISTENER,
                    "address": _address(settings.host, settings.listen),
                    "filter_chains": [{"filters": [_connections(folder)]}],
                }
            ]
        },
    }


def watched(path: Path) -> dict[str, Any]:
    """Return a source of configuration: a file that is read again when it is replaced by renaming."""
    return {
        "path_config_source": {"path": str(path), "watched_directory": {"path": str(path.parent)}},
        "resource_api_version": "V3",
    }


def _connections(folder: Path) -> dict[str, Any]:
    return {
        "name": "connections",
        "typed_config": {
            "@type": f"{_TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": LISTENER,
            "rds": {"route_config_name": ROUTES, "config_source": watched(folder / ROUTES_FILE)},
            "http_filters": [
                {
                    "name": LUA,
                    "typed_config": {
                        "@type": f"{_TYPE}.http.lua.v3.Lua",
                        "default_source_code": {"inline_string": _SCRIPT},
                    },
                },
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{_TYPE}.http.router.v3.Router"},
                },
            ],
        },
    }


def _address(host: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": host, "port_value": port}}
