"""CPU seconds and rows per second of each stage on the handbook's payments, beside pandas.

    python tests/quality/bench.py

The database is SQLite with the index on the time that `peerwatch doctor` proposes. The stages take
turns in one process, three times; a stage's figure is the least of them, for whatever else the
machine does only adds to it. CPU seconds, all threads, not wall seconds.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(name, "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402 - threads are set before it is imported
import pandas as pd  # noqa: E402
import sqlalchemy as sa  # noqa: E402

from fraudwatch import detector, features  # noqa: E402
from shared import config, frames, migrating, runs  # noqa: E402
from shared.database import insert_new, transaction  # noqa: E402
from shared.source import Source  # noqa: E402
from tests.quality import bench_features, datasets  # noqa: E402
from tests.quality.bench_features import SMALL, cpu_seconds  # noqa: E402
from tests.quality.commands import markdown  # noqa: E402

CLOCK = frames.micros(datetime(2018, 10, 1, tzinfo=UTC))
START = frames.micros(datetime(2018, 4, 1, tzinfo=UTC))
SLICE = 20 * frames.MICROSECONDS_PER_DAY  # about 190,000 payments, as much as a run reads at once
COLUMNS = "TRANSACTION_ID, TX_DATETIME, CUSTOMER_ID, TERMINAL_ID, TX_AMOUNT"
QUERY = f"SELECT {COLUMNS} FROM transactions"
ROWS = 1_754_155
WRITTEN = 134_055  # scores of two weeks, as the handbook run writes them
REPEATS = 3
MOST_GROWTH = 1.1
DAY = frames.MICROSECONDS_PER_DAY
Row = dict[str, Any]


def mapped(path: Path) -> config.Source:
    """The source as `init` maps it, labels left out."""
    return configured(
        path,
        table="transactions",
        id="TRANSACTION_ID",
        time="TX_DATETIME",
        time_format="%Y-%m-%d %H:%M:%S",
        customer="CUSTOMER_ID",
        counterparty="TERMINAL_ID",
        amount="TX_AMOUNT",
    ).source


def configured(path: Path, **transactions: str) -> config.Configuration:
    source = {"url": f"sqlite:///{path}", "transactions": transactions}
    return config.parse({"source": source}, path.with_name("peerwatch.toml"), {})


# --- read ---------------------------------------------------------------------------------------


def read_by_slices(settings: config.Source) -> int:
    """Every payment through the quality gate, a slice in memory at a time."""
    with Source(settings) as source:
        starts = range(START, CLOCK, SLICE)
        return sum(len(source.read(start, start + SLICE, CLOCK).rows) for start in starts)


def read_at_once(settings: config.Source) -> pd.DataFrame:
    with Source(settings) as source:
        return source.read(START, CLOCK, CLOCK).rows


def pandas_read(url: str) -> pd.DataFrame:
    with sa.create_engine(url).connect() as connection:
        return pd.read_sql(sa.text(QUERY), connection, parse_dates=["TX_DATETIME"])


def pandas_read_driver(path: Path) -> pd.DataFrame:
    connection = sqlite3.connect(path)
    try:
        return pd.read_sql(QUERY, connection, parse_dates=["TX_DATETIME"])
    finally:
        connection.close()


def reading(path: Path, unindexed: Path) -> list[Row]:
    url = f"sqlite:///{path}"
    settings, plain = mapped(path), mapped(unindexed)
    spent = cpu_seconds(
        partial(read_by_slices, settings),
        partial(read_at_once, settings),
        partial(read_by_slices, plain),
        partial(pandas_read, url),
        partial(pandas_read_driver, path),
        repeats=REPEATS,
    )
    sliced, whole, scanned, theirs, driver = spent
    assert read_by_slices(settings) == len(pandas_read_driver(path)) == ROWS
    return [
        stage("read, by slices", ROWS, sliced, theirs, "pandas.read_sql", 3.0),
        stage("read, by slices", ROWS, sliced, driver, "read_sql on sqlite3, no SQLAlchemy"),
        stage("read, at once", ROWS, whole, theirs, "pandas.read_sql"),
        stage("read, by slices, no index", ROWS, scanned, theirs, "pandas.read_sql"),
    ]


# --- features -----------------------------------------------------------------------------------


def as_rows(payments: pd.DataFrame) -> pd.DataFrame:
    """The payments as the source gives them."""
    return pd.DataFrame(
        {
            "occurred_at": payments.occurred_at,
            "customer_id": payments.customer.astype("Int64"),
            "counterparty_id": payments.terminal.astype("Int64"),
            "amount": payments.money / 10_000,
            "currency": pd.array([""] * len(payments), "str"),
        }
    )


def by_slices(rows: pd.DataFrame, known: features.Reference, begin: int, end: int) -> None:
    """All features of rows begin to end as a run makes them: in slices with their lead-in."""
    times = rows.occurred_at.to_numpy()
    for start in range(begin, end, SMALL):
        stop = min(start + SMALL, end)
        low = int(np.searchsorted(times, times[start] - features.HISTORY_DAYS * DAY))
        own = np.arange(start - low, stop - low)
        features.build(rows.iloc[low:stop], own, known, "UTC")


def featuring() -> list[Row]:
    """Windows and features, in one piece and as a run makes them; growth from `SMALL` rows."""
    payments = bench_features.payments()
    small, rows = payments.head(SMALL), as_rows(payments)
    known = features.reference(rows)
    windows, rolling, pieces, few, few_pieces, streamed, few_streamed = cpu_seconds(
        partial(bench_features.ours, payments),
        partial(bench_features.pandas_rolling, payments),
        partial(bench_features.all_features, payments),
        partial(bench_features.ours, small),
        partial(bench_features.all_features, small),
        partial(by_slices, rows, known, 0, ROWS),
        partial(by_slices, rows, known, ROWS // 2, ROWS // 2 + SMALL),
        repeats=REPEATS,
    )
    ours, pandas = bench_features.ours(payments), bench_features.pandas_rolling(payments)
    unequal = bench_features.differing(payments, ours, pandas)
    peer = f"groupby().rolling(), {unequal} cells differ"
    return [
        stage("features, 14 windows", ROWS, windows, rolling, peer, 5.0),
        stage("features, all, by slices", ROWS, streamed, rolling, "rolling of the 14 alone"),
        growth("growth, all features, by slices", few_streamed, streamed),
        growth("growth, all features, in one piece", few_pieces, pieces),
        growth("growth, 14 windows, in one piece", few, windows),
    ]


def growth(name: str, few: float, every: float) -> Row:
    """The exponent of the cost from `SMALL` rows to all: 1 is linear."""
    exponent = float(np.log(every / few) / np.log(ROWS / SMALL))
    line = stage(f"{name}: exponent {exponent:.2f}", ROWS, every)
    beside = {"beside": f"{SMALL:,} rows", "its CPU s": few, "goal": "at most 1.1"}
    return {**line, **beside, "": "met" if exponent <= MOST_GROWTH else "MISSED"}


# --- score --------------------------------------------------------------------------------------


def scoring(rows: pd.DataFrame) -> list[Row]:
    """The density's part alone: features in, log likelihoods out."""
    window = rows[rows.occurred_at >= START + 120 * frames.MICROSECONDS_PER_DAY].head(WRITTEN)
    lead = rows[rows.occurred_at < window.occurred_at.iloc[0]].tail(350_000)
    both = pd.concat([lead, window], ignore_index=True)
    known = features.reference(lead)
    frame = features.build(both, np.arange(len(both)), known, "UTC")
    until = int(window.occurred_at.iloc[0])
    fitted, _ = detector.fit(
        frame.iloc[200_000:230_000],
        frame.iloc[320_000:350_000],
        features.declared(both.columns),
        known,
        (until - 3 * frames.MICROSECONDS_PER_DAY, until, 3),
        np.random.default_rng(0),
    )
    own = frame.iloc[len(lead) :]
    (spent,) = cpu_seconds(lambda: fitted.score(own), repeats=REPEATS)
    return [stage("score, VAE", len(own), spent)]


# --- write --------------------------------------------------------------------------------------


def scores(rows: pd.DataFrame) -> pd.DataFrame:
    """As a run writes them; what they say does not matter here."""
    window = rows.tail(WRITTEN)
    generator = np.random.default_rng(0)
    days = frames.local_days(window.occurred_at.to_numpy(), "UTC").astype("datetime64[s]")
    return pd.DataFrame(
        {
            "transaction_id": window.transaction_id,
            "customer_id": window.customer_id,
            "occurred_at": window.occurred_at,
            "day": pd.Series(days, window.index).dt.date,
            "log_likelihood": generator.normal(-2, 2, len(window)),
            "anomaly_score": generator.exponential(1, len(window)),
            "p_value": generator.uniform(0, 1, len(window)),
            "in_sample": False,
            "model_version_id": "fraudwatch-20180801-0123456789",
            "role": "published",
            "run_id": "20180815T000000-fraudwatch.score",
            "scored_at": pd.Timestamp("2018-08-15", tz="UTC"),
        }
    )


def writing(folder: Path, rows: pd.DataFrame) -> list[Row]:
    """Upserts into the result table, keys and index kept, beside `to_sql` into an empty one."""
    frame = scores(rows)
    results = made_tables(folder)
    theirs = sa.create_engine(f"sqlite:///{folder / 'pandas.db'}")
    table = results.tables.transaction_scores
    stamped = frame.assign(
        occurred_at=pd.to_datetime(frame.occurred_at, unit="us", utc=True),
        scored_at=frame.scored_at,
    )

    def ours() -> None:
        with transaction(results.engine) as connection:
            connection.execute(sa.delete(table))
            assert insert_new(connection, table, frame) == WRITTEN

    def pandas() -> None:
        stamped.to_sql("scores", theirs, if_exists="replace", index=False)

    mine, beside = cpu_seconds(ours, pandas, repeats=REPEATS)
    peer = "DataFrame.to_sql, no key, no index"
    return [stage("write scores, upsert", WRITTEN, mine, beside, peer)]


def made_tables(folder: Path) -> runs.Results:
    """The result tables in a database of their own."""
    path = folder / "results.db"
    path.touch()
    settings = configured(path, table="t", id="i", time="t", amount="a")
    results = runs.results_of(settings, {"transaction": "integer", "customer": "integer"})
    with results.transaction() as connection:
        migrating.upgrade(connection, results.target)
    return results


# --- the table ----------------------------------------------------------------------------------


def stage(
    name: str,
    rows: int,
    spent: float,
    theirs: float | None = None,
    peer: str = "–",
    goal: float | None = None,
) -> Row:
    """One line; ratio: how many times the CPU seconds of the other way."""
    ratio = None if theirs is None else theirs / spent
    return {
        "stage": name,
        "rows": rows,
        "CPU s": spent,
        "rows/s": round(rows / spent),
        "beside": peer,
        "its CPU s": theirs,
        "ratio": ratio,
        "goal": "–" if goal is None else f"at least {goal:g}",
        "": "" if goal is None or ratio is None else "met" if ratio >= goal else "MISSED",
    }


@contextmanager
def databases() -> Iterator[tuple[Path, Path, Path]]:
    """A folder, the payments with an index on their time, and the same without."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        plain = datasets.handbook(folder)
        indexed = folder / "indexed.db"
        indexed.write_bytes(plain.read_bytes())
        connection = sqlite3.connect(indexed)
        connection.execute("CREATE INDEX transactions_TX_DATETIME ON transactions (TX_DATETIME)")
        connection.commit()
        connection.close()
        yield folder, indexed, plain


def main() -> int:
    try:
        with databases() as (folder, path, unindexed):
            lines = reading(path, unindexed)
            rows = read_at_once(mapped(path))
            lines += featuring() + scoring(rows) + writing(folder, rows)
    except datasets.DataAbsent as absent:
        print(f"nothing measured: {absent}")
        return 0
    print(markdown(lines, f"CPU seconds on the handbook's payments, least of {REPEATS}"))
    missed = [line["stage"] for line in lines if line[""] == "MISSED"]
    print(f"\nMissed: {', '.join(missed)}" if missed else "\nEvery goal is met.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
