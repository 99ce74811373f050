"""Child processes, ports and the home directory of one local stack.

Every process starts in a process group of its own, so that Ctrl-C in the terminal reaches the stack alone and
the stack decides the order of the end, and carries the home directory in its environment, so that what a
killed stack left behind can be told from everything else on the machine.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import psutil

from seatrial.errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

#: the only interface anything here listens on
LOOPBACK = "127.0.0.1"

#: environment variable whose value is the home of the stack that started the process
MARK = "SEATRIAL_STACK_HOME"

_POLL_S = 0.1
_TAIL_LINES = 30


@contextmanager
def exclusive(home: Path) -> Iterator[None]:
    """Hold `home` for one stack; the lock goes with the process, so a killed stack leaves none.

    Raises
    ------
    RefusedError
        Another stack runs there.
    """
    home.mkdir(parents=True, exist_ok=True)
    # The databases' password lies inside.
    home.chmod(0o700)
    with (home / "lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(_occupied(home, lock)) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _occupied(home: Path, lock: IO[str]) -> str:
    lock.seek(0)
    holder = lock.read() or "unknown"
    return (
        f"{home}: a stack of process {holder} runs here; expected none; "
        "stop that one (Ctrl-C in its terminal) or choose another home"
    )


def free_port(purpose: str, wanted: int | None = None) -> int:
    """Return a TCP port on loopback that nobody listens on: `wanted`, or any if that is None.

    The port is not reserved: another process may take it before it is used.

    Raises
    ------
    RefusedError
        `wanted` cannot be had; the message names the process that listens on it where the system tells.
    """
    with socket.socket() as probe:
        # A port whose last connection is still in TIME_WAIT is free for a server.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, wanted or 0))
        except OSError as error:
            raise RefusedError(
                f"port {wanted} for {purpose}: {error.strerror or error}, held by {_listener(wanted)}; "
                "expected a free port; stop that process or choose another port"
            ) from error
        port: int = probe.getsockname()[1]
        return port


def _listener(port: int | None) -> str:
    with suppress(psutil.Error):
        for connection in psutil.net_connections(kind="tcp"):
            at = connection.laddr
            listens = connection.status == psutil.CONN_LISTEN and isinstance(at, tuple) and at[1:] == (port,)
            if listens and connection.pid is not None:
                return f"process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return "a process that the system does not name"


@dataclass(slots=True)
class Child:
    """One started process and its process group."""

    #: what the stack calls it; its log is `<name>.log`
    name: str
    process: subprocess.Popen[bytes]
    #: where its standard output and error go
    log: Path
    #: where in the log this process began, so that an earlier one's lines are not shown
    log_start: int
    #: what asks it to end: SIGTERM, but PostgreSQL waits for its clients on that and ends at once on SIGINT
    stop_signal: signal.Signals

    @property
    def is_running(self) -> bool:
        """Whether the process itself has not ended."""
        return self.process.poll() is None

    def output(self) -> str:
        """Return everything it wrote."""
        with self.log.open("rb") as log:
            log.seek(self.log_start)
            return log.read().decode(errors="replace")

    def tail(self) -> str:
        """Return the last lines it wrote, each indented, below the path of the log."""
        lines = self.output().splitlines()[-_TAIL_LINES:]
        return "\n".join([f"last lines of {self.log}:", *(f"    {line}" for line in lines)])

    def await_ready(self, is_ready: Callable[[], bool], *, deadline_s: float) -> None:
        """Return when `is_ready` answers True.

        Raises
        ------
        UnavailableError
            The process ended, or `deadline_s` passed; the message ends with the last lines of the log.
        """
        end = time.monotonic() + deadline_s
        while not is_ready():
            if not self.is_running:
                raise UnavailableError(
                    f"{self.name}: ended with code {self.process.returncode}; expected it to get ready; {self.tail()}"
                )
            if time.monotonic() > end:
                raise UnavailableError(
                    f"{self.name}: not ready after {deadline_s:g} s; expected an answer by then; {self.tail()}"
                )
            time.sleep(_POLL_S)

    def await_end(self, *, deadline_s: float) -> int:
        """Return the exit code.

        Raises
        ------
        UnavailableError
            `deadline_s` passed; the process is still running.
        """
        try:
            return self.process.wait(deadline_s)
        except subprocess.TimeoutExpired:
            raise UnavailableError(
                f"{self.name}: still running after {deadline_s:g} s; expected it to end; {self.tail()}"
            ) from None

    def stop(self, *, grace_s: float) -> None:
        """End it and its descendants: ask, wait up to `grace_s` each, then kill those left; idempotent."""
        below = self._descendants()
        self._signal(self.stop_signal)
        try:
            self.process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self.process.wait()
        end_all(below, grace_s=grace_s)

    def _descendants(self) -> list[psutil.Process]:
        with suppress(psutil.NoSuchProcess):
            return psutil.Process(self.process.pid).children(recursive=True)
        return []

    def _signal(self, number: signal.Signals) -> None:
        # Once the leader is reaped its number may name a stranger's group.
        if self.is_running:
            os.killpg(self.process.pid, number)


def start(
    name: str,
    argv: Sequence[str],
    *,
    home: Path,
    environment: Mapping[str, str],
    directory: Path,
    stop_signal: signal.Signals = signal.SIGTERM,
) -> Child:
    """Start `argv` in a group of its own, marked with `home`; its output goes to `<home>/logs/<name>.log`."""
    log = home / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        began = output.tell()
        process = subprocess.Popen(  # noqa: S603 - the caller's own program, no shell
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=directory,
            env={**environment, MARK: str(home)},
            process_group=0,
        )
    return Child(name, process, log, began, stop_signal)


def stop_marked(home: Path, *, grace_s: float) -> int:
    """End every process that a stack on `home` started, and return how many there were.

    Only the holder of the lock on `home` may ask: then the stack that started them is this one or is dead.
    """
    marked = list(_marked(home))
    end_all(marked, grace_s=grace_s)
    return len(marked)


def end_all(processes: Sequence[psutil.Process], *, grace_s: float) -> None:
    """Ask each of `processes` to end, wait up to `grace_s`, then kill those left and wait as long again."""
    for ask in (psutil.Process.terminate, psutil.Process.kill):
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                ask(process)
        end = time.monotonic() + grace_s
        while any(map(_is_alive, processes)) and time.monotonic() < end:
            time.sleep(_POLL_S)


def _is_alive(process: psutil.Process) -> bool:
    # An ended orphan stays a zombie where the first process of a container reaps nothing.
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _marked(home: Path) -> Iterator[psutil.Process]:
    # A stack may itself run below another one that has the same home in a container or a test.
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        # Processes of other users do not show their environment, and none of them is ours.
        with suppress(psutil.Error):
            if process.pid not in own and process.environ().get(MARK) == str(home):
                yield process
