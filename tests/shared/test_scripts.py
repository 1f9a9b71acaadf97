"""The result tables as SQL for another to run: `init --no-create` and `migrate --sql`."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from shared import migrating
from shared.database import engine, parse_url, transaction
from tests.builders import a_bank, a_transaction, ask, make_table, run_sql
from tests.shared.test_migration_faults import shape
from tests.test_bad_input import Command, peerwatch, refused

__all__ = ["peerwatch"]


def run_script(url: str, text: str) -> None:
    """Runs a script as its owner would: all of it, at once."""
    if url.startswith("sqlite"):
        with sqlite3.connect(str(make_url(url).database)) as connection:
            connection.executescript(text)
        connection.close()
        return
    made = sa.create_engine(url, poolclass=sa.NullPool, isolation_level="AUTOCOMMIT")
    with made.connect() as connection:
        connection.exec_driver_sql(text, execution_options={"no_parameters": True})


@pytest.fixture
def role(postgresql_url: str) -> Iterator[str]:
    """The URL of somebody who may read the bank and create nothing."""
    name, word = f"reader_{secrets.token_hex(4)}", secrets.token_hex(8)
    url = make_url(postgresql_url)
    run_sql(
        postgresql_url,
        f"CREATE ROLE {name} LOGIN PASSWORD '{word}'",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    )
    try:
        yield url.set(username=name, password=word).render_as_string(False)
    finally:
        run_sql(postgresql_url, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


ROWS = [a_transaction(i, f"2026-03-01 12:00:{i:02}", cust=i % 5) for i in range(40)]


def made_by_init(peerwatch: Command, url: str) -> list[tuple]:
    """What the owner's own `init` would have made."""
    assert peerwatch("init", "--url", url, "--config", "other.toml").code == 0
    found = shape(url)
    where = "" if "sqlite" in url else "peerwatch."
    return found + sorted(ask(url, f"SELECT key, value FROM {where}settings"))


def forgotten(url: str) -> None:
    """Takes our tables away again."""
    with sa.create_engine(url, poolclass=sa.NullPool).begin() as connection:
        target = migrating.Target("peerwatch" if "postgresql" in url else None, "")
        migrating.downgrade(connection, target, "base")
        where = f"{target.schema}." if target.schema else ""
        connection.exec_driver_sql(f"DROP TABLE {where}peerwatch_version")
        if target.schema:
            connection.exec_driver_sql("DROP SCHEMA peerwatch")


def test_what_init_prints_makes_what_init_makes(peerwatch, database):
    a_bank(database, ROWS)
    expected = made_by_init(peerwatch, database)
    forgotten(database)
    before = shape(database)

    said = peerwatch("init", "--url", database, "--no-create")

    assert said.code == 0, said.err
    assert shape(database) == before, "nothing was made"
    assert "made no tables" in said.err and Path("peerwatch.toml").is_file()
    assert peerwatch("runs").code == 2
    assert peerwatch("migrate", "--sql").out == said.out, "it can be printed again"
    run_script(database, said.out)
    where = "" if "sqlite" in database else "peerwatch."
    found = shape(database) + sorted(ask(database, f"SELECT key, value FROM {where}settings"))
    # Texts of statements differ in blanks alone.
    assert [" ".join(map(str, row)).split() for row in found] == [
        " ".join(map(str, row)).split() for row in expected
    ]
    assert peerwatch("runs").code == 0
    assert peerwatch("verify").code == 0
    assert peerwatch("migrate", "--sql").out.startswith("-- the result tables are at the newest")


def test_who_may_not_create_gets_the_statements_and_then_works(peerwatch, postgresql_url, role):
    a_bank(postgresql_url, ROWS)
    name = make_url(role).username
    run_sql(
        postgresql_url,
        f"GRANT USAGE ON SCHEMA public TO {name}",
        f"GRANT SELECT ON card_tx TO {name}",
    )

    denied = peerwatch("init", "--url", role)
    assert denied.code == 1 and "permission denied" in denied.err
    assert not Path("peerwatch.toml").is_file()
    printed = json.loads(peerwatch("init", "--url", role, "--no-create", "--json").out)["sql"]
    run_script(postgresql_url, printed)
    run_sql(
        postgresql_url,
        f"GRANT USAGE ON SCHEMA peerwatch TO {name}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA peerwatch TO {name}",
    )

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DATABASE_PASSWORD", str(make_url(role).password))
        assert peerwatch("runs").out == "no runs yet\n"
        assert peerwatch("fraudwatch", "fit").code == 4, "too little data, and it is recorded"
        assert "failed" in peerwatch("runs").out


@pytest.mark.parametrize("older", ["0001", "0003", "0005"])
def test_what_migrate_prints_brings_older_tables_to_the_newest(peerwatch, database, older):
    a_bank(database, ROWS)
    assert peerwatch("init", "--url", database).code == 0
    newest = shape(database)
    target = migrating.Target("peerwatch" if "postgresql" in database else None, "")
    with transaction(engine(parse_url(database))) as connection:
        migrating.downgrade(connection, target, older)
    refused(peerwatch("runs"), 2, "peerwatch migrate")
    before = shape(database)

    said = peerwatch("migrate", "--sql")

    assert said.code == 0, said.err
    assert shape(database) == before, "nothing was run"
    run_script(database, said.out)
    assert [" ".join(map(str, row)).split() for row in shape(database)] == [
        " ".join(map(str, row)).split() for row in newest
    ]
    assert peerwatch("runs").code == 0


def test_a_missing_file_of_the_results_is_not_made(peerwatch, tmp_path):
    url = f"sqlite:///{tmp_path}/bank.db"
    (tmp_path / "bank.db").touch()
    a_bank(url, ROWS)
    assert peerwatch("init", "--url", url, "--no-create").code == 0
    text = Path("peerwatch.toml").read_text()
    Path("peerwatch.toml").write_text(
        text.replace("[results]", '[results]\nurl = "sqlite:///r.db"')
    )

    refused(peerwatch("migrate", "--sql"), 2, "no SQLite database r.db")

    assert not Path("r.db").exists()


def test_names_with_quotes_and_per_cent_signs_stand_in_the_script_as_they_are(peerwatch, database):
    odd = 'amount\'t 100%: "x"'
    make_table(
        database,
        "payments",
        {"tx_id": "BIGINT", "booked_at": "TIMESTAMP", odd: "NUMERIC(9, 2)"},
        [
            {"tx_id": i, "booked_at": f"2026-03-01 12:00:{i:02}", odd: i % 7 * 1.25}
            for i in range(40)
        ],
    )
    said = peerwatch("init", "--url", database, "--no-create")
    assert said.code == 0, said.err

    run_script(database, said.out)

    where = "" if "sqlite" in database else "peerwatch."
    keys = {row[0] for row in ask(database, f"SELECT key FROM {where}settings")}
    assert f"column.payments.{odd}" in keys
    assert peerwatch("runs").code == 0
