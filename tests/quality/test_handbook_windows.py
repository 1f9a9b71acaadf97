"""Our windows beside the handbook's own features, on the handbook's payments.

The handbook's windows are (t − w, t] and count the present payment; ours are [t − w, t) and do
not. The present payment is added here; payments with another one of the same key at one of the
two edges are left out of the comparison, and counted.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fraudwatch.features import build, reference
from shared.windows import DAY, Ledger

HANDBOOK = Path(os.environ.get("PEERWATCH_DATA", "../shared/data")) / "handbook"
ORACLE = HANDBOOK / "features_2018-07-11_2018-08-14.parquet"
pytestmark = pytest.mark.skipif(not ORACLE.exists(), reason=f"the handbook is not in {HANDBOOK}")
WINDOWS = (1, 7, 30)
LEAD_IN = 37  # days before the oracle: the longest window and the handbook's delay of the labels


@pytest.fixture(scope="module")
def payments() -> pd.DataFrame:
    """The payments of the oracle's days with their lead-in, the oracle beside its own."""
    oracle = pd.read_parquet(ORACLE).drop(columns="TX_FRAUD")
    transactions = pd.read_parquet(HANDBOOK / "transactions.parquet")
    moments = transactions["TX_DATETIME"].astype("datetime64[us]")
    first = moments[transactions["TRANSACTION_ID"] == oracle["TRANSACTION_ID"].min()].iloc[0]
    within = (moments >= first.normalize() - pd.Timedelta(days=LEAD_IN)) & (
        transactions["TRANSACTION_ID"] <= oracle["TRANSACTION_ID"].max()
    )
    found = transactions[within].merge(oracle, on="TRANSACTION_ID", how="left")
    return found.assign(occurred_at=found["TX_DATETIME"].astype("datetime64[us]").astype("int64"))


@pytest.fixture(scope="module")
def targets(payments: pd.DataFrame) -> np.ndarray:
    return np.flatnonzero(payments["TX_DURING_WEEKEND"].notna())


def without_edges(
    payments: pd.DataFrame, key: str, targets: np.ndarray, days: int, delay: int
) -> np.ndarray:
    """(targets,) True where no other payment of the key stands exactly at an edge of the window."""
    ledger = Ledger(payments[key].to_numpy(np.int64), payments["occurred_at"].to_numpy(), targets)
    at_start = ledger.window(1, (delay + days) * DAY - 1).count() > 0
    if delay:
        return ~at_start & (ledger.window(1, delay * DAY - 1).count() == 0)
    tied = payments.duplicated([key, "occurred_at"], keep=False).to_numpy()
    return ~at_start & ~tied[targets]


def test_features_with_the_present_payment_are_the_handbooks(payments, targets):
    rows = pd.DataFrame(
        {
            "occurred_at": payments["occurred_at"],
            "customer_id": payments["CUSTOMER_ID"].astype("Int64"),
            "amount": payments["TX_AMOUNT"],
            "currency": "",
        }
    )
    fitted = reference(rows)

    frame = build(rows, targets, fitted, "UTC")

    theirs = payments.iloc[targets].reset_index(drop=True)
    np.testing.assert_array_equal(frame["weekend"], theirs["TX_DURING_WEEKEND"])
    for days in WINDOWS:
        plain = without_edges(payments, "CUSTOMER_ID", targets, days, delay=0)
        assert plain.mean() > 0.999
        count = frame[f"count_{days}d"] + 1
        past = frame[f"mean_amount_{days}d"] / 100 * fitted.overall_amount * (count - 1)
        mean = (past + theirs["TX_AMOUNT"]) / count
        np.testing.assert_array_equal(
            count[plain], theirs[f"CUSTOMER_ID_NB_TX_{days}DAY_WINDOW"][plain]
        )
        # Amounts are summed as millionths of the typical amount, so means agree to some of these.
        np.testing.assert_allclose(
            mean[plain],
            theirs[f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW"][plain],
            rtol=0,
            atol=1e-6 * fitted.overall_amount,
        )


def test_sums_of_money_are_the_handbooks_to_the_last_digit(payments, targets):
    money = np.rint(payments["TX_AMOUNT"].to_numpy() * 10_000).astype(np.int64)
    ledger = Ledger(
        payments["CUSTOMER_ID"].to_numpy(np.int64), payments["occurred_at"].to_numpy(), targets
    )
    theirs = payments.iloc[targets].reset_index(drop=True)

    for days in WINDOWS:
        window = ledger.window(days * DAY)
        count, total = window.count() + 1, window.total(money) + money[targets]

        plain = without_edges(payments, "CUSTOMER_ID", targets, days, delay=0)
        cents = theirs[f"CUSTOMER_ID_AVG_AMOUNT_{days}DAY_WINDOW"] * count * 100
        np.testing.assert_array_equal(total[plain] // 100, np.rint(cents[plain]))


def test_delayed_windows_of_the_terminal_are_the_handbooks(payments, targets):
    """Their delayed window is (t − 7 d − w, t − 7 d]: labels arrive after a week."""
    delay = 7
    fraud = payments["TX_FRAUD"].to_numpy(np.int64)
    ledger = Ledger(
        payments["TERMINAL_ID"].to_numpy(np.int64), payments["occurred_at"].to_numpy(), targets
    )
    theirs = payments.iloc[targets].reset_index(drop=True)

    for days in WINDOWS:
        window = ledger.window(days * DAY, delay * DAY)
        count, frauds = window.count(), window.total(fraud)

        plain = without_edges(payments, "TERMINAL_ID", targets, days, delay)
        assert plain.mean() > 0.999
        np.testing.assert_array_equal(
            count[plain], theirs[f"TERMINAL_ID_NB_TX_{days}DAY_WINDOW"][plain]
        )
        risk = frauds / np.maximum(count, 1)
        np.testing.assert_allclose(
            risk[plain], theirs[f"TERMINAL_ID_RISK_{days}DAY_WINDOW"][plain], rtol=1e-12
        )
