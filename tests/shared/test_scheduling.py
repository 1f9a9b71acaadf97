"""The scheduler: processes that end well, badly or not at all, and how it ends itself."""

from __future__ import annotations

import errno
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from shared import config, scheduling, slots
from shared.cli import main
from shared.errors import ConfigurationError, PeerwatchError, SchemaError, TemporaryError
from shared.scheduling import Child, Scheduler, command
from shared.slots import Due
from tests.builders import a_bank, a_transaction, ask, make_results, toml
from tests.conftest import execute
from tests.small_bank import Bank, copies

NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)
SCORE, REPORT = Due("fraudwatch.score", NOON), Due("fraudwatch.report", NOON)
FIT, OTHER_FIT = Due("fraudwatch.fit", NOON), Due("segmenter.fit", NOON)
NOTHING = "pass"
KILLED = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
EXIT = "import sys; sys.exit({})"
ENDLESS = "import time\nprint('on', flush=True)\ntime.sleep(600)"
WILLING = """
import signal
told = {signal.SIGTERM}
signal.pthread_sigmask(signal.SIG_BLOCK, told)  # or one sent before the wait would not end it
print('on', flush=True)
signal.sigwait(told)
"""
DEAF = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + ENDLESS


class World:
    """Tables of one row per slot: what is due until it was run, and what was said of it."""

    def __init__(self, *due, codes=None, then=()):
        self.due, self.codes, self.then = list(due), codes or {}, list(then)
        self.settled, self.said, self.warned, self.at_a_time = [], [], [], []
        self.children = []

    def look(self, failed):
        self.settled += failed
        return [due for due in self.due if due not in [child.due for child in self.children]]

    def launch(self, due):
        code = self.codes.get(due.job, NOTHING)
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", code], stdout=subprocess.PIPE, start_new_session=True
        )
        self.children.append(Child(due, process, datetime.now(UTC)))
        running = [child for child in self.children if child.process.poll() is None]
        self.at_a_time.append([child.due.job for child in running])
        return self.children[-1]

    def scheduler(self, **options):
        options = {"once": True} | options
        return Scheduler(self.look, self.launch, self.said.append, self.warned.append, **options)

    def ran(self, **options):
        scheduler = self.scheduler(**options)
        scheduler.run()
        for child in self.children:
            child.process.stdout.close()
        return scheduler


# --- what is run ----------------------------------------------------------------------------------


def test_everything_due_is_run_and_the_scheduler_ends():
    done = World(SCORE, REPORT, FIT).ran()

    assert {due.job for due in done.started} == {SCORE.job, REPORT.job, FIT.job}
    assert done.failed == done.held == []


def test_nothing_due_is_nothing_done():
    assert World().ran().started == []


def test_at_most_two_jobs_run_at_a_time_and_one_fit():
    short = "import time; time.sleep(0.3)"
    jobs = [FIT, OTHER_FIT, SCORE, REPORT]
    world = World(*jobs, codes={due.job: short for due in jobs})

    done = world.ran()

    assert len(done.started) == 4
    assert max(map(len, world.at_a_time)) == 2
    assert {FIT.job, OTHER_FIT.job} not in map(set, world.at_a_time)
    assert world.at_a_time[1] == [FIT.job, SCORE.job]  # a fit does not hold up scoring


def test_a_job_that_never_succeeded_waits_for_those_before_it_in_its_domain():
    jobs = [Due(due.job, NOON, first=True) for due in (OTHER_FIT, FIT, SCORE, REPORT)]
    world = World(*jobs)

    done = world.ran()

    assert [due.job for due in done.started] == [due.job for due in jobs]
    assert {FIT.job, SCORE.job} not in map(set, world.at_a_time)
    assert {SCORE.job, REPORT.job} not in map(set, world.at_a_time)


@pytest.mark.parametrize(
    ("code", "how"),
    [
        (KILLED, "Its process was ended by SIGKILL."),
        (EXIT.format(1), "Its process ended with exit code 1."),
        (EXIT.format(75), "Its process ended with exit code 75."),
        ("import os; os.abort()", "Its process was ended by SIGABRT."),
    ],
    ids=["killed", "failed", "temporary", "aborted"],
)
def test_a_process_that_fails_is_noted_and_leaves_the_others_alone(code, how):
    world = World(FIT, SCORE, codes={FIT.job: code})

    done = world.ran()

    assert done.failed == [FIT]
    assert set(done.started) == {FIT, SCORE}
    assert [(child.due, child.fault) for child in world.settled] == [(FIT, how)]
    assert any(how in text for text in world.warned)


def test_a_process_that_cannot_be_started_fails_and_leaves_the_others_alone():
    world = World(FIT, SCORE)
    launch = world.launch

    def no_memory_for_a_fit(due):
        if due == FIT:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return launch(due)

    world.launch = no_memory_for_a_fit

    done = world.ran()

    assert (done.started, done.failed) == ([SCORE], [FIT])
    assert world.warned == [
        "fraudwatch.fit of 2026-03-20 12:00 could not be started: Cannot allocate memory."
    ]


def test_a_slot_that_another_has_is_no_failure_and_is_not_tried_in_a_loop():
    world = World(SCORE, codes={SCORE.job: EXIT.format(3)})
    look, world.look = world.look, lambda failed: look(failed) or [SCORE]  # due as before

    done = world.ran()

    assert done.held == done.started == [SCORE]
    assert done.failed == world.settled == []


# --- tables that do not answer --------------------------------------------------------------------


class Ending(World):
    """Answers of the tables, one after the other; after the last the scheduler is told to stop."""

    def __init__(self, *answers):
        super().__init__()
        self.answers = list(answers)

    def look(self, failed):
        answer = self.answers.pop(0)
        if not self.answers:
            os.kill(os.getpid(), signal.SIGTERM)
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_database_that_is_away_for_a_while_is_said_once_and_waited_for():
    away = TemporaryError("The database could not be reached.")
    world = Ending([], away, away, PeerwatchError("disk full"), [SCORE], [])

    done = world.ran(once=False, ring_seconds=0.05)

    assert done.started == [SCORE]
    assert world.warned == [
        "The database could not be reached. The scheduler goes on and asks again.",
        "disk full The scheduler goes on and asks again.",
        "The result tables answer again.",
    ]


@pytest.mark.parametrize(
    "answers",
    [
        [ConfigurationError("no such file"), []],
        [[], SchemaError("newer tables"), []],
        [[], ZeroDivisionError("a fault of ours"), []],
    ],
    ids=["configuration", "schema", "unforeseen"],
)
def test_what_waiting_does_not_mend_ends_the_scheduler(answers):
    world = Ending(*answers)

    with pytest.raises((ConfigurationError, SchemaError, ZeroDivisionError)):
        world.ran(once=False, ring_seconds=0.05)


def test_once_a_database_that_is_away_is_an_error():
    with pytest.raises(TemporaryError):
        Ending(TemporaryError("away"), []).ran()


def test_an_alarm_that_sleeps_is_replaced_by_its_silence(monkeypatch):
    """As where the wall clock was set back by a day, which APScheduler would wait for."""
    from contextlib import nullcontext

    monkeypatch.setattr(scheduling, "_alarm", lambda _ring, _seconds: nullcontext())
    world = Ending([], [SCORE], [])

    assert world.ran(once=False, ring_seconds=0.02).started == [SCORE]


# --- the end --------------------------------------------------------------------------------------


def stopped_when_on(world, number, **options):
    """Runs a scheduler that is told to stop once its child has begun; how long that took."""
    began: list[float] = []

    def stop():
        while not world.children:
            time.sleep(0.01)
        world.children[0].process.stdout.readline()
        began.append(time.monotonic())
        os.kill(os.getpid(), number)

    teller = threading.Thread(target=stop)
    teller.start()
    done = world.ran(once=False, **options)
    teller.join()
    return done, time.monotonic() - began[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_the_scheduler_stops_its_jobs_and_ends(number):
    world = World(FIT, codes={FIT.job: ENDLESS})
    before = signal.getsignal(number)

    stopped_when_on(world, number)

    assert world.children[0].process.returncode == -signal.SIGTERM
    assert signal.getsignal(number) is before


def test_a_job_that_ends_well_while_the_scheduler_stops_has_not_failed():
    world = World(FIT, codes={FIT.job: WILLING})

    done, _seconds = stopped_when_on(world, signal.SIGTERM)

    assert world.children[0].process.returncode == 0
    assert done.failed == []


def test_a_job_that_does_not_stop_is_killed(monkeypatch):
    monkeypatch.setattr(scheduling, "STOP_SECONDS", 0.2)
    world = World(FIT, codes={FIT.job: DEAF})

    done, _seconds = stopped_when_on(world, signal.SIGTERM)

    assert done.failed == [FIT]
    assert world.children[0].process.returncode == -signal.SIGKILL


def test_a_stop_does_not_wait_for_a_database_that_hangs():
    hanging = threading.Event()

    class Hanging(World):
        def look(self, failed):
            os.kill(os.getpid(), signal.SIGTERM)
            hanging.wait(60)
            return []

    Hanging().ran(once=False)

    assert not hanging.is_set()
    hanging.set()


def test_a_service_manager_gives_more_time_than_the_jobs_are_given():
    assert scheduling.STOP_SECONDS < 10


# --- the command of a job, and all of it together -------------------------------------------------


def test_the_command_of_a_job_is_the_one_a_person_types():
    assert command(SCORE, "my file.toml")[0] == sys.executable
    assert command(SCORE, "my file.toml")[-5:] == [
        "--config", "my file.toml", "--quiet", "fraudwatch", "score",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("job", "words"),
    [
        ("fraudwatch.score", ["--until", NOON.isoformat()]),
        ("fraudwatch.fit", ["--until", NOON.isoformat()]),
        ("fraudwatch.recalibrate", ["--until", NOON.isoformat()]),
        ("segmenter.fit", ["--until", NOON.isoformat()]),
        ("segmenter.score", ["--as-of", NOON.isoformat()]),
        ("fraudwatch.report", []),
        ("segmenter.report", []),
    ],
)
def test_a_slot_that_is_caught_up_is_run_as_of_its_moment(job, words):
    _, verb = job.split(".")

    typed = command(Due(job, NOON, catch_up=True), "peerwatch.toml")

    assert typed[typed.index(verb) + 1 :] == words
    assert command(Due(job, NOON), "peerwatch.toml")[-1] == verb


@pytest.fixture
def bank(database: str, tmp_path: Path) -> config.Configuration:
    """A bank without a champion, whose scoring is scheduled."""
    a_bank(database, [a_transaction()])
    make_results(database)
    path = tmp_path / "peerwatch.toml"
    path.write_text(toml(database, '[schedule]\n"fraudwatch.score" = "every 1 day"'))
    return config.load(path, {})


def runs_of(database: str) -> list[tuple]:
    table = "pipeline_runs" if database.startswith("sqlite") else "peerwatch.pipeline_runs"
    return ask(
        database, f'SELECT status, "trigger", slot_at, error FROM {table} ORDER BY started_at'
    )


@pytest.fixture
def typed(bank, monkeypatch, capfd):
    """Types `peerwatch schedule` and options; (exit code, data, standard error)."""

    def typed(*words: str) -> tuple[int, dict, str]:
        line = ["peerwatch", "schedule", "--config", str(bank.path), "--json", *words]
        monkeypatch.setattr(sys, "argv", line)
        code, said = main(), capfd.readouterr()
        return code, json.loads(said.out), said.err

    return typed


def test_a_dry_run_says_what_is_due_and_starts_nothing(database, typed):
    for words in (("--dry-run",), ("--dry-run", "--once")):
        assert typed(*words) == (0, {"jobs": ["fraudwatch.score"]}, "")

    assert runs_of(database) == []


def test_a_scheduled_run_is_a_process_whose_record_has_its_slot(database, typed):
    code, data, said = typed("--once")

    assert code == 1
    assert data == {
        "jobs": ["fraudwatch.score"], "failed": ["fraudwatch.score"], "done_by_another": [],
    }  # fmt: skip
    assert "exit code 2" in said
    assert "These jobs failed: fraudwatch.score" in said
    ((status, trigger, slot, error),) = runs_of(database)
    assert (status, trigger) == ("failed", "schedule")
    assert "found no champion" in error
    assert str(slot)[11:19] == "00:00:00"
    assert typed("--once")[:2] == (0, {"jobs": [], "failed": [], "done_by_another": []})


def test_a_process_that_died_at_once_is_in_the_tables_as_an_attempt(database, bank):
    def launch(due):
        process = subprocess.Popen([sys.executable, "-S", "-c", KILLED])
        return Child(due, process, datetime.now(UTC))

    def look(failed):
        return scheduling.look(bank, failed, datetime.now(UTC))

    scheduler = Scheduler(look, launch, print, print, once=True)
    scheduler.run()

    assert len(scheduler.started) == 1
    ((status, _, _, error),) = runs_of(database)
    assert (status, error) == ("failed", "Its process was ended by SIGKILL.")
    (due,) = slots.look(
        make_results(database), bank.schedule, datetime.now(UTC) + timedelta(minutes=3)
    )
    assert due.job == "fraudwatch.score"


@contextmanager
def away(database: str) -> Iterator[None]:
    """Nobody gets into the database while the block runs."""
    url = sa.engine.make_url(database)
    if url.get_backend_name() == "sqlite":
        with closing(sqlite3.connect(str(url.database), isolation_level=None)) as owner:
            owner.execute("BEGIN EXCLUSIVE")
            yield
        return
    server = url.set(database="postgres").render_as_string(False)
    execute(server, f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS false")
    try:
        yield
    finally:
        execute(server, f"ALTER DATABASE {url.database} ALLOW_CONNECTIONS true")


def test_a_database_that_was_away_at_a_tick_is_asked_again(database, bank, monkeypatch):
    monkeypatch.setattr("shared.database.BUSY_SECONDS", 0.1)
    world, warned = World(), []

    def launch(due):
        os.kill(os.getpid(), signal.SIGTERM)
        return world.launch(due)

    def come_back():
        with away(database):
            gone.set()
            while not warned and not over.is_set():
                time.sleep(0.01)

    gone, over = threading.Event(), threading.Event()
    owner = threading.Thread(target=come_back)
    owner.start()
    gone.wait()
    scheduler = Scheduler(
        lambda failed: scheduling.look(bank, failed, datetime.now(UTC)),
        launch, print, warned.append, ring_seconds=0.1,
    )  # fmt: skip
    try:
        scheduler.run()
    finally:
        over.set()
        owner.join()
    world.children[0].process.stdout.close()

    assert "The scheduler goes on and asks again." in warned[0]
    assert warned[-1] == "The result tables answer again."
    assert [due.job for due in scheduler.started] == ["fraudwatch.score"]


# --- schedulers as they are started ---------------------------------------------------------------


def started(folder: Path) -> subprocess.Popen[str]:
    """`peerwatch schedule`, by its configuration in a folder."""
    code = "import sys; from shared.cli import main; sys.exit(main())"
    return subprocess.Popen(
        [sys.executable, "-c", code, "--config", str(folder / "peerwatch.toml"), "schedule"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def fitted_bank(fitted_sqlite: str) -> Iterator[Bank]:
    with copies(fitted_sqlite) as url:
        yield Bank(url)


def test_of_two_schedulers_one_runs_the_slot_and_both_end_when_told(fitted_bank, tmp_path):
    bank, scheduled = fitted_bank, '[schedule]\n"fraudwatch.score" = "every 1 day"'
    (tmp_path / "peerwatch.toml").write_text(toml(bank.url, scheduled))
    both = [started(tmp_path), started(tmp_path)]

    while bank.count("pipeline_runs", "status = 'succeeded' AND slot_at IS NOT NULL") == 0:
        assert all(process.poll() is None for process in both), both[0].communicate()
        time.sleep(0.2)
    for process in both:
        process.send_signal(signal.SIGTERM)
    told = [process.communicate(timeout=60)[1] for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert bank.count("pipeline_runs", "slot_at IS NOT NULL") == 1
    assert bank.count("transaction_scores") == bank.count("current_transaction_scores") > 0
    assert not any("failed" in text for text in told)
