"""A bank's eight tables, dated to the day: all rows of a day are ties; categories in Czech.

Run: python -m pytest tests/quality/test_berka.py -s
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from tests.quality import commands, datasets
from tests.quality.commands import Done

ROWS, CLIENTS = 46_997, 5_369
FIT = ("--until", "1994-03-01")
TIED = "1994-02-28"  # interest of most accounts beside their payments
SCORES = (
    "SELECT transaction_id, log_likelihood, p_value FROM transaction_scores ORDER BY transaction_id"
)
ALERTS = (
    "SELECT alert_id, case_id, transaction_id, summary, priority FROM fraud_alerts "
    "ORDER BY alert_id"
)
SEGMENTS = (
    "SELECT customer_id, state, segment_id, probability FROM current_customer_segments "
    "ORDER BY customer_id"
)


@pytest.fixture(scope="module")
def folder(bank: Callable[[str], Path]) -> Path:
    return bank("berka")


@pytest.fixture(scope="module")
def done(folder: Path) -> dict[str, Done]:
    run = commands.whole_line(folder, *FIT)
    print(commands.told(folder, run))
    return run


def test_init_takes_the_view_of_signed_amounts(done: dict[str, Done]) -> None:
    mapped = done["init"].data["mapping"]

    keys = ("table", "id", "time", "customer", "counterparty", "amount")
    expected = ["client_trans", "trans_id", "date", "client_id", "partner", "amount"]
    assert [mapped[key] for key in keys] == expected
    assert {"type", "operation", "k_symbol"} <= set(mapped["categories"])


def test_the_books_and_promises_hold(folder: Path, done: dict[str, Done]) -> None:
    commands.assert_sound(folder, done)
    assert commands.books(folder / "bank.db").source_rows == ROWS


def test_every_client_has_one_state(folder: Path, done: dict[str, Done]) -> None:
    current = commands.select(folder / "bank.db", SEGMENTS)

    assert len(current) == current.customer_id.nunique() == CLIENTS
    assert 3 <= current.segment_id.nunique() <= 12


def test_another_run_of_the_whole_line_gives_the_same(
    folder: Path, done: dict[str, Done], tmp_path: Path
) -> None:
    datasets.berka(tmp_path).rename(tmp_path / "bank.db")
    commands.whole_line(tmp_path, *FIT)

    for query in (SCORES, ALERTS, SEGMENTS):
        first, second = (commands.select(f / "bank.db", query) for f in (folder, tmp_path))
        pd.testing.assert_frame_equal(first, second, rtol=0, atol=1e-6)


def test_transactions_of_a_day_do_not_see_each_other(
    folder: Path, done: dict[str, Done], tmp_path: Path
) -> None:
    """Scores of a day's first transactions are the same when its other ones never were."""
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("bank.db", "peerwatch.toml"):
        shutil.copy(folder / name, alone / name)
    taken = _only_first_of_each_account(alone / "bank.db")
    commands.peerwatch(alone, "fraudwatch", "score", "--until", f"{TIED}T23:59:59")

    kept = commands.select(alone / "bank.db", SCORES)
    together = commands.select(folder / "bank.db", SCORES)

    assert taken > 50
    assert len(kept) > 100
    joined = kept.merge(together, on="transaction_id", suffixes=("", "_together"))
    assert len(joined) == len(kept)
    pd.testing.assert_series_equal(
        joined.log_likelihood, joined.log_likelihood_together, check_names=False, rtol=0, atol=1e-6
    )


def _only_first_of_each_account(bank: Path) -> int:
    """Removes all but one transaction of each account on the day; forgets all scores."""
    connection = sqlite3.connect(bank)
    try:
        with connection:
            taken = connection.execute(
                "DELETE FROM trans WHERE date = ? AND trans_id NOT IN "
                "(SELECT min(trans_id) FROM trans WHERE date = ? GROUP BY account_id)",
                (TIED, TIED),
            ).rowcount
            for table in ("transaction_scores", "fraud_alerts", "fraud_alert_reasons"):
                connection.execute(f"DELETE FROM {table}")
            connection.execute("DELETE FROM settings WHERE key IN ('scored_from', 'scored_until')")
    finally:
        connection.close()
    return int(taken)
