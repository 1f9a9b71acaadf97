"""The README is the only manual: what it lists is what there is, and its blocks run."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pandas as pd
import pytest
import sqlalchemy as sa

import fraudwatch.config
import fraudwatch.features
import fraudwatch.segments
import fraudwatch.verdicts
import segmenter.config
import segmenter.decisions
import segmenter.features
import segmenter.lineage
import segmenter.refitting
from fraudwatch import decisions, detector, evidence, learning, ranker
from shared import config, errors, frames, rules, synthetic, tables, template
from shared.cli import cli, main
from tests.builders import ask, make_results, run_sql
from tests.small_bank import few_fits, few_steps

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTIONS = {
    "`[source]`": config.Source,
    "`[source.transactions]`": config.Transactions,
    "`[source.customers]`": config.Customers,
    "`[results]`": config.Results,
    "`[segmenter]`": segmenter.config.Settings,
    "`[fraudwatch]`": fraudwatch.config.Settings,
    "More about a job": rules.Entry,
}
MAPPED = {"occurred_at", "customer_id", "counterparty_id", "amount", "currency", "segment"}
MAPPED |= {"entity.<entity>", "category.<category>", "number.<number>"}
OURS = ("peerwatch ", ".venv/bin/peerwatch ")
BASE = {"url": "sqlite:///bank.db", "transactions": {"table": "t", "id": "i", "time": "w"}}
BASE["transactions"] |= {"amount": "a"}  # type: ignore[operator]


# --- reading the manual -------------------------------------------------------------------------


def section(heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    found = re.findall(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", README, re.M | re.S)
    assert len(found) == 1, f"{heading}: found {len(found)} times"
    return str(found[0])


def listed(text: str) -> dict[str, list[str]]:
    """The rows of the tables in a text: what the first cell names, each with the row's cells."""
    rows = [
        re.split(r"(?<!\\)\|", line.strip("| "))
        for line in text.splitlines()
        if line.startswith("| ") and not line.startswith("| ---")
    ]
    cells = [[cell.strip() for cell in row] for row in rows]
    return {name: row for row in cells for name in re.findall(r"`([^`]+)`", row[0])}


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by its words."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


COMMANDS = dict(commands(cli))
EVERYWHERE = {name for option in cli.params for name in option.opts} | {"-h", "--help"}


def own_options(command: click.Command) -> set[str]:
    options = (item for item in command.params if isinstance(item, click.Option))
    return {name for option in options for name in option.opts} - EVERYWHERE


def documented_commands() -> dict[str, list[str]]:
    """The rows of the table of commands, by the words before arguments."""
    rows = listed(section("Commands"))
    words = {name: row for name, row in rows.items() if name.startswith("peerwatch ")}
    return {
        re.sub(r" [\[A-Z].*", "", name).removeprefix("peerwatch "): row
        for name, row in words.items()
    }


# --- commands -----------------------------------------------------------------------------------


def test_the_commands_are_those_of_the_program():
    assert set(documented_commands()) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_options_and_arguments_are_listed(name):
    first, options, _what = documented_commands()[name]
    arguments = [item for item in COMMANDS[name].params if isinstance(item, click.Argument)]

    assert set(re.findall(r"(?<!\w)--?[a-z][a-z-]*", options)) == own_options(COMMANDS[name])
    assert [a.human_readable_name for a in arguments] == re.findall(r"[A-Z_]{3,}", first)


def test_the_options_of_every_command_are_listed_once():
    named = [name.split(" ")[0] for name in listed(section("Commands")) if name[0] == "-"]

    assert set(named) == EVERYWHERE
    for command in COMMANDS.values():
        assert EVERYWHERE - {"--version", "-h", "--help"} <= {
            n for p in command.params for n in p.opts
        }


def shell_lines() -> list[str]:
    """Every line of a shell block, and every `peerwatch …` inside a cron line."""
    lines = [line for block in blocks("sh") for line in block.splitlines() if line]
    cron = [line for block in blocks("text") for line in block.splitlines() if "&& peer" in line]
    return lines + [line.split("&& ")[1].split(" > ")[0] for line in cron]


def test_every_command_line_of_the_manual_is_understood():
    typed = [shlex.split(line)[1:] for line in shell_lines() if line.startswith(OURS)]

    assert len(typed) > 10
    for words in typed:
        if words == ["--version"]:
            continue
        context, command, rest = click.Context(cli), cli, words
        while isinstance(command, click.Group):
            _name, found, rest = command.resolve_command(context, rest)
            assert found is not None
            command = found
        command.make_context(words[0], list(rest), parent=context)  # parses, runs nothing


def test_every_make_target_of_the_manual_is_there_and_the_other_way_round():
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))

    assert (
        set(re.findall(r"\bmake (demo|test|check|format|quality|bench|faults|clean)\b", README))
        == known
    )


def test_the_exit_codes_are_those_of_the_errors():
    tree = [errors.PeerwatchError, *errors.PeerwatchError.__subclasses__()]
    interrupted = 130

    documented = {int(row[0]) for row in cells(section("Exit codes")) if row[0].isdecimal()}

    assert documented == {error.exit_code for error in tree} | {0, interrupted}


def cells(text: str) -> list[list[str]]:
    """The cells of every row of the tables in a text."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines]


# --- settings -----------------------------------------------------------------------------------


def shown(field: dataclasses.Field[Any]) -> str:
    """A default as the manual writes it."""
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    elif field.default is dataclasses.MISSING:
        return "required"
    else:
        default = field.default
    if default is None:
        return "not set"
    if isinstance(default, tuple):
        return "`[]`"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{template.quoted(default)}`" if isinstance(default, str) else f"`{default}`"


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_setting_stands_with_its_default(heading):
    documented = {name: row[1] for name, row in listed(section(heading)).items()}

    assert documented == {
        field.name: shown(field) for field in dataclasses.fields(SECTIONS[heading])
    }


def test_the_schedule_is_the_one_that_init_writes():
    documented = {name: row[1].strip('`"') for name, row in listed(section("`[schedule]`")).items()}

    expected = dict.fromkeys(rules.SCHEDULABLE, "nothing") | template.SCHEDULE
    assert documented == expected


def test_every_toml_block_is_a_configuration():
    found = blocks("toml")
    environment = {"RESULTS_PASSWORD": "secret"}

    for block in found:
        document = {"source": BASE} | tomllib.loads(block)
        made = config.parse(document, Path("peerwatch.toml"), environment)
        assert made.source.transactions.table == document["source"]["transactions"]["table"]
    assert len(found) >= 3


# --- tables, views, words -------------------------------------------------------------------------


@pytest.mark.parametrize("name", tables.tables().metadata.tables)
def test_a_tables_columns_are_listed_in_their_order(name):
    table = tables.tables().metadata.tables[name]

    assert list(listed(section(f"`{name}`"))) == [column.name for column in table.columns]


@pytest.fixture(scope="module")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result tables, empty."""
    path = tmp_path_factory.mktemp("migrated") / "bank.db"
    path.touch()
    make_results(f"sqlite:///{path}")
    return path


@pytest.mark.parametrize("name", tables.VIEWS)
def test_a_views_columns_are_listed_in_their_order(migrated, name):
    with sqlite3.connect(migrated) as connection:
        columns = connection.execute(f"SELECT * FROM {name}").description

    assert list(listed(section(f"View `{name}`"))) == [column[0] for column in columns]


def test_every_quarantine_code_stands_with_its_meaning():
    _before, bad_rows = section("The mapping").split("**Bad rows**")

    assert {code: row[1] for code, row in listed(bad_rows).items()} == frames.CODES


def test_the_verdicts_and_the_states_are_those_of_the_program():
    assert tuple(listed(section("Verdicts"))) == fraudwatch.verdicts.VERDICTS
    states = [name for name in listed(section("How segments are made")) if len(name) < 9]
    assert set(segmenter.decisions.STATES) <= set(states)


@pytest.mark.parametrize(
    ("heading", "features"),
    [
        ("How a score is made", fraudwatch.features.declared(MAPPED)),
        ("How segments are made", segmenter.features.FEATURES),
    ],
    ids=["fraudwatch", "segmenter"],
)
def test_every_feature_stands_with_its_role_and_unit(heading, features):
    documented = {name: row[1:3] for name, row in listed(section(heading)).items() if len(row) == 4}

    assert documented == {feature.name: [feature.role, feature.unit] for feature in features}


def percent(share: float) -> str:
    return f"{100 * share:g} %"


def test_the_numbers_that_decide_about_alerts_are_those_of_the_code():
    key, rare = evidence.Evidence.assumed(["customer", evidence.COUNTERPARTY]).keys
    base, shape = evidence.Evidence(()).base, decisions.CALIBRATOR
    levels = ", ".join(f"{level}" for level in decisions.DRIFT_LEVELS[:-1])
    sure = f"{100 * ranker.CONFIDENCE:g} of 100 draws of the days"

    stated = {
        "How a score is made": [
            f"at most {detector.MOST_TRAINING_ROWS:,} rows",
            f"the likelihood ratio {shape} p^−{1 - shape}",
            f"the misfit weighs {detector.MISFIT_WEIGHT:g}",
            "which counts as one in a million at most",
            f"the most surprising {percent(decisions.TAIL_SHARE)}",
            f"looks at the {evidence.DAYS} days before",
            f"From {evidence.LEAST_FRAUDS} known frauds on",
            f"| hazard a day | {key.hazard:g} | {rare.hazard:g} |",
            f"| days compromised, on average | {key.duration:g} | {rare.duration:g} |",
            f"payments that is fraud | {key.share:g} | {rare.share:g} |",
            f"account, per payment | {key.other:g} | {rare.other:g} |",
            f"assumed to be {base:g} of all payments",
            f"at least {decisions.DRIFT_DAYS} of the days have their answers",
            f"{decisions.RAISED_PER_REVIEW} × `reviews_per_day` times",
            "the last {}, {} and {} days".format(*ranker.RISK_DAYS),
            f"quarter of the days with answers, at most {learning.LATER_DAYS}",
            f"{ranker.LEAST_FRAUDS} frauds are known on the earlier days and {ranker.LEAST_LATER}",
            sure,
        ],
        "How many alerts are false": [
            f"{percent(decisions.KNOWN_SHARE)} have a label or verdict, on at least "
            f"{decisions.DRIFT_DAYS} days",
            f"at or below {levels} and {decisions.DRIFT_LEVELS[-1]} are",
            f"one in {1 / decisions.FALSE_DRIFT:,.0f} days",
            f"at least {decisions.DRIFT_DAYS} longer than that",
        ],
        "What labels and verdicts change": [f"From {evidence.LEAST_FRAUDS} known frauds on"],
        "`[fraudwatch]`": [f"known for {percent(fraudwatch.segments.LEAST_KNOWN)} of the training"],
    }

    assert (round(math.exp(detector.MISFIT_MOST)), learning.LATER_SHARE) == (1_000_000, 1 / 4)
    for heading, phrases in stated.items():
        assert [phrase for phrase in phrases if phrase not in section(heading)] == []


def test_the_numbers_that_decide_about_segments_are_those_of_the_code():
    stated = {
        "How segments are made": [
            f"more probable by at least {segmenter.decisions.LEAD:g}",
            f"posterior mass, at least {segmenter.lineage.MIN_OVERLAP:g} of their union",
            f"at most {percent(segmenter.decisions.MAX_MOVED)} of the customers move",
            f"at least {segmenter.refitting.MARGIN:g} nats per customer and two standard errors",
            "fitted without a fifth of the customers",
        ],
        "`segment_lineage`": [f"at least {segmenter.lineage.MIN_SHARE:g} of the posterior mass"],
    }

    assert (segmenter.refitting.HELD_OUT, segmenter.refitting.ERRORS) == (1 / 5, 2)
    for heading, phrases in stated.items():
        assert [phrase for phrase in phrases if phrase not in section(heading)] == []
    kinds = re.findall(r"`(\w+)`", listed(section("`segment_lineage`"))["kind"][2])
    assert tuple(kinds) == segmenter.lineage.KINDS


def test_every_file_of_the_house_is_in_its_tree():
    block = next(block for block in blocks("text") if block.startswith("shared/"))
    packages = ("shared", "segmenter", "fraudwatch", "migrations")
    files = [path.name for package in packages for path in (ROOT / package).rglob("*.*")]
    kept = [name for name in files if name.endswith((".py", ".html", ".mako"))]

    documented = re.findall(r"^ *([\w.]+\.(?:py|html|mako)) ", block, re.M)

    assert sorted(documented) == sorted(name for name in kept if name != "__init__.py")


def test_every_link_inside_the_manual_leads_somewhere():
    headings = re.findall(r"^#+ (.+)$", README, re.M)
    anchors = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}

    links = set(re.findall(r"\]\(#([^)]+)\)", README))

    assert links
    assert links <= anchors


# --- blocks that run ------------------------------------------------------------------------------


def scored_world(url: str, folder: Path) -> str:
    """A small world, fitted and scored by the commands; returns its URL."""
    world = synthetic.world(0, customers=200, days=60)
    sound = world.transactions.assign(
        amount=pd.to_numeric(world.transactions.amount, errors="coerce")
    )
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        for name, frame in (("customers", world.customers), ("transactions", sound)):
            columns = ", ".join(f"{c} {kind}" for c, kind in synthetic.SQL_TYPES[name].items())
            connection.exec_driver_sql(f"CREATE TABLE {name} ({columns})")
            frame.to_sql(name, connection, if_exists="append", index=False, method="multi",
                         chunksize=100)  # fmt: skip
    typed("init", "--url", url, folder=folder)
    with few_fits(), few_steps():
        typed("segmenter", "fit", folder=folder)
        typed("fraudwatch", "fit", "--until", "2025-04-20", folder=folder)
    typed("segmenter", "score", folder=folder)
    typed("fraudwatch", "score", folder=folder)
    return url


@pytest.fixture(scope="module")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The small world in SQLite."""
    folder = tmp_path_factory.mktemp("demo")
    (folder / "bank.db").touch()
    return scored_world(f"sqlite:///{folder / 'bank.db'}", folder)


def typed(*words: str, folder: Path) -> None:
    """Runs a command in this process, as a person types it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["peerwatch", *words, "--quiet"])
        patch.setenv("PEERWATCH_CONFIG", str(folder / "peerwatch.toml"))
        assert main() == 0, words


def test_the_queries_have_answers_on_sqlite(small_demo):
    assert len(blocks("sql")) == 8  # five queries, closed days, a verdict and what came of it
    for query in blocks("sql"):
        if query.startswith("INSERT"):
            run_sql(small_demo, query)
        else:
            assert ask(small_demo, query), query

    said = ask(small_demo, "SELECT verdict, status FROM alert_outcomes WHERE actor = 'maria'")
    assert said == [("false_positive", "closed")]


def test_the_queries_and_grants_have_answers_on_postgresql(postgresql_url, tmp_path):
    url = scored_world(postgresql_url, tmp_path)
    (grants,) = blocks("sql postgresql")
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection, connection.begin() as transaction:
        connection.exec_driver_sql("SET search_path TO public, peerwatch")
        connection.exec_driver_sql("CREATE ROLE analyst")
        for query in blocks("sql"):
            result = connection.exec_driver_sql(query)
            assert result.rowcount > 0, query
        for grant in filter(str.strip, grants.split(";")):
            connection.exec_driver_sql(grant)
        rights = connection.exec_driver_sql(
            "SELECT has_table_privilege('analyst', 'peerwatch.fraud_verdicts', 'INSERT'), "
            "has_table_privilege('analyst', 'peerwatch.fraud_alerts', 'INSERT')"
        ).one()
        transaction.rollback()  # a role belongs to the whole server

    assert tuple(rights) == (True, False)


def test_the_python_blocks_run():
    (block,) = blocks("python")

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("(300, ")


def test_a_statement_in_the_manual_that_is_no_command_would_be_noticed():
    with pytest.raises(click.UsageError):
        cli.resolve_command(click.Context(cli), ["scor"])
