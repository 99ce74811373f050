"""Write stats_core.json: numbers for seatrial.stats from mpmath, savvi, online-fdr and statsmodels.

None of them is needed to run the tests. To make the file again:

    python -m venv oracles
    oracles/bin/pip install mpmath==1.4.1 savvi==0.3.1 matplotlib online-fdr==1.0.0 statsmodels==0.15.0
    oracles/bin/python tests/golden/make_stats_core.py
"""

import json
from itertools import chain, combinations
from pathlib import Path

import mpmath as mp
import numpy as np
from online_fdr.e_values.batch import e_bh
from savvi.multinomial import Multinomial
from statsmodels.duration.survfunc import SurvfuncRight, survdiff

mp.mp.dps = 50

K1, K0 = [4, 40], [300, 350]
G1, G0 = [400, 4000], [39000, 34000]
RHO = [mp.mpf("0.01"), mp.mpf("0.1")]
#: 24 ratios at equal log steps from 1.1 to 4, as in the published example of the kernel
LOG_GRID = [mp.log(mp.mpf("1.1")) + j * (mp.log(4) - mp.log(mp.mpf("1.1"))) / 23 for j in range(24)]


def odds_to_share(rho, factor):
    """Return the challenger's share when its odds are multiplied by `factor`."""
    return rho * factor / (rho * factor + 1 - rho)


def likelihood_ratio(k1, k0, rho, factor, null=1):
    """Return the likelihood ratio of `factor` against `null`, by its definition as a product of shares."""
    product = mp.mpf(1)
    for one, zero, share in zip(k1, k0, rho, strict=True):
        there, here = odds_to_share(share, factor), odds_to_share(share, null)
        product *= (there / here) ** one * ((1 - there) / (1 - here)) ** zero
    return product


def half_normal(sigma, low, high, points=60):
    """Return distances and weights of the half-normal grid."""
    distances = [low + j * (high - low) / (points - 1) for j in range(points)]
    density = [mp.exp(-((x / sigma) ** 2) / 2) for x in distances]
    return [(x, w / sum(density)) for x, w in zip(distances, density, strict=True)]


DEFAULT = half_normal(mp.mpf("0.6"), mp.mpf("0.02"), mp.mpf("2.5"))


def harm(k1, k0, rho, grid, null=1):
    """Return E against a ratio of at most `null`."""
    return sum(w * likelihood_ratio(k1, k0, rho, null * mp.exp(x), null) for x, w in grid)


def staged(stages):
    """Return E with onsets, the two epochs being the first two of `stages` stages."""
    onsets = [harm(K1[j:], K0[j:], RHO[j:], DEFAULT) for j in range(2)] + [mp.mpf(1)] * (stages - 2)
    return onsets[0] * 4 / 5 + sum(onsets) / stages / 5


def harm_of_all(rate):
    """Return E from bad and good units at a declared champion's rate."""
    total = mp.mpf(0)
    for x, w in DEFAULT:
        good = max(1 - rate * mp.exp(x), (1 - rate) / 20) / (1 - rate)
        total += w * likelihood_ratio(K1, K0, RHO, mp.exp(x)) * likelihood_ratio(G1, G0, RHO, good)
    return total


def noninferiority(margin):
    """Return E against a ratio of at least 1 + margin."""
    equality = mp.log1p(margin)
    around = half_normal(2 * equality, equality / 20, 6 * equality)
    grid = [(equality, mp.mpf(1) / 2)] + [(x, w / 2) for x, w in around]
    null = 1 + margin
    return sum(w * likelihood_ratio(K1, K0, RHO, null * mp.exp(-x), null) for x, w in grid)


def interval(alpha):
    """Return the ratios at which either one-sided E is 2/alpha."""

    def at(log_null, sign):
        grid = [(sign * x, w) for x, w in DEFAULT]
        return mp.log(harm(K1, K0, RHO, grid, mp.exp(log_null))) - mp.log(2 / alpha)

    low = mp.findroot(lambda u: at(u, 1), (mp.log("0.5"), mp.log("0.7")), solver="anderson")
    high = mp.findroot(lambda u: at(u, -1), (mp.log("1.3"), mp.log("1.6")), solver="anderson")
    return [mp.exp(low), mp.exp(high)]


def estimate():
    """Return the root of the conditional score."""

    def score(r):
        terms = zip(K1, K0, RHO, strict=True)
        return sum(one - (one + zero) * odds_to_share(share, r) for one, zero, share in terms)

    return mp.findroot(score, 1)


def dirichlet_multinomial(counts, theta, k):
    """Return log E by log-gamma functions at 50 digits."""
    total = mp.loggamma(k) - mp.loggamma(k + sum(counts))
    for count, share in zip(counts, theta, strict=True):
        total += mp.loggamma(k * share + count) - mp.loggamma(k * share) - count * mp.log(share)
    return total


def savvi_log_e(counts, theta, k):
    """Return log of the posterior odds of savvi."""
    test = Multinomial(0.05, np.array(theta), k)
    test.update(np.array(counts))
    return float(np.log(test.odds))


def asymptotic(total, variance, weight, tuned_at, alpha):
    """Return half width and one-sided log E of the asymptotic confidence sequence."""
    a = mp.mpf(alpha)
    q = (-2 * mp.log(a) + mp.log(-2 * mp.log(a) + 1)) / tuned_at
    spread = variance * q + 1
    radius = mp.sqrt(2 * spread / q * mp.log(mp.sqrt(spread) / a)) / weight
    q = (-2 * mp.log(2 * a) + mp.log(-2 * mp.log(2 * a) + 1)) / tuned_at
    spread = variance * q + 1
    # The error at which the one-sided limit of the paper would touch 0, found without inverting it by hand.
    touch = mp.findroot(
        lambda t: mp.sqrt(2 * spread / q * mp.log(1 + mp.sqrt(spread) / (2 * mp.exp(-t)))) - total,
        3,
    )
    return radius, touch


def subsets(size):
    """Return all non-empty sets of indices."""
    return list(chain.from_iterable(combinations(range(size), n) for n in range(1, size + 1)))


def closed_mean(e):
    """Return for each hypothesis the least mean e-value over all sets that hold it."""
    return [min(sum(e[j] for j in s) / len(s) for s in subsets(len(e)) if k in s) for k in range(len(e))]


def closed_ebh(e, alpha):
    """Return the largest set that the closure principle allows, searched among all sets."""
    fits = []
    for named in subsets(len(e)):
        needed = [(sum(e[j] for j in s) / len(s), len(set(s) & set(named))) for s in subsets(len(e))]
        if all(mean >= inside / (alpha * len(named)) for mean, inside in needed):
            fits.append(named)
    return [k in max(fits, key=len, default=()) for k in range(len(e))]


def delays(seed):
    """Return delays, elapsed times and arms of made-up positives, without ties."""
    rng = np.random.default_rng(seed)
    elapsed = rng.uniform(1, 100, 240).round(3)
    delay = rng.lognormal(3, 1, 240).round(3)
    seen = delay <= elapsed
    return delay, elapsed, seen, rng.uniform(size=240) < 0.4, rng.integers(0, 4, 240)


def maturity():
    """Return curves and log-rank statistics of statsmodels on the same made-up positives."""
    delay, elapsed, seen, arm, epoch = delays(11)
    # Right truncation seen backwards in time is left truncation; S of the reversed delay is F of the delay.
    far = 1000.0
    reversed_ = SurvfuncRight(far - delay[seen], np.ones(seen.sum()), entry=far - elapsed[seen])
    steps = sorted(zip(far - reversed_.surv_times, reversed_.surv_prob, strict=True))
    cured = SurvfuncRight(np.minimum(delay, elapsed), seen.astype(int))
    shares = (1 - cured.surv_prob) / (1 - cured.surv_prob[-1])
    tied = np.ceil(delay / 5)
    chi2, p = survdiff(tied[seen], np.ones(seen.sum()), arm[seen].astype(int), strata=epoch[seen])
    return {
        "delay": delay[seen].tolist(),
        "elapsed": elapsed[seen].tolist(),
        "duration": np.minimum(delay, elapsed).tolist(),
        "seen": seen.tolist(),
        # statsmodels gives S after each reversed time, so the share at a delay is the step before it.
        "reverse_times": [round(float(t), 3) for t, _ in steps][:-1],
        "reverse_before_next": [float(s) for _, s in steps][1:],
        "cured_times": cured.surv_times.tolist(),
        "cured_shares": shares.tolist(),
        "tied": tied[seen].tolist(),
        "arm": arm[seen].tolist(),
        "epoch": epoch[seen].tolist(),
        "log_rank_chi2": float(chi2),
        "log_rank_p": float(p),
    }


def main():
    """Write every golden number."""
    uniform = [(x, mp.mpf(1) / 24) for x in LOG_GRID]
    radius, touch = asymptotic(40, 120, 300, 100, 0.05)
    families = [[60.0, 45.0, 12.0, 0.5, 0.0], [200.0, 15.0, 13.0, 11.0], [19.0, 19.0], [90.0, 1.0, 25.0, 31.0]]
    numbers = {
        "harm_uniform": mp.log(harm(K1, K0, RHO, uniform)),
        "harm_half_normal": mp.log(harm(K1, K0, RHO, DEFAULT)),
        "harm_tolerance": mp.log(harm(K1, K0, RHO, DEFAULT, mp.mpf("0.8"))),
        "harm_five_stages": mp.log(staged(5)),
        "harm_of_all": mp.log(harm_of_all(mp.mpf("0.3"))),
        "noninferiority": mp.log(noninferiority(mp.mpf("0.5"))),
        "interval": interval(mp.mpf("0.05")),
        "estimate": estimate(),
        "odds_tilt": mp.log(
            sum(
                harm(K1, K0, RHO, [(sign * mp.log1p(mp.mpf(t)), mp.mpf(1) / 14)])
                for sign in (1, -1)
                for t in ("0.02", "0.05", "0.1", "0.2", "0.4", "0.8", "1.6")
            )
        ),
        "dirichlet": dirichlet_multinomial([1117, 8883], [mp.mpf("0.1"), mp.mpf("0.9")], 100),
        "dirichlet_savvi": savvi_log_e([1117, 8883], [0.1, 0.9], 100),
        "dirichlet_three_savvi": savvi_log_e([510, 290, 200], [0.5, 0.25, 0.25], 1000),
        "asymptotic_radius": radius,
        "asymptotic_log_e": touch,
        "families": families,
        "closed_mean": [closed_mean(e) for e in families],
        "ebh": [e_bh(e, 0.05) for e in families],
        "closed_ebh": [closed_ebh(e, 0.05) for e in families],
        "maturity": maturity(),
    }
    lines = [f"{json.dumps(key)}: {json.dumps(value, default=float)}" for key, value in numbers.items()]
    Path(__file__).with_name("stats_core.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main()
