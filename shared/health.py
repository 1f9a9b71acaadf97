"""`health`: what a monitor asks, of the result tables alone.

A job is late from its first slot after the last one that a run served. A run that is under way is
late from its own start: it may be a long one, and it may be one that nobody will ever end.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shared import accounts, frames, rules, runs
from shared.config import Configuration
from shared.errors import TemporaryError
from shared.rules import Entry
from shared.tables import Tables

ENDED = ("succeeded", "failed", "abandoned")
MINUTES = timedelta(minutes=1)


@dataclass(frozen=True)
class JobHealth:
    """One job; moments are None where there was none."""

    job: str
    last_success_at: datetime | None
    last_success_age_seconds: float | None
    last_status: str | None  # of the last run that ended
    last_error: str | None
    running_since: datetime | None
    due_since: datetime | None  # the first slot that no run has served; None: not scheduled
    past_due_seconds: float
    missed_slots: int  # since the last success


@dataclass(frozen=True)
class Health:
    """What is known, and what is wrong."""

    reasons: tuple[str, ...]
    jobs: tuple[JobHealth, ...] = ()
    known_until: datetime | None = None  # the newest moment of the source that a run has seen
    scored_until: datetime | None = None
    lag_seconds: float | None = None
    pending_rows: int | None = None
    too_late_rows: int | None = None

    @property
    def data(self) -> dict[str, Any]:
        return {"healthy": not self.reasons, **asdict(self)}

    def lines(self) -> Iterator[str]:
        """For people."""
        yield from (f"FAULT {reason}" for reason in self.reasons)
        for job in self.jobs:
            success = job.last_success_at
            last = "never" if success is None else f"{success:%Y-%m-%d %H:%M:%S}"
            running = "" if job.running_since is None else ", running"
            yield f"{job.job}: last success {last}, {job.missed_slots} slots missed{running}"
        if self.scored_until is not None:
            yield f"scored until {self.scored_until:%Y-%m-%d %H:%M:%S}, {self.pending_rows} pending"
        if not self.reasons:
            yield "healthy"


def check(config: Configuration, now: datetime, max_lag: timedelta) -> Health:
    """The health of what is scheduled, or without a schedule of every job that ever ran."""
    try:
        results = runs.open_results(config)
        with results.transaction() as connection:
            return _checked(connection, results.tables, config.schedule, now, max_lag)
    except TemporaryError as error:
        return Health((str(error),))


def _checked(
    connection: Connection,
    tables: Tables,
    schedule: Mapping[str, Entry],
    now: datetime,
    max_lag: timedelta,
) -> Health:
    found = [
        _job(connection, tables, job, schedule.get(job), now)
        for job in schedule or _jobs(connection, tables)
    ]
    pending, too_late = accounts.waiting(connection, tables)
    return Health(
        tuple(reason for job in found for reason in _reasons(job, max_lag)),
        tuple(found),
        **_reached(connection, tables, now),
        pending_rows=pending,
        too_late_rows=too_late,
    )


def _jobs(connection: Connection, tables: Tables) -> list[str]:
    job = tables.pipeline_runs.c.job
    found = connection.execute(sa.select(job).where(job.in_(rules.SCHEDULABLE)).distinct())
    return sorted(found.scalars())


def _reasons(job: JobHealth, max_lag: timedelta) -> Iterator[str]:
    if timedelta(seconds=job.past_due_seconds) > max_lag:
        minutes = int(timedelta(seconds=job.past_due_seconds) / MINUTES)
        yield f"{job.job} of {job.due_since:%Y-%m-%d %H:%M} UTC is {minutes:,} minutes past due."
    if job.last_status == "failed":
        yield f"The last run of {job.job} failed: {job.last_error}"


# --- one job --------------------------------------------------------------------------------------


def _job(
    connection: Connection, tables: Tables, job: str, entry: Entry | None, now: datetime
) -> JobHealth:
    success, served = _served(connection, tables, job)
    status, error = _last_ended(connection, tables, job)
    running = _running_since(connection, tables, job)
    due = None if entry is None else _due_since(connection, tables, job, entry, served, now)
    return JobHealth(
        job,
        last_success_at=success,
        last_success_age_seconds=None if success is None else _seconds(now, success),
        last_status=status,
        last_error=error,
        running_since=running,
        due_since=due,
        past_due_seconds=0.0 if due is None else _seconds(now, max(due, running or due)),
        missed_slots=_missed(connection, tables, job, served),
    )


def _served(
    connection: Connection, tables: Tables, job: str
) -> tuple[datetime | None, datetime | None]:
    """(end of the last success, up to when slots are served); a run by hand serves its moment."""
    table = tables.pipeline_runs
    found = connection.execute(
        sa.select(
            sa.func.max(table.c.finished_at),
            sa.func.max(sa.func.coalesce(table.c.slot_at, table.c.started_at)),
        ).where(table.c.job == job, table.c.status == "succeeded")
    ).one()
    return found[0], found[1]


def _last_ended(connection: Connection, tables: Tables, job: str) -> tuple[str | None, str | None]:
    """(status, error) of the last run that ended."""
    table = tables.pipeline_runs
    found = connection.execute(
        sa.select(table.c.status, table.c.error)
        .where(table.c.job == job, table.c.status.in_(ENDED))
        .order_by(table.c.started_at.desc(), table.c.run_id.desc())
        .limit(1)
    ).first()
    return (None, None) if found is None else (found.status, found.error)


def _running_since(connection: Connection, tables: Tables, job: str) -> datetime | None:
    table = tables.pipeline_runs
    running = (table.c.job == job, table.c.status == "running")
    began = sa.select(sa.func.min(table.c.started_at)).where(*running)
    return connection.execute(began).scalar()


def _due_since(
    connection: Connection,
    tables: Tables,
    job: str,
    entry: Entry,
    served: datetime | None,
    now: datetime,
) -> datetime:
    """The first slot after the last that was served, and of the rule's own; where none was served,
    the first that a scheduler saw, or that came after any job's first run."""
    first = _first(connection, tables, job)
    if served is None and first is not None:
        return first
    began = sa.select(sa.func.min(tables.pipeline_runs.c.started_at))
    since = served or connection.execute(began).scalar()
    if since is None:
        return rules.newest_slot(entry, now)
    following = rules.next_slot(entry, since)
    return following if first is None else max(following, first)


def _first(connection: Connection, tables: Tables, job: str) -> datetime | None:
    """The first slot of the present rule, as a scheduler saw it; a rule that is new or changed has
    missed nothing before."""
    known = json.loads(runs.setting(connection, tables, f"schedule.{job}") or "null") or {}
    return datetime.fromisoformat(known["first"]) if "first" in known else None


def _missed(connection: Connection, tables: Tables, job: str, served: datetime | None) -> int:
    table = tables.pipeline_runs
    select = sa.select(sa.func.count()).where(table.c.job == job, table.c.status == "missed")
    if served is not None:
        select = select.where(table.c.slot_at > served)
    return int(connection.execute(select).scalar_one())


def _seconds(now: datetime, before: datetime) -> float:
    """Never negative: a clock may have gone back."""
    return max(0.0, (now - before).total_seconds())


# --- the source, as far as the tables know it -----------------------------------------------------


def _reached(connection: Connection, tables: Tables, now: datetime) -> dict[str, Any]:
    """How far the source is known, by any run, and how far it is scored."""
    table = tables.pipeline_runs
    known = connection.execute(
        sa.select(sa.func.max(table.c.window_to)).where(
            table.c.status == "succeeded", table.c.window_to <= now
        )
    ).scalar()
    reached = runs.setting(connection, tables, "scored_until")
    scored = None if reached is None else frames.moment(int(reached))
    lag = None if known is None or scored is None else _seconds(known, scored)
    return {"known_until": known, "scored_until": scored, "lag_seconds": lag}


# --- OpenMetrics ----------------------------------------------------------------------------------


FIGURES = {
    "known_until": ("known_until_timestamp_seconds", "Newest moment of the source seen by a run."),
    "scored_until": (
        "scored_until_timestamp_seconds",
        "Up to here all that was visible is scored.",
    ),
    "lag_seconds": ("lag_seconds", "Between the two."),
    "pending_rows": ("pending_rows", "Rows known and not yet scored."),
    "too_late_rows": ("too_late_rows", "Of them those that wait for backfill."),
}
FIGURES_OF_JOBS = {
    "last_success_at": ("last_success_timestamp_seconds", "End of the job's last success."),
    "running_since": ("running_since_timestamp_seconds", "Start of the job's present run."),
    "past_due_seconds": ("past_due_seconds", "How late the job is."),
    "missed_slots": ("missed_slots", "Slots missed since the last success."),
}


def openmetrics(health: Health) -> str:
    """The same in the text format of OpenMetrics 1.0; what is not known is left out."""
    failed = {_labels(job): job.last_status == "failed" for job in health.jobs}
    lines = [
        *_family("healthy", "1 where no job is late or failed.", {"": not health.reasons}),
        *_family("last_run_failed", "1 where the job's last run failed.", failed),
    ]
    for field, (name, meaning) in FIGURES_OF_JOBS.items():
        lines += _family(name, meaning, {_labels(job): getattr(job, field) for job in health.jobs})
    for field, (name, meaning) in FIGURES.items():
        lines += _family(name, meaning, {"": getattr(health, field)})
    return "\n".join([*lines, "# EOF", ""])


def _family(name: str, meaning: str, samples: Mapping[str, Any]) -> Iterator[str]:
    yield f"# TYPE peerwatch_{name} gauge"
    if name.endswith("_seconds"):
        yield f"# UNIT peerwatch_{name} seconds"
    yield f"# HELP peerwatch_{name} {meaning}"
    for labels, value in samples.items():
        if value is not None:
            number = value.timestamp() if isinstance(value, datetime) else float(value)
            yield f"peerwatch_{name}{labels} {number!r}"


def _labels(job: JobHealth) -> str:
    return f'{{job="{job.job}"}}'
