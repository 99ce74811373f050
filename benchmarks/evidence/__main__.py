"""Measure what a look costs: ``python -m benchmarks.evidence``.

Each way of counting runs in a process of its own, one after the other, on the same files; the least of the runs is
taken. Totals are compared, so that nobody is fast by counting something else.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import duckdb

from benchmarks.evidence.handwritten import count_by_hand
from benchmarks.evidence.in_pandas import count_in_pandas
from benchmarks.evidence.logs import BEGIN, CHALLENGER, CHAMPION, DAYS, POINT, ROLLOUT, Size, add_rows, end, write_logs
from seatrial.adapters.counted import CountedLogs
from seatrial.adapters.duckdb import ParquetLogs
from seatrial.adapters.engines import MEMORY, THREADS
from seatrial.evidence import Evidence, Tally
from seatrial.plan import load_plan
from seatrial.ports import Scope

PLAN = Path(__file__).with_name("plan.yaml")
SCOPE = Scope(POINT, ROLLOUT, CHAMPION, CHALLENGER, BEGIN)
NEW_ROWS = 0.01
#: So much time goes by until there are so many new rows.
LATER = timedelta(days=DAYS) * NEW_ROWS
PANDAS_MOST = 5_000_000


def main() -> int:
    """Run one way of counting when told which, and all of them otherwise."""
    arguments = _arguments()
    if arguments.way is not None:
        return _measure(arguments.way, arguments.root, arguments.memory)
    folder = Path(mkdtemp(prefix="seatrial-bench-", dir=arguments.folder))
    settings = f"DuckDB {duckdb.__version__}, {THREADS} threads, {MEMORY}"
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {settings}")
    first = None
    try:
        for decisions in arguments.sizes:
            if arguments.throughput:
                first = _run_throughput(folder / "throughput", Size(decisions), arguments.runs, first)
            else:
                _run(folder / str(decisions), Size(decisions), arguments.runs)
    finally:
        shutil.rmtree(folder)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument("--sizes", type=_number, nargs="+", default=[1_000_000, 5_000_000], metavar="ROWS")
    parser.add_argument("--throughput", action="store_true", help="measure only what a row of a whole look costs")
    parser.add_argument("--runs", type=int, default=2, help="how often each way is measured; 2 when left out")
    parser.add_argument("--folder", type=Path, help="where the logs are written; the system's folder when left out")
    parser.add_argument("--way", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def _number(text: str) -> int:
    return round(float(text.removesuffix("M")) * (1_000_000 if text.endswith("M") else 1))


def _run(root: Path, size: Size, runs: int) -> None:
    print(f"\n{size.decisions:,} decisions, {size.labels:,} labels, 12 guardrails, 20 slices", flush=True)
    began = time.perf_counter()
    write_logs(root / "logs", size)
    print(f"  logs written in {time.perf_counter() - began:.0f} s", flush=True)
    ours = _least("look", root, runs)
    hand = _least("hand", root, runs)
    _require_same(ours, hand)
    print(f"  a whole look          {_cost(ours)}")
    print(f"  SQL written by hand   {_cost(hand)}   ratio {_ratio(ours, hand):.2f}")
    if size.decisions <= PANDAS_MOST:
        pandas = _least("pandas", root, 1)
        _require_same(pandas, ours)
        print(f"  pandas                {_cost(pandas)}   ratio {_ratio(pandas, ours):.1f}")
    first = _child("first", root)
    add_rows(root / "logs", size, NEW_ROWS)
    again = _child("again", root)
    anew = _child("later", root)
    _require_same(again, anew)
    print(f"  first look, kept      {_cost(first)}")
    print(
        f"  look after {NEW_ROWS:.0%} new    {_cost(again)}"
        f"   {again['seconds'] / anew['seconds']:.1%} of counting anew ({anew['seconds']:.2f} s)"
    )
    print(f"  microseconds a row    {ours['seconds'] / size.decisions * 1e6:8.2f}", flush=True)


def _run_throughput(root: Path, size: Size, runs: int, first: float | None) -> float:
    """Print what a row costs at this size, beside the first; return what it cost at the first."""
    write_logs(root / "logs", size)
    load = os.getloadavg()[0]
    look = _least("look", root, runs)
    shutil.rmtree(root)
    each = float(look["seconds"]) / size.decisions * 1e6
    cost = f"{look['seconds']:8.2f} s  cpu {look['cpu']:8.2f} s  {look['mb']:6,.0f} MB"
    ratio = each / (first or each)
    print(f"{size.decisions:>11,} decisions  {each:5.2f} us a row  {ratio:4.2f}  {cost}  load {load:.1f}", flush=True)
    return first or each


def _cost(result: dict[str, Any]) -> str:
    return f"{result['seconds']:8.2f} s  cpu {result['cpu']:8.2f} s  {result['mb']:6,.0f} MB"


def _ratio(one: dict[str, Any], other: dict[str, Any]) -> float:
    return float(one["seconds"] / other["seconds"])


def _least(way: str, root: Path, runs: int) -> dict[str, Any]:
    return min((_child(way, root) for _ in range(runs)), key=lambda result: result["seconds"])


def _child(way: str, root: Path) -> dict[str, Any]:
    words = ["--way", way, "--root", str(root / "logs"), "--memory", str(root / "memory")]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.evidence", *words], check=True, stdout=subprocess.PIPE, text=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _require_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    differing = {
        name: (value, other["totals"][name])
        for name, value in one["totals"].items()
        if name in other["totals"] and other["totals"][name] != value
    }
    if differing:
        raise SystemExit(f"the ways of counting differ: {differing}")


def _measure(way: str, root: Path, memory: Path) -> int:
    plan, logs, began = load_plan(PLAN), ParquetLogs(root), time.perf_counter()
    match way:
        case "hand":
            totals: dict[str, Any] = count_by_hand(root, end())
        case "pandas":
            totals = count_in_pandas(root, end())
        case "look":
            totals = _totals(logs.look(plan, SCOPE, now=end()))
        case "first":
            totals = _totals(CountedLogs(logs, memory, small_bytes=0).look(plan, SCOPE, now=end()))
        case "again":
            totals = _totals(CountedLogs(logs, memory, small_bytes=0).look(plan, SCOPE, now=end() + LATER))
        case _:
            totals = _totals(logs.look(plan, SCOPE, now=end() + LATER))
    seconds, cpu = time.perf_counter() - began, time.process_time()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "cpu": cpu, "mb": peak, "totals": totals}))
    return 0


def _totals(evidence: Evidence) -> dict[str, Any]:
    def tally(guardrail: str, value: str | None = None) -> Tally:
        return sum(
            (t for c, t in evidence.cells.items() if (c.guardrail, c.slice_value) == (guardrail, value)), Tally()
        )

    moments = [m for c, m in evidence.moments.items() if (c.guardrail, c.slice_value) == ("time", None)]
    return {
        "rows": evidence.rows,
        "units": sum(evidence.assigned.values()),
        "slow": tally("slow").bad,
        "fraud": tally("fraud").bad,
        "fraud within": tally("fraud").matured_bad,
        "labelled": tally("fraud").labelled,
        "needless in p3": tally("needless", "p3").bad,
        "time": sum(m.k for m in moments),
        "time squared": sum(m.kk for m in moments),
        "digest": evidence.digest,
    }


if __name__ == "__main__":
    sys.exit(main())
