"""The sums of `seatrial.stats.kernel`, arranged for hundreds of thousands of hypotheses at one look.

The unit tests hold the results against the kernel itself. One matrix product gives the log LR of all onsets and
ratios, which is some thirty times faster than one call of the kernel with as many hypotheses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from seatrial.stats import kernel, srm

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Flags = NDArray[np.bool_]

#: Rows of one matrix product; its result stays in the processor's cache.
_CHUNK = 1_024


@dataclass(frozen=True, slots=True)
class Mixture:
    """log E of counts of shape (N, S): `columns` maps bad challenger units and all bad units to log LR."""

    columns: Floats  #: shape (2 S, grid)
    log_weights: Floats  #: shape (grid,)
    log_constant: float  #: log of the weight of onsets that no epoch belongs to, whose E is 1

    def log_e(self, challenger: Integers | Floats, champion: Integers | Floats, *, floor: float = -math.inf) -> Floats:
        """Return log E over the leading axes; the last axis holds the epochs.

        A value below `floor` is only known to be below it: a mixture is no larger than its largest term, which is
        found without a single exponential.
        """
        both = np.concatenate([challenger, challenger + champion], axis=-1).astype(np.float64)
        flat = both.reshape(-1, both.shape[-1])
        found = np.empty(flat.shape[0])
        for start in range(0, flat.shape[0], _CHUNK):
            part = slice(start, start + _CHUNK)
            found[part] = self._chunk(flat[part], floor)
        return found.reshape(both.shape[:-1])

    def _chunk(self, counts: Floats, floor: float) -> Floats:
        terms = counts @ self.columns
        bound = np.maximum(terms.max(axis=1), 0.0 if math.isfinite(self.log_constant) else -math.inf)
        near = np.flatnonzero(bound >= floor)
        if near.size:
            exact = terms[near] + self.log_weights
            largest = np.maximum(exact.max(axis=1), self.log_constant)
            exact -= largest[:, None]
            np.exp(exact, out=exact)
            bound[near] = largest + np.log(exact.sum(axis=1) + np.exp(self.log_constant - largest))
        return np.asarray(bound)


def harm(shares: Floats, *, stage: Integers, stages: int) -> Mixture:
    """Return what `kernel.harm` computes with the default prior, for planned onsets."""
    prior = kernel.half_normal()
    distances = np.tile(prior.log_ratios, (shares.size, 1))
    return _mixture(shares, distances, prior.weights, onsets=_Onsets.of(stage, stages))


def harm_of_all(shares: Floats, *, rate: float, stage: Integers, stages: int) -> Mixture:
    """Return what `kernel.harm_of_all` computes; the last axis of the counts holds bad units, then good ones."""
    prior = kernel.half_normal()
    kept = np.maximum(1.0 - rate * np.exp(prior.log_ratios), 0.05 * (1.0 - rate)) / (1.0 - rate)
    distances = np.concatenate([np.tile(each, (shares.size, 1)) for each in (prior.log_ratios, np.log(kept))])
    return _mixture(np.tile(shares, 2), distances, prior.weights, onsets=_Onsets.of(stage, stages).twice())


def noninferiority(shares: Floats, *, margin: float) -> Mixture:
    """Return what `kernel.noninferiority` computes with its default prior."""
    prior = kernel.near_equality(margin)
    return _mixture(shares, np.tile(-prior.log_ratios, (shares.size, 1)), prior.weights, null=1.0 + margin)


def tilt(shares: Floats) -> tuple[Mixture, Mixture]:
    """Return the two mixtures whose mean `srm.odds_tilt` is: units gained, and lost with the arms exchanged."""
    distances = np.tile(np.log1p(np.asarray(srm.TILTS)), (shares.size, 1))
    weights = np.full(len(srm.TILTS), 1.0 / len(srm.TILTS))
    return _mixture(shares, distances, weights), _mixture(1.0 - shares, distances, weights)


def tilt_log_e(tilts: tuple[Mixture, Mixture], challenger: Integers, champion: Integers) -> Floats:
    """Return what `srm.odds_tilt` returns."""
    gained, lost = tilts[0].log_e(challenger, champion), tilts[1].log_e(champion, challenger)
    return np.asarray(np.logaddexp(gained, lost) - math.log(2.0))


@dataclass(frozen=True, slots=True)
class _Onsets:
    began: Floats  #: 1 where the epoch belongs to the onset, shape (onsets, epochs)
    weights: Floats  #: shape (onsets,)
    rest: float  #: weight of onsets after every epoch, whose E is 1

    @classmethod
    def of(cls, stage: Integers, stages: int) -> _Onsets:
        """Return the planned onsets; those between two epochs count the same epochs, so that their weights add up."""
        weights = np.full(stages, kernel.LATE_WEIGHT / stages)
        weights[0] += 1.0 - kernel.LATE_WEIGHT
        begins = np.unique(stage)
        first = np.searchsorted(begins, np.arange(stages))
        merged = np.bincount(first, weights=weights, minlength=begins.size + 1).astype(np.float64)
        return cls(np.asarray(stage >= begins[:, None], dtype=np.float64), merged[:-1], float(merged[-1]))

    def twice(self) -> _Onsets:
        """Return the onsets for two counts of each epoch, one after the other."""
        return _Onsets(np.tile(self.began, 2), self.weights, self.rest)


def _mixture(
    shares: Floats, distances: Floats, weights: Floats, *, null: float = 1.0, onsets: _Onsets | None = None
) -> Mixture:
    """Return the mixture over `distances` of each epoch, shape (epochs, grid), and over onsets."""
    onsets = onsets or _Onsets(np.ones((1, shares.size)), np.ones(1), 0.0)
    spent = np.log1p(expit(logit(shares) + math.log(null))[:, None] * np.expm1(distances))
    columns = [np.concatenate([distances * one[:, None], -spent * one[:, None]]) for one in onsets.began]
    log_weights = np.log(np.outer(onsets.weights, weights)).ravel()
    rest = math.log(onsets.rest) if onsets.rest > 0 else -math.inf
    return Mixture(np.concatenate(columns, axis=1), log_weights, rest)
