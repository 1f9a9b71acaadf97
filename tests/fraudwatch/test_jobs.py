"""The jobs from a database to the database, on both databases: what is promised of them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from fraudwatch import scoring
from shared import accounts, registry, runs
from shared.errors import ConfigurationError, DataQualityError
from tests.builders import NOW, a_transaction, ask, make_table, run_sql
from tests.small_bank import (
    END,
    FITTED,
    SCOPE,
    TYPES,
    Bank,
    a_bank_of,
    copies,
    few_steps,
    moment_of,
    transactions,
)

IN_SCOPE = [row for row in transactions() if moment_of(row) >= SCOPE]
LATER = NOW + timedelta(days=1)


@pytest.fixture
def bank(fitted_database: str) -> Bank:
    return Bank(fitted_database)


@pytest.fixture
def another_bank(request: pytest.FixtureRequest) -> Iterator[Bank]:
    """A second copy of the same bank."""
    dialect = request.node.callspec.params["fitted_database"]
    with copies(request.getfixturevalue(f"fitted_{dialect}")) as url:
        yield Bank(url)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def scored_database(request: pytest.FixtureRequest) -> Iterator[str]:
    with copies(request.getfixturevalue(f"fitted_{request.param}")) as url:
        Bank(url).score()
        yield url


@pytest.fixture
def scored(scored_database: str) -> Iterator[Bank]:
    """A copy of the bank after a run of scoring, once on each of the two."""
    with copies(scored_database) as url:
        yield Bank(url)


@pytest.fixture(scope="module")
def scored_sqlite(fitted_sqlite: str) -> Iterator[Bank]:
    """A scored bank on SQLite that is only looked at."""
    with copies(fitted_sqlite) as url:
        bank = Bank(url)
        bank.score()
        yield bank


def champion(bank: Bank) -> str:
    return str(
        bank.ask("SELECT model_version_id FROM #model_versions WHERE status='champion'")[0][0]
    )


def assert_same_answers(bank: Bank, other: tuple[dict, list, list]) -> None:
    """The same keys, alerts, ranks, cases and texts, and numbers equal to 1e-6."""
    scores, alerts, queue = other
    found = bank.published()
    assert found.keys() == scores.keys()
    ours = np.array([found[key] for key in scores])
    assert np.abs(ours - np.array(list(scores.values()))).max() < 1e-6
    assert bank.alerts() == alerts
    assert bank.queue() == queue


def answers(bank: Bank) -> tuple[dict, list, list]:
    return bank.published(), bank.alerts(), bank.queue()


# --- from fit to alerts -------------------------------------------------------------------------


def test_every_row_is_accounted_for_and_every_alert_has_its_reasons(bank):
    nobody, future = "2026-02-20 10:00:00", "2027-01-01 00:00:00"
    bank.add([a_transaction(1, None), a_transaction(2, nobody, amt=None), a_transaction(3, future)])

    outcome = bank.score()

    assert bank.published().keys() == {row["tx_id"] for row in IN_SCOPE}
    assert bank.unbalanced() == []
    assert bank.covered("pending") == bank.covered("gone_from_source") == 0
    assert bank.covered("source_rows") == len(transactions()) + 3
    assert bank.ask("SELECT source_rows, quarantined FROM #coverage WHERE day IS NULL") == [(2, 2)]
    assert {row[0] for row in bank.ask("SELECT code FROM #quarantined_rows")} == {
        "time_null", "time_in_future", "amount_null",
    }  # fmt: skip
    assert outcome.rows_written == len(IN_SCOPE) == outcome.data["scored"]
    assert outcome.data["alerts"] == bank.count("fraud_alerts") > 20
    assert bank.ask(
        "SELECT count(*) FROM #fraud_alerts a WHERE NOT EXISTS "
        "(SELECT 1 FROM #fraud_alert_reasons r WHERE r.alert_id = a.alert_id AND r.rank = 1)"
    ) == [(0,)]
    open_days = "day NOT IN (SELECT day FROM #closed_days)"
    assert bank.count("fraud_alerts", f"(q_value IS NULL) <> ({open_days})") == 0
    assert bank.count("fraud_alerts", open_days) > 0 < bank.count("fraud_alerts", "q_value <= 1")
    # Without labels nothing says what is lost, and no ranker what comes first.
    unlearnt = "expected_loss IS NULL AND ranker_version_id IS NULL AND priority = anomaly_score"
    assert bank.count("fraud_alerts", f"NOT ({unlearnt})") == 0
    assert bank.count("fraud_alerts", "summary = '' OR origin <> 'threshold'") == 0
    assert bank.count("transaction_scores", "p_value <= 0 OR p_value > 1") == 0


def test_the_scope_begins_seven_days_before_the_end_of_the_first_training_window(scored):
    days = scored.ask("SELECT day, before_scope, scored FROM #coverage ORDER BY day")
    before = {str(day) for day, rows, _ in days if rows}
    assert max(before) == str((SCOPE - timedelta(days=1)).date())
    assert all((rows == 0) != (here == 0) for _, rows, here in days)
    assert dict(scored.ask("SELECT key, value FROM #settings"))["score_from"] == str(SCOPE.date())


def test_rows_of_the_training_window_are_marked(scored):
    marked = scored.ask("SELECT transaction_id FROM #transaction_scores WHERE in_sample")
    assert {row[0] for row in marked} == {
        row["tx_id"] for row in IN_SCOPE if moment_of(row) < FITTED
    }


def test_planted_frauds_are_alerted_with_a_planted_feature_among_the_first_three(scored):
    found = scored.ask(
        "SELECT DISTINCT transaction_id FROM #fraud_alerts a JOIN #fraud_alert_reasons r "
        "ON r.alert_id = a.alert_id WHERE r.rank <= 3 AND r.feature IN "
        "('amount_ratio', 'amount_relative', 'time_of_day', 'new_counterparty')"
    )
    planted = {row["tx_id"] for row in IN_SCOPE if row["fraud"]}
    assert len(planted & {row[0] for row in found}) >= 0.8 * len(planted)


def test_alerts_carry_what_the_source_says(scored):
    source = {row["tx_id"]: row for row in transactions()}
    for key, customer, shop, amount, currency, at in scored.ask(
        "SELECT transaction_id, customer_id, counterparty_id, amount, currency, occurred_at "
        "FROM #fraud_alerts"
    ):
        row = source[key]
        assert (customer, shop, currency) == (row["cust"], row["merchant_id"], row["cur"])
        assert amount == pytest.approx(row["amt"])
        moment = at if isinstance(at, datetime) else datetime.fromisoformat(str(at))
        assert moment == moment_of(row)


def test_scoring_again_writes_nothing(scored):
    before = scored.dump()

    again = scored.score(now=LATER)

    after = scored.dump()
    assert again.rows_written == again.data["alerts"] == 0
    for dump in (before, after):  # when it was looked
        dump["settings"] = [row for row in dump["settings"] if row[0] != "look_back.at"]
    same = [name for name in before if name not in ("pipeline_runs", "run_batches", "source_days")]
    assert [name for name in same if before[name] != after[name]] == []


def test_new_rows_are_scored_when_they_come(bank):
    bank.score(until=END - timedelta(days=5))
    first = bank.published()
    assert bank.covered("pending") == len(IN_SCOPE) - len(first) > 100

    second = bank.score()

    assert second.rows_written == len(IN_SCOPE) - len(first)
    assert second.rows_late == 0
    after = bank.published()
    assert {key: after[key] for key in first} == first


def test_late_rows_within_the_look_back_are_scored_and_counted(scored):
    late = END - timedelta(days=3)
    scored.add([a_transaction(at, late.replace(tzinfo=None).isoformat(sep=" ")) for at in (1, 2)])

    outcome = scored.score(now=LATER)

    assert (outcome.rows_written, outcome.rows_late, outcome.rows_too_late) == (2, 2, 0)
    runs_ = scored.ask("SELECT rows_late, rows_too_late FROM #pipeline_runs ORDER BY started_at")
    assert runs_[-1] == (2, 0)


def test_rows_that_come_too_late_are_counted_and_left_to_backfill(scored):
    day = SCOPE + timedelta(days=2)
    moment = day.replace(tzinfo=None).isoformat(sep=" ")
    scored.add([a_transaction(at, moment, amt=9_999, merchant_id=999) for at in (1, 2)])

    run = scored.score(now=LATER)
    filled = scored.do("backfill.fraudwatch", LATER, since=day, until=day + timedelta(days=1))
    alerts = scored.count("fraud_alerts", "transaction_id IN (1, 2)")

    assert (run.rows_written, run.rows_too_late) == (0, 2)
    assert filled.rows_written == 2 and filled.rows_too_late == 0
    assert scored.published().keys() >= {1, 2}
    assert alerts == 0, "a backfill raises only with --raise"
    assert scored.unbalanced() == []


def test_a_backfill_raises_where_it_is_told_to(scored):
    day = SCOPE + timedelta(days=2)
    scored.add([a_transaction(1, day.replace(tzinfo=None), amt=9_999, merchant_id=999)])

    scored.do(
        "backfill.fraudwatch", LATER, since=day, until=day + timedelta(days=1),
        options={"raise": True},
    )  # fmt: skip

    assert scored.count("fraud_alerts", "transaction_id = 1") == 1


def test_a_backfill_of_the_newest_days_leaves_nothing_behind_unscored(bank):
    bank.do("backfill.fraudwatch", since=END - timedelta(days=1), until=END)

    bank.score()

    assert bank.published().keys() == {row["tx_id"] for row in IN_SCOPE}


def test_an_earlier_scope_is_scored_from_its_start(scored):
    scored.settings["score_from"] = (SCOPE - timedelta(days=5)).date()

    scored.score(now=LATER)

    wanted = [row for row in transactions() if moment_of(row) >= SCOPE - timedelta(days=5)]
    assert scored.published().keys() == {row["tx_id"] for row in wanted}
    assert scored.unbalanced() == []


# --- repeatable ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("first", "days"), [(END - timedelta(days=7), 1), (SCOPE, 7)])
def test_batches_of_any_size_give_the_same_answers(bank, another_bank, first, days):
    another_bank.score()

    bank.score(until=first)
    while first < END:
        first += timedelta(days=days)
        bank.score(until=min(first, END))

    assert_same_answers(bank, answers(another_bank))


def test_slices_of_any_size_give_the_same_answers(bank, another_bank, monkeypatch):
    another_bank.score()
    monkeypatch.setattr(accounts, "SLICE_ROWS", 60)

    bank.score()

    assert bank.count("run_batches") > 15
    assert_same_answers(bank, answers(another_bank))


def test_the_order_of_the_source_rows_does_not_matter(scored_sqlite, fitted_sqlite):
    with copies(fitted_sqlite) as url:
        run_sql(url, "DELETE FROM card_tx")
        order = np.random.default_rng(5).permutation(len(transactions()))
        rows = [transactions()[at] for at in order]
        run_sql(url, "ALTER TABLE card_tx RENAME TO old", "DROP TABLE old")
        unordered = TYPES | {"tx_id": "BIGINT UNIQUE"}  # no order of SQLite's own
        make_table(url, "card_tx", unordered, rows)
        shuffled = Bank(url)

        shuffled.score()

        assert_same_answers(shuffled, answers(scored_sqlite))


def test_a_row_with_a_later_event_time_changes_no_earlier_score(bank, another_bank):
    another_bank.score()
    expected = another_bank.published()
    moment = END.replace(tzinfo=None)
    bank.add(
        a_transaction(at, moment.isoformat(sep=" "), cust=at % 60 + 1, amt=5_000, merchant_id=3)
        for at in range(300)
    )

    bank.score()

    found = bank.published()
    assert max(np.abs(np.subtract(found[key], expected[key])).max() for key in expected) < 1e-6


def test_both_databases_fit_the_same_model(fitted_sqlite, fitted_postgresql):
    assert champion(Bank(fitted_sqlite)) == champion(Bank(fitted_postgresql))


# --- exactly once -------------------------------------------------------------------------------

RUNNER = """
import sys
from datetime import datetime
from tests.small_bank import Bank
from shared import accounts
accounts.SLICE_ROWS = 60
print(Bank(sys.argv[1]).score(now=datetime.fromisoformat(sys.argv[2])).rows_written)
"""


def test_of_two_runners_one_does_the_work_and_the_other_says_so(bank):
    root = Path(__file__).parents[2]
    commands = [[sys.executable, "-c", RUNNER, bank.url, NOW.isoformat()] for _ in range(2)]

    both = [
        subprocess.Popen(c, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for c in commands
    ]
    said = [runner.communicate(timeout=120) for runner in both]

    # They may also have run one after the other.
    others = [err for (_, err), runner in zip(said, both, strict=True) if runner.returncode]
    assert len(others) <= 1, said
    assert all("HeldError: fraudwatch score runs already" in err for err in others), said
    assert sum(int(out or 0) for out, _ in said) == len(IN_SCOPE) == len(bank.published())
    assert bank.unbalanced() == []
    done = bank.count("pipeline_runs", "job = 'fraudwatch.score' AND status = 'succeeded'")
    assert done == 2 - len(others)


def test_a_crash_leaves_whole_slices_and_the_next_run_completes(bank, another_bank, monkeypatch):
    another_bank.score()
    monkeypatch.setattr(accounts, "SLICE_ROWS", 200)
    write = scoring.store.write_alerts
    calls = []

    def broken(*args: Any) -> int:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("the power is gone")
        return write(*args)

    monkeypatch.setattr(scoring.store, "write_alerts", broken)
    with pytest.raises(RuntimeError):
        bank.score()

    scored = len(bank.published())
    ledger = bank.ask("SELECT sum(rows_written), count(*) FROM #run_batches WHERE batch >= 0 "
                      "AND run_id LIKE 'fraudwatch.score%'")  # fmt: skip
    assert [tuple(int(value) for value in row) for row in ledger] == [(scored, 1)]
    assert bank.ask("SELECT status, error FROM #pipeline_runs WHERE job = 'fraudwatch.score'") == [
        ("failed", "RuntimeError")
    ]
    bank.score(now=LATER)
    assert_same_answers(bank, answers(another_bank))


# --- the gate of the rows -----------------------------------------------------------------------


def a_bad_row(at: int) -> dict:
    return a_transaction(at, "2026-02-25 10:00:00", amt=None)


def test_too_many_bad_rows_stop_the_run_before_anything_is_written(bank):
    bank.add([a_bad_row(at) for at in range(200)])
    before = bank.dump()

    with pytest.raises(DataQualityError) as caught:
        bank.score()

    assert caught.value.exit_code == 4
    assert "amount_null: 200" in str(caught.value)
    after = bank.dump()
    assert [name for name in before if before[name] != after[name]] == ["pipeline_runs"]


def test_old_rows_without_a_time_do_not_stop_the_runs_of_short_windows(bank):
    bank.add([a_transaction(at, None) for at in range(60)])
    bank.score(until=END - timedelta(days=1))

    outcome = bank.score(now=LATER)

    assert outcome.rows_written > 0
    assert bank.covered("quarantined") == 60


def test_many_rows_without_a_time_stop_the_run(bank):
    bank.add([a_transaction(at, None) for at in range(200)])

    with pytest.raises(DataQualityError, match="200 of 3189 rows of the table"):
        bank.score()


def test_a_mended_row_is_scored_and_its_refusal_resolved(bank):
    bank.add([a_bad_row(1), a_transaction(2, None)])
    bank.score()
    opened = bank.count("quarantined_rows", "resolved_at IS NULL")
    run_sql(
        bank.url,
        "UPDATE card_tx SET amt = 12 WHERE tx_id = 1",
        "UPDATE card_tx SET ts = '2026-02-26 10:00:00' WHERE tx_id = 2",
    )

    bank.score(now=LATER)

    assert opened == 2
    assert bank.count("quarantined_rows", "resolved_at IS NULL") == 0
    assert bank.published().keys() >= {1, 2}
    assert bank.unbalanced() == []


# --- models -------------------------------------------------------------------------------------


def refit(bank: Bank, **request: Any) -> Any:
    with few_steps():
        return bank.do("fraudwatch.fit", LATER, until=END, **request)


def promote(bank: Bank, model_version_id: str, now: datetime = LATER) -> None:
    results = runs.open_results(bank.config)
    with results.transaction() as connection:
        registry.promote(connection, results.tables, model_version_id, by="a person", now=now)


def test_a_new_champion_scores_only_what_no_champion_has_scored(bank):
    first = champion(bank)
    bank.score(until=END - timedelta(days=4))
    before = bank.published()
    second = refit(bank).model_version_id
    promote(bank, second)

    bank.score(now=LATER)

    after = bank.published()
    assert {key: after[key] for key in before} == before
    by_model = dict(
        bank.ask("SELECT model_version_id, count(*) FROM #transaction_scores GROUP BY 1")
    )
    assert by_model == {first: len(before), second: len(IN_SCOPE) - len(before)}
    assert dict(bank.ask("SELECT key, value FROM #settings"))["score_from"] == str(SCOPE.date())


def test_a_refit_goes_through_the_gate_with_its_reasons_stored(bank):
    outcome = refit(bank)

    (gate, status), *_ = bank.ask(
        f"SELECT gate, status FROM #model_versions WHERE model_version_id = "
        f"'{outcome.model_version_id}'"
    )
    passed = outcome.data["gate"]["passed"]
    assert len(outcome.data["gate"]["checks"]) == 3
    assert status == ("champion" if passed else "candidate")
    assert ("stays a candidate" in outcome.message) == (not passed)
    assert str(passed).lower() in gate
    assert bank.count("model_versions", "status = 'champion'") == 1


def test_the_same_fit_twice_is_one_model(bank):
    with few_steps():
        outcome = bank.do("fraudwatch.fit", LATER, until=FITTED)

    assert outcome.model_version_id == champion(bank)
    assert outcome.data["status"] == "champion"
    assert bank.count("model_versions") == 1


def test_a_roll_back_moves_neither_the_scope_nor_what_is_scored(bank):
    first = champion(bank)
    bank.score()
    before = bank.dump()
    second = refit(bank).model_version_id
    promote(bank, second)
    results = runs.open_results(bank.config)
    with results.transaction() as connection:
        back = registry.earlier_champion(connection, results.tables, "fraudwatch")
    promote(bank, back, now=LATER + timedelta(hours=1))

    outcome = bank.score(now=LATER + timedelta(hours=2))

    assert back == first == champion(bank)
    assert outcome.rows_written == 0
    after = bank.dump()
    assert before["transaction_scores"] == after["transaction_scores"]
    assert dict(bank.ask("SELECT key, value FROM #settings"))["score_from"] == str(SCOPE.date())


def test_a_backfill_of_another_model_stands_beside_the_published_scores(scored):
    published, alerts = scored.published(), scored.alerts()
    second = refit(scored).model_version_id
    range_ = {"since": END - timedelta(days=3), "until": END}

    first = scored.do("backfill.fraudwatch", LATER, **range_, options={"model": second})
    again = scored.do("backfill.fraudwatch", LATER, **range_, options={"model": second})

    wanted = [row for row in transactions() if moment_of(row) >= END - timedelta(days=3)]
    assert (first.rows_written, again.rows_written) == (len(wanted), 0)
    assert scored.count(
        "transaction_scores", f"role='backfill' AND model_version_id='{second}'"
    ) == (len(wanted))
    assert (scored.published(), scored.alerts()) == (published, alerts)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"options": {"model": "nobody"}}, "no model nobody"),
        ({"since": END, "until": FITTED}, "before --to"),
    ],
)
def test_a_backfill_of_nothing_is_refused(scored_sqlite, request_, words):
    asked = {"since": FITTED, "until": END} | request_

    with pytest.raises(ConfigurationError, match=words):
        scored_sqlite.do("backfill.fraudwatch", **asked)


def test_scoring_without_a_model_says_what_to_do(database):
    bank = a_bank_of(database, transactions()[:10])

    with pytest.raises(ConfigurationError, match="peerwatch fraudwatch fit"):
        bank.score()


@pytest.mark.parametrize("lost", ["categories", "counterparty"])
def test_a_column_that_is_mapped_no_longer_stops_the_run_with_what_to_do(bank, lost):
    bank.mapped[lost] = None

    with pytest.raises(ConfigurationError, match=r"the mapping has changed.*fit anew"):
        bank.score()

    assert bank.count("transaction_scores") == 0


@pytest.mark.parametrize("rows", [0, 1, 60])
def test_a_fit_on_too_little_stops_with_the_counts(database, rows):
    bank = a_bank_of(database, transactions()[:rows])

    with pytest.raises(DataQualityError) as caught:
        bank.do("fraudwatch.fit")

    assert caught.value.exit_code == 4
    assert bank.count("model_versions") == 0
    assert "found no valid transaction" in str(caught.value) or "it needs at least 50" in str(
        caught.value
    )


# --- dry runs -----------------------------------------------------------------------------------


def test_a_dry_run_computes_the_same_and_writes_nothing(bank, tmp_path):
    bank.mapped["numbers"] = ["km", "fraud"]  # a column that no run has seen
    before = bank.dump()

    said = bank.score(dry_run=True)
    with few_steps():
        bank.do("fraudwatch.fit", until=FITTED, dry_run=True)
    bank.do("fraudwatch.recalibrate", until=FITTED, dry_run=True)
    bank.do("backfill.fraudwatch", since=FITTED, until=END, dry_run=True)
    bank.do(
        "fraudwatch.sample", dry_run=True, options={"size": 3, "seed": 0, "out": tmp_path / "a"}
    )
    assert bank.dump() == before
    bank.mapped["numbers"] = ["km"]
    wrote = bank.score()
    filled = bank.dump()
    key = transactions()[-1]["tx_id"]
    options = {"transaction": str(key), "verdict": "inconclusive", "by": "a"}
    bank.do("fraudwatch.verdict", dry_run=True, options=options)
    bank.do("fraudwatch.report", dry_run=True, options={"out": tmp_path / "b"})

    assert bank.dump() == filled
    assert list(tmp_path.iterdir()) == []
    assert (said.rows_written, said.data["alerts"]) == (wrote.rows_written, wrote.data["alerts"])


# --- what people look at ------------------------------------------------------------------------


def test_evaluate_prints_the_figures_of_scikit_learn(scored):
    outcome = scored.do("fraudwatch.evaluate", options={"label": "fraud"})

    new = [row for row in transactions() if moment_of(row) >= FITTED]
    fraud = [row["fraud"] for row in new]
    published = scored.published()
    figures = {item["score"]: item for item in outcome.data["scores"]}
    for name, score in (
        ("peerwatch (log_likelihood)", [-published[row["tx_id"]][0] for row in new]),
        ("peerwatch (anomaly_score)", [published[row["tx_id"]][1] for row in new]),
        ("rule: amount", [row["amt"] for row in new]),
    ):
        assert figures[name]["AUC"] == pytest.approx(metrics.roc_auc_score(fraud, score), abs=1e-4)
        expected = metrics.average_precision_score(fraud, score)
        assert figures[name]["AP"] == pytest.approx(expected, abs=1e-4)
    assert outcome.data["rows"] == len(new) and outcome.data["frauds"] == sum(fraud)
    assert "Card Precision@100" in outcome.message and "value found" in outcome.message


def test_evaluate_reports_by_kind(bank):
    bank.mapped |= {"label": "fraud", "label_kind": "kind"}
    bank.score()

    assert "AP kind planted" in bank.do("fraudwatch.evaluate").message


@pytest.mark.parametrize(
    ("statement", "label", "error", "words"),
    [
        ("UPDATE card_tx SET fraud = 0", "fraud", DataQualityError, "found 0 frauds among"),
        ("UPDATE card_tx SET fraud = -fraud", "fraud", DataQualityError, "found 0 frauds among"),
        ("UPDATE card_tx SET fraud = NULL", "fraud", DataQualityError, "fraud is null in all"),
        ("UPDATE card_tx SET kind = 'x'", "kind", ConfigurationError, "card_tx.kind is text"),
        ("UPDATE card_tx SET fraud = 1", "frod", ConfigurationError, "did you mean fraud"),
        ("UPDATE card_tx SET fraud = 1", None, ConfigurationError, "--label COLUMN"),
    ],
    ids=["constant", "negative", "null", "text", "misspelt", "none"],
)
def test_labels_that_cannot_be_used_are_one_clear_message(scored, statement, label, error, words):
    run_sql(scored.url, statement)

    with pytest.raises(error, match=words):
        scored.do("fraudwatch.evaluate", options={"label": label})


def test_evaluating_before_scoring_says_so(bank):
    with pytest.raises(DataQualityError, match="found no scores"):
        bank.do("fraudwatch.evaluate", options={"label": "fraud"})


def test_evaluating_what_is_in_sample_says_so(scored_sqlite):
    run_sql(scored_sqlite.url, "UPDATE transaction_scores SET in_sample = 1")

    with pytest.raises(DataQualityError, match=r"\d+ scored rows in the window, all of them in s"):
        scored_sqlite.do("fraudwatch.evaluate", options={"label": "fraud"})
    with pytest.raises(DataQualityError, match="no transactions from 2027"):
        scored_sqlite.do(
            "fraudwatch.evaluate",
            since=datetime(2027, 1, 1, tzinfo=UTC),
            until=datetime(2027, 1, 2, tzinfo=UTC),
            options={"label": "fraud"},
        )


def test_an_alerts_id_stands_for_its_transaction(scored_sqlite):
    alert, key = scored_sqlite.ask("SELECT alert_id, transaction_id FROM #fraud_alerts")[0]

    found = scored_sqlite.do("fraudwatch.explain", options={"transaction_id": alert})

    assert found.data["transaction_id"] == key
    with pytest.raises(ConfigurationError, match='"alert-0" is no transaction id'):
        scored_sqlite.do("fraudwatch.explain", options={"transaction_id": "alert-0"})


def test_a_budget_that_raises_everything_is_told_by_the_fit(scored_sqlite):
    with few_steps():
        usual = scored_sqlite.do("fraudwatch.fit").message
        scored_sqlite.settings |= {"reviews_per_day": 500}
        flooded = scored_sqlite.do("fraudwatch.fit").message

    assert "lower it" not in usual
    assert "reviews_per_day = 500 raises about 100% of all transactions as alerts" in flooded


@pytest.mark.parametrize("alerted", [True, False])
def test_explain_tells_what_was_published(scored, alerted):
    known = "" if alerted else "NOT "
    key, likelihood, score, p_value = scored.ask(
        "SELECT transaction_id, log_likelihood, anomaly_score, p_value FROM #transaction_scores "
        f"WHERE transaction_id {known}IN (SELECT transaction_id FROM #fraud_alerts) "
        "ORDER BY transaction_id DESC LIMIT 1"
    )[0]

    data = scored.do("fraudwatch.explain", options={"transaction_id": str(key)}).data

    assert data["log_likelihood"] == pytest.approx(likelihood, abs=1e-6)
    assert data["anomaly_score"] == pytest.approx(score, abs=1e-6)
    assert data["p_value"] == pytest.approx(p_value, abs=1e-6)
    assert (data["anomaly_score"] >= data["entry_level"]) == alerted
    parts = [r for r in data["reasons"] if not r["feature"].startswith("evidence.")]
    assert sum(reason["contribution"] for reason in parts) == pytest.approx(-likelihood, abs=1e-5)
    assert len(data["reasons"]) - len(parts) == 2, "the customer and the counterparty"
    stored = [row[8] for row in scored.alerts() if row[0] == key]
    assert [reason["text"] for reason in data["reasons"]][: len(stored)] == stored


@pytest.mark.parametrize("key", ["0", "abc", "99999999999999999999999", ""])
def test_explain_of_nothing_is_refused(scored_sqlite, key):
    with pytest.raises(ConfigurationError, match="transaction"):
        scored_sqlite.do("fraudwatch.explain", options={"transaction_id": key})


def test_explain_reads_a_number_however_it_is_written(scored_sqlite):
    key = transactions()[-1]["tx_id"]

    assert scored_sqlite.do("fraudwatch.explain", options={"transaction_id": f"00{key}"}).data[
        "reasons"
    ]


def test_samples_are_a_csv_file(scored_sqlite, tmp_path):
    path = tmp_path / "sample.csv"

    scored_sqlite.do("fraudwatch.sample", options={"size": 25, "seed": 1, "out": path})

    lines = path.read_text().splitlines()
    assert len(lines) == 26 and "amount_ratio" in lines[0]


def test_the_report_is_one_small_file_without_scripts(scored, tmp_path):
    path = tmp_path / "report.html"

    scored.do("fraudwatch.report", options={"out": path})

    html = path.read_text()
    assert len(html) < 2_000_000
    assert "<script" not in html and "http://" not in html.replace("http://www.w3.org", "")
    assert "EUR, where this customer" in html


def test_a_report_before_scoring_says_so(bank, tmp_path):
    with pytest.raises(ConfigurationError, match="Score first"):
        bank.do("fraudwatch.report", options={"out": tmp_path / "report.html"})
    assert list(tmp_path.iterdir()) == []


# --- other banks --------------------------------------------------------------------------------


def fitted_and_scored(bank: Bank) -> Bank:
    with few_steps():
        bank.do("fraudwatch.fit", until=FITTED)
    bank.score()
    return bank


def test_source_and_results_may_be_two_databases(tmp_path, sqlite_url, postgresql_url):
    make_table(sqlite_url, "card_tx", TYPES, transactions())
    bank = Bank(sqlite_url, results_url=postgresql_url).make_results()
    before = Path(sqlite_url.removeprefix("sqlite:///")).read_bytes()

    fitted_and_scored(bank)

    assert len(bank.published()) == len(IN_SCOPE)
    assert bank.count("fraud_alerts") > 0 and bank.unbalanced() == []
    assert Path(sqlite_url.removeprefix("sqlite:///")).read_bytes() == before, "never written"


NOTHING = dict.fromkeys(
    ("customer", "amount", "currency", "counterparty", "categories", "numbers"), None
)


@pytest.mark.parametrize(
    "mapped",
    [
        {"customer": None},
        {"customer": None, "counterparty": None},
        {"amount": None, "currency": None},
        NOTHING | {"categories": ["channel"]},
        NOTHING | {"numbers": ["km"]},
        NOTHING | {"customer": "cust", "amount": "amt"},
    ],
    ids=["no customer", "no keys", "no amount", "one category", "one number", "bare amount"],
)
def test_whatever_is_mapped_is_scored_and_explained(sqlite_url, mapped):
    bank = a_bank_of(sqlite_url, transactions())
    bank.mapped |= mapped

    fitted_and_scored(bank)

    assert len(bank.published()) == len(IN_SCOPE)
    alerts, reasons = bank.count("fraud_alerts"), bank.alerts()
    assert alerts > 0 and len({row[0] for row in reasons}) == alerts
    assert all(row[3] for row in reasons)
    key = str(reasons[0][0])
    assert bank.do("fraudwatch.explain", options={"transaction_id": key}).data["reasons"]
    bank.do("fraudwatch.evaluate", options={"label": "fraud"})
    assert bank.unbalanced() == []


def test_rows_without_a_customer_are_scored_alone(scored):
    alone = {row["tx_id"] for row in IN_SCOPE if row["cust"] is None}
    assert alone <= scored.published().keys()
    assert scored.count("transaction_scores", "customer_id IS NULL") == len(alone) > 5


def test_cases_without_a_customer_go_on_over_several_runs(bank):
    bank.score(until=END - timedelta(days=3))
    shop = {"cust": None, "merchant_id": 777, "amt": 90_000.0}
    days = [END + timedelta(days=day) for day in range(3)]
    for at, day in enumerate(days):
        row = a_transaction(at, (day + timedelta(hours=3)).replace(tzinfo=None), **shop)
        lone = a_transaction(10 + at, (day + timedelta(hours=4)).replace(tzinfo=None), cust=9,
                             amt=80_000.0, merchant_id=778)  # fmt: skip
        bank.add([row, lone])
        bank.score(now=LATER + timedelta(days=at))

    found = bank.ask("SELECT transaction_id, case_id FROM #fraud_alerts WHERE transaction_id < 100")
    found = dict(found)
    assert found.keys() == {0, 1, 2, 10, 11, 12}
    assert found[0] == found[1] == found[2] != found[10] == found[11] == found[12]


@pytest.mark.parametrize("kind", ["TEXT", "UUID"])
def test_keys_of_text_and_uuid_keep_their_kind(database, kind):
    if kind == "UUID" and database.startswith("sqlite"):
        kind = "CHAR(36)"
    form = "tx-{}".format if kind == "TEXT" else "00000000-0000-4000-8000-{:012d}".format
    keys = ("tx_id", "cust", "merchant_id")
    rows = [
        row | {key: None if row[key] is None else form(row[key]) for key in keys}
        for row in transactions()
    ]
    types = dict.fromkeys(keys, kind) | {"tx_id": f"{kind} PRIMARY KEY"}
    bank = fitted_and_scored(a_bank_of(database, rows, types))

    joined = bank.ask(
        "SELECT count(*) FROM #fraud_alerts a JOIN card_tx t ON t.tx_id = a.transaction_id "
        "WHERE t.cust = a.customer_id OR t.cust IS NULL"
    )
    key = form(IN_SCOPE[0]["tx_id"])
    assert joined == [(bank.count("fraud_alerts"),)] and joined[0][0] > 0
    assert len(bank.published()) == len(IN_SCOPE) and bank.unbalanced() == []
    explained = bank.do("fraudwatch.explain", options={"transaction_id": key.upper()
                        if kind == "UUID" else key})  # fmt: skip
    assert explained.data["reasons"]
    options = {"transaction": key, "verdict": "confirmed_fraud", "by": "a"}
    assert bank.do("fraudwatch.verdict", options=options).rows_written == 1
    assert bank.score(now=LATER).rows_written == 0


def test_days_are_those_of_the_zone(sqlite_url):
    bank = a_bank_of(sqlite_url, transactions(), source={"timezone": "America/New_York"})
    fitted_and_scored(bank)

    stray = ask(
        bank.url,
        "SELECT count(*) FROM transaction_scores s JOIN card_tx t ON t.tx_id = s.transaction_id "
        "WHERE date(s.day) <> date(t.ts)",
    )
    assert stray == [(0,)] and bank.unbalanced() == []
