"""What `doctor` says of further keys, of another system's score, and of labels."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from shared import config, setup
from tests.builders import (
    CLIENT_COLUMNS,
    COLUMNS,
    NOW,
    a_client,
    a_transaction,
    ask,
    make_table,
    run_sql,
    toml,
)

KNOWN = COLUMNS | {"device": "TEXT", "score": "INTEGER", "fraud": "INTEGER", "known_at": "TEXT"}
KNOWN |= {"weight": "DOUBLE PRECISION"}
DAY = "2026-03-10 12:00:00"


def checked(url: str, rows: Iterable[Mapping[str, Any]], mapped: str) -> dict[str, bool]:
    """Each finding about rows and labels, and whether it is as it should be."""
    make_table(url, "card_tx", KNOWN, rows)
    document = tomllib.loads(toml(url, transactions=mapped))
    found = setup.doctor(config.parse(document, Path("peerwatch.toml"), {}), NOW)
    return {
        check["text"]: check["ok"]
        for check in found
        if check["text"].startswith(("rows", "labels", "source"))
    }


def test_doctor_counts_rows_without_an_entity_or_a_score(database):
    rows = [
        a_transaction(1, DAY) | {"device": "d", "score": 5},
        a_transaction(2, DAY) | {"device": "d"},
        a_transaction(3, DAY),
    ]

    found = checked(database, rows, 'entities = ["device"]\nbaseline_score = "score"')

    assert found["rows: 1 valid rows without device"]
    assert found["rows: 2 valid rows without score"]


@pytest.mark.parametrize(("bad", "ok"), [(1, True), (2, False)])
def test_doctor_says_where_so_much_is_refused_that_jobs_would_stop(database, bad, ok):
    rows = [a_transaction(i, DAY) for i in range(20)]
    rows += [a_transaction(100 + i, DAY, amt=None) for i in range(bad)]

    found = checked(database, rows, "")

    told = f"rows: {bad} of {20 + bad} refused, at most 5.0% may be: jobs will stop."
    assert any(text.startswith(told) for text in found) != ok


def test_doctor_says_that_no_amount_is_mapped(sqlite_url):
    make_table(sqlite_url, "card_tx", KNOWN, [a_transaction(1, DAY)])
    document = tomllib.loads(toml(sqlite_url))
    del document["source"]["transactions"]["amount"]

    found = setup.doctor(config.parse(document, Path("peerwatch.toml"), {}), NOW)

    assert any("no amount is mapped" in check["text"] for check in found)


def test_doctor_says_that_the_results_cannot_be_written(tmp_path):
    """It tries, and takes back what it wrote."""
    url = f"sqlite:///{tmp_path / 'bank.db'}"
    make_table(url, "card_tx", KNOWN, [a_transaction(1, DAY)])
    setup.init(url, tmp_path / "peerwatch.toml", dry_run=False, environment={})
    settings = config.parse(tomllib.loads(toml(url)), Path("peerwatch.toml"), {})

    (fine,) = (c for c in setup.doctor(settings, NOW) if c["text"].startswith("results"))
    left = ask(url, "SELECT count(*) FROM settings WHERE key = 'doctor'")
    run_sql(url, "CREATE TRIGGER shut BEFORE INSERT ON settings BEGIN "
                 "SELECT RAISE(ABORT, 'not for you'); END")  # fmt: skip
    (fault,) = (c for c in setup.doctor(settings, NOW) if c["text"].startswith("results"))

    assert fine["ok"] and left == [(0,)]
    assert not fault["ok"]


def test_doctor_says_that_an_entity_is_never_there(sqlite_url):
    found = checked(sqlite_url, [a_transaction(1, DAY)], 'entities = ["device"]')

    assert found["rows: 1 valid rows without device"] is False


def test_doctor_names_the_nearest_column_of_an_entity(database):
    found = checked(database, [], 'entities = ["devise"]')

    assert found == {
        "source: [source.transactions] entities: card_tx has no column devise; did you mean "
        "device?": False
    }


def test_doctor_names_all_columns_that_cannot_play_their_roles_at_once(database):
    found = checked(database, [], 'entities = ["weight"]\nbaseline_score = "device"')

    assert found == {
        "source: [source.transactions] entities: column weight is number; a key should be a whole "
        "number, text or a UUID. Map a view that casts it: CAST(weight AS TEXT).": False,
        "source: [source.transactions] baseline_score: card_tx.device is text, expected a number. "
        "Map a view that casts it.": False,
    }


@pytest.mark.parametrize("mapped", ["", 'label_time = "known_at"'])
def test_doctor_counts_labels_and_the_times_that_cannot_be(database, mapped):
    times = {1: "2026-03-12", 2: None, 3: "soon", 4: "2026-03-10 11:59:59", 5: "9999-12-31"}
    rows = [a_transaction(i, DAY) | {"fraud": 1, "known_at": t} for i, t in times.items()]
    rows += [a_transaction(6, DAY) | {"fraud": 0}, a_transaction(7, DAY)]

    found = checked(database, rows, f'label = "fraud"\n{mapped}')

    assert found["labels: 5 frauds, 1 genuine, 1 unknown by fraud in the last 30 days"]
    of = "labels: of known_at, "
    expected = {
        f"{of}2 of 5 frauds have none that can be read: label_delay_days is taken": True,
        f"{of}1 of 5 frauds have one before the transaction itself": False,
        f"{of}1 of 5 frauds have one in the future": False,
    }
    assert {t: ok for t, ok in found.items() if t.startswith(of)} == (expected if mapped else {})


def test_doctor_counts_what_is_amiss_with_the_periods_of_customers(database):
    columns = CLIENT_COLUMNS | {"since": "TEXT", "until": "TEXT"}
    rows = [
        a_client(1, since="2025-01-01", until="2025-06-01"),
        a_client(1, since="2025-05-01", until=None),
        a_client(2, since="2025-01-01", until="2025-02-01"),
        a_client(2, since="2025-03-01", until=None),
        a_client(3, since="2026-01-01", until="2025-01-01"),
        a_client(4, since="soon", until=None),
        a_client(5, since="2026-12-01", until=None),
    ]
    make_table(database, "card_tx", COLUMNS, [a_transaction(1, DAY)])
    make_table(database, "clients", columns, rows)
    mapped = 'table = "clients"\nid = "client_id"\n'
    periods = 'valid_from = "since"\nvalid_to = "until"\n'

    found = _customers(database, mapped + periods)

    assert found.pop("customers: 7 rows of 5 in clients, 2 with a row that is valid now")
    assert found == {
        "customers: 2 rows of clients have no period that can be read, or one that ends before it "
        "begins": False,
        "customers: 1 rows of clients begin before an earlier row of the customer ends: the later "
        "one counts": False,
        "customers: 1 rows of clients begin after a gap, in which the customer's columns are "
        "missing; where valid_to is the last valid day, map a view that adds one": True,
    }
    assert list(_customers(database, mapped)) == [
        "customers: 5 rows of 5 in clients; read as they are now: valid_from and valid_to are not "
        "mapped"
    ]


def _customers(url: str, mapped: str) -> dict[str, bool]:
    text = toml(url) + f"\n[source.customers]\n{mapped}"
    found = setup.doctor(config.parse(tomllib.loads(text), Path("peerwatch.toml"), {}), NOW)
    return {c["text"]: c["ok"] for c in found if c["text"].startswith("customers")}
