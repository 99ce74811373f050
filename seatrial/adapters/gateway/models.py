"""The releases that a snapshot names, ready to answer before the snapshot is taken."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from seatrial.adapters.file_feed import write_whole
from seatrial.adapters.gateway.lanes import InThreads, Lane, OnServer
from seatrial.adapters.scoring import Runtimes, load_scorer
from seatrial.adapters.v2 import AsyncV2Scorer, ModelAddress
from seatrial.errors import NotFoundError, UnavailableError
from seatrial.ports import Registered
from seatrial.release import Release
from seatrial.routing import parts_of
from seatrial.units import canonical, format_time, parse_time, short

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seatrial.adapters.gateway.settings import GatewaySettings
    from seatrial.ports import RouterReport, SnapshotFeed
    from seatrial.routing import Parts, RoutingSnapshot

#: Tells a model server that nobody acts on its answer.
SHADOW_HEADER = {"x-seatrial-shadow": "1"}
#: What sees an extra request when the shadow does not read the champion's features.
FEATURES = "features"


class KeptReleases:
    """Releases of a store, whose manifests are kept in a folder for a start without it."""

    def __init__(self, find: Callable[[str], Registered], folder: Path | None) -> None:
        self._find = find
        self._folder = folder

    def release(self, release_id: str) -> Registered:
        """Return a release by its whole id; raises NotFoundError or UnavailableError."""
        try:
            found = self._find(release_id)
        except UnavailableError:
            if (kept := self._kept(release_id)) is not None:
                return kept
            raise
        if self._folder is not None:
            document = {
                "release": found.release.document(),
                "location": str(found.location),
                "registered_at": format_time(found.registered_at),
            }
            with suppress(UnavailableError):  # a full disk must not keep a release from answering
                write_whole(self._place(self._folder, release_id), canonical(document))
        return found

    def _kept(self, release_id: str) -> Registered | None:
        if self._folder is None:
            return None
        try:
            document = json.loads(self._place(self._folder, release_id).read_bytes())
            release = Release.model_validate(document["release"])
            # Its id is its content: whoever changed the file made another release of it.
            if release.id != release_id:
                return None
            return Registered(release, Path(document["location"]), parse_time(document["registered_at"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def _place(self, folder: Path, release_id: str) -> Path:
        return folder / "releases" / f"{short(release_id)}.json"


class Models:
    """Lanes by release id, for answers and for copies."""

    def __init__(self, releases: KeptReleases, runtimes: Runtimes, settings: GatewaySettings) -> None:
        self._releases = releases
        self._runtimes = runtimes
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._known: dict[str, Release] = {}
        self._lanes: dict[str, Lane] = {}
        self._copies: dict[str, Lane] = {}
        connect_s = settings.connect_ms / 1_000.0
        whole = httpx.Timeout(settings.total_ms / 1_000.0, connect=connect_s)
        limits = httpx.Limits(max_connections=settings.max_concurrent, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(timeout=whole, limits=limits, trust_env=False, follow_redirects=False)
        self._shadow_client = httpx.AsyncClient(
            timeout=whole, limits=limits, trust_env=False, follow_redirects=False, headers=SHADOW_HEADER
        )

    def lane(self, release_id: str) -> Lane:
        """Return what answers for a release; raises NotFoundError when nothing is known of it."""
        try:
            return self._lanes[release_id]
        except KeyError:
            raise NotFoundError(f"release {short(release_id)}: not loaded; register it, and look at the log") from None

    def parts(self, release_id: str) -> Parts:
        """Return the parts of a release; raises NotFoundError when nothing is known of it."""
        return self.lane(release_id).parts

    def copies(self, release_id: str) -> Lane | None:
        """Return what scores copies; None when nothing is known of the release."""
        return self._copies.get(release_id)

    def needs(self, shadow_id: str, champion_id: str) -> Sequence[str]:
        """Return the dependencies that see an extra request when the shadow scores what the champion was asked."""
        shadow, champion = self._known.get(shadow_id), self._known.get(champion_id)
        if shadow is None:
            return ()
        served = () if shadow.runtime.served is None else (shadow.runtime.served.server,)
        known = {} if champion is None else {column.name: column for column in champion.features.columns}
        is_reused = all(
            (same := known.get(each.name)) is not None
            and (each.dtype, each.unit, each.definition) == (same.dtype, same.unit, same.definition)
            for each in shadow.features.columns
        )
        return served if is_reused else (*served, FEATURES)

    async def prepare(self, snapshot: RoutingSnapshot) -> None:
        """Load every release that `snapshot` names; one that cannot be loaded fails whatever it is asked."""
        for release_id in sorted(snapshot.releases() - self._known.keys()):
            try:
                registered = await asyncio.to_thread(self._releases.release, release_id)
            except (NotFoundError, UnavailableError):
                if (parts := snapshot.parts.get(release_id)) is not None:
                    self._lanes.setdefault(release_id, Lane(parts, (), None))
                continue
            self._lanes[release_id], self._copies[release_id] = await self._load(registered)
            self._known[release_id] = registered.release

    async def _load(self, registered: Registered) -> tuple[Lane, Lane]:
        release = registered.release
        parts, columns = parts_of(release), tuple(column.name for column in release.features.columns)
        served = release.runtime.served
        if served is not None and served.server in self._runtimes.servers:
            address = ModelAddress(served.model, served.version)
            url, limit_s = self._runtimes.servers[served.server], parts.timeout_ms / 1_000.0
            answers, copies = (
                OnServer(AsyncV2Scorer(url, address, columns, timeout_s=limit_s, output=served.output, client=client))
                for client in (self._client, self._shadow_client)
            )
            return Lane(parts, columns, answers), Lane(parts, columns, copies)
        try:
            scorer = await asyncio.to_thread(load_scorer, release, registered.location, self._runtimes)
        except Exception:  # noqa: BLE001 edge of a service: an artifact that does not load never answers
            return Lane(parts, columns, None), Lane(parts, columns, None)
        # Copies have a thread of their own, so that an answer never waits for one.
        answers_here, copies_here = InThreads(scorer, self._settings.threads), InThreads(scorer, 1)
        return Lane(parts, columns, answers_here), Lane(parts, columns, copies_here)

    async def close(self) -> None:
        """Close connections and let threads end."""
        for lane in (*self._lanes.values(), *self._copies.values()):
            await lane.close()
        await self._client.aclose()
        await self._shadow_client.aclose()


class PreparingFeed:
    """Another feed, whose snapshots are given on once their releases are loaded. Asked from threads of the loop."""

    def __init__(self, feed: SnapshotFeed, models: Models, loop: asyncio.AbstractEventLoop) -> None:
        self._feed, self._models, self._loop = feed, models, loop

    def snapshot(self, decision_point: str) -> RoutingSnapshot:
        """Return what the feed has, with its releases loaded."""
        snapshot = self._feed.snapshot(decision_point)
        asyncio.run_coroutine_threadsafe(self._models.prepare(snapshot), self._loop).result()
        return snapshot

    def report(self, report: RouterReport) -> None:
        """Say what a router serves, to the feed."""
        self._feed.report(report)
