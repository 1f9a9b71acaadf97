"""Calibration, alerts and cases: against counting, brute force and the laws they promise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control
from scipy.stats import t as student

from fraudwatch.decisions import (
    CALIBRATOR,
    DRIFT_LEVELS,
    FALSE_DRIFT,
    KNOWN_SHARE,
    Aspect,
    Calibration,
    Footing,
    SurpriseScale,
    answered,
    benjamini_hochberg,
    cases,
    cut_of,
    footing,
    gate,
    late_q_values,
    mixed,
    natural_id,
    raised,
    statistic_of,
)
from shared.frames import MICROSECONDS_PER_DAY as DAY

SINCE, UNTIL = 100 * DAY, 128 * DAY


def a_calibration(
    scores: np.ndarray, days: int = 28, frauds: np.ndarray | None = None
) -> Calibration:
    taken_out = np.empty(0) if frauds is None else np.sort(np.asarray(frauds, float))
    return Calibration(np.sort(np.asarray(scores, float)), taken_out, SINCE, UNTIL, days)


def a_scale(values: np.ndarray) -> SurpriseScale:
    return SurpriseScale.of(np.asarray(values, float))


def drawn(rows: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).gamma(3, 2, rows)


# --- p-values -----------------------------------------------------------------------------------


def test_a_p_value_is_the_counted_share_of_rows_at_least_as_anomalous():
    known, new = drawn(200), drawn(50, seed=1)

    found = a_calibration(known).p_value(new, np.full(50, UNTIL))

    expected = [(1 + sum(known >= s)) / 201 for s in new]
    assert found == pytest.approx(expected, abs=1e-12)


def test_a_row_of_the_calibration_window_is_left_out_of_its_own_comparison():
    known = drawn(200)

    found = a_calibration(known).p_value(known, np.full(200, SINCE))

    expected = [(1 + sum(np.delete(known, i) >= s)) / 200 for i, s in enumerate(known)]
    assert found == pytest.approx(expected, abs=1e-12)


def test_the_calibration_window_is_half_open():
    calibration = a_calibration(drawn(9))
    at = np.array([SINCE - 1, SINCE, UNTIL - 1, UNTIL])

    found = calibration.p_value(np.full(4, 1e6), at)

    assert found == pytest.approx([1 / 10, 1 / 9, 1 / 9, 1 / 10])


@pytest.mark.parametrize("level", [0.01, 0.05, 0.1, 0.5])
def test_p_values_of_exchangeable_rows_are_super_uniform(level):
    generator = np.random.default_rng(3)
    below = []
    for _ in range(400):
        rows = np.round(generator.gamma(3, 2, 60), 1)  # with ties
        below.append(a_calibration(rows[1:]).p_value(rows[:1], np.array([UNTIL]))[0] <= level)

    assert np.mean(below) <= level + 3 * np.sqrt(level * (1 - level) / 400)


@pytest.mark.parametrize("noise", [-1e-9, 0.0, 1e-9])
def test_the_rounding_of_another_batch_changes_no_p_value_and_no_alert(noise):
    known = drawn(1000)
    calibration = a_calibration(known)
    exact = calibration.p_value(known, np.full(1000, SINCE))
    level = calibration.entry_level(1)

    shaken = calibration.p_value(known + noise, np.full(1000, SINCE))

    assert shaken == pytest.approx(exact, abs=1e-12)
    assert sum(known + noise >= level) == 42


@pytest.mark.parametrize(("reviews", "days"), [(1, 28), (5, 28), (2, 7)])
def test_the_window_passes_the_entry_level_three_halves_of_the_budget(reviews, days):
    rows = drawn(2000)
    frauds = rows[:30] + 5

    level = a_calibration(rows[30:], days, frauds).entry_level(reviews)

    every = np.concatenate([rows[30:], frauds])
    assert (every >= level).sum() == round(1.5 * reviews * days), "frauds are rows of it too"


def test_tied_rows_at_the_entry_level_are_raised_together():
    rows = np.array([1.0] * 50 + [2.0] * 100 + [3.0] * 10)

    reached = rows >= a_calibration(rows, days=10).entry_level(1)

    assert reached.sum() == 110


def test_a_budget_beyond_the_rows_raises_them_all():
    assert (drawn(9) >= a_calibration(drawn(9)).entry_level(20)).all()


# --- the scale of surprises ---------------------------------------------------------------------


def test_calibrated_surprise_rises_strictly_with_surprise():
    scale = a_scale(drawn(500))
    surprise = np.linspace(scale.values[0], scale.values[-1] * 3, 5000)

    nats = scale.nats(surprise)

    assert (np.diff(nats) > 0).all()
    assert nats[0] == 0


def test_the_scale_has_no_step_where_the_tail_begins():
    scale = a_scale(drawn(500))
    around = scale.start + np.array([-1e-7, 0.0, 1e-7])

    nats = scale.nats(around)

    assert nats == pytest.approx([nats[1]] * 3, abs=1e-4)


def test_the_nats_of_a_row_of_the_scale_are_minus_the_log_of_its_share():
    known = np.sort(drawn(300))
    scale = a_scale(known)
    inside = known[known <= scale.start]

    expected = [-np.log((1 + sum(known >= s)) / 301) for s in inside]
    assert scale.nats(inside) == pytest.approx(expected, abs=1e-12)


def test_an_exponential_tail_goes_on_as_it_was():
    known = np.random.default_rng(0).exponential(2.0, 100_000)
    scale = a_scale(known)

    low, high = scale.nats(np.array([scale.start, scale.start + 20.0]))

    assert high - low == pytest.approx(20 / 2, rel=0.03)


def test_a_few_hidden_frauds_hardly_change_the_tail():
    known = np.random.default_rng(0).exponential(2.0, 100_000)
    hidden = np.concatenate([known, np.full(300, 500.0)])  # 0.3 %: mean excess 30 times as large

    clean, contaminated = (a_scale(rows).nats(np.array([40.0]))[0] for rows in (known, hidden))

    assert contaminated == pytest.approx(clean, rel=0.2)


def test_an_unknown_statistic_has_an_unknown_surprise():
    assert np.isnan(a_scale(drawn(50)).nats(np.array([np.nan, 1.0]))).tolist() == [True, False]


@pytest.mark.parametrize(
    "known", [np.array([2.0]), np.full(80, 2.0), np.array([1.0, 2.0, 3.0])], ids=str
)
def test_few_rows_and_equal_rows_still_give_finite_scores(known):
    asked = np.array([0.0, 2.0, 5.0, 1e9])

    nats = a_scale(known).nats(asked)
    p_values = a_calibration(known).p_value(asked, np.full(4, UNTIL))

    assert np.isfinite(nats).all() and (np.diff(nats) >= 0).all()
    assert nats[-1] > nats[-2], "what was never seen is told apart"
    assert ((p_values > 0) & (p_values <= 1)).all()


# --- the aspects of a surprise ------------------------------------------------------------------

EXACT = SurpriseScale.of(-np.log(1 - (np.arange(200_000) + 0.5) / 200_000))  # nats of s are s
TOGETHER = {  # two p-values, each uniform, of u, 1 - u and an independent v
    "independent": lambda u, rest, v: (u, v),
    "the same": lambda u, rest, v: (u, u),
    "opposed": lambda u, rest, v: (u, rest),
}


def two_aspects(scale: SurpriseScale) -> tuple[Aspect, Aspect]:
    """Of a column each, and the last part in both."""
    return Aspect("first", (0, 2), 0.3, scale), Aspect("second", (1, 2), 0.7, scale)


def ratios(p_values: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What the mixture makes of the p-values of two aspects, as a likelihood ratio."""
    parts = np.column_stack([*(-np.log(p) for p in p_values), np.zeros(len(p_values[0]))])
    return CALIBRATOR * np.exp(mixed(parts, two_aspects(EXACT)))


@pytest.mark.parametrize("together", TOGETHER.values(), ids=list(TOGETHER))
def test_the_mean_of_a_mixture_of_calibrated_p_values_is_one(together):
    """By Gauss's rule: half of the mean lies where p is below 0.001, and few draws do.

    On each half u or 1 - u is w ** 10 / 2, in which the calibrator's density is an even one.
    """
    nodes, weights = np.polynomial.legendre.leggauss(60)
    w = (nodes + 1) / 2
    end, mass = w**10 / 2, weights / 2 * 5 * w**9
    u, rest, mass = (
        np.concatenate(parts) for parts in ((end, 1 - end), (1 - end, end), (mass,) * 2)
    )
    i, j = (axis.ravel() for axis in np.indices((120, 120)))

    mean = (mass[i] * mass[j]) @ ratios(together(u[i], rest[i], u[j]))

    assert mean == pytest.approx(1.0, abs=0.01)


@pytest.mark.parametrize("together", TOGETHER.values(), ids=list(TOGETHER))
def test_a_mixture_is_as_high_as_t_at_most_once_in_t(together):
    u, v = np.random.default_rng(0).random((2, 200_000))

    found = ratios(together(u, 1 - u, v))

    for least in (2, 5, 20, 100):
        error = np.sqrt(1 / least / len(u))
        assert np.mean(found >= least) <= 1 / least + 3 * error  # Markov (1890)


def test_a_single_aspect_ranks_as_the_joint_surprise_does():
    parts = np.random.default_rng(1).gamma(2, 1, (500, 4))
    every = (0, 1, 2, 3)
    aspect = Aspect("other", every, 1.0, SurpriseScale.of(statistic_of(parts, every)))

    found = mixed(parts, [aspect])

    assert np.array_equal(np.argsort(found), np.argsort(parts.sum(1)))
    assert found == pytest.approx((1 - CALIBRATOR) * aspect.scale.nats(parts.sum(1)), abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 400), min_size=3, max_size=3), st.integers(0, 2), st.floats(1e-3, 99))
def test_a_mixture_rises_with_each_part_and_lies_between_its_aspects(parts, at, more):
    row, changed = np.array([parts]), np.array([parts])
    changed[0, at] += more
    aspects = two_aspects(a_scale(drawn(500)))

    single = [mixed(row, [aspect])[0] for aspect in aspects]  # the log of its weight among it
    found, higher = (mixed(each, aspects)[0] for each in (row, changed))

    assert higher >= found
    assert max(single) <= found <= max(single) + np.log(2)


def of_columns(generator: np.random.Generator, rows: int) -> np.ndarray:
    """(rows, 12) -log densities of standard normals: an amount, ten columns of noise, no latent."""
    return np.column_stack([generator.normal(size=(rows, 11)) ** 2 / 2, np.zeros(rows)])


@pytest.mark.parametrize("size", [3.5, 4.0, 5.0])
def test_columns_that_say_nothing_do_not_drown_an_extreme_amount(size):
    generator = np.random.default_rng(2)
    known, rows = of_columns(generator, 5000), of_columns(generator, 5000)
    rows[:50, 0] = size**2 / 2
    groups = {"amount": (0,), "other": tuple(range(1, 11))}
    aspects = [
        Aspect(name, at, 0.5, SurpriseScale.of(statistic_of(known, at)))
        for name, at in groups.items()
    ]

    apart, joint = mixed(rows, aspects), rows.sum(1)

    ahead = [(score[50:, None] >= score[:50]).sum(0).mean() for score in (apart, joint)]
    assert ahead[0] < ahead[1] / 4, "normal rows that are read before a planted one"


def test_a_wide_latent_does_not_drown_an_amount_that_no_latent_explains():
    generator = np.random.default_rng(3)
    known, rows = (
        np.column_stack([generator.normal(size=5000) ** 2 / 2, generator.gamma(1, 4, 5000)])
        for _ in range(2)
    )
    rows[:50, 0] = 4.5**2 / 2
    amount, misfit = (
        Aspect(name, at, weight, SurpriseScale.of(statistic_of(known, at)))
        for name, at, weight in (("amount", (0, 1), 0.98), ("misfit", (0,), 0.02))
    )

    with_it, without = mixed(rows, [amount, misfit]), mixed(rows, [amount])

    ahead = [(score[50:, None] >= score[:50]).sum(0).mean() for score in (with_it, without)]
    assert ahead[0] < ahead[1] / 4, "normal rows that are read before a planted one"


def test_an_aspect_says_no_more_than_its_most():
    known, rows = np.random.default_rng(4).exponential(size=(5000, 1)), np.array([[3.0], [90.0]])
    scale = SurpriseScale.of(statistic_of(known, (0,)))
    free, capped = (Aspect("misfit", (0,), 1.0, scale, most) for most in (None, 12.0))

    assert capped.nats(rows).tolist() == [free.nats(rows)[0], 12.0]
    assert free.nats(rows)[1] > 60


# --- q-values -----------------------------------------------------------------------------------

P_VALUES = st.lists(st.integers(1, 60), min_size=1, max_size=40).map(lambda k: np.array(k) / 60)


@settings(max_examples=60, deadline=None)
@given(P_VALUES)
def test_q_values_are_those_of_scipy(p_values):
    q_values = benjamini_hochberg(p_values)

    assert q_values == pytest.approx(false_discovery_control(p_values))
    assert (q_values >= p_values).all(), "not even by a rounding below"


@settings(max_examples=60, deadline=None)
@given(P_VALUES)
def test_q_values_of_counted_p_values_are_those_of_the_rows(p_values):
    each, counts = np.unique(p_values, return_counts=True)

    found = benjamini_hochberg(each, counts)

    whole = dict(zip(p_values, benjamini_hochberg(p_values), strict=True))
    assert found == pytest.approx([whole[value] for value in each], abs=0)


def test_no_rows_have_no_q_values_and_no_cut():
    assert benjamini_hochberg(np.empty(0)).shape == (0,)
    assert cut_of(np.empty(0), np.empty(0), 0.5) is None


@settings(max_examples=60, deadline=None)
@given(P_VALUES, st.sampled_from([0.05, 0.2, 0.7]))
def test_the_cut_is_the_largest_p_value_that_the_step_up_procedure_rejects(p_values, rate):
    ordered = np.sort(p_values)
    passing = [p for k, p in enumerate(ordered, 1) if p <= rate * k / len(ordered) * (1 + 1e-12)]

    found = cut_of(p_values, benjamini_hochberg(p_values) * (1 - 1e-12), rate)

    assert found == (max(passing) if passing else None)
    assert cut_of(p_values, benjamini_hochberg(p_values), None) is None


@settings(max_examples=60, deadline=None)
@given(P_VALUES, st.floats(1e-6, 1), st.sampled_from([0.05, 0.2, 0.7]), st.integers(0, 40))
def test_a_late_q_value_is_under_the_rate_exactly_up_to_the_cut(p_values, late, rate, stored):
    q_values = benjamini_hochberg(p_values)
    cut = cut_of(p_values, q_values, rate)
    alerts = np.argsort(p_values)[:stored]  # what was raised

    found = late_q_values(np.array([late]), (p_values[alerts], q_values[alerts]), cut, rate)[0]

    assert (found <= rate) == (cut is not None and late <= cut)
    above = q_values[p_values >= late]
    assert found >= (above.min() if len(above) else 1.0) - 1e-12, "never better than the day's own"


def planted(generator: np.random.Generator, anomalies: int) -> tuple[np.ndarray, np.ndarray]:
    """(conformal p-values, whether genuine) of 600 normal rows and some anomalies."""
    calibration = a_calibration(generator.normal(size=3000))
    rows = np.concatenate([generator.normal(size=600), generator.normal(4, 1, anomalies)])
    p_values = calibration.p_value(rows, np.full(len(rows), UNTIL))
    return p_values, np.arange(len(rows)) < 600


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
def test_the_mean_share_of_false_alerts_is_at_most_the_asked_rate(rate):
    generator = np.random.default_rng(5)
    shares, found = [], []
    for _ in range(200):
        p_values, genuine = planted(generator, anomalies=40)
        under = benjamini_hochberg(p_values) <= rate
        shares.append(genuine[under].mean() if under.any() else 0.0)
        found.append((under & ~genuine).sum() / 40)

    error = np.std(shares) / np.sqrt(len(shares))
    assert np.mean(shares) <= rate + 2 * error
    assert np.mean(found) > 0.5, "and most anomalies are found"


def test_days_without_an_anomaly_raise_something_no_oftener_than_asked():
    generator = np.random.default_rng(6)

    some = [
        (benjamini_hochberg(planted(generator, anomalies=0)[0]) <= 0.2).any() for _ in range(300)
    ]

    assert np.mean(some) <= 0.2 + 2 * np.sqrt(0.2 * 0.8 / 300)


def test_a_confirmed_fraud_in_the_calibration_window_does_not_silence_the_alarms():
    generator = np.random.default_rng(7)
    normal, frauds = generator.normal(size=3000), generator.normal(8, 1, 60)
    rows = np.concatenate([generator.normal(size=600), generator.normal(8, 1, 10)])
    at = np.full(len(rows), UNTIL)

    silenced = a_calibration(np.concatenate([normal, frauds])).p_value(rows, at)
    freed = a_calibration(normal).p_value(rows, at)  # the frauds are confirmed and taken out

    assert not (benjamini_hochberg(silenced) <= 0.1).any()
    assert (benjamini_hochberg(freed) <= 0.1)[600:].all()


# --- days with their answers ----------------------------------------------------------------------


def days_of_answers(shares: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(scores, days, known) of days with ten rows each that a budget of ten shows, and ten below
    it of which nothing is known; known is this share of the ten."""
    scores = np.tile(np.concatenate([np.full(10, 2.0), np.ones(10)]), len(shares))
    days = np.repeat(np.arange(len(shares)) + 500, 20)
    known = np.full(len(days), -1)
    for at, share in enumerate(shares):
        known[20 * at : 20 * at + round(10 * share)] = 0
    return scores, days, known


def test_days_without_answers_are_left_out_where_seven_others_have_them():
    scores, days, known = days_of_answers([KNOWN_SHARE] * 6 + [KNOWN_SHARE - 0.1, 1.0, 0.0])

    used = answered(scores, days, known, reviews_per_day=10)

    assert np.unique(days[used]).tolist() == [500, 501, 502, 503, 504, 505, 507]
    assert used.sum() == 7 * 20, "the rows below the budget stay with their day"


@pytest.mark.parametrize("answers", range(7))
def test_fewer_than_seven_days_with_answers_leave_all_rows(answers):
    scores, days, known = days_of_answers([1.0] * answers + [0.0] * 12)

    assert answered(scores, days, known, reviews_per_day=10).all()


def test_answers_below_the_budget_do_not_count():
    scores, days, known = days_of_answers([1.0] * 8)
    hidden = np.where(scores == 2.0, -1, 0)
    first = days == 500

    used = answered(scores, days, np.where(first, hidden, known), reviews_per_day=10)

    assert np.array_equal(used, ~first)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8))
def test_the_order_of_rows_is_of_no_account_to_their_answers(seed, reviews):
    generator = np.random.default_rng(seed)
    scores, days = generator.permutation(300) * 0.1, generator.integers(0, 12, 300)
    known = generator.choice([-1, 0, 1], 300, p=[0.2, 0.7, 0.1])
    order = generator.permutation(300)

    found = answered(scores[order], days[order], known[order], reviews)

    assert np.array_equal(found, answered(scores, days, known, reviews)[order])


# --- what a promise rests on --------------------------------------------------------------------


def a_footing(days: int = 28, rows: int = 400, seed: int = 0) -> Footing:
    """Of uniform p-values, so many a day."""
    p_values = np.random.default_rng(seed).random(days * rows)
    return footing(p_values, np.repeat(np.arange(days), rows), np.zeros(days * rows, int), 5)


def drift_of(p_values: np.ndarray, of: Footing) -> float:
    found = of.drift(p_values, np.ones(len(p_values), int))
    assert found is not None
    return found


def test_a_footing_holds_the_mean_and_the_spread_of_the_days_shares():
    generator = np.random.default_rng(1)
    p_values, days = generator.random(900), np.sort(generator.integers(0, 9, 900))

    found = footing(p_values, days, np.zeros(900, int), 5)

    shares = np.array([[(p_values[days == d] <= level).mean() for level in DRIFT_LEVELS]
                       for d in range(9)])  # fmt: skip
    assert found.shares == pytest.approx(shares.mean(axis=0))
    assert found.spread == pytest.approx(shares.std(axis=0, ddof=1))
    assert found.days == 9
    assert Footing.from_json(found.to_json()) == found


def test_what_is_known_is_counted_among_the_rows_that_each_days_budget_shows():
    p_values = np.array([0.5, 0.1, 0.2, 0.9, 0.3, 0.05, 0.4])
    days = np.array([0, 0, 0, 0, 1, 1, 2])
    known = np.array([1, 0, -1, 1, -1, 1, 0])

    found = footing(p_values, days, known, reviews_per_day=2)

    # shown: 0.1 (known) and 0.2 (not) of the first day, both of the second, one of the third
    assert found.known_share == pytest.approx(3 / 5)
    assert found.frauds_removed == 3


@pytest.mark.parametrize("rows", [30, 400, 5000])
def test_the_days_of_a_steady_feed_do_not_drift(rows):
    generator = np.random.default_rng(2)
    steady = [a_footing(rows=rows, seed=seed) for seed in range(15)]

    found = [drift_of(generator.random(rows), one) / one.drift_limit
             for one in steady for _ in range(40)]  # fmt: skip

    assert max(found) < 1


def test_a_shift_of_the_p_values_is_a_drift_either_way():
    of = a_footing(rows=2000)
    p_values = np.random.default_rng(3).random(2000)

    assert drift_of(p_values**1.3, of) > of.drift_limit
    assert drift_of(p_values ** (1 / 1.3), of) > of.drift_limit
    assert drift_of(p_values, of) < of.drift_limit


def test_the_limit_grows_where_few_days_are_known():
    limits = [a_footing(days=days).drift_limit for days in (7, 14, 28)]

    tail = FALSE_DRIFT / 2 / len(DRIFT_LEVELS)
    assert limits == pytest.approx([student.isf(tail, days - 1) for days in (7, 14, 28)])
    assert limits == sorted(limits, reverse=True)


def test_frauds_of_the_usual_number_are_no_drift():
    generator = np.random.default_rng(4)
    frauds = np.full((28, 60), 1e-4)  # three in a hundred, taken out of the calibration itself
    each = np.concatenate([generator.random((28, 1940)), frauds], axis=1)
    of = footing(each.ravel(), np.repeat(np.arange(28), 2000), np.ones(each.size, int), 5)

    today = np.concatenate([generator.random(1940), frauds[0]])

    assert drift_of(today, of) < of.drift_limit


def test_where_nothing_can_be_told_there_is_no_drift_and_no_promise():
    few = a_footing(days=6)

    assert few.drift(np.array([0.5]), np.array([1])) is None
    assert "has 6 days; 7 are needed" in str(few.weakness())
    assert a_footing().drift(np.empty(0), np.empty(0, int)) is None
    assert a_footing().weakness() is None, "what is genuine is known too"


def test_a_calibration_with_few_answers_is_weak():
    known = np.full(2800, -1)
    p_values = np.random.default_rng(0).random(2800)

    found = footing(p_values, np.repeat(np.arange(28), 100), known, 5)

    assert found.known_share == 0
    wanted = f"only 0% has a verdict or label; {KNOWN_SHARE:.0%} are needed"
    assert wanted in str(found.weakness())


# --- alerts and cases ---------------------------------------------------------------------------


def test_rows_at_the_level_are_raised_in_order_of_time_and_id():
    scores = pd.DataFrame(
        {
            "transaction_id": [3, 1, 2, 9],
            "occurred_at": [5, 5, 4, 1],
            "anomaly_score": [7.0, 8.0, 6.0, 5.9],
        }
    )

    assert scores.transaction_id.iloc[raised(scores, 6.0)].tolist() == [2, 1, 3]


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
