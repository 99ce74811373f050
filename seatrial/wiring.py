"""Settings in, working ports out: the one place where adapters are chosen."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping  # noqa: TC003 pydantic reads annotations when it runs
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import Field
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from seatrial.adapters.asking import DECLARED, Declared, Examiners
from seatrial.adapters.clock import ReplayClock, WallClock
from seatrial.adapters.contract_files import ServedExaminer
from seatrial.adapters.counted import MEMORY, CountedLogs
from seatrial.adapters.counting import silent
from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.features import FeaturesExaminer
from seatrial.adapters.features.settings import FeatureSourceSettings  # noqa: TC001 pydantic reads it
from seatrial.adapters.file_feed import FileFeed, KeptFeed
from seatrial.adapters.gateway.settings import GatewaySettings  # noqa: TC001 pydantic reads it
from seatrial.adapters.http_feed import HttpFeed
from seatrial.adapters.isolated import Isolation
from seatrial.adapters.keys import keyring, signing_key
from seatrial.adapters.load import LatencyExaminer, SubprocessWorker
from seatrial.adapters.log_tables import SqlLogWriter
from seatrial.adapters.logs import LogWriter
from seatrial.adapters.notary import LedgerSettings  # noqa: TC001 pydantic reads it
from seatrial.adapters.people import ConsumersExaminer, OwnershipExaminer
from seatrial.adapters.probing import SubprocessProbe
from seatrial.adapters.prometheus import PrometheusRuntime
from seatrial.adapters.readings import PLACEHOLDERS
from seatrial.adapters.reproducing import ReproducingExaminer
from seatrial.adapters.rescoring import Rescorer
from seatrial.adapters.same_rows import GATES, SameRowsExaminer
from seatrial.adapters.scoring import Runtimes
from seatrial.adapters.sql import SqlStore
from seatrial.adapters.warehouse import PostgresLogs
from seatrial.documents import Checked, Digest, Flaw, Name, Text, check, load_yaml
from seatrial.errors import InvalidDocumentError, NotFoundError, Problem
from seatrial.ports import Ports, Quantity

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from seatrial.adapters.log_intake import DecisionLog
    from seatrial.ports import Clock, EvidenceSource, LogSource, Registered, SnapshotFeed, Store
    from seatrial.routing.signing import CheckingKey

#: Environment variable that names the settings file.
SETTINGS_VARIABLE = "SEATRIAL_SETTINGS"
#: Environment variable that holds the database URL, so that a password need not stand in a file.
DATABASE_VARIABLE = "SEATRIAL_DATABASE_URL"
#: Variables without which a library may not be found; no secret is among them.
KEPT = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
DEFAULT_SETTINGS = Path("config/seatrial.yaml")


class Queries(Checked):
    """What is asked about each arm, in PromQL; ``$release`` and the like stand inside quotes."""

    p50_ms: Text | None = Field(None, description="median latency in milliseconds, of one arm")
    p99_ms: Text | None = Field(None, description="latency in milliseconds that one call in a hundred exceeds")
    error_rate: Text | None = Field(None, description="part of the calls that failed, from 0 to 1")

    def asked(self) -> dict[Quantity, str]:
        """Return the queries that are given."""
        given = {quantity: getattr(self, quantity.value) for quantity in Quantity}
        return {quantity: query for quantity, query in given.items() if query is not None}

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rule that a query names what is known, and tells the arms apart."""
        yield self._names_are_known()

    def _names_are_known(self) -> Iterator[Flaw]:
        for quantity, query in self.asked().items():
            template = Template(query)
            if not template.is_valid():
                remedy = "write $$ for a dollar sign that is none"
                yield Flaw((quantity.value,), "found a dollar sign before no name", remedy)
                continue
            named = set(template.get_identifiers())
            known = ", ".join(f"${name}" for name in PLACEHOLDERS)
            for name in sorted(named - set(PLACEHOLDERS)):
                yield Flaw((quantity.value,), f"found ${name}, expected one of {known}", "correct the name")
            if not named & {"arm", "release", "release_digits"}:
                finding = "found a query that is the same for both arms, expected $release, $release_digits or $arm"
                yield Flaw((quantity.value,), finding, "select the arm's series by it")


def address_flaws(url: str, at: tuple[str | int, ...]) -> Iterator[Flaw]:
    """Return what is wrong with the address of a server: it has a scheme and a host, and no password."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        yield Flaw(at, f"found {url!r}, expected http:// or https:// with a host", "correct it")
    elif parts.username is not None:
        # The message must not repeat what it forbids.
        yield Flaw(at, "found a user in the address, expected none", "take the password out of the file")


class PrometheusSettings(Checked):
    """The monitoring system that watches the runtime."""

    url: Text = Field(description="address without a path, such as http://127.0.0.1:9090")
    queries: Queries = Field(description="what is asked of it")

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules on the address, and that something is asked."""
        yield address_flaws(self.url, ("url",))
        yield self._something_is_asked()

    def _something_is_asked(self) -> Iterator[Flaw]:
        if not self.queries.asked():
            known = ", ".join(Quantity)
            yield Flaw(("queries",), f"found no query, expected one of {known}", "add one, or remove prometheus")


class TrustedArtifact(Checked):
    """A model file whose format is code, which somebody let pass; no other bytes of that format are opened."""

    digest: Digest = Field(description="the sha256 of the model file")
    allowed_by: Text = Field(description="the person who answers for opening it")
    reason: Text = Field(description="why it is no data format, and where it came from")


class Settings(Checked):
    """Where the parts are. Relative paths start at the settings file's directory."""

    database: Text | None = Field(
        None,
        description="URL of the control plane's database; the environment variable SEATRIAL_DATABASE_URL wins",
    )
    logs: Text = Field(description="directory of the decision and label logs")
    warehouse: Text | None = Field(
        None,
        description="URL of the PostgreSQL database whose decision_log and label_log are counted instead of files",
    )
    replay_clock: Text | None = Field(
        None, description="file with the event time of a replay; leave it out to use the system's clock"
    )
    contracts: Text | None = Field(
        None, description="directory of the feature contracts that the gate `served` reads; leave it out without one"
    )
    approvers: Mapping[Name, tuple[Name, ...]] = Field(description="roles of each person who may answer")
    model_servers: Mapping[Name, Text] = Field(
        {}, description="address of each model server that releases name, such as http://127.0.0.1:8080"
    )
    trusted_artifacts: tuple[TrustedArtifact, ...] = Field(
        (), description="the pickles that may be opened, each by its exact bytes; none when left out"
    )
    signing_key: Text | None = Field(
        None, description="file of the key that signs routing snapshots; left out, they are not signed"
    )
    keyring: tuple[Text, ...] = Field(
        (), description="files of the keys that routers here accept; left out, they take unsigned snapshots"
    )
    ledger: LedgerSettings | None = Field(
        None, description="signed checkpoints of the ledger, and where they are kept; left out, there are none"
    )
    feature_sources: Mapping[Name, FeatureSourceSettings] = Field(
        {}, description="where the serving path has its features, by the name that plans use"
    )
    operators: Mapping[Name, Text] = Field(
        {}, description="who may kill over HTTP: by name, the sha256 of the token as 64 hexadecimal digits"
    )
    gateways: Mapping[Name, GatewaySettings] = Field(
        {}, description="how each decision point is served over HTTP, for `seatrial serve`"
    )
    prometheus: PrometheusSettings | None = Field(
        None, description="where latencies and error rates are read, for `seatrial metrics`; leave it out without one"
    )

    def flaws(self) -> Iterable[Iterator[Flaw]]:
        """Return the rules on addresses of model servers and on digests of tokens."""
        for name, url in self.model_servers.items():
            yield address_flaws(url, ("model_servers", name))
        yield self._tokens_are_digests()

    def _tokens_are_digests(self) -> Iterator[Flaw]:
        for name, digest in self.operators.items():
            if not re.fullmatch("[0-9a-f]{64}", digest):
                # What was found is not repeated: it may be the token itself.
                finding = "found no sha256, expected 64 hexadecimal digits"
                yield Flaw(("operators", name), finding, "make token and digest with `seatrial keys token`")


@dataclass(frozen=True, slots=True)
class Plant:
    """The control plane with its parts connected."""

    ports: Ports
    clock: Clock
    store: SqlStore
    logs: Path
    recount: LogSource  #: counts everything anew, while `ports.evidence` may go on from what it counted before
    warehouse: sa.Engine | None = None  #: database with the logs as tables; None where they are files
    operators: Mapping[str, str] = field(default_factory=dict)  #: who may kill over HTTP, by the digest of their token
    keys: Mapping[str, CheckingKey] | None = None  #: what routers accept; None takes unsigned snapshots


def settings_path(environment: Mapping[str, str]) -> Path:
    """Return the settings file that `environment` names, or the default one."""
    return Path(environment.get(SETTINGS_VARIABLE, str(DEFAULT_SETTINGS)))


def open_plant(path: Path, environment: Mapping[str, str], tell: Callable[[str], None] = silent) -> Plant:
    """Return the control plane that the settings file at `path` describes; creates missing tables.

    What a look at the logs does next is said to `tell`.

    Raises InvalidDocumentError for bad settings, UnavailableError when the database does not answer.
    """
    settings = check(load_yaml(path), Settings)
    base = path.resolve().parent
    store = _store(settings, path, environment)
    store.create_tables()
    clock: Clock = WallClock() if settings.replay_clock is None else ReplayClock(base / settings.replay_clock)
    evidence, recount = _evidence(settings, base / settings.logs, tell, place=f"{path} warehouse")
    approvers = {name: frozenset(roles) for name, roles in settings.approvers.items()}
    ports = Ports(
        store=store,
        evidence=evidence,
        probe=SubprocessProbe(runtimes_of(settings), Isolation(environment=kept(environment))),
        approvers=approvers,
        runtime=_runtime(settings.prometheus),
        examiner=_examiners(settings, base, environment, store, approvers, clock),
        notary=None if settings.ledger is None else settings.ledger.open(base),
        signer=None if settings.signing_key is None else signing_key(base / settings.signing_key),
    )
    keys = keyring(base / path for path in settings.keyring) if settings.keyring else None
    warehouse = recount.engine if isinstance(recount, PostgresLogs) else None
    return Plant(ports, clock, store, base / settings.logs, recount, warehouse, settings.operators, keys)


def _store(settings: Settings, path: Path, environment: Mapping[str, str]) -> SqlStore:
    base = path.resolve().parent
    url = environment.get(DATABASE_VARIABLE) or settings.database or f"sqlite:///{base / 'seatrial.sqlite'}"
    try:
        return SqlStore(url)
    except (ArgumentError, NoSuchModuleError) as error:
        where = f"{path} database, or the environment variable {DATABASE_VARIABLE}"
        remedy = "write it like postgresql+psycopg://user@host/name"
        raise InvalidDocumentError([Problem(where, "found text that is no database URL", remedy)]) from error


@dataclass(frozen=True, slots=True)
class GatewayParts:
    """What a gateway works with."""

    settings: GatewaySettings
    feed: SnapshotFeed
    find: Callable[[str], Registered]  #: returns a registered release
    runtimes: Runtimes
    log: DecisionLog
    keep: Path | None  #: folder for a start without the control plane
    keys: Mapping[str, CheckingKey] | None


def open_gateway(path: Path, environment: Mapping[str, str], decision_point: str) -> GatewayParts:
    """Return what the settings file at `path` says about the gateway of `decision_point`.

    The database is not asked: it may be gone when a gateway starts.

    Raises InvalidDocumentError for bad settings, NotFoundError when they have no such gateway.
    """
    settings = check(load_yaml(path), Settings)
    if decision_point not in settings.gateways:
        raise NotFoundError.of(f"{path} gateways", decision_point, settings.gateways)
    given, base = settings.gateways[decision_point], path.resolve().parent
    store, clock = _store(settings, path, environment), WallClock()
    feed = _feed(given, base, store)
    keep = None if given.keep is None else base / given.keep
    log: DecisionLog
    if settings.warehouse is not None:
        log = SqlLogWriter(_warehouse(settings.warehouse, f"{path} warehouse"), decision_point, given.attributes, clock)
    else:
        log = LogWriter(base / settings.logs, decision_point, given.attributes, clock)
    keys = keyring(base / path for path in settings.keyring) if settings.keyring else None
    whole = feed if keep is None else KeptFeed(feed, FileFeed(keep))
    return GatewayParts(given, whole, store.release, runtimes_of(settings), log, keep, keys)


def _feed(given: GatewaySettings, base: Path, store: SqlStore) -> SnapshotFeed:
    if given.snapshots is None:
        return store
    if given.snapshots.startswith(("http://", "https://")):
        return HttpFeed(given.snapshots, wait_s=given.refresh_s)
    return FileFeed(base / given.snapshots)


def _examiners(
    settings: Settings,
    base: Path,
    environment: Mapping[str, str],
    store: Store,
    approvers: Mapping[str, frozenset[str]],
    clock: Clock,
) -> Examiners:
    """Return the parts that answer declared gates, by the gate's name."""
    runtimes, given = runtimes_of(settings), kept(environment)
    sources = {name: source.open(base) for name, source in settings.feature_sources.items()}
    return Examiners(
        {
            **dict.fromkeys(DECLARED, Declared()),
            **dict.fromkeys(GATES, SameRowsExaminer(Rescorer(runtimes, Isolation(300.0, given)))),
            "served": ServedExaminer(None if settings.contracts is None else base / settings.contracts),
            "consumers": ConsumersExaminer(store),
            "ownership": OwnershipExaminer(approvers),
            "features": FeaturesExaminer(clock, sources),
            "latency": LatencyExaminer(SubprocessWorker(runtimes, Isolation(environment=given))),
            "evaluation": ReproducingExaminer(Rescorer(runtimes, Isolation(300.0, given))),
        }
    )


def runtimes_of(settings: Settings) -> Runtimes:
    """Return what `settings` say about the runtimes that releases are loaded in."""
    return Runtimes(settings.model_servers, frozenset(each.digest for each in settings.trusted_artifacts))


def kept(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a process that loads a release is given of `environment`: where programs and libraries lie."""
    return {name: environment[name] for name in KEPT if name in environment}


def _evidence(
    settings: Settings, logs: Path, tell: Callable[[str], None], *, place: str
) -> tuple[EvidenceSource, LogSource]:
    """Return the source of looks, and the one that goes on from no earlier look."""
    if settings.warehouse is not None:
        tables = PostgresLogs(_warehouse(settings.warehouse, place))
        return tables, tables
    whole = ParquetLogs(logs, tell)
    return CountedLogs(whole, logs / MEMORY), whole


def _warehouse(url: str, place: str) -> sa.Engine:
    remedy = "write it like postgresql+psycopg://user@host/name"
    try:
        engine = sa.create_engine(url)
    except (ArgumentError, NoSuchModuleError) as error:
        raise InvalidDocumentError([Problem(place, "found text that is no database URL", remedy)]) from error
    if engine.dialect.name != "postgresql":
        raise InvalidDocumentError([Problem(place, f"found {engine.dialect.name}, expected PostgreSQL", remedy)])
    return engine


def _runtime(settings: PrometheusSettings | None) -> PrometheusRuntime | None:
    return None if settings is None else PrometheusRuntime(settings.url, settings.queries.asked())
