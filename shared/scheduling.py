"""When jobs are due: five-field cron with weekday names, or "every 15 minutes", in UTC.

APScheduler only rings; each job is a child process, so that a crash or a full memory cannot take
the scheduler down and the scheduler itself holds no torch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apscheduler.triggers.base import BaseTrigger

SCHEDULABLE = (
    *("segmenter.fit", "segmenter.score", "segmenter.report"),
    *("fraudwatch.fit", "fraudwatch.recalibrate", "fraudwatch.score", "fraudwatch.report"),
)
SECONDS = {"minute": 60, "hour": 3600, "day": 86_400}
FIELD = r"(?:\*|\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)(?:/\d+)?"
WEEKDAY = r"(?:\*|(?:sun|mon|tue|wed|thu|fri|sat)(?:[-,](?:sun|mon|tue|wed|thu|fri|sat))*)"
CRON = re.compile(rf"{FIELD} {FIELD} {FIELD} {FIELD} {WEEKDAY}")
EVERY = re.compile(r"every (\d+) (minute|hour|day)s?")


def rule_fault(rule: object) -> str | None:
    """What is wrong with a rule; None where it can be read."""
    if not isinstance(rule, str):
        return 'should be text, such as "0 3 * * sun" or "every 15 minutes".'
    every = EVERY.fullmatch(rule)
    if every is not None and not int(every[1]):
        return "should be every 1 or more."
    if every is None and CRON.fullmatch(rule) is None:
        return (
            f'cannot read "{rule}"; expected five cron fields with weekday names (0 3 * * sun), '
            'or "every 15 minutes".'
        )
    try:
        next_slot(rule, datetime(2000, 1, 1, tzinfo=UTC))
    except (ValueError, OverflowError) as error:
        return f'cannot read "{rule}": {error}'
    return None


def _cron(rule: str) -> BaseTrigger:
    from apscheduler.triggers.cron import CronTrigger

    minute, hour, day, month, weekday = rule.split(" ")
    return CronTrigger(
        minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=UTC
    )


def next_slot(rule: str, after: datetime) -> datetime:
    """The first slot strictly after a moment, in UTC; "every" counts from 1970."""
    every = EVERY.fullmatch(rule)
    if every is not None:
        step = int(every[1]) * SECONDS[every[2]]
        passed = int(after.timestamp()) // step + 1
        return datetime.fromtimestamp(passed * step, UTC)
    slot = _cron(rule).get_next_fire_time(None, after + timedelta(microseconds=1))
    if slot is None:
        raise ValueError(f"{rule} never comes")
    return slot.astimezone(UTC)


def due(
    schedule: Mapping[str, str], last_started: Mapping[str, datetime], now: datetime
) -> list[str]:
    """The jobs with a slot between their last start and now, in the schedule's order.

    A job that never ran is due at once; several missed slots are one, the newest.
    """
    return [
        job
        for job, rule in schedule.items()
        if job not in last_started or next_slot(rule, last_started[job]) <= now
    ]


def command(job: str, config: str) -> list[str]:
    """The child process that runs a job: the same command that a person would type."""
    domain, verb = job.split(".")
    code = "import sys; from shared.cli import main; sys.exit(main())"
    return [sys.executable, "-c", code, "--config", config, "--quiet", domain, verb]


def run_child(job: str, config: str) -> int:
    """Runs a job in a process of its own and waits; its exit code."""
    environment = {**os.environ, "PEERWATCH_TRIGGER": "schedule"}
    return subprocess.run(command(job, config), env=environment, check=False).returncode  # noqa: S603 - our own command


def ring(check: Callable[[], None], seconds: int = 30) -> None:
    """Calls `check` now and every so many seconds until interrupted; never two at a time."""
    from apscheduler.schedulers.blocking import BlockingScheduler

    clock = BlockingScheduler(timezone=UTC)
    clock.add_job(
        check,
        "interval",
        seconds=seconds,
        coalesce=True,
        max_instances=1,
        misfire_grace_time=None,
        next_run_time=datetime.now(UTC),
    )
    try:
        clock.start()
    except (KeyboardInterrupt, SystemExit):
        return
