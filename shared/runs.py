"""A run: its record, its batches, and what it may touch (source, results, clock, settings)."""

from __future__ import annotations

import secrets
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from random import SystemRandom
from typing import Any, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine

from shared import leases, migrating
from shared.config import Configuration
from shared.database import (
    Limits,
    Reader,
    engine,
    insert_row,
    limits_of,
    lock,
    parse_url,
    require_file,
    transaction,
    upsert,
)
from shared.errors import (
    ConfigurationError,
    HeldError,
    OvertakenError,
    PeerwatchError,
    TemporaryError,
)
from shared.jobs import Outcome, Request
from shared.masking import guarded
from shared.source import Source
from shared.tables import Tables, tables

COUNTS = ("rows_read", "rows_written", "rows_quarantined", "rows_late", "rows_too_late")
RESULT_DATABASES = ("sqlite", "postgresql")  # those that the views are written for
TRIES, FIRST_PAUSE = 8, 0.2  # of a unit of work, seconds: half a minute, a server's restart
T = TypeVar("T")


@dataclass(frozen=True)
class Results:
    """The result tables: where they are and how to write to them."""

    engine: Engine
    target: migrating.Target
    tables: Tables

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """One unit of work: everything in it becomes visible together, or not at all."""
        with transaction(self.engine) as connection:
            yield connection


def results_of(config: Configuration, kinds: dict[str, str] | None = None) -> Results:
    """The result tables of a configuration, without a look at the database."""
    url = parse_url(config.results_url)
    if url.get_backend_name() not in RESULT_DATABASES:
        raise ConfigurationError(
            f"The result tables cannot be in a {url.get_backend_name()} database. Set "
            "[results] url to one of SQLite or PostgreSQL; the source may stay where it is."
        )
    schema = None if url.get_backend_name() == "sqlite" else config.results.schema
    prefix = config.results.prefix if schema is None else ""
    target = migrating.Target(schema, prefix, kinds or {})
    return Results(engine(url), target, tables(kinds, schema, prefix))


def open_results(config: Configuration) -> Results:
    """The result tables as they are: newest version, keys of the kinds that were recorded."""
    results = results_of(config)
    require_file(results.engine.url, "Make the result tables first: peerwatch init --url URL")
    with results.transaction() as connection:
        migrating.require_newest(connection, results.target)
        kinds = migrating.recorded_kinds(connection, results.target)
    return results_of(config, kinds)


@dataclass(frozen=True)
class Run:
    """What a job works with; its id, window and clock travel with it."""

    run_id: str
    job: str
    clock: datetime
    config: Configuration
    results: Results
    source: Source
    lease: leases.Lease | None = None  # of a job that writes
    progress: Callable[[int], None] = field(default=lambda _rows: None)

    @property
    def tables(self) -> Tables:
        return self.results.tables

    @property
    def command(self) -> str:
        """The job as a person types it: "fraudwatch score"."""
        return self.job.replace(".", " ")

    def settings(self, domain: str) -> Any:
        """The domain's own settings."""
        return self.config.domains[domain]


def new_id(job: str, now: datetime) -> str:
    """An id that sorts by time; two runs of one moment still differ."""
    return f"{job}-{now.astimezone(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"


@contextmanager
def opened(
    config: Configuration,
    job: str,
    now: datetime,
    progress: Callable[[int], None] = lambda _rows: None,
    trigger: str | None = None,
    slot: datetime | None = None,
    run_id: str | None = None,
    reader: Callable[[URL, str, Limits], Reader] = Reader,
) -> Iterator[Run]:
    """A run ready to work: source reflected and checked, results at the newest version.

    trigger: what started it; where given, a failure to open is recorded as a failed run, of the
    schedule's slot where it is for one. run_id: of the run that this process helps. reader: how it
    reads the source.
    """
    run_id = run_id or new_id(job, now)
    with ExitStack() as stack:
        try:
            name, limits = f"peerwatch/{job}/{run_id}", limits_of(job)
            source = stack.enter_context(Source(config.source, name, limits, reader))
            results = open_results(config)
            _require_same_mapping(results, source)
        except PeerwatchError as error:
            if trigger is not None:
                _record_unopened(config, _row(run_id, job, now, trigger, slot), error)
            raise
        yield Run(run_id, job, now, config, results, source, progress=progress)


def _row(
    run_id: str, job: str, now: datetime, trigger: str, slot: datetime | None
) -> dict[str, Any]:
    """The row of a run that begins."""
    return {
        "run_id": run_id,
        "job": job,
        "trigger": trigger,
        "status": "running",
        "slot_at": slot,
        "started_at": now,
        **dict.fromkeys(COUNTS, 0),
    }


def _record_unopened(config: Configuration, row: dict[str, Any], error: PeerwatchError) -> None:
    """Records a run that could not begin, where its results can be written to at all."""
    failed = {"status": "failed", "error": guarded(str(error)), "finished_at": datetime.now(UTC)}
    try:
        results = open_results(config)
        with results.transaction() as connection:
            connection.execute(sa.insert(results.tables.pipeline_runs).values(row | failed))
    except PeerwatchError:
        return  # the error itself goes on, and says more


def _require_same_mapping(results: Results, source: Source) -> None:
    """The mapping must still be what the result tables were made for."""
    with results.transaction() as connection:
        recorded = migrating.recorded_kinds(connection, results.target)
        known = read_settings(connection, results.tables, "column.")
        faults = [
            f"The {key} ids are {kind} now, but the result tables were made for {recorded[key]}. "
            "Map a view that casts them, or run peerwatch init with another [results] schema or "
            "prefix."
            for key, kind in source.kinds.items()
            if key in recorded and recorded[key] != kind and _in_use(connection, results, key)
        ]
        faults += source.changed(known)
    if faults:
        raise ConfigurationError(faults)


def _remember_columns(connection: Connection, run: Run) -> None:
    """What newly mapped columns are, so that a change of them is noticed."""
    known = read_settings(connection, run.tables, "column.")
    types = run.source.types.items()
    new = {f"column.{name}": kind for name, kind in types if name not in known}
    write_settings(connection, run.tables, new)


def _in_use(connection: Connection, results: Results, key: str) -> bool:
    """Whether the key's kind was really chosen: an unmapped key was recorded as text."""
    mapped = setting(connection, results.tables, f"mapped.{key}")
    return key == "transaction" or mapped is not None


def read_settings(connection: Connection, tables: Tables, prefix: str) -> dict[str, str]:
    """The recorded settings whose key begins so, without that beginning."""
    table = tables.settings
    rows = connection.execute(
        sa.select(table.c.key, table.c.value).where(table.c.key.startswith(prefix, autoescape=True))
    )
    return {str(key).removeprefix(prefix): str(value) for key, value in rows}


def setting(connection: Connection, tables: Tables, key: str) -> str | None:
    """One recorded setting; None where there is none."""
    table = tables.settings
    return connection.execute(sa.select(table.c.value).where(table.c.key == key)).scalar()


def write_settings(connection: Connection, tables: Tables, values: dict[str, str]) -> None:
    """Records settings; a key that is there is renewed."""
    import pandas as pd

    frame = pd.DataFrame(sorted(values.items()), columns=["key", "value"])
    upsert(connection, tables.settings, frame)  # one statement: two runners may write one key


@contextmanager
def recorded(
    run: Run, trigger: str, slot: datetime | None = None
) -> Iterator[Callable[[Outcome], None]]:
    """Keeps the run's row: running, then how it ended; a failure is never swallowed.

    slot: the moment of the schedule that it is for. Raises HeldError where a run has it already.
    """
    row = _row(run.run_id, run.job, run.clock, trigger, slot)

    def succeeded(outcome: Outcome) -> None:
        values = {name: getattr(outcome, name) for name in COUNTS}
        ended = _ended(
            run,
            status="succeeded",
            window_from=outcome.window_from,
            window_to=outcome.window_to,
            model_version_id=outcome.model_version_id,
            note=outcome.note,
            **values,
        )
        unit(run, run.job, lambda connection: connection.execute(ended))

    try:  # also of the beginning: one that is told to stop may have its row already
        unit(run, run.job, lambda connection: _begin(connection, run, row))
        yield succeeded
    except BaseException as error:
        _let_go(error)
        with suppress(PeerwatchError), run.results.transaction() as connection:
            connection.execute(_ended(run, **_told(error)))
        raise


def _let_go(error: BaseException | None) -> None:
    """Ends what the frames of an error still hold.

    A signal may strike between the begin of a transaction and the block that would undo it; the
    transaction would then stay open, and this process wait for itself.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _begin(connection: Connection, run: Run, row: dict[str, Any]) -> None:
    _remember_columns(connection, run)
    if not insert_row(connection, run.tables.pipeline_runs, row):
        raise HeldError(
            f"{run.command} of {row['slot_at']:%Y-%m-%d %H:%M} UTC was done, or is being done, by "
            "another runner."
        )


def _told(error: BaseException) -> dict[str, Any]:
    """How a run ended that did not come to its end."""
    if isinstance(error, PeerwatchError):
        return {"status": "failed", "error": guarded(str(error))}
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return {"status": "abandoned", "error": "It was told to stop."}
    return {"status": "failed", "error": type(error).__name__}


def _ended(run: Run, **values: Any) -> sa.Update:
    """The statement that closes the run's row; one that was abandoned stays so."""
    table = run.tables.pipeline_runs
    return (
        sa.update(table)
        .where(table.c.run_id == run.run_id, table.c.status == "running")
        .values(finished_at=max(datetime.now(UTC), run.clock), **values)
    )


def record_batch(
    connection: Connection,
    run: Run,
    *,
    window: tuple[datetime, datetime],
    rows_read: int,
    rows_written: int,
    rows_quarantined: int,
) -> None:
    """The ledger row of a batch, in the transaction that writes the batch's results."""
    table = run.tables.run_batches
    last = connection.execute(
        sa.select(sa.func.max(table.c.batch)).where(table.c.run_id == run.run_id)
    ).scalar()
    connection.execute(
        sa.insert(table).values(
            run_id=run.run_id,
            batch=0 if last is None else last + 1,
            window_from=window[0],
            window_to=window[1],
            rows_read=rows_read,
            rows_written=rows_written,
            rows_quarantined=rows_quarantined,
            committed_at=run.clock,
        )
    )


def unit(run: Run, domain: str, work: Callable[[Connection], T]) -> T:
    """One unit of work: all that `work` writes becomes visible together, or not at all.

    Writers of a domain wait for each other, and one that was overtaken writes nothing. What failed
    for a while is tried again as a whole, decisions included, so `work` keeps nothing of its own.
    """
    pauses = _pauses()
    while True:
        begun, last, done = "", False, None
        try:
            with run.results.transaction() as connection:
                lock(connection, run.tables.lock(domain))
                begun = run.lease.fence(connection) if run.lease else ""
                done = work(connection)
                last = True  # nothing is left but the commit
            return done
        except OvertakenError:
            raise
        except TemporaryError:
            pause = next(pauses, None)
            if pause is None:
                raise
            time.sleep(pause)
            if last and begun and _committed(run, begun, pauses):
                return cast(T, done)


def _pauses() -> Iterator[float]:
    """Seconds between two tries, each about twice the one before; no two runners keep step."""
    return (FIRST_PAUSE * 2**turn * SystemRandom().uniform(0.5, 1.5) for turn in range(TRIES - 1))


def _committed(run: Run, begun: str, pauses: Iterator[float]) -> bool:
    """Whether a unit of work whose commit got no answer was made."""
    while True:
        try:
            with run.results.transaction() as connection:
                return run.lease is not None and run.lease.committed(connection, begun)
        except TemporaryError:
            pause = next(pauses, None)
            if pause is None:
                raise
            time.sleep(pause)


def execute(
    run: Run, job: Any, request: Request, trigger: str, slot: datetime | None = None
) -> Outcome:
    """Runs a job; one that writes holds the job's lease meanwhile, and its record is kept."""
    if not job.writes or request.dry_run:
        outcome: Outcome = job.run(run, request)
        return outcome
    with leases.holding(run.results.engine, run.tables, run.job, run.run_id) as lease:
        run = replace(run, lease=lease)
        with recorded(run, trigger, slot) as succeeded:
            outcome = job.run(run, request)
            succeeded(outcome)
    return outcome


def listed(connection: Connection, tables: Tables, limit: int = 20) -> list[dict[str, Any]]:
    """The last runs, newest first."""
    table = tables.pipeline_runs
    rows = connection.execute(sa.select(table).order_by(table.c.started_at.desc()).limit(limit))
    return [dict(row._mapping) for row in rows]
