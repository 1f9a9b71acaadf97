"""One TOML file: what is read, what is mapped, what each domain is told.

Every section is a frozen dataclass. All faults of a file are found before the first is reported;
an unknown key names the nearest known one. `${NAME}` is taken from the environment, and
`PEERWATCH_SECTION__KEY` overrides a key.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from shared.errors import ConfigurationError
from shared.rules import SCHEDULABLE, Entry, zone_fault

ENVIRONMENT = "PEERWATCH_"
NAME = re.compile(r"\$\{(\w+)\}")  # a value from the environment
OWN_VARIABLES = (
    "PEERWATCH_TRIGGER",
    "PEERWATCH_SLOT",
    "PEERWATCH_CONFIG",
    "PEERWATCH_DATA",
    "PEERWATCH_TEST_URL",
)


@dataclass(frozen=True)
class Transactions:
    """The mapping of the transactions; only `table`, `id` and `time` are needed."""

    table: str
    id: str
    time: str
    time_format: str | None = None
    customer: str | None = None
    amount: str | None = None
    currency: str | None = None
    counterparty: str | None = None
    entities: tuple[str, ...] = ()
    order: str | None = None
    categories: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()
    arrived_at: str | None = None  # when the row came to the table: finds late rows by its index
    label: str | None = None
    label_time: str | None = None
    label_kind: str | None = None
    baseline_score: str | None = None  # of another system; higher is more suspicious

    def faults(self) -> list[str]:
        found = _twice("[source.transactions]", self.columns())
        if not (self.amount or self.categories or self.numbers):
            found.append(
                "[source.transactions] maps nothing to judge: give amount, categories or numbers."
            )
        return found

    def columns(self) -> list[tuple[str, str]]:
        """(key of the mapping, column of the source) for each mapped column."""
        lists = ("entities", "categories", "numbers")
        named = [
            (item.name, getattr(self, item.name))
            for item in dataclasses.fields(self)
            if item.name not in ("table", "time_format", *lists)
        ]
        several = [(key, name) for key in lists for name in getattr(self, key)]
        return [(key, name) for key, name in named if name] + several


@dataclass(frozen=True)
class Customers:
    """The mapping of the customers' own table, where there is one."""

    table: str
    id: str
    numbers: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    descriptors: tuple[str, ...] = ()
    valid_from: str | None = None  # with valid_to, where the table keeps its history
    valid_to: str | None = None

    def faults(self) -> list[str]:
        found = _twice("[source.customers]", self.columns())
        if bool(self.valid_from) != bool(self.valid_to):
            given, lacking = ("valid_from", "valid_to")[:: 1 if self.valid_from else -1]
            found.append(
                f"[source.customers] {given} is given without {lacking}; a row's period needs "
                "both, valid_to being null where it is open. Name the column, or map a view that "
                "has it."
            )
        return found

    def columns(self) -> list[tuple[str, str]]:
        """(key of the mapping, column of the source) for each mapped column."""
        several = [
            (key, name)
            for key in ("numbers", "categories", "descriptors")
            for name in getattr(self, key)
        ]
        period = [(key, getattr(self, key)) for key in ("valid_from", "valid_to")]
        return [("id", self.id), *several, *((key, name) for key, name in period if name)]


def _twice(where: str, columns: list[tuple[str, str]]) -> list[str]:
    """A fault for each column that is to be read in two ways."""
    roles: dict[str, list[str]] = {}
    for key, name in columns:
        roles.setdefault(name, []).append(key)
    return [
        f"{where} maps column {name} as {' and '.join(keys)}; give each column one role."
        for name, keys in roles.items()
        if name and len(keys) > 1
    ]


@dataclass(frozen=True)
class Source:
    """Where the user's tables are, and how they are to be read."""

    url: str = field(repr=False)  # may hold a password
    timezone: str = "UTC"  # naive times and calendar days; UTC never repeats an hour
    transactions: Transactions = field(kw_only=True)
    customers: Customers | None = None

    def faults(self) -> list[str]:
        fault = zone_fault(self.timezone)
        return [] if fault is None else [f"[source] {fault}"]


@dataclass(frozen=True)
class Results:
    """Where the result tables live; beside the source unless said otherwise."""

    url: str | None = field(default=None, repr=False)
    schema: str = "peerwatch"  # out of the way of the user's own tables
    prefix: str = ""  # of table names where the database has no schemas

    def faults(self) -> list[str]:
        name = re.compile(r"[a-z_][a-z0-9_]{0,40}")
        found = []
        if not name.fullmatch(self.schema):
            found.append(f'[results] schema "{self.schema}" is not a plain lower-case name.')
        if self.prefix and not name.fullmatch(self.prefix):
            found.append(f'[results] prefix "{self.prefix}" is not a plain lower-case name.')
        return found


@dataclass(frozen=True)
class Configuration:
    """The whole file; `domains` holds each domain's own settings by section name."""

    path: Path
    source: Source
    results: Results
    domains: Mapping[str, Any]
    schedule: Mapping[str, Entry]

    @property
    def results_url(self) -> str:
        return self.results.url or self.source.url


def domain_settings() -> dict[str, type]:
    """The settings class of each domain, found by entry point."""
    return {point.name: point.load() for point in entry_points(group="peerwatch.settings")}


def load(
    path: Path, environment: Mapping[str, str], domains: Mapping[str, type] | None = None
) -> Configuration:
    """Reads and checks the file; raises ConfigurationError with every fault found."""
    if not path.is_file():
        raise ConfigurationError(
            f"There is no configuration {path}. Make one: peerwatch init --url URL, "
            "or name another with --config."
        )
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from error
    return parse(document, path, environment, domains)


def parse(
    document: dict[str, Any],
    path: Path,
    environment: Mapping[str, str],
    domains: Mapping[str, type] | None = None,
) -> Configuration:
    """A configuration from the parsed document, the environment applied."""
    domains = domain_settings() if domains is None else domains
    faults: list[str] = []
    taken = set(NAME.findall(json.dumps(document, default=str)))
    document = _overridden(document, environment, faults)
    document = _substituted(document, environment, "", faults)
    sections: dict[str, type] = {"source": Source, "results": Results, **domains}
    unknown_keys(document, [*sections, "schedule"], "", faults)
    schedule = _schedule(document.get("schedule", {}), faults)
    made = {
        name: build(kind, document.get(name, {}), f"[{name}]", faults)
        for name, kind in sections.items()
    }
    if faults:
        hidden = {name: environment.get(name, "") for name in taken}
        raise ConfigurationError([f"{path}: {_without(fault, hidden)}" for fault in faults])
    source, results = made.pop("source"), made.pop("results")
    return Configuration(path, source, results, made, schedule)


def _without(fault: str, hidden: Mapping[str, str]) -> str:
    """The fault as the file has it: a value from the environment may be a secret."""
    for name, value in hidden.items():
        if len(value) > 3:  # shorter ones stand in any sentence
            escaped = json.dumps(value, ensure_ascii=False)[1:-1]
            fault = fault.replace(escaped, f"${{{name}}}").replace(value, f"${{{name}}}")
    return fault


def unknown_keys(found: Mapping[str, Any], known: list[str], where: str, faults: list[str]) -> None:
    """A fault for each key that is not known, with the nearest one that is."""
    for key in found:
        if key in known:
            continue
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}."
        faults.append(f"{where} unknown key {key}{hint}".strip())


def build(kind: type, values: Any, where: str, faults: list[str]) -> Any:
    """A dataclass from a TOML table; None, and faults, where that cannot be."""
    if not isinstance(values, dict):
        faults.append(f"{where} should be a table, found {_shown(values)}.")
        return None
    fields = {item.name: item for item in dataclasses.fields(kind)}
    unknown_keys(values, list(fields), where, faults)
    hints = typing.get_type_hints(kind)
    made: dict[str, Any] = {}
    for name, item in fields.items():
        if name == "id" and isinstance(values.get(name), list):
            faults.append(_composite(where, values))
        elif name in values:
            made[name] = _value(hints[name], values[name], f"{where} {name}", faults)
        elif _required(item):
            faults.append(f"{where} {name} is missing.")
    # A faulty key stands at its default, so that the faults of the others are found as well.
    made = {name: value for name, value in made.items() if value is not None}
    made = {name: None for name, item in fields.items() if _required(item)} | made
    result = kind(**made)
    if hasattr(result, "faults"):
        faults.extend(result.faults())
    return result


def _required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _composite(where: str, values: Mapping[str, Any]) -> str:
    """A key of several columns, with the view that makes one of them."""
    parts = [_identifier(str(part)) for part in values["id"]]
    table = _identifier(str(values.get("table", "t")))
    one = " || '-' || ".join(f"CAST({part} AS TEXT)" for part in parts)
    return (
        f"{where} id should be one column, found {_shown(values['id'])}. Map a view that joins "
        f"them, its column row_key as id: CREATE VIEW {table.strip(chr(34))}_peerwatch AS SELECT "
        f"{one} AS row_key, t.* FROM {table} t"
    )


def _identifier(name: str) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    return name if re.fullmatch(r"[a-z_][a-z0-9_.]*", name) else quoted


def _value(hint: Any, value: Any, where: str, faults: list[str]) -> Any:
    """The value as the annotation wants it, or a fault that says what was expected."""
    options = (
        typing.get_args(hint)
        if typing.get_origin(hint) in (typing.Union, types.UnionType)
        else (hint,)
    )
    nested = [option for option in options if dataclasses.is_dataclass(option)]
    if nested:
        return build(typing.cast(type, nested[0]), value, where.replace("] ", ".") + "]", faults)
    for option in options:
        fitted = _fitted(option, value)
        if fitted is not None:
            return fitted
    expected = " or ".join(_expected(option) for option in options if option is not type(None))
    faults.append(f"{where} should be {expected}, found {_shown(value)}.")
    return None


def _fitted(option: Any, value: Any) -> Any:
    origin, arguments = typing.get_origin(option), typing.get_args(option)
    if origin is typing.Literal:
        return value if value in arguments else None
    if origin is tuple:
        good = isinstance(value, list) and all(isinstance(item, arguments[0]) for item in value)
        return tuple(value) if good else None
    if origin in (dict, Mapping) or option in (dict, Mapping):
        return _integer_keys(value) if isinstance(value, dict) else None
    if option is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if option is date and isinstance(value, datetime):
        return None
    if isinstance(value, bool) and option is not bool:
        return None
    return value if isinstance(option, type) and isinstance(value, option) else None


def _integer_keys(table: dict[str, Any]) -> dict[Any, Any]:
    """TOML knows text keys only; a segment's id is a number."""
    return {int(key) if key.isdecimal() else key: value for key, value in table.items()}


def _expected(option: Any) -> str:
    words = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
    if typing.get_origin(option) is typing.Literal:
        return " or ".join(f'"{choice}"' for choice in typing.get_args(option))
    if typing.get_origin(option) is tuple:
        return "a list of texts"
    if option is date:
        return "a date such as 2026-01-01"
    return words.get(option, "a table")


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    text = re.sub(r"://[^\"]*", "://…", text)  # a URL may hold a password
    return text if len(text) <= 40 else f"{text[:37]}..."


def _overridden(
    document: dict[str, Any], environment: Mapping[str, str], faults: list[str]
) -> dict[str, Any]:
    """PEERWATCH_SECTION__KEY=value, its value read as TOML and else as text."""
    result = _copied(document)
    for name, text in sorted(environment.items()):
        if not name.startswith(ENVIRONMENT) or name in OWN_VARIABLES:
            continue
        path = name.removeprefix(ENVIRONMENT).lower().split("__")
        if len(path) < 2:
            faults.append(
                f"The environment's {name} names no key; expected {ENVIRONMENT}SECTION__KEY."
            )
            continue
        table = result
        for step in path[:-1]:
            table = table.setdefault(step, {}) if isinstance(table, dict) else None
        if isinstance(table, dict):
            table[path[-1]] = _from_text(text)
        else:
            faults.append(f"The environment's {name} names a key inside one that is no table.")
    return result


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return value


def _from_text(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _substituted(value: Any, environment: Mapping[str, str], where: str, faults: list[str]) -> Any:
    """`${NAME}` replaced from the environment, a missing name being a fault."""
    if isinstance(value, dict):
        return {
            key: _substituted(item, environment, f"{where} {key}".strip(), faults)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_substituted(item, environment, where, faults) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        if match[1] not in environment:
            faults.append(f"{where} needs the environment variable {match[1]}, which is not set.")
        return environment.get(match[1], "")

    return NAME.sub(replace, value)


def _schedule(table: Any, faults: list[str]) -> dict[str, Entry]:
    """Job name to what is said of it: a rule, or a table with the rule and more."""
    if not isinstance(table, dict):
        faults.append("[schedule] should be a table.")
        return {}
    flat: dict[str, Any] = {}
    for name, said in table.items():
        nested = isinstance(said, dict) and "." not in name  # segmenter.fit without quotes
        flat |= {f"{name}.{verb}": rule for verb, rule in said.items()} if nested else {name: said}
    unknown_keys(flat, list(SCHEDULABLE), "[schedule]", faults)
    return {name: _entry(name, said, faults) for name, said in flat.items()}


def _entry(job: str, said: Any, faults: list[str]) -> Entry:
    where = f'[schedule] "{job}"'
    if not isinstance(said, str | dict):
        faults.append(
            f'{where} should be text, such as "0 3 * * sun" or "every 15 minutes", or a table '
            f'such as {{ rule = "0 6 * * *", timezone = "Europe/Berlin" }}; found {_shown(said)}.'
        )
        return Entry("")
    entry: Entry = build(Entry, {"rule": said} if isinstance(said, str) else said, where, faults)
    if entry.rule is not None and (fault := entry.fault()) is not None:
        faults.append(f"{where}: {fault}")
    return entry
