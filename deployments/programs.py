"""Find programs that are no packages of Python, and say where they are or why they are not there."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: Time for fetching and installing what is missing.
INSTALL_S = 600
_ANSWER_S = 30


def run(argv: list[str], *, timeout_s: float, directory: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Return what a program answered; a package manager asks it nothing back."""
    return subprocess.run(  # noqa: S603 - the caller's own program, no shell
        argv,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=directory,
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
    )


def has_started(program: str) -> bool:
    """Return whether `program` says its version."""
    try:
        return run([program, "--version"], timeout_s=_ANSWER_S).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def announce(name: str, find: Callable[[], Path | None], install: Callable[[], str], absence: str) -> None:
    """Print where a program is, installing it if need be; `install` returns the reason why it could not."""
    reason = "" if find() else install()
    program = find()
    if program is not None:
        sys.stdout.write(f"{name:<12} {program}\n")
    else:
        sys.stdout.write(f"{name:<12} not found, {reason or 'and what was installed does not start'}; {absence}\n")
