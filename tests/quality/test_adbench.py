"""One setting on 22 sets of ADBench, trained on normal rows and trained on everything.

Run: python -m pytest tests/quality/test_adbench.py -s   (half an hour)

Means of three seeds, AUC / AP:

| | trained on normals | trained on everything |
| --- | --- | --- |
| peerwatch | 85.3 / 67.7 | 79.3 / 38.4 |
| the same without its panel | 83.1 / 62.1 | 74.4 / 31.5 |
| KNN | 85.1 / 64.1 | 65.2 / 28.2 |
| mixture of ten | 84.8 / 65.4 | 62.6 / 25.5 |
| IForest | 80.6 / 49.2 | 77.5 / 36.5 |

The benchmark has all peers beside it. Of them a mixture of thirty is nearest on normals (86.2 /
67.0), by the sets drawn with copies, and falls to 57.5 / 20.9 on everything.

87.5 / 70 and 80 / 44 were aimed for and are not reached with one setting for both: on seed 0 a
narrow kernel alone had 87.5 / 72.7 and 61.5 / 25.8, largely by rows of which a copy was among the
training rows; a wide one alone 81.4 / 57.7 and 79.1 / 40.9. Weights between half and twice the
chosen ones, wide bandwidths from 0.5 to 0.7 and narrow ones from 0.1 to 0.3 move no figure by
more than 0.7.
"""

from __future__ import annotations

from functools import cache

import pandas as pd
import pytest

from tests.quality import adbench, commands, datasets

SEEDS = range(3)


@cache
def figures(protocol: str) -> pd.DataFrame:
    """Means over the sets by seed and scorer, printed beside each other."""
    try:
        found = adbench.figures(protocol, SEEDS)
    except datasets.DataAbsent as absent:
        pytest.skip(str(absent))
    print(commands.markdown(_by_scorer(found), f"ADBench, trained on {protocol}"))
    whole = found[~found["copied"]]
    title = f"ADBench, trained on {protocol}: the {whole['set'].nunique()} sets without copies"
    print(commands.markdown(_by_scorer(whole), title))
    return found


def _by_scorer(found: pd.DataFrame) -> list[dict[str, object]]:
    by_seed = found.groupby(["scorer", "seed"])[["AUC", "AP"]].mean()
    table = by_seed.groupby("scorer").agg(["mean", "min", "max"]).round(2)
    table.columns = [f"{figure} {which}" for figure, which in table.columns]
    return table.reset_index().to_dict("records")


def mean(found: pd.DataFrame, scorer: str, figure: str) -> float:
    return float(found.loc[found["scorer"] == scorer, figure].mean())


def test_the_peers_score_as_in_the_study() -> None:
    """Of KNN and GMM10 trained on normals; their figures were measured before in another place."""
    found = figures("normals")

    assert mean(found, "KNN", "AUC") == pytest.approx(85.08, abs=0.1)
    assert mean(found, "KNN", "AP") == pytest.approx(64.14, abs=0.2)
    assert mean(found, "GMM10", "AUC") == pytest.approx(84.72, abs=1.0)


@pytest.mark.parametrize("protocol", adbench.PROTOCOLS)
@pytest.mark.parametrize("figure", ["AUC", "AP"])
def test_one_setting_is_above_every_peer(protocol: str, figure: str) -> None:
    found = figures(protocol)

    ours = mean(found, adbench.OURS, figure)

    peers = {name: mean(found, name, figure) for name in adbench.SCORERS if name != adbench.OURS}
    assert ours > max(peers.values()), peers
