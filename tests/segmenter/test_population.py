"""Who was ever seen, and who customers were at a moment, on both databases."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from shared.frames import micros
from shared.synthetic import SQL_TYPES, START
from tests.builders import CLOCK, EVER, a_bank, a_source, a_transaction, run_sql
from tests.segmenter.test_jobs import MIDDLE, SMALL, Bank

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
AS_NOW = "mapped customer columns are read as they are now"
FORMS = {
    "timestamp": ("TIMESTAMP", "%Y-%m-%d %H:%M:%S"),
    "iso text": ("TEXT", "%Y-%m-%d %H:%M:%S"),
    "german text": ("TEXT", "%d.%m.%Y %H:%M"),
    "epoch": ("BIGINT", "epoch"),
}

pytestmark = pytest.mark.usefixtures("few_fits")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/Los_Angeles"])
def test_customers_before_are_those_of_the_rows_before(database: str, form: str, zone: str) -> None:
    declared, pattern = FORMS[form]
    hours = [-900, -200, -73, -49, -25, -24, -10, -1, 0, 1, 9, 30, 60, 200]
    moments = [MIDNIGHT + timedelta(hours=h) for h in hours]
    written = [int(m.timestamp()) if pattern == "epoch" else m.strftime(pattern) for m in moments]
    rows = [a_transaction(i, ts, cust=100 + i) for i, ts in enumerate(written)]
    a_bank(database, [*rows, a_transaction(99, written[0], cust=None)], ts=declared)
    kept = pattern if form == "german text" else None

    with a_source(database, zone, time_format=kept) as source:
        every = source.read(*EVER, CLOCK).rows
        for cut in (MIDNIGHT, MIDNIGHT + timedelta(hours=1), MIDNIGHT - timedelta(hours=60)):
            found = source.customers_before(micros(cut), CLOCK)

            before = every[(every.occurred_at < micros(cut)) & every.customer_id.notna()]
            assert sorted(found) == sorted(before.customer_id)


def test_customers_are_those_of_the_moment_and_never_doubled(database: str, tmp_path: Path) -> None:
    """The credit limit of everybody was doubled ten days before the end."""
    bank = Bank(database, tmp_path).build()
    changed = f"'{MIDDLE:%Y-%m-%d %H:%M:%S}'"
    columns = ", ".join(SQL_TYPES["customers"])
    twice = columns.replace("credit_limit", "2 * credit_limit")
    run_sql(
        database,
        "CREATE TABLE versions AS SELECT * FROM customers",
        "ALTER TABLE versions ADD COLUMN since TIMESTAMP",
        "ALTER TABLE versions ADD COLUMN until TIMESTAMP",
        f"UPDATE versions SET until = {changed}",
        f"INSERT INTO versions ({columns}, since) SELECT {twice}, {changed} FROM customers",
    )
    mapped = replace(
        bank.config.source.customers, table="versions", valid_from="since", valid_to="until"
    )
    bank.config = replace(bank.config, source=replace(bank.config.source, customers=mapped))
    limits = "SELECT sum(customer_credit_limit), count(*) FROM #customer_features"

    bank.do("segmenter.fit", until=MIDDLE - timedelta(days=1))
    bank.do("segmenter.score", until=MIDDLE - timedelta(days=1))
    before, customers = bank.ask(limits)[0]
    bank.do("segmenter.score", until=MIDDLE)
    after, still = bank.ask(limits)[0]
    bank.do("backfill.segmenter", since=START.to_pydatetime().replace(tzinfo=UTC), until=MIDDLE)

    assert after == pytest.approx(2 * before) and before > 0
    assert customers == still == len(SMALL.customers) + 1
    (card,) = bank.ask("SELECT card FROM #model_versions")
    assert AS_NOW not in card[0]
    current = "SELECT count(*), count(DISTINCT customer_id) FROM #current_customer_segments"
    assert bank.ask(current) == [(still, still)]


def test_the_card_says_that_columns_are_read_as_they_are_now(
    sqlite_url: str, tmp_path: Path
) -> None:
    bank = Bank(sqlite_url, tmp_path).build()

    bank.do("segmenter.fit")

    (card,) = bank.ask("SELECT card FROM #model_versions")
    assert AS_NOW in card[0]
