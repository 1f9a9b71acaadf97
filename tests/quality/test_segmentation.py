"""Segments of rows whose true groups are known, beside scikit-learn, mclust, stepmix and others.

Run: python -m pytest tests/quality/test_segmentation.py -s

Each test states a goal. The table of what every method found is printed at the end and written to
build/quality/segmentation.md and .csv; cells that are there already are not done again
(`segment_cells`). Peers that are not installed are left out; those tests that need mclust's
figures skip where R or its package is absent.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

import pandas as pd
import pytest

from tests.quality import clustering, datasets, segment_cells, segment_peers

FOLDER = segment_cells.FOLDER
PEAK = """
import json, sys
from pathlib import Path
import numpy as np
from segmenter.model import SegmentMixture

rows, chunk = int(sys.argv[1]), 100_000
corners = 8.0 * np.random.default_rng(0).standard_normal((8, 8))


class Batches:
    def __iter__(self):
        for number in range(rows // chunk):
            generator = np.random.default_rng(number)
            labels = generator.integers(0, 8, chunk)
            yield corners[labels] + generator.standard_normal((chunk, 8))


settings = dict(n_components=8, covariance_type="VVV", tails="gaussian", random_state=0)
fit = SegmentMixture(**settings).fit_batches(Batches())
# not ru_maxrss, which begins at the peak of the process that started this one
lines = Path("/proc/self/status").read_text().splitlines()
peak = 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(json.dumps({"peak": peak, "K": fit.n_components_}))
"""


@pytest.fixture(scope="module", autouse=True)
def table() -> Iterator[None]:
    """Prints and writes what the tests of this run, and of earlier ones, have found."""
    yield
    print(segment_cells.write(FOLDER))


@cache
def cells(row: str) -> pd.DataFrame:
    """All cells of a row; those that were not there are done."""
    try:
        return segment_cells.run(FOLDER, row)
    except datasets.DataAbsent as absent:
        pytest.skip(str(absent))


def of(row: str, method: str) -> pd.DataFrame:
    """The cells of one method, one line per data set and seed."""
    found = cells(row)
    return found[found["method"] == method]


def mean_ari(row: str, method: str) -> pd.Series:
    """Mean over the seeds by data set."""
    return of(row, method).groupby("data")["ARI"].mean()


def mclust(row: str) -> pd.Series:
    """mclust's automatic answer, by BIC, where R is installed."""
    reason = segment_peers.without_mclust()
    if reason:
        pytest.skip(f"{reason}: the goal is stated beside mclust")
    return mean_ari(row, "mclust BIC")


def test_the_automatic_answer_finds_the_classes_of_the_six_classics() -> None:
    assert mean_ari("classics", segment_cells.HOUSE).mean() >= 0.86


@pytest.mark.parametrize("name", clustering.CLASSICS)
def test_the_automatic_answer_is_on_no_classic_below_mclust(name: str) -> None:
    assert mean_ari("classics", segment_cells.HOUSE)[name] >= mclust("classics")[name] - 0.03


def test_the_same_setting_is_above_mclust_on_sets_that_had_no_part_in_choosing_it() -> None:
    assert mean_ari("untouched", segment_cells.HOUSE).mean() > mclust("untouched").mean()


@pytest.mark.parametrize("data", segment_cells.ROWS["five segments"].data)
def test_five_segments_are_found_whatever_their_shape_and_number_of_rows(data: str) -> None:
    found = of("five segments", "peerwatch, merged").set_index("data")["K"]

    assert (found[data] == 5).all()


@pytest.mark.parametrize("kind", clustering.OUTLIERS)
def test_far_outliers_are_flagged_and_change_no_segment(kind: str) -> None:
    found = of("outliers", "peerwatch, noise").set_index("data").loc[kind]

    assert (found["ARI"] >= 0.99).all()
    assert (found["flagged"] >= 0.90).all()
    assert (found["lost"] < 0.005).all()


def test_a_column_that_is_mostly_zero_hides_no_segment() -> None:
    assert of("zero column", "peerwatch, screened")["ARI"].mean() >= 0.98


def test_segments_are_found_where_three_cells_in_ten_are_missing() -> None:
    assert mean_ari("missing", segment_cells.HOUSE)["30% missing"] >= 0.95


def test_six_kinds_of_shoppers_are_found_by_who_is_not_told_their_number() -> None:
    assert mean_ari("shoppers", "peerwatch, columns declared")["shoppers"] >= 0.85


def test_ten_million_rows_in_batches_need_no_more_memory_than_one_million() -> None:
    peaks = {}
    for rows in (1_000_000, 10_000_000):
        asked = [sys.executable, "-c", PEAK, str(rows)]
        done = subprocess.run(asked, capture_output=True, text=True, check=True, cwd=datasets.ROOT)
        peaks[rows] = json.loads(done.stdout)["peak"]
    print({f"{rows:,} rows": f"{peak / 2**20:.0f} MiB" for rows, peak in peaks.items()})

    assert peaks[10_000_000] < 1.05 * peaks[1_000_000]
