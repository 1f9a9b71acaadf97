"""The books: every source row counted by day, every refused row kept with its reason.

All source rows = before scope + scored + quarantined + pending; the view `coverage` is the sum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.engine import Connection

from shared import frames
from shared.database import insert_new, staged
from shared.errors import DataQualityError
from shared.runs import Run
from shared.source import Batch
from shared.tables import Tables

SLICE_ROWS = 200_000  # rows read and scored at once: what bounds the memory of a run


@dataclass(frozen=True)
class Inspection:
    """What lies in a window: refusals, and the slices to read it by.

    The rows without a valid time lie in no window: they are those of the whole table, which has
    `source_rows` rows (counted only where there are such).
    """

    rows_read: int
    refused: pd.DataFrame
    undated: pd.DataFrame | None  # None where they were not looked for
    slices: tuple[tuple[int, int], ...]
    source_rows: int = 0

    @property
    def rows_refused(self) -> int:
        """Refused source rows, each once however many faults it has."""
        return frames.refused_rows(self.refused) + frames.refused_rows(self.undated)


def inspect(
    run: Run,
    since: int,
    until: int,
    each: Callable[[Batch], None] = lambda _batch: None,
    *,
    whole: bool = True,
) -> Inspection:
    """Reads the window once through the gate, in slices of whole days; writes nothing.

    each: what else is to be done with a slice while it is there. whole: whether the rows without a
    valid time are looked for as well, which may be anywhere in the table.
    """
    counts, _ = run.source.counted(frames.micros(run.clock), since)
    slices = tuple(_slices(counts, since, until, run.source.settings.timezone))
    refused, rows_read = [], 0
    for start, end in slices:
        batch = run.source.read(start, end, frames.micros(run.clock))
        refused.append(batch.refused)
        rows_read += batch.rows_read
        each(batch)
    undated = run.source.undated(frames.micros(run.clock)) if whole else None
    total = 0
    if undated is not None and len(undated):
        counts, timeless = run.source.counted(frames.micros(run.clock))
        total = int(counts.sum()) + timeless
    return Inspection(rows_read, frames.gather(refused), undated, slices, total)


def _slices(counts: pd.Series, since: int, until: int, timezone: str) -> Iterator[tuple[int, int]]:
    """Consecutive windows of whole days, each of about `SLICE_ROWS` rows at most."""
    start, rows = since, 0
    for day, count in counts.items():
        begin = frames.day_start(np.datetime64(day, "D"), timezone)
        if begin >= until:
            break
        if rows and rows + count > SLICE_ROWS and begin > start:
            yield start, begin
            start, rows = begin, 0
        rows += int(count)
    if start < until:
        yield start, until


def require_quality(inspection: Inspection, limit: float, job: str, least: int = 0) -> None:
    """Stops the run, before anything is written, where too many rows are refused.

    The window's share is of the rows read, that of the rows without a time is of the whole table:
    old ones would else weigh more the shorter the window is.
    least: the share is at least of so many rows, as one of a few tells nothing.
    """
    parts = (
        (inspection.refused, max(inspection.rows_read, least), ""),
        (inspection.undated, inspection.source_rows, " of the table"),
    )
    faults = [
        f"{frames.refused_rows(refused)} of {total} rows{where} refused ({_by_code(refused)})"
        for refused, total, where in parts
        if refused is not None and frames.refused_rows(refused) > limit * total
    ]
    if faults:
        raise DataQualityError(
            f"{job} found {' and '.join(faults)}; at most {limit:.1%} may be. Nothing was written. "
            "Mend the source or the mapping, or raise [fraudwatch] quarantine_limit."
        )


def _by_code(refused: pd.DataFrame) -> str:
    codes = refused.groupby("code").source_rows.sum().sort_values(ascending=False)
    return ", ".join(f"{code}: {count}" for code, count in codes.items())


def stream(
    run: Run, slices: tuple[tuple[int, int], ...], history: int, label: str | None = None
) -> Iterator[tuple[pd.DataFrame, np.ndarray, Batch]]:
    """(rows with lead-in, positions of the slice's own rows, the slice as read) for each slice.

    history: microseconds of lead-in. The lead-in rolls on, so that each row is read once.
    """
    clock = frames.micros(run.clock)
    lead: pd.DataFrame | None = None
    for start, end in slices:
        if lead is None:
            lead = run.source.read(start - history, start, clock, label=label).rows
        batch = run.source.read(start, end, clock, label=label)
        rows = pd.concat([lead, batch.rows], ignore_index=True) if len(lead) else batch.rows
        yield rows, np.arange(len(rows) - len(batch.rows), len(rows)), batch
        lead = rows[rows.occurred_at >= end - history]


def quarantine(
    connection: Connection,
    run: Run,
    refused: pd.DataFrame,
    seen: pd.Series | None = None,
    window: tuple[int, int] | None = None,
    *,
    undated: bool = False,
) -> int:
    """Keeps each refused row and code once while it is open; returns how many were new.

    seen: ids of rows that passed. window: what was read; whatever is open on a whole day of it and
    not refused again is resolved, so are the rows without a time where `undated` were read, the
    rows that passed, and the codes that a row seen again has no longer.
    """
    table = run.tables.quarantined_rows
    name = run.source.mapping.table
    still = sa.and_(table.c.source_table == name, table.c.resolved_at.is_(None))
    known = connection.execute(
        sa.select(table.c.row_key, table.c.code, table.c.day, table.c.source_rows).where(still)
    ).fetchall()
    counts = {_refusal(r): int(r.source_rows) for r in refused.itertuples()}
    passed = set() if seen is None or not known else set(seen.astype("str"))
    again = {(key, day) for key, _, day in counts}
    whole = _whole_days({row.day for row in known}, window, run.source.settings.timezone)
    whole |= {None} if undated else set()
    for key, code, day, rows in known:
        here = sa.and_(
            still,
            table.c.row_key == key,
            table.c.code == code,
            table.c.day.is_not_distinct_from(day),
        )
        now = counts.get((key, code, day))
        if now is None and (key in passed or (key, day) in again or day in whole):
            connection.execute(sa.update(table).where(here).values(resolved_at=run.clock))
        elif now is not None and now != rows:
            connection.execute(sa.update(table).where(here).values(source_rows=now))
    open_now = {(key, code, day) for key, code, day, _ in known}
    fresh = refused[[_refusal(row) not in open_now for row in refused.itertuples()]]
    return insert_new(
        connection,
        table,
        fresh.assign(
            source_table=name,
            first_run_id=run.run_id,
            seen_at=pd.Timestamp(run.clock),
        ),
    )


def _refusal(row: Any) -> tuple[str, str, date | None]:
    """What a refusal is known by."""
    return row.row_key, row.code, None if pd.isna(row.day) else row.day


def _whole_days(
    days: set[date | None], window: tuple[int, int] | None, timezone: str
) -> set[date | None]:
    """Those of the days that lie wholly within the window."""
    if window is None:
        return set()
    ends = {
        day: [frames.day_start(np.datetime64(day, "D") + step, timezone) for step in (0, 1)]
        for day in days
        if day is not None
    }
    return {day for day, (start, end) in ends.items() if window[0] <= start and end <= window[1]}


def open_refusals(connection: Connection, run: Run) -> set[str]:
    """Keys of the source rows that are refused and not yet resolved."""
    table = run.tables.quarantined_rows
    open_now = (table.c.source_table == run.source.mapping.table, table.c.resolved_at.is_(None))
    return {row[0] for row in connection.execute(sa.select(table.c.row_key).where(*open_now))}


def less_published(connection: Connection, run: Run, refused: pd.DataFrame) -> pd.DataFrame:
    """A repeated id whose first row is scored already has one row less on that row's day."""
    repeated = refused[refused.code == "id_duplicate"]
    if repeated.empty:
        return refused
    keys = repeated.row_key.astype("str")
    typed = keys.astype("int64") if run.source.kinds["transaction"] == "integer" else keys
    scores = run.tables.transaction_scores
    column = scores.c.transaction_id
    with staged(connection, [column], typed.to_frame("transaction_id")) as stage:
        joined = stage.join(scores, column == stage.c.transaction_id)
        found = sa.select(column, scores.c.day).select_from(joined)
        rows = connection.execute(found.where(scores.c.role == "published"))
        scored = {(row[0], row[1]) for row in rows}
    less = refused.source_rows.astype("int64")
    there = [pair in scored for pair in zip(typed, repeated.day, strict=True)]
    less.loc[repeated.index[there]] -= 1
    return refused.assign(source_rows=less)[less > 0]


def count_days(
    connection: Connection,
    run: Run,
    scope: np.datetime64,
    counted: tuple[pd.Series, int],
    since: np.datetime64 | None = None,
) -> None:
    """Renews `source_days`: rows of each local day, those before `scope` apart.

    since: the first day that was counted; earlier days, and the rows without a time, stay.
    counted: what `Source.counted` found before the transaction began. To read the source within
    it would lose its locks where both are one SQLite file: the reader is a second SQLite in this
    process, and a process's locks on a file are one.
    """
    counts, undated = counted
    days = pd.to_datetime(counts.index.to_numpy()).date
    before = counts.to_numpy() * (counts.index.to_numpy() < scope)
    table = run.tables.source_days
    stale = sa.true() if since is None else table.c.day >= since.astype(object)
    gone = _gone_days(connection, run, sa.select(table.c.day).where(stale), set(days))
    connection.execute(sa.delete(table).where(stale))
    zeros = np.zeros(len(gone), dtype="int64")
    frame = pd.DataFrame(
        {
            "day": pd.Series([*days, *gone], dtype="object"),
            "source_rows": np.append(counts.to_numpy(), zeros),
            "before_scope": np.append(before, zeros),
            "counted_at": pd.Timestamp(run.clock),
        }
    )
    insert_new(connection, table, frame)
    if undated and since is None:
        connection.execute(
            sa.insert(table).values(
                day=None, source_rows=undated, before_scope=0, counted_at=run.clock
            )
        )


def _gone_days(
    connection: Connection, run: Run, counted_before: sa.Select[Any], now: set[date]
) -> list[date]:
    """Days that had rows when they were last counted and have none now, although rows of theirs
    are scored: they stay in the books, else nobody would miss them."""
    scores, zone = run.tables.transaction_scores, run.source.settings.timezone
    lacking = {day for (day,) in connection.execute(counted_before) if day is not None} - now
    found = []
    for day in sorted(lacking):
        ends = [frames.day_start(np.datetime64(day, "D") + step, zone) for step in (0, 1)]
        scored = sa.select(scores.c.day).where(
            scores.c.role == "published",
            scores.c.occurred_at >= frames.moment(ends[0]),
            scores.c.occurred_at < frames.moment(ends[1]),
        )
        if connection.execute(scored.limit(1)).first() is not None:
            found.append(day)
    return found


def too_late(connection: Connection, run: Run) -> int:
    """Valid rows that lie before the look-back and are not scored."""
    return waiting(connection, run.tables)[1]


def waiting(connection: Connection, tables: Tables) -> tuple[int, int]:
    """(rows known and not yet scored, those of them that came too late for the next run)."""
    sums: list[Any] = [
        sa.func.coalesce(sa.func.sum(sa.column(name)), 0) for name in ("pending", "too_late")
    ]
    select = sa.select(*sums).select_from(tables.view("coverage"))
    pending, late = connection.execute(select).one()
    return int(pending), int(late)


def local_day(moment: int, timezone: str) -> np.datetime64:
    """The calendar day of one moment."""
    return frames.local_days(np.array([moment]), timezone)[0]


def days_before(moment: int, days: int) -> int:
    """A moment that many days earlier, in microseconds."""
    return moment - days * frames.MICROSECONDS_PER_DAY


def span_days(since: int, until: int) -> int:
    """How many whole days a window has, at least one."""
    return max(1, round((until - since) / frames.MICROSECONDS_PER_DAY))


def until_or_newest(run: Run, given: datetime | None) -> int:
    """The end of a window, itself not in it, in microseconds: T as given, else just after the
    newest valid transaction; never later than the clock."""
    clock = frames.micros(run.clock)
    if given is not None:
        return min(frames.micros(given), clock)
    newest = run.source.newest(clock)
    if newest is None:
        raise DataQualityError(
            f"{run.command} found no valid transaction in {run.source.mapping.table}. Check that "
            "the table has rows and that [source.transactions] time names the right column: "
            "peerwatch doctor"
        )
    return newest + 1
