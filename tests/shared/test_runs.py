"""A run's record: what began, what failed, and what could not even begin."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared import config, leases, migrating, runs
from shared.errors import (
    ConfigurationError,
    HeldError,
    OvertakenError,
    PeerwatchError,
    TemporaryError,
)
from shared.jobs import Job, Outcome, Request
from tests.builders import NOW, a_bank, a_transaction, ask, run_sql, toml


@pytest.fixture
def bank(database: str, tmp_path: Path) -> tuple[config.Configuration, str]:
    """A bank with one payment and its result tables; the configuration, and where `runs` are."""
    a_bank(database, [a_transaction()])
    path = tmp_path / "peerwatch.toml"
    path.write_text(toml(database), encoding="utf-8")
    settings = config.load(path, {})
    results = runs.results_of(settings, dict.fromkeys(("transaction", "customer"), "integer"))
    with results.transaction() as connection:
        migrating.upgrade(connection, results.target)
    schema = f"{results.target.schema}." if results.target.schema else ""
    return settings, f"{schema}{results.tables.name('pipeline_runs')}"


def recorded(database: str, table: str) -> list[tuple]:
    return ask(database, f'SELECT job, "trigger", status, error FROM {table} ORDER BY started_at')


def test_a_job_that_ends_well_is_recorded_with_its_counts(database, bank):
    settings, table = bank
    job = Job("fraudwatch.score", lambda run, request: Outcome("done", rows_read=3))

    with runs.opened(settings, job.name, NOW, trigger="manual") as run:
        runs.execute(run, job, Request(), "manual")

    assert recorded(database, table) == [("fraudwatch.score", "manual", "succeeded", None)]
    assert ask(database, f"SELECT rows_read FROM {table}") == [(3,)]


def test_a_job_that_fails_is_recorded_as_failed_and_the_failure_goes_on(database, bank):
    settings, table = bank

    def fails(run, request):
        raise PeerwatchError("the model was lost")

    with (
        pytest.raises(PeerwatchError, match="the model was lost"),
        runs.opened(settings, "fraudwatch.fit", NOW, trigger="manual") as run,
    ):
        runs.execute(run, Job("fraudwatch.fit", fails), Request(), "manual")

    assert recorded(database, table) == [
        ("fraudwatch.fit", "manual", "failed", "the model was lost")
    ]


def test_a_job_that_cannot_begin_is_recorded_with_what_started_it(database, bank):
    settings, table = bank
    run_sql(database, "ALTER TABLE card_tx RENAME COLUMN amt TO sum_amt")

    with (
        pytest.raises(ConfigurationError, match="no column amt"),
        runs.opened(settings, "fraudwatch.score", NOW, trigger="schedule"),
    ):
        pass

    ((job, trigger, status, error),) = recorded(database, table)
    assert (job, trigger, status) == ("fraudwatch.score", "schedule", "failed")
    assert "no column amt" in error


def test_without_a_trigger_nothing_is_recorded(database, bank):
    settings, table = bank
    run_sql(database, "ALTER TABLE card_tx RENAME COLUMN amt TO sum_amt")

    with (
        pytest.raises(ConfigurationError, match="no column amt"),
        runs.opened(settings, "fraudwatch.evaluate", NOW),
    ):
        pass

    assert recorded(database, table) == []


# --- units of work --------------------------------------------------------------------------------


@pytest.fixture
def quick(monkeypatch):
    """Tries follow each other at once; what is tested is how many there are."""
    monkeypatch.setattr(runs, "FIRST_PAUSE", 0.001)


@pytest.fixture
def held(bank, quick):
    """A run that holds its job."""
    settings, _ = bank
    with ExitStack() as stack:
        run = stack.enter_context(runs.opened(settings, "fraudwatch.score", NOW))
        held = leases.holding(run.results.engine, run.tables, run.job, run.run_id)
        yield replace(run, lease=stack.enter_context(held))


def remembering(run, value="yes"):
    return lambda connection: runs.write_settings(connection, run.tables, {"met": value})


def met(run):
    with run.results.transaction() as connection:
        return runs.read_settings(connection, run.tables, "met").get("")


class Failing:
    """A unit of work that fails a number of times before it succeeds; it writes each time."""

    def __init__(self, run, times, error):
        self.run, self.left, self.error, self.tried = run, times, error, 0

    def __call__(self, connection):
        self.tried += 1
        remembering(self.run, f"try {self.tried}")(connection)
        if self.left:
            self.left -= 1
            raise self.error
        return "done"


def test_what_failed_for_a_while_is_tried_again_as_a_whole(held):
    work = Failing(held, 3, TemporaryError("busy"))

    assert runs.unit(held, "fraudwatch", work) == "done"
    assert (work.tried, met(held)) == (4, "try 4")


def test_tries_are_bounded_and_leave_nothing(held):
    work = Failing(held, 99, TemporaryError("busy"))

    with pytest.raises(TemporaryError, match="busy"):
        runs.unit(held, "fraudwatch", work)
    assert (work.tried, met(held)) == (runs.TRIES, None)


@pytest.mark.parametrize("error", [OvertakenError("gone"), ConfigurationError("wrong")])
def test_what_trying_cannot_mend_is_not_tried_again(held, error):
    work = Failing(held, 99, error)

    with pytest.raises(type(error)):
        runs.unit(held, "fraudwatch", work)
    assert (work.tried, met(held)) == (1, None)


def test_pauses_grow_and_no_two_are_alike():
    pauses = [list(runs._pauses()) for _ in range(2)]

    assert pauses[0] != pauses[1]
    for found in pauses:
        assert len(found) == runs.TRIES - 1
        assert found[-1] > 8 * found[0]
        assert 10 < sum(found) < 60


@pytest.mark.parametrize("made", [True, False])
def test_a_commit_without_an_answer_is_looked_up_before_it_is_tried_again(held, made, monkeypatch):
    """The connection breaks at the commit: before it reached the server, or after."""
    dialect = held.results.engine.dialect
    commit, broken = dialect.do_commit, iter([True])

    def breaks(connection):
        if not next(broken, False):
            return commit(connection)
        if made:
            commit(connection)
        raise dialect.dbapi.OperationalError("the connection was cut")

    tried = []

    def work(connection):
        tried.append(met)
        remembering(held)(connection)
        return len(tried)

    monkeypatch.setattr(dialect, "do_commit", breaks)
    found = runs.unit(held, "fraudwatch", work)

    assert met(held) == "yes"
    assert (found, len(tried)) == ((1, 1) if made else (2, 2))


def test_a_terminated_session_is_tried_again(held):
    if held.results.engine.dialect.name != "postgresql":
        pytest.skip("SQLite has no sessions to terminate")
    tried = []

    def work(connection):
        remembering(held)(connection)
        tried.append(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar())
        if len(tried) == 1:
            run_sql(held.results.engine.url, f"SELECT pg_terminate_backend({tried[0]})")
            connection.exec_driver_sql("SELECT 1")

    runs.unit(held, "fraudwatch", work)

    assert len(set(tried)) == 2
    assert met(held) == "yes"


# --- slots ----------------------------------------------------------------------------------------

SLOT = NOW.replace(minute=0, second=0, microsecond=0)


def scheduled(settings, work, now=NOW):
    job = Job("fraudwatch.score", work)
    with runs.opened(settings, job.name, now, trigger="schedule", slot=SLOT) as run:
        return runs.execute(run, job, Request(), "schedule", SLOT)


def done(run, request):
    return Outcome("done")


def test_a_slot_is_done_once(database, bank):
    settings, table = bank
    scheduled(settings, done)

    with pytest.raises(HeldError, match="was done, or is being done, by another runner"):
        scheduled(settings, done)
    assert ask(database, f"SELECT status FROM {table} WHERE slot_at IS NOT NULL") == [
        ("succeeded",)
    ]


def test_a_slot_whose_run_failed_may_be_tried_again(database, bank):
    settings, table = bank

    def fails(run, request):
        raise TemporaryError("busy")

    with pytest.raises(TemporaryError):
        scheduled(settings, fails)
    scheduled(settings, done)

    assert sorted(ask(database, f"SELECT status FROM {table}")) == [("failed",), ("succeeded",)]


def test_a_run_that_is_told_to_stop_is_abandoned(database, bank):
    settings, table = bank

    def stops(run, request):
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        scheduled(settings, stops)

    assert ask(database, f"SELECT status, error FROM {table}") == [
        ("abandoned", "It was told to stop.")
    ]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_a_transaction_that_was_cut_off_before_its_block_holds_up_no_record(
    database, bank, monkeypatch
):
    monkeypatch.setattr("shared.database.BUSY_SECONDS", 0.2)
    settings, table = bank

    def stops(run, request):
        begun = run.results.transaction()
        begun.__enter__()
        raise SystemExit(143)

    with pytest.raises(SystemExit):
        scheduled(settings, stops)

    assert ask(database, f"SELECT status FROM {table}") == [("abandoned",)]


def test_a_clock_that_goes_back_gives_no_run_a_negative_duration(database, bank):
    settings, table = bank
    scheduled(settings, done, now=datetime.now(UTC) + timedelta(days=400))

    ((started, finished),) = ask(database, f"SELECT started_at, finished_at FROM {table}")
    assert finished >= started


def test_a_second_runner_by_hand_is_told_and_ends_with_3(held):
    job = Job("fraudwatch.score", done)

    with pytest.raises(HeldError, match=f"runs already: {held.run_id}") as told:
        runs.execute(replace(held, run_id="run-2"), job, Request(), "manual")
    assert told.value.exit_code == 3


def test_a_dry_run_needs_no_lease(held):
    job = Job("fraudwatch.score", done)

    assert runs.execute(held, job, Request(dry_run=True), "manual").message == "done"
