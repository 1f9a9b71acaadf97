"""Jobs in children of a warm parent, and the ways to kill them; what was done, as lines of a table.

A child is forked, so that a kill costs no imports. The parent holds no connection when it forks:
neither libpq nor SQLite survives that.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from shared.errors import PeerwatchError

SEED = int(os.environ.get("FAULTS_SEED", "20260301"))
SHARE = float(os.environ.get("FAULTS_SHARE", "1"))  # of the counts, for a first look
CRASHED = 70  # the exit code of a child whose work raised what is no PeerwatchError
HELD, TEMPORARY = 3, 75
PATIENCE = 120.0  # seconds that any one child may take

Work = Callable[[], Any]
Arm = Callable[[], None]


@dataclass
class Line:
    """One fault that was made: how often, and what it did."""

    fault: str
    database: str
    seed: int
    done: str  # how often, with its unit
    lost: int = 0
    doubled: int = 0
    other: int = 0  # whatever else is not as it should be
    expected: bool = True  # False: a negative control, whose rows must be lost or doubled

    @property
    def as_expected(self) -> bool:
        broken = bool(self.lost or self.doubled or self.other)
        return broken != self.expected

    @property
    def verdict(self) -> str:
        told = "nothing broken" if self.expected else "noticed, as it must be"
        return told if self.as_expected else "BROKEN" if self.expected else "NOT NOTICED"


TOLD: list[Line] = []


def counted(number: int) -> int:
    """How often a fault is made: as often as asked, or a share of it."""
    return max(1, round(number * SHARE))


def tell(line: Line) -> Line:
    TOLD.append(line)
    return line


def table() -> list[str]:
    """The lines told so far, as text."""
    rows = [("fault", "database", "seed", "done", "lost", "doubled", "other", "verdict")]
    rows += [
        (
            line.fault, line.database, str(line.seed), line.done, str(line.lost),
            str(line.doubled), str(line.other), line.verdict,
        )
        for line in TOLD
    ]  # fmt: skip
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows]  # fmt: skip


# --- children -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Child:
    """A process that works, and the file that keeps what it says."""

    pid: int
    said: Path

    def wait(self, patience: float = PATIENCE) -> Ended:
        """Its end; one that takes too long is killed, and that is an error."""
        until = time.monotonic() + patience
        while (ended := self.poll()) is None:
            if time.monotonic() > until:
                self.kill()
                os.waitpid(self.pid, 0)
                raise TimeoutError(f"A child was not done in {patience:.0f} s:\n{self.output()}")
            time.sleep(0.01)
        return ended

    def poll(self) -> Ended | None:
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid:
            return None
        said = self.output()
        self.said.unlink()
        return Ended(os.waitstatus_to_exitcode(status), said)

    def output(self) -> str:
        return self.said.read_text(errors="replace")

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)


@dataclass(frozen=True)
class Ended:
    """How a child ended: its exit code, minus the signal where one ended it, and its output."""

    code: int
    said: str

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL


def start(work: Work, arm: Arm | None = None) -> Child:
    """A child that does the work and exits as the command would; `arm` prepares its faults."""
    handle, name = tempfile.mkstemp(prefix="child-", suffix=".txt")
    gc.collect()  # whatever connection is left is closed here, not twice
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of the test runner
        pid = os.fork()
    if pid:
        os.close(handle)
        return Child(pid, Path(name))
    code = CRASHED
    try:
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
        code = _work(work, arm)
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _work(work: Work, arm: Arm | None) -> int:
    try:
        if arm is not None:
            arm()
        print(work())
        return 0
    except PeerwatchError as error:
        print(f"{type(error).__name__}: {error}")
        return error.exit_code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    except BaseException:
        traceback.print_exc(file=sys.stdout)
        return CRASHED


def done(work: Work, arm: Arm | None = None, patience: float = PATIENCE) -> str:
    """Does the work in a child and returns what it said; anything but success is an error."""
    ended = start(work, arm).wait(patience)
    assert ended.code == 0, ended.said
    return ended.said


# --- kills ----------------------------------------------------------------------------------------


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Calls:
    """Counts what SQLAlchemy asks of a database, in this process: before each statement, before
    each commit, and after it, when the connection is closed."""

    def __init__(self, at: int = 0, then: Callable[[], None] = die) -> None:
        self.at, self.then, self.count = at, then, 0
        event.listen(Engine, "before_cursor_execute", self._call)
        event.listen(Engine, "commit", self._call)
        event.listen(Pool, "close", self._call)

    def _call(self, *_of: Any) -> None:
        self.count += 1
        if self.count == self.at:
            self.then()


def at_call(number: int, then: Callable[[], None] = die) -> Arm:
    """A fault at the n-th call."""
    return lambda: Calls(number, then) and None


def calls_of(work: Work) -> int:
    """How many calls the work makes where nothing disturbs it; it is done in a child."""

    def counted() -> int:
        calls = Calls()
        work()
        return calls.count

    return int(done(counted).split()[-1])


def killed(work: Work, generator: random.Random, calls: int, seconds: float) -> Ended:
    """Does the work in a child that is killed, unless it ends first: half of them at one of its
    next calls, half at a random moment, which may lie within a commit."""
    if generator.random() < 0.5:
        return start(work, at_call(generator.randint(1, calls))).wait()
    child = start(work)
    until = time.monotonic() + generator.random() * seconds
    while time.monotonic() < until:
        if (ended := child.poll()) is not None:
            return ended
        time.sleep(0.005)
    child.kill()
    return child.wait()
