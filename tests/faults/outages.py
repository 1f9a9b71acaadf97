"""Databases that end sessions, die, deadlock, are locked, are full, or cannot be reached."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine, make_url

from shared import database, runs
from tests.builders import run_sql
from tests.faults.harness import SEED, TEMPORARY, Line, start, tell
from tests.faults.kills import Undisturbed, trial, until_done
from tests.faults.rivals import at_statement, go_on, score_for, stopped
from tests.faults.servers import (
    Cut,
    Server,
    cutting,
    held_by_an_analyst,
    random_cuts,
    small_disk,
    terminate,
)
from tests.faults.worlds import World

Outage = Callable[[World, Undisturbed, int], Line]
IN_A_UNIT = "state = 'idle in transaction'"
PAGE = 8_192  # bytes, of PostgreSQL's tables
WRITES = ("transaction_scores", "fraud_alerts", "run_batches", "source_days", "closed_days")


def score(world: World) -> Callable[[Any], str]:
    return lambda now: score_for(world, None, now)


def impatient() -> None:
    """Waits of a busy database that a test can wait for."""
    database.BUSY_SECONDS, runs.FIRST_PAUSE = 0.2, 0.01


def _in_a_unit(world: World, table: str) -> Any:
    """A scoring that paused within a unit of work, just before it writes a table."""
    name = f"INSERT INTO {'' if world.dialect == 'sqlite' else 'peerwatch.'}{table}"
    return stopped(lambda: score_for(world, None), at_statement(name))


def sessions_ended(world: World, expected: Undisturbed, times: int) -> Line:
    """Sessions that an administrator ends in the middle of a unit of work: the one that writes,
    which the run replaces, or every one of the run."""
    line = Line("session ended in a unit of work", world.dialect, SEED, "")
    alone = 0
    for turn in range(times):
        with trial(line, world, expected) as copy:
            child = _in_a_unit(copy, WRITES[turn % len(WRITES)])
            every = turn % 3 == 2
            line.other += int(terminate(copy.url, "true" if every else IN_A_UNIT) < 1)
            ended = go_on(child)
            alone += ended.code == 0
            line.other += int(ended.code not in ((0, TEMPORARY) if every else (0,)))
            until_done(score(copy))
    line.done = f"{times} times, {alone} runs went on by themselves"
    return tell(line)


def server_killed(server: Server, world: World, expected: Undisturbed, times: int) -> Line:
    """A server whose every process is killed while a run writes, and that is started again."""
    generator, alone = random.Random(SEED), 0
    line = Line("server killed and started again", world.dialect, SEED, "")
    for turn in range(times):
        with trial(line, world, expected) as copy:
            if turn % 2:
                child = _in_a_unit(copy, WRITES[turn % len(WRITES)])
                server.kill()
                child.send(signal.SIGCONT)
            else:
                child = start(lambda copy=copy: score_for(copy, None))
                time.sleep(generator.uniform(0.3, 2.0))
                server.kill()
            server.start()
            ended = child.wait()
            line.other += int(ended.code not in (0, TEMPORARY))
            alone += ended.code == 0
            until_done(score(copy))
    line.done = f"{times} kills, {alone} runs went on by themselves"
    return tell(line)


def deadlocked(world: World, expected: Undisturbed, times: int) -> Line:
    """An analyst's transaction and a run that wait for each other; the run is the victim."""
    line = Line("deadlock with an analyst (40P01)", world.dialect, SEED, f"{times} deadlocks")
    for _ in range(times):
        with trial(line, world, expected) as copy:
            child = _in_a_unit(copy, "transaction_scores")
            patient = "SET deadlock_timeout = '1min'"  # so that the run finds the deadlock
            taken = "LOCK TABLE peerwatch.fraud_alerts IN EXCLUSIVE MODE"
            with held_by_an_analyst(copy.url, patient, taken) as analyst:
                waits = threading.Thread(
                    target=analyst.exec_driver_sql,
                    args=("UPDATE peerwatch.job_leases SET holder = holder",),
                )
                waits.start()
                time.sleep(0.2)
                child.send(signal.SIGCONT)
                waits.join(30)
                line.other += int(waits.is_alive())
            line.other += int(child.wait().code != 0)
    return tell(line)


def unserialisable(world: World, expected: Undisturbed, times: int) -> Line:
    """A database that serialises by refusing: another changes a row after the unit's snapshot."""
    line = Line("serialisation failure (40001)", world.dialect, SEED, f"{times} failures")
    for _ in range(times):
        with trial(line, world, expected) as copy:
            name = make_url(copy.url).database
            run_sql(
                copy.url,
                f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'",
                "INSERT INTO peerwatch.settings VALUES ('score_from', '2000-01-01')",
            )
            child = _in_a_unit(copy, "settings")
            run_sql(
                copy.url, "UPDATE peerwatch.settings SET value = '1999' WHERE key = 'score_from'"
            )
            line.other += int(go_on(child).code != 0)
    return tell(line)


def locked(world: World, expected: Undisturbed, times: int) -> Line:
    """A table that an analyst keeps locked for longer than a run waits, then sets free."""
    line = Line("table locked by an analyst", world.dialect, SEED, f"{times} locks")
    sqlite = world.dialect == "sqlite"
    taken = "BEGIN IMMEDIATE" if sqlite else "LOCK TABLE peerwatch.fraud_alerts"
    for _ in range(times):
        with trial(line, world, expected) as copy:
            arm = impatient if sqlite else _short_lock_waits
            with held_by_an_analyst(copy.url, taken):
                ended = start(lambda copy=copy: score_for(copy, None), arm).wait()
                line.other += int(ended.code != TEMPORARY)
            line.other += copy.broken()
            until_done(score(copy))
    return tell(line)


def _short_lock_waits() -> None:
    """As the session's own setting would: a wait for a lock that a test can wait for."""
    impatient()

    @event.listens_for(Engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("SET LOCAL lock_timeout = '200ms'")


def disk_full(world: World, expected: Undisturbed, times: int) -> Line:
    """An SQLite file that may not grow: by its own limit, and by the system's."""
    line = Line("disk full", world.dialect, SEED, f"{times} times, two ways")
    generator = random.Random(SEED)
    for turn in range(times):
        with trial(line, world, expected) as copy:
            path, more = Path(str(make_url(copy.url).database)), generator.randint(0, 3)
            with sqlite3.connect(path) as connection:
                connection.execute("VACUUM")
            pages = copy.ask("PRAGMA page_count")[0][0] + more
            size = path.stat().st_size + more * 4096
            arm = (lambda pages=pages: _few_pages(pages)) if turn % 2 else None
            ended = start(
                lambda copy=copy: score_for(copy, None), arm or (lambda size=size: _small(size))
            ).wait()
            line.other += int(ended.code not in (1, TEMPORARY)) + copy.broken()
            until_done(score(copy))
    return tell(line)


DISK = 96 * 2**20  # bytes: room for the world and a whole scoring


def server_disk_full(server: Server, world: World, expected: Undisturbed, times: int) -> Line:
    """Tables of PostgreSQL that find no room to grow, until somebody makes some."""
    line = Line("disk full", world.dialect, SEED, "")
    generator, refused = random.Random(SEED), 0
    for _ in range(times):
        with trial(line, world, expected) as copy, small_disk(server, copy.url, DISK) as disk:
            copy.count("settings")  # the first session writes a file of its own
            ballast = disk / "ballast"
            left = shutil.disk_usage(disk).free - generator.randint(0, 30) * PAGE
            with ballast.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, left)
            ended = start(lambda copy=copy: score_for(copy, None), _soon).wait()
            refused += "No space left on device" in ended.said
            ballast.unlink()
            line.other += int(ended.code not in (0, 1, TEMPORARY)) + copy.broken()
            until_done(score(copy))
            terminate(copy.url)
    line.other += int(refused == 0)
    line.done = f"{times} times, {refused} runs refused"
    return tell(line)


def _few_pages(pages: int) -> None:
    impatient()

    @event.listens_for(Engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}")


def _small(size: int) -> None:
    impatient()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def connections_cut(world: World, expected: Undisturbed, times: int) -> Line:
    """Connections that a proxy cuts after a random number of bytes, either way."""
    generator, runs_made = random.Random(SEED), 0
    line = Line("connection cut at a random byte", world.dialect, SEED, "")
    cuts = 0
    for _ in range(times):
        with trial(line, world, expected) as copy:
            planned = random_cuts(generator, 12, 60_000)
            cuts += len(planned)
            with cutting(copy.url, planned) as url:
                codes = until_done(score(copy.copy(url)), arm=_soon)
            runs_made += len(codes)
    line.done = f"{cuts} cuts in {runs_made} runs"
    return tell(line)


def answers_lost(world: World, expected: Undisturbed, times: int) -> Line:
    """Commits that the server makes and whose answer never comes."""
    generator, alone = random.Random(SEED), 0
    line = Line("answer to a commit lost", world.dialect, SEED, "")
    for _ in range(times):
        with trial(line, world, expected) as copy:
            lost = Cut(phrase=b"COMMIT", passed=generator.randint(4, 40))
            with cutting(copy.url, [lost]) as url:
                codes = until_done(score(copy.copy(url)), arm=_soon)
            alone += codes == [0]
    line.done = f"{times} answers, {alone} runs went on by themselves"
    return tell(line)


def _soon() -> None:
    runs.FIRST_PAUSE = 0.01
