"""What it is worth to declare columns as what they are: counts, shares, a column with an atom.

Run: python -m pytest tests/quality/test_kinds.py -s
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import adjusted_rand_score

from segmenter.model import SegmentMixture
from tests.quality import clustering, commands, shoppers

AMOUNT = 5  # the column of `zero_column` that is zero for 60 %


@cache
def found() -> pd.DataFrame:
    """A line per method: mean index over the seeds, and the numbers of groups."""
    table = shoppers.figures()
    lines = table.groupby("method", sort=False).agg(ARI=("ARI", "mean"), K=("K", list))
    rows = [
        {"method": name, "ARI": f"{line.ARI:.3f}", "K": ", ".join(str(k) for k in line.K)}
        for name, line in lines.iterrows()
    ]
    print(commands.markdown(rows, f"six kinds of shoppers, {shoppers.ROWS:,} rows"))
    return lines


def test_the_shoppers_are_as_hard_as_those_of_other_studies() -> None:
    index = found()["ARI"]

    assert index["scikit-learn BIC, plain columns"] == pytest.approx(0.41, abs=0.05)
    assert index["k-means told K, spread columns"] == pytest.approx(0.85, abs=0.03)


def test_six_kinds_of_shoppers_are_found_by_who_is_not_told_their_number() -> None:
    ours = found().loc["peerwatch, columns declared"]

    assert ours["ARI"] >= 0.85


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_column_that_is_zero_for_most_spoils_nothing_when_declared(seed: int) -> None:
    made = clustering.zero_column(seed)
    amount = made.rows[:, AMOUNT]
    logs = np.log(amount, out=np.full(len(amount), -np.inf), where=amount > 0)
    x = made.rows.copy()
    x[:, AMOUNT] = np.where(amount > 0, logs, logs[amount > 0].min() - 1)

    kinds = ["continuous"] * AMOUNT + ["semicontinuous"]
    fit = SegmentMixture(kinds=kinds, max_components=10, random_state=seed).fit(x)
    index = adjusted_rand_score(made.truth, fit.predict(x))

    print(f"zero for 60 %, seed {seed}: K {fit.n_components_}, ARI {index:.3f}")
    assert index >= 0.98
