"""The result tables from nothing to the newest version, on both databases."""

from __future__ import annotations

import multiprocessing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from shared import migrating, tables
from shared.database import engine, parse_url, transaction
from shared.errors import SchemaError
from tests.builders import ask, make_results, run_sql

KINDS = {"transaction": "integer", "customer": "uuid", "counterparty": "text"}


def target_of(url: str, prefix: str = "") -> migrating.Target:
    schema = "peerwatch" if "postgresql" in url else None
    return migrating.Target(schema, prefix, KINDS)


def upgrade(url: str, revision: str = "head", prefix: str = "") -> None:
    with transaction(engine(parse_url(url))) as connection:
        migrating.upgrade(connection, target_of(url, prefix), revision)


def contents(url: str) -> set[tuple[str, str]]:
    """What there is: (kind, name) of each table, view and index, in any schema."""
    made = sa.create_engine(url, poolclass=sa.NullPool)
    inspector = sa.inspect(made)
    found = set()
    for schema in set(inspector.get_schema_names()) - {"information_schema"}:
        found |= {("schema", schema)}
        for table in inspector.get_table_names(schema):
            found |= {("table", table)}
            found |= {("index", str(item["name"])) for item in inspector.get_indexes(table, schema)}
        found |= {("view", view) for view in inspector.get_view_names(schema)}
    return found


def test_everything_is_made_from_nothing(database):
    upgrade(database)

    found = contents(database)

    wanted = tables.tables(KINDS).metadata
    assert {("table", name) for name in wanted.tables} <= found
    assert {("view", name) for name in tables.VIEWS} <= found
    assert {("index", i.name) for table in wanted.tables.values() for i in table.indexes} <= found


def test_twice_changes_nothing(database):
    upgrade(database)
    once = contents(database)

    upgrade(database)

    assert contents(database) == once


def test_down_and_up_again_leaves_the_same_and_nothing_half(database):
    target = target_of(database)
    upgrade(database)
    whole = contents(database)

    for revision in ("0002", "0001"):
        with transaction(engine(parse_url(database))) as connection:
            migrating.downgrade(connection, target, revision)
            assert migrating.current(connection, target) == revision
        assert not {name for kind, name in contents(database) if kind == "view"}
        upgrade(database)
        assert contents(database) == whole

    with transaction(engine(parse_url(database))) as connection:
        migrating.downgrade(connection, target, "base")
    assert {name for kind, name in contents(database) if kind == "table"} == {"peerwatch_version"}
    upgrade(database)
    assert contents(database) == whole


def test_what_was_recorded_outlasts_the_newest_revision_down_and_up(database):
    target = target_of(database)
    where = f"{target.schema}." if target.schema else ""
    upgrade(database, "0003")
    run_sql(
        database,
        f"INSERT INTO {where}pipeline_runs (run_id, job, trigger, status, started_at, rows_read, "
        "rows_written, rows_quarantined, rows_late, rows_too_late) VALUES ('r', 'fraudwatch.score',"
        " 'manual', 'succeeded', '2026-03-01T00:00:00.000000Z', 1, 2, 3, 4, 5)",
        f"INSERT INTO {where}fraud_alerts (alert_id, transaction_id, case_id, occurred_at, day, "
        "priority, origin, summary, run_id, created_at) VALUES ('a', 1, 'c', "
        "'2026-03-01T00:00:00.000000Z', '2026-03-01', 7, 'threshold', 's', 'r', "
        "'2026-03-01T00:00:00.000000Z')",
        f"INSERT INTO {where}settings VALUES ('reviews_per_day', '20')",
    )

    def kept() -> list:
        return [
            ask(database, f"SELECT run_id, rows_too_late FROM {where}pipeline_runs"),
            ask(database, f"SELECT alert_id, priority FROM {where}fraud_alerts"),
            ask(database, f"SELECT case_id, rank FROM {where}alert_queue"),
            ask(database, f"SELECT job, runs FROM {where}run_health"),
        ]

    expected = [[("r", 5)], [("a", 7.0)], [("c", 1)], [("fraudwatch.score", 1)]]
    assert kept() == expected
    for _ in range(2):
        upgrade(database)
        assert kept() == expected
        assert ask(database, f"SELECT last_note FROM {where}run_health") == [(None,)]
        with transaction(engine(parse_url(database))) as connection:
            migrating.downgrade(connection, target, "0003")
        assert kept() == expected
    assert set(tables.VIEWS) == {name for kind, name in contents(database) if kind == "view"}


def test_a_failed_upgrade_leaves_nothing(database):
    before = contents(database)

    with pytest.raises(ZeroDivisionError), transaction(engine(parse_url(database))) as connection:
        migrating.upgrade(connection, target_of(database))
        raise ZeroDivisionError

    assert contents(database) == before


@pytest.mark.parametrize("kind", tables.KINDS)
@pytest.mark.parametrize("prefix", ["", "pw_"])
def test_the_revisions_say_what_the_tables_say(database, kind, prefix):
    if prefix and "postgresql" in database:
        prefix = ""  # a schema takes its place
    kinds = dict.fromkeys(tables.KEYS, kind)
    target = migrating.Target(target_of(database).schema, prefix, kinds)
    wanted = tables.tables(kinds, target.schema, prefix).metadata

    with transaction(engine(parse_url(database))) as connection:
        migrating.upgrade(connection, target)
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                "compare_server_default": True,
                "include_schemas": target.schema is not None,
                "version_table": f"{prefix}{migrating.MARK}",
                "version_table_schema": target.schema,
            },
        )
        differences = compare_metadata(context, wanted)

    assert differences == []


@pytest.mark.parametrize("column", ["transaction", "customer", "counterparty"])
def test_keys_have_the_kinds_that_were_recorded(database, column):
    upgrade(database)
    made = sa.create_engine(database, poolclass=sa.NullPool)

    columns = sa.inspect(made).get_columns("fraud_alerts", target_of(database).schema)

    found = {item["name"]: str(item["type"]) for item in columns}[f"{column}_id"]
    expected = {"integer": "BIGINT", "uuid": "UUID", "text": "TEXT"}
    if "sqlite" in database:
        expected |= {"integer": "INTEGER", "uuid": "TEXT"}
    assert found == expected[KINDS[column]]


def test_later_upgrades_follow_the_recorded_kinds(database):
    upgrade(database, "0001")
    other = migrating.Target(target_of(database).schema, "", dict.fromkeys(tables.KEYS, "text"))

    with transaction(engine(parse_url(database))) as connection:
        migrating.upgrade(connection, other)

        assert migrating.recorded_kinds(connection, other) == KINDS


def test_every_view_can_be_selected_from(database):
    results = make_results(database)

    with results.transaction() as connection:
        for view in tables.VIEWS:
            rows = connection.execute(
                sa.select(sa.text("*")).select_from(results.tables.view(view))
            )
            assert rows.fetchall() == []


def test_prefixes_keep_two_installations_apart(sqlite_url):
    upgrade(sqlite_url, prefix="a_")
    upgrade(sqlite_url, prefix="b_")

    found = {name for kind, name in contents(sqlite_url) if kind in ("table", "view")}
    assert {f"{p}{name}" for p in ("a_", "b_") for name in tables.VIEWS} <= found


@pytest.mark.parametrize("name", ["settings", "coverage", "fraud_alerts"])
def test_a_table_of_that_name_that_is_not_ours_stops_everything(database, name):
    target = target_of(database)
    schema = f"{target.schema}." if target.schema else ""
    if target.schema:
        run_sql(database, "CREATE SCHEMA peerwatch")
    run_sql(database, f"CREATE TABLE {schema}{name} (theirs INTEGER)")
    before = contents(database)

    with pytest.raises(SchemaError, match=rf"already has {name}, not made by peerwatch"):
        upgrade(database)

    assert contents(database) == before


def test_a_foreign_table_in_another_schema_is_left_alone(postgresql_url):
    run_sql(postgresql_url, "CREATE TABLE settings (theirs INTEGER)")

    upgrade(postgresql_url)

    assert ask(postgresql_url, "SELECT count(*) FROM public.settings") == [(0,)]


@pytest.mark.parametrize(
    ("version", "expected"),
    [("0002", "Bring them up: peerwatch migrate"), ("9999", "Install the newer peerwatch")],
)
def test_an_older_or_newer_version_stops_other_commands(database, version, expected):
    upgrade(database)
    target = target_of(database)
    where = f"{target.schema}." if target.schema else ""
    run_sql(database, f"UPDATE {where}peerwatch_version SET version_num = '{version}'")

    with (
        pytest.raises(SchemaError, match=expected) as caught,
        transaction(engine(parse_url(database))) as connection,
    ):
        migrating.require_newest(connection, target)

    assert caught.value.exit_code == 2
    assert version in str(caught.value)


def test_newer_tables_are_never_migrated(database):
    upgrade(database)
    where = "" if "sqlite" in database else "peerwatch."
    run_sql(database, f"UPDATE {where}peerwatch_version SET version_num = '9999'")

    with pytest.raises(SchemaError, match="Install the newer peerwatch"):
        upgrade(database)


def test_missing_tables_stop_other_commands(database):
    with (
        pytest.raises(SchemaError, match="peerwatch init --url URL"),
        transaction(engine(parse_url(database))) as connection,
    ):
        migrating.require_newest(connection, target_of(database))


def test_the_newest_version_lets_commands_pass(database):
    upgrade(database)

    with transaction(engine(parse_url(database))) as connection:
        migrating.require_newest(connection, target_of(database))

        assert migrating.current(connection, target_of(database)) == migrating.head()


def test_three_processes_that_start_together_make_the_tables_once(database):
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=upgrade, args=(database,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    where = "" if "sqlite" in database else "peerwatch."
    assert ask(database, f"SELECT count(*) FROM {where}settings") == [(len(tables.KEYS),)]


def test_the_revisions_are_numbered_and_follow_each_other():
    names = sorted(path.name for path in (migrating.directory() / "versions").glob("*.py"))

    assert names
    assert [name[:4] for name in names] == [f"{i + 1:04}" for i in range(len(names))]
    assert migrating.head() == names[-1][:4]
    assert (Path(migrating.directory()) / "env.py").is_file()


def test_of_several_champions_of_a_kind_the_last_promoted_goes_on(database):
    target, day = target_of(database), datetime(2026, 3, 1, tzinfo=UTC)
    upgrade(database, "0007")
    table = tables.tables(KINDS, target.schema).model_versions
    usual = dict.fromkeys(("created_at", "trained_from", "trained_to"), day)
    usual |= {"rows": 1, "metrics": {}, "card": {}, "gate": {}, "sha256": "", "artifact": b""}
    models = {  # name: (kind, status, days until it was promoted)
        "a": ("segmenter", "champion", 5),
        "b": ("segmenter", "champion", 7),
        "c": ("segmenter", "candidate", 9),
        "d": ("fraudwatch", "champion", 5),
        "e": ("fraudwatch", "champion", 5),
        "f": ("fraudwatch", "champion", None),
        "g": ("ranker", "champion", None),
        "h": ("ranker", "retired", 2),
    }

    with transaction(engine(parse_url(database))) as connection:
        for name, (kind, status, days) in models.items():
            named = {"model_version_id": name, "kind": kind, "status": status}
            promoted = None if days is None else day + timedelta(days)
            row = usual | named | {"promoted_at": promoted}
            connection.execute(sa.insert(table).values(row))
        migrating.upgrade(connection, target)
        found = dict(
            connection.execute(sa.select(table.c.model_version_id, table.c.status)).fetchall()
        )

    before = {name: status for name, (_, status, _) in models.items()}
    assert found == before | dict.fromkeys("adf", "retired")


def test_the_newest_revision_is_printed_as_it_is_run(database):
    target = target_of(database)
    upgrade(database, "0007")

    with transaction(engine(parse_url(database))) as connection:
        printed = migrating.script(connection, target)

    assert printed.count("SET status='retired'") == 1
    assert printed.index("SET status=") < printed.index("CREATE UNIQUE INDEX one_champion")
