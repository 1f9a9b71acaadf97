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

from shared import frames, rules, runs
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
    return Health(
        tuple(reason for job in found for reason in _reasons(job, max_lag)),
        tuple(found),
        **_reached(connection, tables, now),
        **_waiting(connection, tables),
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
    table = tables.pipeline_runs
    mine, moment = table.c.job == job, table.c.started_at.type
    served, success = connection.execute(
        sa.select(
            sa.func.max(sa.func.coalesce(table.c.slot_at, table.c.started_at), type_=moment),
            sa.func.max(table.c.finished_at, type_=moment),
        ).where(mine, table.c.status == "succeeded")
    ).one()
    last = connection.execute(
        sa.select(table.c.status, table.c.error)
        .where(mine, table.c.status.in_(ENDED))
        .order_by(table.c.started_at.desc(), table.c.run_id.desc())
        .limit(1)
    ).first()
    running = connection.execute(
        sa.select(sa.func.min(table.c.started_at, type_=moment)).where(
            mine, table.c.status == "running"
        )
    ).scalar()
    due = None if entry is None else _due_since(connection, tables, job, entry, served, now)
    return JobHealth(
        job,
        last_success_at=success,
        last_success_age_seconds=None if success is None else _seconds(now, success),
        last_status=None if last is None else last.status,
        last_error=None if last is None else last.error,
        running_since=running,
        due_since=due,
        past_due_seconds=0.0 if due is None else _seconds(now, max(due, running or due)),
        missed_slots=_missed(connection, tables, job, served),
    )


def _due_since(
    connection: Connection,
    tables: Tables,
    job: str,
    entry: Entry,
    served: datetime | None,
    now: datetime,
) -> datetime:
    """The first slot after the last that was served; where none was, the first that a scheduler
    saw, or that came after any job's first run."""
    known = runs.read_settings(connection, tables, f"schedule.{job}").get("", "null")
    first = (json.loads(known) or {}).get("first")
    if served is None and first is not None:
        return datetime.fromisoformat(first)
    began = tables.pipeline_runs.c.started_at
    since = served or connection.execute(sa.select(sa.func.min(began, type_=began.type))).scalar()
    return rules.newest_slot(entry, now) if since is None else rules.next_slot(entry, since)


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
    seen = sa.func.max(table.c.window_to, type_=table.c.window_to.type)
    known = connection.execute(
        sa.select(seen).where(table.c.status == "succeeded", table.c.window_to <= now)
    ).scalar()
    reached = runs.read_settings(connection, tables, "scored_until").get("")
    scored = None if reached is None else frames.moment(int(reached))
    lag = None if known is None or scored is None else _seconds(known, scored)
    return {"known_until": known, "scored_until": scored, "lag_seconds": lag}


def _waiting(connection: Connection, tables: Tables) -> dict[str, Any]:
    coverage = tables.view("coverage")
    names = ("pending", "too_late")
    columns: list[Any] = [sa.func.coalesce(sa.func.sum(sa.column(name)), 0) for name in names]
    totals = connection.execute(sa.select(*columns).select_from(coverage)).one()
    return {f"{name}_rows": int(total) for name, total in zip(names, totals, strict=True)}


# --- OpenMetrics ----------------------------------------------------------------------------------


def openmetrics(health: Health) -> str:
    """The same in the text format of OpenMetrics 1.0; what is not known is left out."""
    lines: list[str] = []
    for name, meaning, samples in _families(health):
        told = [(labels, value) for labels, value in samples if value is not None]
        unit = name.endswith("_seconds")
        lines.append(f"# TYPE peerwatch_{name} gauge")
        lines += [f"# UNIT peerwatch_{name} seconds"] if unit else []
        lines.append(f"# HELP peerwatch_{name} {meaning}")
        lines += [f"peerwatch_{name}{labels} {float(value)!r}" for labels, value in told]
    return "\n".join([*lines, "# EOF", ""])


def _families(health: Health) -> Iterator[tuple[str, str, list[tuple[str, float | None]]]]:
    def each(field: str) -> list[tuple[str, float | None]]:
        return [(f'{{job="{job.job}"}}', _number(getattr(job, field))) for job in health.jobs]

    def one(value: Any) -> list[tuple[str, float | None]]:
        return [("", _number(value))]

    failed = [(f'{{job="{job.job}"}}', float(job.last_status == "failed")) for job in health.jobs]
    yield "healthy", "1 where no scheduled job is late or failed.", one(not health.reasons)
    yield (
        "last_success_timestamp_seconds",
        "When the last successful run of the job ended.",
        each("last_success_at"),
    )
    yield "last_run_failed", "1 where the last run of the job failed.", list(failed)
    yield (
        "running_since_timestamp_seconds",
        "When the job's present run began.",
        each("running_since"),
    )
    yield "past_due_seconds", "How late the job is.", each("past_due_seconds")
    yield "missed_slots", "Slots missed since the last success.", each("missed_slots")
    yield (
        "known_until_timestamp_seconds",
        "The newest moment of the source that a run has seen.",
        one(health.known_until),
    )
    yield (
        "scored_until_timestamp_seconds",
        "The moment up to which all that was visible is scored.",
        one(health.scored_until),
    )
    yield "lag_seconds", "Between the two.", one(health.lag_seconds)
    yield "pending_rows", "Rows known and not yet scored.", one(health.pending_rows)
    yield "too_late_rows", "Of them those that wait for backfill.", one(health.too_late_rows)


def _number(value: Any) -> float | None:
    if value is None:
        return None
    return value.timestamp() if isinstance(value, datetime) else float(value)
