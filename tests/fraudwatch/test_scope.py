"""Where a scoring run looks: the whole look-back when it is due, else what is new or known late."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from click.testing import CliRunner

from fraudwatch.scope import remember_reached, to_score
from shared import frames, runs
from shared.cli import cli
from shared.errors import DataQualityError
from shared.jobs import Outcome, Request
from tests.builders import COLUMNS, NOW, a_source, a_transaction, add_rows, make_table
from tests.small_bank import END, FITTED, SCOPE, TYPES, Bank, copies, moment_of, transactions

SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
SCHEDULED = {"options": {"scheduled": True}}
UNTIL = FITTED + 5 * DAY  # what is there for the first run
SOON = timedelta(minutes=15)  # after a run, when the next of the schedule comes
LATE = 77_000  # transactions of these tests begin here


def a_payment(tx_id: int, at: datetime, **changes: Any) -> dict[str, Any]:
    """An ordinary payment, as the small bank's."""
    usual = next(row for row in transactions() if row["cust"] == 7)
    return {**usual, "tx_id": tx_id, "ts": shown(at), **changes}


def shown(moment: datetime) -> str:
    return moment.replace(tzinfo=None).isoformat(sep=" ")


@pytest.fixture(scope="module")
def scored_sqlite(fitted_sqlite: str) -> Iterator[str]:
    """The fitted bank after the schedule's first run at NOW; tests work on copies of it."""
    with copies(fitted_sqlite) as url:
        scored(Bank(url))
        yield url


@pytest.fixture
def bank(scored_sqlite: str) -> Iterator[Bank]:
    with copies(scored_sqlite) as url:
        yield Bank(url)


def scored(bank: Bank, after: timedelta = timedelta(), until: datetime = UNTIL) -> Outcome:
    """A run of the schedule so long after the first; what occurs from `until` on is not there."""
    return bank.score(now=NOW + after, until=until, **SCHEDULED)


def looked_at(
    bank: Bank, after: timedelta = timedelta(), until: datetime = UNTIL, *, scheduled: bool = True
) -> tuple[datetime, bool]:
    """From where a run so long after the first would look, and whether that is all of it."""
    with runs.opened(bank.config, "fraudwatch.score", NOW + after) as run:
        request = Request(options={"scheduled": scheduled})
        found = to_score(run, request, frames.micros(until))
    return frames.moment(found.since), found.whole


def watermark(bank: Bank) -> datetime:
    there = bank.published()
    newest = max(moment_of(row) for row in transactions() if row["tx_id"] in there)
    assert newest < UNTIL
    return newest


def midnight_before(newest: datetime, days: int) -> datetime:
    return (newest - days * DAY).replace(hour=0, minute=0, second=0, microsecond=0)


def test_the_first_run_looks_from_the_start_of_the_scope(fitted_sqlite):
    with copies(fitted_sqlite) as url:
        assert looked_at(Bank(url)) == (SCOPE, True)


def test_the_schedule_looks_back_wholly_once_an_hour(bank):
    newest = watermark(bank)

    assert looked_at(bank, SOON) == (newest - HOUR, False)
    assert looked_at(bank, HOUR - SECOND) == (newest - HOUR, False)
    assert looked_at(bank, HOUR) == (max(SCOPE, midnight_before(newest, 7)), True)


def test_the_look_back_counts_from_the_watermark_and_not_from_the_clock(bank):
    bank.settings["allowed_lateness_days"] = 2
    behind = midnight_before(watermark(bank), 2)

    assert behind > SCOPE
    assert looked_at(bank, HOUR) == looked_at(bank, 60 * DAY, END) == (behind, True)


def test_a_run_by_hand_always_looks_back_wholly(bank):
    assert looked_at(bank, SOON, scheduled=False) == looked_at(bank, HOUR)


def test_a_run_by_hand_up_to_an_earlier_moment_is_no_look_back(bank):
    before = looked_at(bank, HOUR, END)
    scored(bank, SOON, END)

    bank.score(now=NOW + HOUR - SECOND, until=UNTIL - 3 * DAY)

    assert looked_at(bank, HOUR, END) == before, "what came late after it is still looked for"


def test_a_clock_that_went_back_does_not_put_off_the_look_back(bank):
    assert looked_at(bank, -SECOND) == looked_at(bank, HOUR)


def test_another_scope_is_looked_at_from_its_start_at_once(bank):
    bank.settings["score_from"] = (SCOPE - 3 * DAY).date()

    assert looked_at(bank, SOON) == (SCOPE - 3 * DAY, True)


def test_a_run_by_hand_that_ends_early_does_not_count_as_one_of_an_earlier_scope(bank):
    bank.settings["score_from"] = (SCOPE - 3 * DAY).date()

    bank.score(now=NOW + SECOND, until=SCOPE - 2 * DAY)

    assert looked_at(bank, SOON) == (SCOPE - 3 * DAY, True), "two days of it were not looked at"


def test_a_commit_order_hole_is_found_by_the_next_whole_look_back(fitted_database):
    """A row of an earlier time became visible after later ones were scored."""
    bank = Bank(fitted_database)
    scored(bank)
    bank.add([a_payment(LATE, watermark(bank) - 2 * DAY)])

    in_between = scored(bank, SOON)
    whole = scored(bank, HOUR)

    assert (in_between.rows_written, whole.rows_written, whole.rows_late) == (0, 1, 1)
    assert LATE in bank.published()
    assert bank.unbalanced() == []


def test_a_week_of_downtime_loses_nothing(bank):
    """What came late before the week is found after it, and all of the week."""
    bank.add([a_payment(LATE, watermark(bank) - 6 * DAY)])

    outcome = scored(bank, 8 * DAY, END)

    assert LATE in bank.published()
    assert outcome.rows_late == 1
    assert bank.covered("pending") == 0


def test_what_came_late_before_a_leap_of_the_watermark_is_still_looked_for(bank):
    """Between two whole look-backs the watermark may leap by days: what was within reach of the
    first stays within reach of the second."""
    before = looked_at(bank, HOUR)

    leap = scored(bank, SOON, END)

    assert leap.rows_written > 400
    assert looked_at(bank, HOUR, END) == before
    bank.settings["allowed_lateness_days"] = 2
    assert looked_at(bank, HOUR, END) != before, "else the scope's start hides it"


def test_a_run_in_between_keeps_the_books_of_the_days_that_it_did_not_read(fitted_sqlite):
    with copies(fitted_sqlite) as url:
        bank = Bank(url)
        bank.add([a_payment(LATE, UNTIL, ts=None)])
        scored(bank)
        books = "SELECT day, source_rows FROM #source_days WHERE day < '2026-02-19'"
        before = bank.ask(books)
        bank.add([a_payment(LATE + 1, UNTIL)])

        scored(bank, SOON, UNTIL + HOUR)

        assert len(before) > 40
        assert sorted(bank.ask(books)) == sorted(before)
        assert bank.ask("SELECT source_rows FROM #source_days WHERE day IS NULL") == [(1,)]
        assert bank.count("quarantined_rows", "resolved_at IS NULL") == 1
        assert LATE + 1 in bank.published()
        assert bank.unbalanced() == []


def test_a_few_bad_rows_of_a_short_window_do_not_stop_it_but_the_whole_look_back_judges(bank):
    bad = {"amt": None}
    bank.add(
        a_payment(LATE + i, UNTIL + i * SECOND) | (bad if i % 4 == 0 else {}) for i in range(300)
    )

    quick = scored(bank, SOON, UNTIL + HOUR)

    assert quick.rows_quarantined == 75
    assert quick.rows_quarantined > 0.05 * quick.rows_read
    assert quick.rows_written >= 225
    with pytest.raises(DataQualityError, match="refused"):
        scored(bank, HOUR, UNTIL + HOUR)


# --- arrivals -----------------------------------------------------------------------------------


@pytest.fixture
def timed_bank(scored_sqlite: str) -> Iterator[Bank]:
    """A bank that knows when its rows arrived: after an hour each; it is scored, and what has
    arrived is seen."""
    with copies(scored_sqlite) as url:
        bank = Bank(url)
        bank.say(
            "ALTER TABLE card_tx ADD COLUMN arrived TEXT",
            "UPDATE card_tx SET arrived = datetime(ts, '+1 hour')",
        )
        bank.mapped["arrived_at"] = "arrived"
        remember(bank, timedelta())
        yield bank


def remember(bank: Bank, after: timedelta) -> None:
    """Keeps what a run so long after the first has seen, without its scores."""
    with runs.opened(bank.config, "fraudwatch.score", NOW + after) as run:
        request = Request(options={"scheduled": True})
        found = to_score(run, request, frames.micros(UNTIL))
        with run.results.transaction() as connection:
            remember_reached(connection, run, found)


def arrive(bank: Bank, at: datetime, arrived: datetime, tx_id: int = LATE, **changes: Any) -> None:
    row = a_payment(tx_id, at, arrived=shown(arrived), **changes)
    add_rows(bank.url, "card_tx", [*TYPES, "arrived"], [row])


def test_a_column_of_arrivals_that_is_new_makes_the_look_back_whole(scored_sqlite):
    with copies(scored_sqlite) as url:
        bank = Bank(url)
        before = looked_at(bank, SOON)
        bank.say("ALTER TABLE card_tx ADD COLUMN arrived TEXT")
        bank.mapped["arrived_at"] = "arrived"

        assert before[1] is False
        assert looked_at(bank, SOON)[1] is True


def test_without_late_arrivals_a_run_looks_at_the_overlap_alone_all_day(timed_bank):
    newest = watermark(timed_bank)

    assert looked_at(timed_bank, SOON) == (newest - HOUR, False)
    assert looked_at(timed_bank, DAY - SECOND) == (newest - HOUR, False)
    assert looked_at(timed_bank, DAY)[1] is True, "for rows whose arrival is missing or wrong"


def test_a_row_that_arrived_late_is_where_the_run_begins(timed_bank):
    at = watermark(timed_bank) - 3 * DAY
    arrive(timed_bank, at, NOW + SOON)
    arrive(timed_bank, at + HOUR, NOW + SOON, LATE + 1)

    assert looked_at(timed_bank, SOON) == (at, False)
    outcome = scored(timed_bank, SOON)
    assert outcome.rows_written == outcome.rows_late == 2
    assert looked_at(timed_bank, 2 * SOON) == (watermark(timed_bank) - HOUR, False)


def test_a_row_that_became_visible_after_later_arrivals_is_found_within_the_margin(timed_bank):
    """Its transaction began before another's that was seen, and ended after."""
    at = watermark(timed_bank) - 3 * DAY
    arrive(timed_bank, UNTIL + SECOND, NOW)
    remember(timed_bank, SOON)
    arrive(timed_bank, at, NOW - HOUR, LATE + 1)
    arrive(timed_bank, at - DAY, NOW - HOUR - SECOND, LATE + 2)

    assert looked_at(timed_bank, 2 * SOON) == (at, False)
    assert looked_at(timed_bank, DAY)[0] < at - DAY, "beyond the margin the whole look-back does"


def test_a_row_that_is_later_than_allowed_waits_for_backfill(timed_bank):
    timed_bank.settings["allowed_lateness_days"] = 2
    behind = midnight_before(watermark(timed_bank), 2)
    arrive(timed_bank, behind - SECOND, NOW + SOON)

    assert looked_at(timed_bank, SOON) == (watermark(timed_bank) - HOUR, False)
    arrive(timed_bank, behind, NOW + SOON, LATE + 1)
    assert looked_at(timed_bank, SOON) == (behind, False)


def test_an_arrival_in_the_future_hides_none_that_come_after(timed_bank):
    arrive(timed_bank, UNTIL - DAY, datetime(2999, 1, 1))
    remember(timed_bank, SOON)
    at = watermark(timed_bank) - 3 * DAY
    arrive(timed_bank, at, NOW + SOON, LATE + 1)

    assert looked_at(timed_bank, 2 * SOON) == (at, False)


@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ", "DATE", "TEXT", "BIGINT"])
def test_arrivals_are_found_in_a_column_of_any_kind_of_time(postgresql_url, kind):
    days = [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2, 3)]
    rows = [
        a_transaction(
            tx_id=i,
            ts=shown(day - 2 * DAY),
            arrived=int(day.timestamp()) if kind == "BIGINT" else shown(day),
        )
        for i, day in enumerate(days)
    ]
    make_table(postgresql_url, "card_tx", COLUMNS | {"arrived": kind}, [*rows, a_transaction(9)])
    ever = (0, frames.micros(NOW))

    with a_source(postgresql_url, arrived_at="arrived") as source:
        found, newest = source.arrived(frames.micros(days[1]), ever, frames.micros(NOW))
        assert newest == source.newest(frames.micros(NOW), "arrived_at") == frames.micros(days[2])
        narrow, _ = source.arrived(0, (0, frames.micros(days[0])), frames.micros(NOW))

    assert found.transaction_id.tolist() == [1, 2]
    assert narrow.transaction_id.tolist() == [0, 1]


def test_only_what_the_schedule_starts_looks_at_less(scored_sqlite, tmp_path):
    with copies(scored_sqlite) as url:
        bank = Bank(url)
        bank.write_config(tmp_path / "peerwatch.toml")
        command = ["fraudwatch", "score", "--quiet", "--config", str(bank.path)]
        for trigger in ("manual", "schedule", "manual"):
            done = CliRunner().invoke(cli, command, env={"PEERWATCH_TRIGGER": trigger})
            assert done.exit_code == 0, done.output

        by_hand, by_schedule, again = (
            row[0]
            for row in bank.ask(
                "SELECT window_from FROM #pipeline_runs WHERE job = 'fraudwatch.score' "
                "AND started_at > '2026-06-01' ORDER BY started_at"
            )
        )
    assert by_hand < by_schedule
    assert again < by_schedule
