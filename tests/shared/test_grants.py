"""The statements of `grants`, run on a real PostgreSQL: what each role can do and what not."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from segmenter.jobs import JOBS as SEGMENTING
from shared import grants, migrating, runs
from shared.database import engine, parse_url, transaction
from shared.errors import ConfigurationError
from shared.jobs import Outcome, Request
from tests.builders import NOW, ask, run_sql, toml
from tests.conftest import execute
from tests.small_bank import END, Bank, copies
from tests.test_bad_input import peerwatch, refused

__all__ = ["peerwatch"]
KINDS = ("reader", "writer", "analyst", "migrator")


@dataclass(frozen=True)
class Guarded:
    """A fitted bank whose rights are those of the four roles; `url` is its owner's."""

    url: str
    names: dict[str, str]

    def url_of(self, role: str) -> str:
        return make_url(self.url).set(username=self.names[role]).render_as_string(False)

    def bank(self) -> Bank:
        """Read by the reader, written by the writer."""
        return Bank(self.url_of("reader"), results_url=self.url_of("writer"))


@pytest.fixture(scope="module")
def guarded(fitted_postgresql: str) -> Iterator[Guarded]:
    """Four roles with names that have to be quoted, and no rights but those that are granted."""
    names = {role: f'{role}+ "{secrets.token_hex(3)}"; --%' for role in KINDS}
    quoted = {role: '"' + name.replace('"', '""') + '"' for role, name in names.items()}
    with copies(fitted_postgresql) as url:
        database = str(make_url(url).database)
        run_sql(
            url,
            f"REVOKE ALL ON DATABASE {database} FROM PUBLIC",
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            "CREATE TABLE secrets (word TEXT)",
            *(f"CREATE ROLE {name} LOGIN" for name in quoted.values()),
        )
        found = grants.statements(Bank(url).config, names)
        execute(url, *(line.replace("%", "%%") for lines in found.values() for line in lines))
        yield Guarded(url, names)
    for name in quoted.values():
        execute(fitted_postgresql, f"DROP ROLE {name}".replace("%", "%%"))


VERDICT = (
    "INSERT INTO peerwatch.fraud_verdicts (verdict_id, transaction_id, verdict, actor, decided_at,"
    " recorded_at, source) VALUES ('v', 1000, 'false_positive', 'ana', now(), now(), 'sql')"
)
# What may be done by whom; nobody else may.
MATRIX = {
    "SELECT * FROM public.card_tx LIMIT 1": {"reader"},
    "SELECT * FROM public.secrets": set(),
    "UPDATE public.card_tx SET amt = 0": set(),
    "DELETE FROM public.card_tx": set(),
    "INSERT INTO public.card_tx (tx_id) VALUES (1)": set(),
    "CREATE INDEX ON public.card_tx (ts)": set(),
    "CREATE TABLE public.mine (x INTEGER)": set(),
    "CREATE SCHEMA mine": set(),
    "CREATE TEMPORARY TABLE mine (x INTEGER)": {"writer"},
    "SELECT * FROM peerwatch.fraud_alerts": {"writer", "analyst", "migrator"},
    "SELECT * FROM peerwatch.alert_queue": {"writer", "analyst", "migrator"},
    "SELECT * FROM peerwatch.coverage": {"writer", "analyst", "migrator"},
    "SELECT * FROM peerwatch.peerwatch_version": {"writer", "analyst", "migrator"},
    "INSERT INTO peerwatch.settings VALUES ('x', 'y')": {"writer", "migrator"},
    "UPDATE peerwatch.model_versions SET status = 'retired'": {"writer", "migrator"},
    "DELETE FROM peerwatch.pipeline_runs": {"writer", "migrator"},
    "UPDATE peerwatch.peerwatch_version SET version_num = '1'": {"migrator"},
    VERDICT: {"writer", "analyst", "migrator"},
    "UPDATE peerwatch.fraud_verdicts SET note = 'x'": set(),
    "DELETE FROM peerwatch.fraud_verdicts": set(),
    "TRUNCATE peerwatch.fraud_verdicts": set(),
    "TRUNCATE peerwatch.fraud_alerts": {"migrator"},
    "DROP TABLE peerwatch.drift_metrics": {"migrator"},
    "DROP VIEW peerwatch.run_health": {"migrator"},
    "CREATE TABLE peerwatch.mine (x INTEGER)": {"migrator"},
    "ALTER TABLE peerwatch.settings ADD COLUMN x INTEGER": {"migrator"},
    "ALTER TABLE peerwatch.customer_features ADD COLUMN x INTEGER": {"migrator"},
    "ALTER TABLE peerwatch.fraud_verdicts DISABLE TRIGGER USER": {"migrator"},
    "DROP TRIGGER verdicts_not_changed ON peerwatch.fraud_verdicts": {"migrator"},
    "SELECT peerwatch.add_customer_feature('x; DROP TABLE y', true, 'it''s')": {
        "writer",
        "migrator",
    },
}


@pytest.mark.parametrize("statement", MATRIX)
@pytest.mark.parametrize("role", KINDS)
def test_a_role_can_do_what_it_is_for_and_nothing_else(guarded, role, statement):
    made = sa.create_engine(guarded.url_of(role), poolclass=sa.NullPool)

    with made.connect() as connection:
        if role in MATRIX[statement]:
            connection.exec_driver_sql(statement)
        else:
            with pytest.raises(sa.exc.DBAPIError) as caught:
                connection.exec_driver_sql(statement)
            assert getattr(caught.value.orig, "sqlstate", None) == "42501", caught.value
        connection.rollback()


def test_a_whole_run_needs_no_right_to_write_the_source(guarded):
    bank = guarded.bank()
    source = "SELECT md5(string_agg(t\\:\\:text, '' ORDER BY tx_id)) FROM card_tx t"
    before = ask(guarded.url, source)

    scored = bank.score()
    assert scored.rows_written > 0
    alert = bank.ask("SELECT alert_id FROM #fraud_alerts ORDER BY alert_id LIMIT 1")[0][0]
    said = {"words": [alert, "confirmed_fraud"], "alert_id": alert, "verdict": "confirmed_fraud"}
    bank.do("fraudwatch.verdict", options={**said, "by": "ana"})
    bank.do("fraudwatch.fit", until=END, dry_run=True)
    segmented(bank, "segmenter.fit")
    segmented(bank, "segmenter.score")

    assert bank.count("current_transaction_scores") > 0
    assert bank.count("fraud_verdicts") == 1
    assert bank.ask("SELECT count(*) FROM #customer_features WHERE recency_days >= 0") != [(0,)]
    assert ask(guarded.url, "SELECT col_description('peerwatch.customer_features'\\:\\:regclass, "
               "attnum) FROM pg_attribute WHERE attname = 'recency_days'") == [
        ("days since the last purchase",)
    ]  # fmt: skip
    assert ask(guarded.url, source) == before


def segmented(bank: Bank, job: str) -> Outcome:
    with runs.opened(bank.config, job, NOW) as run:
        return runs.execute(run, SEGMENTING[job], Request(), "manual")


def test_what_the_migrator_makes_anew_can_be_read_by_the_others(guarded):
    url = guarded.url_of("migrator")
    target = migrating.Target("peerwatch", "")
    with transaction(engine(parse_url(url))) as connection:
        migrating.downgrade(connection, target, "0004")
        migrating.upgrade(connection, target)

    for role in ("writer", "analyst"):
        for name in ("segment_migration", "segment_lineage"):
            assert ask(guarded.url_of(role), f"SELECT count(*) FROM peerwatch.{name}")
    found = grants.statements(Bank(guarded.url).config, guarded.names)  # and to write it, again
    execute(guarded.url, *(line.replace("%", "%%") for item in found.values() for line in item))
    with transaction(engine(parse_url(guarded.url_of("writer")))) as connection:
        connection.exec_driver_sql("DELETE FROM peerwatch.segment_lineage")


# --- the command ----------------------------------------------------------------------------------


def test_the_command_prints_statements_and_runs_none(peerwatch, fitted_postgresql):
    Path("peerwatch.toml").write_text(toml(fitted_postgresql))

    said = peerwatch("grants", "--reader", "eve", "--analyst", "Ana")
    found = json.loads(peerwatch("grants", "--analyst", "Ana", "--json").out)["statements"]

    lines = said.out.splitlines()
    assert said.code == 0, said.err
    assert 'GRANT SELECT ON "public"."card_tx" TO "eve";' in lines
    assert 'GRANT INSERT ON "peerwatch"."fraud_verdicts" TO "Ana";' in lines
    assert not any("UPDATE" in line or "OWNER" in line for line in lines)
    (given,) = found.values()
    assert [line for line in lines if "Ana" in line] == given
    assert ask(fitted_postgresql, "SELECT 1 FROM pg_roles WHERE rolname IN ('eve', 'Ana')") == []


@pytest.mark.parametrize("name", ["", "public", "none", "x\0y", "n" * 64, "ä" * 32])
def test_a_name_that_would_mean_everybody_or_another_is_refused(peerwatch, fitted_postgresql, name):
    config = Bank(fitted_postgresql).config

    with pytest.raises(ConfigurationError, match="cannot be the name of a role"):
        grants.statements(config, {"writer": name})


def test_nobody_and_a_database_without_roles_are_one_message(peerwatch, fitted_sqlite):
    Path("peerwatch.toml").write_text(toml(fitted_sqlite))

    refused(peerwatch("grants"), 2, "Say whose rights")
    for option in ("--reader", "--writer"):
        refused(peerwatch("grants", option, "eve"), 2, "guard the file")
