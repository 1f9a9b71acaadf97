"""Simulated shoppers of six kinds, whose columns are what a shop keeps: amounts, counts, shares.

An amount is log-normal, a count negative binomial (orders: one and a Poisson), a share the part of
a shopper's orders that used a discount or came back, beta-binomial given the orders. `KINDS` was
set so that two peers do as they do on such rows elsewhere: scikit-learn's full covariances by BIC
on the plain columns reach an adjusted Rand index near .41, and k-means that is told the number
near .85 on logarithms and empirical-Bayes logits. Nothing of ours was run before it was set.

    python -m tests.quality.shoppers     prints the two peers' figures beside ours
"""

from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # one thread, before numpy is imported

from dataclasses import dataclass  # noqa: E402

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from sklearn.cluster import KMeans  # noqa: E402
from sklearn.metrics import adjusted_rand_score  # noqa: E402
from sklearn.mixture import GaussianMixture  # noqa: E402
from sklearn.preprocessing import StandardScaler  # noqa: E402

from segmenter.model import SegmentMixture  # noqa: E402

COLUMNS = ("basket", "gap", "orders", "visits", "discounted", "returned")
BASKET, GAP, ORDERS, VISITS, DISCOUNTED, RETURNED = range(6)
DECLARED = ("continuous", "continuous", "count", "count", "share", "share")
TRIALS = {DISCOUNTED: ORDERS, RETURNED: ORDERS}
SIZES = range(1, 11)
ROWS = 2_500
SEEDS = range(5)

AMOUNT_SD = (0.35, 0.40)  # of log basket and log gap, in every kind
VISITS_SIZE = 6.0  # of the negative binomial: variance mean + mean^2 / 6
CONCENTRATION = 12.0  # of both shares' beta laws


@dataclass(frozen=True)
class Kind:
    """Medians of basket (currency) and gap (days), means of the counts and of the shares."""

    share: float
    basket: float
    gap: float
    orders: float
    visits: float
    discounted: float
    returned: float


KINDS = {
    "loyal": Kind(0.25, 60.0, 14.0, 20.0, 25.0, 0.20, 0.12),
    "bargain hunter": Kind(0.20, 35.0, 25.0, 12.0, 20.0, 0.75, 0.12),
    "big basket": Kind(0.10, 220.0, 40.0, 7.0, 9.0, 0.12, 0.20),
    "returner": Kind(0.15, 90.0, 30.0, 12.0, 16.0, 0.35, 0.55),
    "newcomer": Kind(0.20, 45.0, 60.0, 4.0, 6.0, 0.30, 0.20),
    "browser": Kind(0.10, 30.0, 12.0, 7.0, 35.0, 0.50, 0.25),
}


def shoppers(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Plain rows (n, 6), in the order of `COLUMNS`, and their kinds (n,)."""
    generator = np.random.default_rng(seed)
    kinds = list(KINDS.values())
    labels = generator.choice(len(kinds), n, p=[kind.share for kind in kinds])

    def of(field: str) -> np.ndarray:
        return np.array([getattr(kind, field) for kind in kinds])[labels]

    amounts = [
        of(field) * np.exp(sd * generator.standard_normal(n))
        for field, sd in zip(("basket", "gap"), AMOUNT_SD, strict=True)
    ]
    orders = 1 + generator.poisson(of("orders") - 1)
    visits = generator.poisson(generator.gamma(VISITS_SIZE, of("visits") / VISITS_SIZE))
    shares = [
        generator.binomial(
            orders, generator.beta(CONCENTRATION * of(field), CONCENTRATION * (1 - of(field)))
        )
        / orders
        for field in ("discounted", "returned")
    ]
    return np.column_stack([*amounts, orders, visits, *shares]).astype(float), labels


def logged(rows: np.ndarray) -> np.ndarray:
    """The rows with the logarithms of both amounts, as the features of a shop have them."""
    return np.column_stack([np.log(rows[:, :ORDERS]), rows[:, ORDERS:]])


def spread(rows: np.ndarray) -> np.ndarray:
    """Logarithms, log(1 + count), and logits of shares drawn to their mean, for k-means."""
    orders = rows[:, ORDERS]
    logits = [_logit_share(rows[:, column] * orders, orders) for column in TRIALS]
    return np.column_stack([np.log1p(rows[:, :DISCOUNTED]), *logits])


def _logit_share(successes: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Logit of the posterior mean under a beta law fitted by moments (empirical Bayes)."""
    mean = successes.sum() / trials.sum()
    excess = (successes / trials - mean) ** 2 / (mean * (1 - mean)) - 1 / trials
    likeness = np.clip(excess.sum() / (1 - 1 / trials).sum(), 1e-3, 1 - 1e-3)
    weight = 1 / likeness - 1
    share = (successes + weight * mean) / (trials + weight)
    return np.log(share) - np.log1p(-share)


def scikit_learn(rows: np.ndarray, seed: int) -> np.ndarray:
    """Full covariances on the plain standardised columns, the least BIC."""
    plain = StandardScaler().fit_transform(rows)
    fits = [GaussianMixture(k, random_state=seed).fit(plain) for k in SIZES]
    return np.asarray(min(fits, key=lambda fit: fit.bic(plain)).predict(plain))


def k_means(rows: np.ndarray, seed: int) -> np.ndarray:
    """k-means on the spread columns, standardised, told the true number."""
    told = KMeans(len(KINDS), n_init=10, random_state=seed)
    return np.asarray(told.fit_predict(StandardScaler().fit_transform(spread(rows))))


def peerwatch(rows: np.ndarray, seed: int) -> np.ndarray:
    """The estimator with the columns declared, the number not told."""
    mixture = SegmentMixture(
        kinds=DECLARED, trials=TRIALS, max_components=SIZES[-1], random_state=seed
    )
    x = logged(rows)
    return np.asarray(mixture.fit(x).predict(x))


METHODS = {
    "scikit-learn BIC, plain columns": scikit_learn,
    "k-means told K, spread columns": k_means,
    "peerwatch, columns declared": peerwatch,
}


def figures() -> pd.DataFrame:
    """A line per seed and method: adjusted Rand index and number of groups."""
    lines = []
    for seed in SEEDS:
        rows, labels = shoppers(ROWS, seed)
        for name, method in METHODS.items():
            found = method(rows, seed)
            index = adjusted_rand_score(labels, found)
            lines.append({"method": name, "seed": seed, "ARI": index, "K": len(np.unique(found))})
    return pd.DataFrame(lines)


if __name__ == "__main__":
    table = figures()
    print(table.pivot(index="method", columns="seed", values=["ARI", "K"]).round(3).to_string())
    print(table.groupby("method", sort=False)["ARI"].mean().round(3).to_string())
