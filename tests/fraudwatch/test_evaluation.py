"""The figures against hand-made answers, brute force and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from fraudwatch.evaluation import (
    auc,
    average_precision,
    card_precision,
    per_kind,
    value_found,
)
from tests.quality.protocol import known_compromised

# Few distinct scores, so that ties are common.
ranked = st.lists(st.tuples(st.booleans(), st.integers(-3, 3)), min_size=2, max_size=60).filter(
    lambda rows: len({fraud for fraud, _ in rows}) == 2
)


@settings(deadline=None)
@given(ranked)
def test_auc_and_average_precision_equal_scikit_learns(rows: list[tuple[bool, int]]) -> None:
    fraud, score = map(np.array, zip(*rows, strict=True))

    assert auc(fraud, score) == pytest.approx(roc_auc_score(fraud, score))
    assert average_precision(fraud, score) == pytest.approx(average_precision_score(fraud, score))


def test_auc_is_the_share_of_pairs_in_the_right_order() -> None:
    generator = np.random.default_rng(1)
    fraud, score = generator.random(50) < 0.3, generator.integers(0, 9, 50)

    pairs = [
        float(a > b) + 0.5 * float(a == b)
        for a, b in itertools.product(score[fraud], score[~fraud])
    ]

    assert auc(fraud, score) == pytest.approx(np.mean(pairs))


def test_figures_without_meaning_are_nan() -> None:
    assert np.isnan(auc([0, 0], [1.0, 2.0]))
    assert np.isnan(auc([1, 1], [1.0, 2.0]))
    assert np.isnan(average_precision([0, 0], [1.0, 2.0]))
    assert np.isnan(card_precision([], [], [], [], k=3))
    assert np.isnan(value_found([0, 0], [5.0, 6.0], [1.0, 2.0], [0, 0]))


def test_a_card_is_ranked_by_its_highest_score_and_leaves_when_found() -> None:
    rows = pd.DataFrame(
        [
            # day 0, two cards looked at: A (9, its fraud is the row scored 1) and B (8)
            (0, "A", 9.0, 0),
            (0, "A", 1.0, 1),
            (0, "B", 8.0, 0),
            (0, "C", 7.0, 1),
            # day 1: A was found and is not looked at again, so B and C are: one fraud
            (1, "A", 9.0, 1),
            (1, "B", 5.0, 0),
            (1, "C", 4.0, 1),
            (1, "D", 3.0, 1),
            # day 2: only D is left and one place stays empty
            (2, "C", 9.0, 1),
            (2, "D", 1.0, 1),
        ],
        columns=["day", "customer", "score", "fraud"],
    )

    found = card_precision(rows["day"], rows["customer"], rows["score"], rows["fraud"], k=2)

    assert found == pytest.approx((1 / 2 + 1 / 2 + 1 / 2) / 3)


def test_card_precision_does_not_depend_on_the_order_of_rows() -> None:
    generator = np.random.default_rng(4)
    rows = pd.DataFrame(
        {
            "day": generator.integers(0, 5, 300),
            "customer": generator.integers(0, 40, 300),
            "score": generator.integers(0, 6, 300),  # many ties
            "fraud": generator.random(300) < 0.1,
        }
    )
    shuffled = rows.sample(frac=1, random_state=1)

    first, second = (
        card_precision(r["day"], r["customer"], r["score"], r["fraud"], k=7)
        for r in (rows, shuffled)
    )

    assert first == second


def test_value_found_is_the_share_of_money_in_the_daily_lists() -> None:
    day = [0, 0, 0, 1, 1]
    amount = [100.0, -50.0, 10.0, 30.0, 20.0]  # a fraudulent refund counts by its size
    score = [1.0, 3.0, 2.0, 1.0, 2.0]
    fraud = [1, 1, 0, 1, 0]

    assert value_found(day, amount, score, fraud, k=1) == pytest.approx(50 / 180)
    assert value_found(day, amount, score, fraud, k=2) == pytest.approx(80 / 180)
    assert value_found(day, amount, score, fraud, k=3) == 1.0


def test_each_kind_stands_against_the_honest_rows_alone() -> None:
    fraud = [1, 1, 1, 0, 0]
    kind = [2, 1, 2, 0, 0]
    score = [9.0, 5.0, 1.0, 4.0, 3.0]

    table = per_kind(fraud, kind, score)

    assert list(table["kind"]) == [1, 2]
    assert list(table["frauds"]) == [1, 2]
    assert list(table["auc"]) == [1.0, 0.5]  # the row scored 9 above kind 1 is no mistake
    assert list(table["average_precision"]) == [1.0, pytest.approx(0.5 * 1 + 0.5 * 2 / 4)]


def test_no_fraud_gives_an_empty_table_of_kinds() -> None:
    table = per_kind([0, 0], ["", ""], [1.0, 2.0])

    assert table.empty
    assert list(table) == ["kind", "frauds", "auc", "average_precision"]


def test_a_customer_is_known_when_the_delay_has_passed() -> None:
    rows = pd.DataFrame(
        [
            (9, "B", 1),  # before `since`
            (10, "A", 1),
            (17, "A", 0),  # seven days old: not yet
            (18, "A", 0),  # known
            (18, "B", 0),
            (19, "A", 1),  # a new fraud of a known customer
        ],
        columns=["day", "customer", "fraud"],
    )

    known = known_compromised(rows["day"], rows["customer"], rows["fraud"], since=10, delay_days=7)

    assert known.tolist() == [False, False, False, True, False, True]
