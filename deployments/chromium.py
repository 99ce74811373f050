"""Find or install the Chromium that the browser tests drive.

``python -m deployments.chromium`` installs it where that needs no decision: as root, with apt-get.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from deployments.programs import INSTALL_S, announce, has_started, run

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> Path | None:
    """Return the first installed Chromium that starts, or None."""
    for name in _NAMES:
        program = shutil.which(name)
        # Ubuntu installs a script of this name that only asks for a snap.
        if program is not None and has_started(program):
            return Path(program)
    return None


def _install() -> str:
    """Install it and return an empty text, or the reason why not."""
    apt = shutil.which("apt-get")
    if apt is None:
        return "this system has no apt-get"
    if os.geteuid() != 0:
        return "only root may run apt-get"
    for words in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        try:
            done = run([apt, "--quiet", *words], timeout_s=INSTALL_S)
        except subprocess.TimeoutExpired:
            return f"apt-get {words[0]} took more than {INSTALL_S} s"
        if done.returncode != 0:
            return f"apt-get {words[0]} ended with code {done.returncode}: {done.stderr.strip()}"
    return ""


def main() -> int:
    """Print where Chromium is, installing it if need be; always 0, for the tests say what its absence means."""
    absence = "the browser tests need one; install chromium with your package manager"
    announce("chromium", find, _install, absence)
    return 0


if __name__ == "__main__":
    sys.exit(main())
