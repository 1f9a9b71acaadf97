"""Cost of the windows beside pandas `groupby().rolling()`, on the handbook's payments.

Fourteen columns: counts and means over 1, 7 and 30 days per customer and per terminal, the time
since the customer's last payment, and the first meeting of customer and terminal in 30 days.

    python tests/quality/bench_features.py
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from fraudwatch.features import build, reference
from shared.windows import DAY, Ledger

DATA = Path(os.environ.get("PEERWATCH_DATA", "../shared/data"))
DAYS = (1, 7, 30)
KEYS = ("customer", "terminal")
SMALL = 200_000  # rows from which growth is counted
Columns = dict[str, np.ndarray]


def payments() -> pd.DataFrame:
    """All payments by time: occurred_at (microseconds), customer, terminal, money (1/10,000)."""
    found = pd.read_parquet(DATA / "handbook" / "transactions.parquet")
    return pd.DataFrame(
        {
            "occurred_at": found["TX_DATETIME"].astype("datetime64[us]").astype("int64"),
            "customer": found["CUSTOMER_ID"].astype("int64"),
            "terminal": found["TERMINAL_ID"].astype("int64"),
            "money": np.rint(found["TX_AMOUNT"] * 10_000).astype("int64"),
        }
    )


def ours(rows: pd.DataFrame) -> Columns:
    times, money = rows["occurred_at"].to_numpy(), rows["money"].to_numpy()
    columns: Columns = {}
    for key in KEYS:
        ledger = Ledger(rows[key].to_numpy(), times)
        for days in DAYS:
            window = ledger.window(days * DAY)
            count = window.count()
            columns[f"{key}_count_{days}d"] = count
            columns[f"{key}_mean_{days}d"] = window.total(money) / np.maximum(count, 1)
        if key == "customer":
            columns["since_last"] = window.since_last()
    pairs = (rows["customer"] * (rows["terminal"].max() + 1) + rows["terminal"]).to_numpy()
    columns["first_meeting"] = Ledger(pairs, times).window(30 * DAY).count() == 0
    return columns


def pandas_rolling(rows: pd.DataFrame) -> Columns:
    """The same by `groupby().rolling()`; pandas lets a row see earlier rows of its own moment."""
    stamped = rows.assign(at=pd.to_datetime(rows["occurred_at"], unit="us"))
    columns: Columns = {}
    for key in KEYS:
        ordered = stamped.sort_values([key, "occurred_at"], kind="stable")
        back = np.argsort(ordered.index.to_numpy())
        groups = ordered.set_index("at").groupby(key)["money"]
        for days in DAYS:
            rolling = groups.rolling(f"{days}D", closed="left")
            columns[f"{key}_count_{days}d"] = rolling.count().fillna(0).to_numpy()[back]
            columns[f"{key}_mean_{days}d"] = rolling.mean().fillna(0).to_numpy()[back]
    gap = rows.groupby("customer")["occurred_at"].diff().to_numpy()
    columns["since_last"] = np.where(gap <= 30 * DAY, gap, np.nan)
    met = rows.groupby(["customer", "terminal"])["occurred_at"].diff()
    columns["first_meeting"] = ~(met <= 30 * DAY).to_numpy()
    return columns


def all_features(rows: pd.DataFrame) -> pd.DataFrame:
    """Every feature of fraudwatch, quantiles of the own history and evidence included."""
    named = pd.DataFrame(
        {
            "occurred_at": rows["occurred_at"],
            "customer_id": rows["customer"].astype("Int64"),
            "counterparty_id": rows["terminal"].astype("Int64"),
            "amount": rows["money"] / 10_000,
            "currency": pd.array([""] * len(rows), "str"),
        }
    )
    return build(named, np.arange(len(named)), reference(named), "UTC")


def differing(rows: pd.DataFrame, left: Columns, right: Columns) -> int:
    """Cells that differ, rows that share their moment with another one of their key left out."""
    tied = np.zeros(len(rows), dtype=bool)
    for key in KEYS:
        tied |= rows.duplicated([key, "occurred_at"], keep=False).to_numpy()
    # A row after a tie sees the same window either way; only the tied rows themselves differ.
    same = [
        np.isclose(left[name][~tied], right[name][~tied], rtol=1e-9, atol=1e-3, equal_nan=True)
        for name in left
    ]
    return int(sum((~cells).sum() for cells in same))


def cpu_seconds(*works: Callable[[], object], repeats: int = 4) -> list[float]:
    """The least CPU seconds of a few runs of each: what else the machine does only adds to them.

    The works take turns, so that a busy minute does not fall on one of them alone.
    """
    spent: list[list[float]] = [[] for _ in works]
    for _ in range(repeats):
        for work, seconds in zip(works, spent, strict=True):
            begin = time.process_time()
            work()
            seconds.append(time.process_time() - begin)
    return [min(seconds) for seconds in spent]


def measured(name: str, work: Callable[[pd.DataFrame], object], rows: pd.DataFrame) -> str:
    """Cost, speed, and the exponent of the cost from `SMALL` rows to all: 1 is linear."""
    small = rows.head(SMALL)
    few, every = cpu_seconds(lambda: work(small), lambda: work(rows))
    growth = np.log(every / few) / np.log(len(rows) / len(small))
    return (
        f"{name:22}{every:7.2f} CPU s {len(rows) / every:12,.0f} rows/s, "
        f"growth from {SMALL:,} rows to all: exponent {growth:.2f}"
    )


def report() -> str:
    """Lines for `make bench`."""
    rows = payments()
    lines = [
        measured("windows, 14 columns", ours, rows),
        measured("all features", all_features, rows),
    ]
    begin = time.process_time()
    theirs = pandas_rolling(rows)
    rolling = time.process_time() - begin
    (mine,) = cpu_seconds(lambda: ours(rows))
    unequal = differing(rows, ours(rows), theirs)
    lines += [
        f"{'pandas rolling':22}{rolling:7.2f} CPU s {len(rows) / rolling:12,.0f} rows/s, "
        f"{rolling / mine:.1f} times the 14 columns; {unequal} cells differ"
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report())
