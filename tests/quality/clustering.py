"""Rows with known groups, real and simulated, and how well a grouping finds them.

The real sets are standardised. The simulated ones are made so that the peers' figures are near
those that were published for such rows; each says what spoils it, and how well the truth itself
would do (`ceiling`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy.stats import multivariate_normal, special_ortho_group
from sklearn.datasets import load_digits, load_iris, load_wine
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_rand_score
from sklearn.preprocessing import StandardScaler

from tests.quality import datasets

CLASSICS = ("iris", "wine", "banknote", "diabetes", "thyroid", "crabs")
UNTOUCHED = ("olive", "wdbc", "cross", "wholesale", "digits", "breastw")
KINDS = ("gaussian", "t4", "skewed")
OUTLIERS = ("box", "far")
DIGIT_COLUMNS = 10  # principal components: half of the pixels' variance is noise of the writing
OUTLIER = -1  # the true group of a row that belongs to none


@dataclass(frozen=True)
class Grouped:
    """Rows and their true groups: rows (n, d), perhaps with NaN; truth (n,), OUTLIER for none.

    ceiling: the adjusted Rand index of the true density's own assignment, NaN where unknown.
    """

    rows: np.ndarray
    truth: np.ndarray
    ceiling: float = np.nan

    @property
    def n_groups(self) -> int:
        return len(np.unique(self.truth[self.truth != OUTLIER]))


@dataclass(frozen=True)
class Planted:
    """A mixture to draw from: shares (K,), means (K, d), covariances (K, d, d)."""

    shares: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def labels(self, n: int, generator: np.random.Generator) -> np.ndarray:
        """(n,) groups, as many rows of each as its share says, shuffled."""
        counts = np.floor(self.shares * n).astype(int)
        counts[0] += n - counts.sum()
        return generator.permutation(np.repeat(np.arange(len(counts)), counts))

    def scattered(self, labels: np.ndarray, noise: np.ndarray) -> np.ndarray:
        """Rows from independent noise (n, d) of variance one."""
        roots = np.linalg.cholesky(self.covariances)
        return self.means[labels] + np.einsum("nij,nj->ni", roots[labels], noise)

    def assigned(self, rows: np.ndarray) -> np.ndarray:
        """The most probable group of each row, missing cells integrated out; (n,)."""
        found = np.zeros(len(rows), dtype=int)
        patterns, inverse = np.unique(np.isnan(rows), axis=0, return_inverse=True)
        for number, missing in enumerate(patterns):
            here, seen = inverse == number, ~missing
            terms = [
                np.log(share)
                + multivariate_normal.logpdf(
                    rows[np.ix_(here, seen)], mean[seen], covariance[np.ix_(seen, seen)]
                ).reshape(-1)
                for share, mean, covariance in zip(
                    self.shares, self.means, self.covariances, strict=True
                )
            ]
            found[here] = np.argmax(terms, axis=0)
        return found


def planted(k: int, d: int, distance: float, stretch: float, seed: int) -> Planted:
    """k groups of unequal shares in d columns.

    distance: Euclidean, between the nearest two means, in units of a typical deviation within a
    group. stretch: ratio of the largest to the smallest deviation within the most stretched
    group. Groups differ in volume, shape and orientation: none of the simpler families is true.
    """
    generator = np.random.default_rng(seed)
    shares = np.linspace(2.0, 1.0, k) / np.linspace(2.0, 1.0, k).sum()
    means = generator.standard_normal((k, d))
    gaps = np.linalg.norm(means[:, None] - means[None], axis=2)[~np.eye(k, dtype=bool)]
    covariances = []
    for _ in range(k):
        turn = special_ortho_group.rvs(d, random_state=generator) if d > 1 else np.eye(1)
        reach = 0.5 * np.log(stretch) * generator.uniform(0.5, 1.0)
        deviations = generator.uniform(0.8, 1.25) * np.exp(np.linspace(-reach, reach, d))
        covariances.append(turn @ np.diag(deviations**2) @ turn.T)
    return Planted(shares, means * distance / gaps.min(), np.array(covariances))


def classic(name: str) -> Grouped:
    """One of the standardised sets with true classes, by its name."""
    rows, classes = READERS[name](name)
    truth = np.unique(classes, return_inverse=True)[1]
    return Grouped(StandardScaler().fit_transform(rows), truth)


def _stored(name: str) -> tuple[np.ndarray, np.ndarray]:
    table = datasets.frame(f"clustering/{name}.parquet")
    columns = table.drop(columns=["class", "region"], errors="ignore").select_dtypes("number")
    return columns.to_numpy(np.float64), table["class"].to_numpy()


def _wholesale(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of the yearly spending by kind of goods; the channel is the class."""
    table = datasets.frame("customers/wholesale.parquet")
    return np.log1p(table.drop(columns=["Channel", "Region"]).to_numpy(np.float64)), table[
        "Channel"
    ].to_numpy()


def _digits(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The leading principal components of the handwritten digits."""
    pixels, digit = load_digits(return_X_y=True)
    return PCA(DIGIT_COLUMNS, random_state=0).fit_transform(pixels), digit


def _breastw(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Nine grades from 1 to 10 of cells; benign or malignant."""
    table = datasets.frame("adbench/4_breastw.parquet")
    return table.drop(columns="label").to_numpy(np.float64), table["label"].to_numpy()


READERS: Mapping[str, Callable[[str], tuple[np.ndarray, np.ndarray]]] = {
    **dict.fromkeys(("banknote", "diabetes", "thyroid", "crabs"), _stored),
    **dict.fromkeys(("olive", "wdbc", "cross"), _stored),
    "iris": lambda name: load_iris(return_X_y=True),
    "wine": lambda name: load_wine(return_X_y=True),
    "wholesale": _wholesale,
    "digits": _digits,
    "breastw": _breastw,
}


def five_segments(kind: str, n: int, seed: int) -> Grouped:
    """Five groups in six columns: Gaussian, t with 4 degrees of freedom, or skewed.

    Skewed: along each of a group's own directions the noise is log-normal, exp(0.6 z), brought
    to mean zero and variance one (skewness 2.3).
    """
    mixture = planted(5, 6, distance=6.0, stretch=3.0, seed=seed)
    generator = np.random.default_rng([seed, n])
    labels = mixture.labels(n, generator)
    noise = generator.standard_normal((n, 6))
    if kind == "t4":
        noise = noise / np.sqrt(generator.chisquare(4, n) / 4)[:, None]
    elif kind == "skewed":
        noise = _skewed(noise, 0.6)
    rows = mixture.scattered(labels, noise)
    return Grouped(rows, labels, _ari(labels, mixture.assigned(rows)))


def _skewed(noise: np.ndarray, sigma: float) -> np.ndarray:
    """exp(sigma z), less its mean and over its deviation."""
    growth = np.exp(sigma**2)
    return (np.exp(sigma * noise) - growth**0.5) / np.sqrt(growth * (growth - 1))


def far_outliers(kind: str, seed: int) -> Grouped:
    """Four Gaussian groups in eight columns, 2,940 rows, and 60 rows that belong to none.

    "box": evenly over the box of the rows, stretched by a half. "far": in any direction, at least
    eight deviations from the middle and with a Pareto tail of index 0.7 beyond.
    """
    mixture = planted(4, 8, distance=7.0, stretch=3.0, seed=seed)
    generator = np.random.default_rng([seed, 8])
    labels = mixture.labels(2_940, generator)
    inliers = mixture.scattered(labels, generator.standard_normal((2_940, 8)))
    low, high = inliers.min(axis=0), inliers.max(axis=0)
    strays = generator.uniform(low - (high - low) / 4, high + (high - low) / 4, (60, 8))
    if kind == "far":
        way = generator.standard_normal((60, 8))
        way /= np.linalg.norm(way, axis=1, keepdims=True)
        radius = 8.0 * (1.0 + generator.pareto(0.7, 60))
        strays = inliers.mean(axis=0) + way * radius[:, None] * inliers.std(axis=0)
    order = generator.permutation(3_000)
    truth = np.append(labels, np.full(60, OUTLIER))
    ceiling = _ari(labels, mixture.assigned(inliers))
    return Grouped(np.concatenate([inliers, strays])[order], truth[order], ceiling)


def zero_column(seed: int) -> Grouped:
    """Four Gaussian groups in five columns, and a sixth column that says nothing of them.

    The sixth is an amount: zero for 60 % of the rows, log-normal for the others.
    """
    mixture = planted(4, 5, distance=6.5, stretch=3.0, seed=seed)
    generator = np.random.default_rng([seed, 60])
    labels = mixture.labels(5_000, generator)
    rows = mixture.scattered(labels, generator.standard_normal((5_000, 5)))
    amount = np.where(generator.random(5_000) < 0.6, 0.0, generator.lognormal(3.0, 1.0, 5_000))
    ceiling = _ari(labels, mixture.assigned(rows))
    return Grouped(np.column_stack([rows, amount]), labels, ceiling)


def missing_cells(share: float, seed: int) -> Grouped:
    """Four Gaussian groups, 3,000 rows in six columns, cells missing completely at random.

    Every row keeps at least one cell: an empty row says nothing to anyone.
    """
    mixture = planted(4, 6, distance=7.5, stretch=1.5, seed=seed)
    generator = np.random.default_rng([seed, 30])
    labels = mixture.labels(3_000, generator)
    rows = mixture.scattered(labels, generator.standard_normal((3_000, 6)))
    missing = generator.random(rows.shape) < share
    empty = np.flatnonzero(missing.all(axis=1))
    missing[empty, generator.integers(0, 6, len(empty))] = False
    rows[missing] = np.nan
    return Grouped(rows, labels, _ari(labels, mixture.assigned(rows)))


def _ari(truth: np.ndarray, found: np.ndarray) -> float:
    return float(adjusted_rand_score(truth, found))


def figures(truth: np.ndarray, found: np.ndarray) -> dict[str, float]:
    """ARI on the rows that have a group, shares of outliers flagged and of the others lost.

    found: (n,) groups, OUTLIER where a row was given to none. The two shares are NaN where the
    truth knows no outlier.
    """
    stray = truth == OUTLIER
    none = found == OUTLIER
    known = bool(stray.any())
    return {
        "ARI": _ari(truth[~stray], found[~stray]),
        "flagged": float(none[stray].mean()) if known else np.nan,
        "lost": float(none[~stray].mean()) if known else np.nan,
    }
