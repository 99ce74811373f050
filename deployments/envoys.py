"""A real Envoy with its agent, in front of model servers that are a second Envoy: each answers with its own name."""

from __future__ import annotations

import json
import os
import re
import socket
import sysconfig
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

from deployments import processes
from seatrial.adapters.envoy import Admin, EnvoyAgent, EnvoySettings, bootstrap
from seatrial.adapters.router import InProcessRouter
from seatrial.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from seatrial.ports import RouterReport
    from seatrial.routing import RoutingSnapshot

#: Seconds for what a busy machine may take.
PATIENCE_S = 60.0
#: The decision point, and its releases.
POINT = "fraud"
RELEASES = ("champion", "challenger", "older")
_BATCH = 250
_PROGRAM = Path(sysconfig.get_path("platlib")) / "envoy" / "_bin" / "envoy"
_ANSWERED = re.compile(rb"HTTP/1\.1 (\d+).*?\r\n\r\n", re.DOTALL)


def start_envoy(name: str, configuration: dict[str, Any], home: Path) -> processes.Child:
    """Start an Envoy with one worker."""
    path = home / f"{name}.json"
    path.write_text(json.dumps(configuration))
    words = ["--disable-hot-restart", "--concurrency", "1", "--reject-unknown-dynamic-fields", "-l", "warning"]
    argv = [str(_PROGRAM), "-c", str(path), *words]
    return processes.start(name, argv, home=home, environment=dict(os.environ), directory=home)


def counters(port: int, pattern: str) -> dict[str, int]:
    """Return the counters of the Envoy whose administration listens on `port`."""
    answer = requests.get(
        f"http://127.0.0.1:{port}/stats", params={"format": "json", "filter": pattern}, timeout=PATIENCE_S
    )
    return {each["name"]: each["value"] for each in answer.json()["stats"] if "name" in each}


def is_live(port: int) -> bool:
    """Return whether that Envoy is ready."""
    try:
        return requests.get(f"http://127.0.0.1:{port}/ready", timeout=5).ok
    except requests.RequestException:
        return False


def upstreams(ports: dict[str, int], admin: int) -> dict[str, Any]:
    """Return an Envoy that is one model server for each release: it answers by itself, at Envoy's speed."""
    return {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {"listeners": [_server(name, port) for name, port in ports.items()]},
    }


def _server(name: str, port: int) -> dict[str, Any]:
    http = "type.googleapis.com/envoy.extensions.filters"
    answer = {"status": 200, "body": {"inline_string": name}}
    # Copies are told apart by the header that they carry.
    copies = {"prefix": "/", "headers": [{"name": "x-seatrial-shadow", "present_match": True}]}
    routes = [
        {"match": copies, "stat_prefix": "copies", "direct_response": answer},
        {"match": {"prefix": "/"}, "direct_response": answer},
    ]
    return {
        "name": name,
        "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "connections",
                        "typed_config": {
                            "@type": f"{http}.network.http_connection_manager.v3.HttpConnectionManager",
                            "stat_prefix": name,
                            "route_config": {
                                "virtual_hosts": [{"name": name, "domains": ["*"], "routes": routes}],
                            },
                            "http_filters": [
                                {
                                    "name": "router",
                                    "typed_config": {"@type": f"{http}.http.router.v3.Router"},
                                }
                            ],
                        },
                    }
                ]
            }
        ],
    }


@dataclass
class Feed:
    """A control plane: what is published, and what is reported; gone when told so."""

    present: RoutingSnapshot | None = None
    reports: list[RouterReport] = field(default_factory=list)
    is_gone: bool = False

    def snapshot(self, _decision_point: str) -> RoutingSnapshot:
        """Return what is published."""
        if self.is_gone or self.present is None:
            raise UnavailableError("gone")
        return self.present

    def report(self, report: RouterReport) -> None:
        """Keep the report."""
        if self.is_gone:
            raise UnavailableError("gone")
        self.reports.append(report)


@dataclass
class Stack:
    """Envoy, its agent, and where the model servers count."""

    home: Path
    settings: EnvoySettings
    feed: Any  #: a Feed where it is told what to publish
    upstream_admin: int
    child: processes.Child | None = None

    def __post_init__(self) -> None:
        self.files = self.home / "envoy"
        self.files.mkdir(exist_ok=True)
        self.agent = self.new_agent()

    def new_agent(self) -> EnvoyAgent:
        """Put another agent in the place of the one that was."""
        holder = InProcessRouter("envoy", self.feed, POINT)
        admin = Admin(self.settings.admin, answer_s=PATIENCE_S)
        self.agent = EnvoyAgent(self.settings, self.files, admin, holder, self.feed, patience_s=PATIENCE_S)
        return self.agent

    def start(self) -> None:
        """Start Envoy from the files that the agent wrote."""
        self.child = start_envoy("envoy", bootstrap(self.settings, self.files), self.home)
        self.child.await_ready(lambda: is_live(self.settings.admin), deadline_s=PATIENCE_S)

    def publish(self, snapshot: RoutingSnapshot, now: datetime) -> bool:
        """Publish `snapshot` and return whether Envoy serves it."""
        self.feed.present = snapshot
        return self.agent.round(now=now)

    def asked(self, units: Iterable[str | None], **headers: str) -> list[dict[str, str]]:
        """Return the answer to each unit: its headers, and its status."""
        return list(answers(self.settings.listen, units, headers))

    def releases(self, units: Iterable[str | None], **headers: str) -> list[str]:
        """Return who answered each unit."""
        return [each["x-seatrial-release"] for each in self.asked(units, **headers)]

    def requests_of(self, release: str) -> int:
        """Return how many requests a model server has seen, copies among them."""
        found = counters(self.upstream_admin, rf"^http\.{release}\.downstream_rq_total$")
        return found.get(f"http.{release}.downstream_rq_total", 0)


def answers(port: int, units: Iterable[str | None], headers: dict[str, str]) -> Iterator[dict[str, str]]:
    """Yield the headers of each answer, asked for on one connection without waiting for the one before."""
    rest = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    wanted = list(units)
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as connection:
        for at in range(0, len(wanted), _BATCH):
            batch = wanted[at : at + _BATCH]
            lines = ("" if unit is None else f"x-seatrial-unit: {unit}\r\n" for unit in batch)
            connection.sendall("".join(f"GET / HTTP/1.1\r\nhost: h\r\n{line}{rest}\r\n" for line in lines).encode())
            yield from _read(connection, len(batch))


def _read(connection: socket.socket, count: int) -> Iterator[dict[str, str]]:
    buffer = b""
    while count:
        received = connection.recv(1 << 16)
        if not received:
            raise UnavailableError("Envoy closed the connection; look at its log")
        buffer += received
        end = 0
        for match in _ANSWERED.finditer(buffer):
            lines = match[0].decode().split("\r\n")[1:]
            said = dict(line.split(": ", 1) for line in lines if ": " in line)
            if len(buffer) < match.end() + int(said["content-length"]):
                break  # the body is still on its way
            end = match.end() + int(said["content-length"])
            count -= 1
            yield {**said, "status": match[1].decode()}
        buffer = buffer[end:]


@contextmanager
def running(home: Path, feed: Any, now: datetime) -> Iterator[Stack]:
    """Give an Envoy that serves what `feed` has, in front of model servers; all of them end with the block."""
    ports = {name: processes.free_port(name) for name in RELEASES}
    listen, admin, upstream_admin = (processes.free_port(name) for name in ("envoy", "admin", "servers' admin"))
    settings = EnvoySettings.model_validate(
        {
            "decision_point": POINT,
            "router": "envoy",
            "control": "unused",
            "folder": "unused",
            "listen": listen,
            "admin": admin,
            "releases": {name: f"http://127.0.0.1:{port}" for name, port in ports.items()},
        }
    )
    servers = start_envoy("servers", upstreams(ports, upstream_admin), home)
    stack = Stack(home, settings, feed, upstream_admin)
    try:
        servers.await_ready(lambda: is_live(upstream_admin), deadline_s=PATIENCE_S)
        # Envoy is not there yet: it starts from the files.
        stack.agent.round(now=now)
        stack.start()
        if not stack.agent.round(now=now):
            raise UnavailableError("Envoy does not serve what is published; look at its log")
        yield stack
    finally:
        if stack.child is not None:
            stack.child.stop(grace_s=10)
        servers.stop(grace_s=10)
