"""What monitors are told: what is late, what failed, how far the source is scored."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from shared import config, health, leases
from shared.cli import main
from shared.database import insert_row
from shared.frames import micros
from shared.health import check, openmetrics
from shared.rules import Entry
from shared.runs import COUNTS, Results, new_id, write_settings
from shared.slots import look
from tests.builders import make_results, toml
from tests.small_bank import Bank

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
NOON = datetime(2026, 3, 20, 12, tzinfo=UTC)
SCORE, REPORT = "fraudwatch.score", "fraudwatch.report"
SCHEDULE = f'[schedule]\n"{SCORE}" = "every 15 minutes"\n"{REPORT}" = "0 6 * * *"'


class Monitored:
    """A bank whose runs are told by hand."""

    def __init__(self, results: Results, folder: Path, schedule: str = SCHEDULE) -> None:
        self.results = results
        url = results.engine.url.render_as_string(hide_password=False)
        path = folder / "peerwatch.toml"
        path.write_text(toml(url, schedule))
        self.config = config.load(path, {})

    def ran(self, job, slot, status="succeeded", **more):
        started = more.pop("started", slot)
        row = {
            "run_id": new_id(job, started),
            "job": job,
            "trigger": "schedule",
            "status": status,
            "slot_at": slot,
            "started_at": started,
            "finished_at": None if status == "running" else started + MINUTE,
            **dict.fromkeys(COUNTS, 0),
            **more,
        }
        with self.results.transaction() as connection:
            assert insert_row(connection, self.results.tables.pipeline_runs, row)

    def healthy_at(self, now=NOON):
        self.ran(SCORE, now)
        self.ran(REPORT, now.replace(hour=6, minute=0))

    def check(self, now=NOON, max_lag=HOUR):
        return check(self.config, now, max_lag)

    def job(self, name, now=NOON):
        return next(job for job in self.check(now).jobs if job.job == name)


@pytest.fixture
def bank(kept_results: Results, tmp_path: Path) -> Monitored:
    return Monitored(kept_results, tmp_path)


# --- well, or not ---------------------------------------------------------------------------------


def test_where_all_slots_are_served_it_is_healthy(bank):
    bank.healthy_at(NOON)

    found = bank.check()

    assert found.reasons == ()
    assert [job.past_due_seconds for job in found.jobs] == [0, 0]
    assert bank.job(SCORE).last_success_at == NOON + MINUTE
    assert bank.job(SCORE, NOON + HOUR).last_success_age_seconds == 59 * 60


def test_a_job_is_late_from_the_first_slot_that_nobody_served(bank):
    bank.healthy_at(NOON)

    on_the_hour = bank.check(NOON + 75 * MINUTE)
    a_moment_later = bank.check(NOON + 75 * MINUTE + timedelta(seconds=1))

    assert bank.job(SCORE, NOON + 75 * MINUTE).due_since == NOON + 15 * MINUTE
    assert on_the_hour.reasons == ()
    assert a_moment_later.reasons == (
        "fraudwatch.score of 2026-03-20 12:15 UTC is 60 minutes past due.",
    )
    assert bank.check(NOON + 75 * MINUTE + timedelta(seconds=1), 2 * HOUR).reasons == ()


def test_slots_that_were_missed_or_skipped_are_not_served(bank):
    bank.healthy_at(NOON)
    for minutes, status in ((15, "missed"), (30, "skipped"), (45, "missed")):
        bank.ran(SCORE, NOON + minutes * MINUTE, status)

    job = bank.job(SCORE, NOON + 60 * MINUTE)

    assert job.missed_slots == 2
    assert job.past_due_seconds == 45 * 60
    assert job.last_status == "succeeded"

    bank.ran(SCORE, NOON + 60 * MINUTE)
    assert bank.job(SCORE, NOON + 60 * MINUTE).missed_slots == 0


def test_a_run_by_hand_serves_as_well(bank):
    bank.healthy_at(NOON)
    bank.ran(SCORE, None, started=NOON + 2 * HOUR, trigger="manual")

    assert bank.job(SCORE, NOON + 2 * HOUR).due_since == NOON + 2 * HOUR + 15 * MINUTE


def test_a_run_under_way_is_late_from_its_start(bank):
    bank.healthy_at(NOON)
    with leases.holding(bank.results.engine, bank.results.tables, SCORE, "run-held"):
        bank.ran(SCORE, NOON + 15 * MINUTE, "running", started=NOON + 70 * MINUTE)

        job = bank.job(SCORE, NOON + 90 * MINUTE)
        assert job.running_since == NOON + 70 * MINUTE
        assert job.past_due_seconds == 20 * 60
        assert bank.check(NOON + 120 * MINUTE).reasons == ()
        assert len(bank.check(NOON + 131 * MINUTE).reasons) == 1


def test_a_job_whose_last_run_failed_is_not_well(bank):
    bank.healthy_at(NOON)
    bank.ran(SCORE, NOON + 15 * MINUTE, "failed", error="no champion")

    assert bank.check(NOON + 16 * MINUTE).reasons == (
        "The last run of fraudwatch.score failed: no champion",
    )
    bank.ran(SCORE, NOON + 15 * MINUTE, started=NOON + 17 * MINUTE)
    assert bank.check(NOON + 18 * MINUTE).reasons == ()


def test_a_run_that_was_stopped_is_no_failure(bank):
    bank.healthy_at(NOON)
    bank.ran(SCORE, NOON + 15 * MINUTE, "abandoned")

    assert bank.check(NOON + 16 * MINUTE).reasons == ()


def test_a_job_that_never_ran_is_late_from_the_first_look_on(bank):
    look(bank.results, bank.config.schedule, NOON)

    assert bank.job(SCORE, NOON).due_since == NOON
    assert bank.job(REPORT, NOON).due_since == NOON - 6 * HOUR
    assert len(bank.check(NOON + 61 * MINUTE).reasons) == 2


def test_a_rule_that_is_new_has_missed_nothing_since_the_last_run_by_hand(bank):
    bank.ran(SCORE, None, started=NOON - 72 * HOUR, trigger="manual")
    look(bank.results, bank.config.schedule, NOON)

    assert bank.job(SCORE, NOON + 10 * MINUTE).due_since == NOON
    assert not any(SCORE in reason for reason in bank.check(NOON + 10 * MINUTE).reasons)


def test_a_rule_that_is_changed_has_missed_nothing_since_the_last_run_under_the_old_one(bank):
    look(bank.results, {SCORE: Entry("0 12 * * fri")}, NOON - 144 * HOUR)
    bank.ran(SCORE, NOON - 144 * HOUR)
    look(bank.results, bank.config.schedule, NOON)

    assert bank.job(SCORE, NOON + 10 * MINUTE).due_since == NOON
    bank.ran(SCORE, NOON)
    assert bank.job(SCORE, NOON + 40 * MINUTE).due_since == NOON + 15 * MINUTE


def test_a_schedule_that_was_never_started_is_late_from_the_first_run_of_any_job(bank):
    bank.ran("fraudwatch.fit", None, started=NOON - MINUTE, trigger="manual")

    assert bank.job(SCORE, NOON + 3 * HOUR).due_since == NOON
    assert len(bank.check(NOON + 3 * HOUR).reasons) == 1


def test_without_a_schedule_the_jobs_that_ran_are_asked_whether_they_failed(kept_results, tmp_path):
    bank = Monitored(kept_results, tmp_path, schedule="")
    bank.ran(SCORE, None, started=NOON - 100 * HOUR)
    assert bank.check().reasons == ()

    bank.ran(REPORT, None, "failed", started=NOON, error="disk full")

    assert bank.check().reasons == ("The last run of fraudwatch.report failed: disk full",)


def test_a_clock_that_went_back_makes_no_negative_age(bank):
    bank.healthy_at(NOON)

    found = bank.check(NOON - 5 * HOUR)

    assert all(job.past_due_seconds >= 0 for job in found.jobs)
    assert all((job.last_success_age_seconds or 0) >= 0 for job in found.jobs)


# --- how far the source is scored -----------------------------------------------------------------


def test_the_lag_is_between_what_any_run_saw_and_what_is_scored(bank):
    bank.ran(SCORE, NOON - HOUR, window_to=NOON - HOUR)
    bank.ran("segmenter.fit", None, started=NOON, window_to=NOON - 10 * MINUTE)
    with bank.results.transaction() as connection:
        reached = {"scored_until": str(micros(NOON - HOUR))}
        write_settings(connection, bank.results.tables, reached)

    found = bank.check()

    assert (found.known_until, found.scored_until) == (NOON - 10 * MINUTE, NOON - HOUR)
    assert found.lag_seconds == 50 * 60


def test_pending_rows_are_those_of_the_view(fitted_database):
    bank = Bank(fitted_database)
    bank.score(until=datetime(2026, 2, 20, tzinfo=UTC))
    late = bank.ask("SELECT min(transaction_id) FROM #current_transaction_scores")[0][0]
    bank.say(f"DELETE FROM #transaction_scores WHERE transaction_id = {late}")

    found = check(bank.config, NOON, HOUR)

    assert found.pending_rows == bank.covered("pending") >= 1
    assert found.too_late_rows == bank.covered("too_late")
    assert found.scored_until == datetime(2026, 2, 20, tzinfo=UTC)


# --- as a command ---------------------------------------------------------------------------------


def typed(monkeypatch, capsys, bank, *words):
    """(exit code, standard output) of `peerwatch health`."""
    arguments = ["peerwatch", "health", *words, "--config", str(bank.config.path)]
    monkeypatch.setattr(sys, "argv", arguments)
    code = main()
    return code, capsys.readouterr().out


def test_the_exit_code_tells_a_monitor(monkeypatch, capsys, bank):
    now = datetime.now(UTC)
    for job in (SCORE, REPORT):
        bank.ran(job, None, started=now - 2 * MINUTE)
    assert typed(monkeypatch, capsys, bank) == (0, typed(monkeypatch, capsys, bank)[1])

    code, text = typed(monkeypatch, capsys, bank, "--json")
    assert code == 0
    assert json.loads(text)["healthy"] is True
    assert {job["job"] for job in json.loads(text)["jobs"]} == {SCORE, REPORT}

    bank.ran(SCORE, None, "failed", started=now - MINUTE, error="lost")
    code, text = typed(monkeypatch, capsys, bank, "--json")
    assert code == 1
    assert json.loads(text)["reasons"] == ["The last run of fraudwatch.score failed: lost"]
    assert typed(monkeypatch, capsys, bank)[1].startswith("FAULT The last run")
    assert typed(monkeypatch, capsys, bank, "--quiet") == (1, "")


def test_tables_that_cannot_be_reached_are_not_well(postgresql_url, tmp_path, monkeypatch, capsys):
    bank = Monitored(make_results(postgresql_url), tmp_path)
    away = re.sub(r"host=[^&\"]*", "host=/nowhere", bank.config.path.read_text())
    bank.config.path.write_text(away)

    code, text = typed(monkeypatch, capsys, bank, "--openmetrics")

    assert code == 1
    assert samples(text)["peerwatch_healthy"] == {"": 0.0}


@pytest.mark.parametrize("span", ["1", "h", "-1h", "1.5h", "an hour", "", "1w"])
def test_a_lag_that_is_no_span_of_time_is_refused(monkeypatch, capsys, bank, span):
    assert typed(monkeypatch, capsys, bank, "--max-lag", span)[0] == 2


def test_the_runs_are_shown_with_their_slots_errors_and_notes(monkeypatch, capsys, bank):
    bank.ran(SCORE, NOON, "failed", error="disk full", note="ended by SIGKILL")
    bank.ran(REPORT, None, started=NOON + HOUR)
    monkeypatch.setattr(sys, "argv", ["peerwatch", "runs", "--config", str(bank.config.path)])

    assert main() == 0

    by_hand, scheduled = capsys.readouterr().out.splitlines()
    assert by_hand.startswith("2026-03-20 13:00:00  fraudwatch.report   succeeded  ")
    assert by_hand.endswith("quarantined     0")
    assert "@ 2026-03-20 12:00  read" in scheduled
    assert scheduled.endswith("disk full  ended by SIGKILL")


# --- OpenMetrics ----------------------------------------------------------------------------------

NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABEL = r'[a-zA-Z_][a-zA-Z0-9_]*="(?:[^"\\\n]|\\["\\n])*"'
METADATA = re.compile(rf"# (TYPE|UNIT|HELP) ({NAME}) (.+)")
SAMPLE = re.compile(rf"({NAME})(\{{{LABEL}(?:,{LABEL})*\}})? (-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


def samples(text: str) -> dict[str, dict[str, float]]:
    """The gauges of an exposition, read by the rules of OpenMetrics 1.0.

    One family after the other; its TYPE, UNIT and HELP once and before its samples; no blank line;
    `# EOF` at the end.
    """
    assert text.endswith("# EOF\n")
    found: dict[str, dict[str, float]] = {}
    said: dict[str, dict[str, str]] = {}
    family = ""
    for line in text.removesuffix("# EOF\n").splitlines():
        if metadata := METADATA.fullmatch(line):
            kind, name, value = metadata.groups()
            if name != family:
                assert name not in said, "a family stands in one place"
                family, said[name], found[name] = name, {}, {}
            assert kind not in said[name]
            assert not found[name], "metadata stand before samples"
            said[name][kind] = value
            continue
        sample = SAMPLE.fullmatch(line)
        assert sample is not None, line
        name, labels, value = sample.groups()
        assert name == family
        assert (labels or "") not in found[name], "a sample stands once"
        found[name][labels or ""] = float(value)
    for name, told in said.items():
        assert told["TYPE"] == "gauge"
        assert "UNIT" not in told or name.endswith(f"_{told['UNIT']}")
        assert "HELP" in told
    return found


def test_the_metrics_are_openmetrics_and_say_what_the_data_say(bank):
    bank.healthy_at(NOON)
    bank.ran(SCORE, NOON + 15 * MINUTE, "missed")
    bank.ran(REPORT, None, "failed", started=NOON + MINUTE, error='"\n\\')

    now = NOON + 40 * MINUTE
    told = samples(openmetrics(bank.check(now)))

    score, report = f'{{job="{SCORE}"}}', f'{{job="{REPORT}"}}'
    success = (NOON + MINUTE).timestamp()
    assert told["peerwatch_healthy"] == {"": 0.0}
    assert told["peerwatch_last_success_timestamp_seconds"][score] == success
    assert told["peerwatch_last_run_failed"] == {score: 0.0, report: 1.0}
    assert told["peerwatch_past_due_seconds"] == {score: 25 * 60.0, report: 0.0}
    assert told["peerwatch_missed_slots"] == {score: 1.0, report: 0.0}
    assert told["peerwatch_running_since_timestamp_seconds"] == {}
    assert told["peerwatch_pending_rows"] == {"": 0.0}


def test_every_figure_that_is_known_is_a_metric():
    job = health.JobHealth(SCORE, NOON, 1.0, "succeeded", None, NOON, NOON, 0.0, 0)
    known = health.Health((), (job,), NOON, NOON, 0.0, 5, 2)

    told = samples(openmetrics(known))

    assert len(told) == 11
    assert all(len(values) == 1 for values in told.values())
    assert told["peerwatch_scored_until_timestamp_seconds"] == {"": NOON.timestamp()}


def test_the_tables_are_left_as_they_were(bank):
    bank.healthy_at(NOON)
    table = bank.results.tables.pipeline_runs

    def everything():
        with bank.results.transaction() as connection:
            return connection.execute(sa.select(table).order_by(table.c.run_id)).all()

    before = everything()
    bank.check(NOON + 10 * HOUR)

    assert everything() == before
