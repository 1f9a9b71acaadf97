"""What stands in the result tables: keys, alerts, verdicts and the views that analysts read."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from fraudwatch import store
from fraudwatch.decisions import natural_id
from shared import runs
from shared.errors import ConfigurationError
from shared.frames import micros
from tests.builders import NOW
from tests.small_bank import END, FITTED, Bank, copies, transactions

YES = "confirmed_fraud"


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def template(request: pytest.FixtureRequest) -> Iterator[str]:
    """A fitted and scored bank, once on each database."""
    with copies(request.getfixturevalue(f"fitted_{request.param}")) as url:
        Bank(url).score()
        yield url


@pytest.fixture
def bank(template: str) -> Iterator[Bank]:
    with copies(template) as url:
        yield Bank(url)


def an_alert(bank: Bank, at: int = 0) -> tuple[str, int]:
    """(alert, transaction) of one of the alerts."""
    return bank.ask(
        "SELECT alert_id, transaction_id FROM #fraud_alerts ORDER BY priority DESC, alert_id"
    )[at]


def said(bank: Bank, now: datetime = NOW, **options: object) -> int:
    """Records a verdict; returns how many were new."""
    return bank.do("fraudwatch.verdict", now, options={"by": "a person", **options}).rows_written


def status(bank: Bank, alert_id: str) -> str:
    where = f"WHERE alert_id = '{alert_id}'"
    return str(bank.ask(f"SELECT status FROM #alert_outcomes {where}")[0][0])


# --- ids and reads ------------------------------------------------------------------------------


def test_alert_ids_are_functions_of_the_transaction(bank):
    pairs = bank.ask("SELECT alert_id, transaction_id FROM #fraud_alerts")

    assert len(pairs) > 20
    assert all(alert == natural_id("alert", transaction) for alert, transaction in pairs)


def test_a_case_bears_the_name_of_its_first_alert(bank):
    first = bank.ask(
        "SELECT case_id, customer_id, transaction_id FROM #fraud_alerts a WHERE customer_id IS NOT "
        "NULL AND NOT EXISTS (SELECT 1 FROM #fraud_alerts b WHERE b.case_id = a.case_id "
        "AND (b.occurred_at < a.occurred_at OR (b.occurred_at = a.occurred_at "
        "AND b.transaction_id < a.transaction_id)))"
    )

    assert len(first) > 5
    assert all(case == natural_id("case", f"customer {who}", tx) for case, who, tx in first)


def test_keys_read_back_are_as_they_were_written_even_beside_nulls(bank):
    near = pd.DataFrame(
        {
            "customer_id": pd.array([None, *range(1, 61)], dtype="Int64"),
            "counterparty_id": pd.array(range(61), dtype="Int64"),
        }
    )
    bank.say(
        "INSERT INTO #fraud_alerts (alert_id, transaction_id, case_id, customer_id, "
        "counterparty_id, occurred_at, day, origin, summary, run_id, created_at) VALUES ('alone', "
        "1, 'its case', NULL, 0, '2026-02-20T00:00:00.000000Z', '2026-02-20', 'threshold', 'x', "
        "'r', '2026-02-20T00:00:00.000000Z')"
    )
    results = runs.open_results(bank.config)
    with results.transaction() as connection:
        found = store.earlier_alerts(connection, results.tables, near)

    whose = found.set_index("alert_id")
    assert whose.customer_id["alone"] is None and whose.counterparty_id["alone"] == 0
    assert {str(value) for value in found.customer_id.dropna()} <= {str(at) for at in range(61)}
    assert found.occurred_at.is_monotonic_increasing
    assert whose.occurred_at["alone"] == micros(datetime(2026, 2, 20, tzinfo=UTC))


def test_the_histogram_counts_every_score_in_its_own_bin(bank):
    results = runs.open_results(bank.config)
    with results.transaction() as connection:
        found = store.report_frames(connection, results.tables, FITTED.date())["scores"]
    since = bank.ask(
        f"SELECT anomaly_score FROM #transaction_scores WHERE day >= '{FITTED.date()}'"
    )

    scores = pd.Series([row[0] for row in since])
    for row in found.itertuples():
        assert row.count == ((scores >= row.low) & (scores < row.high)).sum()
    assert found["count"].sum() == len(scores)


def test_a_score_is_never_written_twice(bank):
    results = runs.open_results(bank.config)
    ids = pd.Series([row["tx_id"] for row in transactions()])
    with results.transaction() as connection:
        new = store.unscored(connection, results.tables, ids)

    assert set(ids[~new]) == bank.published().keys()
    assert 0 < new.sum() < len(ids)


# --- the queue ----------------------------------------------------------------------------------


def test_the_queue_holds_the_foremost_cases_of_each_day_within_the_budget(bank):
    queue = bank.ask("SELECT day, rank, case_id, priority FROM #alert_queue ORDER BY day, rank")
    cases = bank.ask("SELECT day, case_id, max(priority) FROM #fraud_alerts GROUP BY day, case_id")

    expected = []
    for day in sorted({row[0] for row in cases}):
        today = sorted((-priority, case) for d, case, priority in cases if d == day)
        expected += [(day, at + 1, case) for at, (_, case) in enumerate(today[:2])]
    assert [row[:3] for row in queue] == expected


def test_open_alerts_show_their_first_three_reasons(bank):
    alert_id, _ = an_alert(bank)
    reasons = [
        row[0]
        for row in bank.ask(
            f"SELECT text FROM #fraud_alert_reasons WHERE alert_id = '{alert_id}' ORDER BY rank"
        )
    ]

    shown = bank.ask(
        "SELECT reason_1, reason_2, reason_3, status, last_verdict FROM #open_fraud_alerts "
        f"WHERE alert_id = '{alert_id}'"
    )
    assert shown == [(*reasons[:3], "open", None)]


# --- verdicts -----------------------------------------------------------------------------------


def test_a_verdict_closes_an_alert_and_reopening_opens_it(bank):
    alert_id, transaction = an_alert(bank)

    seen = [status(bank, alert_id)]
    for hours, verdict in enumerate(("in_review", YES, "reopened")):
        said(bank, NOW + timedelta(hours=hours), alert_id=alert_id, verdict=verdict)
        seen.append(status(bank, alert_id))

    assert seen == ["open", "in_review", "closed", "open"]
    rows = bank.ask("SELECT transaction_id, alert_id, actor, source FROM #fraud_verdicts")
    assert set(rows) == {(transaction, alert_id, "a person", "cli")}


def test_a_verdict_may_name_the_transaction_of_an_alert(bank):
    alert_id, transaction = an_alert(bank)

    said(bank, transaction=str(transaction), verdict="genuine_unusual", note="a holiday")

    assert bank.ask("SELECT alert_id, note FROM #fraud_verdicts") == [(alert_id, "a holiday")]
    assert status(bank, alert_id) == "closed"
    assert bank.count("open_fraud_alerts", f"alert_id = '{alert_id}'") == 0


def test_a_fraud_that_raised_no_alert_can_be_told(bank):
    row = transactions()[3]

    said(bank, transaction=str(row["tx_id"]), verdict=YES, fraud_type="phishing")

    found = bank.ask("SELECT alert_id, amount, fraud_type FROM #fraud_verdicts")
    assert found == [(None, pytest.approx(row["amt"]), "phishing")]
    missed = bank.ask(
        "SELECT missed_frauds, missed_value FROM #alert_quality WHERE missed_frauds > 0"
    )
    assert missed == [(1, pytest.approx(row["amt"]))]


def test_the_same_word_at_the_same_moment_is_one_verdict(bank):
    alert_id, _ = an_alert(bank)

    assert said(bank, alert_id=alert_id, verdict=YES) == 1
    assert said(bank, alert_id=alert_id, verdict=YES) == 0
    assert said(bank, NOW + timedelta(hours=1), alert_id=alert_id, verdict=YES) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"alert_id": "alert-0", "verdict": YES}, "no alert alert-0"),
        ({"transaction": "77", "verdict": YES}, "no valid transaction 77"),
        ({"transaction": "seven", "verdict": YES}, '"seven" is no transaction id'),
        ({"transaction": "1003", "verdict": "fraud"}, '"fraud" is no verdict'),
        ({"alert_id": "alert-0"}, "Say which alert and what"),
        ({}, "Say which alert and what"),
        ({"alert_id": "a", "verdict": YES, "transaction": "1003"}, "Say which alert and what"),
        ({"sheet": Path("nowhere.csv")}, "no file nowhere.csv"),
        ({"sheet": Path("x.csv"), "alert_id": "a"}, "either --csv"),
        ({"transaction": "1003", "verdict": YES, "by": " "}, "--by NAME"),
    ],
)
def test_a_verdict_that_makes_no_sense_is_refused_and_nothing_recorded(bank, options, words):
    with pytest.raises(ConfigurationError, match=words):
        said(bank, **options)

    assert bank.count("fraud_verdicts") == 0


def a_sheet(folder: Path, text: str) -> Path:
    path = folder / "verdicts.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_sheet_of_verdicts_is_recorded_at_once(bank, tmp_path):
    (one, _), (_, two) = an_alert(bank), an_alert(bank, 1)
    sheet = a_sheet(
        tmp_path,
        "alert_id,transaction_id,verdict,fraud_type,note,decided_at\n"
        f'{one},,{YES},card,"seen, and told",2026-03-01T10:00:00+02:00\n'
        f",{two},false_positive,,,2026-03-02\n"
        f",{transactions()[3]['tx_id']},{YES},,,\n",
    )

    assert said(bank, sheet=sheet) == 3
    assert said(bank, sheet=sheet) == 0, "the same sheet again"

    rows = bank.ask("SELECT note, decided_at, source FROM #fraud_verdicts ORDER BY decided_at")
    assert rows[0][0] == "seen, and told" and {row[2] for row in rows} == {"csv"}
    assert "2026-03-01" in str(rows[0][1]) and "08:00" in str(rows[0][1])
    assert status(bank, one) == "closed"


def test_all_faults_of_a_sheet_are_told_and_nothing_is_recorded(bank, tmp_path):
    (one, transaction), _ = an_alert(bank), None
    sheet = a_sheet(
        tmp_path,
        "alert_id,transaction_id,verdict,decided_at\n"
        f"{one},,{YES},\n"
        f"{one},,maybe,\n"
        f"nobody,,{YES},\n"
        f",x,{YES},\n"
        f",,{YES},\n"
        f"{one},,{YES},yesterday\n"
        f"{one},{transaction + 1},{YES},\n",
    )

    with pytest.raises(ConfigurationError) as caught:
        said(bank, sheet=sheet)

    lines = [fault.split(":")[0] for fault in caught.value.faults]
    assert lines == [f"verdicts.csv, line {at}" for at in range(3, 9)]
    assert bank.count("fraud_verdicts") == 0


@pytest.mark.parametrize(
    "text", ["", "a;b\n1;2\n", "verdict\nx\n", "alert_id,verdict,who\na,b,c\n", 'a,"b\n'], ids=repr
)
def test_a_file_that_is_no_sheet_of_verdicts_is_refused(bank, tmp_path, text):
    with pytest.raises(ConfigurationError, match=r"verdicts\.csv"):
        said(bank, sheet=a_sheet(tmp_path, text))


def test_a_verdict_inserted_by_sql_counts_like_any_other(bank):
    alert_id, transaction = an_alert(bank)

    bank.say(
        "INSERT INTO #fraud_verdicts (verdict_id, transaction_id, alert_id, verdict, actor, "
        f"decided_at, recorded_at, source) VALUES ('v1', {transaction}, '{alert_id}', "
        f"'false_positive', 'a person', '2026-03-21T00:00:00.000000Z', "
        "'2026-03-21T00:00:00.000000Z', 'sql')"
    )

    assert status(bank, alert_id) == "closed"


def test_no_run_changes_a_verdict(bank):
    said(bank, alert_id=an_alert(bank)[0], verdict=YES)
    before = bank.ask("SELECT * FROM #fraud_verdicts")

    bank.score(now=NOW + timedelta(days=1))
    bank.do("backfill.fraudwatch", NOW + timedelta(days=1), since=FITTED, until=END)

    assert bank.ask("SELECT * FROM #fraud_verdicts") == before


def test_alert_quality_counts_what_was_found_and_what_was_not(bank):
    leading = bank.ask("SELECT feature, alert_id FROM #fraud_alert_reasons WHERE rank = 1")
    features = [feature for feature, _ in leading]
    feature = max(sorted(set(features)), key=features.count)
    alerts = sorted(alert_id for name, alert_id in leading if name == feature)
    words = [YES, YES, "false_positive", "genuine_unusual", "inconclusive"]
    for alert_id, verdict in zip(alerts, words, strict=False):
        said(bank, NOW + timedelta(minutes=10), alert_id=alert_id, verdict=verdict)

    rows = bank.ask(
        "SELECT sum(reviewed), sum(confirmed), sum(value_confirmed), min(median_minutes_to_verdict)"
        f" FROM #alert_quality WHERE leading_reason = '{feature}'"
    )
    value = bank.ask(
        "SELECT sum(a.amount) FROM #fraud_alerts a JOIN #fraud_verdicts v ON v.alert_id = "
        f"a.alert_id WHERE v.verdict = '{YES}'"
    )[0][0]
    assert len(alerts) >= 5
    assert [int(row) for row in rows[0][:2]] == [5, 2]
    assert float(rows[0][2]) == pytest.approx(value)
    assert float(rows[0][3]) == pytest.approx(10, abs=0.1)
    total, ratio, low, high = bank.ask(
        "SELECT precision, false_positive_ratio, precision_low, precision_high FROM "
        "#alert_quality WHERE precision IS NOT NULL"
    )[0]
    assert float(total) + float(ratio) == pytest.approx(1)
    assert -1e-9 <= float(low) <= float(total) <= float(high) + 1e-9 <= 1 + 2e-9


def test_a_week_of_inconclusive_verdicts_has_no_precision(bank):
    said(bank, alert_id=an_alert(bank)[0], verdict="inconclusive")

    rows = bank.ask("SELECT reviewed, confirmed, precision, precision_low FROM #alert_quality")

    assert [(int(row[0]), int(row[1]), *row[2:]) for row in rows] == [(1, 0, None, None)]
