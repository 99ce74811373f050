"""Model servers in environments of their own, which `make servers` makes: MLServer and KServe's Python server.

What they need contradicts what the control plane needs, so that they are only ever reached over the network.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deployments.processes import LOOPBACK, free_port, start

if TYPE_CHECKING:
    from collections.abc import Sequence

    from deployments.processes import Child

_ENVIRONMENTS = Path(__file__).resolve().parent.parent / ".venv-servers"


def find(server: str) -> Path | None:
    """Return the folder of programs of `server` (mlserver or kserve); None when its environment was not made."""
    folder = _ENVIRONMENTS / server
    return folder / "bin" if (folder / "made-from").exists() else None


@dataclass(frozen=True, slots=True)
class Started:
    """A model server that was started; it is ready once its models say so."""

    child: Child
    url: str  #: where it answers the Open Inference Protocol over HTTP


def start_mlserver(programs: Path, models: Path, *, home: Path) -> Started:
    """Start MLServer on the folder `models`, which holds a folder with ``model-settings.json`` for each version.

    Its ``settings.json`` is written there.
    """
    port, grpc_port, metrics_port = (free_port(f"MLServer {purpose}") for purpose in ("HTTP", "gRPC", "metrics"))
    written = {
        "host": LOOPBACK,
        "http_port": port,
        "grpc_port": grpc_port,
        "metrics_port": metrics_port,
        # A worker process of 1.7.1 dies with uvloop ("no current event loop"), and the server is never ready.
        "parallel_workers": 0,
        "extensions": ["model_repository"],
    }
    (models / "settings.json").write_text(json.dumps(written), encoding="utf-8")
    return _started("mlserver", [str(programs / "mlserver"), "start", str(models)], port, home)


def start_kserve(programs: Path, script: Path, arguments: Sequence[str], *, home: Path) -> Started:
    """Start a Python server of KServe: `script` is given ``--http_port`` and `arguments`."""
    port = free_port("KServe")
    argv = [str(programs / "python"), str(script), "--http_port", str(port), "--enable_grpc", "false", *arguments]
    return _started("kserve", argv, port, home)


def _started(name: str, argv: list[str], port: int, home: Path) -> Started:
    # Its own programs come first on the path, for servers start helpers by name.
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(argv[0]).parent), os.environ.get("PATH", "")])}
    child = start(name, argv, home=home, environment=environment, directory=home)
    return Started(child, f"http://{LOOPBACK}:{port}")
