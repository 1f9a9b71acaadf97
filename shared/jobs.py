"""What a job is, and what it tells when it is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.runs import Run


@dataclass(frozen=True)
class Request:
    """What the caller asked for; a moment that was not given is None."""

    since: datetime | None = None
    until: datetime | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    dry_run: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a job did: a line for people, data for programs, counts for `pipeline_runs`."""

    message: str
    data: Mapping[str, Any] = field(default_factory=dict)
    rows_read: int = 0
    rows_written: int = 0
    rows_quarantined: int = 0
    rows_late: int = 0
    rows_too_late: int = 0
    window_from: datetime | None = None
    window_to: datetime | None = None
    model_version_id: str | None = None
    note: str | None = None  # what the run's record should say beside its counts
    then: tuple[str, ...] = ()  # jobs that should follow, each a run of its own, up to `window_to`


@dataclass(frozen=True)
class Job:
    """A named piece of work of a domain; `run` does it, the run record is its caller's."""

    name: str
    run: Callable[[Run, Request], Outcome]
    writes: bool = True  # False: it takes no lease and leaves no record
