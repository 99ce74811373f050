"""How the scores of both releases are distributed and how often they come true, for a reader."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from seatrial.evidence import Arm, ArmHistogram
from seatrial.report.plots import (
    _BLUE,
    _DPI,
    _GREY,
    _INK,
    _PAPER,
    _RULE,
    _WIDTH_IN,
    _nothing,
    _png,
    _title,
)
from seatrial.report.wording import rate, table
from seatrial.stats.calibration import Decomposition, debiased_error, decomposition
from seatrial.stats.scores import LOWEST, MISSING, OUTSIDE, ScoreGrid, deciles
from seatrial.stats.shifts import Shift, effect_sizes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from matplotlib.axes import Axes

    from seatrial.evidence import Evidence
    from seatrial.plan import Plan
    from seatrial.stats.kernel import FloatArray

#: Bars over the range in which there are scores; more would show the noise of a few hundred units.
_BARS = 30
#: First bin strictly inside a grid, after missing, forbidden and lowest scores.
_INSIDE = LOWEST + 1
#: What stands where there is no number.
_NONE = "none"
#: Colour and order of the arms in every plot; the champion lies below.
ARM_COLOURS: Mapping[Arm, str] = {Arm.CHAMPION: _GREY, Arm.CHALLENGER: _BLUE}


@dataclass(frozen=True, slots=True)
class ScoredArms:
    """Counts of the scores of both releases by bin, each of shape (epochs, bins)."""

    grid: ScoreGrid
    champion: ArmHistogram
    challenger: ArmHistogram
    is_paired: bool  #: both scored copies of the same requests, the challenger in shadow

    def of(self, arm: Arm) -> ArmHistogram:
        """Return the counts of one arm."""
        return self.challenger if arm is Arm.CHALLENGER else self.champion

    def shares(self) -> tuple[FloatArray, FloatArray] | None:
        """Return the part of the units in each bin, of champion and challenger; None without units of both.

        Histograms are averaged over the epochs that have both arms with one weight for both, n m / (n + m) for n and
        m units, so that a ramp does not mix drift into their difference.
        """
        champion, challenger = self.champion.units, self.challenger.units
        n, m = champion.sum(axis=-1), challenger.sum(axis=-1)
        has_both = (n > 0) & (m > 0)
        if not has_both.any():
            return None
        n, m = n[has_both], m[has_both]
        weights = n * m / (n + m)
        weights = weights / weights.sum()
        return (weights / n) @ champion[has_both], (weights / m) @ challenger[has_both]

    def has_labels(self) -> bool:
        """Return whether a unit of either arm has a matured label and a score."""
        return any(self.of(arm).labelled[:, LOWEST:].any() for arm in ARM_COLOURS)


def scored_arms(evidence: Evidence, plan: Plan) -> ScoredArms | None:
    """Return the scores of both arms, from shadow pairs until the challenger serves; None when nothing was scored."""
    if plan.scores is None:
        return None
    grid = ScoreGrid(*plan.scores.range)
    served = evidence.histograms(grid.size)
    if served.challenger.units.any():
        return ScoredArms(grid, served.champion, served.challenger, is_paired=False)
    if not evidence.pairs:
        return None
    counts = np.zeros((2, 3, 1, grid.size), dtype=np.int64)
    for pair, count in evidence.pairs.items():
        tally = np.array([count, count * (pair.label >= 0), count * (pair.label == 1)])
        counts[0, :, 0, pair.champion] += tally
        counts[1, :, 0, pair.challenger] += tally
    return ScoredArms(grid, ArmHistogram(*counts[0]), ArmHistogram(*counts[1]), is_paired=True)


def shift_of(arms: ScoredArms, evidence: Evidence) -> Shift | None:
    """Return how far the scores are apart; None without the champion's deciles from before the rollout."""
    reference = np.zeros(arms.grid.size, dtype=np.int64)
    for at, count in (evidence.frozen.scores if evidence.frozen else {}).items():
        reference[at] = count
    if not reference[_INSIDE:-1].any():
        return None
    return effect_sizes(arms.challenger.units, arms.champion.units, arms.grid, cut_points=deciles(reference))


def score_table(arms: ScoredArms) -> str:
    """Return units, missing, forbidden and extreme scores and the mean score of each arm, as Markdown."""
    low, high = f"exactly {arms.grid.low:g}", f"exactly {arms.grid.high:g}"
    return table(
        ["arm", "units", "mean score", "no score", "outside the contract", low, high],
        (_score_row(arm, arms.of(arm).units.sum(axis=0), arms.grid) for arm in ARM_COLOURS),
    )


def _score_row(arm: Arm, counts: FloatArray, grid: ScoreGrid) -> list[str]:
    units, inside = int(counts.sum()), counts[LOWEST:]
    if units == 0:
        return [arm.value, "0", *[_NONE] * 5]
    mean = f"{inside @ grid.middle()[LOWEST:] / inside.sum():.4g}" if inside.any() else _NONE
    parts = (rate(float(counts[at]) / units) for at in (MISSING, OUTSIDE, LOWEST, grid.size - 1))
    return [arm.value, f"{units:,}", mean, *parts]


def score_plot(arms: ScoredArms, shift: Shift | None) -> bytes:
    """Return a PNG of the part of the units by score, of both arms on one grid."""
    shares = arms.shares()
    if shares is None or not any(share[LOWEST:].any() for share in shares):
        return _nothing("No period in which both releases scored units")
    figure = Figure(figsize=(_WIDTH_IN, 2.7), dpi=_DPI, facecolor=_PAPER, layout="constrained")
    axes = figure.add_subplot()
    _style(axes)
    edges, bars = _bars(arms.grid, shares)
    champion, challenger = (100.0 * share for share in bars)
    axes.stairs(champion, edges, fill=True, color=_RULE, label="champion")
    axes.stairs(champion, edges, color=_GREY, linewidth=1.0)
    axes.stairs(challenger, edges, color=_BLUE, linewidth=2.0, label="challenger")
    axes.set_xlim(edges[0], edges[-1])
    axes.set_ylim(0.0, 1.12 * max(champion.max(), challenger.max()))
    axes.set_xlabel("score", color=_GREY, fontsize=9)
    axes.set_ylabel("part of the units (%)", color=_GREY, fontsize=9)
    axes.legend(frameon=False, fontsize=8, labelcolor=_INK, loc="best")
    _title(figure, _shift_title(shift))
    return _png(figure)


def _bars(grid: ScoreGrid, shares: Iterable[FloatArray]) -> tuple[FloatArray, list[FloatArray]]:
    """Return edges and heights of equal bars over the bins that hold scores; the ends join the bars beside them."""
    inside = []
    for share in shares:
        bins = share[_INSIDE:-1].copy()
        bins[0] += share[LOWEST]
        bins[-1] += share[-1]
        inside.append(bins)
    occupied = np.flatnonzero(np.sum(inside, axis=0))
    width = -(-(occupied[-1] - occupied[0] + 1) // _BARS)
    starts = np.arange(occupied[0], occupied[-1] + 1, width)
    end = min(starts[-1] + width, grid.bins)
    bounds = grid.low + (grid.high - grid.low) * np.append(starts, end) / grid.bins
    return bounds, [np.add.reduceat(bins[:end], starts) for bins in inside]


def _shift_title(shift: Shift | None) -> str:
    if shift is None:
        return "Scores of both releases; the champion has none from before the rollout"
    difference = f"{abs(shift.mean_difference):.2g} {'higher' if shift.mean_difference > 0 else 'lower'}"
    return f"The challenger scores {difference} on average: PSI {shift.psi:.3f}, {shift.psi_null_mean:.3f} by chance"


def calibration_table(arms: ScoredArms) -> str:
    """Return the parts of each arm's Brier score as Markdown; an arm without labels has none."""
    parts = _parts(arms)
    return table(
        ["arm", "labels", "positive", "Brier score", "miscalibration", "discrimination", "uncertainty"],
        (_calibration_row(arm, arms.of(arm), parts.get(arm)) for arm in ARM_COLOURS),
    )


def _calibration_row(arm: Arm, counts: ArmHistogram, parts: Decomposition | None) -> list[str]:
    if parts is None:
        return [arm.value, "0", *[_NONE] * 5]
    labelled, positive = int(parts.labelled.sum()), int(counts.positive[:, LOWEST:].sum())
    numbers = (parts.score, parts.miscalibration, parts.discrimination, parts.uncertainty)
    return [arm.value, f"{labelled:,}", rate(positive / labelled), *(f"{number:.4f}" for number in numbers)]


def _parts(arms: ScoredArms) -> dict[Arm, Decomposition]:
    found = {}
    for arm in ARM_COLOURS:
        counts = arms.of(arm)
        parts = decomposition(counts.labelled.sum(axis=0), counts.positive.sum(axis=0), arms.grid)
        if parts is not None:
            found[arm] = parts
    return found


def reliability_plot(arms: ScoredArms) -> bytes:
    """Return a PNG of how often outcomes were positive by score, recalibrated, above the number of labels by score."""
    parts = _parts(arms)
    if not parts:
        return _nothing("No scored unit has a matured label yet")
    figure = Figure(figsize=(_WIDTH_IN, 4.4), dpi=_DPI, facecolor=_PAPER, layout="constrained")
    curves, counts = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1.0])
    for axes in (curves, counts):
        _style(axes)
    high = min(1.0, 1.05 * max(float(max(each.scores[-1], each.recalibrated[-1])) for each in parts.values()))
    curves.plot([0.0, high], [0.0, high], color=_INK, linewidth=1.0, linestyle=(0, (4, 3)), label="as scored")
    for arm, each in parts.items():
        label = f"{arm.value}, {int(each.labelled.sum()):,} labels"
        # The champion's line is wider, so that it shows below a challenger's of the same course.
        width = 3.6 if arm is Arm.CHAMPION else 1.8
        curves.plot(each.scores, each.recalibrated, color=ARM_COLOURS[arm], linewidth=width, label=label)
    edges, bars = _bars(arms.grid, [_labelled_shares(arms, arm) for arm in parts])
    for arm, bar in zip(parts, bars, strict=True):
        counts.stairs(100.0 * bar, edges, color=ARM_COLOURS[arm], linewidth=1.6)
    curves.set_xlim(0.0, high)
    curves.set_ylim(0.0, high)
    curves.set_ylabel("outcomes that were positive\n(recalibrated)", color=_GREY, fontsize=9)
    curves.legend(frameon=False, fontsize=8, labelcolor=_INK, loc="upper left")
    counts.set_ylim(bottom=0.0)
    counts.set_ylabel("labels (%)", color=_GREY, fontsize=9)
    counts.set_xlabel("score", color=_GREY, fontsize=9)
    _title(figure, _reliability_title(arms, parts))
    return _png(figure)


def _labelled_shares(arms: ScoredArms, arm: Arm) -> FloatArray:
    labelled = arms.of(arm).labelled.sum(axis=0).astype(np.float64)
    return np.asarray(labelled / labelled[LOWEST:].sum(), dtype=np.float64)


def _reliability_title(arms: ScoredArms, parts: Iterable[Arm]) -> str:
    errors = {}
    for arm in parts:
        counts = arms.of(arm)
        errors[arm] = debiased_error(counts.labelled.sum(axis=0), counts.positive.sum(axis=0), arms.grid)
    said = [f"{arm.value} {100.0 * error:.1f}" for arm, error in reversed(errors.items()) if error is not None]
    if not said:
        return "Outcomes by score; too few labels to tell misses from chance"
    return f"Points by which scores miss outcomes, beyond chance: {', '.join(said)}"


def _style(axes: Axes) -> None:
    axes.tick_params(colors=_GREY, labelsize=8, length=3)
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=_RULE, linewidth=0.6)
    for side, spine in axes.spines.items():
        spine.set_visible(side == "bottom")
        spine.set_color(_GREY)
