import asyncio
import time
from dataclasses import replace

import httpx
import pytest
from builders import POINT, T0, World

from seatrial.adapters.file_feed import FileFeed
from seatrial.service.app import Service, application
from seatrial.service.mirroring import Mirror

PATIENCE_S = 60.0


class Still:
    """A clock that stands."""

    def now(self):
        return T0


class Breaks:
    """A store with a defect in what the server asks now and then."""

    def __init__(self, store):
        self.store = store

    def __getattr__(self, name):
        return getattr(self.store, name)

    def champions(self):
        raise RuntimeError("a defect")


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "files")


def health(store, world, *, awaited):
    """Return how a server on `store` answers, as soon as it answers with the status `awaited`."""

    async def ask():
        app = application(Service(replace(world.ports, store=store), Still(), {}))
        ends_at = time.monotonic() + PATIENCE_S
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client,
        ):
            while (answer := await client.get("/health")).status_code != awaited:
                assert time.monotonic() < ends_at, answer.text
                await asyncio.sleep(0.01)
            return answer.json()

    return asyncio.run(ask())


def test_a_server_that_looks_for_what_is_new_is_healthy(world):
    assert health(world.store, world, awaited=200) == {"status": "up"}


def test_a_server_that_has_stopped_looking_says_so(world):
    assert "restart" in health(Breaks(world.store), world, awaited=503)["error"]


def test_a_file_never_goes_back_to_an_older_snapshot(world, tmp_path):
    mirror = Mirror(world.ports, Still(), FileFeed(tmp_path / "snapshots"))
    older = world.store.snapshot(POINT)
    newer = replace(older, number=older.number + 1)
    for snapshot in (newer, older):
        mirror.write(snapshot)
    assert mirror.feed.snapshot(POINT) == newer
