"""The group-sequential rule: a planned horizon, and an error that is spent up to it (Lan and DeMets 1983)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.optimize import brentq
from scipy.signal import fftconvolve
from scipy.special import ndtr, ndtri

from benchmarks.decisions.experiments import ALPHA, Scheduled, rate_of
from benchmarks.decisions.streams import CHALLENGER, CHAMPION

if TYPE_CHECKING:
    from benchmarks.decisions.mixture import Flags, Floats
    from benchmarks.decisions.rules import Look
    from benchmarks.decisions.streams import Counts, Ramp, Stream


@dataclass
class GroupSequential(Scheduled):
    """A group-sequential test with the ramp as its planned horizon, on the score stratified by share."""

    spending: str = "Pocock"
    looks: int = 60
    _bounds: dict[int, float] = field(init=False)

    @property
    def name(self) -> str:
        """Return the rule with its spending function."""
        return f"GST {self.spending}, stratified"

    @property
    def settings(self) -> str:
        """Return its settings."""
        return (
            f"Lan-DeMets spending of {self.spending} type, one-sided {ALPHA:.0%}, {self.looks} looks at planned"
            " information, Mantel-Haenszel score by share, no correction for guardrails; needs the length of the ramp"
            " beforehand"
        )

    def begin(self, stream: Stream, replicates: int) -> None:
        """Compute the boundary for the planned ramp."""
        del replicates
        self._bounds = planned_bounds(stream.ramp, self.looks, self.spending)

    def is_harmed(self, look: Look) -> Flags:
        """Return where the stratified z is beyond the boundary of this look."""
        z = stratified_z(look.counts)
        return np.asarray(z >= self._bounds.get(look.now + 1, math.inf))


def stratified_z(counts: Counts) -> Floats:
    """Return the Mantel-Haenszel z of the challenger's bad units over shares, (replicates, guardrails)."""
    n1, n0 = (counts.units[:, None, arm].astype(float) for arm in (CHALLENGER, CHAMPION))
    total, bad = n1 + n0, counts.bad.sum(axis=2).astype(float)
    score = counts.bad[:, :, CHALLENGER] - bad * rate_of(n1, total)
    variance = bad * np.maximum(total - bad, 0) * n1 * n0 / np.maximum(total**2 * (total - 1), 1.0)
    return np.asarray(score.sum(axis=-1) / np.sqrt(np.maximum(variance.sum(axis=-1), 1e-12)))


@lru_cache(maxsize=32)
def planned_bounds(ramp: Ramp, looks: int, spending: str) -> dict[int, float]:
    """Return the boundary on z by number of ticks served."""
    shares = np.repeat(np.array(ramp.shares), ramp.ticks)
    information = np.cumsum(shares * (1 - shares))
    at = np.unique(np.linspace(ramp.planned / looks, ramp.planned, looks).round().astype(int))
    fractions = information[at - 1] / information[-1]
    return dict(zip(at.tolist(), boundary(fractions, spending, ALPHA).tolist(), strict=True))


def boundary(fractions: Floats, spending: str, alpha: float) -> Floats:
    """Return the one-sided boundary on z that spends `alpha` over looks at `fractions` of the information.

    The density of the score of those that have not crossed is carried from look to look on a grid (Armitage, McPherson
    and Rowe 1969).

    >>> boundary(np.array([1.0]), "Pocock", 0.05).round(3).tolist()
    [1.645]
    """
    if spending == "Pocock":
        spent = alpha * np.log1p((math.e - 1) * fractions)
    else:
        spent = 2 - 2 * ndtr(-ndtri(alpha / 2) / np.sqrt(fractions))
    increments = np.diff(spent, prepend=0.0)
    grid = np.linspace(-4.0, 4.0, 801)
    step = grid[1] - grid[0]
    steps = np.arange(-grid.size + 1, grid.size) * step
    bounds, mass, before = [], np.where(np.abs(grid) < step / 2, 1.0, 0.0), 0.0
    for fraction, due in zip(fractions, increments, strict=True):
        deviation = math.sqrt(fraction - before)
        bound = brentq(_excess, -8.0, 8.0, args=(mass, grid, deviation, max(float(due), 1e-12)))
        # Steps have one length, so that the move to the next look is a convolution.
        move = np.exp(-0.5 * (steps / deviation) ** 2) * step / (deviation * math.sqrt(2 * math.pi))
        # A cell that the boundary cuts keeps the part below it.
        mass = fftconvolve(mass, move, mode="valid") * np.clip((bound - grid) / step + 0.5, 0.0, 1.0)
        bounds.append(bound / math.sqrt(fraction))
        before = fraction
    return np.array(bounds)


def _excess(bound: float, mass: Floats, grid: Floats, deviation: float, due: float) -> float:
    return float(mass @ ndtr((grid - bound) / deviation)) - due
