"""When a job is due: five-field cron with weekday names, or "every 15 minutes".

A slot is a moment in UTC at which a job is due. Slots are a function of the rule and its zone
alone; which of them were run is for the tables to say (`shared/slots.py`).

Where a zone changes its clocks, an hour of the day comes twice or not at all. A rule whose hours
begin with `*` is one of real time: each minute whose wall time fits it is a slot. A rule with hours
of its own is one of the day: each wall time is one slot, the first of two; where the wall time is
left out, the moment it would have been by the offset before the change.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

SCHEDULABLE = (
    *("segmenter.fit", "segmenter.score", "segmenter.report"),
    *("fraudwatch.fit", "fraudwatch.recalibrate", "fraudwatch.score", "fraudwatch.report"),
)
SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}
EVERY = re.compile(r"every (\d{1,9}) (minute|hour|day)s?", re.ASCII)
LONGEST = timedelta(days=3660)  # no rule of cron is rarer: 29 February may lack for eight years
PART = re.compile(
    r"(?:\*|(?P<first>[a-z]+|\d+)(?:-(?P<last>[a-z]+|\d+))?)(?:/(?P<step>\d{1,9}))?", re.ASCII
)
WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
NUMBERS = {"minute": (0, 59), "hour": (0, 23), "day of month": (1, 31), "month": (1, 12)}
DAYS_OF_MONTH = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
EXPECTED = 'expected five cron fields with weekday names (0 3 * * sun), or "every 15 minutes"'


def zone_fault(zone: str) -> str | None:
    """What is wrong with the name of a zone; None where it is known."""
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        return f'timezone "{zone}" is no known zone, e.g. "Europe/Berlin".'
    return None


@dataclass(frozen=True)
class Entry:
    """One line of `[schedule]`."""

    rule: str
    timezone: str = "UTC"
    catch_up: bool = False  # whether slots that passed unserved are run later, oldest first

    def fault(self) -> str | None:
        """What is wrong with it; None where it can be used."""
        if (fault := zone_fault(self.timezone)) is not None:
            return fault
        if EVERY.fullmatch(self.rule) and self.timezone != "UTC":
            return f'"{self.rule}" counts from 1970 in UTC, whatever the timezone: leave that out.'
        try:
            _slots(self)
        except ValueError as error:
            return f'cannot read "{self.rule}": {error}'
        return None


@dataclass(frozen=True)
class _Every:
    """Slots at whole multiples of a step since 1970."""

    step: int  # seconds

    def between(self, after: datetime, until: datetime) -> list[datetime]:
        first = int(after.timestamp() // self.step) + 1
        last = int(until.timestamp() // self.step)
        return [datetime.fromtimestamp(n * self.step, UTC) for n in range(first, last + 1)]


@dataclass(frozen=True)
class _Cron:
    """Slots by the wall clock of a zone."""

    times: tuple[timedelta, ...]  # since midnight, in their order
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]  # 0 is Monday
    zone: ZoneInfo
    of_real_time: bool

    def between(self, after: datetime, until: datetime) -> list[datetime]:
        # A change of the clocks moves a wall time by a day at most (Apia, 2011).
        first = after.astimezone(self.zone).date() - timedelta(days=2)
        last = until.astimezone(self.zone).date() + timedelta(days=2)
        days = (first + timedelta(days=n) for n in range((last - first).days + 1))
        found = {at for day in days if self._fits(day) for at in self._of_day(day, after, until)}
        return sorted(moment for moment in found if after < moment <= until)

    def _fits(self, day: date) -> bool:
        return day.month in self.months and day.day in self.days and day.weekday() in self.weekdays

    def _of_day(self, day: date, after: datetime, until: datetime) -> Iterable[datetime]:
        """The slots of a day; none that is not between the two need be among them."""
        midnight = datetime.combine(day, time(), self.zone)
        begin = midnight.astimezone(UTC)
        end = (midnight + timedelta(days=1)).replace(fold=1).astimezone(UTC)
        if end - begin != timedelta(days=1):
            return self._of_a_change(midnight)
        reached = bisect_right(self.times, after - begin), bisect_right(self.times, until - begin)
        return (begin + at for at in self.times[slice(*reached)])

    def _of_a_change(self, midnight: datetime) -> Iterator[datetime]:
        """The slots of a day within which the offset changes, each wall time looked at."""
        for at in self.times:
            wall = midnight + at
            first = wall.astimezone(UTC)  # of two; in a gap by the offset before it
            if not self.of_real_time:
                yield first
                continue
            for moment in (first, wall.replace(fold=1).astimezone(UTC)):
                if moment.astimezone(self.zone).replace(tzinfo=None) == wall.replace(tzinfo=None):
                    yield moment


def between(entry: Entry, after: datetime, until: datetime) -> list[datetime]:
    """The slots after a moment, up to and with another, in UTC and in their order."""
    return _slots(entry).between(after, until)


def next_slot(entry: Entry, after: datetime) -> datetime:
    """The first slot strictly after a moment, in UTC."""
    slots = _slots(entry)
    for span in _spans():
        if found := slots.between(after, after + span):
            return found[0]
    raise ValueError(f"{entry.rule} never comes.")


def newest_slot(entry: Entry, now: datetime) -> datetime:
    """The last slot up to a moment, in UTC."""
    slots = _slots(entry)
    for span in _spans():
        if found := slots.between(now - span, now):
            return found[-1]
    raise ValueError(f"{entry.rule} never comes.")


def _spans() -> Iterator[timedelta]:
    """Longer and longer: most rules come often."""
    span = timedelta(hours=1)
    while span < LONGEST:
        yield span
        span *= 8
    yield LONGEST


# --- reading a rule -------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _slots(entry: Entry) -> _Every | _Cron:
    """The rule as it is meant; ValueError says what cannot be read."""
    every = EVERY.fullmatch(entry.rule)
    if every is None:
        return _cron(entry)
    step = int(every[1]) * SECONDS[every[2]]
    if not 0 < step <= LONGEST.total_seconds():
        raise ValueError(f"should be every 1 minute or more, {LONGEST.days} days at most.")
    return _Every(step)


def _cron(entry: Entry) -> _Cron:
    fields = entry.rule.split(" ")
    if len(fields) != 5:
        raise ValueError(f"{EXPECTED}.")
    if fields[2] != "*" and fields[4] != "*":
        raise ValueError(
            "day of month and weekday are both given, which some take as either and some as both. "
            "Give one of them, and * for the other."
        )
    minutes, hours, days, months = (
        _numbers(name, field) for name, field in zip(NUMBERS, fields[:4], strict=True)
    )
    if not any(day <= DAYS_OF_MONTH[month - 1] for month in months for day in days):
        raise ValueError("no such month has such a day.")
    return _Cron(
        tuple(timedelta(hours=h, minutes=m) for h in sorted(hours) for m in sorted(minutes)),
        frozenset(days),
        frozenset(months),
        frozenset((day - 1) % 7 for day in _weekdays(fields[4])),
        ZoneInfo(entry.timezone),
        fields[1].startswith("*"),
    )


def _numbers(name: str, field: str) -> set[int]:
    """The numbers that a field names: `*`, `5`, `8-18`, `5,35`, `*/15`, `8-18/2`."""
    low, high = NUMBERS[name]
    found: set[int] = set()
    for first, last, step in _parts(name, field):
        if not (first or "0").isdecimal() or not (last or "0").isdecimal():
            raise ValueError(f"{name} {field} should be numbers; {EXPECTED}.")
        start = low if first is None else int(first)
        end = high if first is None or (last is None and step) else int(last or first)
        if not low <= start <= end <= high:
            raise ValueError(f"{name} {field} is not within {low} to {high}.")
        found |= set(range(start, end + 1, step or 1))
    return found


def _weekdays(field: str) -> Iterable[int]:
    """The weekdays that a field names, 0 being Sunday; `fri-mon` goes over the end of the week."""
    if field == "*":
        return range(7)
    found: set[int] = set()
    for first, last, step in _parts("weekday", field):
        if first not in WEEKDAYS or (last or first) not in WEEKDAYS or step:
            raise ValueError(
                f"weekday {field} should be names, {', '.join(WEEKDAYS)}: programs disagree about "
                f"numbers; {EXPECTED}."
            )
        start, end = WEEKDAYS.index(first), WEEKDAYS.index(last or first)
        found |= {(start + n) % 7 for n in range((end - start) % 7 + 1)}
    return found


def _parts(name: str, field: str) -> Iterator[tuple[str | None, str | None, int | None]]:
    """(first, last, step) of each part of a field; first is None for `*`."""
    for part in field.split(","):
        found = PART.fullmatch(part)
        if found is None or (found["step"] is not None and not int(found["step"])):
            raise ValueError(f'{name} "{field}" is no field of cron; {EXPECTED}.')
        yield found["first"], found["last"], int(found["step"]) if found["step"] else None
