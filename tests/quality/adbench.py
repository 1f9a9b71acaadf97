"""The 22 classical sets of ADBench in two protocols, and the peers beside which we stand.

After the data generator of DTE (Livernoche et al., ICLR 2024): sets under 1,000 rows are drawn
with replacement up to 1,000 (so that a row and its copy may stand on both sides of a split), of
sets over 10,000 rows as many are drawn; columns are standardised on the training rows. "normals"
trains on the first half of the normal rows and scores all others; "everything" trains on rows
drawn with replacement from all, and scores all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import StandardScaler

from fraudwatch import TransactionVAE
from tests.quality import datasets

SETS = (
    "1_ALOI", "4_breastw", "6_cardio", "8_celeba", "11_donors", "14_glass", "16_http",
    "18_Ionosphere", "20_letter", "22_magic.gamma", "24_mnist", "26_optdigits", "28_pendigits",
    "30_satellite", "32_shuttle", "34_smtp", "37_Stamps", "39_vertebral", "41_Waveform",
    "43_WDBC", "45_wine", "47_yeast",
)  # fmt: skip
PROTOCOLS = ("normals", "everything")
LEAST, MOST = 1_000, 10_000
OURS = "peerwatch"

Scorer = Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # train, test, seed -> more anomalous


@dataclass(frozen=True)
class Split:
    """Standardised rows to train on and to score, and which of the latter are anomalies."""

    train: np.ndarray
    test: np.ndarray
    anomaly: np.ndarray  # (len(test),) 0 or 1
    copied: bool  # whether the set was drawn with replacement to become large enough


def split(name: str, protocol: str, seed: int) -> Split:
    """A set as the generator of DTE hands it out for that seed."""
    table = datasets.frame(f"adbench/{name}.parquet").to_numpy(np.float64)
    generator = np.random.RandomState(seed)  # the generator of the protocol, so its own draws
    n = len(table)
    if n < LEAST:
        table = table[generator.choice(n, LEAST, replace=True)]
    elif n > MOST:
        table = table[generator.choice(n, MOST, replace=False)]
    rows, anomaly = table[:, :-1], table[:, -1].astype(np.int64)
    if protocol == "normals":
        normal = np.flatnonzero(anomaly == 0)
        half = len(normal) // 2
        train, test = normal[:half], np.append(normal[half:], np.flatnonzero(anomaly))
    else:
        train, test = generator.choice(len(rows), len(rows), replace=True), np.arange(len(rows))
    scaler = StandardScaler().fit(rows[train])
    return Split(
        scaler.transform(rows[train]), scaler.transform(rows[test]), anomaly[test], n < LEAST
    )


def splits(protocol: str, seeds: range) -> Iterator[tuple[str, int, Split]]:
    for name in SETS:
        for seed in seeds:
            yield name, seed, split(name, protocol, seed)


def peerwatch(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """The density as it is without any setting."""
    return -TransactionVAE(random_state=seed).fit(train).score_samples(test)


def knn(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """The distance to the fifth neighbour."""
    return NearestNeighbors(n_neighbors=5).fit(train).kneighbors(test)[0][:, -1]


def mixture(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Ten components with full covariance, at most one per 20 rows."""
    components = max(1, min(10, len(train) // 20))
    return (
        -GaussianMixture(components, reg_covar=1e-4, random_state=seed)
        .fit(train)
        .score_samples(test)
    )


def forest(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    return -IsolationForest(random_state=seed).fit(train).score_samples(test)


SCORERS: dict[str, Scorer] = {OURS: peerwatch, "KNN": knn, "GMM10": mixture, "IForest": forest}


def figures(protocol: str, seeds: range) -> pd.DataFrame:
    """One row per set, seed and scorer: AUC and AP in percent."""
    found = [
        {
            "set": name,
            "seed": seed,
            "scorer": scorer,
            "copied": data.copied,
            "AUC": 100 * roc_auc_score(data.anomaly, scores),
            "AP": 100 * average_precision_score(data.anomaly, scores),
        }
        for name, seed, data in splits(protocol, seeds)
        for scorer, score in SCORERS.items()
        for scores in [score(data.train, data.test, seed)]
    ]
    return pd.DataFrame(found)
