"""The tallies of the same plan in pandas, as a notebook would count them; waits, latencies and amounts are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from benchmarks.evidence.logs import POINT, ROLLOUT

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_COLUMNS = [
    "decision_id",
    "ts",
    "rollout_id",
    "snapshot_no",
    "arm",
    "share",
    "unit_key",
    "score",
    "cut_off",
    "action_taken",
    "latency_ms",
    "outcome",
    "country",
    "product",
    "device",
    "size",
]
_WINDOW = pd.Timedelta(days=3)


def count_in_pandas(root: Path, now: datetime) -> dict[str, int]:
    """Return some totals, by which it is told that the counts are the same."""
    rows = pd.read_parquet(root / "decisions" / f"decision_point={POINT}", columns=_COLUMNS)
    labels = pd.read_parquet(root / "labels" / f"decision_point={POINT}")
    rows = rows[(rows["rollout_id"] == ROLLOUT) & (rows["ts"] <= now) & (rows["share"] > 0) & (rows["share"] < 1)]
    firsts = rows.sort_values(["ts", "decision_id"]).drop_duplicates("unit_key")
    arrived = labels[labels["arrived_at"] <= now].merge(firsts[["decision_id", "ts"]], on="decision_id")
    arrived = arrived[arrived["arrived_at"] >= arrived["ts"]].sort_values(["arrived_at", "value"])
    last = arrived.groupby("decision_id")["value"].last()
    inside = arrived[arrived["arrived_at"] <= arrived["ts"] + _WINDOW]
    within = inside.groupby("decision_id")["value"].last()
    value, known = firsts["decision_id"].map(last), firsts["decision_id"].map(within)
    is_passed, is_reviewed = firsts["action_taken"] == "pass", firsts["action_taken"] == "review"
    is_matured = firsts["ts"] + _WINDOW <= now
    flags = pd.DataFrame(
        {
            "failed": firsts["outcome"].isin(["timeout", "error", "fallback"]),
            "slow": firsts["latency_ms"] > 20,
            "slower": firsts["latency_ms"] > 24,
            "review": is_reviewed,
            "high": firsts["score"] >= 0.95,
            "low": firsts["cut_off"] >= 0.9,
        }
    )
    for name, is_bad, was_bad in (
        ("fraud", value == 1, known == 1),
        ("passed-fraud", (value == 1) & is_passed, (known == 1) & is_passed),
        ("needless", (value == 0) & is_reviewed, (known == 0) & is_reviewed),
    ):
        flags[name] = is_bad
        flags[f"{name} matured"] = is_matured
        flags[f"{name} within"] = was_bad & is_matured
        flags[f"{name} labelled"] = known.notna() & is_matured
        flags[f"{name} good"] = known.notna() & is_matured & ~is_bad
    keys = firsts[["snapshot_no", "arm", "country", "product", "device", "size"]]
    table = pd.concat([keys, flags], axis=1)
    names = list(flags)
    total = table.groupby(["snapshot_no", "arm"])[names].sum()
    by_slice = {
        column: table.groupby(["snapshot_no", "arm", column])[names].sum()
        for column in ("country", "product", "device", "size")
    }
    return {
        "units": len(table),
        "slow": int(total["slow"].sum()),
        "fraud": int(total["fraud"].sum()),
        "fraud within": int(total["fraud within"].sum()),
        "labelled": int(total["fraud labelled"].sum()),
        "needless in p3": int(by_slice["product"].xs("p3", level="product")["needless"].sum()),
    }
