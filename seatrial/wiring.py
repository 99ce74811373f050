"""Settings in, working ports out: the one place where adapters are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from seatrial.adapters.clock import ReplayClock, WallClock
from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.scoring import SubprocessProbe
from seatrial.adapters.sql import SqlStore
from seatrial.documents import Checked, Name, Text, check, load_yaml
from seatrial.errors import InvalidDocumentError, Problem
from seatrial.ports import Ports

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.ports import Clock

#: Environment variable that names the settings file.
SETTINGS_VARIABLE = "SEATRIAL_SETTINGS"
#: Environment variable that holds the database URL, so that a password need not stand in a file.
DATABASE_VARIABLE = "SEATRIAL_DATABASE_URL"
DEFAULT_SETTINGS = Path("config/seatrial.yaml")


class Settings(Checked):
    """Where the parts are. Relative paths start at the settings file's directory."""

    database: Text | None = Field(
        None,
        description="URL of the control plane's database; the environment variable SEATRIAL_DATABASE_URL wins",
    )
    logs: Text = Field(description="directory of the decision and label logs")
    replay_clock: Text | None = Field(
        None, description="file with the event time of a replay; leave it out to use the system's clock"
    )
    approvers: Mapping[Name, tuple[Name, ...]] = Field(description="roles of each person who may answer")


@dataclass(frozen=True, slots=True)
class Plant:
    """The control plane with its parts connected."""

    ports: Ports
    clock: Clock
    store: SqlStore
    logs: Path


def settings_path(environment: Mapping[str, str]) -> Path:
    """Return the settings file that `environment` names, or the default one."""
    return Path(environment.get(SETTINGS_VARIABLE, str(DEFAULT_SETTINGS)))


def open_plant(path: Path, environment: Mapping[str, str]) -> Plant:
    """Return the control plane that the settings file at `path` describes; creates missing tables.

    Raises InvalidDocumentError for bad settings, UnavailableError when the database does not answer.
    """
    settings = check(load_yaml(path), Settings)
    base = path.resolve().parent
    url = environment.get(DATABASE_VARIABLE) or settings.database or f"sqlite:///{base / 'seatrial.sqlite'}"
    try:
        store = SqlStore(url)
    except (ArgumentError, NoSuchModuleError) as error:
        where = f"{path} database, or the environment variable {DATABASE_VARIABLE}"
        remedy = "write it like postgresql+psycopg://user@host/name"
        raise InvalidDocumentError([Problem(where, "found text that is no database URL", remedy)]) from error
    store.create_tables()
    clock: Clock = WallClock() if settings.replay_clock is None else ReplayClock(base / settings.replay_clock)
    ports = Ports(
        store=store,
        evidence=ParquetLogs(base / settings.logs),
        probe=SubprocessProbe(),
        approvers={name: frozenset(roles) for name, roles in settings.approvers.items()},
    )
    return Plant(ports, clock, store, base / settings.logs)
