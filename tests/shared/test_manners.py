"""How peerwatch behaves on the user's database: short, named, limited, read-only sessions."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from shared.database import (
    FITTING,
    NAME_BYTES,
    SCORING,
    Limits,
    Reader,
    limits_of,
    parse_url,
    session_name,
)
from shared.errors import TemporaryError
from shared.runs import new_id
from shared.source import Source
from tests.builders import CLOCK, EVER, NOW, a_bank, a_source, a_transaction, ask, run_sql
from tests.small_bank import Bank

RUN = "peerwatch/fraudwatch.score/fraudwatch.score-20260320T120000-a1b2c3"
NAMED = "peerwatch/fraudwatch.score/20260320T120000-a1b2c3"


def a_run(url: str, limits: Limits = SCORING) -> Source:
    """The source as a run of the scoring job opens it."""
    return Source(a_source(url).settings, RUN, limits)


@contextmanager
def a_role(url: str, *granted: str, connections: int = -1) -> Iterator[str]:
    """The URL of a role that may read the tables of `public`, and what else is granted."""
    name = f"reader_{secrets.token_hex(4)}"
    run_sql(
        url,
        f"CREATE ROLE {name} LOGIN PASSWORD 'reads' CONNECTION LIMIT {connections}",
        f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name}",
        *(f"GRANT {right} TO {name}" for right in granted),
    )
    try:
        yield make_url(url).set(username=name, password="reads").render_as_string(False)
    finally:
        run_sql(url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


# --- sessions -----------------------------------------------------------------------------------


def test_both_sessions_on_the_source_carry_the_job_and_the_run(postgresql_url):
    a_bank(postgresql_url, [a_transaction()])
    named = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{NAMED}'"

    with a_run(postgresql_url) as source, source.session() as connection:
        own = connection.execute(sa.select(sa.func.pg_backend_pid())).scalar()
        reads = {pid for (pid,) in ask(postgresql_url, named)}

    assert own in reads
    assert len(reads) == 2, "the one for rows is the second"


@pytest.mark.parametrize("job", ["fraudwatch.score", "fraudwatch.recalibrate", "segmenter.fit"])
def test_a_session_is_named_by_the_whole_job_and_the_whole_run(job):
    run = new_id(job, NOW)

    name = session_name(f"peerwatch/{job}/{run}")

    assert name == f"peerwatch/{job}/{run.removeprefix(job + '-')}"
    assert len(name.encode()) <= NAME_BYTES


def test_of_a_long_name_the_job_is_cut_and_the_run_is_kept():
    name = session_name(f"peerwatch/{'ä' * 60}/20260320T120000-a1b2c3")

    assert name.startswith("peerwatch/ää")
    assert name.endswith("ä/20260320T120000-a1b2c3")
    assert NAME_BYTES - 1 <= len(name.encode()) <= NAME_BYTES


@pytest.mark.parametrize(
    ("job", "limits"),
    [
        ("fraudwatch.score", SCORING), ("segmenter.score", SCORING),
        ("backfill.fraudwatch", SCORING), ("fraudwatch.fit", FITTING),
        ("fraudwatch.recalibrate", FITTING), ("segmenter.fit", FITTING),
        ("fraudwatch.report", FITTING),
    ],
)  # fmt: skip
def test_a_snapshot_may_be_a_minute_old_in_scoring_and_five_in_a_fit(job, limits):
    assert limits_of(job) == limits
    assert (SCORING.statement, FITTING.statement) == (60, 300)


SETTINGS = {
    "default_transaction_read_only": "on",
    "statement_timeout": "1min",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "1min",
}


def test_both_sessions_are_read_only_and_limited_by_the_server(postgresql_url):
    a_bank(postgresql_url, [a_transaction()])
    shows = sa.select(*(sa.func.current_setting(name).label(name) for name in SETTINGS))

    with a_run(postgresql_url) as source, source.session() as connection:
        catalogue = dict(connection.execute(shows).one()._mapping)
    with Reader(parse_url(postgresql_url), RUN, SCORING) as reader:
        rows = reader.read(shows).to_pylist()[0]

    assert catalogue == rows == SETTINGS


def test_a_run_has_no_more_than_two_sessions_on_the_source(fitted_postgresql, tmp_path):
    """The server itself counts: a role that may have two sessions has no third to take."""
    from tests.small_bank import copies

    with copies(fitted_postgresql) as url, a_role(url, connections=2) as reader:
        bank = Bank(reader, results_url=f"sqlite:///{tmp_path / 'results.db'}").make_results()
        with (
            pytest.raises(TemporaryError, match="too many connections"),
            a_run(reader) as source, source.session(), source.session(),
        ):  # fmt: skip
            pass
        outcome = bank.do("fraudwatch.fit", dry_run=True)

    assert outcome.rows_read > 0


# --- snapshots ----------------------------------------------------------------------------------


ACTIVITY = (
    "SELECT state, xact_start, backend_xmin FROM pg_stat_activity "
    f"WHERE application_name = '{NAMED}'"
)


def test_no_transaction_is_open_between_two_reads(postgresql_url):
    a_bank(postgresql_url, [a_transaction(tx_id=i) for i in range(3)])

    with a_run(postgresql_url) as source:
        opened = ask(postgresql_url, ACTIVITY)
        source.read(*EVER, CLOCK)
        after_read = ask(postgresql_url, ACTIVITY)
        source.counted(CLOCK)
        after_stream = ask(postgresql_url, ACTIVITY)

    assert opened == after_read == after_stream == [("idle", None, None)]


def test_a_read_that_takes_longer_than_its_limit_is_ended_and_says_so(postgresql_url):
    a_bank(postgresql_url, [a_transaction(tx_id=i) for i in range(40)])
    run_sql(
        postgresql_url,
        "CREATE VIEW slow AS SELECT * FROM card_tx "
        "WHERE pg_sleep(0.1 + 0 * tx_id)::text IS NOT NULL",
    )
    settings = a_source(postgresql_url, table="slow").settings

    with Source(settings, RUN, Limits(statement=1)) as source:
        with pytest.raises(TemporaryError) as read:
            source.read(*EVER, CLOCK)
        with pytest.raises(TemporaryError) as streamed:
            source.counted(CLOCK)
        left = ask(postgresql_url, ACTIVITY)

    assert left == [("idle", None, None)], "and the session can be used again"
    for said in (str(read.value), str(streamed.value)):
        assert "limit of 1 s" in said
        assert "statement_timeout" in said
        assert "peerwatch doctor" in said


def test_a_lock_that_is_not_given_is_temporary_and_named(postgresql_url):
    a_bank(postgresql_url, [a_transaction()])
    owner = sa.create_engine(postgresql_url, poolclass=sa.NullPool)

    with (
        Source(a_source(postgresql_url).settings, RUN, Limits(60, lock=1)) as source,
        owner.connect() as connection,
    ):
        connection.exec_driver_sql("LOCK TABLE card_tx IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TemporaryError) as caught:
            source.read(*EVER, CLOCK)

    assert "more than 1 s" in str(caught.value)
    assert "lock_timeout" in str(caught.value)
