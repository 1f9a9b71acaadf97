"""What peerwatch asks of the user's database: plans before it reads, statements for its owner.

Catalogues and plans alone; no row of the user's tables is read here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection

from shared import frames
from shared.config import Source as SourceSettings
from shared.database import Limits, Reader, engine, literal, shown, translated
from shared.errors import ConfigurationError
from shared.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

# A scan of fewer rows takes about a second; of more, every few minutes, its owner will notice.
LARGE_ROWS = 1_000_000
OLDEST_SERVER = 15  # of PostgreSQL
EXPLAIN = {"postgresql": "EXPLAIN (FORMAT JSON, VERBOSE)", "sqlite": "EXPLAIN"}
EXPLAIN_SHOWN = {"postgresql": "EXPLAIN", "sqlite": "EXPLAIN QUERY PLAN"}
WRITES = ("INSERT", "UPDATE", "DELETE", "TRUNCATE")
BOUNDED = re.compile(r'\(+(?:(?:\w+|"[^"]+")\.)?(\w+|"(?:[^"]|"")+") >= ')  # of a plan's filter


# --- missing indexes ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scan:
    """A relation that a plan reads from end to end; rows as the database estimates them."""

    table: tuple[str, ...]  # its name, behind its schema where there is one
    rows: int
    column: str = ""  # that bounds the window; unknown where it is an expression


def require_index(source: Source, clock: int, command: str) -> None:
    """Stops a run whose windows the database could only find by scanning a large table."""
    with source.session() as connection:
        scans = list(_scans(connection, source.at(clock)))
        preparer = connection.dialect.identifier_preparer
    rows = sum(scan.rows for scan in scans)
    if rows <= LARGE_ROWS:
        return
    largest, mapped = max(scans, key=lambda scan: scan.rows), source.mapping
    raise ConfigurationError(
        f"{command} would scan about {rows:,} rows of {'.'.join(largest.table)} at every run, as "
        f"no index leads to the moments of {mapped.table}.{mapped.time}. Nothing was read. For the "
        f"owner of the table: {_remedy(source, preparer, largest)} To scan it all the same: "
        "--allow-scan"
    )


def _remedy(source: Source, preparer: sa.sql.compiler.IdentifierPreparer, scan: Scan) -> str:
    """The statement that would spare the scan, or what can be said instead of one."""
    time = source.mapping.time
    if not source.in_order_of_time:
        return (
            f"text as in {source.mapping.time_format} does not sort by time, so map a view that "
            "gives a timestamp, or ISO text, with an index."
        )
    column = time if scan.table[-1] == source.table.name else scan.column
    if not column:
        return f"an index on what is {time} in the view."
    return f"{create_index(preparer, scan.table, (column,))};"


def create_index(
    preparer: sa.sql.compiler.IdentifierPreparer, table: Sequence[str], columns: Sequence[str]
) -> str:
    """The statement for the owner; table: its name, behind its schema where it has one."""
    name = preparer.quote("_".join((table[-1], *columns)))
    where = ".".join(preparer.quote(part) for part in table)
    return f"CREATE INDEX {name} ON {where} ({', '.join(preparer.quote(c) for c in columns)})"


def _scans(connection: Connection, select: sa.Select[Any]) -> Iterator[Scan]:
    """What the plan of a select reads from end to end; of other databases, nothing is known."""
    dialect = connection.dialect
    how = {"postgresql": _postgresql_scans, "sqlite": _sqlite_scans}.get(dialect.name)
    if how is not None:
        yield from how(connection, f"{EXPLAIN[dialect.name]} {literal(select, dialect)}")


def _postgresql_scans(connection: Connection, explain: str) -> Iterator[Scan]:
    plan = connection.exec_driver_sql(explain.replace("%", "%%")).scalar_one()[0]["Plan"]
    waiting = [plan]
    size = sa.text("SELECT reltuples FROM pg_class WHERE oid = CAST(:name AS regclass)")
    quote = connection.dialect.identifier_preparer.quote
    while waiting:
        node = waiting.pop()
        waiting.extend(node.get("Plans", ()))
        if node["Node Type"] == "Seq Scan":
            table = (node["Schema"], node["Relation Name"])
            named = {"name": ".".join(quote(part) for part in table)}
            rows = int(connection.execute(size, named).scalar_one())  # -1 where it is not known
            bounded = BOUNDED.match(node.get("Filter", ""))
            column = bounded[1].strip('"').replace('""', '"') if bounded else ""
            yield Scan(table, max(rows, 0), column)


def _sqlite_scans(connection: Connection, explain: str) -> Iterator[Scan]:
    """By the program itself: a cursor that is rewound reads its tree from the start.

    The plan in words knows a table by its alias in a view alone.
    """
    steps = [tuple(row) for row in connection.exec_driver_sql(explain)]
    trees = {p1: p2 for _, code, p1, p2, *_ in steps if code == "OpenRead"}
    owner = sa.text("SELECT tbl_name FROM sqlite_master WHERE rootpage = :root")
    for root in {trees[p1] for _, code, p1, *_ in steps if code == "Rewind" and p1 in trees}:
        name = connection.execute(owner, {"root": root}).scalar()
        if name is not None:
            yield Scan((name,), _rowids(connection, name))


def _rowids(connection: Connection, table: str) -> int:
    """About how many rows a table of SQLite has; 0 where it has no rowid to tell by.

    Ids may have gaps, so a large table by its highest is counted, as far as it has to be.
    """
    rowid: sa.ColumnElement[int] = sa.literal_column("rowid", sa.Integer)
    rows = sa.select(rowid).select_from(sa.table(table))
    with suppress(exc.OperationalError):
        newest = int(connection.execute(rows.with_only_columns(sa.func.max(rowid))).scalar() or 0)
        if newest <= LARGE_ROWS:
            return newest
        some = rows.limit(LARGE_ROWS + 1).subquery()
        held = connection.execute(sa.select(sa.func.count()).select_from(some)).scalar_one()
        return newest if held > LARGE_ROWS else int(held)
    return 0


# --- statements -----------------------------------------------------------------------------------


class Recorder(Reader):
    """A reader that keeps the statements and runs none: every answer is empty.

    plain: whether SQLite's columns are read without the state of each cell.
    """

    def __init__(
        self, url: URL, name: str, limits: Limits, *, kept: list[str], plain: bool
    ) -> None:
        super().__init__(url, name, limits)
        self.kept, self.plain = kept, plain

    def __enter__(self) -> Recorder:
        return self

    def read(self, select: sa.Select[Any]) -> pa.Table:
        import pyarrow as pa

        self.kept.append(literal(select, self.dialect))
        return pa.table({item.name: pa.array([], pa.null()) for item in select.selected_columns})

    def read_uniform(self, select: sa.Select[Any]) -> pa.Table | None:
        table = self.read(select)
        return table if self.plain else None

    def stream(self, select: sa.Select[Any]) -> Iterator[pa.Table]:
        yield self.read(select)


def _window_reads(source: Source, since: int, until: int) -> None:
    source.counted(until, since)
    source.read(since, until, until)
    source.undated(until)
    source.duplicates()


def _scoring(source: Source, since: int, until: int) -> None:
    source.newest(until)
    if source.mapping.arrived_at is not None:
        source.newest(until, "arrived_at")
        source.arrived(since, (since, until), until)
    _window_reads(source, since, until)
    source.read_keys(since, until, until)
    source.counted(until)


def _fitting(source: Source, since: int, until: int) -> None:
    _scoring(source, since, until)
    source.read(since, until, until, label=source.mapping.label)


def _one(source: Source, since: int, until: int) -> None:
    keys: dict[str, int | str] = {"integer": 1, "uuid": "00000000-0000-4000-8000-000000000001"}
    with suppress(ConfigurationError):  # no row has it
        source.moment_of(keys.get(source.kinds["transaction"], "1"), until)
    source.read(since, until, until)


def _segmenting(source: Source, since: int, until: int) -> None:
    source.newest(until)
    _window_reads(source, since, until)
    source.customers()
    if source.mapping.customer is not None:
        source.customers_before(since, until)


READS: dict[str, Callable[[Source, int, int], None]] = {
    "fraudwatch score, backfill": _scoring,
    "fraudwatch fit, recalibrate, evaluate, sample": _fitting,
    "fraudwatch explain, verdict": _one,
    "segmenter fit, score, evaluate, backfill": _segmenting,
}


@dataclass(frozen=True)
class Statement:
    """One statement that a job sends, bound values shown as literals."""

    jobs: str
    sql: str
    explain: str  # what stands before it to see its plan


def shape(sql: str) -> str:
    """A statement with `?` for each literal."""
    return re.sub(r"'(?:[^']|'')*'|(?<![\w\".])-?\d+(?:\.\d+)?\b", "?", sql)


def statements(settings: SourceSettings, clock: int) -> list[Statement]:
    """Every statement that jobs send to the source, each shape once; none of them is run.

    The values are of a job that looks at the last week. The catalogue is looked up to write them.
    """
    since = clock - 7 * frames.MICROSECONDS_PER_DAY
    found: dict[str, Statement] = {}
    for plain in (True, False):
        for jobs, reads in READS.items():
            kept: list[str] = []
            reader = partial(Recorder, kept=kept, plain=plain)
            with Source(settings, "peerwatch/doctor", reader=reader) as source:
                reads(source, since, clock)
            explain = EXPLAIN_SHOWN.get(source.url.get_backend_name(), "EXPLAIN")
            for sql in kept:
                found.setdefault(shape(sql), Statement(jobs, sql, explain))
    return sorted(found.values(), key=lambda item: list(READS).index(item.jobs))


# --- the server -----------------------------------------------------------------------------------

Note = tuple[str, bool]  # what was found, and whether it may be so


def server_notes(source: Source, results: URL) -> Iterator[Note]:
    """What a PostgreSQL server is, and what its role may do beyond reading."""
    if source.url.get_backend_name() != "postgresql":
        return
    with source.session() as connection:
        version = str(connection.exec_driver_sql("SHOW server_version").scalar_one())
        major = int(re.match(r"\d+", version)[0])  # type: ignore[index]
        told = f"server: PostgreSQL {version}"
        if major < OLDEST_SERVER:
            yield f"{told}; expected {OLDEST_SERVER} or newer", False
        else:
            yield told, True
        if connection.execute(sa.select(sa.func.pg_is_in_recovery())).scalar():
            yield from _standby(source.url, results)
        yield from _rights(connection, source)


def _standby(source: URL, results: URL) -> Iterator[Note]:
    told = "server: a physical standby, which can be read and not written"
    if (source.host, source.port, source.database) == (
        results.host,
        results.port,
        results.database,
    ):
        yield f"{told}; set [results] url to another database", False
        return
    yield f"{told}; the results are elsewhere. A read that its recovery ends is tried again", True


def _rights(connection: Connection, source: Source) -> Iterator[Note]:
    role, powerful = connection.exec_driver_sql(
        "SELECT rolname, rolsuper FROM pg_roles WHERE rolname = current_user"
    ).one()
    if powerful:
        yield f"rights: {role} is a superuser; SELECT on the mapped tables is enough", True
        return
    format_table = connection.dialect.identifier_preparer.format_table
    held = sa.text("SELECT has_table_privilege(CAST(:name AS regclass), :right)")
    customers = [] if source.customer_table is None else [source.customer_table]
    for table in (source.table, *customers):
        name = format_table(table)
        more = [
            right
            for right in WRITES
            if connection.execute(held, {"name": name, "right": right}).scalar()
        ]
        if more:
            yield f"rights: {role} may {', '.join(more)} on {name}; SELECT is enough", True
        else:
            yield f"rights: {role} may read {name} and not write it", True


def pooled(url: URL) -> str:
    """Why a server cannot be used that is reached through a pooler; nothing where it can.

    Where sessions are pooled by transaction, two connections that are both open share a session of
    the server, or one has another at each transaction.
    """
    if url.get_backend_name() != "postgresql":
        return ""
    mine = sa.select(sa.func.pg_backend_pid())
    made = engine(url, read_only=True, name="peerwatch/doctor")
    with translated(url), made.connect() as one, made.connect() as other:
        seen = []
        for connection in (one, other, one):
            seen.append(connection.execute(mine).scalar())
            connection.rollback()
    if seen[0] == seen[2] and seen[0] != seen[1]:
        return ""
    return (
        f"{shown(url)} leads to a pooler that gives a session for one transaction. peerwatch needs "
        "its sessions whole: limits and read-only are set for a session, and the lock of the one "
        "writer is held by one. Name the server itself, or pool by session."
    )
