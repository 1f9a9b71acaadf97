"""The figures against hand-made answers, brute force and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from fraudwatch.evaluation import (
    auc,
    average_precision,
    card_precision,
    per_kind,
    reviewed,
    reviewed_together,
    side_by_side,
    value_found,
    value_interval,
    wilson,
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


# --- side by side at equal reviews ---------------------------------------------------------------

two_lists = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(0, 4), st.booleans()), max_size=25
)


@settings(deadline=None)
@given(two_lists, st.integers(1, 6))
def test_a_shared_list_looks_at_as_many_rows_as_either_alone(
    rows: list[tuple[int, int, int, bool]], k: int
) -> None:
    day, first, second, _ = np.array(rows or np.empty((0, 4))).reshape(-1, 4).T

    alone, other = reviewed(day, first, k), reviewed(day, second, k)
    together = reviewed_together(day, first, second, k)

    for each in np.unique(day):
        on_day = day == each
        assert together[on_day].sum() == alone[on_day].sum() == min(k, on_day.sum())
    assert not (together & ~alone & ~other).any(), "neither list goes deeper than alone"
    if len(rows):
        mine, theirs = (together & alone).sum(), (together & other).sum()
        assert mine >= together.sum() / 2 and theirs >= (together.sum() - 3) / 2, "half and half"


def test_two_lists_take_turns_and_a_row_of_both_is_replaced_by_the_next() -> None:
    day = np.zeros(6)
    first, second = [9, 8, 7, 6, 5, 4], [8, 9, 1, 2, 3, 7]

    # 0 by the first; 1 by the second; 2 by the first, for 1 is taken; 5 by the second
    together = reviewed_together(day, first, second, k=4)

    assert np.flatnonzero(together).tolist() == [0, 1, 2, 5]


def test_a_missing_score_is_reviewed_last() -> None:
    assert reviewed([0, 0, 0], [np.nan, -1.0, 5.0], 2).tolist() == [False, True, True]


@pytest.mark.parametrize(("hits", "trials"), [(0, 7), (7, 7), (3, 10), (1, 1000)])
def test_the_interval_of_a_share_is_wilsons(hits: int, trials: int) -> None:
    expected = stats.binomtest(hits, trials).proportion_ci(0.95, method="wilson")

    assert wilson(hits, trials) == pytest.approx((expected.low, expected.high))


def test_no_review_has_no_interval() -> None:
    assert np.isnan(wilson(0, 0)).all()


def test_the_interval_of_money_holds_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    day = np.repeat(np.arange(60), 5)
    held = 0
    for seed in range(200):
        amount = generator.exponential(100, len(day)) * np.repeat(generator.gamma(2, 1, 60), 5)
        found = generator.random(len(day)) < 0.6
        low, high = value_interval(day, amount, np.ones(len(day)), found, seed)
        held += low <= 0.6 <= high

    assert 0.89 < held / 200 < 0.99


def test_the_interval_of_money_follows_the_seed_and_needs_two_days() -> None:
    day, amount, found = [0, 0, 1, 2], [5.0, 7.0, 1.0, 2.0], np.array([True, False, True, False])

    assert value_interval(day, amount, [1] * 4, found, 3) == value_interval(
        day, amount, [1] * 4, found, 3
    )
    assert np.isnan(value_interval([0, 0], [5.0, 1.0], [1, 1], found[:2], 3)).all()
    assert np.isnan(value_interval(day, amount, [0] * 4, found, 3)).all()


def test_the_side_by_side_table_equals_a_count_by_hand() -> None:
    generator = np.random.default_rng(2)
    day = generator.integers(0, 6, 400)
    amount, fraud = generator.normal(0, 50, 400), generator.random(400) < 0.15
    ours, theirs = generator.random(400) + fraud, generator.random(400) + 0.5 * fraud
    lists = {
        "ours": reviewed(day, ours, 8),
        "theirs": reviewed(day, theirs, 8),
        "both": reviewed_together(day, ours, theirs, 8),
    }
    against = {"ours": "theirs", "theirs": "ours", "both": "ours"}

    table = {row["score"]: row for row in side_by_side(day, amount, fraud, lists, against, 0)}

    found = {
        name: {
            (each, row)
            for each in range(6)
            for row in sorted(np.flatnonzero(day == each), key=lambda r: -score[r])[:8]
            if fraud[row]
        }
        for name, score in {"ours": ours, "theirs": theirs}.items()
    }
    for name, other in (("ours", "theirs"), ("theirs", "ours")):
        row = table[name]
        assert row["reviews"] == table["both"]["reviews"] == 48
        assert row["frauds_found"] == len(found[name])
        assert row["found_only_by_it"] == len(found[name] - found[other])
        assert row["found_only_by_the_other"] == len(found[other] - found[name])
        assert row["found_by_neither"] == fraud.sum() - len(found[name] | found[other])
        money = sum(abs(amount[at]) for _, at in found[name])
        assert row["value_found"] == pytest.approx(money)
        assert row["value_share"] == pytest.approx(money / np.abs(amount[fraud]).sum())
        assert row["false_positive_ratio"] == (48 - len(found[name])) / len(found[name])
        low, high = row["false_positive_ratio_interval"]
        assert low < row["false_positive_ratio"] < high


def test_a_list_without_a_fraud_has_no_ratio_but_a_least_one() -> None:
    lists = {"ours": np.array([True, False]), "theirs": np.array([False, True])}
    against = {"ours": "theirs", "theirs": "ours"}

    ours, theirs = side_by_side([0, 1], [9.0, 9.0], [0, 1], lists, against, 0)

    assert np.isnan(ours["false_positive_ratio"])
    low, high = ours["false_positive_ratio_interval"]
    assert low == pytest.approx(1 / wilson(0, 1)[1] - 1) and np.isnan(high)
    assert (ours["found_only_by_it"], theirs["found_only_by_it"]) == (0, 1)
