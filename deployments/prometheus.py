"""Find, unpack and start the Prometheus that the tests of metrics ask.

``python -m deployments.prometheus`` unpacks Debian's package below the virtual environment. It is not installed: an
installed package starts a service of its own, and needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import requests

from deployments.processes import LOOPBACK, start
from deployments.programs import INSTALL_S, announce, has_started, run

if TYPE_CHECKING:
    from deployments.processes import Child

#: Goes with the virtual environment, so that `make clean` deletes it.
_UNPACKED = Path(sys.prefix) / "prometheus"
_REQUEST_S = 5.0


def find() -> Path | None:
    """Return the unpacked Prometheus, or one on the path, that starts; None when neither does."""
    for program in (str(_UNPACKED / "usr" / "bin" / "prometheus"), shutil.which("prometheus")):
        if program is not None and has_started(program):
            return Path(program)
    return None


def _unpack() -> str:
    """Unpack the package and return an empty text, or the reason why not."""
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or dpkg is None:
        return "this system has no apt-get with dpkg-deb"
    with TemporaryDirectory() as folder:
        reason = _fetch(apt, Path(folder))
        if reason and os.geteuid() == 0:
            # Its lists may be older than what the archive still has.
            run([apt, "--quiet", "update"], timeout_s=INSTALL_S)
            reason = _fetch(apt, Path(folder))
        if reason:
            return reason
        (package,) = Path(folder).glob("*.deb")
        done = run([dpkg, "-x", str(package), str(_UNPACKED)], timeout_s=INSTALL_S)
    return "" if done.returncode == 0 else f"dpkg-deb ended with code {done.returncode}: {done.stderr.strip()}"


def _fetch(apt: str, folder: Path) -> str:
    try:
        done = run([apt, "--quiet", "download", "prometheus"], timeout_s=INSTALL_S, directory=folder)
    except subprocess.TimeoutExpired:
        return f"apt-get download took more than {INSTALL_S} s"
    return "" if done.returncode == 0 else f"apt-get download ended with code {done.returncode}: {done.stderr.strip()}"


@dataclass(frozen=True, slots=True)
class Server:
    """A Prometheus that listens on loopback alone."""

    home: Path  #: its data and its log
    port: int

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOOPBACK}:{self.port}"

    def start(self, program: Path, configuration: Path) -> Child:
        """Start it with the scrape configuration of a file; it is ready once `is_ready` says so."""
        return start(
            "prometheus",
            [
                str(program),
                f"--config.file={configuration}",
                f"--storage.tsdb.path={self.home / 'prometheus'}",
                f"--web.listen-address={LOOPBACK}:{self.port}",
            ],
            home=self.home,
            environment=os.environ,
            directory=self.home,
        )

    def is_ready(self) -> bool:
        """Return whether it answers queries."""
        try:
            return requests.get(f"{self.url}/-/ready", timeout=_REQUEST_S).ok
        except requests.RequestException:
            return False


def main() -> int:
    """Print where Prometheus is, unpacking it if need be; always 0, for the tests say what its absence means."""
    absence = "the tests of metrics need one; install prometheus with your package manager"
    announce("prometheus", find, _unpack, absence)
    return 0


if __name__ == "__main__":
    sys.exit(main())
