from __future__ import annotations

import subprocess
import sys

from deployments.local import PROJECT


def sweep_once(live):
    """Run one round of the watch to its end, as its schedule does."""
    program = "from flows.sweep import sweep; sweep(for_s=0.0)"
    subprocess.run([sys.executable, "-c", program], cwd=PROJECT, env=live.stack.environment, check=True, timeout=120)


def test_the_watch_writes_the_metrics_of_each_decision_point_over_the_last_ones(live):
    live.point("with_underscore")
    key = "metrics-with--underscore"
    sweep_once(live)
    first = live.artifact(key)
    assert first["type"] == "markdown"
    assert "| rollback_ratio |  | absent: not_yet | 0 to 1 |" in first["data"]
    sweep_once(live)
    assert live.artifact(key)["latest_id"] == first["latest_id"]
    assert live.post("/artifacts/count", {"artifacts": {"key": {"any_": [key]}}}) == 1
