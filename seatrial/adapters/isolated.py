"""Run a piece of the core in a process of its own, with limits, and read its answer.

The process is given a time, a share of memory, an empty folder, a size of files and next to no environment. These
limits protect the control plane from a model that hangs, grows, floods or crashes; they are no sandbox, for the process
has the rights and the network of whoever started it.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: One thread each: pools of threads reserve address space for every core of the machine.
_THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_MB = 2**20
#: Address space beyond what the release declares: libraries map far more than they use.
_HEADROOM_MB = 2048
_LARGEST_FILE = 256 * _MB
_LAST_WORDS = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, and what it left."""

    code: int | None  #: exit code, negative for a signal; None when it was ended for taking too long
    answer: str  #: what it answered, whole
    said: str  #: the last of what it, or an engine in it, printed


@dataclass(frozen=True, slots=True)
class Isolation:
    """What a process is given."""

    timeout_s: float = 60.0
    #: what it is given of the caller's environment, such as where libraries lie
    environment: Mapping[str, str] = field(default_factory=dict)

    def run(self, module: str, request: Mapping[str, Any]) -> Ended:
        """Run ``main`` of a module of this package with `request`, which it reads in `answering`."""
        # -P: a module in the folder it stands in must not take the place of another.
        return self.run_program((sys.executable, "-P", "-m", module), request)

    def run_program(self, program: Sequence[str], request: Mapping[str, Any]) -> Ended:
        """Run a program with `request` on its standard input, as JSON."""
        with TemporaryDirectory(prefix="seatrial-") as name:
            folder = Path(name)
            (folder / "request").write_text(json.dumps(request), encoding="utf-8")
            (folder / "work").mkdir()
            with (
                (folder / "request").open("rb") as asked,
                (folder / "answer").open("wb+") as answer,
                (folder / "messages").open("wb+") as messages,
            ):
                child = subprocess.Popen(  # noqa: S603 the caller's own program, no shell
                    list(program),
                    stdin=asked,
                    stdout=answer,
                    stderr=messages,
                    cwd=folder / "work",
                    env={**self.environment, **_THREADS},
                    process_group=0,
                )
                code = _await_end(child, self.timeout_s)
                return Ended(code, _read(answer, _LARGEST_FILE), _read(messages, _LAST_WORDS))


def _await_end(child: subprocess.Popen[bytes], timeout_s: float) -> int | None:
    """Return the exit code, or None after `timeout_s`; whatever the child started is ended with it."""
    ending = os.WEXITED | os.WNOWAIT
    waiting = threading.Thread(target=os.waitid, args=(os.P_PID, child.pid, ending), daemon=True)
    waiting.start()
    waiting.join(timeout_s)
    is_late = waiting.is_alive()
    # A child that was waited for has no number any more, and its group's may be a stranger's: hence WNOWAIT above.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, signal.SIGKILL)
    waiting.join()
    code = child.wait()
    return None if is_late else code


def _read(file: IO[bytes], most: int) -> str:
    """Return the last `most` bytes of `file` as text."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - most))
    return file.read(most).decode(errors="replace")


def how_it_ended(ended: Ended) -> str:
    """Return in words how a process ended that did not end well, with its last words."""
    last = ended.said.strip().splitlines()[-1:] or ["no message"]
    return f"{_ending(ended.code or 0)}: {last[0][:300]}"


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with {code}"
    reasons = {signal.SIGXCPU: ", its limit of processor time", signal.SIGXFSZ: ", its limit on the size of a file"}
    with suppress(ValueError):
        number = signal.Signals(-code)
        return f"was ended by {number.name}{reasons.get(number, '')}"
    return f"was ended by signal {-code}"


@contextmanager
def answering() -> Iterator[tuple[Any, IO[str]]]:
    """Give a child its request and the file for its answer.

    What an engine prints goes to the messages, so that it cannot stand in the answer.
    """
    request = json.load(sys.stdin)
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        yield request, answer


def limit(*, memory_mb: float, cpu_s: int) -> None:
    """Limit this process for good: address space, processor time, size of files, no core dump.

    Address space is limited on Linux only, where a process can tell what it holds.
    """
    limits = [
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_FSIZE, _LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ]
    with suppress(FileNotFoundError):
        held = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        limits.append((resource.RLIMIT_AS, held + int((2 * memory_mb + _HEADROOM_MB) * _MB)))
    for kind, most in limits:
        _, hard = resource.getrlimit(kind)
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (allowed, allowed))


def peak_memory_mb() -> float:
    """Return the most memory that this process has held since its program began, in MB of 2**20 bytes."""
    # getrusage counts the parent's memory until the program began, which is not the model's.
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MB
