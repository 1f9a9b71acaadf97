"""When jobs are due: slots against a search of every minute, also where clocks change."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.rules import SCHEDULABLE, Entry, between, newest_slot, next_slot
from tests.minutes import changes_of, slots_by_search

START = datetime(2026, 2, 27, 23, 58, tzinfo=UTC)  # a Friday, near the end of a month
RULES = [
    "0 1 1 * *", "0 2 * * *", "0 3 * * sun", "0 6 * * *", "*/15 * * * *",
    "5,35 8-18 * * mon-fri", "0 0 28 2 *", "59 23 * 2,3 *", "0-30/10 12 * * wed,sat", "7 7 7 3 *",
    "0 */6 * * *", "10/20 3 * * *", "30 4-20/8 1-7,20 3,4 *", "0 5 * * fri-mon", "0 5 * * sun-thu",
]  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_the_slots_are_the_minutes_that_fit(rule):
    until = START + timedelta(days=40)

    expected = slots_by_search(rule, "UTC", START, until)

    assert between(Entry(rule), START, until) == expected


@pytest.mark.parametrize("rule", RULES)
def test_the_next_and_the_newest_slot_are_neighbours_in_the_list_of_slots(rule):
    entry, slots = Entry(rule), []
    for _ in range(4):
        slots.append(next_slot(entry, slots[-1] if slots else START))

    assert between(entry, START, slots[-1]) == slots
    for one, other in pairwise(slots):
        assert newest_slot(entry, other) == other
        assert newest_slot(entry, other - timedelta(microseconds=1)) == one


def test_a_rule_may_come_once_in_eight_years():
    leap = Entry("0 12 29 2 *")

    assert next_slot(leap, datetime(2096, 3, 1, tzinfo=UTC)).year == 2104
    assert newest_slot(leap, datetime(2104, 2, 28, tzinfo=UTC)).year == 2096


@pytest.mark.parametrize("second", [0, 1, 59])
@pytest.mark.parametrize("micro", [0, 1, 999_999])
def test_the_next_slot_is_strictly_later(second, micro):
    after = START.replace(second=second, microsecond=micro)

    for rule in ("* * * * *", "every 1 minute"):
        assert next_slot(Entry(rule), after) == START.replace(second=0) + timedelta(minutes=1)


@settings(deadline=None)
@given(
    st.integers(1, 300),
    st.sampled_from(["minute", "hour", "day"]),
    st.datetimes(datetime(1973, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
)
def test_every_so_often_counts_from_1970(count, unit, after):
    step = count * timedelta(**{f"{unit}s": 1})
    epoch = datetime(1970, 1, 1, tzinfo=UTC)

    found = next_slot(Entry(f"every {count} {unit}s"), after)

    assert found > after
    assert found - after <= step
    assert (found - epoch) % step == timedelta(0)
    assert newest_slot(Entry(f"every {count} {unit}s"), found - timedelta(microseconds=1)) <= after


def test_slots_do_not_know_summer_time_unless_told():
    berlin_spring = datetime(2026, 3, 29, 0, 30, tzinfo=UTC)

    assert next_slot(Entry("30 1 * * *"), berlin_spring) == datetime(2026, 3, 29, 1, 30, tzinfo=UTC)


# --- where the clocks change ----------------------------------------------------------------------

# Midnight is left out or comes twice (Santiago, Beirut, Cairo), the change is of half an hour (Lord
# Howe) or of two (Troll), and a whole day is left out (Apia, 2011).
ZONES = {
    "Europe/Berlin": 2026, "America/New_York": 2026, "America/Santiago": 2026, "Asia/Beirut": 2026,
    "Africa/Cairo": 2026, "Australia/Lord_Howe": 2026, "Antarctica/Troll": 2026,
    "Pacific/Apia": 2011, "Africa/Casablanca": 2026, "America/St_Johns": 2026,
}  # fmt: skip
LOCAL_RULES = [
    "0 0 * * *", "30 0 * * *", "15 2 * * *", "30 1-3 * * *", "*/20 0-3,23 * * *", "0 12 * * *",
    "30 * * * *", "*/15 */2 * * *", "0 0 1 * *", "30 23 * * sat", "45 2 * * sun",
]  # fmt: skip


@pytest.mark.parametrize("zone", ZONES)
def test_no_slot_is_lost_or_doubled_where_a_zone_changes_its_clocks(zone):
    changes = changes_of(zone, ZONES[zone], ZONES[zone] + 1)
    assert len(changes) >= 2

    for change in changes:
        after, until = change - timedelta(days=2), change + timedelta(days=2)
        for rule in LOCAL_RULES:
            expected = slots_by_search(rule, zone, after, until)
            assert between(Entry(rule, zone), after, until) == expected, (rule, change)


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("at", ["0 0", "30 0", "30 1", "0 2", "30 2", "0 3", "59 23"])
def test_a_daily_rule_has_a_slot_on_each_day_of_a_year(zone, at):
    year = ZONES[zone]
    begin = datetime(year, 1, 1, 12, tzinfo=ZoneInfo(zone)).astimezone(UTC)
    end = datetime(year + 1, 1, 1, 12, tzinfo=ZoneInfo(zone)).astimezone(UTC)

    slots = between(Entry(f"{at} * * *", zone), begin, end)
    days = [slot.astimezone(ZoneInfo(zone)).date() for slot in slots]

    in_the_calendar = (date(year + 1, 1, 1) - date(year, 1, 1)).days
    left_out = 1 if zone == "Pacific/Apia" else 0  # its slot is that of the day after
    assert len(slots) == len(set(slots)) == len(set(days)) == in_the_calendar - left_out


def test_a_wall_time_that_is_left_out_comes_by_the_offset_before():
    slot = between(
        Entry("30 2 * * *", "Europe/Berlin"),
        datetime(2026, 3, 29, tzinfo=UTC),
        datetime(2026, 3, 30, tzinfo=UTC),
    )

    assert slot == [datetime(2026, 3, 29, 1, 30, tzinfo=UTC)]  # 02:30 at UTC+1, which is 03:30


def test_of_a_wall_time_that_comes_twice_the_first_is_the_slot():
    night = datetime(2026, 10, 24, 23, tzinfo=UTC), datetime(2026, 10, 25, 3, tzinfo=UTC)

    assert between(Entry("30 2 * * *", "Europe/Berlin"), *night) == [
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    ]
    assert [slot.hour for slot in between(Entry("30 * * * *", "Europe/Berlin"), *night)] == [
        23, 0, 1, 2,
    ]  # fmt: skip


# --- what can be read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "entry",
    [
        Entry("0 3 * * sun"), Entry("every 15 minutes"), Entry("every 1 hour"),
        Entry("every 1 day"), Entry("*/5 * * * *"), Entry("0 0 29 2 *"),
        Entry("0 6 * * *", "America/Santiago", catch_up=True),
    ],
)  # fmt: skip
def test_a_rule_that_can_be_read_has_no_fault(entry):
    assert entry.fault() is None


@pytest.mark.parametrize(
    "rule",
    [
        "0 3 * * 0", "0 3 * * 7", "0 3 * * mon-5", "0 3 * * Sun", "0 3 * *", "0 3 * * * *",
        "@daily", "", "daily", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
        "*/0 * * * *", "30-10 * * * *", "0  3 * * *", "0 3 * * sun ", "every 0 minutes",
        "every 15 seconds", "every minute", "every -1 hours", "every 1.5 hours", "0 0 31 2 *",
        "every 99999999999 days", "every 3661 days", "L * * * *", "0 3 * jan *", "1- * * * *",
        "0 3 * * */2", "0 3 * * ,", "٣ * * * *", "0 0 31 4,6,9,11 *",
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_read_says_so(rule):
    fault = Entry(rule).fault()

    assert fault is not None
    assert fault.startswith(f'cannot read "{rule}"')


def test_weekday_numbers_are_refused_because_crons_disagree_about_them():
    assert "programs disagree" in str(Entry("0 3 * * 0").fault())


@pytest.mark.parametrize("rule", ["0 3 1 * mon", "0 3 */2 * mon", "0 3 1-7 * sun"])
def test_a_day_of_month_and_a_weekday_are_refused_because_crons_disagree_about_both(rule):
    assert "day of month and weekday are both given" in str(Entry(rule).fault())


def test_a_zone_must_be_known_and_of_use():
    assert "no known zone" in str(Entry("0 3 * * *", "Mars/Olympus").fault())
    assert "leave that out" in str(Entry("every 15 minutes", "Europe/Berlin").fault())


def test_what_can_be_scheduled_is_what_the_contract_names_and_a_recalibration():
    named = {
        f"{domain}.{verb}"
        for domain in ("segmenter", "fraudwatch")
        for verb in ("fit", "score", "report")
    }
    assert set(SCHEDULABLE) == named | {"fraudwatch.recalibrate"}
