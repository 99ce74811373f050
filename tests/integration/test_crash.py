import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from builders import POINT

from seatrial.adapters.sql import METADATA, SqlStore
from seatrial.errors import NotFoundError
from seatrial.ledger import verify
from seatrial.rollout import State, share_of

TESTS = Path(__file__).parents[1]
DRIVER = Path(__file__).with_name("crash_driver.py")
#: Of each story. All moments, some hundreds, take minutes; a seeded sample with both ends takes seconds.
CRASHES = 12


class Driver:
    """A process that lives a story through, and dies in it where it is told to."""

    def __init__(self, url, folder, story):
        self.store = SqlStore(url)
        self.store.create_tables()
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(DRIVER), url, str(folder), story],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{TESTS}:{TESTS.parent}", "OMP_NUM_THREADS": "1"},
        )

    def live(self, *, die_at=0):
        """Return how the process ended that lived the story, or died at moment `die_at`."""
        self.process.stdin.write(f"{die_at}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def forget(self):
        """Empty the database and set back the clock."""
        with self.store.engine.begin() as connection:
            connection.exec_driver_sql(f"TRUNCATE {', '.join(METADATA.tables)}")
        self.store.create_tables()
        (self.folder / "clock").unlink(missing_ok=True)

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=30)
        self.process.stdout.close()
        self.store.close()


@pytest.fixture(params=["promoted", "rolled back"])
def driver(request, postgres_url, tmp_path):
    driver = Driver(postgres_url, tmp_path, request.param)
    yield driver
    driver.close()


def share_in_force(store):
    try:
        return store.snapshot(POINT).share
    except NotFoundError:
        return 0.0


def share_allowed(store):
    rollouts = store.rollouts()
    return share_of(rollouts[-1], store.plan(rollouts[-1].plan_id)) if rollouts else 0.0


def records(store):
    """Return what the ledger says; the salts of two ledgers differ, and with them their hashes."""
    entries = store.entries()
    verify(entries)
    return [entry.record for entry in entries]


@pytest.mark.parametrize("seed", [20130601])
def test_a_crash_at_any_write_changes_nothing_of_what_is_decided_and_done(driver, seed):
    assert driver.live() == 0
    undisturbed = records(driver.store)
    moments = int((driver.folder / "moments").read_text())
    end = driver.store.rollouts()[0].state
    assert end in (State.CHAMPION, State.ROLLED_BACK)
    assert moments > CRASHES
    sample = {1, 2, moments - 1, moments, *random.Random(seed).sample(range(1, moments), CRASHES)}  # noqa: S311 a sample
    for moment in sorted(sample):
        driver.forget()
        assert driver.live(die_at=moment) == -signal.SIGKILL
        assert share_in_force(driver.store) <= share_allowed(driver.store)
        verify(driver.store.entries())
        assert driver.live() == 0
        assert records(driver.store) == undisturbed
        assert driver.store.rollouts()[0].state is end


@pytest.mark.parametrize("seed", [20130602])
def test_a_crash_after_each_crash_changes_nothing_either(driver, seed):
    assert driver.live() == 0
    undisturbed = records(driver.store)
    driver.forget()
    rng = random.Random(seed)  # noqa: S311 a sample
    deaths = 0
    while driver.live(die_at=rng.randint(20, 90)) != 0:
        deaths += 1
        assert share_in_force(driver.store) <= share_allowed(driver.store)
    assert deaths > 2
    assert records(driver.store) == undisturbed
