"""The figures of the handbook's protocol on its own test week, for the rule "amount alone".

Run: python -m pytest tests/quality/test_book_protocol.py
"""

from __future__ import annotations

import pandas as pd
import pytest

from fraudwatch.evaluation import (
    auc,
    average_precision,
    card_precision,
    per_kind,
    value_found,
)
from tests.quality import datasets
from tests.quality.protocol import known_compromised

TRAINING_STARTS = 115  # 2018-07-25; seven days of training, seven of delay, seven of test


@pytest.fixture(scope="module")
def week() -> pd.DataFrame:
    """The test week 2018-08-08 to 14 without customers known as defrauded."""
    try:
        rows = datasets.frame("handbook/transactions.parquet")
    except datasets.DataAbsent as absent:
        pytest.skip(str(absent))
    known = known_compromised(
        rows["TX_TIME_DAYS"],
        rows["CUSTOMER_ID"],
        rows["TX_FRAUD"],
        since=TRAINING_STARTS,
        delay_days=7,
    )
    return rows[~known & rows["TX_TIME_DAYS"].between(TRAINING_STARTS + 14, TRAINING_STARTS + 20)]


def test_the_test_week_is_the_books(week: pd.DataFrame) -> None:
    assert (len(week), week["TX_FRAUD"].sum()) == (58_264, 385)


def test_the_amount_alone_scores_as_published(week: pd.DataFrame) -> None:
    day, customer, amount, fraud = (
        week[name] for name in ("TX_TIME_DAYS", "CUSTOMER_ID", "TX_AMOUNT", "TX_FRAUD")
    )

    assert auc(fraud, amount) == pytest.approx(0.580, abs=5e-4)
    assert average_precision(fraud, amount) == pytest.approx(0.138, abs=5e-4)
    assert card_precision(day, customer, amount, fraud) == pytest.approx(0.067, abs=5e-4)
    assert value_found(day, amount, amount, fraud) == pytest.approx(0.491, abs=5e-4)


def test_the_amount_alone_scores_as_published_by_scenario(week: pd.DataFrame) -> None:
    table = per_kind(week["TX_FRAUD"], week["TX_FRAUD_SCENARIO"], week["TX_AMOUNT"])

    assert table["frauds"].tolist() == [20, 281, 84]
    assert table["average_precision"].tolist() == pytest.approx([1.000, 0.005, 0.340], abs=5e-4)


def test_perfect_knowledge_scores_as_published(week: pd.DataFrame) -> None:
    fraud = week["TX_FRAUD"]

    found = card_precision(week["TX_TIME_DAYS"], week["CUSTOMER_ID"], fraud, fraud)

    assert found == pytest.approx(0.397, abs=5e-4)
