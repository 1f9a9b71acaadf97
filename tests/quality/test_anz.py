"""Three months of a hundred bank customers: keys of text, unsigned amounts, missing merchants.

Run: python -m pytest tests/quality/test_anz.py -s
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.quality import commands, datasets
from tests.quality.commands import Done

ROWS, CUSTOMERS = 12_043, 100
FIT = ("--until", "2018-10-01")
SCORES = (
    "SELECT transaction_id, log_likelihood, p_value FROM transaction_scores ORDER BY transaction_id"
)
ALERTS = "SELECT alert_id, transaction_id, summary, priority FROM fraud_alerts ORDER BY alert_id"


@pytest.fixture(scope="module")
def folder(bank: Callable[[str], Path]) -> Path:
    return bank("anz")


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    run = commands.whole_line(folder, *FIT)
    print(commands.told(folder, run))
    return run


def test_init_proposes_the_mapping(done: dict[str, Done]) -> None:
    mapped = done["init"].data["mapping"]

    keys = ("id", "time", "customer", "counterparty", "amount", "currency")
    expected = ["transaction_id", "extraction", "customer_id", "merchant_id", "amount", "currency"]
    assert [mapped[key] for key in keys] == expected
    assert "first_name" not in (*mapped["categories"], *mapped["numbers"])


def test_the_books_and_promises_hold(folder: Path, done: dict[str, Done]) -> None:
    commands.assert_sound(folder, done)
    assert commands.books(folder / "bank.db").source_rows == ROWS


def test_every_customer_has_one_state(folder: Path, done: dict[str, Done]) -> None:
    current = commands.select(folder / "bank.db", "SELECT * FROM current_customer_segments")

    assert len(current) == current.customer_id.nunique() == CUSTOMERS


def test_alerts_join_to_the_users_table_without_a_cast(folder: Path, done: dict[str, Done]) -> None:
    joined = commands.select(
        folder / "bank.db",
        "SELECT a.amount, t.amount AS theirs FROM fraud_alerts a "
        "JOIN transactions t ON t.transaction_id = a.transaction_id "
        "AND t.customer_id = a.customer_id",
    )

    assert len(joined) == done["fraudwatch score"].data["alerts"]
    assert (joined.amount == joined.theirs).all()


def test_another_run_of_the_whole_line_gives_the_same(
    folder: Path, done: dict[str, Done], tmp_path: Path
) -> None:
    datasets.anz(tmp_path).rename(tmp_path / "bank.db")
    commands.whole_line(tmp_path, *FIT)

    for query in (SCORES, ALERTS):
        first, second = (commands.select(f / "bank.db", query) for f in (folder, tmp_path))
        pd.testing.assert_frame_equal(first, second, rtol=0, atol=1e-6)
