"""Run the benchmark of rollout decision quality.

``python -m benchmarks.decisions [--full] [--suites S0,S2] [--replicates N] [--seed N] [--write]``

Without ``--full`` a two-minute subset runs. With ``--write`` the tables go to benchmarks/results/decisions.md, or
decisions-full.md, with two plots beside it.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

# Before the matrix library is loaded: each of the processes has one core, and threads would take each other's.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from benchmarks.decisions import report
from benchmarks.decisions.page import written
from benchmarks.decisions.running import SUITES, Options, measured, rules_shown
from benchmarks.decisions.targets import targets

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS = Path(__file__).parents[1] / "results"
QUICK, FULL = 100, 200


def parsed(arguments: Sequence[str] | None) -> Options:
    """Return the options, or end with what is wrong with them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.decisions", description=__doc__)
    parser.add_argument("--full", action="store_true", help=f"every cell, {FULL} rollouts a rule, about six minutes")
    parser.add_argument("--suites", default="", help=f"some of {','.join(SUITES)}; with their quick cells only")
    parser.add_argument("--replicates", type=int, help="rollouts of each rule in each cell")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write tables and plots to benchmarks/results")
    given = parser.parse_args(arguments)
    suites = tuple(name.upper() for name in given.suites.split(",") if name) or SUITES
    if unknown := sorted(set(suites) - set(SUITES)):
        parser.error(f"--suites: found {', '.join(unknown)}; expected some of {', '.join(SUITES)}")
    replicates = given.replicates or (FULL if given.full else QUICK)
    if replicates < 1:
        parser.error(f"--replicates: found {replicates}; expected at least 1")
    return Options(given.full, suites, replicates, given.seed, given.write)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print, and write when asked."""
    options = parsed(arguments)
    began = time.monotonic()
    print(f"{len(options.cells)} cells, {options.replicates} rollouts a rule, seed {options.seed}\n")
    print(report.settings(rules_shown()), flush=True)
    scores, identity = measured(options)
    seconds = time.monotonic() - began
    print(f"\n## Targets, {seconds:.0f} s\n\n{report.targets_table(targets(scores, identity))}")
    if options.is_written:
        RESULTS.mkdir(exist_ok=True)
        page = written(options, scores, identity, seconds)
        (RESULTS / f"{options.name}.md").write_text(page, encoding="utf-8")
        report.plot_false_rollbacks(scores, RESULTS / f"{options.name}-false-rollbacks.png")
        report.plot_exposure(scores, RESULTS / f"{options.name}-exposure.png")
        print(f"\nwritten: {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS}")


if __name__ == "__main__":
    main()
