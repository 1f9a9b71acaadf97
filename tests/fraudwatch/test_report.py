"""The fraud report shows the numbers it was given, bounded in size and safe whatever they hold."""

from __future__ import annotations

from datetime import UTC, date, datetime

import numpy as np
import pandas as pd
import pytest

from fraudwatch.evaluation import wilson
from fraudwatch.report import chance, sections
from shared.reports import Section, render
from tests.pages import HOSTILE, PAN, Page, faults_of

AT = datetime(2026, 3, 15, 6, 0, tzinfo=UTC)
DAYS = [date(2026, 3, 13), date(2026, 3, 14)]


def an_alert(number: int, **changes: object) -> dict[str, object]:
    alert = {
        "alert_id": f"a-{number}", "transaction_id": number, "case_id": f"c-{number}",
        "customer_id": 500 + number, "counterparty_id": f"M{number}",
        "occurred_at": f"2026-03-14T0{number % 10}:30:00.000000Z", "amount": 100.0 + number,
        "currency": "EUR", "anomaly_score": 20.0 - number, "p_value": 1 / 12_000,
        "priority": 20.0 - number, "expected_loss": None, "origin": "threshold",
        "summary": f"Sentence of alert {number}.", "status": "open", "day": DAYS[1],
    }  # fmt: skip
    return {**alert, **changes}


def a_reason(number: int, rank: int, **changes: object) -> dict[str, object]:
    reason = {
        "alert_id": f"a-{number}", "rank": rank, "feature": f"feature_{rank}",
        "value": f"value {number}.{rank}", "expected": f"{rank} to {rank + 1}",
        "share": 0.6 / rank,
    }  # fmt: skip
    return {**reason, **changes}


def frames_of(alerts: list[dict[str, object]]) -> dict[str, pd.DataFrame]:
    """Three frames follow from the alerts; a queue in the order given, all on its last day."""
    numbers = [int(str(alert["alert_id"]).removeprefix("a-")) for alert in alerts]
    cases = list(dict.fromkeys(alert["case_id"] for alert in alerts))
    history = [
        (n, f"2026-03-{10 + k}T09:00:00.000000Z", 10.0 * k) for n in numbers for k in (1, 2, 3)
    ]
    queue = [(DAYS[1], rank, case) for rank, case in enumerate(cases, 1)]
    return {
        "alerts": pd.DataFrame(alerts),
        "reasons": pd.DataFrame([a_reason(n, rank) for n in numbers for rank in (1, 2, 3, 4)]),
        "queue": pd.DataFrame(queue, columns=["day", "rank", "case_id"]),
        "history": pd.DataFrame(history, columns=["transaction_id", "occurred_at", "amount"]),
        "scores": pd.DataFrame({"low": [0.0, 5.0, 10.0], "high": [5.0, 10.0, 15.0],
                                "count": [9000, 90, 3]}),
        "level": pd.DataFrame({"level": [10.0]}),
        "days": pd.DataFrame({"day": DAYS, "scored": [4321, 4772], "alerts": [4, 6],
                              "cases": [1, len(cases)]}),
        "coverage": coverage(pending=21),
        "settings": pd.DataFrame({"key": ["reviews_per_day"], "value": ["5"]}),
    }  # fmt: skip


def coverage(pending: int) -> pd.DataFrame:
    return pd.DataFrame({
        "day": [DAYS[1], None], "source_rows": [5000, 7], "before_scope": [200, 0],
        "scored": [4772, 0], "quarantined": [7, 7], "pending": [pending, 0],
        "too_late": [1, 0], "gone_from_source": [0, 0],
    })  # fmt: skip


def page_of(frames: dict[str, pd.DataFrame]) -> Page:
    return Page(render("Fraud report", "bank", sections(frames), AT))


def section_of(frames: dict[str, pd.DataFrame], title: str) -> Section:
    return next(section for section in sections(frames) if section.title.startswith(title))


def test_an_alert_is_shown_with_its_sentence_reasons_and_rarity() -> None:
    text = page_of(frames_of([an_alert(1)])).text

    assert "101.00 EUR" in text
    assert "customer 501" in text
    assert "Sat 2026-03-14 01:30" in text
    assert "about 1 in 12,000 normal payments is as unusual" in text
    assert "Sentence of alert 1." in text
    assert "Feature 1 value 1.1 expected 1 to 2 60 %" in text
    assert "value 1.3" in text
    assert "value 1.4" not in text, "three reasons are enough"


def test_what_is_as_expected_or_slight_is_not_shown_as_a_reason() -> None:
    frames = frames_of([an_alert(1), an_alert(2)])
    changes = [
        {"value": "chip", "expected": "web (60%), chip (30%)"},
        {"value_number": 1.0, "expected_low": 0.0, "expected_high": 1.0},
        {"share": 0.009},
        {"value_number": 2.0, "expected_low": 0.0, "expected_high": 1.0},
    ]
    first = [a_reason(1, rank, **change) for rank, change in enumerate(changes, 1)]
    usual = [a_reason(2, rank, value="no", expected="no (90%)") for rank in (1, 2)]
    frames["reasons"] = pd.DataFrame(first + usual)

    text = page_of(frames).text

    assert "Feature 4 value 1.4" in text
    assert not any(f"Feature {rank}" in text for rank in (2, 3))
    assert text.count("Feature 1 no expected no (90%)") == 1, "where there is no other, the first"
    assert "Feature 1 leads 50 % of 2 alerts." in text


def test_the_earlier_amounts_stand_beside_the_alerted_one() -> None:
    text = page_of(frames_of([an_alert(1)])).text

    assert "3 payments of this customer before this one, median 20.00 EUR." in text
    assert "highest 101.00" in text


def test_a_payment_after_the_alert_is_not_in_its_picture() -> None:
    frames = frames_of([an_alert(1)])
    later = pd.DataFrame([(1, "2026-03-15T00:00:00.000000Z", 999.0)],
                         columns=["transaction_id", "occurred_at", "amount"])  # fmt: skip

    after = {**frames, "history": pd.concat([frames["history"], later])}

    assert page_of(after).text == page_of(frames).text


def test_cases_follow_the_rank_of_the_queue() -> None:
    frames = frames_of([an_alert(1), an_alert(2), an_alert(3)])
    frames["queue"]["rank"] = [3, 1, 2]

    text = page_of(frames).text

    places = [text.index(f"Sentence of alert {number}.") for number in (2, 3, 1)]
    assert places == sorted(places)


def test_a_case_is_one_card_led_by_its_alert_of_highest_priority() -> None:
    alerts = [an_alert(1, priority=5.0), an_alert(2, case_id="c-1", priority=9.0)]

    text = page_of(frames_of(alerts)).text

    assert "Sentence of alert 2." in text
    assert "Sentence of alert 1." not in text
    assert "2 alerts in this case, 203.00 EUR together" in text


@pytest.mark.parametrize(
    ("budget", "lead"),
    [
        ("5", "3 cases came up on 2026-03-14, within the budget of 5 reviews a day."),
        ("2", "3 cases came up on 2026-03-14, more than the 2 reviews of a day: the first come "
              "first."),
    ],
)  # fmt: skip
def test_the_headline_sets_the_day_against_the_budget(budget: str, lead: str) -> None:
    frames = frames_of([an_alert(1), an_alert(2), an_alert(3)])
    frames["settings"] = pd.DataFrame({"key": ["reviews_per_day"], "value": [budget]})

    page = page_of(frames)

    assert lead in page.text
    assert f"3 of {budget}" in page.texts
    assert ("div", {"class": "alarm"}) in page.elements or budget == "5"


def test_value_at_stake_is_summed_per_currency_without_signs() -> None:
    alerts = [an_alert(1, amount=-10.0), an_alert(2, amount=2.5),
              an_alert(3, amount=1000.0, currency="CZK")]  # fmt: skip

    assert "1,000.00 CZK + 12.50 EUR" in page_of(frames_of(alerts)).text


def test_value_at_stake_is_that_of_the_day_in_cases_that_began_before_too() -> None:
    alerts = [an_alert(1, amount=70.0, day=DAYS[0]), an_alert(2, case_id="c-1", amount=5.0)]

    texts = page_of(frames_of(alerts)).texts

    assert "5.00\xa0EUR" in texts[texts.index("Value at stake that day") :][:3]


def test_earlier_days_stand_in_a_table() -> None:
    frames = frames_of([an_alert(1), an_alert(2, day=DAYS[0], status="in_review")])
    frames["queue"] = pd.DataFrame({"day": DAYS, "rank": [1, 1], "case_id": ["c-2", "c-1"]})

    page = page_of(frames)

    assert "1 queued case of 1 earlier day." in page.text
    assert "2026-03-13 1 102.00 EUR 02:30 502 12,000 Feature 1: value 2.1 in review" in page.text


# --- honest alarms -------------------------------------------------------------------------------


def closed_days(**changes: object) -> pd.DataFrame:
    """The two days, closed; a rate of 10 % was asked and is promised for both."""
    usual = {"day": DAYS, "scored": [4321, 4772], "cut": [1e-3, 1e-4],
             "false_discovery_rate": 0.1, "promised": True, "reason": None}  # fmt: skip
    return pd.DataFrame({**usual, **changes})


def test_a_promised_rate_is_told_with_its_cut_and_what_lies_under_it() -> None:
    frames = frames_of([an_alert(1, q_value=0.031), an_alert(2, p_value=1e-3)])
    frames["closed_days"] = closed_days()

    page = page_of(frames)

    assert "For 2026-03-14 a false-discovery rate of 10 % is promised" in page.text
    assert "2026-03-14 4,772 2 1 10,000 10 % yes" in page.text, "of two alerts one is under the cut"
    assert "False alerts of 2026-03-14 at most 10 %" in page.text
    assert "q-value 3.1 %" in page.text
    assert page.text.index("2026-03-14 4,772 2 1") < page.text.index("2026-03-13 4,321 0 0")


def test_a_rate_that_is_not_promised_says_why() -> None:
    frames = frames_of([an_alert(1)])
    frames["closed_days"] = closed_days(promised=[True, False], reason=[None, "too few verdicts"])

    text = page_of(frames).text

    assert "For 2026-03-14 no false-discovery rate is promised: too few verdicts." in text
    assert "False alerts of 2026-03-14 no promise 10 % was asked" in text
    assert "10 % no too few verdicts" in text


@pytest.mark.parametrize(
    ("frames", "lead"),
    [
        ({}, "No false-discovery rate is promised: none is asked for."),
        ({"settings": pd.DataFrame({"key": ["false_discovery_rate"], "value": ["0.1"]})},
         "No false-discovery rate is promised: no day is closed yet."),
        ({"closed_days": closed_days(false_discovery_rate=None, promised=False)},
         "For 2026-03-14 no false-discovery rate is promised: none is asked for."),
    ],
)  # fmt: skip
def test_where_no_rate_is_asked_none_is_promised(
    frames: dict[str, pd.DataFrame], lead: str
) -> None:
    assert section_of(frames, "How many alerts are false").lead == lead


def test_shares_of_false_alerts_stand_with_their_interval_and_what_was_drawn_apart() -> None:
    said = ["confirmed_fraud"] * 3 + ["false_positive", "genuine_unusual", "inconclusive", None]
    alerts = [an_alert(n, verdict=verdict) for n, verdict in enumerate(said, 1)]
    alerts += [an_alert(8, verdict="confirmed_fraud", in_sample=True),
               an_alert(9, verdict="false_positive", origin="exploration", p_value=0.5),
               an_alert(10, verdict="confirmed_fraud", origin="reported")]  # fmt: skip
    frames = frames_of(alerts)
    frames["closed_days"] = closed_days(cut=[1e-3, 1e-3], promised=[True, True])

    text = page_of(frames).text

    low, high = wilson(2, 5)
    rate = f"40 % {100 * low:.1f} % to {100 * high:.1f} % 306.00 EUR"
    assert f"raised by their score 7 5 3 2 {rate}" in text
    assert f"of these under the cut of a day with a promise 7 5 3 2 {rate}" in text
    assert "drawn at random, apart from all rates 1 1 0 1 100 %" in text
    assert "reported, no alert raised them 1 1 1 0 0 %" in text


def test_without_a_verdict_no_share_is_told() -> None:
    assert "no share of false ones is known" in page_of(frames_of([an_alert(1)])).text


def test_drift_is_told_by_what_drifted_first() -> None:
    frames = frames_of([an_alert(1)])
    frames["drift"] = pd.DataFrame({
        "feature": ["amount_ratio", "p_value"], "statistic": "largest_deviation",
        "value": [1.5, 9.25], "threshold": [4.0, 6.5], "drifted": [False, True],
    })  # fmt: skip

    text = page_of(frames).text

    assert "1 of 2 measures drifted: recalibrate, or fit again." in text
    assert "P value largest deviation 9.25 6.50 drifted Amount ratio" in text
    steady = frames["drift"].assign(drifted=False)
    assert section_of({"drift": steady}, "Whether").lead == "None of 2 measures drifted."
    assert section_of({}, "Whether").lead == "No drift was measured."


# --- evidence, ranker ---------------------------------------------------------------------------


def test_what_was_known_of_a_key_is_told_although_three_reasons_lead() -> None:
    frames = frames_of([an_alert(1)])
    known = a_reason(1, 5, feature="evidence.counterparty", expected="", share=0.05,
                     value="82% likely compromised, 3 confirmed frauds in 30 days")  # fmt: skip
    nothing = a_reason(1, 6, feature="evidence.card_id", value="under 1% likely", share=0.0)
    frames["reasons"] = pd.concat([frames["reasons"], pd.DataFrame([known, nothing])])

    text = page_of(frames).text

    told = "82% likely compromised, 3 confirmed frauds in 30 days 5 %"
    assert f"Known of the counterparty {told}" in text
    assert "card id" not in text, "what speaks against an alert is no reason of it"


def test_reasons_are_titled_in_words() -> None:
    frames = frames_of([an_alert(1)])
    frames["reasons"].loc[frames["reasons"]["rank"] == 1, "feature"] = "amount_ratio"

    text = page_of(frames).text

    assert "Amount, beside the customer's own value 1.1 expected 1 to 2" in text
    assert "Amount, beside the customer's own leads 100 % of 1 alert." in text


def test_evidence_that_leads_is_told_as_such() -> None:
    frames = frames_of([an_alert(1)])
    first = frames["reasons"]["rank"] == 1
    frames["reasons"].loc[first, "feature"] = "evidence.card_id"

    text = page_of(frames).text

    assert "Known of the card id leads 100 % of 1 alert." in text


def test_the_rankers_priority_and_the_expected_loss_are_told_where_there_are_some() -> None:
    alert = an_alert(1, priority=2.5, ranker_version_id="ranker-1", expected_loss=42.0)

    assert "priority 2.50, by the ranker" in page_of(frames_of([alert])).text
    assert "expected loss 42.00 EUR" in page_of(frames_of([alert])).text
    assert "ranker" not in page_of(frames_of([an_alert(1)])).text


def test_counts_of_scores_days_and_reasons_are_those_given() -> None:
    text = page_of(frames_of([an_alert(1), an_alert(2)])).text

    assert "9,093 scored transactions by anomaly score" in text
    assert "entry level 10" in text
    assert "Feature 1 leads 100 % of 2 alerts." in text
    assert "Transactions scored 9,093" in text


def test_coverage_adds_up_and_rows_without_a_time_have_a_line() -> None:
    frames = frames_of([an_alert(1)])

    page = page_of(frames)

    assert "add up to the source on every day" in page.text
    assert "2026-03-14 5,000 200 4,772 7 21 1 0 0" in page.text
    assert "no valid time 7 0 0 7 0 0 0 0" in page.text
    assert "All days 5,007 200 4,772 14 21 1 0 0" in page.text


def test_rows_that_nothing_explains_are_counted() -> None:
    frames = {**frames_of([an_alert(1)]), "coverage": coverage(pending=11)}

    assert section_of(frames, "Every row").lead.startswith("1 day of 2 do not add up")
    assert "2026-03-14 5,000 200 4,772 7 11 1 0 10" in page_of(frames).text


def test_times_are_shown_in_the_zone_of_the_source() -> None:
    frames = frames_of([an_alert(1)])
    frames["settings"] = pd.DataFrame({"key": ["timezone"], "value": ["Asia/Tokyo"]})

    text = page_of(frames).text

    assert "Sat 2026-03-14 10:30" in text
    assert "Times are in Asia/Tokyo." in text


def test_without_any_frame_every_section_says_so() -> None:
    found = sections({})

    assert all(section.lead for section in found)
    assert not any(block.kind in ("figure", "table") for s in found for block in s.blocks)
    text = page_of({}).text
    assert "No transaction was scored in this window" in text
    assert "The queue is empty: no alert was raised in this window." in text
    assert "No scores are stored" in text
    assert "The source has not been counted yet." in text


@pytest.mark.parametrize(
    "name", ["alerts", "reasons", "queue", "history", "scores", "level", "days", "coverage"]
)
def test_a_frame_that_is_empty_or_absent_takes_nothing_else_down(name: str) -> None:
    frames = frames_of([an_alert(1), an_alert(2)])
    empty = {**frames, name: frames[name].iloc[:0]}
    absent = {key: frame for key, frame in frames.items() if key != name}

    assert page_of(empty).text == page_of(absent).text
    assert "How to read this report" in page_of(empty).text


def test_missing_values_are_sentences_or_dashes_but_never_nan() -> None:
    alert = an_alert(1, customer_id=None, counterparty_id=None, amount=np.nan, p_value=np.nan,
                     summary=None, currency=None)  # fmt: skip
    frames = frames_of([alert])
    frames["reasons"] = frames["reasons"].assign(value=None, expected=None, share=np.nan)

    text = page_of(frames).text

    assert "no amount" in text
    assert "customer unknown" in text
    assert "how rare this is was not computed" in text
    assert "nan" not in text.lower()
    assert "None" not in text


@pytest.mark.parametrize("text", HOSTILE)
def test_no_value_of_a_table_can_run_load_or_hide_anything(text: str) -> None:
    texts = ("alert_id", "transaction_id", "customer_id", "counterparty_id", "currency", "origin",
             "summary", "status", "case_id")  # fmt: skip
    frames = frames_of([an_alert(1), an_alert(2)])
    frames["alerts"] = frames["alerts"].assign(**dict.fromkeys(texts, text))
    frames["reasons"] = frames["reasons"].assign(
        **dict.fromkeys(("alert_id", "feature", "value", "expected"), text)
    )
    frames["queue"] = frames["queue"].assign(case_id=text)
    frames["history"] = frames["history"].assign(transaction_id=text)
    frames["model"] = pd.DataFrame([{"model_version_id": text, "metrics": {text: text}}])
    frames["run"] = pd.DataFrame([{"run_id": text, "job": text}])

    html = render(text, text, sections(frames), AT)

    assert faults_of(html) == []


def test_a_card_number_in_a_sentence_is_masked() -> None:
    text = page_of(frames_of([an_alert(1, summary=f"paid with {PAN}")])).text

    assert "paid with 411111******1111" in text


def test_the_order_of_rows_does_not_matter() -> None:
    frames = frames_of([an_alert(number, priority=7.0) for number in range(1, 9)])
    generator = np.random.default_rng(3)

    shuffled = {
        name: frame.iloc[generator.permutation(len(frame))] for name, frame in frames.items()
    }

    assert render("t", "s", sections(shuffled), AT) == render("t", "s", sections(frames), AT)


def test_a_hundred_thousand_alerts_with_long_texts_stay_under_two_megabytes() -> None:
    count = 100_000
    long = pd.Series(["&" * 5_000] * count, dtype=object)  # one text, many references
    numbers = np.arange(count)
    ids = pd.Series(numbers).astype(str)
    alerts = pd.DataFrame([an_alert(1)]).loc[np.zeros(count, dtype=int)]
    alerts = alerts.reset_index(drop=True).assign(
        alert_id=ids,
        transaction_id=numbers,
        case_id=ids,
        customer_id=long,
        summary=long,
        status=long,
    )
    day = pd.date_range("2020-01-01", periods=2_000).date[numbers % 2_000]
    queue = pd.DataFrame({"day": day, "rank": numbers // 2_000 + 1, "case_id": ids})
    reasons = pd.DataFrame({"alert_id": ids, "rank": 1, "feature": long, "value": long,
                            "expected": long, "share": 1.0})  # fmt: skip
    days = pd.DataFrame({"day": pd.date_range("2020-01-01", periods=2_000).date, "scored": 10**6,
                         "alerts": 50, "cases": 50})  # fmt: skip
    bins = pd.DataFrame({"low": numbers, "high": numbers + 1, "count": 5})
    frames = {"alerts": alerts, "queue": queue, "reasons": reasons, "days": days, "scores": bins,
              "coverage": days.assign(source_rows=10**6)}  # fmt: skip

    html = render("Fraud report", "bank", sections(frames), AT)

    assert len(html.encode()) < 2_000_000
    assert "20 further cases of this day left out here" in html
    assert "99,800 older cases left out here" in html
    assert "1,955 older days left out here, but counted in the total" in html


@pytest.mark.parametrize(
    ("p_value", "words"),
    [
        (1 / 12_345, "about 1 in 12,000 normal payments is as unusual"),
        (0.04, "about 1 in 25 normal payments is as unusual"),
        (1.0, "most normal payments are as unusual"),
        (float("nan"), "how rare this is was not computed"),
        (0.0, "how rare this is was not computed"),
    ],
)
def test_a_p_value_is_said_in_words(p_value: float, words: str) -> None:
    assert chance(p_value) == words
