"""The half of the ULB card payments at hand, split in time, labels unused.

Run: python -m pytest tests/quality/test_ulb.py -s

Average precision at 50, 60 and 70 % of the time, the same to 0.003 with three seeds: 0.71, 0.72
and 0.66; without the panel's core 0.14, 0.15 and 0.12; the best peer here 0.31. Weighed to the
true prevalence 0.52, 0.55 and 0.45. An AP of 0.75 was aimed for: mixtures fitted to the genuine
payments alone, with labels, reach 0.74 and 0.53 at 50 and 70 %, so it takes more than a density.
"""

from __future__ import annotations

import warnings
from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.covariance import MinCovDet
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import StandardScaler

from tests.quality import adbench, commands, datasets

SHARES = (0.5, 0.6, 0.7)  # of the time, for training
SEEDS = range(3)
GENUINE_WEIGHT = 14.44  # genuine payments in the whole set for each one here


def covariance(train: np.ndarray, test: np.ndarray, seed: int) -> np.ndarray:
    """Minimum covariance determinant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of its own search, which goes on
        return MinCovDet(random_state=seed).fit(train).mahalanobis(test)


SCORERS = adbench.SCORERS | {"MCD": covariance}


def split(share: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Standardised columns of the payments before and after, and which of the latter are frauds."""
    rows = datasets.frame("ulb_subset/first_half.parquet")
    time = rows["Time"].to_numpy()
    before = time < time.min() + share * (time.max() - time.min())
    columns = rows.drop(columns=["Time", "Class"]).to_numpy(np.float64)
    scaler = StandardScaler().fit(columns[before])
    after = rows["Class"].to_numpy()[~before]
    return scaler.transform(columns[before]), scaler.transform(columns[~before]), after


@cache
def figures() -> pd.DataFrame:
    """Average precision by split, seed and scorer, also with genuine payments weighed."""
    found = []
    for share in SHARES:
        try:
            train, test, fraud = split(share)
        except datasets.DataAbsent as absent:
            pytest.skip(str(absent))
        weight = np.where(fraud == 1, 1.0, GENUINE_WEIGHT)
        for seed in SEEDS:
            for name, scorer in SCORERS.items():
                scores = scorer(train, test, seed)
                plain = average_precision_score(fraud, scores)
                weighed = average_precision_score(fraud, scores, sample_weight=weight)
                found.append(
                    {
                        "share": share,
                        "seed": seed,
                        "scorer": name,
                        "AP": plain,
                        "weighted AP": weighed,
                    }
                )
    table = pd.DataFrame(found)
    shown = table.pivot_table(index="scorer", columns="share", values=["AP", "weighted AP"])
    shown.columns = [f"{figure} at {share:.0%}" for figure, share in shown.columns]
    print(commands.markdown(shown.round(3).reset_index().to_dict("records"), "ULB half, 3 seeds"))
    return table


@pytest.mark.parametrize("figure", ["AP", "weighted AP"])
@pytest.mark.parametrize("share", SHARES)
def test_the_density_is_above_every_peer_with_every_seed(figure: str, share: float) -> None:
    table = figures()
    here = table[table["share"] == share]
    ours = here["scorer"] == adbench.OURS

    assert here.loc[ours, figure].min() > here.loc[~ours, figure].max()


def test_the_precision_holds_with_every_seed_and_split() -> None:
    table = figures()

    assert table.loc[table["scorer"] == adbench.OURS, "AP"].min() > 0.64
