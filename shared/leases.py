"""One runner per job: a lease in the result tables, by the database's clock.

A lease saves work; it is not what keeps results right. That is its token: it grows at each change
of hands, and every writing transaction begins by renewing the lease under its own token (`fence`).
A runner that was paused, cut off or overtaken renews nothing and so writes nothing.

A lease ends with its runner. On PostgreSQL a session of its own holds an advisory lock for as long
as the runner lives, and renews the lease meanwhile; on SQLite, whose file is on the runner's own
machine, the process itself is looked for. Of a runner that is paused, or cut off, it expires.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection, Engine

from shared.database import lock, transaction, translated
from shared.errors import HeldError, OvertakenError, PeerwatchError
from shared.tables import MOMENT_FORMAT, Tables

# How long a lease holds without a sign of life, in seconds. On SQLite only writes renew it: a
# second connection of this process would lose its locks on the file.
EXPIRES = {"postgresql": 90, "sqlite": 1800}
RUNS, GONE = "runs", "gone"
BEAT = 30  # seconds between two signs of life on PostgreSQL


@dataclass(frozen=True)
class Lease:
    """The right to write a job's results, until another takes it."""

    tables: Tables
    job: str
    token: int

    def fence(self, connection: Connection) -> str:
        """Renews the lease in a writing transaction; the name of this unit of work.

        Raises OvertakenError where another runner has the job by now.
        """
        unit = secrets.token_hex(8)
        table = self.tables.job_leases
        renewed = connection.execute(
            sa.update(table)
            .where(self._mine())
            .values(unit=unit, expires_at=_from_now(connection, _expires(connection)))
        )
        if renewed.rowcount != 1:
            raise OvertakenError(
                f"{self.job} was taken over by another runner, because this one gave no sign of "
                "life. What was written stays, and the other goes on."
            )
        return unit

    def committed(self, connection: Connection, unit: str) -> bool:
        """Whether the last committed unit of work is this one."""
        select = sa.select(self.tables.job_leases.c.unit).where(self._mine())
        return connection.execute(select).scalar() == unit

    def _mine(self) -> sa.ColumnElement[bool]:
        table = self.tables.job_leases
        return sa.and_(table.c.job == self.job, table.c.token == self.token)


@contextmanager
def holding(engine: Engine, tables: Tables, job: str, run_id: str) -> Iterator[Lease]:
    """The lease of a job while the block runs.

    Raises HeldError where another runner holds it. The runs of one that is gone become abandoned.
    """
    with ExitStack() as stack:
        with transaction(engine) as connection:
            lease = Lease(tables, job, _take(connection, tables, job, run_id))
            stack.enter_context(_alive(engine, lease))  # before others can see the lease
        try:
            yield lease
        finally:
            with suppress(PeerwatchError), transaction(engine) as connection:
                _give_back(connection, lease)


def abandon_dead(engine: Engine, tables: Tables) -> list[str]:
    """Sets runs whose runner is gone to abandoned; returns their ids."""
    table = tables.pipeline_runs
    with transaction(engine) as connection:
        running = sa.select(table.c.job).where(table.c.status == "running").distinct()
        jobs = [str(job) for (job,) in connection.execute(running)]
    found: list[str] = []
    for job in sorted(jobs):
        with transaction(engine) as connection:
            row = _row(connection, tables, job)
            if row is None or not _held(connection, tables, row):
                found += _abandon(connection, tables, job)
    return found


def _take(connection: Connection, tables: Tables, job: str, run_id: str) -> int:
    """The token of a lease that nobody holds by now."""
    row, table = _row(connection, tables, job), tables.job_leases
    if row is not None and _held(connection, tables, row):
        raise HeldError(
            f"{job.replace('.', ' ')} runs already: {row.run_id}, since "
            f"{row.taken_at:%Y-%m-%d %H:%M:%S} UTC, by {row.holder}. Wait for its end, or stop it; "
            "nothing was done here."
        )
    _abandon(connection, tables, job)
    token = 1 if row is None else int(row.token) + 1
    values = {
        "token": token,
        "holder": _myself(),
        "run_id": run_id,
        "unit": None,
        "taken_at": _from_now(connection, 0),
        "expires_at": _from_now(connection, _expires(connection)),
    }
    if row is None:
        connection.execute(sa.insert(table).values(job=job, **values))
    else:
        connection.execute(sa.update(table).where(table.c.job == job).values(**values))
    return token


def _row(connection: Connection, tables: Tables, job: str) -> Any:
    """The lease as it stands, to be changed by none but the caller; None where there was none."""
    lock(connection, tables.lock(f"lease/{job}"))
    table = tables.job_leases
    return connection.execute(sa.select(table).where(table.c.job == job).with_for_update()).first()


def _held(connection: Connection, tables: Tables, row: Any) -> bool:
    """Whether a lease was neither given back nor left."""
    if row.expires_at is None:
        return False
    expired = row.expires_at <= _now(connection)
    if connection.dialect.name == "postgresql":
        keys = _keys(tables, row.job, row.token)
        try_lock = sa.select(sa.func.pg_try_advisory_xact_lock(*keys))
        return not expired and not connection.execute(try_lock).scalar()
    state = _state(row.holder)
    return state == RUNS or (state != GONE and not expired)


def _abandon(connection: Connection, tables: Tables, job: str) -> list[str]:
    table = tables.pipeline_runs
    left = sa.and_(table.c.job == job, table.c.status == "running")
    ids = [str(run) for (run,) in connection.execute(sa.select(table.c.run_id).where(left))]
    if ids:
        connection.execute(
            sa.update(table)
            .where(left)
            .values(
                status="abandoned",
                finished_at=_from_now(connection, 0),
                error="Its runner is gone: killed, cut off, or paused for too long.",
            )
        )
    return ids


def _give_back(connection: Connection, lease: Lease) -> None:
    table = lease.tables.job_leases
    connection.execute(sa.update(table).where(lease._mine()).values(expires_at=None))


# --- signs of life --------------------------------------------------------------------------------


@contextmanager
def _alive(engine: Engine, lease: Lease) -> Iterator[None]:
    """Shows that the runner lives; nothing to do where its process can be looked for."""
    if engine.dialect.name != "postgresql":
        yield
        return
    ended = threading.Event()
    with _Pulse(engine, lease) as pulse:
        thread = threading.Thread(target=pulse.keep, args=(ended,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class _Pulse:
    """A session that holds the advisory lock of a lease and renews the lease."""

    def __init__(self, engine: Engine, lease: Lease) -> None:
        self.engine, self.lease = engine, lease
        self.connection: Connection | None = None
        self.locked = False

    def __enter__(self) -> _Pulse:
        with ExitStack() as undone, translated(self.engine.url):
            undone.callback(self._close)
            self._session()
            undone.pop_all()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._close()

    def keep(self, ended: threading.Event) -> None:
        while not ended.wait(BEAT):
            self._beat()

    def _beat(self) -> None:
        """A session that was cut is opened anew; while none can be, the lease runs out."""
        try:
            connection = self._session()
            table = self.lease.tables.job_leases
            until = _from_now(connection, _expires(connection))
            connection.execute(
                sa.update(table)
                .where(self.lease._mine(), table.c.expires_at.is_not(None))
                .values(expires_at=until)
            )
        except exc.DBAPIError:
            self._close()

    def _session(self) -> Connection:
        """The session, with the lock as soon as it can be had: one that was cut holds it until the
        server notices."""
        if self.connection is None:
            made = self.engine.connect()
            self.connection = made.execution_options(isolation_level="AUTOCOMMIT")
            self.locked = False
        if not self.locked:
            keys = _keys(self.lease.tables, self.lease.job, self.lease.token)
            try_lock = sa.select(sa.func.pg_try_advisory_lock(*keys))
            self.locked = bool(self.connection.execute(try_lock).scalar())
        return self.connection

    def _close(self) -> None:
        if self.connection is not None:
            with suppress(exc.DBAPIError):
                self.connection.close()
            self.connection = None


def _keys(tables: Tables, job: str, token: int) -> tuple[Any, Any]:
    """The two numbers of the advisory lock of a lease."""
    name = sa.func.hashtext(f"peerwatch/{tables.schema}/{tables.prefix}{job}")
    return name, sa.cast(sa.literal(int(token) % 2**31), sa.Integer)


def _myself() -> str:
    return f"{socket.gethostname()} {os.getpid()} {_started(os.getpid())}".strip()


def _state(holder: str) -> str:
    """What became of a process: RUNS, GONE, or neither: paused, or on another machine."""
    machine, process, *started = holder.split(" ")
    if machine != socket.gethostname():
        return "elsewhere"
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return GONE
    except PermissionError:
        if not _stat(int(process)):
            return RUNS  # of another user, of which this system tells no more
    if "".join(started) != _started(int(process)):
        return GONE  # another process has its number by now
    return "paused" if _stat(int(process))[:1] == ["T"] else RUNS


def _started(process: int) -> str:
    """When a process began, in ticks since the machine did; nothing where the system does not
    tell, or where the process has ended and waits for its parent."""
    fields = _stat(process)
    return "" if fields[:1] in ([], ["Z"]) else fields[19]


def _stat(process: int) -> list[str]:
    """What Linux tells of a process, its state first; nothing on other systems."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


# --- the database's clock -------------------------------------------------------------------------


def _expires(connection: Connection) -> int:
    return EXPIRES[connection.dialect.name]


def _now(connection: Connection) -> datetime:
    moment = connection.execute(sa.select(_from_now(connection, 0))).scalar_one()
    if isinstance(moment, str):
        return datetime.strptime(moment, MOMENT_FORMAT).replace(tzinfo=UTC)
    now: datetime = moment
    return now


def _from_now(connection: Connection, seconds: int) -> Any:
    """A moment by the database's clock, as our columns keep it."""
    if connection.dialect.name == "postgresql":
        return sa.func.clock_timestamp() + sa.func.make_interval(0, 0, 0, 0, 0, 0, seconds)
    return sa.func.strftime("%Y-%m-%dT%H:%M:%f000Z", "now", f"+{seconds} seconds")
