"""A run's record: what began, what failed, and what could not even begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared import config, migrating, runs
from shared.errors import ConfigurationError, PeerwatchError
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
