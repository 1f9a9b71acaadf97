"""Slots as rows: what is due, what passed unserved, and what becomes of it when clocks jump."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from shared import leases, slots
from shared.database import insert_row
from shared.rules import Entry, between, newest_slot
from shared.runs import COUNTS, new_id
from shared.slots import Due, look, note_failure, peek

DAY, HOUR, MINUTE = timedelta(days=1), timedelta(hours=1), timedelta(minutes=1)
SCORE, REPORT, FIT = "fraudwatch.score", "fraudwatch.report", "segmenter.fit"
DAILY = {REPORT: Entry("0 6 * * *")}
OFTEN = {SCORE: Entry("every 15 minutes")}
CAUGHT_UP = {SCORE: Entry("every 15 minutes", catch_up=True)}
NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)


@pytest.fixture
def results(kept_results):
    return kept_results


def run_of(results, job, slot, started=None, finished=None, status="succeeded", **more):
    """A run as its process records it; whether its slot was free."""
    row = {
        "run_id": new_id(job, started or slot),
        "job": job,
        "trigger": "schedule" if slot else "manual",
        "status": status,
        "slot_at": slot,
        "started_at": started or slot,
        "finished_at": None if status == "running" else finished or started or slot,
        **dict.fromkeys(COUNTS, 0),
        **more,
    }
    with results.transaction() as connection:
        return insert_row(connection, results.tables.pipeline_runs, row)


def serve(results, schedule, now):
    """A look at which everything due is run, and ends at once."""
    found = look(results, schedule, now)
    for due in found:
        assert run_of(results, due.job, due.slot, now)
    return [due.slot for due in found]


def rows(results, *columns, **where):
    """Columns of the runs, in the order of their slots."""
    table = results.tables.pipeline_runs
    select = sa.select(*(table.c[name] for name in columns)).order_by(
        table.c.slot_at, table.c.started_at
    )
    for name, value in where.items():
        select = select.where(table.c[name] == value)
    with results.transaction() as connection:
        return [tuple(row) for row in connection.execute(select)]


def slots_of(results, status):
    return [slot for (slot,) in rows(results, "slot_at", status=status)]


# --- what is due ----------------------------------------------------------------------------------


def test_of_a_job_without_a_run_the_newest_slot_alone_is_due(results):
    schedule = DAILY | OFTEN

    found = look(results, schedule, NOON + MINUTE)

    assert found == [Due(REPORT, NOON - 6 * HOUR), Due(SCORE, NOON)]
    assert rows(results, "status") == []


@pytest.mark.parametrize("schedule", [OFTEN, CAUGHT_UP], ids=["newest", "catch_up"])
def test_a_run_by_hand_serves_the_newest_slot_of_a_schedule_that_begins(results, schedule):
    run_of(results, SCORE, None, NOON + MINUTE)

    assert look(results, schedule, NOON + 2 * MINUTE) == []
    assert serve(results, schedule, NOON + 15 * MINUTE) == [NOON + 15 * MINUTE]
    assert sorted(slots_of(results, "succeeded"), key=str) == [NOON + 15 * MINUTE, None]


def test_a_run_by_hand_before_the_newest_slot_or_in_vain_serves_nothing(results):
    run_of(results, SCORE, None, NOON - MINUTE)
    run_of(results, SCORE, None, NOON + MINUTE, status="failed")

    assert look(results, OFTEN, NOON + 2 * MINUTE) == [Due(SCORE, NOON)]


def test_a_job_that_never_succeeded_is_marked(results):
    run_of(results, REPORT, NOON - DAY - 6 * HOUR)
    run_of(results, SCORE, NOON - DAY, status="failed")

    found = look(results, DAILY | OFTEN, NOON)

    assert {due.job: due.first for due in found} == {REPORT: False, SCORE: True}


def test_a_slot_is_due_from_its_moment_on_and_until_it_is_done(results):
    assert serve(results, OFTEN, NOON) == [NOON]
    assert serve(results, OFTEN, NOON + timedelta(seconds=30)) == []
    assert serve(results, OFTEN, NOON + timedelta(minutes=15, microseconds=-1)) == []
    assert serve(results, OFTEN, NOON + 15 * MINUTE) == [NOON + 15 * MINUTE]


@pytest.mark.parametrize("status", ["running", "succeeded", "skipped", "missed"])
def test_a_slot_that_a_run_has_is_not_due(results, status):
    with held(results, REPORT):
        run_of(results, REPORT, NOON - 6 * HOUR, status=status)

        assert look(results, DAILY, NOON) == []


def held(results, job):
    """Somebody whose process lives holds the job."""
    return leases.holding(results.engine, results.tables, job, "run-held")


def test_while_a_job_runs_by_hand_none_of_its_slots_is_due(results):
    with held(results, SCORE):
        run_of(results, SCORE, None, NOON - MINUTE, status="running")

        assert look(results, OFTEN | DAILY, NOON) == [Due(REPORT, NOON - 6 * HOUR)]

    # It ended without a word.
    assert look(results, OFTEN, NOON) == [Due(SCORE, NOON)]
    assert slots_of(results, "abandoned") == [None]


def test_a_slot_has_three_attempts_with_growing_pauses(results):
    tried = []
    for minutes in [*range(16), 240, 480]:
        now = NOON + minutes * MINUTE
        for due in look(results, DAILY, now):
            tried.append(now - NOON)
            run_of(results, REPORT, due.slot, now, status="failed")

    assert tried == [timedelta(0), 2 * MINUTE, 12 * MINUTE]
    assert slots_of(results, "failed") == [NOON - 6 * HOUR] * 3
    assert slots_of(results, "missed") == []


def test_an_abandoned_run_counts_as_an_attempt(results):
    for minutes in (0, 2):
        run_of(results, REPORT, NOON - 6 * HOUR, NOON + minutes * MINUTE, status="abandoned")

    assert look(results, DAILY, NOON + 3 * MINUTE) == []
    assert look(results, DAILY, NOON + 12 * MINUTE) == [Due(REPORT, NOON - 6 * HOUR)]


def test_the_next_slot_is_due_after_one_that_was_left_failed(results):
    run_of(results, SCORE, NOON, status="failed")

    assert serve(results, OFTEN, NOON + 15 * MINUTE) == [NOON + 15 * MINUTE]
    assert rows(results, "slot_at", "status") == [
        (NOON, "failed"),
        (NOON + 15 * MINUTE, "succeeded"),
    ]


# --- what passed ----------------------------------------------------------------------------------


def test_slots_that_passed_while_nobody_was_there_are_missed(results):
    serve(results, OFTEN, NOON)

    assert serve(results, OFTEN, NOON + HOUR + MINUTE) == [NOON + HOUR]

    missed = [NOON + n * 15 * MINUTE for n in (1, 2, 3)]
    assert slots_of(results, "missed") == missed
    assert (
        rows(results, "note", "finished_at", status="missed")
        == [(slots.MISSED, NOON + HOUR + MINUTE)] * 3
    )
    assert slots_of(results, "skipped") == []


def test_slots_that_passed_while_the_run_before_was_running_are_skipped(results):
    look(results, OFTEN, NOON)
    run_of(results, SCORE, NOON, NOON, NOON + 40 * MINUTE)

    assert serve(results, OFTEN, NOON + 75 * MINUTE) == [NOON + 75 * MINUTE]

    assert slots_of(results, "skipped") == [NOON + 15 * MINUTE, NOON + 30 * MINUTE]
    assert slots_of(results, "missed") == [NOON + 45 * MINUTE, NOON + 60 * MINUTE]


def test_slots_after_a_run_that_died_are_missed_though_it_was_noticed_late(results):
    look(results, OFTEN, NOON)
    run_of(results, SCORE, NOON, NOON, NOON + HOUR, status="abandoned")

    look(results, OFTEN, NOON + HOUR)

    assert slots_of(results, "missed") == [NOON + n * 15 * MINUTE for n in (1, 2, 3)]


def test_a_second_look_notes_nothing_twice(results):
    serve(results, OFTEN, NOON)
    for _ in range(3):
        look(results, OFTEN, NOON + DAY)

    assert len(slots_of(results, "missed")) == 95


def test_with_catch_up_the_slots_that_passed_are_run_oldest_first(results):
    serve(results, CAUGHT_UP, NOON)
    later, ran = NOON + HOUR + MINUTE, []

    for _ in range(6):
        ran += serve(results, CAUGHT_UP, later)

    assert ran == [NOON + n * 15 * MINUTE for n in (1, 2, 3, 4)]
    assert slots_of(results, "succeeded") == [NOON, *ran]
    assert slots_of(results, "missed") == slots_of(results, "skipped") == []


def test_catching_up_waits_for_a_slot_that_fails_and_then_leaves_it(results):
    serve(results, CAUGHT_UP, NOON)
    bad, ran = NOON + 15 * MINUTE, []
    for minutes in range(61, 80):
        now = NOON + minutes * MINUTE
        for due in look(results, CAUGHT_UP, now):
            assert due.catch_up
            ran.append((minutes, due.slot))
            run_of(
                results, SCORE, due.slot, now, status="failed" if due.slot == bad else "succeeded"
            )

    following = [NOON + n * 15 * MINUTE for n in (2, 3, 4, 5)]
    assert ran[:3] == [(61, bad), (63, bad), (73, bad)]
    assert [slot for _, slot in ran[3:]] == following


def test_a_changed_rule_has_missed_nothing_before_its_change(results):
    serve(results, DAILY, NOON)
    changed = {REPORT: Entry("every 15 minutes")}

    assert serve(results, changed, NOON) == [NOON]
    serve(results, changed, NOON + HOUR)

    assert len(slots_of(results, "missed")) == 3


def test_a_job_that_was_taken_out_for_a_while_has_missed_nothing(results):
    serve(results, OFTEN | DAILY, NOON)
    serve(results, DAILY, NOON + DAY)

    assert serve(results, OFTEN | DAILY, NOON + 2 * DAY) == [
        NOON + 2 * DAY, NOON + 2 * DAY - 6 * HOUR,
    ]  # fmt: skip
    assert slots_of(results, "missed") == []


def test_a_rule_that_moves_to_a_later_hour_does_not_run_the_day_before_again(results):
    serve(results, DAILY, NOON)

    assert look(results, {REPORT: Entry("0 20 * * *")}, NOON) == []
    assert serve(results, {REPORT: Entry("0 20 * * *")}, NOON + 9 * HOUR) == [NOON + 8 * HOUR]


def test_a_peek_finds_the_same_and_leaves_no_trace(results):
    serve(results, OFTEN, NOON)
    before = rows(results, "run_id")

    assert peek(results, OFTEN, NOON + DAY) == [Due(SCORE, NOON + DAY)]
    assert rows(results, "run_id") == before
    assert look(results, OFTEN, NOON + DAY) == [Due(SCORE, NOON + DAY)]


# --- two schedulers, clocks that jump, a year -----------------------------------------------------


def test_of_two_runs_of_one_slot_one_has_it(results):
    first, second = look(results, OFTEN, NOON), look(results, OFTEN, NOON)
    assert first == second

    assert [run_of(results, due.job, due.slot, NOON) for due in first + second] == [True, False]


def test_a_clock_that_goes_back_a_day_runs_nothing_twice(results):
    hours = range(0, 24, 4)
    for hour in hours:
        serve(results, OFTEN | DAILY, NOON + hour * HOUR)
    before = rows(results, "job", "slot_at", "status")

    again = [serve(results, OFTEN | DAILY, NOON + hour * HOUR) for hour in hours]
    served = serve(results, OFTEN | DAILY, NOON + DAY)

    assert again == [[]] * len(hours)
    assert served == [NOON + DAY]
    assert no_slot_is_doubled(results)
    assert set(before) <= set(rows(results, "job", "slot_at", "status"))


def test_a_clock_that_was_a_year_ahead_takes_back_what_it_noted(results):
    serve(results, DAILY, NOON)
    ahead = NOON + 400 * DAY
    serve(results, DAILY, ahead)
    assert len(slots_of(results, "missed")) == 399

    back = [slot for n in (1, 2, 3, 5) for slot in serve(results, DAILY, NOON + n * DAY)]

    assert back == [NOON - 6 * HOUR + n * DAY for n in (1, 2, 3, 5)]
    assert NOON - 6 * HOUR + 4 * DAY in slots_of(results, "missed")
    assert no_slot_is_doubled(results)


def test_a_schedule_that_began_with_a_clock_ahead_begins_anew(results):
    serve(results, DAILY, NOON + 400 * DAY)

    ran = [slot for n in range(3) for slot in serve(results, DAILY, NOON + n * DAY)]

    assert ran == [NOON - 6 * HOUR + n * DAY for n in range(3)]


def test_under_a_frozen_clock_nothing_is_run_twice_and_no_attempt_follows(results):
    assert serve(results, OFTEN, NOON) == [NOON]
    assert [serve(results, OFTEN, NOON) for _ in range(5)] == [[]] * 5

    run_of(results, REPORT, NOON - 6 * HOUR, NOON, status="failed")

    assert [look(results, DAILY, NOON) for _ in range(5)] == [[]] * 5


def test_an_attempt_of_a_clock_that_was_ahead_holds_up_no_other(results):
    run_of(results, REPORT, NOON - 6 * HOUR, NOON + MINUTE, status="failed")
    assert look(results, DAILY, NOON) == []

    assert look(results, DAILY, NOON - MINUTE) == [Due(REPORT, NOON - 6 * HOUR)]


def no_slot_is_doubled(results):
    taking = [
        (job, slot)
        for job, slot, status in rows(results, "job", "slot_at", "status")
        if status in ("running", "succeeded", "skipped", "missed")
    ]
    assert all(
        begun <= ended for begun, ended in rows(results, "started_at", "finished_at") if ended
    )
    return len(taking) == len(set(taking))


def test_months_of_daily_slots_have_one_row_each_through_failures_and_downtimes(results):
    """In local time, over a change of the clocks on 5 April."""
    schedule, days = {REPORT: Entry("30 23 * * *", "America/Santiago")}, set(range(40))
    begin = newest_slot(schedule[REPORT], NOON)
    down = {day for day in days if day % 10 == 3 or 20 < day < 26}
    for day in sorted(days - down):
        now = NOON + day * DAY
        (due,) = look(results, schedule, now)
        if day % 7 == 5:
            run_of(results, REPORT, due.slot, now, status="failed")
            assert look(results, schedule, now + 2 * MINUTE) == [due]
        run_of(results, REPORT, due.slot, now + 2 * MINUTE)

    expected = [begin, *between(schedule[REPORT], begin, NOON + 39 * DAY)]
    assert len(expected) == 40
    assert sorted(slots_of(results, "missed") + slots_of(results, "succeeded")) == expected
    assert len(slots_of(results, "missed")) == len(down)
    assert set(slots_of(results, "failed")) < set(slots_of(results, "succeeded"))
    assert no_slot_is_doubled(results)


# --- processes that end without a word ------------------------------------------------------------


def test_a_process_that_died_before_its_record_counts_as_an_attempt(results):
    (due,) = look(results, OFTEN, NOON)

    note_failure(results, due, NOON, NOON + MINUTE, "Its process was ended by SIGKILL.")

    assert rows(results, "status", "slot_at", "error") == [
        ("failed", NOON, "Its process was ended by SIGKILL.")
    ]
    assert look(results, OFTEN, NOON + MINUTE) == []
    assert look(results, OFTEN, NOON + 3 * MINUTE) == [due]


def test_a_process_that_died_in_its_run_leaves_an_abandoned_run_that_says_how(results):
    (due,) = look(results, OFTEN, NOON)
    run_of(results, SCORE, NOON, NOON, status="running")

    note_failure(results, due, NOON, NOON + MINUTE, "Its process was ended by SIGKILL.")

    ((status, error, note),) = rows(results, "status", "error", "note")
    assert (status, note) == ("abandoned", "Its process was ended by SIGKILL.")
    assert "runner is gone" in error


def test_a_process_that_recorded_its_failure_is_not_noted_again(results):
    (due,) = look(results, OFTEN, NOON)
    run_of(results, SCORE, NOON, NOON, status="failed", error="no champion")

    note_failure(results, due, NOON, NOON + MINUTE, "Its process ended with exit code 2.")

    assert rows(results, "status", "error", "note") == [("failed", "no champion", None)]
