"""One runner per job: who may take a lease, and what becomes of one that was overtaken."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from shared import leases, runs
from shared.database import transaction
from shared.errors import HeldError, OvertakenError
from tests.builders import make_results

JOB = "fraudwatch.score"

HOLDER = """
import sys
import sqlalchemy as sa
from shared import leases
from shared.database import engine, parse_url
from shared.tables import tables
made = engine(parse_url(sys.argv[1]))
schema = None if sys.argv[1].startswith("sqlite") else "peerwatch"
with leases.holding(made, tables(None, schema, ""), "fraudwatch.score", "run-held"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def results(database):
    return make_results(database)


def taken(results, run_id="run-1"):
    return leases.holding(results.engine, results.tables, JOB, run_id)


def fenced(results, lease):
    with transaction(results.engine) as connection:
        return lease.fence(connection)


def expired(results, **values):
    """Nobody has shown a sign of life for long."""
    past = datetime.now(UTC) - timedelta(days=1)
    update = sa.update(results.tables.job_leases).values(expires_at=past, **values)
    with transaction(results.engine) as connection:
        connection.execute(update)


def cut_off(results):
    """The holder, of another machine, has shown no sign of life for long."""
    expired(results, holder="elsewhere 1 1")


def a_run_that_runs(results, run_id, job=JOB):
    values = dict.fromkeys(runs.COUNTS, 0)
    with transaction(results.engine) as connection:
        connection.execute(
            sa.insert(results.tables.pipeline_runs).values(
                run_id=run_id, job=job, trigger="manual", status="running",
                started_at=datetime.now(UTC), **values,
            )
        )  # fmt: skip


def statuses(results):
    table = results.tables.pipeline_runs
    with transaction(results.engine) as connection:
        return dict(connection.execute(sa.select(table.c.run_id, table.c.status)).fetchall())


@pytest.fixture
def elsewhere(database):
    """A process of its own that holds the job until the test is over."""
    command = [sys.executable, "-c", HOLDER, database]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_job_is_held_by_one_runner_and_others_are_told_by_whom(results):
    with (
        taken(results),
        pytest.raises(HeldError, match=rf"fraudwatch score runs already: run-1.*{os.getpid()}"),
    ):
        taken(results, "run-2").__enter__()


def test_other_jobs_are_not_held(results):
    with taken(results), leases.holding(results.engine, results.tables, "segmenter.fit", "run-2"):
        pass


def test_a_lease_that_was_given_back_is_taken_with_a_higher_token(results):
    with taken(results) as first:
        pass
    with taken(results, "run-2") as second:
        assert second.token == first.token + 1
        with pytest.raises(OvertakenError):
            fenced(results, first)
        assert fenced(results, second)


def test_a_runner_in_another_process_holds_the_job(results, elsewhere):
    with pytest.raises(HeldError, match=rf"run-held.*{elsewhere.pid}"):
        taken(results).__enter__()


def test_a_killed_runners_job_is_free_at_once_and_its_run_abandoned(results, elsewhere):
    a_run_that_runs(results, "run-held")
    elsewhere.send_signal(signal.SIGKILL)
    elsewhere.wait()

    with taken(results, "run-2"):
        assert statuses(results) == {"run-held": "abandoned"}


def test_a_killed_runner_that_nobody_waited_for_is_gone_as_well(results, elsewhere):
    elsewhere.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, elsewhere.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie

    with taken(results, "run-2"):
        pass


def test_a_paused_runner_keeps_the_job_until_its_lease_expires_and_writes_nothing_after(
    results, elsewhere
):
    elsewhere.send_signal(signal.SIGSTOP)
    with pytest.raises(HeldError):
        taken(results).__enter__()
    with transaction(results.engine) as connection:
        token = connection.execute(sa.select(results.tables.job_leases.c.token)).scalar_one()
    expired(results)

    with taken(results, "run-2") as second:
        with pytest.raises(OvertakenError, match="taken over by another runner"):
            fenced(results, leases.Lease(results.tables, JOB, token))
        assert second.token == token + 1


def test_an_overtaken_runners_unit_of_work_is_rolled_back(results):
    table = results.tables.settings
    with taken(results) as first:
        cut_off(results)
        with (
            taken(results, "run-2"),
            pytest.raises(OvertakenError),
            transaction(results.engine) as connection,
        ):
            connection.execute(sa.insert(table).values(key="a", value="b"))
            first.fence(connection)
        with transaction(results.engine) as connection:
            assert connection.execute(sa.select(table.c.key).where(table.c.key == "a")).all() == []


def test_the_end_of_an_overtaken_runner_does_not_give_back_the_others_lease(results):
    first = taken(results)
    first.__enter__()
    cut_off(results)
    with taken(results, "run-2"):
        first.__exit__(None, None, None)
        with pytest.raises(HeldError, match="run-2"):
            taken(results, "run-3").__enter__()


def test_a_long_fit_keeps_its_lease_on_sqlite_where_only_writes_renew_it(sqlite_url):
    results = make_results(sqlite_url)
    with taken(results) as lease:
        expired(results)
        with pytest.raises(HeldError):
            taken(results, "run-2").__enter__()
        assert fenced(results, lease)


def test_a_number_that_another_users_process_has_by_now_is_no_runner(results, monkeypatch):
    def refused(_process, _signal):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    monkeypatch.setattr(leases, "_stat", lambda _process: ["S", *["0"] * 18, "555"])
    machine = socket.gethostname()

    assert leases._state(f"{machine} 1234 111") == leases.GONE
    assert leases._state(f"{machine} 1234 555") == leases.RUNS

    monkeypatch.setattr(leases, "_stat", lambda _process: [])  # the system does not tell
    assert leases._state(f"{machine} 1234 111") == leases.RUNS


def test_what_a_gone_runner_left_running_is_abandoned_and_what_lives_is_not(results, elsewhere):
    a_run_that_runs(results, "run-held")
    a_run_that_runs(results, "run-left", "segmenter.fit")

    found = leases.abandon_dead(results.engine, results.tables)

    assert found == ["run-left"]
    assert statuses(results) == {"run-held": "running", "run-left": "abandoned"}


def test_a_lease_tells_which_unit_of_work_was_committed_last(results):
    with taken(results) as lease:
        unit = fenced(results, lease)
        with transaction(results.engine) as connection:
            assert lease.committed(connection, unit)
            assert not lease.committed(connection, "another")


def test_of_many_that_start_together_one_gets_the_job(results):
    got: list[str] = []
    together = threading.Barrier(5)
    over = threading.Event()

    def run(name: str) -> None:
        together.wait()
        try:
            with taken(results, name):
                got.append(name)
                over.wait(60)
        except HeldError:
            got.append("held")
            if got.count("held") == 4:
                over.set()

    threads = [threading.Thread(target=run, args=(f"run-{i}",)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(got)[:4] == ["held"] * 4
    assert len(got) == 5


def test_a_cut_session_of_the_holder_is_opened_anew(postgresql_url, monkeypatch):
    results = make_results(postgresql_url)
    monkeypatch.setattr(leases, "BEAT", 0.05)
    ours = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND pid <> pg_backend_pid()"
    with taken(results) as lease:
        with transaction(results.engine) as connection:
            (before,) = connection.exec_driver_sql(ours).scalars()
            connection.exec_driver_sql(f"SELECT pg_terminate_backend({before})")
        deadline = datetime.now(UTC) + timedelta(seconds=30)
        after: list[int] = []
        while not after and datetime.now(UTC) < deadline:
            with transaction(results.engine) as connection:
                after = [pid for pid in connection.exec_driver_sql(ours).scalars() if pid != before]
        assert after
        assert fenced(results, lease)
        with pytest.raises(HeldError):
            taken(results, "run-2").__enter__()


def test_a_lock_that_a_cut_session_still_holds_is_taken_when_it_is_free(postgresql_url):
    results = make_results(postgresql_url)
    lease = leases.Lease(results.tables, JOB, 1)
    keys = leases._keys(results.tables, JOB, 1)
    with taken(results):
        pass
    expired(results)

    def is_free() -> bool:
        with transaction(results.engine) as connection:
            try_lock = sa.select(sa.func.pg_try_advisory_xact_lock(*keys))
            return bool(connection.execute(try_lock).scalar())

    with results.engine.connect() as cut:
        cut.execute(sa.select(sa.func.pg_advisory_lock(*keys)))
        with leases._Pulse(results.engine, lease) as pulse:
            pulse._beat()
            with pytest.raises(HeldError):
                taken(results, "run-2").__enter__()
            cut.execute(sa.select(sa.func.pg_advisory_unlock(*keys)))
            assert is_free()

            pulse._beat()

            assert not is_free()
    assert is_free()
