"""Find or install the Chromium that the browser tests drive.

``python -m deployments.chromium`` installs it where that needs no decision: as root, with apt-get.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_ANSWER_S = 30
_INSTALL_S = 600


def find() -> Path | None:
    """Return the first installed Chromium that starts, or None."""
    for name in _NAMES:
        program = shutil.which(name)
        if program is not None and _starts(program):
            return Path(program)
    return None


def _starts(program: str) -> bool:
    # Ubuntu installs a script of this name that only asks for a snap.
    try:
        return _run([program, "--version"], timeout_s=_ANSWER_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _run(argv: list[str], *, timeout_s: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - the caller's own program, no shell
        argv,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )


def _install() -> str:
    """Install it and return an empty text, or the reason why not."""
    apt = shutil.which("apt-get")
    if apt is None:
        return "this system has no apt-get"
    if os.geteuid() != 0:
        return "only root may run apt-get"
    for words in (["update"], ["install", "--yes", "--no-install-recommends", "chromium"]):
        try:
            done = _run([apt, "--quiet", *words], timeout_s=_INSTALL_S)
        except subprocess.TimeoutExpired:
            return f"apt-get {words[0]} took more than {_INSTALL_S} s"
        if done.returncode != 0:
            return f"apt-get {words[0]} ended with code {done.returncode}: {done.stderr.strip()}"
    return ""


def main() -> int:
    """Print where Chromium is, installing it if need be; always 0, for the tests say what its absence means."""
    reason = "" if find() else _install()
    program = find()
    if program is not None:
        sys.stdout.write(f"chromium     {program}\n")
    else:
        sys.stdout.write(
            f"chromium     not found, {reason or 'and the package that was installed does not start'}; "
            "the browser tests need one; install chromium with your package manager\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
