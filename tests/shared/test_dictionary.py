"""The data dictionary says what the manual says, and PostgreSQL holds it."""

from __future__ import annotations

import re

import pytest

from shared import dictionary, tables
from tests.builders import ask, make_results
from tests.test_documentation import listed, section


def plain(text: str) -> str:
    """A text of the manual without its marks."""
    linked = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", text)
    return " ".join(linked.replace("`", "").replace("\\|", "|").split())


def told(heading: str) -> dictionary.Meaning:
    text = section(heading)
    columns = {name: plain(row[-1]) for name, row in listed(text).items()}
    return dictionary.Meaning(plain(text.split("\n|")[0]), columns)


@pytest.mark.parametrize("name", tables.tables().metadata.tables)
def test_a_table_means_what_the_manual_says(name):
    assert dictionary.TABLES[name] == told(f"`{name}`")


@pytest.mark.parametrize("name", tables.VIEWS)
def test_a_view_means_what_the_manual_says(name):
    assert dictionary.VIEWS[name] == told(f"View `{name}`")


def test_the_dictionary_has_every_table_and_view_and_no_other():
    assert dictionary.TABLES.keys() == tables.tables().metadata.tables.keys()
    assert dictionary.VIEWS.keys() == set(tables.VIEWS)


def test_what_a_view_takes_over_from_a_table_is_said_in_full():
    said = dictionary.columns("current_transaction_scores")

    assert said["p_value"] == dictionary.TABLES["transaction_scores"].columns["p_value"]
    assert "as in transaction_scores" not in said.values()
    assert dictionary.columns("run_health")["runs"].startswith("runs so far")


COMMENTS = """
SELECT c.relname, a.attname, col_description(c.oid, a.attnum) FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relnamespace = 'peerwatch'\\:\\:regnamespace AND c.relkind IN ('r', 'v')
    AND c.relname <> 'peerwatch_version'
UNION ALL
SELECT c.relname, '', obj_description(c.oid) FROM pg_class c
WHERE c.relnamespace = 'peerwatch'\\:\\:regnamespace AND c.relkind IN ('r', 'v')
    AND c.relname <> 'peerwatch_version'
"""


def test_every_table_view_and_column_carries_its_meaning_in_postgresql(postgresql_url):
    make_results(postgresql_url)

    found = {(table, column): text for table, column, text in ask(postgresql_url, COMMENTS)}

    meanings = dictionary.TABLES | dictionary.VIEWS
    assert found == {
        (name, column): text
        for name, meaning in meanings.items()
        for column, text in {"": meaning.row, **dictionary.columns(name)}.items()
    }
