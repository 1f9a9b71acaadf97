"""Readable pieces of a small bank: rows, tables in any database, settings and a configuration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import sqlalchemy as sa

from shared import config, migrating, runs
from shared.database import engine, parse_url, transaction
from shared.frames import micros
from shared.source import Source
from shared.tables import tables

NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)  # the tests' clock
CLOCK = micros(NOW)
EVER = (micros(datetime(1900, 1, 1, tzinfo=UTC)), micros(datetime(2100, 1, 1, tzinfo=UTC)))
COLUMNS = {
    "tx_id": "BIGINT",
    "ts": "TIMESTAMP",
    "cust": "BIGINT",
    "amt": "NUMERIC(14, 2)",
    "cur": "TEXT",
    "merchant_id": "BIGINT",
    "channel": "TEXT",
    "km": "DOUBLE PRECISION",
}


def a_transaction(tx_id: Any = 1, ts: Any = "2026-03-01 12:00:00", **changes: Any) -> dict:
    """One row of `card_tx`: a payment of 12.00 in a shop, unless said otherwise."""
    usual = {"cust": 7, "amt": 12.0, "cur": "EUR", "merchant_id": 5, "channel": "web", "km": 1.5}
    return {"tx_id": tx_id, "ts": ts, **usual, **changes}


def a_client(client_id: Any = 7, **changes: Any) -> dict:
    """One row of `clients`."""
    usual = {"credit_limit": 1000.0, "product": "basic", "age": 41, "region": "north"}
    return {"client_id": client_id, **usual, **changes}


CLIENT_COLUMNS = {
    "client_id": "BIGINT",
    "credit_limit": "DOUBLE PRECISION",
    "product": "TEXT",
    "age": "BIGINT",
    "region": "TEXT",
}


def quoted(name: str) -> str:
    """An identifier of both databases, whatever is in it."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in name.split("\0"))


def run_sql(url: str, *statements: str) -> None:
    """Runs statements as the owner of the database."""
    made = sa.create_engine(url, poolclass=sa.NullPool)
    with made.begin() as connection:
        for statement in statements:
            connection.exec_driver_sql(
                statement.replace("%", "%%") if "psycopg" in url else statement
            )


def ask(url: str, statement: str) -> list[tuple]:
    """All rows of a query, as the owner of the database."""
    made = sa.create_engine(url, poolclass=sa.NullPool)
    with made.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(statement))]


def make_table(
    url: str, name: str, columns: Mapping[str, str], rows: Iterable[Mapping[str, Any]]
) -> None:
    """A table of the user's with these rows; `name` may be "schema\\0table"."""
    declared = ", ".join(f"{quoted(column)} {kind}" for column, kind in columns.items())
    run_sql(url, f"CREATE TABLE {quoted(name)} ({declared})")
    add_rows(url, name, list(columns), rows)


def add_rows(url: str, name: str, columns: list[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """More rows of a table; the driver casts on PostgreSQL, SQLite keeps what it is given."""
    values = [[row.get(column) for column in columns] for row in rows]
    if not values:
        return
    connection = sa.create_engine(url, poolclass=sa.NullPool).raw_connection()
    mark = "?" if url.startswith("sqlite") else "%s"
    names = ", ".join(
        quoted(column).replace("%", "%%" if mark == "%s" else "%") for column in columns
    )
    table = quoted(name).replace("%", "%%" if mark == "%s" else "%")
    marks = ", ".join([mark] * len(columns))
    cursor = connection.cursor()
    cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({marks})", values)
    connection.commit()
    connection.close()


def a_bank(
    url: str,
    transactions: Iterable[Mapping[str, Any]] = (),
    clients: Iterable[Mapping[str, Any]] | None = None,
    **types: str,
) -> None:
    """`card_tx`, and `clients` where they are given; `types` changes declared types."""
    make_table(url, "card_tx", COLUMNS | types, transactions)
    if clients is not None:
        make_table(url, "clients", CLIENT_COLUMNS, clients)


MAPPED = {
    "table": "card_tx",
    "id": "tx_id",
    "time": "ts",
    "customer": "cust",
    "amount": "amt",
    "currency": "cur",
    "counterparty": "merchant_id",
    "categories": ("channel",),
    "numbers": ("km",),
}
CLIENTS = config.Customers(
    "clients",
    "client_id",
    numbers=("credit_limit",),
    categories=("product",),
    descriptors=("age", "region"),
)


def a_source(
    url: str, zone: str = "UTC", customers: config.Customers | None = None, **mapped: Any
) -> Source:
    """The bank's source, not yet open; a mapping of None takes the column out."""
    known = {key: value for key, value in (MAPPED | mapped).items() if value is not None}
    settings = config.Source(
        url, zone, transactions=config.Transactions(**known), customers=customers
    )
    return Source(settings)


def a_batch(url: str, **options: Any) -> Any:
    """Everything in the bank, read once through the gate."""
    with a_source(url, **options) as source:
        return source.read(*EVER, CLOCK)


def undated(url: str, **options: Any) -> pd.DataFrame:
    """The refusals of the bank's rows that have no usable time."""
    with a_source(url, **options) as source:
        return source.undated(CLOCK)


def toml(url: str, more: str = "", transactions: str = "", source: str = "") -> str:
    """The bank's configuration; further lines for a section, and further sections."""
    return f"""
[source]
url = "{url}"
{source}

[source.transactions]
table = "card_tx"
id = "tx_id"
time = "ts"
customer = "cust"
amount = "amt"
currency = "cur"
counterparty = "merchant_id"
categories = ["channel"]
numbers = ["km"]
{transactions}

{more}
"""


def make_results(url: str, kinds: Mapping[str, str] | None = None) -> runs.Results:
    """The result tables, newest version, beside the bank."""
    parsed = parse_url(url)
    schema = "peerwatch" if parsed.get_backend_name() == "postgresql" else None
    chosen = {"transaction": "integer", "customer": "integer", "counterparty": "integer"}
    target = migrating.Target(schema, "", dict(kinds or chosen))
    with transaction(engine(parsed)) as connection:
        migrating.upgrade(connection, target)
    return runs.Results(engine(parsed), target, tables(target.kinds, schema, ""))


def a_run(
    source: Source, results: runs.Results, run_id: str = "run-1", clock: datetime = NOW
) -> runs.Run:
    """A run of a job over an open source."""
    settings = config.Configuration(
        Path("peerwatch.toml"), source.settings, config.Results(), {}, {}
    )
    return runs.Run(run_id, "fraudwatch.score", clock, settings, results, source)
