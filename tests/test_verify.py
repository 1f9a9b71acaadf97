"""`verify` names what is broken, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest

from shared import verifying
from tests.builders import NOW, a_transaction, run_sql
from tests.small_bank import END, Bank, copies


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def template(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fitted bank that two runs have scored, with customers in two segments."""
    with copies(request.getfixturevalue(f"fitted_{request.param}")) as url:
        bank = Bank(url)
        bank.score(until=END - timedelta(days=5))
        bank.score(now=NOW + timedelta(minutes=1))  # runs are named by their time
        first, second = "'2026-01-01T00:00:00.000000Z'", "'2026-02-01T00:00:00.000000Z'"
        for who, segment, since, until in (
            (1, 1, first, second), (1, 2, second, "NULL"), (2, 1, first, "NULL"),
        ):  # fmt: skip
            bank.say(
                "INSERT INTO #customer_segments (customer_id, state, segment_id, valid_from, "
                f"valid_to, last_scored_at, model_version_id, run_id) VALUES ({who}, 'assigned', "
                f"{segment}, {since}, {until}, {first}, 'm', 'r')"
            )
        refit_segments(bank)
        close_a_day(bank)
        yield url


def refit_segments(bank: Bank) -> None:
    """Two models: segment 1 goes on in the second, 2 does not, 3 is new."""
    for segment, model in ((1, "first"), (2, "first"), (1, "second"), (3, "second")):
        bank.say(
            "INSERT INTO #segments (segment_id, model_version_id, name, named_by, description, "
            f"customer_count, share) VALUES ({segment}, '{model}', 'a name', 'model', '', 1, 0.5)"
        )
    for ends, kind, overlap in (("1, 1", "kept", 1), ("2, NULL", "retired", "NULL"),
                                ("NULL, 3", "new", "NULL")):  # fmt: skip
        bank.say(
            "INSERT INTO #segment_lineage (from_segment_id, to_segment_id, from_model_version_id, "
            f"to_model_version_id, kind, overlap) VALUES ({ends}, 'first', 'second', '{kind}', "
            f"{overlap})"
        )


def close_a_day(bank: Bank) -> None:
    """One closed day, the first with two alerts of different p-values; all others are open."""
    day, rows = bank.ask(
        "SELECT day, (SELECT count(*) FROM #transaction_scores s "
        "WHERE s.day = a.day AND s.role = 'published') FROM #fraud_alerts a WHERE day > "
        "'2026-02-16' GROUP BY day HAVING min(p_value) < max(p_value) ORDER BY day"
    )[0]
    never = "'2026-03-19T00:00:00.000000Z'"
    bank.say(
        "DELETE FROM #closed_days",
        "UPDATE #fraud_alerts SET q_value = NULL",
        "INSERT INTO #closed_days (day, closed_at, scored, false_discovery_rate, promised, drifted,"
        f" run_id) VALUES ('{day}', {never}, {rows}, 0.1, true, false, 'r')",
        f"UPDATE #fraud_alerts SET q_value = 2 * p_value WHERE day = '{day}'",
    )


@pytest.fixture
def bank(template: str) -> Iterator[Bank]:
    with copies(template) as url:
        yield Bank(url)


def broken(bank: Bank) -> dict[str, int]:
    """What is broken, with the number of rows."""
    checks = verifying.verify(bank.config, NOW + timedelta(days=1))
    assert len(checks) >= 23
    return {check["text"].split(" (")[0]: check["rows"] for check in checks if check["rows"]}


def test_nothing_is_broken_where_nothing_was_touched(bank):
    assert broken(bank) == {}


def test_rows_that_have_come_since_the_last_run_are_no_fault(bank):
    bank.add([a_transaction(at, "2026-03-02 10:00:00") for at in range(7)])
    bank.add([a_transaction(at, "2026-01-25 10:00:00") for at in range(10, 12)])

    assert broken(bank) == {}
    texts = [item["text"] for item in verifying.verify(bank.config, NOW + timedelta(days=1))]
    assert any("(7 rows pending" in text for text in texts), "two lie before the scope"


CORRUPTIONS = {
    "reasons of an alert": (
        "DELETE FROM #fraud_alert_reasons WHERE alert_id = "
        "(SELECT min(alert_id) FROM #fraud_alerts)",
        {"every alert has its reasons": 1},
    ),
    "an alert": (
        "DELETE FROM #fraud_alerts WHERE alert_id = (SELECT min(alert_id) FROM #fraud_alerts)",
        {"every reason has its alert": None},
    ),
    "an ordinary score": (
        "DELETE FROM #transaction_scores WHERE transaction_id = (SELECT min(transaction_id) FROM "
        "#transaction_scores WHERE transaction_id NOT IN "
        "(SELECT transaction_id FROM #fraud_alerts))",
        {"every run left as many scores as its ledger says": 1},
    ),
    "all scores of a run": (
        "DELETE FROM #transaction_scores WHERE run_id = (SELECT max(run_id) FROM "
        "#transaction_scores) AND transaction_id NOT IN (SELECT transaction_id FROM #fraud_alerts)",
        {"every run left as many scores as its ledger says": 1},
    ),
    "the score of an alert": (
        "DELETE FROM #transaction_scores WHERE transaction_id = "
        "(SELECT min(transaction_id) FROM #fraud_alerts)",
        {
            "every raised alert has its published score": 1,
            "every run left as many scores as its ledger says": 1,
        },
    ),
    "a p-value": (
        "UPDATE #transaction_scores SET p_value = 0 WHERE transaction_id = "
        "(SELECT min(transaction_id) FROM #transaction_scores)",
        {"p-values are above 0 and at most 1": 1},
    ),
    "the model of a score": (
        "UPDATE #transaction_scores SET model_version_id = 'gone' WHERE transaction_id = "
        "(SELECT min(transaction_id) FROM #transaction_scores)",
        {"every score names a stored model": 1},
    ),
    "the hash of a model": (
        "UPDATE #model_versions SET sha256 = 'abc'",
        {"every stored model is the one fitted": 1},
    ),
    "a gap between periods": (
        "UPDATE #customer_segments SET valid_to = '2026-01-20T00:00:00.000000Z' WHERE "
        "valid_to IS NOT NULL",
        {"a customer's periods have no gap and no overlap": 1},
    ),
    "the current period": (
        "UPDATE #customer_segments SET valid_to = '2026-03-01T00:00:00.000000Z' WHERE "
        "customer_id = 2",
        {
            "every customer has exactly one current segment row": 1,
            "a customer's periods have no gap and no overlap": 1,
        },
    ),
    "a segment without the state": (
        "UPDATE #customer_segments SET state = 'outlier' WHERE customer_id = 2",
        {"a segment is given exactly where the state is assigned": 1},
    ),
    "a link between segments": (
        "DELETE FROM #segment_lineage WHERE kind = 'new'",
        {"every segment of a model and of the champion before it has its link": 1},
    ),
    "the end of a link": (
        "UPDATE #segment_lineage SET to_segment_id = 9 WHERE kind = 'kept'",
        {
            "a link joins segments of its two models, or none where one is new or retired": 1,
            "every segment of a model and of the champion before it has its link": 1,
            "a segment is kept exactly where its id is": 1,
        },
    ),
    "the kind of a link": (
        "UPDATE #segment_lineage SET kind = 'split' WHERE kind = 'kept'",
        {"a segment is kept exactly where its id is": 1},
    ),
    "a link that has no end": (
        "UPDATE #segment_lineage SET kind = 'merged' WHERE kind = 'retired'",
        {"a link joins segments of its two models, or none where one is new or retired": 1},
    ),
    "a segment of a model": (
        "DELETE FROM #segments WHERE segment_id = 3",
        {"a link joins segments of its two models, or none where one is new or retired": 1},
    ),
    "the q-values of a closed day": (
        "UPDATE #fraud_alerts SET q_value = NULL",
        {"every alert of a closed day has its q-value": None},
    ),
    "the q-value of an open day": (
        "UPDATE #fraud_alerts SET q_value = 1 WHERE alert_id = "
        "(SELECT min(alert_id) FROM #fraud_alerts WHERE q_value IS NULL)",
        {"no alert of an open day has a q-value": 1},
    ),
    "the order of q-values": (
        "UPDATE #fraud_alerts SET q_value = 1 WHERE q_value = "
        "(SELECT min(q_value) FROM #fraud_alerts)",
        {"q-values rise with the p-values of their day, from them up to 1": None},
    ),
    "a q-value below its p-value": (
        "UPDATE #fraud_alerts SET q_value = p_value / 2 WHERE q_value = "
        "(SELECT min(q_value) FROM #fraud_alerts)",
        {"q-values rise with the p-values of their day, from them up to 1": None},
    ),
    "a late row": ("UPDATE #closed_days SET scored = scored - 1", {}),
    "how much was scored at the close": (
        "UPDATE #closed_days SET scored = scored + 1",
        {"a closed day has all the scores it was closed with": 1},
    ),
    "a promise": (
        "UPDATE #closed_days SET reason = 'the p-values have drifted'",
        {"a rate is promised exactly where one is asked and nothing speaks against it": 1},
    ),
}


@pytest.mark.parametrize("what", CORRUPTIONS)
def test_what_was_tampered_with_is_named_and_nothing_else(bank, what):
    statement, expected = CORRUPTIONS[what]

    bank.say(statement)

    found = broken(bank)
    assert found.keys() == expected.keys()
    assert all(rows in (None, found[text]) for text, rows in expected.items())


def without(bank, index):
    """Nothing forbids any longer what the index was for."""
    bank.say(f"DROP INDEX {index if 'sqlite' in bank.url else f'peerwatch.{index}'}")


def test_a_second_champion_is_named(bank):
    without(bank, "one_champion")
    bank.say(
        "INSERT INTO #model_versions SELECT 'x-' || substr(sha256, 1, 10), kind, parent_id, "
        "status, created_at, trained_from, trained_to, rows, metrics, card, gate, promoted_at, "
        "promoted_by, sha256, artifact FROM #model_versions"
    )

    assert broken(bank) == {"a kind has at most one champion": 1}


def test_a_second_current_segment_row_is_named(bank):
    without(bank, "one_current_segment")
    bank.say("UPDATE #customer_segments SET valid_to = NULL WHERE customer_id = 1")

    assert broken(bank) == {
        "every customer has exactly one current segment row": 1,
        "a customer's periods have no gap and no overlap": 1,
    }


def test_a_flipped_byte_of_a_model_is_named_and_nothing_is_scored_with_it(bank):
    flipped = (
        "CAST(substr(artifact, 1, 999) || x'00' || substr(artifact, 1001) AS BLOB)"
        if "sqlite" in bank.url
        else "set_byte(artifact, 1000, 255 - get_byte(artifact, 1000))"
    )
    bank.say(f"UPDATE #model_versions SET artifact = {flipped}")

    assert broken(bank) == {"every stored model is the one fitted": 1}
    with pytest.raises(Exception, match="SHA-256 differs"):
        bank.score(now=NOW + timedelta(days=1))


def test_rows_that_a_killed_run_scored_before_it_counted_them_have_not_gone(bank):
    (day,) = bank.ask("SELECT max(day) FROM #source_days")[0]
    bank.say(f"UPDATE #source_days SET source_rows = source_rows - 2 WHERE day = '{day}'")

    assert bank.covered("gone_from_source") == 2
    assert broken(bank) == {}


def test_source_rows_that_have_gone_are_named(bank):
    run_sql(bank.url, "DELETE FROM card_tx WHERE tx_id IN (SELECT max(tx_id) FROM card_tx)")

    assert broken(bank) == {"no day of the source has fewer rows than were counted": 1}
    bank.score(now=NOW + timedelta(days=1))
    assert broken(bank) == {"no scored row has gone from the source": 1}
