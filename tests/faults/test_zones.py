"""Every zone, both changes of its clocks, five years: no slot is lost, none is doubled.

    python -m pytest tests/faults/test_zones.py -s

Each rule's slots around each change are compared with a search of every minute.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from shared.rules import Entry, between
from tests.minutes import changes_of, slots_by_search

YEARS = (2023, 2028)  # half-open
AROUND = timedelta(hours=30)
DAILY = ("0 0 * * *", "30 0 * * *", "30 1 * * *", "0 2 * * *", "30 2 * * *", "0 3 * * *")
RULES = (*DAILY, "*/20 0-3,23 * * *", "30 * * * *", "*/15 */2 * * *")


def rules_of_one_clock() -> dict[tuple[tuple[datetime, timedelta], ...], list[str]]:
    """Zones by their changes: those that always change alike need one search."""
    found: dict[tuple[tuple[datetime, timedelta], ...], list[str]] = {}
    for zone in sorted(available_timezones()):
        offset = ZoneInfo(zone).utcoffset(datetime(YEARS[0], 1, 1, tzinfo=None))
        assert offset is not None
        moments = [datetime(YEARS[0], 1, 1, tzinfo=UTC), *changes_of(zone, *YEARS)]
        clock = tuple(
            (at, at.astimezone(ZoneInfo(zone)).utcoffset() or timedelta(0)) for at in moments
        )
        found.setdefault(clock, []).append(zone)
    return found


def test_no_slot_is_lost_or_doubled_in_any_zone():
    counts: Counter[str] = Counter()
    wrong = []
    for clock, zones in rules_of_one_clock().items():
        counts["zones"] += len(zones)
        for change, _offset in clock[1:]:
            counts["changes"] += len(zones)
            after, until = change - AROUND, change + AROUND
            for rule in RULES:
                expected = slots_by_search(rule, zones[0], after, until)
                for zone in zones:
                    found = between(Entry(rule, zone), after, until)
                    counts["windows"] += 1
                    counts["slots"] += len(found)
                    if found != expected or len(set(found)) != len(found):
                        wrong.append((zone, rule, change))

    print(f"\n{dict(counts)}, wrong: {len(wrong)}")
    assert wrong == []
    assert counts["zones"] == len(available_timezones()) > 400
    assert counts["changes"] > 1000


def test_a_daily_rule_has_one_slot_on_each_day_of_five_years_in_any_zone():
    begin, end = (datetime(year, 1, 1, 12, tzinfo=UTC) for year in YEARS)
    days, counts, wrong = (end - begin).days, Counter[str](), []
    for clock, zones in rules_of_one_clock().items():
        zone = ZoneInfo(zones[0])
        for rule in DAILY:
            found = between(Entry(rule, zones[0]), begin, end)
            counts["years"] += YEARS[1] - YEARS[0]
            counts["slots"] += len(found)
            if len({slot.astimezone(zone).date() for slot in found}) != len(found) or (
                abs(len(found) - days) > 1  # the offset at the two ends may differ
            ):
                wrong.append((zones, rule))
        counts["clocks"] += 1
        counts["changes"] += len(clock) - 1

    print(f"\n{dict(counts)}, wrong: {len(wrong)}")
    assert wrong == []
