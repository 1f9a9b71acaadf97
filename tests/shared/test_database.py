"""Transactions, bulk writes and reads on both databases; errors in our own words."""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from shared import database as db
from shared.database import Reader, engine, insert_new, parse_url, staged, transaction, upsert
from shared.errors import ConfigurationError, PeerwatchError, TemporaryError
from shared.frames import micros
from shared.tables import Moment, key_type
from tests.builders import ask, run_sql
from tests.conftest import execute

SECRET = "hunter2"
KEY = "7b0c1a52-0000-4000-8000-00000000000a"


def a_table(url: str, **columns) -> sa.Table:
    key = sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False)
    others = [sa.Column(name, kind) for name, kind in columns.items()]
    table = sa.Table("things", sa.MetaData(), key, *others)
    with transaction(engine(parse_url(url))) as connection:
        table.create(connection)
    return table


def everything(url: str) -> sa.Table:
    """A table with a column of each type that the result tables have."""
    return a_table(
        url,
        text=sa.Text(),
        number=sa.Double(),
        count=sa.BigInteger(),
        flag=sa.Boolean(),
        day=sa.Date(),
        at=Moment(),
        key=key_type("uuid"),
    )


def write(url: str, table: sa.Table, frame: pd.DataFrame, how=insert_new) -> int:
    with transaction(engine(parse_url(url))) as connection:
        return how(connection, table, frame)


def read(url: str, table: sa.Table) -> list[tuple]:
    with transaction(engine(parse_url(url))) as connection:
        rows = connection.execute(sa.select(table).order_by(table.c[0]))
        return [tuple(row) for row in rows]


# --- transactions -------------------------------------------------------------------------------


def test_work_is_kept_when_the_block_reaches_its_end(database):
    table = a_table(database)

    with transaction(engine(parse_url(database))) as connection:
        connection.execute(sa.insert(table).values(id=1))

    assert read(database, table) == [(1,)]


def test_work_is_rolled_back_unless_the_block_reaches_its_end(database):
    table = a_table(database)

    with pytest.raises(ZeroDivisionError), transaction(engine(parse_url(database))) as connection:
        connection.execute(sa.insert(table).values(id=1))
        raise ZeroDivisionError

    assert read(database, table) == []


def test_a_table_made_in_a_failed_block_is_gone(database):
    table = sa.Table("things", sa.MetaData(), sa.Column("id", sa.Integer))

    with pytest.raises(ZeroDivisionError), transaction(engine(parse_url(database))) as connection:
        table.create(connection)
        raise ZeroDivisionError

    made = sa.create_engine(database, poolclass=sa.NullPool)
    assert sa.inspect(made).get_table_names() == []


def test_two_sqlite_writers_never_read_the_same_watermark(sqlite_url):
    """With a deferred BEGIN both read first and one of them fails or overwrites the other."""
    table = a_table(sqlite_url)
    write(sqlite_url, table, pd.DataFrame({"id": [0]}))
    made = engine(parse_url(sqlite_url))
    failures = []

    def writer() -> None:
        try:
            for _ in range(25):
                with transaction(made) as connection:
                    newest = connection.execute(sa.select(sa.func.max(table.c.id))).scalar_one()
                    connection.execute(sa.insert(table).values(id=newest + 1))
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=writer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert [row[0] for row in read(sqlite_url, table)] == list(range(101))


def test_the_journal_mode_of_a_file_is_left_as_it_was(sqlite_url):
    for mode in ("wal", "delete"):
        assert sa.create_engine(sqlite_url, poolclass=sa.NullPool)
        with sa.create_engine(sqlite_url, poolclass=sa.NullPool).connect() as connection:
            connection.exec_driver_sql(f"PRAGMA journal_mode = {mode}")
        run_sql(sqlite_url, "DROP TABLE IF EXISTS things")

        write(sqlite_url, a_table(sqlite_url), pd.DataFrame({"id": [1]}))

        assert ask(sqlite_url, "PRAGMA journal_mode") == [(mode,)]


# --- bulk writes --------------------------------------------------------------------------------

MOMENT = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)


def test_every_type_of_column_is_written_as_it_is(database):
    table = everything(database)
    frame = pd.DataFrame(
        {
            "id": [1, 2, 3],
            "text": pd.Series(["größe '\"\n\t\\N\\.", "", None], dtype="str"),
            "number": [0.1, np.inf, np.nan],
            "count": pd.array([2**62, 0, pd.NA], dtype="Int64"),
            "flag": pd.array([True, False, pd.NA], dtype="boolean"),
            "day": pd.Series([date(2026, 3, 1), date(1999, 12, 31), None], dtype="object"),
            "at": pd.Series([micros(MOMENT), micros(MOMENT) + 1, pd.NA], dtype="Int64"),
            "key": pd.Series([KEY, KEY, None], dtype="str"),
        }
    )

    assert write(database, table, frame) == 3

    second = MOMENT + timedelta(microseconds=1)
    assert read(database, table) == [
        (1, "größe '\"\n\t\\N\\.", 0.1, 2**62, True, date(2026, 3, 1), MOMENT, KEY),
        (2, "", np.inf, 0, False, date(1999, 12, 31), second, KEY),
        (3, None, None, None, None, None, None, None),
    ]


@pytest.mark.parametrize(
    "values",
    [
        pd.Series([micros(MOMENT)]),
        pd.Series([micros(MOMENT)], dtype="Int64"),
        pd.Series([micros(MOMENT)], dtype="object"),
        pd.Series([MOMENT]),
        pd.Series([MOMENT], dtype="object"),
        pd.Series([pd.Timestamp(MOMENT).as_unit("us")]),
        pd.Series([MOMENT.astimezone(timezone(timedelta(hours=5, minutes=30)))]),
        pd.Series([np.datetime64("2026-03-01T12:00:00.123456")]),
    ],
)
def test_a_moment_is_the_same_whatever_says_it(database, values):
    table = a_table(database, at=Moment())

    write(database, table, pd.DataFrame({"id": [1], "at": values}))

    assert read(database, table) == [(1, MOMENT)]


def test_sqlite_keeps_moments_as_sortable_text(sqlite_url):
    table = a_table(sqlite_url, at=Moment())
    write(sqlite_url, table, pd.DataFrame({"id": [1, 2], "at": [0, 1_500_000]}))

    assert ask(sqlite_url, "SELECT at FROM things ORDER BY at") == [
        ("1970-01-01T00:00:00.000000Z",),
        ("1970-01-01T00:00:01.500000Z",),
    ]


def test_numpy_values_in_a_mixed_column_are_written(database):
    table = a_table(database, count=sa.BigInteger(), number=sa.Double(), text=sa.Text())
    frame = pd.DataFrame(
        {
            "id": np.array([1, 2], dtype=np.int32),
            "count": pd.Series([np.int64(3), None], dtype="object"),
            "number": pd.Series([np.float32(0.5), None], dtype="object"),
            "text": pd.Series([np.str_("a"), None], dtype="object"),
        }
    )

    write(database, table, frame)

    assert read(database, table) == [(1, 3, 0.5, "a"), (2, None, None, None)]


def test_insert_new_adds_what_is_not_there_and_leaves_what_is(database):
    table = a_table(database, text=sa.Text())
    write(database, table, pd.DataFrame({"id": [1, 2], "text": ["a", "b"]}))

    new = write(database, table, pd.DataFrame({"id": [2, 3], "text": ["changed", "c"]}))

    assert new == 1
    assert read(database, table) == [(1, "a"), (2, "b"), (3, "c")]


def test_insert_new_minds_every_unique_constraint(database):
    table = a_table(database, text=sa.Text())
    run_sql(database, "CREATE UNIQUE INDEX by_text ON things (text) WHERE id > 0")
    write(database, table, pd.DataFrame({"id": [1], "text": ["a"]}))

    assert write(database, table, pd.DataFrame({"id": [5], "text": ["a"]})) == 0


def test_upsert_renews_rows_and_leaves_columns_that_are_not_given(database):
    table = a_table(database, text=sa.Text(), number=sa.Double())
    write(database, table, pd.DataFrame({"id": [1], "text": ["a"], "number": [1.0]}))

    write(database, table, pd.DataFrame({"id": [1, 2], "text": [None, "b"]}), upsert)

    assert read(database, table) == [(1, None, 1.0), (2, "b", None)]


@pytest.mark.parametrize("how", [insert_new, upsert])
def test_the_same_rows_twice_leave_the_same_rows(database, how):
    table = everything(database)
    frame = pd.DataFrame({"id": range(500), "text": "x", "number": np.linspace(0, 1, 500)})
    write(database, table, frame, how)
    once = read(database, table)

    write(database, table, frame, how)

    assert read(database, table) == once
    assert len(once) == 500


@pytest.mark.parametrize("how", [insert_new, upsert])
def test_an_empty_frame_writes_nothing(database, how):
    table = a_table(database, text=sa.Text())

    assert write(database, table, pd.DataFrame({"id": [], "text": []}), how) == 0


def test_a_frame_of_keys_alone_may_be_upserted(database):
    table = a_table(database)

    write(database, table, pd.DataFrame({"id": [1, 1 + 2**60]}), upsert)

    assert read(database, table) == [(1,), (1 + 2**60,)]


def test_a_staged_table_is_there_inside_its_block_and_gone_after(database):
    table = a_table(database, text=sa.Text())
    frame = pd.DataFrame({"text": ["a", None]})

    with transaction(engine(parse_url(database))) as connection:
        with staged(connection, [table.c.text], frame) as stage:
            rows = connection.execute(sa.select(stage)).fetchall()
        with staged(connection, [table.c.text], frame[:0]) as empty:
            none = connection.execute(sa.select(empty)).fetchall()
        assert not sa.inspect(connection).get_temp_table_names()

    assert [tuple(row) for row in rows] == [("a",), (None,)]
    assert none == []


def test_a_value_that_does_not_fit_is_an_error_of_ours_that_hides_the_value(postgresql_url):
    table = a_table(postgresql_url, count=sa.BigInteger())
    frame = pd.DataFrame({"id": [1], "count": ["4111-1111"]})

    with pytest.raises(PeerwatchError) as caught:
        write(postgresql_url, table, frame)

    assert caught.value.exit_code == 1
    assert "4111" not in str(caught.value)
    assert read(postgresql_url, table) == []


def test_a_broken_constraint_is_an_error_of_ours_that_hides_the_value(database):
    table = a_table(database, text=sa.Text())
    run_sql(database, "CREATE UNIQUE INDEX by_text ON things (text)")
    write(database, table, pd.DataFrame({"id": [1], "text": ["4111"]}))

    with pytest.raises(PeerwatchError) as caught, transaction(engine(parse_url(database))) as c:
        c.execute(sa.insert(table).values(id=2, text="4111"))

    assert not isinstance(caught.value, TemporaryError)
    assert "4111" not in str(caught.value)
    assert caught.value.__cause__ is not None


# --- reading ------------------------------------------------------------------------------------


def a_select(table: sa.Table) -> sa.Select:
    return sa.select(
        table.c.id.label("id"),
        sa.cast(table.c.number, sa.Double).label("number"),
        sa.func.coalesce(sa.cast(table.c.text, sa.Text), "").label("text"),
    ).where(table.c.id > 0, table.c.id.in_([1, 2, 3]))


def test_a_reader_gives_columns_as_they_are_named(database):
    table = everything(database)
    frame = pd.DataFrame({"id": [0, 1, 2], "number": [0.0, 0.5, None], "text": ["z", "ä", None]})
    write(database, table, frame)

    with Reader(parse_url(database)) as reader:
        found = reader.read(a_select(table)).to_pydict()

    assert found == {"id": [1, 2], "number": [0.5, None], "text": ["ä", ""]}


def test_any_other_database_is_read_to_the_same_table(database):
    table = everything(database)
    frame = pd.DataFrame({"id": [0, 1, 2], "number": [0.0, 0.5, None], "text": ["z", "ä", None]})
    write(database, table, frame)
    select = a_select(table)

    with Reader(parse_url(database)) as reader:
        fast = reader.read(select)
    other = Reader(parse_url(database))
    other._columnar = False  # over SQLAlchemy

    assert other.read(select).to_pydict() == fast.to_pydict()
    assert other.read(select.where(sa.false())).column_names == fast.column_names


def test_a_reader_refuses_to_write(database):
    table = a_table(database)
    write(database, table, pd.DataFrame({"id": [1]}))

    with Reader(parse_url(database)) as reader, pytest.raises(PeerwatchError) as caught:
        reader.read(sa.delete(table))

    assert not isinstance(caught.value, TemporaryError)
    assert read(database, table) == [(1,)]


def test_a_read_only_engine_refuses_to_write(database):
    table = a_table(database)

    with (
        pytest.raises(PeerwatchError) as caught,
        transaction(engine(parse_url(database), read_only=True)) as connection,
    ):
        connection.execute(sa.insert(table).values(id=1))

    assert not isinstance(caught.value, TemporaryError)
    assert read(database, table) == []


def test_a_file_that_may_not_be_written_says_what_to_do(sqlite_url):
    table = a_table(sqlite_url)

    with (
        pytest.raises(ConfigurationError, match="the right to write the file and its folder"),
        transaction(engine(parse_url(sqlite_url), read_only=True)) as connection,
    ):
        connection.execute(sa.insert(table).values(id=1))


def test_a_reader_keeps_no_lock_between_reads(sqlite_url):
    table = a_table(sqlite_url)

    with Reader(parse_url(sqlite_url)) as reader:
        reader.read(sa.select(table.c.id))
        write(sqlite_url, table, pd.DataFrame({"id": [1]}))

        assert reader.read(sa.select(table.c.id)).num_rows == 1


def test_a_fault_of_a_statement_is_final_and_named(database):
    missing = sa.table("nowhere", sa.column("connected_at"))

    with Reader(parse_url(database)) as reader, pytest.raises(PeerwatchError) as caught:
        reader.read(sa.select(missing.c.connected_at))
    with pytest.raises(PeerwatchError) as engines, transaction(engine(parse_url(database))) as c:
        c.execute(sa.select(missing.c.connected_at))

    for error in (caught.value, engines.value):
        assert error.exit_code == 1
        assert "nowhere" in str(error)


def test_a_lost_session_is_temporary(postgresql_url):
    kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'lost'"

    with (
        pytest.raises(TemporaryError),
        transaction(engine(parse_url(postgresql_url), name="lost")) as c,
    ):
        run_sql(postgresql_url, kill)
        c.execute(sa.select(1))


def test_a_lost_read_is_made_again_in_another_session(postgresql_url):
    one, mine = sa.select(sa.literal(1).label("one")), sa.func.pg_backend_pid().label("pid")

    with Reader(parse_url(postgresql_url), "lost") as reader:
        before = reader.read(sa.select(mine)).to_pydict()["pid"]
        run_sql(postgresql_url, f"SELECT pg_terminate_backend({before[0]})")
        assert reader.read(one).to_pydict() == {"one": [1]}
        assert reader.read(sa.select(mine)).to_pydict()["pid"] != before


def test_a_read_that_is_lost_for_good_is_temporary(postgresql_url, monkeypatch):
    monkeypatch.setattr(db, "READ_PAUSES", (0, 0))
    name = make_url(postgresql_url).database

    with Reader(parse_url(postgresql_url), "lost") as reader:
        execute(server_of(postgresql_url), f"DROP DATABASE {name} WITH (FORCE)")
        try:
            with pytest.raises(TemporaryError) as caught:
                reader.read(sa.select(sa.literal(1).label("one")))
        finally:
            execute(server_of(postgresql_url), f"CREATE DATABASE {name} TEMPLATE template0")

    assert caught.value.exit_code == 75


def server_of(url: str) -> str:
    return make_url(url).set(database="postgres").render_as_string(hide_password=False)


def test_a_locked_file_is_temporary(sqlite_url, monkeypatch):
    monkeypatch.setattr(db, "BUSY_SECONDS", 0)
    table = a_table(sqlite_url)

    with transaction(engine(parse_url(sqlite_url))) as connection:
        connection.execute(sa.insert(table).values(id=1))
        with pytest.raises(TemporaryError) as caught, transaction(engine(parse_url(sqlite_url))):
            pass

    assert caught.value.exit_code == 75


# --- addresses ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "", "bank.db", "postgres://u:hunter2@h/d", "nodb://u:hunter2@h/d", "mysql://u:hunter2@h/d",
        "postgresql+asyncpg://u:hunter2@h/d", "postgresql://u:x@h:hunter2/d", "sqlite://",
        "sqlite:///:memory:", "postgresql+psycopg2://u:hunter2@h/d",
    ],
)  # fmt: skip
def test_an_address_that_cannot_be_used_is_one_clear_message(url):
    with pytest.raises(ConfigurationError) as caught:
        parse_url(url)

    assert "sqlite:///file.db" in str(caught.value)
    assert SECRET not in str(caught.value)
    assert SECRET not in str(caught.value.__cause__)


def test_a_plain_postgresql_address_gets_our_driver():
    assert parse_url("postgresql://u@h/d").drivername == "postgresql+psycopg"


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://u:{SECRET}@127.0.0.1:1/bank",
        f"postgresql://127.0.0.1:1/bank?user=u&password={SECRET}",
    ],
)
def test_a_server_that_cannot_be_reached_is_temporary_and_keeps_the_secret(url):
    parsed = parse_url(url)

    with pytest.raises(TemporaryError) as over_engine, transaction(engine(parsed)):
        pass
    with pytest.raises(TemporaryError) as over_reader, Reader(parsed):
        pass

    for caught in (over_engine.value, over_reader.value):
        assert SECRET not in str(caught)
        assert "127.0.0.1" in str(caught)
        assert caught.exit_code == 75


def test_a_wrong_password_is_not_repeated(postgresql_url):
    url = make_url(postgresql_url).set(database="nowhere", password=SECRET)

    with pytest.raises(PeerwatchError) as caught, transaction(engine(url)):
        pass

    assert SECRET not in str(caught.value)
    assert "nowhere" in str(caught.value)


def test_a_secret_anywhere_in_an_address_is_hidden():
    url = make_url(f"postgresql://u:{SECRET}@h/d?sslpassword={SECRET}&application_name=x")

    assert SECRET not in db.shown(url)
    assert "application_name=x" in db.shown(url)


def test_session_options_of_an_address_are_kept(postgresql_url):
    url = parse_url(postgresql_url).update_query_dict({"options": "-csearch_path=core"})
    shows = sa.select(sa.func.current_setting("search_path").label("path"))

    with Reader(url) as reader:
        assert reader.read(shows).to_pydict() == {"path": ["core"]}
    with engine(url, read_only=True).connect() as connection:
        assert connection.execute(shows).scalar() == "core"
        assert connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on"


def test_a_path_with_odd_signs_is_opened(tmp_path):
    path = tmp_path / "a b#c?d%20é.db"
    path.touch()
    url = sa.URL.create("sqlite", database=str(path))

    with Reader(url) as reader:
        assert reader.read(sa.select(sa.literal(1).label("one"))).num_rows == 1
