"""Features in real units to the columns of a density, and back."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from segmenter.columns import MOST_DAYS, Columns, dequantised
from segmenter.layout import Layout
from shared.encoding import Feature

FEATURES = (
    Feature("recency_days", "continuous", "shape", "days", "recency", "log1p"),
    Feature("purchase_days", "count", "shape", "days", "purchase days", "log1p"),
    Feature("weekend_share", "share", "shape", "share", "at weekends", "logit"),
    Feature("refund", "continuous", "shape", "currency", "refunds", "log1p"),
)
KINDS = {
    "recency_days": "semicontinuous",
    "purchase_days": "continuous",
    "weekend_share": "share",
    "refund": "semicontinuous",
}


def customers(n: int = 200) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    days = generator.integers(1, 60, n).astype(float)
    return pd.DataFrame(
        {
            "recency_days": generator.uniform(0, 20, n),
            "purchase_days": days,
            "weekend_share": generator.binomial(days.astype(int), 0.3) / days,
            "refund": np.where(generator.random(n) < 0.5, 0.0, generator.exponential(9, n)),
        }
    )


def fitted() -> tuple[Columns, pd.DataFrame]:
    frame = customers()
    return Columns.fit(frame, FEATURES, KINDS, {"recency_days": 7.0}), frame


def test_a_share_is_so_many_of_the_days_it_rests_on() -> None:
    columns, frame = fitted()

    matrix = columns.matrix(frame)

    days = np.minimum(frame.purchase_days, MOST_DAYS)
    np.testing.assert_array_equal(matrix[:, -1], days)
    whole = matrix[:, 2] * days
    np.testing.assert_allclose(whole, whole.round(), atol=1e-9)
    assert (np.abs(whole - frame.weekend_share * days) <= 0.5 + 1e-9).all()


def test_the_estimator_is_told_what_each_column_is() -> None:
    columns, frame = fitted()

    layout = Layout.declared(**columns.declaration, d=5).observed(columns.matrix(frame))

    assert layout.kinds == ("semicontinuous", "continuous", "share", "semicontinuous", "trials")
    assert layout.trials == {2: 4}
    assert columns.gaussian == [0, 1, 3]


def test_where_all_is_continuous_the_estimator_is_told_nothing() -> None:
    frame = customers()

    columns = Columns.fit(frame, FEATURES[:2], dict.fromkeys(KINDS, "continuous"), {})

    assert columns.declaration == {"kinds": None, "trials": None}
    assert columns.matrix(frame).shape == (200, 2)


def test_all_below_a_floor_have_one_cell_which_is_the_atom() -> None:
    columns, frame = fitted()
    matrix = columns.matrix(frame)

    layout = Layout.declared(**columns.declaration, d=5).observed(matrix)

    below = frame.recency_days <= 7
    assert layout.atoms[0] == matrix[below, 0][0]
    np.testing.assert_array_equal(layout.cells(matrix, 0), below)
    np.testing.assert_array_equal(layout.cells(matrix, 3), frame.refund == 0)


def test_real_units_come_back() -> None:
    columns, frame = fitted()

    back = columns.inverse(columns.matrix(frame))

    few = frame.purchase_days <= MOST_DAYS
    np.testing.assert_allclose(back.purchase_days, frame.purchase_days)
    np.testing.assert_allclose(back.refund, frame.refund, atol=1e-9)
    np.testing.assert_allclose(back.recency_days, frame.recency_days.clip(lower=7))
    np.testing.assert_allclose(back.weekend_share[few], frame.weekend_share[few])


def test_a_count_that_was_spread_comes_back_whole() -> None:
    columns, frame = fitted()

    back = columns.inverse(columns.matrix(frame, np.random.default_rng(0)))

    np.testing.assert_array_equal(back.purchase_days, frame.purchase_days)


def test_columns_are_read_back_from_their_document() -> None:
    columns, frame = fitted()

    again = Columns.from_json(json.loads(json.dumps(columns.to_json())))

    assert again == columns
    np.testing.assert_array_equal(again.matrix(frame), columns.matrix(frame))


def test_counts_are_spread_within_half_a_unit_and_nothing_else_moves() -> None:
    frame = customers()

    spread = dequantised(frame, ["purchase_days"], np.random.default_rng(0))

    moved = spread["purchase_days"] - frame["purchase_days"]
    assert moved.abs().max() <= 0.5
    assert moved.nunique() == 200
    pd.testing.assert_series_equal(spread["refund"], frame["refund"])


def test_a_missing_cell_stays_missing() -> None:
    columns, frame = fitted()

    matrix = columns.matrix(frame.assign(refund=np.nan, weekend_share=np.nan))

    assert np.isnan(matrix[:, [2, 3]]).all()
    assert not np.isnan(matrix[:, [0, 1, 4]]).any()


@pytest.mark.parametrize("name", ["recency_days", "refund"])
def test_only_counts_are_spread_for_a_fit(name: str) -> None:
    columns, frame = fitted()
    place = columns.names.index(name)

    spread = columns.matrix(frame, np.random.default_rng(0))

    np.testing.assert_array_equal(spread[:, place], columns.matrix(frame)[:, place])
    assert (spread[:, 1] != columns.matrix(frame)[:, 1]).all()
