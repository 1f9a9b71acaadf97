"""Who was ever seen, asked of the database and told by reading everything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from shared.frames import micros
from tests.builders import CLOCK, EVER, a_bank, a_source, a_transaction

MIDNIGHT = datetime(2026, 3, 1, tzinfo=UTC)
FORMS = {
    "timestamp": ("TIMESTAMP", "%Y-%m-%d %H:%M:%S"),
    "iso text": ("TEXT", "%Y-%m-%d %H:%M:%S"),
    "german text": ("TEXT", "%d.%m.%Y %H:%M"),
    "epoch": ("BIGINT", "epoch"),
}


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
