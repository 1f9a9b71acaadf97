"""The books: every refused row kept once, every source row in one column of `coverage`."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa

from shared import accounts, frames
from shared.errors import DataQualityError
from shared.frames import micros
from shared.runs import Results, write_settings
from tests.builders import (
    CLOCK,
    COLUMNS,
    EVER,
    NOW,
    a_bank,
    a_run,
    a_source,
    a_transaction,
    add_rows,
    make_results,
    make_table,
    run_sql,
)

DAY = frames.MICROSECONDS_PER_DAY
FIRST, SECOND = date(2026, 3, 1), date(2026, 3, 2)


@pytest.fixture
def results(database) -> Results:
    return make_results(database)


def refusals(results: Results, resolved: bool = False) -> set[tuple]:
    """(key, code, day, rows) of what is open, or of what is resolved."""
    table = results.tables.quarantined_rows
    at = table.c.resolved_at
    select = sa.select(table.c.row_key, table.c.code, table.c.day, table.c.source_rows)
    with results.transaction() as connection:
        rows = connection.execute(select.where(at.is_not(None) if resolved else at.is_(None)))
        return {tuple(row) for row in rows}


def score(
    url: str, results: Results, run_id: str, window=EVER, zone: str = "UTC", scope=None
) -> int:
    """One run as a job does it: refusals kept, valid rows published, days counted."""
    with a_source(url, zone) as source:
        run = a_run(source, results, run_id)
        batch, undated = source.read(*window, CLOCK), source.undated(CLOCK)
        counted = source.counted(CLOCK)
        refused = frames.gather([batch.refused, undated])
        rows = batch.rows
        with results.transaction() as connection:
            refused = accounts.less_published(connection, run, refused)
            new = accounts.quarantine(
                connection, run, refused, rows.transaction_id, window, undated=True
            )
            _publish(connection, results, rows, zone)
            accounts.count_days(connection, run, np.datetime64(scope or "1900-01-01"), counted)
            write_settings(connection, results.tables, {"look_back_from": "2026-03-02"})
    return new


def _publish(connection, results: Results, rows: pd.DataFrame, zone: str) -> None:
    from shared.database import insert_new

    frame = pd.DataFrame(
        {
            "transaction_id": rows.transaction_id,
            "model_version_id": "m",
            "role": "published",
            "customer_id": rows.customer_id,
            "occurred_at": rows.occurred_at,
            "day": frames.local_days(rows.occurred_at.to_numpy(), zone),
            "log_likelihood": 0.0,
            "anomaly_score": 0.0,
            "p_value": 1.0,
            "in_sample": False,
            "run_id": "r",
            "scored_at": NOW,
        }
    )
    insert_new(connection, results.tables.transaction_scores, frame)


NAMES = (
    "source_rows", "before_scope", "scored", "quarantined", "pending", "too_late",
    "gone_from_source",
)  # fmt: skip


def coverage(results: Results) -> dict[date | None, dict[str, int]]:
    columns = [sa.column("day", sa.Date), *(sa.column(name) for name in NAMES)]
    with results.transaction() as connection:
        rows = connection.execute(sa.select(*columns).select_from(results.tables.view("coverage")))
        found = {row.day: {name: int(getattr(row, name)) for name in NAMES} for row in rows}
    for day in found.values():  # the sum that the contract promises
        parts = day["before_scope"] + day["scored"] + day["quarantined"] + day["pending"]
        assert day["source_rows"] == parts - day["gone_from_source"]
    return found


def counted(**parts: int) -> dict[str, int]:
    return dict.fromkeys(NAMES, 0) | parts


BAD = [
    a_transaction(1, amt=None, km=float("inf")),
    a_transaction(2, None),
    a_transaction(None),
    a_transaction(None),
    a_transaction(None, "2026-03-02 10:00:00"),
    a_transaction(3),
    a_transaction(3),
    a_transaction(3, "2026-03-02 10:00:00"),
    a_transaction(4, "2026-03-25 10:00:00"),
    a_transaction(5),
]
REFUSED = {
    ("1", "amount_null", FIRST, 1), ("1", "number_infinite", FIRST, 1), ("2", "time_null", None, 1),
    ("(null)", "id_null", FIRST, 2), ("(null)", "id_null", SECOND, 1),
    ("3", "id_duplicate", FIRST, 2), ("3", "id_duplicate", SECOND, 1),
    ("4", "time_in_future", None, 1),
}  # fmt: skip


def test_each_refused_row_and_code_is_kept_once(database, results):
    a_bank(database, BAD)

    first = score(database, results, "run-1")
    again = score(database, results, "run-2")

    assert (first, again) == (len(REFUSED), 0)
    assert refusals(results) == REFUSED
    assert refusals(results, resolved=True) == set()


def test_the_books_balance_on_every_day(database, results):
    a_bank(database, BAD)
    for run in ("run-1", "run-2"):
        score(database, results, run)

        assert coverage(results) == {
            FIRST: counted(source_rows=6, scored=1, quarantined=5),
            SECOND: counted(source_rows=2, quarantined=2),
            None: counted(source_rows=2, quarantined=2),
        }


def test_a_row_that_becomes_valid_is_resolved(database, results):
    a_bank(database, BAD)
    score(database, results, "run-1")
    run_sql(
        database,
        "UPDATE card_tx SET amt = 1, km = 1 WHERE tx_id = 1",
        "UPDATE card_tx SET ts = '2026-03-02 11:00:00' WHERE tx_id IN (2, 4)",
        "UPDATE card_tx SET tx_id = 10 WHERE tx_id IS NULL AND ts > '2026-03-02'",
        "DELETE FROM card_tx WHERE tx_id = 3 AND ts < '2026-03-02'",
    )

    score(database, results, "run-2")

    left = {("(null)", "id_null", FIRST, 2)}
    assert refusals(results) == left
    assert refusals(results, resolved=True) == REFUSED - left
    assert coverage(results) == {
        FIRST: counted(source_rows=4, scored=2, quarantined=2),
        SECOND: counted(source_rows=4, scored=4),
    }


def test_a_row_with_another_fault_keeps_one_and_resolves_the_other(database, results):
    a_bank(database, [a_transaction(1, amt=None)])
    score(database, results, "run-1")
    run_sql(database, "UPDATE card_tx SET amt = 1, tx_id = NULL")
    run_sql(database, "UPDATE card_tx SET tx_id = 1, ts = NULL")

    score(database, results, "run-2")

    assert refusals(results) == {("1", "time_null", None, 1)}
    assert refusals(results, resolved=True) == {("1", "amount_null", FIRST, 1)}


def test_a_refusal_outside_the_window_stays_open(database, results):
    a_bank(
        database, [a_transaction(1, amt=None), a_transaction(2, "2026-03-05 10:00:00", amt=None)]
    )
    score(database, results, "run-1")
    later = (micros(datetime(2026, 3, 5, tzinfo=UTC)), EVER[1])

    score(database, results, "run-2", later)

    assert {row[0] for row in refusals(results)} == {"1", "2"}


def test_a_refusal_on_a_day_that_is_read_in_part_stays_open(database, results):
    a_bank(database, [a_transaction(1, "2026-03-01 08:00:00", amt=None)])
    score(database, results, "run-1")
    afternoon = (micros(datetime(2026, 3, 1, 12, tzinfo=UTC)), EVER[1])

    score(database, results, "run-2", afternoon)

    assert {row[0] for row in refusals(results)} == {"1"}


def test_a_row_that_falls_ill_again_is_opened_again(database, results):
    a_bank(database, [a_transaction(1, amt=None)])
    score(database, results, "run-1")
    run_sql(database, "UPDATE card_tx SET ts = NULL, amt = 1")
    score(database, results, "run-2")
    run_sql(database, "UPDATE card_tx SET ts = '2026-03-01 12:00:00', amt = NULL")

    score(database, results, "run-3")

    assert refusals(results) == {("1", "amount_null", FIRST, 1)}


def test_a_repeat_of_a_scored_row_is_the_only_one_refused(database, results):
    a_bank(database, [a_transaction(1), a_transaction(2)])
    score(database, results, "run-1")
    again = [a_transaction(1), a_transaction(2, "2026-03-02 10:00:00")]
    add_rows(database, "card_tx", list(COLUMNS), again)

    for run in ("run-2", "run-3"):
        score(database, results, run)

        assert refusals(results) == {
            ("1", "id_duplicate", FIRST, 1),
            ("2", "id_duplicate", SECOND, 1),
        }
        assert coverage(results) == {
            FIRST: counted(source_rows=3, scored=2, quarantined=1),
            SECOND: counted(source_rows=1, quarantined=1),
        }


def test_a_row_that_is_gone_from_the_source_is_shown(database, results):
    a_bank(database, [a_transaction(1), a_transaction(2)])
    score(database, results, "run-1")
    run_sql(database, "DELETE FROM card_tx WHERE tx_id = 1")

    score(database, results, "run-2")

    assert coverage(results) == {FIRST: counted(source_rows=1, scored=2, gone_from_source=1)}


def test_a_day_whose_rows_are_all_gone_stays_in_the_books(database, results):
    a_bank(database, [a_transaction(1), a_transaction(2, "2026-03-02 10:00:00")])
    score(database, results, "run-1")
    run_sql(database, "DELETE FROM card_tx WHERE tx_id = 2")

    for run in ("run-2", "run-3"):
        score(database, results, run)

        assert coverage(results) == {
            FIRST: counted(source_rows=1, scored=1),
            SECOND: counted(scored=1, gone_from_source=1),
        }


def test_unscored_rows_are_pending_and_those_behind_the_look_back_too_late(database, results):
    rows = [a_transaction(i, f"2026-03-0{i} 10:00:00") for i in (1, 2, 3)]
    a_bank(database, rows)

    score(database, results, "run-1", (EVER[1] - 1, EVER[1]))

    assert coverage(results) == {
        FIRST: counted(source_rows=1, pending=1, too_late=1),
        SECOND: counted(source_rows=1, pending=1),
        date(2026, 3, 3): counted(source_rows=1, pending=1),
    }
    with a_source(database) as source, results.transaction() as connection:
        assert accounts.too_late(connection, a_run(source, results)) == 1


def test_rows_before_the_scope_are_counted_apart_until_a_backfill_scores_them(database, results):
    rows = [a_transaction(1), a_transaction(2, amt=None), a_transaction(3, "2026-03-02 10:00:00")]
    a_bank(database, rows)
    scope = micros(datetime(2026, 3, 2, tzinfo=UTC))

    score(database, results, "run-1", (scope, EVER[1]), scope="2026-03-02")
    before = coverage(results)
    score(database, results, "run-2", scope="2026-03-02")

    assert before == {
        FIRST: counted(source_rows=2, before_scope=2),
        SECOND: counted(source_rows=1, scored=1),
    }
    assert coverage(results) == {
        FIRST: counted(source_rows=2, before_scope=1, scored=1),
        SECOND: counted(source_rows=1, scored=1),
    }


def test_days_are_those_of_the_zone(database, results):
    texts = ["2026-03-01 00:30:00", "2026-03-01 23:30:00", "2026-03-02 00:30:00"]
    rows = [a_transaction(i, text) for i, text in enumerate(texts)]
    a_bank(database, [*rows, a_transaction(9, "2026-03-02 00:10:00", amt=None)])

    score(database, results, "run-1", zone="Europe/Berlin")

    assert coverage(results) == {
        FIRST: counted(source_rows=2, scored=2),
        SECOND: counted(source_rows=2, scored=1, quarantined=1),
    }
    assert refusals(results) == {("9", "amount_null", SECOND, 1)}


def test_text_keys_are_quarantined_and_resolved(database):
    keys = {"transaction": "text", "customer": "integer", "counterparty": "integer"}
    results = make_results(database, keys)
    a_bank(database, [a_transaction("a'b", amt=None), a_transaction("c")], tx_id="TEXT")
    score(database, results, "run-1")
    opened = refusals(results)
    run_sql(database, "UPDATE card_tx SET amt = 1")

    score(database, results, "run-2")

    assert opened == {("a'b", "amount_null", FIRST, 1)}
    assert refusals(results) == set()


# --- the inspection before a run ----------------------------------------------------------------


def an_inspection(url: str, results: Results, since: int, until: int, zone: str = "UTC"):
    with a_source(url, zone) as source:
        return accounts.inspect(a_run(source, results), since, until)


def test_a_row_with_several_faults_is_one_refused_row(database, results):
    a_bank(database, BAD)

    found = an_inspection(database, results, *EVER)

    assert found.rows_refused == 9
    assert found.rows_read == 8
    assert len(found.undated) == 2


def test_nothing_refused_is_no_fault(database, results):
    a_bank(database, [a_transaction()])

    found = an_inspection(database, results, *EVER)

    assert found.rows_refused == 0
    accounts.require_quality(found, 0.0, "fraudwatch score")


def test_too_many_refused_rows_stop_the_run_and_say_how_many(database, results):
    a_bank(database, [a_transaction(i, amt=None if i < 2 else 1) for i in range(20)])
    found = an_inspection(database, results, *EVER)

    accounts.require_quality(found, 0.1, "fraudwatch score")
    with pytest.raises(DataQualityError) as caught:
        accounts.require_quality(found, 0.09, "fraudwatch score")

    assert caught.value.exit_code == 4
    for part in ("2 of 20 rows", "amount_null: 2", "9.0%", "Nothing was written"):
        assert part in str(caught.value)


def test_slices_are_whole_days_that_touch_and_hold_every_row(database, results, monkeypatch):
    monkeypatch.setattr(accounts, "SLICE_ROWS", 3)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [
        a_transaction(i, str((start + timedelta(hours=7 * i)).replace(tzinfo=None)))
        for i in range(20)
    ]
    a_bank(database, rows)
    since, until = micros(start) + 1, micros(start) + 5 * DAY

    found = an_inspection(database, results, since, until, "Europe/Berlin")

    assert found.slices[0][0] == since
    assert found.slices[-1][1] == until
    for (_, end), (begin, _) in zip(found.slices, found.slices[1:], strict=False):
        assert end == begin
        assert frames.local_days(np.array([end - 1, end]), "Europe/Berlin").tolist() == [
            date(2026, 3, 1) + timedelta(days=(end - micros(start)) // DAY - 0) + timedelta(days=i)
            for i in (0, 1)
        ]
    with a_source(database, "Europe/Berlin") as source:
        whole = source.read(since, until, CLOCK)
        parts = [source.read(*piece, CLOCK) for piece in found.slices]
    assert found.rows_read == whole.rows_read == sum(part.rows_read for part in parts)
    assert len(found.slices) > 3


def test_streamed_slices_have_their_lead_in_and_every_row_once(database, results, monkeypatch):
    monkeypatch.setattr(accounts, "SLICE_ROWS", 3)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [
        a_transaction(i, str((start + timedelta(hours=5 * i)).replace(tzinfo=None)))
        for i in range(40)
    ]
    a_bank(database, rows)
    since, until = micros(start) + 3 * DAY, micros(start) + 7 * DAY

    with a_source(database) as source:
        run = a_run(source, results)
        slices = accounts.inspect(run, since, until).slices
        pieces = list(accounts.stream(run, slices, 2 * DAY))
        everything = source.read(*EVER, CLOCK).rows

    seen: list[int] = []
    for (begin, end), (frame, own, batch) in zip(slices, pieces, strict=True):
        times = everything.occurred_at
        expected = everything[(times >= begin - 2 * DAY) & (times < end)]
        assert frame.transaction_id.tolist() == expected.transaction_id.tolist()
        assert frame.transaction_id[own].tolist() == batch.rows.transaction_id.tolist()
        seen += batch.rows.transaction_id.tolist()
    times = everything.occurred_at
    assert seen == everything.transaction_id[(times >= since) & (times < until)].tolist()


def test_labels_and_keys_roll_on_with_the_lead_in(database, results, monkeypatch):
    monkeypatch.setattr(accounts, "SLICE_ROWS", 3)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    rows = [
        a_transaction(i, str((start + timedelta(hours=5 * i)).replace(tzinfo=None)))
        | {"device": f"d{i % 3}" if i % 5 else None, "fraud": i % 2}
        | {"known_at": "2026-03-19 10:00:00" if i % 2 else None}
        for i in range(30)
    ]
    more = {"device": "TEXT", "fraud": "INTEGER", "known_at": "TEXT"}
    make_table(database, "card_tx", COLUMNS | more, rows)
    mapped = {"entities": ("device",), "label": "fraud", "label_time": "known_at"}

    with a_source(database, **mapped) as source:
        run = a_run(source, results)
        slices = accounts.inspect(run, micros(start) + 3 * DAY, micros(start) + 6 * DAY).slices
        pieces = list(accounts.stream(run, slices, 2 * DAY, label="fraud"))
        everything = source.read(*EVER, CLOCK, label="fraud").rows.set_index("transaction_id")

    assert len(pieces) > 1
    for frame, _own, _batch in pieces:
        expected = everything.loc[frame.transaction_id].reset_index()
        pd.testing.assert_frame_equal(frame, expected)


def test_an_empty_source_has_empty_books(database, results):
    a_bank(database)

    score(database, results, "run-1")

    assert coverage(results) == {}
    assert an_inspection(database, results, *EVER).rows_read == 0
