from __future__ import annotations

import subprocess
import sys

import pyarrow.dataset as ds
from live_stack import LEASE, until

from seatrial.rollout import State


def decisions(live, point):
    folder = live.plant.logs / "decisions" / f"decision_point={point.name}"
    rows = ds.dataset(folder, format="parquet").to_table(columns=["ts", "arm", "share"]).to_pylist()
    return [row for row in rows if row["arm"] != "shadow"]


def stop_control_plane(live):
    for part in ("sweep", "worker", "server"):
        child = live.stack.parts[part]
        child.process.kill()
        child.process.wait()


def start_control_plane(live):
    live.stack.start_server()
    live.stack.start_worker()
    live.start_sweep()


def kill_by_command(live, point):
    """Run `seatrial kill` to its end while the router goes on, and return its exit code."""
    program = [sys.executable, "-c", "import sys; from seatrial.cli import main; sys.exit(main())"]
    words = [*program, "kill", point.challenger, "--reason", "nobody watches it", "--as", "oncall", "--wait-s", "60"]
    with subprocess.Popen(words, env=live.stack.environment) as command:
        until(lambda: point.state and command.poll() is not None, "the end of seatrial kill")
        return command.returncode


def test_without_its_control_plane_a_canary_ends_with_its_lease_and_can_be_killed(live):
    point = live.point("outage")
    point.start()
    point.drive(State.CANARY)
    stop_control_plane(live)
    try:
        stopped_at = live.now
        ends_at = live.plant.store.snapshot(point.name).lease_until
        assert stopped_at < ends_at <= stopped_at + LEASE
        while live.now < ends_at + LEASE:
            point.advance(is_watched=False)
        rows = [row for row in decisions(live, point) if row["ts"] >= stopped_at]
        before = [row for row in rows if row["ts"] < ends_at]
        after = [row for row in rows if row["ts"] >= ends_at]
        assert {row["arm"] for row in before} == {"champion", "challenger"}
        assert after
        assert {(row["arm"], row["share"]) for row in after} == {("champion", 0.0)}
        assert kill_by_command(live, point) == 0
        assert point.state is State.ROLLED_BACK
    finally:
        start_control_plane(live)
    until(lambda: point.flow_state == "Rolled back", "the end of the run, which slept when its rollout ended")
