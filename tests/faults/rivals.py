"""Several runners of one job: started at once, paused, overtaken."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from sqlalchemy import event
from sqlalchemy.engine import Connection, Engine

from shared import runs
from shared.jobs import Request
from tests.faults.harness import HELD, SEED, TEMPORARY, Arm, Child, Ended, Line, start, tell
from tests.faults.kills import Undisturbed, trial, until_done
from tests.faults.worlds import JOBS, World, small_slices
from tests.small_bank import NOW

SLOT = NOW.replace(hour=6)
LONG_AGO = "'2000-01-01T00:00:00.000000Z'"


def score_for(world: World, slot: datetime | None, now: datetime = NOW) -> str:
    """A scoring for a slot of the schedule, or by hand."""
    small_slices()
    with runs.opened(world.config, "fraudwatch.score", now) as run:
        trigger = "manual" if slot is None else "schedule"
        job = JOBS["fraudwatch.score"]
        return runs.execute(run, job, Request(), trigger, slot).message


def at_once(runners: int, work: Callable[[], object], arm: Arm | None = None) -> Counter[int]:
    """Exit codes of children that begin together."""
    ready, go = os.pipe()

    def begin() -> object:
        os.close(go)
        os.read(ready, 1)  # answered for all at once, when the parent closes its end
        return work()

    children = [start(begin, arm) for _ in range(runners)]
    os.close(ready)
    os.close(go)
    return Counter(child.wait().code for child in children)


# --- paused ---------------------------------------------------------------------------------------


def pause() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def at_statement(text: str, then: Callable[[], None] = pause, nth: int = 1) -> Arm:
    """A fault just before the n-th statement that contains the text."""

    def arm() -> None:
        seen = [0]

        @event.listens_for(Engine, "before_cursor_execute")
        def _statement(*of: object) -> None:
            seen[0] += text in str(of[2])
            if text in str(of[2]) and seen[0] == nth:
                then()

    return arm


def between_units(nth: int, then: Callable[[], None] = pause) -> Arm:
    """A fault outside of any transaction, after the n-th commit."""

    def arm() -> None:
        commits = [0]

        @event.listens_for(Engine, "commit")
        def _commit(_connection: Connection) -> None:
            commits[0] += 1

        @event.listens_for(Engine, "engine_connect")
        def _connect(_connection: Connection) -> None:
            if commits[0] == nth:
                commits[0] += 1
                then()

    return arm


def stopped(work: Callable[[], object], arm: Arm) -> Child:
    """A child that has paused itself."""
    child = start(work, arm)
    pid, status = os.waitpid(child.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status), (pid, status, child.output())
    return child


def go_on(child: Child) -> Ended:
    child.send(signal.SIGCONT)
    return child.wait()


def expire(world: World) -> None:
    """As if the lease's time had passed."""
    world.say(f"UPDATE #job_leases SET expires_at = {LONG_AGO} WHERE expires_at IS NOT NULL")


def written_by(world: World) -> dict[str, int]:
    """How many rows of scores, alerts and ledger each run has written."""
    return {
        str(run): int(rows)
        for run, rows in world.ask(
            "SELECT run_id, count(*) FROM (SELECT run_id FROM #transaction_scores UNION ALL "
            "SELECT run_id FROM #fraud_alerts UNION ALL SELECT run_id FROM #run_batches UNION ALL "
            "SELECT run_id FROM #closed_days) w GROUP BY run_id"
        )
    }


def five_at_once(world: World, expected: Undisturbed, times: int) -> Line:
    """Five runners of one slot: one works, the others end with exit 3."""
    line = Line("five runners of one slot", world.dialect, SEED, f"{times} times five")
    for _ in range(times):
        with trial(line, world, expected) as copy:
            codes = at_once(5, lambda copy=copy: score_for(copy, SLOT))
            done = copy.count("pipeline_runs", "slot_at IS NOT NULL AND status = 'succeeded'")
            line.other += int(codes != {0: 1, HELD: 4}) + int(done != 1)
    return tell(line)


def paused_holders(world: World, expected: Undisturbed, times: int) -> Line:
    """Holders that pause for longer than their lease, between two of their units of work."""
    line = Line("holder paused past its lease", world.dialect, SEED, f"{times} pauses")
    generator = random.Random(SEED)
    for _ in range(times):
        with trial(line, world, expected) as copy:
            wrote, first, second = overtaken(copy, between_units(generator.randint(4, 12)))
            line.doubled += wrote
            line.other += int((first, second) != (TEMPORARY, 0))
    return tell(line)


def overtaken(world: World, arm: Arm) -> tuple[int, int, int]:
    """A holder pauses, its lease runs out, a second runner does the job, the first goes on.

    Returns (rows that the stale one wrote after its pause, its exit code, that of the second)."""
    stale = stopped(lambda: score_for(world, None), arm)
    before = written_by(world)
    held = start(lambda: score_for(world, None, NOW + timedelta(minutes=1))).wait()
    assert held.code == HELD, held.said
    expire(world)
    second = start(lambda: score_for(world, None, NOW + timedelta(minutes=2))).wait()
    between = written_by(world)
    first = go_on(stale)
    after = written_by(world)
    wrote = sum(after[run] - between.get(run, 0) for run in after)
    assert before.items() <= between.items()
    return wrote, first.code, second.code


def workers_killed(world: World, expected: Undisturbed, times: int) -> Line:
    """A scoring that two processes share, one of which is killed at any moment."""
    line = Line("worker of a shared scoring killed", world.dialect, SEED, "")
    generator, killed = random.Random(SEED), 0
    while killed < times:
        with trial(line, world, expected) as copy, TemporaryDirectory() as folder:
            copy.write_config(Path(folder, "peerwatch.toml"))
            child = start(lambda copy=copy: _shared_out(copy, NOW))
            if _kill_a_worker(child, generator.uniform(0, 6)):
                killed += 1
            ended = child.wait()
            if ended.code not in (0, TEMPORARY):
                print(ended.said)
                line.other += 1
            until_done(lambda now, copy=copy: _shared_out(copy, now))
    line.done = f"{killed} kills"
    return tell(line)


def _shared_out(world: World, now: datetime) -> str:
    small_slices()
    return world.score(now=now, options={"workers": 2}).message


def _kill_a_worker(child: Child, seconds: float) -> bool:
    """Kills the process that helps a child, so long after it began; whether it was still there."""
    me, until = psutil.Process(child.pid), time.monotonic() + 60
    while time.monotonic() < until and me.status() != psutil.STATUS_ZOMBIE:
        for helper in me.children():
            time.sleep(seconds)
            with suppress(psutil.NoSuchProcess):
                helper.kill()
                return True
        time.sleep(0.01)
    return False
