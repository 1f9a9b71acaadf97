"""What people look at, of a bank with planted frauds: against counts by hand and rescoring."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pytest

from fraudwatch.reviewing import AMOUNT, BASELINE, DENSITY, PRIORITY, TOGETHER
from shared.jobs import Outcome
from tests.builders import run_sql
from tests.small_bank import FITTED, SCOPE, Bank, copies, moment_of, transactions

NEW = [row for row in transactions() if moment_of(row) >= FITTED]
FRAUDS = {row["tx_id"] for row in NEW if row["tx_id"] % 7 == 0}  # more than were planted


@pytest.fixture(scope="module")
def scored_bank(fitted_sqlite: str) -> Iterator[Bank]:
    with copies(fitted_sqlite) as url:
        bank = Bank(url)
        bank.score()
        yield bank


@pytest.fixture
def scored(scored_bank: Bank) -> Iterator[Bank]:
    with copies(scored_bank.url) as url:
        yield Bank(url)


@pytest.fixture
def labelled(scored: Bank) -> Bank:
    run_sql(scored.url, "UPDATE card_tx SET fraud = CASE WHEN tx_id % 7 = 0 THEN 1 ELSE 0 END")
    return scored


def evaluated(bank: Bank, since: datetime | None = None) -> dict:
    return dict(bank.do("fraudwatch.evaluate", since=since, options={"label": "fraud"}).data)


def beside(found: dict, reviews: int) -> dict[str, dict]:
    rows = [row for row in found["beside"] if row["reviews_per_day"] == reviews]
    return {row["score"]: row for row in rows}


def by_hand(scores: dict[int, float], reviews: int) -> set[int]:
    """The frauds among the highest of each day."""
    found = set()
    for day in {moment_of(row).date() for row in NEW}:
        today = [row for row in NEW if moment_of(row).date() == day]
        today.sort(key=lambda row: (-scores[row["tx_id"]], moment_of(row), row["tx_id"]))
        found |= {row["tx_id"] for row in today[:reviews]} & FRAUDS
    return found


# --- reasons as they are stored -----------------------------------------------------------------


def test_the_stored_lines_of_each_alert_sum_to_minus_its_log_likelihood(scored_bank):
    sums = scored_bank.ask(
        "SELECT a.alert_id, a.log_likelihood, sum(r.contribution), count(*), max(r.rank), "
        "sum(r.share) FROM #fraud_alerts a JOIN #fraud_alert_reasons r "
        "ON r.alert_id = a.alert_id WHERE r.feature NOT LIKE 'evidence.%' "
        "AND r.feature NOT LIKE 'ranker.%' GROUP BY a.alert_id, a.log_likelihood"
    )

    assert len(sums) == scored_bank.count("fraud_alerts") > 10
    for alert, likelihood, total, lines, last, share in sums:
        assert total == pytest.approx(-likelihood, abs=1e-5), alert
        assert lines <= last and 0 <= share <= 1 + 1e-9


def test_numbers_of_an_expected_range_are_stored_beside_their_text(scored_bank):
    rows = scored_bank.ask(
        "SELECT value, value_number, expected_low, expected_high, expected "
        "FROM #fraud_alert_reasons WHERE feature = 'amount_ratio'"
    )

    known = [row for row in rows if row[0] != "unknown"]
    assert len(known) > 10
    assert all(low <= high and "to" in text for _, _, low, high, text in known)


# --- explain ------------------------------------------------------------------------------------


def pay(bank: Bank, key: int, amount: float) -> Outcome:
    """What `explain` says of a payment if it were of this amount."""
    run_sql(bank.url, f"UPDATE card_tx SET amt = {amount:.2f} WHERE tx_id = {key}")
    return bank.do("fraudwatch.explain", options={"transaction_id": str(key)})


def a_large_payment(bank: Bank) -> tuple[int, Outcome]:
    """A usual payment made large, of a customer whose smallest payments raise nothing either.

    At two reviews a day of fifty payments those of a few cents would be alerts as well.
    """
    bank.settings["reviews_per_day"] = 1
    usual = bank.ask(
        "SELECT transaction_id FROM #current_transaction_scores WHERE customer_id IS NOT NULL "
        "ORDER BY anomaly_score, transaction_id LIMIT 9"
    )
    told = ((int(key), pay(bank, key, 5000)) for (key,) in usual)
    return next((key, said) for key, said in told if said.data["not_raised_below"] is not None)


def test_a_payment_below_the_harmless_amount_is_under_the_level_and_one_above_it_is_not(scored):
    key, large = a_large_payment(scored)
    harmless = large.data["not_raised_below"]

    less, more = (pay(scored, key, factor * harmless).data for factor in (0.99, 1.01))

    assert 5 < harmless < 5000
    assert less["anomaly_score"] < less["entry_level"] <= more["anomaly_score"]
    assert less["not_raised_below"] is None


def test_explain_shows_the_parts_as_a_sum_and_the_harmless_amount_rounded_down(scored):
    _, outcome = a_large_payment(scored)

    surprise = f"{-outcome.data['log_likelihood']:.3f}"
    assert f"sum of contributions {surprise} nats = -log_likelihood {surprise}" in outcome.message
    assert "latent" in outcome.message and "reaches the level of alerts" in outcome.message
    said = outcome.data["summary"].split(" It would not have been raised below ")[1]
    told = float(said.removesuffix(" EUR.").replace(",", ""))
    assert 10 < outcome.data["not_raised_below"] < 1000, "so it is told in whole numbers"
    assert told == np.floor(outcome.data["not_raised_below"])


def test_a_payment_that_is_no_alert_has_no_harmless_amount(scored_bank):
    key = scored_bank.ask(
        "SELECT transaction_id FROM #current_transaction_scores ORDER BY anomaly_score LIMIT 1"
    )[0][0]

    outcome = scored_bank.do("fraudwatch.explain", options={"transaction_id": str(key)})

    assert outcome.data["not_raised_below"] is None
    assert "raised" not in outcome.data["summary"] and "is under the level" in outcome.message


# --- evaluate: beside what the user has ---------------------------------------------------------


@pytest.mark.parametrize("reviews", [2, 100])
def test_peerwatch_stands_beside_the_amount_rule_as_counted_by_hand(labelled, reviews):
    table = beside(evaluated(labelled), reviews)

    scores = {key: values[1] for key, values in labelled.published().items()}
    ours = by_hand(scores, reviews)
    rule = by_hand({row["tx_id"]: abs(row["amt"]) for row in NEW}, reviews)
    assert table[DENSITY]["frauds_found"] == len(ours)
    assert table[AMOUNT]["frauds_found"] == len(rule)
    assert table[DENSITY]["found_only_by_it"] == len(ours - rule)
    assert table[AMOUNT]["found_only_by_it"] == len(rule - ours)
    assert table[AMOUNT]["found_by_neither"] == len(FRAUDS - rule - ours)
    assert BASELINE not in table and PRIORITY not in table and TOGETHER not in table
    amounts = {row["tx_id"]: abs(row["amt"]) for row in NEW}
    assert table[DENSITY]["value_found"] == pytest.approx(sum(amounts[key] for key in ours))


def test_what_the_user_has_stands_beside_peerwatch_and_shares_reviews_with_it(labelled):
    run_sql(
        labelled.url,
        "UPDATE card_tx SET rule_score = CASE WHEN tx_id % 3 = 0 THEN NULL ELSE tx_id % 14 END",
    )
    labelled.mapped["baseline_score"] = "rule_score"

    found = evaluated(labelled)

    table = beside(found, 2)
    theirs = by_hand(
        {row["tx_id"]: row["tx_id"] % 14 if row["tx_id"] % 3 else -1 for row in NEW}, 2
    )
    assert table[BASELINE]["frauds_found"] == len(theirs)
    ours = by_hand({key: values[1] for key, values in labelled.published().items()}, 2)
    assert table[DENSITY]["against"] == BASELINE
    assert table[DENSITY]["found_by_neither"] == len(FRAUDS - ours - theirs)
    assert {row["reviews"] for row in table.values()} == {table[DENSITY]["reviews"]}
    assert table[TOGETHER]["frauds_found"] <= len(ours | theirs)
    assert BASELINE in {row["score"] for row in found["scores"]}


def test_priorities_of_a_ranker_order_the_alerts_before_all_others(labelled):
    labelled.say("UPDATE #fraud_alerts SET priority = -anomaly_score")

    found = evaluated(labelled)

    alerts = dict(labelled.ask("SELECT transaction_id, priority FROM #fraud_alerts"))
    scores = {key: values[1] for key, values in labelled.published().items()}
    order = {key: 1e6 + alerts[key] if key in alerts else scores[key] for key in scores}
    assert beside(found, 2)[PRIORITY]["frauds_found"] == len(by_hand(order, 2))


def test_what_is_left_out_is_counted(scored):
    young = [row["tx_id"] for row in NEW][-9:]
    keys = ", ".join(map(str, young))
    run_sql(
        scored.url,
        f"UPDATE card_tx SET fraud = NULL WHERE tx_id IN ({keys})",
        f"UPDATE card_tx SET amt = 1e15 WHERE tx_id = {NEW[0]['tx_id']}",
    )

    found = evaluated(scored, since=SCOPE)

    in_sample = [row for row in transactions() if SCOPE <= moment_of(row) < FITTED]
    assert found["in_sample"] == len(in_sample) > 0
    assert (found["unlabelled"], found["quarantined"], found["unscored"]) == (9, 1, 0)
    assert found["rows"] == len(NEW) - 9 - 1


def test_the_tables_are_printed_with_intervals(scored_bank):
    message = scored_bank.do("fraudwatch.evaluate", options={"label": "fraud"}).message

    assert "2 reviews a day each, with intervals of 95 %:" in message
    assert "found by neither" in message and "left out: 0 without a known label" in message


def test_figures_are_the_same_in_every_run(scored_bank):
    first, second = evaluated(scored_bank), evaluated(scored_bank)

    assert first == second
    assert all(np.isfinite(row["value_share_interval"]).all() for row in first["beside"])
