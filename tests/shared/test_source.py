"""The user's tables read as they are, on both databases: kinds, times, refusals, hostile names."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from sqlalchemy.engine import make_url

from shared import config, frames, history
from shared.errors import ConfigurationError, PeerwatchError
from shared.frames import micros
from shared.source import Source
from tests.builders import (
    CLIENT_COLUMNS,
    CLIENTS,
    CLOCK,
    COLUMNS,
    EVER,
    NOW,
    a_bank,
    a_batch,
    a_client,
    a_source,
    a_transaction,
    add_rows,
    ask,
    make_table,
    quoted,
    run_sql,
    undated,
)

SECOND = 1_000_000
BERLIN = ZoneInfo("Europe/Berlin")


def at(text: str, zone: object = UTC) -> int:
    """Microseconds of an ISO moment read in a zone."""
    return micros(datetime.fromisoformat(text).replace(tzinfo=zone))


def codes(refused: pd.DataFrame) -> set[tuple[str, str, str]]:
    return set(zip(refused.row_key, refused.code, refused.column_name, strict=True))


def is_sqlite(url: str) -> bool:
    return url.startswith("sqlite")


# --- keys and rows ------------------------------------------------------------------------------


def test_a_row_is_read_as_the_domains_know_it(database):
    a_bank(database, [a_transaction(tx_id=3, km=None, channel=None)])

    batch = a_batch(database)

    (row,) = batch.rows.to_dict("records")
    assert row.pop("number.km") != row.get("number.km")
    assert row == {
        "transaction_id": 3,
        "occurred_at": at("2026-03-01T12:00:00"),
        "customer_id": 7,
        "counterparty_id": 5,
        "amount": 12.0,
        "currency": "EUR",
        "category.channel": "",
    }
    assert batch.rows.transaction_id.dtype == "int64"
    assert batch.rows.occurred_at.dtype == "int64"
    assert batch.rows.amount.dtype == "float64"
    assert str(batch.rows.customer_id.dtype) == "Int64"
    assert batch.rows_read == 1
    assert batch.refused.empty


@pytest.mark.parametrize(
    ("declared", "value", "kind", "read"),
    [
        ("BIGINT", 2**62 + 1, "integer", 2**62 + 1),
        ("INTEGER", -5, "integer", -5),
        ("SMALLINT", 0, "integer", 0),
        ("TEXT", "tx-ä'1", "text", "tx-ä'1"),
        ("VARCHAR(40)", "007", "text", "007"),
    ],
)
def test_integer_and_text_keys_keep_their_kind(database, declared, value, kind, read):
    a_bank(database, [a_transaction(tx_id=value)], tx_id=declared)

    with a_source(database) as source:
        rows = source.read(*EVER, CLOCK).rows

        assert source.kinds["transaction"] == kind
    assert rows.transaction_id.tolist() == [read]


def test_uuid_keys_are_read_as_text(postgresql_url):
    key, customer = str(uuid.UUID(int=10)), str(uuid.UUID(int=2**127))
    a_bank(postgresql_url, [a_transaction(tx_id=key, cust=customer)], tx_id="UUID", cust="UUID")

    with a_source(postgresql_url) as source:
        rows = source.read(*EVER, CLOCK).rows

        assert source.kinds["transaction"] == source.kinds["customer"] == "uuid"
    assert rows.transaction_id.tolist() == [key]
    assert rows.customer_id.tolist() == [customer]


def test_a_null_customer_stays_in_the_rows(database):
    a_bank(database, [a_transaction(1, cust=None), a_transaction(2, merchant_id=None)])

    batch = a_batch(database)

    assert batch.rows.customer_id.isna().tolist() == [True, False]
    assert batch.rows.counterparty_id.isna().tolist() == [False, True]
    assert batch.refused.empty


def test_a_null_text_customer_stays_in_the_rows(database):
    a_bank(database, [a_transaction(1, cust=None), a_transaction(2, cust="c")], cust="TEXT")

    rows = a_batch(database).rows

    assert rows.customer_id.isna().tolist() == [True, False]
    assert rows.customer_id[1] == "c"


def test_only_id_time_and_one_thing_to_judge_are_needed(database):
    a_bank(database, [a_transaction()])

    rows = a_batch(
        database, customer=None, amount=None, currency=None, counterparty=None, numbers=()
    ).rows

    assert rows.columns.tolist() == ["transaction_id", "occurred_at", "category.channel"]


def test_an_amount_is_the_number_that_stands_there(database):
    values = [Decimal("0.10"), Decimal("-12.34"), Decimal("99999999.99")]
    stored = [float(value) for value in values] if is_sqlite(database) else values
    a_bank(database, [a_transaction(i, amt=value) for i, value in enumerate(stored)])

    assert a_batch(database).rows.amount.tolist() == [0.1, -12.34, 99999999.99]


def test_a_float_and_a_whole_number_may_be_amounts(database):
    for declared in ("DOUBLE PRECISION", "INTEGER"):
        run_sql(database, "DROP TABLE IF EXISTS card_tx")
        a_bank(database, [a_transaction(1, amt=3)], amt=declared)

        assert a_batch(database).rows.amount.tolist() == [3.0]


def test_whole_numbers_first_and_fractions_later_are_both_read(database):
    rows = [a_transaction(i, amt=1 if i < 3000 else 2.5) for i in range(4000)]
    a_bank(database, rows, amt="DOUBLE PRECISION")

    amounts = a_batch(database).rows.amount

    assert amounts.value_counts().to_dict() == {1.0: 3000, 2.5: 1000}


def test_booleans_may_be_numbers(database):
    value = 1 if is_sqlite(database) else True
    a_bank(database, [a_transaction(1, km=value), a_transaction(2, km=None)], km="BOOLEAN")

    found = a_batch(database).rows["number.km"]

    assert found[0] == 1.0
    assert np.isnan(found[1])


def test_order_ids_of_both_kinds_are_read(database):
    for declared, value in (("BIGINT", 9), ("TEXT", "inv-9")):
        run_sql(database, "DROP TABLE IF EXISTS card_tx")
        rows = [a_transaction(1, channel=value), a_transaction(2, channel=None)]
        a_bank(database, rows, channel=declared)

        found = a_batch(database, order="channel", categories=()).rows.order_id

        assert found[0] == value
        assert pd.isna(found[1])


def test_rows_come_in_order_of_moment_and_id_whatever_the_table_holds(database):
    ids = np.random.default_rng(0).permutation(200).tolist()
    a_bank(database, [a_transaction(i, f"2026-03-0{1 + i % 3} 00:00:00") for i in ids])

    rows = a_batch(database).rows

    pairs = list(zip(rows.occurred_at, rows.transaction_id, strict=True))
    assert pairs == sorted(pairs)
    assert len(pairs) == 200


def test_an_empty_table_gives_an_empty_frame_with_its_columns(database):
    a_bank(database, [], [])

    with a_source(database, customers=CLIENTS) as source:
        batch = source.read(*EVER, CLOCK)
        counts, bad = source.counted(CLOCK)

        assert batch.rows_read == 0
        assert "amount" in batch.rows
        assert batch.refused.empty
        assert source.undated(CLOCK).empty
        assert (len(counts), bad) == (0, 0)
        assert source.newest(CLOCK) is None
        assert source.duplicates().empty
        assert source.customers().empty


# --- times --------------------------------------------------------------------------------------


def test_a_naive_timestamp_is_read_in_the_zone(database):
    a_bank(database, [a_transaction(ts="2026-03-01 12:00:00.123456")])

    rows = a_batch(database, zone="Europe/Berlin").rows

    assert rows.occurred_at.tolist() == [at("2026-03-01T11:00:00.123456")]


def test_an_aware_timestamp_keeps_its_moment(postgresql_url):
    a_bank(postgresql_url, [a_transaction(ts="2026-03-01 12:00:00.5+03")], ts="TIMESTAMPTZ")

    rows = a_batch(postgresql_url, zone="Europe/Berlin").rows

    assert rows.occurred_at.tolist() == [at("2026-03-01T09:00:00.5")]


def test_a_date_is_the_beginning_of_its_day(database):
    a_bank(database, [a_transaction(ts="2026-03-01")], ts="DATE")

    rows = a_batch(database, zone="Europe/Berlin").rows

    assert rows.occurred_at.tolist() == [at("2026-02-28T23:00:00")]


ISO = {
    "2026-03-01": "2026-03-01T00:00:00",
    "2026-03-01 12:34": "2026-03-01T12:34:00",
    "2026-03-01 12:34:56": "2026-03-01T12:34:56",
    "2026-03-01T12:34:56": "2026-03-01T12:34:56",
    "2026-03-01T12:34:56.5": "2026-03-01T12:34:56.5",
    "2026-03-01T12:34:56.123456": "2026-03-01T12:34:56.123456",
    "2026-03-01T12:34:56.123456789": "2026-03-01T12:34:56.123456",
    "2026-03-01T12:34:56Z": "2026-03-01T13:34:56",
    "2026-03-01T12:34:56.5Z": "2026-03-01T13:34:56.5",
    "2026-03-01T12:34:56+03:00": "2026-03-01T10:34:56",
    "2026-03-01T12:34:56-0130": "2026-03-01T15:04:56",
    "2026-03-01 12:34Z": "2026-03-01T13:34:00",
}


@pytest.mark.parametrize("form", [None, "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%S.%f"])
def test_iso_text_is_read_alike_alone_and_beside_others(database, form):
    """The answer for a row must not depend on which rows are read with it."""
    texts = list(ISO)
    a_bank(database, [a_transaction(i, text) for i, text in enumerate(texts)], ts="TEXT")
    expected = {i: at(text, BERLIN) for i, text in enumerate(ISO.values())}

    with a_source(database, "Europe/Berlin", time_format=form) as source:
        together = source.read(*EVER, CLOCK).rows
        assert dict(zip(together.transaction_id, together.occurred_at, strict=True)) == expected
        assert source.undated(CLOCK).empty
        for i, text in enumerate(texts):
            run_sql(database, "DELETE FROM card_tx")
            add_rows(database, "card_tx", list(COLUMNS), [a_transaction(i, text)])
            alone = source.read(*EVER, CLOCK).rows
            assert alone.occurred_at.tolist() == [expected[i]], text


NO_TIMES = [
        "now", "today", "2026", "2026-03", "20260301", "2026-3-1", " 2026-03-01", "2026-03-01 ",
        "2026-13-01", "2026-02-29", "2026-02-30", "2026-04-31", "2026-03-32", "2026-03-01 24:00:00",
        "2026-03-01 12:60", "2026-03-01 12:00:60", "2026-03-01 12:00:00 garbage",
        "2026-03-01  12:00:00", "2026-03-01 12:00:00,5", "2026-03-01T12:00:00z", "garbage", "NaT",
        "1772366400", "01.03.2026", "2026-03-01TT12:00", "2026-03-01 12:00:00.", "2026-03-01T",
        "2026-03-01 12:00:00+99:00", "²026-03-01", "2026-03-01'; DROP TABLE card_tx; --",
]  # fmt: skip


def test_texts_that_are_no_times_are_refused_and_never_lost(database):
    rows = [a_transaction(i, text) for i, text in enumerate(NO_TIMES)]
    a_bank(database, [a_transaction(-1, "2026-03-01 12:00:00"), *rows], ts="TEXT")

    with a_source(database) as source:
        batch, lost = source.read(*EVER, CLOCK), source.undated(CLOCK)
        counts, bad = source.counted(CLOCK)

    assert batch.rows.transaction_id.tolist() == [-1]
    assert codes(lost) == {(str(i), "time_unparsable", "ts") for i in range(len(NO_TIMES))}
    assert lost.day.isna().all()
    assert (int(counts.sum()), bad) == (1, len(NO_TIMES))


@pytest.mark.parametrize(
    ("form", "text", "expected"),
    [
        ("%d/%m/%Y", "02/03/2026", "2026-03-02T00:00:00"),
        ("%d-%m-%Y", "02-03-2026", "2026-03-02T00:00:00"),
        ("%d.%m.%Y %H:%M", "02.03.2026 12:30", "2026-03-02T12:30:00"),
        ("%m/%d/%Y %I:%M %p", "03/02/2026 01:30 PM", "2026-03-02T13:30:00"),
        ("%Y%m%d", "20260302", "2026-03-02T00:00:00"),
        ("%Y-%m-%d %I:%M %p", "2026-03-02 01:30 PM", "2026-03-02T13:30:00"),
        ("%d/%m/%Y %H:%M %z", "02/03/2026 12:30 +0300", "2026-03-02T10:30:00"),
    ],
)
def test_texts_that_do_not_sort_by_time_are_read_by_their_format(database, form, text, expected):
    """The expected moment is Berlin's wall clock."""
    rows = [a_transaction(1, text), a_transaction(2, "99/99/99"), a_transaction(3, None)]
    a_bank(database, rows, ts="TEXT")

    with a_source(database, "Europe/Berlin", time_format=form) as source:
        batch, lost = source.read(*EVER, CLOCK), source.undated(CLOCK)

        assert source.newest(CLOCK) == at(expected, BERLIN)
    assert batch.rows.occurred_at.tolist() == [at(expected, BERLIN)]
    assert codes(lost) == {("2", "time_unparsable", "ts"), ("3", "time_null", "ts")}


@pytest.mark.parametrize("declared", ["BIGINT", "DOUBLE PRECISION"])
def test_epoch_seconds_are_moments(database, declared):
    value = at("2026-03-01T12:00:00") // SECOND
    fraction = 0.5 if declared != "BIGINT" else 0
    a_bank(database, [a_transaction(ts=value + fraction)], ts=declared)

    rows = a_batch(database, zone="Europe/Berlin").rows

    assert rows.occurred_at.tolist() == [value * SECOND + int(fraction * SECOND)]


@pytest.mark.parametrize(
    ("wall", "utc"),
    [
        ("2025-03-30 01:59:59.999999", "2025-03-30T00:59:59.999999"),
        ("2025-03-30 02:00:00", "2025-03-30T01:00:00"),  # the lost hour is its end
        ("2025-03-30 02:30:00", "2025-03-30T01:00:00"),
        ("2025-03-30 03:00:00", "2025-03-30T01:00:00"),
        ("2025-10-26 01:59:59", "2025-10-25T23:59:59"),
        ("2025-10-26 02:30:00", "2025-10-26T00:30:00"),  # the repeated hour is its first
        ("2025-10-26 03:00:00", "2025-10-26T02:00:00"),
    ],
)
def test_wall_clocks_at_both_edges_of_summer_time(database, wall, utc):
    a_bank(database, [a_transaction(ts=wall)])

    rows = a_batch(database, zone="Europe/Berlin").rows

    assert rows.occurred_at.tolist() == [at(utc)]


@pytest.mark.parametrize("declared", ["TIMESTAMP", "TEXT", "TIMESTAMPTZ", "DOUBLE PRECISION"])
def test_a_window_holds_its_start_and_not_its_end(database, declared):
    if is_sqlite(database) and declared == "TIMESTAMPTZ":
        declared = "TIMESTAMP"
    start, end = at("2026-03-01T11:00:00"), at("2026-03-01T23:00:00")
    texts = {
        1: "2026-03-01 11:59:59.999999", 2: "2026-03-01 12:00:00",
        3: "2026-03-01 23:59:59.999999", 4: "2026-03-02 00:00:00",
    }  # fmt: skip
    plus = "+01" if declared == "TIMESTAMPTZ" else ""
    values = {key: text + plus for key, text in texts.items()}
    if declared == "DOUBLE PRECISION":
        values = {key: at(text, BERLIN) / SECOND for key, text in texts.items()}
    a_bank(database, [a_transaction(key, value) for key, value in values.items()], ts=declared)

    with a_source(database, "Europe/Berlin") as source:
        batch = source.read(start, end, CLOCK)

    assert batch.rows.transaction_id.tolist() == [2, 3]
    assert batch.rows_read == 2


def test_neighbouring_windows_hold_each_row_once(database):
    edge = at("2026-03-01T00:00:00")
    below = np.nextafter(edge / SECOND, 0)  # less than half a microsecond under the edge
    a_bank(
        database, [a_transaction(1, below), a_transaction(2, edge / SECOND)], ts="DOUBLE PRECISION"
    )

    with a_source(database) as source:
        before = source.read(edge - SECOND, edge, CLOCK).rows
        after = source.read(edge, edge + SECOND, CLOCK).rows

    assert sorted([*before.transaction_id, *after.transaction_id]) == [1, 2]


def test_the_last_day_that_can_be_written_may_end_a_window(database):
    a_bank(database, [a_transaction()])

    with a_source(database) as source:
        rows = source.read(at("0001-01-01T00:00:00"), at("9999-12-31T23:59:59"), CLOCK).rows

    assert len(rows) == 1


@pytest.mark.parametrize("declared", ["TIMESTAMP", "TEXT", "BIGINT"])
def test_the_newest_moment_is_found_behind_any_number_of_later_rows(database, declared):
    clock = at("2026-03-01T00:00:00")
    old, later = at("2025-01-01T00:00:00"), [clock + 60 * SECOND * i for i in range(1, 1500)]
    moments = [old, *later, CLOCK + 40 * frames.MICROSECONDS_PER_DAY]
    texts = [frames.moment(moment).replace(tzinfo=None).isoformat(" ") for moment in moments]
    values = [moment // SECOND for moment in moments] if declared == "BIGINT" else texts
    a_bank(database, [a_transaction(i, v) for i, v in enumerate(values)], ts=declared)

    with a_source(database) as source:
        assert source.newest(clock) == old
        assert source.newest(later[0]) == later[0]
        assert source.newest(CLOCK) == later[-1]
        assert source.newest(old - 1) is None


def test_days_are_counted_in_the_zone(database):
    texts = ["2026-03-01 00:00:00", "2026-03-01 23:59:59", "2026-03-02 00:00:00", None]
    a_bank(database, [a_transaction(i, text) for i, text in enumerate(texts)])

    with a_source(database, "Europe/Berlin") as source:
        counts, bad = source.counted(CLOCK)
        some, _ = source.counted(CLOCK, at("2026-03-01T22:59:59"))

    days = [str(day)[:10] for day in counts.index]
    assert dict(zip(days, counts, strict=True)) == {"2026-03-01": 2, "2026-03-02": 1}
    assert bad == 1
    assert some.tolist() == [1, 1]


# --- refusals -----------------------------------------------------------------------------------

BEYOND = {"TIMESTAMP": "2026-03-22 00:00:00", "TEXT": "2026-03-22", "BIGINT": 1774137600}
BEFORE = {"TIMESTAMP": "1899-12-31 23:59:59", "TEXT": "1899-12-31", "BIGINT": -2208988801}


@pytest.mark.parametrize("declared", ["TIMESTAMP", "TEXT", "BIGINT"])
def test_rows_out_of_time_are_refused_under_no_day(database, declared):
    rows = [
        a_transaction(1, None),
        a_transaction(2, BEYOND[declared]),
        a_transaction(3, BEFORE[declared]),
        a_transaction(4, {"BIGINT": 1774008000}.get(declared, "2026-03-20 12:00:00")),
    ]
    a_bank(database, rows, ts=declared)

    found = undated(database)

    assert codes(found) == {
        ("1", "time_null", "ts"),
        ("2", "time_in_future", "ts"),
        ("3", "time_out_of_range", "ts"),
    }
    assert found.day.isna().all()


def test_a_row_of_the_next_day_is_no_far_future(database):
    a_bank(
        database, [a_transaction(1, "2026-03-21 12:00:00"), a_transaction(2, "2026-03-21 12:00:01")]
    )

    assert codes(undated(database)) == {("2", "time_in_future", "ts")}


def test_an_infinite_time_is_refused(postgresql_url):
    for declared in ("TIMESTAMP", "TIMESTAMPTZ", "DATE"):
        run_sql(postgresql_url, "DROP TABLE IF EXISTS card_tx")
        rows = [a_transaction(1), a_transaction(2, "infinity"), a_transaction(3, "-infinity")]
        a_bank(postgresql_url, rows, ts=declared)

        found = undated(postgresql_url)

        assert set(found.row_key) == {"2", "3"}, declared
        assert a_batch(postgresql_url).rows.transaction_id.tolist() == [1]


def test_an_epoch_that_is_no_number_is_refused(database):
    values = [1772366400.0, float("inf"), float("-inf"), 1e300]
    a_bank(database, [a_transaction(i, v) for i, v in enumerate(values)], ts="DOUBLE PRECISION")
    if not is_sqlite(database):
        run_sql(database, "INSERT INTO card_tx (tx_id, ts) VALUES (4, 'nan')")

    found = undated(database)

    assert set(found.row_key) == {"1", "2", "3"} | (set() if is_sqlite(database) else {"4"})


def test_text_among_epochs_is_refused(sqlite_url):
    rows = [
        a_transaction(1, 1772366400),
        a_transaction(2, "yesterday"),
        a_transaction(3, 1772366401),
    ]
    a_bank(sqlite_url, rows, ts="INTEGER")

    assert codes(undated(sqlite_url)) == {("2", "time_unparsable", "ts")}
    assert a_batch(sqlite_url).rows.transaction_id.tolist() == [1, 3]


def test_every_bad_amount_and_number_has_its_code(database):
    inf, nan = float("inf"), float("nan")
    rows = {
        1: {"amt": None}, 2: {"amt": inf}, 3: {"amt": -inf}, 4: {"amt": 1e12}, 5: {"amt": -1e12},
        6: {"amt": 999999999999.0}, 7: {"km": inf}, 8: {"km": 2e30}, 9: {"km": None},
    }  # fmt: skip
    a_bank(database, [a_transaction(i, **r) for i, r in rows.items()], amt="DOUBLE PRECISION")
    expected = {
        ("1", "amount_null", "amt"), ("2", "amount_infinite", "amt"),
        ("3", "amount_infinite", "amt"), ("4", "amount_overflow", "amt"),
        ("5", "amount_overflow", "amt"), ("7", "number_infinite", "km"),
        ("8", "number_infinite", "km"),
    }  # fmt: skip
    if is_sqlite(database):  # NaN cannot be stored, text can
        more = [
            a_transaction(10, amt="12,00"),
            a_transaction(11, km="far"),
            a_transaction(12, amt=""),
        ]
        expected |= {
            ("10", "amount_text", "amt"),
            ("11", "number_text", "km"),
            ("12", "amount_text", "amt"),
        }
    else:
        more = [a_transaction(10, amt=nan), a_transaction(11, km=nan)]
        expected |= {("10", "amount_nan", "amt"), ("11", "number_nan", "km")}
    add_rows(database, "card_tx", list(COLUMNS), more)

    batch = a_batch(database)

    assert codes(batch.refused) == expected
    assert batch.rows.transaction_id.tolist() == [6, 9]
    assert batch.rows_read == 9 + len(more)
    assert {str(day) for day in batch.refused.day} == {"2026-03-01"}


def test_a_numeric_nan_is_refused(postgresql_url):
    a_bank(postgresql_url, [a_transaction(1, amt="NaN"), a_transaction(2, amt="12.5")])

    batch = a_batch(postgresql_url)

    assert codes(batch.refused) == {("1", "amount_nan", "amt")}
    assert batch.rows.amount.tolist() == [12.5]


def test_ids_that_cannot_be_used_have_their_codes(sqlite_url):
    rows = [
        a_transaction(None), a_transaction("x1"), a_transaction("x1"), a_transaction(0),
        a_transaction(2.5), a_transaction(4, cust="seven"), a_transaction(5, merchant_id="shop"),
    ]  # fmt: skip
    a_bank(sqlite_url, rows)

    batch = a_batch(sqlite_url)

    counts = batch.refused.groupby("code").source_rows.sum().to_dict()
    assert counts == {
        "id_null": 1, "id_wrong_type": 3, "customer_wrong_type": 1, "counterparty_wrong_type": 1,
    }  # fmt: skip
    assert batch.rows.transaction_id.tolist() == [0]
    assert batch.refused.groupby("row_key").source_rows.max().sum() == 6


def test_null_ids_are_counted_by_day(database):
    days = ["2026-03-01", "2026-03-01", "2026-03-02"]
    a_bank(database, [a_transaction(None, f"{day} 10:00:00") for day in days])

    refused = a_batch(database).refused

    assert refused.code.tolist() == ["id_null", "id_null"]
    assert refused.sort_values("day").source_rows.tolist() == [2, 1]


def test_an_empty_text_is_no_id(database):
    a_bank(database, [a_transaction(""), a_transaction("a")], tx_id="TEXT")

    batch = a_batch(database)

    assert batch.refused.code.tolist() == ["id_null"]
    assert batch.rows.transaction_id.tolist() == ["a"]


@pytest.mark.parametrize(
    ("column", "value", "code"),
    [
        ("tx_id", "x", "id_wrong_type"),
        ("cust", 7.5, "customer_wrong_type"),
        ("amt", "twelve", "amount_text"),
        ("km", "far", "number_text"),
    ],
)
def test_a_wrong_cell_far_down_the_table_is_refused_alone(sqlite_url, column, value, code):
    """SQLite's driver takes a column's type from its first thousand rows."""
    rows = [a_transaction(number) for number in range(1, 1200)]
    a_bank(sqlite_url, [*rows, a_transaction(1200) | {column: value}])

    with a_source(sqlite_url) as source:
        first, again = source.read(*EVER, CLOCK), source.read(*EVER, CLOCK)

    for batch in (first, again):
        assert batch.refused[["code", "source_rows"]].values.tolist() == [[code, 1]]
        assert batch.rows.transaction_id.tolist() == list(range(1, 1200))


def test_all_rows_of_a_repeated_id_are_refused_on_their_days(database):
    rows = [
        a_transaction(1), a_transaction(1), a_transaction(1, "2026-03-05 10:00:00"),
        a_transaction(1, None), a_transaction(2),
    ]  # fmt: skip
    a_bank(database, rows)

    with a_source(database) as source:
        batch, lost = source.read(*EVER, CLOCK), source.undated(CLOCK)
        only = source.read(at("2026-03-05T00:00:00"), at("2026-03-06T00:00:00"), CLOCK)

        assert source.duplicates().to_dict() == {1: 4}
    found = batch.refused.sort_values("day")
    assert found.code.tolist() == ["id_duplicate", "id_duplicate"]
    assert found.source_rows.tolist() == [2, 1]
    assert [str(day) for day in found.day] == ["2026-03-01", "2026-03-05"]
    assert set(lost.code) == {"id_duplicate", "time_null"}
    assert batch.rows.transaction_id.tolist() == [2]
    assert only.refused.code.tolist() == ["id_duplicate"]


def test_an_unreadable_id_makes_no_other_id_a_duplicate(sqlite_url):
    a_bank(sqlite_url, [a_transaction("a"), a_transaction("a"), a_transaction(0), a_transaction(1)])

    assert a_batch(sqlite_url).rows.transaction_id.tolist() == [0, 1]


def test_a_primary_key_is_not_searched_for_repeats(database):
    a_bank(database, [a_transaction(1)], tx_id="BIGINT PRIMARY KEY")

    with a_source(database) as source:
        assert source.duplicates().empty
        assert source._unique


@pytest.mark.parametrize("where", ["WHERE km > 100", ", cust"])
def test_an_index_over_some_rows_or_more_columns_does_not_make_an_id_unique(database, where):
    columns = "(tx_id, cust)" if where == ", cust" else f"(tx_id) {where}"
    a_bank(database, [a_transaction(1, cust=1), a_transaction(1, cust=2)])
    run_sql(database, f"CREATE UNIQUE INDEX partial_one ON card_tx {columns}")

    assert set(a_batch(database).refused.code) == {"id_duplicate"}


def test_one_row_may_have_several_codes(database):
    a_bank(database, [a_transaction(1, amt=None, km=float("inf"))])

    batch = a_batch(database)

    assert codes(batch.refused) == {("1", "amount_null", "amt"), ("1", "number_infinite", "km")}


def test_what_is_shown_of_a_bad_value_hides_the_value(sqlite_url):
    a_bank(sqlite_url, [a_transaction(1, amt="4111 1111 Bob\n€")])

    (shown,) = a_batch(sqlite_url).refused.masked_value

    assert shown == "9999 9999 aaa?€"


# --- faults of the mapping ----------------------------------------------------------------------


def faults(source: Source) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        source.__enter__()
    return caught.value.faults


def test_a_missing_table_names_the_nearest(database):
    a_bank(database)

    (fault,) = faults(a_source(database, table="card_txs"))

    assert fault == "[source.transactions] table card_txs does not exist; did you mean card_tx?"


def test_all_missing_tables_and_columns_are_named_at_once(database):
    a_bank(database, [], [])
    clients = config.Customers("client", "client_id", numbers=("limit",))

    found = faults(a_source(database, customers=clients, amount="amount", customer="customer"))

    assert len(found) == 3
    assert any("card_tx has no column amount; did you mean amt?" in fault for fault in found)
    assert any("card_tx has no column customer" in fault for fault in found)
    assert any("client does not exist; did you mean clients?" in fault for fault in found)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("ALTER TABLE card_tx DROP COLUMN amt", "card_tx has no column amt"),
        ("ALTER TABLE card_tx RENAME COLUMN amt TO amnt", "did you mean amnt?"),
    ],
)
def test_a_dropped_or_renamed_column_is_named(database, change, expected):
    a_bank(database, [a_transaction()])
    run_sql(database, change)

    (fault,) = faults(a_source(database))

    assert expected in fault


@pytest.mark.parametrize(
    ("column", "declared", "expected"),
    [
        ("amt", "TEXT", "[source.transactions] amount: card_tx.amt is text, expected a number"),
        ("amt", "DATE", "expected a number"),
        ("km", "TEXT", "[source.transactions] numbers: card_tx.km is text, expected a number"),
        ("tx_id", "NUMERIC(10, 2)", "a key should be a whole number, text or a UUID"),
        ("ts", "BOOLEAN", "expected a timestamp, a date, ISO text or epoch seconds"),
    ],
)
def test_a_column_of_a_type_that_cannot_play_its_role_is_named(
    postgresql_url, column, declared, expected
):
    a_bank(postgresql_url, [], **{column: declared})

    (fault,) = faults(a_source(postgresql_url))

    assert expected in fault


def test_a_retyped_column_is_named_with_what_it_was(database):
    a_bank(database, [a_transaction()])
    with a_source(database) as source:
        recorded = dict(source.types)
    run_sql(database, "DROP TABLE card_tx")
    a_bank(database, [a_transaction(merchant_id="m")], merchant_id="TEXT")

    with a_source(database) as source:
        (fault,) = source.changed(recorded)

    assert "card_tx.merchant_id was integer when it was mapped and is text now" in fault


def test_a_table_that_was_empty_when_it_was_mapped_may_be_filled(sqlite_url):
    a_bank(sqlite_url)
    with a_source(sqlite_url) as source:
        recorded = dict(source.types)
    add_rows(sqlite_url, "card_tx", list(COLUMNS), [a_transaction()])

    with a_source(sqlite_url) as source:
        assert source.changed(recorded) == []


def test_fractions_among_whole_numbers_of_a_view_are_no_change_of_type(sqlite_url):
    a_bank(sqlite_url, [a_transaction(1, amt=3)], amt="INTEGER")
    run_sql(sqlite_url, "CREATE VIEW v AS SELECT tx_id, ts, cust, amt * 1 AS amt FROM card_tx")
    plain = {"currency": None, "counterparty": None, "categories": (), "numbers": ()}
    with a_source(sqlite_url, table="v", **plain) as source:
        recorded = dict(source.types)
    run_sql(sqlite_url, "UPDATE card_tx SET amt = 2.5")

    with a_source(sqlite_url, table="v", **plain) as source:
        assert source.changed(recorded) == []


def test_customer_keys_of_two_kinds_are_refused_with_the_view_that_mends_it(database):
    a_bank(database, [a_transaction(cust="7")], [a_client(7)], cust="TEXT")

    (fault,) = faults(a_source(database, customers=CLIENTS))

    assert "clients.client_id is integer, but card_tx.cust is text" in fault
    view = fault[fault.index("CREATE VIEW") :]
    run_sql(database, view)
    mended = config.Customers("customers_peerwatch", "customer_key", numbers=("credit_limit",))
    with a_source(database, customers=mended) as source:
        assert source.customers().customer_id.tolist() == ["7"]


def test_a_customers_number_that_is_text_is_refused(database):
    a_bank(database, [], [])
    clients = config.Customers("clients", "client_id", numbers=("region",))

    (fault,) = faults(a_source(database, customers=clients))

    assert "[source.customers] numbers: clients.region is text, expected a number" in fault


def test_a_label_that_is_text_is_refused(database):
    a_bank(database, [a_transaction(channel="yes")])

    (fault,) = faults(a_source(database, label="channel", categories=()))

    assert "[source.transactions] label: card_tx.channel is text" in fault


@pytest.mark.parametrize(
    ("texts", "sorted_by_time"),
    [
        (["31/12/2026"], False),
        (["12:00", "soon", "2026-03-01"], False),
        (["2026-03-01 12:00:00", None, None], True),
        (["2026-03-01T12:00:00.5Z", "2026-03-01", "31/12/2026"], True),
        ([None, None], True),
        ([], True),
    ],
)
def test_arrivals_as_text_must_sort_by_time(database, texts, sorted_by_time):
    rows = [a_transaction(number, arrived=text) for number, text in enumerate(texts)]
    a_bank(database, rows, arrived="TEXT")

    source = a_source(database, arrived_at="arrived")

    if sorted_by_time:
        with source:
            pass
        return
    (fault,) = faults(source)
    assert "arrived_at: card_tx.arrived holds text that is not ISO" in fault
    assert not any(text in fault for text in texts)


# --- views, schemas and hostile names -----------------------------------------------------------


def test_a_view_is_read_like_a_table(database):
    a_bank(database, [a_transaction(1, amt=3), a_transaction(2, amt=4)])
    run_sql(database, "CREATE VIEW spent AS SELECT *, amt * 2 AS twice FROM card_tx")

    rows = a_batch(database, table="spent", amount="twice").rows

    assert rows.amount.tolist() == [6.0, 8.0]


def test_a_materialized_view_is_read_like_a_table(postgresql_url):
    a_bank(postgresql_url, [a_transaction()])
    run_sql(postgresql_url, "CREATE MATERIALIZED VIEW spent AS SELECT * FROM card_tx")

    assert len(a_batch(postgresql_url, table="spent").rows) == 1


def test_a_table_of_a_schema_is_found(postgresql_url):
    run_sql(postgresql_url, "CREATE SCHEMA core")
    make_table(postgresql_url, "core\0payments", COLUMNS, [a_transaction(5)])

    assert a_batch(postgresql_url, table="core.payments").rows.transaction_id.tolist() == [5]
    (fault,) = faults(a_source(postgresql_url, table="core.payment"))
    assert "did you mean core.payments?" in fault or "did you mean payments?" in fault


def test_the_search_path_of_the_url_is_followed(postgresql_url):
    run_sql(postgresql_url, "CREATE SCHEMA core")
    make_table(postgresql_url, "core\0card_tx", COLUMNS, [a_transaction(5)])

    url = make_url(postgresql_url).update_query_dict({"options": "-csearch_path=core"})
    rows = a_batch(url.render_as_string(False)).rows

    assert rows.transaction_id.tolist() == [5]


HOSTILE = [
    'say "hi"', "two words", "größe €", "semi;colon", "it's", "per%cent", "Select", "a.b",
    "'); DROP TABLE card_tx; --", "colon:name", "$1", "?", "back\\slash", "(x)", "amt state",
]  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_any_identifier_is_only_a_name(database, name):
    columns = {
        f"{name} id": "BIGINT", f"{name} ts": "TIMESTAMP", f"{name} cust": "BIGINT",
        f"{name} amt": "DOUBLE PRECISION", f"{name}": "TEXT",
    }  # fmt: skip
    values = (1, "2026-03-01 10:00:00", 2, 3.5, "x")
    make_table(database, name, columns, [dict(zip(columns, values, strict=True))])
    run_sql(database, "CREATE TABLE card_tx (tx_id INTEGER)")

    rows = a_batch(
        database, table=name, id=f"{name} id", time=f"{name} ts", customer=f"{name} cust",
        amount=f"{name} amt", currency=None, counterparty=None, categories=(name,), numbers=(),
    ).rows  # fmt: skip

    assert rows.amount.tolist() == [3.5]
    assert rows[f"category.{name}"].tolist() == ["x"]
    assert ask(database, "SELECT count(*) FROM card_tx") == [(0,)]


def test_a_column_named_like_our_own_labels_is_read(database):
    columns = COLUMNS | {"amt state": "TEXT", "rows": "BIGINT"}
    row = a_transaction(1) | {"amt state": "tx", "rows": 4}
    make_table(database, "card_tx", columns, [row, row | {"rows": 4}])

    batch = a_batch(database, id="rows", categories=("amt state",))

    assert batch.refused.code.tolist() == ["id_duplicate"]
    run_sql(database, "UPDATE card_tx SET rows = NULL WHERE amt > 1")
    add_rows(database, "card_tx", list(columns), [row])
    assert a_batch(database, id="rows", categories=("amt state",)).rows[
        "category.amt state"
    ].tolist() == ["tx"]


VALUES = [
    "'); DROP TABLE card_tx; --", 'a "quoted" one', "two\nlines\r\n", "tab\t", "\x01\x7f", "ä€𝔘",
    "\\N", "NULL", " ",
]  # fmt: skip


def test_any_text_is_only_a_value(database):
    rows = [a_transaction(value, channel=value, cust=value) for value in VALUES]
    a_bank(database, rows, tx_id="TEXT", cust="TEXT")

    found = a_batch(database).rows

    assert found.transaction_id.tolist() == sorted(VALUES)
    assert found.customer_id.tolist() == sorted(VALUES)
    assert found["category.channel"].tolist() == sorted(VALUES)


def test_bytes_that_are_no_text_are_shown_and_not_fatal(sqlite_url):
    a_bank(sqlite_url, [a_transaction(1, channel=b"\xff\xfea"), a_transaction(2, channel="b")])

    rows = a_batch(sqlite_url).rows

    assert rows["category.channel"][0].endswith("a")
    assert rows["category.channel"][1] == "b"


# --- customers ----------------------------------------------------------------------------------


def test_customers_are_read_by_role(database):
    clients = [
        a_client(7),
        a_client(8, credit_limit=None, product=None, age=None, region=None),
        a_client(None),
    ]
    a_bank(database, [], clients)

    with a_source(database, customers=CLIENTS) as source:
        frame = source.customers().sort_values("customer_id", ignore_index=True)

    assert frame.columns.tolist() == [
        "customer_id", "number.credit_limit", "category.product", "descriptor.age",
        "descriptor.region",
    ]  # fmt: skip
    assert frame.customer_id.tolist() == [7, 8]
    assert frame["number.credit_limit"][0] == 1000.0
    assert np.isnan(frame["number.credit_limit"][1])
    assert frame["category.product"].tolist() == ["basic", ""]
    assert frame["descriptor.age"][0] == 41
    assert frame["descriptor.region"].tolist() == ["north", ""]


def test_a_repeated_customer_is_read_once_and_always_the_same(database):
    clients = [a_client(7, product=name) for name in ("c", "a", "b")]
    a_bank(database, [], clients)
    found = set()

    for _ in range(3):
        with a_source(database, customers=CLIENTS) as source:
            found.add(tuple(source.customers()["category.product"]))
        run_sql(database, "DELETE FROM clients")
        clients = [*clients[1:], clients[0]]
        add_rows(database, "clients", list(clients[0]), clients)

    assert found == {("a",)}


def test_a_missing_customers_table_is_no_fault(database):
    a_bank(database, [a_transaction()])

    with a_source(database) as source:
        assert source.customers() is None


HISTORY = replace(CLIENTS, valid_from="since", valid_to="until")


def a_history(url: str, rows: list[tuple], kind: str) -> None:
    """Clients with a history: (client_id, credit_limit, since, until)."""
    columns = CLIENT_COLUMNS | {"since": kind, "until": kind}
    made = [a_client(i, credit_limit=x, since=since, until=until) for i, x, since, until in rows]
    a_bank(url, [])
    make_table(url, "clients", columns, made)


def limits(url: str, moment: str, zone: str = "UTC") -> dict[int, float]:
    """The credit limits as of a moment."""
    with a_source(url, zone, customers=HISTORY) as source:
        frame = history.valid_at(source.customers(), micros(datetime.fromisoformat(moment)))
    return dict(zip(frame.customer_id, frame["number.credit_limit"], strict=True))


@pytest.mark.parametrize("kind", ["TIMESTAMP", "DATE", "TEXT"])
def test_customers_are_as_they_were_at_the_moment(database, kind):
    rows = [
        (7, 1.0, "2025-01-01", "2026-01-01"),
        (7, 2.0, "2026-01-01", None),
        (8, 5.0, "2025-06-01", "9999-12-31"),
        (9, 6.0, None, "2025-06-01"),
    ]
    a_history(database, rows, kind)

    assert limits(database, "2024-12-31T23:59:59+00:00") == {9: 6.0}
    assert limits(database, "2025-06-01T00:00:00+00:00") == {7: 1.0, 8: 5.0}
    assert limits(database, "2025-12-31T23:59:59+00:00") == {7: 1.0, 8: 5.0}
    assert limits(database, "2026-01-01T00:00:00+00:00") == {7: 2.0, 8: 5.0}


def test_epoch_seconds_and_their_unreadable_cells_are_periods_too(database):
    a_history(database, [(7, 1.0, 0, 1000), (7, 2.0, 1000, None), (8, 3.0, 5, 2e13)], "NUMERIC")

    assert limits(database, "1970-01-01T00:16:39+00:00") == {7: 1.0}
    assert limits(database, "1970-01-01T00:16:40+00:00") == {7: 2.0}


def test_naive_periods_are_in_the_zone_of_the_source(database):
    a_history(database, [(7, 1.0, "2026-01-01", "9999-12-31 23:59:59")], "TIMESTAMP")

    assert limits(database, "2026-01-01T04:59:59+00:00", "America/New_York") == {}
    assert limits(database, "2026-01-01T05:00:00+00:00", "America/New_York") == {7: 1.0}
    assert limits(database, "2025-12-31T15:00:00+00:00", "Asia/Tokyo") == {7: 1.0}


def test_infinity_is_an_open_end(postgresql_url):
    rows = [(7, 1.0, "-infinity", "2026-01-01"), (7, 2.0, "2026-01-01", "infinity")]
    a_history(postgresql_url, rows, "TIMESTAMPTZ")

    assert limits(postgresql_url, "1970-01-01T00:00:00+00:00") == {7: 1.0}
    assert limits(postgresql_url, "2300-01-01T00:00:00+00:00") == {7: 2.0}


def test_a_text_that_is_no_time_is_no_period(database):
    rows = [(7, 1.0, "2025-01-01", "soon"), (8, 2.0, "2025-01-01", ""), (9, 3.0, "01/02/25", None)]
    a_history(database, rows, "TEXT")

    assert limits(database, "2026-01-01T00:00:00+00:00") == {8: 2.0}


def test_a_period_that_cannot_be_one_is_refused(database):
    a_history(database, [(7, 1.0, "2025-01-01", None)], "TEXT")
    wrong = replace(CLIENTS, descriptors=("age",), valid_from="region", valid_to="untill")

    (fault,) = faults(a_source(database, customers=wrong))

    assert fault == (
        "[source.customers] valid_to: clients has no column untill; did you mean until?"
    )


def test_a_period_of_truth_values_is_refused(postgresql_url):
    a_history(postgresql_url, [(7, 1.0, True, None)], "BOOLEAN")

    found = faults(a_source(postgresql_url, customers=HISTORY))

    assert [fault.partition(", expected a timestamp")[0] for fault in found] == [
        "[source.customers] valid_from: clients.since is boolean",
        "[source.customers] valid_to: clients.until is boolean",
    ]


# --- labels -------------------------------------------------------------------------------------


def test_a_label_is_read_only_when_it_is_asked_for(database):
    columns = COLUMNS | {"is_fraud": "INTEGER", "kind": "TEXT"}
    rows = [
        a_transaction(1) | {"is_fraud": 1, "kind": "theft"},
        a_transaction(2) | {"is_fraud": None, "kind": None},
    ]
    make_table(database, "card_tx", columns, rows)

    with a_source(database, label="is_fraud", label_kind="kind") as source:
        plain = source.read(*EVER, CLOCK).rows
        labelled = source.read(*EVER, CLOCK, label="is_fraud").rows

    assert not {"label", "label_kind"} & set(plain.columns)
    assert labelled.label[0] == 1.0
    assert np.isnan(labelled.label[1])
    assert labelled.label_kind.tolist() == ["theft", ""]


@pytest.mark.parametrize(
    ("declared", "known_at"),
    [
        ("TEXT", "2026-03-05 10:30:00"),
        ("TEXT", "2026-03-05T10:30:00+01:00"),
        ("TIMESTAMP", "2026-03-05 10:30:00"),
        ("BIGINT", at("2026-03-05T10:30:00", BERLIN) // SECOND),
        ("DOUBLE PRECISION", at("2026-03-05T10:30:00", BERLIN) / SECOND),
    ],
)
def test_a_label_is_read_with_the_moment_at_which_it_was_known(database, declared, known_at):
    columns = COLUMNS | {"is_fraud": "INTEGER", "known_at": declared}
    times = {1: known_at, 2: None}
    rows = [a_transaction(i) | {"is_fraud": 1, "known_at": t} for i, t in times.items()]
    make_table(database, "card_tx", columns, rows)

    with a_source(database, "Europe/Berlin", label="is_fraud", label_time="known_at") as source:
        found = source.read(*EVER, CLOCK, label="is_fraud").rows.label_time

    assert str(found.dtype) == "Int64"
    assert found[0] == at("2026-03-05T10:30:00", BERLIN)
    assert found.isna().tolist() == [False, True]


def test_a_label_time_that_cannot_be_read_is_null_and_refuses_no_row(database):
    texts = ["soon", "", "2026-02-30", "2026-03-05 10:00:00", None, "05.03.2026", "²"]
    columns = COLUMNS | {"is_fraud": "INTEGER", "known_at": "TEXT"}
    rows = [a_transaction(i) | {"is_fraud": 1, "known_at": t} for i, t in enumerate(texts)]
    make_table(database, "card_tx", columns, rows)

    with a_source(database, label="is_fraud", label_time="known_at") as source:
        batch = source.read(*EVER, CLOCK, label="is_fraud")

    assert batch.refused.empty
    assert batch.rows.label_time.dropna().to_dict() == {3: at("2026-03-05T10:00:00")}


def test_a_label_time_is_also_read_in_the_format_of_the_times(database):
    columns = COLUMNS | {"ts": "TEXT", "is_fraud": "INTEGER", "known_at": "TEXT"}
    times = ["02/03/2026", "2026-03-03", "03-03-2026"]
    rows = [a_transaction(i, "01/03/2026") | {"known_at": t} for i, t in enumerate(times)]
    make_table(database, "card_tx", columns, rows)

    with a_source(
        database, time_format="%d/%m/%Y", label="is_fraud", label_time="known_at"
    ) as source:
        found = source.read(*EVER, CLOCK, label="is_fraud").rows.label_time

    assert found.dropna().tolist() == [at("2026-03-02T00:00:00"), at("2026-03-03T00:00:00")]


def test_garbage_among_epochs_of_labels_is_null(sqlite_url):
    columns = COLUMNS | {"is_fraud": "INTEGER", "known_at": "INTEGER"}
    values = [1772366400, "never", None, 1772366400.5]
    rows = [a_transaction(i) | {"is_fraud": 0, "known_at": v} for i, v in enumerate(values)]
    make_table(sqlite_url, "card_tx", columns, rows)

    with a_source(sqlite_url, label="is_fraud", label_time="known_at") as source:
        found = source.read(*EVER, CLOCK, label="is_fraud").rows.label_time

    assert found.isna().tolist() == [False, True, True, False]
    assert found[3] == 1772366400 * SECOND + SECOND // 2


def test_an_infinite_label_time_is_null(postgresql_url):
    columns = COLUMNS | {"is_fraud": "BOOLEAN", "known_at": "TIMESTAMPTZ"}
    row = a_transaction(1) | {"is_fraud": True, "known_at": "infinity"}
    make_table(postgresql_url, "card_tx", columns, [row])

    with a_source(postgresql_url, label="is_fraud", label_time="known_at") as source:
        (found,) = source.read(*EVER, CLOCK, label="is_fraud").rows.to_dict("records")

    assert found["label"] == 1.0
    assert pd.isna(found["label_time"])


def test_the_time_of_the_mapped_label_says_nothing_of_another(database):
    columns = COLUMNS | {"is_fraud": "INTEGER", "other": "INTEGER", "known_at": "TIMESTAMP"}
    row = a_transaction(1) | {"is_fraud": 0, "other": 1, "known_at": "2026-03-05 10:30:00"}
    make_table(database, "card_tx", columns, [row])

    with a_source(database, label="is_fraud", label_time="known_at") as source:
        source.require_label("other")
        other = source.read(*EVER, CLOCK, label="other").rows
    with a_source(database, label_time="known_at") as source:
        source.require_label("is_fraud")
        named = source.read(*EVER, CLOCK, label="is_fraud").rows

    assert other.label.tolist() == [1.0]
    assert "label_time" not in other
    assert "label_time" in named


def test_a_label_time_of_truth_values_is_refused(postgresql_url):
    make_table(postgresql_url, "card_tx", COLUMNS | {"known_at": "BOOLEAN"}, [])

    (fault,) = faults(a_source(postgresql_url, label_time="known_at"))

    assert "[source.transactions] label_time: card_tx.known_at is boolean, expected a time" in fault


def test_a_label_time_that_was_recorded_as_a_number_is_still_the_same(sqlite_url):
    make_table(sqlite_url, "card_tx", COLUMNS | {"known_at": "INTEGER"}, [])

    with a_source(sqlite_url, label_time="known_at") as source:
        assert source.types["card_tx.known_at"] == "epoch"
        assert source.changed(source.types | {"card_tx.known_at": "integer"}) == []
        assert source.changed(source.types | {"card_tx.known_at": "text"}) != []


# --- entities and the score of another system ---------------------------------------------------


def test_entities_keep_their_kind_and_may_be_null(database):
    columns = COLUMNS | {"device": "TEXT", "card no": "BIGINT"}
    rows = [
        a_transaction(1) | {"device": "d-ä'1", "card no": 2**62 + 1},
        a_transaction(2) | {"device": None, "card no": None},
        a_transaction(3) | {"device": "", "card no": 0},
    ]
    make_table(database, "card_tx", columns, rows)

    batch = a_batch(database, entities=("device", "card no"))

    assert batch.refused.empty
    assert batch.rows["entity.device"].isna().tolist() == [False, True, True]
    assert batch.rows["entity.device"][0] == "d-ä'1"
    assert str(batch.rows["entity.card no"].dtype) == "Int64"
    assert batch.rows["entity.card no"].tolist() == [2**62 + 1, pd.NA, 0]


def test_an_entity_may_be_a_uuid(postgresql_url):
    key = str(uuid.UUID(int=2**127))
    row = a_transaction(1) | {"device": key}
    make_table(postgresql_url, "card_tx", COLUMNS | {"device": "UUID"}, [row])

    assert a_batch(postgresql_url, entities=("device",)).rows["entity.device"].tolist() == [key]


def test_an_entity_of_another_kind_is_refused_like_a_counterparty(sqlite_url):
    columns = COLUMNS | {"device": "BIGINT", "card": "BIGINT"}
    rows = [
        a_transaction(1) | {"device": 5, "card": 1},
        a_transaction(2) | {"device": "five", "card": 1},
        a_transaction(3) | {"device": "six", "card": 1.5},
    ]
    make_table(sqlite_url, "card_tx", columns, rows)

    batch = a_batch(sqlite_url, entities=("device", "card"))

    assert batch.rows.transaction_id.tolist() == [1]
    assert codes(batch.refused) == {
        ("2", "entity_wrong_type", "device"),
        ("3", "entity_wrong_type", "device"),
        ("3", "entity_wrong_type", "card"),
    }


@pytest.mark.parametrize("declared", ["DOUBLE PRECISION", "BOOLEAN", "DATE", "JSON"])
def test_an_entity_of_a_type_that_is_no_key_is_named_with_what_mends_it(postgresql_url, declared):
    make_table(postgresql_url, "card_tx", COLUMNS | {"device": declared}, [])

    (fault,) = faults(a_source(postgresql_url, entities=("device",)))

    assert fault.startswith("[source.transactions] entities: column device is ")
    assert fault.endswith("Map a view that casts it: CAST(device AS TEXT).")


def test_a_missing_entity_or_baseline_score_names_the_nearest_column(database):
    make_table(database, "card_tx", COLUMNS | {"device_id": "TEXT", "rule_score": "INTEGER"}, [])

    found = faults(a_source(database, entities=("device",), baseline_score="rules_score"))

    assert found == [
        "[source.transactions] baseline_score: card_tx has no column rules_score; did you mean "
        "rule_score?",
        "[source.transactions] entities: card_tx has no column device; did you mean device_id?",
    ]


@pytest.mark.parametrize("declared", ["INTEGER", "NUMERIC(6, 2)", "DOUBLE PRECISION"])
def test_the_score_of_another_system_is_a_number_or_missing(database, declared):
    rows = [a_transaction(i) | {"rule_score": score} for i, score in enumerate([700, None, 0])]
    make_table(database, "card_tx", COLUMNS | {"rule_score": declared}, rows)

    found = a_batch(database, baseline_score="rule_score").rows.baseline

    assert found.dtype == "float64"
    np.testing.assert_array_equal(found, [700.0, np.nan, 0.0])


def test_a_score_that_is_no_number_is_missing_and_refuses_no_row(database):
    rows = [a_transaction(1) | {"rule_score": 0.5}, a_transaction(2) | {"rule_score": "nan"}]
    make_table(database, "card_tx", COLUMNS | {"rule_score": "DOUBLE PRECISION"}, rows)

    batch = a_batch(database, baseline_score="rule_score")

    assert batch.refused.empty
    np.testing.assert_array_equal(batch.rows.baseline, [0.5, np.nan])


def test_a_score_in_words_is_named(database):
    make_table(database, "card_tx", COLUMNS | {"rule_score": "TEXT"}, [])

    (fault,) = faults(a_source(database, baseline_score="rule_score"))

    assert "[source.transactions] baseline_score: card_tx.rule_score is text, expected a" in fault


def test_keys_are_those_of_the_rows_that_the_gate_lets_through(database):
    columns = COLUMNS | {"device": "TEXT", "is_fraud": "INTEGER", "known_at": "TEXT"}
    known = {"device": "d1", "is_fraud": 1, "known_at": "2026-03-05"}
    rows = [
        a_transaction(1) | known,
        a_transaction(2, cust=None, merchant_id=None, km=None, channel=None),
        a_transaction(3, amt=None) | known,
        a_transaction(4, km=float("inf")) | known,
        a_transaction(5) | known,
        a_transaction(5) | known,
        a_transaction(6, "2026-03-02 00:00:00") | known,
    ]
    make_table(database, "card_tx", columns, rows)
    mapped = {"entities": ("device",), "label": "is_fraud", "label_time": "known_at"}

    with a_source(database, **mapped) as source:
        window = at("2026-03-01T00:00:00"), at("2026-03-02T00:00:00")
        found = source.read_keys(*window, CLOCK)
        rows = source.read(*window, CLOCK, label="is_fraud").rows

    assert found.columns.tolist() == [
        "transaction_id", "occurred_at", "customer_id", "counterparty_id", "entity.device", "label",
        "label_time",
    ]  # fmt: skip
    assert found.transaction_id.tolist() == [1, 2]
    pd.testing.assert_frame_equal(found, rows[found.columns])


def test_keys_of_rows_without_labels_have_none(database):
    a_bank(database, [a_transaction(1)])

    with a_source(database, customer=None) as source:
        found = source.read_keys(*EVER, CLOCK)

    assert found.columns.tolist() == ["transaction_id", "occurred_at", "counterparty_id"]


# --- the source is never written ----------------------------------------------------------------


def test_sessions_on_the_source_refuse_writes(database):
    import sqlalchemy as sa

    from shared.database import transaction

    a_bank(database, [a_transaction()])

    with (
        a_source(database) as source,
        pytest.raises(PeerwatchError),
        transaction(source.engine) as c,
    ):
        c.execute(sa.text("DELETE FROM card_tx"))

    assert ask(database, "SELECT count(*) FROM card_tx") == [(1,)]


def test_a_writer_can_commit_while_a_source_is_open(database):
    a_bank(database, [a_transaction()])

    with a_source(database) as source:
        source.read(*EVER, CLOCK)
        add_rows(database, "card_tx", list(COLUMNS), [a_transaction(2)])

        assert len(source.read(*EVER, CLOCK).rows) == 2


def test_a_source_file_that_is_not_there_is_not_made(tmp_path):
    url = f"sqlite:///{tmp_path / 'none.db'}"

    with pytest.raises(ConfigurationError, match="There is no SQLite database"):
        a_source(url).__enter__()

    assert not (tmp_path / "none.db").exists()


def test_a_file_that_is_no_database_is_refused(tmp_path):
    path = tmp_path / "letter.db"
    path.write_text("Dear Sir, " * 100)

    with pytest.raises(PeerwatchError, match="not a database"):
        a_source(f"sqlite:///{path}").__enter__()


def test_the_clock_of_these_tests_is_a_friday():
    assert (NOW.date(), quoted("a")) == (date(2026, 3, 20), '"a"')


def test_a_transaction_that_the_gate_refuses_is_named_with_its_code(database):
    a_bank(database, [a_transaction(1), a_transaction(2, amt=None)])

    with a_source(database) as source:
        source.moment_of(1, CLOCK)
        with pytest.raises(ConfigurationError, match="2 in card_tx: it is refused as amount_null"):
            source.moment_of(2, CLOCK)
        with pytest.raises(ConfigurationError, match="3 in card_tx: none has that tx_id"):
            source.moment_of(3, CLOCK)
