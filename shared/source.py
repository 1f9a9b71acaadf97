"""The user's tables, read as they are mapped and never written.

Identifiers come from reflection only, values are bound. Cells are read with their state (there,
null, wrong type), so that the quality gate can refuse a row with a reason instead of a read
failing or a cast turning text into zero.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection, Engine

from shared import frames, history
from shared.cells import (
    LATEST,
    MICROSECONDS,
    SELDOM_DAYS,
    any_of,
    arrow_mask,
    as_array,
    as_series,
    in_order,
    is_iso,
    plain_cell,
    read_integers,
    read_numbers,
    read_texts,
    read_times,
    sqlite_cell,
    unlike_iso,
)
from shared.config import Customers, Transactions
from shared.config import Source as SourceSettings
from shared.database import (
    FITTING,
    Limits,
    Reader,
    engine,
    parse_url,
    require_file,
    shown,
    translated,
)
from shared.errors import ConfigurationError
from shared.frames import NULL, OK, WRONG, Cells

if TYPE_CHECKING:
    import pyarrow as pa

WIDE = timedelta(days=2)  # more than any zone's offset: the exact window is cut afterwards
NONE = timedelta(0)
TIMES = ("text", "epoch", "timestamp", "timestamptz", "date")  # what a column of times may hold
KEY_OF = {"id": "transaction", "customer": "customer", "counterparty": "counterparty"}
CODES_OF = {**KEY_OF, "id": "id", "entities": "entity"}  # how the codes of a bad key begin
NUMBERS = ("amount", "numbers", "label", "baseline_score")  # roles that are read as numbers
KEYS = (*CODES_OF, "order")  # roles that keep the kind of the source
OF_LABELS = ("label", "label_time", "label_kind")
MOMENTS = ("label_time", "arrived_at", *history.PERIOD)  # an empty cell is usual
# Neither the gate nor the keys need these, and texts are what reading takes its time for.
BESIDE_KEYS = ("currency", "order", "categories", "baseline_score", "label_kind")
NAMES = {
    "id": "transaction_id",
    "time": "occurred_at",
    "customer": "customer_id",
    "counterparty": "counterparty_id",
    "order": "order_id",
    "baseline_score": "baseline",
    "entities": "entity.",
    "categories": "category.",
    "numbers": "number.",
}  # of the columns of a frame of rows; other roles have their own name

Roles = Sequence[tuple[str, str]]  # (column, role) of what is read


@dataclass(frozen=True)
class Batch:
    """What one read found: valid rows in order of (occurred_at, id), refusals, rows counted."""

    rows: pd.DataFrame
    refused: pd.DataFrame
    rows_read: int


class Source:
    """An open source: reflected, checked against its mapping, ready to be read."""

    def __init__(
        self,
        settings: SourceSettings,
        name: str = "peerwatch",
        limits: Limits = FITTING,
        reader: Callable[[URL, str, Limits], Reader] = Reader,
    ) -> None:
        self.settings = settings
        self.url = parse_url(settings.url)
        self.engine: Engine = engine(self.url, read_only=True, name=name, limits=limits)
        self._reader = reader(self.url, name, limits)
        self.kinds: dict[str, str] = {}
        self.types: dict[str, str] = {}
        self._duplicates: pd.Series | None = None
        # Whether no cell of another type than its column's was met yet; only SQLite keeps such.
        self._plain = self.url.get_backend_name() == "sqlite"

    def __enter__(self) -> Source:
        require_file(self.url)
        with self.session() as connection:
            self._require_read_only(connection)
            self._reflect(connection)
        self._reader.__enter__()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._reader.__exit__()

    def _require_read_only(self, connection: Connection) -> None:
        """A pooler may be told to pass over the options of a session; then nothing protects."""
        if self.url.get_backend_name() != "postgresql":
            return
        if connection.exec_driver_sql("SHOW transaction_read_only").scalar() != "on":
            raise ConfigurationError(
                f"The session on {shown(self.url)} is not read-only, although it was asked to be: "
                "a pooler has dropped its options. Nothing was read. Name the server itself."
            )

    @contextmanager
    def session(self) -> Iterator[Connection]:
        """A short session for the catalogue and for plans, beside the one that reads rows."""
        reader = self._reader
        with reader.turn, translated(self.url, reader.limits), self.engine.connect() as connection:
            yield connection

    @property
    def mapping(self) -> Transactions:
        return self.settings.transactions

    # --- reflection ---------------------------------------------------------------------------

    def _reflect(self, connection: Connection) -> None:
        faults: list[str] = []
        self.table = reflected(connection, self.mapping.table, "[source.transactions]", faults)
        found = _types(connection, self.table, self.mapping, "[source.transactions]", faults)
        self.types = {f"{self.mapping.table}.{name}": kind for name, kind in found.items()}
        self.customer_table: sa.Table | None = None
        if self.settings.customers is not None:
            mapped = self.settings.customers
            self.customer_table = reflected(connection, mapped.table, "[source.customers]", faults)
            known = _types(connection, self.customer_table, mapped, "[source.customers]", faults)
            self.types |= {f"{mapped.table}.{name}": kind for name, kind in known.items()}
        if not faults:
            self.kinds = self._kinds(faults)
            faults.extend(self._wrong_roles())
            faults.extend(self._unsorted_arrivals(connection))
        if faults:
            raise ConfigurationError(faults)
        self._unique = _is_unique(connection, self.table, self.mapping.id)

    def _kinds(self, faults: list[str]) -> dict[str, str]:
        kinds: dict[str, str] = {}
        for key, name in self.mapping.columns():
            if key in CODES_OF:
                kind = _key_kind(self.type_of(name), f"[source.transactions] {key}", name, faults)
                kinds |= {KEY_OF[key]: kind} if key in KEY_OF else {}
        customers = self.settings.customers
        if customers is not None and "customer" in kinds:
            own = _key_kind(
                self.types[f"{customers.table}.{customers.id}"],
                "[source.customers] id",
                customers.id,
                faults,
            )
            if own != kinds["customer"]:
                faults.append(
                    key_mismatch(
                        (customers.table, customers.id, own),
                        (self.mapping.table, str(self.mapping.customer), kinds["customer"]),
                    )
                )
        return kinds

    def _wrong_roles(self) -> list[str]:
        """Columns whose type cannot play the role that the mapping gives them."""
        numbers = ("integer", "number", "boolean")
        wanted = dict.fromkeys(NUMBERS, numbers) | {"amount": numbers[:2]}
        mapped: list[tuple[str, Transactions | Customers]] = [("transactions", self.mapping)]
        if self.settings.customers is not None:
            mapped.append(("customers", self.settings.customers))
        faults = [
            f"[source.{section}] {key}: {owner.table}.{name} is {kind}, expected a number. "
            "Map a view that casts it."
            for section, owner in mapped
            for key, name in owner.columns()
            if key in wanted and (kind := self.types[f"{owner.table}.{name}"]) not in wanted[key]
        ]
        faults += [
            f"[source.{section}] {key}: {owner.table}.{name} is {kind}, expected a timestamp, a "
            "date, ISO text or epoch seconds."
            for section, owner in mapped
            for key, name in owner.columns()
            if key in ("time", *MOMENTS)
            and (kind := self.types[f"{owner.table}.{name}"]) not in TIMES
        ]
        return faults

    def _unsorted_arrivals(self, connection: Connection) -> list[str]:
        """Texts that do not sort by time cannot be asked for what arrived since a moment; judged
        by most of the first thousand rows."""
        name = self.mapping.arrived_at
        if name is None or self.type_of(name) != "text":
            return []
        text = sa.cast(self.table.c[name], sa.Text).label("text")
        first = sa.select(text).limit(1000).subquery()
        unlike = sa.case((unlike_iso(first.c.text, connection.dialect), 1.0), else_=0.0)
        share = sa.select(sa.func.avg(unlike)).where(first.c.text.is_not(None))
        if (connection.execute(share).scalar() or 0) <= 0.5:
            return []
        return [
            f"[source.transactions] arrived_at: {self.mapping.table}.{name} holds text that is not "
            "ISO and so does not sort by time. Map a view that gives a timestamp, or ISO text."
        ]

    def type_of(self, column: str) -> str:
        """What a transactions' column holds: one of the names of `category`."""
        return self.types[f"{self.mapping.table}.{column}"]

    def changed(self, recorded: Mapping[str, str]) -> list[str]:
        """Columns whose type is no longer what `recorded` says, as faults."""
        return [
            f"{column} was {recorded[column]} when it was mapped and is {kind} now. Map a view "
            "that restores its type, or run peerwatch init again with another schema or prefix."
            for column, kind in self.types.items()
            if column in recorded and not _same_kind(recorded[column], kind)
        ]

    # --- transactions -------------------------------------------------------------------------

    def read(self, since: int, until: int, clock: int, *, label: str | None = None) -> Batch:
        """Rows with since <= occurred_at < until (microseconds).

        label: a column of labels to be read as well, as `label`; with the mapped `label_kind`, and
        `label_time` where it tells when that label was known.
        """
        return self._batch(since, until, clock, self._roles(label))

    def read_keys(self, since: int, until: int, clock: int) -> pd.DataFrame:
        """Who, when and what is known of the valid rows of the window: transaction_id,
        occurred_at, customer_id, counterparty_id, entity.*, and the mapped label, label_time.

        The rows are those of `read`, read in less time: the gate needs amounts and numbers, and
        nothing needs texts.
        """
        roles = self._roles(self.mapping.label, BESIDE_KEYS)
        rows = self._batch(since, until, clock, roles).rows
        return rows[[_named(n, r) for n, r in roles if r not in ("amount", "numbers")]]

    def _batch(self, since: int, until: int, clock: int, roles: Roles) -> Batch:
        clause = self._window(since, until)
        table = self._selected(sa.true() if clause is None else clause, roles)
        return self._gated(table, (since, until), clock, roles)

    def undated(self, clock: int) -> pd.DataFrame:
        """Refusals of the rows that have no usable time and so lie in no window."""
        roles = self._roles()
        select = sa.select(*self._columns(roles))
        clauses = [self.table.c[self.mapping.time].is_(None), self._unreadable()]
        if self.type_of(self.mapping.time) != "text" or self._sorted_text:
            column = self.table.c[self.mapping.time]
            clauses.append(column > self._bound(clock + frames.MICROSECONDS_PER_DAY, -WIDE))
            clauses.append(column < self._bound(frames.EARLIEST, WIDE))
        table = self._reader.read(select.where(sa.or_(*clauses)))
        batch = self._gated(table, None, clock, roles)
        return batch.refused[batch.refused.day.isna()].reset_index(drop=True)

    def counted(self, clock: int, since: int | None = None) -> tuple[pd.Series, int]:
        """Source rows per local day (from `since` on), and rows without a valid time.

        The time column is read once, in parts; the days are those of `[source] timezone`.
        """
        select = sa.select(*self._cell(self.mapping.time, "time"))
        clause = None if since is None else self._window(since, None)
        if clause is not None:
            select = select.where(clause)
        counts = pd.Series(dtype="int64", index=pd.DatetimeIndex([], dtype="datetime64[s]"))
        undated = 0
        for table in self._reader.stream(select):
            cells = self._cells(table, self.mapping.time, "time")
            bad = any_of(frames.time_codes(cells, clock))
            good = ~bad if since is None else ~bad & (cells.values >= since)
            days = frames.local_days(cells.values[good], self.settings.timezone)
            counts = counts.add(pd.Series(days).value_counts(), fill_value=0)
            undated += int(bad.sum())
        return counts.astype("int64").sort_index(), undated

    def newest(self, clock: int, role: str = "time") -> int | None:
        """The newest valid moment not after the clock; None where there is none.

        Looks back over a day, and over ever longer times while it finds nothing.
        role: "time", or "arrived_at" for the newest arrival.
        """
        name, days = str(getattr(self.mapping, role)), 1
        while True:
            since = max(clock - days * frames.MICROSECONDS_PER_DAY, frames.EARLIEST)
            select = sa.select(*self._cell(name, role))
            clause = self._window(since, clock + 1, role)
            if clause is not None:
                select = select.where(clause)
            cells = self._cells(self._reader.read(select), name, role)
            good = ~any_of(frames.time_codes(cells, clock)) & (cells.values <= clock)
            if good.any():
                return int(cells.values[good].max())
            if clause is None or since == frames.EARLIEST:
                return None
            days *= 8

    def arrived(
        self, seen: int, window: tuple[int, int], clock: int
    ) -> tuple[pd.DataFrame, int | None]:
        """What arrived at `seen` or later: transaction_id and occurred_at of the rows that occurred
        in the window, and the newest arrival not after the clock (None where there is none).

        A row has its arrival from before its transaction commits, and becomes visible after.
        """
        roles = [(self.mapping.id, "id"), (self.mapping.time, "time")]
        name = str(self.mapping.arrived_at)
        columns = self._columns([*roles, (name, "arrived_at")])
        select = sa.select(*columns).where(self._window(seen, None, "arrived_at"))
        parts, newest = [pd.DataFrame(columns=["transaction_id", "occurred_at"])], None
        for table in self._reader.stream(select):
            ids, times = (self._cells(table, column, role) for column, role in roles)
            arrival = self._cells(table, name, "arrived_at")
            of_late = (arrival.state == OK) & (arrival.values >= seen)
            known = arrival.values[of_late & (arrival.values <= clock)]
            newest = max(int(known.max()), newest or seen) if len(known) else newest
            good = of_late & ~any_of(frames.time_codes(times, clock)) & (ids.state == OK)
            good &= (times.values >= window[0]) & (times.values < window[1])
            late = {"transaction_id": ids.values[good], "occurred_at": times.values[good]}
            parts = [*(part for part in parts if len(part)), pd.DataFrame(late)]
        return pd.concat(parts, ignore_index=True), newest

    def duplicates(self) -> pd.Series:
        """How many rows each repeated id has; empty where a constraint forbids repeats."""
        if self._duplicates is None:
            self._duplicates = pd.Series(dtype="int64")
            if not self._unique:
                read = self._cell(self.mapping.id, "id")
                select = (
                    sa.select(*read, sa.func.count().label("rows\x1f"))
                    .group_by(*(item.element for item in read))
                    .having(sa.func.count() > 1)
                )
                table = self._reader.read(select)
                cells = self._cells(table, self.mapping.id, "id")
                counts = as_array(table.column("rows\x1f")).astype("int64")
                known = cells.state == OK
                self._duplicates = pd.Series(counts[known], index=pd.Index(cells.values[known]))
        return self._duplicates

    def customers(self) -> pd.DataFrame | None:
        """The customers' own table: customer_id, number.*, category.*, descriptor.*; or None.

        Where the table keeps its history there are several rows per customer, with valid_from and
        valid_to as `history.periods` leaves them; `history.valid_at` takes those of a moment.
        """
        if self.customer_table is None or self.settings.customers is None:
            return None
        mapped, table = self.settings.customers, self.customer_table
        roles = {name: self._customer_role(key, name) for key, name in mapped.columns()}
        select = sa.select(
            *(item for n, role in roles.items() for item in self._cell(n, role, table))
        )
        read = self._reader.read(select)
        cells = {n: self._cells(read, n, role, mapped.table) for n, role in roles.items()}
        frame = pd.DataFrame(
            {
                _prefix(key, name): as_series(cells[name], roles[name])
                for key, name in mapped.columns()
                if key not in history.PERIOD
            }
        )
        if mapped.valid_from and mapped.valid_to:
            return history.periods(frame, cells[mapped.valid_from], cells[mapped.valid_to])
        frame = frame[frame.customer_id.notna()]
        if frame.customer_id.duplicated().any():  # the first in an order that is always the same
            frame = frame.sort_values(list(frame.columns))
        return frame.drop_duplicates("customer_id", ignore_index=True)

    def customers_before(self, moment: int, clock: int) -> pd.Series:
        """The customers of any row before the moment, each once.

        Days that are surely before are asked of the database; the last few, whose rows depend on
        the zone, and times that do not sort as text are read.
        """
        kind, column = self.type_of(self.mapping.time), self.table.c[self.mapping.time]
        if kind == "text" and not self._sorted_text:
            rows = self.read(frames.EARLIEST, moment, clock).rows
            return rows.customer_id.dropna().drop_duplicates()
        name = str(self.mapping.customer)
        sure = sa.and_(
            self._bound(frames.EARLIEST, WIDE) <= column, column < self._bound(moment, -WIDE)
        )
        select = sa.select(*self._cell(name, "customer")).where(sure).distinct()
        older = as_series(self._cells(self._reader.read(select), name, "customer"), "customer")
        near = self.read(moment - 3 * WIDE // timedelta(microseconds=1), moment, clock).rows
        return pd.concat([older, near.customer_id]).dropna().drop_duplicates()

    def _customer_role(self, key: str, name: str) -> str:
        """How a column of the customers is read; a descriptor by what it holds."""
        if key != "descriptors":
            return {"id": "customer"}.get(key, key)
        kind = self.types[f"{self.settings.customers.table}.{name}"]  # type: ignore[union-attr]
        return "numbers" if kind in ("integer", "number") else "categories"

    def moment_of(self, key: int | str, clock: int) -> int:
        """When a transaction occurred, by its id; refuses an id that no valid row has."""
        column = self.table.c[self.mapping.id]
        same = (
            sa.cast(column, sa.Text) == key
            if self.kinds["transaction"] == "uuid"
            else column == key
        )
        roles = self._roles()
        table = self._reader.read(sa.select(*self._columns(roles)).where(same))
        batch = self._gated(table, None, clock, roles)
        if batch.rows.empty:
            codes = ", ".join(sorted(set(batch.refused.code)))
            why = f"it is refused as {codes}" if codes else f"none has that {self.mapping.id}"
            raise ConfigurationError(
                f"There is no valid transaction {key} in {self.mapping.table}: {why}."
            )
        return int(batch.rows.occurred_at.iloc[0])

    def require_label(self, column: str) -> None:
        """The column of the labels must be there and hold numbers or truth values."""
        faults: list[str] = []
        mapped = replace(self.mapping, label=column)
        with self.session() as connection:
            found = _types(connection, self.table, mapped, "--label", faults)
        kind = found.get(column)
        if kind is not None and kind not in ("integer", "number", "boolean"):
            faults.append(
                f"--label: {self.mapping.table}.{column} is {kind}; a label should be 1 for fraud, "
                "0 for genuine, null for unknown. Map a view that makes it so."
            )
        if faults:
            raise ConfigurationError(faults)
        self.types[f"{self.mapping.table}.{column}"] = str(kind)

    # --- statements ---------------------------------------------------------------------------

    @property
    def in_order_of_time(self) -> bool:
        """Whether the times sort as they are kept, so that an index can lead to a window."""
        return self._window(frames.EARLIEST, None) is not None

    def at(self, moment: int) -> sa.Select[Any]:
        """The select of a window of hardly more than one moment: what its plan scans, an index on
        the time would spare."""
        select = sa.select(*self._columns(self._roles()))
        if not self.in_order_of_time:
            return select
        column, day = self.table.c[self.mapping.time], timedelta(days=1)
        return select.where(
            column >= self._bound(moment, NONE), column < self._bound(moment + MICROSECONDS, day)
        )

    def _roles(self, label: str | None = None, without: Collection[str] = ()) -> Roles:
        """(column, how it is read) of each mapped column that a frame of rows needs.

        A column of labels other than the mapped one has no time of its own.
        """
        mapped = self.mapping
        left_out = (*OF_LABELS, "arrived_at", *without)
        roles = [(name, key) for key, name in mapped.columns() if key not in left_out]
        if not label:
            return roles
        timed = mapped.label_time if mapped.label in (label, None) else None
        kind = None if "label_kind" in without else mapped.label_kind
        found = zip((label, timed, kind), OF_LABELS, strict=True)
        return [*roles, *((name, role) for name, role in found if name)]

    def _selected(self, clause: Any, roles: Roles) -> pa.Table:
        """The mapped columns of the rows of the clause.

        SQLite keeps any value in any column, so each cell is read with its state. That takes twice
        as long, so at first the columns are read as they are: where the types of Arrow's columns
        are the mapped ones, they prove that no cell is of another type.
        """
        if self._plain:
            plain = sa.select(*self._columns(roles, plain=True)).where(clause)
            table = self._reader.read_uniform(plain)
            if table is not None and self._as_mapped(table, roles):
                return table
            self._plain = False
        return self._reader.read(sa.select(*self._columns(roles)).where(clause))

    def _as_mapped(self, table: pa.Table, roles: Roles) -> bool:
        """Whether the types of plainly read columns are those of their roles."""
        kinds = {name: self._number_kind(name, role) for name, role in roles}
        types = {"integer": ("int64",), "number": ("int64", "double"), "": ("string",)}
        return not len(table) or all(
            str(table.schema.field(name).type) in types[kind] for name, kind in kinds.items()
        )

    def _columns(self, roles: Roles, *, plain: bool = False) -> list[Any]:
        seen: dict[str, Any] = {}
        for name, role in roles:
            for item in self._cell(name, role, plain=plain):
                seen[item.name] = item
        return list(seen.values())

    def _number_kind(self, name: str, role: str, owner: str | None = None) -> str:
        """How a column is read: as "integer", as "number", or as what it is ("")."""
        kind = self.types[f"{owner or self.mapping.table}.{name}"]
        if role in NUMBERS or kind == "epoch":
            return "number"
        return "integer" if role in KEYS and kind == "integer" else ""

    def _cell(
        self, name: str, role: str, table: sa.Table | None = None, *, plain: bool = False
    ) -> list[Any]:
        """The expressions that read a column: its value, on SQLite its state beside it."""
        column = (self.table if table is None else table).c[name]
        owner = (self.mapping if table is None else self.settings.customers).table  # type: ignore[union-attr]
        kind, read_as = self.types[f"{owner}.{name}"], self._number_kind(name, role, owner)
        as_number, as_integer = read_as == "number", read_as == "integer"
        if plain:
            return [plain_cell(column, read_as).label(name)]
        if self.url.get_backend_name() == "sqlite":
            return sqlite_cell(column, name, number=as_number, integer=as_integer)
        if as_number:
            inner = sa.cast(column, sa.Integer) if kind == "boolean" else column
            return [sa.cast(inner, sa.Double).label(name)]
        if as_integer:
            return [sa.cast(column, sa.BigInteger).label(name)]
        if role in ("time", *MOMENTS) and kind != "text":
            return [column.label(name)]
        return [sa.cast(column, sa.Text).label(name)]

    @property
    def _sorted_text(self) -> bool:
        return is_iso(self.mapping.time_format)

    def _window(self, since: int, until: int | None, role: str = "time") -> Any:
        """A clause that keeps at least the rows of the window; None where none can be said.

        role: "time", or "arrived_at", whose text is ISO.
        """
        name = str(getattr(self.mapping, role))
        column, kind = self.table.c[name], self.type_of(name)
        if role == "time" and kind == "text" and not self._sorted_text:
            return None
        clause = column >= self._bound(since, -WIDE, kind)
        if until is None:
            return clause
        return sa.and_(clause, column < self._bound(until, WIDE, kind))

    def _unreadable(self) -> Any:
        """A clause that keeps at least the times which no reader can read as a moment."""
        column, kind = self.table.c[self.mapping.time], self.type_of(self.mapping.time)
        if kind == "epoch" and self.url.get_backend_name() == "sqlite":
            return sa.func.typeof(column).not_in(("integer", "real"))
        if kind != "text":
            return sa.false()
        if not self._sorted_text:
            return sa.true()
        text = sa.cast(column, sa.Text)
        seldom = sa.func.substr(text, 6, 5).in_(SELDOM_DAYS)
        return sa.or_(seldom, unlike_iso(text, self.engine.dialect))

    def _bound(self, value: int, slack: timedelta, kind: str | None = None) -> Any:
        """A moment as the time column compares: exact for epochs and zones, else with slack."""
        kind = kind or self.type_of(self.mapping.time)
        if kind == "epoch":
            # A fraction rounds to a microsecond, perhaps over the edge: a second is enough.
            return sa.literal(value / MICROSECONDS + (1 if slack > NONE else -1), sa.Double)
        when = frames.moment(min(max(value, frames.EARLIEST), LATEST))
        if kind == "timestamptz":
            return sa.literal(when, sa.DateTime(timezone=True))
        plain = (when + slack).replace(tzinfo=None)
        if kind == "timestamp":
            return sa.literal(plain, sa.DateTime())
        if kind == "date":
            return sa.literal(plain.date(), sa.Date())
        return sa.literal(plain.strftime("%Y-%m-%d"), sa.Text())

    # --- cells and the gate -------------------------------------------------------------------

    def _cells(self, table: pa.Table, name: str, role: str, owner: str | None = None) -> Cells:
        kind = self.types[f"{owner or self.mapping.table}.{name}"]
        if role == "time":
            return read_times(table, name, kind, self.mapping.time_format, self.settings.timezone)
        if role in history.PERIOD:
            found = self._moments(table, name, kind)
            infinite = (found.state == WRONG) & (kind not in ("text", "epoch"))  # PostgreSQL's
            return replace(found, state=np.where(infinite, NULL, found.state).astype("int8"))
        if role in MOMENTS:
            return self._moments(table, name, kind)
        if role in NUMBERS:
            return read_numbers(table, name)
        if role in KEYS and kind == "integer":
            return read_integers(table, name)
        return read_texts(table, name)

    def _moments(self, table: pa.Table, name: str, kind: str) -> Cells:
        """When a label was known or a row began: text is ISO, or as `time_format`. Most cells of
        labels are empty."""
        zone, form = self.settings.timezone, self.mapping.time_format
        if kind != "text":
            return read_times(table, name, kind, None, zone)
        there = np.flatnonzero(read_texts(table, name).state == OK)
        values = np.zeros(len(table), "int64")
        state = np.full(len(table), NULL, "int8")
        for read_as in dict.fromkeys((None, None if is_iso(form) else form)):
            found = read_times(table.select([name]).take(there), name, kind, read_as, zone)
            values[there], state[there] = found.values, found.state
            there = there[found.state == WRONG]
        return Cells(name, values, state)

    def _gated(
        self, table: pa.Table, window: tuple[int, int] | None, clock: int, roles: Roles
    ) -> Batch:
        """Valid rows of the window and refusals of the others."""
        times = self._cells(table, self.mapping.time, "time")
        if window is not None:
            keep = (times.values >= window[0]) & (times.values < window[1])
            keep &= ~any_of(frames.time_codes(times, clock))  # those are in `undated`
            if not keep.all():
                table, times = table.filter(arrow_mask(keep)), times.where(keep)
        cells = {
            name: times if role == "time" else self._cells(table, name, role)
            for name, role in roles
        }
        codes = self._codes(cells, roles, clock)
        refused = self._refusals(cells, codes, clock)
        rows = self._frame(cells, roles)
        if codes:
            rows = rows[~any_of({key: mask for key, (mask, _column) in codes.items()})]
        return Batch(in_order(rows), refused, len(times.values))

    def _codes(
        self, cells: Mapping[str, Cells], roles: Roles, clock: int
    ) -> dict[tuple[str, str], tuple[np.ndarray, str]]:
        """(code, column) to the mask of the rows that it refuses."""
        found: dict[tuple[str, str], tuple[np.ndarray, str]] = {}

        def add(codes: Mapping[str, np.ndarray], column: str) -> None:
            found.update({(c, column): (m, column) for c, m in codes.items() if m.any()})

        for name, role in roles:
            if role in CODES_OF:
                add(frames.key_codes(CODES_OF[role], cells[name]), name)
            elif role == "time":
                add(frames.time_codes(cells[name], clock), name)
            elif role == "amount":
                add(frames.amount_codes(cells[name]), name)
            elif role == "numbers":
                add(frames.number_codes(cells[name]), name)
        repeated = self.duplicates()
        if len(repeated):
            ids = cells[self.mapping.id]
            add(
                {"id_duplicate": (ids.state == OK) & np.isin(ids.values, repeated.index)},
                ids.column,
            )
        return found

    def _refusals(
        self,
        cells: Mapping[str, Cells],
        codes: Mapping[tuple[str, str], tuple[np.ndarray, str]],
        clock: int,
    ) -> pd.DataFrame:
        if not codes:
            return frames.no_refusals()
        ids, times = cells[self.mapping.id], cells[self.mapping.time]
        keys = pd.Series(np.asarray(ids.values, dtype=object)).where(ids.state == OK)
        keys = keys.mask(ids.state == WRONG, "(wrong type)")
        undated = any_of(frames.time_codes(times, clock))
        days = pd.Series(
            frames.local_days(np.where(undated, 0, times.values), self.settings.timezone)
        )
        days = days.dt.date.where(~undated).to_numpy(dtype=object)
        return frames.gather(
            frames.refuse(keys, days, mask, code, column, cells[column].shown(np.flatnonzero(mask)))
            for (code, column), (mask, _) in codes.items()
        )

    def _frame(self, cells: Mapping[str, Cells], roles: Roles) -> pd.DataFrame:
        """The frame of rows that the domains know; what is not mapped has no column."""
        columns = {_named(name, role): _column(cells[name], role) for name, role in roles}
        if "amount" not in columns:
            columns.pop("currency", None)
            return pd.DataFrame(columns)
        return pd.DataFrame(columns | {"currency": columns.get("currency", "")}).astype(
            {"currency": "str"}
        )


def _named(name: str, role: str) -> str:
    """The name of a mapped column in a frame of rows."""
    ours = NAMES.get(role, role)
    return f"{ours}{name}" if ours.endswith(".") else ours


def _column(cells: Cells, role: str) -> Any:
    """The cells as a column of a frame of rows; what cannot be used is missing."""
    if role in ("id", "time", "amount"):  # the gate lets no other cell through
        return cells.values
    if role in NUMBERS:
        return as_series(cells, "numbers")
    return as_series(cells, "id" if role in (*KEYS, "label_time") else "text")


# --- reflection helpers -----------------------------------------------------------------------


def reflected(connection: Connection, name: str, where: str, faults: list[str]) -> sa.Table:
    """The table or view of that name ("schema.table"), or a fault with the nearest known."""
    inspector = sa.inspect(connection)
    schema, plain, known = "", name, _relations(inspector, None)
    if name not in known and "." in name:
        schema, _, plain = name.rpartition(".")
        known = _relations(inspector, schema)
    if plain not in known:
        near = difflib.get_close_matches(plain, known, n=1, cutoff=0.4)
        hint = (
            f"; did you mean {near[0]}?" if near else f"; found: {', '.join(sorted(known)[:12])}."
        )
        faults.append(f"{where} table {name} does not exist{hint}")
        return sa.Table(plain, sa.MetaData())
    import warnings

    with warnings.catch_warnings():
        # A type that SQLAlchemy does not know is looked at by its values instead.
        warnings.simplefilter("ignore", exc.SAWarning)
        return sa.Table(
            plain, sa.MetaData(), schema=schema or None, autoload_with=connection, resolve_fks=False
        )


def _relations(inspector: sa.Inspector, schema: str | None) -> list[str]:
    """The tables and views of a schema; none where there is no such schema."""
    try:
        views = inspector.get_view_names(schema)
        if inspector.dialect.name == "postgresql":
            views = views + inspector.get_materialized_view_names(schema)
        return inspector.get_table_names(schema) + views
    except exc.OperationalError:
        if schema is None:  # the fault is not the schema's
            raise
        return []


def _types(
    connection: Connection,
    table: sa.Table,
    mapping: Transactions | Customers,
    where: str,
    faults: list[str],
) -> dict[str, str]:
    """What each mapped column holds; a fault for each that is not there."""
    found: dict[str, str] = {}
    for key, name in mapping.columns():
        if name in table.c:
            found[name] = category(connection, table.c[name], time=key in ("time", *MOMENTS))
        elif len(table.c):
            near = difflib.get_close_matches(name, list(table.c.keys()), n=1, cutoff=0.5)
            hint = (
                f"; did you mean {near[0]}?" if near else f"; it has {', '.join(table.c.keys())}."
            )
            faults.append(f"{where} {key}: {mapping.table} has no column {name}{hint}")
    return found


def category(connection: Connection, column: sa.Column[Any], *, time: bool = False) -> str:
    """What a column holds: integer, number, text, uuid, boolean, date, timestamp(tz), epoch, other.

    SQLite keeps any value in any column, so a time, and a column of no known type, is judged by
    its first thousand values; an empty column of dates is to hold text, as most do.
    """
    kind = _declared(column)
    sqlite = connection.dialect.name == "sqlite"
    if sqlite and (time or kind == "other" or kind in ("date", "timestamp")):
        kind = _stored(connection, column) or kind
    return "epoch" if time and kind in ("integer", "number") else kind


def _same_kind(before: str, now: str) -> bool:
    """SQLite tells a whole number from a fraction by the values that happen to stand first; as a
    label's time, a number is an epoch."""
    return before == now or {before, now} <= {"integer", "number", "epoch"}


def _declared(column: sa.Column[Any]) -> str:
    kinds = (
        (sa.Uuid, "uuid"),
        (sa.Boolean, "boolean"),
        (sa.Integer, "integer"),
        (sa.DateTime, "timestamp"),
        (sa.Date, "date"),
        (sa.Numeric, "number"),
        (sa.Float, "number"),  # no kind of Numeric since SQLAlchemy 2.1
        (sa.String, "text"),
    )
    for kind, name in kinds:
        if isinstance(column.type, kind):
            zone = name == "timestamp" and getattr(column.type, "timezone", False)
            return "timestamptz" if zone else name
    return "text" if type(column.type).__name__ in ("CITEXT", "ENUM") else "other"


def _stored(connection: Connection, column: sa.Column[Any]) -> str | None:
    """What the first thousand values of an SQLite column are; None where there are none."""
    sample = sa.select(column.label("v")).where(column.is_not(None)).limit(1000).subquery()
    counts = sa.select(sa.func.typeof(sample.c.v), sa.func.count()).group_by(sa.text("1"))
    found = {str(kind): int(count) for kind, count in connection.execute(counts)}
    if not found:
        return "text" if _declared(column) in ("date", "timestamp") else None
    if found.get("text", 0) + found.get("blob", 0) > sum(found.values()) / 2:
        return "text"
    return "number" if "real" in found else "integer"


def _key_kind(kind: str, where: str, column: str, faults: list[str]) -> str:
    if kind in ("integer", "text", "uuid"):
        return kind
    faults.append(
        f"{where}: column {column} is {kind}; a key should be a whole number, text or a UUID. "
        f"Map a view that casts it: CAST({column} AS TEXT)."
    )
    return "text"


def key_mismatch(customers: tuple[str, str, str], transactions: tuple[str, str, str]) -> str:
    """The fault of a customer key that differs in kind, and the view that would mend it.

    Both are (table, column, kind).
    """
    table, column, kind = customers
    return (
        f"[source.customers] id {table}.{column} is {kind}, but "
        f"{transactions[0]}.{transactions[1]} is {transactions[2]}. "
        'Map a view that casts one of them, with its id = "customer_key": CREATE VIEW '
        f"customers_peerwatch AS SELECT CAST({quoted(column)} AS {_sql_type(transactions[2])}) AS "
        f"customer_key, c.* FROM {quoted_table(table)} c"
    )


def quoted(name: str) -> str:
    """A name as it stands in a statement that a person is to run."""
    doubled = name.replace('"', '""')
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else f'"{doubled}"'


def quoted_table(table: str) -> str:
    """The same of a table, with its schema where it has one."""
    return ".".join(quoted(part) for part in table.split("."))


def _sql_type(kind: str) -> str:
    return {"integer": "BIGINT", "uuid": "UUID"}.get(kind, "TEXT")


def _is_unique(connection: Connection, table: sa.Table, column: str) -> bool:
    """Whether a constraint of the database says that the column holds each value once."""
    if [key.name for key in table.primary_key] == [column]:
        return True
    inspector = sa.inspect(connection)
    try:
        constraints = inspector.get_unique_constraints(table.name, table.schema)
        indexes = inspector.get_indexes(table.name, table.schema)
    except (exc.NoSuchTableError, NotImplementedError):
        return False  # a view has no constraints
    unique = [list(item["column_names"]) for item in constraints]
    unique += [
        [str(name) for name in item["column_names"]]
        for item in indexes
        if item["unique"]
        and item.get("dialect_options", {}).get("postgresql_where") is None
        and item.get("dialect_options", {}).get("sqlite_where") is None
    ]
    return [column] in unique


def _prefix(key: str, name: str) -> str:
    """The name of a customers' column in our frames."""
    prefixes = {"numbers": "number.", "categories": "category.", "descriptors": "descriptor."}
    return "customer_id" if key == "id" else f"{prefixes[key]}{name}"
