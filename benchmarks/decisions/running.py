"""Play the chosen cells in two processes."""

from __future__ import annotations

import time
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.decisions import report
from benchmarks.decisions.controllers import Argo, Flagger, Kayenta
from benchmarks.decisions.engine import play
from benchmarks.decisions.experiments import Msprt, OverlapSequence, Peeking, SafeRollout, Sequential
from benchmarks.decisions.flights import FlightTraffic
from benchmarks.decisions.identity import Identity, compare
from benchmarks.decisions.ours import Seatrial
from benchmarks.decisions.planned import GroupSequential
from benchmarks.decisions.scoring import Score, score
from benchmarks.decisions.streams import Stream, Traffic
from benchmarks.decisions.suites import CELLS, Cell, Truth
from seatrial.gates.counted import COMMON

if TYPE_CHECKING:
    from benchmarks.decisions.rules import Rule

WORKERS = 2
SUITES = (*dict.fromkeys(cell.suite for cell in CELLS), "S13")


@dataclass(frozen=True)
class Options:
    """What was asked for on the command line."""

    is_full: bool
    suites: tuple[str, ...]
    replicates: int
    seed: int
    is_written: bool

    @property
    def name(self) -> str:
        """Return the name of the files of results, without its ending."""
        return "decisions-full" if self.is_full else "decisions"

    @property
    def cells(self) -> list[int]:
        """Return the indices of the chosen cells."""
        return [at for at, cell in enumerate(CELLS) if cell.suite in self.suites and (self.is_full or cell.is_quick)]


def rules_for(cell: Cell) -> list[Rule]:
    """Return the rules that play `cell`."""
    rules: list[Rule] = [
        Seatrial(),
        Argo(0),
        Argo(3),
        Argo(3, None, 0.05),
        Flagger(),
        Kayenta(),
        Sequential(),
        SafeRollout(),
        SafeRollout(minimum=0),
        Msprt(),
        GroupSequential("Pocock"),
        GroupSequential("O'Brien-Fleming"),
        Peeking(),
        OverlapSequence(),
    ]
    if cell.stream.entity_events > 1:
        rules.insert(1, Seatrial(name="seatrial, requests counted", counts_units=False))
    if max(cell.stream.base) >= COMMON:
        rules.insert(1, Seatrial(name="seatrial, rate declared", declares_rate=True))
    return rules


def replicates_of(cell: Cell, rule: Rule, asked: int) -> int:
    """Return how many rollouts of `cell` are played; a rare error of ours is looked for in more of them."""
    is_rare = isinstance(rule, Seatrial) and cell.truth is not Truth.HARMFUL and not cell.stream.has_slices
    return max(round(asked * cell.replicates * (3 if is_rare else 1)), 1)


def run(cell_at: int, rule_at: int, replicates: int, seed: int) -> Score:
    """Return the score of one rule on one cell; the same seed gives the same draws to every rule at first."""
    cell = CELLS[cell_at]
    rule = rules_for(cell)[rule_at]
    rng = np.random.default_rng([seed, cell_at])
    traffic = FlightTraffic if cell.is_real else Traffic
    return score(cell, rule, play(cell.stream, rule, replicates, rng=rng, traffic=traffic))


def rules_shown() -> list[Rule]:
    """Return every rule with its settings read."""
    rules = {rule.name: rule for cell in CELLS for rule in rules_for(cell)}
    for rule in rules.values():
        rule.begin(Stream(), 1)
    return list(rules.values())


def measured(options: Options) -> tuple[list[Score], Identity | None]:
    """Return the scores of all cells, printed suite by suite as they come."""
    began = time.monotonic()
    scores: list[Score] = []
    identity: Identity | None = None
    # Spawned: the matrix library reads its number of threads when it is loaded.
    with ProcessPoolExecutor(WORKERS, mp_context=get_context("spawn")) as pool:
        compared = pool.submit(compare, range(4 if options.is_full else 1)) if "S13" in options.suites else None
        jobs: dict[int, list[Future[Score]]] = {
            at: [
                pool.submit(run, at, place, replicates_of(CELLS[at], rule, options.replicates), options.seed)
                for place, rule in enumerate(rules_for(CELLS[at]))
            ]
            for at in options.cells
        }
        for suite in dict.fromkeys(CELLS[at].suite for at in options.cells):
            of_suite = [job.result() for at in options.cells if CELLS[at].suite == suite for job in jobs[at]]
            scores += of_suite
            print(f"\n## {suite}, {time.monotonic() - began:.0f} s\n\n{report.cell_tables(of_suite)}", flush=True)
        if compared is not None:
            identity = compared.result()
            print(f"\n## S13, {time.monotonic() - began:.0f} s\n\n{identity}", flush=True)
    return scores, identity
