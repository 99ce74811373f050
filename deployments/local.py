"""The local stack: PostgreSQL, a Prefect server and a worker, on loopback, from one command.

``python -m deployments.local`` keeps it up until Ctrl-C; `Stack` is the same for tests and the demonstration.
"""

from __future__ import annotations

import argparse
import math
import os
import shlex
import shutil
import signal
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Self

from deployments import processes
from deployments.postgres import Cluster
from deployments.server import WORK_POOL, Server
from seatrial.errors import NotFoundError, RefusedError, SeatrialError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import FrameType, TracebackType

#: where flows/, tasks/ and prefect.yaml lie
PROJECT = Path(__file__).resolve().parents[1]

_GRACE_S = 10.0
_SERVER_DEADLINE_S = 120.0
_DEPLOY_DEADLINE_S = 180.0
_DEFAULT_DEADLINE_S = 60.0
_WATCH_S = 1.0
_IMPATIENCE_S = 2.0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Stack:
    """Everything a rollout needs on one machine, up inside a ``with`` block and gone after it.

    The parts listen on 127.0.0.1 only and keep their data below `home`, so that the next stack on the same
    home goes on where this one stopped. What an earlier stack left running there after a kill is ended first.
    The end of the block, an exception, Ctrl-C, SIGTERM and SIGHUP all stop every part, and nothing else.

    Parameters
    ----------
    home
        Directory of the data and logs; made if missing; one stack at a time.
    api_port
        Port of the Prefect server; None finds a free one.
    database_port
        Port of PostgreSQL; None finds a free one.
    auth
        ``user:password`` that the Prefect server demands; None demands nothing, as on a machine of one's own.
    say
        Receives one line for each part that started or stopped.

    Raises
    ------
    RefusedError
        On entry: another stack runs on `home`, a port is taken, or the data belong to another user.
    UnavailableError
        On entry: a part did not get ready; whatever had started is stopped again.
    """

    def __init__(
        self,
        home: Path = Path(".seatrial"),
        *,
        api_port: int | None = None,
        database_port: int | None = None,
        auth: str | None = None,
        say: Callable[[str], None] = _print,
    ) -> None:
        self.home = home.resolve()
        self._api_port = api_port
        self._database_port = database_port
        self._auth = auth
        self._say = say
        self._children: list[processes.Child] = []
        self._up: tuple[Cluster, Server] | None = None
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.enter_context(_ending_on_signals())
            undo.enter_context(processes.exclusive(self.home))
            undo.callback(self._stop_everything)
            self._end_leftovers()
            self._temporary.mkdir(exist_ok=True)
            self._start_database()
            self.start_server()
            self._server.create_work_pool()
            self.start_worker()
            self._write_environment()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._undo.__exit__(kind, error, trace)

    @property
    def database_url(self) -> str:
        """SQLAlchemy address of the database `seatrial`."""
        return self._cluster.url("seatrial", driver="psycopg")

    @property
    def api_url(self) -> str:
        """Address of the Prefect API."""
        return self._server.api_url

    @property
    def ui_url(self) -> str:
        """Address of the Prefect UI for a browser on this machine."""
        return self._server.ui_url

    @property
    def environment(self) -> dict[str, str]:
        """The caller's environment with `settings` on top, in which Prefect and seatrial find this stack."""
        # A setting of the caller's shell, the key of a cloud workspace above all, would send runs elsewhere.
        callers = {name: text for name, text in os.environ.items() if not name.startswith("PREFECT_")}
        programs = os.pathsep.join([str(Path(sys.executable).parent), callers.get("PATH", os.defpath)])
        return {
            **callers,
            "PATH": programs,
            # A part that is killed loses what it had not yet written to its log.
            "PYTHONUNBUFFERED": "1",
            # Prefect 3.8.8 makes /tmp/runner_storage, which locks out the machine's next user.
            "TMPDIR": str(self._temporary),
            **self.settings,
        }

    @property
    def settings(self) -> dict[str, str]:
        """The variables of `environment` that are this stack's own."""
        return {
            "SEATRIAL_HOME": str(self.home),
            "SEATRIAL_PROJECT": str(PROJECT),
            "SEATRIAL_DATABASE_URL": self.database_url,
            "NO_PROXY": f"{processes.LOOPBACK},localhost",
            "PREFECT_HOME": str(self.home / "prefect"),
            **self._server.client_settings(),
        }

    @property
    def parts(self) -> dict[str, processes.Child]:
        """What was started and not stopped, by name, in order; a part that ended by itself is still here."""
        return {child.name: child for child in self._children}

    def start_process(
        self,
        name: str,
        argv: Sequence[str],
        *,
        is_ready: Callable[[], bool] | None = None,
        deadline_s: float = _DEFAULT_DEADLINE_S,
    ) -> processes.Child:
        """Start one more part of the stack from the project's directory and return it.

        Parameters
        ----------
        name
            Unique among the parts that run; its log is `<home>/logs/<name>.log`.
        argv
            Program and arguments; it runs in `environment`.
        is_ready
            Asked until it answers True; None does not wait.
        deadline_s
            How long it is asked, in seconds.

        Raises
        ------
        RefusedError
            A part of that name runs.
        UnavailableError
            It ended or was not ready in time; it is stopped with the stack.
        """
        return self._start(name, argv, self.environment, is_ready, deadline_s=deadline_s)

    def stop_process(self, name: str) -> None:
        """Stop the part `name` and every process it started.

        Raises
        ------
        NotFoundError
            No such part was started.
        """
        child = self.parts.get(name)
        if child is None:
            raise NotFoundError.of("process", name, self.parts)
        self._stop(child)

    def start_server(self) -> processes.Child:
        """Start the Prefect server as the part `server`; once it was stopped or killed, again on its port."""
        server = self._server
        argv = [*_prefect("server", "start"), "--host", processes.LOOPBACK, "--port", str(server.port)]
        environment = {**self.environment, **server.server_settings()}
        return self._start(
            "server", argv, environment, server.is_ready, deadline_s=_SERVER_DEADLINE_S, where=server.ui_url
        )

    def start_worker(self) -> processes.Child:
        """Start the worker of the work pool as the part `worker`; again once it was stopped or killed."""
        began = datetime.now(UTC)
        argv = [
            *_prefect("worker", "start"),
            *("--pool", WORK_POOL, "--type", "process", "--no-create-pool-if-not-found"),
            # Without --limit: a run that is woken before its last process has ended ends a worker that counts its runs
            # (Prefect 3.8.8, `acquire_on_behalf_of_nowait`); limits belong to the work pool.
            *("--name", "local"),
            *("--install-policy", "never"),
        ]
        return self.start_process("worker", argv, is_ready=lambda: self._server.has_heard_worker(since=began))

    def deploy(self) -> None:
        """Register every deployment of prefect.yaml with the server.

        Raises
        ------
        UnavailableError
            Prefect refused; the message carries its output.
        """
        began = time.monotonic()
        child = self._launch("deploy", _prefect("deploy", "--all"), self.environment)
        code = child.await_end(deadline_s=_DEPLOY_DEADLINE_S)
        self._children.remove(child)
        if code != 0:
            raise UnavailableError(
                f"prefect deploy --all: ended with code {code}; expected every deployment of prefect.yaml "
                f"to be registered; mend what it names:\n{child.output()}"
            )
        self._say(_line("deploy", began, "deployments of prefect.yaml registered"))

    def watch(self) -> NoReturn:
        """Stay until a part ends by itself or a signal comes.

        Raises
        ------
        UnavailableError
            A part ended; the message names it and shows its last lines.
        """
        while True:
            for child in self._children:
                if not child.is_running:
                    raise UnavailableError(
                        f"{child.name}: ended by itself with code {child.process.returncode}; "
                        f"expected it to stay up; {child.tail()}"
                    )
            time.sleep(_WATCH_S)

    @property
    def _temporary(self) -> Path:
        return self.home / "tmp"

    @property
    def _cluster(self) -> Cluster:
        return self._entered()[0]

    @property
    def _server(self) -> Server:
        return self._entered()[1]

    def _entered(self) -> tuple[Cluster, Server]:
        if self._up is None:
            raise UnavailableError(
                f"stack on {self.home}: not up; expected to be asked inside its `with` block; enter it first"
            )
        return self._up

    def _end_leftovers(self) -> None:
        ended = processes.stop_marked(self.home, grace_s=_GRACE_S)
        if ended:
            self._say(f"leftover   ended {ended} processes of a stack that was killed on this home")

    def _start_database(self) -> None:
        began = time.monotonic()
        # Both ports are asked for before anything starts: a taken one is told at once.
        port = processes.free_port("PostgreSQL", self._database_port)
        api_port = processes.free_port("the Prefect server", self._api_port)
        cluster = Cluster.prepare(self.home, port=port)
        child = cluster.start()
        self._children.append(child)
        child.await_ready(cluster.is_ready, deadline_s=_DEFAULT_DEADLINE_S)
        cluster.create_databases(["seatrial", "prefect"])
        self._up = cluster, Server(api_port, cluster.url("prefect", driver="asyncpg"), self._auth)
        self._say(_line(child.name, began, f"{processes.LOOPBACK}:{port}"))

    def _start(
        self,
        name: str,
        argv: Sequence[str],
        environment: Mapping[str, str],
        is_ready: Callable[[], bool] | None,
        *,
        deadline_s: float,
        where: str = "",
    ) -> processes.Child:
        began = time.monotonic()
        child = self._launch(name, argv, environment)
        if is_ready is not None:
            child.await_ready(is_ready, deadline_s=deadline_s)
        self._say(_line(name, began, where or f"process {child.process.pid}"))
        return child

    def _launch(self, name: str, argv: Sequence[str], environment: Mapping[str, str]) -> processes.Child:
        earlier = self.parts.get(name)
        if earlier is not None and earlier.is_running:
            raise RefusedError(
                f"part {name!r}: runs as process {earlier.process.pid}; expected a name that is free; "
                "stop it first or choose another name"
            )
        child = processes.start(name, argv, home=self.home, environment=environment, directory=PROJECT)
        # The end goes backwards through the list: a server that was started again still outlives the worker.
        place = len(self._children) if earlier is None else self._children.index(earlier)
        self._children[place : place + 1] = [child]
        return child

    def _write_environment(self) -> None:
        path = self.home / "environment"
        path.touch(mode=0o600)
        path.write_text("".join(f"export {name}={shlex.quote(text)}\n" for name, text in self.settings.items()))

    def _stop(self, child: processes.Child) -> None:
        began = time.monotonic()
        child.stop(grace_s=_GRACE_S)
        self._children.remove(child)
        self._say(_line(child.name, began, "stopped"))

    def _stop_everything(self) -> None:
        with _deaf_to_signals():
            for child in reversed(list(self._children)):
                self._stop(child)
            # A flow run may have started a process group of its own.
            processes.stop_marked(self.home, grace_s=_GRACE_S)
            (self.home / "environment").unlink(missing_ok=True)
            self._up = None


def _prefect(*words: str) -> list[str]:
    return [sys.executable, "-m", "prefect", *words]


def _line(name: str, began: float, what: str) -> str:
    return f"{name:<10} {time.monotonic() - began:5.1f} s  {what}"


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Let Ctrl-C, SIGTERM and SIGHUP each end the block once, unless the program handles them itself."""
    last = -math.inf

    def end(number: int, _frame: FrameType | None) -> None:
        # The second signal of an impatient user would otherwise strike on the way to the stopping of the
        # parts, before anything is deaf to it, and leave them all running.
        nonlocal last
        earlier, last = last, time.monotonic()
        if last - earlier < _IMPATIENCE_S:
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        # The shell's convention for a program that a signal ended.
        raise SystemExit(128 + number)

    untouched = {signal.SIG_DFL, signal.default_int_handler}
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) in untouched]
    with _handling(numbers, end):
        yield


@contextmanager
def _deaf_to_signals() -> Iterator[None]:
    """Let no later signal break off the stopping, which takes seconds."""
    with _handling([signal.SIGINT, signal.SIGTERM, signal.SIGHUP], signal.SIG_IGN):
        yield


@contextmanager
def _handling(
    numbers: Sequence[signal.Signals],
    handler: Callable[[int, FrameType | None], object] | signal.Handlers,
) -> Iterator[None]:
    # Python lets the main thread alone set handlers.
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers} if is_main else {}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.local",
        description="PostgreSQL, a Prefect server and a worker on loopback, up until Ctrl-C.",
    )
    parser.add_argument("--home", type=Path, default=Path(".seatrial"), help="data and logs (default: .seatrial)")
    parser.add_argument("--api-port", type=int, help="port of the Prefect server (default: any free one)")
    parser.add_argument("--database-port", type=int, help="port of PostgreSQL (default: any free one)")
    parser.add_argument("--auth", metavar="USER:PASSWORD", help="what the Prefect server demands (default: nothing)")
    parser.add_argument("--wipe", action="store_true", help="delete the home instead, with all its data")
    parser.add_argument("--no-deploy", action="store_true", help="do not register the deployments of prefect.yaml")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Keep a stack up, or wipe its home, and return the exit code: 0 after Ctrl-C, 1 when a part failed."""
    options = _arguments(argv)
    try:
        return _wipe(options.home) if options.wipe else _keep_up(options)
    except SeatrialError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _wipe(home: Path) -> int:
    if home.exists():
        with processes.exclusive(home):
            processes.stop_marked(home.resolve(), grace_s=_GRACE_S)
            shutil.rmtree(home)
    return 0


def _keep_up(options: argparse.Namespace) -> int:
    stack = Stack(options.home, api_port=options.api_port, database_port=options.database_port, auth=options.auth)
    try:
        with stack:
            if not options.no_deploy:
                stack.deploy()
            _print(f"\nPrefect UI   {stack.ui_url}")
            _print(f"Prefect API  {stack.api_url}")
            _print(f"For another terminal:  . {shlex.quote(str(stack.home / 'environment'))}")
            _print("Ctrl-C stops everything.")
            stack.watch()
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
