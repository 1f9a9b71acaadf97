"""`grants`: the rights that each role needs, as statements for the owner of the databases.

- reader: SELECT on the mapped tables of the source, and nothing else there.
- writer: runs the jobs. Rows of our tables; verdicts may be added, never changed.
- analyst: reads our tables and views, and adds verdicts.
- migrator: owns our schema and what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa
from sqlalchemy.sql.compiler import IdentifierPreparer

from shared import migrating, runs
from shared.config import Configuration
from shared.database import shown
from shared.errors import ConfigurationError
from shared.source import Source
from shared.tables import VIEWS

EVERYBODY = ("public", "none")  # no names of roles, quoted or not
LONGEST_NAME = 63  # bytes; PostgreSQL cuts what is longer, and would mean another role
ADD_FEATURE = "add_customer_feature"
ADDED_TO = "fraud_verdicts"  # the one table whose rows are never changed


def statements(config: Configuration, names: Mapping[str, str]) -> dict[str, list[str]]:
    """The statements by the database they are for; names: a role's name by what it is for."""
    _require_names(names)
    found: dict[str, list[str]] = {}
    if "reader" in names:
        with Source(config.source, "peerwatch/grants") as source:
            _require_roles(source.url)
            with source.session() as connection:
                schema = sa.inspect(connection).default_schema_name
            tables = [t for t in (source.table, source.customer_table) if t is not None]
            found[shown(source.url)] = _of_reader(source.url, tables, schema, names["reader"])
    if set(names) - {"reader"}:
        results = runs.open_results(config)
        _require_roles(results.engine.url)
        given = _of_results(results, names)
        found[shown(results.engine.url)] = found.get(shown(results.engine.url), []) + given
    return found


def _require_names(names: Mapping[str, str]) -> None:
    if not names:
        raise ConfigurationError(
            "Say whose rights: peerwatch grants --reader NAME --writer NAME --analyst NAME "
            "--migrator NAME, or some of them."
        )
    faults = [
        f"--{role}: {name!r} cannot be the name of a role."
        for role, name in names.items()
        if not name or "\0" in name or name in EVERYBODY or len(name.encode()) > LONGEST_NAME
    ]
    if faults:
        raise ConfigurationError(faults)


def _require_roles(url: sa.URL) -> None:
    if url.get_backend_name() != "postgresql":
        raise ConfigurationError(
            f"{shown(url)} has no roles that peerwatch knows how to grant rights to. Of SQLite "
            "who may write the file may do everything: guard the file. Roles are PostgreSQL's."
        )


def _preparer(url: sa.URL) -> IdentifierPreparer:
    """Quotes names; with named parameters per cent signs are left as they are."""
    return url.get_dialect()(paramstyle="named").identifier_preparer  # type: ignore[call-arg]


def _of_reader(url: sa.URL, tables: Sequence[sa.Table], schema: str | None, name: str) -> list[str]:
    preparer = _preparer(url)
    role = preparer.quote_identifier(name)
    placed = [(table.schema or str(schema), table.name) for table in tables]
    return [
        _connecting(url, preparer, "CONNECT", role),
        *_usage({where for where, _ in placed}, preparer, role),
        *(
            f"GRANT SELECT ON {preparer.quote_identifier(where)}."
            f"{preparer.quote_identifier(table)} TO {role};"
            for where, table in dict.fromkeys(placed)
        ),
    ]


def _connecting(url: sa.URL, preparer: IdentifierPreparer, rights: str, role: str) -> str:
    database = preparer.quote_identifier(str(url.database))
    return f"GRANT {rights} ON DATABASE {database} TO {role};"


def _usage(schemas: set[str], preparer: IdentifierPreparer, role: str) -> list[str]:
    return [
        f"GRANT USAGE ON SCHEMA {preparer.quote_identifier(schema)} TO {role};"
        for schema in sorted(schemas)
    ]


def _of_results(results: runs.Results, names: Mapping[str, str]) -> list[str]:
    url, schema = results.engine.url, str(results.target.schema)
    preparer = _preparer(url)
    roles = {role: preparer.quote_identifier(name) for role, name in names.items()}
    made = {"writer": _of_writer, "analyst": _of_analyst, "migrator": _of_migrator}
    found: list[str] = []
    for role, rights in made.items():  # the owner last: the one before may grant until then
        if role in roles:
            temporary = "CONNECT, TEMPORARY" if role == "writer" else "CONNECT"
            found += [
                _connecting(url, preparer, temporary, roles[role]),
                *_usage({schema}, preparer, roles[role]),
                *rights(results, roles[role]),
            ]
    if "migrator" in roles:
        found += [
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {roles['migrator']} IN SCHEMA "
            f"{preparer.quote_identifier(schema)} GRANT SELECT ON TABLES TO {roles[role]};"
            for role in ("writer", "analyst")
            if role in roles
        ]
    return found


def _qualified(results: runs.Results, names: Sequence[str]) -> list[str]:
    preparer = _preparer(results.engine.url)
    schema = preparer.quote_identifier(str(results.target.schema))
    return [f"{schema}.{preparer.quote_identifier(results.tables.name(name))}" for name in names]


def _our_tables(results: runs.Results) -> list[str]:
    return [table.name for table in results.tables.metadata.tables.values()]


def _of_migrator(results: runs.Results, role: str) -> list[str]:
    """Who owns the schema and everything in it may change it."""
    schema = _preparer(results.engine.url).quote_identifier(str(results.target.schema))
    (add,) = _qualified(results, [ADD_FEATURE])
    (refuse,) = _qualified(results, ["refuse_change"])
    tables = _qualified(results, [*_our_tables(results), migrating.MARK])
    return [
        f"ALTER SCHEMA {schema} OWNER TO {role};",
        *(f"ALTER TABLE {table} OWNER TO {role};" for table in tables),
        *(f"ALTER VIEW {view} OWNER TO {role};" for view in _qualified(results, VIEWS)),
        f"ALTER FUNCTION {add}(text, boolean, text) OWNER TO {role};",
        f"ALTER FUNCTION {refuse}() OWNER TO {role};",
    ]


def _of_writer(results: runs.Results, role: str) -> list[str]:
    changed = [name for name in _our_tables(results) if name != ADDED_TO]
    (add,) = _qualified(results, [ADD_FEATURE])
    (verdicts,) = _qualified(results, [ADDED_TO])
    read = _qualified(results, [migrating.MARK, *VIEWS])
    return [
        *(
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {role};"
            for table in _qualified(results, changed)
        ),
        f"GRANT SELECT, INSERT ON {verdicts} TO {role};",
        *(f"GRANT SELECT ON {name} TO {role};" for name in read),
        f"GRANT EXECUTE ON FUNCTION {add}(text, boolean, text) TO {role};",
    ]


def _of_analyst(results: runs.Results, role: str) -> list[str]:
    read = _qualified(results, [*_our_tables(results), migrating.MARK, *VIEWS])
    (verdicts,) = _qualified(results, [ADDED_TO])
    return [
        *(f"GRANT SELECT ON {name} TO {role};" for name in read),
        f"GRANT INSERT ON {verdicts} TO {role};",
    ]
