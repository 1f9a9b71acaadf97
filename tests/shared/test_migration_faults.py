"""Migrations that meet each other, are killed at each statement, and go down and up over data."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event

from shared import migrating, tables
from shared.database import engine, parse_url, transaction
from tests.builders import a_bank, a_transaction, ask, run_sql, toml

ROOT = Path(__file__).parents[2]
KINDS = {"transaction": "integer", "customer": "uuid", "counterparty": "text"}
REVISIONS = [path.name[:4] for path in sorted((ROOT / "migrations/versions").glob("*.py"))]
# A kill at each statement takes minutes; the ordinary suite takes some of them, and the commit.
STRIDES = {"sqlite": 9, "postgresql": 31} if not os.environ.get("PEERWATCH_FAULTS") else {}


def target_of(url: str) -> migrating.Target:
    return migrating.Target("peerwatch" if "postgresql" in url else None, "", KINDS)


def upgrade(url: str, revision: str = "head") -> None:
    with transaction(engine(parse_url(url))) as connection:
        migrating.upgrade(connection, target_of(url), revision)


def downgrade(url: str, revision: str) -> None:
    with transaction(engine(parse_url(url))) as connection:
        migrating.downgrade(connection, target_of(url), revision)


def version(url: str) -> str | None:
    with transaction(engine(parse_url(url))) as connection:
        return migrating.current(connection, target_of(url))


OURS = "IN (SELECT oid FROM pg_namespace WHERE nspname = 'peerwatch')"
SHAPE = f"""
SELECT 'class', relname::text, relkind::text FROM pg_class WHERE relnamespace {OURS}
UNION ALL SELECT 'function', proname::text, '' FROM pg_proc WHERE pronamespace {OURS}
UNION ALL SELECT 'trigger', tgname::text, '' FROM pg_trigger WHERE NOT tgisinternal
UNION ALL SELECT c.relname::text, a.attname::text, atttypid::text FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid WHERE c.relnamespace {OURS} AND NOT attisdropped
UNION ALL SELECT 'comments', c.relname::text, count(*)::text FROM pg_description d
    JOIN pg_class c ON c.oid = d.objoid WHERE c.relnamespace {OURS} GROUP BY c.relname
""".replace("::", r"\:\:")


def shape(url: str) -> list[tuple]:
    """Every table with its columns, every view, index, trigger and function of ours."""
    catalogue = "SELECT type, name, sql FROM sqlite_master"
    return sorted(ask(url, catalogue if "sqlite" in url else SHAPE), key=repr)


# --- several at once ------------------------------------------------------------------------------


def _together(work: Callable[..., None], *arguments: Any) -> list[int | None]:
    """The exit codes of three processes that start at one moment."""
    context = multiprocessing.get_context("fork")
    gate = context.Barrier(3)
    processes = [
        context.Process(target=_through, args=(gate, work, arguments)) for _ in range(3)
    ]  # fmt: skip
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    return [process.exitcode for process in processes]


def _through(gate: Any, work: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    gate.wait()
    work(*arguments)


@pytest.mark.parametrize("older", [None, "0001", "0004"])
def test_of_three_upgrades_at_once_one_wins_and_the_others_wait(database, older):
    if older:
        upgrade(database, older)

    codes = _together(upgrade, database)

    assert codes == [0, 0, 0]
    assert version(database) == migrating.head()
    where = "" if "sqlite" in database else "peerwatch."
    assert ask(database, f"SELECT count(*) FROM {where}peerwatch_version") == [(1,)]
    assert ask(database, f"SELECT count(*) FROM {where}settings") == [(len(tables.KEYS),)]


def alembic(folder: Path, *words: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "alembic", "-c", str(ROOT / "pyproject.toml"), *words]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_alembic_started_by_hand_three_times_waits_for_its_like(database, tmp_path):
    a_bank(database, [a_transaction()])
    upgrade(database, "0003")
    (tmp_path / "peerwatch.toml").write_text(toml(database))

    started = [alembic(tmp_path, "upgrade", "head") for _ in range(3)]
    said = [process.communicate(timeout=60)[0] for process in started]

    assert [process.returncode for process in started] == [0, 0, 0], said
    assert version(database) == migrating.head()
    assert migrating.head() in alembic(tmp_path, "current").communicate(timeout=60)[0]


def test_alembic_started_by_hand_makes_nothing_where_init_did_not(database, tmp_path):
    a_bank(database, [a_transaction()])
    (tmp_path / "peerwatch.toml").write_text(toml(database))
    before = shape(database)

    for words in (("upgrade", "head"), ("upgrade", "head", "--sql")):
        process = alembic(tmp_path, *words)
        said = process.communicate(timeout=60)[0]
        assert process.returncode != 0 and "peerwatch" in said.splitlines()[-1], said

    assert shape(database) == before


# --- killed ---------------------------------------------------------------------------------------


def _die_at(url: str, revision: str, at: int | None) -> None:
    """Upgrades, and is killed before the statement of that number (None: before the commit)."""
    made, seen = engine(parse_url(url)), count()

    @event.listens_for(made, "before_cursor_execute")
    def _statement(*_arguments: Any) -> None:
        if next(seen) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    @event.listens_for(made, "commit")
    def _commit(_connection: Any) -> None:
        if at is None:
            os.kill(os.getpid(), signal.SIGKILL)

    with transaction(made) as connection:
        migrating.upgrade(connection, target_of(url), revision)
    os._exit(0)


def _killed(url: str, revision: str, at: int | None) -> bool:
    """Whether a process that was to be killed there was."""
    process = multiprocessing.get_context("fork").Process(target=_die_at, args=(url, revision, at))
    process.start()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_a_migration_that_is_killed_leaves_the_old_version_and_can_be_run_again(database):
    stride = STRIDES.get(parse_url(database).get_backend_name(), 1)
    kills = 0

    for older, revision in zip([None, *REVISIONS], REVISIONS, strict=False):
        before = shape(database)
        assert _killed(database, revision, None)
        kills += 1
        for at in count(step=stride):
            if not _killed(database, revision, at):
                break
            kills += 1
            assert (version(database), shape(database)) == (older, before), (revision, at)
        assert version(database) == revision

    print(f"{kills} kills on {database.split(':')[0]}")
    assert kills > 100 / stride
    assert version(database) == migrating.head()


# --- down and up ----------------------------------------------------------------------------------


def _value(column: Any, place: int) -> Any:
    """A value of the column's type, another for each place."""
    kind = column["type"]
    if isinstance(kind, sa.DateTime) or (isinstance(kind, sa.String) and kind.length == 27):
        return f"2026-03-0{place + 1}T00:00:00.000000Z"
    if isinstance(kind, sa.Date):
        return f"2026-03-0{place + 1}"
    if isinstance(kind, sa.Uuid):
        return f"00000000-0000-0000-0000-00000000000{place}"
    if isinstance(kind, sa.LargeBinary):
        return bytes([place])
    if isinstance(kind, sa.Boolean):
        return bool(place)
    return place + 1 if isinstance(kind, sa.Numeric | sa.Float | sa.Integer) else f"text {place}"


def fill(url: str) -> None:
    """Two rows in each of our tables that has none."""
    made = sa.create_engine(url, poolclass=sa.NullPool)
    schema = target_of(url).schema
    inspector = sa.inspect(made)
    for name in set(inspector.get_table_names(schema)) - {"peerwatch_version", "settings"}:
        columns = inspector.get_columns(name, schema)
        table = sa.table(name, *(sa.column(c["name"]) for c in columns), schema=schema)
        rows = [{c["name"]: _value(c, place) for c in columns} for place in range(2)]
        typed = {c["name"]: sa.cast(sa.bindparam(c["name"]), c["type"]) for c in columns}
        with made.begin() as connection:
            if connection.execute(sa.select(sa.func.count()).select_from(table)).scalar():
                continue
            for row in rows:
                values = row if "sqlite" in url else typed
                connection.execute(sa.insert(table).values(values), row)


def data(url: str) -> dict[str, list[dict[str, Any]]]:
    """Everything in our tables and views."""
    made = sa.create_engine(url, poolclass=sa.NullPool)
    schema = target_of(url).schema
    inspector = sa.inspect(made)
    names = set(inspector.get_table_names(schema)) | set(inspector.get_view_names(schema))
    where = f"{schema}." if schema else ""
    with made.connect() as connection:
        return {
            name: [
                dict(row._mapping)
                for row in connection.exec_driver_sql(f"SELECT * FROM {where}{name}")
            ]
            for name in names - {"peerwatch_version"}
        }


def held_by(found: dict[str, list[dict]], like: dict[str, list[dict]]) -> dict[str, list[str]]:
    """What `found` says in the tables and columns that `like` has, in any order."""
    common = {name for name in like if name in found and name not in tables.VIEWS}
    return {
        name: sorted(
            repr({key: row[key] for key in like[name][0] if key in row}) for row in found[name]
        )
        for name in common
        if like[name]
    }


def test_each_revision_keeps_the_data_down_and_up(database):
    upgrade(database, REVISIONS[0])

    for older, revision in pairwise(REVISIONS):
        fill(database)
        before = data(database)
        upgrade(database, revision)
        fill(database)
        above = data(database)
        assert held_by(above, before) == held_by(before, before), revision

        downgrade(database, older)
        below = data(database)
        upgrade(database, revision)

        assert held_by(below, before) == held_by(before, before), f"down to {older}"
        assert below.keys() == before.keys()
        kept = {name: rows for name, rows in above.items() if name in below}
        again = data(database)
        assert held_by(again, below) == held_by(below, below), f"up to {revision}"
        assert held_by(again, below) == held_by(kept, below)
    assert sum(len(rows) for name, rows in above.items() if name not in tables.VIEWS) > 30


# --- verdicts -------------------------------------------------------------------------------------

SAID = (
    "(verdict_id, transaction_id, verdict, actor, decided_at, recorded_at, source) VALUES "
    "('{}', 1, 'false_positive', 'ana', '2026-03-01T00:00:00.000000Z', "
    "'2026-03-01T00:00:00.000000Z', 'sql')"
)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE {0}fraud_verdicts SET verdict = 'confirmed_fraud'",
        "UPDATE {0}fraud_verdicts SET note = 'x' WHERE verdict_id = 'v'",
        "DELETE FROM {0}fraud_verdicts",
        "REPLACE INTO {0}fraud_verdicts " + SAID.format("v"),
        "TRUNCATE {0}fraud_verdicts",
        "INSERT INTO {0}fraud_verdicts " + SAID.format("v").replace("false", "true")
        + " ON CONFLICT (verdict_id) DO UPDATE SET verdict = 'x'",
    ],
    ids=["update", "update one", "delete", "replace", "truncate", "upsert"],
)  # fmt: skip
def test_the_database_itself_keeps_a_verdict_as_it_was_said(database, statement):
    if ("REPLACE" in statement) is not ("sqlite" in database) and statement[0] in "RT":
        pytest.skip("not a word of this database")
    upgrade(database)
    where = "" if "sqlite" in database else "peerwatch."
    run_sql(database, f"INSERT INTO {where}fraud_verdicts " + SAID.format("v"))
    before = ask(database, f"SELECT * FROM {where}fraud_verdicts")

    with pytest.raises(sa.exc.DBAPIError, match="insert only"):
        run_sql(database, statement.format(where))

    assert ask(database, f"SELECT * FROM {where}fraud_verdicts") == before
    run_sql(database, f"INSERT INTO {where}fraud_verdicts " + SAID.format("w"))
    assert ask(database, f"SELECT count(*) FROM {where}fraud_verdicts") == [(2,)]
