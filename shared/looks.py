"""A look at the database: tables and views, a sample of each column, counts, constraints, times.

Reads only; what a column is for is decided in `shared.mapping`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from shared import tables
from shared.migrating import MARK
from shared.source import category, reflected
from shared.vocabulary import WHEN, words_of

if TYPE_CHECKING:
    from sqlalchemy.engine.reflection import Inspector

NEARLY = 0.99  # of the rows: some bad ones are the quality gate's business
SAMPLE = 2_000  # rows: enough to tell a code from a key, little enough to read at once
BLOCKS = 20  # of consecutive rows, spread over a table
COUNTED = 5_000_000  # rows up to which distinct values are counted, a few seconds at most
KEYS = ("integer", "text", "uuid")
NUMERIC = ("integer", "number")
OUR_SCHEMA = "peerwatch"


DATES = ("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y")
CLOCKS = ("", " %H:%M:%S", " %H:%M:%S.%f", " %H:%M")
FORMATS = (
    *(f"{day}{clock}" for day in DATES for clock in CLOCKS),
    *(f"%Y-%m-%dT{clock.strip()}" for clock in CLOCKS[1:]),
    *(f"%Y-%m-%d{t}{c.strip()}%z" for t in "T " for c in CLOCKS[1:]),
    "%Y%m%d",
    "%Y%m%d%H%M%S",
)
LOOKS_LIKE_TIME = r"\d{8}(?:\d{6})?|\d{1,4}([-/.])\d\d?\1\d{1,4}(?:[ T]\d\d?:\d\d.*)?"
YEARS = (1900, 2100)  # of text that counts as a time
EPOCHS = (631_152_000, 4_102_444_800)  # 1990 to 2100 in seconds


@dataclass(frozen=True)
class Column:
    """One column: `kind` as in shared.source.category, `values` row by row, None for null."""

    name: str
    kind: str
    values: tuple[Any, ...] = ()
    unique: bool = False  # a constraint says so
    distinct: int | None = None  # values in the whole table, where they were counted

    @cached_property
    def words(self) -> frozenset[str]:
        return words_of(self.name)

    @cached_property
    def known(self) -> list[Any]:
        return [value for value in self.values if value is not None and value != ""]

    @cached_property
    def levels(self) -> Counter[str]:
        return Counter(str(value) for value in self.known)

    @cached_property
    def numbers(self) -> np.ndarray:
        """(rows of the sample,) float64; NaN where the cell is no number."""
        return np.array([_number(value) for value in self.values], dtype=float)

    @cached_property
    def times(self) -> Times | None:
        return read_times(self)

    @property
    def numeric(self) -> bool:
        return self.kind in NUMERIC

    @property
    def binary(self) -> bool:
        found = {float(number) for number in self.numbers[~np.isnan(self.numbers)]}
        return self.kind in (*NUMERIC, "boolean") and found <= {0.0, 1.0}


@dataclass(frozen=True)
class ForeignKey:
    """One column that refers to a column of another table."""

    column: str
    table: str
    referred: str


@dataclass(frozen=True)
class Look:
    """One table or view, as it was seen: row counts of millions may be the server's estimate."""

    table: str
    rows: int
    columns: tuple[Column, ...]
    view: bool = False
    primary_key: tuple[str, ...] = ()
    foreign_keys: tuple[ForeignKey, ...] = ()
    dialect: str = "sqlite"

    @cached_property
    def words(self) -> frozenset[str]:
        return words_of(self.table)

    @property
    def complete(self) -> bool:
        """Whether the sample is the table."""
        return all(len(column.values) >= self.rows for column in self.columns)

    def refers(self, column: str) -> ForeignKey | None:
        return next((key for key in self.foreign_keys if key.column == column), None)

    def is_unique(self, column: Column) -> bool:
        """By constraint, or by count up to a few bad rows; by the sample where none was made."""
        if column.unique:
            return True
        if column.distinct is not None:
            return column.distinct >= NEARLY * self.rows
        return bool(column.known) and (
            (self.complete or self.rows > COUNTED)
            and len(column.levels) >= NEARLY * len(column.values)
        )


def look(connection: Connection, skip: Collection[str] = ()) -> list[Look]:
    """Every table and view but the system's and ours; `skip` names further ones.

    Reads only. A table that cannot be read (a broken view, a missing right) is passed over.
    """
    ours = {*tables.tables().metadata.tables, *tables.VIEWS, MARK, *skip}
    inspector = sa.inspect(connection)
    found = []
    for name, view in _relations(inspector, connection):
        if name in ours or name.rpartition(".")[2] in ours:
            continue
        try:
            with connection.begin_nested():
                found.append(_look(connection, inspector, name, view))
        except (exc.SQLAlchemyError, UnicodeDecodeError):
            continue
    return found


def _relations(inspector: Inspector, connection: Connection) -> list[tuple[str, bool]]:
    """(name as the mapping writes it, whether it is a view) of each table and view."""
    schemas: list[str | None] = [None]
    if connection.dialect.name == "postgresql":
        schemas += [
            name
            for name in inspector.get_schema_names()
            if name not in (inspector.default_schema_name, "information_schema", OUR_SCHEMA)
            and not name.startswith("pg_")
        ]
    return [
        (f"{schema}.{name}" if schema else name, view)
        for schema in schemas
        for view, names in (
            (False, inspector.get_table_names(schema)),
            (True, inspector.get_view_names(schema)),
        )
        for name in sorted(names)
        if "." not in name  # the mapping reads "schema.table"
    ]


def _look(connection: Connection, inspector: Inspector, name: str, view: bool) -> Look:
    faults: list[str] = []
    table = reflected(connection, name, "", faults)
    rows = _rows(connection, table, view)
    sample = _sample(connection, table, rows, view)
    unique = _unique(inspector, table)
    primary = tuple(column.name for column in table.primary_key)
    by_name = {
        column.name: Column(
            column.name,
            category(connection, column),
            tuple(_plain(row[at]) for row in sample),
            (column.name,) in unique or primary == (column.name,),
        )
        for at, column in enumerate(table.columns)
    }
    if rows <= COUNTED and not any(column.unique for column in by_name.values()):
        for column in by_name.values():
            if column.kind in KEYS and len(column.levels) >= NEARLY * len(sample) > 0:
                counted = sa.select(sa.func.count(table.c[column.name].distinct()))
                distinct = int(connection.execute(counted).scalar_one())
                by_name[column.name] = dataclasses.replace(column, distinct=distinct)
    columns, dialect = tuple(by_name.values()), connection.dialect.name
    return Look(name, rows, columns, view, primary, _foreign(inspector, table), dialect)


def _rows(connection: Connection, table: sa.Table, view: bool) -> int:
    """The number of rows; of a large PostgreSQL table the server's own estimate."""
    if connection.dialect.name == "postgresql" and not view:
        name = connection.dialect.identifier_preparer.format_table(table)
        known = sa.text("SELECT reltuples FROM pg_class WHERE oid = CAST(:name AS regclass)")
        estimate = int(connection.execute(known, {"name": name}).scalar() or 0)
        if estimate > COUNTED:
            return estimate
    return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def _sample(connection: Connection, table: sa.Table, rows: int, view: bool) -> list[Any]:
    """Up to SAMPLE rows, spread over the table; values as the driver gives them."""
    # SQLite keeps any text in a DATETIME column: the type's own reader would fail on it.
    cells = [sa.type_coerce(column, sa.types.NullType()) for column in table.columns]
    select = sa.select(*cells)
    if rows <= SAMPLE:
        return list(connection.execute(select.select_from(table).limit(SAMPLE)))
    spread: list[Any] = []
    if not view and connection.dialect.name == "sqlite":
        spread = _blocks(connection, table, cells)
    elif not view and connection.dialect.name == "postgresql":
        part = sa.tablesample(table, sa.func.system(100 * SAMPLE / rows), seed=sa.literal(0))
        drawn = [sa.type_coerce(part.c[c.name], sa.types.NullType()) for c in table.columns]
        spread = list(connection.execute(sa.select(*drawn).limit(SAMPLE)))
    if len(spread) >= SAMPLE // 10:
        return spread
    steps = 5  # a view is read from its start for each: few long steps are cheaper than many
    return [
        row
        for step in range(steps)
        for row in connection.execute(
            select.select_from(table).offset(rows * step // steps).limit(SAMPLE // steps)
        )
    ]


def _blocks(connection: Connection, table: sa.Table, cells: Sequence[Any]) -> list[Any]:
    """Blocks of consecutive rows of an SQLite table by rowid; none where it has no rowid."""
    rowid: sa.ColumnElement[int] = sa.literal_column("rowid", sa.Integer)
    try:
        with connection.begin_nested():
            first = connection.execute(sa.select(sa.func.min(rowid)).select_from(table)).scalar()
            last = connection.execute(sa.select(sa.func.max(rowid)).select_from(table)).scalar()
    except exc.OperationalError:
        return []
    found: list[Any] = []
    seen = int(first or 0) - 1
    for start in np.linspace(int(first or 0), int(last or 0), BLOCKS, endpoint=False):
        select = sa.select(*cells, rowid).select_from(table)
        select = select.where(rowid >= max(int(start), seen + 1))
        block = list(connection.execute(select.order_by(rowid).limit(SAMPLE // BLOCKS)))
        found.extend(row[:-1] for row in block)
        seen = block[-1][-1] if block else seen
    return found


def _unique(inspector: Inspector, table: sa.Table) -> set[tuple[str, ...]]:
    try:
        constraints = inspector.get_unique_constraints(table.name, table.schema)
        indexes = inspector.get_indexes(table.name, table.schema)
    except (exc.NoSuchTableError, NotImplementedError):
        return set()  # a view has none
    whole = [
        index
        for index in indexes
        if index["unique"] and not any("where" in k for k in index.get("dialect_options", {}))
    ]
    named = [item["column_names"] for item in constraints] + [i["column_names"] for i in whole]
    return {tuple(str(name) for name in names) for names in named}


def _foreign(inspector: Inspector, table: sa.Table) -> tuple[ForeignKey, ...]:
    try:
        keys = inspector.get_foreign_keys(table.name, table.schema)
    except (exc.NoSuchTableError, NotImplementedError):
        return ()
    return tuple(
        ForeignKey(
            key["constrained_columns"][0],
            ".".join(part for part in (key["referred_schema"], key["referred_table"]) if part),
            key["referred_columns"][0],
        )
        for key in keys
        if len(key["constrained_columns"]) == 1 and len(key["referred_columns"]) == 1
    )


def _plain(value: Any) -> Any:
    """A value that can be counted and compared: lists, documents and bytes as their text."""
    return str(value) if isinstance(value, list | dict | set | bytes | memoryview) else value


def _number(value: Any) -> float:
    try:
        return math.nan if value is None or isinstance(value, str) else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


@dataclass(frozen=True)
class Times:
    """A column read as times: seconds per row of the sample, NaN where there is none."""

    seconds: np.ndarray
    format: str | None = None  # of text; None for ISO text in several forms
    note: str = ""
    unusable: str = ""  # why peerwatch cannot read it as it is

    @property
    def to_the_day(self) -> bool:
        return bool((self.seconds[~np.isnan(self.seconds)] % 86_400 == 0).all())


def read_times(column: Column) -> Times | None:
    """The column as times, or None where its values are none."""
    if not column.known:
        return None
    if column.kind in ("timestamp", "timestamptz", "date"):
        return Times(_seconds(pd.Series(column.values, dtype=object), None))
    if column.kind == "text":
        return _text_times(column)
    return _number_times(column) if column.numeric and column.words & WHEN else None


def _number_times(column: Column) -> Times | None:
    """Epoch seconds; milliseconds and days written as a number cannot be read as they are."""
    known = column.numbers[~np.isnan(column.numbers)]
    low, high = EPOCHS
    for factor, name in ((1, ""), (1_000, "milliseconds"), (1_000_000, "microseconds")):
        if len(known) and (known >= low * factor).all() and (known < high * factor).all():
            why = f"it counts {name}; a view should divide it by {factor}" if name else ""
            return Times(column.numbers / factor, unusable=why)
    texts = pd.Series([str(int(value)) for value in known], dtype="str")
    days = _seconds(texts[texts.str.len() == 8], "%Y%m%d")
    if len(known) and len(days) == len(known) and not np.isnan(days).any():
        why = "it is a day written as a number; a view should CAST it AS TEXT"
        return Times(np.array([np.nan]), "%Y%m%d", unusable=why)
    return None


def _text_times(column: Column) -> Times | None:
    """The one format that reads the sample, day and month told apart by values above 12."""
    texts = pd.Series(column.known, dtype="str")
    likely = texts.str.fullmatch(LOOKS_LIKE_TIME)
    if likely.mean() < NEARLY:
        return None
    few = texts[likely].head(20)
    share = {
        form: float((~np.isnan(_seconds(texts, form))).mean())
        for form in FORMATS
        if (~np.isnan(_seconds(few, form))).mean() > 0.5
    }
    best = max(share.values(), default=0.0)
    fitting = [form for form in share if share[form] == best]
    mixed = float((~np.isnan(_seconds(texts, None))).mean()) if best < 1 else 0.0
    if max(best, mixed) < NEARLY:
        return None
    form = None if mixed > best else fitting[0]
    bad = round(len(texts) * (1 - max(best, mixed)))
    note = f"{bad} of {len(texts)} values of the sample cannot be read so" if bad else ""
    if form is None:
        note = "ISO text in more than one form" + (f"; {note}" if note else "")
    elif len(fitting) > 1:
        note = (
            f"no day in the sample is above 12, so day and month cannot be told apart; "
            f"{fitting[1]} reads it too"
        )
    return Times(_seconds(pd.Series(column.values, dtype=object), form), form, note)


def _seconds(values: pd.Series, form: str | None) -> np.ndarray:
    """Seconds since 1970 as pandas reads them, the same way as the reader of shared.source."""
    texts = values.map(lambda value: None if value is None or value == "" else str(value))
    stamps = pd.to_datetime(texts, format=form or "ISO8601", errors="coerce", utc=True)
    likely = stamps.dt.year.between(*YEARS).to_numpy()
    micros = stamps.dt.as_unit("us").dt.tz_localize(None).to_numpy().astype("int64")
    return np.where(likely, micros / 1e6, np.nan)
