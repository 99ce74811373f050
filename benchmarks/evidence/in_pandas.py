"""The counts of the same plan in pandas, as a notebook would count them.

Bad rows, units in both arms, tallies, amounts, waits, latencies and label quality: what a look returns for
``plan.yaml``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from benchmarks.evidence.logs import CHALLENGER, CHAMPION, POINT, ROLLOUT
from seatrial.stats.exceedance import BUCKETS, LARGEST, LOG_GAMMA, SMALLEST

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

_COLUMNS = [
    "decision_id",
    "ts",
    "rollout_id",
    "snapshot_no",
    "stage",
    "release_id",
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
    rows = rows[(rows["rollout_id"] == ROLLOUT) & (rows["ts"] <= now)]
    is_sound = (
        rows["release_id"].isin([CHAMPION, CHALLENGER])
        & rows["arm"].isin(["champion", "challenger", "shadow"])
        & rows["share"].between(0, 1)
    )
    count, refused = len(rows), int((~is_sound).sum())
    rows = rows[is_sound & (rows["arm"] != "shadow") & (rows["share"] > 0) & (rows["share"] < 1)]
    arms = rows[["unit_key", "snapshot_no", "arm"]].drop_duplicates()
    crossed = int(arms.duplicated(["unit_key", "snapshot_no"]).sum())
    firsts = rows.sort_values(["ts", "decision_id"]).drop_duplicates("unit_key")
    arrived = labels[labels["arrived_at"] <= now].merge(firsts[["decision_id", "ts"]], on="decision_id")
    arrived = arrived[arrived["arrived_at"] >= arrived["ts"]].sort_values(["arrived_at", "value"])
    came = arrived.groupby("decision_id").agg(
        last=("value", "last"),
        first=("arrived_at", "first"),
        times=("value", "size"),
        least=("value", "min"),
        most=("value", "max"),
    )
    inside = arrived[arrived["arrived_at"] <= arrived["ts"] + _WINDOW]
    within = inside.groupby("decision_id")["value"].last()
    firsts = firsts.merge(came, left_on="decision_id", right_index=True, how="left")
    value, known = firsts["last"], firsts["decision_id"].map(within)
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
    time, squared = _amounts(firsts, firsts["latency_ms"] / (8 * 1e-4))
    _amounts(firsts, known[is_matured] / (0.14 * 1e-4))
    others = [_waits(firsts, value, now), _latencies(firsts), _label_quality(firsts)]
    others.append(firsts.groupby(["snapshot_no", "share", "stage"]).size())
    return {
        "rows": count,
        "refused": refused,
        "crossed": crossed,
        "groups": sum(map(len, others)),
        "time": time,
        "time squared": squared,
        "units": len(table),
        "slow": int(total["slow"].sum()),
        "fraud": int(total["fraud"].sum()),
        "fraud within": int(total["fraud within"].sum()),
        "labelled": int(total["fraud labelled"].sum()),
        "needless in p3": int(by_slice["product"].xs("p3", level="product")["needless"].sum()),
    }


def _amounts(firsts: pd.DataFrame, amounts: pd.Series) -> tuple[int, int]:
    """Return the sums of whole steps and of their squares over all arms."""
    steps = np.floor(amounts.dropna() + 0.5).astype("int64")
    table = pd.DataFrame({"k": steps, "nonzero": steps != 0, "kk": steps * steps})
    keys = firsts.loc[steps.index, ["snapshot_no", "arm"]]
    sums = pd.concat([keys, table], axis=1).groupby(["snapshot_no", "arm"]).agg(["size", "sum"])
    return int(sums["k", "sum"].sum()), int(sums["kk", "sum"].sum())


def _waits(firsts: pd.DataFrame, value: pd.Series, now: datetime) -> pd.Series:
    """Return the units by arm, by the guardrails that they are bad for, by age and by how long their label took."""
    step = _WINDOW / 50
    table = firsts[["snapshot_no", "arm"]].assign(
        fraud=value == 1,
        passed=(value == 1) & (firsts["action_taken"] == "pass"),
        needless=(value == 0) & (firsts["action_taken"] == "review"),
        age=((now - firsts["ts"]) // step).clip(upper=50),
        delay=((firsts["first"] - firsts["ts"]) // step).clip(upper=50).fillna(-1),
    )
    return table.groupby(list(table)).size()


def _latencies(firsts: pd.DataFrame) -> pd.Series:
    """Return the units by arm and by bucket of their latency."""
    latency = firsts["latency_ms"]
    bucket = np.ceil(np.log(latency.clip(SMALLEST, LARGEST) / SMALLEST) / LOG_GAMMA)
    return firsts.groupby(["arm", bucket.where(latency <= LARGEST, BUCKETS - 1)]).size()


def _label_quality(firsts: pd.DataFrame) -> pd.Series:
    """Return the labelled units by arm: repeated, contradictory and late ones."""
    known = firsts[firsts["times"] > 0]
    is_late = known["first"] > known["ts"] + _WINDOW
    return known.groupby(["arm", known["times"] > 1, known["least"] != known["most"], is_late]).size()
