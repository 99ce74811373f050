"""Write stats_paired.json: numbers for paired, thresholds and horizon from MLstatkit, mpmath and gsDesign.

None of them is needed to run the tests. To make the file again:

    python -m venv oracles
    oracles/bin/pip install MLstatkit==0.1.91 mpmath==1.4.1 gsDesign==0.1.5
    oracles/bin/python tests/golden/make_stats_paired.py
"""

import json
from itertools import pairwise
from pathlib import Path

import mpmath as mp
import numpy as np
from gsdesign import h1, hupdate
from MLstatkit import Delong_test
from scipy.optimize import brentq
from scipy.stats import norm

mp.mp.dps = 50
#: nodes of gsDesign's integration, far more than its default of 18
RESOLUTION = 120
INF = float("inf")


def scored(seed, pairs, digits):
    """Return scores of two releases and labels, rounded so that ties abound when `digits` is small."""
    rng = np.random.default_rng(seed)
    label = (rng.uniform(size=pairs) < 0.4).astype(int)
    common = rng.normal(size=pairs) + 1.2 * label
    champion, challenger = (1 / (1 + np.exp(1 - common - rng.normal(0, s, pairs))) for s in (0.7, 1.0))
    return champion.round(digits), challenger.round(digits), label


def delong(seed, pairs, digits):
    """Return data with the areas and the standard error of MLstatkit, pair by pair."""
    champion, challenger, label = scored(seed, pairs, digits)
    *_, area, other, info = Delong_test(label, champion, challenger)
    if info["method"] != "delong":
        raise RuntimeError(f"MLstatkit fell back to {info['method']}")
    return {
        "champion": champion.tolist(),
        "challenger": challenger.tolist(),
        "label": label.tolist(),
        "areas": [area, other],
        "standard_error": float(np.sqrt(info["var_diff"])),
    }


def stakes():
    """Return the fractions of betting by their definition, 16 from 1/200 to 9/10 at equal log steps."""
    ratio = mp.mpf(180) ** (mp.mpf(1) / 15)
    return [mp.mpf("0.005") * ratio**j for j in range(16)]


def betting(rows, null, sign):
    """Return log E of Brier differences, pair by pair."""
    total = mp.mpf(0)
    for stake in stakes():
        wealth = mp.mpf(1)
        for champion, challenger, label, count in rows:
            d = (mp.mpf(challenger) - label) ** 2 - (mp.mpf(champion) - label) ** 2
            for _ in range(count):
                wealth *= 1 + stake / (1 + null) * (sign * d - null)
        total += wealth / 16
    return mp.log(total)


def log_losses(rows):
    """Return the mean difference of log losses and its variance, a millionth being the least probability."""
    differences = []
    for champion, challenger, label, count in rows:
        losses = []
        for score in (champion, challenger):
            chance = mp.mpf(score) if label else 1 - mp.mpf(score)
            losses.append(-mp.log(max(chance, mp.mpf(10) ** -6)))
        differences += [losses[1] - losses[0]] * count
    mean = mp.fsum(differences) / len(differences)
    return [mean, mp.fsum((d - mean) ** 2 for d in differences)]


def binomial_below(k, n, rate):
    """Return P(Bin(n, rate) <= k) exactly."""
    return mp.fsum(mp.binomial(n, j) * rate**j * (1 - rate) ** (n - j) for j in range(k + 1))


def most_allowed(n, rate, delta):
    """Return the largest k with P(Bin(n, rate) <= k) <= delta, or -1."""
    k = -1
    while binomial_below(k + 1, n, mp.mpf(rate)) <= mp.mpf(delta):
        k += 1
    return k


def exact_limits(k, n, alpha):
    """Return the rates at which a tail of the binomial is alpha / 2, from sums and not from the beta law."""
    half = mp.mpf(alpha) / 2
    low = mp.findroot(lambda p: 1 - binomial_below(k - 1, n, p) - half, (0.4 * k / n, 0.9 * k / n), solver="anderson")
    high = mp.findroot(lambda p: binomial_below(k, n, p) - half, (1.1 * k / n, 2 * k / n), solver="anderson")
    return [low, high]


def obrien_fleming(t, alpha):
    """Return the error spent."""
    return 2 * norm.sf(norm.isf(alpha / 2) / np.sqrt(t))


def pocock(t, alpha):
    """Return the error spent."""
    return alpha * np.log(1 + (np.e - 1) * t)


def lan_demets(information, alpha, spending):
    """Return limits by the integration of gsDesign."""
    limits = [float(norm.isf(spending(information[0] / information[-1], alpha)))]
    grid = h1(RESOLUTION, 0.0, information[0], -INF, limits[0])
    for before, now in pairwise(information):
        t0, t1 = before / information[-1], now / information[-1]
        due = spending(t1, alpha) - spending(t0, alpha)

        def beyond(z, now=now, before=before, grid=grid):
            return hupdate(RESOLUTION, 0.0, now, z, INF, 0.0, before, grid)[2].sum()

        limits.append(brentq(lambda z, due=due, beyond=beyond: beyond(z) - due, 0.5, 8, xtol=1e-12))
        grid = hupdate(RESOLUTION, 0.0, now, -INF, limits[-1], 0.0, before, grid)
    return limits


def main():
    """Write every golden number."""
    rows = [(0.1, 0.3, 0, 12), (0.1, 0.3, 1, 2), (0.8, 0.75, 1, 9), (0.5, 0.5, 0, 4), (0.0, 1.0, 0, 1)]
    looks = {"even": [1.0, 2.0, 3.0, 4.0, 5.0], "ramp": [1.5, 1.9, 3.5, 7.0, 10.0]}
    plans = [(name, f.__name__, alpha) for name in looks for f in (obrien_fleming, pocock) for alpha in (0.025, 0.05)]
    numbers = {
        "delong": [delong(1, 160, 6), delong(2, 200, 1), delong(3, 160, 0)],
        "rows": rows,
        "brier_harm": betting(rows, mp.mpf(0), 1),
        "brier_harm_null": betting(rows, mp.mpf("0.02"), 1),
        "brier_noninferiority": betting(rows, mp.mpf("-0.05"), -1),
        "log_loss": log_losses(rows),
        "allowed": [[n, a, d, most_allowed(n, a, d)] for n in (60, 500) for a in (0.05, 0.2) for d in (0.05, 0.1)],
        "exact_limits": [[k, n, a, *exact_limits(k, n, a)] for k, n, a in ((3, 50, 0.05), (70, 400, 0.1))],
        "limits": [
            {
                "information": looks[name],
                "spending": spending,
                "alpha": alpha,
                "limit": lan_demets(looks[name], alpha, globals()[spending]),
            }
            for name, spending, alpha in plans
        ],
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, default=float)}" for key, value in numbers.items()]
    Path(__file__).with_name("stats_paired.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
