"""The proposed mapping, on real databases of the shapes that users have."""

from __future__ import annotations

import dataclasses
import re
import sqlite3
import tomllib
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from shared import mapping
from shared.config import Configuration, Customers, Transactions, parse
from shared.database import engine, parse_url
from shared.errors import ConfigurationError
from shared.looks import Column, Look, look, read_times
from shared.mapping import Proposal, propose
from shared.source import Source
from shared.synthetic import SQL_TYPES, world
from shared.template import PASSWORD_VARIABLE, to_toml, without_password
from tests.builders import ask, run_sql

START = datetime(2024, 1, 1)
URL = "sqlite:///bank.db"


def a_database(path: Path, *statements: str, rows: dict[str, Sequence[Sequence[object]]]) -> str:
    """The URL of an SQLite file made by the statements; rows are inserted before the views."""
    with sqlite3.connect(path / "bank.db") as connection:
        for statement in [s for s in statements if "CREATE VIEW" not in s]:
            connection.execute(statement)
        for table, values in rows.items():
            marks = ", ".join("?" * len(values[0]))
            connection.executemany(f'INSERT INTO "{table}" VALUES ({marks})', values)
        for statement in [s for s in statements if "CREATE VIEW" in s]:
            connection.execute(statement)
    connection.close()
    return f"sqlite:///{path / 'bank.db'}"


def looks_of(url: str) -> list[Look]:
    with engine(parse_url(url), read_only=True).connect() as connection:
        return look(connection)


def proposed(url: str) -> Proposal:
    return propose(looks_of(url))


def read_back(text: str, **environment: str) -> Configuration:
    return parse(tomllib.loads(text), Path("peerwatch.toml"), environment)


def moments(rows: int, form: str = "%Y-%m-%d %H:%M:%S") -> list[str]:
    return [
        (START + timedelta(hours=5 * row, seconds=7 * row)).strftime(form) for row in range(rows)
    ]


def left_out(proposal: Proposal) -> dict[str, str]:
    return {item.column: item.reason for item in proposal.left_out}


def payments(rows: int = 300, **columns: Sequence[object]) -> list[tuple[object, ...]]:
    """(id, time, customer, amount) and further columns, in order of time."""
    draw = np.random.default_rng(0)
    base = [range(1, rows + 1), moments(rows), draw.integers(1, 40, rows).tolist()]
    return list(
        zip(*base, draw.gamma(2, 20, rows).round(2).tolist(), *columns.values(), strict=True)
    )


PAYMENTS = (
    "CREATE TABLE payments (pay_id INTEGER PRIMARY KEY, paid_at TEXT, client_id INT, amt REAL"
)


# --- the shapes of the development data --------------------------------------------------------


@pytest.fixture
def handbook(tmp_path: Path) -> str:
    draw = np.random.default_rng(1)
    rows = 4_000
    seconds = np.sort(draw.integers(0, 30 * 86_400, rows))
    fraud = (draw.random(rows) < 0.02).astype(int)
    table = list(
        zip(
            range(rows),
            [str(START + timedelta(seconds=int(second))) for second in seconds],
            draw.integers(0, 300, rows).tolist(),
            draw.integers(0, 900, rows).tolist(),
            draw.gamma(2, 25, rows).round(2).tolist(),
            seconds.tolist(),
            (seconds // 86_400).tolist(),
            fraud.tolist(),
            (fraud * draw.integers(1, 4, rows)).tolist(),
            strict=True,
        )
    )
    statement = """CREATE TABLE transactions (TRANSACTION_ID INTEGER PRIMARY KEY,
        TX_DATETIME DATETIME, CUSTOMER_ID INTEGER, TERMINAL_ID INTEGER, TX_AMOUNT REAL,
        TX_TIME_SECONDS INTEGER, TX_TIME_DAYS INTEGER, TX_FRAUD INTEGER,
        TX_FRAUD_SCENARIO INTEGER)"""
    return a_database(tmp_path, statement, rows={"transactions": table})


def test_the_handbook_is_mapped_as_its_authors_read_it(handbook):
    proposal = proposed(handbook)

    assert proposal.transactions == Transactions(
        "transactions",
        "TRANSACTION_ID",
        "TX_DATETIME",
        "%Y-%m-%d %H:%M:%S",
        customer="CUSTOMER_ID",
        amount="TX_AMOUNT",
        counterparty="TERMINAL_ID",
        label="TX_FRAUD",
        label_kind="TX_FRAUD_SCENARIO",
    )
    assert proposal.customers is None
    assert left_out(proposal) == dict.fromkeys(
        ["TX_TIME_SECONDS", "TX_TIME_DAYS"], "only counts up with time"
    )


def test_the_demo_world_is_mapped_in_spite_of_its_planted_defects(tmp_path):
    made = world(0, customers=200, days=60)
    with sqlite3.connect(tmp_path / "bank.db") as connection:
        for table, types in SQL_TYPES.items():
            columns = ", ".join(f"{name} {kind}" for name, kind in types.items())
            connection.execute(f"CREATE TABLE {table} ({columns})")
            getattr(made, table).to_sql(table, connection, if_exists="append", index=False)
    connection.close()

    proposal = proposed(f"sqlite:///{tmp_path / 'bank.db'}")

    assert proposal.transactions == Transactions(
        "transactions",
        "tx_id",
        "booked_at",
        "%Y-%m-%d %H:%M:%S",
        customer="client_id",
        amount="amount",
        currency="currency",
        counterparty="merchant_id",
        entities=("card_id",),
        categories=("channel", "country", "category"),
    )
    assert proposal.customers == Customers(
        "customers", "client_id", ("credit_limit",), ("product",), ("age", "region")
    )
    ids = made.transactions["tx_id"]
    told = f"tx_id: {len(ids):,} rows have {ids.nunique():,} different ids"
    assert any(told in note for note in proposal.notes)


def test_a_view_that_gives_an_id_wins_over_lines_without_one(tmp_path):
    draw = np.random.default_rng(2)
    rows = 2_500
    invoice = np.sort(draw.integers(0, 400, rows))
    lines = [
        (
            f"{536_365 + number}",
            f"{draw.integers(10_000, 11_500)}A",
            int(draw.integers(1, 9)),
            str(START + timedelta(hours=int(number))),
            2.5,
            17_000 + int(number) % 90,
            "France" if number % 7 else "Spain",
        )
        for number in invoice
    ]
    url = a_database(
        tmp_path,
        "CREATE TABLE invoice_lines (InvoiceNo TEXT, StockCode TEXT, Quantity INTEGER, "
        "InvoiceDate DATETIME, UnitPrice REAL, CustomerID INTEGER, Country TEXT)",
        "CREATE VIEW purchases AS SELECT rowid AS line_id, InvoiceDate AS moment, CustomerID AS "
        "customer, InvoiceNo AS invoice, StockCode AS stock_code, Country AS country, "
        "CAST(Quantity * UnitPrice AS REAL) AS amount FROM invoice_lines",
        rows={"invoice_lines": lines},
    )

    proposal = proposed(url)

    assert proposal.transactions == Transactions(
        "purchases",
        "line_id",
        "moment",
        "%Y-%m-%d %H:%M:%S",
        customer="customer",
        amount="amount",
        order="invoice",
        categories=("country",),
    )
    assert "too many values" in left_out(proposal)["stock_code"]


def test_a_view_that_gives_the_client_wins_over_the_table_of_accounts(tmp_path):
    draw = np.random.default_rng(3)
    trans = [
        (
            row,
            int(draw.integers(1, 60)),
            (START + timedelta(days=row // 20)).strftime("%Y-%m-%d"),
            str(draw.choice(["PRIJEM", "VYDAJ", "VYBER"])),
            float(draw.integers(10, 9_000)),
            str(draw.choice(["ST", "OP", "GH"])),
        )
        for row in range(1_500)
    ]
    people = [(row, f"{450_000 + row}", row % 9, "FM"[row % 2]) for row in range(1, 80)]
    url = a_database(
        tmp_path,
        "CREATE TABLE client (client_id INTEGER PRIMARY KEY, birth_number TEXT, "
        "district_id INTEGER, gender TEXT)",
        "CREATE TABLE disp (disp_id INTEGER PRIMARY KEY, client_id INTEGER REFERENCES client, "
        "account_id INTEGER)",
        "CREATE TABLE trans (trans_id INTEGER PRIMARY KEY, account_id INTEGER, date DATE, "
        "type TEXT, amount NUMERIC(12, 2), bank TEXT)",
        "CREATE VIEW client_trans AS SELECT trans_id, date, disp.client_id, trans.account_id, "
        "CAST(CASE type WHEN 'PRIJEM' THEN amount ELSE -amount END AS REAL) AS amount, type, bank "
        "FROM trans JOIN disp ON disp.account_id = trans.account_id",
        rows={"client": people, "disp": [(r, r, r) for r in range(1, 61)], "trans": trans},
    )

    proposal = proposed(url)

    assert proposal.transactions == Transactions(
        "client_trans",
        "trans_id",
        "date",
        "%Y-%m-%d",
        customer="client_id",
        amount="amount",
        categories=("type", "bank"),
    )
    assert proposal.customers == Customers("client", "client_id", descriptors=("gender",))
    assert "birth_number" in left_out(proposal)
    assert any("could also be trans" in note for note in proposal.notes)


@pytest.mark.parametrize(
    ("texts", "said"),
    [(("12,54", "7,5"), "text"), (("48.2, 16.4", "48.1, 16.3"), "coordinates")],
    ids=["decimal commas", "places"],
)
def test_an_amount_with_a_decimal_comma_is_no_place(texts, said):
    column = Column("where_or_how_much", "text", texts)

    assert (mapping._place(None, column) != "") == (said == "coordinates")


def test_persons_places_and_second_times_play_no_role_in_a_payment(tmp_path):
    draw = np.random.default_rng(4)
    rows = [
        (
            f"a{row:031x}",
            f"CUS-{row % 50}",
            f"ACC-{row % 50}",
            "AUD",
            "153.41 -27.95" if row % 2 else "151.2 -33.9",
            str(draw.choice(["POS", "SALES-POS", "PAYMENT"])),
            f"m-{draw.integers(0, 400)}",
            "Diana" if row % 2 else "Michael",
            float(draw.integers(5, 9_000)),
            time[:10],
            "FM"[row % 2],
            20 + row % 50,
            time,
            float(draw.gamma(2, 20)),
            "debit" if draw.random() < 0.9 else "credit",
        )
        for row, time in enumerate(moments(1_200))
    ]
    url = a_database(
        tmp_path,
        "CREATE TABLE transactions (transaction_id TEXT PRIMARY KEY, customer_id TEXT, "
        "account TEXT, currency TEXT, long_lat TEXT, txn_description TEXT, merchant_id TEXT, "
        "first_name TEXT, balance NUMERIC, date DATE, gender TEXT, age INTEGER, "
        "extraction DATETIME, amount NUMERIC, movement TEXT)",
        rows={"transactions": rows},
    )

    proposal = proposed(url)

    assert proposal.transactions == Transactions(
        "transactions",
        "transaction_id",
        "extraction",
        "%Y-%m-%d %H:%M:%S",
        customer="customer_id",
        amount="amount",
        currency="currency",
        counterparty="merchant_id",
        categories=("txn_description", "movement"),
        numbers=("balance",),
    )
    assert set(left_out(proposal)) == {"account", "long_lat", "first_name", "date", "gender", "age"}
    assert left_out(proposal)["account"] == "it names the same as customer_id"
    assert any("never negative" in note for note in proposal.notes)
    assert any("could also be date" in note for note in proposal.notes)


# --- what is refused, left out or said ---------------------------------------------------------


def test_the_proposal_can_be_read_by_the_source(handbook):
    settings = read_back(to_toml(proposed(handbook), handbook))

    with Source(settings.source) as source:
        batch = source.read(0, 2**52, 2**52)

    assert len(batch.rows) == 4_000
    assert batch.refused.empty


def test_a_composite_key_is_refused_with_the_view_that_mends_it(tmp_path):
    rows = [(row // 3, row % 3, *values[1:]) for row, values in enumerate(payments())]
    url = a_database(
        tmp_path,
        "CREATE TABLE payments (doc INTEGER, line INTEGER, paid_at TEXT, client_id INT, amt REAL, "
        "PRIMARY KEY (doc, line))",
        rows={"payments": rows},
    )

    proposal = proposed(url)

    assert proposal.transactions is None
    (refusal,) = proposal.refusals
    with pytest.raises(ConfigurationError, match="doc, line"):
        to_toml(proposal, url)
    run_sql(url, "CREATE VIEW" + refusal.partition("CREATE VIEW")[2])
    mended = proposed(url)
    assert mended.transactions is not None
    assert (mended.transactions.table, mended.transactions.id) == (
        "payments_peerwatch",
        "transaction_key",
    )


def test_a_table_without_any_key_is_refused_with_a_view_over_its_rowid(tmp_path):
    rows = [(row % 7, *values[1:]) for row, values in enumerate(payments())]
    statement = "CREATE TABLE payments (till INT, paid_at TEXT, client_id INT, amt REAL)"

    (refusal,) = proposed(a_database(tmp_path, statement, rows={"payments": rows})).refusals

    assert "t.rowid AS transaction_key" in refusal


def a_lender(tmp_path: Path, amounts: Sequence[object]) -> str:
    """A bank that speaks German: fraud flags reported weeks later, keys with leading zeros."""
    draw = np.random.default_rng(2)
    fraud = (draw.random(300) < 0.05).astype(int).tolist()
    reported = ["17.03.2026 08:00" if flag else None for flag in fraud]
    devices = [f"g-{number}" for number in draw.integers(1, 80, 300)]
    table = list(
        zip(
            range(1, 301), moments(300, "%d.%m.%Y %H:%M"), draw.integers(1, 40, 300).tolist(),
            amounts, devices, fraud, reported, strict=True,
        )
    )  # fmt: skip
    people = [(f"{row:06}", 1950 + row, "Köln", 500 * (1 + row % 4)) for row in range(1, 60)]
    return a_database(
        tmp_path,
        'CREATE TABLE Buchungen (BuchungsNr INTEGER, BuchungsZeit TEXT, "Kunden Nr" INT, '
        f"Betrag {'TEXT' if isinstance(amounts[0], str) else 'REAL'}, geraetId TEXT, "
        "betrugKz INT, betrugGemeldetAm TEXT)",
        "CREATE TABLE Kunden (KundenNr TEXT, GebJahr INT, Ort TEXT, Kreditrahmen INT)",
        rows={"Buchungen": table, "Kunden": people},
    )


def test_a_bank_that_speaks_german_is_mapped_and_its_flags_are_labels(tmp_path):
    url = a_lender(tmp_path, np.linspace(1, 90, 300).round(2).tolist())

    proposal = proposed(url)

    (refusal,) = proposal.refusals
    assert "Kunden.KundenNr is text, but Buchungen.Kunden Nr is integer" in refusal
    run_sql(url, "CREATE VIEW" + refusal.partition("CREATE VIEW")[2])
    mended = proposed(url)
    found, people = mended.transactions, mended.customers
    assert found is not None and people is not None and not mended.refusals
    assert (found.label, found.label_time) == ("betrugKz", "betrugGemeldetAm")
    assert found.entities == ("geraetId",) and not found.categories and not found.numbers
    assert people.numbers == ("Kreditrahmen",) and not people.categories


def test_an_amount_written_as_text_is_told_with_the_view_that_gives_it(tmp_path):
    texts = [f"{value:.2f}".replace(".", ",") for value in np.linspace(1, 90, 300)]
    url = a_lender(tmp_path, texts)

    with pytest.raises(ConfigurationError, match="Betrag is one in text; make a view") as caught:
        proposed(url)

    run_sql(url, re.search(r"CREATE VIEW .* t(?=\))", str(caught.value))[0])
    assert ask(url, 'SELECT max(amount) FROM "Buchungen_peerwatch"') == [(90.0,)]


def test_a_customer_key_of_another_type_is_refused_with_the_view_that_mends_it(tmp_path):
    url = a_database(
        tmp_path,
        f"{PAYMENTS})",
        "CREATE TABLE clients (client_id TEXT PRIMARY KEY, plan TEXT)",
        rows={"payments": payments(), "clients": [(str(r), "ab"[r % 2]) for r in range(1, 60)]},
    )

    proposal = proposed(url)

    (refusal,) = proposal.refusals
    assert "clients.client_id is text, but payments.client_id is integer" in refusal
    run_sql(url, "CREATE VIEW" + refusal.partition("CREATE VIEW")[2])
    mended = proposed(url)
    assert not mended.refusals
    assert mended.customers is not None
    assert (mended.customers.table, mended.customers.id) == ("customers_peerwatch", "customer_key")


def test_customers_without_transactions_stay_customers(tmp_path):
    people = [(row, 20 + row % 60, "north" if row % 3 else "south") for row in range(1, 500)]
    url = a_database(
        tmp_path,
        f"{PAYMENTS})",
        "CREATE TABLE clients (id INTEGER PRIMARY KEY, age INTEGER, region TEXT)",
        rows={"payments": payments(), "clients": people},
    )

    assert proposed(url).customers == Customers("clients", "id", descriptors=("age", "region"))


HISTORY = (
    "CREATE TABLE client_versions (row_id INTEGER PRIMARY KEY, client_id INT, age INTEGER, "
    "credit_limit REAL, valid_from TEXT, valid_to TEXT)"
)


def versions(open_end: str | None, rows: int = 120) -> list[tuple[object, ...]]:
    """Three rows of each of the first clients, one after the other."""
    days = ["2023-01-01", "2023-09-15", "2024-02-29", open_end]
    return [
        (row, 1 + row // 3, 20 + row % 50, 100.0 * (row % 7), days[row % 3], days[row % 3 + 1])
        for row in range(rows)
    ]


@pytest.mark.parametrize("open_end", [None, "9999-12-31"])
def test_a_table_of_customers_with_a_history_gives_its_periods(tmp_path, open_end):
    rows = {"payments": payments(), "client_versions": versions(open_end)}
    url = a_database(tmp_path, f"{PAYMENTS})", HISTORY, rows=rows)

    proposal = proposed(url)

    assert proposal.customers == Customers(
        "client_versions", "client_id", numbers=("credit_limit",), descriptors=("age",),
        valid_from="valid_from", valid_to="valid_to",
    )  # fmt: skip
    reasons = {guess.key.removeprefix("source.customers."): guess for guess in proposal.guesses}
    assert reasons["table"].reason == "120 rows, the history of each client_id"
    assert reasons["valid_to"].reason == "never before valid_from; 33% are open, as of now"
    assert read_back(to_toml(proposal, url)).source.customers == proposal.customers


def test_one_row_per_customer_comes_before_a_history(tmp_path):
    people = [(row, 20 + row % 60) for row in range(1, 200)]
    rows = {"payments": payments(), "client_versions": versions(None), "clients": people}
    clients = "CREATE TABLE clients (client_id INTEGER PRIMARY KEY, age INTEGER)"
    url = a_database(tmp_path, f"{PAYMENTS})", HISTORY, clients, rows=rows)

    proposal = proposed(url)

    assert proposal.customers == Customers("clients", "client_id", descriptors=("age",))
    (table,) = [guess for guess in proposal.guesses if guess.key == "source.customers.table"]
    assert table.alternatives == ("client_versions (id client_id, with its history)",)


def test_periods_that_overlap_are_no_history(tmp_path):
    rows = [(*row[:4], "2023-01-01", None) for row in versions(None)]
    url = a_database(
        tmp_path, f"{PAYMENTS})", HISTORY, rows={"payments": payments(), "client_versions": rows}
    )

    proposal = proposed(url)

    assert proposal.customers is None or proposal.customers.valid_from is None


@pytest.mark.parametrize("open_end", [None, "9999-12-31"])
def test_a_history_is_known_by_its_values_where_its_names_say_nothing(tmp_path, open_end):
    named = HISTORY.replace("valid_from", "seit").replace("valid_to", "bis")
    rows = {"payments": payments(), "client_versions": versions(open_end)}

    customers = proposed(a_database(tmp_path, f"{PAYMENTS})", named, rows=rows)).customers

    assert customers is not None
    assert (customers.valid_from, customers.valid_to) == ("seit", "bis")


def test_periods_with_gaps_need_names_that_say_so(tmp_path):
    """Two times of which one follows the other are not enough: an order is paid, then sent."""
    named = HISTORY.replace("valid_from", "seit").replace("valid_to", "bis")
    ends = ["2023-03-01", "2023-10-01", "2024-03-05"]
    rows = [(*row[:5], ends[at % 3]) for at, row in enumerate(versions(None))]
    url = a_database(
        tmp_path, f"{PAYMENTS})", named, rows={"payments": payments(), "client_versions": rows}
    )

    proposal = proposed(url)

    assert proposal.customers is None
    (said,) = [note for note in proposal.notes if "client_versions" in note]
    assert "several rows for one client_id" in said
    assert "valid_from and valid_to" in said
    assert f"# note: {said}" in to_toml(proposal, url)


def arrivals(*delays: float) -> list[str]:
    """For each payment a moment so many hours after its own, one delay after the other."""
    taken = (delays[at % len(delays)] for at in range(300))
    times = (datetime.fromisoformat(text) for text in moments(300))
    return [str(at + timedelta(hours=delay)) for at, delay in zip(times, taken, strict=True)]


@pytest.mark.parametrize("name", ["inserted_at", "created_at", "loadedAt", "_ingested"])
def test_a_column_that_tells_when_rows_came_is_proposed_with_its_reason(tmp_path, name):
    rows = payments(came=arrivals(0.5, 2, 30))
    url = a_database(tmp_path, f'{PAYMENTS}, "{name}" TEXT)', rows={"payments": rows})

    proposal = proposed(url)

    assert proposal.transactions is not None
    assert (proposal.transactions.time, proposal.transactions.arrived_at) == ("paid_at", name)
    (guess,) = [g for g in proposal.guesses if g.key == "source.transactions.arrived_at"]
    assert "by 0 days 02:00:00 in the middle" in guess.reason
    text = to_toml(proposal, url)
    assert read_back(text).source.transactions == proposal.transactions


@pytest.mark.parametrize(
    ("name", "delays"),
    [
        ("created_at", (0,)),  # a copy of the time: it would find no late row
        ("inserted_at", (-3, 2)),  # before the time: no arrival
        ("shipped_at", (0.5, 2, 30)),
        ("updated_at", (0.5, 2, 30)),
    ],
)
def test_another_time_that_is_no_arrival_is_left_out(tmp_path, name, delays):
    rows = payments(came=arrivals(*delays))
    url = a_database(tmp_path, f"{PAYMENTS}, {name} TEXT)", rows={"payments": rows})

    proposal = proposed(url)

    assert proposal.transactions is not None
    assert proposal.transactions.arrived_at is None
    assert "a second time" in left_out(proposal)[name]


def test_customers_alone_are_no_transactions(tmp_path):
    people = [(row, time, 100.0 * row) for row, time in enumerate(moments(50))]
    url = a_database(
        tmp_path,
        "CREATE TABLE customers (customer_id INTEGER PRIMARY KEY, since TEXT, credit_limit REAL)",
        rows={"customers": people},
    )

    with pytest.raises(ConfigurationError, match=r"customers \(one row per customer"):
        proposed(url)


def test_an_empty_database_says_what_is_needed(sqlite_url):
    with pytest.raises(ConfigurationError, match=r"no tables or views.*an id .*a time.*amount"):
        proposed(sqlite_url)


def test_one_row_is_enough_to_see_the_roles(tmp_path):
    proposal = proposed(a_database(tmp_path, f"{PAYMENTS})", rows={"payments": payments(1)}))

    assert proposal.transactions == Transactions(
        "payments", "pay_id", "paid_at", "%Y-%m-%d %H:%M:%S", customer="client_id", amount="amt"
    )


def test_an_empty_table_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"payments \(no rows\)"):
        proposed(a_database(tmp_path, f"{PAYMENTS})", rows={}))


@pytest.mark.parametrize(("factor", "said"), [(1_000, "milliseconds"), (1_000_000, "microseconds")])
def test_times_that_cannot_be_read_as_seconds_are_named(tmp_path, factor, said):
    rows = [(i, (1_700_000_000 + 60 * i) * factor, c, a) for i, _, c, a in payments()]
    statement = (
        "CREATE TABLE payments (pay_id INTEGER PRIMARY KEY, ts INT, client_id INT, amt REAL)"
    )

    with pytest.raises(ConfigurationError, match=f"ts may be its time, but it counts {said}"):
        proposed(a_database(tmp_path, statement, rows={"payments": rows}))


def test_of_two_tables_alike_the_one_with_more_rows_is_taken_and_the_other_named(tmp_path):
    url = a_database(
        tmp_path,
        f"{PAYMENTS})",
        f"{PAYMENTS.replace('payments', 'orders').replace('pay_id', 'order_id')})",
        rows={"payments": payments(200), "orders": payments(900)},
    )

    proposal = proposed(url)

    assert proposal.transactions is not None
    assert proposal.transactions.table == "orders"
    assert any("could also be payments" in note for note in proposal.notes)


def test_what_the_label_says_in_other_words_never_reaches_the_density(tmp_path):
    fraud = [int(row % 20 == 0) for row in range(300)]
    rows = payments(
        fraud=fraud,
        reason=["stolen" if one else "none" for one in fraud],
        risk_score=[row % 37 for row in range(300)],
        channel=["web" if row % 3 else "pos" for row in range(300)],
    )
    url = a_database(
        tmp_path,
        f"{PAYMENTS}, is_fraud INT, outcome TEXT, risk_score INT, channel TEXT)",
        rows={"payments": rows},
    )

    proposal = proposed(url)

    assert proposal.transactions is not None
    assert proposal.transactions.label == "is_fraud"
    assert (proposal.transactions.categories, proposal.transactions.numbers) == (("channel",), ())
    assert "in other words" in left_out(proposal)["outcome"]
    assert proposal.transactions.baseline_score == "risk_score"


def a_bank_with(path: Path, rows: int = 600, **columns: Sequence[object]) -> Proposal:
    """What is proposed for payments with these further columns, named and typed by their values."""
    kinds = {int: "INTEGER", float: "REAL", str: "TEXT"}
    found = {
        name: kinds[next(type(value) for value in values if value is not None)]  # type: ignore[index]
        for name, values in columns.items()
    }
    declared = "".join(f", {name} {kind}" for name, kind in found.items())
    url = a_database(path, f"{PAYMENTS}{declared})", rows={"payments": payments(rows, **columns)})
    return proposed(url)


def keys(rows: int, levels: int, form: str = "K{:06d}") -> list[str]:
    draw = np.random.default_rng(levels)
    return [form.format(level) for level in draw.integers(0, levels, rows).tolist()]


@pytest.mark.parametrize(
    "name",
    ["card_id", "CardNumber", "device_id", "DEVICE_FINGERPRINT", "account_no", "ip_address", "iban",
     "wallet_token", "terminal_id"],
)  # fmt: skip
def test_keys_of_cards_devices_and_accounts_are_entities(tmp_path, name):
    proposal = a_bank_with(tmp_path, **{name: keys(600, 150)})

    assert proposal.transactions is not None
    mapped = proposal.transactions
    assert (*mapped.entities, mapped.counterparty) in {(name, None), (name,)}


def test_an_entity_is_proposed_with_its_reason_and_the_shape_of_its_keys(tmp_path):
    devices = keys(600, 150, "dev-{:05d}")

    proposal = a_bank_with(tmp_path, device_id=devices, ip=keys(600, 90, "10.0.0.{}"))

    guesses = {guess.column: guess for guess in proposal.guesses if guess.key.endswith("entities")}
    assert list(guesses) == ["device_id", "ip"]
    assert "beside the customer's; " in guesses["device_id"].reason
    assert f"{len(set(devices))} values in 600 rows" in guesses["device_id"].reason
    assert guesses["device_id"].sample == ("aaa-99999",)
    text = to_toml(proposal, URL)
    assert '    "device_id",  # a key of its own' in text
    assert not any(device in text for device in devices)
    assert read_back(text).source.transactions.entities == ("device_id", "ip")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("device", ["ios", "android", "web"] * 200),  # a kind of device
        ("card_type", keys(600, 30)),
        ("account_age", list(range(600))),
        ("device_session", keys(600, 10**6)),
        ("device_id", [f"d{row}" for row in range(600)]),
        ("card_limit", [float(row % 40) for row in range(600)]),
    ],
)
def test_what_is_about_a_card_or_a_device_is_no_entity(tmp_path, name, values):
    proposal = a_bank_with(tmp_path, **{name: values})

    assert proposal.transactions is not None
    assert proposal.transactions.entities == ()


def test_an_account_of_each_customer_is_the_customer_again(tmp_path):
    clients = [row[2] for row in payments(600)]
    accounts = [f"A{client}" for client in clients]
    cards = [f"C{client}-{row % 7 == 0}" for row, client in enumerate(clients)]

    proposal = a_bank_with(tmp_path, account=accounts, card=cards, contract=cards)

    assert proposal.transactions is not None
    assert proposal.transactions.entities == ("card",)
    assert left_out(proposal)["account"] == "it names the same as client_id"
    assert "name it in entities" in left_out(proposal)["contract"]


@pytest.mark.parametrize(
    ("name", "values", "taken"),
    [
        ("rule_score", [row % 37 for row in range(600)], True),
        ("FraudScore", [row / 600 for row in range(600)], True),
        ("fraud_probability", [row / 600 for row in range(600)], True),
        ("risk", [row % 5 for row in range(600)], True),
        ("credit_score", [300 + row % 400 for row in range(600)], False),
        ("flagged", [row % 2 for row in range(600)], False),
        ("risk_class", [row % 5 for row in range(600)], False),
        ("risk_score", ["high", "low", "none"] * 200, False),
    ],
)
def test_the_score_of_another_system_is_set_beside_ours_and_kept_from_the_density(
    tmp_path, name, values, taken
):
    proposal = a_bank_with(tmp_path, **{name: values})

    mapped = proposal.transactions
    assert mapped is not None
    assert (mapped.baseline_score == name) is taken
    assert taken is not (name in (*mapped.numbers, *mapped.categories, *left_out(proposal)))


def test_of_two_scores_the_one_about_fraud_is_taken_and_the_other_named(tmp_path):
    scores = [row % 37 for row in range(600)]

    proposal = a_bank_with(tmp_path, score=scores, fraud_score=scores[::-1])

    assert proposal.transactions is not None
    assert proposal.transactions.baseline_score == "fraud_score"
    assert any("it could also be score" in note for note in proposal.notes)
    assert "another system's opinion" in left_out(proposal)["score"]


@pytest.mark.parametrize(
    ("form", "taken"), [("%Y-%m-%d", True), ("%d/%m/%Y", False), ("%Y-%m-%d %H:%M:%S", True)]
)
def test_a_label_time_is_taken_only_where_it_can_be_read(tmp_path, form, taken):
    fraud = [int(row % 20 == 0) for row in range(600)]
    known = [
        (START + timedelta(days=row)).strftime(form) if one else None
        for row, one in enumerate(fraud)
    ]

    proposal = a_bank_with(tmp_path, is_fraud=fraud, chargeback_at=known)

    assert proposal.transactions is not None
    assert proposal.transactions.label == "is_fraud"
    assert (proposal.transactions.label_time == "chargeback_at") is taken


def test_codes_are_categories_and_measures_are_numbers(tmp_path):
    draw = np.random.default_rng(5)
    rows = payments(
        mcc=draw.choice([5411, 5812, 5999, 4111], 300).tolist(),
        quantity=draw.integers(1, 9, 300).tolist(),
        entry=draw.integers(0, 4, 300).tolist(),
        distance=draw.gamma(2, 3, 300).tolist(),
        email=[f"u{row}@example.org" for row in range(300)],
        note=[f"free text {row}" for row in range(300)],
        gone=[None] * 300,
    )
    url = a_database(
        tmp_path,
        f"{PAYMENTS}, mcc INT, quantity INT, mode INT, distance_km REAL, contact TEXT, memo TEXT, "
        "gone TEXT)",
        rows={"payments": rows},
    )

    proposal = proposed(url)

    assert proposal.transactions is not None
    assert proposal.transactions.categories == ("mcc", "mode")
    assert proposal.transactions.numbers == ("quantity", "distance_km")
    assert left_out(proposal)["contact"] == "personal data"
    assert set(left_out(proposal)) == {"contact", "memo", "gone"}


def test_ids_and_customers_are_shown_by_their_shape_only(tmp_path):
    rows = [(f"TX{i:05d}", t, f"Q{c:03d}X", a) for i, t, c, a in payments()]
    statement = "CREATE TABLE payments (pay_id TEXT PRIMARY KEY, at TEXT, client TEXT, amt REAL)"
    url = a_database(tmp_path, statement, rows={"payments": rows})

    text = to_toml(proposed(url), url)

    assert "aa99999" in text
    assert "a999a" in text
    assert not any(str(row[0]) in text or str(row[2]) in text for row in rows)


def test_our_own_tables_and_skipped_ones_are_not_looked_at(tmp_path):
    url = a_database(
        tmp_path,
        f"{PAYMENTS})",
        f"{PAYMENTS.replace('payments', 'transaction_scores')})",
        f"{PAYMENTS.replace('payments', 'mine')})",
        rows={"payments": payments()},
    )

    with engine(parse_url(url), read_only=True).connect() as connection:
        found = look(connection, skip=["mine"])

    assert [item.table for item in found] == ["payments"]


def test_a_broken_view_does_not_hide_the_other_tables(tmp_path):
    url = a_database(
        tmp_path,
        f"{PAYMENTS})",
        "CREATE TABLE gone (x INT)",
        "CREATE VIEW broken AS SELECT x FROM gone",
        rows={"payments": payments()},
    )
    with sqlite3.connect(tmp_path / "bank.db") as connection:
        connection.execute("DROP TABLE gone")
    connection.close()

    assert [item.table for item in looks_of(url)] == ["payments"]


def test_the_sample_is_spread_over_the_table_and_holds_no_row_twice(tmp_path):
    rows = [(i * i, *values) for i, *values in payments(6_000)]
    url = a_database(tmp_path, f"{PAYMENTS})", rows={"payments": rows})

    (seen,) = looks_of(url)

    ids = [value for value in seen.columns[0].values if value is not None]
    assert seen.rows == 6_000
    assert len(ids) == len(set(ids)) <= 2_000
    assert min(ids) < 6_000**2 * 0.01
    assert max(ids) > 6_000**2 * 0.9


def test_postgresql_is_looked_at_in_all_its_schemas(postgresql_url):
    made = sa.create_engine(postgresql_url, poolclass=sa.NullPool)
    with made.begin() as connection:
        for statement in (
            "CREATE SCHEMA bank",
            "CREATE SCHEMA peerwatch",
            "CREATE TABLE peerwatch.payments (id int primary key)",
            'CREATE TABLE bank."Client" ("Client No" uuid PRIMARY KEY DEFAULT gen_random_uuid(), '
            "age int, full_name text, note jsonb, n int)",
            "INSERT INTO bank.\"Client\" (age, full_name, n) SELECT 20 + i % 50, 'n' || i, i "
            "FROM generate_series(1, 300) i",
            "CREATE TABLE bank.payments (pay_id bigint PRIMARY KEY, at timestamptz, client uuid "
            'REFERENCES bank."Client", amt numeric(12, 2), cur char(3), shop text, '
            "is_fraud boolean, channel varchar(10))",
            "INSERT INTO bank.payments SELECT i, timestamptz '2024-01-01' + i * interval '1 min', "
            "c.\"Client No\", (i * 7919 % 10000) / 100.0, 'EUR', 's' || (i * 31 % 700), "
            "i % 97 = 0, CASE i % 3 WHEN 0 THEN 'web' ELSE 'pos' END "
            'FROM generate_series(1, 20000) i JOIN bank."Client" c ON c.n = 1 + (i * 7) % 300',
        ):
            connection.execute(sa.text(statement))

    proposal = proposed(postgresql_url)

    assert proposal.transactions == Transactions(
        "bank.payments",
        "pay_id",
        "at",
        customer="client",
        amount="amt",
        currency="cur",
        counterparty="shop",
        categories=("channel",),
        label="is_fraud",
    )
    assert proposal.customers is not None
    assert proposal.customers.table == "bank.Client"
    assert proposal.customers.descriptors == ("age",)
    with Source(read_back(to_toml(proposal, postgresql_url)).source) as source:
        assert source.kinds == {
            "transaction": "integer",
            "customer": "uuid",
            "counterparty": "text",
        }


# --- times -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        "%Y-%m-%d",
        "%Y-%m-%d %H:%M",
        "%Y-%m-%d %H:%M:%S",
        "%Y-%m-%d %H:%M:%S.%f",
        "%Y-%m-%dT%H:%M:%S",
        "%Y-%m-%dT%H:%M:%S.%f",
        "%d/%m/%Y",
        "%d/%m/%Y %H:%M",
        "%d/%m/%Y %H:%M:%S",
        "%m/%d/%Y",
        "%m/%d/%Y %H:%M",
        "%d.%m.%Y",
        "%d.%m.%Y %H:%M:%S",
        "%Y/%m/%d",
        "%Y%m%d",
        "%Y%m%d%H%M%S",
    ],
)
def test_the_format_that_wrote_the_times_is_found(form):
    written = [
        START + timedelta(days=3 * row, hours=row, microseconds=7 * row) for row in range(99)
    ]

    times = read_times(Column("t", "text", tuple(when.strftime(form) for when in written)))

    assert times is not None
    assert (times.format, times.note) == (form, "")
    expected = [datetime.strptime(when.strftime(form), form) for when in written]
    assert times.seconds.tolist() == [(e - datetime(1970, 1, 1)).total_seconds() for e in expected]


@pytest.mark.parametrize("zone", ["Z", "+02:00", "-0530"])
def test_times_with_a_zone_are_read_with_it(zone):
    texts = tuple(text + zone for text in moments(50, "%Y-%m-%dT%H:%M:%S"))

    times = read_times(Column("t", "text", texts))

    assert times is not None
    assert times.format == "%Y-%m-%dT%H:%M:%S%z"


def test_iso_texts_in_several_forms_need_no_format():
    texts = (*moments(50), *moments(50, "%Y-%m-%dT%H:%M:%S.%f"))

    times = read_times(Column("t", "text", texts))

    assert times is not None
    assert times.format is None
    assert "more than one form" in times.note


def test_a_day_that_may_be_a_month_is_said_aloud():
    texts = tuple(f"{1 + row % 12:02}/{1 + row % 9:02}/2024" for row in range(60))

    times = read_times(Column("t", "text", texts))

    assert times is not None
    assert times.format == "%d/%m/%Y"
    assert "cannot be told apart; %m/%d/%Y reads it too" in times.note


@pytest.mark.parametrize("value", ["536365", "12.50", "10.0.0.1", "2024", "85123A", "99999999"])
def test_numbers_and_codes_are_not_times(value):
    assert read_times(Column("t", "text", (value,) * 30)) is None


# --- the file ----------------------------------------------------------------------------------

# Any name that a database may hold; ${…} would be read from the environment and is left out.
names = st.text(min_size=1, max_size=12).filter(lambda t: "${" not in t and _encodable(t))
names |= st.sampled_from(['a"b', "a\\b", "a b", "größe", "x\ny", "\x7f", "'", "# no", "=", "\t"])


def _encodable(text: str) -> bool:
    return text == text.encode("utf-8", "ignore").decode()


@given(st.lists(names, min_size=11, max_size=11, unique=True), names)
def test_any_name_survives_the_file(found, table):
    mapped = Transactions(
        table,
        *found[:3],
        customer=found[3],
        amount=found[4],
        entities=(found[8], found[9]),
        baseline_score=found[10],
        categories=(found[5], found[6]),
        numbers=(found[7],),
    )
    people = Customers(table, found[0], (found[1],), (found[2],), (found[3],))

    settings = read_back(to_toml(Proposal(mapped, people), f"sqlite:///{found[0].strip('?')}x.db"))

    assert settings.source.transactions == mapped
    assert settings.source.customers == people


def test_reasons_samples_and_odd_names_survive_the_file_together(tmp_path):
    rows = payments(channel=['we"b\n' if row % 3 else "p\\os" for row in range(300)])
    statement = (
        'CREATE TABLE "my ""pay"" tx" ("tx \\ id" INTEGER PRIMARY KEY, "Zeit (UTC)" TEXT, '
        '"client\'s id" INT, "amount €" REAL, "ch\nannel" TEXT, "${HOME}" TEXT)'
    )
    rows = [(*row, "x") for row in rows]
    url = a_database(tmp_path, statement, rows={'my "pay" tx'.replace('"', '""'): rows})

    proposal = proposed(url)
    settings = read_back(to_toml(proposal, url))

    assert settings.source.transactions == proposal.transactions
    assert settings.source.transactions.id == "tx \\ id"
    assert settings.source.transactions.categories == ("ch\nannel",)
    assert "environment" in left_out(proposal)["${HOME}"]


def test_defaults_are_written_as_comments_that_may_be_opened(handbook):
    text = to_toml(proposed(handbook), handbook)

    settings = read_back(text)
    opened = read_back(text.replace("# reviews_per_day = 20", "reviews_per_day = 21"))

    assert all(type(own)() == own for own in settings.domains.values())
    assert opened.domains["fraudwatch"] == dataclasses.replace(
        settings.domains["fraudwatch"], reviews_per_day=21
    )
    assert "segmenter.fit" in settings.schedule


def test_segments_are_not_scheduled_without_a_customer(tmp_path):
    rows = [(i, t, a) for i, t, _, a in payments()]
    statement = "CREATE TABLE payments (pay_id INTEGER PRIMARY KEY, at TEXT, amt REAL)"
    url = a_database(tmp_path, statement, rows={"payments": rows})

    proposal = proposed(url)

    assert any("looks like the customer" in note for note in proposal.notes)
    assert set(read_back(to_toml(proposal, url)).schedule) == {
        "fraudwatch.fit",
        "fraudwatch.score",
        "fraudwatch.report",
    }


@pytest.mark.parametrize(
    "url",
    ["postgresql://me:s3%40cret@host/db", "postgresql://me@host/db?password=s3%40cret&x=1"],
)
def test_a_password_is_not_written_and_comes_back_from_the_environment(url, handbook):
    text = to_toml(proposed(handbook), url)

    assert "s3" not in text
    assert f"set the environment variable {PASSWORD_VARIABLE}" in text
    settings = read_back(text, **{PASSWORD_VARIABLE: "s3%40cret"})
    assert parse_url(settings.source.url) == parse_url(url)


@pytest.mark.parametrize("url", [URL, "postgresql://me@host/db", "postgresql://me:${PW}@host/db"])
def test_a_url_without_a_password_is_kept(url):
    assert without_password(url) == (url, False)


@pytest.mark.parametrize(
    ("currency", "counterparty"), [("waehrung", "haendler"), ("devise", "magasin")]
)
def test_german_and_french_names_of_currency_and_merchant_are_known(currency, counterparty):
    assert mapping.words_of(currency) & mapping.CURRENCY
    assert mapping.words_of(counterparty) & mapping.OTHER_SIDE
