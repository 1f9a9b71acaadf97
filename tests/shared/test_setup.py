"""What `doctor` says of further keys, of another system's score, and of labels."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from shared import config, setup
from tests.builders import COLUMNS, NOW, a_transaction, make_table, toml

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
