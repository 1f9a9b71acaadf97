"""What a grouping of customers tells about what they do next: pure figures of arrays.

Spend and activity are skewed and full of zeros, so they are compared by rank: the share of the
variance of their ranks that lies between the groups (Kruskal and Wallis 1952, H / (n - 1)).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from segmenter import features
from segmenter.publishing import BASIS

CONFIDENCE = 0.95  # of every interval
RESAMPLES = 400  # of the customers
SEGMENTS, K_MEANS, RFM = "segments", "k-means on log RFM", "RFM 5x5x5"


def _ranks(outcome: ArrayLike) -> np.ndarray:
    """(n,) equal outcomes share their mean rank."""
    return np.asarray(pd.Series(np.asarray(outcome, dtype=np.float64)).rank())


def _between(ranks: np.ndarray, codes: np.ndarray) -> float:
    """The share of the variance of the ranks between the groups, 0 to 1; NaN where all are equal.

    ranks and codes: (n,), groups being numbered from 0.
    """
    centred = ranks - ranks.mean()
    total = float(centred @ centred)
    sizes = np.bincount(codes)
    sums = np.bincount(codes, centred)
    shares = np.divide(sums**2, sizes, out=np.zeros_like(sums), where=sizes > 0)
    return float(shares.sum() / total) if total > 0 else float("nan")


def foresight(
    outcomes: Mapping[str, ArrayLike], groupings: Mapping[str, ArrayLike], seed: int
) -> list[dict[str, object]]:
    """One row per outcome and grouping: what it tells, and how far the first grouping is ahead.

    outcomes and groupings: (n,) per customer. Intervals are the percentiles over customers drawn
    anew (Efron 1979), the same draws for all groupings, so that `ahead` is a paired difference.
    """
    names = list(groupings)
    codes = [pd.factorize(np.asarray(groupings[name]))[0] for name in names]
    rows: list[dict[str, object]] = []
    for outcome, values in outcomes.items():
        ranks = _ranks(values)
        point = np.array([_between(ranks, code) for code in codes])
        drawn = _resampled(ranks, codes, np.random.default_rng(seed))
        for at, name in enumerate(names):
            rows.append(
                {
                    "outcome": outcome,
                    "grouping": name,
                    "groups": int(codes[at].max()) + 1,
                    "eta_squared": float(point[at]),
                    "interval": _interval(drawn[:, at]),
                    "ahead": float(point[0] - point[at]),
                    "ahead_interval": _interval(drawn[:, 0] - drawn[:, at]),
                }
            )
    return rows


def _resampled(
    ranks: np.ndarray, codes: list[np.ndarray], generator: np.random.Generator
) -> np.ndarray:
    """(RESAMPLES, groupings) the figure among customers drawn anew; the ranks stay as they are."""
    found = np.empty((RESAMPLES, len(codes)))
    for resample in range(RESAMPLES):
        drawn = generator.integers(len(ranks), size=len(ranks))
        found[resample] = [_between(ranks[drawn], code[drawn]) for code in codes]
    return found


def _interval(values: np.ndarray) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def k_means(frame: pd.DataFrame, groups: int, seed: int) -> np.ndarray:
    """(n,) what most would do: k-means on standardised logs of recency, frequency and amount.

    frame: the features of customers with a purchase; amounts of a net return count as zero, and
    without amounts it is recency and frequency.
    """
    from sklearn.cluster import KMeans

    known = frame[list(BASIS)].astype(np.float64).dropna(axis="columns", how="all")
    logs = np.log1p(known.fillna(0.0).clip(lower=0.0).to_numpy())
    spread = logs.std(axis=0)
    scaled = (logs - logs.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    fitted = KMeans(groups, n_init=10, random_state=seed).fit(scaled)
    return np.asarray(fitted.labels_)


def rfm_groups(frame: pd.DataFrame, groups: int) -> np.ndarray:
    """(n,) the RFM cells, 1-1-1 to 5-5-5, in order of their sum, cut into groups of equal size.

    Cells of one sum go by recency, frequency, amount; a cell is never divided, so that there may
    be fewer groups. A missing score counts as none.
    """
    scores = frame[list(features.RFM)].fillna(0).to_numpy(dtype=np.int64)
    order = scores.sum(axis=1) * 1000 + scores @ np.array([100, 10, 1])
    place = pd.Series(order).rank(pct=True, method="max").to_numpy()
    return np.ceil(place * groups - 1e-9).astype(np.int64)
