"""Columns as they are read: the value of each cell and its state, whatever the database keeps.

SQLite keeps any value in any column, so a cell is read with what it is: there, null, or of the
wrong type. Moments come out as microseconds UTC.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from shared import frames
from shared.frames import NULL, OK, WRONG, Cells

if TYPE_CHECKING:
    import pyarrow as pa

MICROSECONDS = 1_000_000
LATEST = frames.micros(datetime(9999, 12, 28, tzinfo=UTC))  # with two days more still a date
# What is read as ISO text: it sorts by time, so that a window finds it.
ISO = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}(?::[0-9]{2}(?::[0-9]{2}(?:\.[0-9]+)?)?ZONE?)?)?"
ISO = ISO.replace("ZONE", "(?:Z|[+-][0-9]{2}(?::?[0-9]{2})?)")
# The same for the server, each part within its range, so that almost nothing is read in vain.
ISO_SQL = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?(Z|[+-][01][0-9]:[0-5][0-9])?)?$"
)
SELDOM_DAYS = ("02-29", "02-30", "02-31", "04-31", "06-31", "09-31", "11-31")
ISO_FORMAT = re.compile(r"%Y-%m-%d([T ]%H:%M(:%S(\.%f)?)?(%z|Z)?)?")
STATE = " state\x1f"  # names the column beside a value; ends as no column of a user's does


def sqlite_cell(column: sa.Column[Any], name: str, *, number: bool, integer: bool) -> list[Any]:
    """Value and state: a cast alone would read text as zero, and Arrow wants one type a column."""
    if not (number or integer):
        return [sa.func.coalesce(sa.cast(column, sa.Text), "").label(name)]
    kinds = ("integer",) if integer else ("integer", "real")
    good = sa.func.typeof(column).in_(kinds)
    value = column if integer else sa.cast(column, sa.REAL)
    zero: sa.ColumnElement[Any] = sa.literal_column("0" if integer else "0.0")
    state = sa.case(
        (good, sa.literal_column("''")),
        (column.is_(None), sa.literal_column("'n'")),
        else_=sa.literal_column("'t'").op("||")(sa.func.substr(sa.cast(column, sa.Text), 1, 40)),
    )
    return [sa.case((good, value), else_=zero).label(name), state.label(f"{name}{STATE}")]


def plain_cell(column: sa.Column[Any], read_as: str) -> sa.ColumnElement[Any]:
    """The value alone, whose type tells what it is: whole numbers among numbers become real,
    anything else stays as it is."""
    if read_as == "integer":
        return column
    if read_as == "number":
        whole = sa.func.typeof(column) == sa.literal_column("'integer'")
        return sa.case((whole, sa.cast(column, sa.REAL)), else_=column)
    return sa.func.coalesce(sa.cast(column, sa.Text), "")


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by (occurred_at, transaction_id), as most databases give them."""
    times, ids = rows.occurred_at.to_numpy(), rows.transaction_id.to_numpy()
    ties = np.flatnonzero(times[1:] == times[:-1])
    if (times[1:] >= times[:-1]).all() and (ids[ties + 1] > ids[ties]).all():
        return rows.reset_index(drop=True)
    return rows.sort_values(["occurred_at", "transaction_id"], ignore_index=True)


def arrow_mask(keep: np.ndarray) -> Any:
    import pyarrow as pa

    return pa.array(keep)


def any_of(masks: Mapping[Any, np.ndarray]) -> np.ndarray:
    return np.logical_or.reduce(list(masks.values()))


def _state(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """The state of each cell: from its null flag, on SQLite from the column beside it."""
    import pyarrow.compute as pc

    if f"{name}{STATE}" not in table.column_names:
        return np.where(as_array(pc.is_null(table.column(name))), NULL, OK).astype("int8"), None
    beside = table.column(f"{name}{STATE}")
    if not len(beside) or _all_empty(beside):
        return np.zeros(len(beside), "int8"), None
    text = _decoded(beside).to_numpy(dtype=object)
    state = np.array([OK if not t else NULL if t == "n" else WRONG for t in text], "int8")
    return state, np.array([t[1:] for t in text], dtype=object)


def _all_empty(column: Any) -> bool:
    import pyarrow.compute as pc

    # Of no rows at all, SQLite's reader cannot tell the type.
    return not len(column) or not pc.any(pc.not_equal(column, "")).as_py()


def as_array(column: Any) -> np.ndarray:
    return column.to_numpy() if hasattr(column, "chunks") else column.to_numpy(zero_copy_only=False)


def read_numbers(table: pa.Table, name: str) -> Cells:
    state, text = _state(table, name)
    values = as_array(table.column(name)).astype("float64")
    return Cells(name, values, state, text)


def read_integers(table: pa.Table, name: str) -> Cells:
    import pyarrow.compute as pc

    state, text = _state(table, name)
    column = table.column(name)
    filled = pc.fill_null(column, 0) if column.null_count else column
    return Cells(name, as_array(filled).astype("int64"), state, text)


def read_texts(table: pa.Table, name: str) -> Cells:
    import pyarrow as pa
    import pyarrow.compute as pc

    column = pc.fill_null(table.column(name).cast(pa.string()), "")
    empty = as_array(pc.equal(column, ""))
    values = _decoded(column).to_numpy()
    return Cells(name, values, np.where(empty, NULL, OK).astype("int8"))


def _decoded(column: Any) -> pd.Series:
    """Texts; bytes that are no UTF-8, which SQLite keeps in any column, as replacement signs."""
    import pyarrow as pa

    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        parts = column.cast(pa.binary()).to_pylist()
        return pd.Series([part.decode("utf-8", "replace") for part in parts], dtype="str")
    return column.to_pandas().astype("str")


def as_series(cells: Cells, role: str) -> pd.Series:
    """A column of the frame of rows; unusable cells are missing."""
    if role in ("numbers", "label", "amount"):
        return pd.Series(np.where(cells.state == OK, cells.values, np.nan))
    if cells.values.dtype.kind == "i":
        return pd.Series(pd.arrays.IntegerArray(cells.values, cells.state != OK))
    texts = pd.Series(cells.values, dtype="str")
    return texts if role in ("text", "categories") else texts.where(cells.state == OK)


def read_times(table: pa.Table, name: str, kind: str, form: str | None, zone: str) -> Cells:
    """Moments in microseconds UTC; what cannot be read is WRONG."""
    if kind == "epoch":
        numbers = read_numbers(table, name)
        finite = np.isfinite(numbers.values) & (np.abs(numbers.values) < 9e12)
        values = np.where(finite, np.round(np.where(finite, numbers.values, 0) * MICROSECONDS), 0)
        state = np.where((numbers.state == OK) & ~finite, WRONG, numbers.state)
        return Cells(name, values.astype("int64"), state.astype("int8"), numbers.text)
    if kind == "text":
        return _text_times(table, name, form, zone)
    column = table.column(name)
    import pyarrow as pa
    import pyarrow.compute as pc

    missing = as_array(pc.is_null(column))
    if kind == "date" and pa.types.is_date(column.type):
        days = as_array(pc.fill_null(column.cast(pa.int32()), 0)).astype("int64")
        infinite = np.abs(days) > 10**8  # PostgreSQL's infinity
        state = np.where(missing, NULL, np.where(infinite, WRONG, OK)).astype("int8")
        values = np.where(infinite, 0, days) * frames.MICROSECONDS_PER_DAY
        return Cells(name, _from_zone(values, zone), state)
    target = pa.timestamp("us", tz="UTC") if kind == "timestamptz" else pa.timestamp("us")
    whole = pc.fill_null(column.cast(target).cast(pa.int64()), 0)
    values = as_array(whole).astype("int64")
    infinite = np.abs(values) > 8 * 10**18  # PostgreSQL's infinity
    state = np.where(missing, NULL, np.where(infinite, WRONG, OK)).astype("int8")
    values = np.where(state == OK, values, 0)
    return Cells(name, values if kind == "timestamptz" else _from_zone(values, zone), state)


def is_iso(form: str | None) -> bool:
    """Whether texts of that format are ISO, and so sort by time."""
    return form is None or ISO_FORMAT.fullmatch(form) is not None


def unlike_iso(text: Any, dialect: sa.Dialect) -> sa.ColumnElement[bool]:
    """Where a text is not as `ISO_SQL` has it; SQLite has no regular expressions."""
    if dialect.name != "sqlite":
        return sa.not_(text.regexp_match(ISO_SQL))
    date = "[0-9][0-9][0-9][0-9]-[0-1][0-9]-[0-3][0-9]"
    clock = f"{date}[T ][0-2][0-9]:[0-5][0-9]"
    exact = [text.bool_op("GLOB")(shape) for shape in (date, clock, f"{clock}:[0-5][0-9]")]
    longer = sa.and_(
        text.bool_op("GLOB")(f"{clock}:[0-5][0-9][.Z+-]*"),
        sa.not_(sa.func.substr(text, 20).bool_op("GLOB")("*[^0-9.Z:+-]*")),
    )
    return sa.or_(
        sa.func.julianday(text).is_(None),  # a part out of its range
        sa.func.substr(text, 12, 2) == "24",
        sa.not_(sa.or_(*exact, longer)),
    )


def _text_times(table: pa.Table, name: str, form: str | None, zone: str) -> Cells:
    import pyarrow as pa

    iso = is_iso(form)
    if iso:
        try:  # an empty or missing cell is no moment, so that none is left where this succeeds
            parsed = table.column(name).cast(pa.timestamp("us")).cast(pa.int64())
            if not parsed.null_count:
                values = as_array(parsed).astype("int64")
                return Cells(name, _from_zone(values, zone), np.full(len(values), OK, "int8"))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass  # some cells are not plain ISO: read them one by one below
    cells = read_texts(table, name)
    texts = pd.Series(cells.values)
    values = np.zeros(len(texts), "int64")
    good = np.zeros(len(texts), bool)
    if iso:
        readable = texts.str.fullmatch(ISO).to_numpy()
        aware = texts.str.contains(r":.*[Z+-]", regex=True).to_numpy()
    else:
        readable = cells.state == OK
        aware = np.full(len(texts), "%z" in str(form) or str(form).endswith("Z"))
    for mask, utc in ((readable & aware, True), (readable & ~aware, False)):
        stamps = pd.to_datetime(
            texts[mask], format="ISO8601" if iso else form, errors="coerce", utc=utc
        ).dt.as_unit("us")
        there = stamps.notna().to_numpy()
        plain = (stamps.dt.tz_localize(None) if utc else stamps).to_numpy()[there].astype("int64")
        at = np.flatnonzero(mask)[there]
        values[at] = plain if utc else _from_zone(plain, zone)
        good[at] = True
    state = np.where(cells.state == NULL, NULL, np.where(good, OK, WRONG)).astype("int8")
    return Cells(name, values, state, np.asarray(cells.values, dtype=object))


def _from_zone(values: np.ndarray, zone: str) -> np.ndarray:
    """Naive microseconds in the zone as UTC; a repeated hour is its first, a lost one its end."""
    if zone == "UTC" or not len(values):
        return values
    near = np.clip(values, frames.EARLIEST, LATEST)  # pandas knows the zones of these years only
    stamps = pd.DatetimeIndex(near.astype("datetime64[us]"))
    local = stamps.tz_localize(
        zone, ambiguous=np.ones(len(stamps), bool), nonexistent="shift_forward"
    )
    utc = local.tz_convert("UTC").tz_localize(None).as_unit("us").to_numpy().astype("int64")
    return values + (utc - near)
