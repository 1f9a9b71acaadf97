"""Engines, transactions, columnar reads and bulk writes: every difference between dialects.

Results are written over SQLAlchemy, one transaction per unit of work. The user's tables are read
columnar: through ADBC for SQLite and PostgreSQL, through SQLAlchemy for any other database, with
one result type (a pyarrow table).
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event, exc
from sqlalchemy.engine import URL, Connection, Engine, make_url

from shared.errors import ConfigurationError, PeerwatchError, TemporaryError
from shared.tables import MOMENT_FORMAT, Moment

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

STREAMED_ROWS = 65_536  # in memory at once where a whole table is read
SQLITE_BATCH = "adbc.sqlite.query.batch_rows"
BUSY_SECONDS = 30  # how long a writer waits for another before it gives up
# Of sessions on our tables: a writer that is paused within a transaction lets others pass.
WRITING = {
    "lock_timeout": f"{BUSY_SECONDS}s",
    "idle_in_transaction_session_timeout": "120s",
}
READ_PAUSES = (0.2, 1, 3, 9, 15)  # seconds before a lost read is made again: a server's restart
COUNTED = {"preserve_rowcount": True}  # PostgreSQL's count is kept only where it is asked for
READ_ONLY = "default_transaction_read_only"
NAME_BYTES = 63  # of a session's name on PostgreSQL
NO_OPTIONS = "unsupported startup parameter"  # what pgbouncer says, in no other language
CHECK_PATH = "Check the path in [source] url; a relative path starts where the command runs."
SECRETS = ("pass", "secret", "token", "key")  # in names of a URL's further settings
# What SQLite says of a file that another time may be free, there, or have room.
TRANSIENT_NAMES = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_CANTOPEN", "SQLITE_FULL")
TRANSIENT_STATES = {
    *("40001", "40P01", "55P03"),  # serialisation, deadlock, lock time-out
    *("57P01", "57P02", "57P03"),  # ended by an administrator, crash, starting up
    *("08000", "08001", "08003", "08006"),  # the connection
    *("57014", "25P03"),  # a statement, or a session within a transaction, that took too long
}
# The session is gone, or the server undid the read itself (a standby's recovery, a deadlock).
LOST_STATES = TRANSIENT_STATES - {"55P03", "57014", "25P03"}


@dataclass(frozen=True)
class Limits:
    """What a session on the user's tables may take before the server itself ends it; seconds."""

    statement: int  # the age of a snapshot, which keeps the server from tidying up behind it
    lock: int = 5  # a waiting reader lets nobody past who waits for the same table
    idle: int = 60  # within a transaction

    @property
    def options(self) -> dict[str, str]:
        """PostgreSQL's settings of the session."""
        return {
            READ_ONLY: "on",
            "statement_timeout": f"{self.statement}s",
            "lock_timeout": f"{self.lock}s",
            "idle_in_transaction_session_timeout": f"{self.idle}s",
        }

    def met(self, state: str | None) -> str:
        """Which limit the server's refusal was, and what to do; nothing where it was none."""
        return {
            "57014": f"the limit of {self.statement} s for one statement (statement_timeout) was "
            "met, or somebody ended it. An index may be missing: peerwatch doctor prints it. Else "
            "read less at once: a shorter window, or a view of fewer rows and columns",
            "55P03": f"another session held a lock on the table for more than {self.lock} s "
            "(lock_timeout). Try again when it is done",
            "25P03": f"the session was idle within a transaction for more than {self.idle} s "
            "(idle_in_transaction_session_timeout). Try again",
        }.get(state or "", "")


SCORING, FITTING = Limits(60), Limits(300)


def limits_of(job: str) -> Limits:
    """Scoring runs every few minutes and reads by slices; a fit or a report reads more at once."""
    return SCORING if job.endswith(".score") or job.startswith("backfill.") else FITTING


def parse_url(url: str) -> URL:
    """The SQLAlchemy URL; a fault names what was found without showing a secret."""
    try:
        parsed = make_url(url)
        if parsed.drivername != "postgresql":  # which is given our driver below
            parsed.get_dialect().import_dbapi()
    except (exc.ArgumentError, exc.NoSuchModuleError, ImportError, ValueError):
        scheme = url.split("://", 1)[0] if "://" in url else "no scheme"
        raise ConfigurationError(
            f"The database URL cannot be used (found {scheme}). Expected sqlite:///file.db, "
            "postgresql+psycopg://user@host/name, or another SQLAlchemy URL whose driver is "
            "installed."
        ) from None  # the cause may quote the password
    if parsed.get_backend_name() == "postgresql" and parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigurationError(
            "The database URL names an SQLite database in memory, which ends with the command. "
            "Name a file: sqlite:///file.db"
        )
    return parsed


def require_file(url: URL, remedy: str = CHECK_PATH) -> None:
    """A SQLite database must exist: opening it would otherwise make an empty one."""
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).is_file():
        raise ConfigurationError(f"There is no SQLite database {url.database}. {remedy}")


def engine(
    url: URL, *, read_only: bool = False, name: str = "peerwatch", limits: Limits = FITTING
) -> Engine:
    """An engine that holds no idle connection; read-only, and within limits, by the server's own
    means."""
    if url.get_backend_name() == "sqlite":
        return _sqlite_engine(url, read_only)
    arguments: dict[str, Any] = {}
    if url.get_backend_name() == "postgresql":
        arguments = {"application_name": session_name(name), "connect_timeout": 10}
        arguments["options"] = _options(url, limits.options if read_only else WRITING)
    return sa.create_engine(
        url, poolclass=sa.NullPool, hide_parameters=True, connect_args=arguments
    )


def _options(url: URL, settings: Mapping[str, str]) -> str:
    """The URL's own session options, such as a search path, and ours."""
    own = url.query.get("options", ())
    ours = [f"-c {name}={value}" for name, value in settings.items()]
    return " ".join([*([own] if isinstance(own, str) else own), *ours])


def session_name(name: str) -> str:
    """`peerwatch/<job>/<run>` as the server can show it: of a long name the job is cut, not the
    run, whose id need not repeat the job that it begins with.

    >>> session_name("peerwatch/fraudwatch.score/fraudwatch.score-20260301T120000-a1b2c3")
    'peerwatch/fraudwatch.score/20260301T120000-a1b2c3'
    """
    parts = name.split("/", 2)
    if len(parts) == 3:
        ours, job, run = parts[0], parts[1], parts[2].removeprefix(f"{parts[1]}-")
        room = NAME_BYTES - len(f"{ours}//{run}".encode())
        name = "/".join((ours, _cut(job, max(room, 0)), run))
    return _cut(name, NAME_BYTES)


def _cut(text: str, size: int) -> str:
    return text.encode()[:size].decode(errors="ignore")


def _sqlite_engine(url: URL, read_only: bool) -> Engine:
    made = sa.create_engine(
        url,
        poolclass=sa.NullPool,
        hide_parameters=True,
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
    )

    @event.listens_for(made, "connect")
    def _connected(connection: Any, _record: Any) -> None:
        if read_only:
            connection.execute("PRAGMA query_only = ON")

    @event.listens_for(made, "begin")
    def _begin(connection: Connection) -> None:
        # The driver's own deferred BEGIN lets two writers read the same watermark.
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return made


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """One transaction, rolled back unless the block reaches its end; faults in our own words."""
    with translated(engine.url), engine.begin() as connection:
        yield connection


def lock(connection: Connection, name: str) -> None:
    """Makes those who take the same name wait for each other until the transaction ends.

    SQLite's BEGIN IMMEDIATE has done so already; PostgreSQL takes an advisory lock.
    """
    with translated(connection.engine.url):
        for statement in locking(connection.dialect, name):
            connection.execute(statement)


def locking(dialect: sa.Dialect, name: str) -> Iterator[sa.Executable]:
    """The statement of `lock`, where it needs one."""
    if dialect.name == "postgresql":
        yield sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtext(f"peerwatch/{name}")))


@contextmanager
def translated(url: URL, limits: Limits | None = None) -> Iterator[None]:
    """Turns the driver's errors into ours; the cause is kept, values are not.

    limits: those of the session, so that the one that was met can be named.
    """
    try:
        yield
    except exc.DBAPIError as error:
        raise _translate(error, url, limits) from error


def _translate(error: exc.DBAPIError, url: URL, limits: Limits | None) -> PeerwatchError:
    what = _said(error.orig, url)
    state = getattr(error.orig, "sqlstate", None)
    met = limits.met(state) if limits else ""
    if met:
        return _ended(url, met)
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    if NO_OPTIONS in what:
        return _without_options(url)
    if state in TRANSIENT_STATES or error.connection_invalidated or name.startswith("SQLITE_BUSY"):
        return TemporaryError(f"The database {shown(url)} was busy or closed the session: {what}")
    lost = name.startswith(TRANSIENT_NAMES) or (state is None and not name)
    if isinstance(error, exc.OperationalError) and lost:
        return TemporaryError(
            f"The database {shown(url)} could not be reached: {what}. "
            "Check that it runs, and the URL, the rights and the disk."
        )
    if name in REMEDIES:
        return ConfigurationError(f"{shown(url)}: {what}. {REMEDIES[name]}")
    return PeerwatchError(f"The database {shown(url)} refused a statement: {what}")


REMEDIES = {  # of SQLite's errors
    "SQLITE_READONLY": "Give this user the right to write the file and its folder, or set "
    "[results] url to another database.",
    "SQLITE_NOTADB": "Name a database of SQLite, or the URL of another database.",
}


def _ended(url: URL, met: str) -> TemporaryError:
    return TemporaryError(f"The database {shown(url)} ended a read: {met}.")


def _without_options(url: URL) -> ConfigurationError:
    return ConfigurationError(
        f"{shown(url)} leads to a pooler that takes no options of a session, by which peerwatch's "
        "are limited, and read-only on your tables. Name the server itself."
    )


def shown(url: URL) -> str:
    """The URL without its secrets."""
    hidden = dict.fromkeys(_secrets(url), "***")
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def _secrets(url: URL) -> dict[str, str]:
    """The settings behind the question mark that may be secrets."""
    return {
        name: str(value)
        for name, value in url.query.items()
        if any(word in name.lower() for word in SECRETS)
    }


def _said(error: BaseException | None, url: URL) -> str:
    """The first line of what the driver said, without secrets and without a row's values."""
    lines = str(error).strip().splitlines()
    what = lines[0] if lines else type(error).__name__
    for secret in filter(None, (url.password, *_secrets(url).values())):
        what = what.replace(str(secret), "***")
    if str(getattr(error, "sqlstate", None)).startswith("22"):  # a value that does not fit
        what = re.sub(r'".*"', '"…"', what)
    return what


# --- reading ----------------------------------------------------------------------------------


class Reader:
    """Columnar reads from the user's database; never writes, holds no transaction open.

    Each read is a transaction of its own: it sees the table as of one moment, and its snapshot is
    no older than `limits` let one statement be. Where the server has ended the session, `read` is
    made again in another; `stream` is not, as some of its rows are used by then.
    """

    def __init__(self, url: URL, name: str = "peerwatch", limits: Limits = FITTING) -> None:
        self.url = url
        self.dialect = url.get_dialect()()
        self.limits = limits
        self.turn: AbstractContextManager[Any] = nullcontext()  # within which to have a session
        self._name = name
        self._columnar = url.get_backend_name() in ("sqlite", "postgresql")
        self._connection: Any = None

    def __enter__(self) -> Reader:
        require_file(self.url)
        self._connect()
        return self

    def _connect(self) -> None:
        try:
            self._open()
        except Exception as error:
            raise self._failure(error) from error

    def _open(self) -> None:
        backend = self.url.get_backend_name()
        if backend == "sqlite":
            import adbc_driver_sqlite.dbapi as adbc

            path = Path(str(self.url.database)).resolve().as_uri()
            self._connection = adbc.connect(f"{path}?mode=ro")
            with self._connection.cursor() as cursor:  # a writer's commit is waited for
                cursor.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
            self._connection.rollback()
        elif backend == "postgresql":
            import adbc_driver_postgresql.dbapi as adbc

            # Else the driver begins a transaction when it connects, and one after each.
            given = _libpq(self.url, self._name, self.limits)
            made = adbc.connect(given, autocommit=True)
            self.__exit__()  # the session that was lost
            self._connection = made

    def __exit__(self, *_exception: object) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def read(self, select: sa.Select[Any]) -> pa.Table:
        """All rows of the select as one pyarrow table, columns named as selected."""
        if not self._columnar:
            return self._read_any(select)
        pauses = iter(READ_PAUSES)
        while True:
            try:
                return self._read(select)
            except Exception as error:
                pause = next(pauses, None) if self._is_lost(error) else None
                if pause is None:
                    raise self._failure(error) from error
            time.sleep(pause)
            with suppress(TemporaryError):  # then the next try fails as well, and waits longer
                self._connect()

    def _read(self, select: sa.Select[Any]) -> pa.Table:
        with self._cursor() as cursor:
            cursor.execute(*self._compiled(select))
            return cursor.fetch_arrow_table()

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        """A read lock kept between batches would keep a SQLite writer from its commit."""
        try:
            with self._connection.cursor() as cursor:
                yield cursor
        finally:
            if self.url.get_backend_name() == "sqlite":
                self._connection.rollback()

    def _is_lost(self, error: Exception) -> bool:
        """Whether the server has ended the session, or undone the read for another's sake."""
        state = getattr(error, "sqlstate", None)
        if self.url.get_backend_name() != "postgresql":
            return False
        ended = state is None and type(error).__name__ == "OperationalError"
        return ended or state in LOST_STATES

    def _failure(self, error: Exception) -> PeerwatchError:
        what, state = _said(error, self.url), getattr(error, "sqlstate", None)
        lost = state is None and type(error).__name__ == "OperationalError"
        met = self.limits.met(state)
        if met:
            return _ended(self.url, met)
        if NO_OPTIONS in what:
            return _without_options(self.url)
        if state in TRANSIENT_STATES or (lost and "readonly" not in what):
            return TemporaryError(f"The database {shown(self.url)} could not be read: {what}")
        return PeerwatchError(f"The database {shown(self.url)} refused a read: {what}")

    def stream(self, select: sa.Select[Any]) -> Iterator[pa.Table]:
        """The rows of the select in tables of bounded size, for what is larger than memory."""
        import pyarrow as pa
        from adbc_driver_manager._reader import AdbcRecordBatchReader

        if not self._columnar:
            yield from self._stream_any(select)
            return
        try:
            with self._cursor() as cursor:
                if self.url.get_backend_name() == "sqlite":
                    cursor.adbc_statement.set_options(**{SQLITE_BATCH: str(STREAMED_ROWS)})
                cursor.execute(*self._compiled(select))
                # The cursor's own reader of batches forgets the server's state of an error.
                handle = cursor.fetch_arrow()
                for batch in AdbcRecordBatchReader._import_from_c(handle.address):
                    yield pa.Table.from_batches([batch])
        except Exception as error:
            raise self._failure(error) from error

    def _compiled(self, select: sa.Select[Any]) -> tuple[str, list[Any] | None]:
        """The statement and its bound values, in the driver's own marks."""
        marked = _marked(self.dialect)
        compiled = select.compile(dialect=marked, compile_kwargs={"render_postcompile": True})
        return str(compiled), [compiled.params[name] for name in compiled.positiontup or []] or None

    def read_uniform(self, select: sa.Select[Any]) -> pa.Table | None:
        """As `read`; None where SQLite holds cells of several types in one column."""
        try:
            return self.read(select)
        except PeerwatchError as error:
            if "Type mismatch in column" in str(error.__cause__):
                return None
            raise

    def _read_any(self, select: sa.Select[Any]) -> pa.Table:
        import pyarrow as pa

        names = [column.name for column in select.selected_columns]
        batches = list(self._stream_any(select))
        if not batches:
            return pa.table({name: pa.array([], pa.null()) for name in names})
        return pa.concat_tables(batches, promote_options="permissive")

    def _stream_any(self, select: sa.Select[Any]) -> Iterator[pa.Table]:
        import pyarrow as pa

        names = [column.name for column in select.selected_columns]
        made = engine(self.url, read_only=True, name=self._name, limits=self.limits)
        with translated(self.url, self.limits), made.connect() as connection:
            result = connection.execution_options(stream_results=True).execute(select)
            for part in result.partitions(STREAMED_ROWS):
                yield pa.table(dict(zip(names, zip(*part, strict=True), strict=True)))


class TurnReader(Reader):
    """A reader that has a session only while it reads, in its turn with others of its run."""

    def __init__(
        self, url: URL, name: str, limits: Limits, *, turn: AbstractContextManager[Any]
    ) -> None:
        super().__init__(url, name, limits)
        self.turn = turn

    def _connect(self) -> None:
        return  # each read does

    @contextmanager
    def _cursor(self) -> Iterator[Any]:
        with self.turn, self:
            self._open()
            with super()._cursor() as cursor:
                yield cursor


def _marked(dialect: sa.Dialect) -> Any:
    """The dialect with ADBC's marks of bound values; of no other a percent sign is doubled."""
    style = "numeric_dollar" if dialect.name == "postgresql" else "qmark"
    return type(dialect)(paramstyle=style)  # type: ignore[call-arg]


def literal(select: sa.Select[Any], dialect: sa.Dialect) -> str:
    """The statement as text, its values quoted as the dialect does."""
    marked, bound = _marked(dialect), {"literal_binds": True, "render_postcompile": True}
    return str(select.compile(dialect=marked, compile_kwargs=bound))


def _libpq(url: URL, name: str, limits: Limits) -> str:
    """The URL as libpq reads it, read-only, within limits and named.

    Not as a URL: SQLAlchemy leaves blanks and plus signs of names and passwords as they are.
    """
    from psycopg.conninfo import make_conninfo

    plain = url.update_query_dict(
        {
            "options": _options(url, limits.options),
            "application_name": session_name(name),
            "connect_timeout": "10",
        }
    )
    dialect = plain.set(drivername="postgresql+psycopg").get_dialect()()
    return make_conninfo(**dialect.create_connect_args(plain)[1])


# --- writing ----------------------------------------------------------------------------------


def insert_new(connection: Connection, table: sa.Table, frame: pd.DataFrame) -> int:
    """Inserts rows whose key is not there yet; returns how many were new.

    One set-based statement from a staged table; unique constraints alone decide what is new.
    """
    return _merge(connection, table, frame, update=())


def insert_row(connection: Connection, table: sa.Table, row: Mapping[str, Any]) -> bool:
    """Inserts one row unless a unique constraint has it already; whether it did."""
    statement = insert_into(connection, table).values(**row).on_conflict_do_nothing()
    return connection.execute(statement, execution_options=COUNTED).rowcount == 1


def upsert(connection: Connection, table: sa.Table, frame: pd.DataFrame) -> int:
    """Inserts rows, or renews the other columns of rows whose primary key is there."""
    keys = {column.name for column in table.primary_key}
    return _merge(connection, table, frame, [name for name in frame.columns if name not in keys])


def _merge(
    connection: Connection, table: sa.Table, frame: pd.DataFrame, update: Sequence[str]
) -> int:
    if frame.empty:
        return 0
    columns = [table.c[name] for name in frame.columns]
    with staged(connection, columns, frame) as stage:
        names = [column.name for column in columns]
        # SQLite reads `FROM stage ON CONFLICT` as a join unless a WHERE stands between.
        source = sa.select(*(stage.c[name] for name in names)).where(sa.true())
        statement = insert_into(connection, table).from_select(names, source)
        if update:
            statement = statement.on_conflict_do_update(
                index_elements=list(table.primary_key),
                set_={name: statement.excluded[name] for name in update},
            )
        else:
            statement = statement.on_conflict_do_nothing()
        return connection.execute(statement, execution_options=COUNTED).rowcount


def insert_into(connection: Connection, table: sa.Table) -> Any:
    """An INSERT that knows ON CONFLICT, in the connection's dialect."""
    from sqlalchemy.dialects import postgresql, sqlite

    dialect = {"sqlite": sqlite, "postgresql": postgresql}[connection.dialect.name]
    return dialect.insert(table)


@contextmanager
def staged(
    connection: Connection, columns: Sequence[sa.Column[Any]], frame: pd.DataFrame
) -> Iterator[sa.Table]:
    """A temporary table that holds the frame's rows, gone when the block ends."""
    stage = sa.Table(
        f"stage_{time.monotonic_ns()}",
        sa.MetaData(),
        *(sa.Column(column.name, column.type) for column in columns),
        prefixes=["TEMPORARY"],
    )
    stage.create(connection)
    try:
        _load(connection, stage, frame)
        yield stage
    finally:
        if not connection.invalidated and connection.in_transaction():
            _drop(connection, stage)


def _drop(connection: Connection, stage: sa.Table) -> None:
    try:
        stage.drop(connection)
    except exc.DBAPIError:
        if connection.dialect.name == "sqlite":
            raise
        # The transaction has failed already: the server drops the table with the session.


def _load(connection: Connection, stage: sa.Table, frame: pd.DataFrame) -> None:
    dialect = connection.dialect.name
    values = [column_values(frame[column.name], column, dialect) for column in stage.columns]
    if dialect == "postgresql":
        _copy(connection, stage, values)
        return
    rows = list(zip(*values, strict=True))
    if not rows:  # the driver would take no rows for no values
        return
    marks = ", ".join("?" * len(values))
    name = connection.dialect.identifier_preparer.format_table(stage)
    connection.exec_driver_sql(f"INSERT INTO {name} VALUES ({marks})", rows)


def _copy(connection: Connection, stage: sa.Table, values: list[list[Any]]) -> None:
    name = connection.dialect.identifier_preparer.format_table(stage)
    driver: Any = connection.connection.driver_connection
    failure: Any = connection.dialect.loaded_dbapi.Error
    try:
        with driver.cursor() as cursor, cursor.copy(f"COPY {name} FROM STDIN") as copy:
            for row in zip(*values, strict=True):
                copy.write_row(row)
    except failure as error:  # the driver's own: SQLAlchemy has not seen it
        raise exc.DBAPIError.instance("COPY", None, error, failure) from error


def column_values(series: pd.Series, column: sa.Column[Any], dialect: str) -> list[Any]:
    """A column as the driver takes it: None for missing, moments from microseconds."""
    import numpy as np
    import pandas as pd

    if isinstance(column.type, Moment):
        return moments(series)
    missing = pd.isna(series).to_numpy()
    if isinstance(column.type, sa.Date):
        return [
            None if gone else str(value)[:10] for value, gone in zip(series, missing, strict=True)
        ]
    if isinstance(column.type, sa.Boolean):
        of = int if dialect == "sqlite" else bool
        return [None if gone else of(v) for v, gone in zip(series, missing, strict=True)]
    values = series.to_numpy(dtype=object, na_value=None) if missing.any() else series.to_numpy()
    if values.dtype != object:
        return list(values.tolist())
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def moments(series: pd.Series) -> list[Any]:
    """Microseconds since 1970 (missing allowed) or datetimes, as the column stores them."""
    import numpy as np
    import pandas as pd

    if series.dtype == object:
        series = series.convert_dtypes()
    if pd.api.types.is_numeric_dtype(series.dtype):
        missing = pd.isna(series).to_numpy()
        stamps = series.fillna(0).to_numpy(dtype="int64").astype("datetime64[us]")
        texts = np.char.add(np.datetime_as_string(stamps, unit="us"), "Z").tolist()
        return [None if gone else text for text, gone in zip(texts, missing, strict=True)]
    stamps = pd.to_datetime(series, utc=True)
    return [None if pd.isna(value) else value.strftime(MOMENT_FORMAT) for value in stamps]
