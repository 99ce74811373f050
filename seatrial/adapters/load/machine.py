"""What this process may use of the machine it runs on: a container's limits count, not the host's size."""

from __future__ import annotations

import os
import platform
from contextlib import suppress
from pathlib import Path

from seatrial.gates.latency import FoundMachine

_CGROUP = Path("/sys/fs/cgroup")
_MB = 2**20


def this_machine() -> FoundMachine:
    """Return the cores and the memory that this process may use, and the processor's name."""
    cores = float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0)
    memory_mb = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _MB
    with suppress(OSError, ValueError):
        quota, period = (_CGROUP / "cpu.max").read_text(encoding="ascii").split()
        if quota != "max":
            cores = min(cores, int(quota) / int(period))
    with suppress(OSError, ValueError):
        memory_mb = min(memory_mb, int((_CGROUP / "memory.max").read_text(encoding="ascii")) / _MB)
    return FoundMachine(cores, memory_mb, _processor())


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
