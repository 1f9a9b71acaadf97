"""Slots of the schedule: which are due, claimed, done, skipped or missed, as rows of the runs.

A run claims its slot by its row (`runs.recorded`), and a unique index lets one win. What is due is
asked of the rows alone, so that a scheduler may be stopped, started anew or doubled at any time.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shared import leases, rules
from shared.database import insert_new
from shared.rules import Entry
from shared.runs import COUNTS, Results, new_id, read_settings, write_settings
from shared.tables import TAKING, Tables

# A slot has three attempts. The pauses before the second and the third count from the start of the
# one before: with the usual rule of 15 minutes all three are over before the next slot.
PAUSES = (timedelta(minutes=2), timedelta(minutes=10))
BATCH = 10_000  # rows in memory at once: a clock that is years ahead notes many
CLOCKS_DIFFER = timedelta(minutes=5)  # at most, of two machines that are both right
NO_RULE = '{"rule": null}'  # of a job that was taken out of the schedule
MISSED = "no run was there for it"
SKIPPED = "the run before was still running"
TIMED = ("succeeded", "failed")  # with an end of their own: their times tell when they ran


@dataclass(frozen=True)
class Due:
    """A slot of a job that should be run now."""

    job: str
    slot: datetime
    catch_up: bool = False  # the run is to be what it would have been then
    first: bool = field(default=False, compare=False)  # the job has never succeeded


def look(results: Results, schedule: Mapping[str, Entry], now: datetime) -> list[Due]:
    """What is due, in the schedule's order; notes the slots that passed unserved."""
    leases.abandon_dead(results.engine, results.tables)
    with results.transaction() as connection:
        begun = _renewed(connection, results.tables, schedule, now)
        for job, entry in schedule.items():
            _take_back(connection, results.tables, job, rules.newest_slot(entry, now), now)
            if not entry.catch_up:
                _note_passed(connection, results.tables, job, entry, begun[job], now)
        return _due(connection, results.tables, schedule, begun, now)


def peek(results: Results, schedule: Mapping[str, Entry], now: datetime) -> list[Due]:
    """What `look` would find, without a trace."""
    with results.transaction() as connection:
        begun = _begun(connection, results.tables, schedule, now)
        return _due(connection, results.tables, schedule, begun, now)


def note_failure(results: Results, due: Due, launched: datetime, now: datetime, how: str) -> None:
    """Records the attempt of a process that ended without a word, so that it counts as one.

    launched: when its process was started; a row that is newer was written by itself.
    """
    table = results.tables.pipeline_runs
    leases.abandon_dead(results.engine, results.tables)
    own = (table.c.job == due.job, table.c.slot_at == due.slot, table.c.started_at >= launched)
    with results.transaction() as connection:
        told = connection.execute(sa.select(table.c.status).where(*own)).scalars().all()
        if not told:
            row = _row(due.job, due.slot, now, "failed") | {"error": how}
            connection.execute(sa.insert(table).values(row | {"run_id": new_id(due.job, now)}))
        left = table.c.status == "abandoned"
        connection.execute(sa.update(table).where(*own, left).values(note=how))


# --- since when a rule counts ---------------------------------------------------------------------


def _renewed(
    connection: Connection, tables: Tables, schedule: Mapping[str, Entry], now: datetime
) -> dict[str, datetime]:
    """As `_begun`, with rules that are new or changed remembered from now on."""
    begun = _begun(connection, tables, schedule, now)
    kept = {job: _remembered(entry, begun[job]) for job, entry in schedule.items()}
    known = read_settings(connection, tables, "schedule.")
    kept |= {job: NO_RULE for job in known if job not in schedule}
    changed = {f"schedule.{job}": text for job, text in kept.items() if known.get(job) != text}
    if changed:
        write_settings(connection, tables, changed)
    return begun


def _begun(
    connection: Connection, tables: Tables, schedule: Mapping[str, Entry], now: datetime
) -> dict[str, datetime]:
    """The first slot that counts for each job: slots before a rule was there were never missed."""
    known = read_settings(connection, tables, "schedule.")
    found = {}
    for job, entry in schedule.items():
        newest = rules.newest_slot(entry, now)
        remembered = json.loads(known.get(job, "null"))
        if remembered is None:
            first = _last_slot(connection, tables, job, now)
        else:
            same = remembered["rule"] == [entry.rule, entry.timezone]
            first = datetime.fromisoformat(remembered["first"]) if same else None
        found[job] = min(newest, first or newest)
    return found


def _remembered(entry: Entry, first: datetime) -> str:
    return json.dumps({"rule": [entry.rule, entry.timezone], "first": first.isoformat()})


# --- what is due ----------------------------------------------------------------------------------


def _due(
    connection: Connection,
    tables: Tables,
    schedule: Mapping[str, Entry],
    begun: Mapping[str, datetime],
    now: datetime,
) -> list[Due]:
    table = tables.pipeline_runs
    jobs = sa.select(table.c.job).distinct()
    busy = set(connection.execute(jobs.where(table.c.status == "running")).scalars())
    proved = set(connection.execute(jobs.where(table.c.status == "succeeded")).scalars())
    found = []
    for job, entry in schedule.items():
        slot = _slot_due(connection, tables, job, entry, begun[job], now)
        if slot is not None and job not in busy:
            found.append(Due(job, slot, entry.catch_up, job not in proved))
    return found


def _slot_due(
    connection: Connection,
    tables: Tables,
    job: str,
    entry: Entry,
    first: datetime,
    now: datetime,
) -> datetime | None:
    """The slot that the job should run now; None where all are taken or have to wait."""
    newest = rules.newest_slot(entry, now)
    taken = _last_slot(connection, tables, job, now, TAKING)
    if taken is not None and taken >= newest:
        return None
    if not entry.catch_up:
        open_slots = [newest]
    else:
        before = first - timedelta(microseconds=1)
        open_slots = rules.between(entry, max(taken or before, before), newest)
    attempts = _attempts(connection, tables, job, open_slots[0], now)
    served = _last_by_hand(connection, tables, job) if taken is None else None
    for slot in open_slots:
        if served is not None and served >= slot:
            continue
        count, last = attempts.get(slot, (0, now))
        if count == 0:
            return slot
        if count <= len(PAUSES):
            # A clock that was set back makes an attempt one of the future.
            return slot if abs(now - last) >= PAUSES[count - 1] else None
    return None


def _last_slot(
    connection: Connection, tables: Tables, job: str, until: datetime, status: Iterable[str] = ()
) -> datetime | None:
    """The newest recorded slot of a job up to a moment."""
    table = tables.pipeline_runs
    select = sa.select(sa.func.max(table.c.slot_at)).where(
        table.c.job == job, table.c.slot_at <= until
    )
    if status:
        select = select.where(table.c.status.in_(status))
    return connection.execute(select).scalar()


def _last_by_hand(connection: Connection, tables: Tables, job: str) -> datetime | None:
    """The start of the last successful run without a slot: who fits by hand and then starts the
    schedule wants no second fit at once."""
    table = tables.pipeline_runs
    by_hand = (table.c.job == job, table.c.slot_at.is_(None), table.c.status == "succeeded")
    last = sa.select(sa.func.max(table.c.started_at)).where(*by_hand)
    return connection.execute(last).scalar()


def _attempts(
    connection: Connection, tables: Tables, job: str, since: datetime, now: datetime
) -> dict[datetime, tuple[int, datetime]]:
    """How often each slot was tried in vain, and when last."""
    table = tables.pipeline_runs
    rows = connection.execute(
        sa.select(table.c.slot_at, sa.func.count(), sa.func.max(table.c.started_at))
        .where(table.c.job == job, table.c.slot_at.between(since, now))
        .where(table.c.status.not_in(TAKING))
        .group_by(table.c.slot_at)
    )
    return {slot: (count, started) for slot, count, started in rows}


# --- what passed unserved -------------------------------------------------------------------------


def _note_passed(
    connection: Connection, tables: Tables, job: str, entry: Entry, first: datetime, now: datetime
) -> None:
    """Rows for the slots between the last recorded one and the newest, which alone is run."""
    newest = rules.newest_slot(entry, now)
    last = _last_slot(connection, tables, job, now)
    if last is None or last >= newest:
        return
    start = max(last, first - timedelta(microseconds=1))
    passed = rules.between(entry, start, newest)[:-1]
    if not passed:
        return
    import pandas as pd

    busy = _Busy(connection, tables, job, passed[0], now)
    for begin in range(0, len(passed), BATCH):
        rows = [
            _row(job, slot, now, "skipped" if busy.at(slot) else "missed")
            for slot in passed[begin : begin + BATCH]
        ]
        insert_new(connection, tables.pipeline_runs, pd.DataFrame(rows))


class _Busy:
    """When runs of a job were under way."""

    def __init__(
        self, connection: Connection, tables: Tables, job: str, since: datetime, now: datetime
    ) -> None:
        table = tables.pipeline_runs
        rows = connection.execute(
            sa.select(table.c.started_at, table.c.finished_at)
            .where(table.c.job == job, table.c.status.in_(("running", *TIMED)))
            .where(sa.or_(table.c.finished_at.is_(None), table.c.finished_at > since))
            .order_by(table.c.started_at)
        ).all()
        self.starts = [started for started, _ in rows]
        self.ends = list(accumulate((ended or now for _, ended in rows), max))

    def at(self, moment: datetime) -> bool:
        place = bisect_right(self.starts, moment)
        return place > 0 and self.ends[place - 1] > moment


def _row(job: str, slot: datetime, now: datetime, status: str) -> dict[str, Any]:
    """The row of a slot that no run wrote one for; its id is a function of slot and status."""
    return {
        "run_id": f"{job}-{slot:%Y%m%dT%H%M%S}-{status}",
        "job": job,
        "trigger": "schedule",
        "status": status,
        "slot_at": slot,
        "started_at": now,
        "finished_at": now,
        "note": {"missed": MISSED, "skipped": SKIPPED}.get(status),
        **dict.fromkeys(COUNTS, 0),
    }


def _take_back(
    connection: Connection, tables: Tables, job: str, newest: datetime, now: datetime
) -> None:
    """The newest slot is not over: a clock that was ahead has noted so."""
    table = tables.pipeline_runs
    connection.execute(
        sa.delete(table).where(
            table.c.job == job,
            table.c.slot_at == newest,
            table.c.status.in_(("missed", "skipped")),
            table.c.started_at > now + CLOCKS_DIFFER,
        )
    )
