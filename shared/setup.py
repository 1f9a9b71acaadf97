"""`init` and `doctor`: from a URL to a mapping and tables, and everything that may be wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shared import config, frames, history, looks, manners, mapping, migrating, runs, template
from shared.config import Configuration
from shared.database import engine, insert_into, parse_url, require_file, shown, translated
from shared.errors import ConfigurationError, PeerwatchError
from shared.source import Source

CLOCK_SECONDS = 60  # how far the database's clock may be from ours
SAMPLE_DAYS = 30
PERIODS = {
    "empty": ("have no period that can be read, or one that ends before it begins", False),
    "overlapping": (
        "begin before an earlier row of the customer ends: the later one counts",
        False,
    ),
    "gaps": (
        "begin after a gap, in which the customer's columns are missing; where valid_to is the "
        "last valid day, map a view that adds one",
        True,
    ),
}  # what `history.remarks` counts, and whether a table may be so


@dataclass(frozen=True)
class Made:
    """What init did, for people and for programs."""

    message: str
    data: Mapping[str, Any]
    notes: list[str]


def init(
    url: str, path: Path, *, dry_run: bool, environment: Mapping[str, str], create: bool = True
) -> Made:
    """Proposes the mapping, writes the file, creates the result tables.

    A file that is there is kept, and only the tables are made. Nothing is half done: the file gets
    its name after the tables are committed. create: else the message is the SQL that makes them.
    """
    if path.is_file():
        settings, text, notes = _kept(url, path, environment)
    else:
        settings, text, notes = _proposed(url, path, environment)
    with Source(settings.source, "peerwatch/init") as source:
        kinds, types = source.kinds, source.types
    data = {"config": str(path), "kinds": kinds, "mapping": settings.source.transactions.__dict__}
    if dry_run:
        verb = "keep" if path.is_file() else "write"
        return Made(f"would {verb} {path} and make the result tables\n\n{text}", data, notes)
    verb = "kept" if path.is_file() else "wrote"
    if not create:
        printed = _script(settings, kinds, types)
        _write(path, text)
        notes.append(f"{verb} {path} and made no tables. Have their owner run these statements.")
        return Made(printed, {**data, "sql": printed}, notes)
    _create(settings, kinds, types)
    _write(path, text)
    next_steps = "Look it through, then: peerwatch doctor"
    return Made(f"{verb} {path} and made the result tables. {next_steps}", data, notes)


def _write(path: Path, text: str) -> None:
    """Writes the file, unless it is there."""
    if not path.is_file():
        part = path.with_name(f"{path.name}.part")
        part.write_text(text, encoding="utf-8")
        part.replace(path)


def _kept(
    url: str, path: Path, environment: Mapping[str, str]
) -> tuple[Configuration, str, list[str]]:
    settings = config.load(path, environment)
    if parse_url(settings.source.url) != parse_url(url):
        raise ConfigurationError(
            f"{path} is there already, for another database. Name another file with --config, or "
            "remove it to start anew."
        )
    return settings, path.read_text(encoding="utf-8"), []


def _proposed(
    url: str, path: Path, environment: Mapping[str, str]
) -> tuple[Configuration, str, list[str]]:
    import tomllib

    parsed = parse_url(url)
    require_file(parsed)
    made = engine(parsed, read_only=True, name="peerwatch/init")
    with translated(parsed), made.connect() as connection:
        proposal = mapping.propose(looks.look(connection))
    text = template.to_toml(proposal, url)
    secret = {template.PASSWORD_VARIABLE: quote(parsed.password or "", safe="")}
    settings = config.parse(tomllib.loads(text), path, {**environment, **secret})
    notes = list(proposal.notes)
    if template.without_password(url)[1]:
        notes.append(
            f"The password is not in the file: set {template.PASSWORD_VARIABLE} in the environment."
        )
    return settings, text, notes


def _create(settings: Configuration, kinds: dict[str, str], types: dict[str, str]) -> None:
    """Makes the tables and records what the columns are, in one transaction."""
    results = runs.results_of(settings, kinds)
    with results.transaction() as connection:
        _require_same_kinds(connection, results, kinds)
        migrating.upgrade(connection, results.target)
        runs.write_settings(connection, results.tables, _recorded(kinds, types))


def _require_same_kinds(
    connection: Connection, results: runs.Results, kinds: Mapping[str, str]
) -> None:
    if migrating.current(connection, results.target) is None:
        return
    recorded = migrating.recorded_kinds(connection, results.target)
    faults = [
        f"The result tables were made for {recorded[key]} {key} ids, this mapping has "
        f"{kind}. Use another [results] schema or prefix."
        for key, kind in kinds.items()
        if recorded.get(key, kind) != kind
    ]
    if faults:
        raise ConfigurationError(faults)


def _recorded(kinds: Mapping[str, str], types: Mapping[str, str]) -> dict[str, str]:
    """The settings that tell what was mapped, and as what."""
    mapped = {f"mapped.{key}": "yes" for key in kinds}
    return {**mapped, **{f"column.{name}": kind for name, kind in types.items()}}


def statements(settings: Configuration) -> str:
    """What `migrate` would run, as SQL; where there are no tables yet, what `init` would."""
    results = runs.results_of(settings)
    with _looked_at(results) as connection:
        if migrating.current(connection, results.target) is not None:
            return migrating.script(connection, results.target)
    with Source(settings.source, "peerwatch/migrate") as source:
        return _script(settings, source.kinds, source.types)


def _script(settings: Configuration, kinds: dict[str, str], types: dict[str, str]) -> str:
    """What `_create` would run, as SQL for another to run."""
    results = runs.results_of(settings, kinds)
    with _looked_at(results) as connection:
        _require_same_kinds(connection, results, kinds)
        recorded = _settings_statement(connection, results, _recorded(kinds, types))
        return migrating.script(connection, results.target, after=[recorded])


def _settings_statement(
    connection: Connection, results: runs.Results, values: Mapping[str, str]
) -> sa.Executable:
    rows = [{"key": key, "value": value} for key, value in sorted(values.items())]
    insert = insert_into(connection, results.tables.settings).values(rows)
    renewed = {"value": insert.excluded.value}
    made: sa.Executable = insert.on_conflict_do_update(index_elements=["key"], set_=renewed)
    return made


@contextmanager
def _looked_at(results: runs.Results) -> Iterator[Connection]:
    """A session on the result tables that changes nothing, and makes no file either."""
    url = results.engine.url
    remedy = "Make an empty file of that name for the results, then run this command again."
    require_file(url, remedy)
    with translated(url), engine(url, read_only=True).connect() as connection:
        yield connection


# --- doctor -------------------------------------------------------------------------------------


def doctor(settings: Configuration, now: datetime) -> list[dict[str, Any]]:
    """Every check with its finding; one that cannot be made is a fault, and the others go on."""
    checks: list[dict[str, Any]] = []
    with _noted(checks, "source"), Source(settings.source, "peerwatch/doctor") as source:
        _note(checks, f"source: {shown(source.url)} can be read; mapping fits")
        with _noted(checks, "server"):
            for text, ok in manners.server_notes(source, parse_url(settings.results_url)):
                _note(checks, text, ok)
        with _noted(checks, "clock"):
            _check_clock(checks, source, now)
        with _noted(checks, "rows"):
            _check_rows(checks, source, now, settings.domains["fraudwatch"].quarantine_limit)
        with _noted(checks, "customers"):
            _check_customers(checks, source, now)
        with _noted(checks, "indexes"):
            _propose_indexes(checks, source)
            manners.require_index(source, frames.micros(now), "fraudwatch score")
    for url in dict.fromkeys((settings.source.url, settings.results_url)):
        with suppress(PeerwatchError):  # that it cannot be reached is said already, or below
            why = manners.pooled(parse_url(url))
            if why:
                _note(checks, f"sessions: {why}", ok=False)
    with _noted(checks, "results"):
        results = runs.open_results(settings)
        _require_writable(results)
        _note(checks, f"results: version {migrating.head()} at {shown(results.engine.url)}")
    return checks


def reads(settings: Configuration, now: datetime) -> list[dict[str, str]]:
    """Every statement that jobs send to the source, each behind its EXPLAIN; none is run."""
    found = manners.statements(settings.source, frames.micros(now))
    return [
        {
            "jobs": item.jobs,
            "sql": item.sql,
            "text": f"-- {item.jobs}\n{item.explain} {item.sql};\n{item.sql};",
        }
        for item in found
    ]


def _note(checks: list[dict[str, Any]], text: str, ok: bool = True) -> None:
    checks.append({"ok": ok, "text": text})


@contextmanager
def _noted(checks: list[dict[str, Any]], what: str) -> Iterator[None]:
    try:
        yield
    except ConfigurationError as error:
        for fault in error.faults:
            _note(checks, f"{what}: {fault}", ok=False)
    except PeerwatchError as error:
        _note(checks, f"{what}: {error}", ok=False)


def _check_clock(checks: list[dict[str, Any]], source: Source, now: datetime) -> None:
    with source.session() as connection:
        theirs = connection.execute(sa.select(sa.func.current_timestamp())).scalar()
    if isinstance(theirs, str):
        theirs = datetime.fromisoformat(theirs)
    if theirs is not None and theirs.tzinfo is None:
        theirs = theirs.replace(tzinfo=UTC)
    apart = abs((theirs - datetime.now(UTC)).total_seconds()) if theirs else 0.0
    _note(checks, f"clock: the database is {apart:.0f} s from this machine", apart <= CLOCK_SECONDS)


class _Undone(Exception):
    """Ends a transaction that was only tried."""


def _require_writable(results: runs.Results) -> None:
    """Writes a line and takes it back: raises where the results cannot be written."""
    with suppress(_Undone), results.transaction() as connection:
        runs.write_settings(connection, results.tables, {"doctor": "wrote this"})
        raise _Undone


def _check_rows(checks: list[dict[str, Any]], source: Source, now: datetime, limit: float) -> None:
    clock = frames.micros(now)
    counts, undated = source.counted(clock)
    total = int(counts.sum()) + undated
    if not total:
        _note(checks, f"rows: {source.mapping.table} is empty", ok=False)
        return
    told = f"rows: {total:,} in {source.mapping.table}, {undated:,} without a valid time"
    _note(checks, told, undated <= limit * total)
    newest = source.newest(clock)
    if newest is None:
        _note(checks, "rows: none has a valid time before now", ok=False)
        return
    since = newest - SAMPLE_DAYS * frames.MICROSECONDS_PER_DAY
    batch = source.read(since, newest + 1, clock, label=source.mapping.label)
    _note(checks, f"rows: {len(batch.rows):,} valid in the last {SAMPLE_DAYS} days")
    for code, rows in batch.refused.groupby("code").source_rows.sum().items():
        _note(checks, f"rows: {rows:,} refused as {code} ({frames.CODES[str(code)]})", ok=True)
    refused = frames.refused_rows(batch.refused)
    if refused > limit * batch.rows_read:
        _note(
            checks,
            f"rows: {refused:,} of {batch.rows_read:,} refused, at most {limit:.1%} may be: jobs "
            "will stop. Mend the source or the mapping, or raise [fraudwatch] quarantine_limit",
            ok=False,
        )
    if source.mapping.amount is None:
        _note(checks, "rows: no amount is mapped; how much is paid has no part in any score")
    if "customer_id" in batch.rows:
        alone = int(batch.rows.customer_id.isna().sum())
        _note(checks, f"rows: {alone:,} valid rows without a customer are scored alone")
    lacking = [(f"entity.{name}", name) for name in source.mapping.entities]
    lacking += (
        [("baseline", source.mapping.baseline_score)] if source.mapping.baseline_score else []
    )
    for column, name in lacking:
        rows = int(batch.rows[column].isna().sum())
        _note(checks, f"rows: {rows:,} valid rows without {name}", rows < max(len(batch.rows), 1))
    if source.mapping.label:
        _check_labels(checks, source, batch.rows, clock)


def _check_labels(
    checks: list[dict[str, Any]], source: Source, rows: pd.DataFrame, clock: int
) -> None:
    """What the labels say, and whether their times can be: a wrong time refuses no row."""
    frauds = rows[rows.label > 0]
    unknown = int(rows.label.isna().sum())
    _note(
        checks,
        f"labels: {len(frauds):,} frauds, {len(rows) - len(frauds) - unknown:,} genuine, "
        f"{unknown:,} unknown by {source.mapping.label} in the last {SAMPLE_DAYS} days",
    )
    if "label_time" not in rows or frauds.empty:
        return
    known, name = frauds.label_time, source.mapping.label_time
    for found, what, ok in (
        (known.isna(), "have none that can be read: label_delay_days is taken", True),
        (known < frauds.occurred_at, "have one before the transaction itself", False),
        (known > clock, "have one in the future", False),
    ):
        count = int(found.fillna(False).sum())
        if count:
            _note(checks, f"labels: of {name}, {count:,} of {len(frauds):,} frauds {what}", ok)


def _check_customers(checks: list[dict[str, Any]], source: Source, now: datetime) -> None:
    """What a customers' table with a history says, and which of its periods are amiss."""
    mapped, rows = source.settings.customers, source.customers()
    if mapped is None or rows is None:
        return
    known = history.valid_at(rows, frames.micros(now))
    told = f"customers: {len(rows):,} rows of {rows.customer_id.nunique():,} in {mapped.table}"
    if not mapped.valid_from:
        _note(checks, f"{told}; read as they are now: valid_from and valid_to are not mapped")
        return
    _note(checks, f"{told}, {len(known):,} with a row that is valid now")
    for what, count in history.remarks(rows).items():
        said, ok = PERIODS[what]
        if count:
            _note(checks, f"customers: {count:,} rows of {mapped.table} {said}", ok)


def _propose_indexes(checks: list[dict[str, Any]], source: Source) -> None:
    """Indexes that would help, as statements for the owner of the source; none is made here."""
    table, mapped = source.mapping.table, source.mapping
    if not source.in_order_of_time:
        _note(checks, f"indexes: none helps, as {mapped.time} is text that does not sort by time; "
                      "a view that gives a timestamp would")  # fmt: skip
        return
    wanted: list[tuple[str, ...]] = [(mapped.time,)]
    wanted += [(key, mapped.time) for key in (mapped.customer, mapped.counterparty) if key]
    wanted += [(mapped.arrived_at,)] if mapped.arrived_at else []
    with source.session() as connection:
        inspector = sa.inspect(connection)
        schema, _, name = table.rpartition(".")
        if name in inspector.get_view_names(schema or None):
            _note(checks, f"indexes: {table} is a view; those of its tables serve it")
            return
        there = [
            tuple(item["column_names"]) for item in inspector.get_indexes(name, schema or None)
        ]
        preparer = connection.dialect.identifier_preparer
    for columns in wanted:
        if not any(found[: len(columns)] == columns for found in there):
            statement = manners.create_index(preparer, table.split("."), columns)
            _note(checks, f"indexes: would help: {statement}")
