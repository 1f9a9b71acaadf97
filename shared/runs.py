"""A run: its record, its batches, and what it may touch (source, results, clock, settings)."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine

from shared import migrating
from shared.config import Configuration
from shared.database import engine, parse_url, transaction, translated, upsert
from shared.errors import ConfigurationError, PeerwatchError
from shared.jobs import Outcome, Request
from shared.source import Source
from shared.tables import Tables, tables

COUNTS = ("rows_read", "rows_written", "rows_quarantined", "rows_late", "rows_too_late")
RESULT_DATABASES = ("sqlite", "postgresql")  # those that the views are written for


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
    _require_results_file(results)
    with results.transaction() as connection:
        migrating.require_newest(connection, results.target)
        kinds = migrating.recorded_kinds(connection, results.target)
    return results_of(config, kinds)


def _require_results_file(results: Results) -> None:
    from pathlib import Path

    url = results.engine.url
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise ConfigurationError(
            f"There is no SQLite database {url.database} for the results. "
            "Make the tables first: peerwatch init --url URL"
        )


@dataclass(frozen=True)
class Run:
    """What a job works with; its id, window and clock travel with it."""

    run_id: str
    job: str
    clock: datetime
    config: Configuration
    results: Results
    source: Source
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
) -> Iterator[Run]:
    """A run ready to work: source reflected and checked, results at the newest version.

    trigger: what started it; where given, a failure to open is recorded as a failed run.
    """
    run_id = new_id(job, now)
    with ExitStack() as stack:
        try:
            source = stack.enter_context(Source(config.source, f"peerwatch/{job}/{run_id}"))
            results = open_results(config)
            _require_same_mapping(results, source)
        except PeerwatchError as error:
            if trigger is not None:
                _record_unopened(config, _row(run_id, job, now, trigger), error)
            raise
        yield Run(run_id, job, now, config, results, source, progress)


def _row(run_id: str, job: str, now: datetime, trigger: str) -> dict[str, Any]:
    """The row of a run that begins."""
    return {
        "run_id": run_id,
        "job": job,
        "trigger": trigger,
        "status": "running",
        "started_at": now,
        **dict.fromkeys(COUNTS, 0),
    }


def _record_unopened(config: Configuration, row: dict[str, Any], error: PeerwatchError) -> None:
    """Records a run that could not begin, where its results can be written to at all."""
    failed = {"status": "failed", "error": str(error), "finished_at": datetime.now(UTC)}
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
    return key == "transaction" or bool(read_settings(connection, results.tables, f"mapped.{key}"))


def read_settings(connection: Connection, tables: Tables, prefix: str) -> dict[str, str]:
    """The recorded settings whose key begins so, without that beginning."""
    table = tables.settings
    rows = connection.execute(
        sa.select(table.c.key, table.c.value).where(table.c.key.startswith(prefix, autoescape=True))
    )
    return {str(key).removeprefix(prefix): str(value) for key, value in rows}


def write_settings(connection: Connection, tables: Tables, values: dict[str, str]) -> None:
    """Records settings; a key that is there is renewed."""
    import pandas as pd

    frame = pd.DataFrame(sorted(values.items()), columns=["key", "value"])
    upsert(connection, tables.settings, frame)  # one statement: two runners may write one key


@contextmanager
def recorded(run: Run, request: Request, trigger: str) -> Iterator[Callable[[Outcome], None]]:
    """Keeps the run's row: running, then succeeded or failed; a failure is never swallowed."""
    table = run.tables.pipeline_runs
    if request.dry_run:
        yield lambda _outcome: None
        return
    row = _row(run.run_id, run.job, run.clock, trigger)
    with run.results.transaction() as connection:
        connection.execute(sa.insert(table).values(row))
        _remember_columns(connection, run)

    def succeeded(outcome: Outcome) -> None:
        values = {name: getattr(outcome, name) for name in COUNTS}
        _finish(
            run,
            status="succeeded",
            window_from=outcome.window_from,
            window_to=outcome.window_to,
            model_version_id=outcome.model_version_id,
            note=outcome.note,
            **values,
        )

    try:
        yield succeeded
    except BaseException as error:
        shown = str(error) if isinstance(error, PeerwatchError) else type(error).__name__
        _finish_anyhow(run, status="failed", error=shown)
        raise


def _finish(run: Run, **values: Any) -> None:
    table = run.tables.pipeline_runs
    with run.results.transaction() as connection:
        connection.execute(
            sa.update(table)
            .where(table.c.run_id == run.run_id)
            .values(finished_at=datetime.now(UTC), **values)
        )


def _finish_anyhow(run: Run, **values: Any) -> None:
    """Records a failure where the database still listens; the failure itself goes on."""
    try:
        _finish(run, **values)
    except PeerwatchError:
        return


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


def lock(connection: Connection, job: str) -> None:
    """Makes writers of a job wait for each other until the transaction ends.

    SQLite's BEGIN IMMEDIATE has done so already; PostgreSQL takes an advisory lock.
    """
    if connection.dialect.name == "postgresql":
        with translated(connection.engine.url):
            connection.execute(
                sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"peerwatch/{job}")))
            )


def execute(run: Run, job: Any, request: Request, trigger: str) -> Outcome:
    """Runs a job with its record kept."""
    if not job.writes:
        outcome: Outcome = job.run(run, request)
        return outcome
    with recorded(run, request, trigger) as succeeded:
        outcome = job.run(run, request)
        succeeded(outcome)
    return outcome


def listed(connection: Connection, tables: Tables, limit: int = 20) -> list[dict[str, Any]]:
    """The last runs, newest first."""
    table = tables.pipeline_runs
    rows = connection.execute(sa.select(table).order_by(table.c.started_at.desc()).limit(limit))
    return [dict(row._mapping) for row in rows]


def last_started(connection: Connection, tables: Tables) -> dict[str, datetime]:
    """When each job last started."""
    table = tables.pipeline_runs
    newest = sa.func.max(table.c.started_at, type_=table.c.started_at.type)
    rows = connection.execute(sa.select(table.c.job, newest).group_by(table.c.job))
    return {str(job): started for job, started in rows}
