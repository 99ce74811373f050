"""Change shares under load and count what fails; then kill the control plane and wait for the lease.

``python -m benchmarks.routing.changes [--requests N] [--changes N]``

A real Envoy with its agent, in front of model servers that are a second Envoy; requests are pipelined on one
connection, each with another unit key, while the agent applies one share after another. A request that is answered
with anything but 200, by a release that was not in the comparison, or not at all, is a failed one. Then the control
plane, a process of its own, is killed with SIGKILL while the challenger has the whole share.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import platform
import tempfile
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from threading import Event, Thread

from deployments.envoys import POINT, RELEASES, Feed, running
from seatrial.adapters.file_feed import FileFeed
from seatrial.routing import RoutingSnapshot

_LEASE = timedelta(seconds=5)
_CHUNK = 5_000


def _now() -> datetime:
    return datetime.now(UTC)


def _snapshot(number: int, slots: int, lease: timedelta) -> RoutingSnapshot:
    until = _now() + lease
    return RoutingSnapshot(
        POINT, number, "champion", "champion", "challenger", slots=slots, salt="s/", lease_until=until
    )


def _changes(requests: int, changes: int, home: Path) -> None:
    feed = Feed(_snapshot(1, 0, timedelta(hours=1)))
    with running(home, feed, _now()) as stack:
        answered: Counter[tuple[str, str]] = Counter()
        is_over = Event()

        def load() -> None:
            while sum(answered.values()) < requests or not is_over.is_set():
                begun = sum(answered.values())
                units = (f"card-{n}" for n in range(begun, begun + _CHUNK))
                answered.update((each["status"], each.get("x-seatrial-release", "")) for each in stack.asked(units))

        caller = Thread(target=load)
        began = time.perf_counter()
        caller.start()
        spent = []
        for number in range(2, changes + 2):
            # Spread over the load: a change for every so many requests.
            while caller.is_alive() and sum(answered.values()) < (number - 2) * requests // changes:
                time.sleep(0.005)
            at = time.perf_counter()
            slots = (number * 37) % 10_001
            if not stack.publish(replace(_snapshot(number, slots, timedelta(hours=1))), _now()):
                raise SystemExit(f"change {number} was not taken")
            spent.append((time.perf_counter() - at) * 1e3)
        is_over.set()
        caller.join()
        took = time.perf_counter() - began
        failed = sum(n for (status, by), n in answered.items() if status != "200" or by not in RELEASES[:2])
        total = sum(answered.values())
        print(f"{total:,} requests, {changes} share changes: {failed} failed; {total / took:,.0f} requests a second")
        print(f"one change, from rendering to read back: median {median(spent):.1f} ms, longest {max(spent):.0f} ms")


def _publish(folder: str, number: int) -> None:
    """Be the control plane: renew the lease until killed."""
    while True:
        FileFeed(Path(folder)).publish(_snapshot(number, 10_000, _LEASE))
        time.sleep(0.5)


def _lease(home: Path) -> None:
    folder = home / "published"
    FileFeed(folder).publish(_snapshot(1, 10_000, _LEASE))
    control = multiprocessing.get_context("spawn").Process(target=_publish, args=(str(folder), 1), daemon=True)
    with running(home, FileFeed(folder), _now()) as stack:
        control.start()
        time.sleep(3)
        stack.agent.round(now=_now())
        units = [f"card-{n}" for n in range(1_000)]
        before = stack.releases(units).count("challenger")
        control.kill()
        control.join()
        stack.agent.round(now=_now())
        lease = stack.agent.holder.snapshot.lease_until
        if lease is None:
            raise SystemExit("found a snapshot without a lease")
        # The agent does nothing any more: Envoy alone is left.
        time.sleep(max(0.0, (lease - _now()).total_seconds()))
        after = stack.releases(units).count("challenger")
        print(f"control plane killed: challenger answers {before:,} of 1,000 before, {after} once the lease is over")


def main() -> None:
    """Print what failed under changes, and what was served when the lease was over."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=300_000)
    parser.add_argument("--changes", type=int, default=500)
    asked = parser.parse_args()
    print(f"{os.cpu_count()} cores, Python {platform.python_version()}, Envoy 1.40 with one worker")
    with tempfile.TemporaryDirectory() as home:
        _changes(asked.requests, asked.changes, Path(home))
    with tempfile.TemporaryDirectory() as home:
        _lease(Path(home))


if __name__ == "__main__":
    main()
