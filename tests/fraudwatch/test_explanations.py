"""Reasons: the planted one first, in real units, in words that are true, and adding up."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fraudwatch import detector, explanations
from fraudwatch.detector import Detector
from fraudwatch.explanations import (
    LATENT_TEXT,
    QUANTILES,
    Beside,
    Surprise,
    Suspicion,
    as_expected,
    chances,
    explain,
    money,
    plain,
    turning_point,
)
from fraudwatch.features import FLOOR, Reference
from shared.encoding import Feature

REFERENCE = Reference({"EUR": 20.0, "JPY": 3000.0}, 20.0, 1.5, 3.0)
RATIO = Feature("amount_ratio", "continuous", "focal", "times", "amount over the own median")
RELATIVE = Feature("amount_relative", "continuous", "focal", "times", "amount over the median")
KM = Feature("km", "continuous", "focal", "", "km")
COUNT = Feature("count_1h", "count", "focal", "payments", "payments in the hour before")
CHANNEL = Feature("channel", "category", "focal", "", "channel")
NEW_SHOP = Feature("new_counterparty", "category", "focal", "", "whether the counterparty is new")
NEW_CHANNEL = Feature("new_channel", "category", "focal", "", "whether this channel is new")
HOURS = Feature("time_of_day", "category", "focal", "", "local time of day")
OWN_NEW = Feature("new_product", "category", "focal", "", "new_product")  # a user's own column


def explained(
    feature: Feature,
    value: Any,
    expected: tuple[float, float] = (np.nan, np.nan),
    levels: dict[str, float] | None = None,
    **row: Any,
) -> dict[str, Any]:
    """The first reason of one row with one focal feature, and the summary beside it."""
    rows = pd.DataFrame([{"amount": 50.0, "currency": "EUR", **row}])
    frame = pd.DataFrame([{feature.name: value, "own_amount_median": 100.0}])
    surprise = Surprise(
        names=[feature.name, "latent"],
        focal=(feature,),
        parts=np.array([[5.0, 1.0]]),
        baseline={feature.name: 1.0, "latent": 0.5},
        expected=np.array([[expected]]),
        levels={feature.name: pd.DataFrame([levels])} if levels else {},
    )
    reasons, summaries = explain(rows, frame, surprise, REFERENCE)
    return {**reasons.iloc[0].to_dict(), "summary": summaries[0], "rows": reasons}


# --- order and shares ---------------------------------------------------------------------------


def several(parts: np.ndarray) -> tuple[pd.DataFrame, list[str]]:
    focal = (RATIO, KM, CHANNEL)
    rows = pd.DataFrame({"amount": [412.5, 30.0], "currency": "EUR"})
    frame = pd.DataFrame(
        {
            "amount_ratio": [412.5 / 22, 30 / 22],
            "own_amount_median": 100.0,
            "km": [3.0, 400.0],
            "channel": ["web", "chip"],
        }
    )
    surprise = Surprise(
        names=["amount_ratio", "km", "channel", "latent"],
        focal=focal,
        parts=parts,
        baseline={"amount_ratio": 1.0, "km": 3.0, "channel": 0.5, "latent": 0.2},
        expected=np.tile([[0.5, 2.0], [1.0, 9.0], [np.nan, np.nan]], (2, 1, 1)),
        levels={"channel": pd.DataFrame({"chip": [0.95] * 2, "web": [0.05] * 2})},
    )
    return explain(rows, frame, surprise, REFERENCE)


PARTS = np.array([[9.0, 2.9, 2.5, 4.0], [1.1, 8.0, 0.4, 0.1]])


def test_what_was_planted_comes_first_and_what_belongs_to_no_feature_last():
    reasons, summaries = several(PARTS)

    first = reasons[reasons["rank"] == 1].feature.tolist()
    last = reasons[reasons["rank"] == 4].feature.tolist()
    assert first == ["amount_ratio", "km"]
    assert last == ["latent", "latent"]
    assert reasons[reasons.feature == "latent"].text.unique().tolist() == [LATENT_TEXT]
    assert summaries[0].startswith("412.50 EUR") and "hannel web" in summaries[0]
    assert summaries[1] == "Km: 400, usually 1 to 9."


def test_what_is_as_expected_is_no_reason_in_the_sentence():
    """Its part may be large where the amount pulls the whole row far away."""
    of_chip = np.array([[3.0, 2.9, 2.5, 40.0], [0.9, 8.0, 9.0, 0.1]])

    _, summaries = several(of_chip)

    assert summaries[1] == "Km: 400, usually 1 to 9.", "channel chip leads, and is expected"


@pytest.mark.parametrize(
    ("web", "told"),
    [(0.11, "Km: 3, usually 4 to 9"), (0.09, "Channel web (9%), expected chip (91%)")],
)
def test_a_level_that_is_named_as_expected_is_no_reason_in_the_sentence(web, told):
    frame = pd.DataFrame({"channel": ["web"], "km": [3.0]})
    surprise = Surprise(
        names=["channel", "km", "latent"],
        focal=(CHANNEL, KM),
        parts=np.array([[9.0, 4.0, 0.1]]),
        baseline={"channel": 0.5, "km": 3.0, "latent": 0.2},
        expected=np.array([[[np.nan, np.nan], [4.0, 9.0]]]),
        levels={"channel": pd.DataFrame({"chip": [1 - web], "web": [web]})},
    )

    _, (summary,) = explain(pd.DataFrame(index=[0]), frame, surprise, REFERENCE)

    assert summary.startswith(told)


def test_an_amount_that_would_have_been_harmless_if_smaller_is_told():
    parts = np.array([[1.2, 9.0, 9.0, 40.0], [1.1, 8.0, 0.4, 0.1]])
    rows = pd.DataFrame({"amount": [412.5], "currency": "EUR"})
    frame = pd.DataFrame({"amount_ratio": [412.5 / 22], "own_amount_median": 100.0, "km": [40.0]})
    surprise = Surprise(
        names=["amount_ratio", "km", "latent"],
        focal=(RATIO, KM),
        parts=parts[:1, [0, 1, 3]],
        baseline={"amount_ratio": 1.0, "km": 3.0, "latent": 0.2},
        expected=np.array([[[0.5, 2.0], [1.0, 9.0]]]),
        levels={},
    )

    _, (told,) = explain(rows, frame, surprise, REFERENCE, turning=np.array([[0.0, 0.2]]))

    assert "; 412.50 EUR, where" in told and told.endswith("not have been raised below 82 EUR.")


@pytest.mark.parametrize(
    ("value", "expected", "usual"),
    [
        ("chip", "chip (60%), web (30%)", True),
        ("web", "chip (60%), web (30%)", True),
        ("chip", "web, chip (87%)", False),
        ("web, chip", "web, chip (87%)", True),
        ("rare", "chip (over 99%)", False),
        ("", "", False),
        (None, None, False),
    ],
)
def test_a_level_is_as_expected_where_it_is_named(value, expected, usual):
    assert as_expected(value, expected, None, None, None) is usual


def test_an_amount_outside_its_range_is_told_whatever_its_share():
    parts = np.array([[1.2, 9.0, 9.0, 40.0], [1.1, 8.0, 0.4, 0.1]])
    _, (odd, usual) = several(parts)

    assert odd.endswith("; 412.50 EUR, where this customer spends 11 to 44."), odd
    assert "EUR" not in usual


def test_reasons_rank_by_what_is_above_their_own_median():
    reasons, _ = several(np.array([[4.5, 6.0, 0.5, 0.0]] * 2))

    assert reasons.feature[:3].tolist() == ["amount_ratio", "km", "channel"], "3.5 over 3.0 over 0"


def test_shares_are_of_the_excess_and_sum_to_one():
    reasons, _ = several(PARTS)
    first = reasons[reasons["row"] == 0].set_index("feature")

    assert first.share["amount_ratio"] == pytest.approx(8 / 10)
    assert first.share["km"] == 0, "below its median"
    assert reasons.groupby("row").share.sum().tolist() == pytest.approx([1, 1])
    assert reasons.groupby("row").contribution.sum().tolist() == pytest.approx(PARTS.sum(1))


def test_a_missing_value_speaks_neither_for_an_alert_nor_against():
    rows = pd.DataFrame({"amount": [np.nan], "currency": "EUR"})
    frame = pd.DataFrame({"amount_ratio": [np.nan], "km": [9.0], "own_amount_median": [100.0]})
    surprise = Surprise(
        names=["amount_ratio", "km", "latent"],
        focal=(RATIO, KM),
        parts=np.array([[0.0, 3.1, 0.0]]),
        baseline={"amount_ratio": -2.5, "km": 3.0, "latent": 0.2},
        expected=np.array([[[0.5, 2.0], [1.0, 9.0]]]),
        levels={},
    )

    reasons, _ = explain(rows, frame, surprise, REFERENCE)

    assert reasons.feature.tolist() == ["km", "amount_ratio", "latent"]
    assert reasons.share.tolist() == [1, 0, 0]


def test_a_row_without_any_surprise_still_has_a_sentence():
    reasons, summaries = several(np.zeros((2, 4)))

    assert reasons.share.tolist() == [0.0] * 8
    assert all(len(text) > 5 for text in summaries)


def test_the_same_input_gives_the_same_reasons_and_rows_do_not_matter_to_each_other():
    reasons, summaries = several(PARTS)
    again, same = several(PARTS)

    pd.testing.assert_frame_equal(reasons, again)
    assert summaries == same
    assert reasons.index.is_unique and set(reasons["row"]) == {0, 1}


# --- texts of each kind -------------------------------------------------------------------------


def test_an_amount_stands_beside_what_the_customer_spends_in_real_units():
    found = explained(RATIO, 412.5 / 22, (0.5, 2.0), amount=412.5)

    typical = 20 * (1 + FLOOR)
    assert found["value_number"] == 412.5
    assert (found["expected_low"], found["expected_high"]) == (0.5 * typical, 2 * typical)
    assert found["text"] == "412.50 EUR, where this customer spends 11 to 44"
    assert (found["value"], found["expected"], found["unit"]) == ("412.50", "11 to 44", "EUR")


def test_an_amount_is_compared_within_its_currency():
    found = explained(RELATIVE, 10.0, (0.1, 2.0), amount=30_000.0, currency="JPY")

    assert found["text"] == "30,000 JPY, where customers like this one spend 300 to 6,000"


@pytest.mark.parametrize("feature", [RATIO, RELATIVE])
def test_a_negative_amount_is_shown_as_the_row_has_it(feature):
    found = explained(feature, 412.5 / 22, (-0.5, 2.0), amount=-412.5)

    assert found["value_number"] == -412.5
    assert found["value"] == "-412.50"
    assert found["expected_low"] < found["expected_high"] == 0
    assert found["text"].startswith("-412.50 EUR, where -4")
    assert "spend" not in found["text"], "money back is not spent"


def test_nothing_is_never_negative():
    found = explained(RATIO, 5.0, (0.0, 2.0), amount=-50.0)

    assert "-44 to 0.00 is usual" in found["text"]


def test_the_size_of_an_amount_is_never_expected_below_nothing():
    found = explained(RATIO, 3.0, (-2.0, 2.0), amount=66.0)

    assert found["expected_low"] == 0
    assert found["expected"] == "0.00 to 44"


def test_an_amount_without_a_currency_has_no_unit():
    assert explained(RATIO, 3.0, (0.5, 2.0), amount=66.0, currency="")["text"].startswith(
        "66.00, w"
    )


def test_a_number_stands_beside_its_range():
    found = explained(KM, 400.0, (1.0, 9.25))

    assert found["text"] == "km: 400, usually 1 to 9.25"
    assert (found["value_number"], found["expected_low"], found["expected_high"]) == (400, 1, 9.25)


def test_a_count_whose_range_is_one_number_is_not_a_range():
    assert explained(COUNT, 4.0, (0.0, 0.0))["text"].endswith("4, usually 0")


def test_a_missing_number_is_said_to_be_unknown():
    found = explained(KM, np.nan, (1.0, 9.0))

    assert (found["value"], found["text"]) == ("unknown", "km is not known")
    assert pd.isna(found["value_number"])


def test_a_level_stands_beside_the_usual_ones():
    found = explained(CHANNEL, "web", levels={"chip": 0.7, "web": 0.05, "atm": 0.25})

    assert found["text"] == "channel web (5%), expected chip (70%), atm (25%)"
    assert pd.isna(found["value_number"])


def test_without_a_usual_level_the_likeliest_is_named():
    levels = {f"l{at}": 0.09 + 0.001 * at for at in range(10)}

    assert explained(CHANNEL, "x", levels=levels)["expected"] == "l9 (10%)"


def test_an_empty_text_is_called_missing():
    found = explained(CHANNEL, "", levels={"chip": 0.7, "": 0.3})

    assert found["text"] == "channel missing, expected chip (70%), missing (30%)"


@pytest.mark.parametrize(
    ("feature", "level", "text"),
    [
        (NEW_SHOP, "yes", "a counterparty this customer has not used before"),
        (NEW_SHOP, "no", "a counterparty this customer has used before"),
        (NEW_CHANNEL, "yes", "a channel this customer has not used before"),
        (NEW_SHOP, "", "a counterparty of a customer who is not known"),
    ],
)
def test_novelty_is_told_in_words(feature, level, text):
    assert explained(feature, level, levels={"no": 0.9, "yes": 0.1})["text"] == text


def test_a_users_own_column_called_new_is_told_by_its_level():
    found = explained(OWN_NEW, "loan", levels={"card": 0.9, "loan": 0.1})

    assert found["text"] == "new product loan (10%), expected card (90%)"


def test_the_time_of_day_is_told_by_the_clock():
    found = explained(HOURS, "03-06", levels={"12-15": 0.8, "03-06": 0.2})

    assert found["text"].startswith("between 03:00 and 06:00, expected 12-15 (80%)")


def test_the_amount_is_told_once_in_a_summary():
    rows = pd.DataFrame({"amount": [900.0], "currency": ["EUR"]})
    frame = pd.DataFrame(
        {"amount_ratio": [40.0], "amount_relative": [45.0], "own_amount_median": [100.0]}
    )
    surprise = Surprise(
        names=["amount_ratio", "amount_relative", "latent"],
        focal=(RATIO, RELATIVE),
        parts=np.array([[9.0, 8.0, 0.0]]),
        baseline={"amount_ratio": 0.0, "amount_relative": 0.0, "latent": 0.0},
        expected=np.array([[[0.5, 2.0], [0.5, 2.0]]]),
        levels={},
    )

    _, summaries = explain(rows, frame, surprise, REFERENCE)

    assert summaries[0].count("900.00 EUR") == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (3.0, "3"), (-2.0, "-2"), (0.12345, "0.123"), (12345.0, "12,345")],
)
def test_plain_numbers(value, text):
    assert plain(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.50"), (999.99, "999.99"), (-1234.5, "-1,234"), (1e6, "1,000,000")]
)
def test_money_has_cents_below_a_thousand_only(value, text):
    assert money(value) == text


# --- lines outside the sum ----------------------------------------------------------------------


def a_suspicion(**changes: Any) -> Suspicion:
    usual = {
        "kind": "counterparty",
        "nats": np.array([4.0]),
        "posterior": np.array([0.824]),
        "confirmed": np.array([3]),
        "unusual": np.array([0]),
        "days": 30,
    }
    return Suspicion(**(usual | changes))


def beside(**changes: Any) -> tuple[pd.DataFrame, str]:
    """Reasons and summary of one row with evidence about its counterparty."""
    rows = pd.DataFrame({"amount": [412.5], "currency": "EUR"})
    frame = pd.DataFrame({"amount_ratio": [18.75], "own_amount_median": [100.0], "km": [12.0]})
    surprise = Surprise(
        names=["amount_ratio", "km", "latent"],
        focal=(RATIO, KM),
        parts=np.array([[9.0, 5.0, 30.0]]),
        baseline={"amount_ratio": 1.0, "km": 3.0, "latent": 0.2},
        expected=np.array([[[0.5, 2.0], [1.0, 9.0]]]),
        levels={},
    )
    usual = {"density": np.array([np.log(2) + 5]), "suspicions": [a_suspicion()]}
    reasons, summaries = explain(rows, frame, surprise, REFERENCE, Beside(**(usual | changes)))
    return reasons, summaries[0]


def test_evidence_is_told_by_what_was_counted_and_ranks_by_its_nats():
    reasons, summary = beside()

    # Of the density's 5 nats above its median the amount has 8 of 10 parts, the distance 2.
    assert reasons.feature.tolist() == ["amount_ratio", "evidence.counterparty", "km", "latent"]
    assert reasons.share.tolist() == pytest.approx([4 / 9, 4 / 9, 1 / 9, 0])
    line = reasons.set_index("feature").loc["evidence.counterparty"]
    assert line.text == (
        "this counterparty had 3 confirmed frauds in 30 days and is 82% likely to be compromised"
    )
    assert line.value == "82% likely compromised, 3 confirmed frauds in 30 days"
    assert (line.value_number, line.unit) == (0.824, "probability")
    assert (line.contribution, line.baseline) == (4, 0)
    assert summary.endswith("; " + line.text + ".")


def test_evidence_that_outweighs_the_payment_comes_first():
    reasons, summary = beside(suspicions=[a_suspicion(nats=np.array([4.01]))])

    assert reasons.feature[0] == "evidence.counterparty"
    assert summary.startswith("This counterparty had 3 confirmed frauds")


def test_lines_outside_the_sum_are_told_apart_by_their_names():
    ranker = pd.DataFrame({"km": [0.5], "count_7d": [-2.0], "a": [1.0], "b": [0.25]})
    reasons, _ = beside(ranker=ranker)

    outside = reasons.feature.str.startswith(("evidence.", "ranker."))
    assert reasons[~outside].contribution.sum() == pytest.approx(9 + 5 + 30)
    told = reasons[reasons.feature.str.startswith("ranker.")]
    assert told.feature.tolist() == ["ranker.count_7d", "ranker.a", "ranker.km"], "the strongest"
    assert told.text.tolist()[:2] == ["count 7d lowers the priority", "a raises the priority"]
    assert told["rank"].tolist() == [5, 6, 7], "after what raised the alert"


@pytest.mark.parametrize(
    ("kind", "known", "unusual", "text"),
    [
        ("customer", 1, 2, "this customer had 1 confirmed fraud and 2 unusual payments in 30 days "
                           "and is 82% likely to be compromised"),
        ("device_id", 0, 1, "this device had 1 unusual payment in 30 days and is 82% likely to be "
                            "compromised"),
        ("card", 0, 0, "this card is 82% likely to be compromised"),
    ],
)  # fmt: skip
def test_each_kind_of_key_is_told_in_words(kind, known, unusual, text):
    suspicion = a_suspicion(kind=kind, confirmed=np.array([known]), unusual=np.array([unusual]))

    reasons, _ = beside(suspicions=[suspicion])

    assert text in reasons.text.tolist()


def test_a_key_that_is_hardly_suspected_is_no_reason_in_the_sentence():
    told = {
        p: beside(suspicions=[a_suspicion(nats=np.array([9.0]), posterior=np.array([p]))])[1]
        for p in (0.04, 0.06)
    }

    assert "compromised" not in told[0.04] and "compromised" in told[0.06]


def test_a_row_without_the_key_has_no_line_about_it():
    reasons, _ = beside(suspicions=[a_suspicion(nats=np.array([np.nan]))])

    assert reasons.feature.tolist() == ["amount_ratio", "km", "latent"]


@pytest.mark.parametrize(
    ("probability", "text"), [(0.0, "under 1%"), (0.5, "50%"), (0.994, "99%"), (1.0, "over 99%")]
)
def test_a_probability_is_never_told_as_certain(probability, text):
    assert chances(probability) == text


# --- the amount that would have been harmless ---------------------------------------------------


def of_amount(frame: pd.DataFrame) -> np.ndarray:
    """An anomaly score that grows with the amount, and is high for tiny ones of some rows."""
    ratio = frame.amount_ratio.to_numpy()
    return np.where(frame.fussy & (ratio < 0.5), 99.0, np.where(np.isnan(ratio), 99.0, ratio))


def test_the_turning_point_is_where_the_score_meets_the_level():
    frame = pd.DataFrame(
        {
            "amount_ratio": [20.0, 7.0, 6.9, 5000.0, 1e6, np.nan, 20.0],
            "amount_relative": 1.0,
            "fussy": [False] * 6 + [True],
        }
    )

    found = turning_point(frame, lambda changed, _at: of_amount(changed), 7.0)

    least, most = found.T
    at = [0, 1, 3, 4, 6]
    assert most[at] == pytest.approx(7 / frame.amount_ratio[at], rel=1e-3)
    assert np.isnan(found[[2, 5]]).all(), "no alert, no amount"
    assert (least[at[:4]] == 0).all() and 0.5 <= 20 * least[6] < 7, "tiny ones of it are raised"
    assert (of_amount(frame.assign(amount_ratio=frame.amount_ratio * most))[at] < 7).all()


def test_what_else_speaks_for_a_row_is_its_own_at_each_amount():
    frame = pd.DataFrame({"amount_ratio": [20.0] * 3, "amount_relative": 1.0, "fussy": False})
    beside = np.array([0.0, 4.0, 7.0])

    found = turning_point(frame, lambda changed, at: of_amount(changed) + beside[at], 7.0)

    assert found[:2, 1] * 20 == pytest.approx([7, 3], rel=1e-3)
    assert np.isnan(found[2]).all()


def test_so_many_amounts_are_looked_at_at_once_and_no_more(monkeypatch):
    frame = pd.DataFrame({"amount_ratio": [20.0, 30.0, 40.0], "amount_relative": 1.0})
    looked_at = []

    def score(changed: pd.DataFrame, at: np.ndarray) -> np.ndarray:
        looked_at.append(len(changed))
        return changed.amount_ratio.to_numpy() / frame.amount_ratio.to_numpy()[at]

    together = turning_point(frame, score, 0.5)
    monkeypatch.setattr(explanations, "AT_ONCE", 5)
    looked_at.clear()

    np.testing.assert_array_equal(turning_point(frame, score, 0.5), together)
    assert max(looked_at) == 5


def test_the_harmless_amount_is_rounded_down_and_told_once_beside_the_leading_amount():
    rows = pd.DataFrame({"amount": [900.0, -900.0, 900.0, 900.0, -900.0], "currency": "EUR"})
    frame = pd.DataFrame({"amount_ratio": [40.0] * 5, "amount_relative": 45.0}).assign(
        own_amount_median=100.0
    )
    surprise = Surprise(
        names=["amount_ratio", "amount_relative", "latent"],
        focal=(RATIO, RELATIVE),
        parts=np.array([[9.0, 8.0, 0.0]] * 5),
        baseline={"amount_ratio": 0.0, "amount_relative": 0.0, "latent": 0.0},
        expected=np.array([[[0.5, 2.0], [0.5, 2.0]]] * 5),
        levels={},
    )
    turning = np.array([[0, 310.9], [0, 4.567], [np.nan] * 2, [0.1234, 310.9], [12.3, 50]]) / 900

    reasons, summaries = explain(rows, frame, surprise, REFERENCE, turning=turning)

    told = reasons[reasons.text.str.contains("raised")]
    assert told[["row", "rank"]].to_numpy().tolist() == [[0, 1], [1, 1], [3, 1], [4, 1]]
    assert told.text.iloc[0].endswith("; it would not have been raised below 310 EUR")
    assert summaries[0].endswith(" It would not have been raised below 310 EUR.")
    assert summaries[1].endswith(" It would not have been raised above -4.56 EUR.")
    assert "raised" not in summaries[2]
    assert summaries[3].endswith(" It would not have been raised below 310 EUR, down to 0.13.")
    assert summaries[4].endswith(" It would not have been raised above -50 EUR, up to -13.")


# --- a real density -----------------------------------------------------------------------------

FEATURES = (
    RATIO,
    KM,
    Feature("speed", "continuous", "focal", "", "speed"),
    CHANNEL,
    Feature("habit", "continuous", "context", "", "what the speed follows"),
    Feature("home", "continuous", "context", "", "what the distance follows"),
    Feature("way", "category", "context", "", "what the channel follows"),
)


def payments(rows: int, seed: int) -> pd.DataFrame:
    """Each focal feature but the amount follows a context of its own closely."""
    generator = np.random.default_rng(seed)
    habit, home = generator.uniform(10, 90, (2, rows))
    way = generator.choice([f"w{level}" for level in range(12)], rows)
    return pd.DataFrame(
        {
            "amount_ratio": generator.gamma(2, 1, rows),
            "km": home + generator.normal(0, 0.5, rows),
            "speed": habit + generator.normal(0, 0.5, rows),
            "channel": np.char.replace(way.astype("str"), "w", "c"),
            "habit": habit,
            "home": home,
            "way": way,
            "own_amount_median": 100.0,
        }
    )


@pytest.fixture(scope="module")
def fitted() -> Iterator[Detector]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(detector, "STEPS", (400, 400))
        yield detector.fit(
            payments(4000, 0), payments(1000, 1), FEATURES, REFERENCE, (100, 200, 7),
            np.random.default_rng(0),
        )[0]  # fmt: skip


def scores(found: Detector, frame: pd.DataFrame) -> np.ndarray:
    return found.surprise(found.score(frame))


def reasons_of(
    found: Detector, frame: pd.DataFrame, turning: np.ndarray | None = None
) -> tuple[pd.DataFrame, list[str]]:
    surprise = Surprise(
        names=found.names,
        focal=found.focal,
        parts=found.score(frame).surprise,
        baseline=found.baseline,
        expected=found.expected(frame, QUANTILES),
        levels=found.levels(frame),
    )
    rows = pd.DataFrame({"amount": frame.amount_ratio * 22, "currency": "EUR"})
    return explain(rows, frame, surprise, REFERENCE, turning=turning)


@pytest.mark.parametrize("column", ["km", "speed", "channel"])
def test_a_shuffled_column_comes_first_in_nine_of_ten_rows(fitted, column):
    frame = payments(300, 2)
    shuffled = np.random.default_rng(3).permutation(frame[column].to_numpy())

    reasons, _ = reasons_of(fitted, frame.assign(**{column: shuffled}))

    moved = (shuffled != frame[column]).to_numpy()
    first = reasons[reasons["rank"] == 1].feature.to_numpy()
    assert (first[moved] == column).mean() > 0.9


def test_the_lines_of_a_real_density_sum_to_minus_its_log_likelihood(fitted):
    frame = payments(50, 4)

    reasons, _ = reasons_of(fitted, frame)

    sums = reasons.groupby("row").contribution.sum().to_numpy()
    assert sums == pytest.approx(-fitted.score(frame).log_likelihood, abs=1e-5)


def test_expected_ranges_follow_the_context_and_hold_nine_in_ten(fitted):
    frame = payments(400, 5)

    reasons, _ = reasons_of(fitted, frame)

    km = reasons[reasons.feature == "km"].sort_values("row")
    inside = (km.value_number >= km.expected_low) & (km.value_number <= km.expected_high)
    assert 0.8 < inside.mean() <= 1
    assert np.corrcoef(km.expected_low, frame.home)[0, 1] > 0.99


def test_a_harmless_amount_is_under_the_level_when_it_is_scored(fitted):
    level = float(np.quantile(scores(fitted, payments(1000, 6)), 0.99))
    frame = payments(60, 7).assign(amount_ratio=np.linspace(1, 300, 60))

    _, turning = turning_point(frame, lambda changed, _at: scores(fitted, changed), level).T

    raised = scores(fitted, frame) >= level
    there = ~np.isnan(turning)
    assert not there[~raised].any() and there.mean() > 0.8
    again = frame.assign(amount_ratio=frame.amount_ratio * turning)[there]
    assert (scores(fitted, again) < level).all()
    above = frame.assign(amount_ratio=frame.amount_ratio * turning * 1.001)[there]
    assert (scores(fitted, above) >= level).all()
