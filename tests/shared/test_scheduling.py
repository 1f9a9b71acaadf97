"""When jobs are due: slots against a search of every minute."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.scheduling import SCHEDULABLE, command, due, next_slot, rule_fault

START = datetime(2026, 2, 27, 23, 58, tzinfo=UTC)  # a Friday, near the end of a month
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def numbers(field: str, low: int, high: int) -> set[int]:
    """The numbers that a cron field names, read the long way."""
    found: set[int] = set()
    body, _, step = field.partition("/")
    for part in body.split(","):
        first, _, last = part.partition("-")
        start, end = (low, high) if part == "*" else (int(first), int(last or first))
        found |= set(range(start, end + 1, int(step or 1)))
    return found


def weekdays(field: str) -> set[int]:
    if field == "*":
        return set(range(7))
    found = set()
    for part in field.split(","):
        first, _, last = part.partition("-")
        found |= set(range(DAYS.index(first), DAYS.index(last or first) + 1))
    return found


def by_search(rule: str, after: datetime, days: int = 40) -> datetime | None:
    """The first minute after a moment that fits the rule, each minute tried."""
    minute, hour, day, month, weekday = rule.split(" ")
    fits = (
        numbers(minute, 0, 59),
        numbers(hour, 0, 23),
        numbers(day, 1, 31),
        numbers(month, 1, 12),
    )
    named = weekdays(weekday)
    moment = after.replace(second=0, microsecond=0) + timedelta(minutes=1)
    for _ in range(days * 1440):
        parts = (moment.minute, moment.hour, moment.day, moment.month)
        if all(p in f for p, f in zip(parts, fits, strict=True)) and moment.weekday() in named:
            return moment
        moment += timedelta(minutes=1)
    return None


@pytest.mark.parametrize(
    "rule",
    [
        "0 1 1 * *", "0 2 * * *", "0 3 * * sun", "0 6 * * *", "*/15 * * * *",
        "5,35 8-18 * * mon-fri",
        "0 0 28 2 *", "59 23 * 2,3 *", "0-30/10 12 * * wed,sat", "7 7 7 3 *", "0 */6 * * *",
    ],
)  # fmt: skip
def test_the_next_slot_is_the_first_minute_that_fits(rule):
    after = START
    for _ in range(4):
        expected = by_search(rule, after)
        if expected is None:
            break
        found = next_slot(rule, after)
        assert found == expected
        assert found.utcoffset() == timedelta(0)
        after = found


@pytest.mark.parametrize("second", [0, 1, 59])
@pytest.mark.parametrize("micro", [0, 1, 999_999])
def test_a_slot_is_strictly_later(second, micro):
    after = START.replace(second=second, microsecond=micro)

    for rule in ("* * * * *", "every 1 minute"):
        assert next_slot(rule, after) == START.replace(second=0) + timedelta(minutes=1)


@settings(deadline=None)
@given(
    st.integers(1, 300),
    st.sampled_from(["minute", "hour", "day"]),
    st.datetimes(datetime(1971, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)
def test_every_so_often_counts_from_1970(count, unit, after):
    step = count * timedelta(**{f"{unit}s": 1})
    epoch = datetime(1970, 1, 1, tzinfo=UTC)

    found = next_slot(f"every {count} {unit}s", after)

    assert found > after
    assert found - after <= step
    assert (found - epoch) % step == timedelta(0)


def test_slots_do_not_know_summer_time():
    berlin_spring = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)

    assert next_slot("30 1 * * *", berlin_spring) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "rule",
    ["0 3 * * sun", "every 15 minutes", "every 1 hour", "every 1 day", "*/5 * * * *", "0 0 29 2 *"],
)
def test_a_rule_that_can_be_read_has_no_fault(rule):
    assert rule_fault(rule) is None


@pytest.mark.parametrize(
    "rule",
    [
        "0 3 * * 0", "0 3 * * 7", "0 3 * * mon-5", "0 3 * * Sun", "0 3 * *", "0 3 * * * *",
        "@daily", "", "daily", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
        "*/0 * * * *", "30-10 * * * *", "0  3 * * *", "0 3 * * sun ", "every 0 minutes",
        "every 15 seconds", "every minute", "every -1 hours", "every 1.5 hours", "0 0 31 2 *",
        "every 99999999999 days", "* * * * fri-mon", "L * * * *", "0 3 * jan *", 5, None, True,
        ["0 3 * * *"],
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_read_says_what_is_expected(rule):
    fault = rule_fault(rule)

    assert fault is not None
    assert "should be" in fault or "cannot read" in fault


def test_weekday_numbers_are_refused_because_crons_disagree_about_them():
    assert "weekday names" in str(rule_fault("0 3 * * 0"))


SCHEDULE = {
    "segmenter.fit": "0 1 1 * *",
    "fraudwatch.score": "every 15 minutes",
    "fraudwatch.report": "0 6 * * *",
}
NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)


def test_a_job_that_never_ran_is_due_at_once():
    assert due(SCHEDULE, {}, NOON) == list(SCHEDULE)


def test_a_job_is_due_at_its_slot_and_not_before():
    last = {"segmenter.fit": NOON, "fraudwatch.report": NOON}
    half_past = NOON + timedelta(minutes=15)
    last["fraudwatch.score"] = NOON

    assert due(SCHEDULE, last, half_past - timedelta(microseconds=1)) == []
    assert due(SCHEDULE, last, half_past) == ["fraudwatch.score"]


def test_a_job_that_started_in_its_slot_is_not_due_again():
    last = dict.fromkeys(SCHEDULE, NOON)

    assert due(SCHEDULE, last, NOON) == []


def test_slots_missed_in_a_downtime_are_caught_up_once():
    last = dict.fromkeys(SCHEDULE, NOON - timedelta(days=40))

    assert due(SCHEDULE, last, NOON) == list(SCHEDULE)
    assert due(SCHEDULE, dict.fromkeys(SCHEDULE, NOON), NOON) == []


def test_the_command_of_a_job_is_the_one_a_person_types():
    assert command("fraudwatch.score", "my file.toml")[0] == sys.executable
    assert command("fraudwatch.score", "my file.toml")[-5:] == [
        "--config", "my file.toml", "--quiet", "fraudwatch", "score",
    ]  # fmt: skip


def test_what_can_be_scheduled_is_what_the_contract_names_and_a_recalibration():
    named = {
        f"{domain}.{verb}"
        for domain in ("segmenter", "fraudwatch")
        for verb in ("fit", "score", "report")
    }
    assert set(SCHEDULABLE) == named | {"fraudwatch.recalibrate"}
