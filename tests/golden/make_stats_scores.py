"""Write stats_scores.json: numbers for scores, shifts and calibration from mpmath, model-diagnostics and others.

None of them is needed to run the tests. To make the file again:

    python -m venv oracles
    oracles/bin/pip install mpmath==1.4.1 model-diagnostics==1.5.0 scikit-learn==1.9.1 uncertainty-calibration==0.1.4
    oracles/bin/python tests/golden/make_stats_scores.py
"""

import json
from pathlib import Path

import calibration
import mpmath as mp
import numpy as np
from model_diagnostics.scoring import SquaredError, decompose
from sklearn.isotonic import IsotonicRegression

mp.mp.dps = 50

#: bins of the grid on [0, 1]; with missing, forbidden and both ends 14 in all
BINS = 10
CHALLENGER = [[3, 0, 1, 30, 25, 20, 9, 8, 5, 4, 2, 1, 0, 2], [9, 1, 0, 99, 80, 70, 40, 30, 9, 7, 5, 2, 1, 4]]
CHAMPION = [[20, 1, 9, 400, 300, 150, 70, 55, 40, 20, 9, 5, 2, 3], [9, 0, 4, 160, 120, 70, 30, 9, 8, 6, 3, 1, 1, 1]]
RHO = [mp.mpf("0.1"), mp.mpf("0.4")]
#: super-bins: missing, forbidden, lowest, four inside, highest
GROUPS = [[0], [1], [2], [3], [4, 5], [6, 7, 8], [9, 10, 11, 12], [13]]
LABELLED = [7, 2, 5, 90, 80, 70, 60, 0, 40, 30, 20, 1, 15, 6]
POSITIVE = [3, 1, 1, 7, 9, 21, 17, 0, 22, 14, 15, 0, 14, 5]
#: first and last bin: all, then the lowest score alone and two parts
BANDS = [(2, 13), (2, 2), (3, 6), (7, 13)]


def likelihood_ratio(tilts):
    """Return the likelihood ratio of one log factor for each super-bin, as a product over arms."""
    product = mp.mpf(1)
    for challenger, champion, rho in zip(CHALLENGER, CHAMPION, RHO, strict=True):
        for group, tilt in zip(GROUPS, tilts, strict=True):
            share = rho * mp.exp(tilt) / (rho * mp.exp(tilt) + 1 - rho)
            product *= (share / rho) ** sum(challenger[b] for b in group)
            product *= ((1 - share) / (1 - rho)) ** sum(champion[b] for b in group)
    return product


def each_alone():
    """Return E of super-bins that gain or lose on their own, for three sizes of effect."""
    steps = [mp.mpf("0.05") * (mp.mpf(32)) ** (mp.mpf(j) / 5) for j in range(6)]
    grid = [sign * step for step in steps for sign in (1, -1)]
    total = mp.mpf(0)
    for scale in ("0.1", "0.3", "0.9"):
        weights = [abs(g) * mp.exp(-((g / mp.mpf(scale)) ** 2) / 2) for g in grid]
        product = mp.mpf(1)
        for at in range(len(GROUPS)):
            alone = [[g if b == at else 0 for b in range(len(GROUPS))] for g in grid]
            product *= sum(w * likelihood_ratio(t) for w, t in zip(weights, alone, strict=True)) / sum(weights)
        total += product / 3
    return total


def together():
    """Return E of a shift, a spread and scores gathered in one super-bin."""
    ranks = [mp.mpf(2) * j / 5 - 1 for j in range(6)]
    slopes = [sign * mp.mpf(s) for s in ("0.1", "0.2", "0.4", "0.8") for sign in (1, -1)]
    shift = [[0, 0] + [s * r for r in ranks] for s in slopes]
    spread = [[0, 0] + [s * (2 * abs(r) - 1) for r in ranks] for s in slopes]
    gathered = [
        [mp.log(mp.mpf(factor)) if b == at else 0 for b in range(len(GROUPS))]
        for factor in ("1.5", "2.5", "5")
        for at in range(len(GROUPS))
    ]
    means = []
    for family in (shift, spread, gathered):
        centred = [[t - mp.log(sum(mp.exp(u) for u in tilts[3:7]) / 4) for t in tilts] for tilts in family]
        means.append(sum(likelihood_ratio(tilts) for tilts in centred) / len(family))
    return sum(means) / 3


def calibration_e(sign, tolerance, first, last):
    """Return E for one direction and the bins from `first` to `last`, by its definition as a product over bins."""
    rows = []
    for b in range(first, last + 1):
        low, high = (mp.mpf(0), mp.mpf(0)) if b == 2 else (mp.mpf(b - 3) / BINS, mp.mpf(b - 2) / BINS)
        low, high = (mp.mpf(1), mp.mpf(1)) if b == 13 else (low, high)
        hits, misses = POSITIVE[b], LABELLED[b] - POSITIVE[b]
        middle, most = (low + high) / 2, high
        if sign < 0:
            hits, misses, middle, most = misses, hits, 1 - middle, 1 - low
        if most < 1:
            rows.append((hits, misses, max(most, mp.mpf("1e-6")), middle))

    def logit(p):
        return mp.log(p / (1 - p))

    def ratio(offset_of):
        product = mp.mpf(1)
        for hits, misses, most, middle in rows:
            base = logit(most) + tolerance + mp.mpf("1e-9")
            null, other = 1 / (1 + mp.exp(-base)), 1 / (1 + mp.exp(-base - offset_of(middle)))
            product *= (other / null) ** hits * ((1 - other) / (1 - null)) ** misses
        return product

    def slope_of(pivot, side, slope):
        def offset(middle):
            inside = min(max(middle, mp.mpf("1e-6")), 1 - mp.mpf("1e-6"))
            return min(slope * max(side * (logit(inside) - pivot), 0), mp.mpf(2))

        return offset

    same = [ratio(lambda _, d=d: mp.mpf(d)) for d in ("0.1", "0.2", "0.3", "0.5", "0.8", "1.2")]
    slopes = [
        ratio(slope_of(pivot, side, mp.mpf(slope)))
        for pivot in (-3, 0, 3)
        for side in (1, -1)
        for slope in ("0.1", "0.2", "0.4")
    ]
    certain = [ratio(lambda middle, d=d: d if middle == 0 else 0) for d in (4, 10)]
    parts = zip(("0.5", "0.4", "0.1"), (same, slopes, certain), strict=True)
    return sum(mp.mpf(share) * sum(family) / len(family) for share, family in parts)


def units():
    """Return the binned score and the outcome of every labelled unit with a score."""
    middles = [0.0] + [(b + 0.5) / BINS for b in range(BINS)] + [1.0]
    triples = list(zip(middles, LABELLED[2:], POSITIVE[2:], strict=True))
    scores = np.concatenate([np.full(n, m) for m, n, _ in triples])
    outcomes = np.concatenate([np.repeat([1.0, 0.0], [k, n - k]) for _, n, k in triples])
    return scores, outcomes


def decomposition():
    """Return the decomposition of model-diagnostics and the isotonic curve of scikit-learn."""
    scores, outcomes = units()
    row = decompose(outcomes, scores, scoring_function=SquaredError()).to_dicts()[0]
    curve = IsotonicRegression().fit(scores, outcomes).predict(np.unique(scores))
    return {**{key: float(row[key]) for key in sorted(row) if key != "model"}, "curve": curve.tolist()}


def debiased():
    """Return the debiased squared error of the package of Kumar, Liang and Ma, over bins with at least two labels."""
    scores, outcomes = units()
    binned = [[(s, y) for s, y in zip(scores, outcomes, strict=True) if s == middle] for middle in np.unique(scores)]
    return float(calibration.unbiased_square_ce([rows for rows in binned if len(rows) > 1]))


def main():
    """Write every golden number."""
    numbers = {
        "challenger": CHALLENGER,
        "champion": CHAMPION,
        "labelled": LABELLED,
        "positive": POSITIVE,
        "shift": mp.log((each_alone() + together()) / 2),
        "more": [mp.log(calibration_e(1, mp.mpf("0.1"), *band)) for band in BANDS],
        "less": [mp.log(calibration_e(-1, mp.mpf("0.1"), *band)) for band in BANDS],
        "decomposition": decomposition(),
        "debiased_squared": debiased(),
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, default=float)}" for key, value in numbers.items()]
    Path(__file__).with_name("stats_scores.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
