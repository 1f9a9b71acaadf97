"""The scheduler: an alarm clock, and each job a process of its own.

APScheduler only rings; what is due is for the tables to say (`shared/slots.py`). A job is a child
process, so that a crash or a full memory cannot take the scheduler down, and the scheduler itself
holds no torch. What has to wait, for the database or for a child, waits in a thread of its own and
then tells the main thread what to do next, which is so free to end at any moment.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread

from shared import runs, slots
from shared.config import Configuration
from shared.errors import ConfigurationError, HeldError, PeerwatchError, SchemaError
from shared.slots import Due

PLACES = 2  # jobs at a time: a fit does not hold up scoring
FITS = ("fit", "recalibrate")  # one of these at a time, else two of them would
RING_SECONDS = 30
STOP_SECONDS = 9.0  # for the jobs, which take 8 at most: service managers give ten, and kill
CODE = "import sys; from shared.cli import main; sys.exit(main())"


@dataclass(frozen=True)
class Child:
    """The process that runs a slot."""

    due: Due
    process: subprocess.Popen[bytes]
    launched: datetime

    @property
    def held(self) -> bool:
        """Whether another runner had the job or its slot."""
        return self.process.returncode == HeldError.exit_code

    @property
    def fault(self) -> str | None:
        """How it ended where it did not end well."""
        code = self.process.returncode
        if code == 0 or self.held:
            return None
        if code < 0:
            known = (name.name for name in signal.Signals if name == -code)
            return f"Its process was ended by {next(known, f'signal {-code}')}."
        return f"Its process ended with exit code {code}."


def command(due: Due, config: str) -> list[str]:
    """The child process that runs a job: the same command that a person would type."""
    domain, verb = due.job.split(".")
    words = [sys.executable, "-c", CODE, "--config", config, "--quiet", domain, verb]
    if not due.catch_up or verb == "report":  # which is of the moment it is made
        return words
    return [*words, "--as-of" if due.job == "segmenter.score" else "--until", due.slot.isoformat()]


def launch(due: Due, config: str) -> Child:
    """Starts a job's process, in a session of its own: the keyboard's Ctrl-C is not for it."""
    told = {"PEERWATCH_TRIGGER": "schedule", "PEERWATCH_SLOT": due.slot.isoformat()}
    launched = datetime.now(UTC)
    process = subprocess.Popen(  # noqa: S603 - our own command
        command(due, config), env={**os.environ, **told}, start_new_session=True
    )
    return Child(due, process, launched)


def look(config: Configuration, failed: Sequence[Child], now: datetime) -> list[Due]:
    """What is due, the attempts that failed being noted first."""
    results = runs.open_results(config)
    for child in failed:
        fault = child.fault or ""
        slots.note_failure(results, child.due, child.launched, datetime.now(UTC), fault)
    return slots.look(results, config.schedule, now)


def of(
    config: Configuration,
    say: Callable[[str], None],
    warn: Callable[[str], None],
    *,
    once: bool = False,
) -> Scheduler:
    """The scheduler of a configuration; with `once` for what is due at this moment."""
    began = datetime.now(UTC)

    def stamped(tell: Callable[[str], None]) -> Callable[[str], None]:
        return lambda text: tell(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}")

    def asked(failed: Sequence[Child]) -> list[Due]:
        return look(config, failed, began if once else datetime.now(UTC))

    return Scheduler(
        asked,
        lambda due: launch(due, str(config.path)),
        stamped(say),
        stamped(warn),
        once=once,
    )


class Scheduler:
    """Runs what is due, each job once at a time, until it is told to stop or nothing is left."""

    def __init__(
        self,
        look: Callable[[Sequence[Child]], Sequence[Due]],
        launch: Callable[[Due], Child],
        say: Callable[[str], None],
        warn: Callable[[str], None],
        *,
        once: bool = False,
        ring_seconds: float = RING_SECONDS,
    ) -> None:
        self._look, self._launch = look, launch
        self._say, self._warn = say, warn  # warnings are said where all else is quiet
        self._once, self._ring_seconds = once, ring_seconds
        self._next: SimpleQueue[Callable[[], None]] = SimpleQueue()  # also of signals: reentrant
        self._going = True
        self._looking, self._again, self._looked = False, False, False
        self._trouble: str | None = None
        self._children: dict[str, Child] = {}
        self._unsettled: list[Child] = []  # failed, and not yet noted in the tables
        self._tried: set[Due] = set()  # since the alarm rang: another's slot is not tried in a loop
        self.started: list[Due] = []
        self.held: list[Due] = []
        self.failed: list[Due] = []

    def run(self) -> None:
        """In the foreground; SIGTERM and SIGINT end it, and its jobs with it."""
        with _signals(self._told_to_stop), _alarm(self._rang, self._ring_seconds):
            try:
                self._ask()
                while self._going:
                    self._heard()()
            finally:
                self._end_children()

    def _heard(self) -> Callable[[], None]:
        """What to do next. The alarm goes by the wall clock, and is silent while that was set
        back: then the silence rings."""
        try:
            return self._next.get(timeout=2 * self._ring_seconds)
        except Empty:
            return self._rings

    def _told_to_stop(self) -> None:
        self._next.put(self._stops)

    def _stops(self) -> None:
        self._going = False

    def _rang(self) -> None:
        self._next.put(self._rings)

    def _rings(self) -> None:
        if not self._once:
            self._tried.clear()
        self._ask()

    # --- asking the tables ---

    def _ask(self) -> None:
        """Asks what is due, in a thread: a database that is away must not hold up the end."""
        self._again = self._looking
        if self._looking:
            return
        self._looking = True
        Thread(target=self._asked, args=(tuple(self._unsettled),), daemon=True).start()

    def _asked(self, settling: tuple[Child, ...]) -> None:
        try:
            found = self._look(settling)
        except Exception as error:
            self._next.put(partial(self._unanswered, error))
        else:
            self._next.put(partial(self._answered, found, settling))

    def _answered(self, found: Sequence[Due], settled: tuple[Child, ...]) -> None:
        """Starts what is due and has room. A job that has never succeeded waits for those before
        it in its domain: a score needs a fit, and a report a score."""
        self._looking, self._looked = False, True
        if self._trouble is not None:
            self._warn("The result tables answer again.")
        self._trouble = None
        self._unsettled = [child for child in self._unsettled if child not in settled]
        domains = {_domain(job) for job in self._children}
        for due in found:
            waits = due.first and _domain(due.job) in domains
            if due not in self._tried and not waits and self._has_room(due.job):
                self._start(due)
            domains.add(_domain(due.job))
        if self._again:
            self._ask()
        elif self._once and not self._children:
            self._stops()

    def _unanswered(self, error: Exception) -> None:
        """A database that is away for a while is waited for; what is wrong for good is not."""
        self._looking = False
        first = isinstance(error, ConfigurationError) and not self._looked
        lasting = first or isinstance(error, SchemaError) or not isinstance(error, PeerwatchError)
        if lasting or (self._once and not self._children):
            raise error
        if self._trouble != str(error):
            self._warn(f"{error} The scheduler goes on and asks again.")
        self._trouble = str(error)

    # --- processes ---

    def _has_room(self, job: str) -> bool:
        if job in self._children or len(self._children) >= PLACES:
            return False
        return not (_is_fit(job) and any(_is_fit(other) for other in self._children))

    def _start(self, due: Due) -> None:
        self._tried.add(due)
        try:
            child = self._launch(due)
        except OSError as error:  # no memory or no processes left: another time
            self._warn(f"{_shown(due)} could not be started: {error.strerror}.")
            self.failed.append(due)
            return
        self._children[due.job] = child
        self.started.append(due)
        self._say(f"{_shown(due)} started")
        Thread(target=self._wait, args=(child,), daemon=True).start()

    def _wait(self, child: Child) -> None:
        child.process.wait()
        self._next.put(partial(self._ended, child))

    def _ended(self, child: Child) -> None:
        del self._children[child.due.job]
        if child.held:
            self.held.append(child.due)
            self._say(f"{_shown(child.due)} was done by another")
        elif child.fault is not None:
            self.failed.append(child.due)
            self._unsettled.append(child)
            self._warn(f"{_shown(child.due)} failed. {child.fault}")
        else:
            self._say(f"{_shown(child.due)} done")
        self._ask()

    def _end_children(self) -> None:
        """Tells the jobs to stop, and kills those that have not in time."""
        deadline = time.monotonic() + STOP_SECONDS
        for child in self._children.values():
            child.process.terminate()
        for child in self._children.values():
            try:
                child.process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            if child.held:
                self.held.append(child.due)
            elif child.fault is not None:
                self.failed.append(child.due)


def _domain(job: str) -> str:
    return job.partition(".")[0]


def _is_fit(job: str) -> bool:
    return job.rsplit(".", maxsplit=1)[-1] in FITS


def _shown(due: Due) -> str:
    return f"{due.job} of {due.slot:%Y-%m-%d %H:%M}"


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGTERM and SIGINT call `stop` while the block runs."""
    names = (signal.SIGTERM, signal.SIGINT)
    before = {name: signal.signal(name, lambda _signal, _frame: stop()) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


@contextmanager
def _alarm(ring: Callable[[], None], seconds: float) -> Iterator[None]:
    """Rings every so many seconds while the block runs."""
    from apscheduler.schedulers.background import BackgroundScheduler

    clock = BackgroundScheduler(timezone=UTC)
    options = {"coalesce": True, "max_instances": 1, "misfire_grace_time": None}
    clock.add_job(ring, "interval", seconds=seconds, **options)
    clock.start()
    try:
        yield
    finally:
        clock.shutdown(wait=False)
