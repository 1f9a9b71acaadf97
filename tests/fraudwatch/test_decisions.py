"""Calibration, alerts and cases: against counting, brute force and the laws they promise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fraudwatch.decisions import Calibration, cases, decide, gate, natural_id
from shared.frames import MICROSECONDS_PER_DAY as DAY

SINCE, UNTIL = 100 * DAY, 128 * DAY


def a_calibration(surprise: np.ndarray, days: int = 28) -> Calibration:
    return Calibration(np.sort(np.asarray(surprise, float)), {}, SINCE, UNTIL, days)


def drawn(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(3, 2, rows)


# --- p-values -----------------------------------------------------------------------------------


def test_a_p_value_is_the_counted_share_of_rows_at_least_as_surprising():
    known, new = drawn(200), drawn(50, seed=1)

    found = a_calibration(known).p_value(-new, np.full(50, UNTIL))

    expected = [(1 + sum(known >= s)) / 201 for s in new]
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_row_of_the_calibration_window_is_left_out_of_its_own_comparison():
    known = drawn(200)

    found = a_calibration(known).p_value(-known, np.full(200, SINCE))

    expected = [(1 + sum(np.delete(known, i) >= s)) / 200 for i, s in enumerate(known)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_calibration_window_is_half_open():
    calibration = a_calibration(drawn(9))
    at = np.array([SINCE - 1, SINCE, UNTIL - 1, UNTIL])

    found = calibration.p_value(np.full(4, -1e6), at)

    assert found == pytest.approx([1 / 10, 1 / 9, 1 / 9, 1 / 10])


@pytest.mark.parametrize("level", [0.01, 0.05, 0.1, 0.5])
def test_p_values_of_exchangeable_rows_are_super_uniform(level):
    generator = np.random.default_rng(3)
    below = []
    for _ in range(400):
        rows = np.round(generator.gamma(3, 2, 60), 1)  # with ties
        below.append(a_calibration(rows[1:]).p_value(-rows[:1], np.array([UNTIL]))[0] <= level)

    assert np.mean(below) <= level + 3 * np.sqrt(level * (1 - level) / 400)


@pytest.mark.parametrize("noise", [-1e-9, 0.0, 1e-9])
def test_the_rounding_of_another_batch_changes_no_p_value_and_no_alert(noise):
    known = drawn(1000)
    calibration = a_calibration(known)
    exact = calibration.p_value(-known, np.full(1000, SINCE))
    level = calibration.entry_level(1)

    shaken = calibration.p_value(-known - noise, np.full(1000, SINCE))

    assert shaken == pytest.approx(exact, abs=1e-12)
    assert sum(calibration.anomaly_score(-known - noise) >= level) == 42


# --- scores -------------------------------------------------------------------------------------


def test_the_anomaly_score_rises_strictly_with_the_surprise():
    calibration = a_calibration(drawn(500))
    surprise = np.linspace(calibration.surprise[0], calibration.surprise[-1] * 3, 5000)

    scores = calibration.anomaly_score(-surprise)

    assert (np.diff(scores) > 0).all()
    assert scores[0] == 0


def test_the_anomaly_score_has_no_step_where_the_tail_begins():
    calibration = a_calibration(drawn(500))
    around = calibration.start + np.array([-1e-7, 0.0, 1e-7])

    scores = calibration.anomaly_score(-around)

    assert scores == pytest.approx([scores[1]] * 3, abs=1e-4)


def test_the_anomaly_score_of_a_calibration_row_is_minus_the_log_of_its_share():
    known = np.sort(drawn(300))
    calibration = a_calibration(known)
    inside = known[known <= calibration.start]

    expected = [-np.log((1 + sum(known >= s)) / 301) for s in inside]
    assert calibration.anomaly_score(-inside) == pytest.approx(expected, abs=1e-12)


def test_beyond_the_tails_start_the_score_grows_by_one_per_mean_excess():
    known = np.sort(drawn(1000))
    calibration = a_calibration(known)
    excess = known[-10:].mean() - known[-10]

    low, high = calibration.anomaly_score(-np.array([known[-10], known[-10] + 5 * excess]))

    assert high - low == pytest.approx(5)


@pytest.mark.parametrize(("reviews", "days"), [(1, 28), (5, 28), (2, 7)])
def test_the_calibration_rows_pass_the_entry_level_three_halves_of_the_budget(reviews, days):
    known = drawn(2000)
    calibration = a_calibration(known, days)

    raised = calibration.anomaly_score(-known) >= calibration.entry_level(reviews)

    assert raised.sum() == round(1.5 * reviews * days)


def test_tied_rows_at_the_entry_level_are_raised_together():
    calibration = a_calibration(np.array([1.0] * 50 + [2.0] * 100 + [3.0] * 10), days=10)

    raised = calibration.anomaly_score(-calibration.surprise) >= calibration.entry_level(1)

    assert raised.sum() == 110


@pytest.mark.parametrize(
    "known", [np.array([2.0]), np.full(80, 2.0), np.array([1.0, 2.0, 3.0])], ids=str
)
def test_few_rows_and_equal_rows_still_give_finite_scores(known):
    calibration = a_calibration(known)
    asked = np.array([0.0, 2.0, 5.0, 1e9])

    scores = calibration.anomaly_score(-asked)
    p_values = calibration.p_value(-asked, np.full(4, UNTIL))

    assert np.isfinite(scores).all() and (np.diff(scores) >= 0).all()
    assert scores[-1] > scores[-2], "what was never seen is told apart"
    assert ((p_values > 0) & (p_values <= 1)).all()
    assert np.isfinite(calibration.entry_level(20)), "a budget beyond the rows raises them all"


# --- alerts and cases ---------------------------------------------------------------------------


def test_rows_at_the_level_are_raised_in_order_of_time_and_id():
    scores = pd.DataFrame(
        {
            "transaction_id": [3, 1, 2, 9],
            "occurred_at": [5, 5, 4, 1],
            "anomaly_score": [7.0, 8.0, 6.0, 5.9],
        }
    )

    assert decide(scores, 6.0).transaction_id.tolist() == [2, 1, 3]


def an_alert(transaction: int, day: float, customer=7, counterparty=5) -> dict:
    return {
        "transaction_id": transaction,
        "customer_id": customer,
        "counterparty_id": counterparty,
        "occurred_at": int(day * DAY),
    }


def in_cases(*alerts: dict, earlier: pd.DataFrame | None = None, days: int = 7) -> pd.DataFrame:
    columns = ["transaction_id", "customer_id", "counterparty_id", "occurred_at"]
    frame = pd.DataFrame(list(alerts), columns=columns)
    frame = frame.astype({"customer_id": "Int64", "counterparty_id": "Int64"})
    before = frame.iloc[:0].assign(case_id="") if earlier is None else earlier
    return frame.assign(case_id=cases(frame, before, days))


def test_a_case_goes_on_while_each_alert_is_within_case_days_of_the_one_before():
    found = in_cases(an_alert(1, 0), an_alert(2, 7), an_alert(3, 14), an_alert(4, 21.1))

    assert found.case_id.nunique() == 2
    assert found.case_id[:3].nunique() == 1


def test_customers_have_cases_of_their_own():
    found = in_cases(an_alert(1, 0), an_alert(2, 0, customer=8), an_alert(3, 1))

    assert found.case_id[0] == found.case_id[2] != found.case_id[1]


def test_without_a_customer_the_counterparty_stands_for_it():
    found = in_cases(an_alert(1, 0, customer=None), an_alert(2, 1, customer=None), an_alert(3, 2))

    assert found.case_id[0] == found.case_id[1] != found.case_id[2]


def test_without_both_an_alert_is_a_case_of_its_own():
    alone = {"customer": None, "counterparty": None}

    found = in_cases(an_alert(1, 0, **alone), an_alert(2, 0, **alone))

    assert found.case_id.nunique() == 2


def test_a_late_alert_joins_the_case_before_it_rather_than_the_one_after():
    earlier = in_cases(an_alert(1, 0), an_alert(2, 10))
    assert earlier.case_id.nunique() == 2

    assert in_cases(an_alert(3, 5), earlier=earlier).case_id[0] == earlier.case_id[0]
    assert in_cases(an_alert(4, 8), earlier=earlier).case_id[0] == earlier.case_id[1]


ALERTS = st.lists(
    st.tuples(st.integers(0, 40), st.sampled_from([1, 2, None]), st.sampled_from([5, 6, None])),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(ALERTS, st.sets(st.integers(0, 25)))
def test_cases_are_the_same_whatever_the_batches(alerts, cuts):
    rows = [an_alert(at, *row) for at, row in enumerate(alerts)]
    rows.sort(key=lambda row: (row["occurred_at"], row["transaction_id"]))
    together = in_cases(*rows)

    apart = together.iloc[:0]
    edges = [0, *sorted(cut for cut in cuts if cut < len(rows)), len(rows)]
    for start, end in pairwise(edges):
        found = in_cases(*rows[start:end], earlier=apart)
        apart = pd.concat([apart, found]) if len(apart) else found

    assert apart.case_id.tolist() == together.case_id.tolist()


@settings(max_examples=40, deadline=None)
@given(ALERTS)
def test_cases_are_the_chains_of_each_owner(alerts):
    rows = [an_alert(at, *row) for at, row in enumerate(alerts)]
    rows.sort(key=lambda row: (row["occurred_at"], row["transaction_id"]))
    found = in_cases(*rows)

    last: dict[tuple, tuple[int, str]] = {}
    for row in found.to_dict("records"):
        customer, counterparty = row["customer_id"], row["counterparty_id"]
        owner = ("c", customer) if not pd.isna(customer) else ("p", counterparty)
        if pd.isna(owner[1]):
            owner = ("t", row["transaction_id"])
        before = last.get(owner)
        near = before is not None and row["occurred_at"] - before[0] <= 7 * DAY
        assert near == (before is not None and before[1] == row["case_id"])
        last[owner] = (row["occurred_at"], row["case_id"])


def test_ids_are_functions_of_natural_keys():
    assert natural_id("alert", 42) == "alert-bd4932d96e4bb388f587", "the same in every release"
    assert natural_id("alert", "a", "bc") != natural_id("alert", "ab", "c")


# --- the gate -----------------------------------------------------------------------------------


def figures(**changes: float) -> dict:
    usual = {
        "finite": True,
        "held_out_share": 0.01,
        "expected_share": 0.01,
        "held_out_rows": 10_000,
        "common_log_likelihood": -2.0,
    }
    return usual | changes


@pytest.mark.parametrize(
    ("candidate", "passed"),
    [
        (figures(), True),
        (figures(finite=False), False),
        (figures(held_out_share=0.05), False),
        (figures(held_out_share=0.0), False),
        (figures(common_log_likelihood=-2.005), True),
        (figures(common_log_likelihood=-2.1), False),
        (figures(common_log_likelihood=float("nan")), False),
    ],
)
def test_the_gate_asks_for_finite_calibrated_and_not_less_likely(candidate, passed):
    found = gate(candidate, {"common_log_likelihood": -2.0})

    assert found["passed"] is passed
    assert len(found["checks"]) == 3
