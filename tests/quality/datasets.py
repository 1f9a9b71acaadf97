"""SQLite databases of the development data, as users have them: the source's own names and types.

    python -m tests.quality.datasets handbook DIR      (also: online_retail, berka, anz)

The files are looked for in PEERWATCH_DATA, else in ../shared/data beside the repository. A database
is built beside its place and moved there when it is whole; one that is there already is kept.
"""

from __future__ import annotations

import argparse
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from adbc_driver_sqlite import dbapi

ROOT = Path(__file__).resolve().parents[2]

HANDBOOK = {
    "transactions": """
        TRANSACTION_ID INTEGER PRIMARY KEY, TX_DATETIME DATETIME NOT NULL,
        CUSTOMER_ID INTEGER NOT NULL, TERMINAL_ID INTEGER NOT NULL, TX_AMOUNT REAL NOT NULL,
        TX_TIME_SECONDS INTEGER, TX_TIME_DAYS INTEGER, TX_FRAUD INTEGER, TX_FRAUD_SCENARIO INTEGER
    """,
    "customers": """
        CUSTOMER_ID INTEGER PRIMARY KEY, x_customer_id REAL, y_customer_id REAL, mean_amount REAL,
        std_amount REAL, mean_nb_tx_per_day REAL, nb_terminals INTEGER
    """,
    "terminals": """
        TERMINAL_ID INTEGER PRIMARY KEY, x_terminal_id REAL, y_terminal_id REAL
    """,
}
ONLINE_RETAIL = {
    "invoice_lines": """
        InvoiceNo TEXT, StockCode TEXT, Description TEXT, Quantity INTEGER, InvoiceDate DATETIME,
        UnitPrice REAL, CustomerID INTEGER, Country TEXT
    """,
}
# One row per invoice line; a cancelled line is negative.
PURCHASES = """
    CREATE VIEW purchases AS
    SELECT rowid AS line_id, InvoiceDate AS moment, CustomerID AS customer, InvoiceNo AS invoice,
        StockCode AS stock_code, Country AS country,
        CAST(ROUND(Quantity * UnitPrice, 2) AS REAL) AS amount
    FROM invoice_lines
"""
BERKA = {
    "account": "account_id INTEGER PRIMARY KEY, district_id INTEGER, frequency TEXT, date DATE",
    "client": """
        client_id INTEGER PRIMARY KEY, birth_number TEXT, district_id INTEGER, gender TEXT,
        birth_date DATE
    """,
    "disp": """
        disp_id INTEGER PRIMARY KEY, client_id INTEGER REFERENCES client,
        account_id INTEGER REFERENCES account, type TEXT
    """,
    "trans": """
        trans_id INTEGER PRIMARY KEY, account_id INTEGER REFERENCES account, date DATE, type TEXT,
        operation TEXT, amount NUMERIC(12, 2), balance NUMERIC(12, 2), k_symbol TEXT, bank TEXT,
        account TEXT
    """,
    "order": """
        order_id INTEGER PRIMARY KEY, account_id INTEGER REFERENCES account, bank_to TEXT,
        account_to TEXT, amount NUMERIC(12, 2), k_symbol TEXT
    """,
    "loan": """
        loan_id INTEGER PRIMARY KEY, account_id INTEGER REFERENCES account, date DATE,
        amount NUMERIC(12, 2), duration INTEGER, payments NUMERIC(12, 2), status TEXT
    """,
    "card": """
        card_id INTEGER PRIMARY KEY, disp_id INTEGER REFERENCES disp, type TEXT, issued DATE
    """,
    "district": """
        A1 INTEGER PRIMARY KEY, A2 TEXT, A3 TEXT, A4 INTEGER, A5 INTEGER, A6 INTEGER, A7 INTEGER,
        A8 INTEGER, A9 INTEGER, A10 REAL, A11 INTEGER, A12 REAL, A13 REAL, A14 INTEGER, A15 REAL,
        A16 INTEGER
    """,
}
# One row per transaction: an account has one owner; money in is positive, money out negative.
CLIENT_TRANS = """
    CREATE VIEW client_trans AS
    SELECT trans.trans_id, trans.date, disp.client_id, trans.account_id,
        CAST(CASE trans.type WHEN 'PRIJEM' THEN trans.amount ELSE -trans.amount END AS REAL)
            AS amount,
        trans.type, trans.operation, trans.k_symbol, trans.bank,
        trans.bank || '-' || trans.account AS partner
    FROM trans JOIN disp ON disp.account_id = trans.account_id AND disp.type = 'OWNER'
"""
ANZ = {
    "transactions": """
        transaction_id TEXT PRIMARY KEY, status TEXT, card_present_flag INTEGER,
        bpay_biller_code TEXT, account TEXT, currency TEXT, long_lat TEXT, txn_description TEXT,
        merchant_id TEXT, merchant_code INTEGER, first_name TEXT, balance NUMERIC(14, 2),
        date DATE, gender TEXT, age INTEGER, merchant_suburb TEXT, merchant_state TEXT,
        extraction DATETIME, amount NUMERIC(14, 2), country TEXT, customer_id TEXT,
        merchant_long_lat TEXT, movement TEXT
    """,
}


class DataAbsent(FileNotFoundError):
    """The development data are not on this machine; a suite skips with this reason."""


def data(name: str) -> Path:
    """The path of a file of the development data, which must be there."""
    folder = Path(os.environ.get("PEERWATCH_DATA", ROOT.parent / "shared" / "data"))
    path = folder / name
    if not path.is_file():
        raise DataAbsent(
            f"There is no {name} in {folder}. Set PEERWATCH_DATA to the folder of the data sets."
        )
    return path


def frame(name: str, columns: list[str] | None = None) -> pd.DataFrame:
    """A file of the development data in pandas, small integers widened."""
    return _widened(pq.read_table(data(name), columns=columns)).to_pandas()


def handbook(folder: Path | str, *, truth: bool = False) -> Path:
    """`transactions`, 1,754,155 card payments with their labels, over six months.

    With `truth` also `customers` and `terminals`, which hold the generator's own parameters: good
    to judge what was found, not allowed as input of a model.
    """
    tables = HANDBOOK if truth else {"transactions": HANDBOOK["transactions"]}
    name = "handbook_truth" if truth else "handbook"
    return _build(folder, name, {t: (f"handbook/{t}.parquet", c) for t, c in tables.items()})


def online_retail(folder: Path | str) -> Path:
    """`invoice_lines`, 541,909 as published and without a key, and the view `purchases`."""
    files = {t: ("online_retail/online_retail.parquet", c) for t, c in ONLINE_RETAIL.items()}
    return _build(folder, "online_retail", files, [PURCHASES])


def berka(folder: Path | str) -> Path:
    """A bank's eight tables (46,997 transactions, dated to the day), and the view `client_trans`
    that gives each transaction its client and its sign."""
    files = {t: (f"berka_slice/{t}.parquet", c) for t, c in BERKA.items()}
    return _build(folder, "berka", files, [CLIENT_TRANS])


def anz(folder: Path | str) -> Path:
    """`transactions`, 12,043 of 100 customers; amounts unsigned, keys of text."""
    return _build(folder, "anz", {t: ("anz/anz_transactions.parquet", c) for t, c in ANZ.items()})


def _build(
    folder: Path | str,
    name: str,
    tables: dict[str, tuple[str, str]],
    views: Iterable[str] = (),
) -> Path:
    """folder/name.db from tables (name to file and declared columns), whole or not at all."""
    path = Path(folder) / f"{name}.db"
    if path.exists():
        return path
    files = {table: data(file) for table, (file, _) in tables.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    _run(partial, [f'CREATE TABLE "{table}" ({c})' for table, (_, c) in tables.items()])
    with dbapi.connect(str(partial)) as connection, connection.cursor() as cursor:
        for table, file in files.items():
            cursor.adbc_ingest(table, _as_sql(pq.read_table(file)), mode="append")
        connection.commit()
    _run(partial, views)
    return partial.replace(path)


def _run(path: Path, statements: Iterable[str]) -> None:
    connection = sqlite3.connect(path)
    try:
        with connection:
            for statement in statements:
                connection.execute(statement)
    finally:
        connection.close()


def _widened(table: pa.Table) -> pa.Table:
    """int8 to int32 as int64: they are narrow only to save room in the files."""
    fields = [
        field.with_type(pa.int64()) if pa.types.is_integer(field.type) else field
        for field in table.schema
    ]
    return table.cast(pa.schema(fields))


def _as_sql(table: pa.Table) -> pa.Table:
    """Moments as 'YYYY-MM-DD HH:MM:SS', dates as 'YYYY-MM-DD': what SQLite users keep."""
    table = _widened(table)
    for index, field in enumerate(table.schema):
        column = table.column(index)
        if pa.types.is_timestamp(field.type):
            text = pc.strftime(column.cast(pa.timestamp("s")), format="%Y-%m-%d %H:%M:%S")
        elif pa.types.is_date(field.type):
            text = pc.strftime(column.cast(pa.timestamp("s")), format="%Y-%m-%d")
        else:
            continue
        table = table.set_column(index, field.name, text)
    return table


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "handbook": handbook,
    "online_retail": online_retail,
    "berka": berka,
    "anz": anz,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.quality.datasets")
    parser.add_argument("name", choices=BUILDERS)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    begun = time.perf_counter()
    try:
        path = BUILDERS[asked.name](asked.folder)
    except DataAbsent as absent:
        parser.exit(1, f"{absent}\n")
    print(f"{path} ({time.perf_counter() - begun:.1f} s)")


if __name__ == "__main__":
    main()
