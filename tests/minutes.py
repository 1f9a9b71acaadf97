"""Another way to know the slots of a rule: every minute is looked at, one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

MINUTE = timedelta(minutes=1)
DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MARGIN = timedelta(days=2)  # so that each wall time of a window is seen from its first minute on


def slots_by_search(rule: str, zone: str, after: datetime, until: datetime) -> list[datetime]:
    """The slots of a cron rule in (after, until]: by minutes of real time where its hours begin
    with `*`, else by wall times, each at the minute that first shows it."""
    fits = _reader(rule)
    walls = _walls(zone, after - MARGIN, until + MARGIN)
    if rule.split(" ")[1].startswith("*"):
        found = {moment for moment, wall in walls if fits(wall)}
    else:
        found = {moment for wall, moment in _first_shown(walls).items() if fits(wall)}
    return sorted(moment for moment in found if after < moment <= until)


def changes_of(zone: str, since: int, until: int) -> list[datetime]:
    """The minutes, between the starts of two years, from which another offset holds."""
    known = ZoneInfo(zone)
    moment, end = (datetime(year, 1, 1, tzinfo=UTC) for year in (since, until))
    found = []
    while moment < end:
        later = moment + timedelta(hours=6)
        if moment.astimezone(known).utcoffset() != later.astimezone(known).utcoffset():
            found += [
                at + MINUTE
                for at in (moment + n * MINUTE for n in range(360))
                if at.astimezone(known).utcoffset() != (at + MINUTE).astimezone(known).utcoffset()
            ]
        moment = later
    return found


@lru_cache(maxsize=2)  # of a window that several rules are tried on
def _walls(zone: str, after: datetime, until: datetime) -> list[tuple[datetime, datetime]]:
    """(moment, what the wall shows then) of each minute."""
    known = ZoneInfo(zone)
    start = after.replace(second=0, microsecond=0)
    minutes = (start + n * MINUTE for n in range(int((until - start) / MINUTE) + 1))
    return [(at, at.astimezone(known).replace(tzinfo=None, fold=0)) for at in minutes]


def _first_shown(walls: list[tuple[datetime, datetime]]) -> dict[datetime, datetime]:
    """The moment of each wall time; of one that is left out, as if no clock had been changed."""
    found: dict[datetime, datetime] = {}
    for (moment, wall), (_, following) in pairwise(walls):
        found.setdefault(wall, moment)
        ahead, left_out = moment + MINUTE, wall + MINUTE
        while left_out < following:
            found.setdefault(left_out, ahead)
            ahead, left_out = ahead + MINUTE, left_out + MINUTE
    return found


def _reader(rule: str):
    """Whether a wall time fits a rule, each field read the long way."""
    minute, hour, day, month, weekday = rule.split(" ")
    minutes, hours = _numbers(minute, 0, 59), _numbers(hour, 0, 23)
    days, months = _numbers(day, 1, 31), _numbers(month, 1, 12)
    named = _weekdays(weekday)

    def fits(wall: datetime) -> bool:
        return (
            wall.minute in minutes
            and wall.hour in hours
            and wall.day in days
            and wall.month in months
            and DAYS[wall.isoweekday() % 7] in named
        )

    return fits


def _numbers(field: str, low: int, high: int) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        body, _, step = part.partition("/")
        first, _, last = body.partition("-")
        end = last or (str(high) if step else first)
        start, end = (low, high) if body == "*" else (int(first), int(end))
        found |= set(range(start, end + 1, int(step or 1)))
    return found


def _weekdays(field: str) -> set[str]:
    if field == "*":
        return set(DAYS)
    found: set[str] = set()
    for part in field.split(","):
        first, _, last = part.partition("-")
        twice = DAYS + DAYS
        start = twice.index(first)
        found |= set(twice[start : twice.index(last or first, start) + 1])
    return found
