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


def test_the_report_is_given_the_closed_days_the_newest_drift_and_what_was_said(bank):
    day = a_busy_day(bank)
    close(bank, day, "0.1")
    said(bank, alert_id=an_alert(bank)[0], verdict=YES)
    bank.say("DELETE FROM #drift_metrics")
    ours, theirs = "fraudwatch.score", "segmenter.score"
    for run_id, job, started in (("1", ours, 2), ("2", ours, 1), ("3", theirs, 3)):
        bank.say(
            "INSERT INTO #pipeline_runs (run_id, job, trigger, status, started_at, rows_read, "
            "rows_written, rows_quarantined, rows_late, rows_too_late) VALUES "
            f"('{run_id}', '{job}', 'm', 'failed', '2027-01-0{started}T00:00:00.000000Z', 0, 0, 0, "
            "0, 0)",
            "INSERT INTO #drift_metrics (run_id, feature, statistic, value, threshold, drifted) "
            f"VALUES ('{run_id}', 'p_value', 's', 1, 5, false)",
        )
    results = runs.open_results(bank.config)

    with results.transaction() as connection:
        found = store.report_frames(connection, results.tables, FITTED.date())

    assert [str(value) for value in found["closed_days"].day] == [day]
    assert found["drift"].run_id.tolist() == ["1"], "the scoring of payments that began last"
    alerts = found["alerts"].set_index("alert_id")
    assert alerts.index.is_unique and len(alerts) == bank.count(
        "fraud_alerts", f"day >= '{FITTED.date()}'"
    )
    assert alerts.verdict.dropna().tolist() == [YES]
    assert not alerts.in_sample.astype(bool).any()


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


def a_drawn_alert(bank: Bank, day: str, at: int = 0) -> str:
    """An alert of that day that was drawn to be explored; its priority is that of nothing."""
    key = next(
        row["tx_id"] for row in transactions()[at:] if str(row["ts"]).startswith(day)
        and not bank.count("fraud_alerts", f"transaction_id = {row['tx_id']}")
    )  # fmt: skip
    bank.say(
        "INSERT INTO #fraud_alerts (alert_id, transaction_id, case_id, occurred_at, day, amount, "
        f"priority, origin, summary, run_id, created_at) SELECT 'drawn {key}', {key}, "
        f"'case {key}', occurred_at, day, 5, 0.001, 'exploration', 'drawn', run_id, scored_at "
        f"FROM #current_transaction_scores WHERE transaction_id = {key}",
        "INSERT INTO #fraud_alert_reasons (alert_id, rank, feature, value, expected, unit, text) "
        f"VALUES ('drawn {key}', 1, 'amount', '5', '5', '', 'drawn')",
    )
    return f"drawn {key}"


def close(bank: Bank, day: str, rate: str) -> None:
    """Closes one day under an asked rate; every second alert of it is under that rate."""
    bank.say(
        "DELETE FROM #closed_days",
        "INSERT INTO #closed_days (day, closed_at, scored, false_discovery_rate, promised, drifted,"
        f" run_id) VALUES ('{day}', '2026-03-19T00:00:00.000000Z', 9, {rate}, false, false, 'r')",
        "UPDATE #fraud_alerts SET q_value = CASE WHEN alert_id IN (SELECT alert_id FROM (SELECT "
        "alert_id, row_number() OVER (PARTITION BY day ORDER BY alert_id) AS place FROM "
        "#fraud_alerts) o WHERE place % 2 = 1) THEN 0.1 ELSE 0.11 END",
    )


def a_busy_day(bank: Bank) -> str:
    """The day with the most cases."""
    return str(bank.ask("SELECT day FROM #fraud_alerts WHERE day >= '2026-02-15' GROUP BY day "
                        "ORDER BY count(DISTINCT case_id) DESC, day")[0][0])  # fmt: skip


def test_the_queue_of_a_day_closed_under_a_rate_holds_only_those_under_it(bank):
    day = a_busy_day(bank)
    whole = bank.queue()

    close(bank, day, "0.1")
    under = bank.ask(
        "SELECT case_id, max(priority), count(*) FROM #fraud_alerts WHERE q_value <= 0.1 AND "
        f"day = '{day}' GROUP BY case_id ORDER BY 2 DESC"
    )
    found = bank.ask(
        f"SELECT case_id, priority, alerts FROM #alert_queue WHERE day = '{day}' ORDER BY rank"
    )
    others = [row for row in bank.queue() if str(row[0]) != day]

    assert found == under[:2]
    assert others == [row for row in whole if str(row[0]) != day], "those are not closed"
    close(bank, day, "NULL")
    assert bank.queue() == whole, "where no rate was asked the budget alone limits it"


def test_what_is_drawn_to_be_explored_stands_in_the_queue_beside_the_budget(bank):
    day = a_busy_day(bank)
    before = bank.ask(f"SELECT rank, case_id, origin FROM #alert_queue WHERE day = '{day}'")

    drawn = [a_drawn_alert(bank, day) for _ in range(3)]

    found = bank.ask(
        f"SELECT rank, case_id, origin FROM #alert_queue WHERE day = '{day}' ORDER BY rank"
    )
    assert found[: len(before)] == sorted(before)
    assert {row[2] for row in before} == {"threshold"} and len(before) == 2
    assert [(row[0], row[2]) for row in found[2:]] == [(at, "exploration") for at in (3, 4, 5)]
    assert {f"drawn {row[1].split()[-1]}" for row in found[2:]} == set(drawn)


def test_alert_outcomes_tell_the_rank_of_the_case_and_the_q_value(bank):
    day = a_busy_day(bank)
    close(bank, day, "NULL")
    ranks = {(str(row[0]), row[2]): row[1] for row in bank.queue()}

    found = bank.ask("SELECT day, case_id, rank, q_value FROM #alert_outcomes")

    assert len(found) == bank.count("fraud_alerts")
    assert all(row[2] == ranks.get((str(row[0]), row[1])) for row in found)
    assert {row[3] for row in found} == {0.1, 0.11}
    assert None in {row[2] for row in found}, "some are beyond the budget"


def test_what_was_drawn_to_be_explored_is_no_case_that_another_alert_goes_on_from(bank):
    drawn = a_drawn_alert(bank, a_busy_day(bank))
    bank.say(f"UPDATE #fraud_alerts SET customer_id = 1 WHERE alert_id = '{drawn}'")
    near = pd.DataFrame({"customer_id": [1], "counterparty_id": [1]}, dtype="Int64")
    results = runs.open_results(bank.config)

    with results.transaction() as connection:
        found = store.earlier_alerts(connection, results.tables, near)

    assert drawn not in set(found.alert_id)


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


def test_a_sheet_of_verdicts_is_recorded_at_once(bank, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "MOST_KEYS", 2)
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
    ("body", "line", "words"),
    [
        ("\n\n{one},maybe,\n", 4, '"maybe" is no verdict'),
        ('{one},{yes},"two\nlines"\n{one},,\n', 4, "No verdict is given"),
        ("{one},{yes},now,and then\n", 2, "4 fields, expected 3"),
        ("{one},{yes}\n", 2, "2 fields, expected 3"),
        ("{one},{yes},\n{one},false_positive,\n", 3, "line 2: confirmed_fraud is said"),
    ],
)
def test_a_fault_of_a_sheet_is_told_with_its_line(bank, tmp_path, body, line, words):
    text = "alert_id,verdict,note\n" + body.format(one=an_alert(bank)[0], yes=YES)

    with pytest.raises(ConfigurationError) as caught:
        said(bank, sheet=a_sheet(tmp_path, text))

    (fault,) = caught.value.faults
    assert fault.startswith(f"verdicts.csv, line {line}: ") and words in fault
    assert bank.count("fraud_verdicts") == 0


@pytest.mark.parametrize(
    "moment",
    ["0026-03-02", "0001-01-01T00:00:00+05:00", "9999-12-31T23:59:59-05:00", "2099-01-01"],
)
def test_a_moment_that_cannot_be_is_refused(bank, tmp_path, moment):
    text = f"alert_id,verdict,decided_at\n{an_alert(bank)[0]},{YES},{moment}\n"

    with pytest.raises(ConfigurationError, match=r"line 2: decided_at"):
        said(bank, sheet=a_sheet(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a;b\n1;2\n",
        "alert_id,verdict,verdict\na,b,c\n",
        "verdict\nx\n",
        "alert_id,verdict,who\na,b,c\n",
        'a,"b\n',
        "alert_id,verdict\n",
    ],
    ids=repr,
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
    rated = out_of_sample(bank)
    alerts.sort(key=lambda alert_id: alert_id not in rated)
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
    assert -1e-9 <= float(low) <= float(total) + 1e-9
    assert float(total) - 1e-9 <= float(high) <= 1 + 1e-9


QUALITY = "SELECT sum(reviewed), sum(confirmed), sum(missed_frauds) FROM #alert_quality"


def out_of_sample(bank: Bank, in_sample: bool = False) -> list[str]:
    """Alerts of scores after, or within, the training window of their model."""
    condition = "s.in_sample" if in_sample else "NOT s.in_sample"
    return [row[0] for row in bank.ask(
        "SELECT a.alert_id FROM #fraud_alerts a JOIN #current_transaction_scores s ON "
        f"s.transaction_id = a.transaction_id WHERE {condition} ORDER BY a.alert_id"
    )]  # fmt: skip


def counts(rows: list[tuple]) -> list[int]:
    return [int(value) for value in rows[0]]


def test_exploration_is_left_out_of_the_rates_and_of_what_was_missed(bank):
    drawn = a_drawn_alert(bank, a_busy_day(bank))

    said(bank, alert_id=drawn, verdict=YES)

    assert bank.ask("SELECT count(*) FROM #alert_quality") == [(0,)]
    assert status(bank, drawn) == "closed"


def test_a_duplicate_counts_with_the_one_it_repeats(bank, tmp_path):
    one, two = out_of_sample(bank)[:2]
    missed = transactions()[3]["tx_id"], transactions()[4]["tx_id"]
    sheet = a_sheet(
        tmp_path,
        f"alert_id,transaction_id,verdict,duplicate_of\n{one},,{YES},\n{two},,{YES},{one}\n"
        f",{missed[0]},{YES},\n,{missed[1]},{YES},{missed[0]}\n",
    )

    said(bank, sheet=sheet)

    assert counts(bank.ask(QUALITY)) == [1, 1, 1]
    assert bank.ask(f"SELECT duplicate_of FROM #alert_outcomes WHERE alert_id = '{two}'") == [
        (one,)
    ]


def test_alerts_of_the_training_window_are_counted_but_not_in_the_rates(bank):
    said(bank, alert_id=out_of_sample(bank, in_sample=True)[0], verdict=YES)
    within = bank.ask("SELECT reviewed, confirmed, precision FROM #alert_quality")
    said(bank, alert_id=out_of_sample(bank)[0], verdict="false_positive")
    both = bank.ask("SELECT DISTINCT precision FROM #alert_quality WHERE precision IS NOT NULL")

    assert [(int(row[0]), int(row[1]), row[2]) for row in within] == [(1, 1, None)]
    assert [float(row[0]) for row in both] == [0.0]


def test_a_missed_fraud_stands_in_the_week_of_its_transaction_under_its_model(bank):
    scored = bank.ask(
        "SELECT s.transaction_id, s.day, s.model_version_id FROM #current_transaction_scores s "
        "WHERE NOT EXISTS (SELECT 1 FROM #fraud_alerts a WHERE a.transaction_id = s.transaction_id)"
        " ORDER BY s.transaction_id"
    )[0]

    said(bank, transaction=str(scored[0]), verdict=YES)

    day = pd.Timestamp(str(scored[1]))
    monday = day - pd.Timedelta(days=day.day_of_week)
    found = bank.ask("SELECT week, model_version_id, leading_reason, missed_frauds FROM "
                     "#alert_quality")  # fmt: skip
    assert [(str(row[0]), *row[1:]) for row in found] == [
        (str(monday.date()), scored[2], "(no alert)", 1)
    ]


def test_verdicts_are_read_in_order_up_to_a_moment(bank):
    (one, first), (two, second) = an_alert(bank), an_alert(bank, 1)
    said(bank, NOW + timedelta(hours=2), alert_id=one, verdict=YES)
    said(bank, NOW, alert_id=two, verdict="false_positive")
    said(bank, NOW + timedelta(hours=3), alert_id=one, verdict="reopened")
    results = runs.open_results(bank.config)
    hours = [micros(NOW + timedelta(hours=at)) for at in (0, 2, 3)]

    with results.transaction() as connection:
        whole = store.verdicts(connection, results.tables)
        before = store.verdicts(connection, results.tables, hours[2])
        none = store.verdicts(connection, results.tables, hours[0])

    assert whole.columns.tolist() == ["transaction_id", "verdict", "decided_at", "recorded_at"]
    assert whole.transaction_id.tolist() == [second, first, first]
    assert whole.verdict.tolist() == ["false_positive", YES, "reopened"]
    assert whole.decided_at.tolist() == whole.recorded_at.tolist() == hours
    assert len(before) == 2 and none.empty and none.decided_at.dtype == "int64"


def test_a_week_of_inconclusive_verdicts_has_no_precision(bank):
    said(bank, alert_id=an_alert(bank)[0], verdict="inconclusive")

    rows = bank.ask("SELECT reviewed, confirmed, precision, precision_low FROM #alert_quality")

    assert [(int(row[0]), int(row[1]), *row[2:]) for row in rows] == [(1, 0, None, None)]
