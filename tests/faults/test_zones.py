"""Every zone, both changes of its clocks, five years, and a year of slots on an injected clock.

    python -m pytest tests/faults/test_zones.py -s

Each rule's slots around each change are compared with a search of every minute.
"""

from __future__ import annotations

import resource
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from zoneinfo import ZoneInfo, available_timezones

import sqlalchemy as sa

from shared.database import insert_row
from shared.rules import Entry, between, newest_slot
from shared.runs import COUNTS, Results, new_id
from shared.slots import PAUSES, Due, look
from shared.tables import TAKING
from tests.builders import make_results
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


# --- a year ---------------------------------------------------------------------------------------

BEGIN = datetime(2026, 3, 20, 12, tzinfo=UTC)
DAYS, SEED = 365, 20260320
SCHEDULE = {
    "segmenter.score": Entry("30 2 * * *", "Europe/Berlin"),
    "fraudwatch.report": Entry("0 0 * * *", "America/Santiago"),
    "fraudwatch.score": Entry("0 6 * * *", catch_up=True),
}


def record(results: Results, due: Due, now: datetime, status: str) -> None:
    """A run as its process leaves it."""
    row = {
        "run_id": new_id(due.job, now),
        "job": due.job,
        "trigger": "schedule",
        "status": status,
        "slot_at": due.slot,
        "started_at": now,
        "finished_at": now,
        **dict.fromkeys(COUNTS, 0),
    }
    with results.transaction() as connection:
        assert insert_row(connection, results.tables.pipeline_runs, row)


def held() -> dict[str, int]:
    """What the process holds: open files, and the most memory so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"files": len(list(Path("/proc/self/fd").iterdir())), "peak_mib": peak}


def test_a_year_of_daily_slots_reconciles_and_grows_nothing(database):
    """A machine that is off for days now and then, whose jobs fail now and then."""
    results, random = make_results(database), Random(SEED)
    counts: Counter[str] = Counter()
    warm = None
    now, end = BEGIN, BEGIN + timedelta(days=DAYS)
    begun = {job: newest_slot(entry, now) for job, entry in SCHEDULE.items()}
    while now < end:
        counts["looks"] += 1
        for due in look(results, SCHEDULE, now):
            status = "failed" if random.random() < 0.1 else "succeeded"
            counts[status] += 1
            record(results, due, now, status)
        off = random.random() < 0.03
        now += timedelta(days=random.randrange(1, 6)) if off else timedelta(hours=8)
        if warm is None and now > BEGIN + timedelta(days=30):
            warm = held()
    for _ in range(3 * (len(PAUSES) + 1)):  # what is due at the end
        now += max(PAUSES)
        for due in look(results, SCHEDULE, now):
            record(results, due, now, "succeeded")

    table = results.tables.pipeline_runs
    with results.transaction() as connection:
        rows = connection.execute(sa.select(table.c.job, table.c.slot_at, table.c.status)).all()
    taken = Counter((job, slot) for job, slot, status in rows if status in TAKING)
    tried = {(job, slot) for job, slot, status in rows}
    expected = {
        (job, slot)
        for job, entry in SCHEDULE.items()
        for slot in [begun[job], *between(entry, begun[job], now)]
    }
    by_status = Counter(status for _, _, status in rows)
    print(f"\nseed {SEED}: {dict(counts)}, rows {dict(by_status)}, then {warm}, now {held()}")
    assert set(taken.values()) == {1}
    assert tried == expected
    assert by_status["missed"] > 20
    assert not [1 for job, _, status in rows if job == "fraudwatch.score" and status == "missed"]
    assert warm is not None
    assert held()["files"] <= warm["files"] + 2
    assert held()["peak_mib"] <= warm["peak_mib"] + 16
