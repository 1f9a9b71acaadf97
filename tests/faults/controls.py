"""What peerwatch does not do, put in its place: the tests must notice each."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from fraudwatch import scope, store
from shared import database, leases
from tests.faults.harness import HELD, SEED, Line, die, done, start, tell
from tests.faults.kills import Undisturbed, score, trial, until_done
from tests.faults.rivals import at_once, score_for
from tests.faults.worlds import World
from tests.small_bank import END, NOW, copies


def two_transactions(world: World, now: Any, between: Callable[[], None] = lambda: None) -> object:
    """A writer that makes the scores visible first, and their alerts and ledger after."""
    write = store.write_scores

    def scores_first(connection: Any, *rest: Any) -> int:
        written = write(connection, *rest)
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql("BEGIN")
        between()
        return written

    store.write_scores = scores_first
    return score(world, now)


def killed_between(world: World, expected: Undisturbed) -> Line:
    """One kill between the two transactions of such a writer; a sweep has to hit it by chance."""
    line = Line("killed between two transactions (control)", world.dialect, SEED, "1 time",
                expected=False)  # fmt: skip
    with trial(line, world, expected) as copy:
        assert start(lambda: two_transactions(copy, NOW, die)).wait().killed
        until_done(lambda now: score(copy, now))
    return tell(line)


def plain_watermark() -> None:
    """Only what is newer than the newest scored row is looked at."""
    before = scope.look_back

    def newest(connection: Any, run: Any, start: int) -> int:
        reached = scope.watermark(connection, run)
        return before(connection, run, start) if reached is None else reached + 1

    scope.look_back = newest


def default_transactions() -> None:
    """SQLite as the driver has it: a transaction begins with the first write, not with the read
    that the write follows from."""

    def stock(url: Any, *_of: Any) -> sa.Engine:
        return sa.create_engine(url, poolclass=sa.NullPool)

    database._sqlite_engine = stock


def slow_hands() -> None:
    """Runners that take their time between seeing that a job is free and taking it."""
    held = leases._held

    def slowly(*of: Any) -> bool:
        found = held(*of)
        time.sleep(0.7)
        return found

    leases._held = slowly


def at_the_same_moment(world: World, times: int, *, control: bool = False) -> Line:
    """Two runners that see a free job at the same moment; one may take it."""
    name = "two take a job at the same moment" + (" (control: stock transactions)" * control)
    line = Line(name, world.dialect, SEED, f"{times} times", expected=not control)

    def arm() -> None:
        slow_hands()
        if control:
            default_transactions()

    for _ in range(times):
        with copies(world.url) as url:
            copy = world.copy(url)
            done(lambda copy=copy: copy.score(until=END - timedelta(days=2)))  # the job is known
            codes: Counter[int] = at_once(2, lambda copy=copy: score_for(copy, None), arm)
            line.other += int(codes != {0: 1, HELD: 1})
            line.doubled += max(codes[0] - 1, 0)
    return tell(line)
